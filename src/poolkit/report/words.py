"""Words and numbers of the report: how a figure is rounded, and what a result says in a sentence.

A rounded number is shown in a `<data>` element that carries the exact one.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

ABSENT = "not finite"


def decimal(value: float | None, digits: int = 3) -> Markup:
    """A number rounded to `digits` decimals, or "not finite" for None and NaN.

    Raises `ValueError` or `TypeError` for what is no number.
    """
    if value is None or not math.isfinite(value):
        return escape(ABSENT)
    return _data(float(value), f"{float(value):,.{digits}f}".replace("-", "−"))


def significant(value: float | None, digits: int = 3) -> Markup:
    """A number rounded to `digits` significant figures, so that only 0 is shown as 0: "0.123", "4.5·10⁻⁶"."""
    if value is None or not math.isfinite(value):
        return escape(ABSENT)
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        places = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
        return _data(float(value), f"{value:,.{max(places, 0)}f}".replace("-", "−"))
    front, _, power = f"{value:.{digits - 1}e}".partition("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return _data(float(value), f"{front}·10{raised}".replace("-", "−"))


def breakable(spelling: str) -> Markup:
    """A method's spelling that a narrow page breaks behind its marks only: gem: p= learn @3."""
    text = escape(spelling)
    for mark in ":=,":
        text = text.replace(mark, Markup(f"{mark}<wbr>"))  # noqa: S704 - a mark of the line above
    return text.replace("@", Markup("<wbr>@"))


def again(command: str) -> str:
    """A recorded command such that it runs as printed: into a new folder, as the old one is taken."""
    try:
        words = shlex.split(command)
    except ValueError:  # no command of ours: shown as it is
        return command
    if words[:1] != ["poolkit"] or len(words) < 2:
        return command
    kept, old, rest = [], None, iter(words)
    for word in rest:
        if word == "--out":
            old = next(rest, "")
        elif word.startswith("--out="):
            old = word.removeprefix("--out=")
        elif word != "--resume":
            kept.append(word)
    out = "runs/again" if old is None else f"{old.rstrip('/') or 'run'}-again"
    return shlex.join([*kept, "--out", out])


def percent(share: float | None, digits: int = 1) -> Markup:
    """A share between 0 and 1 as "68.4 %", or "not finite" for None and NaN.

    Raises `ValueError` or `TypeError` for what is no number.
    """
    if share is None or not math.isfinite(share):
        return escape(ABSENT)
    return _data(float(share), f"{100 * float(share):.{digits}f}\u202f%")


def count(value: int) -> Markup:
    """A whole number with a comma between thousands: "50,000"."""
    return _data(int(value), f"{int(value):,}")


def duration(seconds: float) -> str:
    """A time in words: "8.4 s", "2 min 3 s", "1 h 12 min"."""
    if seconds < 10:
        return f"{float(seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def plural(number: int, word: str) -> str:
    """A number with its noun: "1 epoch", "10 epochs"."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def size(shape: Sequence[int]) -> str:
    """A shape as "3 × 32 × 32"."""
    return "\u202f×\u202f".join(f"{int(length):,}" for length in shape)


def interval(share: float, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share that was counted on `total` pictures, `total` ≥ 1."""
    z = 1.959963984540054
    middle = share + z * z / (2 * total)
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    whole = 1 + z * z / total
    return max(0.0, (middle - reach) / whole), min(1.0, (middle + reach) / whole)


def confusions(classes: Sequence[str], matrix: Sequence[Sequence[int]], most: int = 5) -> list[dict[str, Any]]:
    """The commonest mistakes, most frequent first; `matrix[i][j]` counts pictures of class i called j."""
    mistakes: list[dict[str, Any]] = [
        {"true": classes[i], "predicted": classes[j], "times": times, "share": times / sum(row)}
        for i, row in enumerate(matrix)
        for j, times in enumerate(row)
        if i != j and times > 0
    ]
    return sorted(mistakes, key=lambda mistake: -mistake["times"])[:most]


def course(values: Sequence[float | None], percents: bool = False) -> str:
    """What a curve does, for readers who do not see it: "from 1.52 to 0.95"."""
    shown = [f"{100 * v:.1f} %" if percents else f"{v:.3f}" for v in values if v is not None]
    if not shown:
        return "never finite"
    return f"from {shown[0]} to {shown[-1]}" if len(shown) > 1 else shown[0]


def lowest(values: Sequence[float | None]) -> int | None:
    """The place (from 0) of the first smallest finite value, or None where there is none."""
    finite = [(value, place) for place, value in enumerate(values) if value is not None]
    return min(finite)[1] if finite else None


def _data(exact: float, shown: str) -> Markup:
    return Markup('<data value="{}">{}</data>').format(repr(exact), shown)
