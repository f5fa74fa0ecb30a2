"""SimPool: one attention query, the mean of the map, over the normalised cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import MAP_ORDER_FREE, Answer, HeadMethod, Map, MapShape, OneMap, Weight
from poolkit.method import Card, Values, param
from poolkit.plain import dot, softmax


@dataclass(frozen=True)
class SimPool(HeadMethod):
    """Attention of the mean over the cells, and a power mean of what it finds: (N, C, *sizes) to (N, C).

        y = (Σ aₗ (vₗ − min v + 10⁻⁶)^γ)^{1/γ},   aₗ = softmax over l of (Q·mean x)·(K·vₗ) / √d,   vₗ = LN(xₗ)

    LN takes the C numbers of a cell to mean 0 and variance 1, then scales and shifts each channel. With `heads` the
    channels fall into so many groups of d = C / heads, each with a softmax of its own. min v runs over the cells and
    channels of one head of one example, so that an example does not depend on its batch. `gamma=1` is the plain
    weighted mean Σ aₗ vₗ. The paper takes γ = 2 for convolutional nets and 1.25 for transformers.

    Example:
        >>> SimPool().output_shape(MapShape(512, 2))
        (512,)
    """

    gamma: float = param(2.0, low=1.0, says="power γ of the mean", tries=(1.0,))
    heads: int = param(1, low=1, high=1024, says="groups of channels with a softmax of their own")

    tries = ({"gamma": 1.25, "heads": 2},)
    card: ClassVar[Card] = Card(
        name="simpool",
        title="SimPool",
        equation="y = (Σ aₗ (vₗ − min v + ε)^γ)^{1/γ},  aₗ = softmaxₗ((Q·mean x)·(K·vₗ) / √d),  vₗ = LN(xₗ)",
        source="B. Psomas, I. Kakogeorgiou, K. Karantzalos, Y. Avrithis, Keep it SimPool: who said supervised "
        "transformers suffer from attention deficit?, ICCV 2023, arXiv:2309.06891",
        family="attention",
        facts=(MAP_ORDER_FREE,),
        released="The authors' code takes the minimum over the whole batch, so that an example's output depends on the "
        "others, and drops the batch axis of a batch of one; timm takes it for each head, as here.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C,)."""
        if shape.channels is not None and shape.channels % self.heads:
            raise ValueError(f"{self.spelling} wants a multiple of {self.heads} channels, got {shape.channels}")
        return (int(shape.channels or 0),)

    def weights(self, shape: MapShape) -> dict[str, Weight]:
        """Q and K, uniform as torch starts a linear layer, and γ and β of LN."""
        c = self.channels_of(shape)
        square = Weight((c, c), "uniform", 1 / math.sqrt(c))
        return {"query": square, "key": square, "scale": Weight((c,), scale=1.0), "shift": Weight((c,))}

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        xp, x, groups = m.xp, m.columns, (-1, p.heads, m.channels // p.heads)
        off = x - xp.mean(x, 1, True)
        v = off / xp.sqrt(xp.mean(off * off, 1, True) + 1e-5)
        v = v * xp.reshape(p.scale, (1, -1, 1)) + xp.reshape(p.shift, (1, -1, 1))
        q = xp.reshape(xp.einsum("ij,nj->ni", p.query, xp.mean(x, 2)), groups)
        k = xp.reshape(xp.einsum("ij,njl->nil", p.key, v), (*groups, x.shape[2]))
        shares = xp.softmax(xp.einsum("nhd,nhdl->nhl", q, k) / math.sqrt(groups[2]), 2)
        v = xp.reshape(v, (*groups, x.shape[2]))
        if p.gamma == 1:
            return xp.reshape(xp.einsum("nhl,nhdl->nhd", shares, v), (-1, m.channels))
        up = v - xp.min(v, (2, 3), True) + 1e-6
        # y is homogeneous in what is raised: divided by each channel's largest, no power of it is lost.
        top = xp.stop(xp.max(up, 3, True))
        mean = xp.einsum("nhl,nhdl->nhd", shares, xp.power(up / top, p.gamma))
        y = top[..., 0] * xp.power(xp.clip(mean, 1e-30, None), 1 / p.gamma)
        return xp.reshape(y, (-1, m.channels))

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        channels = range(m.channels)
        y: Answer = {}
        mean = [math.fsum(m.at(c, place) for place in m.places) / len(m.places) for c in channels]
        columns = []
        for place in m.places:
            x = [m.at(c, place) for c in channels]
            middle = math.fsum(x) / len(x)
            deviation = math.sqrt(math.fsum((v - middle) ** 2 for v in x) / len(x) + 1e-5)
            columns.append([(x[c] - middle) / deviation * float(p.scale[c]) + float(p.shift[c]) for c in channels])
        d = m.channels // p.heads
        for head in range(p.heads):
            mine = range(head * d, (head + 1) * d)
            q = [dot(p.query[c], mean) for c in mine]
            shares = softmax([dot(q, [dot(p.key[c], v) for c in mine]) / math.sqrt(d) for v in columns])
            least = min(v[c] for v in columns for c in mine)
            for c in mine:
                if p.gamma == 1:
                    y[c,] = math.fsum(a * v[c] for a, v in zip(shares, columns, strict=True))
                    continue
                up = math.fsum(a * (v[c] - least + 1e-6) ** p.gamma for a, v in zip(shares, columns, strict=True))
                y[c,] = up ** (1 / p.gamma)
        return y
