"""Rank-based stochastic pooling (RSP): one cell, drawn by its rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, MONOTONE, ORDER_FREE, SCALES, SHIFTS, Card, Values, WindowMethod, param
from poolkit.xp import Cells, OneWindow


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

    kernel_reach: ClassVar[int] = 512  # it compares each cell with each other one
    card: ClassVar[Card] = Card(
        name="rank-stochastic",
        title="Rank-based stochastic pooling (RSP)",
        equation="y = x_l,  l ~ p_{r_l}, p_r = α (1 − α)^(r−1);  evaluation: y = Σ p_{rᵢ} xᵢ",
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

    def kernel(self, s: Any, p: Any) -> Any:
        """One window in evaluation for the CPU engine, and its gradient."""

        @s.inline
        def weight(w: Any, j: Any) -> Any:
            """The probability of cell j: a factor 1 − α for each cell of a better rank, and α but for the last."""
            v, e, before = s.cell(w, j), s.real(1.0), s.real(0.0)
            rest = 1.0 - p.alpha(w)
            for i in range(s.count(w)):
                x = s.cell(w, i)
                better = x >= v if i < j else x > v
                e = s.where(better, e * rest, e)
                before += s.where(better, s.real(1.0), 0.0)
            return s.where(before >= s.count(w) - 1, e, p.alpha(w) * e)

        def forward(w: Any) -> Any:
            y = s.wide(0.0)
            for j in range(s.count(w)):
                e = weight(w, j)
                y += s.wide(s.where(e > 0.0, e * s.cell(w, j), 0.0))
            return y

        def gradient(w: Any, g: Any) -> None:
            for j in range(s.count(w)):
                s.give(w, j, g * weight(w, j))

        return forward, gradient

    def sample_kernel(self, s: Any, p: Any) -> Any:
        """The same in training."""

        @s.inline
        def drawn(w: Any) -> Any:
            """How many ranks the draw passes, before the last one."""
            left, passed = s.real(1.0), s.real(0.0)
            for _ in range(1, s.count(w)):
                left = left * (1.0 - p.alpha(w))
                passed += s.where(1.0 - left <= s.draw(w), s.real(1.0), 0.0)
            return passed

        @s.inline
        def before(w: Any, j: Any) -> Any:
            """How many cells have a better rank than cell j."""
            v, better = s.cell(w, j), s.real(0.0)
            for i in range(s.count(w)):
                x = s.cell(w, i)
                better += s.where(x >= v if i < j else x > v, s.real(1.0), 0.0)
            return better

        def forward(w: Any) -> Any:
            rank, y = drawn(w), s.cell(w, 0)
            for j in range(s.count(w)):
                v = s.cell(w, j)
                y = s.where((before(w, j) == rank) & (y == y) | (v != v), v, y)
            return y

        def gradient(w: Any, g: Any) -> None:
            rank = drawn(w)
            for j in range(s.count(w)):
                s.give(w, j, s.where(before(w, j) == rank, g, 0.0))

        return forward, gradient
