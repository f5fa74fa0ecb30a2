"""Attention-based pooling of multiple-instance learning: a mean weighted by what a small network says of each cell."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import MAP_BETWEEN, MAP_CONSTANT, Answer, HeadMethod, Map, MapShape, OneMap, Weight
from poolkit.method import Card, Values, param
from poolkit.plain import dot, logistic, softmax


@dataclass(frozen=True)
class MILAttention(HeadMethod):
    """A bag of instances, the cells, to one vector: (N, C, *sizes) to (N, C).

        y = Σ aₗ xₗ over the cells l,   aₗ = softmax over l of w·tanh(V xₗ);   gated: w·(tanh(V xₗ) ∘ σ(U xₗ))

    V and U are `width` × C, w has `width` numbers. A mask (N, *sizes), false or 0 for cells that are none, such as the
    padding of bags of different sizes, may come as second input: those cells have no weight, whatever is in them, and
    a bag without any cell gives 0.

    Example:
        >>> sorted(MILAttention(gated=True).weights(MapShape(500, 1)))
        ['gate', 'hidden', 'score']
    """

    width: int = param(128, low=1, high=65536, says="width of the small network", tries=(3,))
    gated: bool = param(False, says="whether a gate σ(U x) multiplies the network's units")

    takes = ("mask",)
    optional = ("mask",)
    tries = ({"width": 3, "gated": True},)
    card: ClassVar[Card] = Card(
        name="mil-attention",
        title="Attention-based multiple-instance pooling",
        equation="y = Σ aₗ xₗ,  aₗ = softmaxₗ(w·tanh(V xₗ))",
        source="M. Ilse, J. M. Tomczak, M. Welling, Attention-based deep multiple instance learning, ICML 2018, "
        "arXiv:1802.04712",
        family="attention",
        facts=(MAP_BETWEEN, MAP_CONSTANT),
        released="The authors' layers have biases, which the equation has not, and take one bag at a time.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C,)."""
        return (int(shape.channels or 0),)

    def weights(self, shape: MapShape) -> dict[str, Weight]:
        """V, U and w, uniform as torch starts a linear layer."""
        c = self.channels_of(shape)
        wide = Weight((self.width, c), "uniform", 1 / math.sqrt(c))
        found = {"hidden": wide, "score": Weight((self.width,), "uniform", 1 / math.sqrt(self.width))}
        return found | ({"gate": wide} if self.gated else {})

    def try_inputs(self, shape: MapShape, seed: int) -> dict[str, Any]:
        """Masks that leave the first cell and some others."""
        draw = random.Random(seed)  # noqa: S311 - masks for tests

        def mask(sizes: tuple[int, ...], first: bool = True) -> Any:
            if not sizes:
                return first or draw.random() < 0.6
            return [mask(sizes[1:], first and i == 0) for i in range(sizes[0])]

        return {"mask": mask(shape.sizes or ())}

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        xp, x, mask = m.xp, m.columns, m.others.get("mask")
        if mask is not None:
            mask = xp.reshape(mask, (-1, 1, x.shape[2])) != 0
            x = xp.where(mask, x, 0.0 * xp.ones(x, (1, 1, 1)))
        hidden = xp.tanh(xp.einsum("kc,ncl->nkl", p.hidden, x))
        if p.gated:
            hidden = hidden * xp.sigmoid(xp.einsum("kc,ncl->nkl", p.gate, x))
        logits = xp.sum(hidden * xp.reshape(p.score, (1, -1, 1)), 1, True)
        if mask is not None:
            logits = xp.where(mask, logits, -1e30 * xp.ones(x, (1, 1, 1)))
        return xp.sum(xp.softmax(logits, 2) * x, 2)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        bag = []
        for place in m.places:
            if _inside(m.others.get("mask", True), place):
                bag.append([m.at(channel, place) for channel in range(m.channels)])
        if not bag:
            return {(channel,): 0.0 for channel in range(m.channels)}
        logits = []
        for x in bag:
            hidden = [math.tanh(dot(row, x)) for row in p.hidden]
            if p.gated:
                hidden = [v * logistic(dot(row, x)) for v, row in zip(hidden, p.gate, strict=True)]
            logits.append(dot(p.score, hidden))
        weights = softmax(logits)
        return {(c,): math.fsum(a * x[c] for a, x in zip(weights, bag, strict=True)) for c in range(m.channels)}


def _inside(mask: Any, place: tuple[int, ...]) -> bool:
    if mask is True:
        return True
    for i in place:
        mask = mask[i]
    return bool(mask)
