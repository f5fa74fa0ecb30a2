"""The k-th largest cell of a long window: bounds from a sample, then cells between two bounds that come closer."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numba import njit

from poolkit.kernels.lanes import INLINE, W

SAMPLED = 256  # cells from which on bounds from a sample pay for themselves
PART = 5  # of so many cells one is counted to place the bounds; odd, so as not to fall in step with a picture's rows


def search_words(s: ModuleType) -> dict[str, Any]:
    """`search(w, k)`, made of the words of `s`."""
    last_place = 2.0**-22 if s.row == 4 * W else 2.0**-51

    @njit(**INLINE)
    def a_last_place(v: Any) -> Any:
        """A step that leads past a number: one or two units in its last place."""
        step = s.abs(v) * last_place
        return s.where(step > s.tiny, step, s.real(s.tiny))

    bracket, narrow, closer = _bracket(s, a_last_place), *_narrowing(s)

    @njit(**INLINE)
    def tried(k: Any, turn: Any, low: Any, most: Any, high: Any, least: Any) -> Any:
        """The next bound: by the numbers of cells; where many are left perhaps equal ones, just above the lower one."""
        share = (most - k + 0.5) / (most - least)
        if turn % 4 == 3:
            return s.halfway(low, high)
        many = s.where(most - least > 24.0, s.real(turn % 4), 0.0) == 1.0
        return s.where(many, low + a_last_place(low), low + share * (high - low))

    @njit(**INLINE)
    def search(w: Any, k: Any) -> Any:
        """The k-th largest cell, how many are larger, how many as large or larger, the least of the larger ones, lost.

        The last one is NaN where a cell is NaN, else 0. Where it is 0 the others are exact: a sample decides only how
        soon the bounds meet. A bound between the two is tried; the number of cells that reach it says which of them
        moves, past at least one cell. Bounds by the numbers of cells meet after a few turns; each fourth one halves the
        floats between the two, so that no picture takes more than four for each bit of a number.
        """
        n = s.count(w)
        floor, most, roof, least = s.real(-np.inf), s.real(n), s.real(np.nan), s.real(0.0)
        if n >= SAMPLED:
            floor, most, roof, least = bracket(w, k)
        low, high, after, lost, rows = narrow(w, floor, roof)
        turn = 0
        while not s.every(s.where(low < high, s.real(1.0), 0.0) == 0.0):
            bound = tried(k, turn, low, most, high, least)
            bound = s.where((bound > low) & (bound <= high), bound, high)
            number, above, below, rows = closer(w, rows, bound, low, high)
            number += least
            going = low < high
            up, down = going & (number >= k), going & (number < k)
            low, most = s.where(up, above, low), s.where(up, number, most)
            high, least, after = s.where(down, below, high), s.where(down, number, least), s.where(down, above, after)
            turn += 1
        return low, least, most, after, lost

    return {"search": search}


def _bracket(s: ModuleType, a_last_place: Any) -> Any:
    """`bracket(w, k)`: a bound that at least k cells reach, one that fewer do, and how many do."""
    order8, row = vars(s)["order8"], s.row

    @njit(**INLINE)
    def sample(w: Any, k: Any) -> Any:
        """Six bounds about the k-th largest cell, falling: of 8 times 8 cells, in each eight the one of about its rank.

        Sorted, these eight lie to both sides of it: the middle two may be left out.
        """
        n = s.count(w)
        for i in range(64):
            s.note(w, i, s.cell(w, i * n // 64))
        rank = min(7, 8 * k // n)
        for i in range(9):
            at, step = (i, 8) if i < 8 else (8 * rank, 1)
            order8(w[9] + row * at, w[9] + row * (at + 4 * step), row * step, 0)
        a, b, c = s.noted(w, 8 * rank), s.noted(w, 8 * rank + 1), s.noted(w, 8 * rank + 2)
        d, e, f = s.noted(w, 8 * rank + 5), s.noted(w, 8 * rank + 6), s.noted(w, 8 * rank + 7)
        return a, b, c, d, e, f

    @njit(**INLINE)
    def more(count: Any, v: Any, bound: Any) -> Any:
        return s.where(v >= bound, count + 1.0, count)

    @njit(**INLINE)
    def counts(w: Any, bounds: Any, step: Any) -> Any:
        """How many of every `step`-th cell reach each of six bounds, and the least of these cells."""
        p, q, r, t, u, v = bounds
        a = b = c = d = e = f = s.real(0.0)
        least = s.real(np.inf)
        for j in range(0, s.count(w), step):
            x = s.cell(w, j)
            a, b, c, d, e, f = more(a, x, p), more(b, x, q), more(c, x, r), more(d, x, t), more(e, x, u), more(f, x, v)
            least = s.where(x < least, x, least)
        return (a, b, c, d, e, f), least

    @njit(**INLINE)
    def past(k: Any, found: Any, upper: Any, at_upper: Any, lower: Any, at_lower: Any) -> Any:
        """These two bounds where fewer than k cells reach the upper one, else those that were found before."""
        few, (high, least, low, most) = at_upper < k, found
        return (
            s.where(few, upper, high),
            s.where(few, at_upper, least),
            s.where(few, lower, low),
            s.where(few, at_lower, most),
        )

    @njit(**INLINE)
    def pair(k: Any, bounds: Any, counted: Any) -> Any:
        """The two neighbours of six bounds that have the k-th largest between them, or the nearest two."""
        (p, q, r, t, u, v), (a, b, c, d, e, f) = bounds, counted
        found = past(k, (p, a, q, b), q, b, r, c)
        return past(k, past(k, past(k, found, r, c, t, d), t, d, u, e), u, e, v, f)

    @njit(**INLINE)
    def around(k: Any, found: Any) -> Any:
        """Six bounds about where the k-th largest cell of a part lies, on the line through two bounds and their counts.

        The part's k-th largest is off by some √(k(1 − k/n)/n) ≤ 7 ranks of about 200; the outer bounds are so wide that
        it hardly ever lies beyond them. At least a last place lies between two: one value that many cells have gets
        bounds of its own.
        """
        high, least, low, most = found
        width = s.where(most - least > 1.0, most - least, s.real(1.0))
        slope = (high - low) / width
        middle = high - (k - least) * slope
        little = a_last_place(middle)
        slope = s.where(slope > little, slope, little)
        return (
            middle + 24.0 * slope,
            middle + 9.0 * slope,
            middle + 3.0 * slope,
            middle - 3.0 * slope,
            middle - 9.0 * slope,
            middle - 24.0 * slope,
        )

    @njit(**INLINE)
    def bracket(w: Any, k: Any) -> Any:
        n, bounds, step = s.count(w), sample(w, k), PART
        while True:
            counted, smallest = counts(w, bounds, step)
            if step == 1:
                break
            wanted = s.real(k) * s.real(((n - 1) // step + 1) / n)
            bounds, step = around(wanted, pair(wanted, bounds, counted)), 1
        high, least, low, most = pair(s.real(k), bounds, counted)
        # Of a bound that is NaN no cell is known to lie above it.
        beyond, short = counted[0] >= k, counted[5] < k
        high, least = s.where(beyond, np.nan, high), s.where(beyond, 0.0, least)
        low, most = s.where(beyond, bounds[0], low), s.where(beyond, counted[0], most)
        high, least = s.where(short, bounds[5], high), s.where(short, counted[5], least)
        low, most = s.where(short, smallest, low), s.where(short, s.real(n), most)
        return low, most, high, least

    return bracket


def _narrowing(s: ModuleType) -> tuple[Any, Any]:
    """Which cells are left between two bounds: rows in which no window has any are left out."""

    @njit(**INLINE)
    def narrow(w: Any, floor: Any, roof: Any) -> Any:
        """Note the rows with a cell in [floor, roof): its least and largest one, the least beyond, NaN, and rows.

        Cells beyond become −∞, so that later counts are of those between.
        """
        low, high, after = s.real(np.inf), s.real(-np.inf), s.real(np.inf)
        lost, rows = s.real(0.0), 0
        for j in range(s.count(w)):
            v = s.cell(w, j)
            lost = s.where(v != v, v, lost)
            beyond = v >= roof
            after = s.where(beyond & (v < after), v, after)
            v = s.where(beyond, -np.inf, v)
            low = s.where((v >= floor) & (v < low), v, low)
            high = s.where(v > high, v, high)
            s.note(w, rows, v)
            rows += 0 if s.every(v < floor) else 1
        return low, high, after, lost, rows

    @njit(**INLINE)
    def closer(w: Any, rows: Any, bound: Any, low: Any, high: Any) -> Any:
        """How many of the cells in [low, high] reach a bound, the least of these, the largest of the others, and rows.

        Rows without a cell in [low, high] are left out, in windows whose bounds have met all of them.
        """
        number, above, below, kept = s.real(0.0), s.real(np.inf), s.real(-np.inf), 0
        floor = s.where(low < high, low, np.inf)
        for j in range(rows):
            v = s.noted(w, j)
            v = s.where(v > high, -np.inf, v)
            s.note(w, kept, v)
            kept += 0 if s.every(v < floor) else 1
            number = s.where(v >= bound, number + 1.0, number)
            above = s.where((v >= bound) & (v < above), v, above)
            below = s.where((v < bound) & (v > below), v, below)
        return number, above, below, kept

    return narrow, closer
