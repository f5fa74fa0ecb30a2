"""Which methods of a study contain others of it, by what their cards declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import poolkit
from poolkit.method import Method
from poolkit.own import names_own


class Special(NamedTuple):
    """A method, one of the same study that it contains, and the setting with which it is that one."""

    general: str
    special: str
    setting: str


def special_cases(spellings: Sequence[str]) -> list[Special]:
    """The pairs among methods of which one contains the other, in the order of the first, then of the second.

    They are the identities and limits of the cards, such as "soft:beta=0 is avg", whatever parameter is asked for:
    soft with another beta could have been avg. Identities of methods that draw at random hold in evaluation alone, so
    that they contain nothing that was trained. Those of methods of one's own are left out: nothing imports them here.
    """
    methods = {spelling: poolkit.method(spelling) for spelling in spellings if not names_own(spelling)}
    found = []
    for general, method in methods.items():
        settings = _contained(method)
        for special, other in methods.items():
            if special != general and other.spelling in settings and not (_draws(method) or _draws(other)):
                found.append(Special(general, special, settings[other.spelling]))
    return found


def _contained(method: Method) -> dict[str, str]:
    """What a method contains: spelling, and the setting at which it does."""
    declared = [pair for pair in (*method.card.same, *method.card.limits) if "{n}" not in pair[1]]
    # "strided:at=random is avg" holds in evaluation alone, though strided at a fixed place does not draw.
    declared = [(one, other) for one, other in declared if "{n}" in one or not _draws(poolkit.method(one))]
    # `{n}` is the number of cells, known only where a window is: any will do to read a spelling that is shown.
    return {poolkit.method(other).spelling: one.replace("{n}", "n") for one, other in reversed(declared)}


def _draws(method: Method) -> bool:
    return bool(getattr(method, "random", False)) or getattr(method, "draws", None) is not None
