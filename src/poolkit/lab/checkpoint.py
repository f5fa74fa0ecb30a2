"""Checkpoints: what an interrupted run needs to go on as if nothing had happened."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from poolkit.lab.durable import write_atomic
from poolkit.lab.run import RunError, read_json, to_json

_FORMAT = 1
_KEPT = 2
# Exactly what `write` names its files: everything else in the folder belongs to the user.
_NAME = re.compile(r"checkpoint-([0-9]{4,})\.(json|safetensors)")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run after one of its epochs.

    Fields: `recipe`, as a dict; `data_sha256`; `epochs`, the rows of run.json so far, whose number is the
    epoch; `started`, UTC; `machine`, as in run.json; `tensors`, weights and the optimiser's state by name.
    """

    recipe: dict[str, Any]
    data_sha256: str
    epochs: list[dict[str, Any]]
    started: str
    machine: dict[str, Any]
    tensors: dict[str, Tensor]

    def write(self, folder: Path) -> None:
        """Write this checkpoint durably, then delete all but the last two.

        The manifest comes after the tensors it names, so that a manifest without them cannot be. Raises
        `OSError`.
        """
        epoch = len(self.epochs)
        stem = f"checkpoint-{epoch:04d}"
        packed = safetensors.torch.save(self.tensors)
        manifest = {
            "format": _FORMAT,
            "recipe": self.recipe,
            "data_sha256": self.data_sha256,
            "epochs": self.epochs,
            "started": self.started,
            "machine": self.machine,
            "tensors": f"{stem}.safetensors",
            "tensors_sha256": hashlib.sha256(packed).hexdigest(),
        }
        write_atomic(folder / f"{stem}.safetensors", packed)
        write_atomic(folder / f"{stem}.json", to_json({**manifest, "sha256": _digest(manifest)}))
        for old in _own(folder, "json")[:-_KEPT]:
            _remove(old)


def newest(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint of a folder, or None; `warn` is told of each damaged one stepped over."""
    for manifest in reversed(_own(folder, "json")):
        try:
            return _read(manifest)
        except RunError as reason:
            warn(f"{reason}\n  Going on from the checkpoint before it.")
    return None


def exists(folder: Path) -> bool:
    """Whether a folder holds any checkpoint, whole or not."""
    return bool(_own(folder, "json"))


def remove_all(folder: Path) -> None:
    """Delete a folder's checkpoints, manifests first, and no other file."""
    for path in (*_own(folder, "json"), *_own(folder, "safetensors")):
        path.unlink(missing_ok=True)


def is_own(path: Path) -> bool:
    """Whether a file has a name that only checkpoints have."""
    return bool(_NAME.fullmatch(path.name)) and path.is_file()


def _own(folder: Path, suffix: str) -> list[Path]:
    """A folder's checkpoint files of one kind, the oldest first; epoch 10000 comes after epoch 9999."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted((p for p in paths if p.suffix == f".{suffix}" and is_own(p)), key=_epoch)


def _epoch(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _remove(manifest: Path) -> None:
    manifest.unlink(missing_ok=True)
    manifest.with_suffix(".safetensors").unlink(missing_ok=True)


def _read(path: Path) -> Checkpoint:
    manifest = read_json(path)
    if manifest.pop("sha256", None) != _digest(manifest):
        raise RunError(f"{path} is damaged: its SHA-256 is wrong.")
    if manifest["format"] != _FORMAT:
        raise RunError(f"{path} has format {manifest['format']!r}, this poolkit reads {_FORMAT}.")
    tensors = path.with_suffix(".safetensors")
    try:
        packed = tensors.read_bytes()
        if hashlib.sha256(packed).hexdigest() != manifest["tensors_sha256"]:
            raise RunError(f"{tensors} is damaged: its SHA-256 is not the one in {path.name}.")
        loaded = safetensors.torch.load(packed)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{tensors} cannot be read ({error}).") from None
    names = ("recipe", "data_sha256", "epochs", "started", "machine")
    return Checkpoint(**{name: manifest[name] for name in names}, tensors=loaded)


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(to_json(manifest)).hexdigest()


def tensors_of(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """A net's state (`net/NAME`) and its optimiser's (`optimiser/PARAMETER/KEY`), on the CPU in C order."""
    live = {f"net/{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state[parameter].items():
            live[f"optimiser/{name}/{key}"] = value
    return {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in live.items()}


def restore(tensors: dict[str, Tensor], model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Put back what `tensors_of` took, into the memory layout that the net has now."""
    model.load_state_dict({n.partition("/")[2]: t for n, t in tensors.items() if n.startswith("net/")})
    for name, parameter in model.named_parameters():
        prefix = f"optimiser/{name}/"
        for full, tensor in tensors.items():
            if full.startswith(prefix):
                # A fused step walks parameter and state together, so both need the same strides.
                like = parameter if tensor.shape == parameter.shape else tensor
                kept = torch.empty_like(like, device=parameter.device, requires_grad=False)
                optimiser.state[parameter][full.removeprefix(prefix)] = kept.copy_(tensor)
