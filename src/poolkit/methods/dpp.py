"""Detail-preserving pooling (DPP): cells weigh more the further they lie from the window's mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, ORDER_FREE, SHIFTS, Card, Values, WindowMethod, param
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

    def kernel(self, s: Any, p: Any) -> Any:
        """One window for the CPU engine, and its gradient."""
        relative, learns_alpha, learns_lam = self.relative, p.learns_alpha, p.learns_lam
        power, detail, scale = _detail_words(s, p, self.rho == "asym", relative)
        sums = _sums(s, p, relative, (power, detail, scale))

        def forward(w: Any) -> Any:
            return sums(w, False)[4]

        def gradient(w: Any, g: Any) -> None:
            m, unit, square, share, y, base = sums(w, True)
            factor, total, logs = power(w, base), s.wide(0.0), s.wide(0.0)
            least, off = p.alpha(w) * factor, m - y
            steep, inverse = p.lam(w) * share, 1.0 / unit
            common = least * off / (unit * square) if relative else 0.0 * g
            for j in range(s.count(w)):
                x, u = s.cell(w, j), s.noted(w, j)
                d, h = detail(w, x - m)
                near = 1.0 / h
                by_weight = steep * (d * near * ((x - y) * near * u) + d * inverse * common)
                s.note(w, j, (u + least) * share + by_weight)
                total += s.wide(by_weight)
                if learns_lam:
                    logs += s.wide(u * s.log(h * inverse) * (x - y))
            rest = s.real(total / s.count(w))
            for j in range(s.count(w)):
                s.give(w, j, g * (s.noted(w, j) - rest))
            n_off = g * share * off * s.count(w)
            if learns_alpha:
                p.slope_alpha(w, n_off * factor)
            if learns_lam:
                p.slope_lam(w, g * share * s.real(logs) + n_off * least * s.log(base))

        return forward, gradient


def _detail_words(s: Any, p: Any, above: bool, relative: bool) -> tuple[Any, Any, Any]:
    """In lanes: q to the power λ, 0 < q ≤ 1; the distance that counts and the detail; mean, unit of detail and Σ x."""

    @s.inline
    def power(w: Any, q: Any) -> Any:
        """q to the power λ; 1 and 2, the usual ones, without a logarithm."""
        one, two = p.lam(w) == 1.0, p.lam(w) == 2.0
        if s.every(one):
            return q
        if s.every(two):
            return q * q
        return s.where(one, q, s.where(two, q * q, s.exp(p.lam(w) * s.log(q))))

    @s.inline
    def detail(w: Any, d: Any) -> Any:
        d = s.where(d < 0.0, 0.0, d) if above else d
        size = s.abs(d)
        usual, h = size < 1e15, s.sqrt(d * d + p.eps(w))
        if s.every(usual):
            return d, h
        # The larger term is taken out: the square of a larger distance would overflow.
        floor = s.sqrt(p.eps(w))
        inner = size < floor
        high = s.where(inner, floor, size)
        t = s.where(inner, size, floor) / high
        return d, s.where(usual, h, high * s.sqrt(t * t + 1.0))

    @s.inline
    def scale(w: Any) -> Any:
        low, top = s.cell(w, 0), s.cell(w, 0)
        for j in range(1, s.count(w)):
            v = s.cell(w, j)
            low, top = s.where(v < low, v, low), s.where(v > top, v, top)
        m = s.mean(w)
        up, down = top - m, m - low
        unit = detail(w, up if above else s.where(up < down, down, up))[1]
        return m, unit if relative else s.where(unit < 1.0, 1.0, unit)

    return power, detail, scale


def _sums(s: Any, p: Any, relative: bool, words: tuple[Any, Any, Any]) -> Any:
    """In lanes: what forward and gradient both need of a window."""
    power, detail, scale = words

    @s.inline
    def sums(w: Any, keep: bool) -> Any:
        """Mean, largest detail (the unit), Σq²/n of q = h/unit, 1/Σ weights, y and the base of α's factor."""
        m, unit = scale(w)
        middle = s.real(0.0) if s.long else m  # differences round less, but in long sums all one way
        inverse, weight, moment, squares = 1.0 / unit, s.wide(0.0), s.wide(0.0), s.wide(0.0)
        for j in range(s.count(w)):
            x = s.cell(w, j)
            q = detail(w, x - m)[1] * inverse
            u = power(w, q)
            weight += s.wide(u)
            moment = s.plus(moment, u, x - middle)
            if relative:
                squares = s.plus(squares, q, q)
            if keep:
                s.note(w, j, u)
        square = s.real(squares / s.count(w))
        base = s.sqrt(square) if relative else inverse
        least = s.wide(p.alpha(w) * power(w, base))
        whole = weight + least * s.count(w)
        moment += least * (s.wide(m - middle) * s.count(w))
        return m, unit, square, s.real(s.wide(1.0) / whole), middle + s.real(moment / whole), base

    return sums
