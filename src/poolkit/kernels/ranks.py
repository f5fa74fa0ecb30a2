"""Words about the order of a window's cells: its k largest, any of them, all of them in order."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numba import njit

from poolkit.kernels.lanes import INLINE, W
from poolkit.kernels.order import order_usual_words, order_words
from poolkit.kernels.search import search_words

SELECTED = 16  # up to this rank, sinking each cell to its place is faster than a search between bounds
USUAL = (4, 6, 9)  # cells of 2×2 and 3×3 windows, and of those at a border: they have networks of their own
FEW = 32  # below so many cells all are put in order
COUNTED = 64  # up to so many cells, comparing a cell with each other one is faster than to sort their places


def rank_words(s: ModuleType) -> dict[str, Any]:
    """The words, made of those of `s`."""
    some = _selection(s)
    return {
        **some,
        **_means(s, some["four_largest"], some["sort_into"], some["search"]),
        **_sorting(s),
    }


def _selection(s: ModuleType) -> dict[str, Any]:
    """The k-th largest cell."""
    search = search_words(s)["search"]

    @njit(**INLINE)
    def four_largest(w: Any, k: Any) -> Any:
        """The k ≤ 4 largest in order, of a window without NaN; the others are −∞."""
        least = s.real(-np.inf)
        a, b, c, d = s.cell(w, 0), least, least, least
        if k == 2:
            for j in range(1, s.count(w)):
                v = s.cell(w, j)
                lower = s.where(v < a, v, a)
                b = s.where(lower > b, lower, b)
                a = s.where(v > a, v, a)
            return a, b, c, d
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
        if k <= 4:
            _, b, c, d = four_largest(w, k)
            return b if k == 2 else c if k == 3 else d
        sort_into(w, k)
        return s.noted(w, k - 1)

    @njit(**INLINE)
    def kth_largest(w: Any, k: Any) -> Any:
        """The k-th largest cell, 1 ≤ k ≤ n, of a window without NaN."""
        return select(w, k) if k <= SELECTED else search(w, k)[0]

    return {"four_largest": four_largest, "kth_largest": kth_largest, "sort_into": sort_into, "search": search}


def _means(s: ModuleType, four_largest: Any, sort_into: Any, search: Any) -> dict[str, Any]:
    """The mean of the largest cells. NaN counts as the largest, and makes what it is part of NaN."""

    @njit(**INLINE)
    def lost(w: Any) -> Any:
        """NaN where a cell is NaN, else 0."""
        found = s.real(0.0)
        for j in range(s.count(w)):
            v = s.cell(w, j)
            found = s.where(v != v, v, found)
        return found

    @njit(**INLINE)
    def bound_and_rest(w: Any, k: Any) -> Any:
        """The k-th largest cell, and how many of the cells that equal it are among the k largest."""
        rest = s.real(k)
        if k <= 4:
            a, b, c, d = four_largest(w, k)
            bound = a if k == 1 else b if k == 2 else c if k == 3 else d
            one = s.real(1.0)
            for v in (a, b, c):
                rest -= s.where(v > bound, one, 0.0)
            return bound, rest
        if k > SELECTED:
            bound, larger, _, _, _ = search(w, k)
            return bound, rest - larger
        sort_into(w, k)
        bound = s.noted(w, k - 1)
        for r in range(k):
            rest -= s.where(s.noted(w, r) > bound, s.real(1.0), 0.0)
        return bound, rest

    @njit(**INLINE)
    def mean_of_largest(w: Any, k: Any) -> Any:
        """The mean of the min(k, n) largest cells."""
        n = s.count(w)
        k = min(k, n)
        if k == n:
            return s.real(s.total(w) / n)
        if k == 1:
            return s.largest(w)
        if k <= 4:
            a, b, c, d = four_largest(w, k)
            most = (a + b) if k == 2 else (a + b) + c if k == 3 else (a + b) + (c + d)
            return most / k + lost(w)
        bound, rest = bound_and_rest(w, k)
        total = s.wide(0.0)
        for j in range(n):
            v = s.cell(w, j)
            total += s.wide(s.where(v > bound, v, 0.0))
        total += s.where(rest > 0.0, s.wide(rest) * s.wide(bound), 0.0)
        return s.real(total / k) + lost(w)

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
            bound, rest = bound_and_rest(w, k)
            for j in range(n):
                v = s.cell(w, j)
                equal = v == bound
                s.give(w, j, s.where((v > bound) | (equal & (rest > 0.0)), share, 0.0))
                rest -= s.where(equal, s.real(1.0), 0.0)

    return {
        "lost": lost,
        "mean_of_largest": mean_of_largest,
        "give_to_largest": give_to_largest,
    }


def _sorting(s: ModuleType) -> dict[str, Any]:
    """All cells in order, and what is given to each by its rank."""
    order, order_places, order_usual = order_words(s, False), order_words(s, True), order_usual_words(s)

    @njit(**INLINE)
    def sort(w: Any) -> None:
        """Note the cells from large to small."""
        n = s.count(w)
        for j in range(n):
            s.note(w, j, s.cell(w, j))
        if n in USUAL:
            order_usual(w, n)
        else:
            order(w, 0, n)

    @njit(**INLINE)
    def rank(w: Any, j: Any) -> Any:
        """How many cells come before cell j, of equal ones the earlier ones."""
        v, one, before, after = s.cell(w, j), s.real(1.0), s.real(0.0), s.real(0.0)
        for i in range(j):
            before += s.where(s.cell(w, i) >= v, one, 0.0)
        for i in range(j + 1, s.count(w)):
            after += s.where(s.cell(w, i) > v, one, 0.0)
        return before + after

    @njit(**INLINE)
    def give_by_rank(w: Any) -> None:
        """Give each cell what is noted for its rank, in n rows after the first 2 n."""
        n = s.count(w)
        if n <= COUNTED:
            for j in range(n):
                s.give(w, j, s.noted_for(w, 2 * n, rank(w, j), n))
        else:
            for j in range(n):
                s.note(w, j, s.cell(w, j))
                s.note(w, n + j, s.real(j))
            order_places(w, 0, n)
            for r in range(n):
                s.note_at(w, s.noted(w, n + r), s.noted(w, 2 * n + r))
            for j in range(n):
                s.give(w, j, s.noted(w, j))

    return {"sort": sort, "give_by_rank": give_by_rank, **_largest(s, order, order_usual)}


def _largest(s: ModuleType, order: Any, order_usual: Any) -> dict[str, Any]:
    """The largest cells in order, and what is given to each of them by its rank."""
    eps = 2.0**-23 if s.row == 4 * W else 2.0**-52

    @njit(**INLINE)
    def sort_usual(w: Any) -> Any:
        n, lost = s.count(w), s.real(0.0)
        for j in range(n):
            v = s.cell(w, j)
            lost = s.where(v != v, v, lost)
            s.note(w, j, v)
        order_usual(w, n)
        return n, s.noted(w, n - 1), lost

    @njit(**INLINE)
    def sort_largest(w: Any, k: Any) -> Any:
        """Note the k largest cells in order, and more; how many are noted, the least of all cells, and NaN or 0.

        Of each chunk of cells, put in order, the largest stay. Rows in which no window has a cell larger than the least
        of those it has are left out.
        """
        n, size = s.count(w), 8
        if n in USUAL:
            return sort_usual(w)
        while size < k:
            size *= 2
        whole = 2 * size > n
        first, size = (0, n) if whole else (size, size)
        bound, least, lost, j = s.real(-np.inf), s.real(np.inf), s.real(0.0), 0
        for r in range(first):
            s.note(w, r, bound)
        while True:
            rows = 0
            while j < n and rows < size:
                v = s.cell(w, j)
                lost = s.where(v != v, v, lost)
                least = s.where(v < least, v, least)
                s.note(w, first + rows, v)
                rows += 1 if whole or not s.every(v <= bound) else 0
                j += 1
            for r in range(rows, size):
                s.note(w, first + r, s.real(-np.inf))
            order(w, first, size)
            if j == n:
                break
            bound = s.noted(w, size - 1)
        return size, least, lost

    @njit(**INLINE)
    def ranks_that_count(w: Any, rest: Any) -> Any:
        """The first R ranks, all that matter where each has `rest` times the weight of the one before; the most of R.

        The ranks behind them have the share restᴿ of the weight. As weights fall with the cells, their part of the
        weighted mean lies between restᴿ times the plain mean of their cells and restᴿ times the largest of these, both
        at most n/(R + 1)·mean|x|: with restᴿ·n/(R + 1) ≤ eps/4 less than what rounding the result leaves open.
        """
        n, size = s.count(w), 8
        ranks = s.real(n)
        if n < FEW:
            return ranks, n
        fourth = (rest * rest) * (rest * rest)
        power, step = fourth * (rest * rest) * rest, fourth * fourth
        while 2 * size <= n and not s.every(ranks < n):
            enough = (power * (n / size) <= eps / 4) & (ranks == n)
            ranks = s.where(enough, s.real(size - 1), ranks)
            power, step, size = power * step, step * step, 2 * size
        return ranks, size // 2 - 1 if s.every(ranks < n) else n

    @njit(**INLINE)
    def at_rank(w: Any, rank: Any, most: Any) -> Any:
        """The cell before which `rank` others come, at most the number `most`; how many are larger; and NaN or 0."""
        size, _, lost = sort_largest(w, most + 1)
        y, larger = s.noted_for(w, 0, rank, min(size, most + 1)), s.real(0.0)
        for r in range(min(size, most + 1)):
            larger = s.where(s.noted(w, r) > y, larger + 1.0, larger)
        return y, larger, lost

    return {
        "sort_largest": sort_largest,
        "ranks_that_count": ranks_that_count,
        "at_rank": at_rank,
        "give_to_noted": _giving(s),
    }


def _giving(s: ModuleType) -> Any:
    """What is given to the largest cells by their rank."""

    @njit(**INLINE)
    def of_one(w: Any, v: Any, size: Any) -> Any:
        """What is noted for the place of a cell, where all places have different cells."""
        found = s.real(0.0)
        for r in range(size):
            found = s.where(s.noted(w, r) == v, s.noted(w, size + r), found)
        return found

    @njit(**INLINE)
    def of_first(w: Any, v: Any, size: Any) -> Any:
        """What is noted for the first free place of a cell, which it takes; and the least cell of a free place."""
        found, open, floor = s.real(0.0), s.real(1.0), s.real(np.inf)
        for r in range(size):
            other = s.noted(w, r)
            here = (other == v) & (open > 0.0)
            found = s.where(here, s.noted(w, size + r), found)
            open = s.where(here, 0.0, open)
            other = s.where(here, np.nan, other)
            floor = s.where(other < floor, other, floor)
            s.note(w, r, other)
        return found, floor

    @njit(**INLINE)
    def give_to_noted(w: Any, k: Any, size: Any) -> None:
        """Give the k largest of the `size` > k cells in order what is noted for their ranks after the first 2 n rows.

        All others get 0. Each cell is looked up among those in order.
        """
        n, differ = s.count(w), s.real(1.0)
        for r in range(size):
            s.note(w, size + r, s.where(s.real(r) < k, s.noted(w, 2 * n + r), 0.0))
            if r > 0:
                differ = s.where(s.noted(w, r) < s.noted(w, r - 1), differ, 0.0)
        floor, distinct = s.noted(w, size - 1), s.every(differ > 0.0)
        for j in range(n):
            v = s.cell(w, j)
            if s.every(v < floor):
                s.give(w, j, s.real(0.0))
            elif distinct:
                s.give(w, j, of_one(w, v, size))
            else:
                found, floor = of_first(w, v, size)
                s.give(w, j, found)

    return give_to_noted
