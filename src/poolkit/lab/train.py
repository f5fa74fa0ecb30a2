"""Training: a recipe and a data set in, a run out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import poolkit
from poolkit import own
from poolkit.lab import checkpoint, other_nets
from poolkit.lab.chance import coins, order, seed_of
from poolkit.lab.checkpoint import Checkpoint
from poolkit.lab.folder import claim, write
from poolkit.lab.nets import build, layers, learned, whiten
from poolkit.lab.optimisers import OPTIMISERS
from poolkit.lab.recipe import Recipe
from poolkit.lab.run import (
    FORMAT,
    Evaluation,
    Run,
    as_input,
    evaluate,
    final_metrics,
    finite,
    machine,
    now,
    overfitting,
    plain_state,
    prediction_arrays,
    weights_sha256,
)
from poolkit.lab.schedules import SCHEDULES

if TYPE_CHECKING:
    from poolkit.lab.validation import Pictures

__all__ = ["Progress", "Recipe", "Watch", "learn", "train"]

_GROUP = 25  # steps between two looks at the loss; each look waits for the device


@dataclass(frozen=True)
class Progress:
    """Where a training run is, how fast it trains, and in how many seconds it should end (`eta`)."""

    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_second: float
    eta: float


class Watch:
    """An observer of a training run. This one is silent; a subclass overrides what it wants to show."""

    def step(self, progress: Progress) -> None:
        """Called every 25 steps and after the last of an epoch."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Called after each epoch, once its checkpoint is on the disk, with its row of run.json."""

    def note(self, text: str) -> None:
        """Called with a warning in words: a damaged checkpoint, another version than at the start."""


def train(
    recipe: Recipe,
    data: Pictures,
    folder: Path | str | None = None,
    resume: bool = False,
    device: str = "cpu",
    watch: Watch | None = None,
    command: str | None = None,
) -> Run:
    """Execute a recipe: train its net on a data set and test it after each epoch.

    The loss is the cross-entropy; pixels are divided by 255. All randomness follows from the recipe's seed,
    so that the same recipe gives the same weights, bit for bit, on the same machine with the same number of
    threads, also when the run was stopped (Ctrl-C, `kill -9`, power cut) and resumed: at most the epoch at
    work is done again. The numbers are those of the last epoch, never of the best. The caller's random
    state is untouched.

    Arguments: `recipe`; `data`, the ones it names; `folder`, where to write the run, None for memory only;
    `resume`, go on with the run in `folder` (a finished one is returned, an empty folder just starts);
    `device`, a torch device; `watch`, told of the progress; `command`, the command line to record.
    Returns the run; one whose loss stopped being finite has the status "failed", which is a result too.
    Raises `RunError`: the folder holds files that are not a run's, or a run and `resume` is False, or another
    recipe, or cannot be written; `ValueError`: data that are not the recipe's.
    """
    watch, place = watch or Watch(), torch.device(device)
    folder = None if folder is None else Path(folder)
    _check_data(recipe, data)
    recipe = trusted(recipe)
    found = claim(folder, recipe, data.sha256, resume, watch.note) if folder else None
    if isinstance(found, Run):
        return found
    started, epochs = (found.started, list(found.epochs)) if found else (now(), [])
    trainer, message = Trainer(recipe, data, place), None
    if found:
        checkpoint.restore(found.tensors, trainer.model, trainer.optimiser)

    with own_randomness(place):
        for epoch in range(len(epochs) + 1, recipe.epochs + 1):
            try:
                row = _epoch(trainer, data, epoch, watch)
            except _Diverged as reason:
                message = str(reason)
                break
            epochs.append(row)
            if folder:
                tensors = checkpoint.tensors_of(trainer.model, trainer.optimiser)
                state = Checkpoint(recipe.as_dict(), data.sha256, epochs, started, machine(place), tensors)
                write(folder, state.write)
            watch.epoch(row)

    run = _result(recipe, data, trainer, epochs, started, message, command)
    if folder:
        write(folder, run.save)
        checkpoint.remove_all(folder)
        run = dataclasses.replace(run, folder=folder)
    return run


def trusted(recipe: Recipe) -> Recipe:
    """Let the code run that a recipe names as its net or as methods; the recipe with those as they are spelled.

    Raises `ValueError`: there is no such method.
    """
    other_nets.allow(recipe.net)
    for method in filter(own.names_own, [*recipe.pool.split("|"), recipe.head]):
        own.read(method)
    return dataclasses.replace(recipe)


class Trainer:
    """A recipe's net, its optimiser and its training pictures on one device.

    Arguments: `recipe` and `data`; `place`, the device.
    """

    def __init__(self, recipe: Recipe, data: Pictures, place: torch.device) -> None:
        self.recipe, self.place, self.n = recipe, place, _used(recipe, data)
        # Channels-last is a quarter faster here than PyTorch's default layout, in the convolutions and in the
        # pools. The pictures stay uint8 until they are in a batch: as fast as float32 throughout, for a quarter
        # of the memory.
        self.pictures = torch.as_tensor(data.train_x[: self.n]).permute(0, 2, 3, 1).contiguous().to(place)
        self.labels = torch.as_tensor(data.train_y[: self.n]).to(place)
        model = build(recipe.net, recipe.pool, data.shape, len(data.classes), recipe.seed, recipe.head, recipe.pool_at)
        self.model: nn.Module = model.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.start == "whitened":
            whiten(self.model, self.pictures)
        learning = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = OPTIMISERS[recipe.optimiser](learning, recipe.lr)
        self.tested: Evaluation | None = None  # of the weights as they are now
        pools = (getattr(layer, "method", None) for layer in self.model.modules())
        self.random = any(getattr(method, "draws", None) is not None for method in pools)

    def steps(self, epoch: int, rows: Tensor, look: Callable[[int, Tensor], None] | None = None) -> tuple[Tensor, int]:
        """Train on the pictures `rows`, a batch a step; what the benchmark times.

        Arguments: `epoch`, which random layers draw from; `rows`, indices int64 in their order; `look`, told
        every 25 steps and after the last the step and the losses so far.
        Returns the loss of each step times its pictures, and the number of right answers.
        """
        self.model.train()
        batches = rows.to(self.place).split(self.recipe.batch)
        losses = torch.zeros(len(batches), device=self.place)
        right = torch.zeros((), dtype=torch.int64, device=self.place)
        mirrored, tally = self._mirrored(epoch), _Tally(losses, right)
        for step, chosen in enumerate(batches, start=1):
            if self.random:
                seed_layers(self.place, seed_of(self.recipe.seed, epoch, step, "pool"))
            if self.recipe.schedule != "constant":
                self._set_rate(epoch, step)
            pixels, y = self.pictures.index_select(0, chosen), self.labels.index_select(0, chosen)
            if mirrored is not None:
                pixels = torch.where(mirrored.index_select(0, chosen), pixels.flip(2), pixels)
            tally.add(*learn(self.model, self.optimiser, as_input(pixels), y), y)
            if step % _GROUP == 0 or step == len(batches):
                tally.write(step)
                if look:
                    look(step, losses)
        return losses, int(right)

    def _mirrored(self, epoch: int) -> Tensor | None:
        """Which pictures this epoch shows mirrored, bool (n, 1, 1, 1); None: the recipe mirrors none."""
        if not self.recipe.flip:
            return None
        return torch.from_numpy(coins(self.recipe.seed, epoch, self.n, "flip")).view(-1, 1, 1, 1).to(self.place)

    def _set_rate(self, epoch: int, step: int) -> None:
        """The learning rate in the middle of a step, from how much of the run is done."""
        each = -(-self.n // self.recipe.batch)
        done = ((epoch - 1) * each + step - 0.5) / (self.recipe.epochs * each)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.lr * SCHEDULES[self.recipe.schedule](done)


def _epoch(trainer: Trainer, data: Pictures, epoch: int, watch: Watch) -> dict[str, Any]:
    """Train for an epoch and test: its row of run.json. Raises `_Diverged`."""
    recipe, n = trainer.recipe, trainer.n
    clock = _Clock(recipe, epoch, n)

    def look(step: int, losses: Tensor) -> None:
        if message := _diverged(recipe, epoch, step, losses):
            raise _Diverged(message)
        watch.step(clock.progress(step))

    losses, right = trainer.steps(epoch, torch.from_numpy(order(recipe.seed, epoch, n)), look)
    training = clock.seconds()
    tested = trainer.tested = evaluate(trainer.model, data.eval_x, data.eval_y)
    return {
        "epoch": epoch,
        "train_loss": finite(float(losses.cpu().double().sum()) / n),
        "train_accuracy": right / n,
        "test_loss": finite(tested.loss),
        "test_accuracy": tested.accuracy,
        "seconds": clock.seconds(),
        "images_per_second": n / training,
        "learned": learned(trainer.model),
    }


class _Tally:
    """What some steps in a row have found, summed up at once: a small operation takes as long as one on all of them."""

    def __init__(self, losses: Tensor, right: Tensor) -> None:
        self.losses, self.right = losses, right
        self.found: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, loss: Tensor, scores: Tensor, y: Tensor) -> None:
        self.found.append((loss, scores, y))

    def write(self, step: int) -> None:
        """The losses of the steps up to `step`, times their pictures, and the right answers."""
        losses, scores, labels = zip(*self.found, strict=True)
        sizes = torch.tensor([len(y) for y in labels], dtype=losses[0].dtype)
        self.losses[step - len(losses) : step] = torch.stack(losses) * sizes.to(self.losses.device)
        self.right += (torch.cat(scores).argmax(1) == torch.cat(labels)).sum()
        self.found.clear()


def learn(model: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """One step. Returns the batch's mean loss and its scores, both still on the device.

    Arguments: `model`, in training mode; `optimiser` of its parameters; `x`, float32 (n, C, H, W); `y`,
    int64 (n,).
    """
    scores = model(x)
    loss = F.cross_entropy(scores, y)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.detach(), scores.detach()


class _Diverged(Exception):
    """The loss stopped being finite; the message is the run's."""


class _Clock:
    """How long an epoch has taken, and how long the rest of the run will."""

    def __init__(self, recipe: Recipe, epoch: int, n: int) -> None:
        self.recipe, self.epoch, self.n = recipe, epoch, n
        self.steps = -(-n // recipe.batch)
        self.began = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def progress(self, step: int) -> Progress:
        done = min(step * self.recipe.batch, self.n)
        rate = done / max(self.seconds(), 1e-9)
        left = (self.recipe.epochs - self.epoch + 1) * self.n - done
        return Progress(self.epoch, self.recipe.epochs, step, self.steps, rate, left / rate)


@contextmanager
def own_randomness(place: torch.device) -> Iterator[None]:
    """The caller's random state is kept, and convolutions on a GPU give the same sums each time."""
    devices = [_index(place)] if place.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        yield


def seed_layers(place: torch.device, seed: int) -> None:
    """Seed what random layers draw from; `torch.manual_seed` would also reach devices that are not ours."""
    torch.default_generator.manual_seed(seed)
    if place.type == "cuda":
        torch.cuda.default_generators[_index(place)].manual_seed(seed)


def _index(place: torch.device) -> int:
    return torch.cuda.current_device() if place.index is None else place.index


def _diverged(recipe: Recipe, epoch: int, step: int, losses: Tensor) -> str | None:
    """A sentence if a loss so far is not finite."""
    if bool(losses.sum().isfinite()):
        return None
    return (
        f"The training loss stopped being a finite number in epoch {epoch}, at step {step} or up to "
        f"{_GROUP - 1} before. A learning rate smaller than {recipe.lr:g} usually helps."
    )


def _check_data(recipe: Recipe, data: Pictures) -> None:
    if data.name != recipe.data:
        raise ValueError(f'The recipe wants the data "{recipe.data}", these are "{data.name}".\n  Load what it names.')
    if not len(data.train_x) or not len(data.eval_x):
        raise ValueError(f'The data "{data.name}" have no pictures to train on, or none to test on.')


def _used(recipe: Recipe, data: Pictures) -> int:
    return min(len(data.train_x), recipe.limit or len(data.train_x))


def _result(
    recipe: Recipe,
    data: Pictures,
    trainer: Trainer,
    epochs: list[dict[str, Any]],
    started: str,
    message: str | None,
    command: str | None,
) -> Run:
    """The run as it is after its last epoch, or, with a message, after it failed."""
    model = trainer.model
    weights = None if message else plain_state(model)
    # Nothing was tested yet where the run had been stopped after its last epoch.
    tested = None if message else trainer.tested or evaluate(model, data.eval_x, data.eval_y)
    return Run(
        format=FORMAT,
        poolkit=poolkit.__version__,
        status="failed" if message else "finished",
        message=message,
        recipe=recipe.as_dict(),
        recipe_hash=recipe.hash(data.sha256),
        command=command,
        started=started,
        finished=now(),
        seconds=sum(row["seconds"] for row in epochs),
        data=data_record(recipe, data),
        layers=layers(model, data.shape),
        parameters=sum(p.numel() for p in model.parameters()),
        epochs=epochs,
        final=final_metrics(tested, data.eval_y, data.classes) if tested else None,
        overfitting=overfitting(epochs) if tested else None,
        weights_sha256=weights_sha256(weights) if weights else None,
        machine=machine(next(model.parameters()).device),
        weights=weights,
        arrays=prediction_arrays(tested, data) if tested else None,
    )


def data_record(recipe: Recipe, data: Pictures) -> dict[str, Any]:
    """run.json's `data`: what is known of the data, and how many pictures of it are used."""
    return {
        "name": data.name,
        "source": data.source,
        "sha256": data.sha256,
        "caveat": data.caveat,
        "classes": list(data.classes),
        "shape": list(data.shape),
        "train": _used(recipe, data),
        "test": len(data.eval_x),
    }
