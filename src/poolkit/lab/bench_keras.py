"""How fast training is next to Keras: the tutorial's net by `fit` on TensorFlow, and by poolkit, in turn."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from poolkit.lab import keras_fit
from poolkit.lab.bench import our_loop
from poolkit.lab.bench_keras_layers import last_words
from poolkit.lab.recipe import named
from poolkit.lab.run import machine, now
from poolkit.lab.stopwatch import Ratio, block, outside
from poolkit.lab.train import own_randomness, train

if TYPE_CHECKING:
    from poolkit.lab.data import Data

_EPOCHS = 10  # the tutorial's
_HOW = (
    "  It may have an environment of its own: python3 -m venv tf && tf/bin/pip install tensorflow-cpu\n"
    "  then: poolkit bench training --keras --keras-python tf/bin/python"
)
_WARM_UP = 20  # steps; the first also compiles Keras's graph


class KerasMissing(Exception):
    """TensorFlow cannot be used; the message says how to get it."""


class Keras:
    """A process in which Keras trains the tutorial's net, and waits while it is not its turn.

    WHY a process: in one with torch, both libraries' threads would share the cores, and the memory allocator that
    `poolkit train` tunes would serve TensorFlow too. It waits on a pipe and takes no time while poolkit is timed.

    Arguments: `data`; `python`, the interpreter that has TensorFlow, by default this one.
    Raises `KerasMissing`.
    """

    def __init__(self, data: Data, python: str | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="poolkit-keras-")
        folder = Path(self._folder.name)
        np.save(folder / "x.npy", np.ascontiguousarray(data.train_x.transpose(0, 2, 3, 1)))
        np.save(folder / "y.npy", data.train_y)
        self._errors = (folder / "stderr").open("w+", encoding="utf-8", errors="replace")
        words = [python or sys.executable, keras_fit.__file__, str(folder)]
        try:
            self._process: Any = subprocess.Popen(  # noqa: S603 - our own file, in the Python that the user chose
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
            )
        except OSError as reason:
            self._errors.close()
            self._folder.cleanup()
            raise KerasMissing(f"{words[0]} cannot be started: {reason.strerror}\n{_HOW}") from reason
        try:
            self.versions = self._answer()
        except KerasMissing:
            self.close()
            raise

    def fit(self, pictures: int, batch: int) -> float:
        """The seconds of `fit` for one pass over the first so many pictures."""
        self._process.stdin.write(f"{pictures} {batch}\n")
        self._process.stdin.flush()
        return float(self._answer()["seconds"])

    def _answer(self) -> dict[str, Any]:
        if line := self._process.stdout.readline():
            return dict(json.loads(line))
        self._errors.seek(0)
        raise KerasMissing(f"Keras on TensorFlow cannot be used: {last_words(self._errors.read())}\n{_HOW}")

    def close(self) -> None:
        """End the process and delete its files."""
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()


def bench_keras(
    data: Data, steps: int = 200, rounds: int = 7, batch: int = 32, python: str | None = None
) -> dict[str, Any]:
    """Compare poolkit's training with Keras's `fit` of the same net, on the same pictures and batches.

    A round times poolkit's steps, `fit` over as many pictures, and one whole training by the recipe "quick" with
    a seed of its own (its first layer, its epoch and its test included). The order turns from round to round.
    `fit` is timed without its tests and without its first, compiling call.

    Arguments: `data`; `steps` a round; `rounds`, at least 6; `batch`; `python`, the interpreter with TensorFlow.
    Returns the rounds; the median images per second of both; `ratio`, poolkit's divided by Keras's, and `quick`,
    the seconds that Keras needs for the tutorial's 10 epochs divided by quick's seconds, each a median with a
    95 % interval; the test accuracies of `quick`; versions, machine, date.
    Raises `KerasMissing`; `ValueError` for too few rounds, steps or pictures.
    """
    outside(rounds)
    pictures = min(steps, len(data.train_x) // max(batch, 1)) * batch
    if steps < 1 or batch < 1 or pictures < batch:
        raise ValueError(f"steps={steps}, batch={batch}: at least 1 each, and a batch of at most {len(data.train_x)}")
    rival = Keras(data, python)
    try:
        with own_randomness(torch.device("cpu")):
            measured = _rounds(data, rival, rounds, pictures, batch)
    finally:
        rival.close()
    epochs = [_EPOCHS * len(data.train_x) / row["keras"] for row in measured]
    quick = [row["quick_seconds"] for row in measured]
    return {
        "net": "tutorial",
        "pool": "max",
        "batch": batch,
        "pictures": pictures,
        "rounds": measured,
        "poolkit_images_per_second": statistics.median(row["poolkit"] for row in measured),
        "keras_images_per_second": statistics.median(row["keras"] for row in measured),
        "ratio": asdict(Ratio.of([row["poolkit"] for row in measured], [row["keras"] for row in measured])),
        "keras_seconds_for_10_epochs": statistics.median(epochs),
        "quick_seconds": statistics.median(quick),
        "quick": asdict(Ratio.of(epochs, quick)),
        "quick_accuracy": [row["quick_accuracy"] for row in measured],
        "versions": rival.versions,
        "machine": machine(torch.device("cpu")),
        "date": now(),
    }


def _rounds(data: Data, rival: Keras, rounds: int, pictures: int, batch: int) -> list[dict[str, float]]:
    """What each round measured: images per second of both, and quick's seconds and accuracy."""
    loop = our_loop(data, batch)

    def ours() -> dict[str, float]:
        return {"poolkit": pictures / block(lambda: loop(pictures // batch))}

    def keras() -> dict[str, float]:
        return {"keras": pictures / rival.fit(pictures, batch)}

    def quick(seed: int) -> dict[str, float]:
        began = time.perf_counter()
        run = train(named("quick", data=data.name, seed=seed), data)
        seconds = time.perf_counter() - began
        return {"quick_seconds": seconds, "quick_accuracy": run.final["accuracy"] if run.final else 0.0}

    loop(_WARM_UP)
    rival.fit(min(_WARM_UP * batch, pictures), batch)
    rival.fit(pictures, batch)
    train(named("quick", data=data.name, limit=batch), data)
    found = []
    for seed in range(rounds):
        turns = [ours, keras] if seed % 2 == 0 else [keras, ours]
        row: dict[str, float] = {}
        for turn in turns:
            row |= turn()
        found.append(row | quick(seed))
    return found


def in_words(found: dict[str, Any]) -> str:
    """What `bench_keras` found."""
    ratio, quick, seen, where = found["ratio"], found["quick"], found["quick_accuracy"], found["machine"]
    return (
        f"poolkit trains {ratio['median']:.2f} times as fast as Keras's fit on TensorFlow, both at batch "
        f"{found['batch']} (95 % interval of the median: {ratio['low']:.2f} to {ratio['high']:.2f}, "
        f"{len(found['rounds'])} rounds)\n"
        f"  images/s: poolkit {found['poolkit_images_per_second']:,.0f}, "
        f"Keras {found['keras_images_per_second']:,.0f}\n"
        f"the recipe quick takes {found['quick_seconds']:.1f} s; Keras takes {quick['median']:.1f} times as long for "
        f"{_EPOCHS} epochs, {found['keras_seconds_for_10_epochs']:.0f} s ({quick['low']:.1f} to {quick['high']:.1f})\n"
        f"  quick's test accuracy over {len(seen)} seeds: mean {statistics.mean(seen):.1%}, "
        f"{min(seen):.1%} to {max(seen):.1%}\n"
        f"  Keras ran in a process of its own, and waited while poolkit was timed\n"
        f"  {where['processor']}, {where['cores']} cores, {where['threads']} threads, {where['platform']}\n"
        f"  poolkit {where['poolkit']}, torch {where['torch']}, Keras {found['versions']['keras']}, "
        f"TensorFlow {found['versions']['tensorflow']}, {found['date']}"
    )
