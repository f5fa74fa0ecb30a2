"""The contract on the steps of `worked`: a function that raises `Broken` with the smallest example it found."""

from __future__ import annotations

import copy
from itertools import product

from poolkit.method import Values, WindowMethod
from poolkit.steps import OUT_OF_RANGE, flaw
from poolkit.subject import Broken, Subject, case, one_by_one, picture
from poolkit.xp import OneWindow

_CASES = (case(1, kernel_size=1), case(3), case(5, 4, kernel_size=3, stride=2, padding=1))


def worked(s: Subject) -> None:
    """The steps of `worked`, and of `worked_sample`, lead to the scalar form's answer; most windows have them."""
    _most_have_steps(s, "worked", (None,))
    if s.method.draws:
        _most_have_steps(s, "worked_sample", (0.0, 0.3, 0.7, 0.99))


def _most_have_steps(s: Subject, formula: str, draws: tuple[float | None, ...]) -> None:
    """An equation as it is written may leave the range of numbers, but not in every second window of small cells."""
    windows, failed = 0, []
    for number, c in enumerate(_CASES):
        for (_, one, p), u in product(one_by_one(s.on(c), picture(c.sizes, number), c.window), draws):
            windows += 1
            if reason := _stopped(s.method, one, p, u):
                failed.append(reason)
    if 2 * len(failed) > windows:
        raise Broken(f"{formula} gave no steps for {len(failed)} of {windows} windows; the first: {failed[0]}")


def _stopped(method: WindowMethod, one: OneWindow, p: Values, u: float | None) -> str:
    """Hold the steps of one window to its answer; says what kept the equation from having any, if something did."""
    about = f"cells {one.x}{'' if u is None else f', draw {u}'}"
    # Each has a window of its own: the answer must not be that to cells which `worked` has changed.
    y = method.oracle(copy.deepcopy(one), p) if u is None else method.oracle_sample(copy.deepcopy(one), p, u)
    given, stopped = copy.deepcopy(one), ""
    try:
        found = method.worked(given, p) if u is None else method.worked_sample(given, p, u)
    except OUT_OF_RANGE as error:
        found, stopped = [], f"{about}: {type(error).__name__}: {error}"
    if given != one:
        raise Broken(f"{about}: the steps change the window, whose cells are {given.x} then")
    if not stopped and (wrong := flaw(found, one, y)):
        raise Broken(f"{about}: {wrong}")
    return stopped
