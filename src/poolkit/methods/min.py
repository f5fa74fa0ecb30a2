"""Min pooling: the smallest cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, MONOTONE, ORDER_FREE, SCALES, SELECTS, SHIFTS, Card, Values, WindowMethod
from poolkit.steps import Step
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class Min(WindowMethod):
    """The smallest cell of the window.

        y = min xᵢ = −max(−xᵢ)

    After a ReLU it is nearly always 0. The gradient goes to the smallest cell, the first of equals. NaN propagates.

    Example:
        >>> Min().oracle(OneWindow.of([1, 4, 3, 2]), Min().values())
        1.0
    """

    kernel_reach: ClassVar[tuple[int, int]] = (2**14, 2**14)  # torch reduces larger ones in one pass

    card: ClassVar[Card] = Card(
        name="min",
        title="Min pooling",
        equation="y = min xᵢ",
        source="The mirror of max pooling; no paper of its own",
        family="selection",
        facts=(BETWEEN, ORDER_FREE, SHIFTS, SCALES, CONSTANT, MONOTONE, SELECTS),
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        return w.min(w.x)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        smallest = w.x[0]
        for v in w.x:
            if v < smallest:
                smallest = v
        return smallest

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        return [Step("y = min xᵢ", min(w.x))]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        return s.smallest, lambda w, g: s.give_to_first(w, s.smallest(w), g)
