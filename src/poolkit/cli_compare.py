"""The command `poolkit compare`: a study, methods × seeds, on this machine."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolkit import console
from poolkit.commands import DataDir, Json, Offline
from poolkit.console import request

if TYPE_CHECKING:
    from poolkit.lab.compare import Observer
    from poolkit.lab.data import Data
    from poolkit.lab.study import Request, Study

EXAMPLES = (
    "poolkit compare max avg avg-topk:k=2 soft --recipe quick --seeds 10\n"
    "poolkit compare max avg soft --data digits --epochs 2 --seeds 5 --dry-run\n"
    "poolkit compare max blur lp:p=3 --baseline blur --out studies/blur"
)


def compare(  # every option is an argument: that is how typer reads them
    methods: Annotated[list[str], typer.Argument(metavar="METHOD...", help="Two or more, such as max avg-topk:k=2.")],
    seeds: Annotated[int, typer.Option(help="Runs of each method, with the seeds 0, 1, 2 …")] = 10,
    data: Annotated[
        str, typer.Option("--data", help="cifar10, cifar100, mnist, fashion-mnist, digits, folder:PATH or npz:FILE.")
    ] = "cifar10",
    data_dir: DataDir = None,
    recipe: Annotated[
        str, typer.Option(help="tutorial, or quick: the same net to the same accuracy, in far less time.")
    ] = "tutorial",
    net: Annotated[str | None, typer.Option(help="The network; tutorial is the only one.")] = None,
    head: Annotated[str, typer.Option(help="What makes a vector of the maps: flatten, or a head.")] = "flatten",
    epochs: Annotated[int | None, typer.Option(help="Passes over the pictures; tutorial 10, quick 1.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures a step; tutorial 32, quick 128.")] = None,
    optimiser: Annotated[str | None, typer.Option(help="adam, sgd or muon; tutorial adam, quick muon.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; tutorial 0.001, quick 0.12.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Of the rate: tutorial constant, quick one-cycle.")] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Mirror half of them; quick does.")] = None,
    start: Annotated[str | None, typer.Option(help="First weights: tutorial glorot, quick whitened.")] = None,
    limit: Annotated[int | None, typer.Option(help="Train on the first so many pictures only.")] = None,
    baseline: Annotated[
        str, typer.Option(metavar="METHOD", help="What the others are compared with; by default max, else the first.")
    ] = "",
    delta: Annotated[float, typer.Option(help="The smallest difference that matters, in points of accuracy.")] = 0.2,
    robustness: Annotated[
        bool, typer.Option("--robustness/--no-robustness", help="Also shift and corrupt some of the test pictures.")
    ] = True,
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="Runs at once; by default as cores.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads of each; by default 1.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The study's folder; by default one in studies/.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is to do, and how long.")] = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Compare pooling methods: train each with several seeds, in turns, and say what can be said.

    The baseline is trained once more with other seeds, as a control. Called again, it does what is missing.
    """
    from poolkit.lab import terminal
    from poolkit.lab.compare import alone, share_cores
    from poolkit.lab.study import ProbeSettings, Request, Study

    shared = {"net": net, "epochs": epochs, "batch": batch, "optimiser": optimiser, "lr": lr, "schedule": schedule}
    shared |= {"head": head, "flip": flip, "start": start, "limit": limit}
    base = terminal.recipe(recipe, data=data, **shared)
    probes = ProbeSettings() if robustness else None
    with request():  # before the data, which may have to be downloaded
        Request(tuple(methods), seeds, base, "0" * 64, baseline, delta, probes=probes)
    workers, threads = share_cores(workers, threads)
    terminal.set_torch(threads, device)
    loaded = terminal.load(data, data_dir, offline)
    base = dataclasses.replace(base, data=loaded.name)
    asked = Request(tuple(methods), seeds, base, loaded.sha256, baseline, delta, probes=probes)
    folder = out or _folder(asked)
    if dry_run:
        return _foresee(_planned(folder, asked), workers, loaded)
    if loaded.caveat:
        console.remark(f"note: {loaded.caveat}")
    with alone(folder):
        study = Study.begin(folder, asked)
        _complete(study, loaded, data_dir, workers, threads, device)
    _answer(study, json)


def _folder(asked: Request) -> Path:
    """A folder under studies/ whose name every file system takes."""
    words = "-".join((asked.recipe.data, *asked.methods))
    return Path("studies") / re.sub(r"[^\w.=,+-]+", "-", words).strip("-.")[:80]


def _planned(folder: Path, asked: Request) -> Study:
    """The study as it is or would be; a dry run writes nothing."""
    from poolkit.lab.study import REQUEST, Study

    if not (folder / REQUEST).exists():
        return Study.planned(folder, asked)
    study = Study.load(folder)
    study.refuse_other(asked)
    return study


def _foresee(study: Study, workers: int, loaded: Data) -> None:
    from poolkit.lab.estimate import seconds_left
    from poolkit.report.words import duration

    cells, missing = study.cells(), study.missing()
    seconds, basis = seconds_left(study, workers, loaded)
    if console.settings.json:
        names = [{"label": cell.label, "seed": cell.recipe.seed} for cell in missing]
        here = {"folder": str(study.folder), "cells": len(cells), "done": len(cells) - len(missing), "missing": names}
        return console.emit({**here, "workers": workers, "seconds": seconds, "basis": basis})
    rows = [
        (label, str(sum(c.label == label for c in cells)), str(sum(c.label == label for c in missing)))
        for label in study.request.labels
    ]
    console.table(("method", "runs", "to do"), rows, right=("runs", "to do"))
    time = f"about {duration(seconds)} with {workers} at once, from {basis}" if missing else "nothing to do"
    console.answer(f"{len(cells)} runs, {len(cells) - len(missing)} already in {study.folder}, {time}")


def _complete(study: Study, loaded: Data, data_dir: Path | None, workers: int, threads: int, device: str) -> None:
    from poolkit.lab.compare import Task, complete
    from poolkit.lab.processes import processes
    from poolkit.lab.study import LOG
    from poolkit.lab.train import data_record
    from poolkit.lab.worker import Job

    asked, command, missing = study.request, console.settings.command, study.missing()
    total = len(study.cells())
    known = data_record(asked.recipe, loaded)
    place = str(data_dir) if data_dir else None
    job = Job(study.sha256, loaded.name, loaded.sha256, place, asked.probes, device, threads, workers, command)
    task = Task(missing, total, study.path, study.sha256, known, command, study.folder / LOG)
    try:
        with watching() as watch:
            complete(task, processes(job), workers, watch)
    except KeyboardInterrupt:
        safe = total - len(study.missing())
        console.remark(f"stopped. {safe} of {total} runs are safe in {study.folder}.\ncontinue: {command}")
        raise


@contextmanager
def watching() -> Iterator[Observer]:
    """An observer that writes to stderr: a line for each run, on a terminal one also for each that is at work."""
    from poolkit.lab.compare import Observer
    from poolkit.lab.study_lines import Bars, Lines

    if console.settings.quiet:
        yield Observer()
    elif not sys.stderr.isatty():
        yield Lines()
    else:
        with Bars.display() as bars:
            yield bars


def _answer(study: Study, json: bool) -> None:
    """What came out, as a table."""
    from poolkit.lab.study_lines import plain_rows

    rows = plain_rows(study)
    if json:
        console.emit({"folder": str(study.folder), "study_sha256": study.sha256, "rows": rows})
    else:
        shown = [
            (r["label"], _percent(r["mean"]), _percent(r["sd"]), str(r["finished"]), str(r["failed"])) for r in rows
        ]
        names = ("method", "accuracy", "sd", "runs", "failed")
        console.table(names, shown, right=names[1:])
    console.remark(f"next: poolkit report {shlex.quote(str(study.folder))}")


def _percent(value: Any) -> str:
    return "" if value is None else f"{value:.2%}"
