"""Several threads for one compiled function: torch's own team where it can be had, else threads of Python.

After each of its operators torch's OpenMP threads wait for the next one, busily, for some milliseconds. Threads beside
them would have to share the cores with them; the same threads start at once.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from poolkit.kernels import HOME

_POOL: tuple[int, int, ThreadPoolExecutor] | None = None


def run(function: Any, address: int, argument: int, threads: int) -> None:
    """Call a compiled function of one integer in so many threads at once; `address` is the function's own."""
    if threads == 1:
        function(argument)
    elif (together := _openmp()) and os.getpid() == HOME:
        together(address, argument, threads, 0)
    else:
        # OpenMP's threads do not live on in a forked child, and waiting for them would have no end.
        others = [_threads(threads).submit(function, argument) for _ in range(threads - 1)]
        try:
            function(argument)
        finally:  # they work on memory of the caller: it must outlive them
            wait(others)


@cache
def _openmp() -> Any:
    """The entry of GNU's OpenMP library that torch itself has loaded, or None."""
    torch = find_spec("torch")
    for place in torch.submodule_search_locations or () if torch else ():
        for path in sorted(Path(place, "lib").glob("libgomp*.so*")):
            try:
                entry = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD).GOMP_parallel
            except (OSError, AttributeError):
                continue
            entry.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
            entry.restype = None
            return entry
    return None


def _threads(count: int) -> ThreadPoolExecutor:
    """Threads of this process: a forked child has none of its parent's and makes its own."""
    global _POOL
    if _POOL is None or _POOL[0] != os.getpid() or _POOL[1] < count:
        _POOL = (os.getpid(), count, ThreadPoolExecutor(count, thread_name_prefix="poolkit"))
    return _POOL[2]
