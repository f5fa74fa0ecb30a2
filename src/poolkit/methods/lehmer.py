"""Lehmer pooling: the quotient of two power sums that follow each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, ORDER_FREE, Card, Values, WindowMethod, param
from poolkit.methods.value_weighted import refinement
from poolkit.steps import Step, products, quotient
from poolkit.xp import Cells, OneWindow

GENTLE = 0.0625  # spread of a window below which the logarithm would cancel, and series take its place


@dataclass(frozen=True)
class Lehmer(WindowMethod):
    """The Lehmer mean of the cells.

        y = Σ xᵢᵖ⁺¹ / Σ xᵢᵖ
        form="soft": y = log(Σ exp((p + 1) xᵢ) / Σ exp(p xᵢ))

    It is the mean of the cells with weights |xᵢ|ᵖ, so that cells of both signs and any p ≥ 0 are allowed; it is meant
    for x ≥ 0. p = 0 is the mean, p = 1 value-weighted pooling, p → ∞ the maximum. It can fall when a cell rises. A
    window of zeros gives 0, a zero cell has no gradient; a window that holds ±∞ gives NaN for p > 0. Cells are divided
    by a power of two near the largest size first, so that no power overflows.

    The soft form is the Lehmer mean of exp(x), of which the logarithm is taken: it sees no sign, shifts with its input,
    and is the logarithm of the mean exponential for p = 0.

    Example:
        >>> Lehmer(p=1).oracle(OneWindow.of([1, 4, 3, 2]), Lehmer(p=1).values())
        3.0
    """

    p: float = param(
        1.0, low=0.0, high=1000.0, learnable=True, says="0: mean … large: max", tries=(0.0, 0.5, 2.0, 20.0)
    )
    form: str = param(
        "power", choices=("power", "soft"), says="powers of the cells or of their exponentials", tries=("soft",)
    )

    card: ClassVar[Card] = Card(
        name="lehmer",
        title="Lehmer pooling",
        equation="y = Σ xᵢᵖ⁺¹ / Σ xᵢᵖ",
        source="the mean of D. H. Lehmer, On the compounding of certain means, J. Math. Anal. Appl. 36 (1971) 183–200, "
        "as the pooling layer of the library FlexNets",
        family="power mean",
        facts=(BETWEEN, ORDER_FREE, CONSTANT),
        same=(("lehmer:p=0", "avg"), ("lehmer:p=1", "value-weighted"), ("lehmer:p=0,form=soft", "lse:r=1")),
        limits=(("lehmer:p=1000", "max"), ("lehmer:p=1000,form=soft", "max")),
        domain="nonnegative",
        released="Released code computes the powers directly: a window of zeros gives 0/0, negative cells give NaN "
        "with most p, and the exponentials of the soft form overflow. No paper on the layer was found.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        xp = w.xp
        if p.form == "soft":
            top = xp.stop(w.max(w.x))
            # The mean of exp(x − top) with weights exp(p x), less 1: of near cells nothing cancels.
            return top + xp.log1p(w.sum(w.softmax(p.p * w.x) * xp.expm1(w.only(w.x - top, 0.0))))
        # y is homogeneous in x: the scale cancels exactly, so it is a constant to the gradient.
        top = xp.stop(w.max(xp.abs(w.x)))
        scale = xp.where((top > 0) & xp.isfinite(top), top, 1.0)
        r = w.x / scale
        size = xp.abs(r)
        # Powers of 0 have derivatives through log 0: zeros get a base of 1 and their weight afterwards.
        weights = xp.power(xp.where(size == 0, 1.0, size), p.p)
        weights = xp.where((size == 0) & (size < p.p), 0.0 * size, weights)
        total = w.sum(weights)
        return scale * (w.sum(weights * r) / xp.where(total == 0, 1.0, total))

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        if p.form == "soft":
            top = max(w.x)
            weights = [math.exp(p.p * (v - top)) for v in w.x]
            above = math.fsum(a * math.expm1(v - top) for a, v in zip(weights, w.x, strict=True))
            return top + math.log1p(above / math.fsum(weights))
        top = max(map(abs, w.x))
        if top == 0.0 or (math.isinf(top) and p.p > 0):
            return 0.0 * top
        weights = [(abs(v) / top) ** p.p if p.p > 0 else 1.0 for v in w.x]
        return math.fsum(a * v for a, v in zip(weights, w.x, strict=True)) / math.fsum(weights)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        if p.form == "power":
            over, under = ("|xᵢ|ᵖ xᵢ", "|xᵢ|ᵖ") if min(w.x) < 0 else ("xᵢᵖ⁺¹", "xᵢᵖ")
            powers = [abs(v) ** p.p for v in w.x]
            return quotient(over, products(powers, w.x), under, powers)
        high, low = [math.exp((p.p + 1.0) * v) for v in w.x], [math.exp(p.p * v) for v in w.x]
        *found, last = quotient("exp((p + 1) xᵢ)", high, "exp(p xᵢ)", low)
        y = math.fsum(high) / math.fsum(low)
        text = last.text.removeprefix("y = ")
        return [*found, Step(text, y), Step(f"y = log({text})", math.log(y))]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        return _soft(s, p) if self.form == "soft" else _power(s, p)


def _power(s: Any, p: Any) -> tuple[Any, Any]:
    from poolkit.kernels.power import LN2

    learns, quick, (inverse_of, sums) = p.learns_p, _quick(s, p), _power_words(s, p)
    careful_gradient = _careful_gradient(s, p, inverse_of, sums)

    def logarithm_of(w: Any, x: Any) -> Any:
        e, f = s.log2(s.abs(x))
        return s.real(LN2) * (e + f)

    logarithm = s.once_backward(logarithm_of) if learns else s.inline(lambda w, j: s.real(0.0))

    def forward(w: Any) -> Any:
        _, y, good = quick(w)
        if s.every(good):
            return y
        inverse = inverse_of(w)
        return s.where(good, y, sums(w, inverse)[1] / inverse)

    def gradient(w: Any, g: Any) -> None:
        total, y, good = quick(w)
        n, share, change = s.count(w), g / total, s.wide(0.0)
        e, f = s.log2(s.where(s.abs(y) > s.tiny, s.abs(y), 1.0))
        middle = s.real(LN2) * (e + f)  # Σ |x|ᵖ (x − y) is 0: any number may be taken off the logarithms
        for j in range(n):
            x, d = s.cell(w, j), s.noted(w, n + j)
            off = s.where(x < 0.0, y - x, x - y)
            s.note(w, n + j, share * d * (s.abs(x) + p.p(w) * off))
            if learns:
                alive = s.abs(x) >= s.tiny
                change += s.wide(s.where(alive, s.noted(w, j) * (logarithm(w, j) - middle) * (x - y), 0.0))
        slope = share * s.real(change)
        if not s.every(good):
            slope = s.where(good, slope, careful_gradient(w, g, good))
        for j in range(n):
            s.give(w, j, s.noted(w, n + j))
        if learns:
            p.slope_p(w, slope)

    return forward, gradient


def _quick(s: Any, p: Any) -> Any:
    """Of a window, as a word: Σ |x|ᵖ (or 1), y, and whether the sums lie well within the range of numbers.

    It notes |x|ᵖ, and after the cells |x|ᵖ⁻¹.
    """
    from poolkit.kernels.power import kind_of_power, power_slope

    kind_of, slope, shared = kind_of_power(s), power_slope(s), s.shared
    known_slope = s.once(lambda w, x: slope(p.p(w), kind_of(p.p(w)), s.abs(x)))

    @s.inline
    def quick(w: Any) -> Any:
        power, n, top = p.p(w), s.count(w), s.real(0.0)
        kind, total, moment, rest = kind_of(power), s.wide(0.0), s.wide(0.0), s.wide(0.0)
        for j in range(n):
            x = s.cell(w, j)
            r = s.abs(x)
            d = known_slope(w, j) if shared and kind <= 0 else slope(power, kind, r)
            e = d * r
            total += s.wide(e)
            moment = s.plus(moment, e, x)
            top = s.where(r > top, r, top)
            s.note(w, j, e)
            s.note(w, n + j, d)
        size = s.wide(top)
        good = (total > 1e-30) & (total < 1e30) & (total * size > 1e-30) & (total * size < 1e30)
        # Of smaller powers even the smallest cells count.
        good = (good | ((total == 0.0) & (top == 0.0))) & (power >= 0.5)
        total = s.where(total == 0.0, 1.0, total)
        y = s.real(moment / total)
        if not s.long:  # what the sums have rounded away
            for j in range(n):
                rest = s.plus(rest, s.noted(w, j), s.cell(w, j) - y)
            y += s.real(rest / total)
        return s.real(total), y, good

    return quick


def _careful_gradient(s: Any, p: Any, inverse_of: Any, sums: Any) -> Any:
    """Where a window is not good: the power's gradient, as a word, and the cells' in the notes."""
    learns = p.learns_p

    @s.inline
    def careful_gradient(w: Any, g: Any, good: Any) -> Any:
        inverse, change, n = inverse_of(w), s.wide(0.0), s.count(w)
        total, y = sums(w, inverse)
        share = g * s.real(s.wide(1.0) / total)
        for j in range(n):
            e, r = s.noted(w, j), s.cell(w, j) * inverse
            alive = s.abs(r) > s.tiny
            ratio = s.where(alive, (r - y) / r, 0.0)
            s.note(w, n + j, s.where(good, s.noted(w, n + j), share * e * (1.0 + p.p(w) * ratio)))
            if learns:
                change += s.wide(s.where(alive & (e > 0.0), e * s.normal_log(s.abs(r)) * (r - y), 0.0))
        return share / inverse * s.real(change)

    return careful_gradient


def _power_words(s: Any, p: Any) -> tuple[Any, Any]:
    """Words of one window: 1/2ᵏ with the binade 2ᵏ of the largest size; Σ |r|ᵖ (or 1) and y/2ᵏ, with r = x/2ᵏ."""
    refined = refinement(s, s.cell, s.inline(lambda w, j, r: s.noted(w, j)))

    @s.inline
    def inverse_of(w: Any) -> Any:
        top = s.abs(s.cell(w, 0))
        for j in range(1, s.count(w)):
            v = s.abs(s.cell(w, j))
            top = s.where((v > top) | (v != v), v, top)
        unit = s.unit_of(top)
        # r < 2, whose powers stay within the range; of large powers r ≤ 1.
        return 1.0 / s.where(p.p(w) < 100.0, s.binade(unit), unit)

    @s.inline
    def power(w: Any, r: Any) -> Any:
        """rᵖ; 1 and 2 without a logarithm."""
        one, two, usual = p.p(w) == 1.0, p.p(w) == 2.0, (p.p(w) > 0.0) & (p.p(w) < 100.0)
        if s.every(one):
            return r
        if s.every(two):
            return r * r
        # r < 2, so that the power stays within what this exponential can do; 0, ∞ and NaN are their own powers.
        e = s.where((r > 0.0) & (r < math.inf), s.falling_exp(p.p(w) * s.normal_log(r)), r)
        if not s.every(usual):
            e = s.where(usual, e, s.where(p.p(w) == 0.0, 1.0, s.exp(p.p(w) * s.log(r))))
        return s.where(one, r, s.where(two, r * r, e))

    @s.inline
    def sums(w: Any, inverse: Any) -> Any:
        """It notes each power."""
        total, moment = s.wide(0.0), s.wide(0.0)
        for j in range(s.count(w)):
            r = s.cell(w, j) * inverse
            e = power(w, s.abs(r))
            total += s.wide(e)
            moment = s.plus(moment, e, r)
            s.note(w, j, e)
        total = s.where(total == 0.0, 1.0, total)
        return total, refined(w, inverse, s.real(total), s.real(moment / total))

    return inverse_of, sums


def _soft(s: Any, p: Any) -> tuple[Any, Any]:
    learns, series = p.learns_p, _series(s, p)

    @s.inline
    def sums(w: Any, top: Any, q: Any) -> Any:
        """Σ exp(q d) and Σ d exp(q d), d = xᵢ − top."""
        total, moment = s.wide(0.0), s.wide(0.0)
        for j in range(s.count(w)):
            d = s.cell(w, j) - top
            e = s.falling_exp(q * d)
            total += s.wide(e)
            if learns:
                moment += s.wide(d * e)
        return s.real(total), s.real(moment / total)

    def forward(w: Any) -> Any:
        top = s.largest(w)
        steep = top - s.smallest(w) >= GENTLE
        over, under = sums(w, top, p.p(w) + 1.0)[0], sums(w, top, p.p(w))[0]
        y = s.log(over / under)
        if not s.every(steep):
            y = s.where(steep, y, series(w, top, under))
        return top + y

    def gradient(w: Any, g: Any) -> None:
        top, q = s.largest(w), p.p(w)
        over, mean_over = sums(w, top, q + 1.0)
        under, mean_under = sums(w, top, q)
        for j in range(s.count(w)):
            d = s.cell(w, j) - top
            s.give(w, j, g * ((q + 1.0) * s.falling_exp((q + 1.0) * d) / over - q * s.falling_exp(q * d) / under))
        if learns:
            p.slope_p(w, g * (mean_over - mean_under))

    return forward, gradient


def _series(s: Any, p: Any) -> Any:
    """log(1 + m) of the mean m of exp(d) − 1 with weights exp(p d), whose sum is `under`, for small d, as a word."""

    @s.inline
    def series(w: Any, top: Any, under: Any) -> Any:
        total = s.wide(0.0)
        for j in range(s.count(w)):
            d = s.cell(w, j) - top
            h = 1.0 + d / 6.0 * (1.0 + d / 7.0 * (1.0 + d / 8.0 * (1.0 + d / 9.0)))
            h = 1.0 + d / 2.0 * (1.0 + d / 3.0 * (1.0 + d / 4.0 * (1.0 + d / 5.0 * h)))
            total += s.wide(s.falling_exp(p.p(w) * d) * d * h)
        m = s.real(total) / under
        t = m / (2.0 + m)
        return 2.0 * t * (1.0 + t * t * (1 / 3 + t * t * (1 / 5 + t * t * (1 / 7 + t * t / 9))))

    return series
