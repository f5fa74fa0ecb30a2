"""Average pooling: the mean of the cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, MONOTONE, ORDER_FREE, SCALES, SHIFTS, Card, Values, WindowMethod, param
from poolkit.steps import Step
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class Avg(WindowMethod):
    """The mean of the window's cells.

        y = (1/n) Σ xᵢ

    n counts the cells inside the picture, as Keras does, so a window at the edge is not darkened by its padding.
    `count_include_pad=True` is PyTorch's default divisor: it counts padding too (but not ceil mode's overhang).

    Example:
        >>> Avg().oracle(OneWindow.of([1, 4, 3, 2]), Avg().values())
        2.5
    """

    count_include_pad: bool = param(
        False, says="count padded cells in the divisor, as torch.nn.AvgPool2d does", tries=(True,)
    )

    kernel_reach: ClassVar[tuple[int, int]] = (2**14, 2**14)  # torch reduces larger ones in one pass

    card: ClassVar[Card] = Card(
        name="avg",
        title="Average pooling",
        equation="y = (1/n) Σ xᵢ",
        source="Y. LeCun et al., Handwritten digit recognition with a back-propagation network, NIPS 1989; global: M. "
        "Lin, Q. Chen, S. Yan, ICLR 2014",
        family="mean",
        facts=(BETWEEN, ORDER_FREE, SHIFTS, SCALES, CONSTANT, MONOTONE),
        released="Frameworks disagree about the divisor at the edge: PyTorch counts the padding by default, Keras and "
        "TensorFlow do not.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        return w.sum(w.x) / (w.padded if p.count_include_pad else w.n)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        return math.fsum(w.x) / (w.padded if p.count_include_pad else w.n)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        n, counted = (w.padded, "n, padding counted") if p.count_include_pad else (w.n, "n")
        total = math.fsum(w.x)
        return [Step("Σ xᵢ", total), Step(counted, n), Step("y = (1/n) Σ xᵢ", total / n)]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        cells = s.padded if self.count_include_pad else s.count

        def forward(w: Any) -> Any:
            return s.total(w) / cells(w)

        def gradient(w: Any, g: Any) -> None:
            share = g / cells(w)
            for j in range(s.count(w)):
                s.give(w, j, share)

        return forward, gradient
