"""Average activations (SPoC): the mean of each map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import (
    MAP_BETWEEN,
    MAP_CONSTANT,
    MAP_ORDER_FREE,
    MAP_SCALES,
    MAP_SHIFTS,
    Answer,
    HeadMethod,
    Map,
    MapShape,
    OneMap,
)
from poolkit.method import Card, Values


@dataclass(frozen=True)
class SPoC(HeadMethod):
    """The mean of each map: (N, C, *sizes) to (N, C).

        y_c = mean of x_c over all cells

    The same numbers as `GlobalPool2d("avg")`, as a vector. The paper has the sum, which differs by a factor;
    what it adds for retrieval, weights that favour the middle, whitening and a length of 1, comes before and after it.

    Example:
        >>> SPoC().oracle(OneMap.of([1, 2], [4, 3]), Values())[1,]
        3.5
    """

    keeps_channels_apart = True
    card: ClassVar[Card] = Card(
        name="spoc",
        title="Average activations (SPoC)",
        equation="y_c = mean of x_c over all cells",
        source="A. Babenko, V. Lempitsky, Aggregating deep convolutional features for image retrieval, ICCV 2015, "
        "arXiv:1510.07493",
        family="aggregation",
        facts=(MAP_BETWEEN, MAP_CONSTANT, MAP_SHIFTS, MAP_SCALES, MAP_ORDER_FREE),
        same=(("spoc", "avg"),),
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C,)."""
        return (int(shape.channels or 0),)

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        return m.xp.mean(m.columns, 2)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        return {(c,): math.fsum(m.at(c, place) for place in m.places) / len(m.places) for c in range(m.channels)}
