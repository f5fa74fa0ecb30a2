"""All randomness of the lab as a function of words: (seed, epoch, purpose) in, random numbers out.

There is no generator whose state could be lost: a run that was stopped draws, when it goes on, what it
would have drawn.
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_of(*words: int | str) -> int:
    """The 63-bit seed of these words: equal words, equal seed; any other words, an unrelated one.

    Arguments: `words`, integers and texts, such as `(0, 3, "order")` for the order of epoch 3 of seed 0.
    """
    text = "\x1f".join(f"{type(word).__name__}:{word}" for word in words)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def stream(seed: int, epoch: int, purpose: str) -> np.random.Generator:
    """A generator of its own for one purpose in one epoch of one seed."""
    return np.random.Generator(np.random.Philox(seed_of(seed, epoch, purpose)))


def order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which epoch `epoch` shows the n training pictures: int64 (n,), a permutation.

    It sorts raw 64-bit numbers because NumPy promises those for ever, while `Generator.permutation` may
    change with NumPy's version.
    """
    return np.argsort(stream(seed, epoch, "order").bit_generator.random_raw(n), kind="stable")


def coins(seed: int, epoch: int, n: int, purpose: str) -> np.ndarray:
    """A fair coin for each of n training pictures in an epoch: bool (n,)."""
    return stream(seed, epoch, purpose).bit_generator.random_raw(n) >= 2**63
