"""What pooling does to the maps of a trained network: one picture, the first convolution, every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, relu

from poolkit.report import charts

# A pooling under its name: any callable on float tensors (N, C, H, W). The first of a list is the run's own.
Pooling = tuple[str, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Tile:
    """One map after one pooling method, and its difference to the run's own pooling."""

    name: str
    random: bool
    shape: tuple[int, int]
    picture: str
    difference: str | None
    mean_difference: float | None


@dataclass(frozen=True)
class Channel:
    """One channel before pooling and after every method; `high` and `limit` end the colour scales."""

    index: int
    shape: tuple[int, int]
    before: str
    high: float
    limit: float
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Comparison:
    """The most active channels of one picture, and the methods that could not be shown, with the reason."""

    channels: tuple[Channel, ...]
    failures: tuple[tuple[str, str], ...]


def installed(own: str, weights: Mapping[str, Tensor]) -> list[Pooling]:
    """The run's own pooling, with what it learned in its first layer, and all other methods on windows with defaults.

    Arguments: `own`, the spelling in the recipe; `weights`, the network's state.
    """
    from poolkit import WINDOW_METHODS
    from poolkit.torch import Pool2d

    first = Pool2d(own, 2, channels=len(weights["conv1.weight"]) if "conv1.weight" in weights else None)
    first.load_state_dict({key[6:]: value for key, value in weights.items() if key.startswith("pool1.")})
    others = [(name, Pool2d(method(), 2)) for name, method in WINDOW_METHODS.items() if name != own]
    return [(own, first), *others]


def compare(
    pixels: np.ndarray, weights: Mapping[str, Tensor], poolings: Sequence[Pooling], most: int | None = None
) -> Comparison:
    """Pool the first convolution's maps of one picture with every method.

    Random methods are shown as they act at test time: a layer is put into eval mode and left there.

    Arguments: `pixels`, uint8 (C, H, W); `weights`, the network's state with `conv1.weight` and perhaps
    `conv1.bias`; `poolings`, the run's own first; `most`, how many channels are shown, those with the largest
    mean after ReLU (None: 3, of maps larger than 64×64 one, so that the page can still be mailed).
    Raises `KeyError` without `conv1.weight`, `RuntimeError` where the weights do not fit the picture.
    """
    with torch.no_grad():
        x = torch.from_numpy(pixels.astype(np.float32))[None] / 255
        maps = relu(conv2d(x, weights["conv1.weight"].float(), weights.get("conv1.bias")))
        most = most or (3 if max(maps.shape[2:]) <= 64 else 1)
        chosen = maps.mean((0, 2, 3)).argsort(descending=True, stable=True)[:most].tolist()
        shown, failures = [], []
        for name, pool in poolings:
            try:
                random, pooled = _apply(pool, maps)
            except (
                ArithmeticError,
                LookupError,
                NotImplementedError,
                RuntimeError,
                TypeError,
                ValueError,
            ) as error:
                # One method out of many must not cost the report of a finished training; it is named instead.
                failures.append((name, str(error)))
            else:
                shown.append((name, random, pooled))
    return Comparison(tuple(_channel(index, maps, shown, poolings[0][0]) for index in chosen), tuple(failures))


def _apply(pool: Callable[[Tensor], Tensor], maps: Tensor) -> tuple[bool, Tensor]:
    """Whether the method draws at random while training, and what it gives at test time."""
    if not isinstance(pool, torch.nn.Module):
        return False, pool(maps)
    with torch.random.fork_rng(devices=[]):
        draws = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            draws.append(pool.train()(maps))
        result = pool.eval()(maps)
    return not torch.equal(*draws), result


def _channel(index: int, maps: Tensor, shown: Sequence[tuple[str, bool, Tensor]], own: str) -> Channel:
    before = maps[0, index].numpy()
    high = float(before.max())
    after = [(name, random, pooled[0, index].float().numpy()) for name, random, pooled in shown]
    mine = next((values for name, _, values in after if name == own), None)
    gaps = [None if mine is None or values.shape != mine.shape else values - mine for _, _, values in after]
    # A method that adds up its window would otherwise wash out the differences of all the others.
    limit = min(high, max((float(np.nanmax(np.abs(gap))) for gap in gaps if gap is not None), default=0.0))
    tiles = []
    for (name, random, values), gap in zip(after, gaps, strict=True):
        tiles.append(
            Tile(
                name=name,
                random=random,
                shape=values.shape,
                picture=charts.activation(values, high),
                difference=None if gap is None or name == own else charts.difference(gap, limit),
                mean_difference=None if gap is None or name == own else float(np.abs(gap).mean()),
            )
        )
    return Channel(index, before.shape, charts.activation(before, high), high, limit, tuple(tiles))
