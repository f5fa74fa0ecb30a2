"""The cells of all windows in `keras.ops`, taken so that XLA keeps the gradient of a picture in plain loops."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

from keras import ops
from keras.backend import backend, standardize_dtype

from poolkit.keras_rows import Rows, of_each
from poolkit.keras_words import APART, JOINED, cells_first, pad, stack
from poolkit.window import Window
from poolkit.xp import Cells


def cells_of(where: Window | None, x: Any, xp: Any, first: int) -> Cells:
    """The cells of all windows of x, as `Window.cells` has them.

    Arguments: the window, or None for whole maps; the others as there. Sizes may become known only when a graph runs.
    """
    sizes = tuple(x.shape[first : first + len(x.shape) - 2])
    if None in sizes:
        return cells_of_any_size(where, x, xp, first)
    if where is None or first != 1 or not _alone(where, sizes, x.shape[-1]):
        return (where or Window.whole(sizes)).cells(x, xp, first)
    out = where.output_size(sizes)
    return Cells(tiles(x, where.size, out), None, None, xp, len(x.shape))


def _alone(where: Window, sizes: Any, channels: int) -> bool:
    """Whether windows lie side by side in the picture, and `tiles` pays for them."""
    beside = where.size == where.stride and set(where.dilation) == {1}
    pays = where.k <= APART and where.k * channels >= JOINED
    return beside and pays and not any(axis.reaches_out for axis in where.axes(sizes))


def tiles(x: Any, size: Any, out: Any) -> Rows:
    """The cells of windows side by side, of (N, *sizes, C): what a window covers becomes its channels, and is split.

    WHY not slices with steps: their gradients are pictures full of holes, which are added up; the gradient of a split
    is one joining of K plain arrays. On TensorFlow a step with max pooling took five sixths of its time from then on.
    """
    dims, k = len(size), math.prod(size)
    channels = x.shape[-1]
    covered = tuple(slice(0, n * many) for n, many in zip(size, out, strict=True))
    x = x[(slice(None),) + covered]
    apart = ops.reshape(x, (-1, *(n for pair in zip(out, size, strict=True) for n in pair), channels))
    behind = ops.transpose(apart, (0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2), 2 * dims + 1))
    return Rows(ops.split(ops.reshape(behind, (-1, *out, k * channels)), k, axis=-1))


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
