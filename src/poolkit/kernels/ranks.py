"""Words about the order of a window's cells: its k largest, any of them, all of them in order."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numba import njit

from poolkit.kernels.lanes import INLINE
from poolkit.kernels.search import search_words

SELECTED = 16  # up to this rank, sinking each cell to its place is faster than a search between bounds
COUNTED = 64  # up to so many cells, comparing a cell with each other one is faster than to sort their places


def rank_words(s: ModuleType) -> dict[str, Any]:
    """The words, made of those of `s`."""
    some = _selection(s)
    return {
        **some,
        **_means(s, some["four_largest"], some["sort_into"], some["search"]),
        **_sorting(s, some["sort_into"]),
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


def _sorting(s: ModuleType, sort_into: Any) -> dict[str, Any]:
    """All cells in order, and what is given to each by its rank."""
    sort, sort_places = _sort(s, False), _sort(s, True)

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
                s.give(w, j, s.noted_at(w, rank(w, j) + s.real(2 * n)))
        else:
            sort_places(w)
            for r in range(n):
                s.note_at(w, s.noted(w, n + r), s.noted(w, 2 * n + r))
            for j in range(n):
                s.give(w, j, s.noted(w, j))

    @njit(**INLINE)
    def at_rank(w: Any, rank: Any, most: Any) -> Any:
        """The cell before which `rank` others come, which is at most the number `most`."""
        if most < SELECTED < s.count(w):
            sort_into(w, most + 1)
        else:
            sort(w)
        return s.noted_at(w, rank)

    return {"sort": sort, "give_by_rank": give_by_rank, "at_rank": at_rank}


def _sort(s: ModuleType, places: bool) -> Any:
    """`sort(w)` notes the cells from large to small in the first n rows.

    With `places` it notes their numbers in the n rows after them, and of equal cells the first one comes first.
    A bitonic network whose comparisons all put the larger number first: where n is no power of two, those with what
    would lie behind the last row are left out. Eight rows at a time stay in registers.
    """
    suffix, row = "_with" if places else "", s.row
    two, order4, order6, order8, order9, turn4, merge4, merge8 = (
        vars(s)[word + suffix] for word in "order2 order4 order6 order8 order9 turn4 merge4 merge8".split()
    )

    @njit(**INLINE)
    def apply(network: Any, w: Any, i: Any, j: Any, step: Any) -> None:
        """Half of a network's rows are i, i + step, …, the others j, j + step, …"""
        network(w[9] + row * i, w[9] + row * j, row * step, row * s.count(w))

    @njit(**INLINE)
    def exchange(w: Any, i: Any, j: Any) -> None:
        if j < s.count(w):
            apply(two, w, i, j, 0)

    @njit(**INLINE)
    def tail(w: Any, far: Any) -> None:
        """Compare the rows after the last eight that are `far` from each other."""
        n = s.count(w)
        for i in range(n - n % 8, n - far):
            if i & far == 0:
                exchange(w, i, i + far)

    @njit(**INLINE)
    def eights(w: Any) -> None:
        """Put eight rows at a time in order, and those that are left."""
        n = s.count(w)
        for i in range(0, n - 7, 8):
            apply(order8, w, i, i + 4, 1)
        for last in range(n - n % 8 + 1, n):
            for i in range(last, n - n % 8, -1):
                exchange(w, i - 1, i)

    @njit(**INLINE)
    def turn(w: Any, run: Any) -> None:
        """The first two steps of a merge, by `run`, of which the second one is turned around, and by half of it."""
        n, half = s.count(w), run // 2
        for base in range(0, n - run, 2 * run):
            for i in range(base, base + half):
                last = 2 * base + 2 * run - 1 - i
                if last < n:
                    apply(turn4, w, i, last - half, half)
                else:
                    exchange(w, i + half, last - half)
                    exchange(w, i, i + half)

    @njit(**INLINE)
    def merge(w: Any, run: Any) -> None:
        """Merge pairs of sorted runs."""
        n = s.count(w)
        turn(w, run)
        far = run // 4
        while far >= 8:
            half = far // 2
            for base in range(0, n - half, 2 * far):
                for i in range(base, min(base + half, n - half)):
                    if i + far + half < n:
                        apply(merge4, w, i, i + far, half)
                    else:
                        exchange(w, i, i + far)
                        exchange(w, i, i + half)
            far //= 4
        if far == 4:
            for i in range(0, n - 7, 8):
                apply(merge8, w, i, i + 4, 1)
            tail(w, 4)
        else:
            for i in range(0, n - 3, 4):
                apply(merge4, w, i, i + 2, 1)
        tail(w, 2)
        tail(w, 1)

    @njit(**INLINE)
    def sort(w: Any) -> None:
        n = s.count(w)
        for j in range(n):
            s.note(w, j, s.cell(w, j))
            if places:
                s.note(w, n + j, s.real(j))
        if n == 4:
            apply(order4, w, 0, 2, 1)
        elif n == 6:
            apply(order6, w, 0, 3, 1)
        elif n == 9:
            apply(order9, w, 0, 5, 1)
        else:
            eights(w)
            run = 8
            while run < n:
                merge(w, run)
                run *= 2

    return sort
