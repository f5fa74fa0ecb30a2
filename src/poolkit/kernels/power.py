"""The power mean in lanes, which `lp` and `gem` take of different sizes of their cells."""

from __future__ import annotations

import math
from typing import Any

LN2 = math.log(2)


def power_mean(s: Any, p: Any, size: Any, towards: Any, averaged: bool) -> tuple[Any, Any]:
    """((1/n) Σ sizeᵢᵖ)^(1/p), with or without the 1/n, and its gradient.

    Args:
        s, p: the words and the parameters; the power is `p.p`.
        size: the size ≥ 0 of a cell, `size(w, x)`.
        towards: the gradient of a cell from that of its size, `towards(w, x, slope)`.
        averaged: whether there is the 1/n.

    The sum is of the powers as they are where it lies well within the range of numbers, or all are 0. Elsewhere sizes
    are divided by the largest one first; where that one is infinite or NaN, so is y.
    """
    learns, kind_of = p.learns_p, kind_of_power(s)
    quick, root = _quick(s, p, size, kind_of), _root(s, averaged)
    careful, careful_gradient = _careful(s, p, size, root)

    def forward(w: Any) -> Any:
        power = p.p(w)
        kind = kind_of(power)
        total, _, good = quick(w, power, kind, False)
        y = root(w, power, kind, total)[0]
        return y if s.every(good) else s.where(good, y, careful(w, power, kind))

    def gradient(w: Any, g: Any) -> None:
        power = p.p(w)
        kind = kind_of(power)
        total, logs, good = quick(w, power, kind, True)
        y, log = root(w, power, kind, total)
        g_alive, alive = s.where(total > 0.0, g, 0.0), s.where(total > 0.0, s.real(total), 1.0)
        share, turn = g_alive * y / alive, s.real(logs) / alive - s.where(total > 0.0, log, 0.0)
        slope = g_alive * (y / power * turn)
        if not s.every(good):
            safe_share, safe_slope = careful_gradient(w, g, power, kind, good)
            share, slope = s.where(good, share, safe_share), s.where(good, slope, safe_slope)
        for j in range(s.count(w)):
            s.give(w, j, towards(w, s.cell(w, j), share * s.noted(w, j)))
        if learns:
            p.slope_p(w, slope)

    return forward, gradient


def kind_of_power(s: Any) -> Any:
    """As a word: 1, 2 or 3 where all powers are that, the usual ones without logarithms; 0 where none is; else −1."""

    @s.inline
    def kind(power: Any) -> int:
        if s.every((power != 1.0) & (power != 2.0) & (power != 3.0)):
            return 0
        return 1 if s.every(power == 1.0) else 2 if s.every(power == 2.0) else 3 if s.every(power == 3.0) else -1

    return kind


def power_slope(s: Any) -> Any:
    """rᵖ⁻¹, and 0 at 0, as a word."""

    @s.inline
    def slope(power: Any, kind: int, r: Any) -> Any:
        if kind == 1:
            return s.where(r > 0.0, s.real(1.0), 0.0)
        if kind == 2:
            return r
        if kind == 3:
            return r * r
        e, f = s.log2(r)
        other = s.where(r >= s.tiny, s.power(e, f, power - 1.0), 0.0)
        if kind == 0:
            return other
        # Lanes of the usual powers get the same numbers as alone.
        other = s.where(power == 1.0, s.where(r > 0.0, s.real(1.0), 0.0), other)
        return s.where(power == 2.0, r, s.where(power == 3.0, r * r, other))

    return slope


def _quick(s: Any, p: Any, size: Any, kind_of: Any) -> Any:
    """Of the sizes r of a window, as a word: Σ rᵖ, Σ rᵖ ln r if it is wanted, and whether the sum will do.

    For the gradient it notes each rᵖ⁻¹: the power and its slope in one.
    """
    learns, shared, slope = p.learns_p, s.shared, power_slope(s)

    @s.once
    def known_slope(w: Any, x: Any) -> Any:
        return slope(p.p(w), kind_of(p.p(w)), size(w, x))

    def logarithm_of(w: Any, x: Any) -> Any:
        e, f = s.log2(size(w, x))
        return s.real(LN2) * (e + f)

    logarithm = s.once_backward(logarithm_of) if learns else s.inline(lambda w, j: s.real(0.0))

    @s.inline
    def quick(w: Any, power: Any, kind: int, keep: bool) -> Any:
        total, logs, top, low = s.wide(0.0), s.wide(0.0), s.real(0.0), s.real(math.inf)
        for j in range(s.count(w)):
            r = size(w, s.cell(w, j))
            d = known_slope(w, j) if shared and kind <= 0 else slope(power, kind, r)
            total = s.plus(total, d, r)
            top = s.where(r > top, r, top)
            if keep:
                s.note(w, j, d)
                if learns:
                    low = s.where(r < low, r, low)
                    logs += s.wide(s.where(r >= s.tiny, d * r * logarithm(w, j), 0.0))
        good = (total > 1e-30) & (total < 1e30) & (power >= 0.5)  # the root of a smaller power magnifies errors
        if keep and learns:
            # The slope of the power is the difference of two logarithms: where sizes are near each other, or far from
            # 1, they are taken of sizes relative to the largest one.
            good = good & (top > 1.0625 * low) & (top < 64.0) & (top > 1 / 64)
        return total, logs, good | ((total == 0.0) & (top == 0.0))

    return quick


def _root(s: Any, averaged: bool) -> Any:
    """The power mean of a sum of powers, and its natural logarithm, as a word; 0 of 0."""

    @s.inline
    def root(w: Any, power: Any, kind: int, total: Any) -> Any:
        mean = s.real(total * (s.wide(1.0) / s.count(w)) if averaged else total)
        e, f = s.log2(mean)
        log = s.real(LN2) * (e / power + f / power)
        if kind == 1:
            return mean, log
        if kind == 2:
            return s.sqrt(mean), log
        y = s.where(mean > 0.0, s.root_of(e, f, power), mean)
        return y if kind >= 0 else s.where(power == 1.0, mean, s.where(power == 2.0, s.sqrt(mean), y)), log

    return root


def _careful(s: Any, p: Any, size: Any, root: Any) -> tuple[Any, Any]:
    """The power mean for any window, and for a gradient what `power_mean` wants of the windows that are not good."""
    learns, slope = p.learns_p, power_slope(s)

    @s.inline
    def scale(w: Any) -> Any:
        """The largest size, and what sizes are divided by."""
        top, lost = size(w, s.cell(w, 0)), s.real(0.0)
        for j in range(1, s.count(w)):
            v = size(w, s.cell(w, j))
            lost = s.where(v != v, v, lost)
            top = s.where(v > top, v, top)
        top = top + lost
        return top, s.unit_of(top)

    @s.inline
    def careful(w: Any, power: Any, kind: int) -> Any:
        top, unit = scale(w)
        total = s.wide(0.0)
        for j in range(s.count(w)):
            r = size(w, s.cell(w, j)) / unit
            total = s.plus(total, slope(power, kind, r), r)
        return s.where(top < math.inf, unit * root(w, power, kind, total)[0], top)

    @s.inline
    def gradient(w: Any, g: Any, power: Any, kind: int, good: Any) -> Any:
        """The factor of the slopes and the power's gradient; it notes the slopes where windows are not good."""
        top, unit = scale(w)
        total, logs = s.wide(0.0), s.wide(0.0)
        for j in range(s.count(w)):
            r = size(w, s.cell(w, j)) / unit
            d = slope(power, kind, r)
            s.note(w, j, s.where(good, s.noted(w, j), d))
            total = s.plus(total, d, r)
            if learns:
                e, f = s.log2(r)
                logs += s.wide(s.where(r >= s.tiny, d * r * (s.real(LN2) * (e + f)), 0.0))
        y, log = root(w, power, kind, total)
        whole = s.real(total)
        # An infinite cell has no slope that could be told: NaN, as the formula gives.
        g = s.where(whole > 0.0, g, 0.0) + 0.0 * top
        alive = s.where(whole > 0.0, whole, 1.0)
        turn = s.real(logs) / alive - s.where(whole > 0.0, log, 0.0)
        return g * y / alive, g * (unit * (y / power * turn))

    return careful, gradient
