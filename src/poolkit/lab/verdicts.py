"""A study's findings in words and tables. Every number comes from `poolkit.lab.findings`; none is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import poolkit

Found = Mapping[str, Any]

#: The columns of a study's table in a terminal, and which of them are set to the right.
COLUMNS = ("method", "runs", "accuracy", "difference (95 %)", "detectable", "rank", "training", "verdict")
RIGHT = COLUMNS[1:-1]
#: What is said below it.
LEGEND = (
    "Intervals of differences are 95 %, not adjusted for the number of methods; verdicts go by adjusted ones. "
    "Detectable: the smallest difference that such runs find in four of five studies, adjusted; smaller ones are found "
    "more rarely."
)
TIMES = "Training: the median time over the baseline's; in brackets the smallest and the largest over the seeds."
_ALIKE = 0.5  # a mean correlation of runs with one seed that is worth a word
_MOST = 3  # methods that a sentence spells out
_NAMES = {"lr": "rate"}
_TUNED = " All this is about the recipes that tuning chose: luck in tuning is in no interval."


def sentence(found: Found) -> str:
    """The study's verdict in words: what is decided, what is not, and what the runs could have shown."""
    counts, baseline = found["counts"], found["baseline"]
    if counts["missing"]:
        return (
            f"The study is not complete: {counts['missing']} of {counts['asked']} runs are missing. Their number was "
            "fixed beforehand, so nothing is decided before the last."
        )
    rows = [_row(found, label) for label in found["order"]]
    compared = [row for row in rows if row["difference"]]
    if any(row["fails"] and row["baseline"] for row in rows):
        return f"Nothing is decided: {baseline} fails, and the others cannot be compared with it."
    parts = [_differing(compared, word, baseline) for word in ("better", "worse")]
    parts.append(_equivalent(compared, found["request"]["delta"], baseline))
    failing = [row["label"] for row in compared if row["fails"]]
    parts.append(f"{_list(failing)} {_verb(failing, 'fails', 'fail')}" if failing else "")
    open_ = [row["label"] for row in compared if row["difference"]["verdict"] == "undecided" and not row["fails"]]
    parts.append(f"nothing is decided for {_list(open_)}" if open_ else "")
    text = "; ".join(part for part in parts if part)
    text = f"{text[:1].upper() if open_ and text.startswith('nothing') else text[:1]}{text[1:]}.{_power(compared)}"
    return text + (_TUNED if found["request"]["tune"] else "")


def difference(row: Found) -> str:
    """A method's comparison with the baseline in words: `Found` is an entry of `methods`."""
    apart = row["difference"]
    if not apart:
        return "the baseline" if row["baseline"] else ""
    name, word = f"{row['label']}", apart["verdict"]
    if word == "undecided":
        return f"{name}: undecided" + (f" ({apart['reason']})" if apart["reason"] else "")
    if word == "equivalent":
        more = ", a difference that is certain, and smaller than what matters" if apart["also_different"] else ""
        return f"{name} is equivalent to {apart['to']}: {signed(apart['points'], apart)} points{more}"
    return f"{name} is {word} than {apart['to']} by {_by(apart)} on these test pictures; {_beyond(apart)}"


def alarms(found: Found) -> list[str]:
    """What should be looked at before anything is believed."""
    control = found["control"]
    said = []
    if control["word"] == "a difference":
        why = "both are the same: chance does that to one study in twenty"
        if found["request"]["tune"]:
            why = "the first is the second tuned anew: luck in tuning does that, and chance to one study in twenty"
        said.append(
            f"{control['label']} differs from {control['to']} by {signed(control['points'], control)} points (95 % "
            f"{_range(control)}), although {why}; else something in the comparison is at fault."
        )
    said += [_lost(pair, found["request"]["tune"]) for pair in found["special_cases"] if pair["alarm"]]
    for row in found["methods"]:
        if row["fails"]:
            said.append(f"{row['label']} fails: {len(row['failures'])} of {row['asked']} runs failed, more than 5 %.")
    return said


def _lost(pair: Found, tuned: int) -> str:
    """A general method that loses to what it contains: no surprise where its parameter was fixed to another value."""
    why = "its parameter, fixed in this study, does not suit the task, or it is at fault."
    if tuned or poolkit.method(pair["general"]).learned:
        why = "a method that contains another should not lose to it, so it was tuned badly or is at fault."
    return f"{pair['general']} is worse than {pair['special']}, which is {pair['setting']}, by {_by(pair)}: {why}"


def table(found: Found) -> list[tuple[str, ...]]:
    """The rows under `COLUMNS`, the highest accuracy first, for `poolkit.console.table`."""
    return [_cells(_row(found, label)) for label in found["order"]]


def remarks(found: Found) -> list[str]:
    """What is said below the table: the verdict, the control, alarms, and any caveat of the data."""
    data = found["data"]
    said = [*_legends(found), found["verdict"], *filter(None, [together(found)]), _control(found)]
    said += [f"alarm: {text}" for text in found["alarms"]]
    return said + ([f"data: {data['caveat']}"] if data and data["caveat"] else [])


def markdown(found: Found, command: str) -> str:
    """A page in Markdown: the verdict, the table, what was asked and how each number is made.

    Arguments: `command`, that makes the page again.
    """
    request, data = found["request"], found["data"] or {"name": "no data", "sha256": "", "caveat": None}
    recipe = ", ".join(f"{name} {value}" for name, value in sorted(request["recipe"].items()))
    lines = ["# A comparison of pooling methods", "", f"<!-- generated by `{command}`, tested -->", ""]
    lines += [found["verdict"], "", *markdown_table(found), "", f"- {_control(found)}"]
    lines += [f"- Alarm: {text}" for text in found["alarms"]]
    lines += [f"- Data: {data['name']}, SHA-256 `{data['sha256']}`. {data['caveat'] or ''}".rstrip()]
    counts = found["counts"]
    lines += [f"- Runs: {counts['asked']} asked, {counts['finished']} finished, {counts['failed']} failed."]
    chosen = " Rate and parameters are of the first trials; the runs have those that tuning chose, below."
    lines += [f"- Recipe: {recipe}.{chosen if request['tune'] else ''}"]
    lines += [f"- Request: SHA-256 `{found['study_sha256']}`, written before the first run."]
    lines += [f"- Command: `{text}`." for text in found["commands"]]
    lines += [f"- Machine: {_machine(one)}." for one in found["machines"]]
    lines += _tuning(found)
    lines += ["", "## How the numbers are made", ""]
    return "\n".join(lines + [f"- {name}: {text}" for name, text in sorted(found["notes"].items())]) + "\n"


def _tuning(found: Found) -> list[str]:
    """What equal tuning chose, and how far tries help: the mean of the best of 1, of half and of all trials."""
    if not (tuned := found.get("tuning")):  # findings that travel alone may be older than it
        return []
    lines = ["", "## Tuning", "", f"{tuned['trials']} trials of each row, chosen on held-out training pictures.", ""]
    lines += ["| method | chosen | best of 1 | of half | of all | failed | seconds | drawn |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---|"]
    for row in trials_of(found):
        means = [_fixed(mean, 1) for mean in row["best"]]
        cells = [f"`{row['label']}`", f"`{row['method']}`, rate {row['lr']:g}", *means, str(row["failed"])]
        lines.append("| " + " | ".join([*cells, _fixed(row["seconds"], 0), "; ".join(row["space"])]) + " |")
    return lines


def trials_of(found: Found) -> list[dict[str, Any]]:
    """What tuning tried of each row: `method` and `lr`, those of the chosen trial, whose number is `chosen`.

    `best` are the means of the best of 1, of half and of all finished trials, in percent; `space` says what was drawn.
    """
    shown = []
    for row in found["tuning"]["rows"]:
        one, curve = row["trials"][row["chosen"]], row["best_of"]
        shown.append(
            {
                "label": row["label"],
                "method": one.get("method", one["pool"]),
                "lr": one["lr"],
                "chosen": row["chosen"],
                "accuracy": one["accuracy"],
                "trials": row["trials"],
                "failed": len(row["trials"]) - len(curve),
                "best": [curve[place] for place in (0, (len(curve) - 1) // 2, -1)] if curve else [None] * 3,
                "seconds": row["seconds"],
                "space": [f"{_NAMES.get(name, name)} {text}" for name, text in row.get("space", {}).items()],
            }
        )
    return shown


def markdown_table(found: Found) -> list[str]:
    """The table's lines in Markdown, with what robustness was measured, and its legend."""
    extra = {"nll": 3, "ece": 1, "shift_consistency": 1, "corruption_accuracy": 1}
    shown = [name for name in extra if any(row[name]["mean"] is not None for row in found["methods"])]
    titles = [found["measures"][name]["title"] for name in shown]
    head = [*COLUMNS[:-1], *titles, COLUMNS[-1]]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 2) + "---|"]
    for label in found["order"]:
        row = _row(found, label)
        *first, last = _cells(row)
        cells = [f"`{first[0]}`", *first[1:], *(_fixed(row[name]["mean"], extra[name]) for name in shown), last]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", " ".join(_legends(found))]


def _legends(found: Found) -> list[str]:
    """What is said below the table of its numbers; of the spread of times only where it is known."""
    return [LEGEND, *([TIMES] if any(time_spread(row) for row in found["methods"]) else [])]


def time_spread(row: Found) -> str:
    """The smallest and the largest ratio of training times: "0.97–1.31"; empty where they are not known."""
    ends = [row.get(f"train_time_ratio_{end}") for end in ("low", "high")]  # older findings do not have them
    return "" if None in ends else "–".join(f"{end:.2f}" for end in ends)


def signed(points: float | None, apart: Found) -> str:
    """A difference with its sign, as many decimals as its interval is narrow: "+0.8", "−0.12"."""
    return "" if points is None else _number(points, _digits(apart), "+")


def _cells(row: Found) -> tuple[str, ...]:
    accuracy, apart, rank = row["accuracy"], row["difference"], row["rank"]
    ratio, spread, digits = row["train_time_ratio"], time_spread(row), _digits(accuracy)
    mean = _fixed(accuracy["mean"], digits)
    reach = "" if accuracy["low"] is None else f" ± {_number((accuracy['high'] - accuracy['low']) / 2, digits)}"
    gap = f"{signed(apart['points'], apart)} ({_range(apart)})" if apart and apart["low"] is not None else ""
    word = "baseline" if row["baseline"] else "control" if row["control"] else ""
    word = "fails" if row["fails"] else apart["verdict"] if apart else word
    return (
        row["label"],
        f"{len(row['seeds'])}/{row['asked']}",
        f"{mean}{reach}",
        gap,
        "" if not apart else _fixed(apart["detectable_holm"], 2),
        "" if rank is None else f"{rank['low']}–{rank['high']}",
        "" if ratio is None else f"{ratio:.2f}×" + (f" ({spread})" if spread else ""),
        word,
    )


def _row(found: Found, label: str) -> Found:
    row: Found = next(row for row in found["methods"] if row["label"] == label)
    return row


def _differing(rows: Sequence[Found], word: str, baseline: str) -> str:
    """Those that are better, or those that are worse, the largest difference first."""
    chosen = [row for row in rows if row["difference"]["verdict"] == word]
    chosen = chosen if word == "better" else chosen[::-1]
    if not chosen:
        return ""
    said = [f"{row['label']} by {_by(row['difference'])}" for row in chosen[:_MOST]]
    first = chosen[0]["label"]
    text = f"{first} is {word} than {baseline}{said[0].removeprefix(first)}"
    text += f", {_list(said[1:])}" if said[1:] else ""
    more = len(chosen) - _MOST
    text += f", and so {'is' if more == 1 else 'are'} {more} more" if more > 0 else ""
    held = [row["label"] for row in chosen if row["difference"]["distribution"]["verdict"] == word]
    wide = "all" if len(held) == len(chosen) > 1 else _list(held)
    wide = ("this holds" if len(chosen) == 1 else f"for {wide} it holds") if held else "it is not shown"
    return f"{text}, on these test pictures ({wide} for other pictures of their kind)"


def _equivalent(rows: Sequence[Found], delta: float, baseline: str) -> str:
    names = [row["label"] for row in rows if row["difference"]["verdict"] == "equivalent"]
    return (
        f"{_list(names)} {_verb(names, 'is', 'are')} equivalent to {baseline}, within {delta:g} points" if names else ""
    )


def _power(rows: Sequence[Found]) -> str:
    """What the runs could have shown, of the comparison for which that is most."""
    known = [row["difference"] for row in rows if row["difference"]["detectable_holm"] is not None]
    if not known:
        return ""
    widest = max(known, key=lambda apart: apart["detectable_holm"])["detectable_holm"]
    return f" Differences of {_number(widest, 2)} points show in four of five such studies, smaller ones more rarely."


def together(found: Found) -> str:
    """What is said of runs that go together with the baseline's by their seeds; empty where they do not."""
    rows = [row for row in found["methods"] if (row["difference"] or {}).get("pairs")]
    twins = [row["label"] for row in rows if row["difference"]["pairs"]["same"]]
    said = []
    if twins:
        said.append(
            f"{_list([*twins, found['baseline']])} give every test picture the same class in all runs with one seed: "
            "here they seem to compute the same."
        )
    others = [row for row in rows if row["label"] not in twins and row["difference"]["pairs"]["points"] is not None]
    mean = _more_alike_than_by_chance([row["difference"]["pairs"] for row in others])
    if mean is None:
        return " ".join(said)
    ranked = sorted(others, key=lambda row: -abs(row["difference"]["pairs"]["points"]))[:_MOST]
    shown = "; ".join(f"{row['label']} {seed_by_seed(row['difference'])}" for row in ranked)
    said.append(
        f"Runs of one seed go together, more than by chance: their accuracies correlate by {_number(mean, 2)} with "
        f"those of {found['baseline']}. The tests, fixed beforehand, do not use that and may find less. "
        f"Seed by seed, not adjusted, for a next study to test: {shown}."
    )
    return " ".join(said)


def _more_alike_than_by_chance(pairs: Sequence[Found]) -> float | None:
    """The mean correlation, where it is worth a word and half of the intervals or more lie above 0.

    Chance does that in one study of twenty at most, however the methods depend on each other: of intervals with a
    chance of 2.5 % each, half or more lie above 0 with a chance of 5 % at most (Markov's inequality).
    """
    if not pairs:
        return None
    mean: float = sum(one["correlation"] for one in pairs) / len(pairs)
    above = sum(one["correlation_low"] > 0 for one in pairs)
    return mean if mean >= _ALIKE and 2 * above >= len(pairs) else None


def seed_by_seed(apart: Found) -> str:
    """The mean difference of runs with one seed, and its 95 % interval; empty where there are no pairs."""
    pairs = apart.get("pairs") or {}
    return "" if pairs.get("low") is None else f"{signed(pairs['points'], pairs)} ({_range(pairs)})"


def control_is(found: Found) -> str:
    """What the control is, in words: with tuning it has trials of its own, and so perhaps another recipe."""
    if found["request"]["tune"]:
        return "the baseline tuned anew, with other trials and other seeds"
    return "the same method with other seeds"


def control_word(found: Found) -> str:
    """What the comparison of the control with the baseline came to."""
    word: str = found["control"]["word"]
    return word if word == "untested" else f"{word} was found"


def _control(found: Found) -> str:
    control = found["control"]
    name = f"Control: {control['label']}" + (f", {control_is(found)}," if found["request"]["tune"] else "")
    if control["word"] == "untested":
        return f"{name} was not compared with {control['to']} ({control['reason']})."
    return f"{name} against {control['to']}: {control_word(found)} (95 % {_range(control)} points)."


def _beyond(apart: Found) -> str:
    holds = apart["distribution"]["verdict"] == apart["verdict"]
    return "it holds for other pictures of their kind" if holds else "it is not shown for other pictures of their kind"


def _by(apart: Found) -> str:
    """A size without sign, with its interval: "0.8 points (95 % 0.5 to 1.1)"."""
    digits = _digits(apart)
    size, ends = abs(apart["points"]), sorted((apart["low"], apart["high"]))
    low, high = ends if apart["points"] > 0 else (-ends[1], -ends[0])
    return f"{_number(size, digits)} points (95 % {_number(low, digits)} to {_number(high, digits)})"


def _range(apart: Found) -> str:
    digits = _digits(apart)
    return f"{_number(apart['low'], digits, '+')} to {_number(apart['high'], digits, '+')}"


def _digits(apart: Found) -> int:
    """Decimals that an interval leaves a meaning: 2 where it is narrower than 1 point, else 1."""
    return 2 if apart["low"] is None or apart["high"] - apart["low"] < 1 else 1


def _number(value: float, digits: int, sign: str = "-") -> str:
    return f"{value:{sign}.{digits}f}".replace("-", "−")


def _fixed(value: float | None, digits: int) -> str:
    return "" if value is None else _number(value, digits)


def _list(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _verb(names: Sequence[str], one: str, many: str) -> str:
    return one if len(names) == 1 else many


def _machine(one: Found) -> str:
    words = (str(one[name]) for name in ("processor", "platform", "device") if one.get(name))
    return f"{', '.join(words)}, torch {one.get('torch')}, poolkit {one.get('poolkit')}: {one['runs']} runs"
