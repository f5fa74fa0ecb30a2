"""What the page offers of each method: its card in words, and a control for each parameter."""

from __future__ import annotations

import math
from typing import Any

import poolkit
from poolkit import cards, own
from poolkit.map_method import MapMethod, MapShape
from poolkit.method import Method, Param, named
from poolkit.window import window

# Beyond this a curve of a parameter is flat on small pictures; a number box takes every legal value.
_FAR = 20.0
_TRIED = 200  # whole numbers that are tried one by one


def catalogue() -> list[dict[str, Any]]:
    """Every method, in the order of the list, and the user's own ones that were named on the command line."""
    return [entry(cls) for cls in (*poolkit.METHODS.values(), *own.allowed())]


def entry(cls: type[Method]) -> dict[str, Any]:
    """One method for the page."""
    card = cls.card
    return {
        "name": named(cls),
        "title": card.title,
        "kind": cls.kind,
        "placed": getattr(cls, "takes_window", "needs") != "never",
        "random": cards.is_random(cls()),
        "equation": card.equation,
        "about": cards.prose(cls),
        "facts": [fact.sentence for fact in card.facts],
        "released": card.released,
        "source": card.source,
        "parameters": [
            {"name": n, "says": p.says, "range": p.range, **control(cls, n)} for n, p in cls.params().items()
        ],
    }


def control(cls: type[Method], name: str) -> dict[str, Any]:
    """How the page asks for a parameter: `choice`, `number` with a slider or without, `text`, or `learned`."""
    declared = cls.params()[name]
    initial = cards.default(declared)
    if declared.table:
        return {"kind": "learned", "default": initial}
    if declared.choices or isinstance(declared.default, bool):
        words = list(declared.choices) or ["false", "true"]
        return {"kind": "choice", "default": initial, "choices": words}
    if declared.joined or declared.listed:
        return {"kind": "text", "default": initial}
    found: dict[str, Any] = {"kind": "number", "default": initial, "whole": isinstance(declared.default, int)}
    if found["whole"]:
        return found | _whole_numbers(cls, name)
    # An eps is no thing to drag.
    return found if 0 < abs(declared.default) < 0.01 else found | {"slider": _even(declared)}


def _whole_numbers(cls: type[Method], name: str) -> dict[str, Any]:
    """A slider over whole numbers; where some of them are refused, over those that are not."""
    low, high = map(int, _reach(cls.params()[name]))
    numbers = range(low, high + 1)
    taken = [n for n in numbers if fits(cls, name, n)] if len(numbers) <= _TRIED else list(numbers)
    if len(taken) < 2:
        return {}
    return {"slider": [low, high, 1]} | ({} if len(taken) == len(numbers) else {"stops": [str(n) for n in taken]})


def fits(cls: type[Method], name: str, value: Any) -> bool:
    """Whether a method takes a value where its other parameters are at their defaults, on a map as the page has it."""
    try:
        found = cls(**{name: value})
        if isinstance(found, MapMethod):
            where = window(2, dims=2) if found.takes_window == "needs" else None
            shape = MapShape(found.try_channels, 2, (32, 32), where)
            found.output_shape(shape)
            found.weights(shape)
    except (TypeError, ValueError):
        return False
    return True


def _even(declared: Param) -> list[float]:
    """The ends and the step of a slider that stops at numbers as one would write them."""
    low, high = _reach(declared)
    step = round_step((high - low) / 200)
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    first += declared.low is not None and first * step < declared.low
    return [round(first * step, 9), round(last * step, 9), step]


def round_step(least: float) -> float:
    """The next of 1, 2, 5, 10 … tenths, hundredths …"""
    exponent = math.floor(math.log10(least))
    return next(round(n * 10.0**exponent, 9) for n in (1, 2, 5, 10) if n * 10.0**exponent >= 0.999 * least)


def _reach(declared: Param) -> tuple[float, float]:
    """The ends of a slider: around the values that the contracts try, within what is allowed."""
    tries = [declared.default, *(v for v in declared.tries if isinstance(v, (int, float)))]
    low = max(min(*tries, 0), -_FAR) if declared.low is None else max(declared.low, min(*tries, 0), -_FAR)
    roomy = 9.0 if isinstance(declared.default, int) else 5.0
    high = max(_FAR if max(tries) > roomy else roomy, declared.default)
    return low, high if declared.high is None else min(declared.high, high)
