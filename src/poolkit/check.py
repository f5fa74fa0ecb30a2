"""The contracts: what every pooling method must keep, ours and other people's.

    >>> from poolkit import Max
    >>> all(result.passed for result in check(Max, only=("card", "oracle")))
    True

A contract is a plain sentence and a function that raises `Broken` with the smallest example it found.
"""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle  # noqa: S403 - only to test that layers can be pickled; nothing foreign is ever loaded
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

import poolkit.torch as face
from poolkit.method import Learn, WindowMethod, learn, parse
from poolkit.methods import METHODS
from poolkit.window import Window, window
from poolkit.xp import OneWindow, numpy_words

# The one tolerance table: the allowed error relative to the largest cell or to the result, whichever is larger. In
# float16 and bfloat16 it is one unit in the last place: half of it for the final rounding, the rest for float32.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 64 * 2.0**-23,
    torch.float16: 1.0 * 2.0**-10,
    torch.bfloat16: 1.0 * 2.0**-7,
}


class Broken(AssertionError):
    """A contract does not hold; the message shows the smallest example found."""


@dataclass(frozen=True)
class Subject:
    """One method with one set of parameters on one path."""

    method: WindowMethod
    path: str | None = None

    def layer(self, dims: int, *, seed: int | None = None, train: bool = False, **geometry: Any) -> Any:
        """A fresh layer, global where no geometry is given."""
        kind = "Pool" if geometry else "GlobalPool"
        layer = getattr(face, f"{kind}{dims}d")(self.method, seed=seed, **geometry)
        layer.path = self.path
        with torch.no_grad():
            for parameter in layer.parameters():  # channels must differ, or a mix-up of channels would not show
                parameter += torch.linspace(0.0, 0.3, parameter.numel()).reshape(parameter.shape)
        return layer.double().train(train)

    def __str__(self) -> str:
        return self.method.spelling + (f" ({self.path} path)" if self.path else "")


@dataclass(frozen=True)
class Contract:
    """A promise: a short name, a sentence, the test, and whether it is run for every variant of the method."""

    name: str
    sentence: str
    test: Callable[[Subject], None]
    each: bool = True


@dataclass(frozen=True)
class Result:
    """The outcome of one contract for one method."""

    contract: str
    sentence: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Case:
    """A geometry to try: picture sizes and window arguments (none: global)."""

    sizes: tuple[int, ...]
    geometry: tuple[tuple[str, Any], ...] = ()

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.sizes)

    @property
    def window(self) -> Window:
        """The window of this case."""
        return window(**dict(self.geometry), dims=self.dims) if self.geometry else Window.whole(self.sizes)

    def __str__(self) -> str:
        args = ", ".join(f"{k}={v!r}" for k, v in self.geometry) or "global"
        return f"picture {'×'.join(map(str, self.sizes))}, {args}"


def case(*sizes: int, **geometry: Any) -> Case:
    """A case from sizes and window arguments."""
    return Case(sizes, tuple(geometry.items()))


# From small to large, so that the first failure is a small one.
CASES = (
    case(1, kernel_size=1),
    case(2, kernel_size=2),
    case(5, kernel_size=3, stride=2, padding=1),
    case(7, kernel_size=2, stride=3, ceil_mode=True),
    case(9, kernel_size=3, stride=1, dilation=3),
    case(3),
    case(2, 2, kernel_size=2),
    case(4, 4, kernel_size=2),
    case(3, 4, kernel_size=(2, 1), stride=1),
    case(5, 5, kernel_size=2, ceil_mode=True),
    case(5, 4, kernel_size=3, stride=2, padding=1),
    case(5, 6, kernel_size=3, stride=2, padding=1, ceil_mode=True),
    case(6, 5, kernel_size=(3, 2), stride=(1, 2), padding=(1, 0)),
    case(5, 5, kernel_size=3, padding="same"),
    case(6, 5, kernel_size=(2, 3), stride=(2, 2), padding="same", dilation=(1, 2)),
    case(7, 7, kernel_size=(2, 3), stride=2, dilation=(3, 2), padding=(1, 1)),
    case(3, 3),
    case(5, 2),
    case(2, 3, 4, kernel_size=2),
    case(4, 3, 5, kernel_size=(2, 3, 2), stride=2, padding=1, ceil_mode=True),
    case(2, 3, 2),
)


def check(method: Any, only: Sequence[str] = ()) -> list[Result]:
    """Run the contracts on a method.

    Args:
        method: a method, or a method's class, which is tried with its defaults and with every value worth trying.
        only: names of contracts; none means all of `CONTRACTS`.

    Returns:
        One result a contract, in the order of `CONTRACTS`.

    Raises:
        TypeError: not a window method.
        ValueError: an unknown contract.
    """
    if unknown := set(only) - {c.name for c in CONTRACTS}:
        raise ValueError(f"no contract {', '.join(sorted(unknown))}; there are: {', '.join(c.name for c in CONTRACTS)}")
    subjects = list(_subjects(method))
    return [_run(contract, subjects) for contract in CONTRACTS if not only or contract.name in only]


def _run(contract: Contract, subjects: list[Subject]) -> Result:
    tried = [s for s in subjects if contract.each or s.method == subjects[0].method or s.method.learned]
    for subject in tried:
        try:
            contract.test(subject)
        except Broken as broken:
            return Result(contract.name, contract.sentence, False, f"{subject}: {broken}")
        except Exception as error:  # noqa: BLE001 - a method under test may fail in any way; that is a result too
            reason = (str(error).strip().splitlines() or [""])[0]
            return Result(contract.name, contract.sentence, False, f"{subject}: {type(error).__name__}: {reason}")
    return Result(contract.name, contract.sentence, True)


def _subjects(method: Any) -> Iterator[Subject]:
    """The variants to try, each also on the reference path where another one would serve it."""
    for variant in _variants(method):
        first = Subject(variant)
        probe = first.layer(2, kernel_size=2).explain(torch.zeros(1, 2, 4, 4))
        yield first
        if probe.path != "reference":
            yield Subject(variant, "reference")


def _variants(method: Any) -> Iterator[WindowMethod]:
    if isinstance(method, WindowMethod):
        yield method
        return
    if not (isinstance(method, type) and issubclass(method, WindowMethod)):
        raise TypeError(f"expected a window method or its class, got {method!r}")
    yield method()
    for name, declared in method.params().items():
        for value in declared.tries:
            yield method(**{name: value})
        if declared.learnable:
            yield method(**{name: learn()})
            yield method(**{name: learn(channels=2)})


# -- helpers ---------------------------------------------------------------------------------------------------------


def _picture(sizes: tuple[int, ...], seed: int, n: int = 2, channels: int = 2) -> Tensor:
    """Cells from −3 to 3, no two alike, in a random order: no ties, all window methods well away from their kinks."""
    count = n * channels * math.prod(sizes)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator).double()
    return ((order + 0.5) / count * 6 - 3).reshape(n, channels, *sizes)


def _expected(layer: Any, x: Tensor, where: Window, u: Tensor | None = None) -> Tensor:
    """The oracle's map of x (N, C, *sizes) with a layer's parameters; u are draws that broadcast to the output."""
    method, sizes = layer.method, tuple(x.shape[2:])
    learned = {name: value.detach().flatten().expand(x.shape[1]) for name, value in layer.learned().items()}
    p = [method.values(**{name: float(v[c]) for name, v in learned.items()}) for c in range(x.shape[1])]
    y = torch.empty(*x.shape[:2], *where.output_size(sizes), dtype=torch.float64)
    draws = None if u is None else u.expand(y.shape)
    for place, cells, numbers in where.walk(sizes):
        padded = where.padded(sizes, place)
        for nc in itertools.product(range(x.shape[0]), range(x.shape[1])):
            one = OneWindow([float(x[nc + cell]) for cell in cells], numbers, where.k, padded)
            at = nc + place
            y[at] = (
                method.oracle(one, p[nc[1]]) if draws is None else method.oracle_sample(one, p[nc[1]], float(draws[at]))
            )
    return y


def _agree(got: Tensor, want: Tensor, slack: torch.dtype | float, about: str) -> None:
    """Same shape, and every cell within slack (a type's tolerance, or a number), or equal, or both NaN."""
    if got.shape != want.shape:
        raise Broken(f"{about}: the output has shape {tuple(got.shape)}, expected {tuple(want.shape)}")
    got, want = got.detach().double(), want.detach().double()
    # The cells of these tests reach up to 3; larger results, such as sums, have larger last places.
    size = want.abs().nan_to_num(0, 0, 0).clamp(min=3)
    allowed = TOLERANCE[slack] * size if isinstance(slack, torch.dtype) else slack
    good = ((got - want).abs() <= allowed) | (got == want) | (got.isnan() & want.isnan())
    if not bool(good.all()):
        at = tuple(int(i) for i in (~good).nonzero()[0])
        raise Broken(f"{about}: at {at} got {float(got[at]):.17g}, expected {float(want[at]):.17g}")


def _gradient(layer: Any, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    y = layer(x)
    (gradient,) = torch.autograd.grad(y, x, torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape))
    return gradient


def _with_parameters(layer: Any) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """The layer as a function of input and parameters, for numerical differentiation."""
    names = [name for name, _ in layer.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    return call, values


# -- contracts -------------------------------------------------------------------------------------------------------


def _card(s: Subject) -> None:
    card = s.method.card
    for field in ("name", "title", "equation", "source", "family"):
        if not getattr(card, field):
            raise Broken(f"the card has no {field}")
    if not (type(s.method).__doc__ or "").strip():
        raise Broken("the class has no docstring")
    for name, declared in s.method.params().items():
        if not declared.says:
            raise Broken(f"parameter {name} does not say what it does")
    again = parse(s.method.spelling, {card.name: type(s.method)})
    if again != s.method or hash(again) != hash(s.method):
        raise Broken(f"{s.method.spelling!r} reads back as {again!r}")


def _oracle(s: Subject) -> None:
    for number, c in enumerate(CASES):
        scale = (1.0, 1e-8, 1e4)[number % 3]
        x = scale * _picture(c.sizes, number)
        layer = s.layer(c.dims, **dict(c.geometry))
        # Divided by the scale, a small constant in a denominator shows as the large error that it is to small cells.
        about = f"{c}, cells up to {3 * scale:g}, divided by {scale:g}"
        _agree(layer(x) / scale, _expected(layer, x, c.window) / scale, torch.float64, about)


def _numpy(s: Subject) -> None:
    for number, c in enumerate(CASES):
        x = _picture(c.sizes, number)
        cells = c.window.cells(x.numpy(), numpy_words())
        layer = s.layer(c.dims, **dict(c.geometry))
        learned = {name: value.detach().numpy() for name, value in layer.learned().items()}
        got = np.broadcast_to(s.method.reduce(cells, s.method.values(**learned)), cells.x.shape[1:])
        _agree(torch.from_numpy(got.copy()), _expected(layer, x, c.window), torch.float64, str(c))


def _sizes(s: Subject) -> None:
    grid = itertools.product((1, 2, 3), (1, 2, 3), (0, 1), (1, 2), (False, True), range(3, 9))
    for k, stride, pad, dilation, ceil, length in grid:
        geometry: dict[str, Any] = {
            "kernel_size": k,
            "stride": stride,
            "padding": pad,
            "dilation": dilation,
            "ceil_mode": ceil,
        }
        x = torch.zeros(1, 2, length, dtype=torch.float64)
        try:
            want = torch.nn.MaxPool1d(**geometry)(x).shape
        except RuntimeError:
            continue
        got = s.layer(1, **geometry)(x).shape
        if got != want:
            raise Broken(f"length {length}, {geometry}: {tuple(got)}, torch.nn.MaxPool1d gives {tuple(want)}")
    for c in (case(2, kernel_size=3), case(2, 5, kernel_size=3), case(3, 3, kernel_size=2, dilation=3)):
        _refused(
            ValueError,
            partial(s.layer(c.dims, **dict(c.geometry)), _picture(c.sizes, 0)),
            f"{c}: larger than the picture",
        )


def _refused(kind: type[Exception], call: Callable[[], Any], about: str) -> None:
    try:
        call()
    except kind:
        return
    raise Broken(f"{about}, yet not refused with {kind.__name__}")


def _types(s: Subject) -> None:
    layer = s.layer(2, kernel_size=2)
    for dtype in (torch.int64, torch.uint8, torch.bool, torch.complex64):
        _refused(TypeError, partial(layer, torch.ones(1, 2, 4, 4, dtype=dtype)), f"{dtype} cells")
    for shape in ((4, 4), (1, 1, 2, 4, 4)):
        _refused(ValueError, partial(layer, torch.ones(shape)), f"a tensor of shape {shape}")
    _refused(ValueError, partial(layer, torch.ones(1, 2, 0, 4)), "a picture without cells")


def _gradcheck(s: Subject, second: bool) -> None:
    test = torch.autograd.gradgradcheck if second else torch.autograd.gradcheck
    cases = (case(4, kernel_size=2), case(3, 4, kernel_size=3, stride=2, padding=1), case(3, 3))
    for number, (c, train) in enumerate(itertools.product(cases, (False, True) if s.method.draws else (False,))):
        layer = s.layer(c.dims, seed=number if train else None, train=train, **dict(c.geometry))
        call, parameters = _with_parameters(_Frozen(layer) if train else layer)
        try:
            test(call, (_picture(c.sizes, number).requires_grad_(), *parameters))
        except (RuntimeError, GradcheckError) as error:
            numbers = " ".join(str(error).split())
            raise Broken(f"{c}{', training' if train else ''}: {numbers[:300]}") from None


class _Frozen(torch.nn.Module):
    """A random layer that draws the same numbers at every call: its count of examples is set back before each."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Pool with the first draws."""
        self.layer.seen.zero_()
        return self.layer(x)


def _gradient_contract(s: Subject) -> None:
    _gradcheck(s, second=False)


def _second_gradient(s: Subject) -> None:
    _gradcheck(s, second=True)


def _ties(s: Subject) -> None:
    windows = torch.tensor(list(itertools.product((1.0, 2.0), repeat=4)), dtype=torch.float64)
    x, nudge = windows[:, None].expand(-1, 2, -1), 1e-7 * torch.arange(4.0, dtype=torch.float64)
    layer = s.layer(1, kernel_size=4)
    tied, first, last = (_gradient(layer, v) for v in (x, x - nudge, x + nudge))
    as_first = ((tied - first).abs() < 1e-4).all(-1).all(-1)
    # A method that sorts upwards sees the first of equals as the smallest; that one must still be the first.
    as_last = ((tied - last).abs() < 1e-4).all(-1).all(-1) & _falls_among_equals(windows, tied[:, 0])
    if not (bool(as_first.all()) or bool(as_last.all())):
        at = int((~as_first).nonzero()[0])
        raise Broken(
            f"window {windows[at].tolist()}: gradient {tied[at, 0].tolist()}, but {first[at, 0].tolist()} when earlier "
            "cells are a hair larger"
        )


def _falls_among_equals(windows: Tensor, gradient: Tensor) -> Tensor:
    """Whether, in each window, no cell has a larger gradient than an earlier cell of the same value."""
    earlier, later = torch.triu_indices(windows.shape[1], windows.shape[1], 1)
    rises = (windows[:, earlier] == windows[:, later]) & (gradient[:, later] > gradient[:, earlier] + 1e-4)
    return ~rises.any(1)


def _extreme_windows(dtype: torch.dtype) -> Tensor:
    rows = [
        [0.0] * 4,
        [1.0] * 4,
        [-1.0] * 4,
        [1e4] * 4,
        [-1e4] * 4,
        [1e4, -1e4, 0, 1],
        [-1e4, -1e4, -1e4, 0],
        [-3, -1, -2, -4],
    ]
    rows += [[1e4, 9999, 0, 0], [0, 0, 0, 1e-4], [1e-4, -1e-4, 0, 0]]
    return torch.tensor(rows, dtype=dtype)[:, None].repeat(1, 2, 1)


def _finite(s: Subject) -> None:
    for dtype, (k, pad), train in itertools.product(TOLERANCE, ((4, 0), (1, 0), (3, 1)), (False, True)):
        if train and not s.method.draws:
            continue
        layer = s.layer(1, kernel_size=k, padding=pad, train=train)
        layer = layer.to(torch.float64 if dtype == torch.float64 else torch.float32)
        x = _extreme_windows(dtype).requires_grad_()
        y = layer(x)
        y.sum().backward()
        for what, value in (("output", y), ("gradient", x.grad), *((n, p.grad) for n, p in layer.named_parameters())):
            if value is not None and not bool(value.isfinite().all()):
                row = int((~value.isfinite()).nonzero()[0][0]) if what in ("output", "gradient") else 0
                raise Broken(f"{dtype}, window of {k}: {what} is not finite for {x[row, 0].tolist()}")


def _nan(s: Subject) -> None:
    clean = _picture((4, 4), 1, 1)
    layer, want = s.layer(2, kernel_size=2), s.layer(2, kernel_size=2)(clean)
    for cell in itertools.product(range(4), range(4)):
        x = clean.clone()
        x[0, :, cell[0], cell[1]] = math.nan
        expected = want.clone()
        expected[0, :, cell[0] // 2, cell[1] // 2] = math.nan
        _agree(layer(x), expected, torch.float64, f"NaN in cell {cell} of a 4×4 picture, windows 2×2")


def _infinity(s: Subject) -> None:
    c = case(4, 4, kernel_size=3, stride=1, padding=1)
    for value, cell in itertools.product((math.inf, -math.inf), ((0, 0), (1, 2), (3, 1))):
        x = _picture(c.sizes, 2, 1)
        x[0, :, cell[0], cell[1]] = value
        layer = s.layer(2, **dict(c.geometry))
        _agree(layer(x), _expected(layer, x, c.window), torch.float64, f"{value} in cell {cell}, {c}")


def _precision(s: Subject) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for number, c in enumerate(
            (case(6, 6, kernel_size=2), case(5, 5, kernel_size=3, stride=1, padding=1), case(16, 16))
        ):
            x = _picture(c.sizes, number).to(dtype)
            layer = s.layer(c.dims, **dict(c.geometry))
            want, got = layer(x.double()), layer.float()(x)
            if got.dtype != dtype:
                raise Broken(f"{dtype} in, {got.dtype} out")
            _agree(got, want, dtype, f"{dtype}, {c}")


def _layouts(s: Subject) -> None:
    big = _picture((9, 8), 3, 4, 6)
    views = {
        "channels-last": big.contiguous(memory_format=torch.channels_last),
        "every second channel": big[:, ::2],
        "a crop": big[1:, :, 1:-1, 2:],
        "transposed": big.transpose(2, 3),
        "expanded": big[:1, :1].expand(3, 2, 9, 8),
    }
    geometries: tuple[dict[str, Any], ...] = ({"kernel_size": 3, "stride": 2, "padding": 1}, {})
    for name, x in views.items():
        for geometry in geometries:
            layer = Subject(_for_channels(s.method, x.shape[1]), s.path).layer(2, **geometry)
            _agree(layer(x), layer(x.contiguous()), torch.float64, name)
            _agree(_gradient(layer, x), _gradient(layer, x.contiguous()), torch.float64, f"gradient, {name}")
    y = s.layer(2, kernel_size=2)(_picture((8, 8), 0).contiguous(memory_format=torch.channels_last))
    if not y.is_contiguous(memory_format=torch.channels_last):
        raise Broken("a channels-last picture comes out in another memory format")


def _for_channels(method: WindowMethod, channels: int) -> WindowMethod:
    """The same method with per-channel parameters for another number of channels."""
    fields = {
        name: Learn(v.start, channels) if isinstance(v := getattr(method, name), Learn) and v.channels else v
        for name in method.params()
    }
    return type(method)(**fields)


def _batch(s: Subject) -> None:
    x = _picture((6, 5), 4, 5)
    slack = torch.float64
    for train in (False, True) if s.method.draws else (False,):
        geometry: dict[str, Any] = {"kernel_size": 2, "padding": 1, "seed": 11, "train": train}
        whole, parts, single = (s.layer(2, **geometry) for _ in range(3))
        want = whole(x)
        _agree(torch.cat([parts(x[:2]), parts(x[2:])]), want, slack, "a batch of 5 given as 2 and 3")
        _agree(single(x[0]), want[0], slack, "one picture without batch axis")
    if s.layer(2, kernel_size=2)(x[:0]).shape != (0, 2, 3, 2):
        raise Broken("an empty batch does not give an empty batch")


def _untouched(s: Subject) -> None:
    cases = (case(4, 4, kernel_size=1), case(4, 4, kernel_size=2), case(1, 1), case(2, 2))
    for c, train in itertools.product(cases, (False, True) if s.method.draws else (False,)):
        x = _picture(c.sizes, 5)
        before = x.clone()
        y = s.layer(c.dims, train=train, **dict(c.geometry))(x)
        if y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
            raise Broken(f"{c}: the output shares memory with the input")
        if not torch.equal(x, before):
            raise Broken(f"{c}: the input was changed")


def _facts(s: Subject) -> None:
    for k in (1, 2, 4, 9):
        windows = _windows(k, s.method)

        def f(v: Any, k: int = k) -> Any:
            layer = s.layer(1, kernel_size=k)
            x = torch.from_numpy(np.ascontiguousarray(v.T))[:, None]
            return layer(x.expand(-1, 2, -1))[:, 0, 0].detach().numpy()

        for fact in s.method.card.facts:
            holds = np.broadcast_to(fact.holds(f, windows, 1e-9), windows.shape[1])
            if not holds.all():
                raise Broken(
                    f'"{fact.sentence}" fails for the window {windows[:, int(np.argmin(holds))].round(6).tolist()}'
                )


def _windows(k: int, method: WindowMethod) -> np.ndarray:
    """Windows (K, M): random, tied, constant and zero ones, in the domain for which the facts are claimed."""
    generator = np.random.default_rng(7)
    free = generator.normal(size=(k, 40)) * generator.choice([0.1, 1.0, 10.0], 40)
    tied = generator.integers(-2, 3, (k, 20)).astype(float)
    windows = np.concatenate([free, tied, np.zeros((k, 1)), np.full((k, 1), 2.5)], axis=1)
    return np.abs(windows) if method.card.domain == "nonnegative" else windows


def _identities(s: Subject) -> None:
    known = {**METHODS, s.method.card.name: type(s.method)}
    for pairs, separated in ((s.method.card.same, False), (s.method.card.limits, True)):
        for pair, k in itertools.product(pairs, (1, 4, 9)):
            generator = np.random.default_rng(3)
            windows = _windows(k, s.method)
            if separated:
                windows = generator.permuted(np.tile(np.arange(1.0, k + 1), (30, 1)), axis=1).T * 0.5
            x = torch.from_numpy(windows.T.copy())[:, None].expand(-1, 2, -1)
            one, other = (
                Subject(parse(text.format(n=k), known), s.path).layer(1, kernel_size=k)(x)  # type: ignore[arg-type]
                for text in pair
            )
            slack = 0.01 * float(x.abs().max()) if separated else 1e-9
            _agree(one, other, slack, f"{pair[0]} against {pair[1]}, windows of {k}")


def _state(s: Subject) -> None:
    x = _picture((4, 4), 6)
    layer = s.layer(2, kernel_size=2)
    names = [name for name, _ in layer.named_parameters()]
    if names != [f"raw_{name}" for name in s.method.learned]:
        raise Broken(f"parameters after construction: {names}, declared as learned: {list(s.method.learned)}")
    layer.requires_grad_(True)
    want = layer(x)
    if names:
        want.sum().backward()
        if any(p.grad is None or not bool(p.grad.abs().sum() > 0) for p in layer.parameters()):
            raise Broken("a learned parameter receives no gradient")
    fresh = s.layer(2, kernel_size=2)
    fresh.load_state_dict(layer.state_dict())
    copies = {"state_dict": fresh, "deepcopy": copy.deepcopy(layer), "pickle": _pickled(layer)}
    for name, other in copies.items():
        _agree(other(x), want, 0.0, name)


def _pickled(layer: Any) -> Any:
    return pickle.load(io.BytesIO(pickle.dumps(layer)))  # noqa: S301 - our own bytes, made in this line


def _repeats(s: Subject) -> None:
    x = _picture((9, 9), 8, 4, 4)
    layer = Subject(_for_channels(s.method, 4), s.path).layer(2, kernel_size=3, stride=2, padding=1)
    want, slope, threads = layer(x), _gradient(layer, x), torch.get_num_threads()
    try:
        for count in (1, 2, 1, 2):
            torch.set_num_threads(count)
            if not (torch.equal(layer(x), want) and torch.equal(_gradient(layer, x), slope)):
                raise Broken(f"another result with {count} threads")
    finally:
        torch.set_num_threads(threads)


def _compiled(s: Subject) -> None:
    for train in (False, True) if s.method.draws else (False,):
        torch.compiler.reset()
        layer = s.layer(2, kernel_size=3, stride=2, padding=1, train=train)
        x = _picture((5, 5), 9)
        fast = torch.compile(layer, fullgraph=True, backend="aot_eager")
        torch.manual_seed(5)
        want, slope = layer(x), _gradient(layer, x)
        torch.manual_seed(5)
        _agree(fast(x), want, torch.float64, f"compiled{', training' if train else ''}")
        _agree(_gradient(fast, x), slope, torch.float64, f"compiled gradient{', training' if train else ''}")


def _seeds(s: Subject) -> None:
    if not s.method.draws:
        return
    c = case(6, 6, kernel_size=3, stride=2, padding=1)
    x = _picture(c.sizes, 10).abs()
    for seed in (None, 3):
        results = []
        for number in (1, 1, 2):
            torch.manual_seed(number)
            results.append(s.layer(2, seed=None if seed is None else seed + number, train=True, **dict(c.geometry))(x))
        if not torch.equal(results[0], results[1]):
            raise Broken("the same seed gives another result")
        if torch.equal(results[0], results[2]):
            raise Broken("another seed gives the same result")
    quiet = s.layer(2, **dict(c.geometry))
    if not torch.equal(quiet(x), quiet(x)):
        raise Broken("two calls in evaluation differ")
    layer = s.layer(2, seed=4, train=True, **dict(c.geometry))
    got = layer(x)
    u = face.uniform(torch.tensor(layer._seed_key), 0, face._draw_shape(s.method.draws, tuple(got.shape)))
    _agree(got, _expected(layer, x, c.window, u.double()), torch.float64, f"training, {c}")


def _distribution(s: Subject) -> None:
    """Frequencies of 20,000 draws against the oracle's own probabilities, found by walking u through [0, 1) evenly."""
    if not s.method.draws:
        return
    count, steps = 20_000, 4096
    for cells in ([1.0, 4.0, 3.0, 2.0], [0.0, 0.0, 5.0, 5.5], [0.1, 0.2, 0.0, 7.0]):
        one, p = OneWindow.of(cells), s.method.values()
        want: dict[float, float] = {}
        for i in range(steps):
            y = round(s.method.oracle_sample(one, p, (i + 0.5) / steps), 9)
            want[y] = want.get(y, 0.0) + 1 / steps
        x = torch.tensor(cells, dtype=torch.float64).expand(count, 2, 4)
        got = s.layer(1, kernel_size=4, seed=1, train=True)(x)[:, 0].flatten().round(decimals=9)
        for y in sorted({*want, *got.tolist()}):
            share, found = want.get(y, 0.0), float((got == y).double().mean())
            # Five and a half standard deviations: wrong by chance once in 10⁷, and the seed is fixed.
            if abs(found - share) > 5.5 * math.sqrt(share * (1 - share) / count) + 1 / steps:
                raise Broken(f"window {cells}: {y} drawn with frequency {found:.4f}, probability {share:.4f}")


CONTRACTS: tuple[Contract, ...] = (
    Contract("card", "says its name, equation and source, and its spelling reads back", _card),
    Contract("oracle", "equals its scalar form in float64 in every geometry", _oracle),
    Contract("numpy", "gives the same numbers in NumPy as in torch", _numpy),
    Contract(
        "sizes", "gives the output sizes of torch.nn.MaxPool and refuses windows larger than the picture", _sizes, False
    ),
    Contract("types", "refuses integers, wrong ranks and empty pictures with a message", _types, False),
    Contract("gradient", "has the gradient that finite differences give, at the border too", _gradient_contract),
    Contract("second gradient", "can be differentiated twice", _second_gradient),
    Contract("ties", "gives equal cells the gradient of the first one", _ties),
    Contract("finite", "is finite, with its gradients, for zero, constant, negative and ±10⁴ windows", _finite),
    Contract("nan", "passes NaN on, and only within its window", _nan),
    Contract("infinity", "keeps an infinity in its windows, where formula and scalar form agree", _infinity),
    Contract(
        "precision", "keeps the type and is right to its last places in float32, float16 and bfloat16", _precision
    ),
    Contract("layouts", "does not depend on the memory layout and keeps channels-last", _layouts),
    Contract("batch", "does not depend on the batch an example comes in", _batch),
    Contract("untouched", "leaves its input alone and shares no memory with it", _untouched),
    Contract("facts", "keeps what its card claims", _facts),
    Contract("identities", "is the methods that its card says it contains", _identities, False),
    Contract("state", "has its parameters from the start and survives state_dict, pickle and deepcopy", _state),
    Contract("repeats", "gives the same bits again, with any number of threads", _repeats, False),
    Contract("compiled", "gives the same in one graph of torch.compile", _compiled, False),
    Contract("seeds", "draws as its seed says, as its scalar form does, and never in evaluation", _seeds),
    Contract("distribution", "draws with the probabilities of its scalar form", _distribution),
)
