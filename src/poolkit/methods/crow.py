"""Cross-dimensional weighting (CroW): a sum weighted by where much fires and by which channels seldom do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import MAP_ORDER_FREE, UNIT, Answer, Fact, HeadMethod, Map, MapShape, OneMap
from poolkit.method import Card, Values, param
from poolkit.plain import signed_root, unit

_EPS = 1e-6


@dataclass(frozen=True)
class CroW(HeadMethod):
    """A weighted sum of the cells for each channel, times a weight of the channel: (N, C, *sizes) to (N, C).

        y_c = I_c Σ S_l x_cl over the cells l,   S_l = √(s_l / ‖s‖),   s_l = Σ_c x_cl
        I_c = log((Cε + Σ Q) / (ε + Q_c)),   Q_c = the share of cells with x_cl > 0,   ε = 10⁻⁶

    Cells count where many channels fire, channels where they seldom fire; then y is divided by its length
    (`normalize=false`: not), where the paper whitens next. The paper's a = b = 2. It is meant for maps behind a ReLU;
    where s_l is negative the cell's weight is 0. Q counts and has no gradient. Of one channel I is 0.

    Example:
        >>> CroW().output_shape(MapShape(512, 2))
        (512,)
    """

    normalize: bool = param(True, says="whether y is divided by its length", tries=(False,))

    card: ClassVar[Card] = Card(
        name="crow",
        title="Cross-dimensional weighting (CroW)",
        equation="y_c = I_c Σ S_l x_cl,  S_l = √(s_l / ‖s‖),  s_l = Σ_c x_cl,  I_c = log((Cε + Σ Q) / (ε + Q_c))",
        source="Y. Kalantidis, C. Mellina, S. Osindero, Cross-dimensional weighting for aggregated deep convolutional "
        "features, ECCV 2016 workshops, arXiv:1512.04065",
        family="aggregation",
        facts=(MAP_ORDER_FREE,),
        domain="nonnegative",
        released="The authors' code leaves ε out and gives channels that never fire the weight 0.",
    )

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The length is 1 where it is normalised."""
        return (*self.card.facts, UNIT) if self.normalize else self.card.facts

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C,)."""
        return (int(shape.channels or 0),)

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        xp, x = m.xp, m.columns
        s = m.unit_above(xp.relu(xp.sum(x, 1)), 1, _EPS)
        fires = xp.where(x > 0, xp.ones(x, (1, 1, 1)), 0.0 * xp.ones(x, (1, 1, 1)))
        q = xp.mean(fires, 2)
        rare = xp.log((m.channels * _EPS + xp.sum(q, 1, True)) / (_EPS + q))
        y = rare * xp.einsum("nl,ncl->nc", m.signed_root(s), x)
        return m.unit(y) if p.normalize else y

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        channels, places = range(m.channels), m.places
        s = [max(0.0, math.fsum(m.at(c, place) for c in channels)) for place in places]
        length = max(math.sqrt(math.fsum(v * v for v in s)), _EPS)
        q = [sum(m.at(c, place) > 0 for place in places) / len(places) for c in channels]
        y = []
        for c in channels:
            rare = math.log((m.channels * _EPS + math.fsum(q)) / (_EPS + q[c]))
            y.append(rare * math.fsum(signed_root(v / length) * m.at(c, at) for v, at in zip(s, places, strict=True)))
        return {(c,): v for c, v in enumerate(unit(y) if p.normalize else y)}
