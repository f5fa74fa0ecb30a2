"""What the pooling layers are held to, and whether a measured table keeps it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """A limit for one measure of some rows.

    Attributes:
        name: what is limited, in words.
        path: where the measure stands in a row.
        how: `mean` (geometric), `most` or `least` of the rows; `least` is a floor, the others are ceilings.
        limit: the largest (for `least`: smallest) value that is kept.
        rows: which rows it is about.
    """

    name: str
    path: tuple[str, ...]
    how: str
    limit: float
    rows: Callable[[Row], bool] = lambda row: True


@dataclass(frozen=True)
class Verdict:
    """What a table makes of a bar.

    Attributes:
        value: what was measured; None where no row has the measure.
        at: the row that is furthest on the wrong side.
        count: how many rows it rests on.
        kept: None where no row fails it, but rows are missing.
    """

    bar: Bar
    value: float | None
    at: str
    count: int
    kept: bool | None


def _group(*names: str) -> Callable[[Row], bool]:
    return lambda row: row["group"] in names


# Methods that add, compare and select need one pass over memory; those with exp or pow compute for longer.
CHEAP = ("mean", "selection", "rank")
COPY_SHAPES = ("128x64x32x32", "128x64x31x31")

_PLAIN, _OTHERS = _group("plain"), _group("learnable", "random")

BARS: tuple[Bar, ...] = (
    Bar("step ÷ MaxPool2d, plain methods", ("step", "ratio"), "mean", 0.8, _PLAIN),
    Bar("step ÷ MaxPool2d, plain methods", ("step", "ratio"), "most", 1.2, _PLAIN),
    Bar("step ÷ MaxPool2d, learnable and random methods", ("step", "ratio"), "mean", 1.2, _OTHERS),
    Bar("step ÷ MaxPool2d, learnable and random methods", ("step", "ratio"), "most", 2.0, _OTHERS),
    Bar("forward ÷ MaxPool2d, plain methods", ("forward", "ratio"), "mean", 0.6, _PLAIN),
    Bar("forward ÷ MaxPool2d, learnable methods", ("forward", "ratio"), "mean", 0.6, _group("learnable")),
    Bar("forward ÷ MaxPool2d, random methods", ("forward", "ratio"), "mean", 0.6, _group("random")),
    Bar(
        "step ÷ unfold, rank methods",
        ("rivals", "unfold", "step", "ratio"),
        "mean",
        0.1,
        lambda row: row["family"] == "rank",
    ),
    Bar(
        "step ÷ unfold, other methods",
        ("rivals", "unfold", "step", "ratio"),
        "mean",
        0.2,
        lambda row: row["family"] != "rank",
    ),
    Bar(
        "share of a copy's speed at 128×64×32×32, methods without exp and pow",
        ("forward", "copy_share"),
        "least",
        0.8,
        lambda row: row["family"] in CHEAP and row["shape"] in COPY_SHAPES,
    ),
    # Not 0: a random method keeps its key, a learned parameter its slope.
    Bar("kept for backward beyond the input, in inputs", ("kept",), "most", 0.01),
    Bar("peak memory of a step ÷ MaxPool2d's", ("peak",), "most", 1.0),
    Bar("error of float32 in eps·mean|x|", ("error",), "most", 4.0),
)

# How far past a bar the whole interval must lie before a commit is refused: two cores of a shared machine are noisy.
GATE_SLACK = 1.25


def judge(rows: Sequence[Row], bars: Iterable[Bar] = BARS) -> list[Verdict]:
    """Hold a table to the bars.

    A row without values (wrong numbers, no time) fails or leaves open every bar that is about it.
    """
    return [_verdict(bar, [row for row in rows if bar.rows(row)]) for bar in bars]


def gate(rows: Sequence[Row]) -> list[str]:
    """Why a commit is refused: wrong values, and mean ratios whose lower 95 % bounds are past their bar by a quarter.

    Single rows past their bar are known losses, which a table shows; a mean that slips is a change for the worse.
    """
    reasons = [f"{label(row)}: {row['detail']}" for row in rows if row["status"] == "wrong"]
    if not any(row["status"] == "measured" for row in rows):
        reasons.append("no row was measured")
    for bar in BARS:
        if bar.path[-1] != "ratio" or bar.how != "mean":
            continue
        low = Bar(bar.name, (*bar.path[:-1], "low"), bar.how, bar.limit * GATE_SLACK, bar.rows)
        for verdict in judge([row for row in rows if row["status"] == "measured"], [low]):
            if verdict.kept is False:
                reasons.append(
                    f"{bar.name}, {WORDS[bar.how]}: the lower bound {verdict.value:.2f} is past {bar.limit:g} by more "
                    f"than a quarter; furthest: {verdict.at}"
                )
    return reasons


WORDS = {"mean": "geometric mean", "most": "worst", "least": "worst"}


def value(row: Row, path: tuple[str, ...]) -> float | None:
    """The measure at this place of a row, or None where the row does not have it."""
    found: Any = row
    for name in path:
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean; 0 where a value is 0."""
    return math.exp(math.fsum(map(math.log, values)) / len(values)) if min(values) > 0 else 0.0


def label(row: Row) -> str:
    """A row in words."""
    return f"{row['method']} {row['geometry']} {row['shape']} {row['layout']}"


def losses(row: Row) -> list[str]:
    """The bars for single rows that a row misses, and the directions in which it is slower than max pooling."""
    found = [word for word in ("forward", "step") if (value(row, (word, "ratio")) or 0) > 1]
    for verdict in judge([row], [bar for bar in BARS if bar.how != "mean"]):
        if verdict.kept is False and verdict.value is not None:
            found.append(verdict.bar.path[-1] if len(verdict.bar.path) == 1 else "/".join(verdict.bar.path))
    return found


def _verdict(bar: Bar, rows: list[Row]) -> Verdict:
    # A row may lack the measure because it was not asked for (rivals); it was asked for where the row has no values.
    without = [row for row in rows if row["status"] != "measured"]
    known = [(v, row) for row in rows if (v := value(row, bar.path)) is not None]
    if not known:
        return Verdict(bar, None, "", 0, False if _wrong(without) else None)
    pick = min if bar.how == "least" else max
    worst, at = pick(known, key=lambda pair: pair[0])
    number = geometric_mean([v for v, _ in known]) if bar.how == "mean" else worst
    good = number >= bar.limit if bar.how == "least" else number <= bar.limit
    kept = False if not good or _wrong(without) else None if without else True
    return Verdict(bar, number, label(at), len(known), kept)


def _wrong(rows: Sequence[Row]) -> bool:
    return any(row["status"] == "wrong" for row in rows)
