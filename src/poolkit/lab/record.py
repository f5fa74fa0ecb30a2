"""run.json and the arrays beside it, read as files that anybody may have written: checked before they are believed."""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from poolkit.lab.recipe import LATER, Recipe
from poolkit.lab.rules import (
    LOSS,
    PLAIN,
    SECONDS,
    SHARE,
    TEXT,
    Is,
    List,
    Map,
    Object,
    OrNull,
    Wrong,
    brief,
    number,
    whole,
)

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


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file: its key `recipe`, as in a search's winner.json or a run.json, or else the whole of it.

    Raises `RunError`: no such file, not JSON, no recipe in it or one that is not allowed.
    """
    written = read_json(path)
    found = written.get("recipe", written)
    try:
        if not isinstance(found, dict):
            raise ValueError("its recipe is no JSON object")
        return Recipe.from_dict(found)
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} holds no recipe: {error}") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**53 for v in value)


_EPOCH = Object(
    {
        "epoch": whole(1),
        "train_loss": LOSS,
        "train_accuracy": OrNull(SHARE),
        "test_loss": LOSS,
        "test_accuracy": OrNull(SHARE),
        "seconds": SECONDS,
        "images_per_second": SECONDS,
        "learned": Map(OrNull(number()), _MAX_LEARNED),
    }
)
_CLASS = Object({"class": TEXT, "precision": SHARE, "recall": SHARE, "f1": SHARE, "support": whole(0, 2**53)})
_LAYER = Object({"layer": TEXT, "output": List(whole(), 0, 9), "parameters": whole()})
_FINAL = Object(
    {
        "loss": LOSS,
        "accuracy": SHARE,
        "per_class": List(_CLASS, 1, _MAX_CLASSES),
        "confusion": List(Is("a list of counts", _counts), 1, _MAX_CLASSES),
    }
)
_DATA = Object(
    {
        "name": TEXT,
        "source": TEXT,
        "sha256": TEXT,
        "caveat": OrNull(TEXT),
        "classes": List(TEXT, 1, _MAX_CLASSES),
        "shape": List(whole(1, _MAX_SIDE), 3, 3),
        "train": whole(1),
        "test": whole(1),
    }
)
_RECORD = Object(
    {
        "format": whole(),
        "poolkit": TEXT,
        "status": Is('"finished" or "failed"', lambda v: v in ("finished", "failed")),
        "message": OrNull(TEXT),
        "recipe": Object({f.name: PLAIN for f in dataclasses.fields(Recipe)}, frozenset(LATER)),
        "recipe_hash": TEXT,
        "command": OrNull(TEXT),
        "started": TEXT,
        "finished": TEXT,
        "seconds": SECONDS,
        "data": _DATA,
        "layers": List(_LAYER, 0, 10_000),
        "parameters": whole(),
        "epochs": List(_EPOCH, 0, _MAX_EPOCHS),
        "final": OrNull(_FINAL),
        "overfitting": OrNull(TEXT),
        "weights_sha256": OrNull(TEXT),
        "machine": Map(PLAIN, 100),
    }
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
            raise Wrong(f"recipe: {error}") from None
    except Wrong as wrong:
        raise RunError(f"{path} is damaged: {wrong}\n  Copy the run's folder again, or train again.") from None


def _check_agreement(record: dict[str, Any]) -> None:
    """What one entry says of another."""
    data, final = record["data"], record["final"]
    if math.prod(data["shape"]) > _MAX_PICTURE:
        raise Wrong(f"data.shape is {data['shape']}: more than {_MAX_PICTURE:,} numbers in a picture.")
    if record["recipe"]["data"] != data["name"]:
        raise Wrong(f"recipe.data is {brief(record['recipe']['data'])}, data.name is {brief(data['name'])}.")
    if record["status"] == "finished" and (final is None or record["weights_sha256"] is None):
        raise Wrong("the run is finished, but final or weights_sha256 is null.")
    if final is None:
        return
    classes, rows, matrix = data["classes"], final["per_class"], final["confusion"]
    if [row["class"] for row in rows] != classes:
        raise Wrong(f"final.per_class does not have the {len(classes):,} classes of data.classes, in their order.")
    if len(matrix) != len(classes) or any(len(row) != len(classes) for row in matrix):
        raise Wrong(f"final.confusion is not {len(classes):,}×{len(classes):,}, as data.classes wants it.")
    if [row["support"] for row in rows] != [sum(row) for row in matrix]:
        raise Wrong("final.per_class counts other pictures (support) than final.confusion.")
    if sum(map(sum, matrix)) != data["test"]:
        raise Wrong(f"final.confusion does not count the {data['test']:,} test pictures of data.test.")


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
