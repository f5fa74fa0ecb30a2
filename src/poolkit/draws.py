"""Random numbers for the layers: keys, and uniform numbers that belong to an example, not to its batch."""

from __future__ import annotations

import hashlib
import math
import numbers

import torch
from torch import Tensor

#: For what a random method may ask one number, in each example.
DRAWS = ("region", "map", "layer")


def draw_shape(per: str | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """(N, C, *out) reduced to what gets one draw."""
    n, c, *out = shape
    return {"region": shape, "map": (n, c, *[1] * len(out)), "layer": (n, 1, *[1] * len(out))}[str(per)]


@torch.library.custom_op("poolkit::draw_key", mutates_args=())
def draw_key(x: Tensor, number: int) -> Tensor:
    """A random 63-bit key from torch's default generator on the CPU, on x's device.

    An opaque operator, so that a compiled graph draws the same key as eager code, and activation checkpointing, which
    restores the generator, draws it again.
    """
    return torch.randint(2**63 - 1, (), dtype=torch.int64).to(x.device)


@draw_key.register_fake
def _(x: Tensor, number: int) -> Tensor:
    return torch.empty((), dtype=torch.int64, device=x.device)


def uniform(key: Tensor, first: Tensor | int, shape: tuple[int, ...]) -> Tensor:
    """Counter-based uniform numbers in [0, 1), float32, multiples of 2⁻²⁴.

    Args:
        key: int64 scalar.
        first: number of the first example.
        shape: (N, …).

    The number at a place is a function of the key, of the example's number and of the place in the example: not of the
    batch it comes in, the thread, the memory layout or the device.
    """
    rows = torch.arange(shape[0], device=key.device) + first
    inner = torch.arange(math.prod(shape[1:]), device=key.device)
    example = _mix(key + (rows + 1) * -7046029254386353131)
    bits = _mix(example[:, None] + (inner + 1) * -7046029254386353131)
    return (_shift(bits, 40).float() * 2.0**-24).reshape(shape)


def _mix(z: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014), on int64 with wrap-around."""
    z = (z ^ _shift(z, 30)) * -4658895280553007687
    z = (z ^ _shift(z, 27)) * -7723592293110705685
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: torch's own keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def whole_seed(seed: object) -> int | None:
    """The seed as an int, or None; NumPy's integers count, booleans do not."""
    if seed is None:
        return None
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool):
        raise ValueError(f"seed={seed!r}: must be an int or None")
    return int(seed)


def seed_key(seed: int) -> int:
    """A 63-bit number and a sign from any integer: near seeds give keys that have nothing in common."""
    return int.from_bytes(hashlib.sha256(f"poolkit {seed}".encode()).digest()[:8], "big", signed=True)
