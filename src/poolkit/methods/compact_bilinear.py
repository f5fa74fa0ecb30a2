"""Compact bilinear pooling: a random sketch of bilinear pooling, of any length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from poolkit.map_method import MAP_ORDER_FREE, UNIT, Answer, Fact, HeadMethod, Map, MapShape, OneMap, Weight
from poolkit.method import Card, Values, param
from poolkit.plain import dot, signed_root, unit


@dataclass(frozen=True)
class CompactBilinear(HeadMethod):
    """d numbers whose products stand, in expectation, for those of the C² of bilinear pooling.

        φ(x) = Σ φ(xₗ) over the cells l,   E⟨φ(xₗ), φ(zₗ)⟩ = ⟨xₗ, zₗ⟩²

    `sketch="tensor"`: φ(xₗ) = ψ₁(xₗ) ⊛ ψ₂(xₗ), the circular convolution of two count sketches
    ψ(x)ⱼ = Σ sᵢ xᵢ over i with h(i) = j; h draws a place 0 … d − 1 and s a sign for each channel. `maclaurin`:
    φ(xₗ) = (W₁ xₗ) ∘ (W₂ xₗ) / √d with matrices of signs. Then signed root and length 1, as in bilinear pooling
    (`normalize=false`: not).

    The draws are made once and kept with the layer's state: another draw would make a trained net worthless.
    The convolution is a product of Fourier transforms; their sum over the cells is transformed back once. As φ is
    linear in xₗxₗᵀ, the sum is also a count sketch of the C² numbers of B = Σ xₗxₗᵀ at h₁(i) + h₂(j) mod d: that is
    taken where it needs the smaller arrays, C² ≤ cells · d. (By transforms, an output that should be 0 is a rounding
    error, which the root makes visible: 10⁻¹⁶ becomes 10⁻¹².)

    Example:
        >>> sorted(CompactBilinear().weights(MapShape(512, 2)))
        ['place1', 'place2', 'sign1', 'sign2']
    """

    d: int = param(8192, low=1, high=1 << 24, says="length of the output", tries=(19,))
    sketch: str = param("tensor", choices=("tensor", "maclaurin"), says="which sketch")
    normalize: bool = param(True, says="whether root and length follow")

    tries = (
        {"d": 6, "normalize": False},
        {"d": 8, "sketch": "maclaurin"},
        {"d": 5, "sketch": "maclaurin", "normalize": False},
    )
    card: ClassVar[Card] = Card(
        name="compact-bilinear",
        title="Compact bilinear pooling",
        equation="y = z / ‖z‖,  z = sign(φ) √|φ|,  φ = Σ ψ₁(xₗ) ⊛ ψ₂(xₗ),  ψ(x)ⱼ = Σ sᵢ xᵢ over i with h(i) = j",
        source="Y. Gao, O. Beijbom, N. Zhang, T. Darrell, Compact bilinear pooling, CVPR 2016, arXiv:1511.06062",
        family="second order",
        facts=(MAP_ORDER_FREE,),
        released="Public versions keep the sketches outside the state, so that a checkpoint does not hold them, or "
        "reseed the whole process to draw them.",
    )

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The length is 1 where it is normalised."""
        return (*self.card.facts, UNIT) if self.normalize else self.card.facts

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(d,)."""
        return (self.d,)

    def weights(self, shape: MapShape) -> dict[str, Weight]:
        """The draws, which are fixed: places and signs, or two matrices of signs."""
        c = self.channels_of(shape)
        if self.sketch == "maclaurin":
            return {name: Weight((self.d, c), "sign", learned=False) for name in ("signs1", "signs2")}
        places = {name: Weight((c,), "integer", self.d, learned=False) for name in ("place1", "place2")}
        return places | {name: Weight((c,), "sign", learned=False) for name in ("sign1", "sign2")}

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        xp, x = m.xp, m.columns
        if p.sketch == "maclaurin":
            one, two = (xp.einsum("dc,ncl->ndl", signs, x) for signs in (p.signs1, p.signs2))
            y = xp.sum(one * two, 2) / math.sqrt(p.d)
        else:
            y = _of_pairs(m, p) if m.channels**2 <= x.shape[2] * p.d else _of_cells(m, p)
        return m.unit(m.signed_root(y)) if p.normalize else y

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        y = [0.0] * p.d
        for place in m.places:
            x = [m.at(c, place) for c in range(m.channels)]
            if p.sketch == "maclaurin":
                pairs = zip(p.signs1, p.signs2, strict=True)
                y = [v + dot(a, x) * dot(b, x) / math.sqrt(p.d) for v, (a, b) in zip(y, pairs, strict=True)]
                continue
            one, two = _counted(x, p.place1, p.sign1), _counted(x, p.place2, p.sign2)
            for (i, v), (j, w) in product(one.items(), two.items()):
                y[(i + j) % p.d] += v * w
        y = unit([signed_root(v) for v in y]) if p.normalize else y
        return {(i,): v for i, v in enumerate(y)}


def _of_pairs(m: Map, p: Values) -> Any:
    """The count sketch of the products of all pairs of channels."""
    xp, x, c = m.xp, m.columns, m.channels
    pairs = xp.einsum("nil,njl->nij", x, x) * (xp.reshape(p.sign1, (c, 1)) * xp.reshape(p.sign2, (1, c)))
    where = xp.reshape(p.place1, (c, 1)) + xp.reshape(p.place2, (1, c))
    where = xp.where(where >= p.d, where - p.d, where)
    # The examples stand where channels do, so that one list of places serves them all.
    rows = xp.reshape(pairs, (1, -1, c * c))
    return xp.segments(rows, xp.reshape(where, (1, c * c)), p.d, "sum")[0]


def _of_cells(m: Map, p: Values) -> Any:
    """The product of the Fourier transforms of each cell's sketches, summed, and back."""
    xp, x = m.xp, m.columns
    cells = xp.transpose(x, (0, 2, 1))
    parts = []
    for place, sign in ((p.place1, p.sign1), (p.place2, p.sign2)):
        labels = xp.reshape(place, (1, m.channels))
        rows = xp.reshape(cells * sign, (1, -1, m.channels))
        counted = xp.reshape(xp.segments(rows, labels, p.d, "sum"), (-1, x.shape[2], p.d))
        parts.append(xp.rfft(counted))
    (a, b), (c, d) = parts
    return xp.irfft((xp.sum(a * c - b * d, 1), xp.sum(a * d + b * c, 1)), p.d)


def _counted(x: list[float], places: Any, signs: Any) -> dict[int, float]:
    """A count sketch: its numbers by their place, where there are any."""
    y: dict[int, float] = {}
    for value, place, sign in zip(x, places, signs, strict=True):
        y[int(place)] = y.get(int(place), 0.0) + float(sign) * value
    return y
