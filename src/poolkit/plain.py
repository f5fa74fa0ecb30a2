"""Convolution, normalisation, bins and roots in plain loops, for the oracles of methods that keep weights.

Values are at (channel, *place), as in `OneMap`; weights are read by index. Shares nothing with the array words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

Cells = Mapping[tuple[int, ...], float]


def convolved(x: Cells, weight: Any, sizes: tuple[int, ...]) -> dict[tuple[int, ...], float]:
    """A convolution with zeros around that keeps the sizes; weight: (out, in / groups, *odd sizes)."""
    kernel, into = weight.shape[2:], weight.shape[1]
    channels = 1 + max(place[0] for place in x)
    y = {}
    for out in range(weight.shape[0]):
        first = out * into if into < channels else 0  # a group of channels for each output, or all of them
        for place in product(*(range(n) for n in sizes)):
            terms = []
            for i, tap in product(range(into), product(*(range(k) for k in kernel))):
                cell = tuple(a + t - k // 2 for a, t, k in zip(place, tap, kernel, strict=True))
                if all(0 <= a < n for a, n in zip(cell, sizes, strict=True)):
                    terms.append(float(weight[(out, i) + tap]) * x[(first + i,) + cell])
            y[(out,) + place] = math.fsum(terms)
    return y


def normalised(x: Cells, groups: int, scale: Any, shift: Any) -> dict[tuple[int, ...], float]:
    """Group normalisation with a variance of at least 10⁻⁵; a group of one number stays as it is."""
    channels = 1 + max(place[0] for place in x)
    y = {}
    for group in range(groups):
        mine = [place for place in x if place[0] * groups // channels == group]
        mean = math.fsum(x[place] for place in mine) / len(mine)
        variance = math.fsum((x[place] - mean) ** 2 for place in mine) / len(mine)
        for place in mine:
            share = (x[place] - mean) / math.sqrt(variance + 1e-5) if len(mine) > 1 else x[place]
            y[place] = share * float(scale[place[0]]) + float(shift[place[0]])
    return y


def rectified(x: Cells) -> dict[tuple[int, ...], float]:
    """max(x, 0)."""
    return {place: max(value, 0.0) for place, value in x.items()}


def binned(x: Cells, sizes: tuple[int, ...], n: int) -> dict[tuple[int, ...], float]:
    """The averages of n × n bins that reach every cell of a map with two axes."""
    y: dict[tuple[int, ...], float] = {}
    h, w = sizes
    for channel, i, j in product(range(1 + max(place[0] for place in x)), range(n), range(n)):
        rows = range(math.floor(i * h / n), math.ceil((i + 1) * h / n))
        columns = range(math.floor(j * w / n), math.ceil((j + 1) * w / n))
        cells = [x[channel, r, c] for r in rows for c in columns]
        y[channel, i, j] = math.fsum(cells) / len(cells)
    return y


def enlarged(x: Cells, n: int, sizes: tuple[int, ...]) -> dict[tuple[int, ...], float]:
    """A map of n × n cells at other sizes, bilinear, the corner cells on the corners."""
    y: dict[tuple[int, ...], float] = {}
    h, w = sizes
    for channel, i, j in product(range(1 + max(place[0] for place in x)), range(h), range(w)):
        r, c = ((0.0 if a == 1 else k * (n - 1) / (a - 1)) for k, a in ((i, h), (j, w)))
        top, left = min(int(r), n - 1), min(int(c), n - 1)
        low, right = min(top + 1, n - 1), min(left + 1, n - 1)
        upper = x[channel, top, left] * (1 - c + left) + x[channel, top, right] * (c - left)
        lower = x[channel, low, left] * (1 - c + left) + x[channel, low, right] * (c - left)
        y[channel, i, j] = upper * (1 - r + top) + lower * (r - top)
    return y


def logistic(z: float) -> float:
    """1 / (1 + e⁻ᶻ)."""
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def unit(values: list[float], eps: float = 1e-12) -> list[float]:
    """A vector divided by √(its squared length + ε)."""
    length = math.sqrt(math.fsum(v * v for v in values) + eps)
    return [v / length for v in values]


def unit_above(values: list[float], least: float) -> list[float]:
    """A vector divided by its length, or by `least` where it is shorter."""
    length = max(math.sqrt(math.fsum(v * v for v in values)), least)
    return [v / length for v in values]


def signed_root(value: float) -> float:
    """The square root of a number's size with its sign, which 10⁻⁸ softens around 0."""
    return math.copysign(abs(value) / math.sqrt(abs(value) + 1e-8), value)


def softmax(logits: list[float]) -> list[float]:
    """exp(z) / Σ exp(z)."""
    weights = [math.exp(z - max(logits)) for z in logits]
    return [w / math.fsum(weights) for w in weights]


def dot(a: Any, b: Any) -> float:
    """The sum of products of two vectors."""
    return math.fsum(float(v) * float(w) for v, w in zip(a, b, strict=True))
