"""The array words a formula may use, the same for NumPy, torch and `keras.ops`, and the cells they work on.

Windows are stacked along axis 0: `w.x` has shape (K, N, C, *out), one slice for each cell of the window in row-major
order. Every reduction runs over that axis, so a formula reads as in its paper: `w.sum(w.softmax(p.beta * w.x) * w.x)`.
No array library is imported before its words are asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any


class Cells:
    """The K cells of all windows and which of them lie inside the picture.

    Attributes:
        x: (K, N, C, *out); 0 where a cell is outside.
        inside: (K, 1, 1, *out) booleans, or None where all cells are inside.
        n: number of cells inside, a number or (1, 1, *out).
        padded: the same with the padding counted in, ceil mode's overhang not.
        xp: the array words.
        channel: the axis of x that counts channels: 2, or the last one where x is (K, N, *out, C).

    Outside cells never enter a statistic: they are masked, not set to −∞, because 0 · −∞ would give NaN gradients.
    """

    def __init__(self, x: Any, inside: Any, counted: Any, xp: Any, channel: int = 2) -> None:
        self.x, self.xp, self.k, self.channel = x, xp, x.shape[0], channel
        self.inside = None if inside is None else inside > 0
        self.n = self.k if inside is None else xp.sum(inside)
        self.padded = self.k if counted is None else xp.sum(counted)

    def at_most(self, count: int) -> Any:
        """min(count, n): how many of so many ranks a window has."""
        return min(count, self.k) if self.inside is None else self.xp.clip(self.n, None, count)

    def only(self, v: Any, outside: Any) -> Any:
        """v where a cell is inside, else `outside`."""
        return v if self.inside is None else self.xp.where(self.inside, v, outside)

    def sum(self, v: Any) -> Any:
        """Σ v over the cells inside."""
        return self.xp.sum(self.only(v, 0.0))

    def mean(self, v: Any) -> Any:
        """(1/n) Σ v over the cells inside."""
        return self.sum(v) / self.n

    def max(self, v: Any) -> Any:
        """max v over the cells inside; the gradient goes to the first of equals."""
        return self.xp.max(self.only(v, -math.inf))

    def min(self, v: Any) -> Any:
        """min v over the cells inside; the gradient goes to the first of equals."""
        return self.xp.min(self.only(v, math.inf))

    def softmax(self, z: Any) -> Any:
        """exp(zᵢ) / Σ exp(z), 0 outside; the largest z is subtracted first, so nothing overflows."""
        top = self.xp.stop(self.max(z))
        return self.shares(self.xp.exp(self.only(z, top) - top))

    def shares(self, v: Any) -> Any:
        """vᵢ / Σ v over the cells inside, 0 outside."""
        v = self.only(v, 0.0)
        return self.xp.divide(v, self.xp.sum(v))

    @property
    def rank(self) -> Any:
        """0, 1, …, K−1 along axis 0: the ranks belonging to `ranked`."""
        return self.xp.count(self.x)

    def ranked(self, v: Any) -> Any:
        """v from large to small, (K, …); the n cells inside come first, the rest is 0."""
        ordered = self.xp.descending(self.only(v, -math.inf))
        return ordered if self.inside is None else self.xp.where(self.rank < self.n, ordered, 0.0)

    @property
    def by_rank(self) -> Cells:
        """The same windows with their cells in the order of `ranked`: ranks take the place of positions."""
        inside = None if self.inside is None else self.xp.where(self.rank < self.n, 1.0, 0.0)
        ordered = Cells(self.ranked(self.x), inside, None, self.xp, self.channel)
        ordered.padded = self.padded
        return ordered

    def table(self, numbers: Any, row: int | None = None) -> Any:
        """A learned table, (K,) or (C, K), laid along the cells: (K, 1, 1 or C, 1, …); `row` picks one of several."""
        if hasattr(numbers, "shape"):
            t = numbers if row is None else numbers[..., row, :]
        else:  # a table's start, which knows no size
            one = numbers if row is None else numbers[row]
            t = self.xp.array([one[cell] for cell in range(self.k)], self.x)
        t = self.xp.cells_first(t[None] if len(t.shape) == 1 else t, 1, 1)[..., 0]  # (K, 1 or C)
        return t[tuple(slice(None) if i in (0, self.channel) else None for i in range(len(self.x.shape)))]

    def draw(self, weights: Any, u: Any) -> Any:
        """The cell at which the running sum of the weights passes u · Σ weights; a window without weight gives 0.

        Inverse distribution function: cell i is drawn with probability wᵢ/Σw. Weights are constants to the gradient.
        """
        running = self.xp.cumsum(self.xp.stop(self.only(weights, 0.0)))
        total = running[-1]
        passed = self.xp.sum(self.xp.where(running <= u * total, 1.0, 0.0))
        # Rounding may lift u·total to the total itself, which no running sum passes: the last cell with weight it is.
        last = self.xp.sum(self.xp.where(running < total, 1.0, 0.0))
        drawn = self.xp.pick(self.x, self.xp.minimum(passed, last))
        return self.xp.where(total > 0, drawn, 0.0 * total)


@dataclass(frozen=True)
class OneWindow:
    """One window for an oracle: plain Python numbers.

    Attributes:
        x: the values of the cells inside the picture, row-major.
        at: their numbers in the window, 0 … K−1.
        k: number of cells of the window, outside ones included.
        padded: number of cells in picture or padding.
    """

    x: list[float]
    at: list[int]
    k: int
    padded: int

    @classmethod
    def of(cls, values: Any) -> OneWindow:
        """A window that lies wholly inside the picture, from its values."""
        x = [float(v) for v in values]
        return cls(x, list(range(len(x))), len(x), len(x))

    @property
    def n(self) -> int:
        """Number of cells inside."""
        return len(self.x)


def numpy_words() -> Any:
    """The words in NumPy."""
    import numpy as np

    def descending(x: Any) -> Any:
        key = np.where(np.isnan(x), np.inf, x)  # NaN comes first, as torch sorts it
        return np.take_along_axis(x, np.argsort(-key, axis=0, kind="stable"), 0)

    def cells_first(x: Any, dims: int, first: int) -> Any:
        before, sizes, behind = x.shape[:first], x.shape[first : first + dims], x.shape[first + dims :]
        flat = np.moveaxis(x.reshape(*before, math.prod(sizes), *behind), first, 0)
        return flat.reshape(-1, *before, *[1] * dims, *behind)

    return SimpleNamespace(
        **{
            w: getattr(np, w)
            for w in "where exp log log1p expm1 sqrt abs sign isfinite maximum minimum power clip divide stack".split()
        },
        slices=lambda x, cuts: np.stack([x[cut] for cut in cuts]),
        sum=lambda x: x.sum(0),
        max=lambda x: x.max(0),
        min=lambda x: x.min(0),
        cumsum=lambda x: np.cumsum(x, 0),
        descending=descending,
        pick=lambda x, index: np.take_along_axis(x, index.astype(np.int64)[None], 0)[0],
        count=lambda x: np.arange(len(x), dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1)),
        stop=lambda x: x,
        sigmoid=lambda x: 0.5 + 0.5 * np.tanh(0.5 * x),
        array=lambda numbers, x: np.array(numbers, x.dtype),
        ones=lambda x, shape: np.ones(shape, x.dtype),
        pad=lambda x, pads: np.pad(x, [(0, 0)] * (x.ndim - len(pads)) + list(pads)),
        cells_first=cells_first,
    )


def torch_words() -> Any:
    """The words in torch."""
    import torch
    from torch.nn import functional as F

    def exporting() -> bool:
        # The second is the older way of torch.onnx, by a trace, which Keras takes for batches of any size.
        return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()

    def pad(x: Any, pads: Any) -> Any:
        flat = [n for pair in reversed(pads) for n in pair]  # torch lists the last axis first
        return F.pad(x, flat) if any(flat) else x

    def descending(x: Any) -> Any:
        if exporting():  # torch.onnx knows no stable sort; it is there for the gradient of ties
            return x.sort(dim=0, descending=True).values
        return x.sort(dim=0, descending=True, stable=True).values

    # ONNX has neither, and torch.onnx would write exp(x) - 1 and log(1 + x), which lose a small x: the same by tanh,
    # and its inverse; a trace knows no atanh, and corrects the rounding of u = 1 + x.
    def expm1(x: Any) -> Any:
        return torch.tanh(0.5 * x) * (torch.exp(x) + 1.0) if exporting() else torch.expm1(x)

    def log1p(x: Any) -> Any:
        if torch.compiler.is_exporting():
            return torch.where(x.abs() < 0.5, 2.0 * torch.atanh(x / (2.0 + x)), torch.log(1.0 + x))
        if not torch.onnx.is_in_onnx_export():
            return torch.log1p(x)
        u = 1.0 + x
        small = torch.where(u == 1.0, x, torch.log(u) * x / torch.where(u == 1.0, 1.0, u - 1.0))
        return torch.where(x.abs() < 0.5, small, torch.log(u))

    def cells_first(x: Any, dims: int, first: int) -> Any:
        flat = x.flatten(first, first + dims - 1).movedim(first, 0)
        return flat.reshape(*flat.shape[: first + 1], *[1] * dims, *flat.shape[first + 1 :])

    return SimpleNamespace(
        **{w: getattr(torch, w) for w in "where exp log sqrt abs sign isfinite maximum minimum divide stack".split()},
        expm1=expm1,
        log1p=log1p,
        slices=lambda x, cuts: torch.stack([x[cut] for cut in cuts]),
        power=torch.pow,
        clip=torch.clamp,
        # `max(dim)` and not `amax`: its gradient goes to the first of equal cells instead of being split among them.
        max=lambda x: x.max(0).values,
        min=lambda x: x.min(0).values,
        sum=lambda x: x.sum(0),
        cumsum=lambda x: x.cumsum(0),
        descending=descending,
        pick=lambda x, index: x.gather(0, index.long().expand(x.shape[1:])[None])[0],
        count=lambda x: torch.arange(x.shape[0], dtype=x.dtype, device=x.device).reshape(-1, *[1] * (x.ndim - 1)),
        stop=lambda x: x.detach(),
        sigmoid=torch.sigmoid,
        array=lambda numbers, x: torch.tensor(numbers, dtype=x.dtype, device=x.device),
        ones=lambda x, shape: x.new_ones(shape),
        pad=pad,
        cells_first=cells_first,
    )


def keras_words(dtype: str) -> Any:
    """The words in `keras.ops`, for whichever back end Keras runs on and cells of a type."""
    from poolkit.keras_words import words

    return words(dtype)
