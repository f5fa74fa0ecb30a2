"""Data sets: real bytes or a clear refusal. Downloads are served by a small server on this machine."""

import gzip
import hashlib
import io
import os
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pooch")
pytest.importorskip("PIL")

from PIL import Image  # noqa: E402

from poolkit.lab import fetch, published  # noqa: E402
from poolkit.lab.data import Data, DataError, DataMissing, fingerprint, load  # noqa: E402
from poolkit.lab.fetch import Archive  # noqa: E402
from poolkit.lab.published import Idx, Records, Shard  # noqa: E402

RECORD = 1 + 3 * 32 * 32
SIZES = {"a.bin": 4, "b.bin": 3, "t.bin": 2}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test sees the user's own data or writes to the user's cache."""
    monkeypatch.setattr(fetch, "cache", lambda: tmp_path / "cache")
    monkeypatch.delenv("POOLKIT_DATA", raising=False)


def records(seed: int, count: int, classes: int = 3) -> bytes:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (count, RECORD), dtype=np.uint8)
    rows[:, 0] = np.arange(count) % classes
    return rows.tobytes()


SHARDS = {name: records(seed, count) for seed, (name, count) in enumerate(SIZES.items())}


def make_tar(contents: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"little/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(f"little/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return buffer.getvalue()


def spec_for(archive: bytes, base: str = "http://127.0.0.1:9") -> Records:
    shards = [Shard(n, SIZES[n], "md5:" + hashlib.md5(SHARDS[n]).hexdigest()) for n in SIZES]  # noqa: S324
    where = Archive(f"{base}/little.tar.gz", hashlib.sha256(archive).hexdigest(), len(archive), unpacked="little")
    return Records("Little", where, tuple(shards[:2]), tuple(shards[2:]), 1, ("x", "y", "z"))


@contextmanager
def serving(answers: dict[str, bytes], missing_bytes: int = 0, status: int = 200):
    """A server on this machine; `missing_bytes` more are announced than sent."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = answers.get(self.path, b"")
            self.send_response(status if self.path in answers else 404)
            self.send_header("Content-Length", str(len(body) + missing_bytes))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def files_under(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.is_file()]


def assert_little(decoded: published.Decoded) -> None:
    train_x, train_y, test_x, test_y = decoded.arrays
    assert train_x.shape == (7, 3, 32, 32) and test_x.shape == (2, 3, 32, 32)
    assert train_y.tolist() == [0, 1, 2, 0, 0, 1, 2] and test_y.tolist() == [0, 1]
    # The third picture of the second file, pixel by pixel from the bytes.
    expected = np.frombuffer(SHARDS["b.bin"], np.uint8)[2 * RECORD + 1 : 3 * RECORD]
    assert np.array_equal(train_x[6].reshape(-1), expected)
    assert train_x.dtype == np.uint8 and train_y.dtype == np.int64


def test_a_download_is_decoded_kept_and_not_repeated(tmp_path):
    archive = make_tar({"t.bin": SHARDS["t.bin"], "readme.html": b"hello", **SHARDS})  # in any order
    with serving({"/little.tar.gz": archive}) as (base, asked):
        spec = spec_for(archive, base)
        assert_little(spec.read())
        assert_little(spec.read())
    assert asked == ["/little.tar.gz"]
    assert files_under(tmp_path) == ["little.tar.gz"]  # and nothing was unpacked
    assert spec.read(download=False).caveat is None


def test_a_download_says_from_where_to_where_and_how_large(tmp_path, capsys):
    archive = make_tar(SHARDS)
    with serving({"/little.tar.gz": archive}) as (base, _):
        spec_for(archive, base).read(tmp_path / "mine")
    said = capsys.readouterr()
    assert said.out == ""
    assert base in said.err and str(tmp_path / "mine") in said.err and "kB" in said.err
    assert "%" not in said.err  # no progress bar where stderr is not a terminal
    assert files_under(tmp_path / "mine") == ["little.tar.gz"]


def test_a_download_of_other_bytes_is_refused_and_not_kept(tmp_path):
    archive = make_tar(SHARDS)
    with serving({"/little.tar.gz": archive[:-1] + b"?"}) as (base, _):
        with pytest.raises(DataError, match="not the published file"):
            spec_for(archive, base).read()
    assert files_under(tmp_path) == []


def test_a_download_cut_off_is_missing_data_and_not_kept(tmp_path):
    archive = make_tar(SHARDS)
    with serving({"/little.tar.gz": archive[:100]}, missing_bytes=50) as (base, _):
        with pytest.raises(DataMissing, match="could not be downloaded"):
            spec_for(archive, base).read()
    assert files_under(tmp_path) == []


def test_a_download_that_fails_leaves_no_folder_that_was_not_there(tmp_path):
    archive = make_tar(SHARDS)
    (tmp_path / "mine").mkdir()
    with serving({"/little.tar.gz": archive[:100]}, missing_bytes=50) as (base, _):
        for name in ("mine/slip/pen", "mine"):
            with pytest.raises(DataMissing):
                spec_for(archive, base).read(tmp_path / name)
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"] and not list((tmp_path / "mine").iterdir())


def test_no_server_is_missing_data_that_says_what_to_do(tmp_path):
    archive = make_tar(SHARDS)
    with serving({}) as (base, _):
        pass  # gone again: nothing listens on this port
    with pytest.raises(DataMissing) as caught:
        spec_for(archive, base).read()
    text = str(caught.value)
    assert "refused" in text and f"{base}/little.tar.gz" in text and "--data-dir" in text
    assert str(tmp_path / "cache" / "little.tar.gz") in text
    assert "urllib3" not in text and len(text.splitlines()) == 4
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_server_that_lost_the_file_is_named_by_its_answer():
    archive = make_tar(SHARDS)
    with serving({}) as (base, _), pytest.raises(DataMissing, match="answered 404"):
        spec_for(archive, base).read()


def test_without_download_the_network_is_not_touched():
    archive = make_tar(SHARDS)
    with serving({"/little.tar.gz": archive}) as (base, asked):
        with pytest.raises(DataMissing, match="switched off"):
            spec_for(archive, base).read(download=False)
    assert asked == []


@pytest.mark.parametrize("place", ["data_dir", "variable", "cache"])
def test_an_archive_is_found_in_every_place(place, tmp_path, monkeypatch):
    folder = tmp_path / ("cache" if place == "cache" else "elsewhere")
    folder.mkdir()
    archive = make_tar(SHARDS)
    (folder / "little.tar.gz").write_bytes(archive)
    if place == "variable":
        monkeypatch.setenv("POOLKIT_DATA", str(folder))
    assert_little(spec_for(archive).read(folder if place == "data_dir" else None, download=False))


def test_an_archive_of_other_bytes_is_never_opened(tmp_path):
    archive = make_tar(SHARDS)
    (tmp_path / "little.tar.gz").write_bytes(archive[:-1] + b"?")
    with pytest.raises(DataError, match="SHA-256.*not opened"):
        spec_for(archive).read(tmp_path)
    (tmp_path / "little.tar.gz").write_bytes(archive[:50])
    with pytest.raises(DataError, match="50 bytes instead of"):
        spec_for(archive).read(tmp_path)


def with_member(name: str, content: bytes) -> bytes:
    return make_tar({**SHARDS, name: content})


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (
            make_tar({n: SHARDS[n] for n in ("a.bin", "t.bin")}, {"b.bin": "/etc/passwd"}),
            "not a regular file",
        ),
        (with_member("b.bin", SHARDS["b.bin"] + b"\0"), "bytes; the published file has"),
        (with_member("b.bin", SHARDS["b.bin"][:-1]), "bytes; the published file has"),
        (make_tar({n: SHARDS[n] for n in ("a.bin", "t.bin")}), "lacks little/b.bin"),
        (
            make_tar({"../little/a.bin": b"", **{n: SHARDS[n] for n in ("b.bin", "t.bin")}}),
            "lacks little/a.bin",
        ),
        (
            with_member("b.bin", records(1, 3, classes=4)[:-RECORD] + b"\xff" * RECORD),
            "labels run from 0 to 255",
        ),
        (make_tar(SHARDS)[:400], "cannot be read as a .tar.gz"),
        (b"no archive at all", "cannot be read as a .tar.gz"),
    ],
    ids=["symlink", "oversized", "short", "missing", "other path", "label", "truncated", "text"],
)
def test_a_hostile_archive_is_refused(archive, reason, tmp_path):
    """Even one whose hash is right: the second fence behind the hash."""
    (tmp_path / "little.tar.gz").write_bytes(archive)
    with pytest.raises(DataError, match=reason):
        spec_for(archive).read(tmp_path)


@pytest.mark.parametrize("direct", [False, True])
def test_an_unpacked_folder_is_read_and_a_differing_file_is_a_caveat(direct, tmp_path):
    folder = tmp_path / "little"
    folder.mkdir()
    for name, content in SHARDS.items():
        (folder / name).write_bytes(content)
    spec = spec_for(b"")
    place = folder if direct else tmp_path
    decoded = spec.read(place, download=False)
    assert_little(decoded)
    assert decoded.caveat is None
    (folder / "t.bin").write_bytes(SHARDS["t.bin"][:-1] + b"?")
    caveat = spec.read(place, download=False).caveat
    assert caveat is not None and "t.bin differs" in caveat and "a.bin" not in caveat
    (folder / "a.bin").unlink()
    with pytest.raises(DataError, match=r"lacks a\.bin"):
        spec.read(place, download=False)


def test_a_folder_of_the_other_cifar_is_not_taken_for_this_one(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "another_set.bin").write_bytes(b"x")
    with pytest.raises(DataMissing):
        spec_for(make_tar(SHARDS)).read(other, download=False)


def test_of_two_label_bytes_the_last_counts(tmp_path):
    rows = np.frombuffer(SHARDS["a.bin"], np.uint8).reshape(4, RECORD)
    (tmp_path / "a.bin").write_bytes(np.insert(rows, 0, 9, axis=1).tobytes())
    shard = Shard("a.bin", 4, "md5:0")
    spec = replace(spec_for(b""), train=(shard,), test=(replace(shard, name="b.bin"),), label_bytes=2)
    (tmp_path / "b.bin").write_bytes((tmp_path / "a.bin").read_bytes())
    train_x, train_y, _, _ = spec.read(tmp_path, download=False).arrays
    assert train_y.tolist() == [0, 1, 2, 0]
    assert np.array_equal(train_x.reshape(4, -1), rows[:, 1:])


def test_a_data_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="give the folder"):
        load("cifar10", tmp_path / "file", download=False)


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


def idx_set(folder: Path, **changed: bytes) -> Idx:
    rng = np.random.default_rng(0)
    contents = {
        "train_images": idx(rng.integers(0, 256, (4, 28, 28), dtype=np.uint8)),
        "train_labels": idx(np.array([0, 1, 1, 0], np.uint8)),
        "test_images": idx(rng.integers(0, 256, (2, 28, 28), dtype=np.uint8)),
        "test_labels": idx(np.array([1, 0], np.uint8)),
    }
    archives = {}
    for name, content in (contents | changed).items():
        packed = gzip.compress(content) if content[:2] == b"\0\0" else content
        (folder / f"{name}.gz").write_bytes(packed)
        url = f"http://127.0.0.1:9/{name}.gz"
        archives[name] = Archive(url, hashlib.sha256(packed).hexdigest(), len(packed), "own")
    return Idx("Own", classes=("off", "on"), **archives)


def test_idx_files_are_decoded(tmp_path):
    train_x, train_y, test_x, _ = idx_set(tmp_path).read(tmp_path, download=False).arrays
    assert train_x.shape == (4, 1, 28, 28) and test_x.shape == (2, 1, 28, 28)
    assert train_y.tolist() == [0, 1, 1, 0] and train_y.dtype == np.int64
    assert np.array_equal(train_x, np.random.default_rng(0).integers(0, 256, (4, 1, 28, 28), dtype=np.uint8))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"train_images": idx(np.zeros((4, 28, 28), np.uint8))[:-1]}, "promises"),
        ({"train_images": b"\0\0\x08\x03" + b"\xff" * 12}, "promises"),
        ({"train_images": b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0"}, "not an idx file"),
        ({"train_images": b"\0\0\x08\x09"}, "not an idx file"),
        ({"train_images": b"plain text"}, "gzip"),
        ({"train_images": gzip.compress(idx(np.zeros((4, 28, 28), np.uint8)))[:-9]}, "gzip"),
        ({"train_labels": idx(np.zeros(3, np.uint8))}, "do not go with"),
        ({"train_labels": idx(np.full(4, 2, np.uint8))}, "labels run"),
    ],
)
def test_a_broken_idx_file_is_refused(changed, reason, tmp_path):
    with pytest.raises(DataError, match=reason):
        idx_set(tmp_path, **changed).read(tmp_path, download=False)


def test_an_idx_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "_MAX_IDX", 1000)
    with pytest.raises(DataError, match="at most 1,000 bytes"):
        idx_set(tmp_path).read(tmp_path, download=False)


def test_every_missing_file_is_listed_at_once(tmp_path):
    with pytest.raises(DataMissing) as caught:
        load("mnist", tmp_path, download=False)
    assert str(caught.value).count("https://") == 4


# The test pictures left closed


def assert_closed(some: Data, whole: Data) -> None:
    """The training part is that of the whole set, and there is no other."""
    assert np.array_equal(some.train_x, whole.train_x) and np.array_equal(some.train_y, whole.train_y)
    assert some.classes == whole.classes and some.name == whole.name and some.shape == whole.shape
    assert some.test_x.shape == (0, *whole.shape) and some.test_y.shape == (0,)


def test_the_training_part_is_read_without_the_test_files(tmp_path, monkeypatch):
    archive = make_tar({n: SHARDS[n] for n in ("a.bin", "b.bin")})  # the one without t.bin is a wrong archive to others
    monkeypatch.setitem(published.PUBLISHED, "little", spec_for(archive))
    folder = tmp_path / "little"
    folder.mkdir()
    for name, content in SHARDS.items():
        (folder / name).write_bytes(content)
    whole = load("little", tmp_path, download=False)
    (folder / "t.bin").unlink()
    for place in (tmp_path, folder):
        assert_closed(load("little", place, download=False, test=False), whole)
    (tmp_path / "little.tar.gz").write_bytes(archive)
    assert_closed(load("little", tmp_path, download=False, test=False), whole)
    with pytest.raises(DataError, match="lacks"):
        load("little", tmp_path, download=False)

    monkeypatch.setitem(published.PUBLISHED, "grey", idx_set(tmp_path))
    whole = load("grey", tmp_path, download=False)
    for kind in ("test_images", "test_labels"):
        (tmp_path / getattr(published.PUBLISHED["grey"], kind).file).unlink()
    assert_closed(load("grey", tmp_path, download=False, test=False), whole)
    with pytest.raises(DataMissing):
        load("grey", tmp_path, download=False)


def test_the_training_part_of_ones_own_is_read_without_the_test_pictures(tmp_path):
    pytest.importorskip("sklearn")
    assert_closed(load("digits", test=False), load("digits"))
    picture_folder(tmp_path / "fifths")
    picture_folder(tmp_path / "parts" / "train", 2)
    save_picture(tmp_path / "parts" / "test" / "cat" / "x.png", (0, 0, 0))
    for name, closed in (("fifths", "cat/4.png"), ("parts", "test/cat/x.png")):
        whole = load(f"folder:{tmp_path / name}")
        (tmp_path / name / closed).write_bytes(b"broken")
        assert_closed(load(f"folder:{tmp_path / name}", test=False), whole)
        with pytest.raises(DataError, match="png"):
            load(f"folder:{tmp_path / name}")
    x, y = np.arange(64, dtype=np.uint8).reshape(4, 4, 4), np.array([0, 1, 0, 1])
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x[:3] + 100, y_test=y[:3])
    whole = load(f"npz:{tmp_path / 'mine.npz'}")
    content = bytearray((tmp_path / "mine.npz").read_bytes())
    content[content.index((x[:3] + 100).tobytes())] ^= 1  # its checksum is wrong now
    (tmp_path / "mine.npz").write_bytes(content)
    assert_closed(load(f"npz:{tmp_path / 'mine.npz'}", test=False), whole)
    with pytest.raises(DataError):
        load(f"npz:{tmp_path / 'mine.npz'}")


def test_published_sets_are_described_completely():
    assert [len(published.PUBLISHED[n].classes) for n in published.PUBLISHED] == [10, 100, 10, 10]
    assert len(set(published.CIFAR100.classes)) == 100
    assert list(published.CIFAR100.classes) == sorted(published.CIFAR100.classes)
    assert sum(s.records for s in published.CIFAR10.train) == 50_000


@pytest.mark.parametrize(
    ("name", "hint"),
    [("cifar-10", "cifar10"), ("MNIST", "mnist"), ("fashion", "fashion-mnist"), ("folder:", "PATH")],
)
def test_an_unknown_name_is_an_error_with_the_nearest(name, hint):
    with pytest.raises(DataError, match=f'nearest: ".*{hint}"'):
        load(name, download=False)


def test_digits_need_nothing_and_are_the_same_each_time():
    pytest.importorskip("sklearn")
    first, again = load("digits", download=False), load("digits", download=False)
    assert first.shape == (1, 32, 32) and len(first.train_x) == 1437 and len(first.test_x) == 360
    assert first.train_x.dtype == np.uint8 and first.train_x.max() == 255
    assert first.sha256 == again.sha256
    assert first.train_y[:10].tolist() == list(range(10))


def test_the_hash_is_over_shapes_and_values():
    x, y = np.arange(24, dtype=np.uint8).reshape(2, 1, 3, 4), np.array([0, 1])
    base = fingerprint(x, y, x, y)
    changed = x.copy()
    changed[1, 0, 2, 3] += 1
    assert fingerprint(np.asfortranarray(x), y, x.copy(), y) == base
    assert len({base, fingerprint(changed, y, x, y), fingerprint(x.reshape(2, 1, 4, 3), y, x, y)}) == 3
    assert fingerprint(x, y, changed, y) not in (base, fingerprint(changed, y, x, y))


def save_picture(path: Path, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20), colour).save(path)


def picture_folder(root: Path, count: int = 5) -> None:
    for name, red in (("cat", 200), ("ant", 100)):
        for i in range(count):
            save_picture(root / name / f"{i}.png", (red, i, 0))


def test_a_folder_of_classes_is_split_by_every_fifth(tmp_path):
    picture_folder(tmp_path, 11)
    (tmp_path / ".hidden").mkdir()
    data = load(f"folder:{tmp_path}")
    assert data.classes == ("ant", "cat") and data.shape == (3, 32, 32) and data.caveat is None
    assert np.bincount(data.train_y).tolist() == [9, 9] and data.test_y.tolist() == [0, 0, 1, 1]
    # In the order of names 0, 1, 10, 2, 3, …, the fifth is 3.png and the tenth 8.png.
    assert data.test_x[:, 1, 0, 0].tolist() == [3, 8, 3, 8] and data.test_x[2, 0, 0, 0] == 200


def test_a_folder_with_train_and_test_keeps_that_split(tmp_path):
    picture_folder(tmp_path / "train", 2)
    save_picture(tmp_path / "test" / "cat" / "x.jpg", (0, 0, 0))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("x")
    data = load(f"folder:{tmp_path}")
    assert len(data.train_x) == 4 and data.test_y.tolist() == [1]
    assert data.caveat is not None and data.caveat.startswith("1 ")


def test_a_folder_with_a_broken_picture_names_it(tmp_path):
    picture_folder(tmp_path)
    (tmp_path / "cat" / "2.png").write_bytes((tmp_path / "cat" / "2.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"cat/2\.png".replace("/", r"[/\\]")):
        load(f"folder:{tmp_path}")


def test_folders_of_another_build_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        load(f"folder:{tmp_path / 'none'}")
    with pytest.raises(DataError, match="two or more"):
        load(f"folder:{tmp_path}")
    picture_folder(tmp_path, 4)
    with pytest.raises(DataError, match="five or more"):
        load(f"folder:{tmp_path}")
    (tmp_path / "bee").mkdir()
    with pytest.raises(DataError, match="bee: this class has no"):
        load(f"folder:{tmp_path}")


def test_a_test_class_that_training_does_not_know_is_refused(tmp_path):
    picture_folder(tmp_path / "train", 1)
    save_picture(tmp_path / "test" / "cow" / "x.png", (0, 0, 0))
    with pytest.raises(DataError, match="cow is not a class"):
        load(f"folder:{tmp_path}")


def save_npz(path: Path, **changed: np.ndarray) -> Data:
    rng = np.random.default_rng(1)
    arrays = {
        "x_train": rng.integers(0, 256, (6, 8, 9, 3), dtype=np.uint8),
        "y_train": np.array([[0], [1], [2], [0], [1], [2]]),
        "x_test": rng.integers(0, 256, (2, 8, 9, 3), dtype=np.uint8),
        "y_test": np.array([2, 0], np.uint8),
    }
    np.savez(path, **(arrays | changed))
    return load(f"npz:{path}")


def test_npz_layouts_give_the_same_pictures(tmp_path):
    last = save_npz(tmp_path / "a.npz")
    assert last.shape == (3, 8, 9) and last.classes == ("0", "1", "2") and last.train_y.shape == (6,)
    first = save_npz(tmp_path / "b.npz", x_train=last.train_x, x_test=last.test_x)
    assert first.sha256 == last.sha256
    grey = save_npz(tmp_path / "c.npz", x_train=last.train_x[:, 0], x_test=last.test_x[:, 0])
    assert np.array_equal(grey.train_x[:, 0], last.train_x[:, 0]) and grey.shape == (1, 8, 9)
    assert save_npz(tmp_path / "d.npz", classes=np.array(["u", "v", "w"])).classes == ("u", "v", "w")


def test_where_both_layouts_fit_the_channels_are_last(tmp_path):
    small = np.arange(6 * 27, dtype=np.uint8).reshape(6, 3, 3, 3)
    data = save_npz(tmp_path / "a.npz", x_train=small, x_test=small[:2])
    assert np.array_equal(data.train_x, small.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"x_train": np.array([{}] * 6, dtype=object)}, "pickled objects"),
        ({"classes": np.array(["a", None, "c"], dtype=object)}, "pickled objects"),
        ({"x_train": np.zeros((6, 8, 9, 3), np.float32)}, "wanted is uint8"),
        ({"x_train": np.zeros((6, 8, 9, 4), np.uint8)}, "wanted is uint8"),
        ({"x_train": np.zeros((5, 8, 9, 3), np.uint8)}, "5 pictures but y_train 6"),
        ({"x_test": np.zeros((2, 9, 8, 3), np.uint8)}, "in x_test"),
        ({"y_train": np.zeros(6)}, "whole numbers"),
        ({"y_train": np.array([0, 1, 2, 0, 1, -1])}, "labels run from -1"),
        ({"y_train": np.array([0, 1, 2, 0, 1, 10**12])}, "number the classes from 0"),
        ({"y_test": np.array([0, 3])}, "labels run from 0 to 3"),
        ({"classes": np.array(["u", "v"])}, "0 to 1 are allowed"),
        ({"classes": np.array([1, 2, 3])}, "array of text"),
    ],
)
def test_an_npz_that_does_not_fit_is_refused(changed, reason, tmp_path):
    with pytest.raises(DataError, match=reason):
        save_npz(tmp_path / "a.npz", **changed)


def test_files_that_are_no_npz_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    for content in (b"", b"text", b"PK\x03\x04 broken"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as an .npz"):
            load(f"npz:{path}")
    np.savez(path, x_train=np.zeros(1))
    with pytest.raises(DataError, match="y_train, x_test, y_test missing"):
        load(f"npz:{path}")
    with zipfile.ZipFile(path, "w") as file:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            file.writestr(f"{key}.npy", b"not an array")
    with pytest.raises(DataError):
        load(f"npz:{path}")
    monkeypatch.setattr("poolkit.lab.data._MAX_NPZ", 10)
    with pytest.raises(DataError, match="at most 10"):
        load(f"npz:{path}")
    with pytest.raises(DataError, match="no such file"):
        load(f"npz:{tmp_path / 'none.npz'}")


def test_an_npz_array_that_claims_a_huge_shape_is_refused(tmp_path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 1000000, 3), }"
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            file.writestr(f"{key}.npy", npy)
    with pytest.raises(DataError, match="cannot be read as an .npz"):
        load(f"npz:{tmp_path / 'a.npz'}")


REAL = os.environ.get("POOLKIT_DATA")


@pytest.mark.skipif(not REAL, reason="POOLKIT_DATA does not name a folder with CIFAR-10")
def test_real_cifar10_decodes_to_the_known_first_labels():
    try:
        data = load("cifar10", Path(REAL or ""), download=False)
    except DataMissing:
        pytest.skip("POOLKIT_DATA has no CIFAR-10")
    assert data.train_x.shape == (50_000, 3, 32, 32) and data.test_x.shape == (10_000, 3, 32, 32)
    assert [data.classes[y] for y in data.train_y[:5]] == ["frog", "truck", "truck", "deer", "automobile"]
    assert np.bincount(data.train_y).tolist() == [5000] * 10 and np.bincount(data.test_y).tolist() == [1000] * 10
    # Mean of the training pixels, red, green, blue, as everyone's normalisation constants have it.
    means = [data.train_x[:, c].mean() / 255 for c in range(3)]
    assert np.allclose(means, [0.4914, 0.4822, 0.4465], atol=5e-5)
    assert data.caveat is None or "test_batch.bin" in data.caveat


def test_the_digest_of_a_shard_decides_the_caveat():
    spec = spec_for(b"")
    assert fetch.matches(SHARDS["a.bin"], spec.train[0].digest)
    assert not fetch.matches(SHARDS["a.bin"], spec.train[1].digest)
