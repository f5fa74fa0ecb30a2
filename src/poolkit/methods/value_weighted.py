"""Value-weighted pooling: the mean of the cells weighted by themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, ORDER_FREE, SCALES, Card, Values, WindowMethod, param
from poolkit.steps import Step, products, quotient
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class ValueWeighted(WindowMethod):
    """The mean of the cells, each weighted by its own size.

        y = Σ |xᵢ| xᵢ / Σ |xᵢ|,   for x ≥ 0: Σ xᵢ² / Σ xᵢ

    It is what stochastic pooling expects, taken in training too. The quotient is meant for activations after a ReLU:
    for cells of both signs Σ xᵢ may be 0. `negative="abs"` weighs by the size and keeps the sign, so that a negative
    window has a negative result; `negative="clamp"` raises negative cells to 0, as stochastic pooling does. A window of
    zeros gives 0, a zero cell has no gradient; a window that holds ±∞ gives NaN. Where squares could overflow or vanish
    cells are divided by the largest size first. The gradient is exact, (2 |xᵢ| − y sign xᵢ) / Σ |xⱼ|: it can be
    negative.

    Example:
        >>> ValueWeighted().oracle(OneWindow.of([1, 4, 3, 2]), ValueWeighted().values())
        3.0
    """

    negative: str = param(
        "abs", choices=("abs", "clamp"), says="negative cells: weighed by their size, or raised to 0", tries=("clamp",)
    )

    card: ClassVar[Card] = Card(
        name="value-weighted",
        title="Value-weighted pooling",
        equation="y = Σ xᵢ² / Σ xᵢ",
        source="the evaluation rule of M. D. Zeiler, R. Fergus, Stochastic pooling for regularization of deep "
        "convolutional neural networks, ICLR 2013, arXiv:1301.3557",
        family="weighted mean",
        facts=(BETWEEN, ORDER_FREE, SCALES, CONSTANT),
        same=(("value-weighted", "stochastic"), ("value-weighted:negative=clamp", "stochastic")),
        domain="nonnegative",
        released="Code of rank-based pooling has it as an option, for cells ≥ 0. At least four other methods are "
        "called weighted pooling; the one of Zhu et al. (2019), with weights from mutual information, is not this.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        xp = w.xp
        x = w.x if p.negative == "abs" else xp.clip(w.x, 0.0, None)
        # y is homogeneous in x: the scale cancels exactly, so it is a constant to the gradient.
        top = xp.stop(w.max(xp.abs(x)))
        scale = xp.where((top > 0) & xp.isfinite(top), top, 1.0)
        r = x / scale
        total = w.sum(xp.abs(r))
        return scale * (w.sum(xp.abs(r) * r) / xp.where(total == 0, 1.0, total))

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        x = w.x if p.negative == "abs" else [max(v, 0.0) for v in w.x]
        total = math.fsum(map(abs, x))
        return math.fsum(v * (abs(v) / total) for v in x) if total > 0 else 0.0

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        if p.negative == "clamp":
            over, under, x = "max(xᵢ, 0)²", "max(xᵢ, 0)", [max(v, 0.0) for v in w.x]
        else:
            over, under, x = "|xᵢ| xᵢ" if min(w.x) < 0 else "xᵢ²", "|xᵢ|" if min(w.x) < 0 else "xᵢ", w.x
        size = [abs(v) for v in x]
        found = quotient(over, products(size, x), under, size)
        return found if under != "xᵢ" else found[1:]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        clamp = self.negative == "clamp"

        @s.inline
        def cell(w: Any, j: Any) -> Any:
            return s.where(s.cell(w, j) < 0.0, 0.0, s.cell(w, j)) if clamp else s.cell(w, j)

        sums = weighted_by_size(s, cell)

        def forward(w: Any) -> Any:
            inverse, _, mean = sums(w)
            return mean / inverse

        def gradient(w: Any, g: Any) -> None:
            inverse, total, mean = sums(w)
            share = g / total
            for j in range(s.count(w)):
                x = s.cell(w, j)
                if clamp:
                    s.give(w, j, s.where(x <= 0.0, 0.0, share * (2.0 * (x * inverse) - mean)))
                else:
                    towards = s.where(x < 0.0, mean, s.where(x > 0.0, 0.0 - mean, 0.0))
                    s.give(w, j, share * (2.0 * s.abs(x * inverse) + towards))

        return forward, gradient


def weighted_by_size(s: Any, cell: Any) -> Any:
    """In lanes: of the cells `cell(w, j)` a scale, and of r = x times it Σ |r|, or 1 if that is 0, and Σ |r| r / Σ |r|.

    The scale is 1 where the cells are of such sizes that their squares lie well within the range of numbers, or all 0;
    elsewhere it is one over the binade of the largest size.
    """
    refined = refinement(s, cell, s.inline(lambda w, j, r: s.abs(r)))

    @s.inline
    def scaled(w: Any, scale: Any) -> Any:
        total, squares = s.wide(0.0), s.wide(0.0)
        for j in range(s.count(w)):
            r = cell(w, j) * scale
            total += s.wide(s.abs(r))
            squares = s.plus(squares, s.abs(r), r)
        whole = s.real(s.where(total == 0.0, 1.0, total))
        return scale, whole, refined(w, scale, whole, s.real(squares) / whole)

    @s.inline
    def sums(w: Any) -> Any:
        found = scaled(w, s.real(1.0))
        good = (found[1] > s.real(s.count(w) * 1e-15)) & (found[1] < 1e15)
        if s.every(good):
            return found
        top = s.abs(cell(w, 0))
        for j in range(1, s.count(w)):
            v = s.abs(cell(w, j))
            top = s.where((v > top) | (v != v), v, top)
        return scaled(w, s.where(good, 1.0, 1.0 / s.binade(s.unit_of(top))))

    return sums


def refinement(s: Any, cell: Any, weight: Any) -> Any:
    """In lanes: a weighted mean as its sums gave it, and what short sums have rounded away.

    Args:
        cell: the j-th cell, `cell(w, j)`; r is that times the scale.
        weight: its weight, `weight(w, j, r)`.
    """

    @s.inline
    def refined(w: Any, scale: Any, whole: Any, y: Any) -> Any:
        """`whole`: the sum of the weights; `y`: the mean of the scaled cells; where that is infinite it stays so."""
        rest, finite = s.wide(0.0), s.abs(y) < math.inf
        if not s.long:
            for j in range(s.count(w)):
                r = cell(w, j) * scale
                rest = s.plus(rest, weight(w, j, r), s.where(finite, r - y, 0.0))
        return y + s.real(rest) / whole

    return refined
