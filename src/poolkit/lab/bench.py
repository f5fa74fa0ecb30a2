"""How fast training is: our steps against plain PyTorch loops of the same net, on this machine."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from poolkit.lab.chance import order
from poolkit.lab.nets import build
from poolkit.lab.recipe import Recipe
from poolkit.lab.run import machine, now
from poolkit.lab.stopwatch import Ratio, outside
from poolkit.lab.train import Trainer, own_randomness

if TYPE_CHECKING:
    from poolkit.lab.data import Data

_WARM_UP = 20  # steps before each loop is timed for the first time
_OURS = "poolkit"

Loop = Callable[[int], "torch.Tensor"]


def bench_training(data: Data, steps: int = 200, rounds: int = 7, batch: int = 32) -> dict[str, Any]:
    """Compare the images per second of `train`'s steps with those of two plain, well-written PyTorch loops.

    All train the tutorial's net with max pooling from the same weights. The plain loops have what a careful
    user writes: `nn.MaxPool2d`, all pictures as one float32 tensor, batches by index, fused Adam, no waiting
    for numbers inside the loop; one keeps PyTorch's default layout, the other is channels-last throughout.
    They take turns in one process, so that a change of the machine's speed meets all.

    Arguments: `data`; `steps` a loop and round; `rounds`, at least 6; `batch`, pictures a step.
    Returns the median images per second of `poolkit`, `plain` and `plain_channels_last`; for each plain loop
    the median `ratio_to_…` (above 1: ours is faster) and an `interval_to_…` that covers the true median with
    at least 95 % (order statistics of the paired ratios); `ratio` and `interval`, those to the faster of the
    two, whose name is `faster_plain`; all rounds, the machine and the date.
    Raises `ValueError` for too few rounds, steps or pictures; `RuntimeError` if the loops compute other losses.
    """
    outside(rounds)
    if steps < 1 or batch < 1 or len(data.train_x) < batch:
        raise ValueError(f"steps={steps}, batch={batch}: at least 1 each, and a batch of at most {len(data.train_x)}")
    with own_randomness(torch.device("cpu")):
        loops = {
            _OURS: our_loop(data, batch),
            "plain": _plain(data, batch, torch.contiguous_format),
            "plain_channels_last": _plain(data, batch, torch.channels_last),
        }
        _agree([float(loop(1)) for loop in loops.values()])
        for loop in loops.values():
            loop(_WARM_UP)
        speeds = [{name: _speed(loop, steps, batch) for name, loop in loops.items()} for _ in range(rounds)]
        if not all(bool(loop(1).isfinite()) for loop in loops.values()):
            raise RuntimeError("a loop's loss stopped being finite while it was timed")
    return {
        "net": "tutorial",
        "pool": "max",
        "batch": batch,
        "steps": steps,
        "rounds": speeds,
        **_summary(speeds),
        "machine": machine(torch.device("cpu")),
        "date": now(),
    }


def _summary(speeds: list[dict[str, float]]) -> dict[str, Any]:
    """Median speeds, and the ratios of ours to each other loop."""
    medians = {name: statistics.median(row[name] for row in speeds) for name in speeds[0]}
    found: dict[str, Any] = {f"{name}_images_per_second": speed for name, speed in medians.items()}
    others = [name for name in medians if name != _OURS]
    for name in others:
        ratio = Ratio.of([row[_OURS] for row in speeds], [row[name] for row in speeds])
        found[f"ratio_to_{name}"] = ratio.median
        found[f"interval_to_{name}"] = [ratio.low, ratio.high]
    fastest = max(others, key=medians.__getitem__)
    found |= {"faster_plain": fastest, "ratio": found[f"ratio_to_{fastest}"]}
    return {**found, "interval": found[f"interval_to_{fastest}"]}


def epoch_rows(data: Data, steps: int, batch: int) -> torch.Tensor:
    """The pictures of so many whole batches, in the order of epoch 1, again and again."""
    n = len(data.train_x)
    once = torch.from_numpy(order(0, 1, n))[: n // batch * batch]
    return once.repeat(-(-steps * batch // len(once)))[: steps * batch]


def our_loop(data: Data, batch: int) -> Loop:
    """What `train` calls in each epoch."""
    trainer = Trainer(Recipe(data=data.name, batch=batch), data, torch.device("cpu"))

    def loop(steps: int) -> torch.Tensor:
        return trainer.steps(1, epoch_rows(data, steps, batch))[0][0] / batch

    return loop


def _plain(data: Data, batch: int, layout: torch.memory_format) -> Loop:
    """A loop as one writes it by hand, with pictures and net in a memory layout."""
    model = build("tutorial", lambda: nn.MaxPool2d(2), data.shape, len(data.classes), seed=0).train()
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=True)
    pictures = (torch.as_tensor(data.train_x).float() / 255).contiguous(memory_format=layout)
    labels = torch.as_tensor(data.train_y)

    def loop(steps: int) -> torch.Tensor:
        losses, right = torch.zeros(steps), torch.zeros((), dtype=torch.int64)
        for step, chosen in enumerate(epoch_rows(data, steps, batch).split(batch)):
            x, y = pictures[chosen], labels[chosen]
            scores = model(x)
            loss = F.cross_entropy(scores, y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[step] = loss.detach() * len(y)
            right += (scores.argmax(1) == y).sum()
        return losses[0] / batch

    return loop


def _speed(loop: Loop, steps: int, batch: int) -> float:
    began = time.perf_counter()
    loop(steps)
    return steps * batch / (time.perf_counter() - began)


def _agree(losses: list[float]) -> None:
    """A loop that computes something else is no comparison."""
    if not all(math.isclose(loss, losses[0], rel_tol=1e-4) for loss in losses):
        raise RuntimeError(f"the loops do not compute the same: first losses {losses}")
