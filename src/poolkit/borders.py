"""How a map goes on beyond its border: the places that stand in for cells outside.

`reflect`: d c b | a b c d | c b a; `replicate`: a a a | a b c d | d d d; `circular`: b c d | a b c d | a b c;
`symmetric`: c b a | a b c d | d c b.
"""

from __future__ import annotations

import math
from typing import Any


def places(first: int, count: int, length: int, border: str) -> list[int]:
    """The places 0 … length − 1 that stand for first, first + 1, …; reflection goes on as often as it must."""
    return [_inside(at, length, border) for at in range(first, first + count)]


def _inside(at: int, length: int, border: str) -> int:
    if border == "circular":
        return at % length
    if border == "replicate" or length == 1:
        return min(max(at, 0), length - 1)
    if border == "symmetric":
        at %= 2 * length
        return min(at, 2 * length - 1 - at)
    at %= 2 * length - 2
    return min(at, 2 * length - 2 - at)


def filtered(m: Any, x: Any, axis: int, taps: Any, steps: tuple[int, int, int], border: str) -> Any:
    """Σⱼ taps[j] · x[first + stride·o + j] along one axis for o = 0 … out − 1; steps: (first, stride, out)."""
    first, stride, out = steps
    span = (out - 1) * stride
    x = m.take(axis, places(first, span + len(taps), int(x.shape[2 + axis]), border), x)
    cut = [slice(None)] * len(x.shape)
    total = None
    for j, tap in enumerate(taps):
        cut[2 + axis] = slice(j, j + span + 1, stride)
        term = tap * x[tuple(cut)]
        total = term if total is None else total + term
    return total


def binomial(taps: int) -> list[float]:
    """A row of Pascal's triangle, of sum 1."""
    return [math.comb(taps - 1, j) / 2 ** (taps - 1) for j in range(taps)]


def walked_back(at: int, length: int, border: str) -> int:
    """The same place for an oracle, which shares nothing with `places`: back into the map, one step after the other."""
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
