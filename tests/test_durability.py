"""A study outlives disks that refuse and processes that are killed."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

from kill_study import kill_study, table  # noqa: E402
from poolkit.lab.compare import alone, complete  # noqa: E402
from poolkit.lab.record import RunError  # noqa: E402
from poolkit.lab.study import ProbeSettings, Study, seal  # noqa: E402
from poolkit.lab.train import train  # noqa: E402
from test_compare import Fake, Notes, task  # noqa: E402
from test_study import request  # noqa: E402
from test_train import recipe, tiny  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = tiny()


@pytest.fixture(scope="module")
def trained():
    return train(recipe(epochs=1), DATA)


class Again(Fake):
    """A worker without a process or work: every cell's result is one that was trained before, under its name."""

    run = None

    def give(self, cell):
        run = dataclasses.replace(self.run, recipe=cell.recipe.as_dict(), recipe_hash=cell.key)
        n = 4
        probes = {
            "shift_index": np.arange(n), "shift_moves": np.zeros((81, 2), int), "shift_classes": np.ones((81, n), int),
            "corrupt_index": np.arange(n), "corrupt_classes": np.full((15, 5, n), 2),
        }  # fmt: skip
        self.tell({"kind": "result"}, seal(cell, self.study.sha256, run, probes, {"seconds": 1.0}))


ASKED = request(
    methods=("max", "avg"), seeds=2, recipe=recipe(epochs=1), data_sha256=DATA.sha256, probes=ProbeSettings(4, 4)
)


def run_study(folder: Path, watch: Notes) -> Study:
    with alone(folder):
        study = Study.begin(folder, ASKED)
        complete(task(study), lambda n, e: Again(n, e, study), 2, watch)
    return study


class Faults:
    """The n-th call that makes, opens, writes, flushes or renames fails, a write after half of its bytes."""

    def __init__(self, monkeypatch, fail_at: int | None):
        self.count, self.fail_at = 0, fail_at
        for name in ("fsync", "replace", "mkdir"):
            monkeypatch.setattr(os, name, self.may_fail(getattr(os, name)))
        real_open, faults = Path.open, self

        def opened(path, mode="r", *rest, **more):
            if mode[0] not in "xaw":
                return real_open(path, mode, *rest, **more)
            faults.strike()
            file = real_open(path, mode, *rest, **more)
            return Torn(file, faults)

        monkeypatch.setattr(Path, "open", opened)

    def may_fail(self, real):
        def call(*given, **named):
            self.strike()
            return real(*given, **named)

        return call

    def strike(self):
        self.count += 1
        if self.count - 1 == self.fail_at:
            raise OSError(*((errno.ENOSPC, "No space left") if self.fail_at % 2 else (errno.EIO, "I/O error")))


class Torn:
    """A file whose write may stop half way."""

    def __init__(self, file, faults):
        self.file, self.faults = file, faults

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        try:
            self.faults.strike()
        except OSError:
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            raise
        return self.file.write(content)


def test_a_disk_that_refuses_at_any_call_loses_nothing_that_was_acknowledged(tmp_path, monkeypatch, trained):
    """The n-th call fails, for every n: what lies there is readable, and the study completes to the same table."""
    monkeypatch.setattr(Again, "run", trained)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # ours is a disk that says so; a real one takes its time
    with monkeypatch.context() as patch:
        calls = Faults(patch, None)
        expected = table(run_study(tmp_path / "whole", Notes()))
    assert calls.count > 100
    refused = 0
    for n in range(calls.count):
        folder, watch = tmp_path / str(n), Notes()
        with monkeypatch.context() as patch:
            Faults(patch, n)
            try:
                run_study(folder, watch)  # a folder that is there already need not be made
            except (RunError, OSError) as error:
                assert "No space left" in str(error) or "I/O error" in str(error)
                refused += 1
        before = {}
        if (folder / "study.toml").exists():
            study = Study.load(folder)
            before = {r.run.folder: (r.run.folder / "run.json").read_bytes() for r in study.results()}
        assert len(before) in (len(watch.done), len(watch.done) + 1)  # the last one may be safe and not yet announced
        study = run_study(folder, Notes())
        assert table(study) == expected
        assert all((place / "run.json").read_bytes() == content for place, content in before.items())
        assert not [path for path in folder.rglob("*.part")]
        assert len(list(folder.glob("runs/*"))) == 6
    assert refused >= calls.count - 3


def test_a_run_half_written_is_no_result_and_is_done_again(tmp_path, monkeypatch, trained):
    monkeypatch.setattr(Again, "run", trained)
    study = run_study(tmp_path, Notes())
    expected, cell = table(study), study.cells()[2]
    for names in (["run.json"], ["run.json", "study.json"], ["run.json", "study.json", "probes.npz"]):
        for name in names:
            (study.path(cell) / name).unlink()
        (study.path(cell) / ".poolkit-0123456789abcdef.part").write_bytes(b"torn")
        assert study.missing() == (cell,) and len(study.results()) == 5
        run_study(tmp_path, Notes())
        assert table(study) == expected and not list(tmp_path.rglob("*.part"))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in /proc")
def test_kill_dash_nine_at_random_moments_loses_no_result(tmp_path):
    """POOLKIT_KILLS sets how many; `python tests/kill_study.py --kills 200` is the long one."""
    counts = kill_study(tmp_path, int(os.environ.get("POOLKIT_KILLS", "2")), seed=5)
    assert counts["studies"] >= 1
