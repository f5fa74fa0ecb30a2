"""The contracts on a method's numbers: each is a function that raises `Broken` with the smallest example it found."""

from __future__ import annotations

import itertools
import math
import reprlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from poolkit.draws import draw_shape, uniform
from poolkit.method import WindowMethod, named, parse
from poolkit.methods import METHODS
from poolkit.subject import (
    CASES,
    TOLERANCE,
    Broken,
    Subject,
    agree,
    case,
    expected,
    expected_surrogate,
    gradient,
    picture,
    uneven,
)
from poolkit.xp import numpy_words, torch_words


def card(s: Subject) -> None:
    """The card is complete, every parameter says what it does, and the spelling reads back."""
    card = s.method.card
    for field in ("name", "title", "equation", "source", "family"):
        if not getattr(card, field):
            raise Broken(f"the card has no {field}")
    if not (type(s.method).__doc__ or "").strip():
        raise Broken("the class has no docstring")
    for name, declared in s.method.params().items():
        if not declared.says:
            raise Broken(f"parameter {name} does not say what it does")
    again = parse(s.method.spelling, {named(type(s.method)): type(s.method)})
    if again != s.method or hash(again) != hash(s.method):
        raise Broken(f"{s.method.spelling!r} reads back as {again!r}")
    shipped = METHODS.get(card.name)
    if shipped not in (None, type(s.method)):
        raise Broken(f"the name {card.name} belongs to poolkit.{shipped.__name__}: give the card another name")


def shape(s: Subject) -> None:
    """The array formulas answer with a tensor that has one number for each window."""
    c = case(5, 21, kernel_size=(1, 3))  # no two axes of one length: examples, channels, cells, rows, columns
    cells = c.window.cells(picture(c.sizes, 0, 4), torch_words())
    p, windows = s.method.values(**s.on(c).learned()), tuple(cells.x.shape[1:])
    well_shaped("reduce", s.method.reduce(cells, p), windows)
    if s.method.draws:
        u = uniform(torch.tensor(1), 0, draw_shape(s.method.draws, windows)).double()
        well_shaped("sample", s.method.sample(cells, p, u), windows)


def well_shaped(formula: str, y: Any, want: tuple[int, ...]) -> None:
    """A formula's answer must be a tensor of this shape; anything else would show as some error of torch."""
    given = f"a tensor of shape {tuple(y.shape)}" if isinstance(y, Tensor) else reprlib.repr(y)
    if not isinstance(y, Tensor) or tuple(y.shape) != want:
        raise Broken(f"{formula} gave {given}; a tensor of shape {want} is wanted: examples, channels, …")


def oracle(s: Subject) -> None:
    """The layer's numbers against the scalar form, in every geometry and for small and large cells."""
    for number, c in enumerate(CASES):
        scale = (1.0, 1e-8, 1e4, 1e-18)[number % 4]
        x = scale * picture(c.sizes, number)
        layer = s.on(c)
        # Divided by the scale, a small constant in a denominator shows as the large error that it is to small cells.
        about = f"{c}, cells up to {3 * scale:g}, divided by {scale:g}"
        agree(layer(x) / scale, expected(layer, x, c.window) / scale, torch.float64, about)


def numpy(s: Subject) -> None:
    """The array formula with NumPy's words against the scalar form."""
    for number, c in enumerate(CASES):
        x = picture(c.sizes, number)
        cells = c.window.cells(x.numpy(), numpy_words())
        layer = s.on(c)
        learned = {name: value.detach().numpy() for name, value in layer.learned().items()}
        got = np.broadcast_to(s.method.reduce(cells, s.method.values(**learned)), cells.x.shape[1:])
        agree(torch.from_numpy(got.copy()), expected(layer, x, c.window), torch.float64, str(c))


def sizes(s: Subject) -> None:
    """Output sizes against torch's own layer, and a refusal of windows larger than the picture."""
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
        refused(
            ValueError,
            partial(s.on(c), picture(c.sizes, 0)),
            f"{c}: larger than the picture",
        )


def refused(kind: type[Exception], call: Callable[[], Any], about: str) -> None:
    """A call that must raise this error and does not breaks the contract."""
    try:
        call()
    except kind:
        return
    raise Broken(f"{about}, yet not refused with {kind.__name__}")


def types(s: Subject) -> None:
    """Cells that are no floating-point numbers, wrong ranks and empty pictures are refused."""
    layer = s.layer(2, kernel_size=2)
    for dtype in (torch.int64, torch.uint8, torch.bool, torch.complex64):
        refused(TypeError, partial(layer, torch.ones(1, 2, 4, 4, dtype=dtype)), f"{dtype} cells")
    for shape in ((4, 4), (1, 1, 2, 4, 4)):
        refused(ValueError, partial(layer, torch.ones(shape)), f"a tensor of shape {shape}")
    refused(ValueError, partial(layer, torch.ones(1, 2, 0, 4)), "a picture without cells")


def _with_parameters(layer: Any) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """The layer as a function of input and parameters, for numerical differentiation.

    A parameter that declares a surrogate in place of its derivative stays fixed.
    """
    declared = getattr(layer, "layer", layer).method.params()
    free = {n: v for n, v in layer.named_parameters() if not declared[n.rpartition("raw_")[2]].surrogate}
    names, values = list(free), [v.detach().clone().requires_grad_() for v in free.values()]

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    return call, values


#: The cases of the gradient; the second one is tried with cells of other sizes too.
_SMALL = (case(4, kernel_size=2), case(3, 4, kernel_size=3, stride=2, padding=1), case(3, 3))
#: Offset and size of those cells.
_ELSEWHERE = ((20.0, 1.0), (-20.0, 1.0), (0.0, 1e-3), (0.0, 1e3))


def _gradcheck(s: Subject, second: bool) -> None:
    test = torch.autograd.gradgradcheck if second else torch.autograd.gradcheck
    for number, (c, train) in enumerate(itertools.product(_SMALL, (False, True) if s.method.draws else (False,))):
        layer = s.on(c, seed=number if train else None, train=train)
        call, parameters = _with_parameters(_Frozen(layer) if train else layer)
        x, about = picture(c.sizes, number, 1), f"{c}{', training' if train else ''}"
        # Second gradients along random directions: entry by entry they would cost more than all other contracts.
        differences(test, call, x, parameters, about, fast_mode=second)
        if c is _SMALL[1] and not second:
            elsewhere(call, x, parameters, about)


def differences(
    test: Callable[..., Any], call: Callable[..., Tensor], x: Tensor, others: list[Tensor], about: str, **options: Any
) -> None:
    """A derivative for x and the others against finite differences."""
    try:
        test(call, (x.clone().requires_grad_(), *others), **options)
    except (RuntimeError, GradcheckError) as error:
        numbers = " ".join(str(error).split()).partition(" The above quantities")[0]  # what torch says of its ways
        raise Broken(f"{about}: {numbers[:300]}") from None


def elsewhere(call: Callable[..., Tensor], x: Tensor, parameters: list[Tensor], about: str) -> None:
    """The gradient far from 0, and of small and of large cells.

    Cells are offset + size · z, and what is differenced is the output divided by its size, as a function of z: steps
    and tolerances are then those of cells about 1.
    """
    for offset, size in _ELSEWHERE:
        unit = float(call(offset + size * x, *parameters).detach().abs().max()) or 1.0

        def moved(z: Tensor, *p: Tensor, offset: float = offset, size: float = size, unit: float = unit) -> Tensor:
            return call(offset + size * z, *p) / unit

        cells = f"cells from {offset - 3 * size:g} to {offset + 3 * size:g}"
        options = {"fast_mode": True, "check_undefined_grad": False}
        differences(torch.autograd.gradcheck, moved, x, parameters, f"{cells}, {about}", **options)


class _Frozen(torch.nn.Module):
    """A random layer that draws the same numbers at every call: its count of examples is set back before each."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Pool with the first draws."""
        self.layer.seen.zero_()
        return self.layer(x)


def gradient_contract(s: Subject) -> None:
    """The gradient against finite differences; of parameters with a surrogate, against its scalar form."""
    _gradcheck(s, second=False)
    for name in s.method.learned:
        if s.method.params()[name].surrogate:
            _surrogate(s, name)


def _surrogate(s: Subject, name: str) -> None:
    for number, c in enumerate(CASES):
        layer, x = s.on(c), picture(c.sizes, number)
        y = layer(x)
        (got,) = torch.autograd.grad(y, getattr(layer, f"raw_{name}"), uneven(y))
        wanted = (uneven(y) * expected_surrogate(layer, x, c.window, name)).transpose(0, 1).flatten(1).sum(1)
        (want,) = torch.autograd.grad((layer.learned()[name].flatten() * wanted).sum(), getattr(layer, f"raw_{name}"))
        agree(got, want, 1e-10 * max(1.0, float(want.abs().max())), f"surrogate gradient of {name}, {c}")


def second_gradient(s: Subject) -> None:
    """The second gradient against finite differences of the first."""
    _gradcheck(s, second=True)


def ties(s: Subject) -> None:
    """Equal cells get the gradient that they get when the first one is a hair larger."""
    windows = torch.tensor(list(itertools.product((1.0, 2.0), repeat=4)), dtype=torch.float64)
    x, nudge = windows[:, None].expand(-1, 2, -1), 1e-7 * torch.arange(4.0, dtype=torch.float64)
    layer = s.layer(1, kernel_size=4)
    tied, first, last = (gradient(layer, v) for v in (x, x - nudge, x + nudge))
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


def finite(s: Subject) -> None:
    """No infinity and no NaN where float64 finds a number that the type can hold."""
    for dtype, (k, pad), train in itertools.product(TOLERANCE, ((4, 0), (1, 0), (3, 1)), (False, True)):
        if train and not s.method.draws:
            continue
        x = _extreme_windows(dtype)
        got, true = (
            _outcome(s.layer(1, kernel_size=k, padding=pad, train=train, seed=1 if train else None).to(wide), cells)
            for wide, cells in ((torch.promote_types(dtype, torch.float32), x), (torch.float64, x.double()))
        )
        for what, value in got.items():
            # An infinity is the right answer where the number itself lies outside the type's range.
            outside = true[what].isfinite() & ~true[what].to(value.dtype).isfinite()
            wrong = ~value.isfinite() & ~(outside & value.isinf())
            if bool(wrong.any()):
                row = int(wrong.nonzero()[0][0]) if what in ("output", "gradient") else 0
                raise Broken(f"{dtype}, window of {k}: {what} is not finite for {x[row, 0].tolist()}")


def _outcome(layer: Any, x: Tensor) -> dict[str, Tensor]:
    """Output and gradients of a layer, by name."""
    x = x.clone().requires_grad_()
    y = layer(x)
    y.sum().backward()
    found = {"output": y, "gradient": x.grad, **{name: p.grad for name, p in layer.named_parameters()}}
    return {name: value.detach() for name, value in found.items() if value is not None}


def nan(s: Subject) -> None:
    """A NaN in any cell of a picture shows in its window alone."""
    clean = picture((4, 4), 1, 1)
    layer, want = s.layer(2, kernel_size=2), s.layer(2, kernel_size=2)(clean)
    for cell in itertools.product(range(4), range(4)):
        x = clean.clone()
        x[0, :, cell[0], cell[1]] = math.nan
        expected = want.clone()
        expected[0, :, cell[0] // 2, cell[1] // 2] = math.nan
        agree(layer(x), expected, torch.float64, f"NaN in cell {cell} of a 4×4 picture, windows 2×2")


def infinity(s: Subject) -> None:
    """An infinite cell gives what the scalar form gives."""
    c = case(4, 4, kernel_size=3, stride=1, padding=1)
    for value, cell in itertools.product((math.inf, -math.inf), ((0, 0), (1, 2), (3, 1))):
        x = picture(c.sizes, 2, 1)
        x[0, :, cell[0], cell[1]] = value
        layer = s.on(c)
        agree(layer(x), expected(layer, x, c.window), torch.float64, f"{value} in cell {cell}, {c}")


def precision(s: Subject) -> None:
    """Narrow types against float64."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for number, c in enumerate(
            (case(6, 6, kernel_size=2), case(5, 5, kernel_size=3, stride=1, padding=1), case(16, 16))
        ):
            x = picture(c.sizes, number).to(dtype)
            layer = s.on(c)
            want, got = layer(x.double()), layer.float()(x)
            if got.dtype != dtype:
                raise Broken(f"{dtype} in, {got.dtype} out")
            agree(got, want, dtype, f"{dtype}, {c}")


def facts(s: Subject) -> None:
    """Every fact of the card on random, tied, constant and zero windows."""
    for k in (1, 2, 4, 9):
        windows = _windows(k, s.method)

        def f(v: Any, k: int = k) -> Any:
            layer = s.layer(1, kernel_size=k)
            x = torch.from_numpy(np.ascontiguousarray(v.T))[:, None]
            return layer(x.expand(-1, 2, -1))[:, 0, 0].detach().numpy()

        for fact in s.method.facts:
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


def identities(s: Subject) -> None:
    """The card's pairs of spellings give the same numbers in evaluation, with learned parameters at their start."""
    known = {**METHODS, s.method.card.name: type(s.method)}
    for pairs, separated in ((s.method.card.same, False), (s.method.card.limits, True)):
        for pair, k in itertools.product(pairs, (1, 4, 9)):
            generator = np.random.default_rng(3)
            windows = _windows(k, s.method)
            if separated:
                windows = generator.permuted(np.tile(np.arange(1.0, k + 1), (30, 1)), axis=1).T * 0.5
            x = torch.from_numpy(windows.T.copy())[:, None].expand(-1, 2, -1)
            one, other = (
                Subject(parse(text.format(n=k), known), s.path).fresh(1, kernel_size=k)(x)  # type: ignore[arg-type]
                for text in pair
            )
            slack = 0.01 * float(x.abs().max()) if separated else 1e-9
            agree(one, other, slack, f"{pair[0]} against {pair[1]}, windows of {k}")
