"""Bilinear pooling: the products of all pairs of channels, summed over the map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import MAP_ORDER_FREE, UNIT, Answer, Fact, HeadMethod, Map, MapShape, OneMap
from poolkit.method import Card, Values, param
from poolkit.plain import signed_root, unit


@dataclass(frozen=True)
class Bilinear(HeadMethod):
    """Second-order statistics of a map: (N, C, *sizes) to (N, C²).

        B = Σ xₗ xₗᵀ over the cells l,   z = sign(B) √|B|,   y = z / ‖z‖

    xₗ are the C numbers of a cell; B is written row by row. The root is B / √(|B| + 10⁻⁸), because the slope of √|B| is
    infinite at 0, where every pair of channels stands that never fire together. `normalize=false` gives B itself.

    Example:
        >>> y = Bilinear(normalize=False).oracle(OneMap.of([1, 2], [3, 0]), Values(normalize=False))
        >>> [y[i,] for i in range(4)]
        [5.0, 3.0, 3.0, 9.0]
    """

    normalize: bool = param(True, says="whether root and length follow", tries=(False,))

    card: ClassVar[Card] = Card(
        name="bilinear",
        title="Bilinear pooling",
        equation="y = z / ‖z‖,  z = sign(B) √|B|,  B = Σ xₗ xₗᵀ over the cells l",
        source="T.-Y. Lin, A. RoyChowdhury, S. Maji, Bilinear CNN models for fine-grained visual recognition, "
        "ICCV 2015",
        family="second order",
        facts=(MAP_ORDER_FREE,),
        released="Public code often averages over the cells, and adds its eps inside the root without the sign: "
        "sign(B) √(|B| + ε) jumps at 0.",
    )

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The length is 1 where it is normalised."""
        return (*self.card.facts, UNIT) if self.normalize else self.card.facts

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C²,)."""
        return (int(shape.channels or 0) ** 2,)

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        x = m.columns
        b = m.xp.reshape(m.xp.einsum("nil,njl->nij", x, x), (-1, m.channels**2))
        return m.unit(m.signed_root(b)) if p.normalize else b

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        y = [
            math.fsum(m.at(i, place) * m.at(j, place) for place in m.places)
            for i in range(m.channels)
            for j in range(m.channels)
        ]
        y = unit([signed_root(v) for v in y]) if p.normalize else y
        return {(i,): v for i, v in enumerate(y)}
