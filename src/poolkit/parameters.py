"""A method's parameters: what it declares of each, and which of them a network learns."""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import re
from dataclasses import dataclass
from typing import Any

#: What a table may have a number for.
TABLES = ("cell", "rank")


@dataclass(frozen=True)
class Learn:
    """A parameter that the network learns. Make one with `learn`."""

    start: float | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        """Reject what no parameter could start from."""
        if self.start is not None and not _is_finite(self.start):
            raise ValueError(f"learn(start={self.start!r}): the start must be a finite number")
        if self.channels is not None and not (_is_count(self.channels) and self.channels > 0):
            raise ValueError(f"learn(channels={self.channels!r}): the number of channels must be a positive integer")
        object.__setattr__(self, "start", None if self.start is None else float(self.start))
        object.__setattr__(self, "channels", None if self.channels is None else int(self.channels))

    def __repr__(self) -> str:
        args = [] if self.start is None else [repr(self.start)]
        args += [] if self.channels is None else [f"channels={self.channels}"]
        return f"learn({', '.join(args)})"

    def __str__(self) -> str:
        start = "" if self.start is None else f"@{_short(self.start)}"
        return f"learn{start}" + ("" if self.channels is None else f"x{self.channels}")


def learn(start: float | None = None, *, channels: int | None = None) -> Any:
    """Mark a parameter as learned by the network: `Soft(beta=learn(1.0))`.

    Args:
        start: value at the beginning of training; `None` takes the parameter's default.
        channels: `None` for one value a layer, else one value for each of this many channels.

    Raises:
        ValueError: the start is not finite or the number of channels not positive.

    The layer stores an unconstrained number `raw_<name>` and maps it smoothly into the parameter's range, so that no
    step of an optimiser can leave the range. The slope falls towards an edge, and very far out (a `raw_<name>` about
    100 beyond it in float32) the value rounds to the edge, its gradient to 0. With `learns_freely` there is no edge.

    A table, a parameter with a number for each cell of the window, starts as its method says; a `start` fills it. With
    `channels` there is one table for each of them.
    """
    return Learn(start, channels)


@dataclass(frozen=True)
class Param:
    """The declaration of one parameter: default, range, meaning.

    Attributes:
        default: its value where none is given; its type is the parameter's type. A tuple of positive numbers makes it
            a list of fixed numbers for the cells of the window, the last of them for all cells after it; formulas and
            oracles read it as they read a table.
        low, high: the smallest and the largest value; None: no such edge.
        choices: the words allowed, for a parameter that is a word.
        joined: for a parameter that is several whole numbers, each from `low` to `high`, written as `4-2-1`.
        learnable: whether the network can learn it.
        learns_freely: `low` and `high` hold for fixed values and for the start, not for what learning makes of it.
        by_default: whether it is learned where nothing is said of it.
        surrogate: for a parameter whose own derivative says nothing (a threshold): what is taken for it, in words. The
            values are exact; `oracle_surrogate` states the number for one window, which the contracts hold it to.
        table: `cell` or `rank` for a table, a number for each cell or rank of the window, which is always learned and
            whose default is where it starts; "" for a single number. Formulas read it by `w.table(p.name)`, oracles
            as a list of K numbers, or of such rows.
        says: what the parameter does.
        tries: values besides the default with which the contracts try the method.
    """

    default: Any
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    joined: bool = False
    learnable: bool = False
    learns_freely: bool = False
    by_default: bool = False
    surrogate: str = ""
    table: str = ""
    says: str = ""
    tries: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """A table is always learned."""
        if self.table not in ("", *TABLES):
            raise ValueError(f'table={self.table!r}: allowed are {", ".join(map(repr, TABLES))}, or "" for one number')
        object.__setattr__(self, "by_default", self.by_default or bool(self.table))
        object.__setattr__(self, "learnable", self.learnable or self.by_default or bool(self.surrogate))

    @property
    def listed(self) -> bool:
        """Whether it is a list of fixed numbers."""
        return isinstance(self.default, tuple)

    @property
    def initial(self) -> Any:
        """The value where none is given: the default, or learned from it."""
        if self.table:
            return Learn()
        return Learn(self.default) if self.by_default else self.default

    @property
    def range(self) -> str:
        """The allowed values in words."""
        if self.table:
            return f"learn(), one number for each {self.table} of the window"
        if self.choices:
            return " | ".join(self.choices)
        if self.joined:
            return f"whole numbers from {_short(self.low)} to {_short(self.high)} joined by -, such as {self.default}"
        if isinstance(self.default, bool):
            return "true | false"
        if self.listed:
            return f"one or more numbers from {_short(self.low)} to {_short(self.high)} joined by -"
        kind = "integer" if isinstance(self.default, int) else "number"
        if self.low is None and self.high is None:
            return f"any finite {kind}"
        if self.high is None:
            return f"{kind} ≥ {_short(self.low)}"
        if self.low is None:
            return f"{kind} ≤ {_short(self.high)}"
        free = f" (while it is learned: any finite {kind})" if self.learns_freely else ""
        return f"{kind} from {_short(self.low)} to {_short(self.high)}{free}"

    def accept(self, value: Any) -> Any:
        """The value in its proper type; raises ValueError with the reason if it is not allowed."""
        if isinstance(value, Learn):
            return self._accept_learn(value)
        if self.table:
            raise ValueError(f"allowed: {self.range}")
        if self.choices or self.joined:
            return self._accept_text(value)
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise ValueError(f"allowed: {self.range}")
            return value
        return self._accept_list(value) if self.listed else self._accept_number(value)

    def _accept_number(self, value: Any) -> int | float:
        if isinstance(self.default, int):
            if not _is_count(value):
                raise ValueError(f"allowed: {self.range}")
            return self._in_range(int(value))
        if not _is_finite(value):
            raise ValueError(f"allowed: {self.range}" + (", or learn(…)" if self.learnable else ""))
        return self._in_range(float(value))

    def _accept_list(self, value: Any) -> tuple[float, ...]:
        if not isinstance(value, (tuple, list)) or not value or not all(map(_is_finite, value)):
            raise ValueError(f"allowed: {self.range}")
        return tuple(self._in_range(float(number)) for number in value)

    def _accept_text(self, value: Any) -> str:
        if self.choices:
            if value not in self.choices:
                raise ValueError(f"allowed: {self.range}{nearest(str(value), self.choices)}")
            return str(value)
        numbers = re.fullmatch(r"\d+(-\d+)*", value) if isinstance(value, str) else None
        if numbers is None:
            raise ValueError(f"allowed: {self.range}")
        return "-".join(str(self._in_range(int(n))) for n in value.split("-"))

    def _accept_learn(self, value: Learn) -> Learn:
        if not self.learnable:
            raise ValueError(f"this parameter cannot be learned; allowed: {self.range}")
        if self.table and value.start is None:
            return value
        start = self.default if value.start is None else value.start
        return Learn(self._in_range(float(start), inside=not self.learns_freely), value.channels)

    @property
    def learned_range(self) -> tuple[float | None, float | None]:
        """The edges that a learned value never crosses."""
        return (None, None) if self.learns_freely else (self.low, self.high)

    def _in_range(self, value: float, inside: bool = False) -> float:
        """A learned value starts strictly inside the range: its edge lies infinitely far away in `raw_<name>`."""
        low_ok = self.low is None or (value > self.low if inside else value >= self.low)
        high_ok = self.high is None or (value < self.high if inside else value <= self.high)
        if not (low_ok and high_ok):
            raise ValueError(
                f"allowed: {self.range}" + (", and a learned one starts inside the range" if inside else "")
            )
        return value

    def parse(self, text: str) -> Any:
        """Read the value from a spelling such as `2`, `4-2-1`, `true`, `region`, `learn`, `learn@2` or `learn@2x64`."""
        if match := re.fullmatch(r"learn(?:@([^x]+))?(?:x(\d+))?", text):
            start, channels = match.groups()
            return Learn(None if start is None else _number(start), None if channels is None else int(channels))
        if self.choices or self.joined:
            return text
        if isinstance(self.default, bool):
            return {"true": True, "false": False}.get(text.lower(), text)
        return tuple(map(_number, text.split("-"))) if self.listed else _number(text)


def param(default: Any, **declaration: Any) -> Any:
    """Declare a method's parameter: a dataclass field that carries its `Param`."""
    declared = Param(default, **declaration)
    return dataclasses.field(default=declared.initial, metadata={"param": declared})


def nearest(word: str, known: Any) -> str:
    """The known words nearest to one, as the last line of an error, or nothing.

    Letters' case, and what stands between the parts of a name, count for nothing: SOFT, avg_topk and AvgTopK come first
    to soft and avg-topk.
    """
    words: dict[str, list[str]] = {}
    for one in known:
        words.setdefault(_folded(one), []).append(one)
    near = difflib.get_close_matches(_folded(word), words, n=3, cutoff=0.5)
    shown = [one for folded in near for one in words[folded]][:3]
    return f"\n  nearest: {', '.join(shown)}" if shown else ""


def _folded(word: Any) -> str:
    """A word's letters, small and without what parts them, so that ways to write one name are equal."""
    return re.sub(r"[-_\s]", "", str(word)).casefold()


def _number(text: str) -> Any:
    """A number if it is one; else the text, which `accept` then refuses with the allowed range."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def spell(value: Any) -> str:
    """A parameter's value as spellings have it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "-".join(map(_short, value))
    return _short(value) if _is_number(value) else str(value)


def _short(value: Any) -> str:
    """The shortest text that reads back as the same number."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)  # NumPy's scalars are numbers too


def _is_finite(value: Any) -> bool:
    try:
        return _is_number(value) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
