"""What the page offers of each method: its card in words, and a control for each parameter."""

from __future__ import annotations

import math
from typing import Any

import poolkit
from poolkit import cards
from poolkit.method import Method, Param

# Beyond this a curve of a parameter is flat on small pictures; a number box takes every legal value.
_FAR = 20.0


def catalogue() -> list[dict[str, Any]]:
    """Every method, in the order of the list."""
    return [entry(cls) for cls in poolkit.METHODS.values()]


def entry(cls: type[Method]) -> dict[str, Any]:
    """One method for the page."""
    card = cls.card
    return {
        "name": card.name,
        "title": card.title,
        "kind": cls.kind,
        "family": card.family,
        "random": cards.is_random(cls()),
        "equation": card.equation,
        "about": cards.prose(cls),
        "facts": [fact.sentence for fact in card.facts],
        "released": card.released,
        "source": card.source,
        "parameters": [{"name": n, "says": p.says, "range": p.range, **control(p)} for n, p in cls.params().items()],
    }


def control(declared: Param) -> dict[str, Any]:
    """How the page asks for a parameter: `choice`, `number` with a slider or without, `text`, or `learned`."""
    initial = cards.default(declared)
    if declared.table:
        return {"kind": "learned", "default": initial}
    if declared.choices or isinstance(declared.default, bool):
        words = list(declared.choices) or ["false", "true"]
        return {"kind": "choice", "default": initial, "choices": words}
    if declared.joined or declared.listed:
        return {"kind": "text", "default": initial}
    whole = isinstance(declared.default, int)
    found: dict[str, Any] = {"kind": "number", "default": initial, "whole": whole}
    if whole or not 0 < abs(declared.default) < 0.01:  # an eps is no thing to drag
        low, high = _reach(declared)
        found["slider"] = [low, high, 1 if whole else _round_step((high - low) / 200)]
    return found


def _round_step(least: float) -> float:
    """The next of 1, 2, 5, 10 … tenths, hundredths …: a slider that stops at numbers one would write."""
    unit = 10.0 ** math.floor(math.log10(least))
    return next(unit * n for n in (1, 2, 5, 10) if unit * n >= 0.999 * least)


def _reach(declared: Param) -> tuple[float, float]:
    """The ends of a slider: around the values that the contracts try, within what is allowed."""
    tries = [declared.default, *(v for v in declared.tries if isinstance(v, (int, float)))]
    low = max(min(*tries, 0), -_FAR) if declared.low is None else max(declared.low, min(*tries, 0), -_FAR)
    roomy = 9.0 if isinstance(declared.default, int) else 5.0
    high = max(_FAR if max(tries) > roomy else roomy, declared.default)
    return low, high if declared.high is None else min(declared.high, high)
