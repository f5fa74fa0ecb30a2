"""A genetic search over which method stands at each pooling place of a net, on pictures held out of the training.

The genetic algorithm is optuna's NSGA-II, which with one objective makes the best nets of a generation and of its
parents the parents of the next one. Nothing of its state is kept: what is asked next is a function of the seed and of
the nets that are finished, so that a search that was killed goes on as if it had not been.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from poolkit.lab.chance import seed_of, stream
from poolkit.lab.data import Data, fingerprint
from poolkit.lab.genes import MENU, Choice, Genome
from poolkit.lab.recipe import Recipe, options
from poolkit.lab.record import RunError
from poolkit.lab.train import Watch, train

if TYPE_CHECKING:
    import optuna

_MOST = 100_000  # nets of a search
_BIRTHS = 20


@dataclass(frozen=True)
class Request:
    """What a search is asked for.

    Fields: `recipe`, which every net is trained by (its `pool` says nothing); `menu`, what a place may have, such as
    `soft:beta=0.1..10` (`poolkit.lab.genes`); `population`, nets of a generation, 2 or more; `generations`, 1 or more;
    `crossover`, the probability that a net has two parents instead of one; `mutation`, that a gene is drawn anew;
    `seeds`, trainings of each net, with the seeds from the recipe's on, whose mean accuracy counts; `validation`, the
    share of the training pictures that is held out. All randomness follows from the recipe's seed.
    Raises `ValueError` for what is not allowed, and says what is.
    """

    recipe: Recipe
    menu: tuple[str, ...] = MENU
    population: int = 8
    generations: int = 6
    crossover: float = 0.9
    mutation: float = 0.2
    seeds: int = 1
    validation: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "menu", tuple(dict.fromkeys(Choice.parse(text).text for text in self.menu)))
        if not self.menu:
            raise ValueError("menu=() is not allowed: one method or more")
        if self.recipe.pool_at:
            raise ValueError(f"pool_at={self.recipe.pool_at!r} is not allowed: every place of the net is searched")
        object.__setattr__(self, "recipe", dataclasses.replace(self.recipe, pool="max"))
        for name, least in (("population", 2), ("generations", 1), ("seeds", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
                raise ValueError(f"{name}={value!r} is not allowed: an integer from {least} to {_MOST}")
        if self.nets > _MOST:
            raise ValueError(f"population × generations = {self.nets:,} is not allowed: at most {_MOST:,}")
        for name in ("crossover", "mutation"):
            _share(name, getattr(self, name), 0.0, 1.0)
        _share("validation", self.validation, 0.01, 0.9)

    @property
    def nets(self) -> int:
        """How many nets are asked for."""
        return self.population * self.generations

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {**vars(self), "recipe": self.recipe.as_dict(), "menu": list(self.menu)}


def _share(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name}={value!r} is not allowed: a number from {low:g} to {high:g}")


@dataclass(frozen=True)
class Trial:
    """One net of a search: its genes, and how well it did on the pictures held out.

    Fields: `number`, from 0; `generation`, from 1; `genes`; `attributes`, what optuna notes of it; `pool`, what the
    genes stand for; `accuracies`, of each seed, 0 where the training diverged; `accuracy`, their mean; `loss`, the mean
    cross-entropy, None where one diverged; `seconds` that it took, 0 where the same pools had been trained before.
    """

    number: int
    generation: int
    genes: dict[str, Any]
    attributes: dict[str, Any]
    pool: str
    accuracies: tuple[float, ...]
    accuracy: float
    loss: float | None
    seconds: float

    @property
    def merit(self) -> tuple[float, float, int]:
        """What the best trial has most of: accuracy, then little loss, then the earliest."""
        return self.accuracy, -(math.inf if self.loss is None else self.loss), -self.number


def best(trials: Sequence[Trial]) -> Trial:
    """The best of one trial or more."""
    return max(trials, key=lambda trial: trial.merit)


def held_out(data: Data, seed: int, share: float) -> Data:
    """The training pictures alone, parted by a seed: most to train on, and a share in the place of the test pictures.

    The test pictures are not looked at and are no part of the result.
    Raises `ValueError` where one part would be empty.
    """
    n = len(data.train_x)
    out = round(share * n)
    if not 0 < out < n:
        raise ValueError(f'validation={share:g} of the {n} training pictures of "{data.name}" leaves a part empty')
    drawn = np.argsort(stream(seed, 0, "validation").bit_generator.random_raw(n), kind="stable")
    away, kept = np.sort(drawn[:out]), np.sort(drawn[out:])
    arrays = data.train_x[kept], data.train_y[kept], data.train_x[away], data.train_y[away]
    source = f"{data.source}; of the training pictures {len(kept):,} to train on and {out:,} held out"
    return Data(data.name, *arrays, data.classes, source, fingerprint(*arrays), data.caveat)


class EvolveWatch:
    """An observer of a search. This one is silent; a subclass overrides what it wants to show.

    `training` observes the training at work.
    """

    def __init__(self) -> None:
        self.training = Watch()

    def trial(self, trial: Trial, trials: Sequence[Trial]) -> None:
        """Called when a net is finished and on the disk; `trials` are all so far, this one included."""

    def note(self, text: str) -> None:
        """Called with a warning in words."""


@dataclass(frozen=True)
class Evolution:
    """A search: what was asked, on which pictures, and its nets so far, in their order."""

    request: Request
    data_sha256: str
    trials: tuple[Trial, ...]
    folder: Path | None = field(default=None)

    @property
    def winner(self) -> Trial:
        """The best net; raises `ValueError` where there is none yet."""
        return best(self.trials)

    def recipe(self) -> Recipe:
        """The winner's recipe, for all training pictures."""
        return dataclasses.replace(self.request.recipe, pool=self.winner.pool)

    def as_dict(self) -> dict[str, Any]:
        """The content of winner.json: the recipe, the command that trains it, and how it was found."""
        winner, recipe = self.winner, self.recipe()
        return {
            "recipe": recipe.as_dict(),
            "command": shlex.join(["poolkit", "train", *options(recipe)]),
            "trial": winner.number,
            "generation": winner.generation,
            "validation_accuracy": winner.accuracy,
            "validation_loss": winner.loss,
            "first_generation_accuracy": best(self.trials[: self.request.population]).accuracy,
            "nets": len(self.trials),
            "different_nets": len({trial.pool for trial in self.trials}),
        }


def evolve(
    request: Request,
    data: Data,
    folder: Path | str | None = None,
    resume: bool = False,
    device: str = "cpu",
    watch: EvolveWatch | None = None,
    command: str | None = None,
) -> Evolution:
    """Search the pools of a net.

    Each net is trained on one part of the training pictures and judged on the other; the test pictures are never
    looked at. A net whose pools were trained before is not trained again: it would give the same.

    Arguments: `request`; `data`, which its recipe names; `folder`, where every finished net is written at once, None
    for memory only; `resume`, go on with the search in `folder`; `device`, a torch device; `watch`, told of the
    progress; `command`, the command line to record.
    Returns the finished search.
    Raises `RunError`: the folder holds files that are not a search's, or one and `resume` is False, or another one;
    `ValueError`: data that are not the recipe's or too few, a method of the menu that the net cannot have;
    `ModuleNotFoundError`: optuna is not installed.
    """
    from poolkit.lab import evolve_folder as files

    import_optuna()
    watch = watch or EvolveWatch()
    if data.name != request.recipe.data:
        raise ValueError(f'The recipe wants the data "{request.recipe.data}", these are "{data.name}".')
    given = held_out(data, request.recipe.seed, request.validation)
    genome = Genome.of(request.menu, request.recipe.net, given.shape, len(given.classes), request.recipe.head)
    place = None if folder is None else Path(folder)
    trials = files.claim(place, request, given.sha256, resume, command, watch.note, device) if place else []
    while len(trials) < request.nets:
        genes, attributes = ask(request, genome, trials)
        trial = _tried(request, genome, genes, attributes, trials, given, device, watch.training)
        trials.append(trial)
        if place:
            files.add(place, trial, best(trials), request)
        watch.trial(trial, trials)
    found = Evolution(request, given.sha256, tuple(trials), place)
    if place:
        files.finish(place, found)
    return found


def import_optuna() -> Any:
    """The library of the genetic algorithm; raises `ModuleNotFoundError`, which says how to install it."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'optuna is not installed, and the search needs it\n  install it: pip install "poolkit[evolve]"',
            name="optuna",
        ) from None
    return optuna


def ask(request: Request, genome: Genome, trials: Sequence[Trial]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The genes of the next net and what optuna notes of it: a function of the request and the finished nets alone.

    A child whose pools were trained before is born again, up to 20 times: there is nothing to learn from it.
    Raises `RunError` for trials that have other genes than the request's.
    """
    optuna = import_optuna()
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = {trial.pool for trial in trials}
    try:
        for birth in range(_BIRTHS):
            study = _study(optuna, request, genome, trials, birth)
            study.ask(genome.distributions())
            asked = study.trials[-1]
            if genome.pool(asked.params) not in known:
                break
    except (ValueError, KeyError) as error:
        raise RunError(f"The finished nets are not of this search ({error}).\n  Choose another folder.") from None
    finally:
        optuna.logging.set_verbosity(said)
    return dict(asked.params), dict(asked.system_attrs)


def _study(optuna: Any, request: Request, genome: Genome, trials: Sequence[Trial], birth: int) -> optuna.Study:
    """The finished nets as a study in memory, with a sampler whose seed is that of the next net."""
    sampler = optuna.samplers.NSGAIISampler(
        population_size=request.population,
        crossover_prob=request.crossover,
        mutation_prob=request.mutation,
        seed=seed_of(request.recipe.seed, len(trials), birth, "genes") % 2**32,
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    genes = genome.distributions()
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.genes, distributions=genes, value=trial.accuracy, system_attrs=trial.attributes
            )
        )
    return study


def _tried(
    request: Request,
    genome: Genome,
    genes: dict[str, Any],
    attributes: dict[str, Any],
    before: Sequence[Trial],
    given: Data,
    device: str,
    watch: Watch,
) -> Trial:
    """A net trained and judged, or found among those before."""
    pool, number = genome.pool(genes), len(before)
    twin = next((trial for trial in before if trial.pool == pool), None)
    about = (number, number // request.population + 1, genes, attributes, pool)
    if twin:
        return Trial(*about, twin.accuracies, twin.accuracy, twin.loss, 0.0)
    began, finals = time.perf_counter(), []
    for seed in range(request.recipe.seed, request.recipe.seed + request.seeds):
        recipe = dataclasses.replace(request.recipe, pool=pool, seed=seed)
        finals.append(train(recipe, given, device=device, watch=watch).final)
    accuracies = tuple(0.0 if final is None else final["accuracy"] for final in finals)
    losses = [math.inf if final is None or final["loss"] is None else final["loss"] for final in finals]
    mean = math.fsum(losses) / len(losses)
    loss = mean if math.isfinite(mean) else None
    seconds = time.perf_counter() - began
    return Trial(*about, accuracies, math.fsum(accuracies) / len(accuracies), loss, seconds)
