"""Every number of a study, recomputed from its raw predictions: the one source of its table, its page and its files."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import poolkit
from poolkit.lab import comparisons, measures, summaries, verdicts
from poolkit.lab.durable import write_atomic
from poolkit.lab.gathered import Gathered, gather
from poolkit.lab.record import RunError, read_json
from poolkit.lab.summaries import MEASURES
from poolkit.lab.verdicts import markdown, table

if TYPE_CHECKING:
    from poolkit.lab.study import Study

__all__ = ["canonical", "findings", "markdown", "save", "table", "verify"]

FORMAT = 1
DIGITS = 9  # significant digits of every number: the last bits differ between processors
FINDINGS, METHODS_CSV, RUNS_CSV, REPORT = "findings.json", "findings.csv", "runs.csv", "report.html"

NOTES = {
    "accuracy": "Percent of the test pictures, of each run at its last step; intervals are 95 % t-intervals over runs.",
    "verdict": "better and worse: Welch's test against the baseline, adjusted by Holm's method over all methods; "
    "equivalent: two one-sided Welch tests within ±δ, adjusted alike, and named first; else undecided.",
    "difference": "The interval beside a difference is Welch's, 95 %, not adjusted; verdicts go by adjusted ones.",
    "pairs": "Runs of a method and of the baseline with one seed: they start alike and see the pictures in one order. "
    "Their correlation, the mean of their differences and its 95 % t-interval, not adjusted: no verdict goes by them. "
    "Welch's test takes all runs as independent; where pairs go together it finds less than it could, and errs "
    "no more often.",
    "on these test pictures": "The runs are the sample, the test pictures are fixed.",
    "on the distribution": "Runs and pictures are both samples (crossed variance, Satterthwaite's degrees of freedom). "
    "What holds there must hold on these pictures: the larger of the two p-values is adjusted, and better or worse is "
    "said only where it is said of these pictures. Intervals are 95 %, not adjusted.",
    "nll": "A probability that float16 stores as 0 counts as 2^-25.",
    "ece": f"Root of the debiased squared difference of confidence and accuracy in {measures.BINS} bins of equal "
    "numbers of pictures (Kumar, Liang and Ma 2019).",
    "shift_consistency": "The chance that two of the 81 shifts by up to 4 pixels of one picture get the same class.",
    "churn": "The percentage of test pictures on which two runs disagree, over all pairs of runs.",
    "ranks": "Ranks that cannot be excluded: Welch's test of all pairs, adjusted by Holm's method.",
    "detectable": "The smallest difference that a two-sided t-test with these runs finds with a chance of 0.8; "
    "beside a method at Holm's first step, α over the number of methods.",
    "classes": "Intervals of single classes are Welch's, 95 %, not adjusted: they explore, they decide nothing.",
    "failures": "A method of which more than 5 % of the runs failed fails; no run is dropped.",
    "time": "Times are medians of the runs on one kind of machine, the one that most of the baseline's had, and ratios "
    "are those of medians. Beside a ratio of training times, the smallest and the largest over the seeds: each run's "
    "time by that of the baseline's run with its seed; where there is none, as for the control and the baseline "
    "itself, by the baseline's median. Few seeds show too little of how far times can lie apart.",
    "best of k": "The mean over all choices of k of the finished trials; accuracy on held-out training pictures.",
    "special cases": "A method that loses to one that it contains has an unfit parameter, or is at fault.",
}

#: The notes of a study with tuning alone.
TUNED_NOTES = {
    "tuning": "Tests and intervals are about the recipes that tuning chose, one for each row, over new seeds. Tuning "
    "was done once for each row: luck in tuning is in no interval; the control, the baseline tuned anew, shows some.",
}


def findings(study: Study) -> dict[str, Any]:
    """Everything that a study says, as plain values; shares are in percent, what is not known is None.

    Keys: `format`; `poolkit`, the version that computed it; `request`, `study_sha256`; `complete`, `counts` of runs;
    `data`; `machines`, `commands`, `started`, `finished`; `measures`, title, unit and whether more is better; `notes`,
    how each number is made; `verdict`, the sentence; `alarms`, sentences; `control`; `special_cases`; `order`, labels
    by accuracy; `methods` and `runs`, one entry for each row and each run, in the study's order; `tuning`, or None.
    Raises `RunError` for damaged results.
    """
    seen, request = gather(study), study.request
    apart = comparisons.differences(seen, request)
    found: dict[str, Any] = {
        "format": FORMAT,
        "poolkit": poolkit.__version__,
        "study_sha256": study.sha256,
        "request": request.as_dict(),
        "baseline": request.baseline,
        "complete": not seen.missing,
        "counts": _counts(seen),
        **_circumstances(seen),
        "measures": {k: {"title": t, "unit": u, "more_is_better": m} for k, (t, u, m) in MEASURES.items()},
        "corruptions": _corruption_names() if request.probes else [],
        "notes": NOTES | (TUNED_NOTES if request.tune else {}),
        "control": comparisons.control(seen, request),
        "special_cases": comparisons.specials(seen, request),
        "methods": summaries.methods(seen, request.baseline, apart, comparisons.ranks(seen, request)),
        "runs": summaries.runs(seen),
        "tuning": summaries.tuning(study),
    }
    found["order"] = _order(found["methods"])
    found["alarms"] = verdicts.alarms(found)
    found["verdict"] = verdicts.sentence(found)
    return dict(_plain(found))


def _counts(seen: Gathered) -> dict[str, int]:
    rows = seen.rows.values()
    finished, failed = sum(len(row.finished) for row in rows), sum(len(row.failed) for row in rows)
    asked = sum(row.expected for row in rows)
    return {"asked": asked, "finished": finished, "failed": failed, "missing": seen.missing}


def _circumstances(seen: Gathered) -> dict[str, Any]:
    """Data, machines, commands and times: of all runs, each kind once with the number of its runs."""
    runs = [result.run for result in seen.results]
    machines: dict[str, dict[str, Any]] = {}
    for run in runs:
        kind = json.dumps(run.machine, sort_keys=True)
        machines.setdefault(kind, {**run.machine, "runs": 0})["runs"] += 1
    return {
        "data": runs[0].data if runs else None,
        "layers": runs[0].layers if runs else [],
        "machines": [machines[kind] for kind in sorted(machines)],
        "versions": sorted({run.poolkit for run in runs}),
        "commands": sorted({run.command for run in runs if run.command}),
        "started": min((run.started for run in runs), default=None),
        "finished": max((run.finished for run in runs), default=None),
    }


def _corruption_names() -> list[str]:
    from poolkit.lab.corruptions import CORRUPTIONS

    return list(CORRUPTIONS)


def _order(methods: list[dict[str, Any]]) -> list[str]:
    """Labels by mean accuracy, the highest first; those without one last."""
    known = [(-(row["accuracy"]["mean"] if row["seeds"] else -1.0), place) for place, row in enumerate(methods)]
    return [methods[place]["label"] for _, place in sorted(known)]


def _plain(value: Any) -> Any:
    """Plain values with rounded numbers; raises `ValueError` for what is no number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, (float, np.floating)):
        if not math.isfinite(value):
            raise ValueError("a finding is NaN or infinite")
        return float(f"{float(value):.{DIGITS}g}") + 0.0  # no minus zero
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    return int(value) if isinstance(value, np.integer) else value


def canonical(found: Mapping[str, Any]) -> bytes:
    """Findings as JSON: keys sorted, a line for each key and for each method and run, so that files can be compared."""
    lines = []
    for key in sorted(found):
        value = found[key]
        rows = isinstance(value, list) and value and isinstance(value[0], dict)
        text = "[\n" + ",\n".join(map(_json, value)) + "\n]" if rows else _json(value)
        lines.append(f"{_json(key)}:{text}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def save(study: Study, found: Mapping[str, Any]) -> None:
    """Write findings.json, findings.csv and runs.csv into the study's folder.

    Raises `RunError` where findings of more runs would be lost, and `OSError`.
    """
    refuse_fewer(study, found)
    for name, content in files(found).items():
        write_atomic(study.folder / name, content)


def refuse_without_runs(study: Study) -> None:
    """Raise `RunError` for a study whose runs did not travel with it: there is nothing to compute from."""
    from poolkit.lab.study import RUNS

    if not (study.folder / RUNS).is_dir():
        raise RunError(
            f"{study.folder} has no {RUNS}: the raw predictions are not here, so nothing can be computed again.\n"
            f"  What lies there stays as it is: open its {REPORT}, or put the folder {RUNS} beside it."
        )


def refuse_fewer(study: Study, found: Mapping[str, Any]) -> None:
    """Raise `RunError` where the folder's findings.json counts more runs than `found`, findings computed anew.

    A findings.json that cannot be read says nothing.
    """
    from poolkit.lab.study import RUNS

    try:
        before = read_json(study.folder / FINDINGS)["counts"]
        there, now = (int(counts["finished"]) + int(counts["failed"]) for counts in (before, found["counts"]))
    except (RunError, LookupError, TypeError, ValueError):
        return
    if there > now:
        raise RunError(
            f"{study.folder / FINDINGS} tells of {there:,} runs, and {now:,} are in {RUNS}: computed again, it would "
            f"tell of fewer.\n  Copy the other runs back, or do them again with the same poolkit compare. If they "
            f"shall be left out, delete {FINDINGS} first."
        )


def files(found: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of findings by name: JSON, and CSV of methods and of runs."""
    methods = [_flat(row) for row in found["methods"]]
    runs = [{k: v for k, v in row.items() if k not in ("epochs", "learned")} for row in found["runs"]]
    return {METHODS_CSV: _csv(methods), RUNS_CSV: _csv(runs), FINDINGS: canonical(found)}


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A method's numbers in one line: `accuracy.mean`, `difference.points` …; every line has the same columns."""
    names = ("label", "baseline", "control", "asked", "fails", "parameters")
    flat = {name: row[name] for name in names} | {"finished": len(row["seeds"]), "failed": len(row["failures"])}
    for name in MEASURES:
        flat |= {f"{name}.{part}": row[name][part] for part in ("mean", "low", "high", "sd")}
    apart = row["difference"] or {}
    parts = ("points", "low", "high", "p", "p_holm", "equivalence_p_holm", "verdict", "detectable_holm")
    flat |= {f"difference.{part}": apart.get(part) for part in parts}
    flat |= {f"distribution.{part}": apart.get("distribution", {}).get(part) for part in ("low", "high", "verdict")}
    rank = row["rank"] or {}
    flat |= {"rank.low": rank.get("low"), "rank.high": rank.get("high")}
    flat |= {f"{name}.{part}": row[name][part] for name in ("train_time", "test_time") for part in ("seconds", "runs")}
    ratios = ("train_time_ratio", "train_time_ratio_low", "train_time_ratio_high", "test_time_ratio")
    # Older findings do not have all of them.
    return flat | {name: row.get(name) for name in (*ratios, "churn", "churn_to_baseline")}


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue().encode()


def verify(study: Study, found: Mapping[str, Any] | None = None) -> list[str]:
    """Recompute every number from the raw predictions, and say where the stored ones differ; empty if nowhere.

    findings.json and the CSV files must be there and equal byte for byte; where another version of poolkit wrote them,
    that is said, and no number is called different. `poolkit.report.study.verify_study` compares the page too.
    Arguments: `found`, what `recomputed` gives, if it is known already.
    Raises `RunError` for damaged results, and where runs are not there that the stored findings count.
    """
    found = recomputed(study) if found is None else found
    wrong = []
    for name, content in sorted(files(found).items(), reverse=True):
        path = study.folder / name
        if not path.is_file():
            wrong.append(f"{name} is not there")
        elif (stored := path.read_bytes()) != content:
            wrong += differences(name, stored, found) if name == FINDINGS else [f"{name} differs"]
    other = _other_version(FINDINGS, _parsed(study.folder / FINDINGS))
    return [other] if other else wrong


def recomputed(study: Study) -> dict[str, Any]:
    """The findings of a study whose runs are all there, as far as its stored findings count them.

    Raises `RunError`: they are not, or are damaged.
    """
    refuse_without_runs(study)
    found = findings(study)
    refuse_fewer(study, found)
    return found


def _parsed(path: Path) -> Any:
    """The JSON value of a file; None where there is none."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _other_version(name: str, stored: Any) -> str | None:
    """What is said of findings that another version of poolkit wrote; None of those of this one."""
    wrote = stored.get("poolkit") if isinstance(stored, dict) else None
    if wrote is None or wrote == poolkit.__version__:
        return None
    return (
        f"{name} was written by poolkit {str(wrote)[:40]}, and this is {poolkit.__version__}: they may count or word "
        "differently, so nothing is compared. The version that wrote it can verify it."
    )


def embedded(page: str) -> str | None:
    """The JSON in a report; its `<` are written as escapes, which JSON undoes."""
    inside = re.search(r'<script type="application/json" id="findings">(.*?)</script>', page, re.DOTALL)
    return inside.group(1) if inside else None


def differences(name: str, content: bytes, found: Mapping[str, Any], most: int = 10) -> list[str]:
    """Where findings as JSON differ from `found`, in words, at most so many; or that another version wrote them."""
    try:
        stored = json.loads(content)
    except (ValueError, RecursionError):
        return [f"{name} is no JSON"]
    if other := _other_version(name, stored):
        return [other]
    if isinstance(stored, dict) and canonical(stored) == canonical(found):
        return [] if name == REPORT else [f"{name} has the right values in another spelling"]
    wrong = list(_unlike(stored, json.loads(canonical(found)), ""))
    more = [f"{name}: and {len(wrong) - most} more"] if len(wrong) > most else []
    return [f"{name}: {text}" for text in wrong[:most]] + more


def _unlike(stored: Any, now: Any, where: str) -> Iterator[str]:
    """Where two JSON values differ, in words."""
    if isinstance(stored, dict) and isinstance(now, dict):
        for key in sorted({*stored, *now}):
            yield from _unlike(stored.get(key), now.get(key), f"{where}.{key}" if where else key)
    elif isinstance(stored, list) and isinstance(now, list) and len(stored) == len(now):
        for place, (one, other) in enumerate(zip(stored, now, strict=True)):
            yield from _unlike(one, other, f"{where}[{place}]")
    elif stored != now or type(stored) is not type(now):
        yield f"{where} is {_json(stored)[:60]}, recomputed {_json(now)[:60]}"


def stored(folder: Path) -> dict[str, Any]:
    """The findings of a folder: recomputed where the runs are, else those of findings.json, which has travelled alone.

    Raises `RunError`: neither is there, or damaged.
    """
    from poolkit.lab.study import REQUEST, RUNS, Study

    if (folder / REQUEST).exists() and (folder / RUNS).is_dir():
        return findings(Study.load(folder))
    return read_json(folder / FINDINGS, "A study's folder has it once poolkit compare or poolkit report has run.")


def main(folder: str, page: str, *others: str) -> int:
    """Write a study's Markdown page, and its verdict and table between the marks of other files, such as the README."""
    try:
        found = stored(Path(folder))
        command = " ".join(["python -m poolkit.lab.findings", folder, page, *others])
        write_atomic(Path(page), markdown(found, command).encode())
        for name in others:
            text = Path(name).read_text(encoding="utf-8")
            write_atomic(Path(name), between_marks(text, found, command).encode())
    except (RunError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def between_marks(text: str, found: Mapping[str, Any], command: str) -> str:
    """A text with the verdict and the table of findings between its marks; raises `ValueError` where it has none."""
    first, last = "<!-- study:", "<!-- end of study -->"
    head, mark, rest = text.partition(first)
    _, end, tail = rest.partition(last)
    if not mark or not end:
        raise ValueError(f"a text without the marks {first} … --> and {last}")
    body = "\n".join([found["verdict"], "", *verdicts.markdown_table(found), ""])
    return f"{head}{first} generated by `{command}`, tested -->\n{body}{last}{tail}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
