"""The comparisons of a study: each method with the baseline, the control, special cases and ranks, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from poolkit.lab import stats
from poolkit.lab.gathered import Gathered, Row
from poolkit.lab.request import Request
from poolkit.lab.specials import special_cases
from poolkit.lab.stats import Comparison

MISSING = "runs are missing, and their number was fixed beforehand: looking earlier would find differences by chance"


def differences(seen: Gathered, request: Request) -> dict[str, dict[str, Any]]:
    """Each method's difference to the baseline, by label: two families, adjusted by Holm's method.

    A method without a test, because it fails or has too few runs, keeps its place in the families. What holds for other
    pictures holds for these: of the two p-values of a method the larger one decides about the distribution.
    """
    base = seen.rows[request.baseline]
    rows = [row for row in seen.rows.values() if not row.control and row is not base]
    found = [stats.compare(row.accuracies, base.accuracies, request.delta) for row in rows]
    wide = [stats.crossed(row.right, base.right) for row in rows]
    reasons = [_reason(seen, row, base, one) for row, one in zip(rows, found, strict=True)]
    narrow, both = _tested(found, reasons, "p"), _tested(wide, reasons, "p")
    tests = stats.holm(narrow, request.alpha)
    equal = stats.holm(_tested(found, reasons, "equivalence_p"), request.alpha)
    larger = [None if p is None or q is None else max(p, q) for p, q in zip(narrow, both, strict=True)]
    beyond = stats.holm(larger, request.alpha)
    result = {}
    for place, (row, one) in enumerate(zip(rows, found, strict=True)):
        word = stats.verdict(one.points, tests.p[place], equal.p[place], request.alpha)
        result[row.label] = {
            "to": base.label,
            **_numbers(one),
            "p_holm": tests.p[place],
            "adjusted": _adjusted(one, tests.levels[place]),
            "equivalence_p": one.equivalence_p,
            "equivalence_p_holm": equal.p[place],
            "verdict": word,
            "reason": reasons[place],
            "also_different": word == "equivalent" and (tests.p[place] or 0.0) <= request.alpha,
            "effect": asdict(stats.effect(row.accuracies, base.accuracies)),
            "distribution": _beyond(wide[place], beyond.p[place], reasons[place], word, request.alpha),
            "pairs": {**asdict(stats.pairs(row.by_seed, base.by_seed)), "same": _same(row, base)},
            **_planning(row, base, request, len(rows)),
        }
    return result


def control(seen: Gathered, request: Request) -> dict[str, Any]:
    """The baseline against itself: "no difference", "a difference" (an alarm), or "untested"."""
    base, again = seen.rows[request.baseline], seen.rows[request.again]
    one = stats.compare(again.accuracies, base.accuracies, request.delta)
    reason = _reason(seen, again, base, one)
    word = "untested" if reason else "a difference" if (one.p or 0.0) <= request.alpha else "no difference"
    return {"label": again.label, "to": base.label, **_numbers(one), "word": word, "reason": reason}


def specials(seen: Gathered, request: Request) -> list[dict[str, Any]]:
    """Each method against the ones of the study that it contains, adjusted by Holm's method over all of these."""
    pairs = special_cases(request.methods)
    found = [_pair(seen, pair.general, pair.special, request) for pair in pairs]
    reasons = [_reason(seen, seen.rows[p.general], seen.rows[p.special], c) for p, c in zip(pairs, found, strict=True)]
    adjusted = stats.holm(_tested(found, reasons, "p"), request.alpha).p
    return [
        {
            **pair._asdict(),
            **_numbers(one),
            "p_holm": p,
            "alarm": p is not None and p <= request.alpha and (one.points or 0.0) < 0,
            "reason": reason,
        }
        for pair, one, p, reason in zip(pairs, found, adjusted, reasons, strict=True)
    ]


def ranks(seen: Gathered, request: Request) -> dict[str, dict[str, Any]]:
    """The ranks that each method may have, by label: among all, 1 the highest accuracy, together with 1 − α."""
    rows = [row for row in seen.rows.values() if not row.control]
    usable = [row.accuracies if not (row.fails or seen.missing) else [] for row in rows]
    found = stats.rank_intervals(usable, request.alpha)
    return {row.label: {"low": low, "high": high} for row, (low, high) in zip(rows, found, strict=True)}


def by_class(row: Row, base: Row, classes: Sequence[str], accuracies: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each class's accuracy, in percent, and its difference to the baseline with Welch's 95 % interval, unadjusted.

    Arguments: `row`, `base`; `classes`, names; `accuracies`, by label, lists of runs with a number for each class.
    """
    mine, theirs = accuracies[row.label], accuracies[base.label]
    found = []
    for place, name in enumerate(classes):
        ours = [run[place] for run in mine if run[place] is not None]
        one = stats.compare(ours, [run[place] for run in theirs if run[place] is not None], 1.0)
        mean = stats.Mean.of(ours)
        known = {"class": name, "mean": mean.mean, "low": mean.low, "high": mean.high}
        apart = {"points": one.points, "low": one.low, "high": one.high}
        found.append({**known, "difference": None if row is base else apart})
    return found


def _same(row: Row, base: Row) -> bool:
    """Whether all runs of two rows are pairs of one seed that give every test picture the same class."""
    mine, theirs = (dict(zip([r.seed for r in x.finished], x.predicted, strict=False)) for x in (row, base))
    return bool(mine) and set(mine) == set(theirs) and all(np.array_equal(mine[s], theirs[s]) for s in mine)


def _pair(seen: Gathered, a: str, b: str, request: Request) -> Comparison:
    return stats.compare(seen.rows[a].accuracies, seen.rows[b].accuracies, request.delta)


def _reason(seen: Gathered, row: Row, base: Row, one: Comparison) -> str | None:
    """Why nothing can be decided; None where something can."""
    if seen.missing:
        return f"{seen.missing} {MISSING}"
    for each in (row, base):
        if each.fails:
            return f"{each.label} fails: {len(each.failed)} of {each.expected} runs failed, more than 5 %"
    return one.reason


def _tested(found: Sequence[Comparison], reasons: Sequence[str | None], name: str) -> list[float | None]:
    return [None if reason else getattr(one, name) for one, reason in zip(found, reasons, strict=True)]


def _numbers(one: Comparison) -> dict[str, float | None]:
    return {"points": one.points, "low": one.low, "high": one.high, "p": one.p}


def _adjusted(one: Comparison, level: float) -> dict[str, float | None]:
    """The interval that decides: it excludes 0 exactly where Holm's method finds a difference."""
    low, high = one.interval(level) or (None, None)
    return {"low": low, "high": high, "level": level}


def _beyond(wide: Comparison, p: float | None, reason: str | None, here: str, alpha: float) -> dict[str, Any]:
    """The claim about the distribution of pictures; equivalence is not tested there.

    Arguments: `p`, adjusted; `here`, the word on the test pictures, without which there is none beyond them.
    """
    word = stats.verdict(wide.points, p, 1.0, alpha)
    verdict = word if word == here else "undecided"
    return {**_numbers(wide), "p_holm": p, "verdict": verdict, "reason": reason or wide.reason}


def _planning(row: Row, base: Row, request: Request, comparisons: int) -> dict[str, Any]:
    """What these runs could have shown, and how many would be needed; with and without Holm's first step."""
    sd = stats.pooled_sd(row.accuracies, base.accuracies)
    n, other = len(row.accuracies), len(base.accuracies)
    found: dict[str, Any] = {"pooled_sd": sd}
    for end, alpha in (("", request.alpha), ("_holm", request.alpha / comparisons)):
        found[f"detectable{end}"] = None if sd is None else stats.detectable(sd, n, other, alpha)
        found[f"seeds_for_delta{end}"] = None if sd is None else stats.seeds_needed(request.delta, sd, alpha)
    return found
