"""The recipe: everything that decides a training run except the code."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import poolkit
from poolkit import own
from poolkit.lab.nets import FLATTEN, STARTS, known_net, known_places, known_pool
from poolkit.lab.optimisers import OPTIMISERS
from poolkit.lab.schedules import SCHEDULES

# Younger than the first runs: a recipe that leaves them at their defaults is written without them, so that it keeps
# the hash it had, and the runs from before can be read and resumed.
LATER = ("schedule", "flip", "start", "head", "pool_at")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run except the code; the defaults are the tutorial's.

    Fields: `data`, a name for `poolkit.lab.data.load`; `net`, "tutorial", or a net of others
    (`poolkit.lab.other_nets`): "timm:resnet18", "my_module:my_net"; `pool`, a method's spelling such as "soft:beta=2",
    one of your own such as "my_module:MyPool:b=2", or one for each pooling place in the net's order,
    "soft:beta=2 | max", or "as-made" for those that a net of others has; `epochs`, passes over the training pictures;
    `batch`, pictures a step; `optimiser`, "adam" (eps 1e-7, as Keras), "sgd" (momentum 0.9) or "muon"
    (`poolkit.lab.optimisers.Muon`); `lr`, its learning rate; `seed`, 0 or more; `limit`, train on the first so many
    pictures only, None for all; `schedule` of the learning rate, "constant" or "one-cycle" (`poolkit.lab.schedules`);
    `flip`, mirror each picture with probability ½ in each epoch; `start`, the weights before the first step: "glorot"
    or "whitened" (`poolkit.lab.nets.whiten`: the first convolution is computed from the pictures, and stays); `head`,
    what makes a vector of the maps before the dense layers: "flatten", or a head's spelling such as
    "netvlad:clusters=16"; `pool_at`, at which of the net's pooling places `pool` stands, such as "conv2": all of them
    where it is empty, elsewhere are the net's own.
    Raises `ValueError` at construction for a value that is not allowed, and says which are.
    """

    data: str = "cifar10"
    net: str = "tutorial"
    pool: str = "max"
    epochs: int = 10
    batch: int = 32
    optimiser: str = "adam"
    lr: float = 1e-3
    seed: int = 0
    limit: int | None = None
    schedule: str = "constant"
    flip: bool = False
    start: str = "glorot"
    head: str = FLATTEN
    pool_at: str = ""

    def __post_init__(self) -> None:
        known_net(self.net)
        known_places(self.net, self.pool_at)
        object.__setattr__(self, "pool", known_pool(self.net, self.pool, self.pool_at))
        if self.head != FLATTEN:
            object.__setattr__(self, "head", _head(self.head))
        if not isinstance(self.data, str) or not self.data:
            raise ValueError(f'data={self.data!r} is not allowed: the name of a data set, such as "cifar10"')
        for name, least in (("epochs", 1), ("batch", 1), ("seed", 0), ("limit", 1)):
            value = getattr(self, name)
            if value is None and name == "limit":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
                raise ValueError(f"{name}={value!r} is not allowed: an integer, {least} or more")
        for name, words in (("optimiser", OPTIMISERS), ("schedule", SCHEDULES), ("start", STARTS)):
            _one_of(name, getattr(self, name), words)
        if not isinstance(self.flip, bool):
            raise ValueError(f"flip={self.flip!r} is not allowed: True or False")
        number = isinstance(self.lr, (int, float)) and not isinstance(self.lr, bool)
        if not number or not 0 < self.lr < math.inf:
            raise ValueError(f"lr={self.lr!r} is not allowed: a learning rate above 0, such as 0.001")
        object.__setattr__(self, "lr", float(self.lr))

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, in their order; those of `LATER` only where they are not the defaults."""
        plain = {f.name: f.default for f in dataclasses.fields(self) if f.name in LATER}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in plain or v != plain[k]}

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Recipe:
        """The recipe of a dict such as run.json's; raises `ValueError` for a key that no recipe has."""
        known = [f.name for f in dataclasses.fields(cls)]
        for key in given:
            if key not in known:
                raise ValueError(f'A recipe has no "{key}".{_nearest(key, known)}\n  allowed: {", ".join(known)}')
        return cls(**given)

    def hash(self, data_sha256: str) -> str:
        """The SHA-256 of this recipe on these data: two runs with the same hash were asked for the same."""
        asked = json.dumps({"recipe": self.as_dict(), "data": data_sha256}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(asked.encode()).hexdigest()


def _head(spelling: str) -> str:
    if not own.is_here(spelling):
        return own.spelled(spelling)
    method = poolkit.method(spelling)
    if method.kind != "head":
        raise ValueError(
            f"head={spelling!r} is not allowed: {method.spelling} is a {method.kind} method\n"
            f"  allowed: {FLATTEN}, {', '.join(poolkit.HEADS)}"
        )
    return method.spelling


#: The recipes that have a name, by what they change of the defaults. `quick` was chosen on the last 5,000 training
#: pictures of CIFAR-10, never on the test pictures.
RECIPES: dict[str, dict[str, Any]] = {
    "tutorial": {},
    "quick": {
        "epochs": 1,
        "batch": 128,
        "optimiser": "muon",
        "lr": 0.12,
        "schedule": "one-cycle",
        "flip": True,
        "start": "whitened",
    },
}


def named(name: str, **changes: Any) -> Recipe:
    """The recipe of a name with changes: `named("quick", pool="soft", seed=1)`.

    "tutorial" is `Recipe()`. "quick" trains the same net to the tutorial's accuracy in a fraction of its time.
    Raises `ValueError` for an unknown name, with the nearest one, and for values that `Recipe` refuses.
    """
    if name not in RECIPES:
        raise ValueError(f'There is no recipe "{name}".{_nearest(name, RECIPES)}\n  allowed: {", ".join(RECIPES)}')
    return Recipe(**{**RECIPES[name], **changes})


def options(recipe: Recipe) -> list[str]:
    """The words that ask `poolkit train` for a recipe: those of the named recipe that is nearest, and what differs."""
    every = {name: named(name, data=recipe.data) for name in RECIPES}
    names = [f.name for f in dataclasses.fields(Recipe)]
    differ = {name: [n for n in names if getattr(recipe, n) != getattr(other, n)] for name, other in every.items()}
    nearest = min(every, key=lambda name: len(differ[name]))
    words = [] if nearest == "tutorial" else ["--recipe", nearest]
    words += ["--data", recipe.data]
    for field in differ[nearest]:
        value, option = getattr(recipe, field), field.replace("_", "-")
        words += [f"--{'' if value else 'no-'}{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]
    return words


def _one_of(name: str, value: Any, allowed: Iterable[str]) -> None:
    words = list(allowed)
    if value not in words:
        raise ValueError(f"{name}={value!r} is not allowed: one of {', '.join(words)}")


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(word), list(known), n=1)
    return f'\n  nearest: "{near[0]}"' if near else ""
