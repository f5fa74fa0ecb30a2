"""The array words of formulas on whole maps in `keras.ops`."""

from __future__ import annotations

import math
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

from keras import ops
from keras.backend import standardize_dtype

from poolkit.keras_rows import Rows, total
from poolkit.keras_words import clip, fold, larger, smaller
from poolkit.map_words import convolved, taken
from poolkit.xp import keras_words


@lru_cache
def words(dtype: str) -> Any:
    """The words for the back end on which Keras runs, for cells of a type, `"float32"` or `"float64"`."""
    names = "einsum moveaxis transpose reshape cos sin isnan relu rfft flip"
    xp = SimpleNamespace(**{**vars(keras_words(dtype)), **{w: getattr(ops, w) for w in names.split()}})
    xp.sum = of_rows(total, lambda x, axis=0, keep=False: ops.sum(x, axis=axis, keepdims=keep))
    xp.mean, xp.tanh = mean, tanh
    xp.max = of_rows(partial(fold, choose=larger), partial(extreme, choose=larger))
    xp.min = of_rows(partial(fold, choose=smaller), partial(extreme, choose=smaller))
    xp.argmax = lambda x, axis=0: ops.argmax(x, axis=axis)
    # Of one number, which Keras warns of, it is 1.
    xp.softmax = lambda x, axis=0: ops.softmax(x, axis=axis) if x.shape[axis] != 1 else ops.exp(x - x)
    xp.concat = lambda parts, axis: ops.concatenate(list(parts), axis=axis)
    xp.select = lambda x, indices, axis: ops.take(x, indices, axis=axis)
    xp.take = lambda x, indices, axis: taken(xp, x, indices, axis)
    xp.gather = lambda x, index, axis: ops.take_along_axis(x, whole(index), axis=axis)
    xp.argsort = lambda x, axis: ops.argsort(x, axis=axis)
    xp.sort = lambda x, axis: ops.sort(x, axis=axis)
    xp.matmul = matmul
    xp.floor, xp.ceil = floor, lambda x: -floor(-x)
    xp.convolve = lambda x, w: convolved(xp, x, w)
    xp.segments = segments
    xp.irfft = lambda pair, n: ops.irfft(pair, fft_length=n)
    xp.eigh = lambda x: tuple(ops.eigh(x))
    for name in ("mean", "argmax", "softmax", "argsort", "sort", "gather"):
        setattr(xp, name, of_rows(None, getattr(xp, name)))
    return xp


def of_rows(few: Any, word: Any) -> Any:
    """A word that takes arrays, and the cells of small windows in a way of its own, `few`, or, None, joined."""

    def either(x: Any, *axes: Any, **keep: Any) -> Any:
        if not isinstance(x, Rows):
            return word(x, *axes, **keep)
        return few(x) if few is not None else word(x.joined(), *axes, **keep)

    return either


def whole(numbers: Any) -> Any:
    """As whole numbers, which places are."""
    return ops.cast(numbers, "int32")


# `ops.mean`, `ops.floor`, `ops.matmul` and `ops.segment_sum` go through float32 on torch.


def mean(x: Any, axis: Any = 0, keep: bool = False) -> Any:
    """The mean along an axis or several."""
    count = math.prod(x.shape[a] for a in ((axis,) if isinstance(axis, int) else axis))
    return ops.sum(x, axis=axis, keepdims=keep) / count


def tanh(x: Any) -> Any:
    """The hyperbolic tangent; that of Keras gives float32 of float64 on JAX."""
    t = ops.expm1(clip(2.0 * x, None, 40.0))  # from there on it is 1 in every type
    return t / (t + 2.0)


def floor(x: Any) -> Any:
    """The largest whole number that is not above x."""
    below = ops.cast(whole(x), standardize_dtype(x.dtype))
    return ops.where(below > x, below - 1, below)


def extreme(x: Any, axis: Any = 0, keep: bool = False, *, choose: Any) -> Any:
    """The largest or smallest along one axis after the other: the first of equals, where `ops.max` would share."""
    for a in sorted((axis,) if isinstance(axis, int) else axis, reverse=True):
        y = fold(ops.moveaxis(x, a, 0), choose)
        x = ops.expand_dims(y, a) if keep else y
    return x


def matmul(a: Any, b: Any) -> Any:
    """Products of matrices, of one matrix b with all of a too.

    That one is applied to all rows at once: products in batches of one row make XLA, as TensorFlow 2.20 has it, write
    beyond its memory.
    """
    if len(b.shape) > 2:
        return a @ b
    rows = ops.reshape(a, (-1, a.shape[-1])) @ b
    return ops.reshape(rows, (-1, *a.shape[1:-1], b.shape[-1]))


def segments(x: Any, labels: Any, count: int, how: str) -> Any:
    """The sum or the maximum of the cells with each label: x (N, C, places) and labels (N, places) to (N, C, count)."""
    n, c, places = ops.shape(x)  # a number each, or a tensor for the one that only the running graph knows
    shifted = whole(labels) + count * ops.reshape(ops.arange(0, n, dtype="int32"), (-1, 1))
    rows = ops.reshape(ops.transpose(x, (0, 2, 1)), (n * places, c))
    if how == "sum":
        y = ops.scatter(ops.reshape(shifted, (-1, 1)), rows, (n * count, c))
    else:
        y = ops.segment_max(rows, ops.reshape(shifted, (-1,)), num_segments=n * count)
    return ops.transpose(ops.reshape(y, (n, count, c)), (0, 2, 1))
