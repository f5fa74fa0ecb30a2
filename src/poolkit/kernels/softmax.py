"""Exponentials of a window's cells in lanes, for the methods that weigh by a softmax."""

from __future__ import annotations

from typing import Any

FAR = 60.0  # exponents within it, and the sums of their exponentials, lie well within the range of float32


def exponentials(s: Any, rate: Any) -> tuple[Any, Any, Any]:
    """Three words for exp(rate·(xⱼ − x*)), x* the cell of the largest exponent, which never overflows.

    `good_of(w, top)` says of x* whether the window is good; `term(w, j, good, z)` is the term of cell j, whose exponent
    is z, `own_term(w, top, good)` that of x*. The exponentials are the terms over that of x*, which is 1 except in
    good windows that overlap.

    Where windows overlap, exp(rate·x) is made once a cell, and is the term wherever |rate·x*| < FAR: then nothing
    overflows, and what underflows would not count.

    Args:
        s: the words of the kernel.
        rate: the factor of the exponents, `rate(w)`.
    """
    shared = s.shared

    @s.inline
    def of_cell(w: Any, x: Any) -> Any:
        z = rate(w) * x
        return s.falling_exp(s.where(z > FAR, FAR, z))

    known = s.once(of_cell)

    @s.inline
    def good_of(w: Any, top: Any) -> Any:
        z = rate(w) * top
        return (z < FAR) & (z > -FAR)

    @s.inline
    def own_term(w: Any, top: Any, good: Any) -> Any:
        return s.where(good, of_cell(w, top), 1.0) if shared else s.real(1.0)

    @s.inline
    def term(w: Any, j: Any, good: Any, z: Any) -> Any:
        if not shared:
            return s.falling_exp(z)
        e = known(w, j)
        return e if s.every(good) else s.where(good, e, s.falling_exp(z))

    return good_of, own_term, term
