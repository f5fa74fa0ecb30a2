"""The rows and the runs of a study's findings: means with their intervals, and what each run came to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from poolkit.lab import comparisons, measures, stats
from poolkit.lab.gathered import Gathered, Row
from poolkit.lab.record import RunError
from poolkit.lab.request import is_head

if TYPE_CHECKING:
    from poolkit.lab.study import Result, Study

#: What is measured of each run: title, unit, and whether more is better (None: neither).
MEASURES: dict[str, tuple[str, str, bool | None]] = {
    "accuracy": ("accuracy", "%", True),
    "nll": ("negative log-likelihood", "nats", False),
    "brier": ("Brier's score", "0 to 2", False),
    "ece": ("calibration error", "%", False),
    "shift_consistency": ("consistency over shifts", "%", True),
    "shift_same": ("same class as unshifted", "%", True),
    "shift_accuracy": ("accuracy on shifted pictures", "%", True),
    "corruption_accuracy": ("accuracy on corrupted pictures", "%", True),
    "train_seconds": ("time of training", "s", False),
    "test_seconds": ("time of testing", "s", False),
    "peak_memory_bytes": ("peak memory of training", "bytes", False),
}


def runs(seen: Gathered) -> list[dict[str, Any]]:
    """An entry for each run that is there, in the study's order."""
    return [_run(row, result, place) for row in seen.rows.values() for result, place in _placed(row)]


def _placed(row: Row) -> Iterator[tuple[Result, int | None]]:
    """The results of a row, and the place of each among the finished ones."""
    place = 0
    for result in row.results:
        ends = result.run.status == "finished"
        yield result, place if ends else None
        place += ends


def _run(row: Row, result: Result, place: int | None) -> dict[str, Any]:
    """A run in a line; its numbers are None where it failed."""
    run = result.run
    numbers = dict.fromkeys(MEASURES) if place is None else {name: row.numbers[place][name] for name in MEASURES}
    return {
        "label": row.label,
        "seed": result.seed,
        "key": run.recipe_hash,
        "status": run.status,
        "message": run.message,
        "parameters": run.parameters or None,
        "started": run.started,
        "seconds": result.measured.get("seconds"),
        **numbers,
        "epochs": {
            name: [epoch[name] for epoch in run.epochs]
            for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        },
        "learned": _learned(run.epochs),
    }


def _learned(epochs: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """What a run learned, by name, a number for each epoch."""
    names = {name: None for epoch in epochs for name in epoch["learned"]}
    return {name: [epoch["learned"].get(name) for epoch in epochs] for name in names}


def methods(seen: Gathered, baseline: str, apart: Mapping[str, Any], ranks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An entry for each row, in the study's order.

    Arguments: `seen`; `baseline`, its label; `apart` and `ranks`, what `comparisons` found, by label.
    """
    data = seen.results[0].run.data if seen.results else {"classes": []}
    classes, base = data["classes"], seen.rows[baseline]
    confusions = {label: _confusions(row, seen.labels, len(classes)) for label, row in seen.rows.items()}
    shares = {label: [_percents(one) for one in tables] for label, tables in confusions.items()}
    means = {label: np.mean(tables, 0) if len(tables) else None for label, tables in confusions.items()}
    found = []
    for label, row in seen.rows.items():
        mean, theirs = means[label], means[baseline]
        difference = None if mean is None or theirs is None or row is base else (mean - theirs).tolist()
        found.append(
            {
                **_summary(row, base),
                "rank": ranks.get(label),
                "difference": apart.get(label),
                "per_class": comparisons.by_class(row, base, classes, shares),
                "confusion": None if mean is None else mean.tolist(),
                "confusion_difference": difference,
            }
        )
    return found


def _summary(row: Row, base: Row) -> dict[str, Any]:
    """A row's means with their intervals, and what it costs next to the baseline."""
    means = {name: stats.Mean.of(row.values(name)).as_dict() for name in MEASURES}
    train, test = _time(row, base, "train_seconds"), _time(row, base, "test_seconds")
    parameters = {result.run.parameters for result in row.finished}
    return {
        "label": row.label,
        "method": row.method,
        "baseline": row is base,
        "control": row.control,
        "asked": row.expected,
        "fails": row.fails,
        "failures": [{"seed": result.seed, "message": result.run.message} for result in row.failed],
        "seeds": [result.seed for result in row.finished],
        "parameters": max(parameters, default=None),
        **means,
        "train_time": {"seconds": train["seconds"], "runs": train["runs"]},
        "test_time": {"seconds": test["seconds"], "runs": test["runs"]},
        "train_time_ratio": train["ratio"],
        "train_time_ratio_low": train["low"],
        "train_time_ratio_high": train["high"],
        "test_time_ratio": test["ratio"],
        "corruption_table": None if row.corruptions is None else row.corruptions.mean(0).tolist(),
        "churn": _percent(measures.churn(row.predicted)),
        "churn_to_baseline": None if row is base else _apart(row, base),
    }


def _time(row: Row, base: Row, name: str) -> dict[str, Any]:
    """The median `seconds`, over how many `runs`, and its `ratio` to the baseline's: a disturbed run shall not count.

    Beside the ratio `low` and `high`, by how much single runs leave it: see `_spread`.
    Times are compared on one kind of machine, the one that most of the baseline's runs had; None without runs on it.
    """
    ours, theirs = _by_machine(row, name), _by_machine(base, name)
    kind = max(sorted(theirs), key=lambda one: len(theirs[one]), default="")
    if kind not in ours:
        return {"seconds": None, "runs": 0, "ratio": None, "low": None, "high": None}
    seconds, other = (float(np.median([*times[kind].values()])) for times in (ours, theirs))
    low, high = _spread(ours[kind], {} if row is base else theirs[kind], other)
    ratio = seconds / other if other > 0 else None
    return {"seconds": seconds, "runs": len(ours[kind]), "ratio": ratio, "low": low, "high": high}


def _spread(times: Mapping[int, float], partners: Mapping[int, float], middle: float) -> tuple[float | None, ...]:
    """The smallest and the largest ratio of a run's time to its partner's, the baseline's run with the same seed.

    Runs of one seed are trained one after the other, so that a machine that slows down slows both. Where a run has no
    partner, as the control's and the baseline's own have none, it is compared with `middle`, the baseline's median.
    None and None for fewer than two runs, which do not spread.
    """
    ratios = [value / partners.get(seed, middle) for seed, value in times.items() if partners.get(seed, middle) > 0]
    return (min(ratios), max(ratios)) if len(ratios) > 1 else (None, None)


def _by_machine(row: Row, name: str) -> dict[str, dict[int, float]]:
    """A measure of the runs by seed, where it is known: for each processor, device, threads and sharing workers."""
    found: dict[str, dict[int, float]] = {}
    for result, numbers in zip(row.finished, row.numbers, strict=True):
        machine = [result.run.machine.get(key) for key in ("processor", "device", "threads")]
        if (value := numbers[name]) is not None:
            found.setdefault(repr([*machine, result.measured.get("workers")]), {})[result.seed] = value
    return found


def _apart(row: Row, base: Row) -> float | None:
    agree = measures.cross_agreement(row.predicted, base.predicted)
    return None if agree is None else 100 * (1 - agree)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _confusions(row: Row, labels: np.ndarray, classes: int) -> list[np.ndarray]:
    return [measures.confusion(predicted, labels, classes) for predicted in row.predicted]


def _percents(table: np.ndarray) -> list[float | None]:
    return [_percent(share) for share in measures.class_accuracies(table)]


def tuning(study: Study) -> dict[str, Any] | None:
    """What equal tuning tried and chose, from its trials; accuracies in percent of the held-out training pictures.

    For each row `trials`, `chosen`, the `seconds` of all, `space`, what the trials drew, in words, and `best_of`: the
    mean accuracy of the best of k finished trials, k = 1, 2 … None for a study without tuning.
    Raises `RunError`: a trial is missing or damaged, or tuning.json says other than they do.
    """
    if not study.request.tune:
        return None
    from poolkit.lab.tune import Tuning

    tried, used = Tuning(study), study.recipes()
    rows = [_tuned(tried.row(label), used[label].as_dict(), study) for label in study.request.labels]
    return {"trials": study.request.tune, "rows": rows}


def method_of(study: Study, label: str, recipe: Mapping[str, Any]) -> str:
    """A row's method as a recipe of it spells it: with tuning, that has the parameters that a trial drew."""
    return str(recipe["head" if is_head(study.request.method(label)) else "pool"])


def _tuned(row: dict[str, Any], used: dict[str, Any], study: Study) -> dict[str, Any]:
    from poolkit.lab.tune import expected_best, in_words

    label, request = row["label"], study.request
    if row["trials"][row["chosen"]]["recipe"] != used:
        raise RunError(f"{study.folder}: tuning.json says another trial of {label} than its trials do.")
    percent = [_percent(trial["accuracy"]) for trial in row["trials"]]
    trials = [
        {
            "pool": trial["recipe"]["pool"],
            "method": method_of(study, label, trial["recipe"]),
            "lr": trial["recipe"]["lr"],
            "accuracy": share,
            "message": trial["message"],
        }
        for trial, share in zip(row["trials"], percent, strict=True)
    ]
    return {
        "label": label,
        "chosen": row["chosen"],
        "space": in_words(request.method(label), request.recipe.lr, [trial["method"] for trial in trials]),
        "seconds": sum(trial["seconds"] or 0.0 for trial in row["trials"]),
        "best_of": expected_best([share for share in percent if share is not None]),
        "trials": trials,
    }
