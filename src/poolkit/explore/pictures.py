"""The pictures that the explorer begins with: small maps of numbers, made here, of no one's data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Rows = list[list[float]]


def pictures() -> list[dict[str, Any]]:
    """Each picture's name, title and rows of cells."""
    return [
        {"name": "numbers", "title": "numbers, 6×6", "cells": _numbers()},
        {"name": "edge", "title": "an edge, 8×8", "cells": _map(8, lambda r, c: c > 2 + r // 3)},
        {"name": "signs", "title": "both signs, 6×6", "cells": _signs()},
        {"name": "digit", "title": "a drawn 5, 16×16", "cells": _digit(16)},
        {"name": "checks", "title": "a chessboard, 8×8", "cells": _map(8, lambda r, c: (r + c) % 2)},
        {"name": "waves", "title": "finer waves, 32×32", "cells": _waves(32)},
    ]


def _map(size: int, value: Callable[[int, int], float]) -> Rows:
    """As many rows as columns, each cell by its place."""
    return [[float(value(r, c)) for c in range(size)] for r in range(size)]


def _numbers() -> Rows:
    """Whole numbers in which no two windows of 2×2 look alike: a peak, a tie, zeros, a lone cell."""
    rows = ("1 3 2 4 0 0", "5 6 7 8 0 9", "3 2 1 0 4 4", "1 2 3 4 4 4", "0 5 0 1 2 8", "6 0 2 0 7 3")
    return [[float(cell) for cell in row.split()] for row in rows]


def _signs() -> Rows:
    """A smooth map with cells below 0, as it is before a ReLU."""
    return _map(6, lambda r, c: round(math.sin(1.3 * r + 0.4) * math.cos(0.9 * c) + 0.1 * (r - c), 2))


def _digit(size: int) -> Rows:
    """Strokes of a 5, as grey values from 0 to 1."""
    bowl = [(0.36 + 0.28 * math.cos(a), 0.64 + 0.22 * math.sin(a)) for a in (k * math.pi / 12 - 1.9 for k in range(17))]
    points = [(0.72, 0.16), (0.34, 0.16), (0.3, 0.48), *((x + 0.1, y) for x, y in bowl)]

    def grey(x: float, y: float) -> float:
        far = min(_distance(x, y, a, b) for a, b in zip(points, points[1:], strict=False))
        return round(max(0.0, min(1.0, 1.6 - far * 20)), 2)

    return _map(size, lambda r, c: grey((c + 0.5) / size, (r + 0.5) / size))


def _distance(x: float, y: float, a: tuple[float, float], b: tuple[float, float]) -> float:
    """From a point to a stretch."""
    along, up = b[0] - a[0], b[1] - a[1]
    share = ((x - a[0]) * along + (y - a[1]) * up) / (along**2 + up**2 or 1.0)
    share = max(0.0, min(1.0, share))
    return math.hypot(x - a[0] - share * along, y - a[1] - share * up)


def _waves(size: int) -> Rows:
    """Rings that grow finer outwards, to the finest that cells can hold: what is coarser afterwards is aliased."""
    half = (size - 1) / 2

    def ring(r: int, c: int) -> float:
        far = math.hypot(r - half, c - half) / half
        return round(0.5 + 0.5 * math.cos(0.5 * math.pi * half * far * far), 3)

    return _map(size, ring)
