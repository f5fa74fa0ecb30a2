"""The walkers: they take the windows of a plan to a method's kernel and its results back, once per number type.

A walker gets one block of integers, the *frame*: addresses and sizes by the names below. Several threads run it on one
frame: each takes scratch memory of its own, then one task after the other until none is left. What a task writes is its
own, so the result does not depend on the number of threads or on who takes what.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from poolkit.kernels.lanes import INLINE, NUMBERS, W, count_up, integer, invoke, put_integer
from poolkit.kernels.plan import DIRECT, MAPS

#: The fields of a frame, in order.
FIELDS = (
    "next thread scratch scratch_each kernel x x_end y y_end gx slopes slope_step tasks task_count lines parts cells "
    "indices full mode unit step area outs far out_far block span out_span strips tiles notes "
    "values value_count value_step channels draws key first_example prepare prepared"
).split()
NEXT, THREAD, SCRATCH, SCRATCH_EACH, KERNEL, X, X_END, Y, Y_END, GX, SLOPES, SLOPE_STEP, TASKS, TASK_COUNT = range(14)
LINES, PARTS, CELLS, INDICES, FULL, MODE, UNIT, STEP, AREA, OUTS, FAR, OUT_FAR, BLOCK = range(14, 27)
SPAN, OUT_SPAN, STRIPS, TILES, NOTES, VALUES, VALUE_COUNT, VALUE_STEP = range(27, 35)
CHANNELS, DRAWS, KEY, FIRST_EXAMPLE, PREPARE, PREPARED = range(35, 41)
TASK = 15  # columns of a task
REGION, MAP, LAYER = 1, 2, 3  # DRAWS: for what one number is drawn; 0: none
CACHE_LINE = 64  # bytes
LINES_AHEAD = 2  # cache lines of each map that memory is asked for before they are transposed

GOLDEN, MIX1, MIX2 = (np.uint64(v) for v in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@njit(**INLINE)
def _mix(z: Any) -> Any:
    z = (z ^ (z >> np.uint64(30))) * MIX1
    z = (z ^ (z >> np.uint64(27))) * MIX2
    return z ^ (z >> np.uint64(31))


def scratch_size(
    size: int,
    staged: bool,
    backward: bool,
    span: int,
    out_span: int,
    notes: int,
    numbers: int,
    block: int,
    prepared: int,
) -> int:
    """Bytes of scratch memory that a thread needs: the areas of `areas` below, in whole cache lines."""
    pictures = W * ((1 + prepared + backward) * (span + W) + out_span + W) if staged else 0
    return size * (W * notes + numbers * block + pictures) + 8 * (numbers + 1) * block + 64


def walkers(name: str) -> tuple[Any, Any]:
    """The forward and the backward walker for `float32` or `float64`, as functions of a frame."""
    words, size = NUMBERS[name], 4 if name == "float32" else 8
    load, store, get, put, lanes_of = (words[word] for word in "load store get put lanes".split())
    transpose, tile, fetch, fetch_to_write = (words[word] for word in "transpose tile fetch fetch_to_write".split())
    per_line = CACHE_LINE // size
    store64, get64, put64, lanes64 = (NUMBERS["float64"][word] for word in "store get put lanes".split())
    real = np.float32 if name == "float32" else np.float64
    zero = real(0)

    @njit(**INLINE)
    def of(f: Any, t: Any, column: Any) -> Any:
        return integer(integer(f, TASKS), TASK * t + column)

    @njit(**INLINE)
    def apart(f: Any) -> Any:
        """Bytes from a cell to the first number that is prepared of it, and on to the next one."""
        return size * W * (integer(f, SPAN) + W)

    @njit(**INLINE)
    def areas(f: Any) -> Any:
        """Where a thread's memory has room for notes, values, their gradients, draws, cells, outputs and gradients.

        After the cells there is as much room for each number that is prepared of them.
        """
        at = integer(f, SCRATCH) + count_up(f, THREAD) * integer(f, SCRATCH_EACH)
        values = at + size * W * integer(f, NOTES)
        slopes = values + size * integer(f, VALUE_COUNT) * integer(f, BLOCK)
        draws = slopes + 8 * integer(f, VALUE_COUNT) * integer(f, BLOCK)
        cells = draws + 8 * integer(f, BLOCK)
        outs = cells + (1 + integer(f, PREPARED)) * apart(f)
        return at, values, slopes, draws, cells, outs, outs + size * W * (integer(f, OUT_SPAN) + W)

    @njit(**INLINE)
    def ask(maps: Any, far: Any, at: Any, count: Any, back: bool) -> None:
        """Have one cache line of each of so many maps on its way before it is needed."""
        for m in range(count):
            if back:
                fetch_to_write(maps, m * far + at)
            else:
                fetch(maps, m * far + at)

    @njit(**INLINE)
    def turn(maps: Any, far: Any, rows: Any, count: Any, back: bool) -> None:
        """Transpose the first `count` cells of W maps, each `far` behind the one before, to rows of W; or `back`."""
        for i in range(0, min(LINES_AHEAD * per_line, count), per_line):
            ask(maps, far, i, W, back)
        for i in range(0, count, per_line):
            for m in range(0, W, tile):
                if i + LINES_AHEAD * per_line < count:
                    ask(maps + size * m * far, far, i + LINES_AHEAD * per_line, tile, back)
                for k in range(i, min(i + per_line, count), tile):
                    at = min(k, count - tile)
                    one, other = maps + size * (m * far + at), rows + size * (W * at + m)
                    if back:
                        transpose(other, W, one, far)
                    else:
                        transpose(one, far, other, W)

    @njit(**INLINE)
    def bring(source: Any, far: Any, end: Any, maps: Any, begin: Any, count: Any, to: Any, contiguous: Any) -> None:
        """Copy `count` cells of a block of maps to scratch memory, W maps side by side.

        `source` is the address of the first map's first cell, `end` that behind the tensor's last one.
        """
        if contiguous:
            if count >= tile and maps == W:
                turn(source + size * begin, far, to, count, False)
            else:
                for m in range(maps):
                    for i in range(count):
                        put(to, W * i + m, get(source, m * far + begin + i))
        else:
            for i in range(begin, begin + count):
                if source + size * (i * far + W) <= end:
                    store(to, W * (i - begin), load(source, i * far))
                else:
                    for m in range(maps):
                        put(to, W * (i - begin) + m, get(source, i * far + m))

    @njit(**INLINE)
    def take(source: Any, to: Any, far: Any, maps: Any, begin: Any, count: Any, contiguous: Any) -> None:
        """The way back: `count` cells from scratch memory to the maps at `to`."""
        if contiguous:
            if count >= tile and maps == W:
                turn(to + size * begin, far, source, count, True)
            else:
                for m in range(maps):
                    for i in range(count):
                        put(to, m * far + begin + i, get(source, W * i + m))
        else:
            for i in range(count):
                if maps == W:
                    store(to, (begin + i) * far, load(source, W * i))
                else:
                    for m in range(maps):
                        put(to, (begin + i) * far + m, get(source, W * i + m))

    @njit(**INLINE)
    def fill(f: Any, t: Any, values: Any, draws: Any) -> None:
        """Write each map's parameter values, and its random number or what those of its windows are made from."""
        first, maps, channels, block = of(f, t, 2), of(f, t, 3), integer(f, CHANNELS), integer(f, BLOCK)
        step = integer(f, VALUE_STEP)
        if step > 1:
            for q in range(integer(f, VALUE_COUNT)):
                for i in range(maps):
                    put(values, q * block + i, get(integer(f, VALUES), q * step + (first + i) % channels))
        kind = integer(f, DRAWS)
        if kind > 0:
            for i in range(maps):
                example, c = (first + i) // channels, (first + i) % channels
                inner = c * integer(f, OUTS) if kind == REGION else c if kind == MAP else 0
                number = np.uint64(example + integer(f, FIRST_EXAMPLE) + 1)
                begin = _mix(np.uint64(integer(f, KEY)) + number * GOLDEN) + np.uint64(inner + 1) * GOLDEN
                if kind == REGION:
                    put_integer(draws, i, np.int64(begin))  # each window goes on from here
                else:
                    put(draws, i, real(np.float64(_mix(begin) >> np.uint64(40)) * 2.0**-24))

    @njit(**INLINE)
    def shared_values(f: Any, values: Any) -> None:
        """Parameters that have one value: written once."""
        block = integer(f, BLOCK)
        if integer(f, VALUE_STEP) == 1:
            for q in range(integer(f, VALUE_COUNT)):
                for i in range(0, block, W):
                    store(values, q * block + i, lanes_of(get(integer(f, VALUES), q)))

    @njit(**INLINE)
    def line(f: Any, number: Any, maps: Any, own: Any, slopes: Any) -> None:
        """Call the kernel on a line of windows.

        `maps`: addresses of the maps' first cells, first windows and first cells' gradients, and how many maps there
        are, in whole vectors; `own`: the thread's values, draws and notes.
        """
        (x, y, gx, lanes), (values, draws, notes) = maps, own
        lines, unit = integer(f, LINES) + 32 * number, integer(f, UNIT)
        first, window = size * unit * integer(lines, 0), integer(lines, 1)
        part = integer(f, PARTS) + 32 * integer(lines, 3)
        region = 1 if integer(f, DRAWS) == REGION else 0
        invoke(
            integer(f, KERNEL),
            (
                x + first,
                integer(f, CELLS) + 8 * integer(part, 2),
                integer(f, INDICES) + 8 * integer(part, 2),
                integer(part, 0),
                integer(part, 1),
                values,
                integer(f, BLOCK),
                draws,
                window * region,
                region,
                notes,
                y + size * unit * window,
                lanes,
                integer(lines, 2),
                integer(f, STEP) * unit,
                unit,
                gx + first,
                integer(f, TILES),
                slopes,
                integer(f, FULL),
                apart(f),
            ),
        )

    @njit(**INLINE)
    def prepare(f: Any, x: Any, count: Any, values: Any) -> None:
        """Compute what the kernel wants once a cell, not once for each of its windows."""
        if integer(f, PREPARED) > 0:
            invoke(integer(f, PREPARE), (x, apart(f), count, values, integer(f, BLOCK), integer(f, FULL)))

    def forward(f: Any) -> None:
        notes, values, _, draws, c, o, _ = areas(f)
        shared_values(f, values)
        contiguous, direct = integer(f, MODE) == MAPS, integer(f, MODE) == DIRECT
        t = count_up(f, NEXT)
        while t < integer(f, TASK_COUNT):
            fill(f, t, values, draws)
            x, y, maps = integer(f, X) + size * of(f, t, 0), integer(f, Y) + size * of(f, t, 1), of(f, t, 3)
            a, u = of(f, t, 6), of(f, t, 10)
            if direct:
                for number in range(of(f, t, 4), of(f, t, 5)):
                    line(f, number, (x, y, 0, maps), (values, draws, notes), 0)
            else:
                bring(x, integer(f, FAR), integer(f, X_END), maps, a, of(f, t, 7) - a, c, contiguous)
                prepare(f, c, of(f, t, 7) - a, values)
                for number in range(of(f, t, 4), of(f, t, 5)):
                    line(f, number, (c - size * W * a, o - size * W * u, 0, W), (values, draws, notes), 0)
                take(o, y, integer(f, OUT_FAR), maps, u, of(f, t, 11) - u, contiguous)
            t = count_up(f, NEXT)

    @njit(**INLINE)
    def clear(to: Any, unit: Any, lanes: Any, begin: Any, end: Any) -> None:
        """Set the cells from `begin` to before `end` to 0."""
        for i in range(begin, end):
            for j in range(0, lanes, W):
                store(to, i * unit + j, lanes_of(zero))

    @njit(**INLINE)
    def reach(f: Any, number: Any) -> Any:
        """The cell behind the last one of a line."""
        lines = integer(f, LINES) + 32 * number
        farthest = integer(integer(f, PARTS) + 32 * integer(lines, 3), 3)
        return integer(lines, 0) + (integer(lines, 2) - 1) * integer(f, STEP) + farthest + 1

    @njit(**INLINE)
    def clear_slopes(f: Any, slopes: Any) -> None:
        for i in range(0, integer(f, VALUE_COUNT) * integer(f, BLOCK), W):
            store64(slopes, i, lanes64(0.0))

    @njit(**INLINE)
    def take_slopes(f: Any, t: Any, slopes: Any) -> None:
        """Write the gradients of the parameters, summed over a task's windows: of each map, or of all its maps."""
        each, of_strip = integer(f, SLOPE_STEP), integer(f, SLOPE_STEP) // integer(f, STRIPS)
        shared = integer(f, VALUE_STEP) == 1
        to = integer(f, SLOPES) + 8 * (t if shared else of(f, t, 14) * of_strip + of(f, t, 2))
        for q in range(integer(f, VALUE_COUNT)):
            total = 0.0
            for i in range(of(f, t, 3)):
                slope = get64(slopes, q * integer(f, BLOCK) + i)
                total += slope
                if not shared:
                    put64(to, q * each + i, slope)
            if shared:
                put64(to, q * each, total)

    @njit(**INLINE)
    def lines_back(f: Any, t: Any, maps: Any, own: Any, slopes: Any) -> None:
        """All lines of a task; slopes count where the line is the strip's own."""
        gx, lanes, unit, done = maps[2], maps[3], integer(f, UNIT), of(f, t, 6)
        learns = integer(f, SLOPES) != 0
        if learns:
            clear_slopes(f, slopes)
        for number in range(of(f, t, 4), of(f, t, 5)):
            if integer(f, TILES) == 0:
                end = reach(f, number)
                clear(gx, unit, lanes, done, end)
                done = max(done, end)
            mine = (number >= of(f, t, 12)) & (number < of(f, t, 13))
            line(f, number, maps, own, slopes if mine else 0)
        if integer(f, TILES) == 0:
            clear(gx, unit, lanes, done, of(f, t, 7))
        if learns:
            take_slopes(f, t, slopes)

    def backward(f: Any) -> None:
        notes, values, slopes, draws, c, o, d = areas(f)
        shared_values(f, values)
        contiguous, direct = integer(f, MODE) == MAPS, integer(f, MODE) == DIRECT
        t = count_up(f, NEXT)
        while t < integer(f, TASK_COUNT):
            fill(f, t, values, draws)
            x, y, maps = integer(f, X) + size * of(f, t, 0), integer(f, Y) + size * of(f, t, 1), of(f, t, 3)
            gx, a, u = integer(f, GX) + size * of(f, t, 0), of(f, t, 6), of(f, t, 10)
            if direct:
                lines_back(f, t, (x, y, gx, maps), (values, draws, notes), slopes)
            else:
                far, end = integer(f, FAR), integer(f, X_END)
                bring(x, far, end, maps, a, of(f, t, 7) - a, c, contiguous)
                prepare(f, c, of(f, t, 7) - a, values)
                bring(y, integer(f, OUT_FAR), integer(f, Y_END), maps, u, of(f, t, 11) - u, o, contiguous)
                shift, shift_out = size * W * a, size * W * u
                lines_back(f, t, (c - shift, o - shift_out, d - shift, W), (values, draws, notes), slopes)
                low = of(f, t, 8)
                take(d + size * W * (low - a), gx, far, maps, low, of(f, t, 9) - low, contiguous)
            t = count_up(f, NEXT)

    return forward, backward
