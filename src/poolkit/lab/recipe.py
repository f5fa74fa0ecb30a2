"""The recipe: everything that decides a training run except the code."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import poolkit
from poolkit.lab.nets import known_net


def _adam(parameters: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Adam as Keras has it: PyTorch's own eps is ten times smaller."""
    return torch.optim.Adam(parameters, lr=lr, eps=1e-7, fused=True)


def _sgd(parameters: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


OPTIMISERS: dict[str, Callable[[Iterator[nn.Parameter], float], torch.optim.Optimizer]] = {
    "adam": _adam,
    "sgd": _sgd,
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run except the code; the defaults are the tutorial's.

    Fields: `data`, a name for `poolkit.lab.data.load`; `net`, a name in `poolkit.lab.nets.NETS`; `pool`, a
    method's spelling such as "soft:beta=2"; `epochs`, passes over the training pictures; `batch`, pictures
    a step; `optimiser`, "adam" (eps 1e-7, as Keras) or "sgd" (momentum 0.9); `lr`, its learning rate;
    `seed`, 0 or more; `limit`, train on the first so many pictures only, None for all.
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

    def __post_init__(self) -> None:
        known_net(self.net)
        object.__setattr__(self, "pool", poolkit.method(self.pool).spelling)
        if not isinstance(self.data, str) or not self.data:
            raise ValueError(f'data={self.data!r} is not allowed: the name of a data set, such as "cifar10"')
        for name, least in (("epochs", 1), ("batch", 1), ("seed", 0), ("limit", 1)):
            value = getattr(self, name)
            if value is None and name == "limit":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
                raise ValueError(f"{name}={value!r} is not allowed: an integer, {least} or more")
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser={self.optimiser!r} is not allowed: one of {', '.join(OPTIMISERS)}")
        number = isinstance(self.lr, (int, float)) and not isinstance(self.lr, bool)
        if not number or not 0 < self.lr < math.inf:
            raise ValueError(f"lr={self.lr!r} is not allowed: a learning rate above 0, such as 0.001")
        object.__setattr__(self, "lr", float(self.lr))

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, in their order."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Recipe:
        """The recipe of a dict such as run.json's; raises `ValueError` for a key that no recipe has."""
        known = [f.name for f in dataclasses.fields(cls)]
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f'\n  nearest: "{near[0]}"' if near else ""
                raise ValueError(f'A recipe has no "{key}".{hint}\n  allowed: {", ".join(known)}')
        return cls(**given)

    def hash(self, data_sha256: str) -> str:
        """The SHA-256 of this recipe on these data: two runs with the same hash were asked for the same."""
        asked = json.dumps({"recipe": self.as_dict(), "data": data_sha256}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(asked.encode()).hexdigest()
