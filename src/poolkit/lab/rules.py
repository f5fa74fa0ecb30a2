"""What the content of a file must be to be believed: types, ranges, keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Wrong(Exception):
    """What is wrong, and where."""


class Rule(Protocol):
    """Says whether a value can be believed."""

    def check(self, value: Any, where: str) -> None:
        """Raises `Wrong`."""


@dataclass(frozen=True)
class Is:
    """The value `holds`; `words` say what that is."""

    words: str
    holds: Callable[[Any], bool]

    def check(self, value: Any, where: str) -> None:
        """Raises `Wrong`."""
        if not self.holds(value):
            raise Wrong(f"{where} is {brief(value)}, wanted is {self.words}.")


@dataclass(frozen=True)
class OrNull:
    """Null, or what a rule wants."""

    rule: Rule

    def check(self, value: Any, where: str) -> None:
        """Raises `Wrong`."""
        if value is not None:
            self.rule.check(value, where)


@dataclass(frozen=True)
class List:
    """A list of `least` to `most` entries, each as a rule wants it."""

    rule: Rule
    least: int
    most: int

    def check(self, value: Any, where: str) -> None:
        """Raises `Wrong`."""
        if not isinstance(value, list) or not self.least <= len(value) <= self.most:
            raise Wrong(f"{where} is {brief(value)}, wanted is a list of {self.least:,} to {self.most:,} entries.")
        for place, inner in enumerate(value):
            self.rule.check(inner, f"{where}[{place}]")


@dataclass(frozen=True)
class Map:
    """An object of at most `most` entries under any names, each as a rule wants it."""

    rule: Rule
    most: int

    def check(self, value: Any, where: str) -> None:
        """Raises `Wrong`."""
        if not isinstance(value, dict) or len(value) > self.most or not all(map(is_text, value)):
            raise Wrong(f"{where} is {brief(value)}, wanted is an object of at most {self.most} entries.")
        for key, inner in value.items():
            self.rule.check(inner, f"{where}.{key}")


@dataclass(frozen=True)
class Object:
    """An object with these keys, each value as its rule wants it; those of `optional` may be absent."""

    rules: Mapping[str, Rule]
    optional: frozenset[str] = frozenset()

    def check(self, value: Any, where: str) -> None:
        """Raises `Wrong`."""
        if not isinstance(value, dict) or not set(self.rules) - self.optional <= set(value) <= set(self.rules):
            raise Wrong(f"{where} is {brief(value)}, wanted is an object with the keys {', '.join(self.rules)}.")
        for key in value:
            self.rules[key].check(value[key], f"{where}.{key}" if where else key)


def is_text(value: Any) -> bool:
    """Half of a surrogate pair is a str to JSON, and no text: nothing could write it down again."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def whole(low: int = 0, high: int = 2**63 - 1) -> Is:
    """A whole number in a range; true and false are none."""
    return Is(f"a whole number from {low:,} to {high:,}", lambda v: type(v) is int and low <= v <= high)


def number(low: float = -1e39, high: float = 1e39) -> Is:
    """A finite number in a range."""
    # Beyond float32, in which nets compute; `1e999` is JSON and would be infinite.
    words = f"a number from {low:g} to {high:g}"
    return Is(words, lambda v: type(v) in (int, float) and math.isfinite(v) and low <= v <= high)


TEXT = Is("a text", is_text)
PLAIN = Is("a text, a number or null", lambda v: v is None or is_text(v) or number().holds(v) or type(v) is bool)
SHARE = number(0, 1)
SECONDS = number(0)
LOSS = OrNull(number())


def brief(value: Any) -> str:
    """A value in at most 60 signs, for an error."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,} entries"
    if type(value) is int and value.bit_length() > 200:  # Python refuses to spell very long ones
        return "a very large number"
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "…"
