"""The pictures of the site, computed by the library itself and drawn in the colours of the reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.nn import functional as F

from poolkit import WindowMethod
from poolkit.report import charts
from poolkit.torch import Pool2d
from poolkit.xp import OneWindow

CELLS, SIDE = 30, 3  # cells of a map a side, and of a window
OTHERS = (0.0, 1.0, 2.0)  # the cells of a window beside the one that moves


@dataclass(frozen=True)
class Pooled:
    """A map (H, W), what a method makes of it, ∂y/∂x of each cell, and the gradient of ½ Σ y² for each cell."""

    before: np.ndarray
    after: np.ndarray
    weights: np.ndarray
    gradient: np.ndarray


@lru_cache
def feature_map() -> Tensor:
    """A map as a first convolution makes it: a photograph's slanted edges, cells from −1 to 1, (1, 1, 30, 30)."""
    grey = torch.from_numpy(load_sample_image("china.jpg").astype(np.float64)).mean(2)[None, None] / 255
    small = F.interpolate(grey[..., 150:390, 180:420], size=(CELLS + 4, CELLS + 4), mode="area")
    side = torch.linspace(-1, 1, 5, dtype=torch.float64)
    bump = torch.exp(-2 * (side[:, None] ** 2 + side**2))
    edge = (side + side[:, None]) * bump
    found = F.conv2d(small, edge[None, None])
    squashed = torch.tanh(found / (2 * found.std()))  # or a single edge would leave all others in the dark
    return squashed / squashed.abs().max()


def pooled(method: WindowMethod, x: Tensor, train: bool = False) -> Pooled:
    """Windows of 3×3 of a map (1, 1, H, W): values, weights and a gradient, in float64 by the array formula."""
    layer = Pool2d(method, SIDE, seed=7 if method.draws else None).double().train(train)
    layer.path = "reference"
    x = x.clone().requires_grad_()
    y = layer(x)
    weights = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    gradient = torch.autograd.grad((y * y).sum() / 2, x)[0]
    return Pooled(*(t.detach()[0, 0].numpy() for t in (x, y, weights, gradient)))


def small_multiples(method: WindowMethod) -> str:
    """A method on one map: input, output, weights and gradient, a row for each kind of input, as HTML."""
    signed = feature_map()
    rows = [("after a ReLU", pooled(method, signed.clamp(min=0))), ("with signs", pooled(method, signed))]
    if method.draws:
        rows.insert(1, ("after a ReLU, one draw in training", pooled(method, signed.clamp(min=0), train=True)))
    body = "".join(f'<p class="pk-row">{escape(name)}</p>' + _tiles(found) for name, found in rows)
    return f'<figure class="pk-maps">{body}</figure>'


def _tiles(found: Pooled) -> str:
    signs = found.before.min() < 0
    parts = [
        ("input", found.before, signs, None),
        ("output", found.after, signs or found.after.min() < 0, float(np.abs(found.before).max())),
        ("weights ∂y/∂x", found.weights, True, _reach(found.weights)),
        ("gradient of ½ Σ y²", found.gradient, True, None),
    ]
    return '<div class="pk-tiles">' + "".join(_tile(*part) for part in parts) + "</div>"


def _tile(name: str, values: np.ndarray, signs: bool, end: float | None) -> str:
    end = float(np.abs(values).max()) if end is None else end
    low = f"{-end:.2g}".replace("-", "−") if signs else "0"
    colours = charts.difference(values, end) if signs else charts.activation(values, end)
    alt = f"{name}: {values.shape[0]}×{values.shape[1]} cells from {values.min():.3g} to {values.max():.3g}"
    return (
        f'<div><img src="{colours}" alt="{escape(alt)}"><span>{escape(name)}</span>'
        f"<small>{low} … {end:.2g}</small></div>"
    )


def _reach(weights: np.ndarray) -> float:
    """Where the colours of weights end: at least at ½, so that small equal weights look small."""
    return max(0.5, float(np.abs(weights).max()))


def thumbnail(method: WindowMethod) -> str:
    """Output and weights of a method on one map after a ReLU, as two small images."""
    found = pooled(method, feature_map().clamp(min=0))
    end = float(found.before.max())
    images = (charts.activation(found.after, end), charts.difference(found.weights, _reach(found.weights)))
    return '<span class="pk-thumb">' + "".join(f'<img src="{uri}" alt="">' for uri in images) + "</span>"


def response(methods: Sequence[tuple[str, WindowMethod]]) -> str:
    """How y moves with one cell of a window whose other cells are 0, 1 and 2: a curve for each method, as SVG."""
    moving = np.linspace(-2.0, 4.0, 121)
    lines = []
    for name, method in methods:
        values = method.values()
        lines.append((name, [method.oracle(OneWindow.of([v, *OTHERS]), values) for v in moving]))
    return curves(moving, lines, "the moving cell", "y", "y against one cell; the other cells are 0, 1 and 2")


def curves(x: Any, lines: Sequence[tuple[str, Sequence[float]]], across: str, up: str, alt: str) -> str:
    """Named curves over x as an SVG that follows the page's colours; each is named at its end."""
    with rc_context(charts.STYLE):
        figure = Figure(figsize=(charts.WIDTH, 2.7))
        axes = figure.add_subplot()
        for (_, values), colour, dash in zip(lines, charts.SERIES, ("-", "--", ":", "-."), strict=False):
            axes.plot(x, values, color=colour, lw=2, ls=dash if len(lines) > 1 else "-")
        axes.set_xlim(x[0], x[-1])
        low, high = axes.get_ylim()
        at = -np.inf
        ends = sorted((values[-1], name, colour) for (name, values), colour in zip(lines, charts.SERIES, strict=False))
        for value, name, colour in ends:
            at = max(value, at + 0.1 * (high - low))
            axes.annotate(
                name, (x[-1], at), xytext=(6, 0), textcoords="offset points", va="center", color=colour,
                annotation_clip=False, parse_math=False,
            )  # fmt: skip
        axes.set_xlabel(across)
        axes.set_title(up, loc="left", fontsize=11, parse_math=False)
        axes.grid(axis="y", color=charts.GRID, lw=0.8)
        axes.tick_params(length=0)
        letters = max(len(name) for name, _ in lines)
        figure.subplots_adjust(left=0.09, right=0.97 - letters * 0.085 / charts.WIDTH, bottom=0.19, top=0.9)
        return f'<figure class="pk-chart">{charts.inline(figure, alt)}</figure>'
