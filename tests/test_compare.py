"""Running a study: turns, failures, dying workers, stopping and going on."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

from poolkit.cli import main  # noqa: E402
from poolkit.lab import device, worker  # noqa: E402
from poolkit.lab.compare import Event, Observer, Task, alone, complete, share_cores  # noqa: E402
from poolkit.lab.data import digits  # noqa: E402
from poolkit.lab.peak import Peak  # noqa: E402
from poolkit.lab.processes import processes  # noqa: E402
from poolkit.lab.recipe import Recipe  # noqa: E402
from poolkit.lab.record import RunError  # noqa: E402
from poolkit.lab.study import ProbeSettings, Study, seal  # noqa: E402
from poolkit.lab.study_lines import Bars  # noqa: E402
from poolkit.lab.train import train  # noqa: E402
from poolkit.lab.worker import Job, carry_out, read_frame, write_frame  # noqa: E402
from test_study import failed, request  # noqa: E402
from test_train import recipe, tiny  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


class Fake:
    """A worker without a process: its results are failures, and it dies where it is told to."""

    def __init__(self, number, events, study, dies=()):
        self.number, self.events, self.study, self.dies, self.ended = number, events, study, dies, False
        self.tell({"kind": "gone", "why": "no bread"} if dies == "at once" else {"kind": "ready"})

    def tell(self, message, files=None):
        self.events.put(Event(self, message, files or {}))

    def give(self, cell):
        if cell.label in self.dies:
            return self.tell({"kind": "gone", "why": "SIGKILL"})
        self.tell({"kind": "epoch", "epoch": 1})
        self.tell({"kind": "result"}, seal(cell, self.study.sha256, failed(cell), None, {}))

    def end(self):
        self.ended = True


class Notes(Observer):
    def __init__(self):
        self.notes, self.done, self.given_to = [], [], []

    def given(self, hand, cell):
        self.given_to.append(cell)

    def finished(self, hand, cell, record, done):
        self.done.append(done)

    def note(self, text):
        self.notes.append(text)


def task(study: Study) -> Task:
    data = failed(study.cells()[0]).data
    return Task(
        study.missing(), len(study.cells()), study.path, study.sha256, data, "poolkit compare", study.folder / "log.txt"
    )


def fakes(study, dies=()):
    hands = []

    def hire(number, events):
        hands.append(Fake(number, events, study, dies))
        return hands[-1]

    return hire, hands


@pytest.mark.parametrize("workers", [1, 3])
def test_every_missing_cell_is_given_in_turn_and_stored(tmp_path, workers):
    study, notes = Study.begin(tmp_path, request()), Notes()
    order = study.schedule()
    for n, cell in enumerate(order):  # a result that is there is left alone
        if n % 5 == 0:
            complete(dataclasses.replace(task(study), cells=[cell]), fakes(study)[0], 1)
    hire, hands = fakes(study)
    complete(task(study), hire, workers, notes)
    assert notes.given_to == [cell for n, cell in enumerate(order) if n % 5]
    assert notes.done == list(range(4, 13)) and study.missing() == ()
    assert len(study.results()) == 12 and len(hands) == workers and all(hand.ended for hand in hands)
    assert len((tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()) == 12


def test_a_worker_that_dies_costs_its_run_which_is_tried_after_all_others_and_then_failed(tmp_path):
    study, notes = Study.begin(tmp_path, request()), Notes()
    hire, hands = fakes(study, dies=("soft",))
    complete(task(study), hire, 1, notes)
    assert study.missing() == () and len(notes.given_to) == 12 + 3 + 3
    soft = [cell for cell in study.schedule() if cell.label == "soft"]
    assert notes.given_to == [*study.schedule(), *soft, *soft]
    messages = {r.label: r.run.message for r in study.results()}
    assert messages["soft"].startswith("The process that trained it ended 3 times: SIGKILL\n")
    assert "--retry-failed" in messages["soft"]
    assert messages["max"] == messages["avg"] == "it would not"
    assert len(notes.notes) == 9 and all(hand.ended for hand in hands)


def test_a_worker_that_dies_twice_by_accident_costs_no_run(tmp_path):
    study, died = Study.begin(tmp_path, request()), []

    class Twice(Fake):
        def give(self, cell):
            if cell.label == "soft" and died.count(cell.key) < 2:
                died.append(cell.key)
                return self.tell({"kind": "gone", "why": "SIGKILL"})
            super().give(cell)

    complete(task(study), lambda n, e: Twice(n, e, study), 2)
    assert len(died) == 6 and {r.run.message for r in study.results()} == {"it would not"}


def test_workers_that_cannot_begin_end_the_study_with_their_reason(tmp_path):
    study = Study.begin(tmp_path, request())
    hire, hands = fakes(study, dies="at once")
    with pytest.raises(RunError, match="before they can begin: no bread"):
        complete(task(study), hire, 2)
    assert 3 <= len(hands) <= 4 and all(hand.ended for hand in hands)


def test_only_one_process_runs_a_study(tmp_path):
    with alone(tmp_path / "new"):
        with pytest.raises(RunError, match="Another process runs the study(.|\n)*log.txt"):
            with alone(tmp_path / "new"):
                pass
    with alone(tmp_path / "new"):
        pass


def test_a_folder_with_files_of_others_is_left_as_it_is(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert main([*ASK, "--out", str(tmp_path)]) == 1
    assert "holds no study: mine.txt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_dry_run_refuses_the_folders_that_the_call_refuses(tmp_path, capsys, more):
    (tmp_path / "mine.txt").write_text("keep")
    for place, words in ((tmp_path, "holds no study: mine.txt"), (tmp_path / "mine.txt", "cannot be used")):
        assert main([*ASK, "--out", str(place), *more]) == 1
        assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux alone")
def test_the_memory_of_a_run_is_not_that_of_a_larger_one_before():
    def grown(megabytes):
        peak = Peak()
        array = np.ones((megabytes, 2**17))
        assert array.sum()
        return peak.grown() / 2**20

    large, small = grown(300), grown(30)
    assert 290 < large < 400 and small < 100


def test_workers_and_threads_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(16), raising=False)
    assert share_cores(None, None) == (8, 2)
    assert share_cores(4, None) == (4, 4) and share_cores(None, 4) == (4, 4) and share_cores(3, 1) == (3, 1)
    assert share_cores(99, None) == (99, 1) and share_cores(None, 99) == (1, 99)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(2), raising=False)
    assert share_cores(None, None) == (2, 1)


def test_on_a_terminal_each_worker_has_a_bar_and_each_run_that_is_done_a_line(tmp_path, capsys):
    study = Study.begin(tmp_path, request())
    one, two = study.cells()[0], study.cells()[-1]
    epoch = {"epoch": 2, "epochs": 4, "step": 5, "steps": 10, "images_per_second": 1234.0, "eta": 1.0}
    with Bars.display() as bars:
        bars.begin(12, 0, 2)
        bars.given(0, one)
        bars.given(1, two)
        bars.progress(1, two, {"kind": "progress", "progress": epoch})
        bars.progress(1, two, {"kind": "epoch", "epoch": 2, "accuracy": 0.5})
        tasks = {task.description: task for task in bars.rich.tasks}
        assert set(tasks) == {"max  seed 0", "max (again)  seed 5"}
        assert tasks["max (again)  seed 5"].percentage == pytest.approx(100 * 15 / 40)
        assert "epoch 2/4" in tasks["max (again)  seed 5"].fields["pace"]
        bars.finished(1, two, {"status": "failed", "message": "no\nbread", "final": None}, 1)
        assert [task.description for task in bars.rich.tasks] == ["max  seed 0", ""]
        bars.given(1, one)
        assert bars.rich.tasks[1].completed == 0
    said = capsys.readouterr().err
    assert "12 runs, 0 already here, 12 to do, 2 at once" in said
    assert "1/12  max (again)  seed 5  failed: no bread" in said


# What a worker does


def test_a_frame_cut_off_anywhere_is_no_frame():
    whole = io.BytesIO()
    write_frame(whole, {"kind": "result"}, {"a": b"12\n34", "b": b""})
    content = whole.getvalue()
    assert read_frame(io.BytesIO(content)) == ({"kind": "result"}, {"a": b"12\n34", "b": b""})
    assert all(read_frame(io.BytesIO(content[:n])) is None for n in range(len(content)))


def job(data, **changes) -> Job:
    given = {"study": "1" * 64, "data": data.name, "data_sha256": data.sha256, "data_dir": None, "probes": None}
    return Job(**{**given, "device": "cpu", "threads": 1, "workers": 1, "command": "poolkit compare", **changes})


def small_study(folder: Path, data=None, **changes) -> Study:
    data = data or tiny()
    base = recipe(epochs=1, data=data.name, **changes.pop("recipe", {}))
    return Study.begin(folder, request(**{"recipe": base, "data_sha256": data.sha256, "probes": None, **changes}))


def test_a_cell_is_the_run_that_train_trains(tmp_path):
    data, study = tiny(), small_study(tmp_path)
    cell = study.cells()[4]
    files = carry_out(cell, job(data, study=study.sha256), data)
    assert list(files) == ["predictions.npz", "study.json", "run.json"]
    complete(task(study), lambda n, e: Real(n, e, study), 1)
    found = next(r for r in study.results() if (r.label, r.seed) == (cell.label, cell.recipe.seed))
    expected = train(cell.recipe, data)
    assert found.run.weights_sha256 == expected.weights_sha256 and found.run.final == expected.final
    assert np.array_equal(found.run.predictions()["probabilities"], expected.predictions()["probabilities"])
    again = next((study.path(cell)).glob("predictions.npz")).read_bytes()
    assert again == files["predictions.npz"]
    measured = found.measured
    assert 0 < measured["train_seconds"] <= found.run.seconds < measured["seconds"] and measured["test_seconds"] > 0
    assert {p.name for p in study.path(cell).iterdir()} == {"predictions.npz", "study.json", "run.json"}


class Real(Fake):
    """A worker without a process that trains."""

    def give(self, cell):
        data = tiny()
        files = carry_out(cell, job(data, study=self.study.sha256, probes=self.study.request.probes), data)
        self.tell({"kind": "result"}, files)


class Digits(Fake):
    """A worker without a process that trains on the digits."""

    def give(self, cell):
        data = digits()
        self.tell({"kind": "result"}, carry_out(cell, job(data, study=self.study.sha256), data))


def test_what_is_timed_and_probed_is_the_net_on_the_device_that_trained_it(tmp_path, monkeypatch):
    """Without a GPU: what would go to one is noted, and done on the processor."""
    data, told, real_evaluate, real_to = tiny(), [], worker.evaluate, torch.nn.Module.to
    study = small_study(tmp_path, probes=ProbeSettings(1, 1))

    def trained(recipe, data, device, **more):
        told.append(f"trained on {device}")
        return train(recipe, data, **more)

    def evaluated(model, x, y):
        told.append("tested")
        return real_evaluate(model, x, y)

    def moved(net, place=None, **more):
        if place != torch.device("cuda:1"):
            return real_to(net, place, **more)
        told.append(f"net to {place}")
        return net

    peak = SimpleNamespace(grown=lambda: told.append("peak taken") or 7)
    monkeypatch.setattr(torch.nn.Module, "to", moved)
    monkeypatch.setattr(worker, "_warm_up", lambda recipe, data, place: told.append(f"warm on {place}"))
    monkeypatch.setattr(worker, "peak_on", lambda place: told.append(f"peak on {place}") or peak)
    monkeypatch.setattr(worker, "settle", lambda place: told.append(f"{place} is done"))
    monkeypatch.setattr(worker, "evaluate", evaluated)
    monkeypatch.setattr(worker, "train", trained)
    monkeypatch.setattr(worker, "_probed", lambda model, data, settings: told.append("probed"))
    files = carry_out(study.cells()[0], job(data, study=study.sha256, device="cuda:1"), data)
    assert json.loads(files["study.json"])["measured"]["peak_memory_bytes"] == 7
    test = ["cuda:1 is done", "tested", "cuda:1 is done"]
    before = ["warm on cuda:1", "peak on cuda:1", "trained on cuda:1", "peak taken", "net to cuda:1"]
    assert told == [*before, *test * 3, "probed"]


def test_a_gpu_is_waited_for_and_its_own_memory_is_measured(monkeypatch):
    place, told, held = torch.device("cuda:1"), [], iter([100, 130, 90])
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda at, name=name: told.append((name, at)))
    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda at: next(held))
    peak = device.peak_on(place)
    assert told == [("synchronize", place), ("reset_peak_memory_stats", place)]
    assert (peak.grown(), peak.grown()) == (30, 0)
    device.settle(torch.device("cpu"))
    assert len(told) == 2 and type(device.peak_on(torch.device("cpu"))) is Peak
    assert device.peak_on(torch.device("mps")).grown() is None


def test_a_method_that_refuses_the_net_is_a_failed_run_with_its_message(tmp_path):
    study = small_study(tmp_path, methods=("max", "strip"), seeds=2)
    complete(task(study), lambda n, e: Real(n, e, study), 1)
    status = {r.label: (r.run.status, r.run.message) for r in study.results()}
    assert status["max"] == status["max (again)"] == ("finished", None)
    assert status["strip"][0] == "failed" and "ValueError: strip takes no window" in status["strip"][1]


def test_a_head_stands_behind_max_pooling(tmp_path):
    study = small_study(tmp_path, methods=("avg", "netvlad:clusters=2"), seeds=2)
    complete(task(study), lambda n, e: Real(n, e, study), 1)
    found = {r.label: r.run for r in study.results()}
    assert all(run.status == "finished" for run in found.values())
    recipe = found["netvlad:clusters=2"].recipe
    assert (recipe["pool"], recipe["head"]) == ("max", "netvlad:clusters=2") and found["avg"].recipe["pool"] == "avg"


def test_a_run_that_diverges_is_a_failed_run(tmp_path):
    study = small_study(tmp_path, methods=("max", "avg"), seeds=2, recipe={"lr": 1e30, "optimiser": "sgd"})
    complete(task(study), lambda n, e: Real(n, e, study), 1)
    assert all("stopped being a finite number" in r.run.message for r in study.results())


def test_what_probes_find_is_stored_beside_the_run(tmp_path, monkeypatch):
    def probe(model, data, settings):
        assert not model.training and data.name == "tiny"
        n, m = min(settings.shift_images, len(data.test_x)), min(settings.corrupt_images, len(data.test_x))
        return {
            "shift_index": np.arange(n), "shift_moves": np.zeros((81, 2), int), "shift_classes": np.ones((81, n), int),
            "corrupt_index": np.arange(m), "corrupt_classes": np.full((15, 5, m), 2),
        }  # fmt: skip

    monkeypatch.setitem(sys.modules, "poolkit.lab.probes", SimpleNamespace(probe=probe))
    study = small_study(tmp_path, methods=("max", "avg"), seeds=2, probes=ProbeSettings(7, 10**6))
    complete(task(study), lambda n, e: Real(n, e, study), 1)
    for result in study.results():
        assert result.probes["shift_classes"].shape == (81, 7)
        assert result.probes["corrupt_classes"].shape == (15, 5, 45)


# Processes


class Killer(Notes):
    """Kills each worker of a list when it reports for the first time."""

    def __init__(self, hands):
        super().__init__()
        self.hands, self.killed = hands, []

    def progress(self, hand, cell, message):
        if not self.killed:
            self.killed.append(cell)
            os.kill(self.hands[0].pid, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_worker_loses_no_run(tmp_path):
    data, hands = digits(), []
    study = small_study(tmp_path, data, methods=("max", "avg"), seeds=2, recipe={"limit": 60})
    hire = processes(job(data, study=study.sha256))

    def kept(number, events):
        hands.append(hire(number, events))
        return hands[-1]

    watch = Killer(hands)
    complete(task(study), kept, 1, watch)
    assert len(hands) == 2 and len(watch.killed) == 1 and "SIGKILL" in watch.notes[0]
    results = study.results()
    assert len(results) == 6 and all(r.run.status == "finished" for r in results)
    lost = watch.killed[0]
    found = next(r for r in results if (r.label, r.seed) == (lost.label, lost.recipe.seed))
    assert found.run.weights_sha256 == train(lost.recipe, data).weights_sha256
    assert found.run.machine["threads"] == 1


NET = """
import os
from poolkit.lab.nets import build

def loud(shape, classes):
    print("a word that no frame expects", flush=True)
    return build("tutorial", "max", shape, classes, 0)

def fatal(shape, classes):
    os.abort()
"""


@pytest.mark.parametrize(("name", "status"), [("loud", "finished"), ("fatal", "failed")])
def test_a_net_that_prints_disturbs_nothing_and_one_that_ends_the_process_fails(tmp_path, monkeypatch, name, status):
    (tmp_path / f"net_{name}.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    data, net = digits(), {"recipe": {"limit": 60, "net": f"net_{name}:{name}"}}
    study = small_study(tmp_path / "study", data, methods=("avg", "soft"), seeds=2, **net)
    few = dataclasses.replace(task(study), cells=study.missing()[:1])
    notes = Notes()
    complete(few, processes(job(data, study=study.sha256)), 1, notes)
    (found,) = study.results()
    assert found.run.status == status and len(notes.given_to) == (1 if status == "finished" else 3)
    assert found.run.message is None or found.run.message.startswith(
        "The process that trained it ended 3 times: SIGABRT"
    )


# The command

ASK = ["compare", "max", "avg", "--data", "digits", "--epochs", "1", "--limit", "60", "--seeds", "3", "--no-robustness"]


def test_a_dry_run_says_what_there_is_to_do_and_writes_nothing(tmp_path, capsys):
    assert main([*ASK, "--out", str(tmp_path / "new"), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["cells"], found["done"], len(found["missing"])) == (9, 0, 9)
    assert found["seconds"] > 0 and found["basis"] == "a short measurement"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["compare", "max", "sotf"], "nearest: soft"), (["compare", "max"], "two methods"),
        (["compare", "max", "avg", "--seeds", "1"], "seeds=1"),
        (["compare", "max", "avg", "--data", "cifar"], "nearest"),
        (["compare", "max", "avg", "--baseline", "soft"], "one of max, avg"),
        (["compare", "max", "avg", "--data", "digits", "--net", "nowhere:net"], "nowhere"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_before_anything_is_written(wrong, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*wrong, "--offline"]) == 2
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="sends SIGINT")
def test_ctrl_c_says_what_is_safe_and_the_same_command_goes_on(tmp_path, capsys, monkeypatch):
    out = tmp_path / "study"
    command = [sys.executable, "-m", "poolkit", *ASK, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    said = []
    # A shell that starts this suite in the background has it ignore SIGINT, and what it starts as well.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **heard) as process:
        for line in process.stderr:
            said.append(line)
            if line.startswith("1/9"):
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130, said
    text = "".join(said)
    assert "of 9 runs are safe in" in text and f"continue: poolkit {' '.join(ASK)}" in text and "Traceback" not in text
    before = {path: path.read_bytes() for path in out.glob("runs/*/run.json")}
    assert 1 <= len(before) < 9
    assert main([*ASK, "--out", str(out), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["done"] == len(before) and found["basis"] == "finished runs"

    assert main([*ASK, "--out", str(out)]) == 0
    spoken = capsys.readouterr()
    assert "max (again)" in spoken.out and f"{len(before)} already here" in spoken.err
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(list(out.glob("runs/*/run.json"))) == 9
    with monkeypatch.context() as patch:
        patch.setattr("poolkit.lab.processes.processes", lambda job: lambda n, e: pytest.fail("a worker is started"))
        assert main([*ASK, "--out", str(out)]) == 0
    assert main([*ASK, "--seeds", "4", "--out", str(out)]) == 1
    assert "seeds: there 3, asked for 4" in capsys.readouterr().err


def test_failed_runs_are_done_again_where_that_is_asked_for(tmp_path, capsys, monkeypatch):
    study = small_study(tmp_path / "study", digits(), methods=("max", "avg"), recipe={"limit": 60, "batch": 32})
    words = [*ASK, "--out", str(study.folder)]
    cells = study.schedule()
    complete(dataclasses.replace(task(study), cells=cells[:2]), lambda n, e: Digits(n, e, study), 1)
    complete(dataclasses.replace(task(study), cells=cells[2:]), fakes(study)[0], 1)
    kept = {study.path(cell): (study.path(cell) / "run.json").read_bytes() for cell in cells[:2]}
    monkeypatch.setattr("poolkit.lab.processes.processes", lambda job: lambda n, e: Digits(n, e, study))
    assert main([*words, "--dry-run", "--retry-failed"]) == 0
    assert "7 failed results would be deleted" in capsys.readouterr().err and study.missing() == ()
    assert main(words) == 0 and sum(r.run.status == "failed" for r in study.results()) == 7

    assert main([*words, "--retry-failed"]) == 0
    assert "7 failed results deleted" in capsys.readouterr().err
    assert len(study.results()) == 9 and all(r.run.status == "finished" for r in study.results())
    assert all((folder / "run.json").read_bytes() == content for folder, content in kept.items())
    assert (study.folder / "log.txt").read_text(encoding="utf-8").count("its result is deleted: it would not") == 7


def test_a_recipes_other_words_reach_the_study(tmp_path, capsys):
    words = ["--recipe", "quick", "--batch", "64", "--no-flip", "--lr", "0.05", "--delta", "0.5", "--baseline", "avg"]
    assert main([*ASK, *words, "--out", str(tmp_path / "a"), "--dry-run", "--json"]) == 0
    Study.begin(tmp_path / "a", request(
        methods=("max", "avg"), recipe=Recipe(
            data="digits", epochs=1, batch=64, optimiser="muon", lr=0.05, schedule="one-cycle", flip=False,
            start="whitened", limit=60,
        ), data_sha256=digits().sha256, delta=0.5, baseline="avg", probes=None,
    ))  # fmt: skip
    assert main([*ASK, *words, "--out", str(tmp_path / "a"), "--dry-run", "--json"]) == 0
    capsys.readouterr()
