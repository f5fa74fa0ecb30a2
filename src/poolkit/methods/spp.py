"""Spatial pyramid pooling (SPP): a fixed number of bins, whatever the size of the map."""

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
class SPP(MapMethod):
    """The map cut into n × n bins for each level n of a pyramid, each bin pooled: (N, C, *sizes) to (N, C, bins).

        y[n, i] = max of the cells of bin i,   bin i along an axis of a cells: ⌊i·a/n⌋ … ⌈(i+1)·a/n⌉ − 1

    The bins come level by level as the levels are written, each level row by row. `flatten(1)` after it gives a vector
    of fixed length whatever the picture's size, channel by channel; the paper's pyramids are 6-3-2-1 (50 bins) and
    4-3-2-1 (30). Bins reach every cell. `mode="paper"` has its windows of ⌈a/n⌉ at a stride of ⌊a/n⌋, which may miss
    cells at the end and need maps of at least n cells.

    Example:
        >>> y = SPP(levels="2-1").oracle(OneMap.of([1, 4, 3]), SPP(levels="2-1").values())
        >>> [y[0, b] for b in range(3)]
        [4.0, 4.0, 4.0]
    """

    levels: str = param(
        "4-3-2-1",
        joined=True,
        low=1,
        high=256,
        says="the pyramid: bins along an axis, level by level",
        tries=("1", "5-2"),
    )
    reduction: str = param("max", choices=("max", "avg"), says="what becomes of a bin", tries=("avg",))
    mode: str = param("adaptive", choices=("adaptive", "paper"), says="where bins lie", tries=("paper",))

    card: ClassVar[Card] = Card(
        name="spp",
        title="Spatial pyramid pooling",
        equation="y[n, i] = max of the cells ⌊i·a/n⌋ … ⌈(i+1)·a/n⌉ − 1, for each level n and bin i",
        source="K. He, X. Zhang, S. Ren, J. Sun, Spatial pyramid pooling in deep convolutional networks for visual "
        "recognition, ECCV 2014, arXiv:1406.4729",
        family="pyramid",
        facts=(MAP_BETWEEN, MAP_CONSTANT, MAP_SHIFTS, MAP_SCALES),
        same=(("spp:levels=1", "max"), ("spp:levels=1,reduction=avg", "avg")),
        released="Some public versions average, or cut off what does not fit the bins.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, bins)."""
        numbers = [int(n) for n in self.levels.split("-")]
        if self.mode == "paper" and min(shape.sizes or (1,)) < max(numbers):
            raise ValueError(f"{self.spelling} wants maps of at least {max(numbers)} cells along each axis")
        return (int(shape.channels or 0), sum(n**shape.dims for n in numbers))

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula: along one axis after the other."""
        levels = []
        for n in map(int, p.levels.split("-")):
            y = m.x
            for axis, length in enumerate(m.sizes):
                y = m.xp.concat([self._bin(m, y, axis, a, b) for a, b in _bins(length, n, p.mode)], 2 + axis)
            levels.append(m.xp.reshape(y, (-1, m.channels, n**m.dims)))
        return m.xp.concat(levels, 2)

    def _bin(self, m: Map, y: Any, axis: int, start: int, end: int) -> Any:
        cut = [slice(None)] * (m.dims + 2)
        cut[2 + axis] = slice(start, end)
        reduce = m.xp.max if self.reduction == "max" else m.xp.mean
        return reduce(y[tuple(cut)], 2 + axis, True)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        y: Answer = {}
        for channel in range(m.channels):
            number = 0
            for n in map(int, p.levels.split("-")):
                for place in product(range(n), repeat=m.dims):
                    ranges = []
                    for i, a in zip(place, m.sizes, strict=True):
                        if p.mode == "paper":
                            ranges.append(range(i * (a // n), i * (a // n) + math.ceil(a / n)))
                        else:
                            ranges.append(range(math.floor(i * a / n), math.ceil((i + 1) * a / n)))
                    cells = [m.at(channel, cell) for cell in product(*ranges)]
                    y[channel, number] = max(cells) if p.reduction == "max" else math.fsum(cells) / len(cells)
                    number += 1
        return y


def _bins(length: int, n: int, bins: str) -> list[tuple[int, int]]:
    """First cell and end of each bin along an axis."""
    if bins == "paper":
        return [(i * (length // n), i * (length // n) - (-length // n)) for i in range(n)]
    return [(i * length // n, -(-(i + 1) * length // n)) for i in range(n)]
