"""Generalized-mean pooling (GeM)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import MONOTONE, ORDER_FREE, Card, Values, WindowMethod, param
from poolkit.steps import Step, mean
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class GeM(WindowMethod):
    """The power mean of the cells, negative ones raised to a small positive number.

        y = ((1/n) Σ max(xᵢ, eps)ᵖ)^(1/p)

    p = 1 is the mean, p → ∞ the maximum (both of max(x, eps)). Values are divided by the largest one first, so that
    neither eps³ underflows nor a large cell overflows. Made for global pooling; learned p as `GeM(p=learn())`.

    Example:
        >>> round(GeM(p=3).oracle(OneWindow.of([1, 4, 3, 2]), GeM(p=3).values()), 4)
        2.924
    """

    p: float = param(3.0, low=0.1, learnable=True, says="1: mean … large: max", tries=(1.0, 0.5, 20.0))
    eps: float = param(1e-6, low=1e-30, high=1.0, says="smaller cells count as this", tries=(1e-3,))

    card: ClassVar[Card] = Card(
        name="gem",
        title="Generalized-mean pooling (GeM)",
        equation="y = ((1/n) Σ max(xᵢ, eps)ᵖ)^(1/p)",
        source="F. Radenović, G. Tolias, O. Chum, Fine-tuning CNN image retrieval with no human annotation, "
        "TPAMI 2019, arXiv:1711.02512",
        family="power mean",
        facts=(ORDER_FREE, MONOTONE),
        same=(("gem:p=1,eps=1e-30", "avg"), ("gem:p=3,eps=1e-30", "lp:p=3")),
        limits=(("gem:p=1000", "max"),),
        domain="nonnegative",
        released="Released code computes the power directly: eps³ is 0 in float16, and the root's gradient is then "
        "infinite.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        xp = w.xp
        x = xp.clip(w.x, p.eps, None)
        # y is homogeneous in max(x, eps): the scale cancels exactly, so it is a constant to the gradient.
        top = xp.stop(w.max(x))
        scale = xp.where(xp.isfinite(top), top, 1.0)
        return scale * xp.power(w.mean(xp.power(x / scale, p.p)), 1.0 / p.p)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        x = [max(v, p.eps) for v in w.x]
        top = max(x)
        if math.isinf(top):
            return top
        return top * (math.fsum((v / top) ** p.p for v in x) / w.n) ** (1 / p.p)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        x = [max(v, p.eps) for v in w.x]
        powers = [v**p.p for v in x]
        return [
            Step("max(xᵢ, eps)", x),
            Step("max(xᵢ, eps)ᵖ", powers),
            Step("(1/n) Σ max(xᵢ, eps)ᵖ", mean(powers)),
            Step("y = ((1/n) Σ max(xᵢ, eps)ᵖ)^(1/p)", mean(powers) ** (1 / p.p)),
        ]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        from poolkit.kernels.power import power_mean

        size = s.inline(lambda w, x: s.where(x < p.eps(w), p.eps(w), x))
        towards = s.inline(lambda w, x, slope: s.where(x < p.eps(w), 0.0, slope))
        return power_mean(s, p, size, towards, True)
