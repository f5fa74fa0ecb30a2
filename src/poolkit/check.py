"""The contracts: what every pooling method must keep, ours and other people's.

    >>> from poolkit import Max
    >>> all(result.passed for result in check(Max, only=("card", "oracle")))
    True

A contract is a plain sentence and a function that raises `Broken` with the smallest example it found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import poolkit.contracts as numbers
import poolkit.layer_contracts as layers
import poolkit.step_contract as stepwise
from poolkit import kernels
from poolkit.draws import DRAWS
from poolkit.map_method import MapMethod
from poolkit.method import Card, Param, WindowMethod
from poolkit.subject import CASES, TOLERANCE, Broken, Case, Subject, tried

__all__ = ["CASES", "CONTRACTS", "TOLERANCE", "Broken", "Case", "Contract", "Result", "Subject", "check"]


@dataclass(frozen=True)
class Contract:
    """A promise: a short name, a sentence, the test, and with what it is tried.

    `tried` is `all` (every variant of the method on every path), `variants` (each on one path, where a path plays no
    part), `learned` (the default and what learns, on every path), or `default` (on every path).
    """

    name: str
    sentence: str
    test: Callable[[Any], None]
    tried: str = "all"

    def tries(self, s: Any, first: Any) -> bool:
        """Whether the contract is for this subject; `first` is the first one."""
        return {
            "all": True,
            "variants": s.path == first.path,
            "learned": s.method == first.method or bool(s.method.learned),
            "default": s.method == first.method,
        }[self.tried]


@dataclass(frozen=True)
class Result:
    """The outcome of one contract for one method."""

    contract: str
    sentence: str
    passed: bool
    detail: str = ""


def check(method: Any, only: Sequence[str] = (), paths: Sequence[str] = kernels.PATHS) -> list[Result]:
    """Run the contracts on a method.

    Args:
        method: a method, or a method's class, which is tried with its defaults and with every value worth trying: the
            `tries` of its parameters, every word and truth value that the class does not name in `untried`.
        only: names of contracts; none means all of `CONTRACTS`.
        paths: `cpu` (the engine, where the method has a kernel) and `reference` (the array formula).

    Returns:
        One result a contract, in the order of `CONTRACTS`.

    Raises:
        TypeError: not a pooling method, or a class that lacks what a method needs; the message says what to write.
        ValueError: an unknown contract or path, no path that serves the method, or `draws` that is none of the known
            ones.
    """
    if issubclass(method if isinstance(method, type) else type(method), MapMethod):
        from poolkit.map_check import check_map  # it builds on this module

        return check_map(method, only)
    wanted = chosen(CONTRACTS, only)
    if unknown := set(paths) - set(kernels.PATHS):
        raise ValueError(f"no path {', '.join(sorted(unknown))}; there are: {', '.join(kernels.PATHS)}")
    _complete(method)
    subjects = list(_subjects(method, paths))
    if not subjects:  # contracts that try nothing would all be kept
        raise ValueError(f"{method}: no path of {tuple(paths)} serves it; the array formula is the path 'reference'")
    return run_all(wanted, CONTRACTS, subjects)


def chosen(contracts: Sequence[Contract], only: Sequence[str]) -> list[Contract]:
    """The contracts of these names, or all; ValueError for an unknown one."""
    if unknown := set(only) - {c.name for c in contracts}:
        raise ValueError(f"no contract {', '.join(sorted(unknown))}; there are: {', '.join(c.name for c in contracts)}")
    return [c for c in contracts if not only or c.name in only]


def run_all(wanted: Sequence[Contract], contracts: Sequence[Contract], subjects: Sequence[Any]) -> list[Result]:
    """Try the wanted contracts; behind a formula whose answer has no such shape, only the card.

    Each of the others would fail for this one reason, in other words.
    """
    shape = run(next(c for c in contracts if c.name == "shape"), subjects)
    results: list[Result] = []
    for contract in wanted:
        if contract.name == "card" or shape.passed:
            results.append(shape if contract.name == "shape" else run(contract, subjects))
            continue
        told = any(r.detail == shape.detail for r in results)
        detail = "not tried, because it follows from the failure above" if told else shape.detail
        results.append(Result(contract.name, contract.sentence, False, detail))
    return results


def run(contract: Contract, subjects: Sequence[Any]) -> Result:
    """Try a contract with its subjects until one breaks it."""
    for subject in (s for s in subjects if contract.tries(s, subjects[0])):
        try:
            contract.test(subject)
        except Broken as broken:
            return Result(contract.name, contract.sentence, False, f"{subject}: {broken}")
        except Exception as error:  # noqa: BLE001 - a method under test may fail in any way; that is a result too
            reason = (str(error).strip().splitlines() or [""])[0]
            return Result(contract.name, contract.sentence, False, f"{subject}: {type(error).__name__}: {reason}")
    return Result(contract.name, contract.sentence, True)


def _subjects(method: Any, paths: Sequence[str] = kernels.PATHS) -> Iterator[Subject]:
    """The variants to try, each on every path that serves it; a layer that is asked for a path runs on it or raises."""
    for variant in tried(method):
        for path in paths:
            subject = Subject(variant, path)
            if path == "reference" or _serves(subject):
                yield subject


def _serves(subject: Subject) -> bool:
    """Whether the path of a subject serves its method."""
    try:
        subject.layer(2, kernel_size=2).explain(torch.zeros(1, 2, 4, 4))
    except ValueError:
        return False
    return True


def _complete(method: Any) -> None:
    """Refuse what is no method, and a class that lacks something, with a sentence that says what to write."""
    cls = type(method) if isinstance(method, WindowMethod) else method
    if not (isinstance(cls, type) and issubclass(cls, WindowMethod)):
        raise TypeError(f"expected a window method or its class, got {method!r}")
    name = cls.__name__
    if not isinstance(getattr(cls, "card", None), Card):
        raise TypeError(f"{name} has no card\n  write card: ClassVar[Card] = Card(name=…, title=…, equation=…, …)")
    _complete_fields(cls)
    draws = (cls() if method is cls else method).draws
    if draws not in (None, *DRAWS):
        raise ValueError(f"{name}.draws is {draws!r}\n  allowed: None, {', '.join(map(repr, DRAWS))}")
    formulas = {"reduce": "w, p", "oracle": "w, p"}
    formulas |= {"sample": "w, p, u", "oracle_sample": "w, p, u"} if draws else {}
    for formula, arguments in formulas.items():
        if getattr(cls, formula) is getattr(WindowMethod, formula):
            reason = " although it draws at random" if "u" in arguments else ""
            raise TypeError(f"{name} does not define {formula}{reason}\n  write def {formula}(self, {arguments}): …")


def _complete_fields(method: type[WindowMethod]) -> None:
    """A frozen dataclass, all of whose fields are made by `param`."""
    name, raw = method.__name__, [n for n, v in vars(method).items() if isinstance(v, dataclasses.Field)]
    # A derived class without new fields is as good a dataclass as its base.
    if raw or not (dataclasses.is_dataclass(method) and method.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise TypeError(f"{name} is not a frozen dataclass\n  write @dataclass(frozen=True) above class {name}")
    for field in dataclasses.fields(method):
        if not isinstance(field.metadata.get("param"), Param):
            raise TypeError(
                f"the field {field.name} of {name} is not made by param\n"
                f'  write {field.name}: … = param(default, says="what it does"), or ClassVar[…] if it is no parameter'
            )


CONTRACTS: tuple[Contract, ...] = (
    Contract(
        "card",
        "says a name of its own, its equation and its source, and its parameters read back from its spelling",
        numbers.card,
        "variants",
    ),
    Contract("shape", "answers with one number for each window", numbers.shape, "variants"),
    Contract("oracle", "equals its scalar form in float64 in every geometry", numbers.oracle),
    Contract("worked", "leads step by step to the answer of its scalar form", stepwise.worked, "variants"),
    Contract("numpy", "gives the same numbers in NumPy as in torch", numbers.numpy, "variants"),
    Contract(
        "sizes",
        "gives the output sizes of torch.nn.MaxPool and refuses windows larger than the picture",
        numbers.sizes,
        "default",
    ),
    Contract("types", "refuses integers, wrong ranks and empty pictures with a message", numbers.types, "default"),
    Contract(
        "gradient",
        "has the gradient that finite differences give, at the border and for small and large cells too, or the "
        "declared one",
        numbers.gradient_contract,
    ),
    Contract("second gradient", "can be differentiated twice", numbers.second_gradient),
    Contract("ties", "gives equal cells the gradient of the first one", numbers.ties),
    Contract("finite", "is finite, with its gradients, for zero, constant, negative and ±10⁴ windows", numbers.finite),
    Contract("nan", "passes NaN on, and only within its window", numbers.nan),
    Contract("infinity", "keeps an infinity in its windows, where formula and scalar form agree", numbers.infinity),
    Contract(
        "precision",
        "keeps the type and is right to its last places in float32, float16 and bfloat16",
        numbers.precision,
    ),
    Contract("layouts", "does not depend on the memory layout and keeps channels-last", layers.layouts),
    Contract("batch", "does not depend on the batch an example comes in", layers.batch),
    Contract("untouched", "leaves its input alone and shares no memory with it", layers.untouched),
    Contract("facts", "keeps what its card claims", numbers.facts),
    Contract("identities", "is the methods that its card says it contains", numbers.identities, "default"),
    Contract("state", "has its parameters from the start and survives state_dict, pickle and deepcopy", layers.state),
    Contract(
        "generators",
        "leaves the random numbers of torch, NumPy and Python where they were, but for a random layer's key",
        layers.generators,
    ),
    Contract("repeats", "gives the same bits again, with any number of threads", layers.repeats, "learned"),
    Contract("compiled", "gives the same in one graph of torch.compile", layers.compiled, "learned"),
    Contract("seeds", "draws as its seed says, as its scalar form does, and never in evaluation", layers.seeds),
    Contract("distribution", "draws with the probabilities of its scalar form", layers.distribution),
)
