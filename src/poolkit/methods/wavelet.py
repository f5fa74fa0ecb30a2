"""Wavelet pooling: the approximation of one level of the discrete wavelet transform."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, ClassVar

from poolkit.borders import filtered, walked_back
from poolkit.map_method import MAP_LINEAR, Answer, Map, MapMethod, MapShape, OneMap
from poolkit.method import Card, Values, param

#: The scaling filters of Daubechies with 1 to 4 vanishing moments; their sum is √2.
FILTERS: dict[str, tuple[float, ...]] = {
    "haar": (1 / math.sqrt(2), 1 / math.sqrt(2)),
    "db2": (0.48296291314453416, 0.8365163037378079, 0.2241438680420134, -0.12940952255126037),
    "db3": (
        *(0.3326705529500826, 0.8068915093110925, 0.4598775021184915),
        *(-0.13501102001025458, -0.08544127388202666, 0.03522629188570953),
    ),
    "db4": (
        *(0.2303778133088965, 0.7148465705529157, 0.6308807679298589, -0.027983769416859854),
        *(-0.18703481171909309, 0.030841381835560764, 0.0328830116668852, -0.010597401785069032),
    ),
}


@dataclass(frozen=True)
class Wavelet(MapMethod):
    """The low-pass half of a wavelet transform, which is what two levels without the first details rebuild.

        y[o] = Σⱼ hⱼ x[2o + j − (F/2 − 1)] · gain,   h the scaling filter of F taps, along each axis

    The paper transforms twice, forgets the details of the first level and transforms back: by perfect reconstruction
    that leaves the approximation of the first level, half the map. With `normalize` the gain along each axis is 1/√2,
    so that a constant keeps its value and the Haar wavelet is average pooling; without it, 1 as in the paper: a
    constant map doubles in two dimensions.

    The stride must be 2 along each axis; the filter's middle lies on the middle of windows of 2. Beyond the border the
    map goes on as `border` says; `symmetric` repeats the edge cell (`b a | a b`), as wavelet libraries do.

    `backward="paper"` is not the gradient: the output's gradient G is transformed once, the details of that transform,
    each repeated to twice its size, stand for those of the first level, and G with them is transformed back. It wants
    windows of 2 at stride 2 without padding, sizes that are multiples of 4, and a circular border or `haar`, where
    transforms invert exactly.

    Example:
        >>> y = Wavelet().oracle(OneMap.of([1, 3, 5, 7], window=window(2, dims=1)), Wavelet().values())
        >>> [round(y[0, 0], 6), round(y[0, 1], 6)]
        [2.0, 6.0]
    """

    wavelet: str = param("haar", choices=tuple(FILTERS), says="the wavelet's family", tries=("db2", "db3", "db4"))
    border: str = param(
        "symmetric",
        choices=("symmetric", "reflect", "replicate", "circular"),
        says="how the map goes on beyond its border",
        tries=("reflect", "circular"),
    )
    normalize: bool = param(True, says="whether a constant map keeps its value", tries=(False,))
    backward: str = param("exact", choices=("exact", "paper"), says="which gradient the input gets")

    takes_window = "needs"
    untried: ClassVar[Mapping[str, str]] = {"backward=paper": "its gradient is not the derivative, on purpose"}
    card: ClassVar[Card] = Card(
        name="wavelet",
        title="Wavelet pooling",
        equation="y[o] = Σⱼ hⱼ x[2o + j − (F/2 − 1)] · gain along each axis: LL of the wavelet transform",
        source="T. Williams, R. Li, Wavelet pooling for convolutional neural networks, ICLR 2018; the filters: I. "
        "Daubechies, Orthonormal bases of compactly supported wavelets, Comm. Pure Appl. Math. 41 (1988) 909–996",
        family="frequency",
        facts=(MAP_LINEAR,),
        released="The paper's gain is 2 in two dimensions; its backward pass is not the gradient of its forward pass.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, *windows)."""
        if any(axis.stride != 2 for axis in shape.axes):
            raise ValueError("wavelet pooling halves each axis: the stride must be 2")
        inverts = self.wavelet == "haar" or self.border == "circular"
        plain = all(a.size == 2 and a.before == 0 and a.length % 4 == 0 and 2 * a.out == a.length for a in shape.axes)
        if self.backward == "paper" and not (inverts and plain):
            raise ValueError(
                f"{self.spelling}: the paper's backward wants windows of 2 without padding, sizes that are multiples "
                "of 4, and border=circular or the Haar wavelet"
            )
        return shape.cell_per_window

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        y, h = m.x, FILTERS[p.wavelet]
        taps = [v / math.sqrt(2) if p.normalize else v for v in h]
        for number, a in enumerate(m.shape.axes):
            first = (a.size - 1) // 2 * a.dilation - a.before - (len(h) // 2 - 1)
            y = filtered(m, y, number, taps, (first, 2, a.out), p.border)
        if p.backward == "exact":
            return y
        details = _details(m, p)
        return y + (details - m.xp.stop(details))  # adds 0, and the gradient of the details

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        axes, h = m.window.axes(m.sizes), FILTERS[p.wavelet]
        gain = 2 ** (-m.dims / 2) if p.normalize else 1.0
        y: Answer = {}
        for channel, place in product(range(m.channels), product(*(range(a.out) for a in axes))):
            terms = []
            for taps in product(range(len(h)), repeat=m.dims):
                cell = [
                    walked_back(
                        2 * o + a.dilation * ((a.size - 1) // 2) - a.before + j - len(h) // 2 + 1, a.length, p.border
                    )
                    for o, j, a in zip(place, taps, axes, strict=True)
                ]
                terms.append(math.prod(h[j] for j in taps) * m.at(channel, cell))
            y[(channel,) + place] = gain * math.fsum(terms)
        return y


def _details(m: Map, p: Values) -> Any:
    """What has the details' part of the paper's backward as its gradient: its adjoint, applied to the map."""
    every, low = m.x, m.x
    for axis, length in enumerate(m.sizes):
        lows, highs = _repeated(length, p.wavelet)
        every, low = m.along(axis, m.xp.array(lows + highs, m.x), every), m.along(axis, m.xp.array(lows, m.x), low)
    return (every - low) * (2 ** (-m.dims / 2) if p.normalize else 1.0)


@lru_cache(maxsize=64)
def _repeated(length: int, wavelet: str) -> tuple[Any, Any]:
    """Per axis: analysis, sums of two, synthesis, for the low and for the high band, (length / 2, length)."""
    import numpy as np

    h = np.array(FILTERS[wavelet])
    g = h[::-1] * (-1.0) ** np.arange(len(h))

    def analysis(taps: Any, cells: int) -> Any:
        matrix = np.zeros((cells // 2, cells))
        for o in range(cells // 2):
            for j, tap in enumerate(taps):
                matrix[o, (2 * o + j - len(h) // 2 + 1) % cells] += tap
        return matrix

    sums = np.kron(np.eye(length // 4), np.ones((1, 2)))
    lows, highs = (analysis(taps, length // 2).T @ sums @ analysis(taps, length) for taps in (h, g))
    return lows, highs
