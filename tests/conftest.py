"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Workers of pytest-xdist share the cores already: more threads in each would only wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def cifar() -> Path:
    """The folder of CIFAR-10 in its official binary layout."""
    named = os.environ.get("POOLKIT_DATA")
    if not named:
        pytest.skip("POOLKIT_DATA does not name a folder that holds cifar-10-batches-bin")
    folder = Path(named) / "cifar-10-batches-bin"
    if not folder.is_dir():
        pytest.skip(f"no CIFAR-10: {folder} does not exist")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Nets this small are faster on one thread, and the kill test's other process uses one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
