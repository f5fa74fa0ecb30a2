"""What only the trained net can say: the classes it gives to pictures that were shifted and corrupted."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import nn

from poolkit.lab.chance import stream
from poolkit.lab.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from poolkit.lab.data import Data
from poolkit.lab.run import evaluate

REACH = 4  # pixels
#: Rows down and columns to the right, row by row; the picture as it is stands in the middle.
MOVES = np.array([(r, c) for r in range(-REACH, REACH + 1) for c in range(-REACH, REACH + 1)], dtype=np.int8)
_MOST = 300_000_000  # bytes of corrupted pictures that are kept for the next net
_kept: dict[tuple[str, int], list[list[np.ndarray]]] = {}


class Settings(Protocol):
    """How many test pictures are shifted and how many corrupted; all of them where there are fewer."""

    @property
    def shift_images(self) -> int:
        """Pictures to shift."""

    @property
    def corrupt_images(self) -> int:
        """Pictures to corrupt."""


def probe(model: nn.Module, data: Data, settings: Settings) -> dict[str, np.ndarray]:
    """The classes that a net gives to shifted and to corrupted test pictures.

    Shifts are all 81 of up to 4 pixels down and across. The picture is mirrored beyond its border and cut out again: it
    keeps the size that the net was trained on and nearly all that it showed, has no edge that is not in the data, and
    no net is favoured by the border that it pads with itself. For corruptions see `poolkit.lab.corruptions`.

    Arguments: `model`, left in the mode it was in; `data`; `settings`, the number of pictures.
    Returns indices into the test pictures and predicted classes, m and n pictures: `shift_index` int32 (n,),
    `shift_moves` int8 (81, 2), `shift_classes` uint16 (81, n), `corrupt_index` int32 (m,), `corrupt_classes` uint16
    (15, 5, m) in the order of `CORRUPTIONS`.
    """
    shifted, corrupted = subset(data, settings.shift_images), subset(data, settings.corrupt_images)
    pixels = data.test_x[shifted]
    return {
        "shift_index": shifted,
        "shift_moves": MOVES.copy(),
        "shift_classes": np.stack([_classes(model, shift(pixels, int(r), int(c))) for r, c in MOVES]),
        "corrupt_index": corrupted,
        "corrupt_classes": np.stack(
            [[_classes(model, pictures) for pictures in row] for row in _corrupted(data, corrupted)]
        ),
    }


def subset(data: Data, count: int) -> np.ndarray:
    """The first `count` test pictures of one fixed order, the same for every net: int32."""
    drawn = stream(0, 0, "probe").bit_generator.random_raw(len(data.test_x))
    return np.argsort(drawn, kind="stable")[:count].astype(np.int32)


def shift(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Pictures (N, C, H, W) moved down and to the right by up to `REACH` pixels; what enters is mirrored.

    Raises `ValueError` for a longer way, and for pictures with a side of 4 pixels or less.
    """
    height, width = pixels.shape[2:]
    if max(abs(rows), abs(columns)) > REACH or min(height, width) <= REACH:
        raise ValueError(f"a shift by ({rows}, {columns}) of {height}×{width} pixels: at most {REACH}, of 5×5 or more")
    wide = np.pad(pixels, ((0, 0), (0, 0), (REACH, REACH), (REACH, REACH)), mode="reflect")
    top, left = REACH - rows, REACH - columns
    return wide[:, :, top : top + height, left : left + width]


def _corrupted(data: Data, index: np.ndarray) -> list[list[np.ndarray]]:
    """The pictures at each corruption and severity; all nets of one process share them."""
    key = (data.sha256, len(index))
    if key in _kept:
        return _kept[key]
    pixels = data.test_x[index]
    made = [[corrupt(pixels, name, severity, index) for severity in SEVERITIES] for name in CORRUPTIONS]
    _kept.clear()
    if pixels.nbytes * len(CORRUPTIONS) * len(SEVERITIES) <= _MOST:
        _kept[key] = made
    return made


def _classes(model: nn.Module, pixels: np.ndarray) -> np.ndarray:
    labels = np.zeros(len(pixels), np.int64)  # only the probabilities are asked for
    return evaluate(model, np.ascontiguousarray(pixels), labels).probabilities.argmax(1).astype(np.uint16)
