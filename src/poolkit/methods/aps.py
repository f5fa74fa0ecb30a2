"""Adaptive polyphase sampling (APS): subsampling on the grid that holds the most energy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from poolkit.borders import binomial, filtered
from poolkit.map_method import MAP_CONSTANT, MAP_SCALES, Answer, Map, MapMethod, MapShape, OneMap
from poolkit.method import Card, Values, param
from poolkit.window import Axis, Sizes


@dataclass(frozen=True)
class APS(MapMethod):
    """The polyphase component of the map with the largest norm, over all channels and places of an example.

        y = x_k,   x_k[o] = x[s·o + k],   k = argmax ‖x_k‖,   k ∈ {0, …, s−1} along each axis

    A shift of the input permutes the components, so the output only shifts with it: exactly, where the map is taken as
    a circle, as it is here, and its sizes are multiples of the stride. Only the stride of the window matters, and
    its padding, which moves the grid. With `taps` the map is blurred first (see blur pooling); the component is chosen
    on the map as it came. The choice has no gradient; the first of equal norms is taken.

    `layer.choice(x)` gives the number of the component of each example, row by row, and `layer(x, choice)` takes it: a
    shortcut must use the choice of its branch.

    Example:
        >>> y = APS().oracle(OneMap.of([0, 4, 1, 5], window=window(2, dims=1)), APS().values())
        >>> [y[0, 0], y[0, 1]]
        [4.0, 5.0]
    """

    norm: str = param("l2", choices=("l2", "l1", "max"), says="the norm that is compared", tries=("l1", "max"))
    taps: int = param(1, low=1, high=7, says="taps of the blur before; 1: none", tries=(3,))

    takes_window = "needs"
    takes = ("choice",)
    optional = ("choice",)
    keeps_channels_apart = False
    card: ClassVar[Card] = Card(
        name="aps",
        title="Adaptive polyphase sampling",
        equation="y = x_k,  x_k[o] = x[s·o + k],  k = argmax ‖x_k‖",
        source="A. Chaman, I. Dokmanić, Truly shift-invariant convolutional neural networks, CVPR 2021, "
        "arXiv:2011.14214",
        family="anti-aliasing",
        facts=(MAP_CONSTANT, MAP_SCALES),
        released="The released code knows the stride 2 alone.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, *windows)."""
        return shape.cell_per_window

    def input_shape(self, name: str, shape: MapShape) -> tuple[int, ...]:
        """One number."""
        return ()

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        chosen = m.others.get("choice")
        chosen = self.choose(m, p) if chosen is None else chosen
        chosen = m.xp.reshape(chosen, (-1, *[1] * (m.dims + 1)))
        y = None
        for number, component in enumerate(_components(m, p.taps)):
            y = component if y is None else m.xp.where(chosen == number, component, y)
        return y

    def choose(self, m: Map, p: Values) -> Any:
        """The number of the component with the largest norm, for each example."""
        norms = []
        for component in _components(m, 1):
            flat = m.xp.reshape(m.xp.abs(m.xp.stop(component)), (-1, math.prod(component.shape[1:])))
            norms.append(m.xp.max(flat, 1) if p.norm == "max" else m.xp.sum(flat if p.norm == "l1" else flat**2, 1))
        return m.xp.argmax(m.xp.stack(norms), 0)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        axes = m.window.axes(m.sizes)
        best, norm = (0,) * m.dims, -1.0
        for phase in product(*(range(a.stride) for a in axes)):
            cells = [
                abs(m.at(channel, _cell(place, phase, axes)))
                for channel in range(m.channels)
                for place in product(*(range(a.out) for a in axes))
            ]
            size = {"l2": math.fsum(v * v for v in cells), "l1": math.fsum(cells), "max": max(cells)}[p.norm]
            if size > norm:
                best, norm = phase, size
        y: Answer = {}
        for place in product(*(range(a.out) for a in axes)):
            for channel in range(m.channels):
                total = 0.0
                for taps in product(range(p.taps), repeat=m.dims):
                    cell = [
                        (o * a.stride - a.before + k + j - (p.taps - 1) // 2) % a.length
                        for o, k, j, a in zip(place, best, taps, axes, strict=True)
                    ]
                    weight = math.prod(math.comb(p.taps - 1, j) for j in taps) / 2 ** ((p.taps - 1) * m.dims)
                    total += weight * m.at(channel, cell)
                y[(channel,) + place] = total
        return y


def _components(m: Map, taps: int) -> Any:
    """The polyphase components of the map, blurred by so many taps."""
    axes = m.shape.axes
    for phase in product(*(range(a.stride) for a in axes)):
        y = m.x
        for number, (a, k) in enumerate(zip(axes, phase, strict=True)):
            y = filtered(m, y, number, binomial(taps), (k - a.before - (taps - 1) // 2, a.stride, a.out), "circular")
        yield y


def _cell(place: Sizes, phase: Sizes, axes: tuple[Axis, ...]) -> list[int]:
    return [(o * a.stride - a.before + k) % a.length for o, k, a in zip(place, phase, axes, strict=True)]
