"""Stochastic pooling (Zeiler 2013): one cell, drawn in proportion to its value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, ORDER_FREE, SCALES, Card, Values, WindowMethod
from poolkit.xp import Cells, OneWindow

SMALL = 2.0**-5  # rounds nothing, and no sum of up to 32 activations overflows; longer ones run in float64


@dataclass(frozen=True)
class Stochastic(WindowMethod):
    """One cell of the window, drawn with probability proportional to its value.

        training: y = x_l,   l drawn with probability pᵢ = aᵢ / Σ aⱼ,   aᵢ = max(xᵢ, 0)
        evaluation: y = Σ pᵢ aᵢ = Σ aᵢ² / Σ aᵢ, the expectation

    Made for activations after a ReLU: a negative cell is never drawn, and a window without a positive cell gives 0. In
    training the gradient goes to the drawn cell alone, the probabilities are constants, as in the paper.

    Example:
        >>> Stochastic().oracle(OneWindow.of([1, 4, 3, 2]), Stochastic().values())
        3.0
    """

    card: ClassVar[Card] = Card(
        name="stochastic",
        title="Stochastic pooling",
        equation="y = x_l,  l ~ pᵢ = aᵢ / Σ aⱼ, aᵢ = max(xᵢ, 0);  evaluation: y = Σ pᵢ aᵢ",
        source="M. D. Zeiler, R. Fergus, Stochastic pooling for regularization of deep convolutional neural networks, "
        "ICLR 2013, arXiv:1301.3557",
        family="random",
        facts=(BETWEEN, ORDER_FREE, SCALES, CONSTANT),
        domain="nonnegative",
        released="One popular port draws all cells with equal probability and has no evaluation rule; another gives "
        "dead cells the largest weight. The original adds the smallest float to the denominator, which gives "
        "the same 0 for a dead window.",
    )

    @property
    def draws(self) -> str:
        """One number for each window."""
        return "region"

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula in evaluation."""
        xp, a = w.xp, w.xp.clip(w.x, 0.0, None)
        # The probabilities do not change when a is scaled: dividing by the largest cell keeps a² from overflowing.
        top = xp.stop(w.max(a))
        scale = xp.where((top > 0) & xp.isfinite(top), top, 1.0)
        r = a / scale
        total = w.sum(r)
        return scale * (w.sum(r * r) / xp.where(total == 0, 1.0, total))

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form in evaluation."""
        a = [max(v, 0.0) for v in w.x]
        total = math.fsum(a)
        return math.fsum(v * (v / total) for v in a) if total > 0 else 0.0

    def sample(self, w: Cells, p: Values, u: Any) -> Any:
        """The array formula in training."""
        return w.draw(w.xp.clip(w.x, 0.0, None), u)

    def oracle_sample(self, w: OneWindow, p: Values, u: float) -> float:
        """The scalar form in training."""
        a = [max(v, 0.0) for v in w.x]
        threshold, running = u * math.fsum(a), 0.0
        for v, weight in zip(w.x, a, strict=True):
            running += weight
            if running > threshold:
                return v
        return 0.0

    def kernel(self, s: Any, p: Any) -> Any:
        """One window in evaluation for the CPU engine, and its gradient."""

        @s.inline
        def sums(w: Any) -> Any:
            """1/2ᵏ with the binade 2ᵏ of the largest activation a*, and with r = a/2ᵏ: Σ r and y/2ᵏ.

            y is stated as a* − Σ a(a* − a)/Σ a, which rounds less than Σ a²/Σ a.
            """
            top = s.largest(w)
            alive = (top > s.tiny) & (top < math.inf)
            inverse, total, rest = 1.0 / s.binade(s.where(alive, top, 1.0)), s.wide(0.0), s.wide(0.0)
            most = s.where(top < 0.0, 0.0, top) * inverse
            for j in range(s.count(w)):
                x = s.cell(w, j)
                r = s.where(x < 0.0, 0.0, x) * inverse
                total += s.wide(r)
                rest += s.wide(r * (most - r))
            whole = s.real(total)
            return inverse, whole, most - s.real(rest) / s.where(whole == 0.0, 1.0, whole)

        def forward(w: Any) -> Any:
            inverse, _, y = sums(w)
            return y / inverse

        def gradient(w: Any, g: Any) -> None:
            inverse, whole, y = sums(w)
            share = s.where(whole == 0.0, 0.0, g / whole)
            for j in range(s.count(w)):
                x = s.cell(w, j)
                s.give(w, j, s.where(x < 0.0, 0.0, share * (2.0 * x * inverse - y)))

        return forward, gradient

    def sample_kernel(self, s: Any, p: Any) -> Any:
        """The same in training."""

        @s.inline
        def activation(x: Any) -> Any:
            return s.wide(s.where(x < 0.0, 0.0, x) * SMALL)

        @s.inline
        def drawn_at(w: Any) -> Any:
            """Σ a, and what the running sum passes at the drawn cell: below Σ a even for numbers too small to round."""
            whole = s.wide(0.0)
            for j in range(s.count(w)):
                whole += activation(s.cell(w, j))
            threshold = whole * s.wide(s.draw(w))
            return whole, s.where(threshold < whole, threshold, 0.5 * threshold)

        def forward(w: Any) -> Any:
            whole, threshold = drawn_at(w)
            y, running = s.real(0.0), s.wide(0.0)
            for j in range(s.count(w)):
                x = s.cell(w, j)
                y = s.where(running > threshold, y, x)  # the last cell before the sum has passed is the drawn one
                running += activation(x)
            # An infinite cell is certain to be drawn.
            return s.where(whole > 0.0, s.where(whole < math.inf, y, s.real(whole)), s.real(0.0 * whole))

        def gradient(w: Any, g: Any) -> None:
            _, threshold = drawn_at(w)
            running, passed = s.wide(0.0), s.wide(0.0) > 0.0
            for j in range(s.count(w)):
                running += activation(s.cell(w, j))
                now = running > threshold
                s.give(w, j, s.where(now, s.where(passed, 0.0, g), 0.0))
                passed = now

        return forward, gradient
