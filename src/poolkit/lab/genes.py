"""The genes of a net: which method, with which parameters, stands at each of its pooling places."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import poolkit
from poolkit.lab.nets import FLATTEN, PLACES, Shape, build
from poolkit.torch import Pool2d

#: What a place may have where nothing else is asked for; `LOW..HIGH` is a range.
MENU = (
    "max",
    "avg",
    "lp:p=1..8",
    "soft:beta=0.1..10",
    "avg-topk:k=1..4",
    "rank-weighted:alpha=0.1..1,normalize=true",
    "blend:a=0..1",
    "genetic-weights:weights=1..9",
)
_RANGE = re.compile(r"(?P<name>\w+)=(?P<low>[^,=]*?)\.\.(?P<high>[^,=]*)")
_DIGITS = 3  # significant ones of a number: two nets that differ by less are the same net


@dataclass(frozen=True)
class Choice:
    """One method that a place may have, with at most one parameter that is searched between two numbers.

    Fields: `text`, such as `soft:beta=0.1..10`; `name`, `low` and `high` of the range, None without one; `whole`, it is
    one of whole numbers; `listed`, it has a number for each cell of the window.
    """

    text: str
    name: str | None = None
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    listed: bool = False

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read a choice. Raises `ValueError` for an unknown method or a range that is not allowed."""
        ranges = list(_RANGE.finditer(text))
        if not ranges:
            return cls(poolkit.method(text).spelling)
        if len(ranges) > 1:
            raise ValueError(f'"{text}" has {len(ranges)} ranges: one is searched\n  give the others a number')
        found = ranges[0]
        ends = [poolkit.method(_RANGE.sub(rf"\g<name>={found[end]}", text)) for end in ("low", "high")]
        low, high = (getattr(method, found["name"]) for method in ends)
        declared = ends[0].params()[found["name"]]
        if declared.listed:
            low, high = low[0], high[0]
        numbers = all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in (low, high))
        if not numbers or not low < high:
            raise ValueError(f'"{text}": a range goes from a number up to a larger one, such as soft:beta=0.1..10')
        # A list's numbers count by their ratios, which whole ones show best.
        whole = isinstance(low, int) or (declared.listed and low == int(low) and high == int(high))
        return cls(text, found["name"], low, high, whole, declared.listed)

    def spelling(self, share: float, cells: Sequence[float]) -> str:
        """The method with the number that lies at a share of the range, from 0 to 1, or with those of the cells."""
        if self.name is None:
            return self.text
        shown = "-".join(self._at(cell) for cell in cells) if self.listed else self._at(share)
        return poolkit.method(_RANGE.sub(rf"\g<name>={shown}", self.text)).spelling

    def _at(self, share: float) -> str:
        """A number of the range: evenly in its logarithm where it lies above 0, else evenly."""
        if self.whole:
            count = int(self.high - self.low) + 1
            return str(int(self.low) + min(int(share * count), count - 1))
        even = self.low <= 0
        value = self.low + share * (self.high - self.low) if even else self.low * math.pow(self.high / self.low, share)
        return f"{min(max(float(f'{value:.{_DIGITS}g}'), self.low), self.high):g}"


@dataclass(frozen=True)
class Genome:
    """What is searched: for each place a choice, a share of its range, and a share for each cell of the window.

    A gene may be silent, as the cells' are while a place has another method: it is inherited all the same.

    Fields: `choices`, what a place may have; `places`, how many the net has; `cells`, of its largest window, 0 where
    no choice has a number for each.
    """

    choices: tuple[Choice, ...]
    places: int
    cells: int

    @classmethod
    def of(cls, menu: Sequence[str], net: str, shape: Shape, classes: int, head: str = FLATTEN) -> Genome:
        """The genome of a net, which is built with each choice at both ends of its range.

        Arguments: `menu`, what a place may have; the others as `poolkit.lab.nets.build`.
        Raises `ValueError` for a net that cannot be, and for a choice with which it cannot be, by its name.
        """
        choices = tuple(map(Choice.parse, menu))
        model = build(net, "max", shape, classes, 0, head)
        pools = [layer for layer in model.modules() if isinstance(layer, Pool2d)]
        listed = any(choice.listed for choice in choices)
        places = len(PLACES.get(net, pools))
        genome = cls(choices, places, max(pool.window.k for pool in pools) if listed else 0)
        for choice in choices:
            for share in (0.0, 1.0) if choice.name else (0.0,):
                _try(choice, choice.spelling(share, [share] * genome.cells), net, shape, classes, head)
        return genome

    def distributions(self) -> dict[str, Any]:
        """The genes by name, as optuna wants them."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        found: dict[str, Any] = {}
        names = [choice.text for choice in self.choices]
        for place in range(1, self.places + 1):
            found[f"{place}.method"] = CategoricalDistribution(names)
            if any(choice.name and not choice.listed for choice in self.choices):
                found[f"{place}.share"] = FloatDistribution(0.0, 1.0)
            found |= {f"{place}.cell{cell}": FloatDistribution(0.0, 1.0) for cell in range(1, self.cells + 1)}
        return found

    def pool(self, genes: Mapping[str, Any]) -> str:
        """The pools that genes stand for, as recipes spell them: `soft:beta=2 | max`."""
        known = {choice.text: choice for choice in self.choices}
        spelled = []
        for place in range(1, self.places + 1):
            cells = [genes[f"{place}.cell{cell}"] for cell in range(1, self.cells + 1)]
            spelled.append(known[genes[f"{place}.method"]].spelling(genes.get(f"{place}.share", 0.0), cells))
        return " | ".join(spelled)


def _try(choice: Choice, pool: str, net: str, shape: Shape, classes: int, head: str) -> None:
    """Build the net with a choice at every place and pass two pictures through it, as in training and in evaluation."""
    try:
        model = build(net, pool, shape, classes, 0, head)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # random methods draw
            for training in (True, False):
                model.train(training)(torch.zeros(2, *shape))
    except (ValueError, TypeError, RuntimeError) as error:
        sizes, reason = "×".join(map(str, shape)), str(error).partition("\n")[0]
        raise ValueError(
            f'menu: "{choice.text}" cannot stand in the net "{net}" on pictures of {sizes}: {reason}\n'
            "  allowed: methods that take the place of a max pool there"
        ) from error
