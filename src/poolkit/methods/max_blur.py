"""Max-blur pooling: a maximum at every place, then a binomial filter, then subsampling."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar

from poolkit.borders import filtered
from poolkit.map_method import (
    MAP_BETWEEN,
    MAP_CONSTANT,
    MAP_SCALES,
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
class MaxBlur(MapMethod):
    """The maximum of the window at every place, filtered by a binomial filter of so many taps and subsampled.

        M[i] = max of the window that begins at i;   y[o] = Σⱼ bⱼ M[s·o + j − ⌊(m−1)/2⌋],   b as in blur pooling

    Max pooling is the same without the filter. The window slides with stride 1; its stride is that of the subsampling.
    Cells outside the picture never enter a maximum; the map of maxima goes on beyond its border as `border` says, and
    has the place of each window and those between them.

    Example:
        >>> y = MaxBlur(taps=3).oracle(OneMap.of([0, 4, 0, 0], window=window(2, dims=1)), MaxBlur(taps=3).values())
        >>> [y[0, 0], y[0, 1]]
        [4.0, 2.0]
    """

    taps: int = param(4, low=1, high=7, says="taps m of the filter; 1: max pooling", tries=(1, 3, 7))
    border: str = param(
        "reflect",
        choices=("reflect", "replicate", "circular"),
        says="how the map of maxima goes on beyond its border",
        tries=("replicate", "circular"),
    )

    takes_window = "needs"
    card: ClassVar[Card] = Card(
        name="max-blur",
        title="Max-blur pooling",
        equation="y[o] = Σⱼ bⱼ M[s·o + j − ⌊(m−1)/2⌋],  M[i] = max over the window at i,  bⱼ = C(m−1, j) / 2^(m−1)",
        source="R. Zhang, Making convolutional networks shift-invariant again, ICML 2019, arXiv:1904.11486",
        family="anti-aliasing",
        facts=(MAP_BETWEEN, MAP_CONSTANT, MAP_SHIFTS, MAP_SCALES),
        same=(("max-blur:taps=1", "max"),),
        released="kornia pads with zeros instead of reflecting, so that the border darkens.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, *windows)."""
        return (int(shape.channels or 0), *(axis.out for axis in shape.axes))

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        dense = tuple(every_place(axis) for axis in m.shape.axes)
        w = m.cells(axes=dense)
        y = w.max(w.x)
        binomial = [math.comb(p.taps - 1, j) / 2 ** (p.taps - 1) for j in range(p.taps)]
        for number, a in enumerate(m.shape.axes):
            y = filtered(m, y, number, binomial, (-((p.taps - 1) // 2), a.stride, a.out), p.border)
        return y

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form: for each tap the maximum of its window."""
        y: Answer = {}
        axes = m.window.axes(m.sizes)
        ends = [max((a.out - 1) * a.stride, a.length + a.before + a.after - a.extent) + 1 for a in axes]
        for place in product(*(range(a.out) for a in axes)):
            for channel in range(m.channels):
                terms = []
                for taps in product(range(p.taps), repeat=m.dims):
                    weight = math.prod(math.comb(p.taps - 1, j) / 2 ** (p.taps - 1) for j in taps)
                    at = [
                        _bounced(o * a.stride + j - (p.taps - 1) // 2, end, p.border)
                        for a, o, j, end in zip(axes, place, taps, ends, strict=True)
                    ]
                    terms.append(weight * _largest(m, channel, at, axes))
                y[(channel,) + place] = math.fsum(terms)
        return y


def every_place(a: Axis) -> Axis:
    """The same windows with stride 1, from the first one's place to the last one's and as far as the picture goes."""
    if a.dilation > a.length:
        raise ValueError(f"a dilation of {a.dilation} leaves windows without a cell in a map of {a.length} cells")
    return replace(a, stride=1, out=max((a.out - 1) * a.stride, a.length + a.before + a.after - a.extent) + 1)


def _largest(m: OneMap, channel: int, at: list[int], axes: tuple[Axis, ...]) -> float:
    found = []
    for offsets in product(*(range(a.size) for a in axes)):
        cell = tuple(i - a.before + j * a.dilation for i, j, a in zip(at, offsets, axes, strict=True))
        if all(0 <= c < n for c, n in zip(cell, m.sizes, strict=True)):
            found.append(m.at(channel, cell))
    return max(found)


def _bounced(at: int, length: int, border: str) -> int:
    """Walk back into the map, for the oracle: one step after the other."""
    while not 0 <= at < length:
        if border == "circular":
            at += length if at < 0 else -length
        elif border == "replicate" or length == 1:
            at = 0 if at < 0 else length - 1
        else:
            at = -at if at < 0 else 2 * (length - 1) - at
    return at
