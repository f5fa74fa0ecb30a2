"""A run's folder that somebody else wrote: whatever it holds, the answer is a run or a sentence."""

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest

from poolkit.lab.record import to_json
from poolkit.lab.run import Run, RunError, overfitting
from test_report import write_run

STRANGE = (None, True, -1, 0, 1.5, 1e300, 10**30, 10**5000, "x", [], {}, [[]], {"a": 1}, [None])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "max"
    return folder, write_run(folder, epochs=2, learned=True)


@pytest.fixture
def folder(tmp_path, written):
    for file in written[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def places(value, path=()):
    """The path to every entry of a JSON value; of a list, to its first."""
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from places(inner, (*path, key))


def changed(record, path, value):
    copy = json.loads(json.dumps(record))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def load(folder, record):
    (folder / "run.json").write_bytes(to_json(record))
    return Run.load(folder)


def test_a_whole_run_is_loaded_as_it_was_written(folder, written):
    assert Run.load(folder).as_dict() == written[1]


def test_any_entry_replaced_by_anything_gives_a_run_or_a_sentence(folder, written):
    refused = 0
    for path in places(written[1]):
        for value in STRANGE:
            if value == 10**5000:
                text = json.dumps(changed(written[1], path, "LONG")).replace('"LONG"', "9" * 5000)
                (folder / "run.json").write_text(text)
            else:
                (folder / "run.json").write_text(json.dumps(changed(written[1], path, value)))
            try:
                run = Run.load(folder)
                run.state()
                run.predictions()
            except RunError as error:
                refused += 1
                assert len(str(error)) < 1000
    assert refused > 500


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("data", "shape"), [3, 4097, 32], r"data.shape\[1\] is 4097"),
        (("data", "shape"), [4096, 4096, 4096], "more than 67,108,864 numbers"),
        (("data", "shape"), [3, 32], "list of 3 to 3"),
        (("data", "classes"), [], "list of 1 to 100,000"),
        (("data", "classes", 0), 7, "wanted is a text"),
        (("data", "classes", 0), "\ud800", "wanted is a text"),
        (("data", "classes", 0), "zebra", "does not have the 4 classes"),
        (("final", "confusion", 0), [1, 2, 3], "not 4×4"),
        (("final", "confusion", 0), [1, 2, 3, 4], "counts other pictures"),
        (("final", "per_class"), [], "list of 1 to"),
        (("final",), None, "finished, but final"),
        (("data", "test"), 10**12, "does not count the 1,000,000,000,000 test pictures"),
        (("machine",), [], "machine is a list of 0 entries"),
        (("recipe", "epochs"), "ten", "recipe: epochs=.ten. is not allowed"),
        (("recipe", "pool"), "mux", 'no pooling method "mux"'),
        (("recipe",), {}, "an object with the keys data, net, pool"),
        (("epochs", 0, "learned"), {str(i): 1.0 for i in range(1000)}, "at most 64 entries"),
    ],
)
def test_what_is_wrong_in_run_json_is_named(folder, written, path, value, says):
    (folder / "run.json").write_text(json.dumps(changed(written[1], path, value)))
    with pytest.raises(RunError, match=says):
        Run.load(folder)


def test_numbers_that_json_reads_as_infinite_are_refused(folder):
    text = (folder / "run.json").read_text(encoding="utf-8")
    (folder / "run.json").write_text(text.replace('"seconds": 204.3', '"seconds": 1e999'), encoding="utf-8")
    with pytest.raises(RunError, match="seconds is inf"):
        Run.load(folder)


def test_a_folder_or_a_file_in_the_place_of_run_json_is_refused(tmp_path):
    (tmp_path / "run.json").mkdir()
    with pytest.raises(RunError, match="is no file"):
        Run.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be read"):
        Run.load(tmp_path / "file")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("recipe", "pool"), "gem:p=learn@1x1000000000000"),
        (("data", "shape"), [1, 4096, 4096]),
        (("data", "shape"), [3, 9, 32]),
    ],
)
def test_a_net_of_another_size_is_refused_before_room_for_it_is_taken(folder, written, path, value, monkeypatch):
    run = load(folder, changed(written[1], path, value))

    def never(*given):
        raise AssertionError("the net was built")

    monkeypatch.setattr("poolkit.lab.run.build", never)
    with pytest.raises(RunError, match="another net|cannot be built"):
        run.model()


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(folder, written):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": (10**8, 4)})
    with zipfile.ZipFile(folder / "predictions.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as members:
        for name in ("labels", "shown_index", "shown_pixels", "sample_pixels", "sample_labels"):
            members.writestr(f"{name}.npy", b"")
        with members.open("probabilities.npy", "w") as stream:
            stream.write(header.getvalue())
            for _ in range(25):
                stream.write(bytes(4_000_000))
    tracemalloc.start()
    with pytest.raises(RunError, match="would unpack to 100,"):
        Run.load(folder).predictions()
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_a_file_larger_than_its_arrays_is_not_even_opened(folder):
    with (folder / "predictions.npz").open("ab") as stream:
        stream.write(bytes(1_000_000))
    with pytest.raises(RunError, match="npz is larger than"):
        Run.load(folder).predictions()


def test_sizes_that_the_directory_of_the_file_hides_are_refused(folder):
    """The member unpacks to more than its entry says."""
    arrays = dict(np.load(folder / "predictions.npz"))
    arrays["probabilities"] = np.zeros((10**6, 4), np.float16)
    np.savez_compressed(folder / "predictions.npz", **arrays)
    packed = (folder / "predictions.npz").read_bytes()
    size = arrays["probabilities"].nbytes + 128
    assert packed.count(size.to_bytes(4, "little")) >= 1
    (folder / "predictions.npz").write_bytes(packed.replace(size.to_bytes(4, "little"), (1728).to_bytes(4, "little")))
    with pytest.raises(RunError, match="damaged"):
        Run.load(folder).predictions()


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("labels", np.full(200, 4), "labels has numbers outside 0 to 3"),
        ("labels", np.zeros(199, np.int64), "different lengths"),
        ("shown_index", np.full(24, 200), "shown_index has numbers outside 0 to 199"),
        ("sample_labels", np.full(25, -1), "sample_labels has numbers outside"),
        ("sample_pixels", np.zeros((25, 3, 8, 8), np.uint8), "sample_pixels is uint8"),
        ("probabilities", np.zeros((200, 4), np.float64), "probabilities is float64"),
        ("extra", np.zeros(3), "unknown arrays extra"),
    ],
)
def test_arrays_that_are_not_this_runs_are_refused(folder, name, array, says):
    np.savez(folder / "predictions.npz", **{**np.load(folder / "predictions.npz"), name: array})
    with pytest.raises(RunError, match=says):
        Run.load(folder).predictions()


def test_arrays_come_back_as_they_were_written_in_either_order(folder):
    arrays = dict(np.load(folder / "predictions.npz"))
    arrays["probabilities"] = np.asfortranarray(arrays["probabilities"])
    np.savez(folder / "predictions.npz", **arrays)
    found = Run.load(folder).predictions()
    assert set(found) == set(arrays)
    assert all(np.array_equal(found[name], arrays[name]) and found[name].flags.writeable for name in arrays)


def test_percentages_of_the_overfitting_sentence_are_written_as_in_the_report():
    epoch = {"train_accuracy": 0.9, "test_accuracy": 0.778}
    losses = ((1.0, 1.0), (0.8, 0.9), (0.5, 0.95))
    sentence = overfitting(
        [{"epoch": e, "train_loss": a, "test_loss": b, **epoch} for e, (a, b) in enumerate(losses, start=1)]
    )
    assert "90.0\u202f% of the training pictures" in sentence and "77.8\u202f% of the test pictures" in sentence
