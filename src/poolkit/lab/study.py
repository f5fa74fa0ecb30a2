"""A study: methods × seeds. What is asked, its cells, and the results that are there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import poolkit
from poolkit.lab import durable
from poolkit.lab.chance import seed_of
from poolkit.lab.durable import write_atomic
from poolkit.lab.recipe import Recipe
from poolkit.lab.record import RunError, check_beside, check_request, probe_layout, read_arrays, read_json, to_json
from poolkit.lab.run import PREDICTIONS, RUN, Run, pack

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1
REQUEST, BESIDE, PROBES, LOG, LOCK = "study.toml", "study.json", "probes.npz", "log.txt", "lock"
RUNS, TUNING = "runs", "tuning"
#: What a reader makes of a request: files that poolkit writes beside study.toml.
_OWN = (REQUEST, LOG, LOCK, RUNS, TUNING)
_MAX_REQUEST = 1_000_000  # bytes of study.toml
_MAX_PROBES = 2_000_000_000  # bytes of probes.npz once unpacked
_MOST = 1_000_000  # cells of a study


@dataclass(frozen=True)
class ProbeSettings:
    """What is asked of a trained net beside its accuracy, on the first pictures of a subset of the test pictures.

    Fields: `shift_images`, how many pictures are shifted by up to ±4 pixels; `corrupt_images`, how many are corrupted.
    Raises `ValueError` for a number below 1.
    """

    shift_images: int = 500
    corrupt_images: int = 500

    def __post_init__(self) -> None:
        for name in ("shift_images", "corrupt_images"):
            _whole(name, getattr(self, name), 1)


@dataclass(frozen=True)
class Request:
    """What a study asks, fixed before its first run.

    Fields: `methods`, spellings, two or more; `seeds`, how many runs each gets, with the seeds 0 … seeds − 1; `recipe`,
    what all runs share (its `pool` and `seed` say nothing); `data_sha256`, of the data that it names; `baseline`, the
    method that the others are compared with, by default max where it is among them, else the first; `delta`, the
    smallest difference in accuracy that matters, in points; `alpha`, the chance of a false alarm; `probes`, None for no
    measures of robustness; `tune`, trials for each method before its runs, 0 for none.
    Raises `ValueError` for what is not allowed, and says what is.
    """

    methods: tuple[str, ...]
    seeds: int
    recipe: Recipe
    data_sha256: str
    baseline: str = ""
    delta: float = 0.2
    alpha: float = 0.05
    probes: ProbeSettings | None = field(default_factory=ProbeSettings)
    tune: int = 0

    def __post_init__(self) -> None:
        methods = tuple(poolkit.method(asked).spelling for asked in self.methods)
        twice = [method for place, method in enumerate(methods) if method in methods[:place]]
        if twice:
            raise ValueError(f"{twice[0]} is asked for twice: the baseline's second row is part of every study")
        if len(methods) < 2:
            raise ValueError("a comparison needs two methods or more\n  all: poolkit list")
        asked = poolkit.method(self.baseline).spelling if self.baseline else ""
        baseline = asked or ("max" if "max" in methods else methods[0])
        if baseline not in methods:
            raise ValueError(f"baseline={baseline!r} is not allowed: one of {', '.join(methods)}")
        _whole("seeds", self.seeds, 2)
        _whole("tune", self.tune, 0)
        if self.seeds * (len(methods) + 1) > _MOST:
            raise ValueError(f"seeds={self.seeds!r} is not allowed: at most {_MOST:,} runs")
        for name, high in (("delta", 100.0), ("alpha", 0.5)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < high:
                raise ValueError(f"{name}={value!r} is not allowed: a number above 0 and below {high:g}")
            object.__setattr__(self, name, float(value))
        object.__setattr__(self, "methods", methods)
        object.__setattr__(self, "baseline", baseline)
        object.__setattr__(self, "recipe", dataclasses.replace(self.recipe, pool=baseline, seed=0))

    @property
    def again(self) -> str:
        """The label of the control: the baseline once more, with other seeds."""
        return f"{self.baseline} (again)"

    @property
    def labels(self) -> tuple[str, ...]:
        """The rows of the study: the methods, then the control."""
        return (*self.methods, self.again)

    def method(self, label: str) -> str:
        """The method of a row."""
        return self.baseline if label == self.again else label

    def seeds_of(self, label: str) -> range:
        """The seeds of a row: the control's are new ones."""
        return range(self.seeds, 2 * self.seeds) if label == self.again else range(self.seeds)

    def as_dict(self) -> dict[str, Any]:
        """The content of study.toml."""
        values = {k: v for k, v in vars(self).items() if k not in ("recipe", "probes")}
        recipe = {k: v for k, v in self.recipe.as_dict().items() if k not in ("pool", "seed") and v is not None}
        tables = {"recipe": recipe} | ({"probes": vars(self.probes)} if self.probes else {})
        return {"format": FORMAT, **values, "methods": list(self.methods), **tables}

    def text(self) -> str:
        """study.toml: the same request is the same text."""
        return "# Written before the first run; the SHA-256 of this file is in every run.\n" + _toml(self.as_dict())

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Request:
        """The request of study.toml's values. Raises `ValueError` or `TypeError`."""
        values = {k: v for k, v in given.items() if k != "format"}
        values["recipe"] = Recipe.from_dict(given["recipe"])
        values["probes"] = ProbeSettings(**given["probes"]) if "probes" in given else None
        return cls(**{**values, "methods": tuple(given["methods"])})


@dataclass(frozen=True)
class Cell:
    """One run of a study: its row, its recipe, seed included, and the SHA-256 of recipe and data."""

    label: str
    recipe: Recipe
    key: str

    @property
    def folder(self) -> str:
        """The name of its folder."""
        slug = re.sub(r"[^a-z0-9.=,+-]+", "-", self.label).strip("-.")[:60]
        return f"{slug}-s{self.recipe.seed}-{self.key[:12]}"


class Result(NamedTuple):
    """A run of a study, finished or failed.

    `probes` as `poolkit.lab.probes.probe` gives them, None where none were asked for or the run failed; `measured`:
    `train_seconds` (without tests), `test_seconds` (all test pictures once, the median of three), `peak_memory_bytes`
    (by how much the process grew over what it held before the run), each None where it was not measured; and `workers`
    and `threads`, how many shared the machine.
    """

    label: str
    seed: int
    run: Run
    probes: Mapping[str, np.ndarray] | None
    measured: Mapping[str, float | None]


@dataclass(frozen=True)
class Study:
    """A study's folder: `request`, what is asked; `sha256`, that of study.toml."""

    folder: Path
    request: Request
    sha256: str

    @staticmethod
    def load(folder: Path | str) -> Study:
        """The study that lies in a folder; raises `RunError`: none there, or damaged."""
        path = Path(folder) / REQUEST
        text = _read(path)
        try:
            values = tomllib.loads(text)
            check_request(values, path)
            request = Request.from_dict(values)
        except (ValueError, TypeError, RecursionError) as error:
            raise RunError(f"{path} is damaged: {error}\n  {_BROKEN}") from None
        if request.text() != text:
            raise RunError(f"{path} is not as poolkit wrote it.\n  {_BROKEN}")
        return Study(Path(folder), request, _digest(text.encode()))

    @staticmethod
    def begin(folder: Path | str, request: Request) -> Study:
        """The study of a request in a folder, which is made if it is not there.

        Raises `RunError`: the folder cannot be written, holds other files, or the study of another request; then the
        message names the keys that differ.
        """
        folder = Path(folder)
        try:
            if not (folder / REQUEST).exists():
                _refuse_files_of_others(folder)
                durable.make_folder(folder)
                write_atomic(folder / REQUEST, request.text().encode())
            durable.try_writing(folder)
            durable.remove_leftovers(folder)
            durable.make_folder(folder / RUNS)
        except OSError as error:
            raise RunError(f"The folder {folder} cannot be used ({error}).\n  Choose another one with --out.") from None
        study = Study.load(folder)
        if study.request != request:
            lines = "".join(
                f"\n  {key}: there {there!r}, asked for {asked!r}" for key, there, asked in study.differences(request)
            )
            raise RunError(
                f"{folder} holds a study that asks for something else.{lines}\n"
                "  Ask for the same, or choose another --out."
            )
        return study

    def differences(self, asked: Request) -> list[tuple[str, Any, Any]]:
        """Where another request differs: key, the value here, the value there."""
        here, there = _flat(self.request.as_dict()), _flat(asked.as_dict())
        return [(k, here.get(k), there.get(k)) for k in {**here, **there} if here.get(k) != there.get(k)]

    def cells(self) -> tuple[Cell, ...]:
        """Every run that is asked for, row by row.

        Raises `RunError` for a study with tuning of which a trial is missing: its recipes are not known yet.
        """
        return tuple(self._cell(label, seed) for label in self.request.labels for seed in self.request.seeds_of(label))

    def schedule(self) -> tuple[Cell, ...]:
        """The cells in the order in which they are run.

        Seed by seed, and within a seed the rows in an order of their own: what drifts with time favours none.
        """
        request = self.request
        places = [(n, label) for n in range(request.seeds) for label in request.labels]
        places.sort(key=lambda place: (place[0], seed_of(place[0], place[1], "schedule")))
        return tuple(self._cell(label, request.seeds_of(label)[n]) for n, label in places)

    def _cell(self, label: str, seed: int) -> Cell:
        recipe = dataclasses.replace(self.request.recipe, pool=self.request.method(label), seed=seed)
        return Cell(label, recipe, recipe.hash(self.request.data_sha256))

    def path(self, cell: Cell) -> Path:
        """The folder of a cell's run."""
        return self.folder / RUNS / cell.folder

    def missing(self) -> tuple[Cell, ...]:
        """The cells without a result, in the order in which they are run."""
        return tuple(cell for cell in self.schedule() if not (self.path(cell) / RUN).exists())

    def results(self) -> list[Result]:
        """The runs that are there, in the order of `cells`; raises `RunError` for one that is damaged or a stranger."""
        return list(self._results())

    def _results(self) -> Iterator[Result]:
        for cell in self.cells():
            folder = self.path(cell)
            if (folder / RUN).exists():
                yield read_result(folder, cell, self)


def seal(
    cell: Cell, study: str, run: Run, probes: Mapping[str, np.ndarray] | None, measured: Mapping[str, Any]
) -> dict[str, bytes]:
    """The files of a result by name, in the order in which they are to be written: run.json is the last.

    Arguments: `cell`; `study`, the SHA-256 of study.toml; `run`, `probes` and `measured`, as in `Result`.
    """
    files: dict[str, bytes] = {}
    if run.arrays is not None:
        files[PREDICTIONS] = pack(run.arrays)
    if probes is not None:
        layout = probe_layout(len(probes["shift_index"]), len(probes["corrupt_index"]))
        files[PROBES] = pack({name: np.asarray(probes[name]).astype(kind[0]) for name, kind in layout.items()})
    record = to_json(run.as_dict())
    sums = {name: _digest(content) for name, content in {**files, RUN: record}.items()}
    beside = {"format": FORMAT, "study_sha256": study, "label": cell.label, "measured": measured, "files": sums}
    return {**files, BESIDE: to_json(beside), RUN: record}


def store(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a result's files, which makes the folder a result; raises `OSError` where the disk refuses."""
    durable.make_folder(folder)
    durable.remove_leftovers(folder)
    for name in (PREDICTIONS, PROBES):  # of an attempt that was stopped before it was a result
        if name not in files:
            (folder / name).unlink(missing_ok=True)
    for name, content in files.items():
        write_atomic(folder / name, content)


def read_result(folder: Path, cell: Cell, study: Study) -> Result:
    """The result of a study's cell; raises `RunError`: damaged, or not that cell's."""
    again = f"Delete the folder {folder}, and compare does the run again."
    run, beside = Run.load(folder), read_json(folder / BESIDE, again)
    check_beside(beside, folder / BESIDE)
    if run.recipe_hash != cell.key or Recipe.from_dict(run.recipe) != cell.recipe or beside["label"] != cell.label:
        raise RunError(f"{folder} holds the run of another recipe.\n  {again}")
    if beside["study_sha256"] != study.sha256:
        raise RunError(f"{folder} was made for another {REQUEST}, the one with SHA-256 {beside['study_sha256']}.")
    for name in (PREDICTIONS, PROBES, RUN):
        path, wanted = folder / name, beside["files"].get(name)
        found = _digest(path.read_bytes()) if path.exists() else None
        if found != wanted:
            raise RunError(f"{path} is not the file that {BESIDE} names: damaged or exchanged.\n  {again}")
    probes, asked = None, study.request.probes
    if asked and PROBES in beside["files"]:
        most = run.data["test"]
        layout = probe_layout(min(asked.shift_images, most), min(asked.corrupt_images, most))
        probes = read_arrays(folder / PROBES, layout, _MAX_PROBES)
    return Result(cell.label, cell.recipe.seed, run, probes, beside["measured"])


_BROKEN = "Put the original back: a study whose request was changed is no study of it. Or choose another --out."


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_REQUEST:
            raise RunError(f"{path} is larger than {_MAX_REQUEST:,} bytes: not a study's.")
        return path.read_bytes().decode()
    except FileNotFoundError:
        raise RunError(f"There is no {REQUEST} in {path.parent}.\n  A study begins with: poolkit compare") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}).") from None


def _refuse_files_of_others(folder: Path, most: int = 5) -> None:
    """A study's names are fixed: it shall meet no file that is not a study's."""
    if not folder.exists():
        return
    names = sorted(p.name for p in folder.iterdir() if p.name not in (LOCK, LOG) and not durable.is_leftover(p))
    if names:
        some = ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
        raise RunError(f"{folder} is not empty and holds no study: {some}.\n  Choose another folder with --out.")


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
        raise ValueError(f"{name}={value!r} is not allowed: an integer, {least} or more")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _toml(values: Mapping[str, Any]) -> str:
    """Values and tables of values as TOML; raises `ValueError` for a text that UTF-8 cannot hold."""
    plain = [f"{key} = {_toml_value(value)}\n" for key, value in values.items() if not isinstance(value, dict)]
    tables = [f"\n[{key}]\n{_toml(value)}" for key, value in values.items() if isinstance(value, dict)]
    return "".join([*plain, *tables])


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{ascii(value)} is no text that a file can hold") from None
        # JSON's strings are TOML's, but for the one control character that JSON lets pass.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number for a request")
    return json.dumps(value)
