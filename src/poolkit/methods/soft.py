"""Soft pooling (SoftPool): a mean weighted by the softmax of the values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, ORDER_FREE, SHIFTS, Card, Values, WindowMethod, param
from poolkit.steps import Step, weighted_mean
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class Soft(WindowMethod):
    """The mean of the cells weighted by the softmax of their values.

        y = Σ wᵢ xᵢ,   wᵢ = exp(β xᵢ) / Σ exp(β xⱼ)

    β = 0 is the mean, β → ∞ the maximum, a negative β leans to the minimum; the paper has β = 1. The gradient is exact,
    wᵢ (1 + β (xᵢ − y)): it can be negative. `grad="detached"` treats the weights as constants, as the released backward
    pass does. A window that holds ±∞ gives NaN.

    Example:
        >>> round(Soft().oracle(OneWindow.of([1, 4, 3, 2]), Soft().values()), 4)
        3.4927
    """

    beta: float = param(
        1.0,
        low=-1000.0,  # beta times a cell of 10⁴ stays well inside float32
        high=1000.0,
        learnable=True,
        learns_freely=True,
        says="0: mean … large: max … negative: towards min",
        tries=(0.0, -2.0, 20.0),
    )
    grad: str = param("exact", choices=("exact", "detached"), says="whether the weights pass a gradient", tries=())

    untried: ClassVar[Mapping[str, str]] = {"grad=detached": "its gradient is not the derivative, on purpose"}
    card: ClassVar[Card] = Card(
        name="soft",
        title="Soft pooling (SoftPool)",
        equation="y = Σ wᵢ xᵢ,  wᵢ = exp(β xᵢ) / Σ exp(β xⱼ)",
        source="A. Stergiou, R. Poppe, G. Kalliatakis, Refining activation downsampling with SoftPool, ICCV 2021, "
        "arXiv:2101.00440 (β = 1); learned β (AutoPool): B. McFee, J. Salamon, J. P. Bello, Adaptive pooling operators "
        "for weakly labeled sound event detection, IEEE/ACM TASLP 26 (2018), arXiv:1804.10070",
        family="weighted mean",
        facts=(BETWEEN, ORDER_FREE, SHIFTS, CONSTANT),
        same=(("soft:beta=0", "avg"),),
        limits=(("soft:beta=1000", "max"), ("soft:beta=-1000", "min")),
        released="The released CPU path sums exp over channels instead of the window and clamps the result at 0: "
        "another function. The released CUDA backward treats the weights as constants and replaces NaN by 0.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        weights = w.softmax(p.beta * w.x)
        return w.sum((weights if p.grad == "exact" else w.xp.stop(weights)) * w.x)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        top = max(p.beta * v for v in w.x)
        weights = [math.exp(p.beta * v - top) for v in w.x]
        return math.fsum(a * v for a, v in zip(weights, w.x, strict=True)) / math.fsum(weights)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        return weighted_mean(w.x, "exp(β xᵢ)", [math.exp(p.beta * v) for v in w.x])

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        exact, learns, sums = self.grad == "exact", p.learns_beta, _sums(s, p)

        @s.inline
        def add_slopes(w: Any, j: Any, about: Any, t: Any) -> Any:
            (share, beta, y, g), own = about, s.cell(w, j)
            weight, off = s.noted(w, j) * share, own - y
            s.give(w, j, g * weight * (beta * off + 1.0))
            return (s.fused(weight * off, off, t[0]) if learns else t[0],)

        spread = s.sums(add_slopes, 1)

        def forward(w: Any) -> Any:
            return sums(w, False)[1]

        def gradient(w: Any, g: Any) -> None:
            total, y = sums(w, True)
            beta = p.beta(w) if exact else 0.0 * g
            slope = s.real(spread(w, (1.0 / total, beta, y, g))[0])
            if learns:
                p.slope_beta(w, g * slope if exact else 0.0 * g)

        return forward, gradient


def _sums(s: Any, p: Any) -> Any:
    """Of one window, in lanes: Σ e and y = x* + Σ e d / Σ e, as a word; with `keep` it notes each e.

    e = exp(β d), d = xᵢ − x*, up to a factor; x* is the cell of the largest exponent: differences round less than cells
    do. A part of them is summed, so that none overflows. A NaN and the NaN of an infinite cell come through the sums.
    """
    from poolkit.kernels.softmax import exponentials

    (good_of, _, term), part = exponentials(s, p.beta), s.part

    @s.inline
    def add(w: Any, j: Any, about: Any, t: Any) -> Any:
        own, top, steepness, good, keep = about
        d = own * s.cell(w, j) - top
        e = term(w, j, good, steepness * d)
        if keep:
            s.note(w, j, e)
        return t[0] + e, s.fused(e, d, t[1])

    both = s.sums(add, 2)

    @s.inline
    def sums(w: Any, keep: bool) -> Any:
        falls = p.beta(w) < 0.0
        own, back = s.where(falls, s.real(-part), part), s.where(falls, s.real(-1 / part), 1 / part)
        top = own * s.cell(w, 0)
        for j in range(1, s.count(w)):
            z = own * s.cell(w, j)
            top = s.where(z > top, z, top)
        good = good_of(w, back * top)
        total, moment = both(w, (own, top, back * p.beta(w), good, keep))
        return s.real(total), back * (top + s.real(moment / total))

    return sums
