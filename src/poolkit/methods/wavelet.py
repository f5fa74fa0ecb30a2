"""Wavelet pooling: the approximation of one level of the discrete wavelet transform."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from poolkit.borders import filtered
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

    takes_window = "needs"
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
        return (int(shape.channels or 0), *(axis.out for axis in shape.axes))

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        y, h = m.x, FILTERS[p.wavelet]
        taps = [v / math.sqrt(2) if p.normalize else v for v in h]
        for number, a in enumerate(m.shape.axes):
            first = (a.size - 1) // 2 * a.dilation - a.before - (len(h) // 2 - 1)
            y = filtered(m, y, number, taps, (first, 2, a.out), p.border)
        return y

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        axes, h = m.window.axes(m.sizes), FILTERS[p.wavelet]
        gain = 2 ** (-m.dims / 2) if p.normalize else 1.0
        y: Answer = {}
        for channel, place in product(range(m.channels), product(*(range(a.out) for a in axes))):
            terms = []
            for taps in product(range(len(h)), repeat=m.dims):
                cell = [
                    _continued(
                        2 * o + a.dilation * ((a.size - 1) // 2) - a.before + j - len(h) // 2 + 1, a.length, p.border
                    )
                    for o, j, a in zip(place, taps, axes, strict=True)
                ]
                terms.append(math.prod(h[j] for j in taps) * m.at(channel, cell))
            y[(channel,) + place] = gain * math.fsum(terms)
        return y


def _continued(at: int, length: int, border: str) -> int:
    """Walk back into the map, for the oracle: one step after the other."""
    while not 0 <= at < length:
        if border == "circular":
            at += length if at < 0 else -length
        elif border == "replicate" or (border == "reflect" and length == 1):
            at = 0 if at < 0 else length - 1
        elif border == "symmetric":
            at = -1 - at if at < 0 else 2 * length - 1 - at
        else:
            at = -at if at < 0 else 2 * (length - 1) - at
    return at
