"""The contracts of methods on whole maps, map methods and heads, and running them. `poolkit.check.check` calls it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import poolkit.map_contracts as maps
from poolkit.check import Contract, Result
from poolkit.map_method import MapMethod
from poolkit.map_subject import MapSubject, variants
from poolkit.method import Card
from poolkit.subject import Broken

MAP_CONTRACTS: tuple[Contract, ...] = (
    Contract("card", "says its name, equation and source, and its spelling reads back", maps.card),
    Contract("oracle", "equals its scalar form in float64, and has the shape it says", maps.oracle),
    Contract("numpy", "gives the same numbers in NumPy as in torch", maps.numpy),
    Contract("types", "refuses integers, wrong ranks, empty maps and inputs too many", maps.shapes, "default"),
    Contract("gradient", "has the gradient that finite differences give, for its weights too", maps.gradient_contract),
    Contract("second gradient", "can be differentiated twice", maps.second_gradient, "default"),
    Contract("finite", "is finite, with its gradients, for zero, constant, negative and ±10⁴ maps", maps.finite),
    Contract("nan", "passes NaN on, within its example and, where channels do not mix, its channel", maps.nan),
    Contract("precision", "keeps the type and is right to its last places in narrow types", maps.precision),
    Contract("layouts", "does not depend on the memory layout and keeps channels-last", maps.layouts),
    Contract("batch", "does not depend on the batch an example comes in", maps.batch),
    Contract("untouched", "leaves its input alone and shares no memory with it", maps.untouched),
    Contract("facts", "keeps what its card claims", maps.facts),
    Contract("identities", "is the methods that its card says it contains", maps.identities, "default"),
    Contract("state", "has its weights from the start and survives state_dict, pickle and deepcopy", maps.state),
    Contract("repeats", "gives the same bits again", maps.repeats, "default"),
    Contract("exported", "gives the same as a graph of torch.export", maps.exported, "default"),
    Contract("seeds", "draws as its seed says, as its scalar form does, and never in evaluation", maps.seeds),
)


def check_map(method: Any, only: Sequence[str] = ()) -> list[Result]:
    """Run the contracts on a map method or a head; arguments and answers are those of `poolkit.check.check`."""
    if unknown := set(only) - {c.name for c in MAP_CONTRACTS}:
        known = ", ".join(c.name for c in MAP_CONTRACTS)
        raise ValueError(f"no contract {', '.join(sorted(unknown))}; there are: {known}")
    _complete(method if isinstance(method, type) else type(method))
    subjects = [MapSubject(m) for m in variants(method)]
    return [_run(contract, subjects) for contract in MAP_CONTRACTS if not only or contract.name in only]


def _run(contract: Contract, subjects: list[MapSubject]) -> Result:
    for subject in (s for s in subjects if contract.tried == "all" or s.method == subjects[0].method):
        try:
            contract.test(subject)
        except Broken as broken:
            return Result(contract.name, contract.sentence, False, f"{subject}: {broken}")
        except Exception as error:  # noqa: BLE001 - a method under test may fail in any way; that is a result too
            reason = (str(error).strip().splitlines() or [""])[0]
            return Result(contract.name, contract.sentence, False, f"{subject}: {type(error).__name__}: {reason}")
    return Result(contract.name, contract.sentence, True)


def _complete(cls: type[MapMethod]) -> None:
    """Refuse a class that lacks something, with a sentence that says what to write."""
    if not isinstance(getattr(cls, "card", None), Card):
        raise TypeError(f"{cls.__name__} has no card\n  write card: ClassVar[Card] = Card(name=…, title=…, …)")
    for name, arguments in {"pool": "m, p", "oracle": "m, p", "output_shape": "shape"}.items():
        if getattr(cls, name) is getattr(MapMethod, name):
            raise TypeError(f"{cls.__name__} does not define {name}\n  write def {name}(self, {arguments}): …")
