"""The command `poolkit compare`: a study, methods × seeds, on this machine or on a cluster."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poolkit import console, own
from poolkit.commands import DataDir, Json, Offline
from poolkit.console import Wrong, request

if TYPE_CHECKING:
    from poolkit.lab.compare import Observer, Task
    from poolkit.lab.data import Data
    from poolkit.lab.origin import Origin
    from poolkit.lab.recipe import Recipe
    from poolkit.lab.study import Cell, Request, Study
    from poolkit.lab.validation import Pictures
    from poolkit.lab.worker import Job

EXAMPLES = (
    "poolkit compare max avg avg-topk:k=2 soft --recipe quick --seeds 10\n"
    "poolkit compare max avg soft --data digits --epochs 2 --seeds 5 --dry-run\n"
    "poolkit compare max blur lp:p=3 --baseline blur --out studies/blur\n"
    "poolkit compare max avg soft --seeds 40 --on ray://head.example:10001\n"
    "poolkit compare max avg soft --seeds 40 --on ray://head.example:10001 --device cuda --gpus 0.25"
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
    net: Annotated[str | None, typer.Option(help="tutorial, timm:NAME or module:callable.")] = None,
    pool_at: Annotated[
        str, typer.Option(metavar="PLACES", help="Where the methods stand, such as conv2; by default everywhere.")
    ] = "",
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
    tune: Annotated[
        int, typer.Option(metavar="K", help="Try K recipes of each method first, chosen without the test pictures.")
    ] = 0,
    robustness: Annotated[
        bool, typer.Option("--robustness/--no-robustness", help="Also shift and corrupt some of the test pictures.")
    ] = True,
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="Runs at once; by default as cores.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads of each; by default 1.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; with --on, of each task.")] = "cpu",
    on: Annotated[
        str, typer.Option("--on", metavar="WHERE", help="ray, or ray://HOST:PORT: as tasks of a Ray cluster.")
    ] = "",
    gpus: Annotated[
        float, typer.Option(min=0.0, help="The share of a GPU that each run takes on a cluster; with --device cuda.")
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The study's folder; by default one in studies/.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Delete the failed runs of the study and do them again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is to do, and how long.")] = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Compare pooling methods: train each with several seeds, in turns, and say what can be said.

    The baseline is trained once more with other seeds, as a control. Called again, it does what is missing. A run whose
    process dies is tried three times, then it has failed: where that was an accident, add --retry-failed.
    """
    from poolkit.lab import terminal
    from poolkit.lab.compare import alone, share_cores
    from poolkit.lab.origin import Origin, keep
    from poolkit.lab.study import ProbeSettings, Request, Study
    from poolkit.lab.validation import hold_out

    shared = {"net": net, "epochs": epochs, "batch": batch, "optimiser": optimiser, "lr": lr, "schedule": schedule}
    shared |= {"pool_at": pool_at, "head": head, "flip": flip, "start": start, "limit": limit}
    own.typed(*methods, baseline)
    base = terminal.recipe(recipe, data=data, **shared)
    probes = ProbeSettings() if robustness else None

    def request_of(base: Recipe, sha256: str, tune_sha256: str) -> Request:
        hashed = tune_sha256 if tune else ""
        return Request(tuple(methods), seeds, base, sha256, baseline, delta, 0.05, probes, tune, hashed)

    with request():  # before the data, which may have to be downloaded
        request_of(base, "0" * 64, "0" * 64)
    _check_place(on, device, gpus)
    wanted = workers
    workers, threads = share_cores(workers, 1 if on and not threads else threads)
    terminal.set_torch(threads, "cpu" if on else device)  # a cluster's device is looked for there
    loaded = terminal.load(data, data_dir, offline)
    base = dataclasses.replace(base, data=loaded.name)
    asked = request_of(base, loaded.sha256, hold_out(loaded).sha256 if tune else "")
    # A net that cannot be built would fail in every run.
    model = terminal.net_of(asked.recipe_of(asked.baseline), loaded)
    made_with = Origin.of(asked.recipe.net, model, device, (*asked.methods, asked.recipe.head))
    folder = out or _folder(asked)
    if dry_run:
        return _foresee(_planned(folder, asked, made_with), workers, loaded, retry_failed)
    if loaded.caveat:
        console.remark(f"note: {loaded.caveat}")
    with alone(folder):
        study = Study.begin(folder, asked)
        keep(study, made_with, lambda text: console.remark(f"note: {text}"))
        if retry_failed:
            _retry(study)
        place = Place(workers, threads, device, str(data_dir) if data_dir else None, on, gpus, wanted, made_with)
        _run(study, loaded, place)
        _answer(study, json)


def _check_place(on: str, device: str, gpus: float) -> None:
    """Refuse what no task could do, before anything is read or written."""
    import torch

    if not on:
        if gpus:
            raise Wrong("--gpus is what each task of a cluster takes of a GPU\n  add --on, or leave --gpus out")
        return
    with request():
        try:
            kind = torch.device(device).type
        except RuntimeError as reason:
            raise ValueError(f'there is no device "{device}": {str(reason).splitlines()[0]}') from None
    if gpus and kind == "cpu":
        raise Wrong(f"--gpus {gpus:g} with --device cpu: the GPUs would be taken and not used\n  add --device cuda")
    if not gpus and kind == "cuda":
        raise Wrong(
            f"--device {device} on a cluster needs --gpus: a task that takes no share of a GPU sees none\n"
            "  add --gpus 1, or less for several tasks on one"
        )
    from poolkit.lab.cluster import check_address

    check_address(on)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a study runs: workers and threads of each, or the cluster `on` and as many as `wanted`, None for all.

    `origin`, what its runs are made with.
    """

    workers: int
    threads: int
    device: str
    data_dir: str | None
    on: str
    gpus: float
    wanted: int | None
    origin: Origin


def _run(study: Study, loaded: Data, place: Place) -> None:
    """Do what is missing, trials first."""
    from poolkit.lab.compare import Task
    from poolkit.lab.study import LOG
    from poolkit.lab.train import data_record
    from poolkit.lab.worker import Job

    asked, command, log = study.request, console.settings.command, study.folder / LOG
    where = place.data_dir, asked.probes, place.device, place.threads, place.workers
    job = Job(study.sha256, loaded.name, loaded.sha256, *where, command, sources=dict(place.origin.sources))
    if asked.tune:
        _tune(study, loaded, job, place)
    known = data_record(asked.recipe, loaded)
    task = Task(study.missing(), len(study.cells()), study.path, study.sha256, known, command, log)
    _complete(task, job, loaded, place)


def _folder(asked: Request) -> Path:
    """A folder under studies/ whose name every file system takes."""
    words = "-".join((asked.recipe.data, *asked.methods))
    return Path("studies") / re.sub(r"[^\w.=,+-]+", "-", words).strip("-.")[:80]


def _planned(folder: Path, asked: Request, made_with: Origin) -> Study:
    """The study as it is or would be; a dry run writes nothing, and refuses what the call without it would."""
    from poolkit.lab.compare import refuse_unusable
    from poolkit.lab.origin import refuse_other
    from poolkit.lab.study import REQUEST, Study

    refuse_unusable(folder)
    if not (folder / REQUEST).exists():
        return Study.planned(folder, asked)
    study = Study.load(folder)
    study.refuse_other(asked)
    refuse_other(study, made_with)
    return study


def _failed(study: Study) -> list[tuple[Cell, Path]]:
    """The failed runs with their folders, or the failed trials where nothing is chosen by them yet."""
    from poolkit.lab.compare import failures
    from poolkit.lab.study import TUNED
    from poolkit.lab.tune import Tuning

    if study.request.tune and not (study.folder / TUNED).exists():
        tuning = Tuning(study)
        return [(cell, tuning.path(cell)) for cells in tuning.rows.values() for cell in failures(cells, tuning.path)]
    return [(cell, study.path(cell)) for cell in failures(study.cells(), study.path)]


def _retry(study: Study) -> None:
    """Have the failed runs done again."""
    from poolkit.lab.compare import forget
    from poolkit.lab.study import LOG

    failed = _failed(study)
    forget(failed, study.folder / LOG)
    console.remark(f"--retry-failed: {len(failed)} failed results deleted, to be run again")


def _foresee(study: Study, workers: int, loaded: Data, retry_failed: bool) -> None:
    from poolkit.lab.estimate import seconds_left, to_do
    from poolkit.report.words import duration

    left = to_do(study)
    if retry_failed:
        console.remark(f"--retry-failed: {len(_failed(study))} failed results would be deleted and run again as well")
    seconds, basis = seconds_left(study, left, workers, loaded)
    if console.settings.json:
        here = {"folder": str(study.folder), "cells": left.total, "done": left.total - len(left.cells)}
        missing = [{"label": label, "seed": seed} for label, seed in left.cells]
        return console.emit({**here, "missing": missing, "workers": workers, "seconds": seconds, "basis": basis})
    for line in left.lines():
        console.tell(line)
    time = f"about {duration(seconds)} with {workers} at once, from {basis}" if left.cells else "nothing to do"
    console.answer(f"{left.total} runs, {left.total - len(left.cells)} already in {study.folder}, {time}")


def _tune(study: Study, loaded: Data, job: Job, place: Place) -> None:
    """Do the trials that are missing, and choose."""
    from poolkit.lab.compare import Task
    from poolkit.lab.study import LOG, TUNED
    from poolkit.lab.train import data_record
    from poolkit.lab.tune import Tuning
    from poolkit.lab.validation import hold_out

    if (study.folder / TUNED).exists():
        return
    tuning = Tuning(study)
    if missing := tuning.missing():
        console.remark(f"tuning: {study.request.tune} trials for each row, on training pictures alone")
        held = hold_out(loaded)
        known, log = data_record(study.request.recipe, held), study.folder / LOG
        task = Task(missing, tuning.total, tuning.path, study.sha256, known, job.command, log)
        closed = dataclasses.replace(job, data_sha256=held.sha256, probes=None, tuning=True)
        _complete(task, closed, held, place)
    tuning.choose()
    for label, recipe in study.recipes().items():
        console.remark(
            f"chosen for {label}: {recipe.pool if recipe.head == 'flatten' else recipe.head}, lr {recipe.lr:g}"
        )


def _complete(task: Task, job: Job, pictures: Pictures, place: Place) -> None:
    from poolkit.lab.run import RUN

    try:
        with watching(bool(place.on)) as watch:
            _work(task, job, pictures, place, watch)
    except KeyboardInterrupt:
        safe = task.total - sum(not (task.path(cell) / RUN).exists() for cell in task.cells)
        what = "trials" if job.tuning else "runs"
        console.remark(
            f"stopped. {safe} of {task.total} {what} are safe in {task.log.parent}.\ncontinue: {job.command}"
        )
        raise


def _work(task: Task, job: Job, pictures: Pictures, place: Place, watch: Observer) -> None:
    """Have processes of this machine, or a cluster, do what is missing."""
    from poolkit.lab.compare import complete

    if not place.on:
        from poolkit.lab.processes import processes

        return complete(task, processes(job), place.workers, watch)
    from poolkit.lab.cluster import connected

    if task.cells:
        with connected(place.on, pictures, job, place.gpus) as cluster:
            complete(task, cluster.hire, place.wanted or cluster.places, watch)


@contextmanager
def watching(cluster: bool = False) -> Iterator[Observer]:
    """An observer that writes to stderr: a line for each run, on a terminal one also for each that is at work.

    The tasks of a `cluster` tell nothing before their end: of them a line says that they were given.
    """
    from poolkit.lab.compare import Observer
    from poolkit.lab.study_lines import Bars, Lines, Starts

    if console.settings.quiet:
        yield Observer()
    elif cluster:
        yield Starts()
    elif not sys.stderr.isatty():
        yield Lines()
    else:
        with Bars.display() as bars:
            yield bars


def _answer(study: Study, json: bool) -> None:
    """Write what came out and its report into the study's folder, and print it."""
    from poolkit.lab import verdicts
    from poolkit.lab.findings import findings
    from poolkit.report.study import write_study

    found = findings(study)
    if json:
        console.emit(found)
    else:
        console.table(verdicts.COLUMNS, verdicts.table(found), right=verdicts.RIGHT)
        for text in verdicts.remarks(found):
            console.answer(text)
    page = write_study(study, found)
    console.remark(f"report: {page}\nnext: poolkit report {shlex.quote(str(study.folder))} --open")
