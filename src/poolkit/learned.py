"""Learned parameters: the unconstrained numbers that a layer stores, and the values that they stand for."""

from __future__ import annotations

import math
from typing import Any

from poolkit.method import Method
from poolkit.parameters import Param


def stored_start(method: Method, name: str, cells: int | None = None) -> Any:
    """What a layer stores before training, the same for every channel: a number; for a table K numbers or rows of K.

    Arguments: the method; the parameter's name; `cells`, K, which tables alone need.
    """
    declared, first = method.declared(name), getattr(method.values(), name)
    if name not in method.tables:
        return unconstrained(float(first if first is not None else declared.default), declared)
    rows, places = method.tables[name], range(cells or 0)
    table = [
        [unconstrained(row[cell], declared) for cell in places]
        for row in ([first] if rows is None else (first[r] for r in range(rows)))
    ]
    return table[0] if rows is None else table


def unconstrained(value: float, declared: Param) -> float:
    """The number that `bounded` maps to a value."""
    low, high = declared.learned_range
    if low is not None and high is not None:
        return math.log((value - low) / (high - value))
    if low is not None:
        return _inverse_softplus(value - low)
    return value if high is None else _inverse_softplus(high - value)


def bounded(raw: Any, declared: Param, softplus: Any, sigmoid: Any) -> Any:
    """Any real number into the parameter's range, smoothly: identity, a softplus from one end, a sigmoid."""
    low, high = declared.learned_range
    if low is None:
        return raw if high is None else high - softplus(raw)
    if high is None:
        return low + softplus(raw)
    return low + (high - low) * sigmoid(raw)


def without_size(method: Method, name: str, dims: int, layer: str) -> ValueError:
    """The error of a global layer whose table would need to know the size of the map."""
    sizes = "(" + ", ".join("DHW"[-dims:]) + ")" if dims > 1 else "L"
    return ValueError(
        f"{method.spelling} learns one number for each {method.declared(name).table} of the window; a global "
        f"layer's window is the map, whose size it does not know\n"
        f'  write {layer}("{method.spelling}", {sizes}) with the sizes of the map'
    )


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))
