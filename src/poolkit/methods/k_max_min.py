"""k-max-min pooling (WILDCAT): the mean of the largest cells plus a share of the mean of the smallest."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import MONOTONE, ORDER_FREE, SCALES, Card, Values, WindowMethod, param
from poolkit.steps import Step, kept, ranks
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class KMaxMin(WindowMethod):
    """The mean of the k largest cells plus α times the mean of the k smallest.

        y = (1/k) (x₍₁₎ + … + x₍k₎) + α (1/k) (x₍n−k+1₎ + … + x₍n₎)

    α = 0 is Avg-TopK, α = 1 with k = 1 the sum of maximum and minimum. A cell may count on both sides; k larger than
    the number of cells inside means all of them. The result is no mean: a window of ones gives 1 + α. Made for global
    pooling of class maps, where the smallest cells speak against a class. Among equals the earlier cells count as the
    larger ones.

    The paper's α is said to be 0.7, which could not be checked; released code has k = 1 and α = 1, as here.

    Example:
        >>> KMaxMin(k=2, alpha=0.5).oracle(OneWindow.of([1, 4, 3, 2]), KMaxMin(k=2, alpha=0.5).values())
        4.25
    """

    k: int = param(1, low=1, high=2**31 - 1, says="how many cells are averaged on each side", tries=(2, 3, 5))
    alpha: float = param(1.0, low=0.0, learnable=True, says="weight of the smallest cells", tries=(0.0, 0.7))

    card: ClassVar[Card] = Card(
        name="k-max-min",
        title="k-max-min pooling (WILDCAT)",
        equation="y = (1/k) Σ_{r ≤ k} x₍ᵣ₎ + α (1/k) Σ_{r > n−k} x₍ᵣ₎",
        source="T. Durand, T. Mordan, N. Thome, M. Cord, WILDCAT: weakly supervised learning of deep ConvNets for "
        "image classification, pointwise localization and segmentation, CVPR 2017",
        family="rank",
        facts=(ORDER_FREE, SCALES, MONOTONE),
        same=(("k-max-min:alpha=0", "max"), ("k-max-min:k=3,alpha=0", "avg-topk:k=3")),
        released="The authors' code halves the sum where α is not 0; k may differ for the two sides there, and a k "
        "below 1 is a share of the cells. The halving is not in the equation as it is usually given.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        xp, count = w.xp, w.at_most(p.k)
        # Divided before they are added: the sum may lie beyond the largest number.
        parts = w.ranked(w.x) / count
        lowest = xp.sum(xp.where((w.rank >= w.n - count) & (w.rank < w.n), parts, 0.0))
        y = xp.sum(parts[: p.k]) + p.alpha * lowest
        return xp.where(parts[0] != parts[0], math.nan, y)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        largest, smallest = heapq.nlargest(p.k, w.x), heapq.nsmallest(p.k, w.x)
        return math.fsum(largest) / len(largest) + p.alpha * math.fsum(smallest) / len(smallest)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        k, r = min(p.k, w.n), ranks(w.x)
        high, low = kept(w.x, [rank <= k for rank in r]), kept(w.x, [rank > w.n - k for rank in r])
        above, below = math.fsum(high) / k, math.fsum(low) / k
        return [
            Step("rᵢ", r),
            Step("k" if p.k <= w.n else "k = n, as there are no more cells", k),
            Step("xᵢ where rᵢ ≤ k, else 0", high),
            Step("xᵢ where rᵢ > n − k, else 0", low),
            Step("(1/k) Σ_{r ≤ k} x₍ᵣ₎", above),
            Step("(1/k) Σ_{r > n−k} x₍ᵣ₎", below),
            Step("y = (1/k) Σ_{r ≤ k} x₍ᵣ₎ + α (1/k) Σ_{r > n−k} x₍ᵣ₎", above + p.alpha * below),
        ]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        learns, extremes = p.learns_alpha, _extremes(s)

        @s.inline
        def bounds(w: Any) -> Any:
            """The k-th largest and smallest cell, how many of their equals count, the means of both sides, NaN or 0."""
            n = s.count(w)
            k = min(p.k(w), n)
            if k == 1:
                return extremes(w)
            low, high = s.kth_largest(w, n - k + 1), s.kth_largest(w, k)
            most, least, lost = s.real(k), s.real(k), s.real(0.0)
            upper, lower = s.wide(0.0), s.wide(0.0)
            for j in range(n):
                v = s.cell(w, j)
                lost = s.where(v != v, v, lost)
                part = v * (1.0 / s.real(k))
                upper += s.wide(s.where(v > high, part, 0.0))
                lower += s.wide(s.where(v < low, part, 0.0))
                most -= s.where(v > high, s.real(1.0), 0.0)
                least -= s.where(v < low, s.real(1.0), 0.0)
            upper += s.wide(most * (high * (1.0 / s.real(k))))
            lower += s.wide(least * (low * (1.0 / s.real(k))))
            return high, low, most, least, s.real(upper), s.real(lower), lost

        def forward(w: Any) -> Any:
            upper, lower, lost = bounds(w)[4:]
            return upper + p.alpha(w) * lower + lost

        def gradient(w: Any, g: Any) -> None:
            high, low, most, least, _, lower, _ = bounds(w)
            share = g / min(p.k(w), s.count(w))
            # Of the cells equal to the k-th smallest the last ones count.
            skip = s.real(0.0) - least
            for j in range(s.count(w)):
                skip += s.where(s.cell(w, j) == low, s.real(1.0), 0.0)
            for j in range(s.count(w)):
                v = s.cell(w, j)
                above = (v > high) | ((v == high) & (most > 0.0))
                below = (v < low) | ((v == low) & (skip <= 0.0))
                s.give(w, j, s.where(above, share, 0.0) + s.where(below, p.alpha(w) * share, 0.0))
                most -= s.where(v == high, s.real(1.0), 0.0)
                skip -= s.where(v == low, s.real(1.0), 0.0)
            if learns:
                p.slope_alpha(w, g * lower)

        return forward, gradient


def _extremes(s: Any) -> Any:
    """What `bounds` says of the largest and the smallest cell, as a word."""

    @s.inline
    def extremes(w: Any) -> Any:
        low, high, lost, one = s.cell(w, 0), s.cell(w, 0), s.real(0.0), s.real(1.0)
        for j in range(s.count(w)):
            v = s.cell(w, j)
            lost = s.where(v != v, v, lost)
            low, high = s.where(v < low, v, low), s.where(v > high, v, high)
        return high, low, one, one, high, low, lost

    return extremes
