"""Pyramid pooling module (PPM): averages of large bins, squeezed, and laid beside the map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from poolkit.map_method import Answer, Map, MapMethod, MapShape, OneMap, Weight, convolution
from poolkit.method import Card, Values, param
from poolkit.plain import convolved, normalised, rectified


@dataclass(frozen=True)
class PPM(MapMethod):
    """For each level n: n × n averages, a convolution 1×1, normalisation, ReLU, and back to the map's size.

        y = concat(x, up(ReLU(norm(W_n · mean_n(x)))) for n = 1, 2, 3, 6)

    From C channels each level makes C / levels, so that the output has 2C. `mean_n` are the averages of bins
    ⌊i·a/n⌋ … ⌈(i+1)·a/n⌉ − 1; `up` interpolates linearly with the corner cells on the corners.

    The paper normalises over the batch, which fails for a bin 1 and a batch of one picture, and ties examples together.
    Here each level of an example is normalised over its own channels and bins (a group normalisation with one group):
    the same in training and evaluation, for any batch. `norm="none"` adds the learned shift alone.

    Example:
        >>> PPM().output_shape(MapShape(8, 2, (12, 12)))
        (16, 12, 12)
    """

    levels: str = param(
        "1-2-3-6", choices=("1", "1-2", "1-2-4", "1-2-3-6"), says="bins along an axis, level by level", tries=("1-2",)
    )
    norm: str = param("group", choices=("group", "none"), says="whether each level is normalised", tries=("none",))

    takes_dims = (2,)
    keeps_channels_apart = False
    try_channels = 8
    card: ClassVar[Card] = Card(
        name="ppm",
        title="Pyramid pooling module (PPM)",
        equation="y = concat(x, up(ReLU(norm(W_n · mean_n(x)))) for n = 1, 2, 3, 6)",
        source="H. Zhao, J. Shi, X. Qi, X. Wang, J. Jia, Pyramid scene parsing network, CVPR 2017, arXiv:1612.01105",
        family="pyramid",
        released="The paper's code normalises over the batch and cannot train on a batch of one.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C + levels · ⌊C / levels⌋, *sizes)."""
        channels, count = int(shape.channels or 0), len(self.levels.split("-"))
        return (channels + count * (channels // count), *(shape.sizes or ()))

    def weights(self, shape: MapShape) -> dict[str, Weight]:
        """The squeezing convolution of each level, γ and β."""
        levels, c = self.levels.split("-"), shape.channels
        if c is None or c < len(levels):
            raise ValueError(
                f"{self.spelling} keeps weights for at least {len(levels)} channels\n"
                '  write MapPool2d("ppm", channels=C)'
            )
        width, found = c // len(levels), {}
        for n in levels:
            found[f"squeeze{n}"] = convolution(width, c, 1, 1)
            found |= {f"scale{n}": Weight((width,), scale=1.0)} if self.norm == "group" else {}
            found[f"shift{n}"] = Weight((width,))
        return found

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        parts = [m.x]
        for n in map(int, p.levels.split("-")):
            y = m.x
            for axis, length in enumerate(m.sizes):
                y = m.along(axis, _means(length, n), y)
            y = m.xp.convolve(y, getattr(p, f"squeeze{n}"))
            shift = getattr(p, f"shift{n}")
            if p.norm == "group":
                y = m.normalised(y, 1, getattr(p, f"scale{n}"), shift)
            else:
                y = y + m.xp.reshape(shift, (1, -1, 1, 1))
            y = m.xp.relu(y)
            for axis, length in enumerate(m.sizes):
                y = m.along(axis, _interpolation(n, length), y)
            parts.append(y)
        return m.xp.concat(parts, 1)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        y: Answer = dict(m.x)
        first, (h, w) = m.channels, m.sizes
        for n in map(int, p.levels.split("-")):
            small: Answer = {}
            for channel, i, j in product(range(m.channels), range(n), range(n)):
                rows = range(math.floor(i * h / n), math.ceil((i + 1) * h / n))
                columns = range(math.floor(j * w / n), math.ceil((j + 1) * w / n))
                cells = [m.x[channel, r, c] for r in rows for c in columns]
                small[channel, i, j] = math.fsum(cells) / len(cells)
            weight, shift = getattr(p, f"squeeze{n}"), getattr(p, f"shift{n}")
            small = convolved(small, weight, (n, n))
            if p.norm == "group":
                small = normalised(small, 1, getattr(p, f"scale{n}"), shift)
            else:
                small = {place: v + float(shift[place[0]]) for place, v in small.items()}
            small = rectified(small)
            for channel, r, c in product(range(weight.shape[0]), range(h), range(w)):
                y[first + channel, r, c] = _between(small, channel, _at(r, h, n), _at(c, w, n), n)
            first += weight.shape[0]
        return y


def _means(length: int, n: int) -> list[list[float]]:
    """The matrix of averages over n bins."""
    bins = [(i * length // n, -(-(i + 1) * length // n)) for i in range(n)]
    return [[1.0 / (b - a) if a <= i < b else 0.0 for i in range(length)] for a, b in bins]


def _interpolation(n: int, length: int) -> list[list[float]]:
    """The matrix from n to so many cells, linear, corner on corner."""
    rows = []
    for i in range(length):
        place = i * (n - 1) / (length - 1) if length > 1 else 0.0
        rows.append([max(0.0, 1.0 - abs(place - j)) for j in range(n)])
    return rows


def _at(i: int, length: int, n: int) -> float:
    return 0.0 if length == 1 else i * (n - 1) / (length - 1)


def _between(x: Any, channel: int, r: float, c: float, n: int) -> float:
    """Bilinear interpolation from the four cells around a place."""
    top, left = min(int(r), n - 1), min(int(c), n - 1)
    low, right = min(top + 1, n - 1), min(left + 1, n - 1)
    a, b = r - top, c - left
    upper = x[channel, top, left] * (1 - b) + x[channel, top, right] * b
    lower = x[channel, low, left] * (1 - b) + x[channel, low, right] * b
    return upper * (1 - a) + lower * a
