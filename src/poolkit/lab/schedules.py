"""How the learning rate changes while a net is trained."""

from __future__ import annotations

from collections.abc import Callable

_RISE = 0.2  # the part of the steps in which "one-cycle" rises


def _constant(done: float) -> float:
    return 1.0


def _one_cycle(done: float) -> float:
    """Up in a straight line for the first fifth, then down in a straight line, to 0 at the end."""
    return done / _RISE if done < _RISE else max(0.0, (1 - done) / (1 - _RISE))


#: What the recipe's learning rate is multiplied by, from the part of the steps that is done, 0 to 1.
SCHEDULES: dict[str, Callable[[float], float]] = {"constant": _constant, "one-cycle": _one_cycle}
