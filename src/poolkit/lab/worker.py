"""A process of a study: cells in, the files of their results out. It writes nothing to the disk.

A worker reads lines of JSON, first its `Job`, then cells, and answers with frames: a line of JSON, and behind a result
the bytes of its files. When its input ends, its study has ended or was killed: then it ends too, at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from poolkit.lab.data import load
from poolkit.lab.device import peak_on, settle
from poolkit.lab.origin import changed
from poolkit.lab.recipe import Recipe
from poolkit.lab.run import Run, evaluate
from poolkit.lab.study import Cell, ProbeSettings, failure, seal
from poolkit.lab.train import Progress, Trainer, Watch, data_record, own_randomness, train
from poolkit.lab.validation import Pictures, hold_out

_OFTEN = 0.2  # seconds between two lines of progress


@dataclass(frozen=True)
class Job:
    """What all runs of a worker share.

    Fields: `study`, the SHA-256 of study.toml; `data` and `data_sha256`, the name and hash of what it sees of the data;
    `data_dir`, where copies may lie; `probes`, None for no measures of robustness; `device`; `threads` of this worker
    and `workers`, how many there are; `command`, the command line to record; `tuning`, whether the test pictures stay
    closed; `sources`, as in `poolkit.lab.origin.Origin`.
    """

    study: str
    data: str
    data_sha256: str
    data_dir: str | None
    probes: ProbeSettings | None
    device: str
    threads: int
    workers: int
    command: str | None
    tuning: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a line of JSON."""
        return {**vars(self), "probes": vars(self.probes) if self.probes else None}

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Job:
        """The job of such values."""
        probes = ProbeSettings(**given["probes"]) if given["probes"] else None
        return cls(**{**given, "probes": probes})


def carry_out(cell: Cell, job: Job, data: Pictures, watch: Watch | None = None) -> dict[str, bytes]:
    """Execute a cell: the files of its result by name, run.json the last.

    What cannot be trained is a result too, a failed run with its message.
    Arguments: `cell` and `job`; `data`, the ones it names; `watch`, told of the progress.
    """
    began = time.perf_counter()
    probes: Mapping[str, np.ndarray] | None = None
    measured: dict[str, float | None] = {"train_seconds": None, "test_seconds": None, "peak_memory_bytes": None}
    try:
        place = torch.device(job.device)
        _warm_up(cell.recipe, data, place)
        peak = peak_on(place)
        run = train(cell.recipe, data, device=job.device, watch=watch, command=job.command)
        measured["peak_memory_bytes"] = peak.grown()
        if run.status == "finished":
            model = run.model().to(place)
            measured |= _timed(run, model, data, place)
            probes = _probed(model, data, job.probes)
    except Exception as error:  # a method may refuse a map or a net in any way: the study says so and goes on
        message = f"{type(error).__name__}: {error}"
        run, probes = failure(cell, data_record(cell.recipe, data), message, job.command), None
    measured |= {"workers": job.workers, "threads": job.threads, "seconds": time.perf_counter() - began}
    return seal(cell, job.study, run, probes, measured)


def _warm_up(recipe: Recipe, data: Pictures, place: torch.device) -> None:
    """One step and one test: what is compiled or loaded once is neither a method's time nor its memory."""
    with own_randomness(place):
        trainer = Trainer(
            dataclasses.replace(recipe, limit=min(recipe.batch, recipe.limit or recipe.batch)), data, place
        )
        trainer.steps(1, torch.arange(trainer.n))
        evaluate(trainer.model, data.eval_x[:1], data.eval_y[:1])


def _timed(run: Run, model: nn.Module, data: Pictures, place: torch.device) -> dict[str, float | None]:
    """How long the training took without the tests, and how long one test takes, on the device of the training."""
    training, tests = sum(run.data["train"] / row["images_per_second"] for row in run.epochs), []
    for _ in range(3):
        settle(place)
        before = time.perf_counter()
        evaluate(model, data.eval_x, data.eval_y)
        settle(place)
        tests.append(time.perf_counter() - before)
    return {"train_seconds": training, "test_seconds": median(tests)}


def _probed(model: nn.Module, data: Any, settings: ProbeSettings | None) -> Mapping[str, np.ndarray] | None:
    if settings is None:
        return None
    from poolkit.lab.probes import probe

    return probe(model, data, settings)


class _Told(Watch):
    """Sends the progress of a run, not too often."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self._send, self._last = send, 0.0

    def step(self, progress: Progress) -> None:
        if time.monotonic() - self._last >= _OFTEN:
            self._last = time.monotonic()
            self._send({"kind": "progress", "progress": vars(progress)})

    def epoch(self, row: dict[str, Any]) -> None:
        self._send({"kind": "epoch", "epoch": row["epoch"], "accuracy": row["test_accuracy"]})


def main() -> None:
    """Serve the study at the other end of stdin and stdout until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the study decides when we end
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not meet the frames

    def send(message: dict[str, Any], files: Mapping[str, bytes] | None = None) -> None:
        write_frame(channel, message, files)

    inbox: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(inbox,), daemon=True).start()
    job = Job.from_dict(inbox.get())
    try:
        data = _ready(job)
    except (Exception, SystemExit) as reason:
        print(" ".join(str(reason).split()), file=sys.stderr, flush=True)
        os._exit(1)  # the other thread waits for stdin: an ordinary end would be an abort, and hide the reason
    send({"kind": "ready"})
    while True:
        asked = inbox.get()
        cell = Cell(asked["label"], Recipe.from_dict(asked["recipe"]), asked["key"])
        send({"kind": "result"}, carry_out(cell, job, data, _Told(send)))


def _listen(inbox: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin.buffer:
        inbox.put(json.loads(line))
    os._exit(0)  # in the midst of a run: nobody wants its result any more


def _ready(job: Job) -> Pictures:
    from poolkit.lab.terminal import keep_memory

    torch.set_num_threads(job.threads)
    keep_memory()
    if names := changed(job.sources):
        raise SystemExit(f"The file of {names[0]}, where the net or a method comes from, changed while the study ran.")
    folder = Path(job.data_dir) if job.data_dir else None
    data = load(job.data, folder, download=False, test=not job.tuning)
    pictures: Pictures = hold_out(data) if job.tuning else data
    if pictures.sha256 != job.data_sha256:
        raise SystemExit(f'The data "{job.data}" changed while the study ran: their SHA-256 is another.')
    return pictures


def write_frame(channel: IO[bytes], message: dict[str, Any], files: Mapping[str, bytes] | None = None) -> None:
    """Write a message, and behind it the contents of files."""
    sizes = {name: len(content) for name, content in (files or {}).items()}
    channel.write(json.dumps({**message, "sizes": sizes}).encode() + b"\n")
    for content in (files or {}).values():
        channel.write(content)
    channel.flush()


def read_frame(channel: IO[bytes]) -> tuple[dict[str, Any], dict[str, bytes]] | None:
    """The next message with its files; None where the writer has gone, also in mid-frame."""
    line = channel.readline()
    if not line.endswith(b"\n"):
        return None
    message = json.loads(line)
    sizes = message.pop("sizes")
    files = {name: channel.read(size) for name, size in sizes.items()}
    return (message, files) if all(len(files[name]) == size for name, size in sizes.items()) else None
