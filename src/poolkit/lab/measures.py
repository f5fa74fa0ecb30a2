"""What a run's predictions come to: numbers of arrays, one run or several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

#: A stored float16 of 0 stands for anything up to half of the smallest one above it: the loss takes that half.
SMALLEST = 2.0**-25
BINS = 15


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The share of pictures whose most probable class is theirs: probabilities (N, classes), labels (N,)."""
    return float((probabilities.argmax(1) == labels).mean())


def nll(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean of −ln p of the true class; a p stored as 0 counts as 2⁻²⁵, the largest that float16 rounds to 0."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(true, SMALLEST)).mean())


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Brier's score, Σₖ (pₖ − [k is the label])², its mean over pictures: 0 to 2."""
    apart = probabilities.astype(np.float64)
    apart[np.arange(len(labels)), labels] -= 1.0
    return float((apart**2).sum(1).mean())


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float | None:
    """How far confidence and accuracy are apart, debiased, in bins of equal numbers of pictures.

        E² = Σ_b (n_b/N) [ (conf_b − acc_b)² − acc_b (1 − acc_b)/(n_b − 1) ],   the result is √max(E², 0)

    The subtracted term is what chance alone adds in a bin, so that fewer pictures do not look worse calibrated.
    Confidence is the largest probability; pictures of equal confidence stay in the test set's order.
    Source: A. Kumar, P. Liang and T. Ma, Verified Uncertainty Calibration, NeurIPS 2019 (the debiased estimator).
    None for fewer than two pictures a bin.
    """
    if len(labels) < 2 * bins:
        return None
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    squares = 0.0
    for chosen in np.array_split(np.argsort(confidence, kind="stable"), bins):
        n, share = len(chosen), float(right[chosen].mean())
        squares += n * ((float(confidence[chosen].mean()) - share) ** 2 - share * (1 - share) / (n - 1))
    return float(np.sqrt(max(squares / len(labels), 0.0)))


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """How many pictures of each class (rows) were given each class (columns): int64 (classes, classes)."""
    return np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes**2).reshape(classes, classes)


def class_accuracies(counts: np.ndarray) -> list[float | None]:
    """The share of each class's pictures that are right, from `confusion`; None for a class without pictures."""
    totals = counts.sum(1)
    return [float(counts[k, k] / n) if n else None for k, n in enumerate(totals)]


def pair_agreement(classes: np.ndarray) -> float | None:
    """The chance that two of several answers to one picture agree, over all pairs and pictures: (answers, N).

    None for fewer than two answers.
    """
    if len(classes) < 2:
        return None
    same = sum((count * (count - 1)).sum() for count in _counts(classes))
    return float(same / (len(classes) * (len(classes) - 1) * classes.shape[1]))


def cross_agreement(a: np.ndarray, b: np.ndarray) -> float | None:
    """The chance that an answer of A and one of B to one picture agree: (answers of A, N), (answers of B, N)."""
    if not len(a) or not len(b):
        return None
    kinds = int(max(a.max(), b.max())) + 1
    same = sum((one * two).sum() for one, two in zip(_counts(a, kinds), _counts(b, kinds), strict=True))
    return float(same / (len(a) * len(b) * a.shape[1]))


def _counts(classes: np.ndarray, kinds: int | None = None) -> list[np.ndarray]:
    """For each class how many of the answers to each picture are that class."""
    kinds = int(classes.max()) + 1 if kinds is None else kinds
    return [(classes == kind).sum(0, dtype=np.int64) for kind in range(kinds)]


def churn(classes: np.ndarray) -> float | None:
    """The share of pictures on which two runs of one method disagree, over all pairs of runs: (runs, N)."""
    agree = pair_agreement(classes)
    return None if agree is None else 1 - agree


def of_predictions(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """A run's accuracy (0 to 1), nll, brier and ece, from probabilities float16 (N, classes) and labels (N,)."""
    return {
        "accuracy": accuracy(probabilities, labels),
        "nll": nll(probabilities, labels),
        "brier": brier(probabilities, labels),
        "ece": calibration_error(probabilities, labels),
    }


def of_probes(probes: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    """What shifted and corrupted pictures show of a run.

    Arguments: `probes`, as `poolkit.lab.probes.probe` gives them; `labels`, of all test pictures.
    Returns `shift_consistency`, the chance that two shifts of one picture, drawn at random, get the same class (Zhang
    2019; over all pairs of shifts, not one draw); `shift_same`, that a shifted one gets the class of the unshifted;
    `shift_accuracy`; `corruption_accuracy`, the mean over corruptions and severities; `corruptions`, the accuracy of
    each corruption (rows) at each severity. All 0 to 1.
    """
    shifted, moves = probes["shift_classes"], probes["shift_moves"]
    still = (moves == 0).all(1)
    right = probes["corrupt_classes"] == labels[probes["corrupt_index"]]
    table = right.mean(2)
    return {
        "shift_consistency": pair_agreement(shifted),
        "shift_same": float((shifted[~still] == shifted[still]).mean()),
        "shift_accuracy": float((shifted == labels[probes["shift_index"]]).mean()),
        "corruption_accuracy": float(table.mean()),
        "corruptions": table.tolist(),
    }
