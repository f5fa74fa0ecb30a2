"""Running a study: some hand out the runs that are missing, one writes the results, until nothing is missing."""

from __future__ import annotations

import json
import os
import queue
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from poolkit.lab import durable
from poolkit.lab.record import RunError, read_json
from poolkit.lab.run import RUN, now
from poolkit.lab.study import LOCK, LOG, Cell, failure, refuse_files_of_others, seal, store

_PATIENCE = 0.5  # seconds; a wait without an end would not hear Ctrl-C on Windows
_TRIES = 3  # of a run whose worker dies: more than once may be an accident of a machine that has too little memory
_STILLBORN = 2  # workers in a row that may end before they begin
_REMEDY = "If that was the machine's fault: the same command with --retry-failed runs it again."
_MOST_WORKERS = 8  # by default: each holds the data


class Hand(Protocol):
    """A worker: is given a cell at a time, and tells what became of it by events."""

    number: int

    def give(self, cell: Cell) -> None:
        """Have it execute a cell."""

    def end(self) -> None:
        """Stop it, whatever it does."""


@dataclass(frozen=True)
class Event:
    """What a worker tells.

    Fields: `hand`, which; `message`, of the `kind` "ready", "progress", "epoch", "result" or "gone" (`why`); `files`,
    of a result.
    """

    hand: Hand
    message: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)


Events = queue.Queue[Event]


class Observer:
    """Hears how a study goes. This one is silent; a subclass overrides what it wants to show."""

    def begin(self, total: int, done: int, workers: int) -> None:
        """Called once: so many runs are asked for, so many are there."""

    def given(self, hand: int, cell: Cell) -> None:
        """Called when a worker begins with a cell."""

    def progress(self, hand: int, cell: Cell, message: Mapping[str, Any]) -> None:
        """Called now and then while a cell is trained, with the worker's message."""

    def finished(self, hand: int, cell: Cell, record: Mapping[str, Any], done: int) -> None:
        """Called once a result, run.json's `record`, is safe on the disk: the `done`th."""

    def note(self, text: str) -> None:
        """Called with a warning in words."""


@dataclass(frozen=True)
class Task:
    """Cells to execute and where their results go.

    Fields: `cells`, the missing ones in their order; `total`, how many are asked for; `path`, the folder of a cell's
    result; `study`, the SHA-256 of study.toml; `data`, as in run.json; `command`, the command line to record; `log`, a
    file of plain lines.
    """

    cells: Sequence[Cell]
    total: int
    path: Callable[[Cell], Path]
    study: str
    data: dict[str, Any]
    command: str | None
    log: Path


def complete(task: Task, hire: Callable[[int, Events], Hand], workers: int, watch: Observer | None = None) -> None:
    """Execute the cells of a task.

    A run that fails is a result. A worker that dies costs the run that it was at, which is tried again after all the
    others, when the machine may have room, and recorded as failed after three times.
    Arguments: `task`; `hire`, makes the worker of a number, which tells its events to a queue; `workers`, how many at
    once; `watch`, told of the progress.
    Raises `RunError`: the disk refuses, or workers die before they can begin. What was finished is safe, also when this
    process is killed.
    """
    _Shift(task, hire, watch or Observer()).work(min(workers, len(task.cells)))


class _Shift:
    """The runs that wait, the workers, and what each is at."""

    def __init__(self, task: Task, hire: Callable[[int, Events], Hand], watch: Observer) -> None:
        self.task, self.hire, self.watch = task, hire, watch
        self.waiting = deque(task.cells)
        self.done = task.total - len(task.cells)
        self.events: Events = queue.Queue()
        self.hands: dict[int, Hand] = {}
        self.at: dict[int, Cell] = {}
        self.deaths: Counter[str] = Counter()
        self.stillborn = 0

    def work(self, workers: int) -> None:
        self.watch.begin(self.task.total, self.done, workers)
        try:
            for number in range(workers):
                self.hands[number] = self.hire(number, self.events)
            while self.waiting or self.at:
                try:
                    event = self.events.get(timeout=_PATIENCE)
                except queue.Empty:
                    continue
                if self.hands.get(event.hand.number) is event.hand:
                    self._heed(event)
        finally:
            for hand in self.hands.values():
                hand.end()

    def _heed(self, event: Event) -> None:
        number, kind = event.hand.number, event.message["kind"]
        if kind == "gone":
            self._bury(number, event.message["why"])
        elif kind == "ready":
            self.stillborn = 0
            self._give(number)
        elif kind == "result":
            self._keep(number, self.at.pop(number), event.files)
            self._give(number)
        else:
            self.watch.progress(number, self.at[number], event.message)

    def _give(self, number: int) -> None:
        if self.waiting:
            cell = self.at[number] = self.waiting.popleft()
            self.watch.given(number, cell)
            self.hands[number].give(cell)

    def _keep(self, number: int, cell: Cell, files: Mapping[str, bytes]) -> None:
        """The one place where results are written."""
        record = json.loads(files[RUN])
        try:
            store(self.task.path(cell), files)
            self.done += 1
            self._log(f"{cell.label}, seed {cell.recipe.seed}: {outcome(record)} ({self.done} of {self.task.total})")
        except OSError as error:
            raise RunError(f"{self.task.path(cell)} cannot be written ({error}).\n  Make room, then go on.") from error
        self.watch.finished(number, cell, record, self.done)

    def _bury(self, number: int, why: str) -> None:
        """A worker is gone: its run goes to the end of the queue, and another worker takes its place."""
        self.hands.pop(number).end()
        cell = self.at.pop(number, None)
        if cell is None:
            self.stillborn += 1
            if self.stillborn > _STILLBORN:
                raise RunError(f"Workers end before they can begin: {why}")
        else:
            self.deaths[cell.key] += 1
            name = f"{cell.label}, seed {cell.recipe.seed}"
            self._note(f"{name}: the process that trained it ended: {why}")
            if self.deaths[cell.key] < _TRIES:
                self.waiting.append(cell)
            else:
                message = f"The process that trained it ended {_TRIES} times: {why}\n  {_REMEDY}"
                run = failure(cell, self.task.data, message, self.task.command)
                self._keep(number, cell, seal(cell, self.task.study, run, None, {}))
        if self.waiting:
            self.hands[number] = self.hire(number, self.events)

    def _note(self, text: str) -> None:
        self._log(text)
        self.watch.note(text)

    def _log(self, text: str) -> None:
        write_line(self.task.log, text)


def write_line(log: Path, text: str) -> None:
    """Add a line with the time to a study's log; raises `OSError`."""
    with log.open("a", encoding="utf-8") as lines:
        lines.write(f"{now()} {' '.join(text.split())}\n")


def failures(cells: Iterable[Cell], path: Callable[[Cell], Path]) -> list[Cell]:
    """The cells whose result is a failed run; raises `RunError` for a damaged one."""
    there = [cell for cell in cells if (path(cell) / RUN).exists()]
    return [cell for cell in there if read_json(path(cell) / RUN).get("status") == "failed"]


def forget(failed: Iterable[tuple[Cell, Path]], log: Path) -> None:
    """Make failed results, cells with their folders, missing again, each with a line in the log; raises `RunError`."""
    for cell, folder in failed:
        record = folder / RUN
        why = read_json(record).get("message")
        try:
            write_line(log, f"{cell.label}, seed {cell.recipe.seed}: to be run again, its result is deleted: {why}")
            record.unlink()  # what makes a folder a result; the rest is replaced with it
        except OSError as error:
            raise RunError(f"{record} cannot be deleted ({error}).") from error


def outcome(record: Mapping[str, Any]) -> str:
    """What a run came to, from run.json: "accuracy 71.2 %, 35 s", or how it failed."""
    if record["status"] == "failed" or record["final"] is None:
        return f"failed: {record['message']}"
    return f"accuracy {record['final']['accuracy']:.1%}, {record['seconds']:.1f} s"


def refuse_unusable(folder: Path) -> None:
    """Raise `RunError` for what can be no study's folder: a file, one that cannot be read or holds other files."""
    try:
        refuse_files_of_others(folder)
    except OSError as error:
        raise RunError(f"The folder {folder} cannot be used ({error}).\n  Choose another one with --out.") from None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only process that runs the study in a folder, which is made if it is not there.

    The system frees the lock when its process ends, however it ends: no stale one can be left.
    Raises `RunError`: another process is at it, or the folder cannot be written, or holds other files.
    """
    refuse_unusable(folder)
    try:
        durable.make_folder(folder)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise RunError(
            f"Another process runs the study in {folder}.\n  Wait for it (its progress: {folder / LOG}), or stop it."
        ) from None
    except OSError as error:
        raise RunError(f"The folder {folder} cannot be used ({error}).\n  Choose another one with --out.") from None
    try:
        yield
    finally:
        lock.release()


def share_cores(workers: int | None, threads: int | None) -> tuple[int, int]:
    """Workers and threads of each, such that together they are as many as the cores that this process may use.

    One thread each by default, on up to eight cores: nets of this size gain most so, and the last bits of a result do
    not depend on the number of workers.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers is None:
        workers = max(1, cores // threads) if threads else min(cores, _MOST_WORKERS)
    return workers, threads or max(1, cores // workers)
