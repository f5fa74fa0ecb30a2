"""Attention pooling as in CLIP: the mean asks, the cells and the mean itself answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from poolkit.map_method import Answer, HeadMethod, Map, MapShape, OneMap, Weight
from poolkit.method import Card, Values, param
from poolkit.plain import dot, softmax


@dataclass(frozen=True)
class Attention(HeadMethod):
    """Multi-head attention with one query, the mean of the map: (N, C, *sizes) to (N, out).

        t₀ = mean x + e₀,  tₗ = xₗ + eₗ,   q = Q t₀ + b,  kₗ = K tₗ,  vₗ = V tₗ + b'
        y = O·concat(Σ aₗ vₗ for each head) + b",   aₗ = softmax over l = 0, 1, …, cells of q·kₗ / √d

    e are learned positions, one for the mean and one for each cell of a map of the `sizes` that the layer is made with.
    For maps of other sizes they are resampled, linearly between the middles of the cells. Each head has d = C / heads
    of the numbers of q, k and v. Keys have no bias here: it would add the same to all logits.

    Example:
        >>> Attention(heads=32, out=1024).output_shape(MapShape(2048, 2))
        (1024,)
    """

    heads: int = param(4, low=1, high=1024, says="groups of channels with a softmax of their own", tries=(2,))
    out: int = param(0, low=0, high=65536, says="length of the output; 0: C", tries=(3,))

    card: ClassVar[Card] = Card(
        name="attention",
        title="Attention pooling (CLIP)",
        equation="y = O·concat(Σ aₗ vₗ for each head),  aₗ = softmaxₗ(q·kₗ / √d),  q = Q (mean x + e₀)",
        source="A. Radford et al., Learning transferable visual models from natural language supervision, ICML 2021, "
        "arXiv:2103.00020",
        family="attention",
        released="The authors' layer takes maps of one size only, and its keys have a bias, which changes nothing.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(out,), or (C,)."""
        if shape.channels is not None and shape.channels % self.heads:
            raise ValueError(f"{self.spelling} wants a multiple of {self.heads} channels, got {shape.channels}")
        return (self.out or int(shape.channels or 0),)

    def weights(self, shape: MapShape) -> dict[str, Weight]:
        """Positions, normal with deviation 1/√C, and the four linear maps, as torch starts them, with biases 0."""
        c = self.channels_of(shape)
        (out,) = self.output_shape(shape)
        if shape.sizes is None:
            raise ValueError(
                f'{self.spelling} keeps a position for each cell\n  write Head("{self.spelling}", C, (H, W))'
            )
        found = {
            "position": Weight((c,), "normal", 1 / math.sqrt(c)),
            "positions": Weight((c, *shape.sizes), "normal", 1 / math.sqrt(c)),
        }
        found |= {name: Weight((c, c), "uniform", 1 / math.sqrt(c)) for name in ("query", "key", "value")}
        found["project"] = Weight((out, c), "uniform", 1 / math.sqrt(c))
        return found | {"query_bias": Weight((c,)), "value_bias": Weight((c,)), "project_bias": Weight((out,))}

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        xp, x, c, d = m.xp, m.columns, m.channels, m.channels // p.heads
        places = p.positions[None]
        for axis, (old, new) in enumerate(zip(p.positions.shape[1:], m.sizes, strict=True)):
            places = places if old == new else m.along(axis, _resampling(int(old), new), places)
        first = xp.mean(x, 2, True) + xp.reshape(p.position, (1, c, 1))
        t = xp.concat([first, x + xp.reshape(places, (1, c, x.shape[2]))], 2)
        q = xp.reshape(xp.einsum("ij,nj->ni", p.query, first[:, :, 0]) + p.query_bias, (-1, p.heads, d))
        k = xp.reshape(xp.einsum("ij,njl->nil", p.key, t), (-1, p.heads, d, t.shape[2]))
        shares = xp.softmax(xp.einsum("nhd,nhdl->nhl", q, k) / math.sqrt(d), 2)
        v = xp.reshape(xp.einsum("ij,njl->nil", p.value, t), (-1, p.heads, d, t.shape[2]))
        y = xp.reshape(xp.einsum("nhl,nhdl->nhd", shares, v), (-1, c)) + p.value_bias  # the shares of a head add to 1
        return xp.einsum("oc,nc->no", p.project, y) + p.project_bias

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        every, places, d = range(m.channels), m.places, m.channels // p.heads
        tokens = [[math.fsum(m.at(c, at) for at in places) / len(places) + float(p.position[c]) for c in every]]
        tokens += [[m.at(c, at) + _between(p.positions[c], at, m.sizes) for c in every] for at in places]
        q = [dot(row, tokens[0]) + float(b) for row, b in zip(p.query, p.query_bias, strict=True)]
        keys = [[dot(row, t) for row in p.key] for t in tokens]
        values = [[dot(row, t) + float(b) for row, b in zip(p.value, p.value_bias, strict=True)] for t in tokens]
        y = []
        for head in range(p.heads):
            mine = slice(head * d, (head + 1) * d)
            shares = softmax([dot(q[mine], k[mine]) / math.sqrt(d) for k in keys])
            y += [math.fsum(a * v[c] for a, v in zip(shares, values, strict=True)) for c in every[mine]]
        out = [dot(row, y) + float(b) for row, b in zip(p.project, p.project_bias, strict=True)]
        return {(i,): v for i, v in enumerate(out)}


def _resampling(old: int, new: int) -> list[list[float]]:
    """The matrix from old to new cells: linear between the middles of cells, the outer ones continued."""
    places = [min(max((i + 0.5) * old / new - 0.5, 0.0), old - 1.0) for i in range(new)]
    return [[max(0.0, 1.0 - abs(place - j)) for j in range(old)] for place in places]


def _between(table: Any, place: tuple[int, ...], sizes: tuple[int, ...]) -> float:
    """Linear interpolation in a table, from the two cells around the place along each axis."""
    corners = []
    for i, old, new in zip(place, table.shape, sizes, strict=True):
        at = min(max((i + 0.5) * old / new - 0.5, 0.0), old - 1.0)
        low = int(at)
        corners.append([(low, 1.0 - (at - low)), (min(low + 1, old - 1), at - low)])
    return math.fsum(
        float(table[tuple(j for j, _ in corner)]) * math.prod(share for _, share in corner)
        for corner in product(*corners)
    )
