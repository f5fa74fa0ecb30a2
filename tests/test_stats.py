"""The statistics of a comparison: against scipy and statsmodels, against chance, and where nothing can be said."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("statsmodels")

from scipy import stats as reference  # noqa: E402
from statsmodels.stats.weightstats import ttost_ind  # noqa: E402

from poolkit.lab import stats  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_collections")

A = [70.1, 70.9, 71.3, 69.8, 70.6, 71.0]
B = [69.2, 70.0, 69.9, 70.3, 68.7]


def test_a_mean_has_students_interval():
    found = stats.Mean.of(A)
    low, high = reference.t.interval(0.95, len(A) - 1, np.mean(A), reference.sem(A))
    assert (found.mean, found.sd) == (pytest.approx(np.mean(A)), pytest.approx(np.std(A, ddof=1)))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_a_difference_is_welchs():
    found, welch = stats.compare(A, B, 0.5), reference.ttest_ind(A, B, equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert (found.p, found.points) == (pytest.approx(welch.pvalue), pytest.approx(np.mean(A) - np.mean(B)))
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.equivalence_p == pytest.approx(ttost_ind(np.array(A), np.array(B), -0.5, 0.5, usevar="unequal")[0])
    assert found.interval(0.95) == (pytest.approx(found.low), pytest.approx(found.high))


def test_equivalence_by_hand():
    """Two one-sided tests: the larger of the two chances of so extreme a t."""
    a, b, delta = np.array([70.0, 70.2, 70.1, 69.9]), np.array([70.1, 70.0, 70.2, 69.9]), 0.4
    error = math.sqrt(a.var(ddof=1) / 4 + b.var(ddof=1) / 4)
    low, high = (a.mean() - b.mean() + delta) / error, (a.mean() - b.mean() - delta) / error
    want = max(reference.t.sf(low, 6), reference.t.cdf(high, 6))  # equal spreads and numbers: 6 degrees of freedom
    assert stats.compare(a, b, delta).equivalence_p == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ([], B, "no run finished"),
        (A, [], "no run finished"),
        ([70.0], B, "fewer than 2"),
        ([70.0, 70.0], [71.0, 71.0], "same number"),
    ],
)
def test_where_nothing_can_be_said_there_is_a_reason_and_no_nan(a, b, why):
    found = stats.compare(a, b, 0.2)
    assert why in found.reason and found.p is None and found.low is None and found.interval(0.9) is None
    assert stats.verdict(found.points, found.p, found.equivalence_p, 0.05) == "undecided"
    assert stats.pooled_sd(a, b) is None
    assert stats.effect(a, b).g is None and stats.effect(a, b).reason


def test_a_mean_of_few_or_equal_runs_has_no_interval():
    for values, why in (([], "no run"), ([70.0], "fewer than 2"), ([70.0] * 3, "same number")):
        found = stats.Mean.of(values)
        assert found.low is None and why in found.reason
    assert stats.Mean.of([]).mean is None and stats.Mean.of([70.0]).mean == 70.0


def test_one_sample_without_spread_still_compares():
    found = stats.compare([70.0, 70.0, 70.0], [71.0, 72.0, 71.5], 0.2)
    assert found.points == pytest.approx(-1.5) and 0 < found.p < 0.05


def test_pairs_are_a_t_test_of_the_differences_and_know_what_seeds_share():
    rng = np.random.default_rng(0)
    shared, own, others = rng.normal(70, 3, 12), rng.normal(0, 0.3, 12), rng.normal(70, 3, 12)
    a, b = dict(enumerate(shared + own + 0.5)), dict(enumerate(shared))
    found = stats.pairs(a, b)
    ends = reference.ttest_rel(list(a.values()), list(b.values())).confidence_interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.correlation > found.correlation_low > 0.8 and found.n == 12
    independent = stats.compare(list(a.values()), list(b.values()), 0.2)
    assert found.high - found.low < 0.3 * (independent.high - independent.low)
    assert found.points == pytest.approx(independent.points)
    assert abs(stats.pairs(dict(enumerate(others)), b).correlation) < 0.5
    assert stats.pairs(b, dict(reversed(b.items()))).points == 0.0


def test_pairs_are_of_seeds_that_both_have_and_three_are_too_few():
    assert stats.pairs({0: 1.0, 1: 2.0, 2: 3.0, 5: 4.0}, {0: 1.0, 1: 3.0, 2: 2.0, 6: 4.0}) == stats.Pairs(3)
    for near in (1.0, 1.0 + 1e-13):
        assert stats.pairs({0: 1.0, 1: 1.0, 2: 1.0, 3: near}, {0: 1.0, 1: 3.0, 2: 4.0, 3: 5.0}) == stats.Pairs(4)


def test_holms_levels_decide_as_its_p_values_do():
    rng = np.random.default_rng(0)
    for _ in range(60):
        p = list(rng.random(5) ** rng.choice([1, 6]))
        found = stats.holm(p, 0.05)
        for own, adjusted, level in zip(p, found.p, found.levels, strict=True):
            assert (adjusted <= 0.05) == (own <= 1 - level + 1e-15)
    assert stats.holm([], 0.05) == ([], [])
    assert stats.holm([0.02, None], 0.05).p == [pytest.approx(0.04), None]  # the untested one keeps its place


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03], 0.05).p == pytest.approx([0.03, 0.06, 0.06])


@pytest.mark.parametrize(
    ("points", "p", "equal", "word"),
    [
        (0.5, 0.01, 0.5, "better"),
        (-0.5, 0.01, 0.5, "worse"),
        (0.5, 0.06, 0.5, "undecided"),
        (0.01, 0.8, 0.01, "equivalent"),
        (0.1, 0.001, 0.01, "equivalent"),  # certain, and smaller than what matters
        (0.1, None, 0.01, "undecided"),
    ],
)
def test_the_four_words(points, p, equal, word):
    assert stats.verdict(points, p, equal, 0.05) == word


def test_hedges_g_and_the_chance_of_lying_above():
    found = stats.effect(A, B)
    n, m = len(A), len(B)
    sd = math.sqrt(((n - 1) * np.var(A, ddof=1) + (m - 1) * np.var(B, ddof=1)) / (n + m - 2))
    assert found.g == pytest.approx((np.mean(A) - np.mean(B)) / sd * (1 - 3 / (4 * (n + m) - 9)), rel=1e-3)
    assert found.above == pytest.approx(np.mean([(a > b) + 0.5 * (a == b) for a in A for b in B]))
    assert 0 <= found.above_low <= found.above <= found.above_high <= 1
    apart = stats.effect([2.0, 3.0], [0.0, 1.0])
    assert (apart.above, apart.above_low) == (1.0, None) and "every run" in apart.reason


@pytest.mark.parametrize(
    ("sd", "difference", "seeds"), [(0.15, 0.2, 10), (0.15, 0.1, 37), (0.2, 0.3, 9), (0.25, 0.5, 6)]
)
def test_so_many_seeds_are_needed(sd, difference, seeds):
    """The usual table of power 0.8 at 5 %, two-sided."""
    assert abs(stats.seeds_needed(difference, sd, 0.05) - seeds) <= 1


def test_what_is_detectable_is_what_the_seeds_are_needed_for():
    assert stats.detectable(0.15, 10, 10, 0.05) == pytest.approx(0.2, abs=0.005)
    for n in (3, 10, 40):
        smallest = stats.detectable(0.3, n, n, 0.01)
        assert stats.seeds_needed(smallest * 1.0001, 0.3, 0.01) == n
    assert stats.detectable(0.3, 1, 10, 0.05) is None
    assert stats.seeds_needed(1e-9, 1.0, 0.05) is None


def test_what_is_detectable_falls_with_every_seed_and_rises_with_every_comparison():
    """Far out the non-central t is NaN here and there: an interval halved at such a place would end anywhere."""
    found = [[stats.detectable(1.0, n, n, 0.05 / k) for n in range(4, 60, 5)] for k in (1, 3, 7, 11, 12, 15)]
    for row in found:
        assert all(many < few for few, many in zip(row, row[1:], strict=False))
    for few, many in zip(found, found[1:], strict=False):
        assert all(one < other for one, other in zip(few, many, strict=True))
    assert stats.detectable(0.15, 10, 10, 0.005) == pytest.approx(0.27, abs=0.015)  # 9 seeds find 0.3, 18 find 0.2
    assert stats.seeds_needed(17.5, 1.0, 0.05) <= 3


def test_ranks_are_what_the_pairs_leave_open():
    clear = [[90.0, 90.1, 90.2], [80.0, 80.1, 80.2], [80.05, 80.15, 80.1]]
    assert stats.rank_intervals(clear, 0.05) == [(1, 1), (2, 3), (2, 3)]
    assert stats.rank_intervals([[90.0, 90.1], [70.0]], 0.05) == [(1, 2), (1, 2)]


def test_more_than_one_failure_in_twenty_fails():
    assert not stats.fails(1, 20) and stats.fails(2, 20) and stats.fails(1, 10)


# Chance: seeded.


def studies(many, groups, n, sd, rng, first=0.0):
    runs = rng.normal(70, sd, (many, groups, n))
    runs[:, 1] += first
    return runs


def words_of(study):
    """The verdicts of a study's methods against its first, as findings come to them."""
    found = [stats.compare(runs, study[0], 0.2) for runs in study[1:]]
    p = stats.holm([one.p for one in found], 0.05).p
    equal = stats.holm([one.equivalence_p for one in found], 0.05).p
    return [stats.verdict(one.points, q, e, 0.05) for one, q, e in zip(found, p, equal, strict=True)]


def test_at_most_one_study_in_twenty_of_equal_methods_says_better_or_worse():
    many = 1000
    runs = studies(many, 5, 10, 0.3, np.random.default_rng(1))
    false = sum(bool({"better", "worse"} & set(words_of(study))) for study in runs) / many
    assert 0.01 <= false <= 0.05


def test_at_most_one_study_in_twenty_says_equivalent_of_methods_that_are_delta_apart():
    runs = np.random.default_rng(5).normal(70, 0.05, (1000, 5, 10))
    runs[:, 1:] += 0.2
    assert 0.01 <= np.mean(["equivalent" in words_of(study) for study in runs]) <= 0.05


def test_intervals_hold_the_truth_in_nineteen_of_twenty():
    rng, many = np.random.default_rng(2), 2000
    a, b = rng.normal(70.5, 0.2, (many, 8)), rng.normal(70, 0.4, (many, 8))
    means = [stats.Mean.of(x) for x in a]
    assert 0.94 <= np.mean([m.low <= 70.5 <= m.high for m in means]) <= 0.96
    apart = [stats.compare(x, y, 0.2) for x, y in zip(a, b, strict=True)]
    assert 0.94 <= np.mean([one.low <= 0.5 <= one.high for one in apart]) <= 0.96


def test_three_tenths_of_a_point_are_found_by_ten_seeds_in_four_of_five_studies():
    runs = studies(1000, 2, 10, 0.15, np.random.default_rng(3), first=0.3)
    assert np.mean([words_of(study) == ["better"] for study in runs]) >= 0.8


def test_other_pictures_widen_what_other_runs_do_not_show():
    """Runs and pictures both at random: the crossed interval holds the truth, that of the runs alone does not."""
    rng, held, alone = np.random.default_rng(4), [], []
    for _ in range(300):
        hard = rng.normal(0, 1.5, (2, 300))  # each method has hard pictures of its own, drawn anew for each test set
        right = [rng.random((5, 300)) < 1 / (1 + np.exp(-h)) for h in hard]
        wide = stats.crossed(*right)
        runs = stats.compare(*(100 * r.mean(1) for r in right), 0.2)
        held.append(wide.low <= 0 <= wide.high)
        alone.append(runs.low <= 0 <= runs.high)
        assert wide.error >= runs.error * 0.999
    assert np.mean(held) >= 0.92
    assert np.mean(alone) < 0.8


def test_the_crossed_comparison_says_why_it_says_nothing():
    right = np.ones((3, 4), bool)
    assert "same number" in stats.crossed(right, right).reason
    assert "fewer than 2" in stats.crossed(right[:1], right).reason
    assert stats.crossed(right[:0], right).points is None
