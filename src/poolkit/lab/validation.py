"""Choosing without the test pictures: a part of the training pictures stands in for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np

from poolkit.lab.chance import order
from poolkit.lab.data import Data, fingerprint

_MOST = 5000  # pictures to choose by
_SHARE = 10  # of fewer training pictures than ten times that, one in ten


class Pictures(Protocol):
    """What a run trains on and is judged by: `poolkit.lab.data.Data`, or a `Validation`."""

    @property
    def name(self) -> str:
        """As `poolkit.lab.data.load` takes it."""

    @property
    def train_x(self) -> np.ndarray:
        """Pictures to train on, uint8 (N, C, H, W)."""

    @property
    def train_y(self) -> np.ndarray:
        """Their labels, int64 (N,)."""

    @property
    def eval_x(self) -> np.ndarray:
        """Pictures to judge by."""

    @property
    def eval_y(self) -> np.ndarray:
        """Their labels."""

    @property
    def classes(self) -> tuple[str, ...]:
        """What labels stand for."""

    @property
    def source(self) -> str:
        """Where they come from."""

    @property
    def sha256(self) -> str:
        """Of all arrays."""

    @property
    def caveat(self) -> str | None:
        """What must stand beside every result."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture."""


class ClosedTestSet(Exception):
    """The test pictures were asked for where something is being chosen."""


@dataclass(frozen=True, eq=False)
class Validation:
    """A data set whose test pictures are not there; `eval_x`, `eval_y` are training pictures that were held out.

    Fields as in `poolkit.lab.data.Data`. `test_x` and `test_y` raise `ClosedTestSet`: what is chosen by the test
    pictures is not judged by them.
    """

    name: str
    train_x: np.ndarray
    train_y: np.ndarray
    eval_x: np.ndarray
    eval_y: np.ndarray
    classes: tuple[str, ...]
    source: str
    sha256: str
    caveat: str | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one picture."""
        channels, height, width = self.train_x.shape[1:]
        return channels, height, width

    @property
    def test_x(self) -> NoReturn:
        """Raises `ClosedTestSet`."""
        raise ClosedTestSet("the test pictures are closed while a recipe is chosen\n  choose by eval_x and eval_y")

    test_y = test_x


def hold_out(data: Data, seed: int = 0) -> Validation:
    """The training pictures in two parts, one to train on and one to choose by; nothing of the test pictures.

    Held out are 5,000, or one in ten where there are fewer than 50,000, drawn by `seed`. Both parts keep their order.
    Raises `ValueError` for fewer than two training pictures.
    """
    n = len(data.train_x)
    if n < 2:
        raise ValueError(f"{data.name} has {n} training pictures: none can be held out")
    drawn = order(seed, 0, n)
    count = max(1, min(_MOST, n // _SHARE))
    held, kept = np.sort(drawn[:count]), np.sort(drawn[count:])
    arrays = data.train_x[kept], data.train_y[kept], data.train_x[held], data.train_y[held]
    source = f"{data.source}; {count:,} training pictures held out"
    return Validation(data.name, *arrays, data.classes, source, fingerprint(*arrays), data.caveat)
