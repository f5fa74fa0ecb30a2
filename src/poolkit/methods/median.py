"""Median pooling: the middle cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, MONOTONE, ORDER_FREE, SCALES, SHIFTS, Card, Values, WindowMethod, param
from poolkit.steps import Step, of_rank, ranks
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class Median(WindowMethod):
    """The cell in the middle of the sorted window.

        y = x₍₍ₙ₊₁₎/₂₎ for odd n,   y = ½ x₍ₙ/₂₎ + ½ x₍ₙ/₂₊₁₎ for even n

    `rule="lower"` takes the smaller one of two middle cells, as torch.median does. The gradient goes to the middle
    cell, of two middle cells half to each; among equals the earlier ones have the better rank. NaN propagates.

    Example:
        >>> Median().oracle(OneWindow.of([1, 4, 3, 2]), Median().values())
        2.5
    """

    rule: str = param(
        "mean",
        choices=("mean", "lower"),
        says="what two middle cells give",
        tries=("lower",),
    )

    card: ClassVar[Card] = Card(
        name="median",
        title="Median pooling",
        equation="y = median xᵢ = ½ x₍⌊(n+1)/2⌋₎ + ½ x₍⌊n/2⌋₊₁₎",
        source="the median filter of J. W. Tukey, Exploratory Data Analysis, Addison-Wesley 1977, as a pooling method",
        family="rank",
        facts=(BETWEEN, ORDER_FREE, SHIFTS, SCALES, CONSTANT, MONOTONE),
        released="torch.median takes the smaller of two middle cells, NumPy their mean: 2×2 windows differ. No paper "
        "was found that introduced the median as the pooling of a network.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        xp, ordered = w.xp, w.ranked(w.x)
        off = 2.0 * w.rank + 1.0 - w.n  # 0 at the middle of an odd number of cells, −1 and 1 of an even one
        chosen = (off >= (-1.0 if p.rule == "mean" else 0.0)) & (off <= 1.0)
        # Halved before they are added: the sum of two cells may lie beyond the largest number.
        halves = ordered / xp.sum(xp.where(chosen, 1.0, 0.0))
        return xp.where(ordered[0] != ordered[0], math.nan, xp.sum(xp.where(chosen, halves, 0.0)))

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        ordered = sorted(w.x)
        lower, upper = ordered[(w.n - 1) // 2], ordered[w.n // 2]
        return 0.5 * lower + 0.5 * upper if p.rule == "mean" else lower

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        upper, lower = of_rank((w.n + 1) // 2, w.x), of_rank(w.n // 2 + 1, w.x)
        found = [Step("rᵢ", ranks(w.x)), Step("x₍⌊(n+1)/2⌋₎", upper), Step("x₍⌊n/2⌋₊₁₎", lower)]
        if p.rule == "lower":
            return [*found, Step("y = x₍⌊n/2⌋₊₁₎, the lower one", lower)]
        return [*found, Step("y = ½ x₍⌊(n+1)/2⌋₎ + ½ x₍⌊n/2⌋₊₁₎", 0.5 * upper + 0.5 * lower)]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        both, (middle, short) = self.rule == "mean", _middle(s)

        def forward(w: Any) -> Any:
            lower, upper, _, _, lost = middle(w)
            return (0.5 * lower + 0.5 * upper if both else lower) + lost

        def gradient(w: Any, g: Any) -> None:
            n = s.count(w)
            lower, upper, second, first, _ = middle(w)
            for i in range(n):
                j = i if short(n) else n - 1 - i
                v = s.cell(w, j)
                share = s.where((v == lower) & (second == 1.0), 0.5 * g if both else g, 0.0)
                if both:
                    share += s.where((v == upper) & (first == 1.0), 0.5 * g, 0.0)
                    first = s.where(v == upper, first - 1.0, first)
                second = s.where(v == lower, second - 1.0, second)
                s.give(w, j, share)

        return forward, gradient


def _of_few(s: Any) -> tuple[Any, Any]:
    """The two middle cells of four, and the middle one of nine, of a window without NaN."""

    @s.inline
    def two(a: Any, b: Any) -> Any:
        return s.where(b < a, b, a), s.where(b < a, a, b)

    @s.inline
    def three(a: Any, b: Any, c: Any) -> Any:
        a, b = two(a, b)
        b, c = two(b, c)
        a, b = two(a, b)
        return a, b, c

    @s.inline
    def of_four(w: Any) -> Any:
        a, b = two(s.cell(w, 0), s.cell(w, 1))
        c, d = two(s.cell(w, 2), s.cell(w, 3))
        return two(two(a, c)[1], two(b, d)[0])

    @s.inline
    def of_nine(w: Any) -> Any:
        """Of sorted rows: the largest first, the middle second and the smallest third cell have it in the middle."""
        a, b, c = three(s.cell(w, 0), s.cell(w, 1), s.cell(w, 2))
        d, e, f = three(s.cell(w, 3), s.cell(w, 4), s.cell(w, 5))
        g, h, i = three(s.cell(w, 6), s.cell(w, 7), s.cell(w, 8))
        return three(two(two(a, d)[1], g)[1], three(b, e, h)[1], two(two(c, f)[0], i)[0])[1]

    return of_four, of_nine


def _middle(s: Any) -> tuple[Any, Any]:
    """`middle(w)`: the lower and the upper middle cell of a window, the same one where n is odd.

    Then which of the cells that equal them these are, counted from the first one in `short` windows and from the last
    one in others; and NaN if a cell is, else 0.
    """
    of_four, of_nine = _of_few(s)

    @s.inline
    def counted(w: Any, lower: Any, upper: Any) -> Any:
        n = s.count(w)
        second, first, lost = s.real(n // 2 + 1), s.real((n + 1) // 2), s.real(0.0)
        for j in range(n):
            v = s.cell(w, j)
            second = s.where(v > lower, second - 1.0, second)
            first = s.where(v > upper, first - 1.0, first)
            lost = s.where(v != v, v, lost)
        return lower, upper, second, first, lost

    @s.inline
    def short(n: Any) -> Any:
        return n == 4 or n == 9

    @s.inline
    def middle(w: Any) -> Any:
        n = s.count(w)
        if n == 4:
            lower, upper = of_four(w)
            return counted(w, lower, upper)
        if n == 9:
            m = of_nine(w)
            return counted(w, m, m)
        lower, above, reach, after, lost = s.search(w, n // 2 + 1)
        # With fewer than n/2 cells above it, the lower middle cell has an equal that is the upper one. A larger upper
        # one is the last of its equals.
        upper, one = s.where(above * 2.0 >= n, after, lower), s.real(1.0)
        return lower, upper, reach - s.real(n // 2), s.where(upper > lower, one, reach - s.real((n - 1) // 2)), lost

    return middle, short
