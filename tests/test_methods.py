"""Every shipped method keeps every contract, and the literature's hand-computed examples."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import itertools
import math
from pathlib import Path

import pytest

from conftest import EngineRuns

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import poolkit  # noqa: E402
from poolkit import (  # noqa: E402
    METHODS,
    WINDOW_METHODS,
    Avg,
    GeM,
    Lp,
    Max,
    Mixed,
    OneWindow,
    Soft,
    Stochastic,
    kernels,
    learn,
)
from poolkit.check import CONTRACTS, Contract, check  # noqa: E402
from poolkit.method import CONSTANT  # noqa: E402
from poolkit.torch import GlobalPool1d, GlobalPool2d, Pool1d, Pool2d, pool  # noqa: E402

FILES = sorted(p.stem for p in (Path(poolkit.__file__).parent / "methods").glob("*.py") if p.stem != "__init__")


def one_window(*cells: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """One window as a map of one channel, whose gradient is wanted."""
    return torch.tensor([[cells]], dtype=dtype).requires_grad_()


def evaluated(method: poolkit.Method | str, *cells: float, dtype: torch.dtype = torch.float64) -> float:
    """What a method in evaluation makes of one window."""
    return GlobalPool1d(method).eval()(one_window(*cells, dtype=dtype)).item()


# Contracts that ask some methods for no output.
MAY_BE_IDLE = {"types", "facts", "identities", "seeds", "distribution"}


@pytest.mark.parametrize("contract", CONTRACTS, ids=[c.name for c in CONTRACTS])
@pytest.mark.parametrize("name", WINDOW_METHODS)
def test_contract(name: str, contract: Contract, engine: EngineRuns) -> None:
    (result,) = check(METHODS[name], only=(contract.name,), paths=("reference",))
    assert result.passed, f"{name} · {contract.name}: {result.detail}"
    assert engine.count == 0, "the engine ran although the formula was asked for"
    if contract.tried == "variants":  # a path plays no part
        return
    assert METHODS[name].has_kernel[0]
    (result,) = check(METHODS[name], only=(contract.name,), paths=("cpu",))
    assert result.passed, f"{name} · {contract.name}: {result.detail}"
    assert engine.count > 0 or contract.name in MAY_BE_IDLE, "the engine was asked for and did not run"


def test_every_method_file_is_listed_and_every_listed_method_has_its_file() -> None:
    assert [cls.__module__.rpartition(".")[2] for cls in sorted(METHODS.values(), key=lambda c: c.__module__)] == FILES
    assert all(cls.card.name.replace("-", "_") == cls.__module__.rpartition(".")[2] for cls in METHODS.values())


def test_names_are_unique_and_are_the_keys() -> None:
    assert [cls.card.name for cls in METHODS.values()] == list(METHODS)
    assert len({cls.card.title for cls in METHODS.values()}) == len(METHODS)


def test_every_method_is_public_and_frozen() -> None:
    for cls in METHODS.values():
        assert getattr(poolkit, cls.__name__) is cls
        assert cls.__name__ in poolkit.__all__
        assert cls.__dataclass_params__.frozen


MODULES = [
    "poolkit",
    "poolkit.torch",
    "poolkit.check",
    "poolkit.superpixels",
    *(f"poolkit.methods.{name}" for name in FILES),
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_the_documentation_run(module: str) -> None:
    found = importlib.import_module(module)
    names = {**vars(found), **{n: getattr(poolkit, n) for n in poolkit.__all__}}
    failed, tried = doctest.testmod(found, extraglobs=names)
    assert tried > 0, "no example"
    assert failed == 0


def test_soft_by_hand() -> None:
    # e/(1 + e) of a window {0, 1}.
    assert evaluated(Soft(), 0, 1) == pytest.approx(math.e / (1 + math.e), abs=1e-15)
    # ln 2 and 0 have the weights 2/3 and 1/3.
    assert evaluated(Soft(), 0, math.log(2)) == pytest.approx(2 / 3 * math.log(2), abs=1e-15)


@pytest.mark.parametrize("beta", [-2.0, 0.0, 0.5, 1.0, 3.0])
def test_soft_has_the_exact_gradient(beta: float) -> None:
    x = one_window(1, 4, 3, 2)
    y = GlobalPool1d(Soft(beta=beta))(x)
    y.sum().backward()
    weights = torch.softmax(beta * x.detach(), -1)
    torch.testing.assert_close(x.grad, weights * (1 + beta * (x - y).detach()), rtol=0, atol=1e-14)


@pytest.mark.parametrize("path", kernels.PATHS)
def test_soft_detached_has_the_weights_as_gradient_and_the_same_output(path: str) -> None:
    x, layer, exact = one_window(1, 4, 3, 2), GlobalPool1d(Soft(grad="detached")), GlobalPool1d(Soft())
    layer.path = exact.path = path
    y = layer(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.softmax(x.detach(), -1), rtol=0, atol=1e-15)
    assert torch.equal(y, exact(x))


def test_soft_keeps_negative_results() -> None:
    assert evaluated(Soft(), -3, -3, -3) == -3.0


def test_stochastic_by_hand() -> None:
    # Zeiler and Fergus, figure 1: activations 1.6 and 2.4 have the probabilities 0.4 and 0.6.
    x = one_window(0, 0, 0, 0, 2.4, 1.6, 0, 0, 0)
    assert evaluated(Stochastic(), *x.flatten().tolist()) == pytest.approx(0.6 * 2.4 + 0.4 * 1.6, abs=1e-15)
    drawn = GlobalPool1d(Stochastic(), seed=0).train()(x.expand(20_000, 1, 9)).flatten()
    assert set(drawn.tolist()) == {1.6, 2.4}
    assert float((drawn == 2.4).double().mean()) == pytest.approx(0.6, abs=5 * math.sqrt(0.24 / 20_000))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("dead", [(0, 0, 0, 0), (-1, -2, 0, -3)])
def test_stochastic_gives_zero_for_a_dead_window(dead: tuple[float, ...], train: bool) -> None:
    x = one_window(*dead)
    y = GlobalPool1d(Stochastic()).train(train)(x)
    y.sum().backward()
    assert y.item() == 0.0
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_stochastic_gives_the_gradient_to_the_drawn_cell_alone() -> None:
    x = torch.rand(500, 1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = GlobalPool1d(Stochastic(), seed=1).train()(x)
    y.sum().backward()
    assert torch.equal(x.grad.sum(-1), torch.ones(500, 1, dtype=torch.float64))
    assert torch.equal((x.grad * x).sum(-1, keepdim=True), y)


@pytest.mark.parametrize("path", kernels.PATHS)
@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_stochastic_stays_where_the_square_would_not(path: str, size: float) -> None:
    layer = GlobalPool1d(Stochastic()).eval()
    layer.path = path
    assert float(layer(torch.full((1, 1, 2), size))) == pytest.approx(size, rel=1e-6, abs=0)


@pytest.mark.parametrize("method", [Mixed(per="region"), Mixed(per="map"), Mixed(per="layer"), Stochastic()], ids=str)
def test_the_mean_of_many_draws_is_the_evaluation(method: poolkit.WindowMethod) -> None:
    count = 20_000
    x = torch.tensor([[1.0, 4.0, 3.0, 2.0], [0.0, 7.0, 0.5, 0.5]], dtype=torch.float64)
    layer = GlobalPool1d(method, seed=3)
    drawn = layer.train()(x.expand(count, 2, 4))[..., 0]
    slack = 5 * drawn.std(0) / math.sqrt(count)
    assert bool(((drawn.mean(0) - layer.eval()(x[None])[0, :, 0]).abs() < slack).all())


def coins(per: str) -> torch.Tensor:
    """Which of 64 × 5 × 6 × 6 windows a mixed layer pooled by their maximum."""
    x = torch.rand(64, 5, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    got = Pool2d(Mixed(per=per), 2, seed=2).train()(x)
    largest, mean = pool(x, Max(), 2), pool(x, Avg(), 2)
    took_max = (got - largest).abs() < 1e-12
    assert bool((took_max ^ ((got - mean).abs() < 1e-12)).all()), "a value that is neither maximum nor mean"
    return took_max.double()


def test_mixed_throws_one_coin_for_each_example_map_or_region() -> None:
    layer, by_map, region = coins("layer"), coins("map"), coins("region")
    assert torch.equal(layer, layer[:, :1, :1, :1].expand_as(layer))
    assert 0 < float(layer[:, 0, 0, 0].mean()) < 1
    assert torch.equal(by_map, by_map[..., :1, :1].expand_as(by_map))
    assert bool((by_map[:, :, 0, 0].var(1) > 0).any()), "all channels of every example share their coin"
    assert bool((region.flatten(2).var(-1) > 0).all()), "all windows of a map share their coin"


def test_mixed_in_evaluation_is_half_max_half_mean_or_what_was_asked_for() -> None:
    assert evaluated(Mixed(), 1, 4, 3, 2) == 0.5 * 4 + 0.5 * 2.5
    assert evaluated(Mixed(test="max"), 1, 4, 3, 2) == 4.0
    assert evaluated(Mixed(test="avg"), 1, 4, 3, 2) == 2.5


def test_lp_by_hand() -> None:
    assert evaluated(Lp(p=2), 3, 4) == pytest.approx(math.sqrt(12.5), abs=1e-15)
    assert evaluated(Lp(p=2, reduction="sum"), 3, 4) == pytest.approx(5, abs=1e-15)


@pytest.mark.parametrize("p", [1.0, 3.0, 5.0, 2.5])
def test_lp_takes_absolute_values(p: float) -> None:
    x = one_window(-1, -4, -3, -2)
    layer = GlobalPool1d(Lp(p=p))
    torch.testing.assert_close(layer(x), layer(-x), rtol=0, atol=1e-15)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e4, 1e30])
def test_a_large_power_neither_overflows_nor_underflows(size: float) -> None:
    x = one_window(size, size, size / 2, -size, dtype=torch.float32)
    y = GlobalPool1d(Lp(p=100.0))(x)
    y.sum().backward()
    assert y.item() == pytest.approx(size * 0.75**0.01, rel=1e-5)
    assert bool(x.grad.isfinite().all())


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 1), (3, 2)])
def test_lp_as_a_sum_is_torch_lp_pool_where_that_is_right(p: float, kernel: int, stride: int) -> None:
    x = torch.rand(2, 3, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) + 0.1
    got = Pool2d(Lp(p=p, reduction="sum"), kernel, stride)(x)
    torch.testing.assert_close(got, nn.LPPool2d(p, kernel, stride)(x), rtol=1e-12, atol=0)


def test_gem_by_hand() -> None:
    assert evaluated(GeM(p=3), 1, 2) == pytest.approx(4.5 ** (1 / 3), abs=1e-15)
    assert evaluated(GeM(p=3, eps=0.5), -7, 0.25) == pytest.approx(0.5, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gem_in_half_precision_is_right_and_trains(dtype: torch.dtype) -> None:
    x = (torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(5)) * 60_000).to(dtype).requires_grad_()
    layer = GlobalPool2d(GeM(p=learn()))
    y = layer(x)
    y.sum().backward()
    want = x.detach().double().pow(3).mean((2, 3), keepdim=True).pow(1 / 3)
    torch.testing.assert_close(y.double(), want, rtol=2.0 ** (-10 if dtype == torch.float16 else -7), atol=0)
    assert y.dtype == dtype
    assert bool(x.grad.isfinite().all()) and bool(layer.raw_p.grad.isfinite())


def test_gem_of_a_dead_map_is_eps_and_has_a_finite_gradient() -> None:
    layer, x = GlobalPool1d(GeM(p=learn())), one_window(0, 0, 0, dtype=torch.float32)
    y = layer(x)
    y.sum().backward()
    assert y.item() == pytest.approx(1e-6, rel=1e-6)
    assert bool(x.grad.isfinite().all()) and bool(layer.raw_p.grad.isfinite())


GRID = [
    {"kernel_size": k, "stride": s, "padding": pad, "ceil_mode": ceil}
    for k, s, pad, ceil in itertools.product((2, 3, (3, 2)), (1, 2, 3), (0, 1), (False, True))
]


def gradient_of(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    y = layer(x)
    return torch.autograd.grad(y, x, torch.linspace(1, 2, y.numel(), dtype=y.dtype).reshape(y.shape))[0]


@pytest.mark.parametrize("path", [None, "reference"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_max_is_torch_max_pool_bit_for_bit_with_its_gradient(path: str | None, dilation: int) -> None:
    generator = torch.Generator().manual_seed(6)
    for geometry in GRID:
        x = torch.randint(-3, 4, (2, 3, 9, 8), generator=generator).float()  # many ties
        layer, theirs = Pool2d(Max(), dilation=dilation, **geometry), nn.MaxPool2d(dilation=dilation, **geometry)
        layer.path = path
        assert torch.equal(layer(x), theirs(x)), geometry
        torch.testing.assert_close(gradient_of(layer, x), gradient_of(theirs, x), rtol=1e-6, atol=0, msg=str(geometry))


@pytest.mark.parametrize("path", [None, "reference"])
@pytest.mark.parametrize("counted", [False, True])
def test_avg_is_torch_avg_pool(path: str | None, counted: bool) -> None:
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    for geometry in GRID:
        layer = Pool2d(Avg(count_include_pad=counted), **geometry)
        layer.path = path
        theirs = nn.AvgPool2d(count_include_pad=counted, **geometry)
        torch.testing.assert_close(layer(x), theirs(x), rtol=1e-13, atol=1e-13, msg=str(geometry))
        torch.testing.assert_close(gradient_of(layer, x), gradient_of(theirs, x), rtol=1e-13, atol=1e-13)


def test_the_default_average_does_not_count_padding() -> None:
    ones = torch.ones(1, 1, 4, 4)
    assert torch.equal(Pool2d(Avg(), 3, 2, 1)(ones), torch.ones(1, 1, 2, 2))
    assert float(Pool2d(Avg(count_include_pad=True), 3, 2, 1)(ones)[0, 0, 0, 0]) == pytest.approx(4 / 9)


def test_min_after_relu_and_the_rank_methods_by_hand() -> None:
    values = {name: evaluated(name, 0, 4, 3, 2) for name in ("min", "avg-topk", "rank-avg:t=3")}
    assert values == {"min": 0.0, "avg-topk": 3.5, "rank-avg:t=3": 3.0}


def test_a_window_at_the_edge_ranks_only_its_own_cells() -> None:
    x = -torch.arange(1.0, 6.0)[None, None]  # −1 … −5: a zero from the padding would rank first
    assert Pool1d("avg-topk:k=5", 3, 2, 1)(x).flatten().tolist() == [-1.5, -3.0, -4.5]


def test_oracles_work_on_plain_numbers() -> None:
    for cls in WINDOW_METHODS.values():
        method = cls()
        value = method.oracle(OneWindow.of([2, 2, 2]), method.values())
        assert isinstance(value, float)
        assert value == pytest.approx(2.0) or CONSTANT not in cls.card.facts


def test_every_parameter_is_a_declared_field() -> None:
    for cls in METHODS.values():
        assert [f.name for f in dataclasses.fields(cls)] == list(cls.params())
