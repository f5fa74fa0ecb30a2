"""Mixed pooling with a learned share (Lee 2016): one blend of maximum and mean for all windows."""

from __future__ import annotations

import dataclasses
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
    Fact,
    Learn,
    Param,
    Values,
    WindowMethod,
    param,
)
from poolkit.steps import Step, mean
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class Blend(WindowMethod):
    """A share of max pooling and the rest of average pooling, the share learned or fixed.

        y = a max xᵢ + (1 − a)(1/n) Σ xᵢ

    a = 0 is the mean, a = 1 the maximum. The share is learned from 1/2, for a layer or with `a=learn(channels=C)` for
    each channel; a number fixes it. As in the paper a learned share is free: beyond 1 it takes something of the mean
    away from the maximum. `constraint="sigmoid"` keeps it between 0 and 1. The gradient of the maximum goes to the
    first of equal cells.

    Example:
        >>> Blend(a=0.5).oracle(OneWindow.of([1, 4, 3, 2]), Blend(a=0.5).values())
        3.25
    """

    a: float = param(
        0.5,
        low=0.0,
        high=1.0,
        by_default=True,
        learns_freely=True,
        says="0: mean … 1: max",
        tries=(0.0, 1.0, 0.3),
    )
    constraint: str = param(
        "free",
        choices=("free", "sigmoid"),
        says="what a learned share may become: anything, or 0 to 1",
        tries=("sigmoid",),
    )

    card: ClassVar[Card] = Card(
        name="blend",
        title="Mixed max-average pooling (learned)",
        equation="y = a max xᵢ + (1 − a)(1/n) Σ xᵢ",
        source="C.-Y. Lee, P. W. Gallagher, Z. Tu, Generalizing pooling functions in convolutional neural networks: "
        "mixed, gated, and tree, AISTATS 2016, arXiv:1509.08985",
        family="max and mean",
        facts=(ORDER_FREE, SHIFTS, SCALES, CONSTANT),
        same=(("blend:a=0", "avg"), ("blend:a=1", "max"), ("blend", "mixed"), ("blend:a=0.5", "mixed")),
        released="Public code often carries the name of stochastic mixed pooling (Yu 2014), which draws max or mean at "
        "random. That the paper leaves a free was not verified in its text.",
    )

    @property
    def facts(self) -> tuple[Fact, ...]:
        """A share within 0 and 1 keeps more."""
        free = isinstance(self.a, Learn) and self.constraint == "free"
        return self.card.facts if free else (*self.card.facts, BETWEEN, MONOTONE)

    def declared(self, name: str) -> Param:
        """With the constraint, learning too keeps the range."""
        found = super().declared(name)
        return dataclasses.replace(found, learns_freely=False) if self.constraint == "sigmoid" else found

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        # A part with the share 0 must not even be multiplied: it may be infinite.
        if self.a == 1.0:
            return w.max(w.x)
        return w.mean(w.x) if self.a == 0.0 else p.a * w.max(w.x) + (1.0 - p.a) * w.mean(w.x)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        top, mean = max(w.x), math.fsum(w.x) / w.n
        return top if p.a == 1.0 else mean if p.a == 0.0 else p.a * top + (1.0 - p.a) * mean

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        top, middle = max(w.x), mean(w.x)
        found = [Step("max xᵢ", top), Step("(1/n) Σ xᵢ", middle), Step("a", p.a)]
        return [*found, Step("y = a max xᵢ + (1 − a)(1/n) Σ xᵢ", p.a * top + (1.0 - p.a) * middle)]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        learns = p.learns_a

        @s.inline
        def parts(w: Any) -> Any:
            """The maximum and the mean, read together."""
            top = s.cell(w, 0)
            total = s.wide(top)
            for j in range(1, s.count(w)):
                v = s.cell(w, j)
                top = s.where((v > top) | (v != v), v, top)
                total += s.wide(v)
            return top, s.real(total / s.count(w))

        def forward(w: Any) -> Any:
            a = p.a(w)
            top, mean = parts(w)
            return s.where(a == 1.0, top, s.where(a == 0.0, mean, a * top + (1.0 - a) * mean))

        def gradient(w: Any, g: Any) -> None:
            a = p.a(w)
            top, mean = parts(w)
            left, rest = a * g, (1.0 - a) * g / s.count(w)
            for j in range(s.count(w)):
                v = s.cell(w, j)
                here = (v == top) | (v != v)
                s.give(w, j, s.where(here, left, 0.0) + rest)
                left = s.where(here, 0.0, left)
            if learns:
                p.slope_a(w, g * (top - mean))

        return forward, gradient
