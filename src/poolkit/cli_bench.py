"""The commands `poolkit bench`, the pooling layers, and `poolkit bench training`."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolkit import cli_keras, cli_memory, cli_training, console
from poolkit.commands import Command, Json, WorkingGroup
from poolkit.console import Stop, Wrong, request

if TYPE_CHECKING:
    from poolkit.lab.speed import Plan

app = typer.Typer(cls=WorkingGroup, rich_markup_mode=None, invoke_without_command=True)

_Several = list[str] | None


def _table_file(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".json", ".csv"):
        raise typer.BadParameter(f'"{text}": a table is written as FILE.json or FILE.csv')
    if not path.absolute().parent.is_dir():  # said now, not after ten minutes
        raise typer.BadParameter(f'"{text}": there is no folder {path.parent}')
    return path


@app.callback(
    epilog="poolkit bench --quick\npoolkit bench --method avg-topk:k=2 --geometry 2x2/2\n"
    "poolkit bench --out results/speed-cpu.json\npoolkit bench training --data digits"
)
def layers(  # every option is an argument: that is how typer reads them
    ctx: typer.Context,
    method: Annotated[_Several, typer.Option(metavar="METHOD", help="Such as soft:beta=2; may be repeated.")] = None,
    geometry: Annotated[
        _Several, typer.Option(metavar="NAME", help="2x2/2, 3x3/2, 3x3/1, ceil or global; may be repeated.")
    ] = None,
    shape: Annotated[_Several, typer.Option(metavar="NxCxHxW", help="Such as 32x32x30x30; may be repeated.")] = None,
    layout: Annotated[_Several, typer.Option(metavar="NAME", help="contiguous or channels-last.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads that torch uses.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Paired measurements of a ratio, 6 or more.")] = None,
    budget: Annotated[float | None, typer.Option(metavar="MINUTES", help="No row begins afterwards.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small part, in less than a minute.")] = False,
    gate: Annotated[bool, typer.Option("--gate", help="A small part; fail where a mean misses its bar.")] = False,
    plain_memory: Annotated[
        bool, typer.Option("--plain-memory", help="Give freed memory back at once, as a plain process does.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(parser=_table_file, metavar="FILE", help="Write every row, as .json or .csv.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Print the README's table of a stored result.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure the pooling layers against MaxPool2d, on this machine.

    Speed, memory and accuracy; a layer whose values are wrong gets no speed.
    """
    if ctx.invoked_subcommand is not None:
        return
    if markdown is not None:
        return console.answer(_stored(markdown))
    _quiet_torch()
    plan = _plan(method, geometry, shape, layout, rounds, budget, quick, gate)
    about = _prepare(plan, threads, plain_memory)
    rows, stopped = _rows(plan)
    _answer(about, rows, stopped, len(plan.cases()), out, gate)


app.command("keras", cls=Command, epilog=cli_keras.EXAMPLES)(cli_keras.layers)
app.command("memory", cls=Command, epilog=cli_memory.EXAMPLES)(cli_memory.memory)
app.command("training", cls=Command, epilog=cli_training.EXAMPLES)(cli_training.training)


def _plan(
    methods: _Several,
    geometries: _Several,
    shapes: _Several,
    layouts: _Several,
    rounds: int | None,
    minutes: float | None,
    quick: bool,
    gate: bool,
) -> Plan:
    """The plan that the options ask for."""
    import poolkit
    from poolkit.lab.speed import GATE, QUICK, Plan

    asked: dict[str, Any] = {"rounds": rounds, "seconds": None if minutes is None else 60 * minutes}
    with request():
        found = [poolkit.method(spelling) for spelling in methods or ()]
        asked["methods"] = tuple(found) or None
        asked["geometries"] = tuple(geometries or ()) or None
        asked["shapes"] = tuple(map(_shape, shapes or ())) or None
        asked["layouts"] = tuple(layouts or ()) or None
        base = GATE if gate else QUICK if quick else Plan()
        return dataclasses.replace(base, **{name: value for name, value in asked.items() if value is not None})


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split("x")))
    except ValueError:
        raise ValueError(f'shape "{text}": write batch, channels, height and width, such as 32x32x30x30') from None


def _prepare(plan: Plan, threads: int | None, plain_memory: bool) -> dict[str, Any]:
    """Set threads and memory, and say under which circumstances the table will be measured."""
    import torch

    from poolkit.lab import terminal
    from poolkit.lab.speed import circumstances

    if threads:
        torch.set_num_threads(threads)
    if not plain_memory:
        terminal.keep_memory()
    memory = "given back at once" if plain_memory else "kept by the process, as poolkit train does"
    return circumstances(plan, console.settings.command, memory)


def _quiet_torch() -> None:
    """Before torch is loaded: its profiler writes to stderr that memory was there before it."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _rows(plan: Plan) -> tuple[list[dict[str, Any]], bool]:
    """Every row that was measured, and whether Ctrl-C ended it."""
    from poolkit.lab.speed import measure

    rows: list[dict[str, Any]] = []
    try:
        with _progress() as watch:
            for row in measure(plan, watch):
                rows.append(row)
    except KeyboardInterrupt:
        return rows, True
    return rows, False


def _answer(
    about: dict[str, Any], rows: list[dict[str, Any]], stopped: bool, planned: int, out: Path | None, gate: bool
) -> None:
    """Write and print what was measured."""
    from poolkit.lab import speed_bars, speed_words

    complete = not stopped and all(row["status"] == "measured" for row in rows)
    found = speed_words.record(about, rows, complete)
    if out is not None and rows:  # nothing measured takes no earlier table's place
        speed_words.write(found, out)
    if console.settings.json:
        console.emit(found)
    elif rows:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        shown = speed_words.table(rows, width)
        console.table(shown[0], shown[1:], speed_words.RIGHT)
        console.tell(f"\n{speed_words.legend(width)}\n")
        for line in (*speed_words.others(rows), *speed_words.summary(rows), *found["notes"]):
            console.answer(line)
        console.answer(f"\n{speed_words.where(found)}")
    if stopped:
        console.remark(f"stopped after {len(rows)} of {planned} rows" + ("; they are above" if rows else ""))
        raise KeyboardInterrupt
    if gate and (reasons := speed_bars.gate(rows)):
        raise Stop("the gate is closed\n  " + "\n  ".join(reasons))


def _stored(path: Path) -> str:
    """The Markdown table of a stored result."""
    import json

    from poolkit.lab.speed_words import markdown

    try:
        return markdown(json.loads(path.read_text(encoding="utf-8")))
    except OSError as reason:
        raise Wrong(f"{path}: {reason.strerror}\n  measure one: poolkit bench --out {path}") from reason
    except (ValueError, KeyError, TypeError) as reason:
        raise Wrong(f"{path} holds no result of poolkit bench --out FILE.json") from reason


@contextmanager
def _progress() -> Iterator[Callable[[int, int, Any], None]]:
    """A bar on stderr, on a terminal only."""
    if console.settings.quiet or not sys.stderr.isatty():
        yield lambda done, of, case: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(bar_width=32), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task("", total=None)

        def watch(done: int, of: int, case: Any) -> None:
            about = f"{case.method} {case.geometry} {'x'.join(map(str, case.shape))} {case.layout}"
            display.update(task, completed=done, total=of, description=about)

        yield watch
