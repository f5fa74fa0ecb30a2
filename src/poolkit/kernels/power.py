"""The power mean in lanes, which `lp` and `gem` take of different sizes of their cells."""

from __future__ import annotations

import math
from typing import Any


def power_mean(s: Any, p: Any, size: Any, towards: Any, averaged: bool) -> tuple[Any, Any]:
    """((1/n) Σ sizeᵢᵖ)^(1/p), with or without the 1/n, and its gradient.

    Args:
        s, p: the words and the parameters; the power is `p.p`.
        size: the size ≥ 0 of a cell, `size(w, x)`.
        towards: the gradient of a cell from that of its size, `towards(w, x, slope)`.
        averaged: whether there is the 1/n.

    Sizes are divided by the largest one first, so that no power overflows; where that one is infinite or NaN, so is y.
    """
    learns = p.learns_p

    @s.inline
    def usual(power: Any) -> Any:
        return (power == 2.0) | (power == 3.0)

    @s.inline
    def scale(w: Any, power: Any) -> Any:
        """The largest size, and what sizes are divided by: for the usual powers a power of two, which is exact."""
        top, lost = size(w, s.cell(w, 0)), s.real(0.0)
        for j in range(1, s.count(w)):
            v = size(w, s.cell(w, j))
            lost = s.where(v != v, v, lost)
            top = s.where(v > top, v, top)
        top = top + lost
        unit = s.where((top > s.tiny) & (top < math.inf), top, 1.0)
        return top, s.where(usual(power), s.binade(unit), unit)

    @s.inline
    def known(power: Any) -> int:
        """2 and 3, the usual powers, need no logarithm."""
        return 2 if s.every(power == 2.0) else 3 if s.every(power == 3.0) else 0

    @s.inline
    def slope_of(power: Any, kind: int, r: Any) -> Any:
        """rᵖ⁻¹, and 0 at 0: the power and its slope in one."""
        if kind == 2:
            return r
        if kind == 3:
            return r * r
        other = s.where(r > 0.0, s.falling_exp((power - 1.0) * s.normal_log(r)), 0.0)
        return s.where(power == 2.0, r, s.where(power == 3.0, r * r, other))

    @s.inline
    def root(w: Any, power: Any, kind: int, unit: Any, inverse: Any, total: Any) -> Any:
        """The power mean, that of the cells divided by the unit, and the mean power of those."""
        mean = s.real(total / s.count(w) if averaged else total)
        if kind == 2:
            y = s.sqrt(mean)
            return unit * y, y, mean
        log = s.log(mean) / power
        y = s.falling_exp(log)
        # One step of Newton's, with y³ − mean from an unrounded y²: far less than log and exp have rounded.
        square = y * y
        above = s.fused(square, y, 0.0 - mean) + s.fused(y, y, 0.0 - square) * y
        cube = s.where(y > 0.0, y - above / (3.0 * square), y)
        if kind == 3:
            return unit * cube, cube, mean
        # Lanes of the usual powers get the same numbers as alone.
        y = s.where(power == 2.0, s.sqrt(mean), s.where(power == 3.0, cube, y))
        slip = s.fused(inverse, unit, s.real(-1.0))  # by so much the rounded inverse has made all cells larger
        return s.where(usual(power), unit * y, s.falling_exp_times(log - slip, unit)), y, mean

    def forward(w: Any) -> Any:
        power, total = p.p(w), s.wide(0.0)
        kind = known(power)
        top, unit = scale(w, power)
        inverse = 1.0 / unit
        for j in range(s.count(w)):
            r = size(w, s.cell(w, j)) * inverse
            total = s.plus(total, slope_of(power, kind, r), r)
        return s.where(top < math.inf, root(w, power, kind, unit, inverse, total)[0], top)

    def gradient(w: Any, g: Any) -> None:
        power, total, logs = p.p(w), s.wide(0.0), s.wide(0.0)
        kind = known(power)
        top, unit = scale(w, power)
        inverse = 1.0 / unit
        for j in range(s.count(w)):
            r = size(w, s.cell(w, j)) * inverse
            d = slope_of(power, kind, r)
            s.note(w, j, d)
            total = s.plus(total, d, r)
            if learns:
                logs += s.wide(d * r * s.normal_log(r))
        _, y, mean = root(w, power, kind, unit, inverse, total)
        whole = s.real(total)
        # An infinite cell has no slope that could be told: NaN, as the formula gives.
        g = s.where(whole > 0.0, g, 0.0) + 0.0 * top
        alive = s.where(whole > 0.0, whole, 1.0)
        share = g * y / alive
        for j in range(s.count(w)):
            s.give(w, j, towards(w, s.cell(w, j), share * s.noted(w, j)))
        if learns:
            turn = s.real(logs) / alive - s.where(whole > 0.0, s.log(mean), 0.0) / power
            p.slope_p(w, g * (unit * (y / power * turn)))

    return forward, gradient
