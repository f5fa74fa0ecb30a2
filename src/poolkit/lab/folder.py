"""The folder that a run is written to: what it holds already, and whether we may write there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from poolkit.lab import checkpoint, durable
from poolkit.lab.checkpoint import Checkpoint
from poolkit.lab.recipe import Recipe
from poolkit.lab.run import RUN, Run, RunError, machine


def claim(
    folder: Path, recipe: Recipe, data_sha256: str, resume: bool, note: Callable[[str], None]
) -> Run | Checkpoint | None:
    """What a folder holds of this recipe, once it is sure that we may write there: a run, a checkpoint, or nothing.

    Arguments: `folder`, made if it is not there; `recipe` and `data_sha256`, of the run that is asked for;
    `resume`, whether to go on with what is there; `note`, told of damaged checkpoints and of another machine.
    Raises `RunError`: it cannot be written, holds files that are not a run's, holds a run and `resume` is
    False, or holds the run of another recipe.
    """
    try:
        finished = (folder / RUN).exists()
        if not finished and not checkpoint.exists(folder):
            _refuse_files_of_others(folder)
        folder.mkdir(parents=True, exist_ok=True)
        durable.try_writing(folder)
        durable.remove_leftovers(folder)
    except OSError as error:
        raise RunError(f"The folder {folder} cannot be used ({error}).\n  Choose another one with --out.") from None
    if not resume and (finished or checkpoint.exists(folder)):
        raise RunError(
            f"{folder} holds {'a run' if finished else 'an unfinished run'} already.\n"
            "  Go on with it: --resume (in Python: resume=True), or choose another folder with --out."
        )
    found: Run | Checkpoint | None = Run.load(folder) if finished else checkpoint.newest(folder, note)
    if isinstance(found, Run):
        _same_recipe(folder, recipe, data_sha256, found.recipe, found.data["sha256"])
        checkpoint.remove_all(folder)
    elif found:
        _same_recipe(folder, recipe, data_sha256, found.recipe, found.data_sha256)
        for key in ("poolkit", "torch", "threads", "processor"):
            if (then := found.machine.get(key)) != (now := machine(torch.device("cpu"))[key]):
                note(f"The run began with {key} {then}, now it is {now}: the last bits may differ.")
    return found


def write(folder: Path, save: Callable[[Path], object]) -> None:
    """Call `save(folder)`; raises `RunError` where the disk refuses."""
    try:
        save(folder)
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error}).\n  Make room, then go on with --resume.") from error


def _refuse_files_of_others(folder: Path, most: int = 5) -> None:
    """A run writes model.safetensors and more under fixed names: it shall meet no file that is not a run's."""
    if not folder.exists():
        return
    names = sorted(
        path.name for path in folder.iterdir() if not checkpoint.is_own(path) and not durable.is_leftover(path)
    )
    if names:
        some = ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
        raise RunError(
            f"{folder} is not empty and holds no run of poolkit's: {some}.\n  Choose another folder with --out."
        )


def _same_recipe(folder: Path, recipe: Recipe, sha256: str, old: dict[str, Any], old_sha256: str) -> None:
    new = {**recipe.as_dict(), "the data's SHA-256": sha256}
    old = {**old, "the data's SHA-256": old_sha256}
    if different := [key for key in {**old, **new} if old.get(key) != new.get(key)]:
        lines = "".join(f"\n  {key}: there {old.get(key)!r}, asked for {new.get(key)!r}" for key in different)
        raise RunError(f"{folder} holds a run of another recipe.{lines}\n  Ask for the same, or choose another --out.")
