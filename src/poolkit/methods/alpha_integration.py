"""Alpha-integration pooling: the α-mean, from the maximum over the mean and the geometric mean to the minimum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import MONOTONE, ORDER_FREE, Card, Values, WindowMethod, param
from poolkit.steps import Step, mean
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
        equation="y = f⁻¹((1/n) Σ f(max(xᵢ, eps))),  f(x) = x^((1 − α)/2), ln x for α = 1",
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

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        x, power = [max(v, p.eps) for v in w.x], 0.5 * (1.0 - p.alpha)
        f = [v**power if power else math.log(v) for v in x]
        name, back = ("x^((1 − α)/2)", "((1/n) Σ f(xᵢ))^(2/(1 − α))") if power else ("ln x", "exp((1/n) Σ f(xᵢ))")
        return [
            Step("max(xᵢ, eps)", x),
            Step(f"f(xᵢ), f(x) = {name}", f),
            Step("(1/n) Σ f(xᵢ)", mean(f)),
            Step(f"y = f⁻¹((1/n) Σ f(xᵢ)) = {back}", mean(f) ** (1 / power) if power else math.exp(mean(f))),
        ]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        learns, (size, bounds, logarithm, sums) = p.learns_alpha, _words(s, p)
        near_slope = _near_slope(s, logarithm)

        def forward(w: Any) -> Any:
            power, _, _, unit, infinite = bounds(w)
            return s.where(infinite, math.inf, sums(w, power, unit, False)[2])

        def gradient(w: Any, g: Any) -> None:
            power, low, top, unit, _ = bounds(w)
            whole, rate, y, base = sums(w, power, unit, True)
            share, moment, size_of_power = 1.0 / whole / s.count(w), s.wide(0.0), s.abs(power)
            for j in range(s.count(w)):
                x, k = s.cell(w, j), s.noted(w, j) * share
                s.give(w, j, s.where(x < p.eps(w), 0.0, g * y * k))
                if learns:
                    weight = k * size(w, x)
                    moment += s.wide(s.where(weight > 0.0, weight * (logarithm(w, j) - base), 0.0))
            if learns:
                slope = (s.real(moment) - rate) / power
                # A cell so much larger than another, relatively, is far from it in logarithms too.
                if not s.every((size_of_power * (top - low) > 2.0 * NEAR * low) & (size_of_power >= NEAR)):
                    near = size_of_power * (s.log(top) - s.log(low)) < NEAR
                    slope = s.where(near, near_slope(w, power, base), slope)
                p.slope_alpha(w, -0.5 * g * y * slope)

        return forward, gradient


def _near_slope(s: Any, logarithm: Any) -> Any:
    """The slope of ln y by the power where that is near 0, in the moments of the logarithms, as a word."""

    @s.inline
    def near_slope(w: Any, power: Any, base: Any) -> Any:
        n, logs, squares, cubes = s.count(w), s.wide(0.0), s.wide(0.0), s.wide(0.0)
        for j in range(n):
            logs += s.wide(logarithm(w, j) - base)
        mean = s.real(logs / n)
        for j in range(n):
            off = logarithm(w, j) - base - mean
            squares += s.wide(off * off)
            cubes += s.wide(off * off * off)
        return 0.5 * s.real(squares / n) + power * s.real(cubes / n) / 3.0

    return near_slope


def _words(s: Any, p: Any) -> tuple[Any, Any, Any, Any]:
    """In lanes: a cell raised to eps; the power and what the window spans; its logarithm; the sums over the cells."""

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

    @s.inline
    def logarithm_of(w: Any, x: Any) -> Any:
        return s.log(size(w, x))

    apart = s.inline(lambda w, j: logarithm_of(w, s.cell(w, j)))
    # With the usual power only the gradient of alpha wants it.
    logarithm = s.once_backward(logarithm_of) if p.learns_alpha else apart
    return size, bounds, logarithm, _sums(s, p, size, logarithm)


def _sums(s: Any, p: Any, size: Any, logarithm: Any) -> Any:
    """In lanes, of a window whose cells are divided by a unit: the mean of their powers, and y."""
    less_than_one, one_over = _less_than_one(s), s.once_backward(lambda w, x: 1.0 / size(w, x))

    @s.inline
    def squares(w: Any, inverse: Any, keep: bool) -> Any:
        """The mean of r², r = x·inverse."""
        total = s.wide(0.0)
        for j in range(s.count(w)):
            part = size(w, s.cell(w, j))
            r = part * inverse
            total = s.plus(total, r, r)
            if keep:
                s.note(w, j, r * inverse)
        return s.real(total * (s.wide(1.0) / s.count(w)))

    @s.inline
    def sums(w: Any, power: Any, unit: Any, keep: bool) -> Any:
        """The mean of eᵢ = exp(power·vᵢ), its logarithm over the power, and y; vᵢ = ln xᵢ − base, and the base.

        `keep` notes eᵢ/xᵢ. Squares, the usual power, are made without logarithms, from cells divided by a power of two.
        """
        two, binade = power == 2.0, s.binade(unit)
        inverse, round_base = 1.0 / binade, s.real(math.log(2)) * s.log2(binade)[0]
        if s.every(two):
            square = squares(w, inverse, keep)
            return square, 0.5 * s.log(square), s.sqrt(square) * binade, round_base
        base = s.log(unit)
        square_total, total, logs = s.wide(0.0), s.wide(0.0), s.wide(0.0)
        for j in range(s.count(w)):
            part = size(w, s.cell(w, j))
            r, v = part * inverse, logarithm(w, j) - base
            e, less = less_than_one(power, v)
            square_total = s.plus(square_total, r, r)
            total += s.wide(less)
            logs += s.wide(v)  # their mean counts where the power is 0
            if keep:
                s.note(w, j, s.where(two, r * inverse, e * one_over(w, j)))
        q, mean, square = (
            s.real(total / s.count(w)),
            s.real(logs / s.count(w)),
            s.real(square_total * (s.wide(1.0) / s.count(w))),
        )
        whole = q + 1.0
        log = s.where(whole == 1.0, q, s.log(whole) * (q / (whole - 1.0)))
        rate = s.where(power == 0.0, mean, log / power)
        y = s.where(two, s.sqrt(square) * binade, unit * s.exp(rate))
        rate, base = s.where(two, 0.5 * s.log(square), rate), s.where(two, round_base, base)
        return s.where(two, square, whole), rate, y, base

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
