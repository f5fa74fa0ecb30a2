"""How long the rest of a study takes: from runs that are there, or from a short piece of one."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from statistics import mean

import torch

from poolkit.lab.data import Data
from poolkit.lab.recipe import Recipe
from poolkit.lab.run import evaluate
from poolkit.lab.study import Result, Study
from poolkit.lab.train import Trainer, own_randomness

_STEPS = 8  # of the short piece, after as many to warm up
_PICTURES = 500  # that it tests


def seconds_left(study: Study, workers: int, data: Data) -> tuple[float, str]:
    """Seconds until a study is complete, and what says so: "finished runs" or "a short measurement".

    Of a method without a finished run the others' mean is taken.
    """
    missing = study.missing()
    if not missing:
        return 0.0, "finished runs"
    if known := _of_finished(study.results()):
        average = mean(seconds for several in known.values() for seconds in several)
        each = [mean(known[cell.label]) if cell.label in known else average for cell in missing]
        return sum(each) / min(workers, len(each)), "finished runs"
    return len(missing) * one_run(study, data) / min(workers, len(missing)), "a short measurement"


def _of_finished(results: list[Result]) -> dict[str, list[float]]:
    known = defaultdict(list)
    for result in results:
        seconds = result.measured.get("seconds")
        if result.run.status == "finished" and seconds:
            known[result.label].append(seconds)
    return dict(known)


def one_run(study: Study, data: Data) -> float:
    """Seconds of a run of the baseline, from some of its steps and of its tests.

    What a corrupted picture costs beyond being classified is not in it.
    """
    recipe, place = study.request.recipe, torch.device("cpu")
    with own_randomness(place):
        trainer = Trainer(recipe, data, place)
        rows = torch.arange(min(trainer.n, _STEPS * recipe.batch))
        step = _timed(lambda: trainer.steps(1, rows)) / -(-len(rows) // recipe.batch)
        some = data.train_x[:_PICTURES], data.train_y[:_PICTURES]
        look = _timed(lambda: evaluate(trainer.model, *some)) / len(some[0])
    return _steps(recipe, trainer.n) * step + _looks(study, recipe, len(data.test_x)) * look


def _steps(recipe: Recipe, n: int) -> int:
    return recipe.epochs * -(-n // recipe.batch)


def _looks(study: Study, recipe: Recipe, tests: int) -> int:
    """How many pictures a run classifies: after each epoch, three times for the clock, and shifted and corrupted."""
    asked = study.request.probes
    probed = 81 * min(asked.shift_images, tests) + 75 * min(asked.corrupt_images, tests) if asked else 0
    return (recipe.epochs + 3) * tests + probed


def _timed(work: Callable[[], object]) -> float:
    """Seconds of the second of two times."""
    for _ in range(2):
        began = time.perf_counter()
        work()
    return time.perf_counter() - began
