"""Fuzzy pooling: the mean weighted by how far each cell belongs to the set that fits the window best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, ORDER_FREE, Card, Values, WindowMethod, param
from poolkit.steps import Step, products, quotient
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class Fuzzy(WindowMethod):
    """The mean of the cells weighted by their membership in one of three fuzzy sets: small, medium or large values.

        y = Σ μ(xᵢ) xᵢ / Σ μ(xⱼ),   μ the one of μ₁, μ₂, μ₃ with the largest Σ μ(xᵢ)

    With R = `r_max`, the value taken for the largest one: μ₁ is 1 up to R/6 and falls to 0 at R/2; μ₂ rises from R/4 to
    1 at R/2 and falls to 0 at 3R/4; μ₃ rises from R/2 to 1 at 3R/4 and stays there. Made for activations from 0 to R,
    as ReLU6 gives them; a window of small or negative cells has the mean, one of large cells too. Of sets that fit
    equally well the first is taken; where the best set changes, y jumps. The gradient is exact within a set.

    Example:
        >>> round(Fuzzy().oracle(OneWindow.of([1, 4, 3, 2]), Fuzzy().values()), 4)
        3.0
    """

    r_max: float = param(6.0, low=1e-3, high=1e6, says="the value counted as the largest", tries=(1.1, 20.0))

    card: ClassVar[Card] = Card(
        name="fuzzy",
        title="Fuzzy pooling",
        equation="y = Σ μ(xᵢ) xᵢ / Σ μ(xⱼ),  μ the one of three membership functions with the largest Σ μ(xᵢ)",
        source="D. E. Diamantis, D. K. Iakovidis, Fuzzy pooling, IEEE Transactions on Fuzzy Systems 29 (2021) "
        "3481–3488, arXiv:2202.08372",
        family="weighted mean",
        facts=(BETWEEN, ORDER_FREE, CONSTANT),
        same=(("fuzzy:r_max=1000000", "avg"),),
        released="A benchmark's port takes the first set where it means the third, mixes up the conditions of the "
        "second and multiplies matrices instead of cells. The three functions were checked against that port, not "
        "against the paper's text.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        xp, u = w.xp, w.x * (4.0 / p.r_max)
        # At a corner each function takes the slope on its left.
        small = xp.where(2.0 < u, 0.0, xp.where(u <= 2.0 / 3.0, 1.0, 1.5 - 0.75 * u))
        rise = xp.where((u <= 1.0) | (3.0 < u), 0.0, xp.where(u <= 2.0, u - 1.0, 3.0 - u))
        large = xp.where(u <= 2.0, 0.0, xp.where(u <= 3.0, u - 2.0, 1.0))
        fits = [w.sum(small), w.sum(rise), w.sum(large)]
        first = (fits[0] >= fits[1]) & (fits[0] >= fits[2])
        weights = xp.where(first, small, xp.where(fits[1] >= fits[2], rise, large))
        return w.sum(weights * w.x) / w.sum(weights)

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        sixth, quarter, half, most = p.r_max / 6, p.r_max / 4, p.r_max / 2, 3 * p.r_max / 4
        weights = [
            [1.0 - _ramp(v, sixth, half) for v in w.x],
            [_ramp(v, quarter, half) - _ramp(v, half, most) for v in w.x],
            [_ramp(v, half, most) for v in w.x],
        ]
        best = max(weights, key=math.fsum)
        return math.fsum(m * v for m, v in zip(best, w.x, strict=True)) / math.fsum(best)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        low, half, most = p.r_max / 6, p.r_max / 2, 3 * p.r_max / 4
        sets = {
            "μ₁": [1.0 - _ramp(v, low, half) for v in w.x],
            "μ₂": [_ramp(v, p.r_max / 4, half) - _ramp(v, half, most) for v in w.x],
            "μ₃": [_ramp(v, half, most) for v in w.x],
        }
        says = ("1 up to R/6, 0 from R/2", "0 up to R/4, 1 at R/2, 0 from 3R/4", "0 up to R/2, 1 from 3R/4")
        found = [Step(f"{n}(xᵢ): {text}", m) for (n, m), text in zip(sets.items(), says, strict=True)]
        found += [Step(f"Σ {n}(xᵢ)", math.fsum(m)) for n, m in sets.items()]
        best = max(sets, key=lambda n: math.fsum(sets[n]))  # the first of equals
        found.append(Step(f"μ = {best}, which has the largest sum", math.fsum(sets[best])))
        return [*found, *quotient("μ(xᵢ) xᵢ", products(sets[best], w.x), "μ(xᵢ)", sets[best], "Σ μ(xⱼ)")]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""

        sets = _sets(s)

        @s.inline
        def chosen(w: Any) -> Any:
            """Whether the first set fits best, else the second; the sum of the best set's memberships, and y."""
            q, zero = 0.25 * p.r_max(w), s.wide(0.0)
            fit1, fit2, fit3, sum1, sum2, sum3, rest = zero, zero, zero, zero, zero, zero, zero
            for j in range(s.count(w)):
                x = s.cell(w, j)
                small, rise, large = sets(x, q)
                fit1 += s.wide(small)
                fit2 += s.wide(rise)
                fit3 += s.wide(large)
                sum1 = s.plus(sum1, small, s.part * x)  # a part of it: no product overflows
                sum2 = s.plus(sum2, rise, s.part * x)
                sum3 = s.plus(sum3, large, s.part * x)
            first, second = (fit1 >= fit2) & (fit1 >= fit3), fit2 >= fit3
            fit = s.where(first, fit1, s.where(second, fit2, fit3))
            y = s.real(s.where(first, sum1, s.where(second, sum2, sum3)) / fit) / s.part
            if not s.long:  # what the sums have rounded away
                for j in range(s.count(w)):
                    small, rise, large = sets(s.cell(w, j), q)
                    best = s.where(first, small, s.where(second, rise, large))
                    rest = s.plus(rest, best, s.where(s.abs(y) < math.inf, s.cell(w, j) - y, 0.0))
            return first, second, s.real(fit), y + s.real(rest / fit)

        def forward(w: Any) -> Any:
            return chosen(w)[3]

        def gradient(w: Any, g: Any) -> None:
            first, second, fit, y = chosen(w)
            q, share = 0.25 * p.r_max(w), g / fit
            for j in range(s.count(w)):
                x = s.cell(w, j)
                small, rise, large = sets(x, q)
                down = s.where((x <= q * (2.0 / 3.0)) | (x > 2.0 * q), s.real(0.0), -0.75)
                up = s.where((x <= 2.0 * q) | (x > 3.0 * q), s.real(0.0), 1.0)
                hill = s.where((x <= q) | (x > 2.0 * q), 0.0 - up, 1.0)
                slope = s.where(first, down, s.where(second, hill, up))
                s.give(w, j, share * (s.where(first, small, s.where(second, rise, large)) + slope * (x - y)))

        return forward, gradient


def _sets(s: Any) -> Any:
    """The memberships in lanes, as a word."""

    @s.inline
    def least(a: Any, b: Any) -> Any:
        return s.where(a < b, a, b)

    @s.inline
    def held(v: Any, q: Any) -> Any:
        """v between 0 and q."""
        return least(s.where(v > 0.0, v, 0.0), q)

    @s.inline
    def sets(x: Any, q: Any) -> Any:
        """The three memberships times q, a quarter of r_max: the factor has no effect."""
        rise = least(x - q, 3.0 * q - x)
        return held(1.5 * q - 0.75 * x, q), s.where(rise > 0.0, rise, 0.0), held(x - 2.0 * q, q)

    return sets


def _ramp(v: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high` on, a straight line between."""
    return min(max((v - low) / (high - low), 0.0), 1.0)
