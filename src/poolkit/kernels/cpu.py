"""The CPU engine: it compiles a method's kernel, keeps it on disk, and runs it in torch's number of threads.

A method adds `kernel(s, p)`: one window in the words of `words.py`, and its gradient. Backward computes the window
again from the input: no index is kept. Each map (in channels-last memory, each picture's block of channels) belongs to
one thread, which takes its windows in order: no atomics, the same bits for any number of threads.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numba import njit, types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.ccallback import CFunc
from numba.core.dispatcher import Dispatcher

from poolkit.kernels import numbers_of, walk
from poolkit.kernels.lanes import INLINE, W
from poolkit.kernels.plan import plan
from poolkit.kernels.words import parameter_words, window_words
from poolkit.method import WindowMethod
from poolkit.window import Window

ALONE = 2**15  # cells up to which a call is not worth a second thread
LONG = 32  # cells from which on sums run in float64
#: What a kernel is called with; the same for both directions.
BLOCK = "x places n padded values draws notes pitch out lanes gx rows slopes".split()


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


def _compile(function: Any, arguments: int, key: tuple[Any, ...], about: str, *sources: Any) -> Any:
    """Machine code of a function of integers, from the cache if it is there; `key` with its sources names it."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), *map(_file, sources)]
    digest = hashlib.sha256(repr(key).encode())
    for path in files:
        # What was typed into a notebook has no version to know it by: it gets a name of its own and is not kept.
        digest.update(path.read_bytes() if path else os.urandom(16))
    name = f"poolkit_{digest.hexdigest()[:40]}"
    # Machine code finds functions by name, and each process numbers equal names anew: without names of their own, two
    # kernels from the cache could run each other's code. All that they call is inlined into them.
    function.__name__ = function.__qualname__ = name
    code: Any = CFunc(function, ((types.intp,) * arguments, types.void), {}, {"error_model": "numpy"})
    if None not in files:
        code._cache = _Cache(function, name)
    with _Announced(about):
        code.compile()
    return code


def _file(module: ModuleType | None) -> Path | None:
    path = getattr(module, "__file__", None)
    return Path(path) if path and Path(path).is_file() else None


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
            print(f"poolkit: compiling {about} for this processor; kept on disk, so only once", file=sys.stderr)

    def __enter__(self) -> None:
        self.timer.start()

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()


_KERNELS: dict[Any, Any] = {}
_LOCK = threading.RLock()


def kernel(method: WindowMethod, name: str, long: bool, sampling: bool, backward: bool) -> Any:
    """The compiled kernel of a method for `float32` or `float64`."""
    constants = tuple((n, getattr(method, n)) for n in method.params() if n not in numbers_of(method))
    key = (type(method), constants, tuple(method.learned) if backward else (), name, long, sampling, backward)
    with _LOCK:
        if key not in _KERNELS:
            _KERNELS[key] = _kernel(method, name, long, sampling, backward, key)
        return _KERNELS[key]


def _kernel(method: WindowMethod, name: str, long: bool, sampling: bool, backward: bool, key: tuple[Any, ...]) -> Any:
    s, p = window_words(name, long), parameter_words(method, name)
    both = (method.sample_kernel if sampling else method.kernel)(s, p)
    forward, gradient = (f if isinstance(f, Dispatcher) else njit(**INLINE)(f) for f in both)
    load, store, real = s.load, s.store, s.real

    def run_forward(x, places, n, padded, values, draws, notes, pitch, out, lanes, gx, rows, slopes):  # type: ignore[no-untyped-def]
        for i in range(0, lanes, W):
            w = (x, places, n, padded, values, draws, notes, pitch, out, gx, rows, slopes, i)
            store(out, i, real(forward(w)))

    def run_backward(x, places, n, padded, values, draws, notes, pitch, out, lanes, gx, rows, slopes):  # type: ignore[no-untyped-def]
        for i in range(0, lanes, W):
            w = (x, places, n, padded, values, draws, notes, pitch, out, gx, rows, slopes, i)
            gradient(w, load(out, i))

    about = f"the {'backward' if backward else 'forward'} kernel of {method.card.name} pooling"
    module = sys.modules.get(type(method).__module__)
    return _compile(run_backward if backward else run_forward, len(BLOCK), (str(key[0]), *key[1:]), about, module)


@cache
def walker(name: str, backward: bool) -> Any:
    """The compiled walker for `float32` or `float64`."""
    found = walk.walkers(name)[backward]
    return _compile(found, 1, ("walker", name, backward), "the engine")


@dataclass(frozen=True)
class _Job:
    """Everything about a call but its addresses: walker, frame with what is known, and what the frame points to."""

    walk_over: Any
    frame: np.ndarray
    scratch: int
    tasks: int
    cells: int
    keep: tuple[Any, ...]


@lru_cache(maxsize=256)
def _job(
    method: WindowMethod,
    window: Window,
    name: str,
    shape: tuple[int, ...],
    last: bool,
    per: str | None,
    each: int,
    backward: bool,
) -> _Job:
    where = plan(window, shape, last)
    code = kernel(method, name, where.most > LONG, per is not None, backward)
    known = {name: getattr(where, name) for name in "pitch step out_step outs most area tiles last whole".split()}
    known |= {name: _at(getattr(where, name)) for name in "runs parts cells rows tasks".split()}
    known |= {
        "kernel": code.address,
        "x_size": math.prod(shape),
        "run_count": len(where.runs),
        "high": len(where.tasks),
    }
    known |= {
        "value_count": len(numbers_of(method)),
        "value_step": each,
        "channels": shape[1],
        "maps": shape[0] * shape[1],
    }
    known["draws"] = {None: 0, "region": walk.REGION, "map": walk.MAP, "layer": walk.LAYER}[per]
    frame = np.array([known.get(field, 0) for field in walk.FIELDS], np.int64)
    own = where.area if backward and not (where.last or where.whole) else 0
    scratch = walk.scratch_size(where.most, where.pitch, len(numbers_of(method)), own) * np.dtype(name).itemsize
    return _Job(walker(name, backward).ctypes, frame, scratch, len(where.tasks), math.prod(shape), (where, code))


def run(
    method: WindowMethod,
    window: Window,
    picture: tuple[int, str, tuple[int, ...], bool],
    values: tuple[int, int],
    draws: tuple[int, int] | None,
    results: tuple[int, int, int],
    threads: int,
) -> None:
    """Run a method over a picture: forward, or backward where an address for the picture's gradient is given.

    Args:
        picture: address, number type, shape (N, C, *sizes), and whether it lies channels-last.
        values: address of the parameters in the order of `numbers_of`, (Q, 1) or (Q, C), of the picture's type; 1 or C.
        draws: key and number of the first example, for a random method in training.
        results: addresses of the output (or its gradient), of the picture's gradient (or 0), and of the parameters'
            gradients (or 0): (Q, N·C) float64 numbers, to which is added.
        threads: at most so many.
    """
    address, name, shape, last = picture
    y, gx, slopes = results
    job = _job(method, window, name, shape, last, method.draws if draws else None, values[1], gx != 0)
    frame = job.frame.copy()
    frame[walk.X], frame[walk.Y], frame[walk.GX], frame[walk.SLOPES], frame[walk.VALUES] = (
        address,
        y,
        gx,
        slopes,
        values[0],
    )
    if draws:
        frame[walk.KEY], frame[walk.FIRST_EXAMPLE] = draws
    _spread(job, frame, threads)


def _at(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def _spread(job: _Job, frame: np.ndarray, threads: int) -> None:
    """Each task once, whole, in one thread; little work stays in the caller's thread."""
    parts = min(threads, job.tasks) if job.cells >= ALONE else 1
    if parts <= 1:
        _walk(job, frame)
        return
    frames = np.repeat(frame[None], parts, 0)
    cuts = np.arange(parts + 1) * job.tasks // parts
    frames[:, walk.LOW], frames[:, walk.HIGH] = cuts[:-1], cuts[1:]
    others = [_workers(threads).submit(_walk, job, part) for part in frames[1:]]
    _walk(job, frames[0])
    for other in others:
        other.result()


_LOCAL = threading.local()
KEPT = 2**24  # bytes of scratch memory that a thread keeps for its next call


def _walk(job: _Job, frame: np.ndarray) -> None:
    """Walk in this thread, with scratch memory of its own."""
    memory = getattr(_LOCAL, "memory", None)
    if memory is None or memory.nbytes < job.scratch:
        memory = np.zeros(job.scratch // 8 + 1)
        _LOCAL.memory = memory if job.scratch <= KEPT else None
    frame[walk.SCRATCH] = _at(memory)
    job.walk_over(_at(frame))


_POOL: tuple[int, int, ThreadPoolExecutor] | None = None


def _workers(threads: int) -> ThreadPoolExecutor:
    """Threads of this process: a forked child has none of its parent's and makes its own."""
    global _POOL
    if _POOL is None or _POOL[0] != os.getpid() or _POOL[1] < threads:
        _POOL = (os.getpid(), threads, ThreadPoolExecutor(threads, thread_name_prefix="poolkit"))
    return _POOL[2]
