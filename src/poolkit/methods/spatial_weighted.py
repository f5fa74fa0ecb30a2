"""Spatially weighted pooling: a weighted mean in which each place in the window has a learned weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, MONOTONE, SCALES, SHIFTS, Card, Learn, Values, WindowMethod, param
from poolkit.steps import Step, at_places, weighted_mean
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class SpatialWeighted(WindowMethod):
    """The mean of the cells with a learned weight for each place in the window.

        y = Σᵢ wᵢ xᵢ,   wᵢ = exp(lᵢ) / Σ exp(lⱼ)

    The logits l are learned, one for each place, row-major, for the layer or with `learn(channels=C)` for each channel.
    They start at 0, which is the mean. Where cells are outside the picture, the softmax runs over the cells inside. The
    method is a strided convolution of each channel with itself alone, whose weights are positive and sum to 1.

    Example:
        >>> SpatialWeighted().oracle(OneWindow.of([1, 4, 3, 2]), SpatialWeighted().values(logits=[0, 0, -9e9, -9e9]))
        2.5
    """

    logits: Learn = param(0.0, table="cell", says="logits of the weights, row-major")

    card: ClassVar[Card] = Card(
        name="spatial-weighted",
        title="Spatially weighted pooling",
        equation="y = Σ wᵢ xᵢ,  w = softmax(l), l learned for each place in the window",
        source="common practice without one canonical source: reviews such as H. Gholamalinezhad, H. Khosravi, Pooling "
        "methods in deep neural networks, a review, 2020, arXiv:2009.07485, list weighted pooling without one equation",
        family="weighted mean",
        facts=(BETWEEN, SHIFTS, SCALES, CONSTANT, MONOTONE),
        same=(("spatial-weighted", "avg"),),
        released="At least five different methods are called weighted pooling. This one learns a weight for each place "
        "and never looks at the values.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        return w.sum(w.softmax(w.table(p.logits)) * w.x)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        logits = [p.logits[place] for place in w.at]
        weights = [math.exp(v - max(logits)) for v in logits]
        return math.fsum(a * v for a, v in zip(weights, w.x, strict=True)) / math.fsum(weights)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        logits = at_places(p.logits, w)
        return [Step("lᵢ", logits), *weighted_mean(w.x, "exp(lᵢ)", [math.exp(v) for v in logits])]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""

        @s.inline
        def weighted(w: Any, keep: bool) -> Any:
            """Σ exp(aᵢ − max a) and the same weighted with xᵢ; `keep` notes each term."""
            top = p.logits(w, s.index(w, 0))
            for j in range(1, s.count(w)):
                z = p.logits(w, s.index(w, j))
                top = s.where(z > top, z, top)
            total, moment = s.wide(0.0), s.wide(0.0)
            for j in range(s.count(w)):
                e = s.falling_exp(p.logits(w, s.index(w, j)) - top)
                total += s.wide(e)
                moment = s.plus(moment, e, s.cell(w, j))
                if keep:
                    s.note(w, j, e)
            return total, moment

        def forward(w: Any) -> Any:
            total, moment = weighted(w, False)
            return moment / total

        def gradient(w: Any, g: Any) -> None:
            total, moment = weighted(w, True)
            y, share = s.real(moment / total), g / s.real(total)
            for j in range(s.count(w)):
                part = share * s.noted(w, j)
                s.give(w, j, part)
                p.slope_logits(w, s.index(w, j), part * (s.cell(w, j) - y))

        return forward, gradient
