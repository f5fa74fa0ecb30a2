"""Genetically weighted pooling: a weighted mean whose weights are the genes of a search, not learned by gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, MONOTONE, SCALES, SHIFTS, Card, Values, WindowMethod, param
from poolkit.steps import Step, at_places, weighted_mean
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class GeneticWeights(WindowMethod):
    """The mean of the cells with a fixed weight for each place in the window.

        y = Σᵢ wᵢ xᵢ,   wᵢ = gᵢ / Σ gⱼ

    The genes g are positive numbers, one for each place, row-major; divided by their sum over the cells inside the
    picture they are a point of the simplex. No gradient reaches them: `poolkit evolve` searches them by selection,
    crossover and mutation, and what it finds is spelled out, `genetic-weights:weights=9-1-3-2` for a window of 2×2.
    Only their ratios count. Places after the last gene have the last one's weight, so that a list fits windows of all
    sizes, and the default, one gene, is the mean. No gene is 0: a window at the border could then have no weight.

    `spatial-weighted` is the same with weights that the network learns.

    Example:
        >>> GeneticWeights(weights=(1, 3)).oracle(OneWindow.of([8, 4]), GeneticWeights(weights=(1, 3)).values())
        5.0
    """

    weights: tuple[float, ...] = param(
        (1.0,),
        low=0.001,
        high=1000.0,
        says="the genes of the window's places, row-major; the last one is that of all places after it",
        tries=((4.0, 2.0, 1.0), (0.5, 9.0)),
    )

    card: ClassVar[Card] = Card(
        name="genetic-weights",
        title="Genetically weighted pooling",
        equation="y = Σ wᵢ xᵢ,  wᵢ = gᵢ / Σ gⱼ,  g > 0 found by a genetic search",
        source="the name from reviews without an equation: H. Gholamalinezhad, H. Khosravi, Pooling methods in deep "
        "neural networks, a review, 2020, arXiv:2009.07485 (genetic-based pooling); the method is of this project",
        family="weighted mean",
        facts=(BETWEEN, SHIFTS, SCALES, CONSTANT, MONOTONE),
        same=(("genetic-weights", "avg"), ("genetic-weights:weights=7-7", "avg")),
        limits=(("genetic-weights:weights=1000-0.001", "strided"),),
        released="No code and no equation of genetic-based pooling was found. The review of 2020 and one by A. Zafar "
        "et al. (Applied Sciences 12, 2022, 8643) name it; that it goes back to P. Bhattacharjee, S. Das (PReMI 2017) "
        "could not be confirmed from any text. Two publications fit the name, known here by abstract, and are other "
        "methods: a genetic algorithm for the share of mixed pooling (SIU 2024), and evolutionary quadtree pooling by "
        "Harn, Hui, Sun and Ku (GECCO 2025, pages 377 to 385), whose genes are partitions of the map. This one is in "
        "their spirit and reproduces none of them.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        genes = w.table(p.weights)
        return w.sum(genes / w.sum(genes) * w.x)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        genes = [p.weights[place] for place in w.at]
        return math.fsum(g * v for g, v in zip(genes, w.x, strict=True)) / math.fsum(genes)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        return weighted_mean(w.x, "gᵢ", at_places(p.weights, w))

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""

        @s.inline
        def gene(w: Any, j: Any) -> Any:
            """A weight; all are so large, at least 1, that no product underflows."""
            return 1024.0 * p.weights(w, s.index(w, j))

        @s.inline
        def weigh(w: Any, j: Any, _: Any, t: Any) -> Any:
            return t[0] + gene(w, j), s.fused(gene(w, j), s.cell(w, j), t[1])

        @s.inline
        def count(w: Any, j: Any, _: Any, t: Any) -> Any:
            return (t[0] + p.weights(w, s.index(w, j)),)

        @s.inline
        def weigh_divided(w: Any, j: Any, whole: Any, t: Any) -> Any:
            return (s.fused(gene(w, j) / whole, s.cell(w, j), t[0]),)

        both, whole, careful = s.sums(weigh, 2), s.sums(count, 1), s.sums(weigh_divided, 1)

        def forward(w: Any) -> Any:
            total, moment = both(w, 0)
            y = s.real(moment / total)
            if s.every(s.abs(y) < math.inf):
                return y
            # The sum may lie beyond the largest number: divided before they are added.
            return s.where(s.abs(y) < math.inf, y, s.real(careful(w, s.real(total))[0]))

        def gradient(w: Any, g: Any) -> None:
            share = g / s.real(whole(w, 0)[0])
            for j in range(s.count(w)):
                s.give(w, j, share * p.weights(w, s.index(w, j)))

        return forward, gradient
