"""What is asked of a torch device beside computing on it.

Of a GPU this was never tried: no machine that tests poolkit has one.
"""

from __future__ import annotations

import torch


def fault(device: str) -> str:
    """Why this process cannot use a device, or ""."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as reason:  # torch asserts that it was built for the device
        return str(reason).splitlines()[0]
    return ""
