"""Equal tuning: as many random trials for each method, from one declared space, chosen without the test pictures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import poolkit
from poolkit import own
from poolkit.lab.chance import seed_of
from poolkit.lab.durable import write_atomic
from poolkit.lab.recipe import Recipe
from poolkit.lab.record import to_json
from poolkit.lab.request import FORMAT, Request, placed
from poolkit.lab.run import RUN
from poolkit.lab.study import TUNED, TUNING, Cell, Result, Study, read_result, turns
from poolkit.parameters import Learn, Param, spell

_FACTOR = 4.0  # by which a trial's number may lie above or below the one it starts from
_ATTEMPTS = 1000  # to draw what a method does not refuse
_NARROW = 2.0  # a range no wider is drawn from evenly,
_TINY = 100  # unless the default is so much smaller: a guard such as eps is of another scale


@dataclass(frozen=True)
class Span:
    """What a trial draws a value from: `values`, with equal chances; or between `low` and `high`.

    Between the edges it is drawn evenly, or, if `log`, evenly in its logarithm; `whole` numbers are rounded.
    """

    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def draw(self, chance: float) -> Any:
        """The value at a chance from 0 to 1."""
        if self.values:
            return self.values[min(int(chance * len(self.values)), len(self.values) - 1)]
        if self.log:
            found = math.exp(math.log(self.low) + chance * (math.log(self.high) - math.log(self.low)))
        else:
            found = self.low + chance * (self.high - self.low)
        if self.whole:
            return min(max(round(found), math.ceil(self.low)), math.floor(self.high))
        # Four digits are enough to tell two trials apart, and a spelling with seventeen is not one to read.
        return min(max(float(f"{found:.4g}"), self.low), self.high)

    def __str__(self) -> str:
        if self.values:
            return "one of " + ", ".join(map(spell, self.values))
        kind = "whole number " if self.whole else ""
        return f"{kind}from {self.low:g} to {self.high:g}" + (", evenly in its logarithm" if self.log else "")


def space(asked: str, lr: float) -> dict[str, Span]:
    """What the trials of a method draw: the learning rate, and the parameters that its spelling leaves open.

    The rate lies within a factor of 4 of `lr`, the recipe's. A number lies within a factor of 4 of its default and
    inside its declared range; where that range is at most 2 wide, or the default is 0, it is drawn evenly from there. A
    word is one of those allowed. What is spelled stays: `soft:beta=2` is tuned in its learning rate alone; what the
    network learns, it learns; and lists, such as a pyramid's levels, stay too: no range says which are sensible.
    """
    method = poolkit.method(asked)
    spans = {"lr": _rates(lr)}
    for name, declared in method.params().items():
        if declared.listed or declared.joined or isinstance(declared.initial, Learn):
            continue
        if getattr(method, name) == declared.initial:
            spans[name] = _span(declared)
    return spans


def in_words(asked: str, lr: float, tried: Sequence[str]) -> dict[str, str]:
    """`space` in words, for a report; `tried`, the spellings of the trials.

    Of a method of one's own, whose class no report imports, they alone say what was drawn.
    """
    if not own.names_own(asked):
        return {name: str(span) for name, span in space(asked, lr).items()}
    drawn = dict.fromkeys(name for text in tried for name in _given(text) if name not in _given(asked))
    return {"lr": str(_rates(lr)), **dict.fromkeys(drawn, "as its class declares")}


def _given(spelling: str) -> list[str]:
    return [part.partition("=")[0] for part in spelling.rpartition(":")[2].split(",") if "=" in part]


def _rates(lr: float) -> Span:
    return Span(low=lr / _FACTOR, high=lr * _FACTOR, log=True)


def _span(declared: Param) -> Span:
    default = declared.default
    if declared.choices or isinstance(default, bool):
        return Span(values=declared.choices or (False, True))
    low = -math.inf if declared.low is None else float(declared.low)
    high = math.inf if declared.high is None else float(declared.high)
    whole = isinstance(default, int)
    if high - low <= _NARROW and not 0 < default < (high - low) / _TINY:
        return Span(low=low, high=high, whole=whole)
    if default == 0:
        return Span(low=max(low, -1.0), high=min(high, 1.0), whole=whole)
    edges = sorted((default / _FACTOR, default * _FACTOR))
    if default < 0:
        return Span(low=max(low, edges[0]), high=min(high, edges[1]), whole=whole)
    least = 1.0 if whole else edges[0]
    return Span(low=max(low, edges[0], least), high=min(high, edges[1]), log=True, whole=whole)


def trials(request: Request, label: str) -> tuple[Recipe, ...]:
    """The recipes that a row tries: the one that is asked for, then as many drawn ones as make `request.tune`.

    The draws of a trial follow from its number and the row alone. The control draws its own: what luck in tuning makes
    of one method shows there too. No seed is one of the study's runs.
    """
    first = 2 * request.seeds + (request.tune if label == request.again else 0)
    drawn = (_drawn(request, label, n) if n else request.recipe_of(label) for n in range(request.tune))
    return tuple(dataclasses.replace(recipe, seed=first + n) for n, recipe in enumerate(drawn))


def _drawn(request: Request, label: str, trial: int) -> Recipe:
    """A trial's recipe; where a method refuses what was drawn, such as a filter without a middle, the next draw."""
    method: Any = poolkit.method(request.method(label))
    base = request.recipe_of(label)
    spans = space(method.spelling, base.lr)
    for attempt in range(_ATTEMPTS):
        chances = {name: seed_of("trial", label, trial, attempt, name) / 2**63 for name in spans}
        drawn = {name: span.draw(chances[name]) for name, span in spans.items()}
        rate = drawn.pop("lr")
        try:
            tried = dataclasses.replace(method, **drawn)
        except ValueError as error:
            refused = error
            continue
        return dataclasses.replace(placed(base, tried.spelling), lr=rate)
    raise ValueError(f"{method.spelling}: {_ATTEMPTS} draws from its declared ranges were refused: {refused}")


class Tuning:
    """The trials of a study: which there are, which are missing, and what they chose.

    Arguments: `study`, one whose request asks for tuning.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.rows = {label: self._cells(label) for label in study.request.labels}

    def _cells(self, label: str) -> tuple[Cell, ...]:
        request = self.study.request
        # What a class of one's own declares is known only where it is: a report imports none.
        here = own.is_here(request.method(label))
        recipes = enumerate(trials(request, label) if here else self.study.tried(label))
        return tuple(Cell(f"{label}, trial {n}", r, r.hash(request.tune_data_sha256)) for n, r in recipes)

    @property
    def total(self) -> int:
        """How many trials are asked for."""
        return sum(map(len, self.rows.values()))

    def path(self, cell: Cell) -> Path:
        """The folder of a trial."""
        return self.study.folder / TUNING / cell.folder

    def missing(self) -> tuple[Cell, ...]:
        """The trials without a result, in the order in which they are run: in turns, as the runs of a study."""
        order = turns(tuple(self.rows), self.study.request.tune)
        cells = (self.rows[label][n] for n, label in order)
        return tuple(cell for cell in cells if not (self.path(cell) / RUN).exists())

    def results(self, label: str) -> list[Result]:
        """A row's trials; raises `RunError` where one is missing or damaged."""
        return [read_result(self.path(cell), cell, self.study) for cell in self.rows[label]]

    def choose(self) -> None:
        """Write tuning.json: every trial, and of each row the one with the highest accuracy on what was held out.

        Raises `RunError`: a trial is missing; `OSError`: the disk refuses.
        """
        rows = [self.row(label) for label in self.rows]
        record = {"format": FORMAT, "study_sha256": self.study.sha256, "rows": rows}
        write_atomic(self.study.folder / TUNED, to_json(record))

    def row(self, label: str) -> dict[str, Any]:
        """A row of tuning.json, from its trials; raises `RunError` where one is missing or damaged."""
        tried = []
        for n, result in enumerate(self.results(label)):
            final = result.run.final or {"accuracy": None, "loss": None}
            values = {"trial": n, "recipe": result.run.recipe, "accuracy": final["accuracy"], "loss": final["loss"]}
            tried.append({**values, "seconds": result.measured.get("seconds"), "message": result.run.message})
        return {"label": label, "chosen": best(tried), "trials": tried}


def best(tried: Sequence[dict[str, Any]]) -> int:
    """The trial of the highest accuracy; of equal ones that of the lowest loss, then the first; failed ones last."""

    def merit(n: int) -> tuple[float, float]:
        accuracy, loss = tried[n]["accuracy"], tried[n]["loss"]
        return -math.inf if accuracy is None else accuracy, -math.inf if loss is None else -loss

    return max(range(len(tried)), key=merit)


def expected_best(accuracies: Sequence[float]) -> list[float]:
    """The mean of the best of k trials drawn without replacement from n, for k = 1 … n.

        E max of k = Σᵢ C(i − 1, k − 1) / C(n, k) x₍ᵢ₎,  x₍₁₎ ≤ … ≤ x₍ₙ₎

    Unbiased; with replacement it is not (R. Tang et al., Showing your work doesn't always work, ACL 2020).
    """
    ordered = sorted(accuracies)
    n = len(ordered)
    return [
        math.fsum(math.comb(i, k - 1) * x for i, x in enumerate(ordered)) / math.comb(n, k) for k in range(1, n + 1)
    ]
