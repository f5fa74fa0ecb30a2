"""The walkers: they take the windows of a plan to a method's kernel and its results back, once per number type.

A walker gets one block of integers, the *frame*: addresses and sizes by the names below. For each task it collects runs
until scratch memory is full ("a block"), calls the kernel on the block's lanes and writes what comes back. A task's
cells are its own, so threads share nothing and the result does not depend on their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from poolkit.kernels.lanes import INLINE, NUMBERS, W, integer, invoke

#: The fields of a frame, in order.
FIELDS = (
    "kernel x x_size y gx slopes tasks low high runs run_count parts cells rows pitch step out_step "
    "outs most area tiles last whole scratch values value_count value_step channels draws key first_example maps"
).split()
(KERNEL, X, X_SIZE, Y, GX, SLOPES, TASKS, LOW, HIGH, RUNS, RUN_COUNT, PARTS, CELLS, ROWS, PITCH, STEP, OUT_STEP) = (
    range(17)
)
(
    OUTS,
    MOST,
    AREA,
    TILES,
    LAST,
    WHOLE,
    SCRATCH,
    VALUES,
    VALUE_COUNT,
    VALUE_STEP,
    CHANNELS,
    DRAWS,
    KEY,
    FIRST_EXAMPLE,
    MAPS,
) = range(17, len(FIELDS))
REGION, MAP, LAYER = 1, 2, 3  # DRAWS: for what one number is drawn; 0: none
GOLDEN, MIX1, MIX2 = (np.uint64(v) for v in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@njit(**INLINE)
def _up(lanes: Any) -> Any:
    """The lanes rounded up to whole vectors."""
    return (lanes + (W - 1)) // W * W


@njit(**INLINE)
def _mix(z: Any) -> Any:
    z = (z ^ (z >> np.uint64(30))) * MIX1
    z = (z ^ (z >> np.uint64(27))) * MIX2
    return z ^ (z >> np.uint64(31))


def scratch_size(most: int, pitch: int, numbers: int, area: int) -> int:
    """Numbers of scratch memory that a walker needs: the areas of `_areas`."""
    return 3 * most * pitch + (2 * numbers + 2) * pitch + area + 4 * W


@njit(**INLINE)
def _areas(f: Any, size: Any) -> Any:
    """Where scratch memory has room for cells, notes, gradients, values, their gradients, draws, outputs and a map."""
    at, pitch = integer(f, SCRATCH), size * integer(f, PITCH)
    block, numbers = pitch * integer(f, MOST), pitch * integer(f, VALUE_COUNT)
    values = at + 3 * block
    draws = values + 2 * numbers
    return at, at + block, at + 2 * block, values, values + numbers, draws, draws + pitch, draws + 2 * pitch


def walkers(name: str) -> tuple[Any, Any]:
    """The forward and the backward walker for `float32` or `float64`, as functions of a frame."""
    words, size = NUMBERS[name], 4 if name == "float32" else 8
    load, store, load_even, add_pairs = words["load"], words["store"], words["load_even"], words["add_pairs"]
    get, put, lanes_of = words["get"], words["put"], words["lanes"]
    real = np.float32 if name == "float32" else np.float64
    zero = real(0)

    @njit(**INLINE)
    def run_lanes(f: Any, t: Any, r: Any) -> Any:
        given = integer(integer(f, TASKS), 4 * t + 3)
        return given if given > 0 else integer(integer(f, RUNS), 4 * r + 2)

    @njit(**INLINE)
    def run_cell(f: Any, t: Any, r: Any) -> Any:
        return integer(integer(f, TASKS), 4 * t) + integer(integer(f, RUNS), 4 * r)

    @njit(**INLINE)
    def run_output(f: Any, t: Any, r: Any) -> Any:
        return integer(integer(f, TASKS), 4 * t + 1) + integer(integer(f, RUNS), 4 * r + 1) * integer(f, OUT_STEP)

    @njit(**INLINE)
    def part_of(f: Any, r: Any, what: Any) -> Any:
        return integer(integer(f, PARTS), 4 * integer(integer(f, RUNS), 4 * r + 3) + what)

    @njit(**INLINE)
    def copy(to: Any, source: Any, count: Any) -> None:
        whole = count // W * W
        for i in range(0, whole, W):
            store(to, i, load(source, i))
        for i in range(whole, count):
            put(to, i, get(source, i))

    @njit(**INLINE)
    def gather(f: Any, t: Any, r: Any, to: Any) -> None:
        """Copy the cells of a run's windows to scratch memory, one row a cell."""
        x, at, lanes, step, pitch = (
            integer(f, X),
            run_cell(f, t, r),
            run_lanes(f, t, r),
            integer(f, STEP),
            integer(f, PITCH),
        )
        n, cells = part_of(f, r, 0), integer(f, CELLS) + 8 * part_of(f, r, 2)
        full = _up(lanes)
        # Whole vectors may read past the run, never past the tensor.
        if step <= 2 and at + part_of(f, r, 3) + full * step <= integer(f, X_SIZE):
            for j in range(n):
                begin = at + integer(cells, j)
                if step == 1:
                    for i in range(0, full, W):
                        store(to, j * pitch + i, load(x, begin + i))
                else:
                    for i in range(0, full, W):
                        store(to, j * pitch + i, load_even(x, begin + 2 * i))
        elif n > 64:
            for i in range(lanes):
                for j in range(n):
                    put(to, j * pitch + i, get(x, at + i * step + integer(cells, j)))
        else:
            for j in range(n):
                begin = at + integer(cells, j)
                for i in range(lanes):
                    put(to, j * pitch + i, get(x, begin + i * step))

    @njit(**INLINE)
    def fill(f: Any, t: Any, r: Any, slot: Any, values: Any, draws: Any) -> None:
        """Write each lane's parameter values and its random number."""
        lanes, first = run_lanes(f, t, r), integer(integer(f, TASKS), 4 * t + 2)
        across, channels, pitch = integer(integer(f, TASKS), 4 * t + 3) > 0, integer(f, CHANNELS), integer(f, PITCH)
        step = integer(f, VALUE_STEP)
        if step > 1:
            for q in range(integer(f, VALUE_COUNT)):
                for i in range(lanes):
                    c = (first + i) % channels if across else first % channels
                    put(values, q * pitch + slot + i, get(integer(f, VALUES), q * step + c))
        kind = integer(f, DRAWS)
        if kind > 0:
            window, outs = integer(integer(f, RUNS), 4 * r + 1), integer(f, OUTS)
            last, mixed = np.int64(-1), np.uint64(0)
            for i in range(lanes):
                m = first + i if across else first
                example = m // channels
                if example != last:
                    number = np.uint64(example + integer(f, FIRST_EXAMPLE) + 1)
                    last, mixed = example, _mix(np.uint64(integer(f, KEY)) + number * GOLDEN)
                c = m - example * channels
                inner = c * outs + window + (0 if across else i)
                inner = inner if kind == REGION else c if kind == MAP else 0
                u = _mix(mixed + np.uint64(inner + 1) * GOLDEN) >> np.uint64(40)
                put(draws, slot + i, real(np.float64(u) * 2.0**-24))

    @njit(**INLINE)
    def direct(f: Any, t: Any, r: Any) -> Any:
        """Whether the kernel may read the picture itself: neighbours in memory, and few lanes past the run."""
        lanes, at = run_lanes(f, t, r), run_cell(f, t, r)
        full = _up(lanes)
        return (integer(f, STEP) == 1) & (lanes * 4 >= full * 3) & (at + part_of(f, r, 3) + full <= integer(f, X_SIZE))

    @njit(**INLINE)
    def collect(f: Any, t: Any, r: Any, cells: Any, values: Any, draws: Any) -> Any:
        """Gather runs from r on; the next run, the lanes, and where the kernel finds the cells."""
        if direct(f, t, r):
            fill(f, t, r, 0, values, draws)
            begin = integer(f, CELLS) + 8 * part_of(f, r, 2)
            return r + 1, _up(run_lanes(f, t, r)), integer(f, X) + size * run_cell(f, t, r), begin
        part, slot = integer(integer(f, RUNS), 4 * r + 3), 0
        while r < integer(f, RUN_COUNT) and integer(integer(f, RUNS), 4 * r + 3) == part:
            full = _up(run_lanes(f, t, r))
            if slot + full > integer(f, PITCH):
                break
            gather(f, t, r, cells + size * slot)
            fill(f, t, r, slot, values, draws)
            slot += full
            r += 1
        return r, slot, cells, integer(f, ROWS)

    @njit(**INLINE)
    def shared_values(f: Any, values: Any) -> None:
        """Parameters that have one value: written once."""
        if integer(f, VALUE_STEP) == 1:
            for q in range(integer(f, VALUE_COUNT)):
                for i in range(integer(f, PITCH)):
                    put(values, q * integer(f, PITCH) + i, get(integer(f, VALUES), q))

    def forward(f: Any) -> None:
        pitch = integer(f, PITCH)
        c, z, _, v, _, d, o, _ = _areas(f, size)
        shared_values(f, v)
        for t in range(integer(f, LOW), integer(f, HIGH)):
            r = 0
            while r < integer(f, RUN_COUNT):
                begin = r
                r, lanes, x, places = collect(f, t, r, c, v, d)
                n, padded = part_of(f, begin, 0), part_of(f, begin, 1)
                invoke(integer(f, KERNEL), (x, places, n, padded, v, d, z, pitch, o, lanes, 0, 0, 0))
                slot = 0
                for b in range(begin, r):
                    count = run_lanes(f, t, b)
                    copy(integer(f, Y) + size * run_output(f, t, b), o + size * slot, count)
                    slot += _up(count)

    @njit(**INLINE)
    def take_slopes(f: Any, t: Any, r: Any, slot: Any, e: Any) -> None:
        """Add the lanes' gradients of the parameters to those of their maps."""
        lanes, m, pitch = run_lanes(f, t, r), integer(integer(f, TASKS), 4 * t + 2), integer(f, PITCH)
        for q in range(integer(f, VALUE_COUNT)):
            row = integer(f, SLOPES) + 8 * (q * integer(f, MAPS) + m)
            if integer(integer(f, TASKS), 4 * t + 3) > 0:
                for i in range(lanes):
                    put64(row, i, get64(row, i) + np.float64(get(e, q * pitch + slot + i)))
            else:
                total = 0.0
                for i in range(lanes):
                    total += np.float64(get(e, q * pitch + slot + i))
                put64(row, 0, get64(row, 0) + total)

    get64, put64 = NUMBERS["float64"]["get"], NUMBERS["float64"]["put"]

    @njit(**INLINE)
    def scatter(f: Any, t: Any, r: Any, slot: Any, d: Any, to: Any, base: Any, slack: Any) -> None:
        """Add the gradients of a run's cells to their places in `to`, whose first cell is number `base` of the picture.

        `slack`: whole vectors may be written past the run, because that memory is ours.
        """
        lanes, step, pitch = run_lanes(f, t, r), integer(f, STEP), integer(f, PITCH)
        n, cells, at = part_of(f, r, 0), integer(f, CELLS) + 8 * part_of(f, r, 2), run_cell(f, t, r) - base
        full = _up(lanes)
        vectors = full if slack else lanes // W * W
        if slack:
            for j in range(n):
                for i in range(lanes, full):
                    put(d, j * pitch + slot + i, zero)
        j = 0
        while j < n:
            begin, row = at + integer(cells, j), j * pitch + slot
            if step == 1:
                for i in range(0, vectors, W):
                    store(to, begin + i, load(to, begin + i) + load(d, row + i))
                for i in range(vectors, lanes):
                    put(to, begin + i, get(to, begin + i) + get(d, row + i))
            elif slack and step == 2:
                paired = j + 1 < n and integer(cells, j + 1) == integer(cells, j) + 1
                for i in range(0, full, W):
                    odd = load(d, row + pitch + i) if paired else lanes_of(zero)
                    add_pairs(to, begin + 2 * i, load(d, row + i), odd)
                j += 1 if paired else 0
            else:
                for i in range(lanes):
                    put(to, begin + i * step, get(to, begin + i * step) + get(d, row + i))
            j += 1

    @njit(**INLINE)
    def place(f: Any, t: Any, r: Any, d: Any) -> None:
        """Write the gradients of whole maps to their places, each of which is written once."""
        lanes, step, pitch, at = run_lanes(f, t, r), integer(f, STEP), integer(f, PITCH), run_cell(f, t, r)
        n, to = part_of(f, r, 0), integer(f, GX)
        for i in range(lanes):
            for j in range(n):
                put(to, at + i * step + j, get(d, j * pitch + i))

    @njit(**INLINE)
    def clear(f: Any, t: Any, lanes: Any) -> None:
        """Set the gradient of a task's cells to 0, in the tensor."""
        gx, at, step, whole = integer(f, GX), integer(integer(f, TASKS), 4 * t), integer(f, OUT_STEP), lanes // W * W
        for cell in range(integer(f, AREA)):
            for i in range(0, whole, W):
                store(gx, at + cell * step + i, lanes_of(zero))
            for i in range(whole, lanes):
                put(gx, at + cell * step + i, zero)

    def backward(f: Any) -> None:
        pitch, area = integer(f, PITCH), integer(f, AREA)
        last, whole, tiles = integer(f, LAST) > 0, integer(f, WHOLE) > 0, integer(f, TILES) > 0
        c, z, g, v, e, d, o, m = _areas(f, size)
        shared_values(f, v)
        for t in range(integer(f, LOW), integer(f, HIGH)):
            base = integer(integer(f, TASKS), 4 * t)
            across = integer(integer(f, TASKS), 4 * t + 3)
            straight = last and tiles and across % W == 0
            if not (last or whole):
                # A map's gradient grows in memory of our own, where vectors may reach past it, and is copied once.
                for i in range(0, area + 4 * W - W + 1, W):
                    store(m, i, lanes_of(zero))
            elif last and not straight:
                clear(f, t, across)
            r = 0
            while r < integer(f, RUN_COUNT):
                begin = r
                r, lanes, x, places = collect(f, t, r, c, v, d)
                slot = 0
                for b in range(begin, r):
                    count = run_lanes(f, t, b)
                    copy(o + size * slot, integer(f, Y) + size * run_output(f, t, b), count)
                    slot += _up(count)
                n, padded = part_of(f, begin, 0), part_of(f, begin, 1)
                to, rows = g, integer(f, ROWS)
                at_once = straight and x != c
                if at_once:
                    to, rows = integer(f, GX) + size * run_cell(f, t, begin), places
                invoke(integer(f, KERNEL), (x, places, n, padded, v, d, z, pitch, o, lanes, to, rows, e))
                slot = 0
                for b in range(begin, r):
                    if whole:
                        place(f, t, b, g)
                    elif last:
                        if not at_once:
                            scatter(f, t, b, slot, g, integer(f, GX), 0, False)
                    else:
                        scatter(f, t, b, slot, g, m, base, True)
                    if integer(f, SLOPES) != 0:
                        take_slopes(f, t, b, slot, e)
                    slot += _up(run_lanes(f, t, b))
            if not (last or whole):
                copy(integer(f, GX) + size * base, m, area)

    return forward, backward
