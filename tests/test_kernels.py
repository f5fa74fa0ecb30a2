"""The CPU engine: its arithmetic, its walks over memory, its threads, its cache and its manners."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from conftest import PATIENCE

torch = pytest.importorskip("torch")
pytest.importorskip("numba")

from numba import cfunc  # noqa: E402

import poolkit  # noqa: E402
from poolkit import WINDOW_METHODS, kernels, learn  # noqa: E402
from poolkit.kernels import cpu, lanes, team, walk  # noqa: E402
from poolkit.kernels.fingerprint import fingerprint  # noqa: E402
from poolkit.subject import TOLERANCE, variants  # noqa: E402
from poolkit.torch import GlobalPool1d, GlobalPool2d, Pool2d, pool  # noqa: E402
from poolkit.window import Window, window  # noqa: E402

LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
# The shipped methods, and spellings that reach other branches of their kernels.
SPELLINGS = [*WINDOW_METHODS, "avg:count_include_pad=true", "soft:grad=detached", "lp:reduction=sum", "mixed:test=max"]


def through(name: str, word: str, x: np.ndarray) -> np.ndarray:
    """A word of the lane arithmetic, applied to a whole array."""
    s = lanes.words(name)
    load, store, function = s.load, s.store, getattr(s, word)

    @cfunc("void(intp,intp,intp)")
    def run(source, to, n):  # type: ignore[no-untyped-def]
        for i in range(0, n, lanes.W):
            store(to, i, function(load(source, i)))

    x = np.resize(x.astype(name), -(-len(x) // lanes.W) * lanes.W)
    y = np.empty_like(x)
    run.ctypes(x.ctypes.data, y.ctypes.data, len(x))
    return x, y


@pytest.mark.parametrize(("name", "low", "high"), [("float32", -86, 88.7), ("float64", -707, 709.7)])
def test_exp_is_right_to_its_last_places(name: str, low: float, high: float) -> None:
    x, y = through(name, "exp", np.random.default_rng(0).uniform(low, high, 200_000))
    want = np.exp(x.astype(np.longdouble))
    assert float((abs(y - want) / np.spacing(want.astype(name))).max()) <= 1.3


@pytest.mark.parametrize(("name", "decades", "units"), [("float32", 37, 1.2), ("float64", 300, 3.0)])
def test_log_is_right_to_its_last_places(name: str, decades: float, units: float) -> None:
    generator = np.random.default_rng(1)
    far, near = 10.0 ** generator.uniform(-decades, decades, 100_000), 1 + generator.uniform(-0.3, 0.3, 100_000)
    x, y = through(name, "log", np.concatenate([far, near]))
    want = np.log(x.astype(np.longdouble))
    assert float((abs(y - want) / np.spacing(abs(want).astype(name))).max()) <= units


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_exp_less_one_is_right_to_its_last_places(name: str) -> None:
    generator = np.random.default_rng(2)
    x = np.concatenate([generator.uniform(0, 1, 100_000), 10.0 ** generator.uniform(-30, 0, 100_000), [0.0, 1.0]])
    x, y = through(name, "exp_less_one", x)
    want = np.expm1(x.astype(np.longdouble))
    assert float((abs(y - want) / np.spacing(want.astype(name))).max()) <= 1.4
    assert np.isnan(through(name, "exp_less_one", np.array([np.nan]))[1]).all()


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_exp_and_log_at_the_edges(name: str) -> None:
    _, y = through(name, "exp", np.array([0.0, -np.inf, np.inf, np.nan, -1e30, 1e30]))
    np.testing.assert_array_equal(y[:6], np.array([1, 0, np.inf, np.nan, 0, np.inf], name))
    _, y = through(name, "log", np.array([1.0, 0.0, np.inf, np.nan]))
    np.testing.assert_array_equal(y[:4], np.array([0, -np.inf, np.inf, np.nan], name))


@pytest.mark.parametrize(("name", "units"), [("float32", 4), ("float64", 6)])
@pytest.mark.parametrize(("p", "decades"), [(0.3, 37), (1.7, 20), (2.999, 12), (-0.6, 37), (7.3, 4.5)])
def test_powers_and_roots_are_right_to_their_last_places(name: str, units: float, p: float, decades: float) -> None:
    # The rounding of p·f, |f| ≤ ½, is a share of the result that grows with p; so are the parts of 1/p.
    s, kind = lanes.words(name), np.dtype(name).type
    power, root, log2, load, store, own = s.power, s.root_of, s.log2, s.load, s.store, kind(p)

    @cfunc("void(intp,intp,intp,intp)")
    def run(source, powers, roots, n):  # type: ignore[no-untyped-def]
        for i in range(0, n, lanes.W):
            e, f = log2(load(source, i))
            store(powers, i, power(e, f, s.lanes(own) + 0.0 * f))
            store(roots, i, root(e, f, s.lanes(own) + 0.0 * f))

    generator = np.random.default_rng(2)
    x = np.concatenate([10.0 ** generator.uniform(-decades, decades, 40_000), generator.uniform(0.7, 1.4, 40_000)])
    x = x.astype(name)
    powers, roots = np.empty_like(x), np.empty_like(x)
    run.ctypes(x.ctypes.data, powers.ctypes.data, roots.ctypes.data, len(x))
    exact, slack = x.astype(np.longdouble), units * np.finfo(name).eps
    np.testing.assert_allclose(powers.astype(np.longdouble), exact ** np.longdouble(own), rtol=slack * max(1, abs(p)))
    want = exact ** (1 / np.longdouble(own))
    inside = (want < 1e37) & (want > 1e-37)  # float32's range; for p = 0.3 roots leave it
    np.testing.assert_allclose(roots[inside].astype(np.longdouble), want[inside], rtol=slack * max(1, 1 / abs(p)))


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_powers_beyond_the_range_are_no_plausible_numbers(name: str) -> None:
    s = lanes.words(name)
    power, log2, load, store = s.power, s.log2, s.load, s.store

    @cfunc("void(intp,intp,intp)")
    def run(source, powers, n):  # type: ignore[no-untyped-def]
        for i in range(0, n, lanes.W):
            e, f = log2(load(source, i))
            store(powers, i, power(e, f, s.lanes(50.0) + 0.0 * f))

    x = np.resize(np.array([1e-10, 1e10] if name == "float32" else [1e-100, 1e100], name), lanes.W)
    y = np.empty_like(x)
    run.ctypes(x.ctypes.data, y.ctypes.data, len(x))
    assert (y[::2] == 0).all()
    assert not (y[1::2] < np.finfo(name).max / 4).any()  # the largest powers of two, infinity or NaN


GEOMETRIES = [
    (window(2, dims=2), (8, 9)),
    (window(3, 2, 1, dims=2), (17, 34)),
    (window(3, 1, 1, dims=2), (5, 40)),
    (window(2, ceil_mode=True, dims=2), (7, 9)),
    (window((2, 3), (1, 3), (1, 0), dims=2), (6, 22)),
    (window(3, 2, padding="same", dilation=2, dims=2), (9, 11)),
    (window(5, 1, 2, dims=2), (3, 4)),
    (Window.whole((6, 7)), (6, 7)),
    (Window.whole((1, 2)), (1, 2)),
    (Window.whole((1, 1)), (1, 1)),
    (window(2, 1, dims=1), (70,)),
    (window(3, 2, 1, dims=1), (65,)),
    (Window.whole((33,)), (33,)),
    (window((1, 2, 2), (1, 2, 1), dims=3), (3, 5, 6)),
    (Window.whole((2, 3, 4)), (2, 3, 4)),
]
# Maps so large that they are brought to scratch memory strip by strip.
LARGE = [
    (window(3, 1, 1, dims=2), (70, 83)),
    (window(3, 2, 1, ceil_mode=True, dims=2), (130, 51)),
    (window(2, 3, dims=2), (90, 91)),
    (window((5, 3), (1, 2), (2, 0), (2, 1), dims=2), (51, 67)),
    (window(12, 2, 5, dims=2), (70, 70)),
    (window(3, 2, 1, dims=1), (9001,)),
    (window(2, 5, dims=1), (8193,)),
    (window(3, 1, 1, dims=3), (17, 18, 19)),
]


def both(spelling: str, where: Window, x: torch.Tensor, draws: tuple[int, int] | None = None) -> list[torch.Tensor]:
    """Output and gradient from the engine, then from the formula."""
    from poolkit.paths import by_engine, by_formula

    method = poolkit.method(spelling)
    keys = None if draws is None else (torch.tensor(draws[0]), draws[1])
    found = []
    for path in (by_engine, by_formula):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = path(leaf, method, where, vars(method.values()), keys)
        weights = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)
        found += [y.detach(), torch.autograd.grad(y, leaf, weights)[0]]
    return found


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_equals_the_formula_in_every_layout_and_for_any_number_of_channels(spelling: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for number, ((where, sizes), channels) in enumerate(itertools.product(GEOMETRIES, (1, 20, 64))):
        x = torch.randn(2, channels, *sizes, generator=generator, dtype=torch.float64)
        for last, train in itertools.product((False, True), (False, True)):
            if (last and len(sizes) == 1) or (train and not poolkit.method(spelling).draws):
                continue
            laid = x.contiguous(memory_format=LAST[x.dim()]) if last else x
            y, gx, want, wanted = both(spelling, where, laid, (number, 5) if train else None)
            about = f"{spelling}, {where}, {channels} channels, {'channels-last' if last else 'contiguous'}, {train=}"
            assert float((y - want).abs().max()) < 1e-12, about
            assert float((gx - wanted).abs().max()) < 1e-11, about
            assert y.is_contiguous(memory_format=LAST[x.dim()] if last else torch.contiguous_format), about


def nearly_balanced(count: int, n: int) -> torch.Tensor:
    """Windows of n cells whose mean is 1e-4 to 1e-6 of them, one cell a third of it to three times it, of any sign."""
    generator = torch.Generator().manual_seed(0)
    size, like, sides = torch.rand(3, count, generator=generator, dtype=torch.float64)
    mean = 10 ** (-4 - 2 * size) * torch.where(sides % 0.5 < 0.25, 1, -1)
    x = torch.randn(count, n, generator=generator, dtype=torch.float64)
    x[:, 0] = mean * 3 ** (2 * like - 1) * torch.where(sides < 0.5, 1, -1)
    x[:, -1] = n * mean - x[:, :-1].sum(1)
    return x.float()


@pytest.mark.parametrize("side", [2, 3, 6])  # 36 cells have their sums in float64
@pytest.mark.parametrize("spelling", ["edscw", "ada"])
def test_gradients_beside_a_mean_near_0_have_the_digits_of_others(spelling: str, side: int) -> None:
    """The tolerance, of the largest gradient of the window or of 1, which is what its gradients add up to."""
    x = nearly_balanced(4000, side * side).reshape(-1, 40, side, side)
    found = []
    for path, cells in (("cpu", x), ("reference", x.double())):
        layer = Pool2d(spelling, side).to(cells.dtype)
        layer.path = path
        leaf = cells.requires_grad_()
        found.append(torch.autograd.grad(layer(leaf).sum(), leaf)[0].double())
    got, want = found
    size = want.abs().amax((2, 3), keepdim=True).clamp(min=1)
    assert float(((got - want).abs() / size).max()) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("spelling", ["max", "avg", "avg-topk:k=2", "stochastic"])
def test_large_maps_equal_the_formula(spelling: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for (where, sizes), channels in itertools.product(LARGE, (2, 32)):
        x = torch.randn(1, channels, *sizes, generator=generator, dtype=torch.float64)
        for last in (False, True) if len(sizes) > 1 else (False,):
            laid = x.contiguous(memory_format=LAST[x.dim()]) if last else x
            y, gx, want, wanted = both(spelling, where, laid, (3, 5) if poolkit.method(spelling).draws else None)
            assert float((y - want).abs().max()) < 1e-12, (where, channels, last)
            assert float((gx - wanted).abs().max()) < 1e-11, (where, channels, last)


@pytest.mark.parametrize("last", [False, True])
def test_learned_parameters_count_each_window_of_a_large_map_once(last: bool) -> None:
    for where, sizes in LARGE[:4]:
        x = torch.randn(2, 3, *sizes, dtype=torch.float64)
        x = x.contiguous(memory_format=torch.channels_last) if last else x
        slopes = []
        for path in ("cpu", "reference"):
            layer = Pool2d("soft:beta=learn", where.size, where.stride, where.padding, where.dilation).double()
            layer.path = path
            layer(x).square().sum().backward()
            slopes += [layer.raw_beta.grad]
        assert torch.allclose(*slopes, rtol=1e-10), where


@pytest.mark.parametrize("spelling", ["soft:beta=learn", "lp:p=learn@3", "gem:p=learn@2"])
@pytest.mark.parametrize("channels", [3, 20])
def test_learned_parameters_get_the_formulas_gradient(spelling: str, channels: int) -> None:
    for each, last, where in itertools.product(("", f"x{channels}"), (False, True), (3, None)):
        x = torch.randn(3, channels, 9, 9, dtype=torch.float64)
        x = x.contiguous(memory_format=torch.channels_last) if last else x
        slopes = []
        for path in ("cpu", "reference"):
            method = spelling.replace("learn", "learn@1.5" if "@" not in spelling else "learn") + each
            layer = (GlobalPool2d(method) if where is None else Pool2d(method, where, 2, 1)).double()
            layer.path = path
            with torch.no_grad():
                for p in layer.parameters():
                    p += torch.linspace(0, 0.5, p.numel(), dtype=p.dtype).reshape(p.shape)
            y = layer(x)
            (y * torch.linspace(0, 1, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
            slopes += [next(layer.parameters()).grad]
        assert torch.allclose(*slopes, rtol=1e-10, atol=1e-12), (each, last, where)


@pytest.mark.parametrize("spelling", ["lp:p=learn", "lp:p=learn@2.7", "gem:p=learn", "lehmer:p=learn"])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_slope_of_a_power_keeps_its_digits(spelling: str, kernel: int, scale: float) -> None:
    """In windows of nearly equal cells it is the small difference of two logarithms, far from 1 of two large ones."""
    generator = torch.Generator().manual_seed(8)
    for spread in (0.01, 0.5):
        x = scale * (1.0 + spread * torch.rand(1, 1, 12, 12, generator=generator))
        slopes = {}
        for path, dtype in (("cpu", torch.float32), ("reference", torch.float64)):
            layer = Pool2d(spelling, kernel, 1).to(dtype)
            layer.path = path
            layer(x.to(dtype)).sum().backward()
            slopes[path] = float(next(layer.parameters()).grad)
        assert slopes["cpu"] == pytest.approx(slopes["reference"], rel=3e-3 if spread < 0.1 else 3e-5), spread


def test_large_powers_of_usual_cells_stay_finite() -> None:
    x = torch.tensor([[[[1.1, 1.5], [1.7, 1.9]]]])
    powers = ("lehmer:p=150", "lehmer:p=1000", "lp:p=1000", "gem:p=1000")
    for spelling, scale in itertools.product(powers, (1e-4, 1, 1e15)):
        for where in (window(2, dims=2), window((1, 2), 1, dims=2)):
            y, gx, *_ = both(spelling, where, x * scale)
            *_, want, wanted = both(spelling, where, x.double() * scale)
            assert torch.allclose(y.double(), want, rtol=1e-4), spelling
            assert torch.allclose(gx.double(), wanted, atol=2e-2), spelling


@pytest.mark.parametrize("k", [1, 2, 3, 16, 17, 40, 99, 100, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks_of_large_windows_with_ties_and_infinities(k: int, dtype: torch.dtype) -> None:
    x = torch.randint(-4, 5, (3, 5, 10, 10), generator=torch.Generator().manual_seed(k)).to(dtype)
    x[0, 0, 3, 3], x[1, 2, 4, 4], x[2, 2] = torch.inf, -torch.inf, -1.0
    y, gx, want, wanted = both(f"avg-topk:k={k}", Window.whole((10, 10)), x)
    assert torch.allclose(y, want, rtol=1e-6)
    assert torch.allclose(gx, wanted, rtol=1e-6)


@pytest.mark.parametrize("spelling", ["rank-weighted:alpha=0.05", "rank-stochastic:alpha=0.05", "median"])
def test_cells_are_put_in_order_whatever_their_number(spelling: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 3, 5, 6, 7, 8, 9, 12, 16, 17, 31, 33, 63, 65, 100, 129, 264, 515):
        x = torch.randn(2, 20, n, generator=generator, dtype=torch.float64)
        x[1].round_()  # ties
        y, gx, want, wanted = both(spelling, Window.whole((n,)), x)
        assert float((y - want).abs().max()) < 1e-12, n
        assert float((gx - wanted).abs().max()) < 1e-12, n


def awkward(n: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Maps (20, n) that mislead who guesses where a rank lies: from a sample, from sums, from largest and smallest."""
    generator = torch.Generator().manual_seed(n)
    x, chance = (make(20, n, generator=generator, dtype=torch.float64) for make in (torch.randn, torch.rand))
    huge, least = (1e30, 1.4e-45) if dtype == torch.float32 else (1e300, 4.9e-324)
    alternating, sampled, fifth, mixed = torch.full_like(x, huge), x.clone(), x.clone(), x.clone()
    alternating[:, ::2] *= -1
    sampled[:, :: max(1, n // 64)] = -50.0
    fifth[:, ::5] = 7.0
    mixed[3], mixed[4], mixed[5] = 0.0, mixed[4] * huge, mixed[5].round()
    found = {
        "usual": x,
        "equal": torch.full_like(x, 0.3),
        "two values": torch.where(chance < 0.4, -1.0, 1.0).to(x),
        "half zeros": x.relu(),
        "zeros of both signs": torch.where(chance < 0.5, -0.0, 0.0).to(x),
        "outliers": torch.where(chance < 2 / n, huge * x, x),
        "sorted": x.sort(1).values,
        "falling": x.sort(1, descending=True).values,
        "alternating": alternating,
        "heavy tails": x / chance.sub(0.5),
        "many sizes": (15 * x).exp() * x.roll(1, 1).sign(),
        "least numbers": (10 * x).round() * least,
        "infinite": torch.where(chance < 0.3, torch.inf, torch.where(chance > 0.7, -torch.inf, x)),
        "quantised": (3 * x).round() / 4,
        "sample of its own": sampled,
        "fifth cells of their own": fifth,
        "narrow": 1 + 1e-3 * x,
        "lanes of many kinds": mixed,
    }
    return {name: cells.to(dtype) for name, cells in found.items()}


def whole(spelling: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each map's value, and the gradient of their sum."""
    leaf = x[None].clone().requires_grad_()
    y = GlobalPool1d(spelling).eval()(leaf)
    return y.detach()[0, :, 0], torch.autograd.grad(y.sum(), leaf)[0][0]


@pytest.mark.parametrize("rule", ["mean", "lower"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_median_is_exact_for_awkward_cells(rule: str, dtype: torch.dtype) -> None:
    for n in (17, 100, 255, 256, 1024, 1500):
        for name, x in awkward(n, dtype).items():
            ordered, places = x.sort(dim=1, descending=True, stable=True)
            y, gx = whole(f"median:rule={rule}", x)
            middle = [n // 2, (n - 1) // 2] if rule == "mean" else [n // 2]
            want, wanted = torch.zeros_like(y), torch.zeros_like(x)
            for r in middle:
                want += ordered[:, r] / len(middle)
                wanted.scatter_add_(1, places[:, r : r + 1], torch.full_like(want[:, None], 1 / len(middle)))
            assert torch.equal(y.nan_to_num(7.0), want.nan_to_num(7.0)), (n, name)
            assert torch.equal(gx, wanted), (n, name)


def test_a_rank_from_among_the_cells_is_exact_whatever_it_is() -> None:
    for n in (40, 300, 1024):
        for name, x in awkward(n, torch.float64).items():
            ordered, places = x.sort(dim=1, descending=True, stable=True)
            for k in {17, 40, n // 4, n - 17, n - 1}:
                _, gx = whole(f"avg-topk:k={k}", x)
                wanted = torch.zeros_like(x).scatter_(1, places[:, :k], 1 / k)
                assert torch.allclose(gx, wanted, rtol=1e-15), (n, name, k)


@pytest.mark.parametrize("alpha", [1.0, 0.9, 0.5, 0.25, 0.03])
@pytest.mark.parametrize(
    "spelling", ["rank-weighted:alpha=", "rank-weighted:normalize=true,alpha=", "rank-stochastic:alpha="]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks_that_are_left_out_do_not_count(spelling: str, alpha: float, dtype: torch.dtype) -> None:
    eps = torch.finfo(dtype).eps
    for n in (31, 32, 64, 100, 1000):
        rest = 1 - np.longdouble(torch.tensor(alpha, dtype=dtype).item())
        weights = (1 - rest) * rest ** np.arange(n)
        if "normalize" in spelling:
            weights /= weights.sum()
        elif "stochastic" in spelling:
            weights[-1] /= 1 - rest
        for name, x in awkward(n, dtype).items():
            if name in ("infinite", "least numbers"):
                continue
            cells = x.numpy().astype(np.longdouble)
            order = np.argsort(-cells, axis=1, kind="stable")
            wanted = np.empty_like(cells)
            np.put_along_axis(wanted, order, np.broadcast_to(weights, cells.shape), axis=1)
            y, gx = (v.numpy() for v in whole(spelling + str(alpha), x))
            # What a power and a sum of so many terms may round, and what ranks that are left out may count.
            rounded = np.empty_like(cells)
            np.put_along_axis(
                rounded, order, np.broadcast_to(4 * eps * (np.arange(n) + 1 + 1 / alpha) * weights, cells.shape), axis=1
            )
            allowed = (rounded * abs(cells)).sum(1) + eps / 4 * abs(cells).mean(1)
            assert bool((abs(y - (cells * wanted).sum(1)) <= allowed).all()), (n, name)
            assert bool((abs(gx - wanted) <= rounded + eps / 4 * weights[0]).all()), (n, name)


@pytest.mark.parametrize("spelling", ["rank-weighted", "rank-stochastic", "rank-weighted:alpha=0.1"])
def test_a_cell_of_minus_infinity_counts_whatever_its_rank(spelling: str) -> None:
    x = torch.randn(1, 20, 700)
    x[0, 3, 5], x[0, 4, 6], x[0, 5, 7], x[0, 5, 8] = -torch.inf, torch.nan, -torch.inf, torch.inf
    y = GlobalPool1d(spelling).eval()(x)[0, :, 0]
    assert y[3] == -torch.inf and y[4].isnan() and y[5].isnan() and bool(y[6:].isfinite().all())


@pytest.mark.parametrize("spelling", ["median", "avg-topk:k=40", "rank-weighted", "rank-stochastic", "k-max-min:k=20"])
def test_the_bits_of_a_whole_map_do_not_depend_on_those_beside_it(spelling: str) -> None:
    maps = [x for name, x in awkward(600, torch.float32).items() if name != "infinite"]
    beside = torch.cat([x[:3] for x in maps])
    together = [v.nan_to_num(7.0) for v in whole(spelling, beside)]
    for i in range(len(beside)):
        for got, want in zip(whole(spelling, beside[i : i + 1]), together, strict=True):
            assert torch.equal(got[0].nan_to_num(7.0), want[i]), i


def raw(values: np.ndarray, spelling: str, where: Window, shape: tuple[int, ...], last: bool, guard: int) -> None:
    """Run both directions with all outside the tensors poisoned; nothing there may be written, or count."""
    method = poolkit.method(spelling)
    out = (*shape[:2], *where.output_size(shape[2:]))
    rows = np.array([[float(getattr(method, n))] for n in kernels.numbers_of(method)], values.dtype).reshape(-1, 1)
    sizes = {"x": int(np.prod(shape)), "y": int(np.prod(out)), "gx": int(np.prod(shape))}
    memory = {name: np.full(n + 2 * guard, np.nan, values.dtype) for name, n in sizes.items()}
    at = {name: m.ctypes.data + guard * m.itemsize for name, m in memory.items()}
    memory["x"][guard:-guard] = values
    for gx in (0, at["gx"]):
        job = cpu.job(method, where, str(values.dtype), shape, last, None, 1, gx != 0)
        job.run(at["x"], at["y"], gx, rows.ctypes.data, 0, None, 1)
    for name, m in memory.items():
        assert np.isnan(m[:guard]).all() and np.isnan(m[-guard:]).all(), f"{name}: written outside"
        assert np.isfinite(m[guard:-guard]).all(), f"{name}: not written, or made of what lies outside"


@pytest.mark.parametrize("spelling", ["max", "avg", "soft", "avg-topk:k=3", "gem", "stochastic"])
@pytest.mark.parametrize("last", [False, True])
def test_stays_within_its_tensors(spelling: str, last: bool) -> None:
    for (where, sizes), channels, name in itertools.product(
        [*GEOMETRIES, *LARGE], (1, 5, 32, 33), ("float32", "float64")
    ):
        shape = (2, channels, *sizes)
        values = np.random.default_rng(3).normal(size=int(np.prod(shape))).astype(name)
        raw(values, spelling, where, shape, last, guard=64)


def bits(x: torch.Tensor, *arguments: object, **values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and gradient of a call; NaN, which extreme cells may give, as a number that can be compared."""
    x = x.detach().requires_grad_()
    y = pool(x, *arguments, **values)  # type: ignore[arg-type]
    return y.nan_to_num(7.0), torch.autograd.grad(y.sum(), x)[0].nan_to_num(7.0)


def with_extreme_pictures() -> torch.Tensor:
    """Among usual pictures some of very large cells, of zeros and of equal cells."""
    x = torch.randn(33, 2, 6, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    x[1::4] *= 1e20
    x[2::4] = 0.0
    x[3::8] = x[3::8, :, :1, :1]
    return x


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", WINDOW_METHODS)
def test_the_bits_of_a_picture_do_not_depend_on_those_beside_it(name: str, form: torch.memory_format) -> None:
    x = with_extreme_pictures().contiguous(memory_format=form)
    for method in variants(WINDOW_METHODS[name]):
        if method.learned:  # the next test's
            continue
        for where in ((2, None, 1), (3, 1, 1)):
            whole = bits(x, method, *where)
            parts = zip(*(bits(part, method, *where) for part in x.split((1, 1, 1, 1, 1, 16, 12))), strict=True)
            for got, want in zip(parts, whole, strict=True):
                assert torch.equal(torch.cat(got), want), (method.spelling, where)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("name", "parameter", "values"),
    [
        ("lp", "p", (2.0, 2.7)),
        ("gem", "p", (3.0, 2.7)),
        ("lehmer", "p", (1.0, 2.7)),
        ("lehmer", "p", (2.0, 0.0)),
        ("dpp", "lam", (1.0, 2.7)),
        ("dpp", "lam", (2.0, 0.5)),
        ("alpha-integration", "alpha", (-1.0, 1.0)),
        ("alpha-integration", "alpha", (-3.0, -2.0)),
        ("soft", "beta", (1.0, -300.0)),
        ("lse", "r", (1.0, -300.0)),
    ],
)
def test_the_bits_of_a_channel_do_not_depend_on_the_numbers_of_another(
    name: str, parameter: str, values: tuple[float, float], form: torch.memory_format
) -> None:
    """Usual powers take a short way where all windows side by side have them, and must not where they are mixed."""
    method, numbers = WINDOW_METHODS[name](**{parameter: learn()}), torch.tensor(values, dtype=torch.float64)
    x = with_extreme_pictures().abs().contiguous(memory_format=form)
    for where in ((2, None, 1), (3, 1, 1)):
        both_channels = bits(x, method, *where, **{parameter: numbers})
        for c in (0, 1):
            alone = bits(x[:, c : c + 1].contiguous(), method, *where, **{parameter: numbers[c]})
            for got, want in zip(both_channels, alone, strict=True):
                assert torch.equal(got[:, c : c + 1], want), (values[c], where)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", WINDOW_METHODS)
def test_a_layer_takes_a_relu_along_bit_for_bit(name: str, form: torch.memory_format) -> None:
    x = torch.randn(3, 33, 7, 8, generator=torch.Generator().manual_seed(5)).contiguous(memory_format=form)
    x[0, :, 2:5] = 0.0
    x[1, 0, 3, 3] = torch.nan
    method = WINDOW_METHODS[name]()
    whole = Pool2d(method, (7, 8), seed=1) if method.tables else GlobalPool2d(method, seed=1)
    # Another kernel to compile for each: the other geometries with one method only.
    for layer in (Pool2d(method, 3, 1, 1, seed=1), *((Pool2d(method, 2), whole) if name == "soft" else ())):
        for training, path in itertools.product((False, True), ("cpu", "reference")):
            found = []
            for relu in (True, False):
                layer.train(training).path = path
                if hasattr(layer, "seen"):
                    layer.seen.zero_()
                leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
                y = layer(leaf, relu=True) if relu else layer(leaf.relu())
                found.append((y, torch.autograd.grad(y.sum(), leaf)[0]))
            for got, want in zip(*found, strict=True):
                assert torch.equal(got.nan_to_num(7.0), want.nan_to_num(7.0)), (method.spelling, training, path)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "spelling",
    [
        "soft",
        "soft:beta=-40",
        "lse:r=30",
        "lp:p=2.5",
        "lp:p=40",
        "gem:p=2.5",
        "lehmer:p=2.5",
        "alpha-integration:alpha=-1",
    ],
)
def test_what_is_made_once_a_cell_serves_windows_of_any_size(spelling: str, last: bool) -> None:
    """Where windows overlap: cells of 1e-18 to 1e18 side by side, and windows of zeros, against float64's formula."""
    generator = torch.Generator().manual_seed(7)
    sizes = 10.0 ** torch.randint(-18, 19, (2, 37, 3, 3), generator=generator)
    x = (
        torch.randn(2, 37, 12, 12, generator=generator) * sizes.repeat_interleave(4, 2).repeat_interleave(4, 3)
    ).float()
    x[0, :5] = 0.0
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    method = poolkit.method(spelling)
    where = window(3, 1, 1, dims=2)
    assert cpu.job(method, where, "float32", tuple(x.shape), last, None, 1, True).keep[1].numbers > 0
    y, gx, *_ = both(spelling, where, x)
    *_, want, wanted = both(spelling, where, x.double())
    most = torch.nn.functional.max_pool2d(x.abs().double(), 3, 1, 1).clamp(min=getattr(method, "eps", 0.0))
    assert float(((y - want).abs() / most.clamp(min=1e-37)).max()) < 5e-6
    slack = torch.nn.functional.max_pool2d(wanted.abs(), 5, 1, 2)
    assert float(((gx - wanted).abs() / slack.clamp(min=1e-30)).max()) < 2e-5


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("spelling", ["max", "avg-topk", "soft:beta=learn", "stochastic"])
def test_the_same_bits_in_a_hundred_runs_with_any_number_of_threads(spelling: str, form: torch.memory_format) -> None:
    x = torch.randn(4, 24, 24, 24).contiguous(memory_format=form).requires_grad_()
    threads = torch.get_num_threads()
    first: list[torch.Tensor] = []
    try:
        for run in range(100):
            torch.set_num_threads(1 + run % 3)
            layer = Pool2d(spelling, 3, 2, 1, seed=1)
            y = layer(x)
            found = [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])]
            first = first or found
            assert all(torch.equal(a, b) for a, b in zip(found, first, strict=True)), run
    finally:
        torch.set_num_threads(threads)


def test_torchs_number_of_threads_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(team, "run", lambda function, address, frame, threads: used.append(threads))
    x, threads = torch.randn(8, 16, 64, 64), torch.get_num_threads()
    try:
        for count in (1, 2):
            used.clear()
            torch.set_num_threads(count)
            pool(x, "max", 2)
            assert used == [count]
    finally:
        torch.set_num_threads(threads)


def test_a_forked_child_pools_too() -> None:
    # Only the engine is called in the child: torch's own threads do not survive a fork, ours are made anew.
    x = torch.randn(8, 16, 64, 64)
    torch.set_num_threads(2)
    want = pool(x, "soft", 2).numpy()  # the parent's threads exist now
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        os._exit(0 if np.array_equal(pool(x, "soft", 2).numpy(), want) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one core
def test_workers_of_a_data_loader_pool() -> None:
    pool(torch.randn(8, 16, 64, 64), "max", 2)
    rows = torch.utils.data.DataLoader(
        list(torch.randn(4, 2, 32, 32)), num_workers=2, collate_fn=pooled, timeout=PATIENCE
    )
    assert [tuple(batch.shape) for batch in rows] == [(1, 2, 16, 16)] * 4


def pooled(batch: list[torch.Tensor]) -> torch.Tensor:
    return pool(torch.stack(batch), "max", 2)


@pytest.mark.parametrize("side", [2, 3, 6, 7, 16])  # more than 32 cells have their sums in float64
@pytest.mark.parametrize("spelling", ["avg", "genetic-weights:weights=1-3-2", "soft", "edscw", "ada", "dpp"])
def test_the_mean_of_equal_cells_is_that_cell(spelling: str, side: int) -> None:
    cells = torch.rand(64, 32, 1, 1, generator=torch.Generator().manual_seed(0)) * 5
    pooled = GlobalPool2d(spelling)(cells.expand(64, 32, side, side).contiguous())
    units = (pooled - cells).abs() / (cells * torch.finfo().eps)
    assert float(units.detach().max()) <= (2 if side < 6 else 0)  # float64 rounds off long sums only


@pytest.mark.parametrize("side", [6, 8, 16])
def test_a_tie_of_fuzzy_sets_goes_to_the_first_wherever_the_cells_lie(side: int) -> None:
    cells, draw = torch.arange(side * side) % 2, torch.Generator().manual_seed(0)
    mixed = torch.stack([cells[torch.randperm(side * side, generator=draw)] for _ in range(256)]).float()
    y = GlobalPool2d("fuzzy:r_max=1.1")(mixed.reshape(8, 32, side, side))
    assert not y.any()  # as many small cells as large ones: the mean of the small ones


@pytest.mark.parametrize("size", [1e-38, 1e-37, 1e-30, 1.0, 1e30, 3e38])
@pytest.mark.parametrize("side", [2, 7])
def test_small_and_large_genes_weigh_cells_of_any_size(size: float, side: int) -> None:
    x = torch.rand(4, 32, side, side).double().add(0.1).mul(size / 1.1).float()
    for genes in ("0.001-0.002", "1000-999", "0.001-1000"):
        want = GlobalPool2d(f"genetic-weights:weights={genes}")(x.double())
        got = GlobalPool2d(f"genetic-weights:weights={genes}")(x).double()
        assert float(((got - want) / size).abs().max()) <= 4 * torch.finfo().eps


def test_long_sums_are_exact_to_the_last_places() -> None:
    for sizes in ((120, 120), (2048, 2048)):  # the engine's, and torch's own reduction
        x = torch.rand(1, 2, *sizes) + 1
        for spelling in ("avg", "soft:beta=0", "avg-topk:k=100000000"):
            y, want = pool(x, spelling).double(), pool(x.double(), spelling)
            assert float(((y - want).abs() / x.double().abs().mean()).max()) <= 4 * 2.0**-23, (sizes, spelling)


def test_large_windows_take_the_engine_where_many_maps_fill_its_vectors() -> None:
    known = {
        (name, maps, side): GlobalPool2d(name).explain(torch.empty(1, maps, side, side)).path
        for name in ("soft", "avg")
        for maps in (31, 32)
        for side in (128, 129, 512, 513)
    }
    assert {case for case, path in known.items() if path == "cpu"} == {
        *((name, maps, 128) for name in ("soft", "avg") for maps in (31, 32)),
        *(("soft", 32, side) for side in (129, 512)),
    }


REACHING = [name for name, cls in WINDOW_METHODS.items() if cls.kernel_reach == (2**14, 2**18) and not cls().tables]


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", REACHING)
def test_large_windows_are_right_in_the_engine(name: str, form: torch.memory_format) -> None:
    """More cells than caches hold, and a vector that is not full."""
    x = torch.randn(1, 35, 131, 130, generator=torch.Generator().manual_seed(9)).contiguous(memory_format=form)
    layer = GlobalPool2d(name, seed=1)
    for training in (False, True):
        found = []
        for path, kind in (("cpu", torch.float32), ("reference", torch.float64)):
            layer.train(training).path = path
            if hasattr(layer, "seen"):
                layer.seen.zero_()
            leaf = x.detach().to(kind).requires_grad_()
            y = layer.to(kind)(leaf)
            found.append((y.detach().double(), torch.autograd.grad(y.sum(), leaf)[0].double()))
        (y, slopes), (want, right) = found
        assert float((y - want).abs().max()) <= 4 * 2.0**-23 * float(x.abs().mean()), training
        torch.testing.assert_close(slopes, right, rtol=2e-5, atol=2e-6 * float(right.abs().max()))


@pytest.mark.parametrize("maps", [7, 32])
def test_the_path_of_a_large_window_does_not_depend_on_the_number_of_pictures(maps: int) -> None:
    layer, x = GlobalPool2d("soft"), torch.rand(5, maps, 130, 130)
    assert torch.equal(layer(x), torch.cat([layer(some) for some in x.split(2)]))
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(layer, (x,), dynamic_shapes={"x": {0: batch}})
    torch.testing.assert_close(program.module()(x[:3]), layer(x[:3]))


@pytest.mark.parametrize("r", [1.0, 5.3, -0.7, 20.0])
@pytest.mark.parametrize("spread", [4.0, 20.0])
def test_log_sum_exp_of_overlapping_windows_rounds_little_for_any_rate(r: float, spread: float) -> None:
    x = torch.randn(300, 40, 4, 3, generator=torch.Generator().manual_seed(0)) * (spread / abs(r))
    layer = Pool2d(f"lse:r={r}", 3, 1)
    windows = torch.nn.functional.unfold(x.double().view(-1, 1, 4, 3), 3).view(300, 40, 9, 2)
    rate = float(torch.tensor(r))  # what the engine is told
    want = (torch.logsumexp(rate * windows, 2) - math.log(9)) / rate
    error = (layer(x).double().flatten(2) - want).abs() / (windows.abs().mean(2) * 2.0**-23)
    assert float(error.max()) <= 4


def test_only_the_input_is_kept_for_backward_and_nothing_without_gradient() -> None:
    x, kept = torch.randn(2, 8, 16, 16, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        for spelling in ("max", "avg-topk", "soft"):
            kept.clear()
            Pool2d(spelling, 2)(x)
            assert [t.data_ptr() for t in kept if t.numel() > 8] == [x.data_ptr()]
        kept.clear()
        with torch.no_grad():
            Pool2d("soft", 2)(x)
        assert kept == []


def test_transforms_traces_and_tangents_take_the_formula() -> None:
    warnings.simplefilter("ignore")  # torch warns of torch.jit, which it uses here itself, and of traced sizes
    x, layer = torch.randn(3, 2, 4, 4), Pool2d("soft", 2)
    want = layer(x)
    assert torch.allclose(torch.func.vmap(layer)(x[:, None])[:, 0], want, atol=1e-6)
    _, tangent = torch.func.jvp(layer, (x,), (torch.ones_like(x),))
    assert torch.allclose(tangent, torch.ones_like(want), atol=1e-5)
    assert torch.autograd.functional.hessian(lambda t: layer(t).sum(), x[:1]).isfinite().all()
    traced = torch.jit.trace(layer, (x,), check_trace=False)
    assert torch.allclose(traced(2 * x), layer(2 * x), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 8, 8).to(dtype)
    want = pool(x, "soft", 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = pool(x, "soft", 2)
    assert y.dtype == dtype
    assert torch.equal(y, want)


def test_a_path_that_cannot_serve_says_why() -> None:
    layer = Pool2d("max", 2)
    layer.path = "cpu"
    with pytest.raises(ValueError, match="does not reach tensors on meta"):
        layer(torch.empty(1, 1, 4, 4, device="meta"))
    layer.path = "fast"
    with pytest.raises(ValueError, match="'cpu', 'reference'"):
        layer(torch.randn(1, 1, 4, 4))


def test_without_numba_everything_runs_on_the_formula_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1, 2, 6, 6)
    want = pool(x, "soft", 2)
    monkeypatch.setattr(kernels, "ENGINE_MISSING", "Numba is not installed")
    layer = Pool2d("soft", 2)
    assert torch.allclose(layer(x), want, atol=1e-6)
    assert str(layer.explain(x)).endswith("path: reference (Numba is not installed)")


def run_python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=PATIENCE,
        check=False,
    )


def test_importing_the_layers_imports_no_compiler() -> None:
    done = run_python("import sys, poolkit.torch; print('numba' in sys.modules, 'llvmlite' in sys.modules)")
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_kernels_are_kept_on_disk_for_the_next_process(tmp_path: Path) -> None:
    code = (
        "import torch, poolkit.torch as t; print(t.pool(torch.arange(16.).reshape(1, 1, 4, 4), 'max', 2).sum().item())"
    )
    forbid = "from numba.core.ccallback import CFunc; CFunc._compile_uncached = None; "
    first = run_python(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert first.stdout.strip() == "40.0", first.stderr
    again = run_python(forbid + code, NUMBA_CACHE_DIR=str(tmp_path))
    assert again.stdout.strip() == "40.0", again.stderr


OWN = '''
from __future__ import annotations
import math
from dataclasses import dataclass
from typing import Any, ClassVar
from poolkit import Card, Values, WindowMethod, param

@dataclass(frozen=True)
class Middle(WindowMethod):
    """The mean of the largest and the smallest cell.

        y = (max xᵢ + min xᵢ) / 2
    """

    card: ClassVar[Card] = Card(name="middle", title="Middle", equation="(max + min) / 2", source="test", family="-")

    def reduce(self, w: Any, p: Values) -> Any:
        return (w.max(w.x) + w.min(w.x)) / 2

    def oracle(self, w: Any, p: Values) -> float:
        return (max(w.x) + min(w.x)) / 2

    def kernel(self, s: Any, p: Any) -> Any:
        def forward(w):
            return (s.largest(w) + s.smallest(w)) * FACTOR

        def gradient(w, g):
            top, bottom, up, down = s.largest(w), s.smallest(w), g * 0.5, g * 0.5
            for j in range(s.count(w)):
                v = s.cell(w, j)
                high, low = v == top, v == bottom
                s.give(w, j, s.where(high, up, 0.0) + s.where(low, down, 0.0))
                up, down = s.where(high, 0.0, up), s.where(low, 0.0, down)

        return forward, gradient
'''


@pytest.mark.parametrize(("factor", "right"), [("0.5", True), ("0.6", False)])
def test_a_method_of_ones_own_brings_its_own_kernel_and_a_wrong_one_is_caught(
    tmp_path: Path, factor: str, right: bool
) -> None:
    name = f"own_middle_{factor[-1]}"
    (tmp_path / f"{name}.py").write_text(OWN.replace("FACTOR", factor))
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"from {name} import Middle; from poolkit.check import check\n"
        "print([r.contract for r in check(Middle, ('oracle', 'gradient', 'compiled')) if not r.passed])"
    )
    done = run_python(code)
    assert done.stdout.strip() == ("[]" if right else "['oracle', 'gradient']"), done.stderr


def test_a_kernel_is_known_by_its_code_and_not_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = ModuleType("notebook_without_a_file")
    monkeypatch.setitem(sys.modules, notebook.__name__, notebook)
    x = torch.tensor([[[[1.0, 5.0], [2.0, 3.0]]]])
    for factor, want in (("0.5", 3.0), ("0.25", 1.5), ("0.5", 3.0)):  # the same class and file, in other words
        exec(compile(OWN.replace("FACTOR", factor), "<cell>", "exec"), vars(notebook))  # noqa: S102 - as a notebook does
        assert float(pool(x, vars(notebook)["Middle"](), 2)) == want


def test_what_has_no_value_outside_the_process_has_no_fingerprint() -> None:
    def made(thing: object) -> object:
        return lambda: thing

    assert fingerprint(made(1.0)) == fingerprint(made(1.0)) != fingerprint(made(2.0))
    assert fingerprint(made(made(1))) != fingerprint(made(made(2)))
    assert fingerprint(made(object())) is None


def test_a_damaged_cache_is_no_reason_not_to_pool(tmp_path: Path) -> None:
    code = "import torch; from poolkit.torch import pool; print(float(pool(torch.ones(1, 1, 4, 4), 'max', 2).sum()))"
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path)).stdout.strip() == "4.0"
    assert list(tmp_path.rglob("*.nbi"))
    for file in tmp_path.rglob("*.nb?"):
        file.write_bytes(b"")
    done = run_python(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert done.stdout.strip() == "4.0", done.stderr


def test_tensors_without_memory_of_their_own_take_the_formula() -> None:
    zero, negative = torch._efficientzerotensor((1, 16, 4, 4)), torch._neg_view(torch.ones(1, 16, 4, 4))
    assert float(pool(zero, "max", 2).abs().sum()) == 0.0
    assert float(pool(negative, "max", 2).max()) == -1.0
    x = torch.randn(1, 16, 4, 4, requires_grad=True)
    pool(x, "max", 2).backward(torch._efficientzerotensor((1, 16, 2, 2)))
    assert x.grad is not None and float(x.grad.abs().sum()) == 0.0


def test_parameters_on_another_device_are_refused_as_torch_does() -> None:
    layer = Pool2d("soft:beta=learn", 2).to("meta")
    with pytest.raises(RuntimeError, match="device"):
        layer(torch.randn(1, 16, 4, 4))
    with torch.device("meta"):
        assert Pool2d("soft", 2)(torch.ones(1, 16, 4, 4, device="cpu")).device.type == "cpu"


def test_a_call_under_inference_mode_leaves_nothing_behind() -> None:
    x = torch.randn(1, 16, 4, 4)
    with torch.inference_mode():
        Pool2d("soft:beta=1.7", 2)(x)
    Pool2d("soft:beta=1.7", 2)(x.requires_grad_()).sum().backward()


def test_a_batch_of_gradients_equals_one_by_one() -> None:
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    layer = Pool2d("soft:beta=learn", 2).double()
    g = torch.randn(5, 1, 3, 2, 2, dtype=torch.float64)
    (batch,) = torch.autograd.grad(layer(x), x, g, is_grads_batched=True)
    one_by_one = torch.stack([torch.autograd.grad(layer(x), x, one)[0] for one in g])
    torch.testing.assert_close(batch, one_by_one)


def test_two_threads_may_share_a_layer() -> None:
    layer, wrong = GlobalPool2d("max"), []

    def work(size: int) -> None:
        x = torch.arange(float(size * size)).reshape(1, 1, size, size)
        wrong.extend(size for _ in range(300) if float(layer(x)) != size * size - 1)

    threads = [threading.Thread(target=work, args=(size,)) for size in (4, 5, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_frame_has_a_number_for_each_field() -> None:
    named = [value for name, value in vars(walk).items() if name.isupper() and name.lower() in walk.FIELDS]
    assert sorted(named) == list(range(len(walk.FIELDS)))
