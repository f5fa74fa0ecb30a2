"""Equal tuning: the same trials for all, and the test pictures closed."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

from PIL import Image  # noqa: E402

import poolkit  # noqa: E402
from poolkit.cli import main  # noqa: E402
from poolkit.lab import cluster, processes  # noqa: E402
from poolkit.lab.compare import Task, complete  # noqa: E402
from poolkit.lab.data import Data, digits  # noqa: E402
from poolkit.lab.record import RunError  # noqa: E402
from poolkit.lab.study import Study, seal  # noqa: E402
from poolkit.lab.tune import Tuning, best, expected_best, space, trials  # noqa: E402
from poolkit.lab.validation import ClosedTestSet, hold_out  # noqa: E402
from poolkit.lab.worker import carry_out  # noqa: E402
from test_compare import ASK, Fake, Notes, job  # noqa: E402
from test_study import failed, request  # noqa: E402
from test_train import recipe, tiny  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

HELD = hold_out(tiny())


def asked(**changes):
    given = {"methods": ("max", "soft"), "recipe": recipe(epochs=1), "data_sha256": tiny().sha256, "seeds": 2}
    return request(**{**given, "probes": None, "tune": 4, "tune_data_sha256": HELD.sha256, **changes})


# The test pictures


def test_held_out_are_training_pictures_and_no_other_trains():
    data = tiny()
    held = hold_out(data)
    assert len(held.eval_x) == 9 and len(held.train_x) == 87
    pictures = sorted(x.tobytes() for x in np.concatenate([held.train_x, held.eval_x]))
    assert pictures == sorted(x.tobytes() for x in data.train_x)
    place = {x.tobytes(): y for x, y in zip(data.train_x, data.train_y, strict=True)}
    assert all(place[x.tobytes()] == y for x, y in zip(held.eval_x, held.eval_y, strict=True))
    assert hold_out(data).sha256 == held.sha256 != data.sha256
    assert hold_out(data, seed=1).sha256 != held.sha256


def test_five_thousand_are_held_out_of_fifty_thousand():
    x, y = np.zeros((50_000, 1, 1, 1), np.uint8), np.zeros(50_000, np.int64)
    held = hold_out(Data("big", x, y, x[:1], y[:1], ("a",), "", ""))
    assert (len(held.train_x), len(held.eval_x)) == (45_000, 5_000)


class Sealed(np.ndarray):
    """An array whose every use is an error."""

    def __array_ufunc__(self, *given, **named):
        raise AssertionError("the test pictures were used")

    def __getitem__(self, place):
        raise AssertionError("the test pictures were looked at")

    def __len__(self):
        raise AssertionError("the test pictures were counted")


def test_the_test_pictures_cannot_be_opened_while_tuning(tmp_path):
    data = tiny()
    sealed = dataclasses.replace(data, test_x=data.test_x.view(Sealed), test_y=data.test_y.view(Sealed))
    held = hold_out(sealed)
    for name in ("test_x", "test_y"):
        with pytest.raises(ClosedTestSet, match="eval_x"):
            getattr(held, name)
    assert not any(np.shares_memory(a, b) for a, b in itertools.product(vars(held).values(), (data.test_x, data.test_y))
                   if isinstance(a, np.ndarray))  # fmt: skip
    study = Study.begin(tmp_path, asked())
    cell = Tuning(study).rows["soft"][1]
    record = json.loads(carry_out(cell, job(data, tuning=True), held)["run.json"])
    assert record["status"] == "finished" and record["data"]["test"] == 9 and record["data"]["sha256"] == held.sha256


def test_what_is_probed_cannot_open_them_either(tmp_path):
    pytest.importorskip("poolkit.lab.probes")
    from poolkit.lab.study import ProbeSettings

    cell = Tuning(Study.begin(tmp_path, asked())).rows["max"][0]
    record = json.loads(carry_out(cell, job(tiny(), tuning=True, probes=ProbeSettings(2, 2)), HELD)["run.json"])
    assert record["status"] == "failed" and "ClosedTestSet" in record["message"]


def test_a_task_of_a_cluster_is_not_even_sent_them(tmp_path):
    cell = Tuning(Study.begin(tmp_path, asked())).rows["soft"][2]
    sent = cluster._plain(HELD)
    assert {"train_x", "eval_x"} < set(sent) and not {"test_x", "test_y"} & set(sent)
    words = {"label": cell.label, "recipe": cell.recipe.as_dict(), "key": cell.key}
    record = json.loads(cluster._execute(words, job(tiny(), tuning=True).as_dict(), sent)["run.json"])
    assert record["status"] == "finished" and record["data"]["test"] == 9 and record["recipe_hash"] == cell.key


# The trials


def test_every_row_has_as_many_trials_and_the_first_is_what_is_asked_for():
    made = {label: trials(asked(), label) for label in ("max", "soft", "max (again)")}
    assert all(len(recipes) == 4 for recipes in made.values())
    for label, recipes in made.items():
        first = dataclasses.replace(recipes[0], seed=0)
        assert first == recipe(epochs=1, pool=label.partition(" ")[0])
        rates = [r.lr for r in recipes]
        assert len(set(rates)) == 4 and all(0.00025 <= rate <= 0.004 for rate in rates)
        same = [dataclasses.replace(r, pool="max", lr=1.0, seed=0) for r in recipes]
        assert len(set(same)) == 1
    assert {r.pool for r in made["max"]} == {"max"} and len({r.pool for r in made["soft"]}) > 2
    assert [r.lr for r in made["max"]] != [r.lr for r in made["max (again)"]]
    assert trials(asked(), "soft") == made["soft"]
    assert trials(asked(tune=9), "soft")[:4] == made["soft"]


def test_no_trial_has_the_seed_of_a_run():
    seeds = {r.seed for label in asked().labels for r in trials(asked(), label)}
    runs = {seed for label in asked().labels for seed in asked().seeds_of(label)}
    assert len(runs) == 4 and not seeds & runs


def test_what_is_spelled_stays_and_what_is_learned_is_learned():
    assert set(space("soft:beta=2,grad=detached", 1.0)) == {"lr"}
    assert set(space("soft", 1.0)) == {"lr", "beta", "grad"}
    assert set(space("soft:beta=learn", 1.0)) == {"lr", "grad"}
    assert str(space("gem", 1.0)["eps"]) == "from 2.5e-07 to 4e-06, evenly in its logarithm"
    assert all(
        r.pool.startswith("soft:beta=learn")
        for r in trials(asked(methods=("max", "soft:beta=learn")), "soft:beta=learn")
    )  # noqa: E501


@pytest.mark.parametrize("name", list(poolkit.METHODS))
def test_every_methods_space_lies_in_its_declared_ranges(name):
    study = asked(methods=("soft", name) if name != "soft" else ("max", "soft"), tune=40)
    drawn = trials(study, name)
    method = poolkit.METHODS[name]
    spelled = [r.head if method.kind == "head" else r.pool for r in drawn]
    assert len(drawn) == 40 and all(poolkit.method(each).card.name == name for each in spelled)
    assert all(r.pool == "max" for r in drawn) or method.kind != "head"
    assert all(str(span) for span in space(name, 1.0).values())


def test_the_best_trial_is_that_of_the_highest_accuracy_then_of_the_lowest_loss_then_the_first():
    def tried(*values):
        return [{"accuracy": accuracy, "loss": loss} for accuracy, loss in values]

    assert best(tried((0.5, 1.0), (0.7, 2.0), (None, None), (0.7, 1.5), (0.7, 1.5))) == 3
    assert best(tried((None, None), (0.0, None))) == 1 and best(tried((None, None), (None, None))) == 0


def test_the_expected_best_of_k_is_the_mean_over_all_choices():
    values = [0.3, 0.9, 0.5, 0.7, 0.5]
    for k, found in enumerate(expected_best(values), start=1):
        assert found == pytest.approx(np.mean([max(some) for some in itertools.combinations(values, k)]))


# The study


class Graded(Fake):
    """A worker without a process: a trial's accuracy is its learning rate's share of 0.01; some trials fail."""

    def give(self, cell):
        if cell.label.endswith("trial 0"):
            return super().give(cell)
        accuracy = cell.recipe.lr / 0.01
        counts = [round(9 * accuracy), 9 - round(9 * accuracy)]
        row = {"precision": 1.0, "recall": 1.0, "f1": 1.0}
        final = {
            "loss": 1.0, "accuracy": accuracy, "confusion": [[counts[0], counts[1], 0], [0, 0, 0], [0, 0, 0]],
            "per_class": [{"class": c, **row, "support": 9 if c == "a" else 0} for c in "abc"],
        }  # fmt: skip
        run = dataclasses.replace(of_tiny(cell), status="finished", message=None, final=final, weights_sha256="x")
        self.tell({"kind": "result"}, seal(cell, self.study.sha256, run, None, {"seconds": 2.0}))


def tune(study):
    tuning, notes = Tuning(study), Notes()
    data = of_tiny(tuning.rows["max"][0]).data
    task = Task(tuning.missing(), tuning.total, tuning.path, study.sha256, data, None, study.folder / "log.txt")
    complete(task, lambda n, e: Graded(n, e, study), 2, notes)
    return notes


def of_tiny(cell):
    run = failed(cell)
    return dataclasses.replace(run, data={**run.data, "name": "tiny"})


@pytest.fixture
def tiny_failures(monkeypatch):
    monkeypatch.setattr("test_compare.failed", of_tiny)


def test_a_studys_runs_have_the_recipe_that_was_chosen_and_new_seeds(tmp_path, tiny_failures):
    study = Study.begin(tmp_path, asked())
    with pytest.raises(RunError, match="no tuning.json(.|\n)*not finished"):
        study.cells()
    with pytest.raises(RunError):
        Tuning(study).choose()
    notes = tune(study)
    assert notes.done == list(range(1, 13)) and Tuning(study).missing() == ()
    order = [cell.label for cell in notes.given_to]
    assert {label.partition(",")[0] for label in order[:3]} == {"max", "soft", "max (again)"}
    Tuning(study).choose()
    tried = {label: trials(study.request, label) for label in study.request.labels}
    for cell in study.cells():
        wanted = max(tried[cell.label][1:], key=lambda r: r.lr)
        assert cell.recipe == dataclasses.replace(wanted, seed=cell.recipe.seed)
        assert cell.key == cell.recipe.hash(tiny().sha256)
    record = json.loads((tmp_path / "tuning.json").read_text(encoding="utf-8"))
    assert [row["label"] for row in record["rows"]] == ["max", "soft", "max (again)"]
    assert all(len(row["trials"]) == 4 and row["trials"][0]["message"] == "it would not" for row in record["rows"])
    assert record["rows"][0]["trials"][1]["seconds"] == 2.0
    before = (tmp_path / "tuning.json").read_bytes()
    assert tune(study).done == []
    Tuning(study).choose()
    assert (tmp_path / "tuning.json").read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"chosen": ', '"chosen": 9'), ('"label": "soft"', '"label": "avg"'), ('"net": "tutorial"', '"net": "tutor"'),
        ('"study_sha256": "', '"study_sha256": "f'), ("}", ""),
    ],
)  # fmt: skip
def test_a_choice_that_was_touched_is_noticed(tmp_path, tiny_failures, old, new):
    study = Study.begin(tmp_path, asked())
    tune(study)
    Tuning(study).choose()
    path = tmp_path / "tuning.json"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(RunError, match="tuning.json"):
        study.cells()


def test_the_command_tunes_then_trains(tmp_path, capsys):
    words = ["compare", "max", "soft", *ASK[3:], "--seeds", "2", "--tune", "2", "--out", str(tmp_path / "study")]
    assert main([*words, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["cells"], found["done"]) == (12, 0)
    assert main(words) == 0
    said = capsys.readouterr()
    assert "tuning: 2 trials for each row" in said.err and "chosen for soft" in said.err and "max (again)" in said.out
    study = Study.load(tmp_path / "study")
    assert study.missing() == () and study.request.tune_data_sha256 == hold_out(digits()).sha256
    assert all(r.run.data["test"] == 143 for r in Tuning(study).results("soft"))
    assert all(r.run.data["test"] == 360 and r.run.data["train"] == 60 for r in study.results())
    assert main([*words, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["cells"], found["done"], found["missing"]) == (12, 12, [])


def picture_folder(root, test):
    """Pictures of two classes to train on, and some to test on."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", test)):
        for name, level in (("dark", 0), ("light", 120)):
            (root / part / name).mkdir(parents=True)
            for n in range(count):
                pixels = rng.integers(level, level + 100, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{n:02}.png")


def test_a_tuning_worker_of_the_command_never_opens_the_test_files(tmp_path, monkeypatch, capsys):
    """The files are not there while the trials' processes begin; those of the runs need them again."""
    picture_folder(tmp_path / "pictures", 4)
    place, away, hidden, real = tmp_path / "pictures" / "test", tmp_path / "away", [], processes.processes

    def hired(job):
        if job.tuning != away.exists():
            (place.rename(away), place.mkdir()) if job.tuning else (place.rmdir(), away.rename(place))
            hidden.append(job.tuning)
        return real(job)

    monkeypatch.setattr(processes, "processes", hired)
    out = tmp_path / "study"
    words = ["compare", "max", "avg", "--data", f"folder:{tmp_path / 'pictures'}", "--epochs", "1", "--seeds", "2"]
    assert main([*words, "--no-robustness", "--tune", "1", "--workers", "1", "--out", str(out)]) == 0
    assert hidden == [True, False]
    study = Study.load(out)
    trials_of_all = [r.run for label in study.request.labels for r in Tuning(study).results(label)]
    assert {run.status for run in trials_of_all} == {"finished"} and {run.data["test"] for run in trials_of_all} == {4}
    assert {(r.run.status, r.run.data["test"]) for r in study.results()} == {("finished", 8)}
