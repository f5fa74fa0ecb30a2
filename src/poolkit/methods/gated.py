"""Gated max-average pooling (Lee 2016): each window decides for itself between its maximum and its mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, Card, Learn, Values, WindowMethod, param
from poolkit.steps import Step, at_places, mean, products
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class Gated(WindowMethod):
    """Maximum and mean, in a proportion that a learned filter reads off the window itself.

        y = σ(ω·x) max xᵢ + (1 − σ(ω·x)) (1/n) Σ xᵢ,   σ(z) = 1 / (1 + exp(−z)),  ω·x = Σ ωᵢ xᵢ

    The gate ω is learned, one number for each place in the window, row-major, for the layer or with
    `learn(channels=C)` for each channel; there is no bias. It starts at 0, which is half maximum and half mean. A cell
    outside the picture adds nothing to ω·x. The gradient of the maximum goes to the first of equal cells.

    Example:
        >>> Gated().oracle(OneWindow.of([1, 4, 3, 2]), Gated().values())
        3.25
    """

    omega: Learn = param(0.0, table="cell", says="the gate: weights of the cells, row-major")

    card: ClassVar[Card] = Card(
        name="gated",
        title="Gated max-average pooling",
        equation="y = σ(ω·x) max xᵢ + (1 − σ(ω·x)) (1/n) Σ xᵢ",
        source="C.-Y. Lee, P. W. Gallagher, Z. Tu, Generalizing pooling functions in convolutional neural networks: "
        "mixed, gated, and tree, AISTATS 2016, arXiv:1509.08985",
        family="max and mean",
        facts=(BETWEEN, CONSTANT),
        same=(("gated", "blend:a=0.5"), ("gated", "mixed")),
        released="The authors' code starts ω from a normal distribution of deviation 0.1 and rounds output sizes up. A "
        "port in a benchmark makes new random weights in every forward pass, so that nothing is learned. Only the code "
        "was verified, not the paper's text.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        gate = w.xp.sigmoid(w.sum(w.table(p.omega) * w.x))
        return gate * w.max(w.x) + (1.0 - gate) * w.mean(w.x)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        z = math.fsum(p.omega[place] * v for place, v in zip(w.at, w.x, strict=True))
        small = math.exp(-abs(z))
        gate = (1.0 if z >= 0 else small) / (1.0 + small)
        return gate * max(w.x) + (1.0 - gate) * (math.fsum(w.x) / w.n)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        omega = at_places(p.omega, w)
        z, top, middle = math.fsum(products(omega, w.x)), max(w.x), mean(w.x)
        gate = 1.0 / (1.0 + math.exp(-z))
        return [
            Step("ωᵢ", omega),
            Step("ωᵢ xᵢ", products(omega, w.x)),
            Step("ω·x = Σ ωᵢ xᵢ", z),
            Step("σ(ω·x) = 1 / (1 + exp(−ω·x))", gate),
            Step("max xᵢ", top),
            Step("(1/n) Σ xᵢ", middle),
            Step("y = σ(ω·x) max xᵢ + (1 − σ(ω·x)) (1/n) Σ xᵢ", gate * top + (1.0 - gate) * middle),
        ]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""

        @s.inline
        def parts(w: Any) -> Any:
            """The gate, the largest cell and the mean."""
            z = s.wide(0.0)
            for j in range(s.count(w)):
                z = s.plus(z, p.omega(w, s.index(w, j)), s.cell(w, j))
            return s.sigmoid(s.real(z)), s.largest(w), s.real(s.total(w) / s.count(w))

        def forward(w: Any) -> Any:
            gate, top, mean = parts(w)
            return gate * top + (1.0 - gate) * mean

        def gradient(w: Any, g: Any) -> None:
            gate, top, mean = parts(w)
            turn, rest, left = g * (top - mean) * gate * (1.0 - gate), g * (1.0 - gate) / s.count(w), g * gate
            for j in range(s.count(w)):
                x, place = s.cell(w, j), s.index(w, j)
                here = (x == top) | (x != x)
                s.give(w, j, turn * p.omega(w, place) + rest + s.where(here, left, 0.0))
                left = s.where(here, 0.0, left)
                p.slope_omega(w, place, turn * x)

        return forward, gradient
