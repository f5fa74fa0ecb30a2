"""Mixed pooling (Yu 2014): max or average, drawn at random in training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, MONOTONE, ORDER_FREE, SCALES, SHIFTS, Card, Values, WindowMethod, param
from poolkit.steps import Step, mean
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class Mixed(WindowMethod):
    """Max pooling or average pooling, drawn by a fair coin.

        training: y = λ max xᵢ + (1 − λ)(1/n) Σ xᵢ,   λ ∈ {0, 1} with probability 1/2 each
        evaluation: λ = 1/2, the expectation

    `per` says for what a coin is thrown in each example: every window (`region`), every channel (`map`) or once
    (`layer`). The backward pass uses the same λ. `test="max"` or `"avg"` fixes λ, and makes the method max or average
    pooling, in evaluation alone.

    `test="frequency"` is the paper's rule: each channel (with `per="layer"` the layer) takes what it drew more often in
    training, the average if both came equally often. The layer counts in its buffer `balance`, how often the maximum
    was drawn minus how often the average, which is part of its state; without training that is 0. A call that
    activation checkpointing repeats is counted once; inside a compiled graph it may count twice, which leaves the sign.
    The number of channels is known from the first call in training on. Deep copies made before it, such as
    `torch.optim.swa_utils.AveragedModel`, learn it from that call, unless it runs in a compiled graph.

    Example:
        >>> Mixed().oracle(OneWindow.of([1, 4, 3, 2]), Mixed().values())
        3.25
    """

    per: str = param(
        "map", choices=("region", "map", "layer"), says="for what one coin is thrown", tries=("region", "layer")
    )
    test: str = param(
        "expectation",
        choices=("expectation", "frequency", "max", "avg"),
        says="what evaluation does",
        tries=("max", "avg", "frequency"),
    )

    kernel_reach: ClassVar[tuple[int, int]] = (2**14, 2**14)  # torch reduces larger ones in one pass

    card: ClassVar[Card] = Card(
        name="mixed",
        title="Mixed pooling (stochastic)",
        equation="y = λ max xᵢ + (1 − λ)(1/n) Σ xᵢ,  λ ∈ {0, 1} at random",
        source="D. Yu, H. Wang, P. Chen, Z. Wei, Mixed pooling for convolutional neural networks, RSKT 2014, "
        "LNCS 8818, 364–375",
        family="random",
        facts=(BETWEEN, ORDER_FREE, SHIFTS, SCALES, CONSTANT, MONOTONE),
        same=(("mixed:test=max", "max"), ("mixed:test=avg", "avg"), ("mixed:test=frequency", "avg")),
        released="Most public code of this name learns one weight between max and average, which is another paper's "
        "method (Lee 2016). The paper's rule for evaluation, the more frequent choice in training, is itself a "
        "coin when the coin is fair: the expectation is the default here.",
    )

    @property
    def draws(self) -> str:
        """One coin for each region, map or layer."""
        return self.per

    @property
    def counts(self) -> str | None:
        """How often the maximum was drawn minus how often the average, if evaluation asks for it."""
        return "balance" if self.test == "frequency" else None

    def count(self, u: Any) -> Any:
        """1 for a drawn maximum, −1 for a drawn average."""
        return 1 - 2 * (2 * u // 1)

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula in evaluation."""
        if p.test == "frequency":
            return w.xp.where(0.0 * w.x[0] + p.balance > 0, w.max(w.x), w.mean(w.x))
        if p.test == "max":
            return w.max(w.x)
        return w.mean(w.x) if p.test == "avg" else 0.5 * (w.max(w.x) + w.mean(w.x))

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form in evaluation."""
        top, mean = max(w.x), math.fsum(w.x) / w.n
        if p.test == "frequency":
            return top if p.balance > 0 else mean
        return {"max": top, "avg": mean, "expectation": 0.5 * (top + mean)}[p.test]

    def sample(self, w: Cells, p: Values, u: Any) -> Any:
        """The array formula in training."""
        return w.xp.where(u < 0.5, w.max(w.x), w.mean(w.x))

    def oracle_sample(self, w: OneWindow, p: Values, u: float) -> float:
        """The scalar form in training."""
        return max(w.x) if u < 0.5 else math.fsum(w.x) / w.n

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        if p.test == "frequency":
            return self._steps(w, *_more_often(p.balance))
        why = {"max": "λ = 1", "avg": "λ = 0", "expectation": "λ = ½, the expectation"}
        return self._steps(w, why[p.test], {"max": 1.0, "avg": 0.0, "expectation": 0.5}[p.test])

    def _steps(self, w: OneWindow, why: str, share: float) -> list[Step]:
        """With a λ, and what is said of it."""
        top, middle = max(w.x), mean(w.x)
        found = [Step("max xᵢ", top), Step("(1/n) Σ xᵢ", middle), Step(why, share)]
        return [*found, Step("y = λ max xᵢ + (1 − λ)(1/n) Σ xᵢ", share * top + (1.0 - share) * middle)]

    def worked_sample(self, w: OneWindow, p: Values, u: float) -> list[Step]:
        """The same in training."""
        return [
            Step("u", u),
            *self._steps(w, "λ = 1, as u < ½" if u < 0.5 else "λ = 0, as u ≥ ½", 1.0 if u < 0.5 else 0.0),
        ]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window in evaluation for the CPU engine, and its gradient."""
        if self.test == "frequency":
            return self._mixture(s, s.inline(lambda w: s.where(p.balance(w) > 0.0, s.real(1.0), 0.0)))
        share = {"max": 1.0, "avg": 0.0, "expectation": 0.5}[self.test]
        return self._mixture(s, s.inline(lambda w: s.real(share)))

    def sample_kernel(self, s: Any, p: Any) -> Any:
        """The same in training."""
        return self._mixture(s, s.inline(lambda w: s.where(s.draw(w) < 0.5, s.real(1.0), s.real(0.0))))

    def _mixture(self, s: Any, share: Any) -> Any:
        """λ max + (1 − λ) mean, `share` being λ."""

        def forward(w: Any) -> Any:
            a, top, mean = share(w), s.largest(w), s.real(s.total(w) / s.count(w))
            # The part that was not drawn must not even multiply 0: it may be infinite.
            return s.where(a == 1.0, top, s.where(a == 0.0, mean, a * top + (1.0 - a) * mean))

        def gradient(w: Any, g: Any) -> None:
            a, top, left = share(w), s.largest(w), g * share(w)
            rest = (1.0 - a) * g / s.count(w)
            for j in range(s.count(w)):
                v = s.cell(w, j)
                here = (v == top) | (v != v)
                s.give(w, j, s.where(here, left, 0.0) + rest)
                left = s.where(here, 0.0, left)

        return forward, gradient


def _more_often(balance: float) -> tuple[str, float]:
    """What was drawn more often in training, in words and as λ."""
    if balance > 0:
        return "λ = 1, as the maximum was drawn more often in training", 1.0
    if balance < 0:
        return "λ = 0, as the average was drawn more often in training", 0.0
    return "λ = 0, as nothing was drawn yet, or both equally often", 0.0
