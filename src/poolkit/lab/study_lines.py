"""A study in the terminal: how it goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from poolkit import console
from poolkit.lab.compare import Observer, outcome
from poolkit.lab.study import Cell
from poolkit.report.words import duration


class Lines(Observer):
    """A line for each run that is done."""

    def __init__(self) -> None:
        self.total, self.workers, self.first, self.began = 0, 1, 0, time.monotonic()

    def begin(self, total: int, done: int, workers: int) -> None:
        """Say what there is to do."""
        self.total, self.workers, self.first, self.began = total, workers, done, time.monotonic()
        if left := total - done:
            console.remark(f"{total} runs, {done} already here, {left} to do, {workers} at once")

    def finished(self, hand: int, cell: Cell, record: Mapping[str, Any], done: int) -> None:
        """Write what the run came to, and how long the rest should take."""
        console.remark(self.line(cell, record, done))

    def note(self, text: str) -> None:
        """Write a warning."""
        console.remark(f"note: {text}")

    def line(self, cell: Cell, record: Mapping[str, Any], done: int) -> str:
        """A run in one line."""
        message = " ".join(outcome(record).split())
        return f"{done}/{self.total}  {cell.label}  seed {cell.recipe.seed}  {message}{self.left(done)}"

    def left(self, done: int) -> str:
        """How long the rest should take, from the pace so far."""
        if done == self.total or done <= self.first:
            return ""
        pace = (time.monotonic() - self.began) / (done - self.first)
        return f"  {duration(pace * (self.total - done))} left"


class Starts(Lines):
    """A line for each run that is given to a cluster and one when it is done: what happens between, no task tells."""

    def given(self, hand: int, cell: Cell) -> None:
        """Say that a run was given away."""
        console.remark(f"given  {cell.label}  seed {cell.recipe.seed}")


class Bars(Lines):
    """A line for each run that is done, and below them a bar for each that is at work.

    Arguments: `rich`, a running `rich.progress.Progress`.
    """

    def __init__(self, rich: Any) -> None:
        super().__init__()
        self.rich = rich
        self.tasks: dict[int, Any] = {}

    @staticmethod
    @contextmanager
    def display() -> Iterator[Bars]:
        """Bars on stderr, as long as the context lasts."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[pace]}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as rich:
            yield Bars(rich)

    def given(self, hand: int, cell: Cell) -> None:
        """Begin a bar."""
        if hand not in self.tasks:
            self.tasks[hand] = self.rich.add_task("", total=None, pace="")
        self.rich.reset(self.tasks[hand], total=None, pace="", description=f"{cell.label}  seed {cell.recipe.seed}")

    def progress(self, hand: int, cell: Cell, message: Mapping[str, Any]) -> None:
        """Move a bar."""
        if message["kind"] != "progress":
            return
        now = message["progress"]
        done, steps = (now["epoch"] - 1) * now["steps"] + now["step"], now["epochs"] * now["steps"]
        self.rich.update(
            self.tasks[hand],
            completed=done,
            total=steps,
            pace=f"epoch {now['epoch']}/{now['epochs']}  {now['images_per_second']:,.0f} images/s",
        )

    def finished(self, hand: int, cell: Cell, record: Mapping[str, Any], done: int) -> None:
        """Write what the run came to above the bars; the terminal folds the line, not rich."""
        self.rich.console.print(self.line(cell, record, done), soft_wrap=True, highlight=False, markup=False)
        if hand in self.tasks:
            self.rich.reset(self.tasks[hand], total=None, description="", pace="")
