"""A study's runs are all made with the same: a changed net, another version or device is refused."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

from poolkit import cli_compare  # noqa: E402
from poolkit.cli import main  # noqa: E402
from poolkit.lab import origin  # noqa: E402
from poolkit.lab.compare import complete  # noqa: E402
from poolkit.lab.data import digits  # noqa: E402
from poolkit.lab.origin import Origin, keep  # noqa: E402
from poolkit.lab.processes import processes  # noqa: E402
from poolkit.lab.record import RunError  # noqa: E402
from poolkit.lab.study import Study  # noqa: E402
from test_compare import ASK, fakes, job, small_study, task  # noqa: E402
from test_study import put, request  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = """
from torch import nn

class Middle(nn.Conv2d):
    pass
"""
NET = """
from torch import nn
from layers_of_mine import Middle

def small(shape, classes):
    return nn.Sequential(Middle(shape[0], WIDTH, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(classes))
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a net's module and that of its layers into the current folder, anew each time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(width=4, layers=LAYERS):
        (tmp_path / "layers_of_mine.py").write_text(layers)
        (tmp_path / "net_of_mine.py").write_text(NET.replace("WIDTH", str(width)))
        forget()

    def forget():
        for name in ("layers_of_mine", "net_of_mine"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()

    write()
    yield write
    forget()


@pytest.fixture
def no_runs(monkeypatch):
    """The command begins its study and trains nothing."""
    monkeypatch.setattr(cli_compare, "_run", lambda *given: None)
    monkeypatch.setattr(cli_compare, "_answer", lambda *given: None)


def a_result(folder):
    study = Study.load(folder)
    put(study, study.cells()[0])


def test_what_has_no_result_yet_may_begin_otherwise(tmp_path, no_runs, monkeypatch):
    words = [*ASK, "--out", str(tmp_path / "study")]
    for version in ("98.0", "99.0"):
        monkeypatch.setattr(origin.poolkit, "__version__", version)
        assert main(words) == main([*words, "--dry-run"]) == 0
    assert '"99.0"' in (tmp_path / "study" / "origin.json").read_text(encoding="utf-8")


def test_a_study_is_refused_to_a_changed_net_and_the_message_names_it(tmp_path, mine, no_runs, capsys):
    words = [*ASK, "--net", "net_of_mine:small", "--out", str(tmp_path / "study")]
    assert main(words) == 0
    a_result(tmp_path / "study")
    assert main(words) == 0
    record = json.loads((tmp_path / "study" / "origin.json").read_text(encoding="utf-8"))
    assert set(record["sources"]) == {"net_of_mine", "layers_of_mine"} and record["device"] == "cpu"
    assert set(record["versions"]) == {"poolkit", "torch"}

    mine(width=5)
    capsys.readouterr()
    for more in ([], ["--dry-run"]):
        assert main([*words, *more]) == 1
        said = capsys.readouterr().err
        assert "the file of net_of_mine" in said and "names and shapes in the net" in said and "--out" in said
        assert "layers_of_mine" not in said
    mine(layers=LAYERS + "# a word more\n")
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "the file of layers_of_mine" in said and "shapes" not in said
    mine()
    assert main(words) == 0


def test_another_version_or_device_is_refused(tmp_path, no_runs, monkeypatch, capsys):
    words = [*ASK, "--out", str(tmp_path / "study")]
    assert main(words) == 0
    a_result(tmp_path / "study")
    before = (tmp_path / "study" / "origin.json").read_bytes()
    monkeypatch.setattr(origin.poolkit, "__version__", "99.0")
    monkeypatch.setattr(torch, "__version__", "1.0+cu1")
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "poolkit: there" in said and "now 99.0" in said and "now 1.0\n" in said and "device:" not in said
    assert (tmp_path / "study" / "origin.json").read_bytes() == before
    net = torch.nn.Linear(2, 2)
    found = Origin.of("tutorial", net, "cuda:1").differences(Origin.of("tutorial", net, "cpu"))
    assert found == [("device", "cuda", "cpu")]


def test_a_study_of_before_is_read_and_goes_on_with_a_word_of_warning(tmp_path):
    study, made_with, notes = Study.begin(tmp_path, request()), Origin.of("tutorial", torch.nn.Linear(2, 2), "cpu"), []
    put(study, study.cells()[0])
    assert len(study.results()) == 1
    origin.refuse_other(study, made_with)
    keep(study, made_with, notes.append)
    assert len(notes) == 1 and "does not say which net" in notes[0]
    keep(study, made_with, notes.append)
    assert len(notes) == 1 and len(study.results()) == 1


@pytest.mark.parametrize(
    ("old", "new"), [('"device"', '"place"'), ('"study_sha256": "', '"study_sha256": "f'), ("}", "")]
)
def test_a_damaged_note_is_noticed(tmp_path, old, new):
    study, made_with = Study.begin(tmp_path, request()), Origin.of("tutorial", torch.nn.Linear(2, 2), "cpu")
    keep(study, made_with, print)
    put(study, study.cells()[0])
    path = tmp_path / "origin.json"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(RunError, match="origin.json"):
        keep(study, made_with, print)


def test_a_worker_hired_after_the_nets_file_changed_does_not_train(tmp_path, mine):
    data = digits()
    study = small_study(tmp_path / "study", data, seeds=2, recipe={"net": "net_of_mine:small", "limit": 60})
    sources = {"net_of_mine": "0" * 64}
    with pytest.raises(RunError, match="file of net_of_mine, where the net or a method comes from, changed"):
        complete(task(study), processes(job(data, study=study.sha256, sources=sources)), 1)
    assert len(study.missing()) == len(study.cells())


def test_what_is_noted_disturbs_no_study(tmp_path):
    study = Study.begin(tmp_path, request())
    keep(study, Origin.of("tutorial", torch.nn.Linear(2, 2), "cpu"), print)
    complete(task(study), fakes(study)[0], 1)
    assert len(study.results()) == 12
