"""The words in which a method states one window for the CPU engine, W windows side by side (see `lanes.py`).

def kernel(self, s, p):
    def forward(w):
        return p.a(w) * s.largest(w) + (1.0 - p.a(w)) * s.real(s.total(w) / s.count(w))

    def gradient(w, g):
        ...  # s.give(w, j, v) for each cell j

    return forward, gradient
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher

from poolkit.kernels import numbers_of
from poolkit.kernels.lanes import INLINE, NUMBERS, W, integer, words
from poolkit.kernels.networks import EXCHANGES
from poolkit.kernels.ranks import rank_words
from poolkit.method import WindowMethod

ONCE = 2  # numbers of a cell that are made once
PICKED = 16  # up to so many rows, choosing one by comparisons is faster than to gather it
FEW = 4  # cells of a long window whose terms are added in float32 before they go to a sum in float64
AHEAD = 16  # cells of a long window that memory is asked for before they are needed


@lru_cache
def window_words(name: str, long: bool, per_window: bool, relu: bool) -> ModuleType:
    """The words in which a method states one window (W of them side by side).

    `count(w)` cells, `cell(w, j)` the j-th, `index(w, j)` its number in the full window, `padded(w)` cells with the
    padding counted in, `draw(w)` the window's random number; `give(w, j, v)` gives cell j its gradient, once;
    `note(w, j, v)` and `noted(w, j)` are memory for three numbers a cell, by rows that are the same for all windows;
    `note_at(w, rows, v)` takes Lanes of rows, and `noted_for(w, first, ranks, n)` is lane by lane what n rows from
    `first` on hold for a rank. `real(v)` and `wide(v)` convert to the picture's type and to the type for long sums;
    `plus(t, a, b)` is such a sum t and a·b; `long` says whether they are of another type. `sums(f, n)` makes a word
    total(w, about) for n sums over the cells, whose terms f(w, j, about, t) adds to those of a few cells, t; `part` is
    a share of a cell: neither its differences overflow, nor the few of them, weighed by less than 2, that are added in
    float32 for a sum in float64.

    Args:
        name: `float32` or `float64`, the picture's type.
        long: whether sums are long enough to run in float64.
        per_window: whether each window has a random number of its own, else each map.
        relu: whether a cell x counts as max(x, 0), and negative ones get no gradient.
    """
    s = words(name)
    vars(s).update(EXCHANGES[name])
    load, store, fetch, to_lanes, random, where = s.load, s.store, s.fetch, s.lanes, s.random, s.where
    wide, fused = words("float64").lanes if long else to_lanes, s.fused

    @njit(**INLINE)
    def count(w: Any) -> Any:
        return w[3]

    @njit(**INLINE)
    def padded(w: Any) -> Any:
        return w[4]

    @njit(**INLINE)
    def index(w: Any, j: Any) -> Any:
        return integer(w[2], j)

    @njit(**INLINE)
    def taken(x: Any) -> Any:
        """What a number from the picture counts as."""
        return where(x < 0.0, 0.0, x) if relu else x

    @njit(**INLINE)
    def cell(w: Any, j: Any) -> Any:
        if long and j + AHEAD < w[3]:
            fetch(w[0], integer(w[1], j + AHEAD) + w[14])
        return taken(load(w[0], integer(w[1], j) + w[14]))

    @njit(**INLINE)
    def draw(w: Any) -> Any:
        return random(w[7], w[15], w[8]) if per_window else load(w[7], w[15])

    @njit(**INLINE)
    def note(w: Any, j: Any, v: Any) -> None:
        store(w[9], j * W, v)

    @njit(**INLINE)
    def noted(w: Any, j: Any) -> Any:
        return load(w[9], j * W)

    @njit(**INLINE)
    def plus(t: Any, a: Any, b: Any) -> Any:
        return t + wide(a * b) if long else fused(to_lanes(a), to_lanes(b), t)

    gather, scatter = s.gather, s.scatter

    @njit(**INLINE)
    def noted_for(w: Any, first: Any, ranks: Any, n: Any) -> Any:
        if n > PICKED:
            return gather(w[9], ranks + to_lanes(first))
        v = noted(w, first)
        for r in range(1, n):
            v = where(ranks >= r, noted(w, first + r), v)
        return v

    @njit(**INLINE)
    def note_at(w: Any, rows: Any, v: Any) -> None:
        scatter(w[9], rows, v)

    @njit(**INLINE)
    def give(w: Any, j: Any, v: Any) -> None:
        at, own = integer(w[1], j) + w[14], to_lanes(v)
        if relu:
            own = where(load(w[0], at) <= 0.0, 0.0, own)
        if w[11] != 0:
            store(w[10], at, own)
        else:
            store(w[10], at, load(w[10], at) + own)

    vars(s).update(count=count, padded=padded, index=index, cell=cell, draw=draw, note=note, noted=noted, give=give)
    vars(s).update(noted_for=noted_for, note_at=note_at, taken=taken)
    vars(s).update(real=to_lanes, wide=wide, long=long, plus=plus, inline=njit(**INLINE))
    apart = long and name == "float32"
    vars(s).update(sums=_sums(count, to_lanes, wide, apart), part=0.125 if apart else 0.5)
    vars(s).update(_statistics(s, apart))
    vars(s).update(rank_words(s))
    return s


def inlined(f: Any) -> Any:
    """A piece of a kernel as Numba takes it; a method may have declared it by `s.inline` already."""
    return f if isinstance(f, Dispatcher) else njit(**INLINE)(f)


def kernel_words(name: str, long: bool, per_window: bool, relu: bool, backward: bool, shared: bool) -> ModuleType:
    """The words for one kernel: those of `window_words`, and `once`.

    `e = s.once(f)` makes a word e(w, j) for f(w, x), a number of a cell x and of parameters alone. With `shared`, for
    windows that overlap, the engine computes it once a cell before the windows are walked, and f is in `s.prepared`;
    what only the gradient asks for is declared as `s.once_backward(f)`.
    """
    s = ModuleType("poolkit_kernel")
    vars(s).update(vars(window_words(name, long, per_window, relu)))
    load, cell = s.load, s.cell
    prepared: list[Any] = []
    declared = itertools.count(1)

    def of_cell(f: Any) -> Any:
        f = inlined(f)
        return inlined(lambda w, j: f(w, cell(w, j)))

    def once(f: Any) -> Any:
        if next(declared) > ONCE:
            raise ValueError(f"a kernel may ask for {ONCE} numbers of a cell: s.once was called more often")
        if not shared:
            return of_cell(f)
        prepared.append(inlined(f))
        row = len(prepared)
        return inlined(lambda w, j: load(w[0] + row * w[16], integer(w[1], j) + w[14]))

    vars(s).update(once=once, once_backward=once if backward else of_cell)
    vars(s).update(shared=shared, prepared=prepared)
    return s


def _sums(count: Any, real: Any, wide: Any, apart: bool) -> Any:
    """`sums(f, n)`: see `window_words`; `apart`: whether long sums are of another type.

    A sum rounds as often as it has terms, and by as much as it is large: two halves round less. Going over to float64
    costs several additions, so a few cells go together, in halves too: else equal ones would round one way.
    """

    def zeros(n: int, of: Any) -> Any:
        if n == 1:
            return inlined(lambda: (of(0.0),))
        rest = zeros(n - 1, of)
        return inlined(lambda: (of(0.0), *rest()))

    def added(n: int, of: Any) -> Any:
        if n == 1:
            return inlined(lambda t, few: (t[0] + of(few[0]),))
        rest = added(n - 1, of)
        return inlined(lambda t, few: (t[0] + of(few[0]), *rest(t[1:], few[1:])))

    def sums(f: Any, n: int) -> Any:
        add, nothing, none = inlined(f), zeros(n, wide), zeros(n, real)
        more, both = added(n, wide), added(n, real)

        @njit(**INLINE)
        def within(w: Any, about: Any, first: Any, end: Any) -> Any:
            t = none()
            for j in range(first, end):
                t = add(w, j, about, t)
            return t

        @njit(**INLINE)
        def at_once(w: Any, about: Any) -> Any:
            half = count(w) // 2
            return both(within(w, about, 0, half), within(w, about, half, count(w)))

        @njit(**INLINE)
        def by_few(w: Any, about: Any) -> Any:
            t, n, half = nothing(), count(w), FEW // 2
            for j in range(0, n - FEW + 1, FEW):
                t = more(t, both(within(w, about, j, j + half), within(w, about, j + half, j + FEW)))
            return more(t, within(w, about, n // FEW * FEW, n))

        return by_few if apart else at_once

    return sums


def _statistics(s: ModuleType, apart: bool) -> dict[str, Any]:
    """Statistics that many methods use."""

    @njit(**INLINE)
    def largest(w: Any) -> Any:
        """The largest cell; NaN if there is one."""
        m, lost = s.cell(w, 0), s.real(0.0)
        for j in range(1, s.count(w)):
            v = s.cell(w, j)
            lost = s.where(v != v, v, lost)
            m = s.where(v > m, v, m)
        return m + lost

    @njit(**INLINE)
    def smallest(w: Any) -> Any:
        """The smallest cell; NaN if there is one."""
        m, lost = s.cell(w, 0), s.real(0.0)
        for j in range(1, s.count(w)):
            v = s.cell(w, j)
            lost = s.where(v != v, v, lost)
            m = s.where(v < m, v, m)
        return m + lost

    @njit(**INLINE)
    def total(w: Any) -> Any:
        """The sum of the cells."""
        t = s.wide(s.cell(w, 0))
        for j in range(1, s.count(w)):
            t += s.wide(s.cell(w, j))
        return t

    @njit(**INLINE)
    def mean(w: Any) -> Any:
        """The mean of the cells; what sums of their own type have rounded away is added: near 0 it has all digits."""
        if apart:
            return s.real(total(w) / s.count(w))
        t, lost = s.wide(s.cell(w, 0)), s.wide(0.0)
        for j in range(1, s.count(w)):
            x = s.wide(s.cell(w, j))
            more = t + x
            part = more - t
            lost += (t - (more - part)) + (x - part)
            t = more
        return s.real((t + s.where(lost == lost, lost, s.wide(0.0))) / s.count(w))

    @njit(**INLINE)
    def unit_of(top: Any) -> Any:
        """What a window's cells are divided by, for their largest size: that, but no subnormal number, ∞ or NaN."""
        return s.where(top < np.inf, s.where(top > s.tiny, top, s.tiny), 1.0)

    @njit(**INLINE)
    def sigmoid(z: Any) -> Any:
        """1 / (1 + exp(−z))."""
        e = s.falling_exp(s.where(z > 0.0, 0.0 - z, z))
        return s.where(z < 0.0, e, s.real(1.0)) / (1.0 + e)

    @njit(**INLINE)
    def give_to_first(w: Any, chosen: Any, g: Any) -> None:
        """The gradient of what selects a cell: all of it to the first that equals `chosen`, or is NaN."""
        left = g
        for j in range(s.count(w)):
            v = s.cell(w, j)
            here = (v == chosen) | (v != v)
            s.give(w, j, s.where(here, left, 0.0))
            left = s.where(here, 0.0, left)

    return {
        "largest": largest,
        "smallest": smallest,
        "total": total,
        "mean": mean,
        "unit_of": unit_of,
        "sigmoid": sigmoid,
        "give_to_first": give_to_first,
    }


def parameter_words(method: WindowMethod, name: str) -> ModuleType:
    """A method's parameters: `p.beta(w)`, and for those it learns `p.learns_beta` and `p.slope_beta(w, v)`.

    Of a table `p.logits(w, j)` is the number of cell or rank j of the full window (with rows `p.logits(w, row, j)`), to
    whose gradient `p.slope_logits(w, j, v)` adds v; `s.index(w, j)` is the number of a window's j-th cell.

    Numbers are read at run time, so that `soft:beta=2` and `soft:beta=3` share their kernel; a count is one number for
    all lanes. Words and truth values are constants of a kernel; it takes them from the method.
    """
    s, p = words(name), ModuleType("poolkit_parameters")
    load, get = s.load, s.get
    load64, store64, wide = (NUMBERS["float64"][word] for word in ("load", "store", "lanes"))

    @njit(**INLINE)
    def read(w: Any, q: Any) -> Any:
        return load(w[5], q * w[6] + w[15])

    @njit(**INLINE)
    def add(w: Any, q: Any, v: Any) -> None:
        if w[12] != 0:
            at = q * w[6] + w[15]
            store64(w[12], at, load64(w[12], at) + wide(v))

    def number(q: int, whole: bool) -> tuple[Any, Any]:
        if whole:
            return lambda w: np.int64(get(w[5], q * w[6] + w[15])), lambda w, v: add(w, q, v)
        return lambda w: read(w, q), lambda w, v: add(w, q, v)

    def table(q: int, before: int, rows: int | None) -> tuple[Any, Any]:
        """A table after q single numbers and so many rows of tables; w[13] is K."""
        if rows is None:
            return lambda w, j: read(w, q + before * w[13] + j), lambda w, j, v: add(w, q + before * w[13] + j, v)
        return (
            lambda w, row, j: read(w, q + (before + row) * w[13] + j),
            lambda w, row, j, v: add(w, q + (before + row) * w[13] + j, v),
        )

    def state(parameter: str, words: tuple[Any, Any]) -> None:
        reads, slopes = (njit(**INLINE)(word) for word in words)
        vars(p).update(
            {parameter: reads, f"slope_{parameter}": slopes, f"learns_{parameter}": parameter in method.learned}
        )

    singles, before = numbers_of(method), 0
    for q, parameter in enumerate(singles):
        declared = method.params().get(parameter)  # none for what the layer counts
        state(parameter, number(q, declared is not None and isinstance(declared.default, int)))
    for parameter, rows in method.per_cell.items():
        state(parameter, table(len(singles), before, rows))
        before += rows or 1
    return p
