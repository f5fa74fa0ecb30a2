"""What the contracts try a method on whole maps with: layers, maps, and the comparison with the scalar form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from poolkit.map_layers import MAP_POOLS, Head, MapLayer
from poolkit.map_method import HeadMethod, MapMethod, MapShape, OneMap
from poolkit.subject import Case, case, picture

# From small to large, so that the first failure is a small one.
WINDOWED = (
    case(1, kernel_size=1),
    case(5, kernel_size=2),
    case(6, kernel_size=3, stride=2, padding=1),
    case(2, 2, kernel_size=2),
    case(4, 4, kernel_size=2),
    case(5, 5, kernel_size=2, ceil_mode=True),
    case(5, 6, kernel_size=3, stride=2, padding=1),
    case(7, 4, kernel_size=(2, 3), stride=(2, 1)),
    case(6, 6, kernel_size=3, stride=2, padding="same"),
    case(3, 4, 2, kernel_size=2),
)
WHOLE = (case(1), case(5), case(8), case(1, 1), case(4, 4), case(5, 6), case(7, 4), case(8, 8), case(2, 3, 4))


@dataclass(frozen=True)
class MapSubject:
    """One method on whole maps with one set of parameters."""

    method: MapMethod
    path: ClassVar[str] = "reference"

    @property
    def cases(self) -> list[Case]:
        """The cases that the method can serve."""
        cases: tuple[Case, ...] = WINDOWED if self.method.takes_window == "needs" else WHOLE
        cases += WINDOWED[3:] if self.method.takes_window == "may" else ()
        return [c for c in cases if c.dims in self.method.takes_dims and self.serves(c)]

    def serves(self, c: Case) -> bool:
        """Whether the method can pool maps of these sizes with this window."""
        try:
            self.method.output_shape(self.shape(c))
        except ValueError:
            return False
        return True

    def shape(self, c: Case) -> MapShape:
        """What the method may know of a case."""
        return MapShape(self.method.try_channels, c.dims, c.sizes, c.window if c.geometry else None)

    def some(self, dims: int = 2, least: int = 4) -> Case:
        """One case of two dimensions, or of those the method has, of at least so many cells an axis."""
        fitting = [c for c in self.cases if min(c.sizes) >= least] or self.cases
        return next((c for c in fitting if c.dims == dims), fitting[-1])

    def layer(self, c: Case, *, seed: int | None = None, train: bool = False) -> MapLayer:
        """A fresh layer in float64, its weights moved away from their start, where zeros could hide a mistake."""
        # The start must be the same each time, and what the caller seeded must stay as it is.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = self._fresh(c, seed)
        generator = torch.Generator().manual_seed(len(c.sizes))
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        layer.double().train(train)
        return layer

    def _fresh(self, c: Case, seed: int | None) -> MapLayer:
        channels = self.method.try_channels
        if isinstance(self.method, HeadMethod):
            return Head(self.method, channels, c.sizes, dims=c.dims, seed=seed)
        arguments = {"channels": channels, "sizes": c.sizes, "seed": seed, **dict(c.geometry)}
        return MAP_POOLS[c.dims](self.method, **arguments)

    def maps(self, c: Case, seed: int, n: int = 2) -> Tensor:
        """Maps of a case, cells from −3 to 3, no two of the same size: the norms of some methods do not see signs."""
        return picture(c.sizes, seed, n, self.method.try_channels) + 0.0371

    def others(self, c: Case, n: int = 2) -> tuple[Tensor, ...]:
        """Further inputs for n examples."""
        examples = [self.method.try_inputs(self.shape(c), seed) for seed in range(max(n, 1))]
        given = [name for name in self.method.takes if name in examples[0]]
        found = (torch.tensor([e[name] for e in examples]) for name in given)
        return tuple(v.double() if v.is_floating_point() else v for v in found)

    def __str__(self) -> str:
        return self.method.spelling


def expected(layer: MapLayer, x: Tensor, others: tuple[Tensor, ...] = (), u: Tensor | None = None) -> Tensor:
    """The oracle's output for x (N, C, *sizes) with a layer's weights; u are the draws (N, …)."""
    return torch.stack([_one(layer, x, others, u, n) for n in range(x.shape[0])])


def _one(layer: MapLayer, x: Tensor, others: tuple[Tensor, ...], u: Tensor | None, n: int) -> Tensor:
    method, sizes = layer.method, tuple(x.shape[2:])
    arrays = {name: w.detach().numpy() for name, w in layer.weights().items()}
    numbers = {name: _plain(v.detach()) for name, v in layer.learned().items()}
    cells = {place: float(v) for place, v in np.ndenumerate(x[n].numpy())}
    named = {name: v[n].tolist() for name, v in zip(method.takes, others, strict=False)}
    one = OneMap(cells, int(x.shape[1]), sizes, layer.window, named)
    p = method.values(**numbers)
    for name, array in arrays.items():
        setattr(p, name, array)
    answer = method.oracle(one, p) if u is None else method.oracle_sample(one, p, u[n].numpy())
    y = torch.full(layer.output_shape(int(x.shape[1]), *sizes), math.nan, dtype=torch.float64)
    if len(answer) != y.numel():
        raise ValueError(f"the oracle answers {len(answer)} numbers, output_shape says {tuple(y.shape)}")
    for place, v in answer.items():
        y[place] = v
    return y


def _plain(learned: Tensor) -> Any:
    """What an oracle reads of a learned parameter: a number, or a list of one for each channel."""
    return float(learned) if learned.numel() == 1 else learned.flatten().tolist()
