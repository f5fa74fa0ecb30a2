"""Covariance pooling with a matrix square root by Newton and Schulz's iteration (iSQRT-COV)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import MAP_ORDER_FREE, MAP_SCALES, Answer, Fact, HeadMethod, Map, MapShape, OneMap
from poolkit.method import Card, Values, param

SHIFT_FREE = Fact(
    "shift-free",
    "does not see a constant added to its input: f(x + c) = f(x)",
    lambda f, x, slack: (abs(f(x + 1.5) - f(x)) <= slack).all(),
)


@dataclass(frozen=True)
class ISqrtCov(HeadMethod):
    """The square root of the covariance of the channels: (N, C, *sizes) to (N, C(C + 1)/2).

        P = (1/M) Σ (xₗ − μ)(xₗ − μ)ᵀ over the M cells l,   A = P / tr P,   Y₀ = A, Z₀ = I
        Yₖ = Yₖ₋₁ (3I − Zₖ₋₁Yₖ₋₁) / 2,   Zₖ = (3I − Zₖ₋₁Yₖ₋₁) Zₖ₋₁ / 2,   y = √(tr P) Y_K, upper triangle row by row

    With K → ∞, y is P^½; five steps leave the smallest eigenvalues too small. Products of matrices alone, so that
    nothing is decomposed and equal eigenvalues have a gradient. Half precision is computed in float32. 10⁻¹² is
    added to the trace, so that a constant map gives 0. C of 256 or fewer is usual: a convolution 1×1 before it.

    Example:
        >>> ISqrtCov().output_shape(MapShape(256, 2))
        (32896,)
    """

    iterations: int = param(5, low=1, high=100, says="the number of steps K", tries=(1, 3))

    card: ClassVar[Card] = Card(
        name="isqrt-cov",
        title="Covariance pooling with an iterated square root (iSQRT-COV)",
        equation="y = P^½ by Newton and Schulz's iteration,  P = (1/M) Σ (xₗ − μ)(xₗ − μ)ᵀ over the M cells l",
        source="P. Li, J. Xie, Q. Wang, Z. Gao, Towards faster training of global covariance pooling networks by "
        "iterative matrix square root normalization, CVPR 2018, arXiv:1712.01034",
        family="second order",
        facts=(MAP_ORDER_FREE, MAP_SCALES, SHIFT_FREE),
        released="The public class iterates 3 times where nothing is said, the paper 5 times, and divides by a trace "
        "of 0 for a constant map; its own backward is right for symmetric gradients only.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C(C + 1)/2,)."""
        channels = int(shape.channels or 0)
        return (channels * (channels + 1) // 2,)

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        xp, x, c = m.xp, m.columns, m.channels
        number = xp.array([float(i) for i in range(c)], x)
        eye = xp.where(number[:, None] == number, xp.ones(x, (c, c)), 0.0 * xp.ones(x, (c, c)))
        off = x - xp.mean(x, 2, True)
        cov = xp.einsum("nil,njl->nij", off, off) / x.shape[2]
        trace = xp.plus_tiny(xp.sum(xp.sum(cov * eye, 2, True), 1, True), 1e-12)
        y, z = cov / trace, eye
        for _ in range(p.iterations):
            step = 1.5 * eye - 0.5 * xp.matmul(z, y)
            y, z = xp.matmul(y, step), xp.matmul(step, z)
        flat = xp.reshape(y * xp.sqrt(trace), (-1, c * c))
        return xp.take(flat, [i * c + j for i in range(c) for j in range(i, c)], 1)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        c, places = range(m.channels), m.places
        mean = [math.fsum(m.at(i, place) for place in places) / len(places) for i in c]
        cov = [
            [math.fsum((m.at(i, q) - mean[i]) * (m.at(j, q) - mean[j]) for q in places) / len(places) for j in c]
            for i in c
        ]
        trace = math.fsum(cov[i][i] for i in c) + 1e-12
        y = [[v / trace for v in row] for row in cov]
        z = [[float(i == j) for j in c] for i in c]
        for _ in range(p.iterations):
            zy = _times(z, y)
            step = [[(3.0 * (i == j) - zy[i][j]) / 2 for j in c] for i in c]
            y, z = _times(y, step), _times(step, z)
        upper = [math.sqrt(trace) * y[i][j] for i in c for j in c if j >= i]
        return {(k,): v for k, v in enumerate(upper)}


def _times(a: list[list[float]], b: list[list[float]]) -> list[list[float]]:
    return [
        [math.fsum(v * w for v, w in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a
    ]
