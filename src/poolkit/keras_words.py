"""The array words in `keras.ops`, written so that XLA fuses a formula into few passes over the picture.

They take arrays (K, …), and for small windows `Rows`, which look like one.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from types import SimpleNamespace
from typing import Any

from keras import ops
from keras.backend import backend, standardize_dtype

from poolkit.keras_rows import Rows, each, of_each, picked, running, total
from poolkit.window import Window
from poolkit.xp import Cells

# Windows of up to so many cells are kept as separate arrays, ordered by comparing neighbours; more are sorted.
NETWORK = 16


@lru_cache
def words(dtype: str) -> Any:
    """The words for the back end on which Keras runs, for cells of a type, `"float32"` or `"float64"`."""
    names = "exp log log1p expm1 sqrt abs sign isfinite maximum minimum sigmoid"

    def where(condition: Any, a: Any, b: Any) -> Any:
        # Of two plain numbers Keras would make float32.
        a = ops.convert_to_tensor(a, dtype=dtype) if isinstance(a, (int, float)) else a
        return ops.where(condition, a, b)

    return SimpleNamespace(
        **{word: of_each(getattr(ops, word)) for word in names.split()},
        where=of_each(where),
        clip=of_each(clip),
        power=of_each(lambda x, p: x ** like(p, x)),  # jax2onnx knows no batch of any size in jnp.power
        stop=of_each(ops.stop_gradient),
        stack=stack,
        sum=lambda x: total(x) if isinstance(x, Rows) else ops.sum(x, axis=0),
        max=lambda x: fold(x, larger),
        min=lambda x: fold(x, smaller),
        cumsum=lambda x: running(x) if isinstance(x, Rows) else ops.cumsum(x, axis=0),
        descending=descending,
        pick=pick,
        count=count,
        array=like,
        ones=ones,
        pad=pad,
        cells_first=cells_first,
    )


def stack(parts: Any) -> Any:
    """Arrays along a new axis 0; few of them stay apart, and only look as if they were one."""
    return Rows(parts) if len(parts) <= NETWORK else ops.stack(parts)


def pick(x: Any, index: Any) -> Any:
    """At each place the one along axis 0 that the index there, (…) without that axis, tells."""
    if isinstance(x, Rows):
        return picked(x, index)
    return ops.take_along_axis(x, ops.cast(index, "int32")[None], axis=0)[0]


def like(number: Any, x: Any) -> Any:
    """A number, or a list of them, in x's type: on its own Keras would make it float32 and pull x down with it."""
    return ops.convert_to_tensor(number, dtype=standardize_dtype(x.dtype))


def clip(x: Any, low: Any, high: Any) -> Any:
    """Between low and high, either of which may be None; not `maximum`, which takes x to float32 on torch."""
    x = x if low is None else ops.where(x < low, like(low, x), x)
    return x if high is None else ops.where(x > high, like(high, x), x)


def larger(a: Any, b: Any) -> Any:
    """The larger one; of equals the first; NaN if there is one."""
    return ops.where((b > a) | (b != b), b, a)


def smaller(a: Any, b: Any) -> Any:
    """The smaller one; of equals the first; NaN if there is one."""
    return ops.where((b < a) | (b != b), b, a)


def fold(x: Any, choose: Any) -> Any:
    """One of x along axis 0, by comparing neighbours: `ops.max` would share its gradient among equals.

    Neighbours, and not halves, so that the first of equals wins every time.
    """
    if isinstance(x, Rows):
        chosen = list(x)
        while len(chosen) > 1:
            pairs = [choose(a, b) for a, b in zip(chosen[::2], chosen[1::2], strict=False)]
            chosen = pairs + chosen[len(pairs) * 2 :]
        return chosen[0]
    if x.shape[0] is None:
        lost = ops.any(ops.isnan(x), axis=0)
        first = ops.argmax(x, axis=0) if choose is larger else ops.argmin(x, axis=0)
        return ops.where(lost, math.nan, ops.take_along_axis(x, first[None], axis=0)[0])
    while (n := x.shape[0]) > 1:
        pairs = choose(x[0 : n - 1 : 2], x[1::2])
        x = ops.concatenate([pairs, x[n - 1 :]]) if n % 2 else pairs
    return x[0]


def descending(x: Any) -> Any:
    """From large to small along axis 0, NaN first, equals in their order."""
    # Comparisons lose a NaN: it is lifted to +∞ and put back.
    lost = each(ops.isnan, x) if isinstance(x, Rows) else ops.isnan(x)
    if isinstance(x, Rows):
        ordered: Any = network(each(lambda lost, v: ops.where(lost, math.inf, v), lost, x))
        hidden = total(each(lambda lost: ops.cast(lost, standardize_dtype(x.dtype)), lost))
        return each(lambda j, v: ops.where(j < hidden, math.nan, v), count(x), ordered)
    lifted = ops.where(lost, math.inf, x)
    ordered = ops.take_along_axis(lifted, ops.argsort(-lifted, axis=0), axis=0)
    hidden = ops.sum(ops.cast(lost, standardize_dtype(x.dtype)), axis=0)
    return ops.where(count(x) < hidden, math.nan, ordered)


def network(x: Rows) -> Rows:
    """Odd-even transposition: only neighbours that stand wrongly change places, so equals keep their order."""
    cells = list(x)
    for turn in range(len(cells)):
        for j in range(turn % 2, len(cells) - 1, 2):
            a, b = cells[j], cells[j + 1]
            wrong = b > a
            cells[j], cells[j + 1] = ops.where(wrong, b, a), ops.where(wrong, a, b)
    return Rows(cells, x.dims)


def count(x: Any) -> Any:
    """0, 1, … along axis 0."""
    if isinstance(x, Rows):
        return Rows([like(float(j), x) for j in range(len(x))], x.dims)
    numbers = ops.arange(0, ops.shape(x)[0], dtype=standardize_dtype(x.dtype))
    return ops.reshape(numbers, (-1, *[1] * (len(x.shape) - 1)))


def ones(x: Any, shape: Any) -> Any:
    """Ones in x's type; a size that is not known before the call is x's own, counted from the last axis."""
    known = [ops.shape(x)[i - len(shape)] if n is None else n for i, n in enumerate(shape)]
    return ops.ones(known, dtype=standardize_dtype(x.dtype))


def pad(x: Any, pads: Any) -> Any:
    """Zeros around the last axes."""
    return ops.pad(x, [(0, 0)] * (len(x.shape) - len(pads)) + list(pads)) if any(map(any, pads)) else x


def cells_first(x: Any, dims: int, first: int) -> Any:
    """The cells of the axes from `first` on along a new axis 0; those axes stay, with one cell each."""
    # The batch is the size that an export leaves open: it follows from the others.
    before, behind = (-1, *ops.shape(x)[1:first]), ops.shape(x)[first + dims :]
    k = math.prod(ops.shape(x)[first : first + dims])
    flat = ops.moveaxis(ops.reshape(x, (*before, k, *behind)), first, 0)
    return ops.reshape(flat, (k, *before, *[1] * dims, *behind))


def cells_of_any_size(where: Window | None, x: Any, xp: Any, first: int) -> Cells:
    """The cells of all windows of x, as `Window.cells` has them, where sizes become known only when a graph runs.

    Arguments: the window, undilated, without padding or with `"same"`, or None for whole maps; the others as there.
    """
    dims = len(x.shape) - 2
    channel = 2 if first == 2 else len(x.shape)
    sizes, one = ops.shape(x)[first : first + dims], xp.ones(x, (1,) * len(x.shape))
    if where is not None and where.padding != "same":
        x = _large_enough(x, sizes, where.size)
    if where is None:
        cells = cells_first(x, dims, first)
        inside = ops.ones((ops.shape(cells)[0], *[1] * len(x.shape)), dtype=standardize_dtype(x.dtype))
        return Cells(cells, inside, inside, xp, channel)
    cuts, pads = [], [(0, 0)] * dims
    for i, (length, k, s) in enumerate(zip(sizes, where.size, where.stride, strict=True)):
        out, start = (length - k) // s + 1, 0
        if where.padding == "same":
            # As many cells on both sides as could be needed, so that only the start depends on the size.
            out, pads[i] = (length + s - 1) // s, (k - 1, k - 1)
            start = k - 1 - ops.maximum((out - 1) * s + k - length, 0) // 2
        cuts.append([slice(start + j, start + j + (out - 1) * s + 1, s) for j in range(k)])

    def stacked(x: Any) -> Any:
        framed = pad(x, pads + [(0, 0)] * (2 - first))
        return stack([framed[(slice(None),) * first + cut] for cut in product(*cuts)])

    if where.padding != "same":
        return Cells(stacked(x), None, None, xp, channel)
    spread = [sizes[i - first] if first <= i < first + dims else 1 for i in range(len(x.shape))]
    inside = stacked(ops.broadcast_to(one, spread))
    return Cells(stacked(x), inside, of_each(ops.ones_like)(inside), xp, channel)


def _large_enough(x: Any, sizes: Any, window: Any) -> Any:
    """x, which the running graph of TensorFlow hands on if the window fits into it: else the output would be empty.

    The other back ends see the sizes at each call. XLA drops such checks: Keras's own pools give an empty output there.
    """
    if backend() != "tensorflow":
        return x
    import tensorflow as tf

    words = f"a window of {'×'.join(map(str, window))} is larger than the picture along axis"
    advice = 'give larger pictures, a smaller pool_size, or padding="same"'
    checks = [
        tf.debugging.assert_greater_equal(length, k, f"{words} {axis}: {advice}")
        for axis, (length, k) in enumerate(zip(sizes, window, strict=True))
        if not isinstance(length, int)
    ]
    with tf.control_dependencies(checks):  # else what follows could fail first, with words of its own
        return tf.identity(x)
