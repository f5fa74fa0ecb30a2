"""Spectral pooling: the map without its high frequencies, on as many cells as the rest needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, ClassVar

from poolkit.map_method import MAP_CONSTANT, MAP_LINEAR, MAP_SHIFTS, Answer, Map, MapMethod, MapShape, OneMap
from poolkit.method import Card, Values, param


@dataclass(frozen=True)
class Spectral(MapMethod):
    """The map's spectrum cropped to the size of the output and transformed back, along each axis.

        y[o] = (1/L) Σₖ cₖ X[k] exp(2πi k o / l),   X = DFT(x),   |k| ≤ l/2,   cₖ = ½ for |k| = l/2, else 1

    From L cells to any l ≤ L; a constant map keeps its value. For even l the two frequencies ±l/2 fall on one cell of
    the small spectrum; their mean is taken, which is the real part of the plain crop, so that the output is real. At
    full size nothing changes. `form="hartley"` crops the Hartley transform (cas = cos + sin) instead: the same for odd
    l, another alias at l/2 for even l.

    The output has the sizes of the window where there is one, else those of the input times `scale`, rounded. `keep`
    below 1 is frequency dropout: in training each example keeps the frequencies |k| ≤ r, with r drawn evenly from the
    whole numbers ⌊keep·⌊l/2⌋⌋ … ⌊l/2⌋. The crop is linear along each axis and is computed as one small matrix an axis.

    Example:
        >>> y = Spectral().oracle(OneMap.of([1, 2, 3, 4, 5, 6]), Spectral().values())
        >>> [round(y[0, o], 4) for o in range(3)]
        [2.5, 2.5, 5.5]
    """

    scale: float = param(
        0.5, low=0.01, high=1.0, says="share of the cells that is kept, where no window says it", tries=(1.0, 0.7)
    )
    form: str = param("fourier", choices=("fourier", "hartley"), says="which transform is cropped", tries=("hartley",))
    keep: float = param(
        1.0, low=0.0, high=1.0, says="least share of frequencies that training keeps; 1: no dropout", tries=(0.25,)
    )

    takes_window = "may"
    card: ClassVar[Card] = Card(
        name="spectral",
        title="Spectral pooling",
        equation="y[o] = (1/L) Σₖ cₖ X[k] exp(2πi k o / l),  |k| ≤ l/2,  cₖ = ½ for |k| = l/2, else 1",
        source="O. Rippel, J. Snoek, R. P. Adams, Spectral representations for convolutional neural networks, NIPS "
        "2015, arXiv:1506.03767; Hartley form: H. Zhang, J. Ma, Hartley spectral pooling for deep learning, CSIAM "
        "Trans. Appl. Math. 1 (2020) 518–529",
        family="frequency",
        facts=(MAP_CONSTANT, MAP_SHIFTS, MAP_LINEAR),
        released="Public implementations scale a constant by 1, 2 or 4 when they halve both axes, and some keep an "
        "imaginary part at even sizes.",
    )

    @property
    def random(self) -> bool:
        """Frequency dropout draws."""
        return self.keep < 1.0

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, *sizes times scale), or with a window (C, *windows)."""
        if shape.window is not None:
            out = tuple(axis.out for axis in shape.axes)
        else:
            out = tuple(max(1, math.floor(n * self.scale + 0.5)) for n in shape.sizes or ())
        if any(l > n for l, n in zip(out, shape.sizes or (), strict=True)):
            raise ValueError(f"spectral pooling makes maps smaller: {shape.sizes} to {out} is not allowed")
        return (int(shape.channels or 0), *out)

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        y = m.x
        for axis, (length, out) in enumerate(zip(m.sizes, self.output_shape(m.shape)[1:], strict=True)):
            if out != length:
                analysis, synthesis, _ = bases(length, out, p.form)
                y = m.along(axis, m.xp.array(synthesis @ analysis, y), y)
        return y

    def draw_shape(self, shape: MapShape) -> tuple[int, ...]:
        """One number for each example."""
        return (1,)

    def sample(self, m: Map, p: Values, u: Any) -> Any:
        """The array formula in training: frequencies above the drawn one are left out."""
        y = m.x
        for axis, (length, out) in enumerate(zip(m.sizes, self.output_shape(m.shape)[1:], strict=True)):
            analysis, synthesis, k = bases(length, out, p.form)
            least = int(p.keep * (out // 2))
            limit = m.xp.reshape(least + m.xp.floor(u * (out // 2 - least + 1)), (-1, *[1] * (m.dims + 1)))
            shape = [1] * (m.dims + 2)
            shape[2 + axis] = len(k)
            above = m.xp.reshape(m.xp.array(abs(k), y), tuple(shape)) > limit
            spectrum = m.along(axis, m.xp.array(analysis, y), y)
            y = m.along(axis, m.xp.array(synthesis, y), m.xp.where(above, 0.0 * spectrum, spectrum))
        return y

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form: the double sum over cells and frequencies."""
        return _answer(self, m, p, None)

    def oracle_sample(self, m: OneMap, p: Values, u: Any) -> Answer:
        """The scalar form in training."""
        return _answer(self, m, p, float(u[0]))


@lru_cache(maxsize=256)
def bases(length: int, out: int, form: str) -> tuple[Any, Any, Any]:
    """The matrices of one axis: cells to kept frequencies, these to the new cells, and the frequencies' numbers."""
    import numpy as np

    if form == "hartley":
        k = np.arange(-(out // 2), out - out // 2)

        def cas(cells: int) -> Any:
            angle = 2 * np.pi * np.outer(k, np.arange(cells)) / cells
            return np.cos(angle) + np.sin(angle)

        return cas(length) / length, cas(out).T, k
    k = np.arange(out // 2 + 1)
    weight = np.where((k == 0) | (2 * k == out), 1.0, 2.0)  # k and −k together

    def waves(cells: int) -> Any:
        angle = 2 * np.pi * np.outer(k, np.arange(cells)) / cells
        return np.concatenate([np.cos(angle), np.sin(angle)])

    return waves(length) / length, (np.tile(weight, 2)[:, None] * waves(out)).T, np.tile(k, 2)


def _answer(method: Spectral, m: OneMap, p: Values, u: float | None) -> Answer:
    out = method.output_shape(MapShape(m.channels, m.dims, m.sizes, m.window))[1:]
    tables = [
        {
            (o, i): _response((n, l, o, i), p.form, l if u is None else _drawn(l // 2, p.keep, u))
            for o in range(l)
            for i in range(n)
        }
        for n, l in zip(m.sizes, out, strict=True)
    ]
    return {
        (channel,) + place: math.fsum(
            m.at(channel, cell) * math.prod(t[o, i] for t, o, i in zip(tables, place, cell, strict=True))
            for cell in m.places
        )
        for channel in range(m.channels)
        for place in product(*(range(l) for l in out))
    }


def _drawn(most: int, keep: float, u: float) -> int:
    kept = list(range(math.floor(keep * most), most + 1))
    return kept[int(u * len(kept))]


def _response(at: tuple[int, int, int, int], form: str, limit: int) -> float:
    """What a one at cell i of n gives at cell o of l."""
    (n, l, o, i), total = at, 0.0
    for k in range(-(l // 2), l - l // 2):
        if abs(k) <= limit:
            a, b = 2 * math.pi * k * i / n, 2 * math.pi * k * o / l
            if form == "hartley":
                total += (math.cos(a) + math.sin(a)) * (math.cos(b) + math.sin(b))
            else:  # the real part of exp(−ia) exp(ib)
                total += math.cos(b - a)
    return total / n
