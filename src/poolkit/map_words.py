"""The array words of formulas on whole maps: those of `xp.py`, and others that take an axis.

The same in NumPy, torch and `keras.ops`, so that one formula serves all of them. Reductions and selections run over
axis 0, as in `xp.py`, unless told otherwise. Complex numbers are pairs (real, imaginary), as in `keras.ops`.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from poolkit.xp import numpy_words, torch_words


def numpy_map_words() -> Any:
    """The words in NumPy."""
    import numpy as np

    def convolve(x: Any, w: Any) -> Any:
        return convolved(xp, x, w)

    def segments(x: Any, labels: Any, count: int, how: str) -> Any:
        start = {"sum": 0.0, "max": -np.inf}[how]
        y = np.full((*x.shape[:2], count), start, x.dtype)
        where = (np.arange(x.shape[0])[:, None, None], np.arange(x.shape[1])[None, :, None], labels[:, None, :])
        {"sum": np.add, "max": np.maximum}[how].at(y, where, x)
        return y

    def softmax(x: Any, axis: int = 0) -> Any:
        e = np.exp(x - x.max(axis, keepdims=True))
        return e / e.sum(axis, keepdims=True)

    def rfft(x: Any) -> Any:
        f = np.fft.rfft(x)
        return f.real, f.imag

    xp = SimpleNamespace(
        **{
            **vars(numpy_words()),
            **{w: getattr(np, w) for w in "matmul einsum moveaxis transpose reshape tanh cos sin isnan".split()},
        }
    )
    xp.sum = lambda x, axis=0, keep=False: x.sum(axis, keepdims=keep)
    xp.mean = lambda x, axis=0, keep=False: x.mean(axis, keepdims=keep)
    xp.max = lambda x, axis=0, keep=False: x.max(axis, keepdims=keep)
    xp.min = lambda x, axis=0, keep=False: x.min(axis, keepdims=keep)
    xp.argmax = lambda x, axis=0: x.argmax(axis)
    xp.softmax = softmax
    xp.concat = lambda parts, axis: np.concatenate(parts, axis)
    xp.take = lambda x, indices, axis: np.take(x, indices, axis)
    xp.gather = lambda x, index, axis: np.take_along_axis(x, index.astype(np.int64), axis)
    xp.argsort = lambda x, axis: np.argsort(x, axis, kind="stable")
    xp.sort = lambda x, axis: np.sort(x, axis)
    xp.floor, xp.ceil = np.floor, np.ceil
    xp.whole = lambda x: x.astype(np.int64)
    xp.relu = lambda x: np.where(x < 0, 0.0, x).astype(x.dtype)
    xp.convolve = convolve
    xp.segments = segments
    xp.rfft = rfft
    xp.irfft = lambda pair, n: np.fft.irfft(pair[0] + 1j * pair[1], n)
    xp.plus_tiny = lambda x, eps: x + eps
    xp.eigh = lambda x: tuple(np.linalg.eigh(x))  # eigenvalues from small to large, eigenvectors as columns
    return xp


def torch_map_words() -> Any:
    """The words in torch."""
    import torch
    from torch.nn import functional as F

    def largest(x: Any, axis: Any = 0, keep: bool = False) -> Any:
        # One axis after the other: the gradient goes to one of equal cells, as everywhere in poolkit.
        for a in sorted((axis,) if isinstance(axis, int) else axis, reverse=True):
            x = x.max(a, keepdim=keep).values
        return x

    def convolve(x: Any, w: Any) -> Any:
        padding = [(k - 1) // 2 for k in w.shape[2:]]
        groups = x.shape[1] // w.shape[1]
        return (F.conv1d, F.conv2d, F.conv3d)[x.dim() - 3](x, w, padding=padding, groups=groups)

    def segments(x: Any, labels: Any, count: int, how: str) -> Any:
        start = {"sum": 0.0, "max": -math.inf}[how]
        where = labels.long()[:, None].expand(x.shape)
        y = x.new_full((*x.shape[:2], count), start)
        if how == "sum":
            return y.scatter_add(2, where, x)
        return y.scatter_reduce(2, where, x, "amax", include_self=True)

    def rfft(x: Any) -> Any:
        f = torch.fft.rfft(x)
        return f.real, f.imag

    def gather(x: Any, index: Any, axis: int) -> Any:
        # Not `take_along_dim`: it compares the sizes, and an export would keep the number of examples.
        return x.gather(axis, index.long().expand(*x.shape[:axis], -1, *x.shape[axis + 1 :]))

    xp = SimpleNamespace(
        **{
            **vars(torch_words()),
            **{w: getattr(torch, w) for w in "matmul einsum moveaxis reshape tanh cos sin isnan".split()},
        }
    )
    xp.transpose = lambda x, order: x.permute(order)
    xp.sum = lambda x, axis=0, keep=False: x.sum(axis, keepdim=keep)
    xp.mean = lambda x, axis=0, keep=False: x.mean(axis, keepdim=keep)
    xp.max = largest
    xp.min = lambda x, axis=0, keep=False: -largest(-x, axis, keep)
    xp.argmax = lambda x, axis=0: x.max(axis).indices  # the first of equals, unlike `torch.argmax`
    xp.softmax = lambda x, axis=0: torch.softmax(x, axis)
    xp.concat = lambda parts, axis: torch.cat(list(parts), axis)
    xp.flip = lambda x, axis: x.flip(axis)
    xp.select = lambda x, indices, axis: x.index_select(axis, torch.tensor(indices, device=x.device))
    xp.take = lambda x, indices, axis: taken(xp, x, indices, axis)
    xp.gather = gather
    xp.argsort = lambda x, axis: torch.argsort(x, dim=axis, stable=True)
    xp.sort = lambda x, axis: torch.sort(x, dim=axis, stable=True).values
    xp.floor, xp.ceil = torch.floor, torch.ceil
    xp.whole = lambda x: x.long()
    xp.relu = torch.relu
    xp.convolve = convolve
    xp.segments = segments
    xp.rfft = rfft
    xp.irfft = lambda pair, n: torch.fft.irfft(torch.complex(*pair), n)
    # torch.onnx takes a summand of at most 1e-8 for 0 and leaves it out: 0/0 where there was 0/√ε.
    xp.plus_tiny = lambda x, eps: eps * (x / eps + 1.0) if torch.compiler.is_exporting() else x + eps
    xp.eigh = lambda x: tuple(torch.linalg.eigh(x))
    return xp


def keras_map_words(dtype: str) -> Any:
    """The words in `keras.ops`, for whichever back end Keras runs on and cells of a type; x is channels-first."""
    from poolkit.keras_map_words import whole, words

    xp = words(dtype)
    xp.whole = whole
    return xp


def taken(xp: Any, x: Any, indices: list[int], axis: int) -> Any:
    """The cells at these places along an axis: slices where the places run on.

    The gradient of an index adds cell by cell, that of a slice copies rows.
    """
    runs, before = _runs(indices), (slice(None),) * axis
    if len(runs) > 8:
        return xp.select(x, indices, axis)
    parts: list[Any] = []
    for first, step, count in runs:
        low = first if step >= 0 else first - count + 1
        part = x[before + (slice(low, low + (count if step else 1)),)]
        parts += [part] * count if step == 0 else [part if step > 0 else xp.flip(part, axis)]
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis)


def _runs(indices: list[int]) -> list[tuple[int, int, int]]:
    """A list of places as runs: (first, step 0 or ±1, how many)."""
    runs: list[tuple[int, int, int]] = []
    for index in indices:
        if runs:
            first, step, count = runs[-1]
            jump = index - (first + step * (count - 1))
            if count == 1 and jump in (-1, 0, 1):
                runs[-1] = (first, jump, 2)
                continue
            if count > 1 and jump == step:
                runs[-1] = (first, step, count + 1)
                continue
        runs.append((index, 1, 1))
    return runs


def convolved(xp: Any, x: Any, w: Any) -> Any:
    """A convolution that keeps the sizes: zeros around, weights (out, in / groups, *odd sizes), by shifted products."""
    dims, kernel = len(x.shape) - 2, tuple(w.shape[2:])
    groups = x.shape[1] // w.shape[1]
    padded = xp.pad(x, [((k - 1) // 2, k - 1 - (k - 1) // 2) for k in kernel])
    sizes, total, every = tuple(x.shape[2:]), None, slice(None)
    for number in range(math.prod(kernel)):
        place: list[int] = []
        rest = number
        for k in reversed(kernel):
            place.insert(0, rest % k)
            rest //= k
        shifted = padded[(every, every) + tuple(slice(a, a + n) for a, n in zip(place, sizes, strict=True))]
        tap = w[(every, every) + tuple(place)]
        if groups == 1:
            term = xp.moveaxis(xp.matmul(xp.moveaxis(shifted, 1, -1), xp.transpose(tap, (1, 0))), -1, 1)
        else:  # one input channel for each output channel
            term = shifted * xp.reshape(tap[:, 0], (1, -1, *[1] * dims))
        total = term if total is None else total + term
    return total
