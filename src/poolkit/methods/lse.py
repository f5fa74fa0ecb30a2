"""Log-sum-exp pooling, as a mean: a smooth way from the minimum over the mean to the maximum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, MONOTONE, ORDER_FREE, SHIFTS, Card, Values, WindowMethod, param
from poolkit.steps import Step, mean
from poolkit.xp import Cells, OneWindow

GENTLE = 0.0625  # r times the spread of a window below which the logarithm would cancel, and series take its place
NEAR = 4.0  # exponents whose rounding is small beside that of the sum
FARTHEST = 3e38  # keeps 0 · (−∞) out where cells lie farther apart than the largest number


@dataclass(frozen=True)
class LSE(WindowMethod):
    """The logarithm of the mean exponential of the cells.

        y = (1/r) log((1/n) Σ exp(r xᵢ))

    r = 0 is the mean, r → ∞ the maximum, r → −∞ the minimum; a learned r passes through 0 smoothly. The largest r xᵢ
    is taken out first where it is large, so that nothing overflows; where r times the spread of the cells is small,
    series replace the logarithm. The gradient is the softmax of r x, that of r at 0 half the variance of the cells. An
    infinite cell counts as it is.

    No one r is usual: Pinheiro and Collobert are said to have 5, which could not be checked, released code starts from
    10 or 20; 1 is the function by its name.

    Example:
        >>> round(LSE(r=1).oracle(OneWindow.of([1, 4, 3, 2]), LSE(r=1).values()), 4)
        3.0539
    """

    r: float = param(
        1.0,
        low=-1000.0,  # r times a cell of 10⁴ stays well inside float32
        high=1000.0,
        learnable=True,
        learns_freely=True,
        says="0: mean … large: max … negative: towards min",
        tries=(0.0, 1e-3, 5.0, -2.0, 50.0),
    )

    card: ClassVar[Card] = Card(
        name="lse",
        title="Log-sum-exp pooling (LogAvgExp)",
        equation="y = (1/r) log((1/n) Σ exp(r xᵢ))",
        source="P. O. Pinheiro, R. Collobert, From image-level to pixel-level labeling with convolutional networks, "
        "CVPR 2015; learned r: S. C. Lowe et al., LogAvgExp provides a principled and performant "
        "global pooling operator, 2021, arXiv:2111.01742",
        family="exponential mean",
        facts=(BETWEEN, ORDER_FREE, SHIFTS, CONSTANT, MONOTONE),
        same=(("lse:r=0", "avg"),),
        limits=(("lse:r=1000", "max"), ("lse:r=-1000", "min")),
        released="Some code drops the 1/n, which adds log(n)/r and depends on the window's size. Code that divides by "
        "a learned r gives NaN at r = 0.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        xp = w.xp
        r = p.r * xp.ones(w.x, (1,) * (len(w.x.shape) - 1))
        flip = xp.where(r < 0, -1.0, 1.0)  # a negative r is a positive one of −x
        a = flip * r
        top = xp.stop(w.max(flip * w.x))
        base = xp.where(xp.isfinite(top), top, 0.0)
        # Halves: the cells may lie farther apart than the largest number.
        unit = xp.stop(0.5 * base - 0.5 * w.min(flip * w.x))
        gentle = xp.stop((a * unit < 0.5 * GENTLE) | (a == 0))
        # Each branch gets harmless numbers where the other one counts: its gradient must be finite there too.
        steep, d = xp.where(gentle, 1.0, a), w.only(xp.where(gentle, 0.0, flip * w.x - base), 0.0)
        by_logarithm = xp.log(w.mean(xp.exp(steep * xp.clip(d, -FARTHEST, None)))) / steep
        half = xp.where(gentle, w.only(0.5 * flip * w.x - 0.5 * base, 0.0), 0.0)
        # The exponent by way of the spread: what the gradient of r multiplies with is multiplied with once, at the end.
        unit = xp.where((unit > 0) & xp.isfinite(unit), unit, 1.0)
        z = 2.0 * (xp.where(gentle, a, 0.0) * unit) * xp.clip(half / unit, -FARTHEST, None)
        by_series = w.sum(half * _exponential(z) / w.n) * _logarithm(w.mean(z * _exponential(z)))
        y = xp.where(gentle, 2.0 * (0.5 * top + by_series), top + xp.where(gentle, 0.0, by_logarithm))
        return flip * xp.where(xp.isfinite(top), y, top)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        top = max(w.x) if p.r >= 0 else min(w.x)
        if math.isinf(top):
            return top
        if p.r == 0:
            return math.fsum(w.x) / w.n
        return top + math.log1p(math.fsum(math.expm1(p.r * (v - top)) for v in w.x) / w.n) / p.r

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        if p.r == 0:
            return [Step("y = (1/n) Σ xᵢ, the limit for r → 0", mean(w.x))]
        e = [math.exp(p.r * v) for v in w.x]
        return [
            Step("exp(r xᵢ)", e),
            Step("(1/n) Σ exp(r xᵢ)", mean(e)),
            Step("log((1/n) Σ exp(r xᵢ))", math.log(mean(e))),
            Step("y = (1/r) log((1/n) Σ exp(r xᵢ))", math.log(mean(e)) / p.r),
        ]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        learns, frame, total_of, own_term, series = p.learns_r, *_parts(s, p)
        gentle_slope = _gentle_slope(s)

        def forward(w: Any) -> Any:
            flip, a, top, unit = frame(w)
            steep = (a > 0.0) & ((2.0 * (a * unit) >= GENTLE) | (unit == 0.0))
            total, _, good = total_of(w, flip, a, top, unit, False)
            # The terms of windows that overlap lead to y itself. Of large exponents they have lost digits in common,
            # which a ratio to the largest term gives back.
            near, off = good & (a * s.abs(top) < NEAR), top
            if s.shared:
                if s.every(near):
                    off = s.real(0.0)
                else:
                    total /= s.wide(s.where(near, 1.0, own_term(w, flip * top, good)))
                    off = s.where(near, 0.0, top)
            y = off + s.log(s.real(total / s.count(w))) / a
            if not s.every(steep):
                y = s.where(steep, y, 2.0 * (0.5 * top + series(w, flip, a, top)))
            return flip * s.where((unit == 0.0) | (s.abs(top) == math.inf), top, y)

        def gradient(w: Any, g: Any) -> None:
            flip, a, top, unit = frame(w)
            unit = s.unit_of(unit)
            total, moment, good = total_of(w, flip, a, top, unit, True)
            largest = s.wide(own_term(w, flip * top, good))
            share, mean = s.real(s.wide(1.0) / total), s.real(moment / total)
            for j in range(s.count(w)):
                s.give(w, j, g * (s.noted(w, j) * share))
            if learns:
                slope = g * ((2.0 * (unit * mean) - s.log(s.real(total / (s.count(w) * largest))) / a) / a)
                c = 2.0 * (a * unit)
                if not s.every(c >= GENTLE):
                    slope = s.where(c < GENTLE, g * gentle_slope(w, (flip, top, unit), (share, mean), c), slope)
                p.slope_r(w, slope)

        return forward, gradient


def _gentle_slope(s: Any) -> Any:
    """The slope of y by r where r is small, as a word.

    The difference of the weighted mean and y cancels there: its series in the cumulants, of cells divided by their
    spread, which comes back at the end: their fourth powers would overflow.
    """

    @s.inline
    def gentle_slope(w: Any, frame: Any, weights: Any, c: Any) -> Any:
        (flip, top, unit), (share, mean) = frame, weights
        second, third, fourth = s.wide(0.0), s.wide(0.0), s.wide(0.0)
        for j in range(s.count(w)):
            weight, off = s.noted(w, j) * share, (0.5 * flip * s.cell(w, j) - 0.5 * top) / unit - mean
            second += s.wide(weight * off * off)
            third += s.wide(weight * off * off * off)
            fourth += s.wide(weight * off * off * off * off)
        two, three, four = s.real(second), s.real(third), s.real(fourth)
        small = two / 2.0 - c * three / 6.0 + c * c * (four - 3.0 * two * two) / 24.0
        return 2.0 * (unit * (2.0 * (unit * small)))

    return gentle_slope


def _exponential(z: Any) -> Any:
    """(exp(z) − 1)/z for small z."""
    y = 1.0 + z / 9.0
    for k in range(8, 1, -1):
        y = 1.0 + z / k * y
    return y


def _logarithm(m: Any) -> Any:
    """log(1 + m)/m for small m."""
    t = m / (2.0 + m)
    t = t * t
    return 1.0 / (1.0 + 0.5 * m) * (1.0 + t * (1 / 3 + t * (1 / 5 + t * (1 / 7 + t / 9))))


def _parts(s: Any, p: Any) -> tuple[Any, Any, Any, Any]:
    """Words of one window, d = ±xᵢ − top: (sign, |r|, top, half the spread); Σ e and, of `keep`, Σ e d/spread with
    terms e in the proportions of exp(a d), and whether they are of a good window; the largest term; half the series.
    """

    from poolkit.kernels.softmax import exponentials

    @s.inline
    def frame(w: Any) -> Any:
        flip, low, high = s.where(p.r(w) < 0.0, s.real(-1.0), 1.0), s.cell(w, 0), s.cell(w, 0)
        for j in range(1, s.count(w)):
            v = s.cell(w, j)
            low, high = s.where(v < low, v, low), s.where(v > high, v, high)
        return flip, flip * p.r(w), s.where(flip < 0.0, 0.0 - low, high), 0.5 * high - 0.5 * low

    good_of, own_term, term = exponentials(s, p.r)

    @s.inline
    def add(w: Any, j: Any, about: Any, t: Any) -> Any:
        ((flip, a, top), inverse, good, keep), moment = about, t[1]
        d = flip * s.cell(w, j) - top
        e = term(w, j, good, a * s.where(d < -FARTHEST, -FARTHEST, d))
        if keep:
            s.note(w, j, e)
            half = 0.5 * flip * s.cell(w, j) - 0.5 * top
            moment = moment + e * (s.where(half < -FARTHEST, -FARTHEST, half) * inverse)
        return t[0] + e, moment

    both = s.sums(add, 2)

    @s.inline
    def total_of(w: Any, flip: Any, a: Any, top: Any, unit: Any, keep: bool) -> Any:
        good = good_of(w, flip * top)
        total, moment = both(w, ((flip, a, top), 1.0 / unit, good, keep))
        return total, moment, good

    exponential, logarithm = s.inline(_exponential), s.inline(_logarithm)

    @s.inline
    def series(w: Any, flip: Any, a: Any, top: Any) -> Any:
        first, second = s.wide(0.0), s.wide(0.0)
        for j in range(s.count(w)):
            half = 0.5 * flip * s.cell(w, j) - 0.5 * top
            z = 2.0 * a * s.where(half < -FARTHEST, -FARTHEST, half)
            e = exponential(z)
            first += s.wide(half * e / s.count(w))
            second += s.wide(z * e)
        return s.real(first) * logarithm(s.real(second / s.count(w)))

    return frame, total_of, own_term, series
