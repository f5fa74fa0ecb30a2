"""Blur pooling: a binomial filter before the map is subsampled, so that fine structure does not alias."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from poolkit.borders import filtered
from poolkit.map_method import (
    MAP_BETWEEN,
    MAP_CONSTANT,
    MAP_LINEAR,
    MAP_SHIFTS,
    Answer,
    Map,
    MapMethod,
    MapShape,
    OneMap,
)
from poolkit.method import Card, Values, param
from poolkit.window import Axis


@dataclass(frozen=True)
class Blur(MapMethod):
    """The map filtered by the normalised binomial filter of so many taps, at the places of the windows.

        y[o] = Σⱼ bⱼ x[s·o + j − shift],   b = row m−1 of Pascal's triangle / 2^(m−1), along each axis

    The filter's middle tap ⌊(m−1)/2⌋ lies on the middle cell ⌊(k−1)/2⌋ of each window, so that the output has the sizes
    of a max pooling with the same window; with windows of 2 at stride 2, and of 3 at stride 2 with padding 1, these are
    the places of the paper's code. The window's size has no other effect.

    The map goes on beyond its border by reflection (`d c b | a b c d | c b a`), by repeating its edge cell
    (`replicate`) or as on a circle (`circular`). Reflection goes on as often as needed, so that maps of any size can be
    blurred; a map of one cell has its only cell everywhere.

    Example:
        >>> y = Blur(taps=3).oracle(OneMap.of([0, 0, 4, 0], window=window(2, dims=1)), Blur(taps=3).values())
        >>> [y[0, 0], y[0, 1]]
        [0.0, 2.0]
    """

    taps: int = param(4, low=1, high=7, says="taps m of the filter; 1 only subsamples", tries=(1, 2, 3, 5, 7))
    border: str = param(
        "reflect",
        choices=("reflect", "replicate", "circular"),
        says="how the map goes on beyond its border",
        tries=("replicate", "circular"),
    )

    takes_window = "needs"
    card: ClassVar[Card] = Card(
        name="blur",
        title="Blur pooling",
        equation="y[o] = Σⱼ bⱼ x[s·o + j − shift],  bⱼ = C(m−1, j) / 2^(m−1)",
        source="R. Zhang, Making convolutional networks shift-invariant again, ICML 2019, arXiv:1904.11486",
        family="anti-aliasing",
        facts=(MAP_BETWEEN, MAP_CONSTANT, MAP_SHIFTS, MAP_LINEAR),
        released="kornia pads with zeros, so that the border darkens; timm pads both sides alike and gives one output "
        "more for 4 taps. Reflection in torch refuses maps smaller than the filter; here it goes on.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, *windows)."""
        return (int(shape.channels or 0), *(axis.out for axis in shape.axes))

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        return blurred(m, m.x, m.shape.axes, p.taps, p.border)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form: the outer product of the filters around each window's middle cell."""
        y: Answer = {}
        axes = m.window.axes(m.sizes)
        for place in product(*(range(a.out) for a in axes)):
            for channel in range(m.channels):
                terms = []
                for taps in product(range(p.taps), repeat=m.dims):
                    weight, cell = 1.0, []
                    for a, o, j in zip(axes, place, taps, strict=True):
                        weight *= math.comb(p.taps - 1, j) / 2 ** (p.taps - 1)
                        at = o * a.stride - a.before + (a.size - 1) // 2 * a.dilation - (p.taps - 1) // 2 + j
                        cell.append(_bounced(at, a.length, p.border))
                    terms.append(weight * m.at(channel, cell))
                y[(channel,) + place] = math.fsum(terms)
        return y


def blurred(m: Map, x: Any, axes: tuple[Axis, ...], taps: int, border: str) -> Any:
    """x filtered along each axis, at the places of the windows."""
    binomial = [math.comb(taps - 1, j) / 2 ** (taps - 1) for j in range(taps)]
    for number, a in enumerate(axes):
        first = (a.size - 1) // 2 * a.dilation - (taps - 1) // 2 - a.before
        x = filtered(m, x, number, binomial, (first, a.stride, a.out), border)
    return x


def _bounced(at: int, length: int, border: str) -> int:
    """Walk back into the picture, for the oracle: one step after the other."""
    while not 0 <= at < length:
        if border == "circular":
            at += length if at < 0 else -length
        elif border == "replicate" or length == 1:
            at = 0 if at < 0 else length - 1
        else:
            at = -at if at < 0 else 2 * (length - 1) - at
    return at
