"""Per-pixel pyramid pooling (4P): each pixel sees the maxima of windows of several sizes around it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from poolkit.borders import places
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
class PerPixelPyramid(MapMethod):
    """Max pooling with stride 1 by windows of the sizes base⁰, base¹, …, one after the other as channels.

        y = concat_k M_k,   M_k[i] = max of the window of base^k cells around i,   k = levels − 1, …, 0

    The largest window comes first; the last C channels are the map itself. With the defaults the windows are 27, 9, 3
    and 1 cells wide. Sizes stay: cells outside never count. A window of base^(k+1) is the maximum of `base` windows of
    base^k, so each level costs a few comparisons a cell, whatever its size.

    Example:
        >>> y = PerPixelPyramid(levels=2).oracle(OneMap.of([1, 0, 0, 5]), PerPixelPyramid(levels=2).values())
        >>> [y[0, i] for i in range(4)]
        [1.0, 1.0, 5.0, 5.0]
    """

    levels: int = param(4, low=1, high=12, says="how many window sizes, the map itself included", tries=(1, 2))
    base: int = param(3, low=3, high=31, says="ratio of neighbouring window sizes; odd", tries=(5,))

    card: ClassVar[Card] = Card(
        name="per-pixel-pyramid",
        title="Per-pixel pyramid pooling (4P)",
        equation="y = concat_k M_k,  M_k[i] = max over the base^k cells around i",
        source="H. Park, K. M. Lee, Look wider to match image patches with convolutional neural networks, IEEE Signal "
        "Processing Letters 24 (2017) 1788–1792, arXiv:1709.06248",
        family="pyramid",
        facts=(MAP_BETWEEN, MAP_CONSTANT, MAP_SHIFTS, MAP_SCALES),
        same=(("per-pixel-pyramid:levels=1", "inter-map:size=1"),),
    )

    def __post_init__(self) -> None:
        """Refuse an even base: its windows have no middle."""
        super().__post_init__()
        if self.base % 2 == 0:
            raise ValueError(f"PerPixelPyramid(base={self.base}) is not allowed: windows with a middle are odd")

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(levels · C, *sizes)."""
        return (self.levels * int(shape.channels or 0), *(shape.sizes or ()))

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        found = [m.x]
        for level in range(p.levels - 1):
            y, step = found[0], p.base**level
            for axis, length in enumerate(m.sizes):
                # A place beyond the border is moved to the edge cell, whose smaller window lies inside the larger one.
                shifts = range(-(p.base // 2) * step, (p.base // 2) * step + 1, step)
                y = m.largest([m.take(axis, places(s, length, length, "replicate"), y) for s in shifts])
            found.insert(0, y)
        return m.xp.concat(found, 1)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        y: Answer = {}
        for number, channel, place in product(range(p.levels), range(m.channels), m.places):
            reach = p.base ** (p.levels - 1 - number) // 2
            ranges = [range(max(0, i - reach), min(n, i + reach + 1)) for i, n in zip(place, m.sizes, strict=True)]
            y[(number * m.channels + channel,) + place] = max(m.at(channel, cell) for cell in product(*ranges))
        return y
