"""Methods on whole maps keep every contract, in Keras's words too; worked examples and identities of the literature."""

from __future__ import annotations

import math
import os
import re
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from poolkit import HEADS, MAP_METHODS, MapMethod  # noqa: E402
from poolkit.check import check  # noqa: E402
from poolkit.map_check import MAP_CONTRACTS  # noqa: E402
from poolkit.map_method import Map, Weight  # noqa: E402
from poolkit.map_subject import MapSubject  # noqa: E402
from poolkit.map_words import keras_map_words  # noqa: E402
from poolkit.torch import Head, MapPool1d, MapPool2d, Pool2d, pool, pool_parameters  # noqa: E402

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

    def tensor(array: Any, dtype: str | None = None) -> Any:
        return keras.ops.convert_to_tensor(array, dtype=dtype or str(array.dtype))

    for number, c in enumerate(subject.cases):
        layer, others = subject.layer(c), subject.others(c)
        # Cells that float32 holds exactly: Keras adds segments in it, whatever the type.
        x = (subject.maps(c, number) * 1024).round() / 1024
        named = {n: tensor(v.numpy()) for n, v in zip(subject.method.takes, others, strict=False)}
        m = Map(tensor(x.numpy(), dtype="float64"), keras_map_words("float64"), layer.window, **named)
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
    assert repr(MapPool2d("ppm", channels=8)) == "MapPool2d('ppm', channels=8)"
    assert repr(Head("attention", 8, (4, 4))) == "Head('attention', channels=8, sizes=(4, 4))"


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


# Identities and examples of the literature.


def cells(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spelling", ["aps", "aps:norm=l1", "aps:norm=max,taps=3"])
def test_aps_is_equivariant_to_every_circular_shift(spelling: str) -> None:
    x, layer = cells(2, 3, 8, 6), Pool2d(spelling, 2)
    y = layer(x)
    rolled = [torch.roll(y, (i, j), (2, 3)) for i in range(4) for j in range(3)]
    for i in range(8):
        for j in range(6):
            got = layer(torch.roll(x, (i, j), (2, 3)))
            assert all(any(torch.equal(got[n], r[n]) for r in rolled) for n in range(2)), (i, j)
    assert not torch.equal(Pool2d("strided", 2)(x), y)


def test_a_shortcut_takes_the_choice_of_its_branch() -> None:
    x, layer = cells(4, 3, 6, 6), Pool2d("aps", 2)
    choice = layer.choice(x)
    assert set(choice.tolist()) > {0} and torch.equal(layer(x, choice), layer(x))
    for number, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        assert torch.equal(layer(x, torch.full((4,), number)), x[:, :, i::2, j::2])
    with pytest.raises(TypeError, match="no choice"):
        Pool2d("blur", 2).choice(x)


def test_a_choice_is_made_for_one_map_too() -> None:
    layer, x = Pool2d("aps", 2), torch.randn(3, 4, 6, 6)
    assert torch.equal(layer.choice(x[1]), layer.choice(x)[1])
    assert torch.equal(layer(x[1], layer.choice(x[1])), layer(x)[1])
    with pytest.raises(TypeError, match="float"):
        layer.choice(torch.ones(1, 4, 6, 6, dtype=torch.int64))


@pytest.mark.parametrize(
    ("layer", "other", "wanted"),
    [
        (lambda: MapPool2d("superpixel:segments=3"), torch.zeros(2, 8, 4, dtype=torch.int64), "(2, 4, 8)"),
        (lambda: MapPool2d("superpixel:segments=3"), torch.zeros(1, 4, 8, dtype=torch.int64), "(2, 4, 8)"),
        (lambda: Head("mil-attention", 3), torch.ones(2, 8, 4), "(2, 4, 8)"),
        (lambda: MapPool2d("roi:boxes=3"), torch.ones(2, 5, 4), "(2, 3, 4)"),
        (lambda: MapPool2d("roi-align:boxes=3"), torch.ones(2, 1, 4), "(2, 3, 4)"),
        (lambda: MapPool2d("roi-align:boxes=3"), torch.ones(6, 5), "(2, 3, 4)"),
        (lambda: Pool2d("aps", 2), torch.zeros(2, 1, dtype=torch.int64), "(2,)"),
    ],
)
def test_a_further_input_of_another_shape_is_refused(layer: Any, other: Any, wanted: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wanted)):
        layer()(torch.randn(2, 3, 4, 8), other)


def test_spectral_pooling_keeps_what_it_should() -> None:
    x = cells(2, 3, 8, 7)
    torch.testing.assert_close(MapPool2d("spectral:scale=1")(x), x)
    full = torch.fft.fft2(x, norm="forward")
    rows, columns = [0, 1, -1], [0, 1, 2, -2, -1]
    small = torch.fft.ifft2(full[:, :, rows][:, :, :, columns], norm="forward")
    assert small.imag.abs().max() < 1e-15  # odd sizes are real by themselves
    torch.testing.assert_close(Pool2d("spectral", (6, 3), stride=1)(x), small.real)
    torch.testing.assert_close(Pool2d("spectral:form=hartley", (6, 3), stride=1)(x), small.real)
    even = torch.fft.ifft2(full[:, :, [0, 1, -2, -1]][:, :, :, [0, 1, 2, -2, -1]], norm="forward").real
    torch.testing.assert_close(Pool2d("spectral", (5, 3), stride=1)(x), even)
    one_axis = torch.fft.ifft(torch.fft.fft(x, dim=2, norm="forward")[:, :, [0, 1, -2, -1]], dim=2, norm="forward").real
    torch.testing.assert_close(Pool2d("spectral", (5, 1), stride=1)(x), one_axis)


def test_frequency_dropout_leaves_smooth_maps_alone_and_keeps_the_mean() -> None:
    x = cells(64, 1, 16, 16)
    layer = MapPool2d("spectral:keep=0.5", seed=1).train()
    y, quiet = layer(x), layer.eval()(x)
    torch.testing.assert_close(y.mean((2, 3)), quiet.mean((2, 3)))
    same = (y - quiet).abs().amax((1, 2, 3)) < 1e-12
    assert 0 < int(same.sum()) < 64  # in some of the examples every frequency is kept


def test_haar_is_average_pooling_and_the_papers_gain_is_two() -> None:
    x = cells(2, 3, 8, 6)
    torch.testing.assert_close(Pool2d("wavelet", 2)(x), Pool2d("avg", 2)(x))
    torch.testing.assert_close(Pool2d("wavelet:normalize=false", 2)(x), 2 * Pool2d("avg", 2)(x))


@pytest.mark.parametrize(("name", "moments"), [("haar", 1), ("db2", 2), ("db3", 3), ("db4", 4)])
def test_the_filters_are_daubechies(name: str, moments: int) -> None:
    """Orthonormal to their even shifts; the high-pass partner has so many vanishing moments: that defines them."""
    from poolkit.methods.wavelet import FILTERS

    h = np.array(FILTERS[name])
    assert len(h) == 2 * moments
    for shift in range(moments):
        assert (h[2 * shift :] * h[: len(h) - 2 * shift]).sum() == pytest.approx(float(shift == 0), abs=1e-12)
    high = h[::-1] * (-1.0) ** np.arange(len(h))
    for power in range(moments):
        assert (high * (np.arange(len(h)) / len(h)) ** power).sum() == pytest.approx(0, abs=1e-11)


def test_a_learned_stride_keeps_what_spectral_pooling_keeps_and_learns_what_it_lacks() -> None:
    """Cells of a wave of 6 in 32: the window of stride 4 (up to 4 + R) holds a part of it, a smaller stride all."""
    x = torch.cos(2 * torch.pi * 6 * torch.arange(32, dtype=torch.float64) / 32)[None, None]
    layer = MapPool1d("diff-stride:stride=4", channels=1).double()
    assert layer.output_shape(1, 32) == (1, 15)
    wave = torch.cos(2 * torch.pi * 6 * torch.arange(15, dtype=torch.float64) / 15)[None, None]
    torch.testing.assert_close(layer(x), 0.5 * wave)
    optimiser = torch.optim.SGD(pool_parameters(layer), 0.5)
    for _ in range(100):
        optimiser.zero_grad()
        (layer(x) - wave).square().mean().backward()
        optimiser.step()
    torch.testing.assert_close(layer(x), wave, rtol=0, atol=1e-3)
    assert layer.axis_strides.item() == pytest.approx(16 / 6, abs=0.01)  # where L/(2S) has reached the wave
    flat = MapPool2d("diff-stride:stride=1", channels=3).double()
    torch.testing.assert_close(flat(cells(2, 3, 8, 7)), cells(2, 3, 8, 7))


@pytest.mark.parametrize("spelling", ["wavelet:backward=paper", "wavelet:backward=paper,wavelet=db3,border=circular"])
def test_the_papers_backward_rebuilds_the_gradient_with_its_own_details(spelling: str) -> None:
    """Transform the gradient, repeat its details, put it in the place of the approximation, transform back."""
    from poolkit.methods.wavelet import FILTERS

    h = np.array(FILTERS["db3" if "db3" in spelling else "haar"])
    high, reach = h[::-1] * (-1.0) ** np.arange(len(h)), len(h) // 2 - 1

    def bands(x: Any, axis: int) -> list[Any]:
        return [sum(t * np.roll(x, reach - j, axis) for j, t in enumerate(f)).take(
            range(0, x.shape[axis], 2), axis) for f in (h, high)]  # fmt: skip

    def back(low: Any, other: Any, axis: int) -> Any:
        y = 0
        for band, f in ((low, h), (other, high)):
            wide = np.repeat(band, 2, axis) * np.resize([1.0, 0.0], 2 * band.shape[axis]).reshape(
                [-1 if a == axis else 1 for a in range(band.ndim)])  # fmt: skip
            y = y + sum(t * np.roll(wide, j - reach, axis) for j, t in enumerate(f))
        return y

    x, g = cells(1, 1, 8, 12).requires_grad_(), cells(1, 1, 4, 6, seed=1)
    layer = Pool2d(f"{spelling},normalize=false", 2)
    layer(x).backward(g)
    low, rows = bands(g.numpy(), 2)
    details = [bands(low, 3)[1], *bands(rows, 3)]
    twice = [d.repeat(2, 2).repeat(2, 3) for d in details]
    want = back(back(g.numpy(), twice[0], 3), back(twice[1], twice[2], 3), 2)
    np.testing.assert_allclose(x.grad.numpy(), want, atol=1e-12)
    exact = Pool2d(f"{spelling.replace('paper', 'exact')},normalize=false", 2)
    assert torch.equal(exact(x), layer(x))
    halved = Pool2d(spelling, 2)
    torch.testing.assert_close(torch.autograd.grad(halved(x), x, g)[0], x.grad / 2)


def test_the_papers_backward_says_where_it_is_defined() -> None:
    for sizes, window, spelling in (((6, 8), (2,), ""), ((8, 8), (3, 2, 1), ""), ((8, 8), (2,), ",wavelet=db2")):
        with pytest.raises(ValueError, match="multiples of 4, and border=circular or the Haar wavelet"):
            Pool2d(f"wavelet:backward=paper{spelling}", *window)(cells(1, 1, *sizes))


def test_inter_map_is_maxout() -> None:
    x = cells(2, 6, 3, 3)
    assert torch.equal(MapPool2d("inter-map:size=3")(x), x.reshape(2, 2, 3, 3, 3).amax(2))
    with pytest.raises(ValueError, match="multiple of 4 channels, got 6"):
        MapPool2d("inter-map:size=4")(x)


def test_per_pixel_pyramid_is_max_pooling_of_stride_one() -> None:
    x = cells(2, 3, 9, 11)
    want = [nn.functional.max_pool2d(x, s, 1, s // 2) for s in (27, 9, 3)]
    assert torch.equal(MapPool2d("per-pixel-pyramid")(x), torch.cat([*want, x], 1))


def test_spp_is_adaptive_pooling_in_the_order_of_its_levels() -> None:
    x = cells(2, 3, 13, 10)
    for reduction, torchs in (("max", nn.functional.adaptive_max_pool2d), ("avg", nn.functional.adaptive_avg_pool2d)):
        want = torch.cat([torchs(x, n).flatten(2) for n in (6, 3, 2, 1)], 2)
        torch.testing.assert_close(MapPool2d(f"spp:levels=6-3-2-1,reduction={reduction}")(x), want)
    free = torch.cat([nn.functional.adaptive_max_pool2d(x, n).flatten(2) for n in (7, 5)], 2)
    assert torch.equal(MapPool2d("spp:levels=7-5")(x), free)
    with pytest.raises(ValueError, match="whole numbers from 1 to 256 joined by -, such as 4-3-2-1"):
        MapPool2d("spp:levels=4x2")
    with pytest.raises(ValueError, match="whole numbers from 1 to 256"):
        MapPool2d("spp:levels=0")
    paper = MapPool2d("spp:mode=paper,levels=4-3-2-1")(x[..., :10])
    assert paper[0, 0, 3] == x[0, 0, 0:4, 6:9].max()  # 10 cells, 4 bins: windows of 3 at a stride of 2
    with pytest.raises(ValueError, match="at least 4 cells"):
        MapPool2d("spp:mode=paper")(x[..., :3])


def test_s3_draws_rows_and_columns_of_the_map_of_maxima() -> None:
    x = cells(16, 2, 8, 8)
    dense = nn.functional.pad(x, (0, 1, 0, 1), value=-torch.inf)
    dense = nn.functional.max_pool2d(dense, 2, 1)
    y = Pool2d("s3:grid=4", 2, seed=3).train()(x)
    rows = [[r for r in range(8) if torch.isin(y[n, 0], dense[n, 0, r]).any(1).sum() > 0] for n in range(16)]
    assert torch.isin(y[0], dense[0]).all() and len({tuple(r) for r in rows}) > 1
    torch.testing.assert_close(Pool2d("s3", 2).eval()(x), nn.functional.avg_pool2d(dense, 2))
    with pytest.raises(ValueError, match="no multiple of the stride 3"):
        Pool2d("s3", 3)(x)


def test_s3_keeps_a_nan_in_its_own_windows() -> None:
    x = torch.randn(1, 2, 9, 8)
    x[0, 0, 4, 4] = math.nan
    y = MapPool2d("s3", 3, stride=2, padding=1).eval()(x)
    assert y[0, 0].isnan().any() and not y[0, 1].isnan().any()
    assert not y[0, 0, 0].isnan().any() and not y[0, 0, :, 0].isnan().any()


@pytest.mark.parametrize("rule", ["pseudorandom", "random"])
def test_fractional_windows_tile_the_map(rule: str) -> None:
    """Every cell lies in one window: pooling a map with one large cell gives one large cell."""
    layer = MapPool2d(f"fractional:rule={rule}", seed=0).train()
    assert layer.output_shape(1, 25, 32) == (1, 17, 22)
    x = torch.zeros(25 * 32, 1, 25, 32)
    x.flatten(1)[torch.arange(25 * 32), torch.arange(25 * 32)] = 1.0
    assert torch.equal(layer(x).flatten(1).sum(1), torch.ones(25 * 32))
    with pytest.raises(ValueError, match="makes maps smaller"):
        Pool2d("fractional", 2, 1, 1)(x)


def test_lip_starts_as_average_pooling_and_contains_soft_pooling() -> None:
    x = cells(2, 3, 8, 8)
    for logit in ("projection", "simplified", "bottleneck"):
        layer = Pool2d(f"lip:logit={logit}", 3, 2, 1, channels=3).double()
        torch.testing.assert_close(layer(x), Pool2d("avg", 3, 2, 1)(x))
        assert len(list(pool_parameters(layer))) == len(layer.weights())
    layer = Pool2d("lip", 2, channels=3).double()
    with torch.no_grad():
        layer.last.copy_(torch.eye(3)[:, :, None, None])
    torch.testing.assert_close(layer(x), Pool2d("soft", 2)(x))
    torch.testing.assert_close(pool(x, "lip", 2, last=layer.last), layer(x))
    with pytest.raises(ValueError, match="channels=C"):
        Pool2d("lip", 2)


def test_universal_starts_as_average_pooling_and_contains_max_pooling() -> None:
    x, layer = cells(2, 3, 8, 8), Pool2d("universal", 2, channels=3).double()
    torch.testing.assert_close(layer(x), Pool2d("avg", 2)(x))
    with torch.no_grad():
        layer.filter[:, 0, 1, 1] = 1e4
    torch.testing.assert_close(layer(x), Pool2d("max", 2)(x))


def test_roi_align_of_whole_cells_is_average_pooling_and_sees_the_middle_of_a_ramp() -> None:
    x = cells(1, 2, 6, 6)
    boxes = torch.tensor([[[0.0, 0.0, 6.0, 6.0], [2.0, 1.0, 5.0, 4.0]]], dtype=torch.float64, requires_grad=True)
    y = MapPool2d("roi-align:boxes=2,bins=3,samples=2")(x, boxes)
    torch.testing.assert_close(y[:, :, 0], Pool2d("avg", 2)(x))  # the samples are the middles of the cells
    ramp = torch.arange(6.0, dtype=torch.float64).expand(1, 1, 6, 6)
    y = MapPool2d("roi-align:boxes=2,bins=3,samples=2")(ramp, boxes)
    torch.testing.assert_close(y[0, 0, 1, 0], torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64))
    y.sum().backward()
    assert boxes.grad[0, 1, 0] > 0 and boxes.grad[0, 1, 1].abs() < 1e-12


def test_roi_align_is_torchvisions() -> None:
    try:
        import torchvision
    except (ImportError, RuntimeError) as reason:  # the second beside a CPU build of torch
        pytest.skip(f"torchvision cannot be imported: {reason}")
    if not torchvision.extension._has_ops():  # its Python code in their place counts samples far outside the map
        pytest.skip("torchvision's own operators cannot be loaded")
    x = cells(1, 2, 6, 6)
    rows = torch.tensor([[0.0, 0.3, -2.0, 4.1, 9.0], [0.0, 1.2, 1.1, 3.3, 2.9]], dtype=torch.float64)
    for aligned in (True, False):
        want = torchvision.ops.roi_align(x, rows, 7, 0.7, 2, aligned)
        spelled = f"roi-align:boxes=2,scale=0.7,aligned={str(aligned).lower()}"
        torch.testing.assert_close(MapPool2d(spelled)(x, rows[None, :, 1:])[0].transpose(0, 1), want)


def test_ppm_trains_on_a_batch_of_one() -> None:
    layer = MapPool2d("ppm", channels=8)
    y = layer(torch.randn(1, 8, 7, 9))
    y.square().sum().backward()
    assert y.shape == (1, 16, 7, 9) and all(p.grad.isfinite().all() for p in layer.parameters())
    up = nn.functional.interpolate(cells(1, 1, 3, 3), (7, 9), mode="bilinear", align_corners=True)
    from poolkit.pyramid import interpolation

    rows, columns = (torch.tensor(interpolation(3, n), dtype=torch.float64) for n in (7, 9))
    torch.testing.assert_close(rows @ cells(1, 1, 3, 3) @ columns.T, up)


@pytest.mark.parametrize("spelling", ["ppm", "mpm"])
def test_a_level_of_one_cell_and_one_channel_learns(spelling: str) -> None:
    layer = MapPool2d(spelling, channels=4)
    for name, weight in layer.named_parameters():
        if "shift" in name:  # above the ReLU's corner
            nn.init.constant_(weight, 5.0)
    layer(torch.randn(2, 4, 8, 8)).square().sum().backward()
    for name, weight in layer.named_parameters():
        assert weight.grad is not None and weight.grad.abs().max() > 0, name


def test_a_pyramids_levels_have_weights_of_their_own() -> None:
    for spelling in ("ppm:levels=2-1-2", "mpm:bins=3-3"):
        with pytest.raises(ValueError, match="stands there once"):
            MapPool2d(spelling, channels=8)
    assert MapPool2d("ppm:levels=5-2", channels=8)(torch.rand(1, 8, 7, 9)).shape == (1, 16, 7, 9)


def test_the_mixed_pooling_module_is_its_convolutions_in_torchs_words() -> None:
    x, layer = cells(2, 8, 7, 9), MapPool2d("mpm:bins=3-2,norm=none", channels=8).double()
    f, w, size = nn.functional, layer.weights(), (7, 9)

    def k(name: str, z: torch.Tensor) -> torch.Tensor:
        return f.conv2d(z, w[name], w[f"{name}_shift"], padding=[n // 2 for n in w[name].shape[2:]])

    def up(z: torch.Tensor) -> torch.Tensor:
        return f.interpolate(z, size, mode="bilinear", align_corners=True)

    a, b = k("squeeze_near", x).relu(), k("squeeze_far", x).relu()
    near = k("cell", a) + sum(up(k(f"bins{n}", f.adaptive_avg_pool2d(a, n))) for n in (3, 2))
    far = up(k("rows", f.adaptive_avg_pool2d(b, (None, 1)))) + up(k("columns", f.adaptive_avg_pool2d(b, (1, None))))
    joined = torch.cat([k("near", near.relu()).relu(), k("far", far.relu()).relu()], 1)
    torch.testing.assert_close(layer(x), (x + k("join", joined)).relu())


def test_roi_pooling_by_hand_and_on_the_whole_map() -> None:
    x = torch.arange(36.0).reshape(1, 1, 6, 6)
    boxes = torch.tensor([[[0.0, 0.0, 5.0, 5.0], [1.4, 1.6, 3.4, 2.0], [4.0, 4.0, 9.0, 9.0], [7.0, 0.0, 9.0, 3.0]]])
    y = MapPool2d("roi:boxes=4,bins=2")(x, boxes)[0, 0]
    assert torch.equal(y[0], nn.functional.max_pool2d(x, 3)[0, 0])
    assert y[1].tolist() == [[14, 15], [14, 15]]  # row 2; the columns 1, 2 and 2, 3
    assert y[2].tolist() == [[35, 0], [0, 0]]  # 6 × 6 cells, of which 2 × 2 lie in the map, all of the first bin
    assert not y[3].any()  # wholly outside
    wild = cells(1, 2, 9, 13)
    whole = torch.tensor([[[0.0, 0.0, 12.0, 8.0]]], dtype=torch.float64)
    for n in (1, 2, 4, 7):
        want = nn.functional.adaptive_max_pool2d(wild, n)
        assert torch.equal(MapPool2d(f"roi:boxes=1,bins={n}")(wild, whole)[:, :, 0], want)


def test_the_first_of_equal_cells_in_a_bin_gets_the_gradient() -> None:
    x = torch.ones(1, 1, 3, 3, requires_grad=True)
    MapPool2d("roi:boxes=1,bins=1")(x, torch.tensor([[[0.0, 0.0, 2.0, 2.0]]])).sum().backward()
    assert x.grad.flatten().tolist() == [1, *[0] * 8]


def test_superpixels_of_a_grid_are_average_pooling() -> None:
    from poolkit.superpixels import counts, unpool

    x = cells(2, 3, 6, 8)
    labels = (torch.arange(6)[:, None] // 2 * 4 + torch.arange(8) // 2).expand(2, 6, 8)
    y = MapPool2d("superpixel:segments=12")(x, labels)
    torch.testing.assert_close(y.reshape(2, 3, 3, 4), Pool2d("avg", 2)(x))
    best = MapPool2d("superpixel:segments=12,reduction=max")(x, labels)
    assert torch.equal(best.reshape(2, 3, 3, 4), nn.functional.max_pool2d(x, 2))
    assert torch.equal(counts(labels, 13), torch.tensor([4] * 12 + [0]).expand(2, 13))
    flat = unpool(y, labels)
    torch.testing.assert_close(flat[:, :, 1::2, 1::2], y.reshape(2, 3, 3, 4))
    assert torch.equal(pool(x, "superpixel:segments=12", labels=labels), y)
    with pytest.raises(TypeError, match=r"layer\(x, labels\)"):
        MapPool2d("superpixel")(x)


@pytest.mark.parametrize("reduction", ["mean", "max", "sum"])
@pytest.mark.parametrize(
    ("dtype", "segments"),
    [("uint8", 256), ("uint8", 300), ("uint8", 200), ("int8", 128), ("int8", 300), ("int16", 1 << 15), ("uint16", 300)],
)
def test_labels_of_every_type_of_whole_numbers_are_the_same_labels(dtype: str, segments: int, reduction: str) -> None:
    from poolkit.superpixels import counts, unpool

    kind = getattr(torch, dtype)
    low, high = torch.iinfo(kind).min, torch.iinfo(kind).max
    wide = torch.randint(max(low, -5), min(high, 400) + 1, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    wide[:, 0, :4] = torch.tensor([high, 0, 1, low])
    x, labels = cells(2, 3, 16, 16), wide.to(kind)
    assert torch.equal(labels.long(), wide)
    layer = MapPool2d(f"superpixel:segments={segments},reduction={reduction}")
    y = layer(x, wide)
    assert torch.equal(layer(x, labels), y)
    assert torch.equal(counts(labels, segments), counts(wide, segments))
    assert torch.equal(unpool(y, labels), unpool(y, wide))


def test_a_region_with_the_largest_label_of_its_type_is_pooled_and_nothing_wraps_around() -> None:
    x = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    labels = torch.tensor([[[0, 255], [255, 44]]], dtype=torch.uint8)  # 44 is 300 modulo 256
    y = MapPool2d("superpixel:segments=300")(x, labels)[0, 0]
    assert {k: y[k].item() for k in y.nonzero()[:, 0].tolist()} == {0: 1.0, 44: 8.0, 255: 3.0}
    signed = torch.tensor([[[-1, 127], [-1, 0]]], dtype=torch.int8)
    y = MapPool2d("superpixel:segments=255")(x, signed)[0, 0]
    assert {k: y[k].item() for k in y.nonzero()[:, 0].tolist()} == {0: 8.0, 127: 2.0}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's torch back end
def test_labels_of_a_small_type_are_the_same_labels_in_every_words() -> None:
    from poolkit.map_words import numpy_map_words

    os.environ.setdefault("KERAS_BACKEND", "torch")
    method, x = WHOLE_MAPS["superpixel"](segments=300), cells(1, 2, 4, 4).numpy()
    labels = np.arange(240, 256, dtype=np.uint8).reshape(1, 4, 4)
    want = method.pool(Map(x, numpy_map_words(), labels=labels.astype(np.int64)), method.values())
    np.testing.assert_array_equal(method.pool(Map(x, numpy_map_words(), labels=labels), method.values()), want)
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    made = [keras.ops.convert_to_tensor(x, "float64"), keras.ops.convert_to_tensor(labels, "uint8")]
    got = method.pool(Map(made[0], keras_map_words("float64"), labels=made[1]), method.values())
    np.testing.assert_allclose(keras.ops.convert_to_numpy(got), want, rtol=1e-6)


def test_the_largest_of_equal_cells_in_a_superpixel_is_the_first() -> None:
    x = torch.ones(1, 1, 2, 2, requires_grad=True)
    MapPool2d("superpixel:segments=1,reduction=max")(x, torch.zeros(1, 2, 2, dtype=torch.int64)).sum().backward()
    assert x.grad.flatten().tolist() == [1, 0, 0, 0]


def test_slic_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from poolkit.superpixels import slic

    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match="pip install scikit-image"):
        slic(torch.rand(2, 3, 16, 16), 8)


def test_regions_beyond_those_asked_for_are_no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    from poolkit.superpixels import counts, slic

    found = np.repeat(np.arange(4), 4).reshape(4, 4)  # a region for each row, one more than asked for
    fake = SimpleNamespace(slic=lambda image, **options: found)
    monkeypatch.setitem(sys.modules, "skimage", SimpleNamespace(segmentation=fake))
    monkeypatch.setitem(sys.modules, "skimage.segmentation", fake)
    images = torch.arange(16.0).reshape(1, 1, 4, 4)
    labels = slic(images, 3)
    assert labels[0, :, 0].tolist() == [0, 1, 2, -1]
    assert counts(labels, 3).tolist() == [[4, 4, 4]]
    assert MapPool2d("superpixel:segments=3")(images, labels)[0, 0].tolist() == [1.5, 5.5, 9.5]


def test_slic_finds_the_parts_of_a_picture_and_superpixel_pooling_their_colours() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    from poolkit.superpixels import slic, unpool

    colours = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    images = colours.repeat_interleave(8, 2).repeat_interleave(8, 3)
    labels = slic(images, 4, compactness=0.1)
    y = MapPool2d("superpixel:segments=4")(images, labels)
    torch.testing.assert_close(y, colours.flatten(2))
    torch.testing.assert_close(unpool(y, labels), images)
    # A narrow picture, in which this SLIC finds 21 regions where 18 are asked for.
    wide = torch.linspace(0, 1, 30).expand(1, 1, 12, 30)
    labels = slic(wide, 18)
    assert labels.shape == (1, 12, 30) and labels.dtype == torch.int64
    assert -1 <= labels.min() and labels.max() == 17


@pytest.mark.parametrize("name", [n for n, cls in MAP_METHODS.items() if cls.takes_window != "never"])
def test_the_tutorials_net_learns_digits_with_it(name: str, one_thread: Any) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    from poolkit.lab.nets import build

    digits = datasets.load_digits()
    x = nn.functional.interpolate(torch.tensor(digits.images[:48, None], dtype=torch.float32) / 16, (16, 16))
    target, net = torch.tensor(digits.target[:48]), build("tutorial", name, (1, 16, 16), 10, seed=0)
    loss, optimiser = nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters(), 5e-3)
    before = loss(net.eval()(x), target).item()
    for _ in range(16):
        optimiser.zero_grad()
        loss(net.train()(x), target).backward()
        optimiser.step()
    assert loss(net.eval()(x), target).item() < 0.9 * before


class Small(nn.Module):
    """A convolution, a method on whole maps in the place of a pool, and a dense layer.

    What the method takes beside the maps comes from the pictures. Labels: four shades in each quarter of the picture;
    at two of its edges, no region. Boxes: that of the ink, and its quarters. Large maps are averaged down to 4×4. The
    numbers are centred and scaled over the pictures: a method that gave the same for all would teach nothing.
    """

    def __init__(self, name: str, size: int) -> None:
        super().__init__()
        asked = {"labels": "segments=16", "boxes": "boxes=5"}
        spelling = ":".join([name, *(asked[word] for word in WHOLE_MAPS[name].takes if word in asked)])
        self.first, maps = nn.Conv2d(1, 8, 3), (size - 2, size - 2)
        if name in HEADS:
            self.layer: Any = Head(spelling, channels=8, sizes=maps)
        elif WHOLE_MAPS[name].takes_window == "never":
            self.layer = MapPool2d(spelling, channels=8, sizes=maps)
        else:
            self.layer = Pool2d(spelling, 2, channels=8)
        out = self.layer.output_shape(8, *maps)
        self.large = len(out) == 3 and min(out[1:]) > 4
        self.dense = nn.Linear(out[0] * 16 if self.large else int(np.prod(out)), 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        makers = {"labels": self.labels, "boxes": self.boxes}
        others = [makers[word](x[:, 0, 1:-1, 1:-1]) for word in self.layer.method.takes if word in makers]
        y = self.layer(self.first(x).relu(), *others)
        y = nn.functional.adaptive_avg_pool2d(y, 4) if self.large else y
        return self.dense(nn.functional.batch_norm(y.flatten(1), None, None, training=True))

    def groups(self) -> list[dict[str, Any]]:
        """The more numbers the dense layer reads, the smaller are its steps."""
        rest = [p for key, p in self.named_parameters() if not key.startswith("dense.")]
        return [
            {"params": rest, "lr": 1e-2},
            {"params": self.dense.parameters(), "lr": 0.1 / self.dense.in_features**0.5},
        ]

    @staticmethod
    def labels(ink: torch.Tensor) -> torch.Tensor:
        rows, columns = (torch.arange(n) * 2 // n for n in ink.shape[1:])
        labels = 4 * (2 * rows[:, None] + columns) + (3.99 * ink).long()
        labels[:, 0], labels[:, :, 0] = -1, -1
        return labels

    @staticmethod
    def boxes(ink: torch.Tensor) -> torch.Tensor:
        found = []
        for one in ink:
            down, across = (one.amax(axis).gt(0.3).nonzero() for axis in (1, 0))
            x, y, right, low = (float(n) for n in (across.min(), down.min(), across.max() + 1, down.max() + 1))
            h, w = (low - y) / 2, (right - x) / 2
            found.append([[x, y, right, low], *([p, q, p + w, q + h] for q in (y, y + h) for p in (x, x + w))])
        return torch.tensor(found)


@pytest.mark.parametrize("name", WHOLE_MAPS)
def test_a_small_net_learns_digits_with_it_and_its_own_weights_move(name: str, one_thread: Any) -> None:
    pytest.importorskip("sklearn")
    from poolkit.lab.data import digits
    from poolkit.lab.run import as_input

    data = digits()
    some = np.flatnonzero(data.train_y < 2)[:32]  # zeros and ones
    x = as_input(torch.from_numpy(data.train_x[some]).permute(0, 2, 3, 1))
    target, loss = torch.from_numpy(data.train_y[some]), nn.CrossEntropyLoss()
    torch.manual_seed(0)
    net = Small(name, x.shape[2])
    started = {key: p.detach().clone() for key, p in net.named_parameters()}
    optimiser = torch.optim.Adam(net.groups())
    before = loss(net.eval()(x), target).item()
    for _ in range(12):
        optimiser.zero_grad()
        loss(net.train()(x), target).backward()
        optimiser.step()
    after = loss(net.eval()(x), target).item()
    assert after < 0.8 * min(before, math.log(2)), f"the loss went from {before:.3f} to {after:.3f}"
    still = [key for key, p in net.named_parameters() if torch.equal(p.detach(), started[key])]
    assert not still, f"these weights did not move: {', '.join(still)}"


def test_places_are_taken_alike_by_slices_and_one_by_one() -> None:
    from poolkit.map_words import numpy_map_words, torch_map_words

    x = cells(2, 3, 7)
    for indices in ([0, 0, 0, 1, 2, 3], [2, 1, 0, 1, 2, 2, 2], [6], [5, 6, 0, 1], [3, 1, 4, 1, 5, 0, 2, 6, 5, 3, 5, 0]):
        want = numpy_map_words().take(x.numpy(), indices, 2)
        assert torch.equal(torch_map_words().take(x, indices, 2), torch.from_numpy(want))
