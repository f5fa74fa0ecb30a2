"""Every number of a study: the same bytes again, from predictions alone; and what it may say of them."""

from __future__ import annotations

import dataclasses
import json
import re
from itertools import combinations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("statsmodels")

from poolkit.cli import main  # noqa: E402
from poolkit.lab import findings as numbers  # noqa: E402
from poolkit.lab import summaries, verdicts  # noqa: E402
from poolkit.lab.gathered import gather  # noqa: E402
from poolkit.lab.record import RunError  # noqa: E402
from poolkit.lab.specials import special_cases  # noqa: E402
from poolkit.lab.study import Study  # noqa: E402
from studies import made  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_collections")


@pytest.fixture(scope="module")
def clear(tmp_path_factory):
    """Max sees more than average, soft as much as max."""
    return made(tmp_path_factory.mktemp("clear"), {"max": 0.7, "avg": 0.4, "soft": 0.7}, seeds=5)


@pytest.fixture(scope="module")
def found(clear):
    return numbers.findings(clear)


def row(found, label):
    return next(one for one in found["methods"] if one["label"] == label)


def test_the_same_study_gives_the_same_bytes(clear, found):
    assert numbers.canonical(numbers.findings(Study.load(clear.folder))) == numbers.canonical(found)
    assert json.loads(numbers.canonical(found)) == json.loads(json.dumps(found))


def test_accuracies_are_those_of_the_predictions(clear, found):
    results = [r for r in clear.results() if r.label == "avg"]
    arrays = [r.run.predictions() for r in results]
    want = [100 * float((a["probabilities"].argmax(1) == a["labels"]).mean()) for a in arrays]
    assert [run["accuracy"] for run in found["runs"] if run["label"] == "avg"] == pytest.approx(want)
    assert row(found, "avg")["accuracy"]["mean"] == pytest.approx(np.mean(want))
    assert found["order"][-1] == "avg" and set(found["order"]) == {"max", "avg", "soft", "max (again)"}


def test_what_is_decided_and_what_is_not(found):
    assert row(found, "avg")["difference"]["verdict"] == "worse"
    assert row(found, "soft")["difference"]["verdict"] == "undecided"
    assert row(found, "max")["difference"] is None and row(found, "max (again)")["difference"] is None
    assert re.search(r"[Aa]vg is worse than max by [\d.]+ points \(95 % ", found["verdict"])
    assert "nothing is decided for soft" in found["verdict"].lower()
    assert found["control"]["word"] == "no difference"


def test_nothing_is_nan_and_every_measure_is_there(found):
    assert "NaN" not in numbers.canonical(found).decode()
    for name in numbers.MEASURES:
        assert row(found, "max")[name]["mean"] is not None, name


def test_an_untouched_study_verifies_and_a_touched_one_says_where(tmp_path, capsys):
    study = made(tmp_path, seeds=2, pictures=60)
    assert any("is not there" in line for line in numbers.verify(study))
    numbers.save(study, numbers.findings(study))
    assert numbers.verify(study) == []
    assert main(["report", str(tmp_path), "--verify"]) == 0

    path = tmp_path / numbers.FINDINGS
    good = path.read_bytes()
    changed = json.loads(good)
    changed["methods"][1]["accuracy"]["mean"] += 0.1
    path.write_bytes(numbers.canonical(changed))
    assert re.search(r"findings.json: methods\[1\].accuracy.mean is .*, recomputed", numbers.verify(study)[0])
    assert main(["report", str(tmp_path), "--verify"]) == 1
    assert "methods[1].accuracy.mean" in capsys.readouterr().out
    path.write_bytes(good.replace(b",", b", ", 1))
    assert "another spelling" in numbers.verify(study)[0]
    path.write_bytes(good)

    table = tmp_path / numbers.RUNS_CSV
    table.write_bytes(table.read_bytes().replace(b"max", b"mux", 1))
    assert numbers.verify(study) == ["runs.csv differs"]


def test_findings_of_another_version_are_said_to_be_that(tmp_path):
    study = made(tmp_path, seeds=2, pictures=60)
    old = {**numbers.findings(study), "poolkit": "0.0.9"}
    old["methods"][1]["accuracy"]["mean"] += 0.1
    numbers.save(study, old)
    (line,) = numbers.verify(study)
    assert "findings.json was written by poolkit 0.0.9, and this is" in line and "recomputed" not in line


def test_a_changed_prediction_is_refused(tmp_path):
    study = made(tmp_path, seeds=2, pictures=60)
    numbers.save(study, numbers.findings(study))
    path = study.path(study.cells()[0]) / "predictions.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(RunError, match="damaged or exchanged"):
        numbers.verify(study)


def test_a_run_that_ends_while_the_others_are_read_is_missing(tmp_path, monkeypatch):
    """What is missing is what was not read, not what is not there a moment later."""
    study = made(tmp_path, {"max": 0.9, "avg": 0.3}, seeds=3)
    late, read = study.path(study.cells()[-1]), Study.results
    late.rename(tmp_path / "later")

    def read_then_one_ends(self):
        there = read(self)
        (tmp_path / "later").rename(late)
        return there

    monkeypatch.setattr(Study, "results", read_then_one_ends)
    found = numbers.findings(study)
    assert not found["complete"] and found["counts"] == {"asked": 9, "finished": 8, "failed": 0, "missing": 1}
    assert "not complete: 1 of 9 runs are missing" in found["verdict"]


def test_before_the_last_run_nothing_is_decided(tmp_path):
    found = numbers.findings(made(tmp_path, {"max": 0.9, "avg": 0.3}, seeds=4, missing=[("avg", 3)]))
    assert "not complete: 1 of 12 runs are missing" in found["verdict"]
    assert row(found, "avg")["difference"]["verdict"] == "undecided"
    assert "fixed beforehand" in row(found, "avg")["difference"]["reason"]


def test_a_method_that_fails_is_said_to_fail_and_none_of_its_runs_is_dropped(tmp_path):
    study = made(tmp_path, {"max": 0.7, "avg": 0.3, "soft": 0.7}, seeds=4, failed=[("avg", 1)])
    found = numbers.findings(study)
    assert row(found, "avg")["fails"] and row(found, "avg")["difference"]["verdict"] == "undecided"
    assert row(found, "avg")["failures"] == [{"seed": 1, "message": "RuntimeError: the loss became <NaN>"}]
    assert any("avg fails: 1 of 4 runs" in text for text in found["alarms"])
    assert "avg fails" in found["verdict"]
    none = numbers.findings(
        made(tmp_path / "none", seeds=2, failed=[(m, s) for m in ("max", "avg", "soft") for s in (0, 1)])
    )
    assert none["verdict"].startswith("Nothing is decided: max fails")


def test_a_method_that_loses_to_what_it_contains_is_an_alarm(tmp_path):
    pairs = {(pair.general, pair.special) for pair in special_cases(["max", "avg", "soft", "lp:p=3", "stochastic"])}
    assert ("soft", "avg") in pairs and ("soft", "max") in pairs and ("lp:p=3", "max") in pairs
    assert not any("stochastic" in pair for pair in pairs)
    assert special_cases(["strided", "avg"]) == []  # only strided:at=random is avg, and only in evaluation
    found = numbers.findings(made(tmp_path, {"max": 0.8, "avg": 0.8, "soft": 0.3}, seeds=5))
    assert any(text.startswith("soft is worse than avg") and "soft:beta=0" in text for text in found["alarms"])


def test_a_control_that_differs_is_the_first_alarm(tmp_path):
    study = made(tmp_path, ("max", "avg"), seeds=4)
    found = numbers.findings(study)
    found["control"] = {**found["control"], "word": "a difference", "points": 1.0, "low": 0.5, "high": 1.5}
    assert "although both are the same" in verdicts.alarms(found)[0]


def test_what_holds_for_other_pictures_holds_for_these(tmp_path):
    """With few runs the two tests can disagree; the larger p decides, and one word is never without the other."""
    rng, disagreed = np.random.default_rng(1), 0
    for n in range(12):
        skill = dict(zip(("max", "avg", "soft", "lp"), rng.choice([0.5, 0.6, 0.65, 0.7], 4), strict=True))
        study = made(tmp_path / str(n), skill, seeds=2 + n % 2, pictures=400, probes=None, delta=8.0 if n % 4 else 0.2)
        for one in numbers.findings(study)["methods"]:
            if apart := one["difference"]:
                wide = apart["distribution"]
                disagreed += wide["p"] is not None and wide["p"] < 0.0125 and apart["verdict"] != "worse"
                assert wide["verdict"] in ("undecided", apart["verdict"])
                assert wide["p_holm"] is None or wide["p_holm"] >= apart["p_holm"] - 1e-12
    assert disagreed


def test_the_control_of_a_tuned_study_is_said_to_be_tuned_anew(tmp_path):
    study = made(tmp_path, ("max", "avg"), seeds=2, pictures=60, tune=2, tune_data_sha256="7" * 64, probes=None)
    found = numbers.findings(study)
    assert "the recipes that tuning chose: luck in tuning is in no interval" in found["verdict"]
    assert "luck in tuning is in no interval" in found["notes"]["tuning"]
    assert "max (again), the baseline tuned anew, with other" in " ".join(verdicts.remarks(found))
    found["control"] |= {"word": "a difference", "points": 1.0, "low": 0.5, "high": 1.5}
    alarm = verdicts.alarms(found)[0]
    assert "tuned anew: luck in tuning does that" in alarm and "both are the same" not in alarm


def test_the_words_of_verdicts_keep_their_promise(tmp_path):
    """No best, nothing significant; better and worse only where the adjusted interval leaves 0 out."""
    rng, words = np.random.default_rng(0), set()
    for n in range(12):
        skill = dict(zip(("max", "avg", "soft", "lp"), rng.choice([0.4, 0.55, 0.6, 0.7], 4), strict=True))
        found = numbers.findings(made(tmp_path / str(n), skill, seeds=3, pictures=80, probes=None))
        said = " ".join([found["verdict"], *found["alarms"], *map(verdicts.difference, found["methods"])])
        assert not re.search(r"\b(best|significant\w*)\b", said)
        for one in found["methods"]:
            if apart := one["difference"]:
                words.add(apart["verdict"])
                low, high = apart["adjusted"]["low"], apart["adjusted"]["high"]
                assert (apart["verdict"] == "better") <= (low > 0) and (apart["verdict"] == "worse") <= (high < 0)
    assert {"worse", "undecided"} <= words


def test_times_are_compared_on_one_kind_of_machine(tmp_path):
    seen = gather(made(tmp_path, ("max", "avg"), seeds=3, probes=None))
    base, row = seen.rows["max"], seen.rows["avg"]
    on_one = summaries._time(row, base, "train_seconds")
    for numbers_of_run in row.numbers[1:]:  # two of three runs elsewhere, and ten times slower there
        numbers_of_run["train_seconds"] *= 10
    elsewhere = [
        r._replace(run=dataclasses.replace(r.run, machine={**r.run.machine, "processor": "slow"}))
        for r in row.finished[1:]
    ]
    mixed = dataclasses.replace(row, finished=[row.finished[0], *elsewhere])
    found = summaries._time(mixed, base, "train_seconds")
    assert found == {
        "seconds": row.numbers[0]["train_seconds"],
        "runs": 1,
        "ratio": pytest.approx(on_one["ratio"], rel=0.01),
        "low": None,
        "high": None,
    }
    assert on_one["runs"] == 3 and on_one["seconds"] == pytest.approx(found["seconds"], rel=0.01)
    alone = dataclasses.replace(mixed, finished=elsewhere, numbers=row.numbers[1:])
    nothing = dict.fromkeys(("seconds", "ratio", "low", "high")) | {"runs": 0}
    assert summaries._time(alone, base, "train_seconds") == nothing


def timed(row, times):
    """A row whose runs took these times of training."""
    numbers_of_runs = [{**one, "train_seconds": time} for one, time in zip(row.numbers, times, strict=True)]
    return dataclasses.replace(row, numbers=numbers_of_runs)


def test_a_ratio_of_times_has_the_spread_of_its_seeds(tmp_path):
    """Pairs of one seed share what slowed the machine; the baseline and its control have none and show it."""
    seen = gather(made(tmp_path, ("max", "avg"), seeds=3, failed=[("max", 1)], probes=None))
    base = timed(seen.rows["max"], [10.0, 30.0])  # of seeds 0 and 2: the machine was slow for the last
    of = {
        label: timed(seen.rows[label], times)
        for label, times in {"avg": [11, 24, 27], "max (again)": [10, 20, 60]}.items()
    }
    found = summaries._time(of["avg"], base, "train_seconds")
    assert (found["ratio"], found["low"], found["high"]) == pytest.approx((24 / 20, 27 / 30, 24 / 20))
    again = summaries._time(of["max (again)"], base, "train_seconds")
    assert (again["ratio"], again["low"], again["high"]) == pytest.approx((1, 0.5, 3))
    itself = summaries._time(base, base, "train_seconds")
    assert (itself["ratio"], itself["low"], itself["high"]) == pytest.approx((1, 0.5, 1.5))


def test_the_spread_of_times_is_a_finding_and_stands_in_the_table(found):
    place = verdicts.COLUMNS.index("training")
    for cells in verdicts.table(found):
        one = row(found, cells[0])
        low, ratio, high = (one[f"train_time_ratio{end}"] for end in ("_low", "", "_high"))
        assert low <= ratio <= high
        assert cells[place] == f"{ratio:.2f}× ({low:.2f}–{high:.2f})"
    assert verdicts.TIMES in verdicts.remarks(found) and verdicts.TIMES in verdicts.markdown(found, "a command")
    assert "the smallest and the largest over the seeds" in found["notes"]["time"]
    assert "train_time_ratio_low,train_time_ratio_high" in numbers.files(found)[numbers.METHODS_CSV].decode()


def test_findings_without_the_spread_of_times_are_shown_without_it(found):
    older = json.loads(numbers.canonical(found))
    for one in older["methods"]:
        del one["train_time_ratio_low"], one["train_time_ratio_high"]
    assert all(re.fullmatch(r"\d+\.\d\d×", cells[6]) for cells in verdicts.table(older))
    assert verdicts.TIMES not in verdicts.markdown(older, "a command") and verdicts.TIMES not in verdicts.remarks(older)


def test_what_tuning_tried_is_a_finding(tmp_path):
    asked = {"tune": 3, "tune_data_sha256": "7" * 64, "probes": None}
    study = made(tmp_path, {"max": 0.7, "soft": 0.7}, seeds=2, pictures=60, **asked)
    whole = numbers.findings(study)
    found = whole["tuning"]
    assert "| `soft` | `" in verdicts.markdown(whole, "a command").partition("## Tuning")[2]
    assert [row["label"] for row in found["rows"]] == ["max", "soft", "max (again)"]
    for row_ in found["rows"]:
        shares = [trial["accuracy"] for trial in row_["trials"]]
        assert len(shares) == 3 and shares[row_["chosen"]] == max(shares)
        assert row_["best_of"][0] == pytest.approx(np.mean(shares)) and row_["best_of"][-1] == max(shares)
        pairs = [max(pair) for pair in combinations(shares, 2)]
        assert row_["best_of"][1] == pytest.approx(np.mean(pairs))
    path = tmp_path / "tuning.json"
    record = json.loads(path.read_bytes())
    chosen = next(one for one in record["rows"] if one["label"] == "soft")
    chosen["trials"][chosen["chosen"]]["recipe"]["lr"] *= 2
    path.write_bytes(json.dumps(record).encode())
    with pytest.raises(RunError, match="another trial of soft"):
        summaries.tuning(study)


def test_tables_and_the_markdown_page(found, tmp_path):
    rows = verdicts.table(found)
    assert [cells[0] for cells in rows] == found["order"] and all(len(c) == len(verdicts.COLUMNS) for c in rows)
    place = verdicts.COLUMNS.index("detectable")
    for cells in rows:
        apart = row(found, cells[0])["difference"]
        assert cells[place] == (f"{apart['detectable_holm']:.2f}" if apart else "")
    page = verdicts.markdown(found, "a command")
    soft = row(found, "soft")["difference"]["detectable_holm"]
    assert f"| {soft:.2f} |" in page.partition("| `soft`")[2].partition("\n")[0]
    assert "difference (95 %)" in page and verdicts.LEGEND in page and verdicts.LEGEND in verdicts.remarks(found)
    assert found["verdict"] in page and found["study_sha256"] in page and "These pictures were never taken." in page
    assert "generated by `a command`, tested" in page


def test_the_page_and_the_readmes_part_come_from_findings_alone(clear, found, tmp_path):
    numbers.save(clear, found)
    alone, page, readme = tmp_path / "alone", tmp_path / "page.md", tmp_path / "README.md"
    alone.mkdir()
    (alone / numbers.FINDINGS).write_bytes((clear.folder / numbers.FINDINGS).read_bytes())
    readme.write_text("before\n<!-- study: x -->\nstale\n<!-- end of study -->\nbehind\n", encoding="utf-8")
    assert numbers.main(str(clear.folder), str(page)) == 0
    whole = page.read_text(encoding="utf-8")
    assert numbers.main(str(alone), str(page), str(readme)) == 0
    strip = re.compile(r"generated by `[^`]*`")
    assert strip.sub("", page.read_text(encoding="utf-8")) == strip.sub("", whole)
    text = readme.read_text(encoding="utf-8")
    assert (
        text.startswith("before\n") and text.endswith("behind\n") and found["verdict"] in text and "stale" not in text
    )
    readme.write_text("no marks", encoding="utf-8")
    assert numbers.main(str(alone), str(page), str(readme)) == 1
    assert numbers.main(str(tmp_path / "nowhere"), str(page)) == 1
