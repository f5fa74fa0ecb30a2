"""Superpixel pooling: one value for each region of a label map."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import MAP_SCALES, Answer, Map, MapMethod, MapShape, OneMap
from poolkit.method import Card, Values, param


@dataclass(frozen=True)
class Superpixel(MapMethod):
    """The mean of the cells with the same label: (N, C, *sizes) with labels (N, *sizes) to (N, C, K).

        y[k] = (1/|S_k|) Σ x_i over S_k = {i : label(i) = k},   k = 0, …, K − 1

    `reduction="max"` takes the largest cell of a region, `sum` the sum. A label without cells gives 0; cells with
    another label, such as −1, count nowhere. The labels are whole numbers of any type and come as the layer's second
    input; K is fixed, so that nothing waits for the data. Regions are found by scattering, without a loop over them.
    `poolkit.superpixels` has the counts |S_k|, the way back to the map, and labels by SLIC.

    Example:
        >>> m = OneMap.of([[1, 2], [3, 4]], labels=[[0, 0], [1, 0]])
        >>> y = Superpixel(segments=2).oracle(m, Superpixel(segments=2).values())
        >>> [round(y[0, k], 4) for k in range(2)]
        [2.3333, 3.0]
    """

    segments: int = param(64, low=1, high=1 << 24, says="number of labels K", tries=(5,))
    reduction: str = param(
        "mean", choices=("mean", "max", "sum"), says="what becomes of a region", tries=("max", "sum")
    )

    takes = ("labels",)
    card: ClassVar[Card] = Card(
        name="superpixel",
        title="Superpixel pooling",
        equation="y[k] = (1/|S_k|) Σ x_i over S_k = {i : label(i) = k}",
        source="S. Kwak, S. Hong, B. Han, Weakly supervised semantic segmentation using superpixel pooling network, "
        "AAAI 2017",
        family="region",
        facts=(MAP_SCALES,),
        released="The public layer runs on CUDA alone and reads the number of labels from the data.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, K)."""
        return (int(shape.channels or 0), self.segments)

    def try_inputs(self, shape: MapShape, seed: int) -> dict[str, Any]:
        """Labels that leave some regions empty and some cells out."""
        draw = random.Random(seed)  # noqa: S311 - labels for tests

        def labels(sizes: tuple[int, ...]) -> Any:
            return [labels(sizes[1:]) for _ in range(sizes[0])] if sizes else draw.choice([-1, 0, 0, 1, 2, 4, 7])

        return {"labels": labels(shape.sizes or ())}

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        xp, x = m.xp, m.columns
        # Whole numbers of one type: K may be more than a label's own type, such as uint8, can hold.
        labels = xp.whole(xp.reshape(m.others["labels"], (-1, x.shape[2])))
        inside = (labels >= 0) & (labels < p.segments)
        labels = xp.where(inside, labels, p.segments + 0 * labels)  # one region more, which is dropped
        one = xp.where(inside, 1.0, xp.ones(x, (1, 1)))[:, None]  # for each cell
        counts = xp.segments(one, labels, p.segments + 1, "sum")[:, :, :-1]
        if p.reduction == "max":
            return xp.where(counts > 0, _largest(m, x, labels, p.segments), 0.0 * counts)
        y = xp.segments(x, labels, p.segments + 1, "sum")[:, :, :-1]
        return y if p.reduction == "sum" else y / xp.clip(counts, 1.0, None)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        y: Answer = {}
        for channel in range(m.channels):
            for k in range(p.segments):
                region = [m.at(channel, place) for place in m.places if _label(m.others["labels"], place) == k]
                if not region:
                    y[channel, k] = 0.0
                elif p.reduction == "max":
                    y[channel, k] = max(region)
                else:
                    y[channel, k] = math.fsum(region) / (len(region) if p.reduction == "mean" else 1)
        return y


def _largest(m: Map, x: Any, labels: Any, count: int) -> Any:
    """The largest cell of each region; the first of equals is looked up, so that it alone gets the gradient."""
    xp, length = m.xp, int(x.shape[2])
    fixed = xp.stop(x)
    top = xp.gather(xp.segments(fixed, labels, count + 1, "max"), labels[:, None, :], 2)
    number = xp.reshape(xp.array([float(i) for i in range(length)], x), (1, 1, -1))
    order = xp.where((fixed == top) | xp.isnan(fixed), -number, -float(length))
    first = -xp.segments(order, labels, count + 1, "max")[:, :, :-1]
    return xp.gather(x, xp.clip(first, 0.0, length - 1.0), 2)


def _label(labels: Any, place: tuple[int, ...]) -> int:
    for i in place:
        labels = labels[i]
    return int(labels)
