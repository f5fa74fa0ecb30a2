"""How a map goes on beyond its border: the places that stand in for cells outside."""

from __future__ import annotations

from typing import Any

#: `reflect`: d c b | a b c d | c b a; `replicate`: a a a | a b c d | d d d; `circular`: b c d | a b c d | a b c;
#: `symmetric`: c b a | a b c d | d c b.
BORDERS = ("reflect", "replicate", "circular", "symmetric")


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
