"""What a genetic search writes to stderr: a line for each net, and on a terminal a bar below them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from poolkit import console
from poolkit.lab.evolve import EvolveWatch, Request, Trial, best
from poolkit.lab.evolve_folder import line
from poolkit.report.words import duration


class Lines(EvolveWatch):
    """A line for each net, with how long the rest should take.

    Arguments: `asked`, the request.
    """

    def __init__(self, asked: Request) -> None:
        super().__init__()
        self.asked = asked

    def trial(self, trial: Trial, trials: Sequence[Trial]) -> None:
        """Write the net's accuracy, the best so far, and the net's pools."""
        left = (self.asked.nets - len(trials)) * sum(one.seconds for one in trials) / len(trials)
        self.write(line(trial, best(trials), self.asked) + (f"  {duration(left)} left" if left else ""))

    def write(self, text: str) -> None:
        """Write a line."""
        console.remark(text)

    def note(self, text: str) -> None:
        """Write a warning."""
        self.write(f"note: {text}")


class Bar(Lines):
    """The lines above a bar.

    Arguments: `asked`, the request; `display`, a running `rich.progress.Progress`.
    """

    def __init__(self, asked: Request, display: Any) -> None:
        super().__init__(asked)
        self.display = display
        self.task = display.add_task("", total=asked.nets)

    def trial(self, trial: Trial, trials: Sequence[Trial]) -> None:
        """Write the line and move the bar."""
        super().trial(trial, trials)
        self.display.update(self.task, completed=len(trials), description=f"best {best(trials).accuracy:.1%}")

    def write(self, text: str) -> None:
        """Write a line above the bar; the terminal folds it, not rich."""
        self.display.console.print(text, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def watching(asked: Request) -> Iterator[EvolveWatch]:
    """The observer for this terminal, file or pipe; silent with --quiet."""
    if console.settings.quiet:
        yield EvolveWatch()
    elif not sys.stderr.isatty():
        yield Lines(asked)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (BarColumn(bar_width=32), MofNCompleteColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=Console(stderr=True), transient=True) as display:
            yield Bar(asked, display)
