"""One window by the equation as it is written: what a step is, and the words that several methods' steps share.

The methods state them in `worked`, as their papers write them: nothing is subtracted or divided first so that no power
overflows. `steps` gives them to a reader, and the scalar form's answer where they have no such number.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poolkit.method import Values, WindowMethod
    from poolkit.xp import OneWindow

#: What the one step says that stands for all of them.
BEYOND = "y = … (numbers too large or small for the equation as it is written)"
NOT_FINITE = "y = … (not every cell is a finite number)"
FAILED = "y = … (worked failed: {})"
#: What arithmetic raises beyond the range of numbers: exp(800), 1 / exp(−800), log(exp(−800)), ∞ − ∞.
OUT_OF_RANGE = (ArithmeticError, ValueError)
SLACK = 1e-9  # of the largest cell, or of the answer: what rounding may take from an equation as it is written


@dataclass(frozen=True)
class Step:
    """A line of the sum: what is computed, in the symbols of the method's card, and its numbers.

    Attributes:
        text: `exp(β xᵢ)`; that of the last step starts with `y =`.
        numbers: a list with one for each cell of the window, in the order of its cells, or one for the whole window.
    """

    text: str
    numbers: list[float] | float

    @property
    def number(self) -> float:
        """The number of a step for the whole window."""
        if isinstance(self.numbers, list):
            raise TypeError(f"{self.text} has a number for each cell")
        return self.numbers


def steps(method: WindowMethod, w: OneWindow, p: Values, u: float | None = None) -> list[Step]:
    """One window step by step, with the scalar form's answer at the end; with the draw u in training, not evaluation.

    One step stands for all where the equation as it is written goes beyond the range of numbers, or loses its digits,
    and where `worked` fails: it says which.
    """
    y = method.oracle(w, p) if u is None else method.oracle_sample(w, p, u)
    finite = all(map(math.isfinite, w.x))
    text = BEYOND if finite else NOT_FINITE
    given = copy.deepcopy(w)  # the caller's window stays as it is, whatever `worked` does to its own
    try:
        found = method.worked(given, p) if u is None else method.worked_sample(given, p, u)
        if leads_to(found, w, y) and (not finite or all(map(math.isfinite, _numbers(found)))):
            return found
    except OUT_OF_RANGE:
        pass
    except Exception as error:  # noqa: BLE001 - a method of one's own may fail in any way; the answer is known all the same
        reason = (str(error).strip().splitlines() or [""])[0]
        text = FAILED.format(f"{type(error).__name__}: {reason}".removesuffix(": "))
    return [Step(text, y)]


def leads_to(found: list[Step], w: OneWindow, y: float) -> bool:
    """Whether the last step is this answer, up to rounding, or NaN as it is."""
    got = found[-1].number
    size = max(map(abs, [y, *w.x]))
    return got == y or abs(got - y) <= SLACK * size < math.inf or (math.isnan(got) and math.isnan(y))


def flaw(found: list[Step], w: OneWindow, y: float) -> str:
    """What is wrong with the steps to an answer, or nothing."""
    texts = [step.text for step in found]
    if not texts or not texts[-1].startswith("y = "):
        return f'the last text must start with "y = ", the steps are {texts}'
    if not all(texts) or len(set(texts)) < len(texts):
        return f"each step must have a text of its own, the steps are {texts}"
    for step in found:
        if isinstance(step.numbers, list) and len(step.numbers) != w.n:
            return f'"{step.text}" has {len(step.numbers)} numbers, for {w.n} cells'
    if isinstance(found[-1].numbers, list) or not leads_to(found, w, y):
        return f"the steps lead to {found[-1].numbers}, the scalar form gives {y}"
    if all(map(math.isfinite, [*w.x, y])) and not all(map(math.isfinite, _numbers(found))):
        bad = next(step for step in found if not all(map(math.isfinite, _numbers([step]))))
        return f'"{bad.text}" is {bad.numbers}, for cells that are finite numbers'
    return ""


def _numbers(found: list[Step]) -> list[float]:
    return [v for step in found for v in (step.numbers if isinstance(step.numbers, list) else [step.numbers])]


def products(a: list[float], x: list[float]) -> list[float]:
    """aᵢ xᵢ."""
    return [u * v for u, v in zip(a, x, strict=True)]


def mean(x: list[float]) -> float:
    """(1/n) Σ xᵢ."""
    return math.fsum(x) / len(x)


def at_places(table: Any, w: OneWindow) -> list[float]:
    """Of a table with a number for each place in the window those of the cells inside the picture."""
    return [table[place] for place in w.at]


def ranks(x: list[float]) -> list[Any]:
    """rᵢ = 1 + #{j: xⱼ > xᵢ} + #{j before i: xⱼ = xᵢ}: 1 for the largest cell, for the first one of equals."""
    return [1 + sum(u > v for u in x) + sum(u == v for u in x[:i]) for i, v in enumerate(x)]


def of_rank(r: int, x: list[float]) -> float:
    """x₍ᵣ₎."""
    return x[ranks(x).index(r)]


def below(number: int) -> str:
    """A number as an index below the line: ₁₂."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def kept(x: list[float], chosen: list[bool]) -> list[float]:
    """The chosen cells, and 0 for the others."""
    return [v if take else 0.0 for take, v in zip(chosen, x, strict=True)]


def quotient(over: str, a: list[float], under: str, b: list[float], whole: str = "") -> list[Step]:
    """The steps of Σ aᵢ / Σ bᵢ, from numbers called `over` and `under`, `whole` their sum; 0 where all bᵢ are 0."""
    whole, total = whole or f"Σ {under}", f"Σ {over}"
    found = [Step(under, b), Step(over, a), Step(whole, math.fsum(b)), Step(total, math.fsum(a))]
    if not any(b):
        return [*found, Step(f"y = 0, as {whole} = 0", 0.0)]
    return [*found, Step(f"y = {total} / {whole}", math.fsum(a) / math.fsum(b))]


def weighted_mean(x: list[float], of: str, e: list[float], w: str = "wᵢ", y: str = "y = ") -> list[Step]:
    """The steps of Σ wᵢ xᵢ, wᵢ = eᵢ / Σ eⱼ, from numbers eᵢ called `of`; `w`: what the shares are called."""
    whole, total = math.fsum(e), "Σ " + of.replace("ᵢ", "ⱼ")
    shares = [v / whole for v in e]
    return [
        Step(of, e),
        Step(total, whole),
        Step(f"{w} = {of} / {total}", shares),
        Step(f"{w} xᵢ", products(shares, x)),
        Step(f"{y}Σ {w} xᵢ", math.fsum(products(shares, x))),
    ]
