"""A study's results as arrays: one row of runs for each label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from poolkit.lab import measures, stats
from poolkit.lab.record import RunError
from poolkit.lab.study import Result, Study

_SHARES = ("accuracy", "ece", "shift_consistency", "shift_same", "shift_accuracy", "corruption_accuracy")


@dataclass(frozen=True, eq=False)
class Row:
    """The runs of a label: all `results`, the finished ones and, one entry a finished run, what they come to.

    `numbers`, measures by name, shares in percent; `predicted`, classes (runs, pictures); `right`, bool alike;
    `corruptions`, accuracies in percent (runs, 15, 5), or None; `expected`, how many runs were asked for.
    """

    label: str
    method: str
    control: bool
    expected: int
    results: list[Result]
    finished: list[Result]
    numbers: list[dict[str, float | None]]
    predicted: np.ndarray
    right: np.ndarray
    corruptions: np.ndarray | None

    @property
    def failed(self) -> list[Result]:
        """The runs that failed."""
        return [result for result in self.results if result.run.status != "finished"]

    @property
    def fails(self) -> bool:
        """Whether too many of its runs failed."""
        return stats.fails(len(self.failed), self.expected)

    def values(self, name: str) -> list[float]:
        """A measure of the finished runs, where it is known."""
        return [value for one in self.numbers if (value := one[name]) is not None]

    @property
    def accuracies(self) -> list[float]:
        """The accuracies of the finished runs, in percent."""
        return self.values("accuracy")

    @property
    def by_seed(self) -> dict[int, float]:
        """The accuracies of the finished runs, in percent, by seed."""
        seen = zip(self.finished, self.numbers, strict=True)
        return {result.seed: value for result, one in seen if (value := one["accuracy"]) is not None}


@dataclass(frozen=True, eq=False)
class Gathered:
    """A study's rows by label, in its order, and the labels of the test pictures; empty where no run finished."""

    rows: dict[str, Row]
    labels: np.ndarray
    missing: int

    @property
    def results(self) -> list[Result]:
        """All results that are there."""
        return [result for row in self.rows.values() for result in row.results]


def gather(study: Study) -> Gathered:
    """Read a study's results. Raises `RunError`: damaged ones, or runs that were tested on different pictures."""
    by_label: dict[str, list[Result]] = {label: [] for label in study.request.labels}
    there = study.results()
    for result in there:
        by_label[result.label].append(result)
    labels: list[np.ndarray] = []
    rows = {label: _row(study, label, results, labels) for label, results in by_label.items()}
    # Of what was read, not of what is there now: while a study runs, the folder fills.
    missing = sum(row.expected for row in rows.values()) - len(there)
    return Gathered(rows, labels[0] if labels else np.zeros(0, np.int64), missing)


def _row(study: Study, label: str, results: list[Result], labels: list[np.ndarray]) -> Row:
    finished = [result for result in results if result.run.status == "finished"]
    numbers, predicted, tables = [], [], []
    for result in finished:
        arrays = result.run.predictions()
        labels.append(arrays["labels"]) if not labels else _same(labels[0], arrays["labels"], result)
        seen = _measured(result, arrays["probabilities"], labels[0])
        tables.append(seen.pop("corruptions"))
        numbers.append(seen)
        predicted.append(arrays["probabilities"].argmax(1).astype(np.uint16))
    shape = (0, len(labels[0]) if labels else 0)
    classes = np.stack(predicted) if predicted else np.zeros(shape, np.uint16)
    asked = study.request
    return Row(
        label=label,
        method=asked.method(label),
        control=label == asked.again,
        expected=len(asked.seeds_of(label)),
        results=results,
        finished=finished,
        numbers=numbers,
        predicted=classes,
        right=classes == labels[0] if predicted else np.zeros(shape, bool),
        corruptions=_stacked(tables),
    )


def _measured(result: Result, probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """All numbers of a run; shares in percent."""
    seen: dict[str, Any] = dict.fromkeys(
        ("shift_consistency", "shift_same", "shift_accuracy", "corruption_accuracy", "corruptions")
    )
    seen |= measures.of_predictions(probabilities, labels)
    if result.probes is not None:
        seen |= measures.of_probes(result.probes, labels)
    for name in _SHARES:
        seen[name] = None if seen[name] is None else 100 * seen[name]
    wanted = ("train_seconds", "test_seconds", "peak_memory_bytes")
    return {**seen, **{name: result.measured.get(name) for name in wanted}}


def _stacked(tables: Sequence[list[list[float]] | None]) -> np.ndarray | None:
    there = [table for table in tables if table is not None]
    return 100 * np.array(there) if there else None


def _same(known: np.ndarray, labels: np.ndarray, result: Result) -> None:
    if not np.array_equal(known, labels):
        raise RunError(
            f"{result.label}, seed {result.seed}, was tested on other pictures than the runs before it.\n"
            f"  Delete {result.run.folder}, and compare does the run again."
        )
