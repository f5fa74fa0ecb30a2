"""Latent attention: learned questions, which the cells answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import MAP_ORDER_FREE, Answer, HeadMethod, Map, MapShape, OneMap, Weight
from poolkit.method import Card, Values, param
from poolkit.plain import dot, softmax


@dataclass(frozen=True)
class LatentAttention(HeadMethod):
    """Multi-head attention of L learned queries over the cells: (N, C, *sizes) to (N, L·C).

        y_i = O·concat(Σ aᵢₗ vₗ for each head) + b,   aᵢₗ = softmax over l of qᵢ·kₗ / √d,   kₗ = K xₗ,   vₗ = V xₗ + b'

    q₁, …, q_L are learned and the same for all maps, where `attention` and `simpool` ask with the map's mean. Each head
    has d = C / heads of the numbers of q, k and v; y is y₁, …, y_L one after the other. A learned vector times a
    learned matrix is a learned vector: queries have no matrix of their own. A bias of the keys would change nothing.

    This is the attention that a set transformer's pooling, a perceiver and timm's `AttentionPoolLatent` share; what
    they put around it, norms and a network for each y_i, comes after it. The layer that C. Lee and others name latent
    attention (NV-Embed, arXiv:2405.17428) turns it about: there the cells ask and learned vectors answer.

    Example:
        >>> LatentAttention(latents=4, heads=8).output_shape(MapShape(512, 2))
        (2048,)
    """

    latents: int = param(1, low=1, high=4096, says="number of learned queries L", tries=(3,))
    heads: int = param(4, low=1, high=1024, says="groups of channels with a softmax of their own", tries=(2,))

    card: ClassVar[Card] = Card(
        name="latent-attention",
        title="Latent attention",
        equation="y_i = O·concat(Σ aᵢₗ vₗ for each head),  aᵢₗ = softmaxₗ(qᵢ·kₗ / √d),  q₁ … q_L learned",
        source="J. Lee, Y. Lee, J. Kim, A. R. Kosiorek, S. Choi, Y. W. Teh, Set transformer, ICML 2019, "
        "arXiv:1810.00825; A. Jaegle et al., Perceiver: general perception with iterative attention, ICML 2021, "
        "arXiv:2103.03206",
        family="attention",
        facts=(MAP_ORDER_FREE,),
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(L·C,)."""
        if shape.channels is not None and shape.channels % self.heads:
            raise ValueError(f"{self.spelling} wants a multiple of {self.heads} channels, got {shape.channels}")
        return (self.latents * int(shape.channels or 0),)

    def weights(self, shape: MapShape) -> dict[str, Weight]:
        """The queries, normal with deviation 1, and the linear maps, as torch starts them, with biases 0."""
        c = self.channels_of(shape)
        self.output_shape(shape)
        found = {"queries": Weight((self.latents, c), "normal", 1.0)}
        found |= {name: Weight((c, c), "uniform", 1 / math.sqrt(c)) for name in ("key", "value", "project")}
        return found | {"value_bias": Weight((c,)), "project_bias": Weight((c,))}

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        xp, x, c, d = m.xp, m.columns, m.channels, m.channels // p.heads
        q = xp.reshape(p.queries, (p.latents, p.heads, d))
        k = xp.reshape(xp.einsum("ij,njl->nil", p.key, x), (-1, p.heads, d, x.shape[2]))
        shares = xp.softmax(xp.einsum("ihd,nhdl->nihl", q, k) / math.sqrt(d), 3)
        v = xp.reshape(xp.einsum("ij,njl->nil", p.value, x), (-1, p.heads, d, x.shape[2]))
        y = xp.reshape(xp.einsum("nihl,nhdl->nihd", shares, v), (-1, p.latents, c)) + p.value_bias  # shares add to 1
        return xp.reshape(xp.einsum("oc,nic->nio", p.project, y) + p.project_bias, (-1, p.latents * c))

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        cells = [[m.at(c, place) for c in range(m.channels)] for place in m.places]
        keys = [[dot(row, x) for row in p.key] for x in cells]
        values = [[dot(row, x) + float(b) for row, b in zip(p.value, p.value_bias, strict=True)] for x in cells]
        d, out = m.channels // p.heads, []
        for q in p.queries:
            y: list[float] = []
            for head in range(p.heads):
                mine = range(head * d, (head + 1) * d)
                shares = softmax([math.fsum(float(q[c]) * k[c] for c in mine) / math.sqrt(d) for k in keys])
                y += [math.fsum(a * v[c] for a, v in zip(shares, values, strict=True)) for c in mine]
            out += [dot(row, y) + float(b) for row, b in zip(p.project, p.project_bias, strict=True)]
        return {(i,): v for i, v in enumerate(out)}
