"""Data sets as uint8 arrays, each with its hash: published ones by name, your own by folder or .npz file.

`load("cifar10")`, `"cifar100"`, `"mnist"`, `"fashion-mnist"`, `"digits"`, `"folder:PATH"`, `"npz:FILE"`.
"""

from __future__ import annotations

import difflib
import hashlib
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from poolkit.lab.fetch import DataError, DataMissing, check_labels
from poolkit.lab.pictures import SUFFIXES, PictureError, read_picture
from poolkit.lab.published import PUBLISHED

__all__ = [
    "NAMES",
    "Data",
    "DataError",
    "DataMissing",
    "digits",
    "fingerprint",
    "from_folder",
    "from_npz",
    "load",
]

NAMES = (*PUBLISHED, "digits", "folder:PATH", "npz:FILE")
_MAX_NPZ = 4_000_000_000  # bytes once unpacked: a small .npz can claim any size
_TEST_EVERY = 5  # of a folder without a test part, every fifth picture of a class is for testing
_DIGITS_TRAIN = 1437
# What reading a broken, encrypted or lying zip file raises, beside OSError and ValueError.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, MemoryError, RuntimeError, NotImplementedError)

_Labelled = tuple[Path, int]


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in memory: pictures and labels, for training and for testing.

    Fields: `name`, as `load` takes it; `train_x`, `test_x`, uint8 of shape (N, C, H, W), 0 to 255;
    `train_y`, `test_y`, int64 of shape (N,), indices into `classes`; `source`, where it comes from, one
    line; `sha256`, see `fingerprint`; `caveat`, None or a sentence that must stand beside every result (a
    copy that is not exact).
    """

    name: str
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: tuple[str, ...]
    source: str
    sha256: str
    caveat: str | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one picture."""
        channels, height, width = self.train_x.shape[1:]
        return channels, height, width

    @property
    def eval_x(self) -> np.ndarray:
        """The pictures that a run is judged by: the test pictures, where nothing is chosen by them."""
        return self.test_x

    @property
    def eval_y(self) -> np.ndarray:
        """Their labels."""
        return self.test_y


def load(name: str, data_dir: Path | None = None, download: bool = True, test: bool = True) -> Data:
    """Load a data set.

    Published sets are looked for in `data_dir`, in the folder that the variable POOLKIT_DATA names, and in
    the user's cache, as the published archive or unpacked; failing that they are downloaded, to `data_dir`
    where it is given and to the cache otherwise. Every archive's SHA-256 is checked before it is opened.

    Arguments: `name`, one of `NAMES`, where PATH and FILE are yours; `data_dir`, a folder with copies;
    `download`, False to never touch the network; `test`, False to leave the test pictures closed: their files are not
    opened, of a published archive the test part is not decoded (its SHA-256 is still that of the whole), and `test_x`
    and `test_y` are empty.
    Raises `DataMissing` when there is no copy and none can be had (the message says how to bring one),
    `DataError` for an unknown name and for a copy that is broken or not the published one.
    """
    if name in PUBLISHED:
        decoded = PUBLISHED[name].read(data_dir, download, test)
        return _data(name, decoded.arrays, decoded.classes, decoded.source, decoded.caveat)
    if name == "digits":
        return digits(test)
    kind, _, own = name.partition(":")
    if kind == "folder" and own:
        return from_folder(Path(own), test=test)
    if kind == "npz" and own:
        return from_npz(Path(own), test)
    near = difflib.get_close_matches(name.lower(), NAMES, n=1)
    hint = f'  nearest: "{near[0]}"\n' if near else ""
    raise DataError(f'There is no data set "{name}".\n{hint}  allowed: {", ".join(NAMES)}')


def fingerprint(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> str:
    """The SHA-256 of a data set's arrays, as 64 hex digits: equal data, equal hash, on every machine.

    Hashed are, for train_x, train_y, test_x and test_y in this order: the text "NAME TYPE SHAPE" and a line
    feed in ASCII (`train_x uint8 50000,3,32,32`), then the values in C order (uint8, and int64
    little-endian).
    """
    digest = hashlib.sha256()
    arrays = {"train_x": train_x, "train_y": train_y, "test_x": test_x, "test_y": test_y}
    for name, array in arrays.items():
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{name} {array.dtype.name} {','.join(map(str, array.shape))}\n".encode("ascii"))
        digest.update(plain.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def digits(test: bool = True) -> Data:
    """The 1,797 scanned digits of scikit-learn, enlarged from 8×8 to 32×32 pixels; needs no network.

    Levels 0 to 16 become 0 to 255, then the enlargement is bilinear. In scikit-learn's order, the first 1,437
    scans are for training and the last 360 for testing, of which there are none without `test`. Shape (1, 32, 32).
    Source: Alpaydin and Kaynak, UCI "Optical Recognition of Handwritten Digits", 1998.
    """
    from sklearn.datasets import load_digits

    scans = load_digits()
    levels = np.rint(scans.images * (255 / 16)).astype(np.uint8)
    x = np.stack([np.asarray(Image.fromarray(s).resize((32, 32), Image.Resampling.BILINEAR)) for s in levels])
    y = scans.target.astype(np.int64)
    n, end = _DIGITS_TRAIN, len(x) if test else _DIGITS_TRAIN
    return _data(
        "digits",
        (x[:n, None], y[:n], x[n:end, None], y[n:end]),
        tuple("0123456789"),
        "scikit-learn's 1,797 digits of 8×8 pixels (UCI, 1998), enlarged to 32×32; the last 360 for testing",
    )


def from_folder(path: Path, side: int = 32, test: bool = True) -> Data:
    """Your own pictures: a folder with one sub-folder per class, or `train` and `test` that have these.

    Pictures (PNG, JPEG, WebP) are read as `read_picture` does, red, green, blue, in the order of their names;
    names that begin with a dot are skipped. Without a `test` folder, every fifth picture of a class (the 5th,
    the 10th …) is for testing.

    Arguments: `path`; `side`, height and width in pixels that all pictures get; `test`, as in `load`.
    Raises `DataError` for a folder of another build or a picture that cannot be read, which it names.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder.")
    train_root = path / "train" if (path / "train").is_dir() else path
    test_root = path / "test" if train_root != path and (path / "test").is_dir() else None
    classes = tuple(p.name for p in _sorted(train_root) if p.is_dir())
    if len(classes) < 2:
        raise DataError(f"{train_root}: has {len(classes)} sub-folders; wanted are two or more, one per class.")
    train = _files(train_root, classes)
    bare = set(range(len(classes))) - {label for _, label in train}
    if bare:
        raise DataError(f"{train_root / classes[min(bare)]}: this class has no PNG, JPEG or WebP picture.")
    train, testing = _every_fifth(train) if test_root is None else (train, _files(test_root, classes) if test else [])
    if test and not testing:
        raise DataError(f"{path}: no picture is for testing; have five or more in a class, or a test folder.")
    testing = testing if test else []
    arrays = (*_read_all(train, side), *_read_all(testing, side))
    source = f"{len(train) + len(testing):,} pictures of the folder {path.name}, resized to {side}×{side}"
    if test_root is None:
        source += "; every fifth of a class for testing"
    caveat = _left_out((train_root, test_root if test else None), classes)
    return _data(f"folder:{path}", arrays, classes, source, caveat)


def from_npz(path: Path, test: bool = True) -> Data:
    """Your own arrays: an .npz file with `x_train`, `y_train`, `x_test`, `y_test` and, optionally, `classes`.

    Pictures are uint8 of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3 (where both fit, the
    channels are last, as in Keras); labels are whole numbers of shape (N,) or (N, 1), from 0; `classes` is an
    array of names. Nothing pickled is read. `test` is as in `load`.

    Raises `DataError` for a file that is not such a file; the message says which array and what is wrong.
    """
    path = Path(path).expanduser()
    arrays = _read_npz(path, ("train", "test") if test else ("train",))
    parts = {part: _labelled(path, part, arrays) for part in ("train", "test") if f"x_{part}" in arrays}
    train_x, train_y = parts["train"]
    test_x, test_y = parts.get("test", (train_x[:0], train_y[:0]))
    if train_x.shape[1:] != test_x.shape[1:]:
        raise DataError(f"{path}: pictures are {train_x.shape[1:]} in x_train, {test_x.shape[1:]} in x_test.")
    classes = _class_names(path, arrays.get("classes"), train_y)
    for part, (_, y) in parts.items():
        check_labels(f"{path}: y_{part}", y, len(classes))
    return _data(f"npz:{path}", (train_x, train_y, test_x, test_y), classes, f"the arrays of {path.name}")


def _labelled(path: Path, part: str, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    x = _as_pictures(path, f"x_{part}", arrays[f"x_{part}"])
    y = _as_labels(path, f"y_{part}", arrays[f"y_{part}"])
    if len(x) != len(y):
        raise DataError(f"{path}: x_{part} has {len(x)} pictures but y_{part} {len(y)} labels.")
    return x, y


def _data(
    name: str,
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    classes: tuple[str, ...],
    source: str,
    caveat: str | None = None,
) -> Data:
    return Data(name, *arrays, classes, source, fingerprint(*arrays), caveat)


def _sorted(folder: Path) -> list[Path]:
    return sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: p.name)


def _files(root: Path, classes: tuple[str, ...]) -> list[_Labelled]:
    strange = [p.name for p in _sorted(root) if p.is_dir() and p.name not in classes]
    if strange:
        raise DataError(f"{root}: {strange[0]} is not a class for training ({', '.join(classes)}).")
    return [
        (picture, label)
        for label, name in enumerate(classes)
        if (root / name).is_dir()
        for picture in _sorted(root / name)
        if picture.suffix.lower() in SUFFIXES
    ]


def _every_fifth(pairs: Sequence[_Labelled]) -> tuple[list[_Labelled], list[_Labelled]]:
    train: list[_Labelled] = []
    test: list[_Labelled] = []
    seen: Counter[int] = Counter()
    for pair in pairs:
        seen[pair[1]] += 1
        (train if seen[pair[1]] % _TEST_EVERY else test).append(pair)
    return train, test


def _read_all(pairs: Sequence[_Labelled], side: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.empty((len(pairs), 3, side, side), np.uint8)
    for row, (path, _) in enumerate(pairs):
        try:
            x[row] = read_picture(path, (3, side, side))
        except PictureError as error:
            raise DataError(f"{error}\n  Repair the file or take it out of the folder.") from None
    return x, np.array([label for _, label in pairs], np.int64)


def _left_out(roots: Sequence[Path | None], classes: tuple[str, ...]) -> str | None:
    folders = [root / name for root in roots if root for name in classes if (root / name).is_dir()]
    count = sum(p.suffix.lower() not in SUFFIXES for folder in folders for p in _sorted(folder))
    return f"{count:,} entries of the class folders are not PNG, JPEG or WebP: left out." if count else None


def _read_npz(path: Path, parts: Sequence[str]) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    wanted = ("x_train", "y_train", "x_test", "y_test")
    try:
        with zipfile.ZipFile(path) as listing:
            size = sum(info.file_size for info in listing.infolist())
        if size > _MAX_NPZ:
            raise DataError(f"{path}: {size:,} bytes once unpacked; at most {_MAX_NPZ:,} are read.")
        with np.load(path, allow_pickle=False) as arrays:
            absent = [key for key in wanted if key not in arrays]
            if absent:
                raise DataError(f"{path}: {', '.join(absent)} missing; wanted are {', '.join(wanted)}.")
            read = {f"{kind}_{part}" for kind in "xy" for part in parts} | {"classes"}
            return {key: np.asarray(arrays[key]) for key in (*wanted, "classes") if key in arrays and key in read}
    except (*_UNREADABLE, OSError, ValueError) as error:
        reason = "it holds pickled objects, never read" if "allow_pickle" in str(error) else str(error)
        raise DataError(f"{path} cannot be read as an .npz of plain arrays: {reason}.") from None


def _class_names(path: Path, names: np.ndarray | None, labels: np.ndarray) -> tuple[str, ...]:
    if names is None:
        if labels.max() >= len(labels):
            raise DataError(f"{path}: y_train goes up to {labels.max()}; number the classes from 0.")
        return tuple(map(str, range(int(labels.max()) + 1)))
    if names.dtype.kind != "U" or names.ndim != 1:
        raise DataError(f"{path}: classes must be a one-dimensional array of text.")
    return tuple(map(str, names))


def _as_pictures(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    last = array.ndim == 4 and array.shape[3] in (1, 3)
    first = array.ndim == 4 and array.shape[1] in (1, 3)
    if array.dtype != np.uint8 or not (array.ndim == 3 or last or first) or 0 in array.shape:
        raise DataError(
            f"{path}: {key} is {array.dtype} {array.shape}; wanted is uint8 (0 to 255) of shape (N, H, W), "
            "(N, H, W, C) or (N, C, H, W) with C 1 or 3."
        )
    if array.ndim == 3:
        array = array[:, None]
    elif last:
        array = array.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array)


def _as_labels(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "iu" or not (array.ndim == 1 or array.shape[1:] == (1,)) or array.size == 0:
        raise DataError(f"{path}: {key} is {array.dtype} {array.shape}; wanted are whole numbers of shape (N,).")
    return array.reshape(-1).astype(np.int64)
