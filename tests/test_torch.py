"""The PyTorch layers: torch's arguments, learned parameters, reproducible draws, every way torch runs a module."""

from __future__ import annotations

import copy
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import poolkit.torch as face  # noqa: E402
from poolkit import WINDOW_METHODS, GeM, Lp, Max, Min, Mixed, Soft, learn  # noqa: E402
from poolkit.draws import uniform  # noqa: E402
from poolkit.layer import _value, float64_by_default  # noqa: E402
from poolkit.learned import unconstrained  # noqa: E402
from poolkit.method import Param  # noqa: E402
from poolkit.torch import GlobalPool1d, GlobalPool2d, GlobalPool3d, Pool1d, Pool2d, Pool3d, pool  # noqa: E402

LAYERS = {"Pool1d": Pool1d, "Pool2d": Pool2d, "Pool3d": Pool3d}
# A table has a number for each cell of the window: its methods have no global layer (tests/test_tables.py).
ANYWHERE = [name for name, cls in WINDOW_METHODS.items() if not cls().tables]
GLOBALS = {"GlobalPool1d": GlobalPool1d, "GlobalPool2d": GlobalPool2d, "GlobalPool3d": GlobalPool3d}


def picture(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(
    "layer",
    [
        Pool2d("max", 2),
        Pool2d(Soft(beta=2), (2, 3), stride=1, padding=1, dilation=(1, 2), ceil_mode=True),
        Pool1d("avg-topk:k=3", 4, padding="same"),
        Pool3d(Lp(p=learn(3.0, channels=2)), 2, seed=7),
        GlobalPool2d("gem:p=learn", flatten=True),
        GlobalPool1d("stochastic", seed=-1),
    ],
    ids=str,
)
def test_a_repr_reads_back_as_the_same_layer(layer: nn.Module) -> None:
    again = eval(repr(layer), {**LAYERS, **GLOBALS})  # noqa: S307 - our own text
    assert repr(again) == repr(layer)
    assert type(again) is type(layer) and again.method == layer.method and again.seed == layer.seed
    assert getattr(again, "window", None) == getattr(layer, "window", None)
    assert {n: tuple(p.shape) for n, p in again.named_parameters()} == {
        n: tuple(p.shape) for n, p in layer.named_parameters()
    }


def test_it_drops_in_for_torch_max_pooling() -> None:
    x = picture(2, 3, 33, 31)
    for arguments in ((2,), (3, 2, 1), (3, 1, 0, 2)):
        assert torch.equal(Pool2d("max", *arguments)(x), nn.MaxPool2d(*arguments)(x))
    assert torch.equal(Pool2d("max", kernel_size=3, ceil_mode=True)(x), nn.MaxPool2d(3, ceil_mode=True)(x))


@pytest.mark.parametrize("name", ANYWHERE)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_shapes_batched_unbatched_empty_and_global(name: str, dims: int) -> None:
    sizes, out = (5, 6, 7)[:dims], (2, 3, 3)[:dims]
    x = picture(2, 3, *sizes)
    layer, whole = LAYERS[f"Pool{dims}d"](name, 2).eval(), GLOBALS[f"GlobalPool{dims}d"](name).eval()
    flat = GLOBALS[f"GlobalPool{dims}d"](name, flatten=True).eval()
    assert layer(x).shape == (2, 3, *out)
    assert whole(x).shape == (2, 3, *[1] * dims)
    assert flat(x).shape == (2, 3) and torch.equal(flat(x), whole(x).flatten(1))
    assert flat(x[0]).shape == (3,) and whole(x[0]).shape == (3, *[1] * dims)
    torch.testing.assert_close(layer(x[0]), layer(x)[0])
    assert layer(x[:0]).shape == (0, 3, *out) and flat(x[:0]).shape == (0, 3)


@pytest.mark.parametrize("name", WINDOW_METHODS)
def test_the_function_is_the_layer_in_evaluation(name: str) -> None:
    x = picture(2, 3, 7, 7)
    assert torch.equal(pool(x, name, 3, 2, 1), Pool2d(name, 3, 2, 1).eval()(x))
    whole = GlobalPool2d(name) if name in ANYWHERE else Pool2d(name, (7, 7))
    assert torch.equal(pool(x, name), whole.eval()(x))
    assert torch.equal(pool(x[0], name, 2, dims=1), Pool1d(name, 2).eval()(x[0]))


def test_the_function_takes_values_for_learned_parameters() -> None:
    x, soft = picture(2, 3, 4, 4), Soft(beta=learn())
    assert torch.equal(pool(x, soft, 2, beta=2.0), pool(x, Soft(beta=2), 2))
    betas = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    y = pool(x, soft, 2, beta=betas)
    for channel in range(3):
        want = pool(x, Soft(beta=float(channel)), 2)[:, channel]
        torch.testing.assert_close(y[:, channel], want)
    y.sum().backward()
    assert betas.grad is not None and bool((betas.grad != 0).all())
    for spelling, values in (
        ("lp:p=learn", {"p": -3.0}),
        ("lp:p=learn", {"p": 0}),
        ("soft:beta=learn", {"beta": 1e300}),
    ):
        with pytest.raises(ValueError, match=r"^\w+=.* is not allowed: allowed: number"):
            pool(x, spelling, 2, **values)
    with pytest.raises(ValueError, match="is not allowed: a number or a tensor"):
        pool(x, soft, 2, beta=learn())
    with pytest.raises(ValueError, match="gamma: no argument of pool, and no learned parameter of soft:beta=learn"):
        pool(x, soft, 2, gamma=1.0)
    with pytest.raises(ValueError, match="beta is learned for 2 channels, the input has 3"):
        pool(x, soft, 2, beta=torch.ones(2))


def test_refusals_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="no pooling method"):
        Pool2d("sotf", 2)
    with pytest.raises(ValueError, match="kernel_size=0"):
        Pool2d("max", 0)
    with pytest.raises(ValueError, match=r"expected \(N, C, H, W\) or the same without N, got shape \(4, 4\)"):
        Pool2d("max", 2)(torch.zeros(4, 4))
    with pytest.raises(TypeError, match=r"got torch.int64: convert with x.float\(\)"):
        Pool2d("max", 2)(torch.zeros(1, 1, 4, 4, dtype=torch.int64))
    for seed in ("1", True, 1.0, np.bool_(True)):
        with pytest.raises(ValueError, match="seed=.*: must be an int or None"):
            Pool2d("stochastic", 2, seed=seed)
    for layer in (Pool1d, Pool2d, Pool3d):
        name = layer.__name__
        with pytest.raises(TypeError, match=rf'^{name} wants a method and a kernel_size, such as {name}\("max", 2\)'):
            layer(2)


def test_a_numpy_seed_is_the_seed() -> None:
    x, one = picture(4, 2, 4, 4).abs(), Pool2d("stochastic", 2, seed=np.int64(3))
    assert repr(one) == repr(Pool2d("stochastic", 2, seed=3))
    assert torch.equal(one(x), Pool2d("stochastic", 2, seed=3)(x))


def test_explain_says_the_path_and_why() -> None:
    x = torch.zeros(1, 3, 9, 9)
    layers = [Pool2d("max", 3, 2), Pool2d("soft", 3, padding="same"), GlobalPool2d("avg"), Pool2d("mixed", 2).train()]
    assert {layer.explain(x).path for layer in layers} == {"cpu"}
    said = str(layers[0].explain(x))
    assert said.startswith(
        "9×9 cells → 4×4 windows of 3×3, stride 2×2\npath: cpu (poolkit's CPU engine has a kernel of max"
    )
    large = GlobalPool2d("avg").explain(torch.zeros(1, 1, 200, 200))
    assert large.path == "reference" and "more than 16384 cells" in large.why
    away = layers[0].explain(x.to("meta"))
    assert away.path == "reference" and "does not reach tensors on meta" in away.why


@pytest.mark.parametrize("name", ["max", "min", "avg", "avg:count_include_pad=true"])
def test_the_reference_path_can_be_asked_for_and_agrees(name: str) -> None:
    x, layer = picture(2, 3, 9, 9, dtype=torch.float64), Pool2d(name, 3, 2, 1, ceil_mode=True)
    fast = layer(x)
    layer.path = "reference"
    assert layer.explain(x).path == "reference" and "asked for" in layer.explain(x).why
    torch.testing.assert_close(layer(x), fast, rtol=0, atol=1e-14)


def test_a_layer_decides_again_when_something_changes() -> None:
    layer, x = Pool2d("max", 2), picture(2, 3, 9, 9)
    want = layer(x)
    asked = []
    layer.path = "reference"
    torch.testing.assert_close(layer(x), want)
    whole = layer(x[:, :, :2, :2])  # a picture of one window takes the formula
    layer.path = None
    assert torch.equal(layer(x[:, :, :2, :2]), whole) and torch.equal(layer(x[0]), want[0])
    route = face.kernels.route
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(face.kernels, "route", lambda *a: (asked.append(a), route(*a))[1])
        for _ in range(3):
            assert torch.equal(layer(x), want)
        first = len(asked)
        assert torch.equal(layer(x), want) and len(asked) == first > 0
        layer.path = "reference"
        torch.testing.assert_close(layer(x), want)
        assert len(asked) > first
    layer.path = None
    for wrong, error in ((x.long(), TypeError), (x[:, :, :1], ValueError), (x[0, 0], ValueError)):
        layer(x)
        with pytest.raises(error):
            layer(wrong)
    layer.method = Min()
    assert torch.equal(layer(x), -nn.functional.max_pool2d(-x, 2))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_an_unknown_path_is_refused() -> None:
    layer = Pool2d("max", 2)
    layer.path = "fastest"
    with pytest.raises(ValueError, match="path='fastest': allowed are 'cpu', 'reference', or None"):
        layer(torch.zeros(1, 1, 4, 4))


def test_both_paths_agree_on_real_pictures(cifar: Path) -> None:
    record = (cifar / "test_batch.bin").read_bytes()[: 16 * 3073]
    cells = torch.frombuffer(bytearray(record), dtype=torch.uint8).reshape(16, 3073)[:, 1:]
    x = cells.reshape(16, 3, 32, 32).float() / 255
    for name in ("max", "min", "avg"):
        layer = Pool2d(name, 3, 2, 1)
        fast = layer(x)
        layer.path = "reference"
        torch.testing.assert_close(layer(x), fast, rtol=0, atol=1e-6)


def test_learned_parameters_have_their_names_shapes_and_starts() -> None:
    layer = Pool2d(Lp(p=learn(3.0, channels=4)), 2)
    assert [(n, tuple(p.shape)) for n, p in layer.named_parameters()] == [("raw_p", (4, 1, 1))]
    torch.testing.assert_close(layer.learned()["p"], torch.full((4, 1, 1), 3.0))
    for method, want in (
        (Soft(beta=learn()), 1.0),
        (Soft(beta=learn(-2)), -2.0),
        (GeM(p=learn()), 3.0),
        (Lp(p=learn(1.001)), 1.001),
    ):
        ((_, value),) = GlobalPool2d(method).learned().items()
        assert value.shape == () and value.item() == pytest.approx(want, rel=1e-6)
    assert list(Pool2d("soft", 2).parameters()) == []


@pytest.mark.parametrize("method", [Lp(p=learn()), GeM(p=learn()), GeM(p=learn(channels=3))], ids=str)
@pytest.mark.parametrize("towards", [-1.0, 1.0])
def test_no_step_of_an_optimiser_leaves_the_range(method: Lp | GeM, towards: float) -> None:
    layer, low = Pool2d(method, 2), method.params()["p"].low
    optimiser = torch.optim.SGD(layer.parameters(), lr=100.0)
    x = picture(2, 3, 4, 4).abs()
    for _ in range(5):
        optimiser.zero_grad()
        (towards * layer(x).sum()).backward()
        optimiser.step()
        assert bool((layer.learned()["p"] >= low).all()) and bool(layer(x).isfinite().all())


@pytest.mark.parametrize(
    ("low", "high"), [(None, None), (1.0, None), (None, 4.0), (0.0, 5.0)], ids=["free", "above", "below", "between"]
)
def test_a_learned_value_starts_where_it_was_told_and_stays_in_its_range(low: float | None, high: float | None) -> None:
    declared = Param(3.0, low=low, high=high, learnable=True)
    raw = torch.tensor(unconstrained(3.0, declared))
    assert _value(raw, declared).item() == pytest.approx(3.0, rel=1e-6)
    reached = _value(torch.linspace(-50, 50, 101), declared)
    assert bool((reached >= (low if low is not None else -50)).all())
    assert bool((reached <= (high if high is not None else 55)).all())


def test_a_parameter_that_learns_freely_has_no_edge() -> None:
    layer = Pool2d(Soft(beta=learn(1000.0)), 2)
    assert layer.learned()["beta"].item() == layer.raw_beta.item() == 1000.0
    with torch.no_grad():
        layer.raw_beta.fill_(-5000.0)
    assert layer.learned()["beta"].item() == -5000.0


@pytest.mark.parametrize("beta", [-1000.0, 1000.0])
def test_soft_is_finite_at_the_ends_of_its_range(beta: float) -> None:
    x = torch.tensor([[[1e4, -1e4, 0.0, 9999.0]]]).requires_grad_()
    y = GlobalPool1d(Soft(beta=beta))(x)
    y.sum().backward()
    assert y.item() == (1e4 if beta > 0 else -1e4) and bool(x.grad.isfinite().all())


def test_a_wrong_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="beta is learned for 4 channels, the input has 3"):
        Pool2d(Soft(beta=learn(channels=4)), 2)(picture(1, 3, 4, 4))


def test_training_learns_beta() -> None:
    x, layer = picture(8, 2, 8, 8), Pool2d(Soft(beta=learn(0.1, channels=2)), 2)
    want = pool(x, Soft(beta=2.0), 2)
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=50)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = 100 * nn.functional.mse_loss(layer(x), want)
        value.backward()
        return value

    optimiser.step(loss)
    torch.testing.assert_close(layer.learned()["beta"], torch.full((2, 1, 1), 2.0), rtol=0.01, atol=0)


RANDOM = [Mixed(per="region"), Mixed(per="map"), Mixed(per="layer"), WINDOW_METHODS["stochastic"]()]


@pytest.mark.parametrize("method", RANDOM, ids=str)
def test_torch_manual_seed_repeats_the_draws(method: Mixed) -> None:
    x, layer = picture(16, 4, 8, 8).abs(), Pool2d(method, 2)
    torch.manual_seed(0)
    first, second = layer(x), layer(x)
    torch.manual_seed(0)
    assert torch.equal(layer(x), first) and torch.equal(layer(x), second)
    assert not torch.equal(first, second)


def test_two_layers_do_not_share_their_draws() -> None:
    x = picture(16, 4, 8, 8).abs()
    assert not torch.equal(Pool2d("stochastic", 2)(x), Pool2d("stochastic", 2)(x))


@pytest.mark.parametrize("method", RANDOM, ids=str)
def test_a_seed_counts_examples_and_its_state_restores_the_stream(method: Mixed) -> None:
    x, layer = picture(12, 3, 6, 6).abs(), Pool2d(method, 2, seed=5)
    layer(x[:7])
    assert layer.seen.item() == 7
    state = copy.deepcopy(layer.state_dict())
    want = layer(x[7:])
    layer.eval()(x)
    assert layer.seen.item() == 12
    fresh = Pool2d(method, 2, seed=5)
    fresh.load_state_dict(state)
    assert torch.equal(fresh(x[7:]), want)
    whole, one_by_one = Pool2d(method, 2, seed=5), Pool2d(method, 2, seed=5)
    assert torch.equal(whole(x)[7:], want)
    assert torch.equal(torch.stack([one_by_one(example) for example in x]), Pool2d(method, 2, seed=5)(x))


def test_a_seed_is_independent_of_the_default_generator_and_leaves_it_alone() -> None:
    x = picture(4, 3, 6, 6).abs()
    torch.manual_seed(0)
    first, state = Pool2d("stochastic", 2, seed=5)(x), torch.get_rng_state()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(Pool2d("stochastic", 2, seed=5)(x), first)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("method", RANDOM, ids=str)
def test_activation_checkpointing_gives_the_same_gradient(method: Mixed) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Pool2d(method, 2), nn.Conv2d(4, 4, 2))
    x, gradients = picture(4, 3, 10, 10), []
    for run in (net, lambda v: checkpoint(net, v, use_reentrant=False)):
        torch.manual_seed(3)
        net.zero_grad()
        run(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_uniform_numbers_are_uniform() -> None:
    u = uniform(torch.tensor(42), 0, (100, 10_000)).double()
    count = u.numel()
    assert bool((u >= 0).all()) and bool((u < 1).all())
    assert torch.equal(u * 2**24, (u * 2**24).round())
    assert u.mean().item() == pytest.approx(0.5, abs=5 * (1 / 12 / count) ** 0.5)
    assert u.var().item() == pytest.approx(1 / 12, abs=5 * (1 / 180 / count) ** 0.5)
    found = torch.histc(u, 100, 0, 1)
    chi_square = ((found - count / 100) ** 2 / (count / 100)).sum().item()
    assert abs(chi_square - 99) < 5 * (2 * 99) ** 0.5


def test_uniform_numbers_do_not_depend_on_each_other() -> None:
    u = uniform(torch.tensor(7), 0, (1000, 1000)).double() - 0.5
    other = uniform(torch.tensor(8), 0, (1000, 1000)).double() - 0.5
    for a, b in ((u[:, 1:], u[:, :-1]), (u[1:], u[:-1]), (u, other), (u[:, ::2], u[:, 1::2])):
        # The mean of a product of two independent such numbers has the standard deviation (1/12)/√count.
        assert abs((a * b).mean().item()) < 5 / 12 / a.numel() ** 0.5
    assert len(set(uniform(torch.tensor(1), 0, (1, 4096)).flatten().tolist())) > 4090


def test_uniform_numbers_belong_to_the_example_not_to_the_batch() -> None:
    key = torch.tensor(2**62 + 5)
    whole = uniform(key, 0, (10, 3, 5))
    assert torch.equal(torch.cat([uniform(key, 0, (4, 3, 5)), uniform(key, torch.tensor(4), (6, 3, 5))]), whole)
    assert torch.equal(uniform(key, 9, (1, 3, 5)), whole[9:])
    assert uniform(key, 0, (0, 3)).shape == (0, 3)


@pytest.mark.parametrize("name", WINDOW_METHODS)
def test_autocast_keeps_the_type_of_the_input(name: str) -> None:
    x = picture(2, 3, 6, 6)
    layer = Pool2d(name, 3, 2, 1).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), layer(x.clone()))
        assert layer(x).dtype == torch.float32
        assert layer(x.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = layer(x)
    assert torch.equal(inside, layer(x))


@pytest.mark.parametrize("name", WINDOW_METHODS)
def test_inference_mode_and_no_grad_give_the_same(name: str) -> None:
    x, layer = picture(2, 3, 6, 6).requires_grad_(), Pool2d(name, 2).eval()
    want = layer(x)
    assert want.requires_grad
    with torch.no_grad():
        assert torch.equal(layer(x), want) and not layer(x).requires_grad
    with torch.inference_mode():
        assert torch.equal(layer(x), want)


@pytest.mark.parametrize("name", WINDOW_METHODS)
def test_meta_tensors_have_shapes_without_numbers(name: str) -> None:
    for train in (False, True):
        layer = Pool2d(name, 3, 2, 1).to("meta").train(train)
        y = layer(torch.empty(2, 3, 9, 9, device="meta"))
        assert y.shape == (2, 3, 5, 5) and y.device.type == "meta"


@pytest.mark.parametrize("name", ANYWHERE)
def test_torch_export_of_an_evaluated_layer(name: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Pool2d(name, 2), GlobalPool2d(name, flatten=True)).eval()
    x = picture(2, 3, 10, 10)
    program = torch.export.export(net, (x,))
    torch.testing.assert_close(program.module()(x), net(x))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, on loading its derivatives
@pytest.mark.parametrize("name", WINDOW_METHODS)
def test_vmap_over_pictures_and_forward_derivatives(name: str) -> None:
    x, layer = picture(3, 2, 6, 6, dtype=torch.float64), Pool2d(name, 2).eval().double()
    torch.testing.assert_close(torch.func.vmap(layer)(x), layer(x))
    direction = picture(3, 2, 6, 6, seed=1, dtype=torch.float64)
    _, forward = torch.func.jvp(layer, (x,), (direction,))
    steps = (layer(x + 1e-6 * direction) - layer(x - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close(forward, steps, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ANYWHERE)
def test_deterministic_algorithms_mode_works(name: str) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        for layer in (Pool2d(name, 3, 2, 1), Pool3d(name, 2), GlobalPool2d(name)):
            x = picture(2, 3, 4, 6, 6)[(slice(None),) * 2 + (0,) * (3 - layer.dims)].requires_grad_()
            layer(x).sum().backward()
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("name", ["max", "soft", "avg-topk", "stochastic"])
def test_threads_may_share_an_evaluated_layer(name: str) -> None:
    layer = Pool2d(name, 3, 2, 1).eval()
    pictures = [picture(2, 3, 16, 16, seed=seed) for seed in range(32)]
    want = [layer(x) for x in pictures]
    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(layer, pictures))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["soft", "mixed"])
def test_inductor_computes_the_same_with_the_same_draws(name: str) -> None:
    torch.compiler.reset()
    layer, x = Pool2d(name, 3, 2, 1), picture(2, 3, 8, 8)
    fast, results = torch.compile(layer, fullgraph=True), []
    for run in (layer, fast):
        torch.manual_seed(0)
        leaf = x.clone().requires_grad_()
        y = run(leaf)
        y.square().sum().backward()
        results.append((y.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1])


def test_a_layer_moves_between_types_and_survives_half() -> None:
    layer = Pool2d(Soft(beta=learn()), 2, seed=1).half()
    assert layer.seen.dtype == torch.int64 and layer.raw_beta.dtype == torch.float16
    assert layer(picture(1, 2, 4, 4).half()).dtype == torch.float16


def test_the_largest_cell_of_a_map_with_many_cells_is_found_at_its_end() -> None:
    x = torch.zeros(1, 1, 1, 2**24 + 1)
    x[..., -1] = 1.0
    assert GlobalPool2d(Max())(x).item() == 1.0


def test_layers_that_learn_in_float64_begin_at_the_number_itself() -> None:
    usual = torch.get_default_dtype()
    with float64_by_default():
        layer = Pool2d(Soft(beta=learn(0.1)), 2)
    assert torch.get_default_dtype() == usual
    assert float(layer.learned()["beta"].detach()) == 0.1 != float(torch.tensor(0.1))
    with pytest.raises(ZeroDivisionError), float64_by_default():
        1 / 0  # noqa: B018
    assert torch.get_default_dtype() == usual
