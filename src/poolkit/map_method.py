"""What a method on whole maps must say about itself: map methods (map → map, pyramid or regions) and heads (→ vector).

Like `method.py`, nothing here needs an array library. A method of these kinds states four things besides its card:
`weights`, what a network learns for it; `output_shape`; `pool`, the array formula for a batch of maps; and `oracle`,
the same again for one map in plain loops.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar

from poolkit.facts import SCALES, SHIFTS, Fact
from poolkit.method import Method, Values
from poolkit.window import Axis, Sizes, Window
from poolkit.xp import Cells

#: How a learned or fixed array may start.
STARTS = ("constant", "uniform", "normal", "sign", "integer")


@dataclass(frozen=True)
class Weight:
    """An array that a layer keeps for its method: learned by the network, or fixed and stored with it.

    Attributes:
        shape: its shape; the formula reads it by its name, `p.weight`.
        start: `constant` (everywhere `scale`), `uniform` (from −scale to scale), `normal` (with the standard deviation
            `scale`), `sign` (−1 or 1 with equal probability) or `integer` (0 … scale − 1, an index).
        scale: of the start.
        learned: False for an array that is drawn once and never changes, such as a random sketch. It is stored with
            the layer's state all the same: without it a trained network would be worthless.
    """

    shape: tuple[int, ...]
    start: str = "constant"
    scale: float = 0.0
    learned: bool = True

    def __post_init__(self) -> None:
        """Reject an unknown start."""
        if self.start not in STARTS:
            raise ValueError(f"start={self.start!r}: allowed are {', '.join(map(repr, STARTS))}")


def convolution(out: int, into: int, *kernel: int) -> Weight:
    """A convolution's weights, (out, into, *kernel), with torch's start: uniform within ±1/√(into · cells)."""
    return Weight((out, into, *kernel), "uniform", 1 / math.sqrt(into * math.prod(kernel)))


@dataclass(frozen=True)
class MapShape:
    """What is known of a map before it comes: all that shapes of weights and outputs may depend on.

    Attributes:
        channels: number of maps C; None: not known.
        dims: number of spatial axes.
        sizes: the spatial sizes; None: not known.
        window: the window of `Pool2d`, for methods that take one.
    """

    channels: int | None
    dims: int
    sizes: Sizes | None = None
    window: Window | None = None

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Where the windows lie along each axis."""
        if self.window is None or self.sizes is None:
            raise ValueError("without a window and sizes there is no place for windows")
        return self.window.axes(self.sizes)

    @property
    def cell_per_window(self) -> tuple[int, ...]:
        """(C, *windows), the output's shape of methods that answer one cell for each window."""
        return (int(self.channels or 0), *(axis.out for axis in self.axes))


class Map:
    """A batch of maps for the array formula.

    Attributes:
        x: (N, C, *sizes).
        xp: the array words of `map_words.py`.
        shape: channels, sizes and window.
        others: further inputs by name, such as labels (N, *sizes).

    N may be unknown until a graph runs: a formula writes −1 for it when it reshapes.
    """

    def __init__(self, x: Any, xp: Any, window: Window | None = None, **others: Any) -> None:
        self.x, self.xp, self.others = x, xp, others
        self.shape = MapShape(int(x.shape[1]), len(x.shape) - 2, tuple(int(n) for n in x.shape[2:]), window)
        self.channels, self.dims = int(x.shape[1]), self.shape.dims
        self.window: Any = window  # of methods that need one, never None
        self.sizes: Sizes = tuple(int(n) for n in x.shape[2:])

    @property
    def places(self) -> tuple[int, ...]:
        """The numbers of the spatial axes."""
        return tuple(range(2, 2 + self.dims))

    def cells(self, x: Any = None, axes: tuple[Axis, ...] | None = None) -> Cells:
        """The cells of all windows, of the maps themselves or of others of the same sizes; `axes`: of other windows."""
        return self.window.cells(self.x if x is None else x, self.xp, axes=axes)

    def along(self, axis: int, matrix: Any, x: Any = None) -> Any:
        """A matrix (out, size), a list of rows or an array, applied along one spatial axis, 0 … dims − 1."""
        x = self.x if x is None else x
        a = matrix if hasattr(matrix, "shape") else self.xp.array(matrix, x)
        moved = self.xp.moveaxis(x, 2 + axis, -1)
        return self.xp.moveaxis(self.xp.matmul(moved, self.xp.transpose(a, (1, 0))), -1, 2 + axis)

    def largest(self, parts: Iterable[Any]) -> Any:
        """The largest of several arrays, cell by cell; the gradient goes to the first of equals, a NaN stays."""
        first, *others = parts
        for other in others:
            first = self.xp.where((other > first) | (other != other), other, first)
        return first

    def normalised(self, x: Any, groups: int, scale: Any, shift: Any) -> Any:
        """Group normalisation of x (N, C, …): mean 0 and variance 1 over each group's channels and cells, then γ, β.

        A group of one number, which would always become 0, stays as it is.
        """
        flat = self.xp.reshape(x, (-1, groups, math.prod(x.shape[1:]) // groups))
        if flat.shape[2] > 1:
            off = flat - self.xp.mean(flat, 2, True)
            flat = off / self.xp.sqrt(self.xp.mean(off**2, 2, True) + 1e-5)
        one = (1, -1, *[1] * (len(x.shape) - 2))
        return self.xp.reshape(flat, (-1, *x.shape[1:])) * self.xp.reshape(scale, one) + self.xp.reshape(shift, one)

    @property
    def columns(self) -> Any:
        """The maps as one column of C numbers for each cell, (N, C, cells)."""
        return self.xp.reshape(self.x, (-1, self.channels, math.prod(self.sizes)))

    def unit(self, x: Any, axis: int = -1, eps: float = 1e-12) -> Any:
        """x / √(‖x‖² + ε): of length 1 along an axis; zeros stay zeros, with a gradient of at most 1/√ε."""
        return x / self.xp.sqrt(self.xp.plus_tiny(self.xp.sum(x * x, axis, True), eps))

    def unit_above(self, x: Any, axis: int, least: float) -> Any:
        """x / max(‖x‖, least): of length 1 where x is longer than `least`; its gradient is never above 1/least."""
        return x / self.xp.sqrt(self.xp.clip(self.xp.sum(x * x, axis, True), least**2, None))

    def signed_root(self, x: Any) -> Any:
        """x / √(|x| + 10⁻⁸), the signed square root with a finite slope at 0."""
        return x / self.xp.sqrt(self.xp.plus_tiny(self.xp.abs(x), 1e-8))

    def take(self, axis: int, indices: Any, x: Any = None) -> Any:
        """The cells at these places, a list of whole numbers, along one spatial axis."""
        return self.xp.take(self.x if x is None else x, list(indices), 2 + axis)


@dataclass(frozen=True)
class OneMap:
    """One example for an oracle: plain Python numbers.

    Attributes:
        x: the value at (channel, *place).
        channels, sizes: how many channels, and cells along each axis.
        window: the window of `Pool2d`, or None.
        others: further inputs by name; a map of labels holds a number at each place.
    """

    x: Mapping[tuple[int, ...], float]
    channels: int
    sizes: Sizes
    window: Any = None
    others: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, *maps: Any, window: Window | None = None, **others: Any) -> OneMap:
        """A map from nested lists, one for each channel."""
        x: dict[tuple[int, ...], float] = {}

        def walk(values: Any, place: tuple[int, ...]) -> None:
            if isinstance(values, (list, tuple)):
                for number, value in enumerate(values):
                    walk(value, (*place, number))
            else:
                x[place] = float(values)

        walk(list(maps), ())
        last = max(x)
        return cls(x, len(maps), tuple(n + 1 for n in last[1:]), window, others)

    @property
    def places(self) -> list[Sizes]:
        """Every place, row by row."""
        return list(product(*(range(n) for n in self.sizes)))

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.sizes)

    def at(self, channel: int, place: Sequence[int]) -> float:
        """The value at a place of a channel."""
        return self.x[(channel,) + tuple(place)]

    def windows(self, channel: int) -> Iterator[tuple[Sizes, list[Sizes], list[float]]]:
        """Each window of one channel: its place, its cells' places in the picture and their values."""
        for place, cells, _ in self.window.walk(self.sizes):
            yield place, cells, [self.at(channel, cell) for cell in cells]


#: What an oracle answers: the value at (channel, *place).
Answer = dict[tuple[int, ...], float]


class MapMethod(Method):
    """A method that turns maps into maps, or into a pyramid or regions of them.

    `pool` is the array formula for a batch, `oracle` the same for one map in plain loops. A random method also has
    `draw_shape`, `sample` and `oracle_sample`, its form in training, which receive uniform draws u ∈ [0, 1).
    """

    kind = "map"
    #: `needs`, `may` or `never`: whether the method takes the window of `Pool2d`.
    takes_window: ClassVar[str] = "never"
    #: The numbers of spatial axes for which the method is defined.
    takes_dims: ClassVar[tuple[int, ...]] = (1, 2, 3)
    #: Names of further inputs, in the order of the layer's arguments, and those of them that may be left out.
    takes: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()
    #: Whether a NaN stays in its own channel and example; False where channels mix.
    keeps_channels_apart: ClassVar[bool] = True
    #: For the contracts: how many channels their maps have, and sets of parameters to try besides those of the params.
    try_channels: ClassVar[int] = 4
    tries: ClassVar[tuple[dict[str, Any], ...]] = ()

    @property
    def random(self) -> bool:
        """Whether the method draws in training."""
        return False

    def weights(self, shape: MapShape) -> dict[str, Weight]:
        """What a layer keeps for the method, by name."""
        return {}

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """The shape of one example's output.

        Raises:
            ValueError: the method cannot pool a map of this shape.
        """
        raise NotImplementedError

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula: (N, C, *sizes) to (N, *output_shape)."""
        raise NotImplementedError

    def choose(self, m: Map, p: Values) -> Any:
        """What the method chooses for each example, where two layers may share the choice: (N,) whole numbers."""
        raise NotImplementedError

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The same for one example, in scalar arithmetic."""
        raise NotImplementedError

    def try_inputs(self, shape: MapShape, seed: int) -> dict[str, Any]:
        """Further inputs of one example, as nested lists, with which the contracts try the method."""
        return {}

    def input_shape(self, name: str, shape: MapShape) -> tuple[int, ...]:
        """The shape of one example's further input: a number for each cell where a method does not say otherwise."""
        return shape.sizes or ()

    def draw_shape(self, shape: MapShape) -> tuple[int, ...]:
        """How many uniform numbers `sample` wants for each example, as a shape."""
        raise NotImplementedError

    def sample(self, m: Map, p: Values, u: Any) -> Any:
        """The array formula in training, for a random method; u: (N, *draw_shape)."""
        raise NotImplementedError

    def oracle_sample(self, m: OneMap, p: Values, u: Any) -> Answer:
        """The scalar form in training, for a random method; u: one example's numbers, by index."""
        raise NotImplementedError


class HeadMethod(MapMethod):
    """A method that turns a map into one vector: (N, C, *sizes) to (N, D). Its output shape is (D,)."""

    kind = "head"
    takes_window = "never"
    keeps_channels_apart = False

    def channels_of(self, shape: MapShape) -> int:
        """The number of maps, which heads that keep weights must know; ValueError where it is not known."""
        if shape.channels is None:
            raise ValueError(f'{self.spelling} keeps weights for each channel\n  write Head("{self.spelling}", C)')
        return shape.channels


def _close(a: Any, b: Any, slack: float) -> Any:
    return (abs(a - b) <= slack).all()


#: Facts of map methods and heads: `f` takes maps (N, C, *sizes) to outputs, `x` are such maps.
MAP_SHIFTS, MAP_SCALES = SHIFTS, SCALES  # true for windows, true for maps
MAP_CONSTANT = Fact(
    "constant",
    "leaves a constant map as it is",
    lambda f, x, slack: _close(f(0.0 * x + 1.75), 1.75, slack),
)
MAP_BETWEEN = Fact(
    "between",
    "lies between the smallest and the largest cell of the input",
    lambda f, x, slack: ((f(x) >= x.min() - slack) & (f(x) <= x.max() + slack)).all(),
)
MAP_LINEAR = Fact(
    "linear",
    "is linear: f(a·x + y) = a·f(x) + f(y)",
    lambda f, x, slack: _close(f(0.75 * x + x[::-1] ** 2), 0.75 * f(x) + f(x[::-1] ** 2), 10 * slack),
)
MAP_ORDER_FREE = Fact(
    "order-free",
    "does not depend on where the cells lie",
    lambda f, x, slack: _close(f(x[..., ::-1].copy()), f(x), slack),
)
MAP_SCALE_FREE = Fact(
    "scale-free",
    "does not see the scale of its input: f(c·x) = f(x) for c > 0",
    lambda f, x, slack: _close(f(x * 2.5), f(x), slack),
)
UNIT = Fact(
    "unit",
    "has the length 1",
    lambda f, x, slack: _close((f(x) ** 2).sum(-1), 1.0, slack),
)
