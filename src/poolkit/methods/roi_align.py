"""RoIAlign: each box of a map sampled to a grid of one size."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from poolkit.map_method import MAP_LINEAR, Answer, Map, MapMethod, MapShape, OneMap
from poolkit.method import Card, Values, param


@dataclass(frozen=True)
class RoIAlign(MapMethod):
    """The mean of s × s bilinear samples in each of n × n bins of a box: (N, C, H, W) to (N, C, B, n, n).

        y[b, i, j] = (1/s²) Σ x(r, c),   r, c the middles of s × s parts of bin (i, j) of box b

    Boxes come as the layer's second input, (N, B, 4): left, top, right, bottom in pixels of the picture, B a fixed
    number for each example; `scale` turns them into cells of the map. `aligned` counts pixels by their middles, half a
    cell before the older rule, which also makes boxes smaller than one cell as large as one. Samples more than one cell
    outside the map are 0, others take the nearest cell's value beyond the border.

    Bilinear samples are products of a row's and a column's weights, so that a box is two small matrices; no sample is
    stored. Boxes get a gradient too.

    Example:
        >>> RoIAlign(boxes=5).output_shape(MapShape(64, 2, (20, 30)))
        (64, 5, 7, 7)
    """

    boxes: int = param(16, low=1, high=1 << 20, says="boxes B of each example", tries=(3,))
    bins: int = param(7, low=1, high=1024, says="bins n of a box along each axis", tries=(2,))
    samples: int = param(2, low=1, high=64, says="samples s of a bin along each axis", tries=(1,))
    scale: float = param(1.0, low=1e-6, high=1e6, says="cells of the map for each pixel of the boxes", tries=(0.5,))
    aligned: bool = param(True, says="whether pixels are counted by their middles", tries=(False,))

    takes = ("boxes",)
    takes_dims = (2,)
    tries = ({"boxes": 2, "bins": 1, "samples": 3, "scale": 2.0},)
    card: ClassVar[Card] = Card(
        name="roi-align",
        title="RoIAlign",
        equation="y[b, i, j] = (1/s²) Σ x(r, c),  r, c the middles of s × s parts of bin (i, j) of box b",
        source="K. He, G. Gkioxari, P. Dollár, R. Girshick, Mask R-CNN, ICCV 2017, arXiv:1703.06870",
        family="region",
        facts=(MAP_LINEAR,),
        released="torchvision's default takes more samples in larger boxes, and the older rule aligned=false.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, B, n, n)."""
        return (int(shape.channels or 0), self.boxes, self.bins, self.bins)

    def input_shape(self, name: str, shape: MapShape) -> tuple[int, ...]:
        """(B, 4)."""
        return (self.boxes, 4)

    def try_inputs(self, shape: MapShape, seed: int) -> dict[str, Any]:
        """Boxes inside the map, over its border, outside it and without extent."""
        draw = random.Random(seed)  # noqa: S311 - boxes for tests
        h, w = (n / self.scale for n in shape.sizes or (4, 4))
        some = []
        for _ in range(self.boxes):
            left, top = draw.uniform(-0.3, 0.8) * w, draw.uniform(-0.3, 0.8) * h
            some.append([left, top, left + draw.uniform(0.05, 0.9) * w, top + draw.uniform(0.05, 0.9) * h])
        return {"boxes": some}

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        boxes = m.others["boxes"]
        rows = self._weights(m, p, boxes[..., 1], boxes[..., 3], m.sizes[0])
        columns = self._weights(m, p, boxes[..., 0], boxes[..., 2], m.sizes[1])
        # Two by two: of three, opt_einsum, where it is installed, compares the sizes, and an export would keep them.
        return m.xp.einsum("ncbiw,nbjw->ncbij", m.xp.einsum("nbih,nchw->ncbiw", rows, m.x), columns)

    def _weights(self, m: Map, p: Values, low: Any, high: Any, length: int) -> Any:
        """How much of each cell along one axis is in each bin: (N, B, n, length)."""
        xp, parts = m.xp, p.bins * p.samples
        first = low * p.scale - (0.5 if p.aligned else 0.0)
        extent = (high - low) * p.scale
        extent = extent if p.aligned else xp.clip(extent, 1.0, None)
        middles = xp.array([(i + 0.5) / parts for i in range(parts)], m.x)
        at = (first[..., None] + extent[..., None] * middles)[..., None]
        cells = xp.array([float(i) for i in range(length)], m.x)
        near = xp.clip(1.0 - xp.abs(xp.clip(at, 0.0, length - 1.0) - cells), 0.0, None)
        near = xp.where((at < -1.0) | (at > length), 0.0 * near, near)
        return xp.mean(xp.reshape(near, (-1, int(low.shape[1]), p.bins, p.samples, length)), 3)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form: sample after sample."""
        y: Answer = {}
        for b, (left, top, right, bottom) in enumerate(m.others["boxes"]):
            for i, j, channel in product(range(p.bins), range(p.bins), range(m.channels)):
                rows = [self._at(top, bottom, i * p.samples + part) for part in range(p.samples)]
                columns = [self._at(left, right, j * p.samples + part) for part in range(p.samples)]
                samples = [self._sample(m, channel, r, c) for r in rows for c in columns]
                y[channel, b, i, j] = math.fsum(samples) / len(samples)
        return y

    def _at(self, low: float, high: float, part: int) -> float:
        extent = (high - low) * self.scale
        extent = extent if self.aligned else max(extent, 1.0)
        return low * self.scale - 0.5 * self.aligned + extent * (part + 0.5) / (self.bins * self.samples)

    def _sample(self, m: OneMap, channel: int, r: float, c: float) -> float:
        h, w = m.sizes
        if r < -1 or r > h or c < -1 or c > w:
            return 0.0
        r, c = min(max(r, 0.0), h - 1.0), min(max(c, 0.0), w - 1.0)
        i, j = int(r), int(c)
        total = 0.0
        for row, a in ((i, 1 - (r - i)), (i + 1, r - i)):
            for column, b in ((j, 1 - (c - j)), (j + 1, c - j)):
                total += a * b * m.x[channel, row, column] if a and b else 0.0
        return total
