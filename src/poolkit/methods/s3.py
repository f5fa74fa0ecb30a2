"""S3 pooling: a maximum at every place, then a random choice of rows and columns."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar

from poolkit.map_method import (
    MAP_BETWEEN,
    MAP_CONSTANT,
    MAP_SCALES,
    MAP_SHIFTS,
    Answer,
    Map,
    MapMethod,
    MapShape,
    OneMap,
)
from poolkit.method import Card, Values, param


@dataclass(frozen=True)
class S3(MapMethod):
    """The maximum of the window at every place; from each strip of g rows and columns, g/s at random.

        training: y = M[rows, columns],   g/s rows of each strip of g, without replacement, in their order
        evaluation: y = the mean of M over s × s places

    M is max pooling with stride 1, s the stride of the window. A larger grid g distorts more; g = s draws one place of
    each s. Rows and columns are drawn for each example, the same for all its channels. At the end a strip may be
    shorter: only places whose windows have a cell inside the picture are drawn.

    Example:
        >>> y = S3().oracle(OneMap.of([1, 3, 2, 4], window=window(2, dims=1)), S3().values())
        >>> [y[0, 0], y[0, 1]]
        [3.0, 4.0]
    """

    grid: int = param(4, low=1, high=1024, says="places g of a strip, a multiple of the stride", tries=(2,))

    takes_window = "needs"
    card: ClassVar[Card] = Card(
        name="s3",
        title="Stochastic spatial sampling (S3Pool)",
        equation="y = M[rows, columns],  M = max pooling with stride 1,  g/s rows and columns of each strip of g at "
        "random;  evaluation: the mean of M over s × s places",
        source="S. Zhai, H. Wu, A. Kumar, Y. Cheng, Y. Lu, Z. Zhang, R. Feris, S3Pool: pooling with stochastic spatial "
        "sampling, CVPR 2017, arXiv:1611.05138",
        family="random",
        facts=(MAP_BETWEEN, MAP_CONSTANT, MAP_SHIFTS, MAP_SCALES),
        released="The released code draws the same rows and columns for all examples of a batch.",
    )

    @property
    def random(self) -> bool:
        """Rows and columns are drawn."""
        return True

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, *windows)."""
        for axis in shape.axes:
            if self.grid % axis.stride:
                raise ValueError(f"{self.spelling}: a grid of {self.grid} is no multiple of the stride {axis.stride}")
            if axis.dilation > axis.length:
                raise ValueError(f"a dilation of {axis.dilation} leaves windows without a cell in {axis.length} cells")
        return shape.cell_per_window

    def _dense(self, m: Map) -> Any:
        """M at the places that count."""
        axes = zip(m.shape.axes, _lengths(m.shape), strict=True)
        w = m.cells(axes=tuple(replace(axis, stride=1, out=length) for axis, length in axes))
        return w.max(w.x)

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula in evaluation."""
        y = self._dense(m)
        for number, (a, length) in enumerate(zip(m.shape.axes, _lengths(m.shape), strict=True)):
            y = _means(m, y, 2 + number, a.stride, length)
        return y

    def draw_shape(self, shape: MapShape) -> tuple[int, ...]:
        """One number for each row, column, …: the smallest of a strip are taken."""
        return (sum(_lengths(shape)),)

    def sample(self, m: Map, p: Values, u: Any) -> Any:
        """The array formula in training."""
        y, first, xp = self._dense(m), 0, m.xp
        for number, (a, length) in enumerate(zip(m.shape.axes, _lengths(m.shape), strict=True)):
            chosen = []
            for start in range(0, length, p.grid):
                end = min(start + p.grid, length)
                count = min(p.grid // a.stride, a.out - start // a.stride)
                order = xp.argsort(u[:, first + start : first + end], 1)
                chosen.append(xp.sort(order[:, :count], 1) + start)
            shape = [1] * (m.dims + 2)
            shape[0], shape[2 + number] = -1, a.out
            y = xp.gather(y, xp.reshape(xp.concat(chosen, 1), tuple(shape)), 2 + number)
            first += length
        return y

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form in evaluation."""
        axes = m.window.axes(m.sizes)
        ranges = [
            [range(o * a.stride, min((o + 1) * a.stride, a.length + a.before)) for o in range(a.out)] for a in axes
        ]
        y: Answer = {}
        for channel, place in product(range(m.channels), product(*(range(a.out) for a in axes))):
            block = list(product(*(r[o] for r, o in zip(ranges, place, strict=True))))
            y[(channel,) + place] = math.fsum(_largest(m, channel, at, axes) for at in block) / len(block)
        return y

    def oracle_sample(self, m: OneMap, p: Values, u: Any) -> Answer:
        """The scalar form in training."""
        axes, numbers, chosen = m.window.axes(m.sizes), [float(v) for v in u], []
        for a in axes:
            length = min(a.out * a.stride, a.length + a.before)
            mine, numbers = numbers[:length], numbers[length:]
            taken: list[int] = []
            for start in range(0, length, p.grid):
                strip = range(start, min(start + p.grid, length))
                wanted = min(p.grid // a.stride, a.out - len(taken))
                taken += sorted(sorted(strip, key=mine.__getitem__)[:wanted])
            chosen.append(taken)
        return {
            (channel,) + place: _largest(m, channel, tuple(c[o] for c, o in zip(chosen, place, strict=True)), axes)
            for channel in range(m.channels)
            for place in product(*(range(a.out) for a in axes))
        }


def _means(m: Map, y: Any, axis: int, stride: int, length: int) -> Any:
    """The means of blocks along an axis; by blocks, not by a matrix, in which 0 times a NaN of another one is NaN."""
    full, before, after = length // stride, [slice(None)] * axis, tuple(y.shape[axis + 1 :])
    whole = m.xp.reshape(y[tuple([*before, slice(full * stride)])], (-1, *y.shape[1:axis], full, stride, *after))
    parts = [m.xp.mean(whole, axis + 1)] if full else []
    if full * stride < length:
        parts.append(m.xp.mean(y[tuple([*before, slice(full * stride, length)])], axis, True))
    return m.xp.concat(parts, axis)


def _lengths(shape: MapShape) -> list[int]:
    """How many places are drawn from: those of the output's strips that have a cell inside."""
    return [min(a.out * a.stride, a.length + a.before) for a in shape.axes]


def _largest(m: OneMap, channel: int, at: Any, axes: Any) -> float:
    cells = product(*(range(i - a.before, i - a.before + a.extent, a.dilation) for i, a in zip(at, axes, strict=True)))
    return max(m.at(channel, c) for c in cells if all(0 <= v < n for v, n in zip(c, m.sizes, strict=True)))
