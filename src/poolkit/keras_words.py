"""The array words in `keras.ops`, written so that XLA fuses a formula into few passes over the picture.

They take arrays (K, …), and for small windows `Rows`, which look like one.
"""

from __future__ import annotations

import math
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from keras import ops
from keras.backend import backend, standardize_dtype

from poolkit.keras_rows import Rows, each, of_each, picked, running, total

# Windows of up to so many cells are kept as separate arrays, ordered by comparing neighbours; more are sorted.
APART = 16
# XLA's compiler for the CPU lets a joining of so many numbers along the last axis stand alone.
JOINED = 128


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
        divide=of_each(divide),
        power=of_each(lambda x, p: x ** like(p, x)),  # jax2onnx knows no batch of any size in jnp.power
        stop=of_each(ops.stop_gradient),
        stack=stack,
        slices=slices,
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
    return Rows(parts) if len(parts) <= APART else ops.stack(parts)


def slices(x: Any, cuts: Any) -> Any:
    """The parts of x that the cuts take, along a new axis 0."""
    parts = [x[cut] for cut in cuts]
    known = None not in parts[0].shape[1:]
    return Rows(_hold()(*parts)) if len(parts) <= APART and known else stack(parts)


@lru_cache
def _hold() -> Any:
    """The word that hands on K arrays, and whose gradient has all K of theirs computed before it goes on.

    WHY: XLA would take the formulas of all K gradients into the loop that puts the cells of windows back in their
    places, cell by cell, where what they have in common is computed again for each. On JAX overlapping windows of
    3×3 cells took hundreds of times as long for a long formula as for a short one, which a test holds now.
    """
    if backend() == "jax":
        import jax

        by_jax = jax.custom_jvp(lambda *parts: parts)
        by_jax.defjvp(lambda parts, slopes: (parts, tuple(_joined_once(parts[0], slopes))))
        return by_jax
    if backend() == "tensorflow":
        import tensorflow as tf

        return tf.custom_gradient(
            lambda *parts: (list(map(tf.identity, parts)), lambda *up: _joined_once(parts[0], up))
        )
    return lambda *parts: parts


def _joined_once(x: Any, parts: Any) -> Any:
    """Arrays like x, (N, …), as they are, but joined on the way.

    XLA's compiler for the CPU makes no loop of its formula and a joining of JOINED numbers or more along the last axis.
    That nothing takes the joining back it is multiplied by a one that the compiler does not know.
    """
    shape, axes = tuple(x.shape), 1
    while axes < len(shape) - 1 and len(parts) * math.prod(shape[-axes:]) < JOINED:
        axes += 1
    rows = [ops.reshape(part, (-1, *shape[1:-axes], math.prod(shape[-axes:]))) for part in parts]
    one = ops.where(ops.any(x[:1] > math.inf), like(2.0, x), like(1.0, x))
    again = ops.split(ops.concatenate(rows, -1) * one, len(parts), -1)
    return [ops.reshape(row, (-1, *shape[1:])) for row in again]


def pick(x: Any, index: Any) -> Any:
    """At each place the one along axis 0 that the index there, (…) without that axis, tells."""
    if isinstance(x, Rows):
        return picked(x, index)
    return ops.take_along_axis(x, ops.cast(index, "int32")[None], axis=0)[0]


@lru_cache
def inverse() -> Any:
    """The word 1/y, whose derivative −r² is told by its own value r."""
    if backend() == "jax":
        import jax

        by_jax = jax.custom_jvp(lambda y: 1.0 / y)
        by_jax.defjvp(lambda values, tangents: ((r := by_jax(*values)), -(r * r) * tangents[0]))
        return by_jax
    if backend() == "tensorflow":
        import tensorflow as tf

        # The slope asks for 1/y anew, not for the value: so it has a derivative itself.
        by_tensorflow: Any = tf.custom_gradient(lambda y: (1.0 / y, lambda up: -up * by_tensorflow(y) ** 2))
        return by_tensorflow
    return lambda y: 1.0 / y


def divide(a: Any, b: Any) -> Any:
    """a / b, for b far from the ends of its type's range; the gradient multiplies where a quotient's divides again.

    WHY: XLA stores each quotient that is used twice, and a pass over memory costs more than the quotient.
    """
    return a / b if backend() == "torch" else a * inverse()(b)


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
