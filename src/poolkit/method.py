"""What a pooling method must say about itself: its parameters, its card, its facts.

A method is a frozen dataclass. Nothing here needs an array library, so that listing the methods, spelling them and
reading their cards costs no import of a framework.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from poolkit.facts import BETWEEN, CONSTANT, EVEN, MONOTONE, ORDER_FREE, SCALES, SELECTS, SHIFTS, Fact
from poolkit.parameters import TABLES, Learn, Param, learn, nearest, param, spell
from poolkit.steps import Step

if TYPE_CHECKING:
    from poolkit.xp import Cells, OneWindow


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
        facts: what holds for every window, whatever the parameters (`Method.facts`: with those of a value); tests.
        same: pairs of spellings that give the same function, learned parameters at their start; tests. `{n}` stands for
            the number of cells.
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


def _listed(numbers: tuple[float, ...], cell: int) -> float:
    """A list's number for a cell: those after its end have the last one."""
    return numbers[min(cell, len(numbers) - 1)]


class Method:
    """A pooling method: a small frozen value, comparable, printable, parseable.

    Subclasses are final: frozen dataclasses whose fields are made by `param`, with a `card`. `untried` names words and
    truth values that the contracts leave out, such as "grad=detached", each with the reason.
    """

    card: ClassVar[Card]
    untried: ClassVar[Mapping[str, str]] = {}
    kind: ClassVar[str]
    _spelling: str
    _tables: dict[str, int | None]
    _per_cell: dict[str, int | None]

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
        lists = {name: None for name, declared in self.params().items() if declared.listed}
        object.__setattr__(self, "_tables", tables)
        object.__setattr__(self, "_per_cell", {**tables, **lists})

    @classmethod
    def params(cls) -> dict[str, Param]:
        """The declared parameters by name."""
        return {f.name: f.metadata["param"] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]

    @property
    def spelling(self) -> str:
        """The one spelling used in API, command line, files and URLs: `soft:beta=2`."""
        return self._spelling

    def _spelled(self) -> str:
        changed = [f"{n}={spell(getattr(self, n))}" for n, p in self.params().items() if getattr(self, n) != p.initial]
        return ":".join([named(type(self)), ",".join(changed)]) if changed else named(type(self))

    @property
    def facts(self) -> tuple[Fact, ...]:
        """What this value of the method claims: the card's facts, and those that hold for its parameters alone."""
        return self.card.facts

    @property
    def learned(self) -> dict[str, Learn]:
        """The parameters that the network learns."""
        return {n: v for n in self.params() if isinstance(v := getattr(self, n), Learn)}

    @property
    def tables(self) -> dict[str, int | None]:
        """The parameters that are tables, with their number of rows; None: one row, which is not counted."""
        return self._tables

    @property
    def per_cell(self) -> dict[str, int | None]:
        """The parameters with a number for each cell: tables and lists of fixed numbers, as `tables` has them."""
        return self._per_cell

    def declared(self, name: str) -> Param:
        """What is declared of a parameter, where that depends on the other ones of this value."""
        return self.params()[name]

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
        if self.params()[name].listed:
            return Start(partial(_listed, value))
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
    #: Cells of the largest window for which the kernel is the faster way: of few channels, and of 32 or more.
    kernel_reach: ClassVar[tuple[int, int]] = (2**14, 2**18)

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
        # So do the steps of an equation.
        if latest("worked") > latest("oracle"):
            cls.worked = WindowMethod.worked  # type: ignore[method-assign]
        if latest("worked_sample") > latest("oracle_sample"):
            cls.worked_sample = WindowMethod.worked_sample  # type: ignore[method-assign]

    @property
    def draws(self) -> str | None:
        """For what one uniform number is drawn in training, in each example: `region`, `map`, `layer`, or None."""
        return None

    @property
    def counts(self) -> str | None:
        """The name of a whole number that the layer counts in training, for each channel, and formulas read; or None.

        The method stays a value: the layer owns the number, as a buffer of this name. It starts at 0.
        """
        return None

    def count(self, u: Any) -> Any:
        """What the draws u add to that number, a whole number for each of them."""
        raise NotImplementedError

    def values(self, **learned: Any) -> Values:
        """The parameters' values, and what the layer counts where the method has it count."""
        found = super().values(**learned)
        if self.counts:
            setattr(found, self.counts, learned.get(self.counts, 0.0))
        return found

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula: windows `w` and parameter values `p` to outputs."""
        raise NotImplementedError

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The same for one window, in scalar arithmetic."""
        raise NotImplementedError

    def oracle_surrogate(self, w: OneWindow, p: Values, name: str) -> float:
        """What is taken for the derivative by a parameter that declares a `surrogate`, for one window."""
        raise NotImplementedError

    def sample(self, w: Cells, p: Values, u: Any) -> Any:
        """The array formula in training, for a random method."""
        raise NotImplementedError

    def oracle_sample(self, w: OneWindow, p: Values, u: float) -> float:
        """The scalar form in training, for a random method."""
        raise NotImplementedError

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window by the equation as it is written, step by step; the last step is y. `poolkit.steps` reads them.

        A teaching statement, in the card's symbols: it takes no care of numbers too large for it. Without one, the
        equation and its answer stand alone.
        """
        return [Step(self._as_one_step(), self.oracle(w, p))]

    def worked_sample(self, w: OneWindow, p: Values, u: float) -> list[Step]:
        """The same in training, for a random method."""
        return [Step(self._as_one_step(), self.oracle_sample(w, p, u))]

    def _as_one_step(self) -> str:
        return self.card.equation if self.card.equation.startswith("y = ") else "y = …"

    def kernel(self, s: Any, p: Any) -> tuple[Any, Any]:
        """The method for the CPU engine: `forward(w)` and `gradient(w, g)`, in the words `s` with the parameters `p`.

        A method without it runs by its array formula. The words stand in `kernels/words.py`.
        """
        raise NotImplementedError

    def sample_kernel(self, s: Any, p: Any) -> tuple[Any, Any]:
        """The same in training, for a random method."""
        raise NotImplementedError


def named(cls: type[Method]) -> str:
    """What spellings call a class: the name on its card, or `module:Class` where it is not one of poolkit's."""
    if cls.__module__.startswith("poolkit.methods."):
        return cls.card.name
    return f"{cls.__module__}:{cls.__qualname__}"


def parse(spelling: str, methods: dict[str, type[Method]]) -> Method:
    """Read a spelling such as `soft:beta=2` with the given methods.

    Raises:
        ValueError: the name, a parameter or a value is unknown; the message names the nearest ones.
    """
    spelling = spelling.strip()
    name, _, rest = spelling.partition(":")
    # First by where a class stands: the module of one's own may have the name that is on its card.
    for cls in methods.values() if name not in methods or named(methods[name]) != name else ():
        if f"{spelling}:".startswith(f"{named(cls)}:"):
            return with_parameters(cls, named(cls), spelling[len(named(cls)) + 1 :])
    if name in methods:
        return with_parameters(methods[name], name, rest)
    own = "; one of your own: my_module:MyPool" if spelling != name else ""
    raise ValueError(f'no pooling method "{name}"{nearest(name, methods)}\n  all {len(methods)}: poolkit list{own}')


def with_parameters(cls: type[Method], name: str, rest: str) -> Method:
    """A class's method with the parameters of a spelling, `beta=2`; errors call it by its `name`.

    Raises:
        ValueError: a parameter or a value is unknown.
    """
    params, given = cls.params(), {}
    for part in filter(None, rest.split(",")):
        key, equals, text = part.partition("=")
        if key not in params:
            known = ", ".join(params) or "none"
            raise ValueError(f'"{name}" has no parameter "{key}"{nearest(key, params)}\n  its parameters: {known}')
        if not equals or not text:
            raise ValueError(
                f'"{part}" in "{name}:{rest}" has no value\n  write {name}:{key}=VALUE; allowed: {params[key].range}'
            )
        if key in given:
            raise ValueError(f'"{key}" is given twice in "{name}:{rest}"')
        given[key] = params[key].parse(text)
    return cls(**given)


__all__ = [
    "BETWEEN",
    "CONSTANT",
    "EVEN",
    "MONOTONE",
    "ORDER_FREE",
    "SCALES",
    "SELECTS",
    "SHIFTS",
    "TABLES",
    "Card",
    "Fact",
    "Learn",
    "Method",
    "Param",
    "Start",
    "Step",
    "Values",
    "WindowMethod",
    "learn",
    "named",
    "param",
    "parse",
    "with_parameters",
]
