"""Rank-based weighted pooling (RWP): cells weighted by their rank, each rank a fixed share less than the one before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import MONOTONE, ORDER_FREE, SCALES, Card, Values, WindowMethod, param
from poolkit.steps import Step, products, ranks
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class RankWeighted(WindowMethod):
    """The sum of the cells with weights that fall geometrically with their rank.

        y = Σ p_{rᵢ} xᵢ,   p_r = α (1 − α)^(r−1),   rᵢ = 1 + #{j: xⱼ > xᵢ} + #{j before i: xⱼ = xᵢ}

    α = 1 is the maximum. As in the paper, the weights of n cells do not sum to 1 but to 1 − (1 − α)ⁿ: with α = 1/2 a
    2×2 window of ones gives 0.9375. `normalize=True` divides by that sum and makes it a mean, which for α → 0 is the
    plain one. The gradient of a cell is its weight; among equals the earlier ones have the better rank.

    Example:
        >>> RankWeighted().oracle(OneWindow.of([1, 4, 3, 2]), RankWeighted().values())
        3.0625
    """

    alpha: float = param(
        0.5, low=1e-6, high=1.0, says="share of the weight left that each rank takes; 1: max", tries=(1.0, 0.25)
    )
    normalize: bool = param(False, says="whether the weights are divided by their sum", tries=(True,))

    card: ClassVar[Card] = Card(
        name="rank-weighted",
        title="Rank-based weighted pooling (RWP)",
        equation="y = Σ p_{rᵢ} xᵢ,  p_r = α (1 − α)^(r−1)",
        source="Z. Shi, Y. Ye, Y. Wu, Rank-based pooling for deep convolutional neural networks, Neural Networks 83 "
        "(2016) 21–31 (α = 0.5)",
        family="rank",
        facts=(ORDER_FREE, SCALES, MONOTONE),
        same=(("rank-weighted:alpha=1", "max"),),
        limits=(("rank-weighted:alpha=1e-6,normalize=true", "avg"),),
        released="The authors' code does not normalise the weights either. The equation stands here as that code has "
        "it; the paper's own text was not at hand.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        xp = w.xp
        powers = xp.power(0.0 * w.rank + (1.0 - p.alpha), w.rank)
        share = 1.0 / xp.sum(xp.where(w.rank < w.n, powers, 0.0)) if p.normalize else p.alpha
        # A rank without weight must not even multiply 0: its cell may be infinite.
        return xp.sum(xp.where(powers > 0, share * powers * w.ranked(w.x), 0.0))

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        weights = []
        for i, v in enumerate(w.x):
            before = sum(u > v for u in w.x) + sum(u == v for u in w.x[:i])
            weights.append(p.alpha * (1.0 - p.alpha) ** before)
        whole = math.fsum(weights) if p.normalize else 1.0
        return math.fsum(a / whole * v for a, v in zip(weights, w.x, strict=True) if a > 0)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        r, name = ranks(w.x), "p_{rᵢ}"
        weights = [p.alpha * (1.0 - p.alpha) ** (rank - 1) for rank in r]
        found = [Step("rᵢ", r), Step("p_{rᵢ} = α (1 − α)^(rᵢ−1)", weights)]
        if p.normalize:
            whole, name = math.fsum(weights), "p_{rᵢ} / Σ p_{rⱼ}"
            weights = [v / whole for v in weights]
            found += [Step("Σ p_{rⱼ}", whole), Step(name, weights)]
        terms = products(weights, w.x)
        return [*found, Step(f"{name} xᵢ", terms), Step(f"y = Σ {name} xᵢ", math.fsum(terms))]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        share_of = _share(s, p, self.normalize)

        def forward(w: Any) -> Any:
            rest = 1.0 - p.alpha(w)
            ranks, most = s.ranks_that_count(w, rest)
            _, least, lost = s.sort_largest(w, most)
            y = s.wide(s.where((least == -math.inf) & (ranks < s.count(w)), least, 0.0))
            for r in range(most - 1, -1, -1):
                # From the least weight on, so that roundings shrink; a weight of 0 must not even multiply infinity.
                more = s.where(s.wide(rest) > 0.0, s.wide(rest) * y, 0.0) + s.wide(s.noted(w, r))
                y = s.where(ranks > r, more, y)
            return share_of(w, rest) * s.real(y) + lost

        def gradient(w: Any, g: Any) -> None:
            n, rest = s.count(w), 1.0 - p.alpha(w)
            ranks, most = s.ranks_that_count(w, rest)
            e = g * share_of(w, rest)
            for r in range(most):
                # The others get 0: their weights, less than eps/4 of the first one's, are far below what the largest
                # gradient's last place can show.
                s.note(w, 2 * n + r, s.where(ranks > r, e, 0.0))
                e = e * rest
            if most < n:
                s.give_to_noted(w, most, s.sort_largest(w, most + 1)[0])
            else:
                s.give_by_rank(w)

        return forward, gradient


def _share(s: Any, p: Any, normalize: bool) -> Any:
    """What the powers are multiplied with, as a word: α, or one over their sum."""

    @s.inline
    def share(w: Any, rest: Any) -> Any:
        if not normalize:
            return p.alpha(w)
        total, e = s.wide(1.0), s.real(1.0)
        for _ in range(1, s.count(w)):
            e = e * rest
            total += s.wide(e)
        return s.real(s.wide(1.0) / total)

    return share
