"""Methods on whole maps keep every contract, in Keras's words too; worked examples and identities of the literature."""

from __future__ import annotations

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from poolkit import HEADS, MAP_METHODS, MapMethod  # noqa: E402
from poolkit.check import check  # noqa: E402
from poolkit.map_check import MAP_CONTRACTS  # noqa: E402
from poolkit.map_method import Map, Weight  # noqa: E402
from poolkit.map_subject import MapSubject, maps  # noqa: E402
from poolkit.map_words import keras_map_words  # noqa: E402
from poolkit.torch import Head, MapPool2d, Pool2d, pool, pool_parameters  # noqa: E402

WHOLE_MAPS: dict[str, type[MapMethod]] = {**MAP_METHODS, **HEADS}


@pytest.mark.parametrize("contract", [c.name for c in MAP_CONTRACTS])
@pytest.mark.parametrize("name", WHOLE_MAPS)
def test_contract(name: str, contract: str) -> None:
    (result,) = check(WHOLE_MAPS[name], only=(contract,))
    assert result.passed, f"{name} · {contract}: {result.detail}"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's torch back end
@pytest.mark.parametrize("name", WHOLE_MAPS)
def test_a_formula_in_keras_equals_the_formula_in_torch(name: str) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    subject = MapSubject(WHOLE_MAPS[name]())
    tensor = keras.ops.convert_to_tensor
    for number, c in enumerate(subject.cases):
        layer, x, others = subject.layer(c), maps(c, number), subject.others(c)
        named = {n: tensor(v.numpy()) for n, v in zip(subject.method.takes, others, strict=True)}
        m = Map(tensor(x.numpy(), dtype="float64"), keras_map_words(), layer.window, **named)
        p = subject.method.values(**{n: tensor(v.detach().numpy()) for n, v in layer.learned().items()})
        for key, weight in layer.weights().items():
            setattr(p, key, tensor(weight.detach().numpy()))
        got, want = subject.method.pool(m, p), layer(x, *others).detach().numpy()
        got = np.broadcast_to(keras.ops.convert_to_numpy(got), want.shape)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * max(3, np.abs(want).max()), err_msg=str(c))


def test_a_window_method_is_no_map_method_and_the_errors_say_which_layer() -> None:
    with pytest.raises(TypeError, match=r"Pool2d\('max'"):
        MapPool2d("max")
    with pytest.raises(TypeError, match=r"Pool2d\('max'"):
        Head("max")
    with pytest.raises(ValueError, match="wants a window"):
        MapPool2d("blur")
    with pytest.raises(ValueError, match="start='glorot'"):
        Weight((1,), "glorot")


def test_pool2d_gives_the_map_layer_with_its_geometry() -> None:
    layer = Pool2d("blur", 3, stride=2, padding=1)
    assert isinstance(layer, MapPool2d) and layer.output_shape(5, 9, 8) == (5, 5, 4)
    assert "5×9×8 → 5×5×4" in str(layer.explain(torch.zeros(1, 5, 9, 8)))
    assert repr(layer) == "MapPool2d('blur', 3, stride=2, padding=1)"


def test_the_function_is_the_layer() -> None:
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(pool(x, "blur:taps=3", 2), Pool2d("blur:taps=3", 2)(x))
    with pytest.raises(ValueError, match="its inputs: none"):
        pool(x, "blur", 2, weight=torch.ones(3))


def test_blur_by_hand() -> None:
    """The corner of an identity matrix: (4 + 4) / 16 with reflection, where zeros would give (4 + 1) / 16."""
    x = torch.eye(5)[None, None]
    y = Pool2d("blur:taps=3", 3, 2, 1)(x)
    assert y[0, 0, 0, 0].item() == pytest.approx(0.5)
    assert Pool2d("blur:taps=1", 2)(torch.arange(16.0).reshape(1, 1, 4, 4)).flatten().tolist() == [0, 2, 8, 10]


def test_blur_never_fails_on_tiny_maps() -> None:
    for size in (1, 2, 3):
        x = torch.full((1, 2, size, size), 0.5)
        assert torch.equal(Pool2d("blur:taps=7", 1, 1)(x), x)


def test_a_net_with_a_map_pool_learns() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), Pool2d("blur", 2))
    net(torch.rand(2, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in net.parameters()) and not list(pool_parameters(net))
