"""The worked examples of the report: arithmetic that can be followed by hand, computed, never typed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d

Rows = tuple[tuple[float, ...], ...]

NUMBERS: Rows = ((1, 3, 2, 1), (4, 6, 5, 0), (7, 2, 1, 3), (0, 3, 8, 4))
PICTURE: Rows = ((0, 0, 1, 2, 2), (0, 1, 2, 2, 2), (1, 1, 2, 2, 1), (1, 2, 2, 1, 0), (2, 2, 1, 0, 0))
FILTER: Rows = ((-1, 0, 1), (-1, 0, 1), (-1, 0, 1))
VOLUME = (10, 16, 16)


@dataclass(frozen=True)
class Pooled:
    """Pooling of rows of numbers, 2 × 2 with stride 2: the input, the maxima and the averages."""

    cells: Rows
    largest: Rows
    average: Rows


@dataclass(frozen=True)
class Volume:
    """Pooling of a stack of maps: shapes (maps, rows, columns) and how many numbers each holds."""

    before: tuple[int, int, int]
    after: tuple[int, int, int]
    numbers_before: int
    numbers_after: int


@dataclass(frozen=True)
class Filtered:
    """A filter laid on every place of a picture; `terms` are the pairs (pixel, weight) at `place`."""

    picture: Rows
    weights: Rows
    result: Rows
    place: tuple[int, int]
    terms: tuple[tuple[float, float], ...]


def pooled(cells: Rows = NUMBERS) -> Pooled:
    """Max and average pooling of `cells`, which has an even number of rows and columns."""
    x = torch.tensor(cells, dtype=torch.float64)[None]
    return Pooled(cells, _rows(max_pool2d(x, 2)), _rows(avg_pool2d(x, 2)))


def volume(shape: tuple[int, int, int] = VOLUME) -> Volume:
    """What 2 × 2 pooling makes of a stack of maps, (maps, rows, columns)."""
    before = torch.zeros(shape)
    after = max_pool2d(before, 2)
    maps, rows, columns = after.shape
    return Volume(shape, (maps, rows, columns), before.numel(), after.numel())


def filtered(picture: Rows = PICTURE, weights: Rows = FILTER, place: tuple[int, int] = (1, 0)) -> Filtered:
    """Lay a filter on every place of a picture, as a convolution does; `place` is worked out in full."""
    x, w = torch.tensor(picture, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)
    window = x[place[0] : place[0] + w.shape[0], place[1] : place[1] + w.shape[1]]
    terms = tuple(zip(window.flatten().tolist(), w.flatten().tolist(), strict=True))
    return Filtered(picture, weights, _rows(conv2d(x[None, None], w[None, None])[0]), place, terms)


def tell(value: float) -> str:
    """A number of the examples without needless zeros and with a true minus sign."""
    return f"{value:g}".replace("-", "−")


def all_examples() -> dict[str, Any]:
    """The three examples under the names that the page uses."""
    return {"pooled": pooled(), "volume": volume(), "filtered": filtered()}


def _rows(x: torch.Tensor) -> Rows:
    rows: Sequence[Sequence[float]] = x.reshape(x.shape[-2], x.shape[-1]).tolist()
    return tuple(tuple(row) for row in rows)
