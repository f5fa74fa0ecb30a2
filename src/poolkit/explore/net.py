"""A trained net in the explorer: every map on the way from a picture to the classes, with other pools in it at will.

What was learned stays as it is: a pool that is put in another's place shows what the net makes of it untrained.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from poolkit.explore.asked import LARGEST, method
from poolkit.explore.scene import bound, plain
from poolkit.lab.nets import PLACES, maker, pools
from poolkit.lab.run import Run, RunError, as_input
from poolkit.map_method import MapMethod, MapShape
from poolkit.method import nearest
from poolkit.window import window

_KNOWN = {"picture", "pixels", "pools", "layer", "map"}


@dataclass(frozen=True, eq=False)
class Trained:
    """A run's net and the pictures that the run shows.

    Attributes:
        run: the run.
        model: its net, in evaluation.
        pixels: uint8 (N, C, H, W), pictures of the test set.
        labels: their classes.
    """

    run: Run
    model: nn.Module
    pixels: Tensor
    labels: list[int]

    @classmethod
    def of(cls, run: Run) -> Trained:
        """The net of a finished run.

        Raises:
            RunError: the run has no weights or pictures, or its net has no places that are known here.
        """
        if run.recipe["net"] not in PLACES:
            known = ", ".join(PLACES)
            raise RunError(f'The explorer follows the net "{known}", and this run trained "{run.recipe["net"]}".')
        arrays = run.predictions()
        labels = arrays["labels"][arrays["shown_index"]].tolist()
        return cls(run, run.model(), torch.from_numpy(arrays["shown_pixels"]), labels)

    @property
    def own_pools(self) -> tuple[str, ...]:
        """The spellings of the pools that the net was trained with, place by place."""
        recipe = self.run.recipe
        return tuple(map(str, pools(recipe["net"], recipe["pool"], recipe.get("pool_at", ""))))

    @property
    def places(self) -> list[str]:
        """The names of the pools in the net, in its order."""
        return [name for name, _ in PLACES[self.run.recipe["net"]]]

    def about(self) -> dict[str, Any]:
        """What the page wants once: classes, places with their pools, layers, and the pictures."""
        return {
            "classes": self.run.data["classes"],
            "places": dict(PLACES[self.run.recipe["net"]]),
            "pools": list(self.own_pools),
            "maps": self.maps(),
            "shape": list(self.run.data["shape"]),
            "pictures": [_packed(one) for one in self.pixels],
            "labels": self.labels,
        }

    def maps(self) -> dict[str, int]:
        """How many maps each layer that has some gives."""
        maps = self._through(as_input(self.pixels[:1].permute(0, 2, 3, 1)), self.own_pools)[1]
        return {name: len(y) for name, y in maps.items()}

    def look(self, values: Any) -> dict[str, Any]:
        """One picture through the net: the maps of each layer, and the classes with its own pools and with others.

        Raises:
            ValueError: an unknown key, picture, pool, layer or map; the message names it.
        """
        if not isinstance(values, dict) or not set(values) <= _KNOWN:
            wrong = next((key for key in values if key not in _KNOWN), "") if isinstance(values, dict) else values
            raise ValueError(f'a look at the net has no "{wrong}"{nearest(str(wrong), _KNOWN)}')
        x = as_input(self._picture(values).permute(0, 2, 3, 1))
        own, _ = self._through(x, self.own_pools)
        now, maps = self._through(x, self._pools(values.get("pools")))
        shown = [{"name": name, "shape": list(y.shape), "maps": _grey(y)} for name, y in maps.items()]
        return {"own": plain(own), "now": plain(now), "layers": shown, "cells": _cells(maps, values)}

    def _through(self, x: Tensor, spellings: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """The classes' probabilities, and the maps (C, H, W) of each layer; those of convolutions after their ReLU."""
        maps: dict[str, Tensor] = {}

        def note(name: str) -> Any:
            def hook(layer: nn.Module, given: Any, y: Tensor) -> None:
                maps[name] = relu(y[0]) if isinstance(layer, nn.Conv2d) else y[0]

            return hook

        with self._with(spellings), torch.no_grad():
            found = [(name, layer) for name, layer in self.model.named_children() if name.startswith(("conv", "pool"))]
            hooks = [layer.register_forward_hook(note(name)) for name, layer in found]
            try:
                scores = self.model(x)
            finally:
                for one in hooks:
                    one.remove()
        return scores.softmax(1)[0], {name: maps[name] for name, _ in found}

    @contextmanager
    def _with(self, spellings: tuple[str, ...]) -> Iterator[None]:
        """The net with other pools until the end of the block; a place with the same pool keeps what it learned."""
        names = self.places
        before = {name: getattr(self.model, name) for name in names}
        try:
            for name, own, wanted in zip(names, self.own_pools, spellings, strict=True):
                if wanted != own:
                    setattr(self.model, name, self._pool(name, wanted))
            yield
        finally:
            for name, layer in before.items():
                setattr(self.model, name, layer)

    def _pool(self, name: str, spelling: str) -> nn.Module:
        """A pool for a place, of as many maps as the convolution before it gives."""
        channels = getattr(self.model, dict(PLACES[self.run.recipe["net"]])[name]).out_channels
        found = method(spelling)
        if isinstance(found, MapMethod):
            if found.takes_window == "never":
                raise ValueError(f"{spelling} takes no window, so it cannot stand where a pool stood")
            bound(found, MapShape(channels, 2, (32, 32), window(2, dims=2)))
        layer: Any = maker(found.spelling)(channels)
        if hasattr(layer, "path"):
            layer.path = "reference"  # no look waits for a kernel to be compiled
        return layer.eval()

    def _pools(self, given: Any) -> tuple[str, ...]:
        """The pools that are asked for; where none is, the net's own."""
        if given is None:
            return self.own_pools
        if (
            not isinstance(given, list)
            or len(given) != len(self.own_pools)
            or not all(isinstance(s, str) for s in given)
        ):
            raise ValueError(f"pools: a spelling for each of {', '.join(self.places)}, or nothing for the net's own")
        return tuple(method(s).spelling if s else own for s, own in zip(given, self.own_pools, strict=True))

    def _picture(self, values: dict[str, Any]) -> Tensor:
        """uint8 (1, C, H, W): one of the run's pictures, or one that was sent."""
        if "pixels" in values:
            return self._sent(values["pixels"])
        number = values.get("picture", 0)
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(self.pixels):
            raise ValueError(f"picture={number!r}: a number from 0 to {len(self.pixels) - 1}")
        return self.pixels[number : number + 1]

    def _sent(self, text: Any) -> Tensor:
        shape = tuple(self.run.data["shape"])
        try:
            raw = base64.b64decode(text, validate=True)
            return torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(1, *shape)
        except (TypeError, ValueError, RuntimeError, binascii.Error):
            size = "×".join(map(str, shape))
            raise ValueError(f"pixels: base64 of {size} bytes, map by map, row by row") from None


def _packed(pixels: Tensor) -> str:
    return base64.b64encode(pixels.contiguous().numpy().tobytes()).decode()


def _grey(maps: Tensor) -> str:
    """Maps as bytes, from 0 to 255 at the layer's largest |x|, by the square root: small numbers are seen as well."""
    largest = maps.abs().max().clamp(min=1e-30)
    return _packed(((maps.abs() / largest).sqrt() * 255).round().to(torch.uint8))


def _cells(maps: dict[str, Tensor], values: dict[str, Any]) -> Any:
    """The numbers of the one map that is looked at, rows of cells."""
    layer, number = values.get("layer"), values.get("map", 0)
    if layer is None:
        return None
    if not isinstance(layer, str) or layer not in maps:
        raise ValueError(f'the net has no layer "{layer}"\n  its layers with maps: {", ".join(maps)}')
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(maps[layer]):
        raise ValueError(f"map={number!r}: {layer} has {len(maps[layer])} maps, from 0")
    # Of a larger map the part that the explorer takes.
    return plain(maps[layer][number][:LARGEST, :LARGEST])
