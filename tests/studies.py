"""Studies with made-up predictions: runs as `poolkit compare` writes them, without a net being trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poolkit.lab.recipe import Recipe
from poolkit.lab.run import FORMAT, Evaluation, Run, final_metrics
from poolkit.lab.study import Cell, ProbeSettings, Request, Study, failure, seal, store
from poolkit.lab.tune import Tuning

CLASSES = ("cat", "dog", "<b>frog</b>", "ship")
SHAPE = (1, 8, 8)
DATA_SHA256 = "5" * 64
PROBES = ProbeSettings(shift_images=20, corrupt_images=10)


def made(
    folder: Path,
    methods: Mapping[str, float] | Sequence[str] = ("max", "avg", "soft"),
    seeds: int = 4,
    pictures: int = 200,
    failed: Sequence[tuple[str, int]] = (),
    missing: Sequence[tuple[str, int]] = (),
    others: Mapping[str, float | np.ndarray] | None = None,
    luck: Sequence[float] = (),
    **asked: Any,
) -> Study:
    """A study in a folder, with results that need no training.

    Arguments: `methods`, by name how much more than chance they see (0.7: about 78 % right); `seeds`; `pictures` of the
    test set; `failed` and `missing`, (label, seed) of runs that failed or are not there; `others`, by label, what a
    row sees instead, also for each picture; `luck`, what each seed adds to what all methods see; `asked`, more of
    `Request`, such as `probes=None` or `delta=0.5`.
    """
    skill = dict(methods) if isinstance(methods, Mapping) else dict.fromkeys(methods, 0.7)
    request = Request(
        tuple(skill),
        seeds,
        asked.pop("recipe", Recipe(data="made", epochs=2)),
        DATA_SHA256,
        **{"probes": PROBES, **asked},
    )
    study = Study.begin(folder, request)
    if request.tune:
        _tune(study, pictures)
    known = {name: value for name, value in zip(request.methods, skill.values(), strict=True)}
    for cell in study.cells():
        place = (cell.label, cell.recipe.seed)
        if place in missing:
            continue
        if place in failed:
            run, probes = failure(cell, data_record(pictures), "RuntimeError: the loss became <NaN>", "poolkit"), None
        else:
            seen = (others or {}).get(cell.label, known[request.method(cell.label)])
            seen = seen + (luck[cell.recipe.seed] if cell.recipe.seed < len(luck) else 0.0)
            run, probes = result(cell, seen, pictures, request.probes)
        store(study.path(cell), seal(cell, study.sha256, run, probes, measured(cell, run)))
    return study


def _tune(study: Study, pictures: int) -> None:
    """The trials of a study, each as good as its number says, and tuning.json."""
    tuning = Tuning(study)
    for cells in tuning.rows.values():
        for n, cell in enumerate(cells):
            run, _ = result(cell, 0.3 + 0.1 * (n % 3), pictures, None)
            run = dataclasses.replace(run, data={**run.data, "sha256": study.request.tune_data_sha256})
            store(tuning.path(cell), seal(cell, study.sha256, run, None, measured(cell, run)))
    tuning.choose()


def data_record(pictures: int) -> dict[str, Any]:
    """run.json's `data`."""
    return {
        "name": "made",
        "source": "made up",
        "sha256": DATA_SHA256,
        "caveat": "These pictures were never taken.",
        "classes": list(CLASSES),
        "shape": list(SHAPE),
        "train": 64,
        "test": pictures,
    }


def result(
    cell: Cell, skill: float | np.ndarray, pictures: int, asked: ProbeSettings | None
) -> tuple[Run, dict[str, np.ndarray] | None]:
    """A finished run with predictions of a skill, and what probes found."""
    world = np.random.default_rng(0)  # the test set is the same for all
    labels = world.integers(0, len(CLASSES), pictures)
    hardness = world.normal(0, 0.15, pictures)
    rng = np.random.default_rng([cell.recipe.seed, int(cell.key[:8], 16)])
    sees = rng.random(pictures) < np.clip(skill + hardness, 0, 1)
    scores = rng.normal(0, 0.5, (pictures, len(CLASSES)))
    scores[np.arange(pictures), labels] += 4.0 * sees
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return finished(cell, probabilities.astype(np.float32), labels), _probes(rng, labels, skill, asked)


def finished(cell: Cell, probabilities: np.ndarray, labels: np.ndarray) -> Run:
    """The finished run of a cell with these probabilities of the test pictures."""
    right = probabilities.argmax(1) == labels
    loss = -float(np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-30)).mean())
    evaluation = Evaluation(loss, float(right.mean()), probabilities)
    epochs = [_epoch(cell, e, evaluation) for e in range(1, cell.recipe.epochs + 1)]
    some = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), dtype=np.uint8)
    arrays = {
        "probabilities": probabilities.astype(np.float16),
        "labels": labels.astype(np.int64),
        "shown_index": np.arange(4),
        "shown_pixels": some,
        "sample_pixels": some,
        "sample_labels": np.arange(4),
    }
    return Run(
        format=FORMAT,
        poolkit="0.1.0",
        status="finished",
        message=None,
        recipe=cell.recipe.as_dict(),
        recipe_hash=cell.key,
        command="poolkit compare made",
        started="2026-01-01T00:00:00Z",
        finished="2026-01-01T00:01:00Z",
        seconds=60.0,
        data=data_record(len(labels)),
        layers=[{"layer": "pool1", "output": [1, 4, 4], "parameters": 0}],
        parameters=1234,
        epochs=epochs,
        final=final_metrics(evaluation, labels, CLASSES),
        overfitting=None,
        weights_sha256="0" * 64,
        machine={"platform": "made", "processor": "none", "device": "cpu", "torch": "2", "poolkit": "0.1.0"},
        arrays=arrays,
    )


def measured(cell: Cell, run: Run) -> dict[str, float | None]:
    """What the worker measures: slower for methods with long names, so that there is something to see."""
    beside: dict[str, float | None] = {"workers": 1, "threads": 1, "seconds": 70.0}
    names = ("train_seconds", "test_seconds", "peak_memory_bytes")
    if run.status != "finished":
        return {**dict.fromkeys(names), **beside}
    size = len(cell.recipe.pool) + 0.01 * cell.recipe.seed
    return {**dict(zip(names, (10 + size, 0.1 + size / 100, 1e6 * size), strict=True)), **beside}


def _epoch(cell: Cell, epoch: int, evaluation: Evaluation) -> dict[str, Any]:
    ends = epoch == cell.recipe.epochs
    return {
        "epoch": epoch,
        "train_loss": 2.0 / epoch,
        "train_accuracy": 0.3 + 0.1 * epoch,
        "test_loss": evaluation.loss if ends else 2.0,
        "test_accuracy": evaluation.accuracy if ends else 0.3,
        "seconds": 30.0,
        "images_per_second": 1000.0,
        "learned": {"pool1.beta": 1.0 + 0.1 * epoch} if "=learn" in cell.recipe.pool else {},
    }


def _probes(
    rng: np.random.Generator, labels: np.ndarray, skill: float | np.ndarray, asked: ProbeSettings | None
) -> dict[str, np.ndarray] | None:
    if asked is None:
        return None
    moves = np.array([(r, c) for r in range(-4, 5) for c in range(-4, 5)], dtype=np.int8)
    shifted, corrupted = (
        np.arange(min(n, len(labels)), dtype=np.int32) for n in (asked.shift_images, asked.corrupt_images)
    )
    return {
        "shift_index": shifted,
        "shift_moves": moves,
        "shift_classes": _mostly(rng, np.broadcast_to(labels[shifted], (81, len(shifted))), skill),
        "corrupt_index": corrupted,
        "corrupt_classes": _mostly(rng, np.broadcast_to(labels[corrupted], (15, 5, len(corrupted))), skill - 0.2),
    }


def _mostly(rng: np.random.Generator, labels: np.ndarray, share: float | np.ndarray) -> np.ndarray:
    """These labels, a share of them as they are, the others at random."""
    other = rng.integers(0, len(CLASSES), labels.shape)
    return np.where(rng.random(labels.shape) < share, labels, other).astype(np.uint16)
