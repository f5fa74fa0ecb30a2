"""Inter-map pooling: groups of channels become one, at every place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import MAP_SCALES, Answer, Map, MapMethod, MapShape, OneMap
from poolkit.method import Card, Values, param


@dataclass(frozen=True)
class InterMap(MapMethod):
    """The maximum over a group of neighbouring channels, at every place: C channels to C/G.

        y_g(i) = max { x_c(i) : c in group g },   group g = channels gG, …, gG + G − 1

    This is maxout over the groups. `reduction="avg"` takes the mean, `lp` the power mean ((1/G) Σ|x|ᵖ)^(1/p). Sizes
    stay. The number of channels must be a multiple of G.

    Example:
        >>> y = InterMap().oracle(OneMap.of([1, 5], [4, 2]), InterMap().values())
        >>> [y[0, 0], y[0, 1]]
        [4.0, 5.0]
    """

    size: int = param(2, low=1, high=65536, says="channels G of a group", tries=(1, 4))
    reduction: str = param("max", choices=("max", "avg", "lp"), says="what becomes of a group", tries=("avg", "lp"))
    p: float = param(2.0, low=1.0, high=100.0, says="the power of lp", tries=(3.5,))

    keeps_channels_apart = False
    card: ClassVar[Card] = Card(
        name="inter-map",
        title="Inter-map pooling",
        equation="y_g(i) = max { x_c(i) : c in group g }",
        source="H. Lee, G. Kim, H.-G. Kim, S.-H. Oh, S.-Y. Lee, Deep CNNs along the time axis with intermap pooling "
        "for robustness to spectral variations, IEEE Signal Processing Letters 23 (2016) 1310–1314, arXiv:1606.03207",
        family="channels",
        facts=(MAP_SCALES,),
        same=(("inter-map:size=1,reduction=avg", "inter-map:size=1"),),
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C / G, *sizes)."""
        channels = int(shape.channels or 0)
        if channels % self.size:
            raise ValueError(f"{self.spelling} wants a multiple of {self.size} channels, got {channels}")
        return (channels // self.size, *(shape.sizes or ()))

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        xp = m.xp
        x = xp.reshape(m.x, (-1, m.channels // p.size, p.size, *m.sizes))
        if p.reduction == "max":
            return xp.max(x, 2)
        if p.reduction == "avg":
            return xp.mean(x, 2)
        top = xp.stop(xp.max(xp.abs(x), 2, True))
        top = xp.where(top > 0, top, 0.0 * top + 1.0)  # powers of shares of the largest cannot overflow
        mean = xp.mean(xp.power(xp.abs(x / top), p.p), 2)
        some = mean > 0
        root = xp.power(xp.where(some, mean, 0.0 * mean + 1.0), 1.0 / p.p)
        return xp.where(some, root, mean) * top[:, :, 0]

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        y: Answer = {}
        for place in m.places:
            for group in range(m.channels // p.size):
                cells = [m.at(c, place) for c in range(group * p.size, (group + 1) * p.size)]
                if p.reduction == "max":
                    y[(group,) + place] = max(cells)
                elif p.reduction == "avg":
                    y[(group,) + place] = math.fsum(cells) / p.size
                else:
                    y[(group,) + place] = (math.fsum(abs(v) ** p.p for v in cells) / p.size) ** (1 / p.p)
        return y
