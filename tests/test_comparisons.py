"""What a study's comparisons say where the truth is known: nothing where nothing is, and no more than holds."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("statsmodels")

from scipy import stats as reference  # noqa: E402

from poolkit.lab import comparisons, stats, verdicts  # noqa: E402
from poolkit.lab import findings as numbers  # noqa: E402
from poolkit.lab.gathered import Gathered, Row  # noqa: E402
from poolkit.lab.recipe import Recipe  # noqa: E402
from poolkit.lab.study import Request, Study  # noqa: E402
from studies import made  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_collections")


def row(found, label):
    return next(one for one in found["methods"] if one["label"] == label)


def test_a_control_that_differs_is_found_and_said_first(tmp_path):
    study = made(tmp_path, {"max": 0.7, "avg": 0.7}, seeds=5, others={"max (again)": 0.4}, probes=None)
    found = numbers.findings(study)
    assert found["control"]["word"] == "a difference" and found["control"]["high"] < 0
    assert found["alarms"][0].startswith("max (again) differs from max by −")
    assert any("a difference was found" in text for text in verdicts.remarks(found))


def test_a_control_that_fails_or_lacks_runs_is_untested(tmp_path):
    for name, gap in (("failed", [("max (again)", 5)]), ("missing", [("avg", 0)])):
        control = numbers.findings(made(tmp_path / name, ("max", "avg"), seeds=4, **{name: gap}))["control"]
        assert control["word"] == "untested" and control["reason"]


def test_a_difference_that_rests_on_few_pictures_is_none_of_other_pictures(tmp_path):
    """avg is always right on 30 pictures and max on 20 others: certain of these, but of such pictures it is chance."""
    never, always, pictures = -9.0, 9.0, 60
    sees = {label: np.full(pictures, never) for label in ("max", "avg", "soft", "max (again)")}
    sees["max"][:20] = sees["max (again)"][:20] = always
    sees["avg"][20:50] = always  # 10 more, others
    sees["soft"][:50] = always  # the same and 30 more
    found = numbers.findings(made(tmp_path, ("max", "avg", "soft"), 10, pictures, others=sees, probes=None))
    avg, soft = row(found, "avg")["difference"], row(found, "soft")["difference"]
    assert avg["verdict"] == soft["verdict"] == "better"
    assert avg["distribution"]["verdict"] == "undecided" and avg["distribution"]["low"] < 0 < avg["low"]
    assert soft["distribution"]["verdict"] == "better"
    assert "(for soft it holds for other pictures" in found["verdict"]
    assert "not shown for other pictures" in verdicts.difference(row(found, "avg"))
    assert "it holds for other pictures" in verdicts.difference(row(found, "soft"))


def test_runs_that_go_together_by_their_seeds_are_told_and_change_no_verdict(tmp_path):
    luck = [0.2, -0.3, 0.1, -0.2, 0.0, -0.1]
    alone = numbers.findings(made(tmp_path / "alone", ("max", "avg"), 6, probes=None))
    alike = numbers.findings(made(tmp_path / "alike", ("max", "avg"), 6, luck=luck, probes=None))
    assert verdicts.together(alone) == "" and abs(row(alone, "avg")["difference"]["pairs"]["correlation"]) < 0.5
    apart = row(alike, "avg")["difference"]
    assert apart["pairs"]["correlation"] > 0.9
    assert apart["pairs"]["high"] - apart["pairs"]["low"] < 0.5 * (apart["high"] - apart["low"])
    assert f"correlate by {apart['pairs']['correlation']:.2f}" in verdicts.together(alike)
    assert verdicts.seed_by_seed(apart) in verdicts.together(alike)
    assert verdicts.together(alike) in verdicts.remarks(alike) and apart["verdict"] == "undecided"
    old = {**alike, "methods": [{**one, "difference": None} for one in alike["methods"]]}
    assert verdicts.together(old) == ""


def test_methods_whose_runs_answer_alike_are_named_and_equal_accuracies_are_not_enough(tmp_path):
    right = np.random.default_rng(0).random(200) < 0.7
    sees = {label: np.where(right, 9.0, -9.0) for label in ("max", "avg", "soft", "max (again)")}
    sees["soft"] = sees["soft"][::-1].copy()  # as many right ones, others
    found = numbers.findings(made(tmp_path, ("max", "avg", "soft"), 4, others=sees, probes=None))
    accuracies = {one["label"]: one["accuracy"]["mean"] for one in found["methods"]}
    same = {one["label"]: one["difference"]["pairs"]["same"] for one in found["methods"] if one["difference"]}
    assert accuracies["soft"] == accuracies["max"] and same["soft"] is False
    assert same["avg"] is all_alike(tmp_path, "max", "avg")


def all_alike(folder, one, other):
    runs = {(r.label, r.seed): r.run.predictions()["probabilities"].argmax(1) for r in Study.load(folder).results()}
    return all(np.array_equal(runs[one, seed], runs[other, seed]) for seed in range(4))


def test_twins_are_named():
    pairs = {"n": 4, "same": True, "correlation": 1.0, "correlation_low": 1.0, "points": 0.0, "low": None, "high": None}
    methods = [{"label": "lp:p=1", "difference": {"pairs": pairs}}, {"label": "avg", "difference": None}]
    said = verdicts.together({"baseline": "avg", "methods": methods})
    assert said.startswith("lp:p=1 and avg give every test picture the same class") and "go together" not in said


@pytest.mark.parametrize(("seeds", "methods"), [(4, 1), (5, 2), (10, 6)])
def test_chance_lets_runs_go_together_in_one_study_of_twenty(seeds, methods):
    rng, said, studies = np.random.default_rng(0), 0, 400
    for _ in range(studies):
        base, *others = (dict(enumerate(rng.normal(70, 1, seeds))) for _ in range(1 + methods))
        rows = [{"label": str(n), "difference": {"pairs": {**vars(stats.pairs(one, base)), "same": False}}}
                for n, one in enumerate(others)]  # fmt: skip
        said += bool(verdicts.together({"baseline": "max", "methods": rows}))
    assert said <= reference.binom(studies, 0.05).ppf(0.999)


def chance_to_find(size, n, other, alpha):
    """The power of a two-sided t-test by the non-central t distribution: of its upper tail, `size` in deviations."""
    freedom, centre = n + other - 2, size / math.sqrt(1 / n + 1 / other)
    return reference.nct.sf(reference.t.isf(alpha / 2, freedom), freedom, centre)


def test_what_can_be_detected_and_how_many_seeds_are_needed_by_hand(tmp_path):
    study = made(tmp_path, {"max": 0.7, "avg": 0.6, "soft": 0.72}, seeds=5, probes=None, delta=3.0)
    found = numbers.findings(study)
    values = {label: [r["accuracy"] for r in found["runs"] if r["label"] == label] for label in ("max", "avg", "soft")}
    for label in ("avg", "soft"):
        apart = row(found, label)["difference"]
        sd = math.sqrt((np.var(values[label], ddof=1) + np.var(values["max"], ddof=1)) / 2)
        assert apart["pooled_sd"] == pytest.approx(sd)
        for end, alpha in (("", 0.05), ("_holm", 0.025)):
            assert chance_to_find(apart[f"detectable{end}"] / sd, 5, 5, alpha) == pytest.approx(0.8, abs=1e-6)
            n = apart[f"seeds_for_delta{end}"]
            assert chance_to_find(3 / sd, n, n, alpha) >= 0.8 > chance_to_find(3 / sd, n - 1, n - 1, alpha)


def drawn(rng, request, pictures, lift=0.0):
    """A study of methods that are all the same, with new pictures, but for `lift` of the first after the baseline."""
    easy = rng.beta(6, 2, pictures)
    rows = {}
    for label in request.labels:
        share = np.clip(easy + lift * (label == request.methods[1]), 0, 1)
        runs = np.clip(share + rng.normal(0, 0.01, (request.seeds, 1)), 0, 1)  # some seeds are luckier than others
        right = rng.random((request.seeds, pictures)) < runs
        accuracies = [{"accuracy": 100 * float(run.mean())} for run in right]
        again, done = label == request.again, [SimpleNamespace(seed=seed) for seed in range(request.seeds)]
        rows[label] = Row(
            label, request.method(label), again, request.seeds, [], done, accuracies, np.zeros((0, 0)), right, None
        )
    return Gathered(rows, np.zeros(pictures, np.int64), 0)


def test_where_all_methods_are_the_same_a_difference_is_said_in_one_study_of_twenty(monkeypatch):
    """The whole way from runs to words. What plans and describes is left out: it takes long and decides nothing."""
    monkeypatch.setattr(comparisons, "_planning", lambda *_: {})
    monkeypatch.setattr(stats, "effect", lambda *_: stats.Effect())
    request = Request(
        ("max", "avg", "soft", "lp", "lse", "median"), 5, Recipe(data="made"), "5" * 64, probes=None, delta=1e-9
    )
    rng, studies, false, beyond, control = np.random.default_rng(0), 200, 0, 0, 0
    for _ in range(studies):
        seen = drawn(rng, request, 300)
        found = comparisons.differences(seen, request).values()
        false += any(one["verdict"] != "undecided" for one in found)
        beyond += any(one["distribution"]["verdict"] != "undecided" for one in found)
        control += comparisons.control(seen, request)["word"] == "a difference"
    spread = 3 * math.sqrt(0.05 * 0.95 / studies)
    assert 0.01 < false / studies < 0.05 + spread and beyond <= false
    assert 0.05 - spread < control / studies < 0.05 + spread


def test_where_a_method_is_better_it_is_found_and_by_its_sign(monkeypatch):
    monkeypatch.setattr(comparisons, "_planning", lambda *_: {})
    request = Request(("max", "avg", "soft"), 5, Recipe(data="made"), "5" * 64, probes=None)
    rng = np.random.default_rng(0)
    for lift, word in ((0.15, "better"), (-0.15, "worse")):
        for _ in range(5):
            one = comparisons.differences(drawn(rng, request, 2000, lift), request)["avg"]
            assert one["verdict"] == one["distribution"]["verdict"] == word
