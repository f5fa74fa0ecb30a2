"""NetVLAD: what the cells lack to the centres they belong to, summed for each centre."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import MAP_ORDER_FREE, UNIT, Answer, HeadMethod, Map, MapShape, OneMap, Weight
from poolkit.method import Card, Values, param
from poolkit.plain import dot, softmax, unit

_EPS = 1e-6  # a cell where nothing fires has length 0: its gradient is at most 1/√ε of the others'


@dataclass(frozen=True)
class NetVLAD(HeadMethod):
    """Residuals to K learned centres under a soft assignment: (N, C, *sizes) to (N, K·C).

        V(k) = Σ aₗₖ (xₗ − cₖ) over the cells l,   aₗₖ = softmax over k of wₖ·xₗ + bₖ
        y = unit(unit(V(1)), …, unit(V(K))),   unit(v) = v / ‖v‖

    xₗ are the C numbers of a cell, divided by √(‖xₗ‖² + 10⁻⁶) (`unit_input=false`: not). At the start wₖ = 2α cₖ and
    bₖ = −α ‖cₖ‖², which makes aₗₖ the softmax of −α ‖xₗ − cₖ‖². As in the paper w, b and c are free of each other: the
    layer learns c, and the differences `assign` and `bias` of w and b from these values, which start at 0, where the
    paper learns w and b themselves. Its centres come from k-means; here they start at random, and `layer.centres` can
    be filled.

    `ghosts` are further centres that take part in the assignment, for cells that say nothing, and give no residual
    (Y. Zhong, R. Arandjelović, A. Zisserman, GhostVLAD for set-based face recognition, ACCV 2018).

    No residual is formed: V = A Xᵀ − (Σ A) c, so that nothing larger than N·K·cells or N·K·C is stored.

    Example:
        >>> NetVLAD(clusters=64).output_shape(MapShape(512, 2))
        (32768,)
    """

    clusters: int = param(64, low=1, high=65536, says="number of centres K", tries=(3,))
    ghosts: int = param(0, low=0, high=65536, says="further centres without residuals")
    alpha: float = param(10.0, low=0.0, says="how sharply cells are assigned at the start")
    unit_input: bool = param(True, says="whether each cell's column is divided by its length")

    tries = (
        {"clusters": 3, "ghosts": 2, "alpha": 1.0},
        {"clusters": 2, "ghosts": 1, "alpha": 0.25, "unit_input": False},
    )
    card: ClassVar[Card] = Card(
        name="netvlad",
        title="NetVLAD",
        equation="V(k) = Σ aₗₖ (xₗ − cₖ),  aₗₖ = softmaxₖ(wₖ·xₗ + bₖ),  y = V, each V(k) and then all of length 1",
        source="R. Arandjelović, P. Gronat, A. Torii, T. Pajdla, J. Sivic, NetVLAD: CNN architecture for weakly "
        "supervised place recognition, CVPR 2016, arXiv:1511.07247",
        family="aggregation",
        facts=(MAP_ORDER_FREE, UNIT),
        released="One public version starts the bias at −α‖c‖ where −α‖c‖² is meant, and stores all residuals, "
        "N·K·C·cells numbers.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(K·C,)."""
        return (self.clusters * int(shape.channels or 0),)

    def weights(self, shape: MapShape) -> dict[str, Weight]:
        """The centres, those of ghosts last, and the differences of w and b from what follows from them."""
        c, every = self.channels_of(shape), self.clusters + self.ghosts
        return {
            "centres": Weight((every, c), "normal", 1 / math.sqrt(c)),
            "assign": Weight((every, c)),
            "bias": Weight((every,)),
        }

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        xp, x, c = m.xp, m.columns, p.centres
        x = m.unit(x, 1, _EPS) if p.unit_input else x
        bias = p.bias - p.alpha * xp.sum(c * c, 1)
        logits = xp.einsum("kc,ncl->nkl", p.assign + 2 * p.alpha * c, x) + xp.reshape(bias, (1, -1, 1))
        shares = xp.softmax(logits, 1)[:, : p.clusters]
        v = xp.einsum("nkl,ncl->nkc", shares, x) - xp.sum(shares, 2, True) * c[: p.clusters]
        return m.unit(xp.reshape(m.unit(v, 2), (-1, p.clusters * m.channels)))

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form, by residuals."""
        c = [[float(v) for v in row] for row in p.centres]
        v = [[0.0] * m.channels for _ in range(p.clusters)]
        for place in m.places:
            x = [m.at(channel, place) for channel in range(m.channels)]
            x = unit(x, _EPS) if p.unit_input else x
            logits = [
                dot(p.assign[k], x) + 2 * p.alpha * dot(c[k], x) + float(p.bias[k]) - p.alpha * dot(c[k], c[k])
                for k in range(len(c))
            ]
            for k, share in enumerate(softmax(logits)[: p.clusters]):
                v[k] = [old + share * (x[j] - c[k][j]) for j, old in enumerate(v[k])]
        return {(i,): value for i, value in enumerate(unit([value for row in v for value in unit(row)]))}
