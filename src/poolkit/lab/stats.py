"""Statistics of a comparison: numbers in, numbers out. Never NaN: what cannot be said is None, with a reason.

Accuracies are in points (percent). Two claims are kept apart. *On this test set*: the runs are the sample (t-intervals,
Welch's test). *On the distribution*: runs and pictures are the sample (`crossed`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy import stats as distributions
from statsmodels.stats.meta_analysis import effectsize_smd
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.nonparametric import rank_compare_2indep
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

#: The four words that a comparison can end with.
WORDS = ("better", "worse", "equivalent", "undecided")
CONFIDENCE = 0.95
POWER = 0.8
MOST_FAILED = 0.05  # of a method's runs; beyond it the method fails
_LARGEST_EFFECT = 20.0  # in standard deviations: beyond it the non-central t distribution cannot be computed
_MOST_SEEDS = 1_000_000
_FEWEST_PAIRS = 4  # with fewer no correlation can be told from chance
_ROUNDING = 1e-9  # points between which accuracies are the same

FEW = "fewer than 2 runs finished: no spread can be estimated"
NO_SPREAD = "all runs of both gave the same number: no spread can be estimated"
SEPARATED = "every run of one lies above every run of the other: the method gives no interval"


class Interval(NamedTuple):
    """An interval of a stated confidence, `low` to `high`."""

    low: float
    high: float


@dataclass(frozen=True)
class Mean:
    """A mean of runs: `mean`, `sd` of single runs, the 95 % t-interval `low` to `high`, `n`; None where `reason` says.

    Runs that all gave the same number have no interval: it would say that nothing is uncertain.
    """

    n: int
    mean: float | None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """The mean of values, one a run."""
        n = len(values)
        if n == 0:
            return cls(0, None, reason="no run finished")
        if n == 1:
            return cls(1, float(values[0]), reason=FEW)
        found = DescrStatsW(np.asarray(values, np.float64))
        if min(values) == max(values):
            return cls(n, float(values[0]), 0.0, reason="all runs gave the same number: no spread can be estimated")
        low, high = found.tconfint_mean(1 - CONFIDENCE)
        return cls(n, float(found.mean), float(math.sqrt(found.var_ddof(1))), float(low), float(high))

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Two samples of runs, `a` − `b`: made by `compare`, None where `reason` says why nothing can be computed.

    `points`, the difference of means; `low`, `high`, its 95 % interval by Welch, `p` of Welch's two-sided test;
    `equivalence_p` of two one-sided Welch tests of a difference within ±δ; `error`, the standard error, and `freedom`,
    Welch's degrees of freedom.
    """

    points: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    equivalence_p: float | None = None
    error: float | None = None
    freedom: float | None = None
    reason: str | None = None

    def interval(self, level: float) -> Interval | None:
        """Welch's interval of a confidence `level`, such as 0.99."""
        if self.points is None or self.error is None or self.freedom is None:
            return None
        reach = float(distributions.t.ppf((1 + level) / 2, self.freedom)) * self.error
        return Interval(self.points - reach, self.points + reach)


def compare(a: Sequence[float], b: Sequence[float], delta: float) -> Comparison:
    """Compare two samples of runs by Welch's test, which assumes no equal spreads, and by two one-sided tests.

    Arguments: `a` and `b`, one number a run; `delta`, the smallest difference that matters, in the same unit.
    """
    if not len(a) or not len(b):
        return Comparison(None, reason="no run finished")
    points = float(np.mean(a) - np.mean(b))
    if min(len(a), len(b)) < 2:
        return Comparison(points, reason=FEW)
    if min(a) == max(a) and min(b) == max(b):
        return Comparison(float(a[0] - b[0]), reason=NO_SPREAD)
    pair = CompareMeans(DescrStatsW(np.asarray(a, np.float64)), DescrStatsW(np.asarray(b, np.float64)))
    _, p, freedom = pair.ttest_ind(usevar="unequal")
    low, high = pair.tconfint_diff(1 - CONFIDENCE, usevar="unequal")
    equal = pair.ttost_ind(-delta, delta, usevar="unequal")[0]
    error = float(pair.std_meandiff_separatevar)
    return Comparison(points, float(low), float(high), float(p), float(equal), error, float(freedom))


@dataclass(frozen=True)
class Pairs:
    """Two samples in pairs of runs with one seed, `a` − `b`: they tell what the seeds share, and decide nothing.

    `n` pairs; `correlation`, Pearson's, with its 95 % interval's lower end `correlation_low`; `points`, the mean
    difference, with its 95 % t-interval `low` to `high`. None where pairs are too few or spread nowhere.
    """

    n: int
    correlation: float | None = None
    correlation_low: float | None = None
    points: float | None = None
    low: float | None = None
    high: float | None = None


def pairs(a: Mapping[int, float], b: Mapping[int, float]) -> Pairs:
    """Compare two samples of runs seed by seed: both are numbers by seed, and those of seeds that both have count."""
    seeds = sorted(set(a) & set(b))
    first, second = (np.array([x[seed] for seed in seeds], np.float64) for x in (a, b))
    if len(seeds) < _FEWEST_PAIRS or min(np.ptp(first), np.ptp(second)) < _ROUNDING:
        return Pairs(len(seeds))
    apart, found = Mean.of((first - second).tolist()), distributions.pearsonr(first, second)
    low = float(found.confidence_interval(CONFIDENCE).low)
    return Pairs(len(seeds), float(found.statistic), low, apart.mean, apart.low, apart.high)


class Holm(NamedTuple):
    """Holm's procedure over a family: `p`, adjusted, and `levels`, the confidence at which each interval decides.

    The interval of level 1 − α / (number of hypotheses left at that step) excludes 0 exactly where the adjusted p is at
    most α. From the first that is not rejected on, all have that step's level.
    """

    p: list[float | None]
    levels: list[float]


def holm(p: Sequence[float | None], alpha: float) -> Holm:
    """Adjust p-values by Holm's method; None, where nothing could be tested, stays in the family as if it were 1."""
    if not p:
        return Holm([], [])
    filled = [1.0 if value is None else value for value in p]
    adjusted = multipletests(filled, alpha, method="holm")[1]
    levels, left = [0.0] * len(p), len(p)
    going = True
    for place in np.argsort(filled, kind="stable"):
        levels[place] = 1 - alpha / left
        going = going and filled[place] <= alpha / left
        left -= going
    return Holm([None if old is None else float(new) for old, new in zip(p, adjusted, strict=True)], levels)


def verdict(points: float | None, p: float | None, equivalence_p: float | None, alpha: float) -> str:
    """The word for a difference to the baseline, from p-values that are already adjusted by Holm's method.

    *equivalent*: the difference is smaller than δ, whatever its sign; this word comes first, because δ was fixed
    beforehand as the smallest difference that matters: a difference that is certain and too small to matter is
    equivalent. Else *better* or *worse*, where the adjusted interval excludes 0. Else *undecided*.
    Each of the two families (differences, equivalences) has a chance of at most α of one false word or more.
    """
    if points is None or p is None or equivalence_p is None:
        return "undecided"
    if equivalence_p <= alpha:
        return "equivalent"
    if p <= alpha:
        return "better" if points > 0 else "worse"
    return "undecided"


@dataclass(frozen=True)
class Effect:
    """How large a difference is next to the spread: Hedges' g, and P(A > B), each with a 95 % interval."""

    g: float | None = None
    g_low: float | None = None
    g_high: float | None = None
    above: float | None = None
    above_low: float | None = None
    above_high: float | None = None
    reason: str | None = None


def effect(a: Sequence[float], b: Sequence[float]) -> Effect:
    """Hedges' g, and the chance that a run of A lies above a run of B, equal runs counted half.

    g is the difference divided by the pooled standard deviation, corrected for small samples, with a normal interval.
    P(A > B) is the statistic of Mann and Whitney with the interval of Brunner and Munzel (2000), which allows unequal
    spreads, cut at 0 and 1; complete separation has none.
    """
    if min(len(a), len(b)) < 2:
        return Effect(reason=FEW)
    if min(a) == max(a) and min(b) == max(b):
        return Effect(reason=NO_SPREAD)
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    g, variance = effectsize_smd(
        first.mean(), first.std(ddof=1), len(first), second.mean(), second.std(ddof=1), len(second)
    )
    reach = float(distributions.norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    ends = (float(g), float(g) - reach, float(g) + reach)
    if first.min() > second.max() or second.min() > first.max():
        return Effect(*ends, float(first.min() > second.max()), reason=SEPARATED)
    ranks = rank_compare_2indep(first, second)
    low, high = (float(end) for end in ranks.conf_int(alpha=1 - CONFIDENCE))
    return Effect(*ends, float(ranks.prob1), max(low, 0.0), min(high, 1.0))


def pooled_sd(a: Sequence[float], b: Sequence[float]) -> float | None:
    """The standard deviation within two samples together; None without two values in one of them, or if it is 0."""
    left = len(a) + len(b) - 2
    if min(len(a), len(b)) < 2:
        return None
    squares = float(np.var(a, ddof=1)) * (len(a) - 1) + float(np.var(b, ddof=1)) * (len(b) - 1)
    same = min(a) == max(a) and min(b) == max(b)
    return None if same else math.sqrt(squares / left)


def detectable(sd: float, n: int, other: int, alpha: float) -> float | None:
    """The smallest difference that a two-sided t-test finds with a chance of 0.8, in the unit of `sd`.

    Arguments: `sd` of single runs; `n` and `other`, runs of each; `alpha`, for Holm's first step α / comparisons.
    """
    effect = _detectable_effect(n, other, alpha)
    return None if effect is None else effect * sd


@lru_cache(256)
def _detectable_effect(n: int, other: int, alpha: float) -> float | None:
    if min(n, other) < 2 or _power(_LARGEST_EFFECT, n, other, alpha) < POWER:
        return None
    low, high = 0.0, _LARGEST_EFFECT
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, n, other, alpha) >= POWER else (middle, high)
    return high


@lru_cache(4096)
def seeds_needed(difference: float, sd: float, alpha: float) -> int | None:
    """The runs of each method with which a two-sided t-test finds a difference with a chance of 0.8.

    Arguments: `difference` above 0 and `sd` above 0, in one unit; `alpha`. None where it were more than a million.
    """
    size = min(difference / sd, _LARGEST_EFFECT)
    high = 2
    while _power(size, high, high, alpha) < POWER:
        high *= 2
        if high > _MOST_SEEDS:
            return None
    low = high // 2  # too few, or 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(size, middle, middle, alpha) >= POWER else (middle, high)
    return high


def _power(size: float, n: int, other: int, alpha: float) -> float:
    # One-sided: to find a difference of the wrong sign is no success, and that tail's chance cannot always be computed.
    found = float(TTestIndPower().power(size, n, alpha / 2, ratio=other / n, alternative="larger"))
    # The non-central t is NaN at places some thirty standard errors beyond the critical value: there the test is sure.
    return 1.0 if math.isnan(found) else found


def crossed(a: np.ndarray, b: np.ndarray) -> Comparison:
    """Compare two methods on the distribution of pictures: runs and pictures are both samples.

        V = V_runs + V_pictures − V_both,   V_runs = s_a²/n_a + s_b²/n_b,   V_pictures = s_d²/N,
        V_both = (m_a/n_a + m_b/n_b)/N

    s² is the variance of the runs' accuracies, s_d² that over pictures of the difference of the two methods' shares of
    right runs (both saw the same pictures), m the residual mean square of pictures × runs. Each of the first two terms
    holds the third, so it is taken off once; V is never taken to be less than either. The degrees of freedom are
    Satterthwaite's. Analytical, so that nothing is drawn.

    Arguments: `a`, `b`, bool (runs, pictures), whether a run was right, of the same pictures.
    Returns points (percent), without a test of equivalence.
    """
    if not len(a) or not len(b):
        return Comparison(None, reason="no run finished")
    points = 100 * float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return Comparison(points, reason=FEW)
    count = a.shape[1]
    over_runs = [x.mean(1).var(ddof=1) / len(x) for x in (a, b)]
    runs = float(sum(over_runs))
    pictures = float((a.mean(0) - b.mean(0)).var(ddof=1)) / count
    both = sum(_residual(x) / len(x) for x in (a, b)) / count
    total = max(runs + pictures - both, runs, pictures)
    if total == 0:
        return Comparison(points, reason=NO_SPREAD)
    parts = [(over, len(x) - 1) for over, x in zip(over_runs, (a, b), strict=True)] + [(pictures, count - 1)]
    freedom = total**2 / sum(part**2 / n for part, n in parts if part > 0)
    error = 100 * math.sqrt(total)
    reach = float(distributions.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    p = 2 * float(distributions.t.sf(abs(points) / error, freedom))
    return Comparison(points, points - reach, points + reach, p, error=error, freedom=float(freedom))


def _residual(right: np.ndarray) -> float:
    """The mean square that runs and pictures leave together: (runs, pictures)."""
    runs, pictures = right.shape
    mean, of_run, of_picture = right.mean(), right.mean(1), right.mean(0)
    whole = float(right.size * mean * (1 - mean))  # right is 0 or 1
    left = whole - pictures * float(((of_run - mean) ** 2).sum()) - runs * float(((of_picture - mean) ** 2).sum())
    return max(left, 0.0) / ((runs - 1) * (pictures - 1))


def rank_intervals(samples: Sequence[Sequence[float]], alpha: float) -> list[tuple[int, int]]:
    """For each method the ranks it may have, 1 the highest mean, all at once with confidence 1 − α.

    All pairs are compared by Welch's test with Holm's method over all of them; a rank counts those that are above and
    those that are below beyond doubt. A method that cannot be compared may have any rank.
    """
    pairs = [(i, j) for i in range(len(samples)) for j in range(i)]
    found = [compare(samples[i], samples[j], 1.0) for i, j in pairs]
    adjusted = holm([one.p for one in found], alpha).p
    above, below = [0] * len(samples), [0] * len(samples)
    for (i, j), one, p in zip(pairs, found, adjusted, strict=True):
        if p is not None and one.points is not None and p <= alpha:
            upper, lower = (i, j) if one.points > 0 else (j, i)
            below[upper] += 1
            above[lower] += 1
    return [(1 + up, len(samples) - down) for up, down in zip(above, below, strict=True)]


def fails(failed: int, runs: int) -> bool:
    """Whether a method fails by the rule fixed beforehand: more than 5 % of its runs failed."""
    return failed > MOST_FAILED * runs
