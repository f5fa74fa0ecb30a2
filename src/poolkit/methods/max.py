"""Max pooling: the largest cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, MONOTONE, ORDER_FREE, SCALES, SELECTS, SHIFTS, Card, Values, WindowMethod
from poolkit.steps import Step
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class Max(WindowMethod):
    """The largest cell of the window.

        y = max xᵢ

    The gradient goes to the largest cell alone, the first in row-major order where several are equal. NaN propagates.

    Example:
        >>> Max().oracle(OneWindow.of([1, 4, 3, 2]), Max().values())
        4.0
    """

    kernel_reach: ClassVar[tuple[int, int]] = (2**14, 2**14)  # torch reduces larger ones in one pass

    card: ClassVar[Card] = Card(
        name="max",
        title="Max pooling",
        equation="y = max xᵢ",
        source="Y.-L. Boureau, J. Ponce, Y. LeCun, A theoretical analysis of feature pooling in visual recognition, "
        "ICML 2010",
        family="selection",
        facts=(BETWEEN, ORDER_FREE, SHIFTS, SCALES, CONSTANT, MONOTONE, SELECTS),
        released="torch.amax splits the gradient among equal cells; max_pool2d and this method give it to the first.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        return w.max(w.x)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        largest = w.x[0]
        for v in w.x:
            if v > largest:
                largest = v
        return largest

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        return [Step("y = max xᵢ", max(w.x))]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        return s.largest, lambda w, g: s.give_to_first(w, s.largest(w), g)
