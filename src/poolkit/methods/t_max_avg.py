"""T-Max-Avg pooling: the maximum where the largest cells pass a threshold, else their mean."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, ORDER_FREE, Card, Learn, Values, WindowMethod, param
from poolkit.steps import Step, kept, of_rank, ranks
from poolkit.xp import Cells, OneWindow

SOFTNESS = 0.1  # the width of the sigmoid that stands for the step in the gradient of T


@dataclass(frozen=True)
class TMaxAvg(WindowMethod):
    """The largest cell if the K largest ones all reach a threshold T, else the mean of these K.

        y = x₍₁₎ if x₍K₎ ≥ T,   else (1/K) (x₍₁₎ + … + x₍K₎)

    `rule="any"` asks for one cell alone, x₍₁₎ ≥ T. T is compared with the cells as they are, so the result depends on
    their scale; `relative=True` compares with T times the largest cell. K larger than the number of cells inside means
    all of them. At the threshold y jumps; the gradient is that of the branch taken, with the earlier of equals first.

    The derivative for T is 0 wherever there is one. With `t=learn()` T is learned by an estimate in its place, straight
    through the step: that of σ((v − T)/0.1) (x₍₁₎ − mean), v being the cell that must reach T, which pulls at T where
    a window lies near it. Values and the gradient of the cells stay exact.

    The abstract leaves open which cells must pass; that all K must is how most public code reads it. K = 3 and T = 0.8
    lie within the ranges reported as the paper's best, which could not be checked.

    Example:
        >>> TMaxAvg(t=2.5).oracle(OneWindow.of([1, 4, 3, 2]), TMaxAvg(t=2.5).values())
        3.0
    """

    k: int = param(3, low=1, high=2**31 - 1, says="how many of the largest cells are looked at", tries=(1, 2, 5))
    t: float = param(
        0.8,
        surrogate="the derivative of σ((v − T)/0.1) (x₍₁₎ − mean), v the cell that must reach T",
        says="the threshold",
        tries=(-0.3,),
    )
    rule: str = param("all", choices=("all", "any"), says="which of the K cells must reach it", tries=("any",))
    relative: bool = param(False, says="whether the threshold is t times the largest cell", tries=(True,))

    card: ClassVar[Card] = Card(
        name="t-max-avg",
        title="T-Max-Avg pooling",
        equation="y = x₍₁₎ if x₍K₎ ≥ T, else (1/K) Σ_{r ≤ K} x₍ᵣ₎",
        source="L. Zhao, Z. Zhang, A improved pooling method for convolutional neural networks, Scientific Reports 14 "
        "(2024) 1589",
        family="rank",
        facts=(BETWEEN, ORDER_FREE, CONSTANT),
        same=(
            ("t-max-avg:k=1", "max"),
            ("t-max-avg:t=-1000000", "max"),
            ("t-max-avg:t=1000000", "avg-topk:k=3"),
            ("t-max-avg:t=1000000,rule=any", "avg-topk:k=3"),
        ),
        released="Public code under this name differs: all of the K largest or the largest alone must reach T, the "
        "cells are first divided by the largest one, or T blends max and average. Code that learns T replaces the "
        "step by a sigmoid in the backward pass, as is done here on request.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        xp, count = w.xp, w.at_most(p.k)
        largest = w.ranked(w.x)[: p.k]
        top = largest[0]
        # Of the ranks up to K the last one inside; the ones outside count as the largest.
        least = xp.min(xp.where(w.rank[: p.k] < count, largest, top)) if p.rule == "all" else top
        passes = least >= (p.t * top if p.relative else p.t)
        # Divided before they are added: the sum may lie beyond the largest number.
        mean = xp.sum(largest / count)
        y = xp.where(passes, top, mean)
        if not isinstance(self.t, Learn):
            return y
        z = (xp.stop(least) - p.t * (xp.stop(top) if p.relative else 1.0)) / SOFTNESS
        gate, lift = xp.sigmoid(xp.where(xp.isfinite(z), z, 0.0)), xp.stop(top - mean)
        return y + xp.where(xp.isfinite(lift), lift, 0.0) * (gate - xp.stop(gate))

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        largest = heapq.nlargest(p.k, w.x)
        threshold = p.t * largest[0] if p.relative else p.t
        test = all if p.rule == "all" else any
        return largest[0] if test(v >= threshold for v in largest) else math.fsum(largest) / len(largest)

    def oracle_surrogate(self, w: OneWindow, p: Values, name: str) -> float:
        """What T learns from a window: a sigmoid's slope in place of the step's."""
        largest = heapq.nlargest(p.k, w.x)
        scale, v = largest[0] if p.relative else 1.0, largest[-1] if p.rule == "all" else largest[0]
        small = math.exp(-abs(v - p.t * scale) / SOFTNESS)
        return -scale / SOFTNESS * small / (1.0 + small) ** 2 * (largest[0] - math.fsum(largest) / len(largest))

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        k, r, top = min(p.k, w.n), ranks(w.x), of_rank(1, w.x)
        t, name = (p.t * top, "T x₍₁₎") if p.relative else (p.t, "T")
        tested, v = ("x₍K₎", of_rank(k, w.x)) if p.rule == "all" else ("x₍₁₎", top)
        found = [Step("rᵢ", r), Step("K" if p.k <= w.n else "K = n, as there are no more cells", k), Step("x₍₁₎", top)]
        found += [*([Step("x₍K₎", v)] if p.rule == "all" else []), Step(name, t)]
        if v >= t:
            return [*found, Step(f"y = x₍₁₎, as {tested} ≥ {name}", top)]
        largest = kept(w.x, [rank <= k for rank in r])
        found += [Step("xᵢ where rᵢ ≤ K, else 0", largest), Step("Σ_{r ≤ K} x₍ᵣ₎", math.fsum(largest))]
        return [*found, Step(f"y = (1/K) Σ_{{r ≤ K}} x₍ᵣ₎, as {tested} < {name}", math.fsum(largest) / k)]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        every_one, relative, learns = self.rule == "all", self.relative, p.learns_t

        @s.inline
        def look(w: Any) -> Any:
            """The largest cell (NaN if there is one), the K-th, and whether the threshold is reached."""
            top, bound = s.largest(w), s.kth_largest(w, min(p.k(w), s.count(w)))
            threshold = p.t(w) * top if relative else p.t(w)
            return top, bound, (bound if every_one else top) >= threshold

        @s.inline
        def mean_to(w: Any, bound: Any) -> Any:
            """The mean of the K largest cells, of which `bound` is the last."""
            share = 1.0 / s.real(min(p.k(w), s.count(w)))
            rest, total = s.real(min(p.k(w), s.count(w))), s.wide(0.0)
            for j in range(s.count(w)):
                v = s.cell(w, j)
                total += s.wide(s.where(v > bound, v * share, 0.0))
                rest -= s.where(v > bound, s.real(1.0), 0.0)
            return s.real(total + s.wide(s.where(rest > 0.0, rest * share * bound, 0.0)))

        def forward(w: Any) -> Any:
            top, bound, passes = look(w)
            if s.every(passes):
                return top
            return s.where(passes | (top != top), top, mean_to(w, bound))

        def gradient(w: Any, g: Any) -> None:
            top, bound, passes = look(w)
            if learns:
                scale = top if relative else s.real(1.0)
                gate = s.sigmoid(((bound if every_one else top) - p.t(w) * scale) / SOFTNESS)
                p.slope_t(w, 0.0 - g * (scale / SOFTNESS) * gate * (1.0 - gate) * (top - mean_to(w, bound)))
            bound = s.where(passes, top, bound)
            share = s.where(passes, g, g / min(p.k(w), s.count(w)))
            rest = s.where(passes, s.real(1.0), s.real(min(p.k(w), s.count(w))))
            for j in range(s.count(w)):
                rest -= s.where(s.cell(w, j) > bound, s.real(1.0), 0.0)
            for j in range(s.count(w)):
                v = s.cell(w, j)
                equal = v == bound
                s.give(w, j, s.where((v > bound) | (equal & (rest > 0.0)), share, 0.0))
                rest -= s.where(equal, s.real(1.0), 0.0)

        return forward, gradient
