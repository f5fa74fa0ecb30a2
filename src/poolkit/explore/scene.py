"""What one view shows, computed by the layers: outputs, slopes, gradients, and one window step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, cast

import torch
from torch import Tensor

from poolkit.draws import draw_shape, uniform
from poolkit.explore.asked import Asked, method
from poolkit.layer import float64_by_default
from poolkit.map_method import MapMethod, MapShape
from poolkit.method import Learn, Method, WindowMethod, named
from poolkit.parameters import spell
from poolkit.steps import steps
from poolkit.torch import Head, MapPool2d, Pool2d
from poolkit.window import Axis, Window
from poolkit.xp import OneWindow

#: More numbers of an output than this are not shown; more in a layer's weights, an output or a product are not made.
_SHOWN, _WEIGHTS, _OUTPUTS, _PRODUCT = 256, 2_000_000, 32_768, 2_200_000
_COLUMNS = 16  # of a vector, laid in rows


def scene(asked: Asked) -> dict[str, Any]:
    """Everything that one view shows, as plain values; numbers that are not finite are words.

    Raises:
        ValueError: a method is unknown, or the window does not fit the picture. What one method alone cannot do is said
            in the place of its answer.
    """
    methods = [method(spelling) for spelling in asked.spellings]
    if not any(map(takes_window, methods)):  # heads pool a picture of one cell too
        asked = replace(asked, arguments={"kernel_size": 1})
    where = geometry(asked)
    pooled = [_pooled(asked, found) for found in methods]
    return {"window": where, "answers": [_answer(one) for one in pooled], "difference": _difference(pooled)}


def geometry(asked: Asked) -> dict[str, Any]:
    """Where the windows lie, along each axis and in words."""
    axes = asked.window.axes(asked.sizes)
    return {"axes": [_along(axis) for axis in axes], "words": asked.window.explain(asked.sizes)}


def answer(asked: Asked, found: Method) -> dict[str, Any]:
    """What one method makes of the picture, and every cell of its output, row by row, as `cells`."""
    pooled = _pooled(asked, found)
    if isinstance(pooled, dict):
        return pooled
    places = product(*map(range, pooled.shown.shape))
    return {**_about(found), **pooled.whole(), "cells": [pooled.cell(place) for place in places]}


def takes_window(found: Method) -> bool:
    """Whether a method walks over the picture by the window."""
    return not isinstance(found, MapMethod) or found.takes_window == "needs"


def _about(found: Method) -> dict[str, Any]:
    return {"spelling": found.spelling, "name": named(type(found)), "parameters": _parameters(found)}


def _pooled(asked: Asked, found: Method) -> _Pooled | dict[str, Any]:
    """The pooled picture, or what is said in its place: a method of one's own may fail in any way."""
    try:
        return _Pooled.of(found, asked)
    except Exception as reason:
        return {**_about(found), "error": _reason(reason)}


def _answer(pooled: _Pooled | dict[str, Any]) -> dict[str, Any]:
    """The output, and the cell that is looked at."""
    if isinstance(pooled, dict):
        return pooled
    found, asked = pooled.found, pooled.asked
    place = tuple(min(at, length - 1) for at, length in zip(asked.cell, pooled.shown.shape, strict=True))
    try:
        return {**_about(found), **pooled.whole(), "cell": pooled.cell(place)}
    except Exception as reason:  # in a gradient, or in the steps
        return {**_about(found), "error": _reason(reason)}


def _reason(reason: Exception) -> str:
    """The first line of what went wrong; of what is no refusal in words, its kind too."""
    line = str(reason).partition("\n")[0]
    return line if isinstance(reason, (ValueError, TypeError)) else f"{type(reason).__name__}: {line}"


@dataclass(frozen=True)
class _Pooled:
    """A picture that was pooled, with what is needed to ask for slopes."""

    found: Method
    asked: Asked
    layer: Any
    x: Tensor
    y: Tensor
    shown: Tensor

    @classmethod
    def of(cls, found: Method, asked: Asked) -> _Pooled:
        """Pool the picture."""
        layer, x, others = _layer(found, asked)
        y = layer(x.requires_grad_(), *others)
        return cls(found, asked, layer, x, y, _on_page(y[0], asked.map))

    def whole(self) -> dict[str, Any]:
        """The output, the gradient of its sum, and how the layer is written."""
        return {
            "shape": list(self.y.shape[1:]),
            "maps": len(_maps(self.y[0])),
            "numbers": _maps(self.y[0])[0].numel(),
            "channels": self.x.shape[1],
            "values": plain(self.shown),
            "gradient": plain(torch.autograd.grad(self.y.sum(), self.x, retain_graph=True)[0][0, 0]),
            "windows": isinstance(self.found, WindowMethod),
            "takes_window": takes_window(self.found),
            "moved": plain(_moved(self.found, self.asked, self.y.detach())),
            "code": _code(self.found, self.layer, self.asked.window),
        }

    def cell(self, place: tuple[int, ...]) -> dict[str, Any]:
        """One cell of the output: its slopes for the cells of the picture, and its window by the equation."""
        slopes = torch.autograd.grad(self.shown[place], self.x, retain_graph=True)[0][0]
        # A method that keeps maps apart makes its second map of the second one.
        channel = 0 if slopes[0].any() else int(slopes.abs().flatten(1).sum(1).argmax())
        found = {"place": list(place), "value": plain(self.shown[place]), "slopes": plain(slopes[channel])}
        return {**found, "channel": channel, "steps": self._steps(place)}

    def _steps(self, place: tuple[int, ...]) -> list[dict[str, Any]]:
        """Nothing where the method does not work window by window."""
        found, asked = self.found, self.asked
        if not isinstance(found, WindowMethod):
            return []
        one = one_window(asked.cells, asked.window, place)
        learned = {name: _number(found, name, value.detach()) for name, value in self.layer.learned().items()}
        u = _draw(found, asked, place) if asked.training and found.draws else None
        lines = steps(found, one, found.values(**learned), u)
        return [{"text": step.text, "numbers": plain(step.numbers)} for step in lines]


def _layer(found: Method, asked: Asked) -> tuple[Any, Tensor, list[Tensor]]:
    """The method's layer, the maps that it pools and its further inputs; learned weights start by the seed."""
    rows = torch.tensor(asked.cells, dtype=torch.float64)
    if not isinstance(found, MapMethod):
        with float64_by_default():
            layer: Any = Pool2d(found, **asked.arguments, seed=asked.seed)
        layer.path = "reference"  # no view waits for a kernel to be compiled
        return layer.train(asked.training), rows[None, None], []
    needed = found.takes_window == "needs"
    channels = 1 if found.kind == "map" and found.keeps_channels_apart else found.try_channels
    shape = MapShape(channels, 2, asked.sizes, asked.window if needed else None)
    bound(found, shape)
    known = _known(found, shape)
    with torch.random.fork_rng(devices=[]), float64_by_default():
        torch.manual_seed(asked.seed)
        if found.kind == "head":
            layer = Head(found, **known)
        else:
            layer = MapPool2d(found, **(asked.arguments if needed else {}), **known, seed=asked.seed)
    given = found.try_inputs(shape, asked.seed) | {"labels": _blocks(asked.sizes)}
    others = [torch.tensor(given[name])[None] for name in found.takes if name in given]
    return (
        layer.train(asked.training),
        _stack(rows, channels)[None],
        [v.double() if v.is_floating_point() else v for v in others],
    )


def bound(found: MapMethod, shape: MapShape) -> None:
    """Raise `ValueError` for what would take a page's server seconds or gigabytes: no view may stop the others."""
    weights, cells = found.weights(shape).values(), math.prod(shape.sizes or (1,))
    if (numbers := sum(math.prod(w.shape) for w in weights)) > _WEIGHTS:
        raise ValueError(f"{found.spelling} would keep {numbers:,} weights; the explorer makes at most {_WEIGHTS:,}")
    if (numbers := math.prod(found.output_shape(shape))) > _OUTPUTS:
        raise ValueError(f"{found.spelling} would answer {numbers:,} numbers; the explorer makes at most {_OUTPUTS:,}")
    widest = max((max(w.shape, default=1) for w in weights), default=1) * cells
    if max(widest, numbers * getattr(found, "samples", 1) ** 2) > _PRODUCT:
        raise ValueError(f"{found.spelling} computes more than the explorer does: take a smaller parameter or picture")


def _known(found: MapMethod, shape: MapShape) -> dict[str, Any]:
    """What a layer must be told of its maps: nothing without weights, their sizes where weights depend on them."""
    if not found.weights(shape):
        return {}
    try:
        found.weights(replace(shape, sizes=None))
    except (TypeError, ValueError):
        return {"channels": shape.channels, "sizes": shape.sizes}
    return {"channels": shape.channels}


def _blocks(sizes: tuple[int, ...]) -> list[list[int]]:
    """Labels for a method that wants regions: three by three blocks."""
    return [[3 * (3 * r // sizes[0]) + 3 * c // sizes[1] for c in range(sizes[1])] for r in range(sizes[0])]


def _stack(rows: Tensor, channels: int) -> Tensor:
    """Maps for a method that looks at several: the picture, and after it the picture moved, every second mirrored."""
    maps = [rows.roll((c, c), (0, 1)) for c in range(channels)]
    return torch.stack([one.flip(1) if c % 2 else one for c, one in enumerate(maps)])


def _on_page(y: Tensor, number: int) -> Tensor:
    """One example's output as rows: one of its maps, or a vector laid in rows, the first numbers of a long one."""
    maps = _maps(y)
    one = maps[min(number, len(maps) - 1)]
    if one.dim() == 2:
        return one[: 2 * _COLUMNS, : 2 * _COLUMNS]
    columns = min(_COLUMNS, len(one))
    return one[: min(_SHOWN, len(one) - len(one) % columns)].reshape(-1, columns)


def _maps(y: Tensor) -> Tensor:
    """One example's output as maps of rows, or as vectors: (C, h, w), (C, boxes, h, w), (C, n) or (n,)."""
    return y.reshape(-1, *y.shape[-2:]) if y.dim() > 2 else y.reshape(-1, y.shape[-1])


def _draw(found: WindowMethod, asked: Asked, place: tuple[int, ...]) -> float:
    """The number that the layer drew for this window: a layer with the same seed draws the same at its first call."""
    layer, x, _ = _layer(found, asked)
    shape = (1, 1, *asked.window.output_size(asked.sizes))
    with torch.no_grad():
        key, first = layer._key_and_first_example(x)
        u = uniform(key, first, draw_shape(found.draws, shape))
    return float(u.expand(shape)[(0, 0) + place])


def one_window(rows: Sequence[Sequence[float]], where: Window, place: tuple[int, ...]) -> OneWindow:
    """The window at a place of the output, for the scalar form."""
    sizes = (len(rows), len(rows[0]))
    cells, numbers = where.at(sizes, place)
    return OneWindow([rows[r][c] for r, c in cells], numbers, where.k, where.padded(sizes, place))


def _number(found: WindowMethod, name: str, value: Tensor) -> Any:
    """What the scalar form reads of a learned parameter."""
    return value.tolist() if name in found.tables else float(value.flatten()[0])


def _along(axis: Axis) -> dict[str, Any]:
    """Along one axis: the cells of each window, those outside the picture too, and how far they reach out of it."""
    windows = [[axis.start(o) + j * axis.dilation for j in range(axis.size)] for o in range(axis.out)]
    return {
        "length": axis.length,
        "before": axis.before,
        "after": max(0, windows[-1][-1] - axis.length + 1),
        "windows": windows,
    }


def _moved(found: Method, asked: Asked, y: Tensor) -> Tensor:
    """Mean |change| of the output where the picture moves one cell to the right, around its edge."""
    layer, x, others = _layer(found, asked)
    with torch.no_grad():
        change = (layer(x.roll(1, -1), *others) - y).abs().mean()
    return torch.where(change < 1e-12 * y.abs().max(), 0.0, change)  # what rounding makes is no change


def _difference(pooled: list[_Pooled | dict[str, Any]]) -> list[list[Any]] | None:
    """The first output less the second, where both are made of the picture and have the same rows and columns."""
    both = [one for one in pooled if isinstance(one, _Pooled)]
    if len(both) < 2 or both[0].shown.shape != both[1].shown.shape:
        return None
    # Of a method that pools several maps the second and later ones are not made of the picture alone.
    if both[0].asked.map and any(len(_maps(one.y[0])) > 1 for one in both):
        return None
    return cast("list[list[Any]]", plain(both[0].shown - both[1].shown))


def _parameters(found: Method) -> dict[str, str]:
    """Each parameter's value as one writes it; a learned number as the number that it starts from."""
    values = {name: getattr(found, name) for name in found.params()}
    start = {n: v.start for n, v in values.items() if isinstance(v, Learn) and v.start is not None}
    return {name: spell(start.get(name, value)) for name, value in values.items()}


def _code(found: Method, layer: Any, where: Window) -> dict[str, str]:
    """The layer as one writes it in PyTorch and in Keras; where Keras has no such window, why not."""
    face = "Pool2d" if getattr(layer, "window", None) else type(layer).__name__
    torch_line = f"{face}({layer.extra_repr().replace(f', seed={layer.seed}', '')})".replace("'", '"')
    imports = {"torch_import": f"from poolkit.torch import {face}"}
    if isinstance(found, MapMethod) and not getattr(layer, "window", None):
        keras = f'{"Head" if found.kind == "head" else "MapPooling2D"}("{found.spelling}")'
    else:
        keras = _keras_window(found, where)
    why = "" if keras else "Keras's pooling has no padding in cells, no dilation and no ceil mode."
    imports["keras_import"] = f"from poolkit.keras import {keras.partition('(')[0]}"
    return {"torch": torch_line, "keras": keras, "no_keras": why, **imports}


def _keras_window(found: Method, where: Window) -> str:
    """`Pooling2D(…)`; nothing where Keras has no such window."""
    if set(where.dilation) != {1} or where.ceil_mode or where.padding not in ("same", (0, 0)):
        return ""
    one = [tuple(n) if len(set(n)) > 1 else n[0] for n in (where.size, where.stride)]
    parts = [f'"{found.spelling}"', str(one[0])] + ([f"strides={one[1]}"] if where.stride != where.size else [])
    face = "MapPooling2D" if isinstance(found, MapMethod) else "Pooling2D"
    parts += ['padding="same"'] if where.padding == "same" else []
    return f"{face}({', '.join(parts)})"


def plain(numbers: Any) -> Any:
    """Numbers for JSON, nine digits of each: what is not finite is a word."""
    if isinstance(numbers, Tensor):
        numbers = numbers.tolist()
    if isinstance(numbers, (list, tuple)):
        return [plain(number) for number in numbers]
    return float(f"{numbers:.9g}") if math.isfinite(numbers) else str(float(numbers))
