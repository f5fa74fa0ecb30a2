"""A pooling method of one's own, whole: between the largest and the smallest cell."""

from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit import Card, Cells, OneWindow, Values, WindowMethod, param
from poolkit.method import BETWEEN, CONSTANT, MONOTONE, ORDER_FREE, SCALES, SHIFTS


@dataclass(frozen=True)
class Hurwicz(WindowMethod):
    """A share of the largest cell and the rest of the smallest.

    y = a max xᵢ + (1 − a) min xᵢ
    """

    a: float = param(0.5, low=0.0, high=1.0, learnable=True, says="share of the largest cell", tries=(0.0, 0.3, 1.0))

    card: ClassVar[Card] = Card(
        name="hurwicz",
        title="Hurwicz pooling",
        equation="y = a max xᵢ + (1 − a) min xᵢ",
        source="the rule of L. Hurwicz (1951) for decisions under uncertainty, as a pooling method: an example",
        family="selection",
        facts=(BETWEEN, ORDER_FREE, SHIFTS, SCALES, CONSTANT, MONOTONE),
        same=(("hurwicz:a=1", "max"), ("hurwicz:a=0", "min")),
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula, for all windows at once."""
        # By rank, not w.min: of equal cells max takes the first, so the smallest must be the last of them.
        smallest = w.xp.sum(w.xp.where(w.rank == w.n - 1, w.ranked(w.x), 0.0))
        return p.a * w.max(w.x) + (1 - p.a) * smallest

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form, for one window, in plain Python."""
        ordered = sorted(w.x)
        return p.a * ordered[-1] + (1 - p.a) * ordered[0]
