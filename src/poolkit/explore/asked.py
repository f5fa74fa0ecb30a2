"""What the page wants to see, read from the plain values that it sends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import poolkit
from poolkit import own
from poolkit.method import Method, nearest
from poolkit.window import Sizes, Window, window

#: The largest picture, in cells along an axis: what a page can show and compute while one drags.
LARGEST = 32
_KNOWN = {
    "cells", "method", "other", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "cell", "map", "training",
    "seed",
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """One view of the explorer.

    Attributes:
        cells: the picture, rows of finite numbers.
        spellings: of one or two methods.
        arguments: of the window, as `torch.nn.MaxPool2d` takes them.
        cell: row and column of the output cell that is looked at.
        map: which of the output's maps is shown.
        training: whether random methods draw, by `seed`.
    """

    cells: tuple[tuple[float, ...], ...]
    spellings: tuple[str, ...]
    arguments: dict[str, Any]
    cell: tuple[int, int]
    map: int
    training: bool
    seed: int

    @property
    def sizes(self) -> Sizes:
        """Rows and columns of the picture."""
        return len(self.cells), len(self.cells[0])

    @property
    def window(self) -> Window:
        """The window."""
        return window(**self.arguments, dims=2)


def read(values: Any) -> Asked:
    """Read a view.

    Raises:
        ValueError: an unknown key, or a value of the wrong type, size or range; the message names it.
    """
    if not isinstance(values, dict):
        raise ValueError("a view is an object with names and values")
    for key in values:
        if key not in _KNOWN:
            raise ValueError(f'a view has no "{key}"{nearest(key, _KNOWN)}')
    spellings = [_text("method", values.get("method", "max"))]
    spellings += [_text("other", values["other"])] if values.get("other") else []
    names = ("kernel_size", "stride", "padding", "dilation")
    arguments = {name: _sizes(name, values[name]) for name in names if values.get(name) is not None}
    arguments = {"kernel_size": 2, **arguments, "ceil_mode": values.get("ceil_mode", False)}
    asked = Asked(
        _picture(values.get("cells")),
        tuple(spellings),
        arguments,
        _place(values.get("cell", [0, 0])),
        _count("map", values.get("map", 0)),
        values.get("training", False) is True,
        _count("seed", values.get("seed", 0)),
    )
    _ = asked.window  # refuses what no window can be
    return asked


def method(spelling: str) -> Method:
    """The method of a spelling that a page sent, which imports no code: a link shall not choose what runs here.

    Raises:
        ValueError: no such method, or one of the user's own that was not named on the command line.
    """
    if not own.is_allowed(spelling):
        raise ValueError(
            f'"{spelling}" is a method of your own\n  name it on the command line: poolkit explore {spelling}'
        )
    return poolkit.method(spelling)


def _picture(rows: Any) -> tuple[tuple[float, ...], ...]:
    if not isinstance(rows, list) or not 1 <= len(rows) <= LARGEST or not all(isinstance(row, list) for row in rows):
        raise ValueError(f"cells: 1 to {LARGEST} rows of numbers")
    if not 1 <= len(rows[0]) <= LARGEST or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"cells: every row has as many numbers as the first, 1 to {LARGEST}")
    if not all(_is_number(v) for row in rows for v in row):
        raise ValueError("cells: every one is a number of size below 1e300")
    return tuple(tuple(float(v) for v in row) for row in rows)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1e300 and math.isfinite(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 500:
        raise ValueError(f"{name}: the spelling of a method, of at most 500 letters")
    return value


def _sizes(name: str, value: Any) -> Any:
    """An argument of the window: a whole number, one for each axis, or "same"; what is too large is no picture's."""
    numbers = value if isinstance(value, list) else [value]
    if any(isinstance(v, int) and v > LARGEST for v in numbers):
        raise ValueError(f"{name}={value!r}: at most {LARGEST} cells here")
    return tuple(value) if isinstance(value, list) else value


def _place(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("cell: a row and a column")
    return _count("cell", value[0]), _count("cell", value[1])


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"{name}={value!r}: a whole number from 0 to 2³¹−1")
    return value
