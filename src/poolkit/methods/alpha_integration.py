"""Alpha-integration pooling: the α-mean, from the maximum over the mean and the geometric mean to the minimum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import MONOTONE, ORDER_FREE, Card, Values, WindowMethod, param
from poolkit.xp import Cells, OneWindow

NEAR = 1e-4  # where the power times the spread of the logarithms is less, a series in the power takes over


@dataclass(frozen=True)
class AlphaIntegration(WindowMethod):
    """The α-mean of the cells, those below a small positive number raised to it.

        y = f⁻¹((1/n) Σ f(max(xᵢ, eps))),   f(x) = x^((1 − α)/2),   f(x) = ln x for α = 1

    α = −1 is the mean, α = 1 the geometric and α = 3 the harmonic mean; α → −∞ is the maximum, α → ∞ the minimum. For
    α < 1 it is the power mean `gem` with p = (1 − α)/2; this spelling goes on through p = 0 to negative powers, so that
    a network may learn α freely, `AlphaIntegration(alpha=learn())`. It works on logarithms, in which no power
    overflows, with a series close to α = 1. Made for activations after a ReLU.

    Example:
        >>> round(AlphaIntegration(alpha=3).oracle(OneWindow.of([1, 4, 4]), AlphaIntegration(alpha=3).values()), 4)
        2.0
    """

    alpha: float = param(
        -3.0,
        low=-1999.0,
        high=1999.0,
        learnable=True,
        learns_freely=True,
        says="small: max … −1: mean … 1: geometric mean … 3: harmonic mean … large: min",
        tries=(-1.0, 1.0, 3.0, -41.0, 1.0001, 0.5),
    )
    eps: float = param(1e-6, low=1e-30, high=1.0, says="smaller cells count as this", tries=(1e-3,))

    card: ClassVar[Card] = Card(
        name="alpha-integration",
        title="Alpha-integration pooling",
        equation="y = f⁻¹((1/n) Σ f(xᵢ)),  f(x) = x^((1 − α)/2), ln x for α = 1",
        source="H. Eom, H. Choi, Alpha-integration pooling for convolutional neural networks, 2018, arXiv:1811.03436",
        family="power mean",
        facts=(ORDER_FREE, MONOTONE),
        same=(("alpha-integration:alpha=-1,eps=1e-30", "avg"), ("alpha-integration:alpha=-5", "gem:p=3")),
        limits=(("alpha-integration:alpha=-1999", "max"), ("alpha-integration:alpha=1999", "min")),
        domain="nonnegative",
        released="No released code was found. Only the abstract was verified: the value from which the paper starts α, "
        "and its rule for zeros, are not known; −3, the quadratic mean, and eps stand here.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        xp = w.xp
        x = xp.clip(w.x, p.eps, None)
        low, top = xp.stop(w.min(x)), xp.stop(w.max(x))
        power = 0.5 * (1.0 - p.alpha) * xp.ones(top, top.shape)
        # y is homogeneous in x: the scale is a constant to the gradient, and no power of what is left exceeds 1.
        scale = xp.where(power < 0, low, top)
        scale = xp.where(xp.isfinite(scale), scale, 1.0)
        v = w.only(xp.log(x) - xp.log(scale), 0.0)
        mean = w.mean(v)
        near = (xp.abs(power) * (xp.log(top) - xp.log(low)) < NEAR) | (power == 0)
        off = xp.where(xp.isfinite(mean), v - mean, 0.0)
        series = mean + power * (0.5 * w.mean(off * off) + power / 6.0 * w.mean(off * off * off))
        safe = xp.where(near, xp.where(power < 0, -1.0 + 0.0 * power, 1.0), power)
        u = safe * v
        # The gradient of expm1 is found from its value, in which a small exponential is lost.
        less = xp.where(u < -0.5, xp.exp(u) - 1.0, xp.expm1(u))
        exact = xp.log1p(w.mean(less)) / safe
        return scale * xp.exp(xp.where(near, series, exact))

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        x, power = [max(v, p.eps) for v in w.x], 0.5 * (1.0 - p.alpha)
        scale = min(x) if power < 0 else max(x)
        if math.isinf(scale):
            return scale
        if power == 0:
            return scale * math.exp(math.fsum(math.log(v / scale) for v in x) / w.n)
        mean = math.fsum(math.expm1(power * math.log(v / scale)) for v in x) / w.n
        rate = math.log1p(mean) / power
        return scale * math.exp(rate) if rate < 709.0 else math.inf

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        learns, (size, bounds, sums) = p.learns_alpha, _words(s, p)

        def forward(w: Any) -> Any:
            power, _, _, unit, infinite = bounds(w)
            return s.where(infinite, math.inf, sums(w, power, unit, False)[3])

        def gradient(w: Any, g: Any) -> None:
            power, low, top, unit, _ = bounds(w)
            base = s.log(unit)
            whole, rate, mean, y = sums(w, power, unit, True)
            share, moment, squares, cubes = 1.0 / whole / s.count(w), s.wide(0.0), s.wide(0.0), s.wide(0.0)
            for j in range(s.count(w)):
                x = s.cell(w, j)
                weight, part = s.noted(w, j) * share, size(w, x)
                s.give(w, j, s.where(x < p.eps(w), 0.0, g * (weight * y / part)))
                if learns:
                    v = s.log(part) - base
                    off = v - mean
                    moment += s.wide(s.where(weight > 0.0, weight * v, 0.0))
                    squares += s.wide(off * off)
                    cubes += s.wide(off * off * off)
            if learns:
                n = s.count(w)
                near = s.abs(power) * (s.log(top) - s.log(low)) < NEAR
                series = 0.5 * s.real(squares / n) + power * s.real(cubes / n) / 3.0
                slope = s.where(near, series, (s.real(moment) - rate) / power)
                p.slope_alpha(w, -0.5 * g * y * slope)

        return forward, gradient


def _words(s: Any, p: Any) -> tuple[Any, Any, Any]:
    """In lanes: a cell raised to eps; the power and what the window spans; the sums over its cells."""

    @s.inline
    def size(w: Any, x: Any) -> Any:
        return s.where(x < p.eps(w), p.eps(w), x)

    @s.inline
    def bounds(w: Any) -> Any:
        """The power, the smallest and the largest cell, the one of them to divide by, and whether it is infinite."""
        power = (1.0 - p.alpha(w)) * 0.5
        low = size(w, s.cell(w, 0))
        top = low
        for j in range(1, s.count(w)):
            v = size(w, s.cell(w, j))
            low, top = s.where(v < low, v, low), s.where(v > top, v, top)
        unit = s.where(power < 0.0, low, top)
        return power, low, top, s.where(unit < math.inf, unit, 1.0), unit == math.inf

    return size, bounds, _sums(s, p, size)


def _sums(s: Any, p: Any, size: Any) -> Any:
    """In lanes, of a window whose cells are divided by a unit: the mean of their powers, and y."""
    less_than_one = _less_than_one(s)

    @s.inline
    def squares(w: Any, base: Any, inverse: Any, keep: bool) -> Any:
        """The mean of r², r = x·inverse, and that of ln x − base where the slope of the power needs it."""
        total, logs = s.wide(0.0), s.wide(0.0)
        for j in range(s.count(w)):
            part = size(w, s.cell(w, j))
            r = part * inverse
            total = s.plus(total, r, r)
            if keep:
                s.note(w, j, r * r)
            if keep and p.learns_alpha:
                logs += s.wide(s.log(part) - base)
        return s.real(total / s.count(w)), s.real(logs / s.count(w))

    @s.inline
    def sums(w: Any, power: Any, unit: Any, keep: bool) -> Any:
        """The mean of eᵢ = exp(power·vᵢ), its logarithm over the power, the mean of vᵢ = ln(xᵢ/unit), and y.

        `keep` notes eᵢ. Squares, the usual power, are made without logarithms, from cells divided by a power of two.
        """
        base, two, inverse = s.log(unit), power == 2.0, 1.0 / s.binade(unit)
        if s.every(two):
            square, mean = squares(w, base, inverse, keep)
            return square, 0.5 * s.log(square) - s.log(unit * inverse), mean, s.sqrt(square) / inverse
        square_total, total, logs = s.wide(0.0), s.wide(0.0), s.wide(0.0)
        for j in range(s.count(w)):
            part = size(w, s.cell(w, j))
            r, v = part * inverse, s.log(part) - base
            e, less = less_than_one(power, v)
            square_total = s.plus(square_total, r, r)
            total += s.wide(less)
            logs += s.wide(v)  # their mean counts where the power is 0
            if keep:
                s.note(w, j, s.where(two, r * r, e))
        q, mean, square = s.real(total / s.count(w)), s.real(logs / s.count(w)), s.real(square_total / s.count(w))
        whole = q + 1.0
        log = s.where(whole == 1.0, q, s.log(whole) * (q / (whole - 1.0)))
        rate = s.where(power == 0.0, mean, log / power)
        rate_of_square = 0.5 * s.log(square) - s.log(unit * inverse)
        y = s.where(two, s.sqrt(square) / inverse, unit * s.exp(rate))
        return s.where(two, square, whole), s.where(two, rate_of_square, rate), mean, y

    return sums


def _less_than_one(s: Any) -> Any:
    """In lanes: exp(power·v), and what it lacks of 1."""

    @s.inline
    def less_than_one(power: Any, v: Any) -> Any:
        u = power * v
        e = s.falling_exp(u)
        less = e - 1.0
        if not s.every(s.abs(power) >= 0.05):
            # Near 0 the difference has few digits left; the logarithm of e as it was rounded brings them back.
            plain = (s.abs(power) >= 0.05) | (e < 0.5)
            less = s.where(plain, less, s.where(e == 1.0, u, less * (u / s.log(e))))
        return e, less

    return less_than_one
