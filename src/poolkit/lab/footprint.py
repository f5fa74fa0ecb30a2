"""Memory of one training step: what is kept between forward and backward, and the peak."""

from __future__ import annotations

import itertools
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_SMALL = 1 << 16  # Python's own objects; below it, what tracemalloc counts is no array


@dataclass(frozen=True)
class Footprint:
    """Bytes that a training step needs besides its input and its parameters.

    Attributes:
        kept: stays alive from the forward to the backward pass, the output and the input apart.
        peak: the most at any one time, output and gradients included.
    """

    kept: int
    peak: int


def footprint(layer: Callable[[Tensor], Tensor], x: Tensor, g: Tensor, parameters: tuple[Tensor, ...]) -> Footprint:
    """Count the bytes of one training step of a layer on x, which wants a gradient; g is the output's gradient.

    What autograd is handed to keep (`saved_tensors_hooks`) and what the forward pass leaves allocated are both
    counted, and the larger one is `kept`: an index that a kernel hides from autograd is in the second. The peak is that
    of torch's allocator by its profiler, plus NumPy's by `tracemalloc`. Not seen: what compiled code allocates by
    itself and frees before it returns.
    """

    def left() -> int:
        y, given = _allocations(lambda: layer(x))
        return sum(given) - y.untyped_storage().nbytes()

    def step() -> Any:
        return torch.autograd.grad(layer(x), (x, *parameters), g)

    def peak() -> int:
        return max(itertools.accumulate(_allocations(step)[1]), default=0)

    return Footprint(max(_saved(layer, x, parameters), _twice(left)), _twice(peak) + _numpy_peak(step))


def largest_array(step: Callable[[], Any]) -> int:
    """Bytes of the largest array that torch makes while a step runs, forward and backward, its own inputs' included."""
    with _Largest() as seen:
        step()
    return seen.most


class _Largest(TorchDispatchMode):
    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = (t.untyped_storage().nbytes() for t in tree_leaves(out) if isinstance(t, Tensor))
        self.most = max(self.most, *sizes, 0)
        return out


def _twice(count: Callable[[], int]) -> int:
    """The larger of two counts, or of six if they differ: on a busy machine the profiler now and then loses events."""
    counts = [count(), count()]
    if counts[0] != counts[1]:
        counts += [count() for _ in range(4)]
    return max(counts)


def _saved(layer: Callable[[Tensor], Tensor], x: Tensor, parameters: tuple[Tensor, ...]) -> int:
    """Bytes of the storages that autograd keeps, x's and the parameters' apart."""
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = layer(x)  # held while the storages are counted: a freed address could come again
    known = {t.untyped_storage().data_ptr() for t in (x, *parameters)}
    del y
    return sum(size for address, size in kept.items() if address not in known)


def _allocations(work: Callable[[], Any]) -> tuple[Any, list[int]]:
    """What the work returns, and the bytes that torch's allocator gave (or took back, negative), in order."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it writes to stderr that it starts and stops
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        result = work()
    events = [e for e in watched.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    return result, [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]


def _numpy_peak(work: Callable[[], Any]) -> int:
    """The most bytes that NumPy's arrays held at one time."""
    tracemalloc.start()
    try:
        work()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return peak if peak > _SMALL else 0
