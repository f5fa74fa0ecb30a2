"""Where the windows of one picture size lie in memory, as tables for the walkers.

The engine computes W maps side by side. Channels-last memory whose channels fill whole vectors is read and written as
it lies (`DIRECT`). Otherwise a block of W maps is brought to scratch memory, the cells of one place side by side, and
its results are taken back: contiguous maps by transposing (`MAPS`), a few channels by copying (`CHANNELS`).

Windows that follow each other along the last axis and have the same cells inside the picture form a *line*. Windows at
the border are lines of their own, with fewer cells: a padded cell is never read. Large maps are cut into *strips* of
neighbouring lines, so that what is brought stays in a core's cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from poolkit.kernels.lanes import W
from poolkit.window import Axis, Window

DIRECT, MAPS, CHANNELS = range(3)
LONGEST = 256  # windows of a line
STRIP = 2**16 // W  # cells of a map that are brought at a time; backward, which brings gradients too, half of them
BLOCK = 256  # channels of one picture that a task takes, if there are enough tasks
TASKS = 8  # enough to keep a few threads busy


@dataclass(frozen=True)
class Plan:
    """The tables, all int64, row-major. Cells and windows of a map are counted in row-major order.

    Attributes:
        lines: (first cell, number of the first window, windows, part).
        parts: (cells inside, cells inside or padded, place in `cells`, farthest cell) of each kind of window.
        cells: places of a window's cells relative to its first one, in memory as the kernel sees it.
        indices: the same cells' numbers in the full window.
        tasks: (place of the first map's first cell, of its first output, number of the first map, maps, and of its
            strip: first line and the one after the last, first cell to bring and the one after the last, first cell
            of its own and the one after the last, first window and the one after the last, first line of its own and
            the one after the last, number).
        mode: DIRECT, MAPS or CHANNELS.
        unit: from cell to cell, as the kernel sees it.
        step: from window to window of a line, in cells.
        area, outs: cells and windows of a map.
        far: from map to map (MAPS) or from cell to cell (CHANNELS), in the picture.
        out_far: the same in the output.
        block: most maps of a task, whole vectors.
        most: most cells of a window.
        span, out_span: most cells and windows of a strip.
        strips: number of strips.
        tiles: whether every cell of the picture belongs to exactly one window.
    """

    lines: np.ndarray
    parts: np.ndarray
    cells: np.ndarray
    indices: np.ndarray
    tasks: np.ndarray
    mode: int
    unit: int
    step: int
    area: int
    outs: int
    far: int
    out_far: int
    block: int
    most: int
    span: int
    out_span: int
    strips: int
    tiles: bool


@lru_cache(maxsize=256)
def plan(window: Window, shape: tuple[int, ...], last: bool, backward: bool, staged: bool = False) -> Plan:
    """Lay out the windows of x (N, C, *sizes), contiguous or channels-last; `staged`: in no case as it lies."""
    n, c, *sizes = shape
    axes = [Axis(1, 1, 1, 1, 0, 0, 1)] * (3 - len(sizes)) + list(window.axes(sizes))
    mode = MAPS if not last or c == 1 else DIRECT if c % W == 0 and not staged else CHANNELS
    table, area, outs = _Table(axes), math.prod(sizes), math.prod(a.out for a in axes)
    unit = c if mode == DIRECT else W
    block = min(c, BLOCK, max(2 * W, -(-c * n // TASKS) // W * W)) if mode == DIRECT else W
    blocks, strips = _blocks(n, c, area, outs, mode, block), _strips(table, area, mode, backward)
    tasks = np.concatenate([np.repeat(blocks, len(strips), 0), np.tile(strips, (len(blocks), 1))], 1)
    return Plan(
        lines=table.lines,
        parts=table.parts,
        cells=table.cells * unit,
        indices=table.indices,
        tasks=np.ascontiguousarray(tasks),
        mode=mode,
        unit=unit,
        step=axes[2].stride,
        area=area,
        outs=outs,
        far=area if mode == MAPS else c,
        out_far=outs if mode == MAPS else c,
        block=block,
        most=int(table.parts[:, 0].max()),
        span=int((strips[:, 3] - strips[:, 2]).max()),
        out_span=int((strips[:, 7] - strips[:, 6]).max()),
        strips=len(strips),
        tiles=all(a.stride == a.size and a.dilation == 1 and not a.dropped for a in axes),
    )


def _blocks(n: int, c: int, area: int, outs: int, mode: int, block: int) -> np.ndarray:
    """The blocks of maps that are computed side by side: the first four columns of the tasks."""
    if mode == MAPS:
        maps = np.arange(0, n * c, W)
        return np.stack([maps * area, maps * outs, maps, np.minimum(W, n * c - maps)], 1).astype(np.int64)
    image, first = (m.reshape(-1) for m in np.meshgrid(np.arange(n), np.arange(0, c, block), indexing="ij"))
    columns = image * area * c + first, image * outs * c + first, image * c + first, np.minimum(block, c - first)
    return np.stack(columns, 1).astype(np.int64)


def _strips(table: _Table, area: int, mode: int, backward: bool) -> np.ndarray:
    """The strips of a map: the last columns of the tasks.

    A line belongs to one strip. Backward, cells belong to one strip too, which takes all lines that touch them.
    """
    begins, ends = table.reach[:, 0], table.reach[:, 1] + 1
    home = np.maximum.accumulate(begins)
    # Neighbouring strips both bring what lies between them: a strip is at least four times as long.
    wanted = max(STRIP // (2 if backward else 1), 4 * int(table.parts[:, 3].max() + 1))
    own = area if mode == DIRECT or wanted >= area else wanted // W * W
    rows: list[tuple[int, ...]] = []
    for low in range(0, area, own):
        high = min(low + own, area)
        mine = (home >= low) & (home < high)
        taken = np.flatnonzero(mine | ((begins < high) & (ends > low)) if backward else mine)
        if len(taken):
            lines = slice(int(taken[0]), int(taken[-1]) + 1)
            first, windows = table.lines[lines, 1], table.lines[lines, 2]
            bring, outs = (begins[lines].min(), ends[lines].max()), (first.min(), (first + windows).max())
        elif backward:
            lines, bring, outs = slice(0, 0), (low, high), (0, 0)
        else:
            continue
        if backward:
            bring = min(bring[0], low), max(bring[1], high)
        first_own = int(mine.argmax()) if mine.any() else 0
        rows.append((lines.start, lines.stop, *bring, low, high, *outs, first_own, first_own + mine.sum(), len(rows)))
    return np.array(rows, np.int64)


class _Table:
    """The lines of one map, their kinds of windows, and the cells of each kind."""

    def __init__(self, axes: list[Axis]) -> None:
        along = [_lines(a, LONGEST if i == 2 else 1) for i, a in enumerate(axes)]
        steps = [axes[1].length * axes[2].length, axes[2].length, 1]
        # One row for each combination of a line along depth, rows and columns, in the order of the windows.
        grid = np.meshgrid(*(np.arange(len(line)) for line in along), indexing="ij")
        picked = [line[g.reshape(-1)] for line, g in zip(along, grid, strict=True)]
        first = sum(p[:, 0] * step for p, step in zip(picked, steps, strict=True))
        number = (picked[0][:, 1] * axes[1].out + picked[1][:, 1]) * axes[2].out + picked[2][:, 1]
        padded = picked[0][:, 5] * picked[1][:, 5] * picked[2][:, 5]
        columns = [*(p[:, 3] for p in picked), *(p[:, 4] for p in picked), padded]
        kinds, part = np.unique(np.stack(columns, 1), axis=0, return_inverse=True)
        part = part.reshape(-1)
        self.lines = np.ascontiguousarray(np.stack([first, number, picked[2][:, 2], part], 1))
        inside = [_inside(kind, axes, steps) for kind in kinds]
        begins = np.cumsum([0, *(len(places) for places, _ in inside[:-1])])
        rows = [(len(p), kind[6], at, p[-1]) for (p, _), kind, at in zip(inside, kinds, begins, strict=True)]
        self.parts = np.array(rows, np.int64)
        self.cells, self.indices = (np.concatenate([pair[i] for pair in inside]) for i in range(2))
        farthest = first + (picked[2][:, 2] - 1) * axes[2].stride + self.parts[part, 3]
        self.reach = np.stack([first, farthest], 1)


def _lines(axis: Axis, longest: int) -> np.ndarray:
    """(first cell, number of the first window, windows, cells inside, number of the first, cells inside or padded).

    Up to `longest` neighbours with the same cells inside make one line.
    """
    windows = np.arange(axis.out)
    start = windows * axis.stride - axis.before
    first = np.maximum(0, -(start // axis.dilation))
    after = np.minimum(axis.size, (axis.length - 1 - start) // axis.dilation + 1)
    padded = np.minimum(axis.size, (axis.length + axis.after - 1 - start) // axis.dilation + 1)
    kinds = np.stack([start + first * axis.dilation, windows, 0 * windows + 1, after - first, first, padded], 1)
    rows: list[list[int]] = []
    for row in kinds.tolist():
        same = rows and rows[-1][2] < longest and rows[-1][3:] == row[3:]
        if same and row[0] == rows[-1][0] + rows[-1][2] * axis.stride:
            rows[-1][2] += 1
        else:
            rows.append(row)
    return np.array(rows, np.int64)


def _inside(kind: np.ndarray, axes: list[Axis], steps: list[int]) -> tuple[Any, Any]:
    """The cells inside of a kind of window, row-major: places relative to the first one, and numbers in the window."""
    counts, first = kind[:3], kind[3:6]
    along = [np.arange(n) * a.dilation * step for n, a, step in zip(counts, axes, steps, strict=True)]
    sizes = [axes[1].size * axes[2].size, axes[2].size, 1]
    indices = [(f + np.arange(n)) * size for f, n, size in zip(first, counts, sizes, strict=True)]
    return tuple((p[0][:, None, None] + p[1][:, None] + p[2]).reshape(-1).astype(np.int64) for p in (along, indices))
