"""The CPU engine: it compiles a method's kernel, keeps it on disk, and runs it in torch's number of threads.

A method adds `kernel(s, p)`: one window in the words of `words.py`, and its gradient. Backward computes the window
again from the input: no index is kept. Each cell's gradient is summed by one thread, its windows in order: the same
bits for any number of threads.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import sys
import threading
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numba import types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.ccallback import CFunc

from poolkit.kernels import BEGAN, numbers_of, team, walk
from poolkit.kernels.fingerprint import fingerprint
from poolkit.kernels.lanes import W
from poolkit.kernels.plan import DIRECT, plan
from poolkit.kernels.words import inlined, kernel_words, parameter_words
from poolkit.method import WindowMethod
from poolkit.window import Window

ALONE = 2**15  # cells up to which a call is not worth a second thread
LONG = 32  # cells from which on sums run in float64
NOTES = 3  # numbers for each cell of a window that a kernel may note
#: What a kernel is called with; the same for both directions.
BLOCK = (
    "x places indices n padded values pitch draws turn region notes out lanes windows jump out_jump gx fresh slopes "
    "full beside"
).split()


class _Cache(FunctionCache):
    """Numba's cache on disk, under a key of ours: its own key changes with every process for functions made here.

    Each kernel has files of its own. In one common index, two processes that compile at the same time would number
    their files alike, and each would later run the other's code.
    """

    def __init__(self, function: Any, key: str) -> None:
        super().__init__(function)
        self.key = key
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = IndexDataCacheFile(self._cache_path, key, stamp)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return sig, codegen.magic_tuple(), self.key


def _compile(function: Any, arguments: int, key: tuple[Any, ...], about: str, *made_of: Any) -> Any:
    """Machine code of a function of integers, from the cache if it is there.

    It is kept under a name made of `key`, of the functions it is `made_of`, and of the engine's own files.
    """
    engine = sorted(Path(__file__).parent.glob("*.py"))
    text = fingerprint(*made_of)
    # Without a text, or where the engine's files are newer than what runs here, the kernel is not kept.
    known = text is not None and all(path.stat().st_mtime < BEGAN for path in engine)
    digest = hashlib.sha256(f"{key!r} {W} {text}".encode())
    digest.update(b"".join(path.read_bytes() for path in engine) if known else os.urandom(16))
    name = f"poolkit_{digest.hexdigest()[:40]}"
    # Machine code finds functions by name, and each process numbers equal names anew: without names of their own, two
    # kernels from the cache could run each other's code. All that they call is inlined into them.
    function.__name__ = function.__qualname__ = name
    with _Announced(about):
        return (_kept(function, arguments, name) if known else None) or _fresh(function, arguments)


def _fresh(function: Any, arguments: int) -> Any:
    code: Any = CFunc(function, ((types.intp,) * arguments, types.void), {}, {"error_model": "numpy"})
    code.compile()
    return code


def _kept(function: Any, arguments: int, name: str) -> Any:
    """The same from the cache on disk, or by way of it; None where it is damaged or cannot be written."""
    code: Any = CFunc(function, ((types.intp,) * arguments, types.void), {}, {"error_model": "numpy"})
    try:
        code._cache = _Cache(function, name)
        code.compile()
    except Exception:  # noqa: BLE001 - no fault of a cache may stop pooling; one of the code comes again without it
        return None
    return code


class _Announced:
    """Says on stderr what takes so long, if it takes more than a second; once a process."""

    said = False

    def __init__(self, about: str) -> None:
        self.timer = threading.Timer(1.0, self.say, (about,))
        self.timer.daemon = True

    @classmethod
    def say(cls, about: str) -> None:
        if not cls.said:
            cls.said = True
            print(
                f"poolkit: preparing {about} for this processor; it is compiled once and kept on disk", file=sys.stderr
            )

    def __enter__(self) -> None:
        self.timer.start()

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()


_KERNELS: dict[Any, Any] = {}
_LOCK = threading.RLock()


@dataclass(frozen=True)
class Code:
    """Machine code of a method.

    Attributes:
        windows: the address of its kernel.
        cells: that of the function that prepares `numbers` numbers of each cell, for windows that overlap; or 0.
        keep: what the addresses point to.
    """

    windows: int
    cells: int
    numbers: int
    keep: tuple[Any, ...]


def kernel(
    method: WindowMethod,
    name: str,
    long: bool,
    sampling: bool,
    backward: bool,
    overlapping: bool = False,
    relu: bool = False,
) -> Code:
    """The compiled kernel of a method for `float32` or `float64`."""
    read = (*numbers_of(method), *method.per_cell)
    constants = tuple((n, getattr(method, n)) for n in method.params() if n not in read)
    constants += tuple(method.per_cell.items())
    key = (type(method), constants, tuple(method.learned) if backward else (), name, long, sampling, backward, relu)
    with _LOCK:
        if (key, overlapping) not in _KERNELS:
            _KERNELS[key, overlapping] = _code(method, overlapping, key)
        return _KERNELS[key, overlapping]


def _code(method: WindowMethod, overlapping: bool, key: tuple[Any, ...]) -> Code:
    *_, name, long, sampling, backward, relu = key
    s = kernel_words(name, long, method.draws == "region", relu, backward, overlapping)
    p = parameter_words(method, name)
    both = (method.sample_kernel if sampling else method.kernel)(s, p)
    if overlapping and not s.prepared:
        return kernel(method, name, long, sampling, backward, relu=relu)
    plain = (str(key[0]), *key[1:], overlapping)
    about = f"the {'backward' if backward else 'forward'} kernel of {method.card.name} pooling"
    windows = _compile(_runner(s, inlined(both[0]), inlined(both[1]), backward), len(BLOCK), plain, about, *both)
    if not s.prepared:
        return Code(windows.address, 0, 0, (windows,))
    cells = _compile(_preparer(s), 6, ("cells", *plain), about, *s.prepared)
    return Code(windows.address, cells.address, len(s.prepared), (windows, cells))


def _preparer(s: ModuleType) -> Any:
    """The function that computes what a kernel wants once a cell."""
    load, store, real, first, last = s.load, s.store, s.real, s.prepared[0], s.prepared[-1]
    two, taken = len(s.prepared) == 2, s.taken

    def run(x, beside, count, values, pitch, full):  # type: ignore[no-untyped-def]
        w = (x, 0, 0, 0, 0, values, pitch, 0, 0, 0, 0, 0, 0, full, 0, 0, 0)
        for i in range(0, count * W, W):
            v = taken(load(x, i))
            store(x + beside, i, real(first(w, v)))
            if two:
                store(x + 2 * beside, i, real(last(w, v)))

    return run


def _runner(s: ModuleType, forward: Any, gradient: Any, backward: bool) -> Any:
    """The function that walks a line of windows."""
    load, store, real = s.load, s.store, s.real

    def run_forward(  # type: ignore[no-untyped-def]
        x, places, indices, n, padded, values, pitch, draws, turn, region, notes, out, lanes, windows, jump, out_jump,
        gx, fresh, slopes, full, beside,
    ):  # fmt: skip
        for q in range(windows):
            for i in range(0, lanes, W):
                at = q * jump + i
                w = (x, places, indices, n, padded, values, pitch, draws, turn + q * region, notes, gx, fresh, slopes,
                     full, at, i, beside)  # fmt: skip
                store(out, q * out_jump + i, real(forward(w)))

    def run_backward(  # type: ignore[no-untyped-def]
        x, places, indices, n, padded, values, pitch, draws, turn, region, notes, out, lanes, windows, jump, out_jump,
        gx, fresh, slopes, full, beside,
    ):  # fmt: skip
        for q in range(windows):
            for i in range(0, lanes, W):
                at = q * jump + i
                w = (x, places, indices, n, padded, values, pitch, draws, turn + q * region, notes, gx, fresh, slopes,
                     full, at, i, beside)  # fmt: skip
                gradient(w, load(out, q * out_jump + i))

    return run_backward if backward else run_forward


@cache
def walker(name: str, backward: bool) -> Any:
    """The compiled walker for `float32` or `float64`."""
    found = walk.walkers(name)[backward]
    return _compile(found, 1, ("walker", name, backward), "the engine")


@dataclass(frozen=True)
class Job:
    """A method on one kind of picture, forward or backward: everything about a call but its addresses.

    Attributes:
        frame: what the walker is told, addresses of the call left out.
        each: bytes of scratch memory that a thread needs.
        tasks, cells: how much there is to do.
        ends: bytes of the picture and of the output.
        slopes: how many sums of its gradient each value has: one for each task, or for each map of each strip where
            the values are a channel's own.
        keep: what the frame points to.
    """

    walk_over: Any
    address: int
    frame: bytes
    each: int
    tasks: int
    cells: int
    ends: tuple[int, int]
    slopes: int
    keep: tuple[Any, ...]

    def run(
        self, x: int, y: int, gx: int, values: int, slopes: int, draws: tuple[int, int] | None, threads: int
    ) -> None:
        """Run it: forward, or backward where an address for the picture's gradient is given.

        Args:
            x: address of the picture.
            y: of the output, or its gradient.
            gx: of the picture's gradient.
            values: of the parameters in the order of `rows.to_rows`, (Q, 1) or (Q, C), of the picture's type.
            slopes: of the sums of their gradients, (Q, self.slopes) float64, or 0.
            draws: key and number of the first example, for a random method in training.
            threads: at most so many.
        """
        frame = _Frame.from_buffer_copy(self.frame)
        frame[walk.X], frame[walk.Y], frame[walk.GX] = x, y, gx
        frame[walk.X_END], frame[walk.Y_END] = x + self.ends[0], y + self.ends[1]
        frame[walk.VALUES], frame[walk.SLOPES] = values, slopes
        if draws:
            frame[walk.KEY], frame[walk.FIRST_EXAMPLE] = draws
        threads = min(threads, self.tasks) if self.cells >= ALONE else 1
        memory, frame[walk.SCRATCH] = _memory(self.each * threads)
        team.run(self.walk_over, self.address, ctypes.addressof(frame), threads)


_Frame = ctypes.c_int64 * len(walk.FIELDS)


@lru_cache(maxsize=512)
def job(
    method: WindowMethod,
    window: Window,
    name: str,
    shape: tuple[int, ...],
    last: bool,
    per: str | None,
    each: int,
    backward: bool,
    relu: bool = False,
) -> Job:
    """The job of a method on pictures of type `name`, (N, C, *sizes), channels-last or not.

    Args:
        per: for what a random method in training draws a number; None: it draws none.
        each: values that a parameter has, 1 or C.
        relu: whether a cell x counts as max(x, 0).
    """
    where, walker_code = plan(window, shape, last, backward), walker(name, backward)
    overlapping = where.most <= LONG and math.prod(window.stride) < window.k
    code = kernel(method, name, where.most > LONG, per is not None, backward, overlapping, relu)
    if code.numbers:
        where = plan(window, shape, last, backward, staged=True)
    known: dict[str, int] = {n: int(v) for n, v in vars(where).items() if not isinstance(v, np.ndarray)}
    known |= {n: _at(v) for n, v in vars(where).items() if isinstance(v, np.ndarray)}
    maps, tables = shape[0] * shape[1], sum(rows or 1 for rows in method.per_cell.values())
    numbers = len(numbers_of(method)) + tables * window.k
    slopes = where.strips * maps if each > 1 else len(where.tasks)
    size = np.dtype(name).itemsize
    scratch = walk.scratch_size(
        size,
        where.mode != DIRECT,
        backward,
        where.span,
        where.out_span,
        NOTES * where.most,
        numbers,
        where.block,
        code.numbers,
    )
    known |= {
        "kernel": code.windows,
        "prepare": code.cells,
        "prepared": code.numbers,
        "full": window.k,
        "task_count": len(where.tasks),
        "notes": NOTES * where.most,
        "scratch_each": scratch,
        "slope_step": slopes,
        "value_count": numbers,
        "value_step": each,
        "channels": shape[1],
        "draws": {None: 0, "region": walk.REGION, "map": walk.MAP, "layer": walk.LAYER}[per],
    }
    return Job(
        walker_code.ctypes,
        walker_code.address,
        bytes(_Frame(*(known.get(field, 0) for field in walk.FIELDS))),
        scratch,
        len(where.tasks),
        math.prod(shape),
        (math.prod(shape) * size, maps * where.outs * size),
        slopes,
        (where, code),
    )


def _at(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


_LOCAL = threading.local()
KEPT = 2**24  # bytes of scratch memory that a thread keeps for its next call


def _memory(size: int) -> tuple[np.ndarray, int]:
    """Scratch memory of the calling thread, for all threads that work for it, and where its first cache line begins."""
    kept: tuple[np.ndarray, int] | None = getattr(_LOCAL, "memory", None)
    if kept is None or kept[0].nbytes < size + 64:
        memory = np.zeros(size // 8 + 9)
        kept = memory, -(-_at(memory) // 64) * 64
        _LOCAL.memory = kept if size <= KEPT else None
    return kept
