"""DiffStride: spectral pooling whose cut-off is learned with the net."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from poolkit.map_method import MAP_CONSTANT, MAP_LINEAR, MAP_SHIFTS, Answer, Map, MapMethod, MapShape, OneMap, Weight
from poolkit.method import Card, Values, param
from poolkit.methods.spectral import bases


@dataclass(frozen=True)
class DiffStride(MapMethod):
    """The map's spectrum under a window whose width is a learned stride, cropped and transformed back.

        y[o] = (1/L) Σₖ cₖ wₖ X[k] exp(2πi k o / l),   wₖ = min(1, max(0, (R + L/(2S) − |k|) / R)),   along each axis

    X = DFT(x) of L cells; S is the stride, one for each axis, which the layer learns (`axis_strides`, at least 1); R
    the smoothness, over how many frequencies the window falls to 0: its slope is what S learns from. A constant map
    keeps its value. c and the even sizes are as in spectral pooling.

    The crop keeps the l frequencies where w is above 0 at the start: |k| < L/(2S) + R, at most all of them. In the
    paper it follows S while that is learned; here sizes stay, as everywhere in poolkit, so that a net is one graph: a
    larger S darkens the outer frequencies, a smaller one meets the crop. Where S is so small that w is 1 for all that
    is kept, S has no gradient and stays: for 32 cells, R = 4 and a stride of 2 at the start, up to 16/11.
    `DiffStride(stride=S)` with the learned S is a layer of the size that fits it.

    Example:
        >>> DiffStride().output_shape(MapShape(64, 2, (32, 32)))
        (64, 23, 23)
    """

    stride: float = param(2.0, low=1.0, high=1e6, says="stride S of each axis at the start", tries=(3.0,))
    smoothness: float = param(4.0, low=1.0, high=1e6, says="width R of the window's slope", tries=(1.0,))

    tries = ({"stride": 4.0, "smoothness": 1.5},)
    card: ClassVar[Card] = Card(
        name="diff-stride",
        title="Learned strides (DiffStride)",
        equation="y[o] = (1/L) Σₖ cₖ wₖ X[k] exp(2πi k o / l),  wₖ = min(1, max(0, (R + L/(2S) − |k|) / R))",
        source="R. Riad, O. Teboul, D. Grangier, N. Zeghidour, Learning strides in convolutional neural networks, ICLR "
        "2022, arXiv:2202.01653",
        family="frequency",
        facts=(MAP_CONSTANT, MAP_SHIFTS, MAP_LINEAR),
        released="The authors' layer scales a constant by 4 where it halves both axes; its size follows S.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, *l)."""
        sizes = shape.sizes or ()
        out = [min(n, 2 * math.ceil(n / (2 * self.stride) + self.smoothness) - 1) for n in sizes]
        return (int(shape.channels or 0), *out)

    def weights(self, shape: MapShape) -> dict[str, Weight]:
        """A stride for each axis."""
        return {"axis_strides": Weight((shape.dims,), scale=self.stride)}

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        xp, y = m.xp, m.x
        strides = xp.clip(p.axis_strides, 1.0, None)
        for axis, (length, out) in enumerate(zip(m.sizes, self.output_shape(m.shape)[1:], strict=True)):
            analysis, synthesis, k = bases(length, out, "fourier")
            window = (p.smoothness + length / (2 * strides[axis]) - xp.array(k, y)) / p.smoothness
            shape = [1] * (m.dims + 2)
            shape[2 + axis] = len(k)
            spectrum = m.along(axis, xp.array(analysis, y), y) * xp.reshape(xp.clip(window, 0.0, 1.0), tuple(shape))
            y = m.along(axis, xp.array(synthesis, y), spectrum)
        return y

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form: the double sum over cells and frequencies."""
        out = self.output_shape(MapShape(m.channels, m.dims, m.sizes))[1:]
        tables = []
        for length, l, stride in zip(m.sizes, out, p.axis_strides, strict=True):
            cut = length / (2 * max(1.0, float(stride)))
            window = [min(1.0, max(0.0, (p.smoothness + cut - k) / p.smoothness)) for k in range(l // 2 + 1)]
            tables.append({(o, i): _response((length, l, o, i), window) for o in range(l) for i in range(length)})
        return {
            (channel,) + place: math.fsum(
                m.at(channel, cell) * math.prod(t[o, i] for t, o, i in zip(tables, place, cell, strict=True))
                for cell in m.places
            )
            for channel in range(m.channels)
            for place in product(*(range(l) for l in out))
        }


def _response(at: tuple[int, int, int, int], window: list[float]) -> float:
    """What a one at cell i of n gives at cell o of l."""
    n, l, o, i = at
    return (
        math.fsum(window[abs(k)] * math.cos(2 * math.pi * k * (o / l - i / n)) for k in range(-(l // 2), l - l // 2))
        / n
    )
