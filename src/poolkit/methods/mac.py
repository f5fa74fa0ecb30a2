"""Maximum activations (MAC): the largest cell of each map."""

from __future__ import annotations

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
class MAC(HeadMethod):
    """The largest cell of each map: (N, C, *sizes) to (N, C).

        y_c = max of x_c over all cells

    The same numbers as `GlobalPool2d("max")`, as a vector. What the paper adds for retrieval, a length of 1
    and whitening, comes after it.

    Example:
        >>> MAC().oracle(OneMap.of([1, 2], [4, 3]), Values())[1,]
        4.0
    """

    keeps_channels_apart = True
    card: ClassVar[Card] = Card(
        name="mac",
        title="Maximum activations (MAC)",
        equation="y_c = max of x_c over all cells",
        source="G. Tolias, R. Sicre, H. Jégou, Particular object retrieval with integral max-pooling of CNN "
        "activations, ICLR 2016, arXiv:1511.05879",
        family="aggregation",
        facts=(MAP_BETWEEN, MAP_CONSTANT, MAP_SHIFTS, MAP_SCALES, MAP_ORDER_FREE),
        same=(("mac", "max"),),
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C,)."""
        return (int(shape.channels or 0),)

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        return m.xp.max(m.columns, 2)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        return {(c,): max(m.at(c, place) for place in m.places) for c in range(m.channels)}
