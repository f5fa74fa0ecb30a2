"""Every pooling method for convolutional networks: one line to swap, proven correct.

    >>> from poolkit import Soft, method
    >>> method("soft:beta=2") == Soft(beta=2)
    True

The layers are in `poolkit.torch`; importing `poolkit` imports no framework.
"""

from __future__ import annotations

from poolkit.method import Card, Fact, Learn, Method, Param, Values, WindowMethod, learn, param, parse
from poolkit.methods import METHODS, Avg, AvgTopK, GeM, Lp, Max, Min, Mixed, RankAvg, Soft, Stochastic
from poolkit.window import Window, window
from poolkit.xp import Cells, OneWindow

__version__ = "0.1.0"


def method(spelling: str | Method) -> Method:
    """The method of a spelling such as `soft:beta=2`; a method is returned as it is.

    Raises:
        ValueError: unknown name, parameter or value; the message names the nearest ones.
        TypeError: neither a spelling nor a method.
    """
    if isinstance(spelling, Method):
        return spelling
    if not isinstance(spelling, str):
        raise TypeError(f'expected a method such as Soft() or a spelling such as "soft:beta=2", got {spelling!r}')
    return parse(spelling, METHODS)


__all__ = [
    "METHODS",
    "Avg",
    "AvgTopK",
    "Card",
    "Cells",
    "Fact",
    "GeM",
    "Learn",
    "Lp",
    "Max",
    "Method",
    "Min",
    "Mixed",
    "OneWindow",
    "Param",
    "RankAvg",
    "Soft",
    "Stochastic",
    "Values",
    "Window",
    "WindowMethod",
    "__version__",
    "learn",
    "method",
    "param",
    "window",
]
