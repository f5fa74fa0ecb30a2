"""Rank-based stochastic pooling (RSP): one cell, drawn by its rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, MONOTONE, ORDER_FREE, SCALES, SHIFTS, Card, Values, WindowMethod, param
from poolkit.steps import Step, of_rank, products, ranks
from poolkit.xp import Cells, OneWindow

SHARE = "p_{rᵢ} = α (1 − α)^(rᵢ−1), p_n = (1 − α)^(n−1)"  # what the steps call it


@dataclass(frozen=True)
class RankStochastic(WindowMethod):
    """One cell of the window, drawn with a probability that falls geometrically with its rank.

        training: y = x_l,   l drawn with probability p_{r_l},   p_r = α (1 − α)^(r−1),   p_n = (1 − α)^(n−1)
        evaluation: y = Σ p_{rᵢ} xᵢ, the expectation

    α = 1 is the maximum. The last rank takes what the others leave, so that the probabilities of n cells sum to 1. Only
    ranks count: negative cells and windows of zeros are nothing special. In training the gradient goes to the drawn
    cell alone; among equals the earlier ones have the better rank. A NaN in the window gives NaN, drawn or not.

    Example:
        >>> RankStochastic().oracle(OneWindow.of([1, 4, 3, 2]), RankStochastic().values())
        3.125
    """

    alpha: float = param(0.5, low=1e-6, high=1.0, says="probability of the largest cell; 1: max", tries=(0.9, 0.3))

    card: ClassVar[Card] = Card(
        name="rank-stochastic",
        title="Rank-based stochastic pooling (RSP)",
        equation="y = x_l,  l ~ p_{r_l}, p_r = α (1 − α)^(r−1), p_n = (1 − α)^(n−1);  evaluation: y = Σ p_{rᵢ} xᵢ",
        source="Z. Shi, Y. Ye, Y. Wu, Rank-based pooling for deep convolutional neural networks, Neural Networks 83 "
        "(2016) 21–31 (α = 0.5)",
        family="random",
        facts=(BETWEEN, ORDER_FREE, SHIFTS, SCALES, CONSTANT, MONOTONE),
        same=(("rank-stochastic:alpha=1", "max"),),
        released="The probabilities α (1 − α)^(r−1) of n cells leave (1 − α)ⁿ, 6 % of a 2×2 window: there the authors' "
        "code writes no output at all. Its evaluation is rank-based weighted pooling, whose weights leave the same "
        "share out; the expectation stands here.",
    )

    @property
    def draws(self) -> str:
        """One number for each window."""
        return "region"

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula in evaluation."""
        xp = w.xp
        powers = xp.power(0.0 * w.rank + (1.0 - p.alpha), w.rank)
        weights = xp.where(w.rank == w.n - 1, powers, p.alpha * powers)
        # A rank without weight must not even multiply 0: its cell may be infinite.
        return xp.sum(xp.where(weights > 0, weights * w.ranked(w.x), 0.0))

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form in evaluation."""
        left, terms = 1.0, []
        for v in sorted(w.x, reverse=True)[:-1]:
            terms.append(p.alpha * left * v)
            left -= p.alpha * left
        return math.fsum(terms) + (left * min(w.x) if left > 0 else 0.0)

    def sample(self, w: Cells, p: Values, u: Any) -> Any:
        """The array formula in training."""
        xp, ordered = w.xp, w.ranked(w.x)
        passed = 1.0 - xp.power(0.0 * w.rank + (1.0 - p.alpha), w.rank) <= u
        drawn = xp.sum(xp.where(passed & (w.rank >= 1) & (w.rank < w.n), 1.0, 0.0))
        return xp.where(ordered[0] != ordered[0], math.nan, xp.pick(ordered, drawn))

    def oracle_sample(self, w: OneWindow, p: Values, u: float) -> float:
        """The scalar form in training."""
        left, ordered = 1.0, sorted(w.x, reverse=True)
        for v in ordered[:-1]:
            left -= p.alpha * left
            if u < 1.0 - left:
                return v
        return ordered[-1]

    def _shares(self, p: Values, n: int) -> list[float]:
        """The probabilities of the ranks; the last one takes what the others leave."""
        return [(p.alpha if before < n - 1 else 1.0) * (1.0 - p.alpha) ** before for before in range(n)]

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        r, by_rank = ranks(w.x), self._shares(p, w.n)
        shares = [by_rank[rank - 1] for rank in r]
        found, terms = [Step("rᵢ", r), Step(SHARE, shares)], products(shares, w.x)
        return [*found, Step("p_{rᵢ} xᵢ", terms), Step("y = Σ p_{rᵢ} xᵢ, the expectation", math.fsum(terms))]

    def worked_sample(self, w: OneWindow, p: Values, u: float) -> list[Step]:
        """The same in training: the first rank at which the running sum of the probabilities passes u."""
        r, by_rank, left, runs = ranks(w.x), self._shares(p, w.n), 1.0, []
        for _ in r:
            left -= p.alpha * left
            runs.append(1.0 - left)  # as the scalar form has them: a draw may equal one
        runs[-1] = 1.0
        drawn = next(rank for rank, run in enumerate(runs, 1) if run > u)
        found = [Step("rᵢ", r), Step(SHARE, [by_rank[rank - 1] for rank in r])]
        found += [Step("p₁ + … + p_{rᵢ}", [runs[rank - 1] for rank in r]), Step("u", u)]
        return [*found, Step("r_l, the first r with p₁ + … + pᵣ > u", drawn), Step("y = x_l", of_rank(drawn, w.x))]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window in evaluation for the CPU engine, and its gradient."""

        def forward(w: Any) -> Any:
            n, rest = s.count(w), 1.0 - p.alpha(w)
            ranks, most = s.ranks_that_count(w, rest)
            _, least, lost = s.sort_largest(w, most)
            y = s.wide(s.where((least == -math.inf) | (ranks == n), least, 0.0))
            for r in range(min(most, n - 1) - 1, -1, -1):
                # From the least weight on, so that roundings shrink; a weight of 0 must not even multiply infinity.
                more = s.where(s.wide(rest) > 0.0, s.wide(rest) * y, 0.0)
                y = s.where(ranks > r, more + s.wide(p.alpha(w)) * s.wide(s.noted(w, r)), y)
            return s.real(y) + lost

        def gradient(w: Any, g: Any) -> None:
            n, left = s.count(w), g
            ranks, most = s.ranks_that_count(w, 1.0 - p.alpha(w))
            for r in range(most):
                # Ranks that do not count get 0: less than what the largest gradient's last place can show.
                s.note(w, 2 * n + r, s.where(ranks > r, left if r == n - 1 else p.alpha(w) * left, 0.0))
                left = left * (1.0 - p.alpha(w))
            if most < n:
                s.give_to_noted(w, most, s.sort_largest(w, most + 1)[0])
            else:
                s.give_by_rank(w)

        return forward, gradient

    def sample_kernel(self, s: Any, p: Any) -> Any:
        """The same in training."""

        @s.inline
        def drawn(w: Any) -> Any:
            """How many ranks the draw passes, before the last one; the cell there, how many are larger, NaN or 0."""
            left, passed, most, draw = s.real(1.0), s.real(0.0), 0, s.draw(w)
            for r in range(1, s.count(w)):
                left = left * (1.0 - p.alpha(w))
                if s.count(w) > 32 and s.every(1.0 - left > draw):
                    break
                passed += s.where(1.0 - left <= draw, s.real(1.0), 0.0)
                most = r
            return passed, s.at_rank(w, passed, most)

        def forward(w: Any) -> Any:
            y, _, lost = drawn(w)[1]
            return y + lost

        def gradient(w: Any, g: Any) -> None:
            passed, (y, larger, _) = drawn(w)
            rest = passed - larger
            for j in range(s.count(w)):
                equal = s.cell(w, j) == y
                s.give(w, j, s.where(equal & (rest == 0.0), g, 0.0))
                rest = s.where(equal, rest - 1.0, rest)

        return forward, gradient
