"""How fast training is: our loop against a plain PyTorch loop of the same net, on this machine."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from poolkit.lab.chance import order, seed_of
from poolkit.lab.nets import build
from poolkit.lab.recipe import OPTIMISERS
from poolkit.lab.run import as_input, machine
from poolkit.lab.train import learn, own_randomness, seed_layers

if TYPE_CHECKING:
    from poolkit.lab.data import Data

_WARM_UP = 20  # steps before each loop is timed for the first time

Loop = Callable[[int], "torch.Tensor"]


def bench_training(data: Data, steps: int = 200, rounds: int = 7, batch: int = 32) -> dict[str, Any]:
    """Compare the images per second of `train`'s loop with those of a plain, well-written PyTorch loop.

    Both train the tutorial's net with max pooling from the same weights. The plain loop has what a careful
    user writes: `nn.MaxPool2d`, all pictures as one float32 tensor in PyTorch's default layout, batches by
    index, fused Adam, no waiting for numbers inside the loop. They take turns in one process, so that a
    change of the machine's speed meets both.

    Arguments: `data`; `steps` a loop and round; `rounds`, at least 6; `batch`, pictures a step.
    Returns images per second of both (medians over the rounds), the median `ratio` (above 1: ours is
    faster) and an interval that covers the true median with at least 95 % (order statistics of the paired
    ratios, exact for any distribution), all rounds, the machine and the date.
    Raises `ValueError` for too few rounds, steps or pictures; `RuntimeError` if the loops do not compute
    the same.
    """
    low = _rank(rounds)
    if steps < 1 or batch < 1 or len(data.train_x) < batch:
        raise ValueError(f"steps={steps}, batch={batch}: at least 1 each, and a batch of at most {len(data.train_x)}")
    with own_randomness(torch.device("cpu")):
        loops = (_ours(data, batch), _plain(data, batch))
        _agree(*(float(loop(1)) for loop in loops))
        for loop in loops:
            loop(_WARM_UP)
        speeds = [tuple(_speed(loop, steps, batch) for loop in loops) for _ in range(rounds)]
        if not all(bool(loop(1).isfinite()) for loop in loops):
            raise RuntimeError("a loop's loss stopped being finite while it was timed")
    ratios = sorted(ours / plain for ours, plain in speeds)
    return {
        "net": "tutorial",
        "pool": "max",
        "batch": batch,
        "steps": steps,
        "rounds": [{"poolkit": ours, "plain": plain} for ours, plain in speeds],
        "poolkit_images_per_second": statistics.median(ours for ours, _ in speeds),
        "plain_images_per_second": statistics.median(plain for _, plain in speeds),
        "ratio": statistics.median(ratios),
        "interval": [ratios[low], ratios[-1 - low]],
        "machine": machine(torch.device("cpu")),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def _rank(rounds: int) -> int:
    """How many of the smallest and of the largest values may lie outside a 95 % interval of the median."""
    if rounds < 6:
        raise ValueError(f"rounds={rounds}: fewer than 6 give no 95 % interval of a median")
    low = 0
    while sum(math.comb(rounds, k) for k in range(low + 2)) <= 0.025 * 2**rounds:
        low += 1
    return low


def _ours(data: Data, batch: int) -> Loop:
    """The inner loop of `train`, step by step the same calls."""
    model = build("tutorial", "max", data.shape, len(data.classes), seed=0)
    model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = OPTIMISERS["adam"](model.parameters(), 1e-3)
    pictures = torch.as_tensor(data.train_x).permute(0, 2, 3, 1).contiguous()
    labels = torch.as_tensor(data.train_y)
    place = torch.device("cpu")

    def loop(steps: int) -> torch.Tensor:
        rows = torch.from_numpy(order(0, 1, len(labels))).split(batch)
        losses, right = torch.zeros(steps), torch.zeros((), dtype=torch.int64)
        for step in range(steps):
            chosen = rows[step % (len(labels) // batch)]
            seed_layers(place, seed_of(0, 1, step, "pool"))
            loss, hits = learn(model, optimiser, as_input(pictures[chosen]), labels[chosen])
            losses[step] = loss * len(chosen)
            right += hits
        return losses[0] / batch

    return loop


def _plain(data: Data, batch: int) -> Loop:
    model = build("tutorial", lambda: nn.MaxPool2d(2), data.shape, len(data.classes), seed=0).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=True)
    pictures, labels = torch.as_tensor(data.train_x).float() / 255, torch.as_tensor(data.train_y)

    def loop(steps: int) -> torch.Tensor:
        rows = torch.from_numpy(order(0, 1, len(labels))).split(batch)
        losses, right = torch.zeros(steps), torch.zeros((), dtype=torch.int64)
        for step in range(steps):
            chosen = rows[step % (len(labels) // batch)]
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


def _agree(ours: float, plain: float) -> None:
    """A loop that computes something else is no comparison."""
    if not math.isclose(ours, plain, rel_tol=1e-4):
        raise RuntimeError(f"the two loops do not compute the same: first loss {ours} and {plain}")
