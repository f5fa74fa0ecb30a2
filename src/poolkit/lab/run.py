"""A run: one recipe executed. Reading and writing its folder, and what its numbers mean."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

import poolkit
from poolkit import own
from poolkit.lab import other_nets
from poolkit.lab.durable import write_atomic
from poolkit.lab.nets import FLATTEN, assemble, build
from poolkit.lab.record import RunError, check_arrays, check_record, layout, read_arrays, read_json, to_json

FORMAT = 1
RUN, WEIGHTS, PREDICTIONS = "run.json", "model.safetensors", "predictions.npz"
_MAX_HEADER = 1_000_000  # bytes of safetensors' header; the format would allow a hundred times more
_MAX_WEIGHTS = 8_000_000_000  # bytes of model.safetensors: no net of ours comes near
_MAX_ARRAYS = 2_000_000_000  # bytes of predictions.npz once unpacked: a small file can claim any size
_EVALUATE = 500  # pictures at a time: their maps just fit into a processor's cache


class Evaluation(NamedTuple):
    """A net's answers: mean cross-entropy, accuracy from 0 to 1, probabilities float32 (N, classes)."""

    loss: float
    accuracy: float
    probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class Run:
    """One recipe executed: what run.json holds, under the same names, and the way to the arrays beside it.

    Fields, in run.json's order: `status`, "finished" or "failed" (then `message` says how); `recipe`,
    `recipe_hash`; `command`, None if Python asked; `started`, `finished`, UTC; `seconds` spent in epochs;
    `data`; `layers`, `parameters`; `epochs`, one row each; `final`, None for a failed run; `overfitting`,
    None or a sentence; `weights_sha256`; `machine`. `folder` is where it lies, None for a run in memory
    only.
    """

    format: int
    poolkit: str
    status: str
    message: str | None
    recipe: dict[str, Any]
    recipe_hash: str
    command: str | None
    started: str
    finished: str
    seconds: float
    data: dict[str, Any]
    layers: list[dict[str, Any]]
    parameters: int
    epochs: list[dict[str, Any]]
    final: dict[str, Any] | None
    overfitting: str | None
    weights_sha256: str | None
    machine: dict[str, Any]
    folder: Path | None = None
    weights: Mapping[str, Tensor] | None = field(default=None, repr=False)
    arrays: Mapping[str, np.ndarray] | None = field(default=None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The content of run.json, keys in its order."""
        return {name: getattr(self, name) for name in _KEYS}

    def save(self, folder: Path) -> Run:
        """Write model.safetensors and predictions.npz, then run.json, which makes the folder a run.

        Raises `OSError` when the disk refuses.
        """
        if self.weights is not None:
            write_atomic(folder / WEIGHTS, safetensors.torch.save(dict(self.weights)))
        if self.arrays is not None:
            write_atomic(folder / PREDICTIONS, pack(self.arrays))
        write_atomic(folder / RUN, to_json(self.as_dict()))
        return dataclasses.replace(self, folder=folder)

    @staticmethod
    def load(folder: Path | str) -> Run:
        """The run that lies in a folder.

        Raises `RunError`: no run there, not finished yet, damaged, or written by a newer poolkit.
        """
        folder = Path(folder)
        record = read_json(folder / RUN, "A run that was interrupted goes on with --resume (in Python: resume=True).")
        if record.get("format") != FORMAT:
            raise RunError(
                f"{folder / RUN} has format {record.get('format')!r}, this poolkit reads format {FORMAT}.\n"
                "  Use the poolkit that wrote it, or train again."
            )
        if set(record) != set(_KEYS):
            wrong = ", ".join(sorted(set(record) ^ set(_KEYS)))
            raise RunError(f"{folder / RUN} is not a run: missing or unknown keys {wrong}.\n  Train again.")
        check_record(record, folder / RUN)
        return Run(**record, folder=folder)

    def model(self) -> nn.Module:
        """The trained net, in evaluation mode, on the CPU.

        Raises `RunError`: the run failed, or its weights are missing, damaged or those of another net.
        """
        weights = self.state()
        net, pool, shape, classes = self._net()
        model = build(net, pool, shape, classes, self.recipe["seed"], self._head, self._at)
        model.load_state_dict(weights)
        return model.eval()

    def state(self) -> dict[str, Tensor]:
        """The trained net's weights by name, found to be those that run.json names.

        Raises `RunError`, as `model`.
        """
        # A folder may ask for a net of any size: its weights must be there before room for it is taken.
        wanted = self._empty().state_dict()
        weights = self.weights if self.weights is not None else self._read_weights(wanted)
        _check_fit(weights, wanted, f"The weights of {self.folder or 'this run'}")
        if weights_sha256(weights) != self.weights_sha256:
            raise RunError(f"The weights in {self.folder} are not those that run.json names: damaged or exchanged.")
        return dict(weights)

    def _net(self) -> tuple[str, str, tuple[int, int, int], int]:
        return self.recipe["net"], self.recipe["pool"], tuple(self.data["shape"]), len(self.data["classes"])

    @property
    def _head(self) -> str:
        return str(self.recipe.get("head", FLATTEN))

    @property
    def _at(self) -> str:
        return str(self.recipe.get("pool_at", ""))

    def _empty(self) -> nn.Module:
        """The net without memory for its weights: only their names, types and shapes."""
        net, pool, shape, classes = self._net()
        if not other_nets.is_allowed(net):
            raise RunError(
                f'The net of {self.folder or "this run"} is the code "{net}", which only runs where you say so.\n'
                "  If you trust it: --trust-net (in Python: poolkit.lab.other_nets.allow(run.recipe['net']))."
            )
        for method in (pool, self._head):
            if not own.is_allowed(method):
                raise RunError(
                    f'A method of {self.folder or "this run"} is the code "{method}", which only runs where you say '
                    f"so.\n  If you trust it: --trust-net (in Python: poolkit.own.allow({method!r}))."
                )
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                return assemble(net, pool, shape, classes, self._head, self._at)
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise RunError(f"The net of {self.folder or 'this run'} cannot be built: {error}") from None

    def _read_weights(self, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        path = self._file(WEIGHTS)
        expected = sum(t.numel() * t.element_size() for t in wanted.values())
        if path.stat().st_size > min(expected, _MAX_WEIGHTS) + _MAX_HEADER:
            raise RunError(f"{path} is larger than this net's {expected:,} bytes of weights. It is not this run's.")
        try:
            return safetensors.torch.load(path.read_bytes())
        except (SafetensorError, ValueError, KeyError, OSError) as error:
            raise RunError(f"{path} is damaged ({error}).\n  Train the recipe again.") from None

    def predictions(self) -> dict[str, np.ndarray]:
        """The arrays of predictions.npz by name: `probabilities` float16 (N, classes), `labels` …

        Raises `RunError`: the run failed, or the file is missing or damaged.
        """
        if self.arrays is not None:
            return dict(self.arrays)
        path = self._file(PREDICTIONS)
        arrays = read_arrays(path, layout(self.data), _MAX_ARRAYS)
        check_arrays(arrays, self.data, path)
        return arrays

    def _file(self, name: str) -> Path:
        if self.status != "finished" or self.folder is None:
            raise RunError(f"This run has no {name}: {self.message or 'it was not written to a folder'}")
        if not (self.folder / name).is_file():
            raise RunError(f"{self.folder / name} is missing.\n  Copy the run's whole folder, or train again.")
        return self.folder / name


_KEYS = tuple(f.name for f in dataclasses.fields(Run) if f.name not in ("folder", "weights", "arrays"))


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The content of an .npz; equal arrays, equal bytes."""
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    return packed.getvalue()


def finite(value: float) -> float | None:
    """The value, or None where it is NaN or infinite: run.json's null."""
    return float(value) if math.isfinite(value) else None


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """The SHA-256 of weights: over name, type, shape and bytes (C order) of each tensor, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype.name} {','.join(map(str, array.shape))}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a net's state on the CPU in C order, fit for a file."""
    return {
        name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in model.state_dict().items()
    }


def _check_fit(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    if names := sorted(set(given) ^ set(wanted)):
        raise RunError(f"{what} are those of another net: missing or unknown {', '.join(names)}.")
    for name, tensor in wanted.items():
        if (given[name].shape, given[name].dtype) != (tensor.shape, tensor.dtype):
            got, want = (f"{t.dtype} {list(t.shape)}" for t in (given[name], tensor))
            raise RunError(f"{what} are those of another net: {name} is {got}, this net has {want}.")


def as_input(pixels: Tensor) -> Tensor:
    """What a net takes, float32 from 0 to 1 of shape (N, C, H, W), from uint8 pixels (N, H, W, C)."""
    return pixels.to(torch.float32).div_(255).permute(0, 3, 1, 2)


def evaluate(model: nn.Module, x: np.ndarray | Tensor, y: np.ndarray | Tensor) -> Evaluation:
    """A net's loss, accuracy and probabilities on pictures.

    Arguments: `model`, on any device, left in the mode it was in; `x`, uint8 (N, C, H, W); `y`, int64 (N,).
    """
    device = next(model.parameters()).device
    pixels, labels = torch.as_tensor(x).permute(0, 2, 3, 1), torch.as_tensor(y).cpu()
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            parts = pixels.split(_EVALUATE)
            scores = torch.cat([model(as_input(part.to(device).contiguous())).float().cpu() for part in parts])
            loss = F.cross_entropy(scores.double(), labels)
            probabilities = scores.softmax(1)
    finally:
        model.train(was_training)
    right = (probabilities.argmax(1) == labels).double().mean()
    return Evaluation(float(loss), float(right), probabilities.numpy().copy())


def final_metrics(evaluation: Evaluation, labels: np.ndarray, classes: Iterable[str]) -> dict[str, Any]:
    """run.json's `final`: loss, accuracy, precision, recall and F1 of each class, the confusion matrix.

    Rows of the matrix are true classes. A class never predicted has precision 0, one never there recall 0.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    names = list(classes)
    kinds = list(range(len(names)))
    predicted = evaluation.probabilities.argmax(1)
    scores = precision_recall_fscore_support(labels, predicted, labels=kinds, zero_division=0)
    columns = ("precision", "recall", "f1", "support")
    rows = zip(names, *(column.tolist() for column in scores), strict=True)
    return {
        "loss": finite(evaluation.loss),
        "accuracy": evaluation.accuracy,
        "per_class": [{"class": name, **dict(zip(columns, row, strict=True))} for name, *row in rows],
        "confusion": confusion_matrix(labels, predicted, labels=kinds).tolist(),
    }


def prediction_arrays(evaluation: Evaluation, data: Any) -> dict[str, np.ndarray]:
    """The arrays of predictions.npz: all probabilities, and the pictures that a report shows.

    Arguments: `evaluation` of the pictures it is judged by; `data`, where they come from.
    """
    exact, labels = evaluation.probabilities, data.eval_y
    predicted, confidence = exact.argmax(1), exact.max(1)
    # The right ones are the first in the order of the test set, so nobody chose them. The wrong ones are
    # the most confident mistakes, because those are the ones to learn from; equal confidence in the order
    # of the test set.
    right = np.flatnonzero(predicted == labels)[:12]
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:12]
    shown = np.concatenate([right, wrong])
    return {
        "probabilities": _half(exact),
        "labels": labels.astype(np.int64),
        "shown_index": shown.astype(np.int64),
        "shown_pixels": data.eval_x[shown],
        "sample_pixels": data.train_x[:25],
        "sample_labels": data.train_y[:25].astype(np.int64),
    }


def _half(probabilities: np.ndarray) -> np.ndarray:
    """float16 with the predicted class still the largest: who counts again finds the same accuracy."""
    half = probabilities.astype(np.float16)
    rows = np.arange(len(half))
    best = probabilities.argmax(1)
    tied = half.argmax(1) != best
    half[rows[tied], best[tied]] = np.nextafter(half[rows[tied], best[tied]], np.float16(2))
    return half


def overfitting(epochs: list[dict[str, Any]]) -> str | None:
    """A sentence if the test loss rose 3 % or more from its minimum while the training loss fell; or None."""
    rows = [row for row in epochs if row["test_loss"] is not None and row["train_loss"] is not None]
    if not rows:
        return None
    best, last = min(rows, key=lambda row: row["test_loss"]), rows[-1]
    if last["test_loss"] < 1.03 * best["test_loss"] or last["train_loss"] >= best["train_loss"]:
        return None
    train, test = last["train_accuracy"], last["test_accuracy"]
    return (
        f"The training loss kept falling, but the test loss rose again after epoch {best['epoch']}, from "
        f"{best['test_loss']:.3f} to {last['test_loss']:.3f}: the net learns its training pictures by heart. "
        f"At the end it is right on {_percent(train)} of the training pictures and on {_percent(test)} of "
        f"the test pictures, {100 * (train - test):.1f} points fewer."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u202f%"  # a narrow space that does not break, as in the report


def predict(run: Run, pixels: np.ndarray) -> tuple[int, np.ndarray]:
    """The class that a run's net sees in one picture.

    Arguments: `run`, a finished run; `pixels`, uint8 (C, H, W) of the shape it was trained on.
    Returns the class's index in `run.data["classes"]` and the probabilities, float32 (classes,).
    Raises `RunError`: another shape or type, or a run without weights.
    """
    shape, classes = tuple(run.data["shape"]), len(run.data["classes"])
    if pixels.dtype != np.uint8 or pixels.shape != shape:
        raise RunError(
            f"This net was trained on uint8 pictures of shape {shape} (channels, height, width), this "
            f"one is {pixels.dtype} {pixels.shape}.\n"
            f"  Read it with poolkit.lab.pictures.read_picture(path, {shape})."
        )
    evaluation = evaluate(run.model(), pixels[None], np.zeros(1, np.int64))
    probabilities = evaluation.probabilities.reshape(classes)
    return int(probabilities.argmax()), probabilities


def machine(device: torch.device) -> dict[str, Any]:
    """Where a run ran: platform, processor, cores, threads, device, and versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": name,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "poolkit": poolkit.__version__,
    }


def now() -> str:
    """The time in UTC, to the second: `2026-01-31T12:00:00Z`."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _processor() -> str:
    """The processor's name; Linux keeps it where `platform` does not look."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
