"""Covariance pooling with the matrix square root by eigenvalues (MPN-COV)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import MAP_ORDER_FREE, MAP_SCALES, Answer, HeadMethod, Map, MapShape, OneMap
from poolkit.method import Card, Values
from poolkit.methods.isqrt_cov import SHIFT_FREE

_EPS = 1e-10  # of the trace: the slope of a root at 0 is at most 1/(2√ε)


@dataclass(frozen=True)
class MPNCov(HeadMethod):
    """The square root of the covariance of the channels: (N, C, *sizes) to (N, C(C + 1)/2).

        P = (1/M) Σ (xₗ − μ)(xₗ − μ)ᵀ over the M cells l,   A = P / tr P + εI = U Λ Uᵀ
        y = √(tr P) · U Λ^½ Uᵀ, upper triangle row by row

    The exact root, which `isqrt-cov` comes near to in a few steps. ε = 10⁻¹⁰ keeps the slope finite where a covariance
    has no full rank (fewer cells than channels); 10⁻¹² is added to the trace, so that a constant map gives 0. Half
    precision is computed in float32, where eigenvalues below 10⁻⁷ of the trace are rounding.

    The derivative of the eigenvectors divides by differences of eigenvalues; that of the root does not need it. With E
    the solution of A^½ E + E A^½ = dA, which in the eigenvectors' axes is dAᵢⱼ / (√λᵢ + √λⱼ), the root of A + dA is
    A^½ + E − (the same solution for E²) + …: these terms, whose value is 0 at dA = 0, carry the first and the second
    derivative, at equal eigenvalues too. There is no third. ONNX knows no eigenvalues.

    Example:
        >>> MPNCov().output_shape(MapShape(256, 2))
        (32896,)
    """

    card: ClassVar[Card] = Card(
        name="mpn-cov",
        title="Matrix power normalised covariance pooling (MPN-COV)",
        equation="y = P^½ = U Λ^½ Uᵀ,  P = U Λ Uᵀ = (1/M) Σ (xₗ − μ)(xₗ − μ)ᵀ over the M cells l",
        source="P. Li, J. Xie, Q. Wang, W. Zuo, Is second-order information helpful for large-scale visual "
        "recognition?, ICCV 2017, arXiv:1703.08050",
        family="second order",
        facts=(MAP_ORDER_FREE, MAP_SCALES, SHIFT_FREE),
        released="The authors' gradient divides by differences of eigenvalues, as the derivative of an "
        "eigendecomposition has them, and drops what is infinite.",
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
        a = cov / trace + _EPS * eye
        fixed = xp.stop(a)
        fixed = xp.where(xp.isfinite(fixed), fixed, 0.0 * eye)  # a NaN stops the decomposition; it comes back by `a`
        values, u = xp.eigh(fixed)
        root, turned = xp.sqrt(xp.clip(values, _EPS, None)), xp.transpose(u, (0, 2, 1))
        sums = root[:, :, None] + root[:, None, :]

        def solved(right: Any) -> Any:
            """E of A^½ E + E A^½ = right."""
            return xp.matmul(xp.matmul(u, xp.matmul(xp.matmul(turned, right), u) / sums), turned)

        first = solved(a - fixed)
        y = xp.matmul(u * root[:, None, :], turned) + first - solved(xp.matmul(first, first))
        flat = xp.reshape(y * xp.sqrt(trace), (-1, c * c))
        return xp.take(flat, [i * c + j for i in range(c) for j in range(i, c)], 1)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form: eigenvalues by Jacobi's rotations."""
        c, places = range(m.channels), m.places
        mean = [math.fsum(m.at(i, place) for place in places) / len(places) for i in c]
        cov = [
            [math.fsum((m.at(i, q) - mean[i]) * (m.at(j, q) - mean[j]) for q in places) / len(places) for j in c]
            for i in c
        ]
        trace = math.fsum(cov[i][i] for i in c) + 1e-12
        values, vectors = _eigen([[cov[i][j] / trace + _EPS * (i == j) for j in c] for i in c])
        roots = [math.sqrt(max(v, _EPS)) for v in values]

        def entry(i: int, j: int) -> float:
            return math.fsum(vectors[i][k] * roots[k] * vectors[j][k] for k in c)

        upper = [math.sqrt(trace) * entry(i, j) for i in c for j in c if j >= i]
        return {(k,): v for k, v in enumerate(upper)}


def _eigen(a: list[list[float]]) -> tuple[list[float], list[list[float]]]:
    """Eigenvalues of a symmetric matrix and their vectors as columns: each rotation makes one entry 0."""
    n = len(a)
    u = [[float(i == j) for j in range(n)] for i in range(n)]
    for _ in range(30):
        for i in range(n):
            for j in range(i + 1, n):
                if abs(a[i][j]) < 1e-300:
                    continue
                angle = 0.5 * math.atan2(2 * a[i][j], a[j][j] - a[i][i])
                cos, sin = math.cos(angle), math.sin(angle)
                for rows in (a, u):  # columns i and j of both, then rows i and j of a
                    for row in rows:
                        row[i], row[j] = cos * row[i] - sin * row[j], sin * row[i] + cos * row[j]
                a[i], a[j] = (
                    [cos * v - sin * w for v, w in zip(a[i], a[j], strict=True)],
                    [sin * v + cos * w for v, w in zip(a[i], a[j], strict=True)],
                )
    return [a[i][i] for i in range(n)], u
