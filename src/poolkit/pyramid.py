"""Matrices along one axis of a pyramid: to the averages of n bins, and from n cells back to a map."""

from __future__ import annotations


def means(length: int, n: int) -> list[list[float]]:
    """The averages of the bins ⌊i·a/n⌋ … ⌈(i+1)·a/n⌉ − 1 of a = length cells, i = 0 … n − 1."""
    bins = [(i * length // n, -(-(i + 1) * length // n)) for i in range(n)]
    return [[1.0 / (b - a) if a <= i < b else 0.0 for i in range(length)] for a, b in bins]


def interpolation(n: int, length: int) -> list[list[float]]:
    """From n to so many cells, linear, corner on corner."""
    rows = []
    for i in range(length):
        place = i * (n - 1) / (length - 1) if length > 1 else 0.0
        rows.append([max(0.0, 1.0 - abs(place - j)) for j in range(n)])
    return rows
