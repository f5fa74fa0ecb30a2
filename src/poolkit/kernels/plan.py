"""Where the windows of one picture size lie in memory, as tables for the walkers.

Windows that lie side by side in memory and have the same cells inside the picture form a *run*: in contiguous memory
the windows of one row, in channels-last memory the channels of one window, and of whole maps the maps themselves.
Windows at the border are runs of their own, with fewer cells: a padded cell is never read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from poolkit.kernels.lanes import W
from poolkit.window import Axis, Window

MOST_LANES = 256  # windows that go through a kernel together
SCRATCH = 8192  # cells of these windows together, so that they stay in the first-level cache
MOST_CHANNELS = 128  # of one picture that one thread takes at a time


@dataclass(frozen=True)
class Plan:
    """The tables, all int64, row-major.

    Attributes:
        runs: (first cell, number of the first window, lanes, part) of each run of a task.
        parts: (cells inside, cells inside or padded, place in `cells`, farthest cell) of each kind of window.
        cells: places of a window's cells, relative to its first one.
        rows: places of the cells of gathered windows in scratch memory.
        tasks: (first cell, first output, number of the first map, lanes or 0 for those of the run).
        pitch: lanes that fit into scratch memory.
        step: from lane to lane, in the picture.
        out_step: from window to window, in the output.
        outs: windows of a map.
        most: cells of the largest window.
        area: places of the picture that a task's cells span.
        tiles: whether every cell of the picture belongs to exactly one window.
        last: whether neighbouring lanes are channels.
        whole: whether neighbouring lanes are maps, each of them one window.
    """

    runs: np.ndarray
    parts: np.ndarray
    cells: np.ndarray
    rows: np.ndarray
    tasks: np.ndarray
    pitch: int
    step: int
    out_step: int
    outs: int
    most: int
    area: int
    tiles: bool
    last: bool
    whole: bool


@lru_cache(maxsize=64)
def plan(window: Window, shape: tuple[int, ...], last: bool) -> Plan:
    """Lay out the windows of x (N, C, *sizes), contiguous or channels-last."""
    n, c, *sizes = shape
    axes = [Axis(1, 1, 1, 1, 0, 0, 1)] * (3 - len(sizes)) + list(window.axes(sizes))
    whole = not last and window == Window.whole(sizes)
    unit, area = (c if last else 1), math.prod(sizes)
    steps = [axes[1].length * axes[2].length * unit, axes[2].length * unit, unit]
    most = max(math.prod(max(len(a.inside(o)) for o in range(a.out)) for a in axes), 1)
    pitch = max(W, min(MOST_LANES, SCRATCH // most // W * W))
    table = _Table(axes, steps, 1 if last or whole else pitch)
    outs = math.prod(a.out for a in axes)
    if last:
        block = max(1, min(c, MOST_CHANNELS, pitch))
        image, first = (m.reshape(-1) for m in np.meshgrid(np.arange(n), np.arange(0, c, block), indexing="ij"))
        columns = (image * area * c + first, image * outs * c + first, image * c + first, np.minimum(block, c - first))
    else:
        maps = np.arange(0, n * c, W if whole else 1)
        columns = (maps * area, maps * outs, maps, np.minimum(W, n * c - maps) if whole else 0 * maps)
    return Plan(
        runs=table.runs,
        parts=table.parts,
        cells=table.cells,
        rows=np.arange(most, dtype=np.int64) * pitch,
        tasks=np.ascontiguousarray(np.stack(columns, 1).astype(np.int64)),
        pitch=pitch,
        step=1 if last else area if whole else axes[2].stride,
        out_step=c if last else 1,
        outs=outs,
        most=most,
        area=area,
        tiles=all(a.stride == a.size and a.dilation == 1 and not a.dropped for a in axes),
        last=last,
        whole=whole,
    )


class _Table:
    """The runs of one map, their kinds of windows, and the cells of each kind."""

    def __init__(self, axes: list[Axis], steps: list[int], longest: int) -> None:
        lines = [_lines(a, longest if i == 2 else 1) for i, a in enumerate(axes)]
        # One row for each combination of a line along depth, rows and columns.
        grid = np.meshgrid(*(np.arange(len(line)) for line in lines), indexing="ij")
        picked = [line[g.reshape(-1)] for line, g in zip(lines, grid, strict=True)]
        first = sum(p[:, 0] * step for p, step in zip(picked, steps, strict=True))
        number = (picked[0][:, 1] * axes[1].out + picked[1][:, 1]) * axes[2].out + picked[2][:, 1]
        padded = picked[0][:, 4] * picked[1][:, 4] * picked[2][:, 4]
        kinds, part = np.unique(np.stack([*(p[:, 3] for p in picked), padded], 1), axis=0, return_inverse=True)
        order = np.argsort(part.reshape(-1), kind="stable")
        self.runs = np.ascontiguousarray(np.stack([first, number, picked[2][:, 2], part.reshape(-1)], 1)[order])
        places = [_places(kind[:3], axes, steps) for kind in kinds]
        begins = np.cumsum([0, *(len(p) for p in places[:-1])])
        rows = [(len(p), kind[3], begin, p[-1]) for p, kind, begin in zip(places, kinds, begins, strict=True)]
        self.parts, self.cells = np.array(rows, np.int64), np.concatenate(places)


def _lines(axis: Axis, longest: int) -> np.ndarray:
    """(first cell, number of the first window, windows, cells inside, cells inside or padded) along an axis.

    Up to `longest` neighbours with the same cells inside make one line.
    """
    windows = np.arange(axis.out)
    start = windows * axis.stride - axis.before
    cell = start[:, None] + np.arange(axis.size) * axis.dilation
    inside = (cell >= 0) & (cell < axis.length)
    padded = ((cell >= -axis.before) & (cell < axis.length + axis.after)).sum(1)
    first = cell[windows, inside.argmax(1)]
    rows: list[list[int]] = []
    for o, row in enumerate(zip(first.tolist(), inside.sum(1).tolist(), padded.tolist(), strict=True)):
        if rows and rows[-1][2] < longest and rows[-1][3:] == [*row[1:]]:
            if row[0] == rows[-1][0] + rows[-1][2] * axis.stride:
                rows[-1][2] += 1
                continue
        rows.append([row[0], o, 1, row[1], row[2]])
    return np.array(rows, np.int64)


def _places(counts: np.ndarray, axes: list[Axis], steps: list[int]) -> np.ndarray:
    """Places of a window's cells, row-major, relative to the first."""
    along = [np.arange(n) * a.dilation * step for n, a, step in zip(counts, axes, steps, strict=True)]
    return (along[0][:, None, None] + along[1][:, None] + along[2]).reshape(-1).astype(np.int64)
