"""Stochastic pooling (Zeiler 2013): one cell, drawn in proportion to its value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from types import ModuleType
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, ORDER_FREE, SCALES, SHIFTS, Card, Fact, Values, WindowMethod, param
from poolkit.methods.soft import Soft
from poolkit.methods.value_weighted import weighted_by_size
from poolkit.steps import Step, products, weighted_mean
from poolkit.xp import Cells, OneWindow

SMALL = 2.0**-5  # rounds nothing, and no sum of up to 32 activations overflows; longer ones run in float64


@dataclass(frozen=True)
class Stochastic(WindowMethod):
    """One cell of the window, drawn with probability proportional to its value.

        training: y = x_l,   l drawn with probability pᵢ = aᵢ / Σ aⱼ,   aᵢ = max(xᵢ, 0)
        evaluation: y = Σ pᵢ aᵢ = Σ aᵢ² / Σ aᵢ, the expectation

    Made for activations after a ReLU: a negative cell is never drawn, and a window without a positive cell gives 0. In
    training the gradient goes to the drawn cell alone, the probabilities are constants, as in the paper.

    `weights="exp"` draws with the probabilities exp(xᵢ) / Σ exp(xⱼ), for cells of any sign; evaluation, the
    expectation, is then soft pooling.

    Example:
        >>> Stochastic().oracle(OneWindow.of([1, 4, 3, 2]), Stochastic().values())
        3.0
    """

    weights: str = param(
        "value", choices=("value", "exp"), says="what the probabilities are proportional to", tries=("exp",)
    )

    card: ClassVar[Card] = Card(
        name="stochastic",
        title="Stochastic pooling",
        equation="y = x_l,  l ~ pᵢ = aᵢ / Σ aⱼ, aᵢ = max(xᵢ, 0);  evaluation: y = Σ pᵢ aᵢ",
        source="M. D. Zeiler, R. Fergus, Stochastic pooling for regularization of deep convolutional neural networks, "
        "ICLR 2013, arXiv:1301.3557",
        family="random",
        facts=(BETWEEN, ORDER_FREE, CONSTANT),
        same=(("stochastic", "value-weighted"), ("stochastic:weights=exp", "soft")),
        domain="nonnegative",
        released="One popular port draws all cells with equal probability and has no evaluation rule; another gives "
        "dead cells the largest weight. The original adds the smallest float to the denominator, which gives "
        "the same 0 for a dead window. The exponential weights come from code of the authors of rank-based "
        "pooling, without a paper of their own.",
    )

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Weights by value do not see a scale, exponential ones no shift."""
        return (*self.card.facts, SCALES if self.weights == "value" else SHIFTS)

    @property
    def draws(self) -> str:
        """One number for each window."""
        return "region"

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula in evaluation."""
        if p.weights == "exp":
            return Soft().reduce(w, Soft().values())
        xp, a = w.xp, w.xp.clip(w.x, 0.0, None)
        # The probabilities do not change when a is scaled: dividing by the largest cell keeps a² from overflowing.
        top = xp.stop(w.max(a))
        scale = xp.where((top > 0) & xp.isfinite(top), top, 1.0)
        r = a / scale
        total = w.sum(r)
        return scale * (w.sum(r * r) / xp.where(total == 0, 1.0, total))

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form in evaluation."""
        if p.weights == "exp":
            return Soft().oracle(w, Soft().values())
        a = [max(v, 0.0) for v in w.x]
        total = math.fsum(a)
        return math.fsum(v * (v / total) for v in a) if total > 0 else 0.0

    def sample(self, w: Cells, p: Values, u: Any) -> Any:
        """The array formula in training."""
        if p.weights == "exp":
            return w.draw(w.xp.exp(w.only(w.x, 0.0) - w.max(w.x)), u)
        return w.draw(w.xp.clip(w.x, 0.0, None), u)

    def oracle_sample(self, w: OneWindow, p: Values, u: float) -> float:
        """The scalar form in training."""
        a = [max(v, 0.0) if p.weights == "value" else math.exp(v - max(w.x)) for v in w.x]
        threshold, running = u * math.fsum(a), 0.0
        for v, weight in zip(w.x, a, strict=True):
            running += weight
            if running > threshold:
                return v
        return 0.0

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        if p.weights == "exp":
            return weighted_mean(w.x, "exp(xᵢ)", [math.exp(v) for v in w.x], "pᵢ")
        a = [max(v, 0.0) for v in w.x]
        if not any(a):
            return [Step("aᵢ = max(xᵢ, 0)", a), Step("y = 0, as no cell is above 0", 0.0)]
        shares = [v / math.fsum(a) for v in a]
        found = [Step("aᵢ = max(xᵢ, 0)", a), Step("Σ aⱼ", math.fsum(a)), Step("pᵢ = aᵢ / Σ aⱼ", shares)]
        terms = products(shares, a)
        return [*found, Step("pᵢ aᵢ", terms), Step("y = Σ pᵢ aᵢ, the expectation", math.fsum(terms))]

    def worked_sample(self, w: OneWindow, p: Values, u: float) -> list[Step]:
        """The same in training: the first cell at which the running sum of the probabilities passes u."""
        name = "aᵢ = max(xᵢ, 0)" if p.weights == "value" else "aᵢ = exp(xᵢ)"
        a = [max(v, 0.0) if p.weights == "value" else math.exp(v) for v in w.x]
        if not any(a):
            return [Step(name, a), Step("y = 0, as no cell is above 0", 0.0)]
        whole, runs = math.fsum(a), [*accumulate(a)]
        y = next((v for v, run in zip(w.x, runs, strict=True) if run > u * whole), 0.0)
        found = [Step(name, a), Step("Σ aⱼ", whole), Step("pᵢ = aᵢ / Σ aⱼ", [v / whole for v in a])]
        found += [Step("p₁ + … + pᵢ", [v / whole for v in runs]), Step("u", u)]
        return [*found, Step("y = x_l, l the first i with p₁ + … + pᵢ > u", y)]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window in evaluation for the CPU engine, and its gradient."""
        if self.weights == "exp":
            one = ModuleType("poolkit_parameters: beta 1, not learned")
            vars(one).update(beta=s.inline(lambda w: s.real(1.0)), learns_beta=False)
            return Soft().kernel(s, one)

        cell = s.inline(lambda w, j: s.where(s.cell(w, j) < 0.0, 0.0, s.cell(w, j)))
        sums = weighted_by_size(s, cell)

        def forward(w: Any) -> Any:
            inverse, _, y = sums(w)
            return y / inverse

        def gradient(w: Any, g: Any) -> None:
            inverse, whole, y = sums(w)
            share = g / whole
            for j in range(s.count(w)):
                x = s.cell(w, j)
                s.give(w, j, s.where(x < 0.0, 0.0, share * (2.0 * (x * inverse) - y)))

        return forward, gradient

    def sample_kernel(self, s: Any, p: Any) -> Any:
        """The same in training."""
        by_value = self.weights == "value"

        @s.inline
        def scale(w: Any) -> Any:
            return s.real(0.0) if by_value else s.largest(w)

        @s.inline
        def activation(x: Any, top: Any) -> Any:
            return s.wide(s.where(x < 0.0, 0.0, x) * SMALL) if by_value else s.wide(s.falling_exp(x - top))

        @s.inline
        def drawn_at(w: Any) -> Any:
            """Σ of the weights, what the running sum passes at the drawn cell, and their scale.

            What is passed lies below Σ even for numbers too small to round.
            """
            whole, top = s.wide(0.0), scale(w)
            for j in range(s.count(w)):
                whole += activation(s.cell(w, j), top)
            threshold = whole * s.wide(s.draw(w))
            return whole, s.where(threshold < whole, threshold, 0.5 * threshold), top

        def forward(w: Any) -> Any:
            whole, threshold, top = drawn_at(w)
            y, running = s.real(0.0), s.wide(0.0)
            for j in range(s.count(w)):
                x = s.cell(w, j)
                y = s.where(running > threshold, y, x)  # the last cell before the sum has passed is the drawn one
                running += activation(x, top)
            # An infinite cell is certain to be drawn.
            return s.where(whole > 0.0, s.where(whole < math.inf, y, s.real(whole)), s.real(0.0 * whole))

        def gradient(w: Any, g: Any) -> None:
            _, threshold, top = drawn_at(w)
            running, passed = s.wide(0.0), s.wide(0.0) > 0.0
            for j in range(s.count(w)):
                running += activation(s.cell(w, j), top)
                now = running > threshold
                s.give(w, j, s.where(now, s.where(passed, 0.0, g), 0.0))
                passed = now

        return forward, gradient
