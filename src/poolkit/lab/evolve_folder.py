"""The folder of a genetic search: one file for each finished net, whole or not there, and the winner.

evolve.json        what was asked, written before the first net is trained
net-0000.json …    one finished net each
winner.json        the best net's recipe; this file makes the search a finished one
search.png, log.txt
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import poolkit
from poolkit.lab import durable
from poolkit.lab.durable import write_atomic
from poolkit.lab.record import RunError, read_json, to_json
from poolkit.lab.run import machine, now

if TYPE_CHECKING:
    from poolkit.lab.evolve import Evolution, Request, Trial

FORMAT = 1
REQUEST, WINNER, PICTURE, LOG = "evolve.json", "winner.json", "search.png", "log.txt"
_NET = re.compile(r"net-[0-9]{4,}\.json")
_ANYTHING = Callable[[str], None]


def claim(
    folder: Path,
    request: Request,
    data_sha256: str,
    resume: bool,
    command: str | None,
    note: _ANYTHING,
    device: str = "cpu",
) -> list[Trial]:
    """The finished nets of a folder, in their order, once it is sure that it may be written to.

    Arguments: as `poolkit.lab.evolve.evolve`; `data_sha256`, of the pictures as they were parted.
    Raises `RunError`: it cannot be written, holds other files, a search and `resume` is False, or another search.
    """
    import optuna

    asked = {"request": request.as_dict(), "data_sha256": data_sha256}
    present = {**machine(torch.device(device)), "optuna": optuna.__version__}
    try:
        known = (folder / REQUEST).exists()
        if folder.exists() and not known:
            _refuse_files_of_others(folder)
        folder.mkdir(parents=True, exist_ok=True)
        durable.try_writing(folder)
        durable.remove_leftovers(folder)
        if not known:
            beside = {"command": command, "started": now(), "machine": present}
            write_atomic(folder / REQUEST, to_json({"format": FORMAT, **asked, **beside}))
            return []
    except OSError as error:
        raise RunError(f"The folder {folder} cannot be used ({error}).\n  Choose another one with --out.") from None
    if not resume:
        raise RunError(
            f"{folder} holds a search already.\n  Go on with it: --resume (in Python: resume=True), or choose another "
            "folder with --out."
        )
    _same(folder, read_json(folder / REQUEST), asked, present, note)
    return _trials(folder)


def _refuse_files_of_others(folder: Path) -> None:
    if names := sorted(path.name for path in folder.iterdir() if not durable.is_leftover(path)):
        some = ", ".join(names[:5])
        raise RunError(f"{folder} is not empty and holds no search: {some}.\n  Choose another folder with --out.")


def _same(folder: Path, there: dict[str, Any], asked: dict[str, Any], present: dict[str, Any], note: _ANYTHING) -> None:
    """Refuse a folder that holds the search of another request; note another version or device than at its start."""
    if there.get("format") != FORMAT:
        raise RunError(f"{folder / REQUEST} has format {there.get('format')!r}, this poolkit reads {FORMAT}.")
    flat = [{**(one.get("request") or {}), "the data's SHA-256": one.get("data_sha256")} for one in (there, asked)]
    if different := [key for key in {**flat[0], **flat[1]} if flat[0].get(key) != flat[1].get(key)]:
        lines = "".join(f"\n  {key}: there {flat[0].get(key)!r}, asked for {flat[1].get(key)!r}" for key in different)
        raise RunError(f"{folder} holds another search.{lines}\n  Ask for the same, or choose another --out.")
    was = there.get("machine") or {}
    for key in ("poolkit", "optuna", "torch", "threads", "processor", "device"):
        if was.get(key) != present[key]:
            note(f"The search began with {key} {was.get(key)}, now it is {present[key]}: it may go on differently.")


def _trials(folder: Path) -> list[Trial]:
    """The finished nets; raises `RunError` for a damaged file and for one that is missing between others."""
    from poolkit.lab.evolve import Trial

    found: list[Trial] = []
    for number, path in enumerate(sorted((p for p in folder.iterdir() if _NET.fullmatch(p.name)), key=_number)):
        values = read_json(path)
        try:
            trial = Trial(**{**values, "accuracies": tuple(values["accuracies"])})
            fits = trial.number == number == _number(path) and 0.0 <= trial.accuracy <= 1.0
        except (KeyError, TypeError) as error:
            raise RunError(f"{path} is damaged ({error}).\n  Delete it and the nets after it, then --resume.") from None
        if not fits:
            raise RunError(f"{path} is not the net number {number}.\n  Delete it and the nets after it, then --resume.")
        found.append(trial)
    return found


def _number(path: Path) -> int:
    return int(path.stem.partition("-")[2])


def add(folder: Path, trial: Trial, best: Trial, request: Request) -> None:
    """Write a finished net, and a line of the log. Raises `RunError` where the disk refuses."""
    try:
        write_atomic(folder / f"net-{trial.number:04d}.json", to_json({**vars(trial)}))
        with (folder / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{now()}  {line(trial, best, request)}\n")
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error}).\n  Make room, then go on with --resume.") from error


def line(trial: Trial, best: Trial, request: Request) -> str:
    """A finished net in one line."""
    width, of = len(str(request.nets)), f"{request.nets}"
    again = "" if trial.seconds else "  (as before)"
    return (
        f"generation {trial.generation}/{request.generations}  net {trial.number + 1:{width}}/{of}"
        f"  accuracy {trial.accuracy:.1%}  best {best.accuracy:.1%}  {trial.pool}{again}"
    )


def finish(folder: Path, found: Evolution) -> None:
    """Write the picture and then the winner. Raises `RunError` where the disk refuses."""
    from poolkit.report.search import picture

    try:
        write_atomic(folder / PICTURE, picture(found))
        write_atomic(folder / WINNER, to_json({"format": FORMAT, "poolkit": poolkit.__version__, **found.as_dict()}))
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error}).\n  Make room, then go on with --resume.") from error
