"""What is asked of a torch device beside computing on it.

Of a GPU this was never tried: no machine that tests poolkit has one.
"""

from __future__ import annotations

import torch

from poolkit.lab.peak import Peak


def fault(device: str) -> str:
    """Why this process cannot use a device, or ""."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as reason:  # torch asserts that it was built for the device
        return str(reason).splitlines()[0]
    return ""


def settle(place: torch.device) -> None:
    """Wait until a device has done what was asked of it: a clock that is read before would stop too early."""
    if place.type == "cuda":
        torch.cuda.synchronize(place)
    elif place.type != "cpu":
        getattr(torch, place.type).synchronize()


class GpuPeak:
    """From here on, the most memory that tensors take on a GPU at any one time beyond what they take now.

    WHY not what the process holds: that is the processor's memory, and torch keeps what it frees on a GPU.
    Argument: `place`, a CUDA device.
    """

    def __init__(self, place: torch.device) -> None:
        settle(place)
        self._place, self._start = place, torch.cuda.memory_allocated(place)
        torch.cuda.reset_peak_memory_stats(place)

    def grown(self) -> int | None:
        """Bytes."""
        return max(torch.cuda.max_memory_allocated(self._place) - self._start, 0)


class NoPeak:
    """Of other devices the memory is not measured."""

    def grown(self) -> int | None:
        """None."""
        return None


def peak_on(place: torch.device) -> Peak | GpuPeak | NoPeak:
    """What measures the memory of the work that follows, where it is done."""
    if place.type == "cuda":
        return GpuPeak(place)
    return Peak() if place.type == "cpu" else NoPeak()
