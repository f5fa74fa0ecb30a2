"""Memory of a training step with heads and map methods, counted: `poolkit bench memory`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import poolkit
from poolkit.lab.footprint import footprint, largest_array
from poolkit.map_layers import MapLayer
from poolkit.map_method import MapMethod
from poolkit.torch import Head, MapPool2d


def measured(spellings: Sequence[str], shape: tuple[int, ...]) -> dict[str, Any]:
    """Bytes of the input and, for each method, of what is kept, the peak and the largest array.

    Raises:
        ValueError: an unknown method, one on windows or with further inputs, or maps that it cannot pool.
    """
    layers = {spelling: layer(spelling, shape) for spelling in spellings}
    x = torch.rand(shape, requires_grad=True)
    rows = [{"method": spelling, **_row(one, x)} for spelling, one in layers.items()]
    return {"shape": list(shape), "input": x.untyped_storage().nbytes(), "torch": torch.__version__, "rows": rows}


def _row(one: MapLayer, x: Tensor) -> dict[str, int]:
    with torch.no_grad():
        g = torch.rand_like(one(x))
    weights = tuple(one.parameters())
    found = footprint(one, x, g, weights)
    largest = largest_array(lambda: torch.autograd.grad(one(x), (x, *weights), g))
    return {"kept": found.kept, "peak": found.peak, "largest": largest}


def layer(spelling: str, shape: tuple[int, ...]) -> MapLayer:
    """The layer of a head or map method for maps of a shape, with windows of 2 where it wants some."""
    method, (channels, *sizes) = poolkit.method(spelling), shape[1:]
    if not isinstance(method, MapMethod):
        raise ValueError(f"{spelling} is a window method\n  measure it: poolkit bench --method {spelling}")
    if set(method.takes) - set(method.optional):
        raise ValueError(f"{spelling} wants {', '.join(method.takes)} beside the maps, which are not measured here")
    if method.kind == "head":
        made: MapLayer = Head(method, channels, sizes)
    else:
        made = MapPool2d(method, 2 if method.takes_window == "needs" else None, channels=channels, sizes=sizes)
    made.output_shape(channels, *sizes)
    return made
