"""RoI pooling: the maxima of the bins of each box of a map, with bounds rounded to whole cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from poolkit.map_method import MAP_SCALES, Answer, Map, MapMethod, MapShape, OneMap
from poolkit.method import Card, Values, param
from poolkit.methods.roi_align import RoIAlign


@dataclass(frozen=True)
class RoI(MapMethod):
    """The largest cell in each of n × n bins of a box: (N, C, H, W) to (N, C, B, n, n).

        y[b, i, j] = max of x over the rows a + ⌊i·h/n⌋ … a + ⌈(i+1)·h/n⌉ − 1 of box b, and columns likewise
        a = round(top · scale),   h = max(1, round(bottom · scale) − a + 1)

    Boxes come as the layer's second input, (N, B, 4): left, top, right, bottom in pixels of the picture, B a fixed
    number for each example; `scale` turns them into cells of the map. A box has its last row and column too; halves
    round away from 0. Cells outside the map do not count; a bin without a cell is 0. Boxes get no gradient:
    `roi-align` samples between the cells and gives them one.

    Maxima of 1, 2, 4, … cells are made once for the map; two of them, which may overlap, make a bin of any size.

    Example:
        >>> RoI(boxes=5).output_shape(MapShape(64, 2, (20, 30)))
        (64, 5, 7, 7)
    """

    boxes: int = param(16, low=1, high=1 << 20, says="boxes B of each example", tries=(3,))
    bins: int = param(7, low=1, high=1024, says="bins n of a box along each axis", tries=(2,))
    scale: float = param(1.0, low=1e-6, high=1e6, says="cells of the map for each pixel of the boxes", tries=(0.5,))

    takes = ("boxes",)
    takes_dims = (2,)
    card: ClassVar[Card] = Card(
        name="roi",
        title="Region of interest pooling (RoIPool)",
        equation="y[b, i, j] = max of x over the rows a + ⌊i·h/n⌋ … a + ⌈(i+1)·h/n⌉ − 1 of box b, and columns likewise",
        source="R. Girshick, Fast R-CNN, ICCV 2015, arXiv:1504.08083",
        family="region",
        facts=(MAP_SCALES,),
        released="torchvision multiplies i by the rounded h/n, which may reach one cell further where i·h/n is whole.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, B, n, n)."""
        return (int(shape.channels or 0), self.boxes, self.bins, self.bins)

    def input_shape(self, name: str, shape: MapShape) -> tuple[int, ...]:
        """(B, 4)."""
        return (self.boxes, 4)

    def try_inputs(self, shape: MapShape, seed: int) -> dict[str, Any]:
        """Boxes inside the map and over its border."""
        return RoIAlign(boxes=self.boxes, scale=self.scale).try_inputs(shape, seed)

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula: columns, then rows, so that the first of equal cells row by row gets the gradient."""
        xp, boxes = m.xp, m.others["boxes"]
        top, end = self._edges(m, p, boxes[..., 1], boxes[..., 3], m.sizes[0])
        left, right = self._edges(m, p, boxes[..., 0], boxes[..., 2], m.sizes[1])
        y = _largest(m, m.x, 3, *(xp.reshape(v, (-1, 1, 1, p.boxes * p.bins)) for v in (left, right)))
        y = xp.reshape(y, (-1, m.channels, m.sizes[0], p.boxes, p.bins))
        rows = (xp.reshape(xp.transpose(v, (0, 2, 1)), (-1, 1, p.bins, p.boxes, 1)) for v in (top, end))
        y = xp.transpose(_largest(m, y, 2, *rows), (0, 1, 3, 2, 4))
        full = (end > top)[:, None, :, :, None] & (right > left)[:, None, :, None, :]
        return xp.where(full, y, 0.0 * xp.ones(m.x, (1, 1, 1, 1, 1)))

    def _edges(self, m: Map, p: Values, low: Any, high: Any, length: int) -> tuple[Any, Any]:
        """First cell and end of each bin along one axis: (N, B, n) each."""
        xp = m.xp
        first, last = (xp.sign(v * p.scale) * xp.floor(xp.abs(v * p.scale) + 0.5) for v in (low, high))
        extent = xp.clip(last - first + 1, 1.0, None)[..., None]
        i = xp.array([float(v) for v in range(p.bins)], m.x)
        # Half a bin's share more, so that a quotient that should be whole and is a little less does not fall by one.
        edges = (xp.floor((v + 0.5) / p.bins) for v in (i * extent, (i + 1) * extent + (p.bins - 1)))
        start, end = (xp.clip(edge + first[..., None], 0.0, float(length)) for edge in edges)
        return start, end

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        y: Answer = {}
        for b, (left, top, right, bottom) in enumerate(m.others["boxes"]):
            for i, j, channel in product(range(p.bins), range(p.bins), range(m.channels)):
                rows, columns = _bin(top, bottom, i, p, m.sizes[0]), _bin(left, right, j, p, m.sizes[1])
                y[channel, b, i, j] = max((m.x[channel, r, c] for r in rows for c in columns), default=0.0)
        return y


def _largest(m: Map, x: Any, axis: int, first: Any, end: Any) -> Any:
    """The largest of the cells first … end − 1 along an axis, for many such ranges; anything for an empty one."""
    xp, length, y = m.xp, int(x.shape[axis]), None
    reach = 1
    while reach <= length:
        ends = (xp.clip(first, 0.0, length - 1.0), xp.clip(end - reach, 0.0, length - 1.0))
        best = m.largest([xp.gather(x, at, axis) for at in ends])  # x[i] is the maximum of i … i + reach − 1
        y = best if y is None else xp.where(end - first >= reach, best, y)
        x = m.largest([x, xp.take(x, [min(i + reach, length - 1) for i in range(length)], axis)])
        reach *= 2
    return y


def _bin(low: float, high: float, i: int, p: Values, length: int) -> list[int]:
    """The cells of bin i along one axis."""

    def rounded(v: float) -> int:
        return math.floor(v + 0.5) if v >= 0 else math.ceil(v - 0.5)

    first = rounded(low * p.scale)
    extent = max(1, rounded(high * p.scale) - first + 1)
    cells = range(first + i * extent // p.bins, first - (-(i + 1) * extent // p.bins))
    return [cell for cell in cells if 0 <= cell < length]
