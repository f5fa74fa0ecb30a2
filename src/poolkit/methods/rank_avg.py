"""Rank-based average pooling (RAP): the mean of the t largest cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, MONOTONE, ORDER_FREE, SCALES, SHIFTS, Card, Values, WindowMethod, param
from poolkit.steps import Step, kept, ranks
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class RankAvg(WindowMethod):
    """The mean of the cells whose rank is at most t.

        y = (1/min(t, n)) Σ_{rᵢ ≤ t} xᵢ,   rᵢ = 1 + #{j: xⱼ > xᵢ} + #{j before i: xⱼ = xᵢ}

    t = 1 is the maximum, t = n the mean. The same statistic came back seven years later as Avg-TopK. The gradient is
    1/min(t, n) for each of the t cells; among equals the earlier ones have the better rank.

    Example:
        >>> RankAvg(t=2).oracle(OneWindow.of([1, 4, 3, 2]), RankAvg().values())
        3.5
    """

    t: int = param(2, low=1, high=2**31 - 1, says="how many of the largest cells are averaged", tries=(1, 3, 5))

    card: ClassVar[Card] = Card(
        name="rank-avg",
        title="Rank-based average pooling (RAP)",
        equation="y = (1/min(t, n)) Σ_{rᵢ ≤ t} xᵢ",
        source="Z. Shi, Y. Ye, Y. Wu, Rank-based pooling for deep convolutional neural networks, Neural Networks 83 "
        "(2016) 21–31",
        family="rank",
        facts=(BETWEEN, ORDER_FREE, SHIFTS, SCALES, CONSTANT, MONOTONE),
        same=(("rank-avg:t=1", "max"), ("rank-avg:t={n}", "avg"), ("rank-avg:t=2", "avg-topk:k=2")),
        released="The equation is often quoted with rᵢ < t; the authors' code averages t values, and so does this. "
        "Their code has no single default for t (5 and 8 occur, the text advises the middle of the range): 2 "
        "of a 2×2 window is that middle.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        best = w.ranked(w.x)[: p.t]
        return w.xp.sum(best) / w.at_most(p.t)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        chosen = []
        for i, v in enumerate(w.x):
            rank = 1 + sum(u > v for u in w.x) + sum(u == v for u in w.x[:i])
            if rank <= p.t:
                chosen.append(v)
        return sum(chosen) / len(chosen)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        r = ranks(w.x)
        largest = kept(w.x, [rank <= p.t for rank in r])
        found = [Step("rᵢ", r), Step("xᵢ where rᵢ ≤ t, else 0", largest), Step("Σ_{rᵢ ≤ t} xᵢ", sum(largest))]
        count = min(p.t, w.n)
        return [*found, Step("min(t, n)", count), Step("y = (1/min(t, n)) Σ_{rᵢ ≤ t} xᵢ", sum(largest) / count)]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""

        def forward(w: Any) -> Any:
            return s.mean_of_largest(w, p.t(w))

        def gradient(w: Any, g: Any) -> None:
            s.give_to_largest(w, p.t(w), g)

        return forward, gradient
