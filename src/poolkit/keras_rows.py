"""The cells of small windows as K arrays side by side, which a formula takes for one array of shape (K, …).

WHY not one array: XLA computes what was joined along a new axis cell by cell, asking for each cell from which of the K
parts it comes, again in every loop that reads it. Soft pooling of 2×2 windows took six times as long that way.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

from keras import ops


class Rows:
    """K arrays of one shape. Operators and the words below work on each of them; axis 0 is their number.

    Arguments: `parts`, the arrays; `dims`, how many axes an array of the picture has: a part may have fewer, and an
    operand with one more axis lies along the parts.
    """

    __array_priority__ = 1000  # NumPy leaves an operation with Rows to Rows

    def __init__(self, parts: Any, dims: int | None = None) -> None:
        self.parts = tuple(parts)
        self.dims = len(self.parts[0].shape) if dims is None else dims

    @property
    def shape(self) -> tuple[Any, ...]:
        """(K, …) of the first part."""
        return (len(self.parts), *self.parts[0].shape)

    @property
    def dtype(self) -> Any:
        """The parts' type."""
        return self.parts[0].dtype

    def __tf_tensor__(self, dtype: Any = None, name: Any = None) -> Any:
        """Refused, so that TensorFlow leaves `tensor + rows` to Rows, as JAX and torch do."""
        raise TypeError("Rows are several arrays")

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.parts)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int):
            return self.parts[key]
        if isinstance(key, slice):
            return Rows(self.parts[key], self.dims)
        return self.joined()[key]

    def joined(self) -> Any:
        """One array (K, …)."""
        return ops.stack(self.parts)

    def __neg__(self) -> Rows:
        return each(operator.neg, self)

    def __invert__(self) -> Rows:
        return each(ops.logical_not, self)

    def __and__(self, other: Any) -> Rows:
        return each(ops.logical_and, self, other)

    def __or__(self, other: Any) -> Rows:
        return each(ops.logical_or, self, other)

    __rand__, __ror__ = __and__, __or__
    __hash__ = None  # type: ignore[assignment]


def _operator(function: Callable[[Any, Any], Any], turned: bool = False) -> Callable[[Rows, Any], Rows]:
    if turned:
        return lambda self, other: each(lambda a, b: function(b, a), self, other)
    return lambda self, other: each(function, self, other)


for _name in ("add", "sub", "mul", "truediv", "pow"):
    setattr(Rows, f"__{_name}__", _operator(getattr(operator, _name)))
    setattr(Rows, f"__r{_name}__", _operator(getattr(operator, _name), turned=True))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Rows, f"__{_name}__", _operator(getattr(operator, _name)))


def each(function: Callable[..., Any], *operands: Any) -> Rows:
    """A function of each part of the operands, at least one of which is Rows.

    An array with one axis more than the picture's lies along the parts; any other one is the same for all of them.
    """
    rows = [operand for operand in operands if isinstance(operand, Rows)]
    k, dims = max(map(len, rows)), max(one.dims for one in rows)

    def part(operand: Any, j: int) -> Any:
        along = isinstance(operand, Rows) or len(getattr(operand, "shape", ())) == dims + 1
        return operand[j if operand.shape[0] > 1 else 0] if along else operand

    return Rows([function(*(part(operand, j) for operand in operands)) for j in range(k)], dims)


def of_each(word: Callable[..., Any]) -> Callable[..., Any]:
    """A word that also takes Rows, part by part."""
    return lambda *operands: (
        each(word, *operands) if any(isinstance(one, Rows) for one in operands) else word(*operands)
    )


def total(x: Rows) -> Any:
    """The sum of the parts."""
    return reduce(operator.add, x.parts)


def running(x: Rows) -> Rows:
    """The sums of the first 1, 2, … parts."""
    sums = [x.parts[0]]
    for part in x.parts[1:]:
        sums.append(sums[-1] + part)
    return Rows(sums, x.dims)


def picked(x: Rows, index: Any) -> Any:
    """At each place the part with this number."""
    return reduce(lambda found, j: ops.where(index == j, x.parts[j], found), range(1, len(x)), x.parts[0])
