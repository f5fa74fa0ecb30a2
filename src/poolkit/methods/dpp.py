"""Detail-preserving pooling (DPP): cells weigh more the further they lie from the window's mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, ORDER_FREE, SHIFTS, Card, Values, WindowMethod, param
from poolkit.steps import Step, mean, products, quotient
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class DPP(WindowMethod):
    """The mean of the cells weighted by their distance from the window's mean.

        y = Σ wᵢ xᵢ / Σ wⱼ,   wᵢ = α + (hᵢ / h)^λ,   hᵢ = √(dᵢ² + eps),   h = √((1/n) Σ hᵢ²)
        dᵢ = xᵢ − m   (`rho="sym"`)   or   max(xᵢ − m, 0)   (`rho="asym"`),   m = (1/n) Σ xᵢ

    This is the light form of the method, as the released code has it: the guide m is the mean of the window, not a
    learned convolution, and the detail hᵢ is relative to h. `relative=False` sets h = 1, the weight without this
    division. α is a share of average pooling, so λ = 0 and a large α are the mean; a large λ leaves the cells furthest
    away. eps is the square of the paper's ε. Both α and λ may be learned, for a layer or for each channel. The gradient
    is exact, through the weights and m. A window that holds ±∞ gives NaN.

    Example:
        >>> round(DPP(rho="asym").oracle(OneWindow.of([1, 4, 3, 2]), DPP(rho="asym").values()), 4)
        2.9662
    """

    rho: str = param(
        "sym", choices=("sym", "asym"), says="detail on both sides of the mean or above it", tries=("asym",)
    )
    alpha: float = param(
        1.0, low=1e-6, high=1e6, learnable=True, says="weight without any detail; large: mean", tries=(1e-6, 2.0)
    )
    lam: float = param(
        1.0, low=0.0, high=100.0, learnable=True, says="0: mean … large: detail alone", tries=(0.0, 2.0, 3.5)
    )
    eps: float = param(1e-3, low=1e-12, high=1.0, says="added to the squared distance", tries=(0.1,))
    relative: bool = param(True, says="whether detail is divided by the window's own", tries=(False,))

    card: ClassVar[Card] = Card(
        name="dpp",
        title="Detail-preserving pooling (DPP)",
        equation="y = Σ wᵢ xᵢ / Σ wⱼ,  wᵢ = α + (hᵢ / h)^λ, hᵢ = √(dᵢ² + eps), h the root mean square of the hᵢ; "
        "dᵢ = xᵢ − m or max(xᵢ − m, 0), m the mean",
        source="F. Saeedan, N. Weber, M. Goesele, S. Roth, Detail-preserving pooling in deep networks, CVPR 2018, "
        "arXiv:1804.04076",
        family="weighted mean",
        facts=(BETWEEN, ORDER_FREE, SHIFTS, CONSTANT),
        same=(("dpp:lam=0", "avg"),),
        limits=(("dpp:alpha=1000000", "avg"), ("dpp:rho=asym,lam=100", "max")),
        released="The authors' code learns ln α and ln λ for each channel, from 0 or at random, and is defined for 2×2 "
        "windows alone. Its division by the window's own detail is not in the short form of the equation. Its full "
        "form takes a learned 3×3 convolution as the guide, which no window holds. Only the code was verified, not the "
        "paper's text.",
    )

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula."""
        xp, floor = w.xp, math.sqrt(p.eps) * w.xp.ones(w.x, (1,) * len(w.x.shape))
        d = w.only(w.x - w.mean(w.x), 0.0)
        d = xp.clip(d, 0.0, None) if p.rho == "asym" else d
        # In units of the window's largest h, or of 1 if that is more: d² would overflow. All weights may be divided by
        # one number, a constant to the gradient; what underflows beside it weighs nothing beside α.
        size = xp.abs(d)
        top = xp.stop(w.max(xp.where(size < floor, floor, size)))
        top = top if p.relative else xp.clip(top, 1.0, None)
        a, b = d / top, floor / top
        square = a * a + b * b
        square = xp.where(square == 0, 1e-37, square)
        rest = 0.5 * xp.log(w.mean(square)) if p.relative else -xp.log(top)
        weights = p.alpha * xp.exp(p.lam * rest) + xp.exp(0.5 * p.lam * xp.log(square))
        return xp.divide(w.sum(weights * w.x), w.sum(weights))

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form."""
        m, floor = math.fsum(w.x) / w.n, math.sqrt(p.eps)
        if math.isinf(m):
            return math.nan
        d = [0.0 if p.rho == "asym" and v < m else v - m for v in w.x]
        h = [math.hypot(v, floor) for v in d]
        unit = math.hypot(*h) / math.sqrt(w.n) if p.relative else 1.0
        top = max(1.0, *(v / unit for v in h))
        weights = [p.alpha * (1.0 / top) ** p.lam + (v / unit / top) ** p.lam for v in h]
        return math.fsum(a * v for a, v in zip(weights, w.x, strict=True)) / math.fsum(weights)

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        m = mean(w.x)
        d = [max(v - m, 0.0) if p.rho == "asym" else v - m for v in w.x]
        h = [math.sqrt(v * v + p.eps) for v in d]
        whole = math.sqrt(mean([v * v for v in h])) if p.relative else 1.0
        weights = [p.alpha + (v / whole) ** p.lam for v in h]
        return [
            Step("m = (1/n) Σ xᵢ", m),
            Step("dᵢ = max(xᵢ − m, 0)" if p.rho == "asym" else "dᵢ = xᵢ − m", d),
            Step("hᵢ = √(dᵢ² + eps)", h),
            Step("h = √((1/n) Σ hᵢ²)" if p.relative else "h = 1", whole),
            Step("wᵢ = α + (hᵢ / h)^λ", weights),
            *quotient("wᵢ xᵢ", products(weights, w.x), "wᵢ", weights, "Σ wⱼ")[1:],
        ]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        from poolkit.kernels.power import LN2

        relative, learns_alpha, learns_lam = self.relative, p.learns_alpha, p.learns_lam
        squared = _squared(s, self.rho == "asym")
        sums = _sums(s, p, (self.rho == "asym", relative), squared)

        @s.inline
        def add_slopes(w: Any, j: Any, about: Any, t: Any) -> Any:
            (m, inverse, floor), y, (least, share, steep, common) = about
            x, k, n, logs = s.cell(w, j), s.noted(w, j), s.count(w), t[1]
            d, q = squared(x - m, inverse, floor)
            by_weight = steep * d * ((x - y) * inverse * k + common)
            s.note(w, j, (k * q + least) * share + by_weight)
            if learns_lam:
                logs = logs + k * q * s.noted(w, n + j) * (x - y)
            return t[0] + by_weight, logs

        of_slopes = s.sums(add_slopes, 2)

        def forward(w: Any) -> Any:
            return sums(w, False)[4]

        def gradient(w: Any, g: Any) -> None:
            (m, inverse, floor), square, factor, share, y, log = sums(w, True)
            least, off = p.alpha(w) * factor, m - y
            common = least * off * inverse / square if relative else 0.0 * g
            total, logs = of_slopes(w, ((m, inverse, floor), y, (least, share, p.lam(w) * share, common)))
            n = s.count(w)
            rest = s.real(total / n)
            for j in range(n):
                s.give(w, j, g * (s.noted(w, j) - rest))
            n_off = g * share * off * n
            if learns_alpha:
                p.slope_alpha(w, n_off * factor)
            if learns_lam:
                p.slope_lam(w, (0.5 * s.real(LN2)) * (g * share * s.real(logs) + n_off * least * log))

        return forward, gradient


def _squared(s: Any, above: bool) -> Any:
    """Of a distance, as a word: t, in units of the window's largest detail (or 0 below the mean), and q² = (h/unit)².

    `floor` is eps in squares of that unit. What underflows counts as some number that weighs nothing beside α.
    """

    @s.inline
    def squared(d: Any, inverse: Any, floor: Any) -> Any:
        t = (s.where(d < 0.0, 0.0, d) if above else d) * inverse
        q = s.fused(t, t, floor)
        return t, s.where(q < 1e-37, 1e-37, q)

    return squared


def _slope(s: Any) -> Any:
    """q to the power λ − 2 and log₂ q², of q², as a word; λ = 1 and 2, the usual ones, without a power."""

    @s.inline
    def slope(lam: Any, kind: int, q: Any) -> Any:
        e, f = s.log2(q)
        if kind == 1:
            return 1.0 / s.sqrt(q), e + f
        if kind == 2:
            return 1.0 + 0.0 * q, e + f
        other = s.power(e, f, 0.5 * lam - 1.0)
        if kind == -1:  # lanes of the usual ones get the same numbers as alone
            other = s.where(lam == 1.0, 1.0 / s.sqrt(q), s.where(lam == 2.0, 1.0 + 0.0 * q, other))
        return other, e + f

    return slope


def _frame(s: Any, p: Any, above: bool, relative: bool) -> Any:
    """The mean, one over the largest detail (or 1, if that is more), and eps in squares of it, as a word."""

    @s.inline
    def frame(w: Any) -> Any:
        low, top = s.cell(w, 0), s.cell(w, 0)
        for j in range(1, s.count(w)):
            v = s.cell(w, j)
            low, top = s.where(v < low, v, low), s.where(v > top, v, top)
        m = s.mean(w)
        up, down = top - m, m - low
        far = up if above else s.where(up < down, down, up)
        # The square of a larger distance could overflow, and eps does not count beside it.
        unit = s.where(far > 1e15, far, s.sqrt(far * far + p.eps(w)))
        inverse = 1.0 / (unit if relative else s.where(unit < 1.0, 1.0, unit))
        return m, inverse, p.eps(w) * inverse * inverse

    return frame


def _sums(s: Any, p: Any, about: tuple[bool, bool], squared: Any) -> Any:
    """What forward and gradient both need of a window, as a word; `about`: is detail asymmetric, is it relative."""
    from poolkit.kernels.power import kind_of_power

    (above, relative), kind_of, slope = about, kind_of_power(s), _slope(s)
    frame, learns_lam = _frame(s, p, above, relative), p.learns_lam

    @s.inline
    def add(w: Any, j: Any, about: Any, t: Any) -> Any:
        ((m, inverse, floor), (lam, kind), middle, keep), x = about, s.cell(w, j)
        q = squared(x - m, inverse, floor)[1]
        k, log = slope(lam, kind, q)
        if keep:
            s.note(w, j, k)
            if learns_lam:
                s.note(w, s.count(w) + j, log)
        return t[0] + k * q, s.fused(k * q, s.part * x - middle, t[1]), t[2] + q

    both = s.sums(add, 3)

    @s.inline
    def sums(w: Any, keep: bool) -> Any:
        """The frame, Σq²/n, what α is multiplied with, 1/Σ weights, y, and log₂ of the base of that factor, squared.

        With `keep` it notes q to the power λ − 2, the weights' slope, and after the cells log₂ q².
        """
        (m, inverse, floor), lam, n = frame(w), p.lam(w), s.count(w)
        middle = s.real(0.0) if s.long else s.part * m  # differences round less, but in long sums all one way
        kind = kind_of(lam)
        weight, moment, squares = both(w, ((m, inverse, floor), (lam, kind), middle, keep))
        square = s.real(squares * (s.wide(1.0) / n))
        base = square if relative else inverse * inverse
        k, log = slope(lam, kind, base)
        least = s.wide(p.alpha(w) * (k * base))
        whole = weight + least * n
        moment += least * (s.wide(s.part * m - middle) * n)
        share = s.wide(1.0) / whole
        y = (middle + s.real(moment * share)) / s.part
        return (m, inverse, floor), square, k * base, s.real(share), y, log

    return sums
