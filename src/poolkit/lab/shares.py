"""Where the time of a training step goes, and what each pooling method makes of an epoch's time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

import poolkit
from poolkit.lab.bench import _rows
from poolkit.lab.recipe import Recipe, named
from poolkit.lab.run import machine
from poolkit.lab.stopwatch import Ratio, outside, take_turns
from poolkit.lab.train import Trainer, own_randomness

if TYPE_CHECKING:
    from poolkit.lab.data import Data

_WARM_UP = 5  # steps
_BACKWARD = "autograd::engine::evaluate_function: "
_DATA = {"aten::index_select", "aten::to", "aten::div_", "aten::permute", "aten::flip", "aten::where", "aten::view"}
_LOSS = {"aten::cross_entropy_loss", "aten::ones_like"}
_NET = {"aten::relu", "aten::relu_", "aten::flatten"}  # what the net does between its layers
OTHER = "Python and the rest"


def shares(data: Data, recipe: Recipe, steps: int = 20) -> dict[str, Any]:
    """Where the time of a recipe's training steps goes, by torch's profiler, on the CPU.

    A layer's backward pass is found through the numbers that autograd gives to operations, whatever they are
    called. The profiler itself slows a step down: `overhead` says how much, and it is part of every share.

    Arguments: `data`; `recipe`, of which as many pictures are used as the steps need; `steps`.
    Returns `parts`, the share of each ("conv1 forward", …, "loss", "optimiser", "data"; what no operation of torch's
    accounts for is "Python and the rest"; their sum is 1), largest first; `milliseconds` of a step without the
    profiler, and `overhead`, how many times as long it takes with it.
    Raises `ValueError` for fewer steps than 1, or fewer pictures than a batch.
    """
    if steps < 1 or len(data.train_x) < recipe.batch:
        raise ValueError(f"steps={steps}, batch={recipe.batch}: 1 step or more, a batch of at most {len(data.train_x)}")
    place = torch.device("cpu")
    with own_randomness(place):
        trainer = Trainer(dataclasses.replace(recipe, data=data.name), data, place)
        trainer.steps(1, _rows(data, _WARM_UP, recipe.batch))
        rows = _rows(data, steps, recipe.batch)
        plain = _seconds(trainer, rows)
        with _labelled(trainer.model), profile(activities=[ProfilerActivity.CPU]) as seen:
            slowed = _seconds(trainer, rows)
    found = _parts(seen.events(), {name for name, _ in trainer.model.named_children()})
    found[OTHER] = max(0.0, slowed * 1e6 - sum(found.values()))
    whole = sum(found.values())
    return {
        "recipe": trainer.recipe.as_dict(),
        "steps": steps,
        "parts": {name: us / whole for name, us in sorted(found.items(), key=lambda pair: -pair[1])},
        "milliseconds": 1e3 * plain / steps,
        "overhead": slowed / plain,
    }


def _seconds(trainer: Trainer, rows: torch.Tensor) -> float:
    began = time.perf_counter()
    trainer.steps(1, rows)
    return time.perf_counter() - began


@contextmanager
def _labelled(model: nn.Module) -> Iterator[None]:
    """In the profile each layer's forward pass is a range under the layer's name."""
    hooks = []
    for name, layer in model.named_children():
        span = record_function(name)
        hooks.append(layer.register_forward_pre_hook(lambda layer, given, span=span: span.__enter__() and None))
        hooks.append(layer.register_forward_hook(lambda *given, span=span: span.__exit__(None, None, None)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _parts(events: Any, layers: set[str]) -> dict[str, float]:
    """Microseconds of each part. `events` of torch's profiler, in the order in which they began."""
    found: dict[str, float] = {}
    owner: dict[int, str] = {}
    for event in events:
        if event.cpu_parent is not None:
            continue
        name, part = event.name, OTHER
        if name in layers:
            part = f"{name} forward"
            owner |= dict.fromkeys(_numbers(event), f"{name} backward")
        elif name.startswith(_BACKWARD):
            # AccumulateGrad has no number: its time is that of handing a gradient over.
            part = owner.get(event.sequence_nr, OTHER)
        elif name.startswith("Optimizer."):
            part = "optimiser"
        elif name in _LOSS | _NET | _DATA:
            part = "loss" if name in _LOSS else "data" if name in _DATA else "ReLU and flatten"
            # WHY for all: an operation that autograd does not follow shows the number of the next one that it does.
            owner |= dict.fromkeys(_numbers(event), part)
        if part != OTHER:
            found[part] = found.get(part, 0.0) + event.time_range.elapsed_us()
    return found


def _numbers(event: Any) -> Iterator[int]:
    if event.sequence_nr >= 0:
        yield event.sequence_nr
    for inner in event.cpu_children:
        yield from _numbers(inner)


def bench_profile(data: Data, steps: int = 20) -> dict[str, Any]:
    """`shares` of the tutorial's recipe and of "quick", with the machine and the date."""
    recipes = {name: named(name, data=data.name) for name in ("tutorial", "quick")}
    return {
        "profiles": {name: shares(data, recipe, steps) for name, recipe in recipes.items()},
        **_where(),
    }


def bench_methods(data: Data, steps: int = 30, rounds: int = 7, batch: int = 32) -> dict[str, Any]:
    """An epoch's training time with each window method, divided by that with max pooling.

    All train the tutorial's net by the tutorial's recipe, and take turns of `steps` in one process.

    Arguments: `data`; `steps` of each in a round; `rounds`, at least 6; `batch`, pictures a step.
    Returns `methods`: by name, the median ratio and its 95 % interval; the milliseconds of a step with max; the
    machine and the date. Raises `ValueError` for too few rounds, steps or pictures.
    """
    outside(rounds)
    if steps < 1 or batch < 1 or len(data.train_x) < batch:
        raise ValueError(f"steps={steps}, batch={batch}: at least 1 each, and a batch of at most {len(data.train_x)}")
    used = dataclasses.replace(data, train_x=data.train_x[: steps * batch], train_y=data.train_y[: steps * batch])
    rows, place = _rows(used, steps, batch), torch.device("cpu")
    names = list(poolkit.WINDOW_METHODS)
    with own_randomness(place):
        trainers = {name: Trainer(Recipe(data=data.name, pool=name, batch=batch), used, place) for name in names}
        for trainer in trainers.values():
            trainer.steps(1, _rows(used, _WARM_UP, batch))
        work = {name: (lambda trainer=trainer: trainer.steps(1, rows)) for name, trainer in trainers.items()}
        taken = take_turns(work, rounds, float("inf"))
    return {
        "batch": batch,
        "steps": steps,
        "rounds": len(taken["max"]),
        "methods": {name: dataclasses.asdict(Ratio.of(taken[name], taken["max"])) for name in names},
        "milliseconds_with_max": 1e3 * sorted(taken["max"])[len(taken["max"]) // 2] / steps,
        **_where(),
    }


def _where() -> dict[str, Any]:
    date = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"machine": machine(torch.device("cpu")), "date": date}


def place_in_words(found: dict[str, Any]) -> str:
    """Machine, versions and date of a measurement."""
    where = found["machine"]
    return (
        f"{where['processor']}, {where['cores']} cores, {where['threads']} threads, {where['platform']}\n"
        f"poolkit {where['poolkit']}, torch {where['torch']}, Python {where['python']}, {found['date']}"
    )
