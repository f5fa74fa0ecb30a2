"""What the contracts try a method with: layers, geometries, cells, and the comparison with the scalar form."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import poolkit.torch as face
from poolkit.layer import float64_by_default
from poolkit.method import Learn, Method, Values, WindowMethod
from poolkit.parameters import spell
from poolkit.window import Window, window
from poolkit.xp import OneWindow

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

    def on(self, c: Case, **arguments: Any) -> Any:
        """A fresh layer for a case; where a global layer cannot know how many cells its table has, a window does."""
        whole = {"kernel_size": c.sizes} if self.method.tables else {}
        return self.layer(c.dims, **arguments, **(dict(c.geometry) or whole))

    def layer(self, dims: int, *, seed: int | None = None, train: bool = False, **geometry: Any) -> Any:
        """A layer, global where no geometry is given, its learned parameters a little off their start."""
        layer = self.fresh(dims, seed=seed, **geometry)
        with torch.no_grad():
            for name, parameter in layer.named_parameters():
                parameter += _offsets(parameter, table=name.removeprefix("raw_") in self.method.tables)
        return layer.train(train)

    def fresh(self, dims: int, *, seed: int | None = None, **geometry: Any) -> Any:
        """A layer in evaluation as it is before training."""
        kind = "Pool" if geometry else "GlobalPool"
        with float64_by_default():
            layer = getattr(face, f"{kind}{dims}d")(self.method, seed=seed, **geometry)
        layer.path = self.path
        return layer.double().eval()

    def __str__(self) -> str:
        return self.method.spelling + (f" ({self.path} path)" if self.path else "")


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
    # Windows of more than 300 cells: the whole map, and sliding over it.
    case(17, 19),
    case(20, 20, kernel_size=18, stride=1),
)


def picture(sizes: tuple[int, ...], seed: int, n: int = 2, channels: int = 2) -> Tensor:
    """Cells from −3 to 3, no two alike, in a random order: no ties, all window methods well away from their kinks."""
    count = n * channels * math.prod(sizes)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator).double()
    even = (order + 0.5) / count * 6 - 3
    # Evenly spaced cells make windows whose mean is a cell: a kink of the methods that compare cells with their mean.
    return (even + 0.01 * torch.sin(7 * even)).reshape(n, channels, *sizes)


def _offsets(parameter: Tensor, table: bool) -> Tensor:
    """What is added to a start: channels and cells must differ, or a mix-up of them would not show."""
    if table:
        return 0.4 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return torch.linspace(0.0, 0.3, parameter.numel()).reshape(parameter.shape)


def expected(layer: Any, x: Tensor, where: Window, u: Tensor | None = None) -> Tensor:
    """The oracle's map of x (N, C, *sizes) with a layer's parameters; u are draws that broadcast to the output."""
    y = torch.empty(*x.shape[:2], *where.output_size(tuple(x.shape[2:])), dtype=torch.float64)
    draws = None if u is None else u.expand(y.shape)
    for at, one, p in one_by_one(layer, x, where):
        y[at] = layer.method.oracle(one, p) if draws is None else layer.method.oracle_sample(one, p, float(draws[at]))
    return y


def expected_surrogate(layer: Any, x: Tensor, where: Window, name: str) -> Tensor:
    """The map of what a parameter with a surrogate takes for its derivative, by the scalar form."""
    y = torch.empty(*x.shape[:2], *where.output_size(tuple(x.shape[2:])), dtype=torch.float64)
    for at, one, p in one_by_one(layer, x, where):
        y[at] = layer.method.oracle_surrogate(one, p, name)
    return y


def one_by_one(layer: Any, x: Tensor, where: Window) -> Iterator[tuple[tuple[int, ...], OneWindow, Values]]:
    """Place in the output, cells and parameter values of each window of x, for oracles."""
    method, sizes = layer.method, tuple(x.shape[2:])
    learned = {name: value.detach() for name, value in layer.learned().items()}
    p = [
        method.values(**{name: _of_channel(method, name, v, c) for name, v in learned.items()})
        for c in range(x.shape[1])
    ]
    for place, cells, numbers in where.walk(sizes):
        padded = where.padded(sizes, place)
        for nc in itertools.product(range(x.shape[0]), range(x.shape[1])):
            yield nc + place, OneWindow([float(x[nc + cell]) for cell in cells], numbers, where.k, padded), p[nc[1]]


def _of_channel(method: WindowMethod, name: str, value: Tensor, channel: int) -> Any:
    """What a channel's oracle reads of a learned parameter: a number, of a table a list, or a list of its rows."""
    if name not in method.tables:
        return float(value.flatten()[channel if value.numel() > 1 else 0])
    each = value.dim() > (1 if method.tables[name] is None else 2)
    return (value[channel] if each else value).tolist()


def agree(got: Tensor, want: Tensor, slack: torch.dtype | float, about: str) -> None:
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


def gradient(layer: Any, x: Tensor) -> Tensor:
    """The gradient for x of a layer's outputs, each with a weight of its own."""
    x = x.clone().requires_grad_()
    y = layer(x)
    return torch.autograd.grad(y, x, uneven(y))[0]


def uneven(y: Tensor) -> Tensor:
    """Weights for the outputs y: equal ones would let gradients of opposite sign cancel."""
    return torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)


def for_channels(method: WindowMethod, channels: int) -> WindowMethod:
    """The same method with per-channel parameters for another number of channels."""
    fields = {
        name: Learn(v.start, channels) if isinstance(v := getattr(method, name), Learn) and v.channels else v
        for name in method.params()
    }
    return type(method)(**fields)


def variants(method: Any, channels: int = 2, sets: Sequence[Mapping[str, Any]] = ()) -> Iterator[Any]:
    """A method as it is; a class with its defaults, with every value worth trying and with what it can learn.

    `channels`: for how many it learns; `sets`: further parameters to try together.
    """
    if isinstance(method, Method):
        yield method
        return
    yield method()
    yield from (method(**arguments) for arguments in sets)
    for name, declared in method.params().items():
        for value in declared.tries:
            yield method(**{name: value})
        if declared.learnable:
            if not declared.by_default:  # the default is that already
                yield method(**{name: Learn()})
            yield method(**{name: Learn(channels=channels)})
    several = {name: declared.tries[-1] for name, declared in method.params().items() if declared.tries}
    if len(several) > 1:
        yield method(**several)


def tried(method: Any, channels: int = 2, sets: Sequence[Mapping[str, Any]] = ()) -> list[Any]:
    """The variants, and beside the defaults every word and truth value of a class's parameters that none of them has.

    A class leaves one out by naming it, with the reason: `untried = {"grad=detached": "…"}`.
    """
    found = list(variants(method, channels, sets))
    for name, declared in {} if isinstance(method, Method) else method.params().items():
        values: tuple[Any, ...] = (False, True) if isinstance(declared.default, bool) else declared.choices
        for value in values:
            if f"{name}={spell(value)}" in method.untried or any(getattr(v, name) == value for v in found):
                continue
            with suppress(ValueError):  # a value that is allowed only together with another one
                found.append(method(**{name: value}))
    return found
