"""Regional maximum activations (R-MAC): the maxima of overlapping squares, each of length 1, added."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any, ClassVar

from poolkit.map_method import MAP_SCALE_FREE, UNIT, Answer, HeadMethod, Map, MapShape, OneMap
from poolkit.method import Card, Values, param
from poolkit.plain import unit_above

_REGION, _MEAN = 1e-3, 0.02  # least lengths: no slope is above 1 / (their product), which float16 holds


@dataclass(frozen=True)
class RMAC(HeadMethod):
    """Maxima of square regions at several scales, each divided by its length, added up: (N, C, *sizes) to (N, C).

        y = unit(Σ unit(f_r) over the regions r),   f_r = the largest cell of each channel in r

    At the scales l = 1, …, L the squares are ⌊2 s/(l + 1)⌋ cells wide, s the shortest side of the map. Along a side of
    s cells there are l of them; along a longer one so many more, at each scale the same, that neighbours at l = 1
    overlap by as near to 40 % as possible. They are spread evenly, from the first cell to the last. `whole` counts the
    whole map as one more region, as the authors' later code does; of a square map, l = 1 is that already.

    unit(f) = f / max(‖f‖, 10⁻³) for a region, and at the end 0.02 in place of 10⁻³ for the mean of the regions: where
    nothing fires y is 0, with a gradient that float16 can hold. The paper whitens between the two lengths.

    Example:
        >>> RMAC().output_shape(MapShape(512, 2))
        (512,)
    """

    levels: int = param(3, low=1, high=16, says="number of scales L", tries=(1,))
    whole: bool = param(False, says="whether the whole map is one more region", tries=(True,))

    card: ClassVar[Card] = Card(
        name="r-mac",
        title="Regional maximum activations (R-MAC)",
        equation="y = unit(Σ unit(f_r) over the regions r),  f_r = max of x over r, for each channel",
        source="G. Tolias, R. Sicre, H. Jégou, Particular object retrieval with integral max-pooling of CNN "
        "activations, ICLR 2016, arXiv:1511.05879",
        family="aggregation",
        facts=(MAP_SCALE_FREE, UNIT),
        released="The authors' later code counts the whole map once more, takes at most 7 squares along a side at "
        "l = 1, and leaves the last length to a layer of its own.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C,)."""
        return (int(shape.channels or 0),)

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula: along one axis after the other."""
        xp, found = m.xp, []
        if p.whole:
            found.append(m.unit_above(xp.max(m.columns, 2)[:, :, None], 1, _REGION))
        for level in range(1, p.levels + 1):
            y = m.x
            for axis, length in enumerate(m.sizes):
                y = xp.concat([_cut(m, y, axis, a, b) for a, b in _squares(length, min(m.sizes), level)], 2 + axis)
            regions = xp.reshape(y, (-1, m.channels, math.prod(y.shape[2:])))
            found.append(m.unit_above(regions, 1, _REGION))
        return m.unit_above(xp.mean(xp.concat(found, 2), 2), 1, _MEAN)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form, region by region."""
        regions, s = [m.places] if p.whole else [], min(m.sizes)
        for level in range(1, p.levels + 1):
            width = max(1, math.floor(2 * s / (level + 1)))
            sides = []
            for a in m.sizes:
                count = level
                if a > s:
                    off = {k: abs(1 - Fraction(a - s, k * s) - Fraction(2, 5)) for k in range(1, 2 * a)}
                    count += min(off, key=off.__getitem__)
                starts = [(a - width) * i // (count - 1) if count > 1 else 0 for i in range(count)]
                sides.append([range(start, start + width) for start in starts])
            regions += [list(product(*square)) for square in product(*sides)]
        total = [0.0] * m.channels
        for region in regions:
            f = [max(m.at(c, place) for place in region) for c in range(m.channels)]
            total = [v + w / len(regions) for v, w in zip(total, unit_above(f, _REGION), strict=True)]
        return {(c,): v for c, v in enumerate(unit_above(total, _MEAN))}


def _squares(length: int, shortest: int, level: int) -> list[tuple[int, int]]:
    """First cell and end of the regions of one scale along an axis."""
    width, rest, count = max(1, 2 * shortest // (level + 1)), length - shortest, level
    if rest:
        more = max(1, 5 * rest // (3 * shortest))  # an overlap of 40 % leaves steps of 3/5 of a square
        off, off_next = (abs(5 * rest - 3 * k * shortest) for k in (more, more + 1))
        count += more + (off_next * more < off * (more + 1))  # in whole numbers, so that ties are ties
    starts = [i * (length - width) // max(1, count - 1) for i in range(count)]
    return [(start, start + width) for start in starts]


def _cut(m: Map, y: Any, axis: int, start: int, end: int) -> Any:
    """The largest of the cells start … end − 1 along an axis."""
    cut = [slice(None)] * (m.dims + 2)
    cut[2 + axis] = slice(start, end)
    return m.xp.max(y[tuple(cut)], 2 + axis, True)
