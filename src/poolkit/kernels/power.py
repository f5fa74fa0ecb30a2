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

    Sizes are divided by the largest one first, so that no power overflows.
    """
    learns = p.learns_p

    @s.inline
    def scale(w: Any) -> Any:
        top = size(w, s.cell(w, 0))
        for j in range(1, s.count(w)):
            v = size(w, s.cell(w, j))
            top = s.where((v > top) | (v != v), v, top)
        return s.where((top > s.tiny) & (top < math.inf), top, 1.0)

    @s.inline
    def power(w: Any, r: Any) -> Any:
        """rᵖ; 2 and 3, the usual ones, without a logarithm."""
        if s.every(p.p(w) == 2.0):
            return r * r
        if s.every(p.p(w) == 3.0):
            return r * r * r
        return s.exp(p.p(w) * s.log(r))

    @s.inline
    def root(w: Any, total: Any) -> Any:
        """The power mean of the cells divided by the largest one; 0 for a total of 0."""
        mean = s.real(total / s.count(w) if averaged else total)
        return s.exp(s.log(mean) / p.p(w)), s.log(mean)

    def forward(w: Any) -> Any:
        unit, total = scale(w), s.wide(0.0)
        inverse = 1.0 / unit
        for j in range(s.count(w)):
            total += s.wide(power(w, size(w, s.cell(w, j)) * inverse))
        return unit * root(w, total)[0]

    def gradient(w: Any, g: Any) -> None:
        unit, total, logs = scale(w), s.wide(0.0), s.wide(0.0)
        inverse = 1.0 / unit
        for j in range(s.count(w)):
            r = size(w, s.cell(w, j)) * inverse
            e = power(w, r)
            s.note(w, j, e)
            total += s.wide(e)
            if learns:
                logs += s.wide(s.where(e > 0.0, e * s.log(r), 0.0))
        y, log_mean = root(w, total)
        whole = s.real(total)
        alive = whole > 0.0
        share = s.where(alive, g * y / whole, 0.0)
        for j in range(s.count(w)):
            x, e = s.cell(w, j), s.noted(w, j)
            slope = share * s.where(e > 0.0, e / (size(w, x) * inverse), 0.0)
            s.give(w, j, towards(w, x, slope))
        if learns:
            change = unit * y / p.p(w) * (s.real(logs) / whole - log_mean / p.p(w))
            p.slope_p(w, s.where(alive, g * change, 0.0))

    return forward, gradient
