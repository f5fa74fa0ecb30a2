"""The command `poolkit evolve`: a genetic search over the pools of a net."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolkit import console, own
from poolkit.commands import DataDir, Json, Offline
from poolkit.console import Stop, request

if TYPE_CHECKING:
    from poolkit.lab.data import Data
    from poolkit.lab.evolve import Evolution, Request

EXAMPLES = (
    "poolkit evolve --data digits\n"
    "poolkit evolve --recipe quick --limit 10000 --population 12 --generations 10\n"
    "poolkit evolve --data digits --method max --method soft:beta=0.1..10 --method genetic-weights:weights=1..9"
)


def evolve(  # every option is an argument: that is how typer reads them
    data: Annotated[
        str, typer.Option(help="cifar10, cifar100, mnist, fashion-mnist, digits, folder:PATH or npz:FILE.")
    ] = "cifar10",
    data_dir: DataDir = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD", help="What a place may have, such as soft:beta=0.1..10; may be repeated."),
    ] = None,
    population: Annotated[int, typer.Option(help="Nets of a generation.")] = 8,
    generations: Annotated[int, typer.Option(help="How many generations.")] = 6,
    crossover: Annotated[float, typer.Option(help="Probability that a net has two parents.")] = 0.9,
    mutation: Annotated[float, typer.Option(help="Probability that a gene is drawn anew.")] = 0.2,
    seeds: Annotated[int, typer.Option(help="Trainings of each net, whose mean counts.")] = 1,
    validation: Annotated[float, typer.Option(help="Share of the training pictures held out.")] = 0.2,
    recipe: Annotated[str, typer.Option(help="tutorial or quick, as in train.")] = "tutorial",
    net: Annotated[str | None, typer.Option(help="tutorial, timm:NAME or module:callable.")] = None,
    head: Annotated[str | None, typer.Option(help="flatten, or a head such as netvlad.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pictures for each net.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures a step.")] = None,
    optimiser: Annotated[str | None, typer.Option(help="adam, sgd or muon.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    schedule: Annotated[str | None, typer.Option(help="constant or one-cycle.")] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the pictures.")] = None,
    start: Annotated[str | None, typer.Option(help="First weights: glorot or whitened.")] = None,
    seed: Annotated[int, typer.Option(help="All randomness follows from it.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Train on so many pictures only.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="The folder; by default one under runs/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be searched, and train nothing.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads that torch uses.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Search the pools of a net with a genetic algorithm.

    Every place of the net has a method of its own. Nets are judged on training pictures held out; the test pictures
    are never looked at. The winner is written as a recipe for poolkit train.
    """
    if importlib.util.find_spec("optuna") is None:
        raise Stop('optuna is not installed, and evolve needs it\n  install it: pip install "poolkit[evolve]"')
    from poolkit.lab import terminal
    from poolkit.lab.evolve import MENU, Request

    given: dict[str, Any] = {"net": net, "epochs": epochs, "batch": batch, "optimiser": optimiser, "lr": lr}
    given |= {"schedule": schedule, "flip": flip, "start": start, "head": head, "seed": seed, "limit": limit}
    own.typed(*(part.partition("..")[0] for part in method or ()))
    trained = terminal.recipe(recipe, data=data, **given)
    with request():
        asked = Request(trained, tuple(method or MENU), population, generations, crossover, mutation, seeds, validation)
    terminal.set_torch(threads, device)
    loaded = terminal.load(data, data_dir, offline)
    asked = dataclasses.replace(asked, recipe=dataclasses.replace(asked.recipe, data=loaded.name))
    name = re.sub(r"[^\w.=,+-]+", "-", loaded.name)
    folder = out or Path("runs") / f"evolve-{name}{'' if recipe == 'tutorial' else f'-{recipe}'}-seed{seed}"
    _tell(asked, loaded)
    if dry_run:
        return _plan(asked, folder)
    found = _searched(asked, loaded, folder, resume, device)
    _answer(found, folder, _next(found, folder, data_dir, device))


def _tell(asked: Request, loaded: Data) -> None:
    """Say what is searched; a genome that cannot be is refused here."""
    from poolkit.lab.evolve import held_out
    from poolkit.lab.genes import Genome

    with request():
        parts = held_out(loaded, asked.recipe.seed, asked.validation)
        genome = Genome.of(asked.menu, asked.recipe.net, loaded.shape, len(loaded.classes), asked.recipe.head)
    trained = min(len(parts.train_x), asked.recipe.limit or len(parts.train_x))
    console.tell(
        f"data: {loaded.name}, {trained:,} training pictures to train on, {len(parts.test_x):,} held out to judge by\n"
        f"net: {asked.recipe.net}, {genome.places} pooling places, {len(genome.distributions())} genes\n"
        f"a place has one of: {', '.join(asked.menu)}\n"
        f"search: {asked.generations} generations of {asked.population} nets; each is trained "
        f"{asked.recipe.epochs} epoch{'' if asked.recipe.epochs == 1 else 's'}"
        f"{'' if asked.seeds == 1 else f' with each of {asked.seeds} seeds'}\n"
    )


def _plan(asked: Request, folder: Path) -> None:
    """What a dry run answers."""
    if console.settings.json:
        return console.emit({"folder": str(folder), "nets": asked.nets, "request": asked.as_dict()})
    console.answer(f"{asked.nets} nets would be trained, into {folder}; nothing was")


def _searched(asked: Request, loaded: Data, folder: Path, resume: bool, device: str) -> Evolution:
    """The finished search; says what is safe where Ctrl-C ends it."""
    from poolkit.lab import terminal
    from poolkit.lab.evolve import evolve as search
    from poolkit.lab.evolve_lines import watching

    terminal.keep_memory()
    with watching(asked) as watch, terminal.heeded(watch.training):
        try:
            with request():
                return search(asked, loaded, folder, resume, device, watch, console.settings.command)
        except KeyboardInterrupt:
            done = sum(1 for _ in folder.glob("net-*.json"))
            command = console.settings.command
            again = command if resume else f"{command} --resume"
            console.remark(
                f"stopped. {done} of {asked.nets} nets are finished and safe in {folder}.\ncontinue: {again}"
            )
            raise


def _next(found: Evolution, folder: Path, data_dir: Path | None, device: str) -> str:
    """The command that trains the winner on all training pictures."""
    from poolkit.lab.other_nets import names_other

    words = ["poolkit", "train", "--recipe", str(folder / "winner.json")]
    net, head, pool = found.request.recipe.net, found.request.recipe.head, found.winner.pool
    # A file alone may not choose which code runs.
    words += ["--net", net] if names_other(net) else []
    words += ["--head", head] if own.names_own(head) else []
    words += ["--pool", pool] if any(map(own.names_own, pool.split("|"))) else []
    words += ["--data-dir", str(data_dir)] if data_dir else []
    return shlex.join([*words, *(["--device", device] if device != "cpu" else [])])


def _answer(found: Evolution, folder: Path, command: str) -> None:
    answer = found.as_dict()
    if console.settings.json:
        return console.emit({"folder": str(folder), **answer, "trials": [vars(trial) for trial in found.trials]})
    console.tell("")
    console.answer(
        f"best: {found.winner.pool}\n"
        f"  {answer['validation_accuracy']:.2%} on the pictures held out; the best of the first generation had "
        f"{answer['first_generation_accuracy']:.2%}\n"
        f"  recipe {folder / 'winner.json'}, picture {folder / 'search.png'}"
    )
    console.remark(
        f"the best of {answer['different_nets']} nets is also the luckiest: train it with several seeds\n"
        f"next: {command}"
    )
