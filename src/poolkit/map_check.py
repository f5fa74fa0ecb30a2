"""The contracts of methods on whole maps, map methods and heads, and running them. `poolkit.check.check` calls it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import poolkit.map_contracts as maps
from poolkit.check import Contract, Result, chosen, run_all
from poolkit.map_method import MapMethod
from poolkit.map_subject import MapSubject
from poolkit.method import Card
from poolkit.subject import tried

MAP_CONTRACTS: tuple[Contract, ...] = (
    Contract(
        "card",
        "says a name of its own, its equation and its source, and its parameters read back from its spelling",
        maps.card,
    ),
    Contract("shape", "answers with the shape that it says", maps.shape),
    Contract("oracle", "equals its scalar form in float64, and has the shape it says", maps.oracle),
    Contract("numpy", "gives the same numbers in NumPy as in torch", maps.numpy),
    Contract("types", "refuses integers, wrong ranks, empty maps and inputs too many", maps.shapes, "default"),
    Contract(
        "gradient",
        "has the gradient that finite differences give, for small and large cells and for its weights too",
        maps.gradient_contract,
    ),
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
    Contract(
        "generators",
        "leaves the random numbers of torch, NumPy and Python where they were, but for a random layer's key",
        maps.generators,
    ),
    Contract("repeats", "gives the same bits again", maps.repeats, "default"),
    Contract("exported", "gives the same as a graph of torch.export", maps.exported, "default"),
    Contract("seeds", "draws as its seed says, as its scalar form does, and never in evaluation", maps.seeds),
)


def check_map(method: Any, only: Sequence[str] = ()) -> list[Result]:
    """Run the contracts on a map method or a head; arguments and answers are those of `poolkit.check.check`."""
    wanted = chosen(MAP_CONTRACTS, only)
    cls: type[MapMethod] = method if isinstance(method, type) else type(method)
    _complete(cls)
    subjects = [MapSubject(m) for m in tried(method, cls.try_channels, cls.tries)]
    return run_all(wanted, MAP_CONTRACTS, subjects)


def _complete(cls: type[MapMethod]) -> None:
    """Refuse a class that lacks something, with a sentence that says what to write."""
    if not isinstance(getattr(cls, "card", None), Card):
        raise TypeError(f"{cls.__name__} has no card\n  write card: ClassVar[Card] = Card(name=…, title=…, …)")
    for name, arguments in {"pool": "m, p", "oracle": "m, p", "output_shape": "shape"}.items():
        if getattr(cls, name) is getattr(MapMethod, name):
            raise TypeError(f"{cls.__name__} does not define {name}\n  write def {name}(self, {arguments}): …")
