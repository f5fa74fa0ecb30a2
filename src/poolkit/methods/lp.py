"""Lp pooling: the power mean of the absolute values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import EVEN, ORDER_FREE, SCALES, Card, Values, WindowMethod, param
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

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        averaged, learns = self.reduction == "mean", p.learns_p

        @s.inline
        def size(w: Any, j: Any) -> Any:
            return s.abs(s.cell(w, j))

        @s.inline
        def scale(w: Any) -> Any:
            top = size(w, 0)
            for j in range(1, s.count(w)):
                v = size(w, j)
                top = s.where((v > top) | (v != v), v, top)
            return s.where((top > 0.0) & (top < math.inf), top, 1.0)

        @s.inline
        def power(w: Any, r: Any) -> Any:
            return s.exp(p.p(w) * s.log(r))

        @s.inline
        def root(w: Any, total: Any) -> Any:
            """The power mean of the cells divided by the largest one; 0 for a total of 0."""
            mean = s.real(total / s.count(w) if averaged else total)
            return s.exp(s.log(mean) / p.p(w)), s.log(mean)

        def forward(w: Any) -> Any:
            unit, total = scale(w), s.wide(0.0)
            for j in range(s.count(w)):
                total += s.wide(power(w, size(w, j) / unit))
            return unit * root(w, total)[0]

        def gradient(w: Any, g: Any) -> None:
            unit, total, logs = scale(w), s.wide(0.0), s.wide(0.0)
            for j in range(s.count(w)):
                r = size(w, j) / unit
                e = power(w, r)
                s.note(w, j, e)
                total += s.wide(e)
                if learns:
                    logs += s.wide(s.where(e > 0.0, e * s.log(r), 0.0))
            y, log_mean = root(w, total)
            whole = s.real(total)
            alive = whole > 0.0
            share = s.where(alive, g * y / whole, 0.0)
            for j in range(s.count(w)):
                v, x = size(w, j), s.cell(w, j)
                slope = share * s.where(v > 0.0, s.noted(w, j) / (v / unit), 0.0)
                s.give(w, j, s.where(x < 0.0, 0.0 - slope, slope))
            if learns:
                change = unit * y / p.p(w) * (s.real(logs) / whole - log_mean / p.p(w))
                p.slope_p(w, s.where(alive, g * change, 0.0))

        return forward, gradient
