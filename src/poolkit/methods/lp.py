"""Lp pooling: the power mean of the absolute values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import EVEN, ORDER_FREE, SCALES, Card, Values, WindowMethod, param
from poolkit.steps import Step
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class Lp(WindowMethod):
    """The p-norm of the window, as a mean.

        y = ((1/n) Σ |xᵢ|ᵖ)^(1/p)

    p = 1 is the mean of |x|, p = 2 the root mean square, p → ∞ the largest |x|. Values are divided by the largest |x|
    first, so no power overflows; the gradient at an all-zero window is 0. `reduction="sum"` drops the 1/n.

    Example:
        >>> Lp(p=2).oracle(OneWindow.of([1, 1, 1, -1]), Lp(p=2).values())
        1.0
    """

    p: float = param(2.0, low=1.0, learnable=True, says="1: mean of |x| … large: max of |x|", tries=(1.0, 3.0, 100.0))
    reduction: str = param("mean", choices=("mean", "sum"), says="with or without the 1/n", tries=("sum",))

    card: ClassVar[Card] = Card(
        name="lp",
        title="Lp pooling",
        equation="y = ((1/n) Σ |xᵢ|ᵖ)^(1/p)",
        source="P. Sermanet, S. Chintala, Y. LeCun, Convolutional neural networks applied to house numbers digit "
        "classification, ICPR 2012, arXiv:1204.3968; learned p: C. Gulcehre et al., ECML-PKDD 2014",
        family="power mean",
        facts=(ORDER_FREE, SCALES, EVEN),
        same=(("lp:p=1", "avg"),),
        limits=(("lp:p=1000", "max"),),
        domain="nonnegative",
        released="torch.nn.LPPool2d is the sum without absolute values: NaN for a negative window with odd p, and "
        "partial windows in ceil mode are scaled as if they were full. Sermanet's Gaussian weights are not "
        "part of this method.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        xp, size = w.xp, w.xp.abs(w.x)
        # y is homogeneous in x: the scale cancels exactly, so it is a constant to the gradient.
        top = xp.stop(w.max(size))
        usable = (top > 0) & xp.isfinite(top)
        scale = xp.where(usable, top, 1.0)
        # 0ᵖ is 0, but its derivatives pass through log 0: zeros get a base of 1 and are put back.
        powers = xp.where(size == 0, 0.0, xp.power(xp.where(size == 0, 1.0, size / scale), p.p))
        total = w.mean(powers) if p.reduction == "mean" else w.sum(powers)
        # 0^(1/p) has an infinite slope: an all-zero window is taken out before the root, not repaired after it.
        root = xp.power(xp.where(top == 0, 1.0, total), 1.0 / p.p)
        return xp.where(top == 0, 0.0, scale * root)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        top = max(abs(v) for v in w.x)
        if top == 0.0 or math.isinf(top):
            return top
        total = math.fsum((abs(v) / top) ** p.p for v in w.x)
        return top * (total / (w.n if p.reduction == "mean" else 1)) ** (1 / p.p)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        powers = [abs(v) ** p.p for v in w.x]
        total, found = math.fsum(powers), [Step("|xᵢ|", [abs(v) for v in w.x]), Step("|xᵢ|ᵖ", powers)]
        found.append(Step("Σ |xᵢ|ᵖ", total))
        if p.reduction == "sum":
            return [*found, Step("y = (Σ |xᵢ|ᵖ)^(1/p)", total ** (1 / p.p))]
        return [
            *found,
            Step("(1/n) Σ |xᵢ|ᵖ", total / w.n),
            Step("y = ((1/n) Σ |xᵢ|ᵖ)^(1/p)", (total / w.n) ** (1 / p.p)),
        ]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        from poolkit.kernels.power import power_mean

        size = s.inline(lambda w, x: s.abs(x))
        towards = s.inline(lambda w, x, slope: s.where(x < 0.0, 0.0 - slope, slope))
        return power_mean(s, p, size, towards, self.reduction == "mean")
