"""The speed, memory and accuracy of the pooling layers, next to `torch.nn.MaxPool2d` and a plain copy, on this machine.

A layer whose values or gradients are wrong, before or after it was timed, gets no speed.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import torch

import poolkit
from poolkit.lab.footprint import Footprint, footprint
from poolkit.lab.rivals import PACKAGES, rivals
from poolkit.lab.run import machine
from poolkit.lab.stage import Case, Stage
from poolkit.lab.stopwatch import LEAST_ROUNDS, Ratio, block, outside, take_turns
from poolkit.method import Param, WindowMethod, learn

Row = dict[str, Any]
Geometry = dict[str, Any]

#: Arguments of the layers, and of MaxPool2d; None: one window, the whole map.
GEOMETRIES: dict[str, Geometry | None] = {
    "2x2/2": {"kernel_size": 2, "stride": 2},
    "3x3/2": {"kernel_size": 3, "stride": 2, "padding": 1},
    "3x3/1": {"kernel_size": 3, "stride": 1, "padding": 1},
    "ceil": {"kernel_size": 2, "stride": 2, "ceil_mode": True},
    "global": None,
}
#: Batch, channels, height, width; geometry `ceil` takes one row and one column less, so that windows reach over.
SHAPES = ((32, 32, 30, 30), (128, 64, 32, 32), (8, 256, 56, 56))
LAYOUTS = ("contiguous", "channels-last")


def _learns(declared: Param) -> bool:
    """Whether a parameter is meant to be learned: a threshold that may be, by an estimate, is not."""
    return declared.learnable and not declared.surrogate


# What stands for each method: parameters that a network may learn are learned.
DEFAULTS = tuple(
    cls(**{name: learn() for name, declared in cls.params().items() if _learns(declared)})
    for cls in poolkit.WINDOW_METHODS.values()
)
# The rivals are slow, so they are timed where people use them most.
_BUSY = 0.5  # processes at work, of the minute before
_PATIENCE = 10  # times its share of the time that a rival may take for its rounds
_WITH_RIVALS = tuple((geometry, shape) for geometry in ("2x2/2", "global") for shape in SHAPES[:2])


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        methods, geometries, shapes, layouts: every combination is one row.
        rounds: how many paired measurements a ratio has, at least 6.
        seconds: for all; a row takes its share, and no row begins afterwards.
        rivals: whether other people's implementations are timed too.
    """

    methods: tuple[WindowMethod, ...] = DEFAULTS
    geometries: tuple[str, ...] = tuple(GEOMETRIES)
    shapes: tuple[tuple[int, ...], ...] = SHAPES
    layouts: tuple[str, ...] = LAYOUTS
    rounds: int = 11
    seconds: float = 600.0
    rivals: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        outside(self.rounds)
        for what, given, known in (
            ("geometry", self.geometries, tuple(GEOMETRIES)),
            ("layout", self.layouts, LAYOUTS),
        ):
            for name in given:
                if name not in known:
                    raise ValueError(f'no {what} "{name}"\n  allowed: {", ".join(known)}')
        for shape in self.shapes:
            if len(shape) != 4 or min(shape) < 1 or min(shape[2:]) < 4:
                raise ValueError(f"shape {name_of(shape)}: batch, channels, height and width; maps of at least 4×4")
        if self.seconds <= 0:
            raise ValueError(f"seconds={self.seconds}: must be more than 0")

    def cases(self) -> list[Case]:
        """Every combination; the methods innermost, so that a budget that runs out cuts all alike."""
        return [
            Case(method, geometry, GEOMETRIES[geometry], _sizes(shape, geometry), layout)
            for shape in self.shapes
            for geometry in self.geometries
            for layout in self.layouts
            for method in self.methods
            # A table has a number for each cell of the window: no global layer has one.
            if not (method.tables and geometry == "global")
        ]


_max_footprints: dict[tuple[Any, ...], Footprint] = {}

# Small enough to try a change, and for the tests of every commit.
QUICK = Plan(
    methods=tuple(map(poolkit.method, ("max", "avg-topk", "soft:beta=learn", "stochastic"))),  # type: ignore[arg-type]
    geometries=("2x2/2", "3x3/2"),
    shapes=SHAPES[:1],
    seconds=40.0,
    rivals=False,
)
GATE = replace(
    QUICK,
    methods=tuple(map(poolkit.method, ("avg", "avg-topk", "soft:beta=learn", "mixed"))),  # type: ignore[arg-type]
)


def measure(plan: Plan, watch: Callable[[int, int, Case], None] = lambda done, of, case: None) -> Iterator[Row]:
    """Measure one row after the other; `watch` hears how many are done, of how many, and which is next.

    Yields:
        A row for each case, as `measure_case` gives it; `status` "no time" where the time was up before it began.
    """
    cases, began = plan.cases(), time.perf_counter()
    for number, case in enumerate(cases):
        watch(number, len(cases), case)
        left = plan.seconds - (time.perf_counter() - began)
        if left <= 0:
            yield {**_about(case), "status": "no time", "detail": "the time was up: --budget gives more"}
            continue
        with_rivals = plan.rivals and (case.geometry, case.shape) in _WITH_RIVALS
        yield measure_case(case, plan.rounds, left / (len(cases) - number), with_rivals)


def measure_case(case: Case, rounds: int = 11, seconds: float = 2.0, with_rivals: bool = False) -> Row:
    """Check, time, weigh and check again one layer on one input.

    Arguments: `case`; `rounds`, at least 6; `seconds`, after which no further rounds begin; `with_rivals`, whether
    other people's implementations are timed too.
    Returns the row: the case, its `path`s, `first_ms` (the first call of each direction, compiling included) and either
    `status` "wrong" with a `detail`, or "measured" with `forward` (no gradient, evaluation), `step` (forward and
    backward, training), `kept` and `peak` (memory), `error` and `rivals`.
    """
    row: Row = {**_about(case), "status": "measured", "detail": ""}
    stage = Stage(case)
    try:
        row |= stage.paths()
        row["first_ms"] = 1e3 * (block(stage.forward) + block(stage.step))
        fault, error = stage.check()
        found: Row = {} if fault else _measured(stage, rounds, seconds, with_rivals)
        if not fault:
            fault, again = stage.check()
            error = max(error, again)
    except Exception as reason:  # noqa: BLE001 - one layer that fails must not take the table with it
        fault = f"{type(reason).__name__}: {(str(reason).splitlines() or [''])[0]}"
    return {**row, "status": "wrong", "detail": fault} if fault else {**row, **found, "error": error}


def _measured(stage: Stage, rounds: int, seconds: float, with_rivals: bool) -> Row:
    """Everything about a layer whose values are right."""
    others = stage.baselines()
    for forward, step in others.values():
        forward(), step()
    part = seconds / (3 if with_rivals else 2)
    forwards = {"ours": stage.forward, "max": others["max"][0], "copy": others["copy"][0]}
    steps = {"ours": stage.step, "max": others["max"][1]}
    row: Row = {
        "forward": _compared(take_turns(forwards, rounds, part)),
        "step": _compared(take_turns(steps, rounds, part)),
        **_weighed(stage),
    }
    forward = row["forward"]
    forward["gb_per_s"] = stage.bytes / forward["ms"] / 1e6
    row["rivals"] = _against_rivals(stage, rounds, part) if with_rivals else {}
    return row


def _compared(taken: dict[str, list[float]]) -> Row:
    """Times and ratios of one direction: to max pooling and, where it was timed, the share of a copy's speed."""
    ours = taken["ours"]
    ratio = Ratio.of(ours, taken["max"])
    row: Row = {
        "ms": 1e3 * statistics.median(ours),
        "max_ms": 1e3 * statistics.median(taken["max"]),
        "rounds": len(ours),
    }
    row |= {"ratio": ratio.median, "low": ratio.low, "high": ratio.high}
    if "copy" in taken:
        share = Ratio.of(taken["copy"], ours)
        row |= {"copy_share": share.median, "copy_share_low": share.low, "copy_share_high": share.high}
        row["suspicious"] = share.median > 1
    return row


def _weighed(stage: Stage) -> Row:
    """Memory of a training step; `kept` in parts of the input's bytes, beyond the input itself."""
    ours = footprint(stage.layer.train(), stage.x, stage.g, stage.parameters)
    theirs = _max_footprint(stage.case)
    return {
        "kept": ours.kept / stage.x.nbytes,
        "max_kept": theirs.kept / stage.x.nbytes,
        "peak_bytes": ours.peak,
        "peak": ours.peak / theirs.peak,
    }


def _max_footprint(case: Case) -> Footprint:
    """That of `MaxPool2d`, which is the same for all methods."""
    key = (case.geometry, case.shape, case.layout)
    if key not in _max_footprints:
        stage = Stage(replace(case, method=poolkit.Max()))
        _max_footprints[key] = footprint(stage.maximum, stage.x, stage.g, ())
    return _max_footprints[key]


def _against_rivals(stage: Stage, rounds: int, seconds: float) -> dict[str, Row]:
    """Our time divided by each rival's; a rival that computes something else is named, and not timed."""
    found: dict[str, Row] = {}
    for name, rival in rivals(stage.case.method, stage.case.arguments):
        if fault := stage.differs(rival):
            found[name] = {"status": "another function", "detail": fault}
            continue
        forward, step = stage.works(rival)
        if LEAST_ROUNDS * (block(forward) + block(step)) > _PATIENCE * seconds:
            found[name] = {"status": "no time", "detail": "it is too slow for the budget"}
            continue
        row: Row = {"status": "measured"}
        for word, ours, theirs in (("forward", stage.forward, forward), ("step", stage.step, step)):
            taken = take_turns({"ours": ours, name: theirs}, min(rounds, LEAST_ROUNDS), seconds)
            row[word] = {"ms": 1e3 * statistics.median(taken[name]), **asdict(Ratio.of(taken["ours"], taken[name]))}
            row[word]["ratio"] = row[word].pop("median")
        found[name] = row
    return found


def circumstances(plan: Plan, command: str, memory: str) -> dict[str, Any]:
    """Where, when and how a table is measured; to be called before, while the machine's load is that of others.

    Arguments: `plan`; `command`, as one types it; `memory`, what the process does with memory that it frees.
    """
    where = machine(torch.device("cpu"))
    versions = {name: metadata.version(name) for name in ("numba", *PACKAGES) if find_spec(name)}
    missing = [f"{name} is not installed: its pools are not timed" for name in PACKAGES if not find_spec(name)]
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    busy = [f"the machine was busy before the first measurement: load {load}"] if load and load > _BUSY else []
    return {
        "what": "pooling layers, float32",
        "command": command,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "machine": {**where, **versions, "memory": memory, "load_before": load},
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "notes": busy + (missing if plan.rivals else []),
    }


def group(method: WindowMethod) -> str:
    """`random`, `learnable` or `plain`: which bars a method is held to."""
    if method.draws is not None:
        return "random"
    return "learnable" if any(_learns(declared) for declared in method.params().values()) else "plain"


def name_of(shape: tuple[int, ...]) -> str:
    """A shape as one types it: `32x32x30x30`."""
    return "x".join(map(str, shape))


def _about(case: Case) -> Row:
    return {
        "method": case.method.spelling,
        "family": case.method.card.family,
        "group": group(case.method),
        "geometry": case.geometry,
        "shape": name_of(case.shape),
        "layout": case.layout,
    }


def _sizes(shape: tuple[int, ...], geometry: str) -> tuple[int, ...]:
    arguments: Mapping[str, Any] = GEOMETRIES[geometry] or {}
    return (*shape[:2], shape[2] - 1, shape[3] - 1) if arguments.get("ceil_mode") else shape
