"""A speed table in words: for a terminal, as CSV, and in Markdown for the README."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from poolkit.lab.durable import write_atomic
from poolkit.lab.speed_bars import WORDS, Verdict, geometric_mean, judge, label, losses, value

Row = dict[str, Any]
COLUMNS = (
    "method", "geometry", "shape", "layout", "path", "forward", "95 %", "GB/s", "copy", "step", "95 %", "÷unfold",
    "kept", "peak", "error", "first ms", "",
)  # fmt: skip
RIGHT = ("forward", "GB/s", "copy", "step", "÷unfold", "kept", "peak", "error", "first ms")
_WIDE = 165
NARROW = ("method", "geometry", "shape", "layout", "forward", "step", "")
NARROW_LEGEND = (
    "our time divided by MaxPool2d's, medians; step: forward and backward\n"
    "▲ slower than MaxPool2d, ! past a row's bar, ? faster than a copy: suspicious\n"
    "every column and the intervals: a wider window, --json or --out FILE"
)
LEGEND = (
    "forward and step (forward and backward): our time divided by MaxPool2d's, median and 95 % interval\n"
    "copy: speed next to a plain copy of as many bytes; kept: memory from forward to backward besides the input, in\n"
    "inputs; peak: memory of a step next to MaxPool2d's; error: float32's in eps·mean|x|; first ms: with compiling\n"
    "last column: what is slower than MaxPool2d or past a row's bar; suspicious: faster than the copy"
)


def table(rows: Sequence[Row], width: int | None = None) -> list[tuple[str, ...]]:
    """The names of the columns, then the rows; on a terminal that is not wide, only what is looked at first."""
    if width is None or width >= _WIDE:
        return [COLUMNS, *map(cells, rows)]
    return [NARROW, *map(_few_cells, rows)]


def legend(width: int | None = None) -> str:
    """What the columns of `table` mean."""
    return LEGEND if width is None or width >= _WIDE else NARROW_LEGEND


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    about = (row["method"], row["geometry"], row["shape"], row["layout"])
    if row["status"] != "measured":
        first = f"{row['first_ms']:.0f}" if "first_ms" in row else ""
        word = row["status"].upper() if row["status"] == "wrong" else row["status"]
        return (*about, row.get("path", ""), *[""] * 10, first, f"{word}: {row['detail']}")
    forward, step = row["forward"], row["step"]
    unfold = value(row, ("rivals", "unfold", "step", "ratio"))
    marks = losses(row) + (["suspicious"] if forward["suspicious"] else [])
    return (
        *about,
        _paths(row),
        f"{forward['ratio']:.2f}",
        _interval(forward),
        f"{forward['gb_per_s']:.1f}",
        f"{forward['copy_share']:.0%}",
        f"{step['ratio']:.2f}",
        _interval(step),
        "" if unfold is None else f"{unfold:.2f}",
        f"{row['kept']:.2f}",
        f"{row['peak']:.2f}",
        f"{row['error']:.1f}",
        f"{row['first_ms']:.0f}",
        ", ".join(marks),
    )


def _few_cells(row: Row) -> tuple[str, ...]:
    about = (row["method"], row["geometry"], row["shape"], row["layout"])
    if row["status"] != "measured":
        return (*about, "", "", row["status"])
    ratios = [row[word]["ratio"] for word in ("forward", "step")]
    past = len(losses(row)) > sum(ratio > 1 for ratio in ratios)
    marks = ("▲" if max(ratios) > 1 else "") + ("!" if past else "") + ("?" if row["forward"]["suspicious"] else "")
    return (*about, *(f"{ratio:.2f}" for ratio in ratios), marks)


def summary(rows: Sequence[Row]) -> list[str]:
    """The bars and what was measured, a line each, then what is missing."""
    lines = [_sentence(verdict) for verdict in judge(rows)]
    for status, words in (("wrong", "rows have wrong values and no speed"), ("no time", "rows were not measured")):
        if count := sum(row["status"] == status for row in rows):
            lines.append(f"{count} {words}")
    measured = [row for row in rows if row["status"] == "measured"]
    for word in ("forward", "step"):
        slower = sum(row[word]["ratio"] > 1 for row in measured)
        lines.append(f"{word}: slower than MaxPool2d in {slower} of {len(measured)} rows")
    if count := sum(row["forward"]["suspicious"] for row in measured):
        lines.append(f"{count} rows are faster than the copy, which writes more of its bytes: suspicious, no record")
    return lines


def others(rows: Sequence[Row]) -> list[str]:
    """Rivals other than unfold, a line each: where they were timed, or why not."""
    lines = []
    for row in rows:
        for name, found in row.get("rivals", {}).items():
            who = f"{label(row)}: {name}"
            if found["status"] != "measured":
                lines.append(f"{who}: {found['status']} ({found['detail']})")
            elif name != "unfold":
                lines.append(f"{who}: forward ÷ {found['forward']['ratio']:.2f}, step ÷ {found['step']['ratio']:.2f}")
    return lines


def where(document: dict[str, Any]) -> str:
    """Machine, versions, date and command in two lines."""
    machine = document["machine"]
    numba = f", numba {machine['numba']}" if "numba" in machine else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, {machine['platform']}, "
        f"memory {machine['memory']}\n"
        f"poolkit {machine['poolkit']}, Python {machine['python']}, torch {machine['torch']}{numba}, "
        f"{document['date']}: {document['command']}"
    )


def record(circumstances: dict[str, Any], rows: Sequence[Row], complete: bool) -> dict[str, Any]:
    """Everything that was measured, as plain values."""
    bars = [
        {
            "bar": v.bar.name,
            "of": WORDS[v.bar.how],
            "limit": v.bar.limit,
            "value": v.value,
            "worst_row": v.at,
            "rows": v.count,
            "kept": v.kept,
        }
        for v in judge(rows)
    ]
    return {**circumstances, "complete": complete, "bars": bars, "rows": list(rows)}


def write(document: dict[str, Any], path: Path) -> None:
    """Write a document as JSON, or its rows as CSV with machine, versions, date and command in every row.

    Raises `ValueError` for another ending than `.json` and `.csv`; nothing is written then.
    """
    if path.suffix not in (".json", ".csv"):
        raise ValueError(f"{path}: a table is written as .json or .csv")
    text = as_csv(document) if path.suffix == ".csv" else json.dumps(document, indent=1) + "\n"
    write_atomic(path, text.encode())


def as_csv(document: dict[str, Any]) -> str:
    """The rows as CSV, each with where and how it was measured."""
    common = {name: document[name] for name in ("date", "command")} | document["machine"]
    flat = [{**_flat(row), **common} for row in document["rows"]]
    names = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def markdown(document: dict[str, Any]) -> str:
    """The README's table: a line for each method, and whether the measurement is complete."""
    lines = [
        "| method | forward, contiguous | channels-last | worst | step, contiguous | channels-last | worst | ÷unfold |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    rows = document["rows"]
    for method in dict.fromkeys(row["method"] for row in rows):
        lines.append(f"| `{method}` | " + " | ".join(_averages([r for r in rows if r["method"] == method])) + " |")
    machine, bars = document["machine"], document["bars"]
    missing = sum(row["status"] != "measured" for row in rows)
    part = "" if document["complete"] else f"**Not complete: {missing or 'some'} rows are missing or wrong.** "
    kept = sum(bar["kept"] is True for bar in bars)
    numba = f", numba {machine['numba']}" if "numba" in machine else ""
    lines += [
        "",
        f"{part}Our time divided by `torch.nn.MaxPool2d`'s of the same windows, geometric means over "
        f"{len({(r['geometry'], r['shape']) for r in rows})} geometries and shapes; step: forward and backward. "
        f"{kept} of {len(bars)} bars are kept. {machine['processor']}, {machine['threads']} threads, "
        f"torch {machine['torch']}{numba}, {document['date'][:10]}: `{document['command']}`.",
    ]
    return "\n".join(lines)


def _averages(rows: list[Row]) -> list[str]:
    """The cells of one method; a method with a wrong row has no speed anywhere."""
    if any(row["status"] == "wrong" for row in rows):
        return ["wrong"] * 7
    found = []
    for word in ("forward", "step"):
        of = {layout: _values(rows, word, layout) for layout in ("contiguous", "channels-last")}
        found += [f"{geometric_mean(values):.2f}" if values else "" for values in of.values()]
        every = [v for values in of.values() for v in values]
        found.append(f"{max(every):.2f}" if every else "")
    unfold = [v for row in rows if (v := value(row, ("rivals", "unfold", "step", "ratio"))) is not None]
    return [*found, f"{geometric_mean(unfold):.2f}" if unfold else ""]


def _values(rows: list[Row], word: str, layout: str) -> list[float]:
    return [v for row in rows if row["layout"] == layout and (v := value(row, (word, "ratio"))) is not None]


def _sentence(verdict: Verdict) -> str:
    bar = verdict.bar
    sign = "≥" if bar.how == "least" else "≤"
    lead = f"{bar.name}, {WORDS[bar.how]} {sign} {bar.limit:g}"
    if verdict.value is None:
        return f"– {lead}: " + ("missed, values are wrong" if verdict.kept is False else "not measured")
    mark = {True: "✓", False: "✗", None: "–"}[verdict.kept]
    word = {True: "kept", False: "missed", None: "open, rows are missing"}[verdict.kept]
    return f"{mark} {lead}: {verdict.value:.2f}, {word} ({verdict.count} rows; furthest: {verdict.at})"


def _paths(row: Row) -> str:
    """The path in training, and before it the one in evaluation where they differ."""
    return row["path"] if row["path"] == row["forward_path"] else f"{row['forward_path']}/{row['path']}"


def _interval(found: Row) -> str:
    return f"{found['low']:.2f}–{found['high']:.2f}"


def _flat(row: Row, before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, inner in row.items():
        found |= _flat(inner, f"{before}{name}_") if isinstance(inner, dict) else {before + name: inner}
    return found
