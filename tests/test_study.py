"""A study's request, its cells, and reading its results."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from poolkit.lab.recipe import Recipe  # noqa: E402
from poolkit.lab.record import RunError  # noqa: E402
from poolkit.lab.run import Run  # noqa: E402
from poolkit.lab.study import ProbeSettings, Request, Study, seal, store  # noqa: E402

DATA = "0" * 64
CLASSES = ["a", "b", "c"]


def request(**changes) -> Request:
    given = {"methods": ("max", "avg", "soft"), "seeds": 3, "recipe": Recipe(data="digits"), "data_sha256": DATA}
    return Request(**{**given, **changes})


def failed(cell) -> Run:
    """A run that never began, as a cell's result."""
    data = {"name": "digits", "source": "", "sha256": DATA, "caveat": None}
    data |= {"classes": CLASSES, "shape": [1, 16, 16], "train": 9, "test": 9}
    return Run(
        1, "0", "failed", "it would not", cell.recipe.as_dict(), cell.key, None, "", "", 0.0,
        data, [], 0, [], None, None, None, {},
    )  # fmt: skip


def put(study: Study, cell, **changes) -> None:
    store(study.path(cell), seal(cell, study.sha256, dataclasses.replace(failed(cell), **changes), None, {}))


def test_a_request_is_read_back_as_it_was_written(tmp_path):
    asked = request(recipe=Recipe(data='folder:a "b"\\c\x7f\n[x] # é', limit=7, flip=True, lr=1e-7), delta=1)
    written = Study.begin(tmp_path, asked)
    assert Study.load(tmp_path) == written and written.request == asked
    assert Study.begin(tmp_path, request(**{**vars(asked), "recipe": asked.recipe})) == written


@given(st.text(min_size=1), st.floats(1e-30, 1e30), st.integers(1, 2**40), st.booleans())
def test_whatever_a_recipe_holds_its_toml_says_the_same(data, lr, batch, flip):
    try:
        asked = request(recipe=Recipe(data=data, lr=lr, batch=batch, flip=flip))
        text = asked.text()
    except ValueError:
        assert any(0xD800 <= ord(c) < 0xE000 for c in data)
        return
    tomllib = pytest.importorskip("tomllib")
    assert Request.from_dict(tomllib.loads(text)) == asked


def test_the_baseline_is_max_where_it_is_asked_for_else_the_first():
    assert request(methods=("avg", "max")).baseline == "max"
    assert request(methods=("soft", "avg")).baseline == "soft"
    assert request(methods=("soft", "avg"), baseline="avg").again == "avg (again)"
    assert request(methods=("max", "soft:beta=1.0")).methods == ("max", "soft")


@pytest.mark.parametrize(
    "wrong",
    [
        {"methods": ("max",)}, {"methods": ("max", "sotf")}, {"methods": ("soft", "soft:beta=1")}, {"seeds": 1},
        {"seeds": 2.0}, {"seeds": True}, {"baseline": "gem"}, {"delta": 0}, {"delta": "1"}, {"alpha": 0.5},
        {"tune": -1}, {"seeds": 10**6},
    ],
)  # fmt: skip
def test_a_request_refuses_what_cannot_be_compared(wrong):
    with pytest.raises(ValueError, match="allowed|nearest|twice|two methods"):
        request(**wrong)


def test_cells_are_methods_times_seeds_and_the_baseline_again_with_new_seeds(tmp_path):
    study = Study.begin(tmp_path, request())
    rows = [(cell.label, cell.recipe.pool, cell.recipe.seed) for cell in study.cells()]
    assert rows[:3] == [("max", "max", 0), ("max", "max", 1), ("max", "max", 2)]
    assert rows[9:] == [("max (again)", "max", 3), ("max (again)", "max", 4), ("max (again)", "max", 5)]
    cells = study.cells()
    assert len({cell.key for cell in cells}) == len({cell.folder for cell in cells}) == 12
    assert all(cell.key == cell.recipe.hash(DATA) and cell.key[:12] in cell.folder for cell in cells)


def test_methods_take_turns_so_that_no_drift_favours_one(tmp_path):
    study = Study.begin(tmp_path, request(seeds=60))
    order = study.schedule()
    assert sorted(c.key for c in order) == sorted(c.key for c in study.cells())
    blocks = [[c.label for c in order[n : n + 4]] for n in range(0, 240, 4)]
    assert all(sorted(block) == sorted(study.request.labels) for block in blocks)
    first = [block[0] for block in blocks]
    assert all(first.count(label) >= 5 for label in study.request.labels)


def test_another_request_is_refused_and_the_keys_that_differ_are_named(tmp_path):
    Study.begin(tmp_path, request())
    before = (tmp_path / "study.toml").read_bytes()
    with pytest.raises(RunError) as refused:
        Study.begin(tmp_path, request(seeds=4, probes=None, recipe=Recipe(data="digits", epochs=2, limit=5)))
    message = str(refused.value)
    for words in ("seeds: there 3, asked for 4", "recipe.epochs: there 10, asked for 2", "recipe.limit: there None"):
        assert words in message
    assert "probes.shift_images" in message and "delta" not in message and "recipe.batch" not in message
    assert (tmp_path / "study.toml").read_bytes() == before


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(RunError, match="holds no study: mine.txt(.|\n)*--out"):
        Study.begin(tmp_path, request())
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t.replace("seeds = 3", "seeds = 4 "), lambda t: t.replace("seeds = 3", "seeds = true"), lambda t: "",
        lambda t: t.replace("delta = 0.2\n", ""), lambda t: t + "more = 1\n", lambda t: t[:-9],
        lambda t: t.replace('"avg"', '"avg'), lambda t: t.replace("format = 1", "format = 2"), lambda t: t + "# note\n",
        lambda t: t.replace('"avg"', '"sotf"'), lambda t: t.replace("delta = 0.2", "delta = nan"),
    ],
)  # fmt: skip
def test_a_changed_request_is_no_request(tmp_path, damage):
    Study.begin(tmp_path, request())
    path = tmp_path / "study.toml"
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(RunError, match="study.toml"):
        Study.load(tmp_path)


def test_where_there_is_no_study_the_error_says_how_one_begins(tmp_path):
    with pytest.raises(RunError, match="no study.toml(.|\n)*poolkit compare"):
        Study.load(tmp_path)


def test_missing_is_what_has_no_result(tmp_path):
    study = Study.begin(tmp_path, request())
    order = study.schedule()
    assert study.missing() == order and study.results() == []
    for cell in order[:5]:
        put(study, cell)
    assert study.missing() == order[5:]
    found = study.results()
    assert {(r.label, r.seed) for r in found} == {(c.label, c.recipe.seed) for c in order[:5]}
    places = [study.request.labels.index(r.label) for r in found]
    assert places == sorted(places) and all(r.run.message == "it would not" for r in found)


def test_a_result_of_another_request_is_refused(tmp_path):
    study = Study.begin(tmp_path / "a", request())
    other = Study.begin(tmp_path / "b", request(delta=0.3))
    cell = study.cells()[0]
    put(other, cell)
    other.path(cell).rename(study.path(cell))
    with pytest.raises(RunError, match="another study.toml"):
        study.results()


def test_a_file_that_was_touched_is_noticed(tmp_path):
    study = Study.begin(tmp_path, request())
    cell = study.cells()[0]
    put(study, cell)
    path = study.path(cell) / "run.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**record, "seconds": 5.0}), encoding="utf-8")
    with pytest.raises(RunError, match="run.json is not the file that study.json names(.|\n)*Delete the folder"):
        study.results()


def test_a_result_of_another_cell_is_refused(tmp_path):
    study = Study.begin(tmp_path, request())
    one, other = study.cells()[:2]
    put(study, one)
    study.path(one).rename(study.path(other))
    with pytest.raises(RunError, match="run of another recipe"):
        study.results()


def test_what_was_probed_is_read_back_and_what_an_older_attempt_left_is_gone(tmp_path):
    study = Study.begin(tmp_path, request(probes=ProbeSettings(4, 99)))
    cell = study.cells()[0]
    probes = {
        "shift_index": np.arange(4), "shift_moves": np.zeros((81, 2), int), "shift_classes": np.ones((81, 4), int),
        "corrupt_index": np.arange(9), "corrupt_classes": np.full((15, 5, 9), 2),
    }  # fmt: skip
    store(study.path(cell), seal(cell, study.sha256, failed(cell), probes, {"train_seconds": 1.5}))
    (found,) = study.results()
    assert all(np.array_equal(found.probes[name], array) for name, array in probes.items())
    assert found.measured == {"train_seconds": 1.5}
    put(study, cell)
    assert study.results()[0].probes is None
