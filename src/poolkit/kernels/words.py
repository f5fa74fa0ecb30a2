"""The words in which a method states one window for the CPU engine, W windows side by side (see `lanes.py`).

def kernel(self, s, p):
    def forward(w):
        return p.a(w) * s.largest(w) + (1.0 - p.a(w)) * s.real(s.total(w) / s.count(w))

    def gradient(w, g):
        ...  # s.give(w, j, v) for each cell j

    return forward, gradient
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numba import njit

from poolkit.kernels import numbers_of
from poolkit.kernels.lanes import INLINE, integer, words
from poolkit.method import WindowMethod

SELECTED = 16  # up to this rank, sinking each cell to its place is faster than a search by bits


def window_words(name: str, long: bool) -> ModuleType:
    """The words in which a method states one window (W of them side by side).

    `count(w)` cells, `cell(w, j)` the j-th, `padded(w)` cells with the padding counted in, `draw(w)` its random number;
    `give(w, j, v)` sets the gradient of cell j and `given(w, j)` reads it back; `note(w, j, v)` and `noted(w, j)` are
    memory for one number a cell; `real(v)` and `wide(v)` convert to the picture's type and to the type for long sums.
    """
    s = words(name)
    load, store, to_lanes = s.load, s.store, s.lanes
    wide = words("float64").lanes if long else to_lanes

    @njit(**INLINE)
    def count(w: Any) -> Any:
        return w[2]

    @njit(**INLINE)
    def padded(w: Any) -> Any:
        return w[3]

    @njit(**INLINE)
    def cell(w: Any, j: Any) -> Any:
        return load(w[0], integer(w[1], j) + w[12])

    @njit(**INLINE)
    def draw(w: Any) -> Any:
        return load(w[5], w[12])

    @njit(**INLINE)
    def note(w: Any, j: Any, v: Any) -> None:
        store(w[6], j * w[7] + w[12], v)

    @njit(**INLINE)
    def noted(w: Any, j: Any) -> Any:
        return load(w[6], j * w[7] + w[12])

    @njit(**INLINE)
    def give(w: Any, j: Any, v: Any) -> None:
        store(w[9], integer(w[10], j) + w[12], to_lanes(v))

    @njit(**INLINE)
    def given(w: Any, j: Any) -> Any:
        return load(w[9], integer(w[10], j) + w[12])

    vars(s).update(count=count, padded=padded, cell=cell, draw=draw, note=note, noted=noted, give=give, given=given)
    vars(s).update(real=to_lanes, wide=wide, inline=njit(**INLINE))
    vars(s).update(_statistics(s))
    vars(s).update(_ranks(s))
    return s


def _statistics(s: ModuleType) -> dict[str, Any]:
    """Statistics that many methods use."""

    @njit(**INLINE)
    def largest(w: Any) -> Any:
        """The largest cell; NaN if there is one."""
        m = s.cell(w, 0)
        for j in range(1, s.count(w)):
            v = s.cell(w, j)
            m = s.where((v > m) | (v != v), v, m)
        return m

    @njit(**INLINE)
    def smallest(w: Any) -> Any:
        """The smallest cell; NaN if there is one."""
        m = s.cell(w, 0)
        for j in range(1, s.count(w)):
            v = s.cell(w, j)
            m = s.where((v < m) | (v != v), v, m)
        return m

    @njit(**INLINE)
    def total(w: Any) -> Any:
        """The sum of the cells."""
        t = s.wide(s.cell(w, 0))
        for j in range(1, s.count(w)):
            t += s.wide(s.cell(w, j))
        return t

    @njit(**INLINE)
    def give_to_first(w: Any, chosen: Any, g: Any) -> None:
        """The gradient of what selects a cell: all of it to the first that equals `chosen`, or is NaN."""
        left = g
        for j in range(s.count(w)):
            v = s.cell(w, j)
            here = (v == chosen) | (v != v)
            s.give(w, j, s.where(here, left, 0.0))
            left = s.where(here, 0.0, left)

    return {"largest": largest, "smallest": smallest, "total": total, "give_to_first": give_to_first}


def _ranks(s: ModuleType) -> dict[str, Any]:
    """Statistics of the largest cells. NaN counts as the largest, and makes what it is part of NaN."""

    @njit(**INLINE)
    def two_largest(w: Any) -> Any:
        first, second = s.cell(w, 0), s.real(-np.inf)
        for j in range(1, s.count(w)):
            v = s.cell(w, j)
            lower = s.where(v < first, v, first)
            second = s.where(lower > second, lower, second)
            first = s.where(v > first, v, first)
        return first, second

    @njit(**INLINE)
    def four_largest(w: Any) -> Any:
        """In order; −∞ where there are fewer cells."""
        least = s.real(-np.inf)
        a, b, c, d = s.cell(w, 0), least, least, least
        for j in range(1, s.count(w)):
            v = s.cell(w, j)
            a, v = s.where(v > a, v, a), s.where(v > a, a, v)
            b, v = s.where(v > b, v, b), s.where(v > b, b, v)
            c, v = s.where(v > c, v, c), s.where(v > c, c, v)
            d = s.where(v > d, v, d)
        return a, b, c, d

    @njit(**INLINE)
    def sort_into(w: Any, k: Any) -> None:
        """Note the k largest cells in order: each cell sinks through them to its place."""
        for r in range(k):
            s.note(w, r, s.real(-np.inf))
        for j in range(s.count(w)):
            v = s.cell(w, j)
            for r in range(k):
                other = s.noted(w, r)
                s.note(w, r, s.where(v > other, v, other))
                v = s.where(v > other, other, v)

    @njit(**INLINE)
    def select(w: Any, k: Any) -> Any:
        """The k-th largest cell for small k; up to four stay in registers."""
        if k == 1:
            return s.largest(w)
        if k == 2:
            return two_largest(w)[1]
        if k <= 4:
            best = four_largest(w)
            return best[2] if k == 3 else best[3]
        sort_into(w, k)
        return s.noted(w, k - 1)

    @njit(**INLINE)
    def search(w: Any, k: Any) -> Any:
        """The k-th largest cell, bit by bit: the largest number that at least k cells reach."""
        key = s.real(0.0)
        for bit in range(s.bits):
            longer = s.with_bit(key, s.bits - 1 - bit)
            bound, reach = s.number_of(longer), s.real(0.0)
            for j in range(s.count(w)):
                reach += s.where(s.cell(w, j) >= bound, s.real(1.0), 0.0)
            key = s.where(reach >= k, longer, key)
        found = s.number_of(key)
        return s.where(found != found, -np.inf, found)

    @njit(**INLINE)
    def kth_largest(w: Any, k: Any) -> Any:
        """The k-th largest cell, 1 ≤ k ≤ n, of a window without NaN."""
        return select(w, k) if k <= SELECTED else search(w, k)

    @njit(**INLINE)
    def mean_of_largest(w: Any, k: Any) -> Any:
        """The mean of the min(k, n) largest cells."""
        n = s.count(w)
        k = min(k, n)
        if k == n:
            return s.real(s.total(w) / n)
        lost, bound = s.cell(w, 0) != s.cell(w, 0), kth_largest(w, k)
        rest, total = s.wide(k), s.wide(0.0)
        for j in range(n):
            v = s.cell(w, j)
            above = v > bound
            lost = lost | (v != v)
            total += s.wide(s.where(above, v, 0.0))
            rest -= s.wide(s.where(above, s.real(1.0), 0.0))
        total += s.where(rest > 0.0, rest * s.wide(bound), 0.0)
        return s.where(lost, np.nan, s.real(total / k))

    @njit(**INLINE)
    def give_to_largest(w: Any, k: Any, g: Any) -> None:
        """The gradient of `mean_of_largest`; of cells equal to the k-th the first ones get it."""
        n = s.count(w)
        k = min(k, n)
        share = g / k
        if k == n:
            for j in range(n):
                s.give(w, j, share)
        else:
            bound = kth_largest(w, k)
            rest = s.real(k)
            for j in range(n):
                rest -= s.where(s.cell(w, j) > bound, s.real(1.0), 0.0)
            for j in range(n):
                v = s.cell(w, j)
                equal = v == bound
                s.give(w, j, s.where((v > bound) | (equal & (rest > 0.0)), share, 0.0))
                rest -= s.where(equal, s.real(1.0), 0.0)

    return {"kth_largest": kth_largest, "mean_of_largest": mean_of_largest, "give_to_largest": give_to_largest}


def parameter_words(method: WindowMethod, name: str) -> ModuleType:
    """A method's parameters: `p.beta(w)`, and for those it learns `p.learns_beta` and `p.slope_beta(w, v)`.

    Numbers are read at run time, so that `soft:beta=2` and `soft:beta=3` share their kernel; a count is one number for
    all lanes. Words and truth values are constants of a kernel; it takes them from the method.
    """
    s, p = words(name), ModuleType("poolkit_parameters")
    load, store, get, real = s.load, s.store, s.get, s.lanes

    def reader(q: int, whole: bool) -> Any:
        @njit(**INLINE)
        def read(w: Any) -> Any:
            return load(w[4], q * w[7] + w[12])

        @njit(**INLINE)
        def read_count(w: Any) -> Any:
            return np.int64(get(w[4], q * w[7] + w[12]))

        return read_count if whole else read

    def writer(q: int) -> Any:
        @njit(**INLINE)
        def write(w: Any, v: Any) -> None:
            store(w[11], q * w[7] + w[12], real(v))

        return write

    for q, parameter in enumerate(numbers_of(method)):
        whole = isinstance(method.params()[parameter].default, int)
        vars(p).update({parameter: reader(q, whole), f"learns_{parameter}": parameter in method.learned})
        vars(p)[f"slope_{parameter}"] = writer(q)
    return p
