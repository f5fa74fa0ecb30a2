"""Avg-TopK pooling: the mean of the K largest cells."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, MONOTONE, ORDER_FREE, SCALES, SHIFTS, Card, Values, WindowMethod, param
from poolkit.steps import Step, kept, ranks
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class AvgTopK(WindowMethod):
    """The mean of the K largest cells.

        y = (1/K) (x₍₁₎ + … + x₍K₎)

    K larger than the number of cells inside means all of them. As a global pool it is the average of the top K of each
    map. The gradient is 1/K for each of the K cells, the earlier of equals.

    Example:
        >>> AvgTopK(k=2).oracle(OneWindow.of([1, 4, 3, 2]), AvgTopK().values())
        3.5
    """

    k: int = param(2, low=1, high=2**31 - 1, says="how many of the largest cells are averaged", tries=(1, 3, 5))

    card: ClassVar[Card] = Card(
        name="avg-topk",
        title="Avg-TopK pooling",
        equation="y = (1/K) Σ_{r ≤ K} x₍ᵣ₎",
        source="C. Özdemir, Avg-topk: a new pooling method for convolutional neural networks, Expert Systems with "
        "Applications 223 (2023) 119892",
        family="rank",
        facts=(BETWEEN, ORDER_FREE, SHIFTS, SCALES, CONSTANT, MONOTONE),
        same=(("avg-topk:k=1", "max"), ("avg-topk:k={n}", "avg"), ("avg-topk:k=3", "rank-avg:t=3")),
        released="The abstract says weighted average; the released code takes the plain mean (K = 5 of a 3×3 window). "
        "It is the same statistic as rank-based average pooling of 2016.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        largest = w.ranked(w.x)[: p.k]
        return w.xp.sum(largest) / w.at_most(p.k)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        largest = heapq.nlargest(p.k, w.x)
        return math.fsum(largest) / len(largest)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        k, r = min(p.k, w.n), ranks(w.x)
        largest = kept(w.x, [rank <= k for rank in r])
        found = [Step("rᵢ", r), Step("K" if p.k <= w.n else "K = n, as there are no more cells", k)]
        found += [Step("xᵢ where rᵢ ≤ K, else 0", largest), Step("Σ_{r ≤ K} x₍ᵣ₎", math.fsum(largest))]
        return [*found, Step("y = (1/K) Σ_{r ≤ K} x₍ᵣ₎", math.fsum(largest) / k)]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""

        def forward(w: Any) -> Any:
            return s.mean_of_largest(w, p.k(w))

        def gradient(w: Any, g: Any) -> None:
            s.give_to_largest(w, p.k(w), g)

        return forward, gradient
