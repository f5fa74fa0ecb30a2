"""What the sections of a study's page show, made from its findings: in words and as plots.

All numbers are those of `poolkit.lab.findings`, in percent and points. Computed here are only means of what they hold:
of curves over seeds, of corruptions over severities and families.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup

from poolkit.lab.corruptions import CORRUPTIONS
from poolkit.report import plots, words

Found = Mapping[str, Any]
NONE = Markup("–")


def number(value: float | None, digits: int = 2) -> Markup:
    """A number with so many decimals; a dash where it is not known."""
    return NONE if value is None else words.decimal(value, digits)


def signed(value: float | None, digits: int = 2) -> Markup:
    """A difference with its sign: "+0.31"."""
    if value is None:
        return NONE
    shown = f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")
    return Markup('<data value="{}">{}</data>').format(repr(float(value)), shown)


def chance(p: float | None) -> Markup:
    """A p-value: "0.012", and "< 0.001" for a smaller one."""
    if p is None:
        return NONE
    return Markup('<data value="{}">{}</data>').format(repr(float(p)), "< 0.001" if p < 0.001 else f"{p:.3f}")


def span(low: float | None, high: float | None, digits: int = 2, sign: bool = False) -> Markup:
    """An interval: "−0.12 to +0.31"."""
    tell = signed if sign else number
    return NONE if low is None or high is None else tell(low, digits) + " to " + tell(high, digits)


def mebibytes(value: float | None) -> Markup:
    """Bytes in MiB."""
    return NONE if value is None else words.decimal(value / 2**20, 0)


def ranked(found: Found) -> list[Found]:
    """The methods by mean accuracy, best first; those without a result come last."""
    by_label = {row["label"]: row for row in found["methods"]}
    return [by_label[label] for label in found["order"]]


def baseline(found: Found) -> Found:
    """The method that the others are compared with."""
    return next(row for row in found["methods"] if row["baseline"])


def word(found: Found, row: Found) -> str:
    """What a row is, or what was found of it."""
    if row["fails"] or not row["seeds"]:
        return "fails" if row["fails"] else "no result"
    if row["baseline"]:
        return "baseline"
    if row["control"]:  # no difference found says no more than "undecided" does of another method
        return "control" if found["control"]["word"] == "no difference" else str(found["control"]["word"])
    return str(row["difference"]["verdict"])


def kind(found: Found, row: Found) -> str:
    """The class of a row in the page's style."""
    said = word(found, row)
    return said if said in ("better", "worse", "equivalent") else "worse" if said == "a difference" else "quiet"


def ranking(found: Found) -> dict[str, Any]:
    """The first screen: each seed a dot, each method a mean with its interval, a line at the baseline's mean."""
    rows, middle = ranked(found), baseline(found)["accuracy"]["mean"]
    runs = _runs(found)
    values = [run["accuracy"] for run in found["runs"]]
    scale = plots.Scale.around(values + [row["accuracy"][end] for row in rows for end in ("low", "high")])
    lines = [] if middle is None else [middle]
    shown = []
    for row in rows:
        mean = row["accuracy"]
        seeds = ((run["seed"], run["accuracy"]) for run in runs[row["label"]])
        dots = [plots.Dot(value, f"seed {seed}: {value:.2f} %") for seed, value in seeds]
        alt = f"{row['label']}: {_told(mean)}, {words.plural(len(dots), 'seed')}."
        strip = plots.strip(scale, dots, _interval(mean, "mean"), alt, lines)
        shown.append(_line(found, row, strip, _reach(mean)))
    return {"rows": shown, "ticks": scale.ticks(6) if any(runs.values()) else []}


def _runs(found: Found) -> dict[str, list[Found]]:
    """The finished runs of each label."""
    runs: dict[str, list[Found]] = {row["label"]: [] for row in found["methods"]}
    for run in found["runs"]:
        if run["accuracy"] is not None:
            runs[run["label"]].append(run)
    return runs


def _line(found: Found, row: Found, strip: Markup, value: Markup) -> dict[str, Any]:
    return {"label": row["label"], "kind": kind(found, row), "word": word(found, row), "strip": strip, "value": value}


def rank(row: Found) -> str:
    """The ranks that a method may have: "1–3"."""
    if row["rank"] is None:
        return "–"
    low, high = row["rank"]["low"], row["rank"]["high"]
    return f"{low}" if low == high else f"{low}–{high}"


def _interval(numbers: Found, middle: str) -> plots.Interval | None:
    if numbers[middle] is None:
        return None
    ends = (numbers["low"], numbers["high"])
    return plots.Interval(numbers[middle], *(numbers[middle] if end is None else end for end in ends))


def _told(numbers: Found, middle: str = "mean", unit: str = "%") -> str:
    if numbers[middle] is None:
        return "no result"
    text = f"{numbers[middle]:.2f} {unit}"
    return text if numbers["low"] is None else f"{text}, 95 % interval {numbers['low']:.2f} to {numbers['high']:.2f}"


def _reach(mean: Found) -> Markup:
    if mean["mean"] is None or mean["low"] is None:
        return number(mean["mean"])
    return number(mean["mean"]) + f" ± {(mean['high'] - mean['low']) / 2:.2f}"


def differences(found: Found) -> dict[str, Any]:
    """Differences to the baseline with two intervals, and the band within which they do not matter."""
    delta = found["request"]["delta"]
    rows = [row for row in ranked(found) if row["difference"] is not None or row["control"]]
    apart = [row["difference"] or found["control"] for row in rows]
    wide = [one.get("adjusted", {"low": None, "high": None}) for one in apart]
    ends = [one[end] for one in (*apart, *wide) for end in ("low", "high")] + [one["points"] for one in apart]
    scale = plots.Scale.around([*ends, -1.2 * delta, 1.2 * delta])
    shown = []
    for row, one, outer in zip(rows, apart, wide, strict=True):
        alt = f"{row['label']} minus {found['baseline']}: {_told(one, 'points', 'points')}."
        strip = plots.strip(scale, [], _interval(one, "points"), alt, [0.0], (-delta, delta), _outer(outer))
        shown.append(_line(found, row, strip, signed(one["points"])))
    return {"rows": shown, "ticks": scale.ticks(6)}


def reasons(found: Found) -> dict[str, list[str]]:
    """Why some methods were not tested: each reason with their labels."""
    why: dict[str, list[str]] = {}
    for row in ranked(found):
        if row["difference"] and row["difference"]["reason"]:
            why.setdefault(row["difference"]["reason"], []).append(row["label"])
    return why


def _outer(adjusted: Found) -> tuple[float, float] | None:
    return None if adjusted["low"] is None else (adjusted["low"], adjusted["high"])


def curves(found: Found) -> list[dict[str, Any]]:
    """Test accuracy after each epoch: a panel for each method, the baseline's mean dashed in all."""
    finished = _runs(found).items()
    runs = {label: [_percents(run["epochs"]["test_accuracy"]) for run in of] for label, of in finished}
    means = {label: _mean(courses) for label, courses in runs.items()}
    scale = plots.Scale.around(value for courses in runs.values() for course in courses for value in course)
    shown = []
    for row in ranked(found):
        label = row["label"]
        if len(means[label]) < 2:  # one epoch's values are those of the ranking
            continue
        lines = [plots.Course(course, "faint") for course in runs[label]]
        lines += [plots.Course(means[found["baseline"]], "other"), plots.Course(means[label], "own")]
        first, last = means[label][0], means[label][-1]
        text = f"{_cell(first)} % after epoch 1, {_cell(last)} % after epoch {len(means[label])}"
        panel = plots.panel(scale, lines, f"{label}: {text}.")
        shown.append({"label": label, "text": text, "panel": panel, "mean": means[label]})
    return shown


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _percents(values: Iterable[float | None]) -> list[float | None]:
    return [None if value is None else 100 * value for value in values]


def _mean(courses: Sequence[Sequence[float | None]]) -> list[float | None]:
    """The mean curve; None where a curve is not known."""
    return [None if None in at else math.fsum(filter(None, at)) / len(at) for at in zip(*courses, strict=False)]


def learned(found: Found) -> list[dict[str, Any]]:
    """Each learned parameter after each epoch, the mean over seeds and the seeds; every panel has its own axis."""
    shown = []
    for label, runs in _runs(found).items():
        for name in dict.fromkeys(name for run in runs for name in run["learned"]):
            courses = [run["learned"][name] for run in runs if name in run["learned"]]
            mean = _mean(courses)
            scale = plots.Scale.around((value for course in courses for value in course), 0.1)
            lines = [*(plots.Course(course, "faint") for course in courses), plots.Course(mean, "own")]
            text = words.course(mean).replace("-", "−")
            panel = plots.panel(scale, lines, f"{label}: {name} {text}.")
            shown.append({"label": label, "name": name, "text": text, "panel": panel, "mean": mean})
    return shown


def cost(found: Found) -> dict[str, Any] | None:
    """Accuracy against the time of training; on the staircase lie the methods that no other beats in both.

    The times are the medians on one kind of machine, those that ratios are of; a method without any is left out.
    """
    rows = [row for row in found["methods"] if not row["control"] and row["train_time"]["seconds"] and row["seeds"]]
    if not rows:
        return None
    places = {row["label"]: (row["train_time"]["seconds"], row["accuracy"]["mean"]) for row in rows}
    front = sorted(p for p in places.values() if not any(_beats(other, p) for other in places.values()))
    across, up = (plots.Scale.around((place[axis] for place in places.values()), 0.12) for axis in (0, 1))
    dots = []
    for label, (seconds, percent) in places.items():
        drawn = "own" if label == found["baseline"] else "on" if (seconds, percent) in front else "off"
        text = f"{label}: {percent:.2f} %, {words.duration(seconds)}"
        dots.append(plots.Point(seconds, percent, text, drawn, label))
    names = [label for label, place in sorted(places.items(), key=lambda item: item[1]) if place in front]
    alt = f"Test accuracy against training time. Beaten by none in both: {', '.join(names)}."
    return {"plot": plots.scatter(across, up, dots, front, alt), "ticks": across.ticks(6), "front": names}


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether (seconds, percent) is at least as fast and as good, and better in one of the two."""
    gains = (other[0] - one[0], one[1] - other[1])
    return min(gains) >= 0 and max(gains) > 0


def shaded(rows: Sequence[tuple[str, Sequence[float | None]]], digits: int = 1) -> list[dict[str, Any]]:
    """Rows of differences in points, each with a shade; the largest of all is the darkest."""
    most = max((abs(value) for _, values in rows for value in values if value is not None), default=0.0) or 1.0

    def cell(value: float | None) -> dict[str, Any]:
        size = abs(value or 0) / most
        return {"text": signed(value, digits), "shade": f"{size:.2f}", "way": "up" if (value or 0) > 0 else "down"}

    return [{"label": label, "cells": [cell(value) for value in values]} for label, values in rows]


def classes(found: Found) -> list[dict[str, Any]]:
    """Each class's accuracy, the difference to the baseline."""
    rows = [row for row in ranked(found) if not row["baseline"] and row["seeds"]]
    return shaded([(row["label"], [one["difference"]["points"] for one in row["per_class"]]) for row in rows])


def confusions(found: Found, most: int = 3) -> list[dict[str, Any]]:
    """The mistakes that a method makes more or less often than the baseline, the largest differences first."""
    names = found["data"]["classes"] if found["data"] else []
    shown = []
    for row in ranked(found):
        table = row["confusion_difference"] or []
        cells = [(value, i, j) for i, line in enumerate(table) for j, value in enumerate(line) if i != j and value]
        cells.sort(key=lambda cell: (-abs(cell[0]), cell[1:]))
        if cells:
            told = [{"true": names[i], "called": names[j], "more": value} for value, i, j in cells[:most]]
            shown.append({"label": row["label"], "mistakes": told})
    return shown


def families() -> list[tuple[str, list[int]]]:
    """The families of corruptions with the places of their members."""
    numbered = enumerate(corruption.family for corruption in CORRUPTIONS.values())
    return [(name, [place for place, _ in group]) for name, group in groupby(numbered, key=lambda pair: pair[1])]


def corruptions(found: Found) -> dict[str, Any] | None:
    """Accuracy on corrupted pictures, means over severities: the baseline's, and differences to it."""
    tables = {row["label"]: row["corruption_table"] for row in ranked(found) if row["corruption_table"]}
    if found["baseline"] not in tables:
        return None
    single = {label: [math.fsum(line) / len(line) for line in table] for label, table in tables.items()}
    grouped = {
        label: [math.fsum(line[place] for place in places) / len(places) for _, places in families()]
        for label, line in single.items()
    }

    def against(means: Mapping[str, list[float]]) -> list[dict[str, Any]]:
        base = means[found["baseline"]]
        others = [(label, line) for label, line in means.items() if label != found["baseline"]]
        return shaded([(label, [a - b for a, b in zip(line, base, strict=True)]) for label, line in others])

    return {
        "families": [name for name, _ in families()],
        "family_base": grouped[found["baseline"]],
        "family_rows": against(grouped),
        "base": single[found["baseline"]],
        "rows": against(single),
    }
