"""The methods, one file each. This list is the whole registry: nothing is scanned or decorated."""

from __future__ import annotations

from poolkit.method import Method
from poolkit.methods.avg import Avg
from poolkit.methods.avg_topk import AvgTopK
from poolkit.methods.gem import GeM
from poolkit.methods.lp import Lp
from poolkit.methods.max import Max
from poolkit.methods.min import Min
from poolkit.methods.mixed import Mixed
from poolkit.methods.rank_avg import RankAvg
from poolkit.methods.soft import Soft
from poolkit.methods.stochastic import Stochastic

METHODS: dict[str, type[Method]] = {
    cls.card.name: cls for cls in (Max, Avg, Min, Lp, GeM, Soft, RankAvg, AvgTopK, Mixed, Stochastic)
}

__all__ = ["METHODS", *(cls.__name__ for cls in METHODS.values())]
