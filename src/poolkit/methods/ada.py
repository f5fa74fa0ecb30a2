"""Adaptive exponential pooling (AdaPool): a blend of exponential Dice-Sørensen pooling and soft pooling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, ORDER_FREE, Card, Values, WindowMethod, param
from poolkit.methods.edscw import EDSCW, likeness, likeness_words, weighted_by_likeness
from poolkit.steps import Step, weighted_mean
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class Ada(WindowMethod):
    """A share of eDSCW, which is drawn to the mean, and the rest of soft pooling, which is drawn to the maximum.

        y = β Σ vᵢ xᵢ + (1 − β) Σ wᵢ xᵢ,   vᵢ = exp(dᵢ) / Σ exp(dⱼ),   wᵢ = exp(xᵢ) / Σ exp(xⱼ)
        dᵢ = 2 |xᵢ m| / (xᵢ² + m²), 1 where both are 0,   m = (1/n) Σ xᵢ

    β = 0 is `soft`, β = 1 is `edscw`. The share is learned from 1/2 and stays between 0 and 1, for a layer or with
    `beta=learn(channels=C)` for each channel; a number fixes it. The paper has one β for each place of the output,
    which ties the layer to one picture size. The gradient is exact, through all weights. A window that holds ±∞ gives
    NaN.

    Example:
        >>> round(Ada(beta=0.5).oracle(OneWindow.of([1, 4, 3, 2]), Ada(beta=0.5).values()), 4)
        3.0325
    """

    beta: float = param(0.5, low=0.0, high=1.0, by_default=True, says="0: soft … 1: edscw", tries=(0.0, 1.0, 0.3))

    card: ClassVar[Card] = Card(
        name="ada",
        title="Adaptive exponential pooling (AdaPool)",
        equation="y = β Σ vᵢ xᵢ + (1 − β) Σ wᵢ xᵢ,  vᵢ ∝ exp(2 |xᵢ m| / (xᵢ² + m²)), wᵢ ∝ exp(xᵢ), m the mean",
        source="A. Stergiou, R. Poppe, AdaPool: exponential adaptive pooling for information-retaining downsampling, "
        "IEEE Transactions on Image Processing 32 (2023) 251–266, arXiv:2111.00772",
        family="weighted mean",
        facts=(BETWEEN, ORDER_FREE, CONSTANT),
        same=(("ada:beta=0", "soft"), ("ada:beta=1", "edscw")),
        released="The released layer starts half of its β at 0, and the line that should clip them drops its result, "
        "so β leaves [0, 1]. Its backward pass treats the weights as constants and it runs on CUDA alone. Here β stays "
        "within 0 and 1 and starts at 1/2.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        xp, top = w.xp, w.xp.stop(w.max(w.x))
        alike = w.only(xp.exp(likeness(w) - 1.0), 0.0)
        large = w.only(xp.exp(w.only(w.x, top) - top), 0.0)
        drawn = xp.divide(w.sum(alike * w.x), w.sum(alike)), xp.divide(w.sum(large * w.x), w.sum(large))
        return p.beta * drawn[0] + (1.0 - p.beta) * drawn[1]

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        top = max(w.x)
        weights = [math.exp(v - top) for v in w.x]
        soft = math.fsum(a * v for a, v in zip(weights, w.x, strict=True)) / math.fsum(weights)
        return p.beta * weighted_by_likeness(w.x) + (1.0 - p.beta) * soft

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        first, d = EDSCW.likeness_steps(w.x)
        near = weighted_mean(w.x, "exp(dᵢ)", [math.exp(v) for v in d], "vᵢ", "")
        large = weighted_mean(w.x, "exp(xᵢ)", [math.exp(v) for v in w.x], "wᵢ", "")
        y = p.beta * near[-1].number + (1.0 - p.beta) * large[-1].number
        return [*first, *near, *large, Step("β", p.beta), Step("y = β Σ vᵢ xᵢ + (1 − β) Σ wᵢ xᵢ", y)]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        from poolkit.kernels.softmax import exponentials

        learns, (alike, slopes), part = p.learns_beta, likeness_words(s), s.part
        good_of, _, term = exponentials(s, s.inline(lambda w: s.real(1.0)))

        @s.inline
        def add(w: Any, j: Any, about: Any, t: Any) -> Any:
            x, (m, middle, top, good, keep) = s.cell(w, j), about
            below = s.where(x - top < s.least, s.least, x - top)
            a, b = s.exp_less_one(alike(x, m)), term(w, j, good, below)
            if keep:
                s.note(w, j, a)
                s.note(w, s.count(w) + j, b)
            return t[0] + a, s.fused(a, part * x - middle, t[1]), t[2] + b, s.fused(b, below, t[3])

        both = s.sums(add, 4)

        @s.inline
        def sums(w: Any, keep: bool) -> Any:
            """The mean; 1/Σ of either kind of weight and the mean they make; `keep` notes both, the first kind less 1.

            The means are stated by differences to m (see `edscw`) and to the maximum, which round less than cells do.
            """
            m, top, one = s.mean(w), s.largest(w), s.wide(1.0)
            middle, good = s.real(0.0) if s.long else part * m, good_of(w, top)
            more, moment, soft_total, soft_moment = both(w, (m, middle, top, good, keep))
            if s.long:
                moment -= more * (s.wide(m) * part)
            total = more + s.count(w)
            near, soft = (part * m + s.real(moment / total)) / part, top + s.real(soft_moment / soft_total)
            return m, s.real(one / total), near, s.real(one / soft_total), soft

        @s.inline
        def add_slopes(w: Any, j: Any, about: Any, t: Any) -> Any:
            (m, share, near, soft_share, soft, beta), x = about, s.cell(w, j)
            weight, b = (s.noted(w, j) + 1.0) * share, s.noted(w, s.count(w) + j) * soft_share
            by_cell, by_mean = slopes(x, m, weight * (x - near))
            s.note(w, j, beta * (weight + by_cell) + (1.0 - beta) * b * (x - soft + 1.0))
            return (t[0] + by_mean,)

        slope_of_mean = s.sums(add_slopes, 1)

        def forward(w: Any) -> Any:
            _, _, near, _, soft = sums(w, False)
            return 2.0 * (0.5 * soft + p.beta(w) * (0.5 * near - 0.5 * soft))

        def gradient(w: Any, g: Any) -> None:
            m, share, near, soft_share, soft = sums(w, True)
            by_mean = slope_of_mean(w, (m, share, near, soft_share, soft, p.beta(w)))[0]
            rest = p.beta(w) * s.real(by_mean / s.count(w))
            for j in range(s.count(w)):
                s.give(w, j, g * (s.noted(w, j) + rest))
            if learns:
                p.slope_beta(w, g * (near - soft))

        return forward, gradient
