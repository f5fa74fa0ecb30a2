"""What a pooling method must say about itself: its parameters, its card, its facts.

A method is a frozen dataclass. Nothing here needs an array library, so that listing the methods, spelling them and
reading their cards costs no import of a framework.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from poolkit.xp import Cells, OneWindow


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
        default: its value where none is given; its type is the parameter's type.
        low, high: the smallest and the largest value; None: no such edge.
        choices: the words allowed, for a parameter that is a word.
        learnable: whether the network can learn it.
        learns_freely: `low` and `high` hold for fixed values and for the start, not for what learning makes of it.
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
    learnable: bool = False
    learns_freely: bool = False
    table: str = ""
    says: str = ""
    tries: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """A table is always learned."""
        if self.table not in ("", *TABLES):
            raise ValueError(f'table={self.table!r}: allowed are {", ".join(map(repr, TABLES))}, or "" for one number')
        object.__setattr__(self, "learnable", self.learnable or bool(self.table))

    @property
    def initial(self) -> Any:
        """The value where none is given: the default, of a table `learn()`."""
        return Learn() if self.table else self.default

    @property
    def range(self) -> str:
        """The allowed values in words."""
        if self.table:
            return f"learn(), one number for each {self.table} of the window"
        if self.choices:
            return " | ".join(self.choices)
        if isinstance(self.default, bool):
            return "true | false"
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
        if self.choices:
            if value not in self.choices:
                raise ValueError(f"allowed: {self.range}{_nearest(str(value), self.choices)}")
            return value
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise ValueError(f"allowed: {self.range}")
            return value
        if isinstance(self.default, int):
            if not _is_count(value):
                raise ValueError(f"allowed: {self.range}")
            return self._in_range(int(value))
        if not _is_finite(value):
            raise ValueError(f"allowed: {self.range}" + (", or learn(…)" if self.learnable else ""))
        return self._in_range(float(value))

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
        """Read the value from a spelling such as `2`, `true`, `region`, `learn`, `learn@2` or `learn@2x64`."""
        if match := re.fullmatch(r"learn(?:@([^x]+))?(?:x(\d+))?", text):
            start, channels = match.groups()
            return Learn(None if start is None else _number(start), None if channels is None else int(channels))
        if self.choices:
            return text
        if isinstance(self.default, bool):
            return {"true": True, "false": False}.get(text.lower(), text)
        return _number(text)


def param(default: Any, **declaration: Any) -> Any:
    """Declare a method's parameter: a dataclass field that carries its `Param`."""
    declared = Param(default, **declaration)
    return dataclasses.field(default=declared.initial, metadata={"param": declared})


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


@dataclass(frozen=True)
class Card:
    """A method's identity: everything a page about it needs besides its docstring and its parameters.

    Attributes:
        name: the spelling, `avg-topk`.
        title: the name in words.
        equation: the formula of one window as the paper has it; `x` are its n cells inside the picture,
            x₍₁₎ ≥ x₍₂₎ ≥ … the sorted ones.
        source: author, title, venue, year, identifier.
        family: where it belongs in a list.
        facts: what holds for every window; tests.
        same: pairs of spellings that give the same function; tests. `{n}` stands for the number of cells.
        limits: pairs of spellings that come within 1 % of each other on well separated cells; tests.
        domain: `any`, or `nonnegative` if facts and identities are claimed for x ≥ 0 only.
        released: how released code differs from the equation, in words.
    """

    name: str
    title: str
    equation: str
    source: str
    family: str
    facts: tuple[Fact, ...] = ()
    same: tuple[tuple[str, str], ...] = ()
    limits: tuple[tuple[str, str], ...] = ()
    domain: str = "any"
    released: str = ""


class Values:
    """The parameter values a formula reads: `p.beta`.

    A plain class, because torch.compile traces no SimpleNamespace.
    """

    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f'this method declares no parameter "{name}"')


class Start:
    """The numbers that a table starts from, for windows of any size: `t[3]`, in a table of several rows `t[0][3]`."""

    __iter__ = None  # it has no end

    def __init__(self, number: Callable[[int], Any]) -> None:
        self._number = number

    def __getitem__(self, place: int) -> Any:
        return self._number(place)


class Method:
    """A pooling method: a small frozen value, comparable, printable, parseable.

    Subclasses are final: frozen dataclasses whose fields are made by `param`, with a `card`.
    """

    card: ClassVar[Card]
    kind: ClassVar[str]
    _spelling: str
    _tables: dict[str, int | None]

    def __post_init__(self) -> None:
        """Check and normalise every parameter."""
        for name, declared in self.params().items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, declared.accept(value))
            except ValueError as reason:
                raise ValueError(f"{type(self).__name__}({name}={value!r}) is not allowed: {reason}") from None
        # Known here, once: torch.compile, which names a method by its spelling, does not trace dataclass fields.
        object.__setattr__(self, "_spelling", self._spelled())
        tables = {name: self.table_rows(name) for name, declared in self.params().items() if declared.table}
        object.__setattr__(self, "_tables", tables)

    @classmethod
    def params(cls) -> dict[str, Param]:
        """The declared parameters by name."""
        return {f.name: f.metadata["param"] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]

    @property
    def spelling(self) -> str:
        """The one spelling used in API, command line, files and URLs: `soft:beta=2`."""
        return self._spelling

    def _spelled(self) -> str:
        changed = [f"{n}={_spell(getattr(self, n))}" for n, p in self.params().items() if getattr(self, n) != p.initial]
        return ":".join([self.card.name, ",".join(changed)]) if changed else self.card.name

    @property
    def learned(self) -> dict[str, Learn]:
        """The parameters that the network learns."""
        return {n: v for n in self.params() if isinstance(v := getattr(self, n), Learn)}

    @property
    def tables(self) -> dict[str, int | None]:
        """The parameters that are tables, with their number of rows; None: one row, which is not counted."""
        return self._tables

    def table_rows(self, name: str) -> int | None:
        """How many rows of K numbers a table has; None: it is K numbers."""
        return None

    def table_start(self, name: str, row: int, cell: int) -> float:
        """The number that a table has at a cell (or rank) before training."""
        return float(self.params()[name].default)

    def values(self, **learned: Any) -> Values:
        """Every parameter as the formula wants it: fixed ones as given, learned ones as handed in or at their start."""
        return Values(**{n: learned[n] if n in learned else self._unlearned(n) for n in self.params()})

    def _unlearned(self, name: str) -> Any:
        """A parameter's value before training."""
        value = getattr(self, name)
        if not isinstance(value, Learn):
            return value
        if name not in self.tables:
            return value.start

        def number(row: int, cell: int) -> float:
            return self.table_start(name, row, cell) if value.start is None else value.start

        if self.tables[name] is None:
            return Start(lambda cell: number(0, cell))
        return Start(lambda row: Start(lambda cell: number(row, cell)))

    def __str__(self) -> str:
        return self.spelling


class WindowMethod(Method):
    """A method that turns the cells of one window into one number.

    `reduce` is the array formula for all windows at once, `oracle` the same again for one window in plain Python.
    A random method also states `sample` and `oracle_sample`, its form in training, which receive uniform draws
    u ∈ [0, 1): the same draw gives the same result, forward and backward.
    """

    kind = "window"
    #: Whether the engine may take the class's kernels for evaluation and for training.
    has_kernel: ClassVar[tuple[bool, bool]] = (False, False)
    #: Cells of the largest window for which the kernel is the faster way: those of 16 windows stay in a core's cache.
    kernel_reach: ClassVar[int] = 2**14

    def __init_subclass__(cls, **options: Any) -> None:
        """A kernel belongs to the formula it was written with: a class that changes the formula alone has none."""
        super().__init_subclass__(**options)

        def latest(*names: str) -> int:
            return min(i for i, c in enumerate(cls.__mro__) if any(n in vars(c) for n in names))

        cls.has_kernel = (
            cls.kernel is not WindowMethod.kernel and latest("kernel") <= latest("reduce", "oracle"),
            cls.sample_kernel is not WindowMethod.sample_kernel
            and latest("sample_kernel") <= latest("sample", "oracle_sample"),
        )

    @property
    def draws(self) -> str | None:
        """For what one uniform number is drawn in training, in each example: `region`, `map`, `layer`, or None."""
        return None

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula: windows `w` and parameter values `p` to outputs."""
        raise NotImplementedError

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The same for one window, in scalar arithmetic."""
        raise NotImplementedError

    def sample(self, w: Cells, p: Values, u: Any) -> Any:
        """The array formula in training, for a random method."""
        raise NotImplementedError

    def oracle_sample(self, w: OneWindow, p: Values, u: float) -> float:
        """The scalar form in training, for a random method."""
        raise NotImplementedError

    def kernel(self, s: Any, p: Any) -> tuple[Any, Any]:
        """The method for the CPU engine: `forward(w)` and `gradient(w, g)`, in the words `s` with the parameters `p`.

        A method without it runs by its array formula. The words stand in `kernels/words.py`.
        """
        raise NotImplementedError

    def sample_kernel(self, s: Any, p: Any) -> tuple[Any, Any]:
        """The same in training, for a random method."""
        raise NotImplementedError


def parse(spelling: str, methods: dict[str, type[Method]]) -> Method:
    """Read a spelling such as `soft:beta=2` with the given methods.

    Raises:
        ValueError: the name, a parameter or a value is unknown; the message names the nearest ones.
    """
    name, _, rest = spelling.strip().partition(":")
    if name not in methods:
        raise ValueError(f'no pooling method "{name}"{_nearest(name, methods)}\n  all {len(methods)}: poolkit list')
    cls, params, given = methods[name], methods[name].params(), {}
    for part in filter(None, rest.split(",")):
        key, equals, text = part.partition("=")
        if key not in params:
            known = ", ".join(params) or "none"
            raise ValueError(f'"{name}" has no parameter "{key}"{_nearest(key, params)}\n  its parameters: {known}')
        if not equals or not text:
            raise ValueError(
                f'"{part}" in "{spelling}" has no value\n  write {name}:{key}=VALUE; allowed: {params[key].range}'
            )
        if key in given:
            raise ValueError(f'"{key}" is given twice in "{spelling}"')
        given[key] = params[key].parse(text)
    return cls(**given)


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"\n  nearest: {', '.join(near)}" if near else ""


def _number(text: str) -> Any:
    """A number if it is one; else the text, which `accept` then refuses with the allowed range."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _spell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
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
