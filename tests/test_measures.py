"""What predictions come to: each measure against plain Python on few numbers, and at its ends."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

pytest.importorskip("statsmodels")

from poolkit.lab import measures  # noqa: E402

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 60)
SCORES = RNG.normal(0, 1, (60, 3)) + 1.5 * np.eye(3)[LABELS]
P = (np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True)).astype(np.float16)


def test_loss_and_score_are_their_sums():
    rows = [[float(p) for p in row] for row in P]
    pairs = list(zip(rows, LABELS, strict=True))
    assert measures.accuracy(P, LABELS) == sum(max(row) == row[y] for row, y in pairs) / 60
    assert measures.nll(P, LABELS) == pytest.approx(-sum(math.log(row[y]) for row, y in pairs) / 60)
    want = sum(sum((p - (k == y)) ** 2 for k, p in enumerate(row)) for row, y in pairs) / 60
    assert measures.brier(P, LABELS) == pytest.approx(want)


def test_a_probability_that_was_stored_as_0_costs_what_float16_cannot_tell_from_0():
    certain = np.array([[1, 0], [0, 1]], np.float16)
    assert measures.nll(certain, np.array([0, 0])) == pytest.approx(-math.log(2**-25) / 2)
    assert np.float16(2**-25) == 0 and np.float16(1.01 * 2**-25) > 0


def test_perfect_and_ignorant_answers():
    perfect, ignorant = np.eye(3, dtype=np.float16)[LABELS], np.full((60, 3), 1 / 3, np.float16)
    assert measures.of_predictions(perfect, LABELS) == {"accuracy": 1.0, "nll": 0.0, "brier": 0.0, "ece": 0.0}
    assert measures.nll(ignorant, LABELS) == pytest.approx(math.log(3), rel=1e-3)
    assert measures.brier(ignorant, LABELS) == pytest.approx(2 / 3, rel=1e-3)


def test_the_calibration_error_is_its_sum_over_bins():
    confidence, right = P.max(1).astype(float), P.argmax(1) == LABELS
    order, squares = sorted(range(60), key=lambda i: confidence[i]), 0.0
    for b in range(4):
        chosen = order[15 * b : 15 * (b + 1)]
        share = sum(right[i] for i in chosen) / 15
        gap = sum(confidence[i] for i in chosen) / 15 - share
        squares += 15 / 60 * (gap**2 - share * (1 - share) / 14)
    assert measures.calibration_error(P, LABELS, bins=4) == pytest.approx(math.sqrt(max(squares, 0)))
    assert measures.calibration_error(P[:7], LABELS[:7], bins=4) is None


def test_the_calibration_error_of_honest_answers_is_about_0_and_of_boasts_what_they_boast():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, 20_000)
    honest = np.stack([confidence, 1 - confidence], 1)
    labels = (rng.random(20_000) > confidence).astype(int)
    assert measures.calibration_error(honest, labels) < 0.01
    boast = np.full((20_000, 2), (0.95, 0.05))
    half = rng.integers(0, 2, 20_000)
    assert measures.calibration_error(boast, half) == pytest.approx(0.45, abs=0.01)


def test_confusion_counts_and_its_diagonal_is_what_is_right():
    counts = measures.confusion(P.argmax(1), LABELS, 4)
    for true, given in ((0, 0), (0, 2), (2, 1), (3, 3)):
        assert counts[true, given] == sum((y, k) == (true, given) for y, k in zip(LABELS, P.argmax(1), strict=True))
    shares = measures.class_accuracies(counts)
    assert shares[3] is None and shares[1] == pytest.approx((P.argmax(1) == LABELS)[LABELS == 1].mean())


def test_agreement_is_over_all_pairs():
    answers = RNG.integers(0, 3, (5, 20))
    pairs = [(a, b) for a, b in combinations(range(5), 2)]
    want = np.mean([(answers[a] == answers[b]).mean() for a, b in pairs])
    assert measures.pair_agreement(answers) == pytest.approx(want)
    assert measures.churn(answers) == pytest.approx(1 - want)
    others = RNG.integers(0, 4, (3, 20))
    want = np.mean([(a == b).mean() for a in answers for b in others])
    assert measures.cross_agreement(answers, others) == pytest.approx(want)
    assert measures.churn(answers[:1]) is None and measures.cross_agreement(answers[:0], others) is None


def test_shifts_and_corruptions():
    moves = np.array([(0, 0), (0, 1), (1, 0)])
    probes = {
        "shift_index": np.array([5, 7]),
        "shift_moves": moves,
        "shift_classes": np.array([[0, 1], [0, 2], [1, 1]]),
        "corrupt_index": np.array([1, 2]),
        "corrupt_classes": np.array([[[0, 0], [1, 1]], [[0, 1], [2, 2]]]),
    }
    labels = np.array([9, 0, 1, 9, 9, 0, 9, 1])
    found = measures.of_probes(probes, labels)
    assert found["shift_consistency"] == pytest.approx(2 / 6)  # of three pairs each picture has one that agrees
    assert found["shift_same"] == pytest.approx(2 / 4)
    assert found["shift_accuracy"] == pytest.approx(4 / 6)
    assert found["corruptions"] == [[0.5, 0.5], [1.0, 0.0]]
    assert found["corruption_accuracy"] == pytest.approx(0.5)
