"""Facts: what a method may claim about every window, as a sentence and as a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fact:
    """Something a method claims about itself, as a sentence and as a test.

    `holds(f, x, slack)` receives the method as a function `f` from windows (K, M) to outputs (M,), windows `x` and an
    allowed rounding error, and answers for each of the M windows.
    """

    name: str
    sentence: str
    holds: Callable[[Callable[[Any], Any], Any, float], Any]


def _close(a: Any, b: Any, slack: float) -> Any:
    return abs(a - b) <= slack


BETWEEN = Fact(
    "between",
    "lies between the smallest and the largest cell",
    lambda f, x, slack: (f(x) >= x.min(0) - slack) & (f(x) <= x.max(0) + slack),
)
ORDER_FREE = Fact(
    "order-free",
    "does not depend on the order of the cells",
    lambda f, x, slack: _close(f(x[::-1].copy()), f(x), slack) & _close(f(x[[*range(1, len(x)), 0]]), f(x), slack),
)
SHIFTS = Fact(
    "shifts", "shifts with its input: f(x + c) = f(x) + c", lambda f, x, slack: _close(f(x + 1.5), f(x) + 1.5, slack)
)
SCALES = Fact(
    "scales",
    "scales with its input: f(c·x) = c·f(x) for c > 0",
    lambda f, x, slack: _close(f(x * 2.5), 2.5 * f(x), 2.5 * slack),
)
CONSTANT = Fact(
    "constant",
    "leaves a constant window as it is",
    lambda f, x, slack: _close(f(0.0 * x + x[:1]), x[0], slack),
)
MONOTONE = Fact(
    "monotone",
    "never falls when a cell rises",
    lambda f, x, slack: f(_raised(x)) >= f(x) - slack,
)
SELECTS = Fact("selects", "is one of the cells", lambda f, x, slack: (abs(x - f(x)) <= slack).any(0))
EVEN = Fact("even", "does not see signs: f(−x) = f(x)", lambda f, x, slack: _close(f(-x), f(x), slack))


def _raised(x: Any) -> Any:
    up = x.copy()
    up[len(x) // 2] += 0.75
    return up
