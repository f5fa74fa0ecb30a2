"""Ordinal pooling: a weighted mean in which each rank has a learned weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import (
    BETWEEN,
    CONSTANT,
    MONOTONE,
    ORDER_FREE,
    SCALES,
    SHIFTS,
    Card,
    Learn,
    Values,
    WindowMethod,
    param,
)
from poolkit.steps import Step, ranks, weighted_mean
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class Ordinal(WindowMethod):
    """The mean of the cells with a learned weight for each rank.

        y = Σᵣ wᵣ x₍ᵣ₎,   wᵣ = exp(lᵣ) / Σ exp(lₛ)

    x₍₁₎ ≥ x₍₂₎ ≥ … are the sorted cells and the logits l are learned, one for each rank, for the layer or with
    `learn(channels=C)` for each channel. `init` sets where they start: `avg` with equal weights, `max` with a weight of
    the first rank e⁶ times that of any other, `halves` with half the weight from rank to rank. In a window with n cells
    inside the picture the first n logits share the weight. Among equal cells the first has the first rank.

    The paper learns the weights themselves, and after each step sets negative ones to 0 and divides by the sum; the
    softmax keeps them positive and of sum 1 in any optimiser.

    Example:
        >>> round(Ordinal(init="halves").oracle(OneWindow.of([1, 4, 3, 2]), Ordinal(init="halves").values()), 4)
        3.2667
    """

    logits: Learn = param(0.0, table="rank", says="logits of the weights, the first for the largest cell")
    init: str = param("avg", choices=("avg", "max", "halves"), says="where the logits start", tries=("max", "halves"))

    card: ClassVar[Card] = Card(
        name="ordinal",
        title="Ordinal pooling",
        equation="y = Σᵣ wᵣ x₍ᵣ₎,  w = softmax(l), l learned for each rank",
        source="A. Deliège, M. Istasse, A. Kumar, C. De Vleeschouwer, M. Van Droogenbroeck, Ordinal pooling, BMVC "
        "2019, arXiv:2109.01561; A. Kumar, Ordinal pooling networks, 2018, arXiv:1804.02702",
        family="rank",
        facts=(BETWEEN, ORDER_FREE, SHIFTS, SCALES, CONSTANT, MONOTONE),
        same=(("ordinal", "avg"), ("ordinal:init=halves", "rank-weighted:normalize=true")),
        released="Released code clips and divides the weights after each step and again in each forward pass, which is "
        "0/0 if all of them are negative; it starts them at random and takes only grids that divide the picture. The "
        "code of 2018 leaves the weights unconstrained and starts those of 2×2 windows at 0.6, 0.25, 0.1, 0.05. The "
        "papers' texts were not verified, only their abstracts and code.",
    )

    def table_start(self, name: str, row: int, cell: int) -> float:
        """The logit of a rank before training."""
        if self.init == "max":
            return 6.0 if cell == 0 else 0.0
        return -cell * math.log(2.0) if self.init == "halves" else 0.0

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        ranked = w.by_rank
        return ranked.sum(ranked.softmax(w.table(p.logits)) * ranked.x)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        logits = [p.logits[rank] for rank in range(w.n)]
        weights = [math.exp(v - max(logits)) for v in logits]
        # NaN comes first, so that it takes part in every sum.
        ordered = sorted(w.x, key=lambda v: (not math.isnan(v), -v))
        return math.fsum(a * v for a, v in zip(weights, ordered, strict=True)) / math.fsum(weights)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        r = ranks(w.x)
        logits = [p.logits[rank - 1] for rank in r]
        e = [math.exp(v) for v in logits]
        return [Step("rᵢ", r), Step("l_{rᵢ}", logits), *weighted_mean(w.x, "exp(l_{rᵢ})", e, "w_{rᵢ}")]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""

        @s.inline
        def weighted(w: Any) -> Any:
            """Σ exp(a − max a) and y; the cells are noted in order, and each rank's term after them."""
            n, top = s.count(w), p.logits(w, 0)
            for r in range(1, n):
                top = s.where(p.logits(w, r) > top, p.logits(w, r), top)
            s.sort(w)
            total, y = s.wide(0.0), s.wide(0.0)
            for r in range(n):
                e = s.falling_exp(p.logits(w, r) - top)
                s.note(w, 2 * n + r, e)
                total += s.wide(e)
                y = s.plus(y, e, s.noted(w, r))
            return s.real(total), s.real(y / total) + s.lost(w)

        def forward(w: Any) -> Any:
            return weighted(w)[1]

        def gradient(w: Any, g: Any) -> None:
            n, (total, y) = s.count(w), weighted(w)
            share = g / total
            for r in range(n):
                part = share * s.noted(w, 2 * n + r)
                s.note(w, 2 * n + r, part)
                p.slope_logits(w, r, part * (s.noted(w, r) - y))
            s.give_by_rank(w)

        return forward, gradient
