"""Fractional max pooling: windows of one and two cells, so that the map shrinks by less than two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from poolkit.map_method import (
    MAP_BETWEEN,
    MAP_CONSTANT,
    MAP_SCALES,
    MAP_SHIFTS,
    Answer,
    Map,
    MapMethod,
    MapShape,
    OneMap,
)
from poolkit.method import Card, Values, param


@dataclass(frozen=True)
class Fractional(MapMethod):
    """The maximum over rectangles whose sides are one or two cells, in a random order.

        y[i, j] = max of x over rows a_{i−1} … a_i − 1 and columns b_{j−1} … b_j − 1,   a_i − a_{i−1} ∈ {1, 2}

    `rule="pseudorandom"`: a_i = ⌈α (i + u)⌉ − ⌈α u⌉ with α = L/l and a random u; `random`: the twos stand in a random
    order. `overlapping` windows also hold the first cell of the next one. Rows and columns are drawn for each example,
    the same for all its channels. Evaluation is deterministic: pseudorandom with u = ½. The paper draws at test time
    too and averages several passes: `layer.train()` does that.

    The output has ⌊L / ratio⌋ cells along each axis, or with a window its sizes. Where those are fewer than L/2, sides
    have ⌊α⌋ and ⌈α⌉ cells.

    Example:
        >>> y = Fractional(ratio=1.5).oracle(OneMap.of([1, 5, 2, 4, 3, 6]), Fractional(ratio=1.5).values())
        >>> [y[0, o] for o in range(4)]
        [5.0, 2.0, 4.0, 6.0]
    """

    ratio: float = param(
        math.sqrt(2), low=1.0, high=2.0, says="input cells for each output cell, where no window says it", tries=(1.5,)
    )
    rule: str = param(
        "pseudorandom", choices=("pseudorandom", "random"), says="how ones and twos lie", tries=("random",)
    )
    overlapping: bool = param(False, says="whether neighbouring windows share a cell", tries=(True,))

    takes_window = "may"
    card: ClassVar[Card] = Card(
        name="fractional",
        title="Fractional max pooling",
        equation="y[i, j] = max of x over a_{i−1} … a_i − 1 and b_{j−1} … b_j − 1,  a_i = ⌈α (i + u)⌉ − ⌈α u⌉",
        source="B. Graham, Fractional max-pooling, 2014, arXiv:1412.6071",
        family="random",
        facts=(MAP_BETWEEN, MAP_CONSTANT, MAP_SHIFTS, MAP_SCALES),
        released="torch's layer has windows of a fixed size, draws for each channel, and draws in evaluation too.",
    )

    @property
    def random(self) -> bool:
        """The order of ones and twos is drawn."""
        return True

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, *⌊sizes / ratio⌋), or with a window (C, *windows)."""
        sizes = shape.sizes or ()
        if shape.window is not None:
            out = tuple(axis.out for axis in shape.axes)
        else:
            out = tuple(max(1, math.floor(n / self.ratio + 1e-9)) for n in sizes)
        if any(l > n for l, n in zip(out, sizes, strict=True)):
            raise ValueError(f"fractional pooling makes maps smaller: {sizes} to {out} is not allowed")
        return (int(shape.channels or 0), *out)

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula in evaluation."""
        y, out = m.x, self.output_shape(m.shape)[1:]
        for axis, (length, l) in enumerate(zip(m.sizes, out, strict=True)):
            edges = [-(-(2 * length * i + length) // (2 * l)) - -(-length // (2 * l)) for i in range(l + 1)]
            ends = [min(e - 1 + p.overlapping, length - 1) for e in edges[1:]]
            sides = range(-(-length // l) + p.overlapping)
            cells = [[min(e + j, end) for e, end in zip(edges, ends, strict=False)] for j in sides]
            y = m.largest([m.take(axis, places, y) for places in cells])
        return y

    def draw_shape(self, shape: MapShape) -> tuple[int, ...]:
        """One number for each axis, or for each window of each axis."""
        out = self.output_shape(shape)[1:]
        return (len(out) if self.rule == "pseudorandom" else sum(out),)

    def sample(self, m: Map, p: Values, u: Any) -> Any:
        """The array formula in training."""
        y, out, xp, used = m.x, self.output_shape(m.shape)[1:], m.xp, 0
        for axis, (length, l) in enumerate(zip(m.sizes, out, strict=True)):
            i = xp.reshape(xp.array([float(v) for v in range(l + 1)], u), (1, l + 1))
            if p.rule == "pseudorandom":
                # ⌈(L·i + L·u) / l⌉ only sees ⌈L·u⌉: whole numbers, which narrow types hold exactly.
                lead = xp.ceil(length * u[:, used : used + 1])
                edges = xp.ceil((length * i + lead) / l) - xp.ceil(lead / l)
                used += 1
            else:
                rank = xp.argsort(xp.argsort(u[:, used : used + l], 1), 1)
                longer = xp.where(rank < length % l, 1.0 + 0.0 * i[:, 1:], 0.0 * i[:, 1:])
                edges = xp.concat([0.0 * longer[:, :1], _running(xp, longer)], 1) + (length // l) * i
                used += l
            first, end = edges[:, :-1], xp.clip(edges[:, 1:] - 1 + p.overlapping, None, length - 1)
            shape = [1] * (m.dims + 2)
            shape[0], shape[2 + axis] = -1, l
            cells = [xp.minimum(first + j, end) for j in range(-(-length // l) + p.overlapping)]
            y = m.largest([xp.gather(y, xp.reshape(c, tuple(shape)), 2 + axis) for c in cells])
        return y

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form in evaluation."""
        out = self.output_shape(MapShape(m.channels, m.dims, m.sizes, m.window))[1:]
        return _maxima(m, [_edges(n, l, 0.5) for n, l in zip(m.sizes, out, strict=True)], p.overlapping)

    def oracle_sample(self, m: OneMap, p: Values, u: Any) -> Answer:
        """The scalar form in training."""
        out = self.output_shape(MapShape(m.channels, m.dims, m.sizes, m.window))[1:]
        numbers, edges = [float(v) for v in u], []
        for n, l in zip(m.sizes, out, strict=True):
            if p.rule == "pseudorandom":
                edges.append(_edges(n, l, numbers.pop(0)))
                continue
            mine, numbers = numbers[:l], numbers[l:]
            longer = set(sorted(range(l), key=mine.__getitem__)[: n - n // l * l])
            walk = [0]
            for i in range(l):
                walk.append(walk[-1] + n // l + (i in longer))
            edges.append(walk)
        return _maxima(m, edges, p.overlapping)


def _running(xp: Any, x: Any) -> Any:
    return xp.transpose(xp.cumsum(xp.transpose(x, (1, 0))), (1, 0))


def _edges(length: int, out: int, u: float) -> list[int]:
    first = math.ceil(length / out * u)
    return [0, *(math.ceil((length * i + length * u) / out) - first for i in range(1, out)), length]


def _maxima(m: OneMap, edges: list[list[int]], overlapping: bool) -> Answer:
    y: Answer = {}
    for channel, place in product(range(m.channels), product(*(range(len(e) - 1) for e in edges))):
        ranges = [range(e[i], min(e[i + 1] + overlapping, e[-1])) for e, i in zip(edges, place, strict=True)]
        y[(channel,) + place] = max(m.at(channel, cell) for cell in product(*ranges))
    return y
