"""A study: methods × seeds. What is asked, its cells, and the results that are there."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import poolkit
from poolkit.lab import durable
from poolkit.lab.chance import seed_of
from poolkit.lab.durable import write_atomic
from poolkit.lab.recipe import Recipe
from poolkit.lab.record import RunError, read_arrays, read_json, to_json
from poolkit.lab.request import FORMAT, ProbeSettings, Request, read_toml
from poolkit.lab.run import FORMAT as RUN_FORMAT
from poolkit.lab.run import PREDICTIONS, RUN, Run, machine, now, pack
from poolkit.lab.study_record import check_beside, check_request, check_tuned, probe_layout

__all__ = ["Cell", "ProbeSettings", "Request", "Result", "Study", "read_result", "seal", "store"]

REQUEST, BESIDE, PROBES, LOG, LOCK = "study.toml", "study.json", "probes.npz", "log.txt", "lock"
RUNS, TUNING, TUNED = "runs", "tuning", "tuning.json"
_MAX_REQUEST = 1_000_000  # bytes of study.toml
_MAX_PROBES = 2_000_000_000  # bytes of probes.npz once unpacked


@dataclass(frozen=True)
class Cell:
    """One run of a study: its row, its recipe, seed included, and the SHA-256 of recipe and data."""

    label: str
    recipe: Recipe
    key: str

    @property
    def folder(self) -> str:
        """The name of its folder."""
        slug = re.sub(r"[^a-z0-9.=,+-]+", "-", self.label.lower()).strip("-.")[:60]
        return f"{slug}-s{self.recipe.seed}-{self.key[:12]}"


class Result(NamedTuple):
    """A run of a study, finished or failed.

    `probes` as `poolkit.lab.probes.probe` gives them, None where none were asked for or the run failed; `measured`:
    `train_seconds` (without tests), `test_seconds` (all test pictures once, the median of three), `peak_memory_bytes`
    (by how much the process grew over what it held before the run; of a run on a GPU, its tensors there), each None
    where it was not measured; and `workers` and `threads`, how many shared the machine; `seconds`, all that the run
    took.
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
            values = read_toml(text)
            check_request(values, path)
            request = Request.from_dict(values)
        except (ValueError, TypeError, RecursionError) as error:
            raise RunError(f"{path} is damaged: {error}\n  {_BROKEN}") from None
        if request.text() != text:
            raise RunError(f"{path} is not as poolkit wrote it.\n  {_BROKEN}")
        return Study(Path(folder), request, _digest(text.encode()))

    @staticmethod
    def planned(folder: Path | str, request: Request) -> Study:
        """The study that `begin` would begin; nothing is read or written."""
        return Study(Path(folder), request, _digest(request.text().encode()))

    @staticmethod
    def begin(folder: Path | str, request: Request) -> Study:
        """The study of a request in a folder, which is made if it is not there.

        Raises `RunError`: the folder cannot be written, holds other files, or the study of another request; then the
        message names the keys that differ.
        """
        folder = Path(folder)
        try:
            refuse_files_of_others(folder)
            if not (folder / REQUEST).exists():
                durable.make_folder(folder)
                write_atomic(folder / REQUEST, request.text().encode())
            durable.try_writing(folder)
            durable.remove_leftovers(folder)
            durable.make_folder(folder / RUNS)
        except OSError as error:
            raise RunError(f"The folder {folder} cannot be used ({error}).\n  Choose another one with --out.") from None
        study = Study.load(folder)
        study.refuse_other(request)
        return study

    def refuse_other(self, request: Request) -> None:
        """Raise `RunError` where a request is not this study's; it names the keys that differ."""
        if self.request != request:
            lines = "".join(
                f"\n  {key}: there {there!r}, asked for {asked!r}"
                for key, there, asked in self.request.differences(request)
            )
            raise RunError(
                f"{self.folder} holds a study that asks for something else.{lines}\n"
                "  Ask for the same, or choose another --out. A study does not grow: who adds runs until a difference "
                "shows finds some by chance."
            )

    def cells(self) -> tuple[Cell, ...]:
        """Every run that is asked for, row by row.

        Raises `RunError` for a study with tuning that is not finished: its recipes are not known yet.
        """
        recipes = self.recipes()
        places = [(label, seed) for label in self.request.labels for seed in self.request.seeds_of(label)]
        return tuple(self._cell(label, recipes[label], seed) for label, seed in places)

    def schedule(self) -> tuple[Cell, ...]:
        """The cells in the order in which they are run: see `turns`."""
        request, recipes = self.request, self.recipes()
        order = turns(request.labels, request.seeds)
        return tuple(self._cell(label, recipes[label], request.seeds_of(label)[n]) for n, label in order)

    def _cell(self, label: str, recipe: Recipe, seed: int) -> Cell:
        seeded = dataclasses.replace(recipe, seed=seed)
        return Cell(label, seeded, seeded.hash(self.request.data_sha256))

    def recipes(self) -> dict[str, Recipe]:
        """The recipe of each row, but for its seed: what is asked for, or, of a study with tuning, what was chosen."""
        request = self.request
        if not request.tune:
            return {label: request.recipe_of(label) for label in request.labels}
        rows = self._tuned()
        return {label: self._of_tuned(row["trials"][row["chosen"]]["recipe"]) for label, row in rows.items()}

    def tried(self, label: str) -> tuple[Recipe, ...]:
        """The recipes of a row's trials as tuning.json has them; raises `RunError`."""
        return tuple(self._of_tuned(trial["recipe"]) for trial in self._tuned()[label]["trials"])

    def _tuned(self) -> dict[str, Any]:
        """The rows of tuning.json by label."""
        path = self.folder / TUNED
        record = read_json(path, "The tuning of this study is not finished: the same poolkit compare goes on with it.")
        check_tuned(record, path)
        rows = {row["label"]: row for row in record["rows"]}
        if record["study_sha256"] != self.sha256 or set(rows) != set(self.request.labels):
            raise RunError(f"{path} is that of another study.\n  Delete it, and compare writes it again.")
        return rows

    def _of_tuned(self, recipe: dict[str, Any]) -> Recipe:
        try:
            return Recipe.from_dict(recipe)
        except (ValueError, TypeError) as error:
            path = self.folder / TUNED
            raise RunError(f"{path} is damaged: {error}\n  Delete it, and compare writes it again.") from None

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


def turns(labels: Sequence[str], count: int) -> list[tuple[int, str]]:
    """Rows in turns, so that what drifts with time favours none: (0, label) of each, (1, label) of each …

    Within a turn they stand in an order of its own, the same for everyone who asks.
    """
    places = [(n, label) for n in range(count) for label in labels]
    return sorted(places, key=lambda place: (place[0], seed_of(place[0], place[1], "schedule")))


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


def failure(cell: Cell, data: dict[str, Any], message: str, command: str | None) -> Run:
    """The run of a cell that could not even be built, or whose process died: a result too.

    Arguments: `cell`; `data`, as in run.json; `message`, why; `command`, the command line to record.
    """
    when = now()
    return Run(
        format=RUN_FORMAT,
        poolkit=poolkit.__version__,
        status="failed",
        message=message,
        recipe=cell.recipe.as_dict(),
        recipe_hash=cell.key,
        command=command,
        started=when,
        finished=when,
        seconds=0.0,
        data=data,
        layers=[],
        parameters=0,
        epochs=[],
        final=None,
        overfitting=None,
        weights_sha256=None,
        machine=machine(torch.device("cpu")),
    )


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


def refuse_files_of_others(folder: Path, most: int = 5) -> None:
    """Raise `RunError` for a folder with files and no study: its names are fixed, and shall meet no file of others."""
    if not folder.exists() or (folder / REQUEST).exists():
        return
    names = sorted(p.name for p in folder.iterdir() if p.name not in (LOCK, LOG) and not durable.is_leftover(p))
    if names:
        some = ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
        raise RunError(f"{folder} is not empty and holds no study: {some}.\n  Choose another folder with --out.")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
