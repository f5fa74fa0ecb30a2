"""Rows of noted numbers put in order, from large to small, by sorting networks."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from numba import njit

from poolkit.kernels.lanes import INLINE


def order_usual_words(s: ModuleType) -> Any:
    """`order_usual(w, n)` puts the first n rows in order, for the numbers of cells of usual windows."""
    order4, order6, order9, row = vars(s)["order4"], vars(s)["order6"], vars(s)["order9"], s.row

    @njit(**INLINE)
    def order_usual(w: Any, n: Any) -> None:
        at = w[9]
        if n == 4:
            order4(at, at + 2 * row, row, 0)
        elif n == 6:
            order6(at, at + 3 * row, row, 0)
        else:
            order9(at, at + 5 * row, row, 0)

    return order_usual


def order_words(s: ModuleType, places: bool) -> Any:
    """`order(w, first, n)` puts n rows from the first one on in order, from large to small.

    With `places` it takes n rows of numbers behind them along, and of equal cells the one with the smaller number comes
    first. A bitonic network whose comparisons all put the larger number first: where n is no power of two, those with
    what would lie behind the last row are left out. Eight rows at a time stay in registers.

    Without `places` and with a first row > 0, which is n and a power of two, the larger half of these rows and of the
    n rows before them, which are in order, is put in order there.
    """
    suffix, row = "_with" if places else "", s.row
    two, order8, turn4, merge4, merge8 = (
        vars(s)[word + suffix] for word in "order2 order8 turn4 merge4 merge8".split()
    )

    @njit(**INLINE)
    def apply(network: Any, m: Any, i: Any, j: Any, step: Any) -> None:
        """Half of a network's rows are i, i + step, …, the others j, j + step, …"""
        network(m[0] + row * i, m[0] + row * j, row * step, row * m[1])

    @njit(**INLINE)
    def exchange(m: Any, i: Any, j: Any) -> None:
        if j < m[1]:
            apply(two, m, i, j, 0)

    @njit(**INLINE)
    def tail(m: Any, far: Any) -> None:
        """Compare the rows after the last eight that are `far` from each other."""
        n = m[1]
        for i in range(n - n % 8, n - far):
            if i & far == 0:
                exchange(m, i, i + far)

    @njit(**INLINE)
    def eights(m: Any) -> None:
        """Put eight rows at a time in order, and those that are left."""
        n = m[1]
        for i in range(0, n - 7, 8):
            apply(order8, m, i, i + 4, 1)
        for last in range(n - n % 8 + 1, n):
            for i in range(last, n - n % 8, -1):
                exchange(m, i - 1, i)

    @njit(**INLINE)
    def turn(m: Any, run: Any) -> None:
        """The first two steps of a merge, by `run`, of which the second one is turned around, and by half of it."""
        n, half = m[1], run // 2
        for base in range(0, n - run, 2 * run):
            for i in range(base, base + half):
                last = 2 * base + 2 * run - 1 - i
                if last < n:
                    apply(turn4, m, i, last - half, half)
                else:
                    exchange(m, i + half, last - half)
                    exchange(m, i, i + half)

    @njit(**INLINE)
    def settle(m: Any, run: Any) -> None:
        """The other steps of a merge, by less than half of `run`."""
        n = m[1]
        far = run // 4
        while far >= 8:
            half = far // 2
            for base in range(0, n - half, 2 * far):
                for i in range(base, min(base + half, n - half)):
                    if i + far + half < n:
                        apply(merge4, m, i, i + far, half)
                    else:
                        exchange(m, i, i + far)
                        exchange(m, i, i + half)
            far //= 4
        if far == 4:
            for i in range(0, n - 7, 8):
                apply(merge8, m, i, i + 4, 1)
            tail(m, 4)
        else:
            for i in range(0, n - 3, 4):
                apply(merge4, m, i, i + 2, 1)
        tail(m, 2)
        tail(m, 1)

    @njit(**INLINE)
    def nothing(w: Any, n: Any) -> None:
        return

    @njit(**INLINE)
    def larger_half(w: Any, n: Any) -> None:
        """The first two steps of a merge of n rows with the n rows behind them, of which only the larger half stays."""
        half = n // 2
        for i in range(half):
            a, b = s.noted(w, i), s.noted(w, 2 * n - 1 - i)
            c, d = s.noted(w, i + half), s.noted(w, 2 * n - 1 - i - half)
            a, c = s.where(b > a, b, a), s.where(d > c, d, c)
            s.note(w, i, s.where(c > a, c, a))
            s.note(w, i + half, s.where(c > a, a, c))

    fold = nothing if places else larger_half

    @njit(**INLINE)
    def order(w: Any, first: Any, n: Any) -> None:
        m, run = (w[9] + row * first, n), 8
        eights(m)
        while run < n or (run == n and first > 0):
            if run < n:
                turn(m, run)
            else:
                fold(w, n)
                m = w[9], n
            settle(m, run)
            run *= 2

    return order
