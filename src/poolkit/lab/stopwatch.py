"""Timing by turns: contestants run one after the other in one process, so that a change of the machine meets all."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

LEAST_ROUNDS = 6  # fewer have no 95 % interval of a median
_BLOCK = 0.003  # seconds: shorter blocks would measure the clock and the scheduler

Work = Callable[[], object]


def outside(rounds: int) -> int:
    """How many of the smallest and of the largest values may lie outside a 95 % interval of the median.

    Raises `ValueError` for fewer than 6 values: they have no such interval.
    """
    if rounds < LEAST_ROUNDS:
        raise ValueError(f"rounds={rounds}: fewer than {LEAST_ROUNDS} give no 95 % interval of a median")
    low, ways = 0, 1 + rounds
    while 40 * ways <= 2**rounds:  # in whole numbers: 2ⁿ soon leaves the range of floats
        low += 1
        ways += math.comb(rounds, low + 1)
    return low


@dataclass(frozen=True)
class Ratio:
    """A median of paired ratios, and an interval that covers the true median with at least 95 %."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
        """Ours divided by theirs, round by round; raises `ValueError` for fewer than 6 rounds."""
        ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        out = outside(len(ratios))
        return cls(statistics.median(ratios), ratios[out], ratios[-1 - out])


def take_turns(contestants: Mapping[str, Work], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Time contestants by turns, each as often in a row as fills a block of some milliseconds.

    Args:
        contestants: what to time, by name. All have been called before: nothing is warmed up here.
        rounds: how many times each has its turn, at least 6.
        seconds: after so many no further round begins, once there are 6.

    Returns:
        The seconds of one call of each contestant, round by round.

    Raises:
        ValueError: fewer than 6 rounds.
    """
    outside(rounds)
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    with _without_collection():
        repeats = {name: _repeats(work) for name, work in contestants.items()}
        began = time.perf_counter()
        for number in range(rounds):
            if number >= LEAST_ROUNDS and time.perf_counter() - began > seconds:
                break
            # A B, then B A: what the caches hold after the other one's turn favours neither.
            for name in names if number % 2 == 0 else reversed(names):
                taken[name].append(block(contestants[name], repeats[name]) / repeats[name])
    return taken


def block(work: Work, repeats: int = 1) -> float:
    """The seconds that so many calls take."""
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    return time.perf_counter() - began


def _repeats(work: Work) -> int:
    """How many calls fill a block; by the shorter of two where one is not enough: it may have been disturbed."""
    once = block(work)
    if once < _BLOCK:
        once = min(once, block(work))
    return max(1, min(1000, round(_BLOCK / max(once, 1e-9) + 0.5)))


@contextmanager
def _without_collection() -> Iterator[None]:
    """The garbage collector waits: whose turn it falls into is chance."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
