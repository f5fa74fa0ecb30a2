"""Exponential Dice-Sørensen pooling (eDSCW): cells weigh more the more alike they are to the mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, ORDER_FREE, SCALES, Card, Values, WindowMethod
from poolkit.steps import Step, mean, weighted_mean
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class EDSCW(WindowMethod):
    """The mean of the cells weighted by the exponential of their likeness to the mean.

        y = Σ wᵢ xᵢ,   wᵢ = exp(dᵢ) / Σ exp(dⱼ),   dᵢ = 2 |xᵢ m| / (xᵢ² + m²),   m = (1/n) Σ xᵢ

    The likeness dᵢ is the Dice-Sørensen coefficient of two numbers, from 0 to 1. It does not see signs: −m is as alike
    to m as m itself. Where the cell and the mean are both 0 it is 1, so an all-zero window gives 0; a cell of 0 beside
    a mean of 0 is the one place where y jumps. No weight is more than e times another. The gradient is exact, through
    the weights and the mean; it can be negative. A window that holds ±∞ gives NaN.

    Example:
        >>> round(EDSCW().oracle(OneWindow.of([1, 4, 3, 2]), EDSCW().values()), 4)
        2.5722
    """

    card: ClassVar[Card] = Card(
        name="edscw",
        title="Exponential Dice-Sørensen pooling (eDSCW)",
        equation="y = Σ wᵢ xᵢ,  wᵢ = exp(dᵢ) / Σ exp(dⱼ),  dᵢ = 2 |xᵢ m| / (xᵢ² + m²), m the mean",
        source="A. Stergiou, R. Poppe, AdaPool: exponential adaptive pooling for information-retaining downsampling, "
        "IEEE Transactions on Image Processing 32 (2023) 251–266, arXiv:2111.00772",
        family="weighted mean",
        facts=(BETWEEN, ORDER_FREE, SCALES, CONSTANT),
        released="The released kernel divides 0 by 0 in an all-zero window and replaces the NaN by 0. Its backward "
        "pass treats the weights as constants. It compares single numbers, as here; whether the paper compares vectors "
        "over the channels was not verified.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        return w.sum(w.shares(w.xp.exp(likeness(w))) * w.x)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        return weighted_by_likeness(w.x)

    @staticmethod
    def likeness_steps(x: list[float]) -> tuple[list[Step], list[float]]:
        """The mean and the likenesses of the cells to it, as steps; and the likenesses."""
        m = mean(x)
        d = [1.0 if v == 0 == m else 2.0 * abs(v * m) / (v * v + m * m) for v in x]
        ends = ", 1 where both are 0" if m == 0 and 0 in x else ""
        return [Step("m = (1/n) Σ xᵢ", m), Step(f"dᵢ = 2 |xᵢ m| / (xᵢ² + m²){ends}", d)], d

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        first, d = self.likeness_steps(w.x)
        return [*first, *weighted_mean(w.x, "exp(dᵢ)", [math.exp(v) for v in d])]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        (alike, slopes), part = likeness_words(s), s.part

        @s.inline
        def add(w: Any, j: Any, about: Any, t: Any) -> Any:
            x, (m, middle, keep) = s.cell(w, j), about
            e = s.exp_less_one(alike(x, m))
            if keep:
                s.note(w, j, e)
            return t[0] + e, s.fused(e, part * x - middle, t[1])

        both = s.sums(add, 2)

        @s.inline
        def sums(w: Any, keep: bool) -> Any:
            """The mean, Σ exp(dᵢ), and y; `keep` notes exp(dᵢ) − 1 of each cell.

            y = m + Σ (exp(dᵢ) − 1)(xᵢ − m) / Σ exp(dⱼ), for the differences to the mean add up to 0. Where the mean is
            near 0, y is too. Large cells have small dᵢ there, so no term is larger than about m and y keeps its digits;
            slopes as steep as 1/m would show any that it lost. In long sums the roundings of x − m would all go one
            way: there the mean's part is taken off in float64.
            """
            m = s.mean(w)
            more, moment = both(w, (m, s.real(0.0) if s.long else part * m, keep))
            if s.long:
                moment -= more * (s.wide(m) * part)
            total = more + s.count(w)
            return m, total, (part * m + s.real(moment / total)) / part

        @s.inline
        def add_slopes(w: Any, j: Any, about: Any, t: Any) -> Any:
            (m, share, y), x = about, s.cell(w, j)
            weight = (s.noted(w, j) + 1.0) * share
            by_cell, by_mean = slopes(x, m, weight * (x - y))
            s.note(w, j, weight + by_cell)
            return (t[0] + by_mean,)

        slope_of_mean = s.sums(add_slopes, 1)

        def forward(w: Any) -> Any:
            return sums(w, False)[2]

        def gradient(w: Any, g: Any) -> None:
            m, total, y = sums(w, True)
            rest = s.real(slope_of_mean(w, (m, s.real(s.wide(1.0) / total), y))[0] / s.count(w))
            for j in range(s.count(w)):
                s.give(w, j, g * (s.noted(w, j) + rest))

        return forward, gradient


def likeness(w: Cells) -> Any:
    """The Dice-Sørensen coefficients of the cells and their mean, an array like the cells."""
    xp, top = w.xp, w.xp.stop(w.max(w.xp.abs(w.x)))
    # The scale of a window cancels: divided by the largest size nothing overflows. What then vanishes when it is
    # squared is 1e-19 of that size or less in float32, far below the rounding of the mean: 0 beside 0.
    x = w.x / xp.where(top == 0, 1.0, top)
    m = w.mean(x)
    both = x * x + m * m
    return xp.where(both == 0, 1.0, xp.divide(2.0 * xp.abs(x * m), xp.where(both == 0, 1.0, both)))


def weighted_by_likeness(x: list[float]) -> float:
    """The scalar form for the cells of one window."""
    m, weights = math.fsum(x) / len(x), []
    for v in x:
        scale = max(abs(v), abs(m))
        a, b = (v / scale, m / scale) if scale else (1.0, 1.0)
        weights.append(math.exp(2.0 * abs(a * b) / (a * a + b * b)))
    return math.fsum(e * v for e, v in zip(weights, x, strict=True)) / math.fsum(weights)


def likeness_words(s: Any) -> tuple[Any, Any]:
    """In lanes: the likeness of a cell and the mean, and its slopes by the cell and by the mean, times a number."""

    @s.inline
    def ratio(x: Any, m: Any) -> Any:
        """Whether the cell is the smaller one, the larger size, and t."""
        size, middle = s.abs(x), s.abs(m)
        inner = size < middle
        high = s.where(inner, middle, size)
        t = s.where(high == 0.0, 1.0, s.where(inner, size, middle) / high)
        return inner, high, t

    @s.inline
    def usual(both: Any) -> Any:
        """Whether the sum of squares is far from the ends of the range: then one division does."""
        return (both > 1e-30) & (both < 1e30)

    @s.inline
    def alike(x: Any, m: Any) -> Any:
        both = x * x + m * m
        near = 2.0 * s.abs(x * m) / both
        if s.every(usual(both)):
            return near
        t = ratio(x, m)[2]
        return s.where(usual(both), near, 2.0 * t / (t * t + 1.0))

    @s.inline
    def far_slopes(x: Any, m: Any, by: Any) -> Any:
        inner, high, t = ratio(x, m)
        square = t * t
        steep = by / high * (2.0 * (1.0 - square) / ((square + 1.0) * (square + 1.0)))
        flat = 0.0 - t * steep
        along, across = s.where(inner, steep, flat), s.where(inner, flat, steep)
        return s.where(x < 0.0, 0.0 - along, along), s.where(m < 0.0, 0.0 - across, across)

    @s.inline
    def slopes(x: Any, m: Any, by: Any) -> Any:
        both = x * x + m * m
        inverse, a, b = 1.0 / both, s.abs(x), s.abs(m)
        steep = 2.0 * by * inverse * ((b - a) * (b + a) * inverse)
        along, across = s.where(x < 0.0, 0.0 - b, b) * steep, s.where(m < 0.0, a, 0.0 - a) * steep
        if not s.every(usual(both)):
            far_along, far_across = far_slopes(x, m, by)
            along, across = s.where(usual(both), along, far_along), s.where(usual(both), across, far_across)
        return s.where(x == 0.0, 0.0, along), s.where(m == 0.0, 0.0, across)

    return alike, slopes
