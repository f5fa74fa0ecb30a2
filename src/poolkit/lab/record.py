"""run.json and the arrays beside it, read as files that anybody may have written: checked before they are believed."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from poolkit.lab.recipe import LATER, Recipe

_MAX_RECORD = 64_000_000  # bytes of run.json: a thousand epochs of a thousand classes stay far below
_MAX_SIDE, _MAX_PICTURE = 4096, 2**26  # of a picture: pixels a side, numbers in all
_MAX_CLASSES, _MAX_EPOCHS, _MAX_LEARNED = 100_000, 100_000, 64
_MAX_EXTRA = 100_000  # bytes that an array file may have beyond its arrays: headers and names


class RunError(Exception):
    """A run's folder that cannot be used as asked; the message says why and what to do next."""


def to_json(value: Any) -> bytes:
    """Indented JSON in UTF-8; raises `ValueError` for NaN and infinity, which JSON does not have."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path, hint: str = "") -> dict[str, Any]:
    """A JSON object from a file that anybody may have written; raises `RunError`, ending with `hint`."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise RunError(f"{path} is no file.\n  Give the folder that `poolkit train --out` wrote.")
        if size > _MAX_RECORD:
            raise RunError(f"{path} is larger than {_MAX_RECORD:,} bytes: not a file of poolkit's.")
        value = json.loads(path.read_bytes(), parse_constant=_refuse)
    except FileNotFoundError:
        raise RunError(f"There is no {path.name} in {path.parent}." + (f"\n  {hint}" if hint else "")) from None
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error}).") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}).") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: it holds no JSON object.")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


class _Wrong(Exception):
    """What is wrong, and where."""


class _Rule(Protocol):
    def check(self, value: Any, where: str) -> None:
        """Raises `_Wrong`."""


@dataclass(frozen=True)
class _Is:
    words: str
    holds: Callable[[Any], bool]

    def check(self, value: Any, where: str) -> None:
        if not self.holds(value):
            raise _Wrong(f"{where} is {_brief(value)}, wanted is {self.words}.")


@dataclass(frozen=True)
class _OrNull:
    rule: _Rule

    def check(self, value: Any, where: str) -> None:
        if value is not None:
            self.rule.check(value, where)


@dataclass(frozen=True)
class _List:
    rule: _Rule
    least: int
    most: int

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, list) or not self.least <= len(value) <= self.most:
            raise _Wrong(f"{where} is {_brief(value)}, wanted is a list of {self.least:,} to {self.most:,} entries.")
        for place, inner in enumerate(value):
            self.rule.check(inner, f"{where}[{place}]")


@dataclass(frozen=True)
class _Map:
    rule: _Rule
    most: int

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, dict) or len(value) > self.most or not all(map(_is_text, value)):
            raise _Wrong(f"{where} is {_brief(value)}, wanted is an object of at most {self.most} entries.")
        for key, inner in value.items():
            self.rule.check(inner, f"{where}.{key}")


@dataclass(frozen=True)
class _Object:
    rules: Mapping[str, _Rule]
    optional: frozenset[str] = frozenset()

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, dict) or not set(self.rules) - self.optional <= set(value) <= set(self.rules):
            raise _Wrong(f"{where} is {_brief(value)}, wanted is an object with the keys {', '.join(self.rules)}.")
        for key in value:
            self.rules[key].check(value[key], f"{where}.{key}" if where else key)


def _is_text(value: Any) -> bool:
    """Half of a surrogate pair is a str to JSON, and no text: nothing could write it down again."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _whole(low: int = 0, high: int = 2**63 - 1) -> _Is:
    return _Is(f"a whole number from {low:,} to {high:,}", lambda v: type(v) is int and low <= v <= high)


def _number(low: float = -1e39, high: float = 1e39) -> _Is:
    # Beyond float32, in which nets compute; `1e999` is JSON and would be infinite.
    words = f"a number from {low:g} to {high:g}"
    return _Is(words, lambda v: type(v) in (int, float) and math.isfinite(v) and low <= v <= high)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**53 for v in value)


_TEXT = _Is("a text", _is_text)
_PLAIN = _Is("a text, a number or null", lambda v: v is None or _is_text(v) or _number().holds(v) or type(v) is bool)
_SHARE = _number(0, 1)
_SECONDS = _number(0)
_LOSS = _OrNull(_number())
_EPOCH = _Object(
    {
        "epoch": _whole(1),
        "train_loss": _LOSS,
        "train_accuracy": _OrNull(_SHARE),
        "test_loss": _LOSS,
        "test_accuracy": _OrNull(_SHARE),
        "seconds": _SECONDS,
        "images_per_second": _SECONDS,
        "learned": _Map(_OrNull(_number()), _MAX_LEARNED),
    }
)
_CLASS = _Object({"class": _TEXT, "precision": _SHARE, "recall": _SHARE, "f1": _SHARE, "support": _whole(0, 2**53)})
_LAYER = _Object({"layer": _TEXT, "output": _List(_whole(), 0, 9), "parameters": _whole()})
_FINAL = _Object(
    {
        "loss": _LOSS,
        "accuracy": _SHARE,
        "per_class": _List(_CLASS, 1, _MAX_CLASSES),
        "confusion": _List(_Is("a list of counts", _counts), 1, _MAX_CLASSES),
    }
)
_DATA = _Object(
    {
        "name": _TEXT,
        "source": _TEXT,
        "sha256": _TEXT,
        "caveat": _OrNull(_TEXT),
        "classes": _List(_TEXT, 1, _MAX_CLASSES),
        "shape": _List(_whole(1, _MAX_SIDE), 3, 3),
        "train": _whole(1),
        "test": _whole(1),
    }
)
_RECORD = _Object(
    {
        "format": _whole(),
        "poolkit": _TEXT,
        "status": _Is('"finished" or "failed"', lambda v: v in ("finished", "failed")),
        "message": _OrNull(_TEXT),
        "recipe": _Object({f.name: _PLAIN for f in dataclasses.fields(Recipe)}, frozenset(LATER)),
        "recipe_hash": _TEXT,
        "command": _OrNull(_TEXT),
        "started": _TEXT,
        "finished": _TEXT,
        "seconds": _SECONDS,
        "data": _DATA,
        "layers": _List(_LAYER, 0, 10_000),
        "parameters": _whole(),
        "epochs": _List(_EPOCH, 0, _MAX_EPOCHS),
        "final": _OrNull(_FINAL),
        "overfitting": _OrNull(_TEXT),
        "weights_sha256": _OrNull(_TEXT),
        "machine": _Map(_PLAIN, 100),
    }
)

_SUM = _Is("64 hexadecimal digits", lambda v: isinstance(v, str) and bool(re.fullmatch("[0-9a-f]{64}", v)))
_BESIDE = _Object(
    {
        "format": _whole(1, 1),
        "study_sha256": _SUM,
        "label": _TEXT,
        "measured": _Map(_OrNull(_number()), 20),
        "files": _Map(_SUM, 3),
    }
)
_REQUEST = _Object(
    {
        "format": _whole(1, 1),
        "methods": _List(_TEXT, 2, 10_000),
        "seeds": _whole(2),
        "data_sha256": _SUM,
        "baseline": _TEXT,
        "delta": _number(0),
        "alpha": _number(0, 1),
        "tune": _whole(),
        "recipe": _Map(_PLAIN, 100),
        "probes": _Object({"shift_images": _whole(1), "corrupt_images": _whole(1)}),
    },
    frozenset({"probes"}),
)


def check_record(record: dict[str, Any], path: Path) -> None:
    """See that run.json's content can be believed: types, ranges, a recipe that exists, counts that agree.

    Raises `RunError`, which names the file and the first place that is wrong.
    """
    try:
        _RECORD.check(record, "")
        _check_agreement(record)
        try:
            Recipe.from_dict(record["recipe"])
        except (ValueError, TypeError) as error:
            raise _Wrong(f"recipe: {error}") from None
    except _Wrong as wrong:
        raise RunError(f"{path} is damaged: {wrong}\n  Copy the run's folder again, or train again.") from None


def check_beside(record: dict[str, Any], path: Path) -> None:
    """See that the content of a study's study.json can be believed; raises `RunError`."""
    try:
        _BESIDE.check(record, "")
    except _Wrong as wrong:
        raise RunError(f"{path} is damaged: {wrong}\n  Copy the run's folder again.") from None


def check_request(values: dict[str, Any], path: Path) -> None:
    """See that study.toml has the keys and types of a request; raises `RunError`."""
    try:
        _REQUEST.check(values, "")
    except _Wrong as wrong:
        raise RunError(f"{path} is damaged: {wrong}\n  Put the original back.") from None


def _brief(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,} entries"
    if type(value) is int and value.bit_length() > 200:  # Python refuses to spell very long ones
        return "a very large number"
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _check_agreement(record: dict[str, Any]) -> None:
    """What one entry says of another."""
    data, final = record["data"], record["final"]
    if math.prod(data["shape"]) > _MAX_PICTURE:
        raise _Wrong(f"data.shape is {data['shape']}: more than {_MAX_PICTURE:,} numbers in a picture.")
    if record["recipe"]["data"] != data["name"]:
        raise _Wrong(f"recipe.data is {_brief(record['recipe']['data'])}, data.name is {_brief(data['name'])}.")
    if record["status"] == "finished" and (final is None or record["weights_sha256"] is None):
        raise _Wrong("the run is finished, but final or weights_sha256 is null.")
    if final is None:
        return
    classes, rows, matrix = data["classes"], final["per_class"], final["confusion"]
    if [row["class"] for row in rows] != classes:
        raise _Wrong(f"final.per_class does not have the {len(classes):,} classes of data.classes, in their order.")
    if len(matrix) != len(classes) or any(len(row) != len(classes) for row in matrix):
        raise _Wrong(f"final.confusion is not {len(classes):,}×{len(classes):,}, as data.classes wants it.")
    if [row["support"] for row in rows] != [sum(row) for row in matrix]:
        raise _Wrong("final.per_class counts other pictures (support) than final.confusion.")
    if sum(map(sum, matrix)) != data["test"]:
        raise _Wrong(f"final.confusion does not count the {data['test']:,} test pictures of data.test.")


Layout = Mapping[str, tuple[type, tuple[int, ...], int]]


def layout(data: dict[str, Any]) -> Layout:
    """The arrays that predictions.npz holds: type, shape of one entry, and the most entries.

    Arguments: `data`, run.json's.
    """
    picture, test = tuple(data["shape"]), data["test"]
    return {
        "probabilities": (np.float16, (len(data["classes"]),), test),
        "labels": (np.int64, (), test),
        "shown_index": (np.int64, (), 24),
        "shown_pixels": (np.uint8, picture, 24),
        "sample_pixels": (np.uint8, picture, 25),
        "sample_labels": (np.int64, (), 25),
    }


def probe_layout(shifted: int, corrupted: int) -> Layout:
    """The arrays that probes.npz holds, of at most so many pictures shifted and corrupted."""
    return {
        "shift_index": (np.int32, (), shifted),
        "shift_moves": (np.int8, (2,), 81),
        "shift_classes": (np.uint16, (shifted,), 81),
        "corrupt_index": (np.int32, (), corrupted),
        "corrupt_classes": (np.uint16, (5, corrupted), 15),
    }


def read_arrays(path: Path, wanted: Layout, most: int) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name, after its directory and their headers have been found to be those wanted.

    Arguments: `path`; `wanted`, what it should hold; `most`, how many bytes may be unpacked.
    Raises `RunError`: too large, damaged, or other arrays.
    """
    room = sum(np.dtype(kind).itemsize * math.prod(one) * n for kind, one, n in wanted.values()) + _MAX_EXTRA
    try:
        if path.stat().st_size > room:
            raise RunError(f"{path} is larger than {room:,} bytes: not this run's.")
        with zipfile.ZipFile(path) as members:
            found = {member.filename.removesuffix(".npy"): member for member in members.infolist()}
            # A small file can claim any size: what it claims is compared before a byte is unpacked.
            for limit in (most, room):
                if (size := sum(member.file_size for member in members.infolist())) > limit:
                    raise RunError(f"{path} would unpack to {size:,} bytes, more than {limit:,}: not this run's.")
            if len(members.infolist()) != len(wanted) or set(found) != set(wanted):
                raise ValueError(f"missing or unknown arrays {', '.join(sorted(set(found) ^ set(wanted)))}"[:200])
            return {name: _read_array(members, found[name], name, *wanted[name]) for name in wanted}
    except RunError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy each have their own for a damaged file
        raise RunError(f"{path} is damaged ({error}).\n  Train the recipe again.") from None


def _read_array(
    members: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, kind: type, one: tuple[int, ...], most: int
) -> np.ndarray:
    with members.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"{name} has another version of .npy, {version}")
        shape, turned, found = np.lib.format.read_array_header_1_0(stream)
        if found != np.dtype(kind) or shape[1:] != one or len(shape) != 1 + len(one) or shape[0] > most:
            raise ValueError(f"{name} is {found} {shape}, wanted is {np.dtype(kind)} of at most {(most, *one)}")
        size = math.prod(shape) * found.itemsize
        # One byte more than wanted: zipfile looks at the checksum when it reaches the end.
        content = stream.read(size + 1)
    if len(content) != size:
        raise ValueError(f"{name} has {len(content):,} bytes or more, wanted are {size:,}")
    return np.frombuffer(content, kind).reshape(shape, order="F" if turned else "C").copy()


def check_arrays(arrays: Mapping[str, np.ndarray], data: dict[str, Any], path: Path) -> None:
    """See that the arrays of predictions.npz fit together; raises `RunError` where they do not."""
    pairs = (("probabilities", "labels"), ("shown_index", "shown_pixels"), ("sample_labels", "sample_pixels"))
    for first, second in pairs:
        if len(arrays[first]) != len(arrays[second]):
            raise RunError(f"{path} is damaged: {first} and {second} have different lengths.\n  Train again.")
    if len(arrays["labels"]) != data["test"]:
        raise RunError(
            f"{path} is not this run's: it has {len(arrays['labels']):,} test pictures, not {data['test']:,}."
        )
    classes = len(data["classes"])
    for name, end in (("labels", classes), ("sample_labels", classes), ("shown_index", data["test"])):
        if len(arrays[name]) and not (0 <= arrays[name].min() and arrays[name].max() < end):
            raise RunError(f"{path} is damaged: {name} has numbers outside 0 to {end - 1:,}.\n  Train again.")
