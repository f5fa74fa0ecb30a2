"""What all tests share.

Where random numbers start: the generators of `random` and NumPy, and PyTorch's and Keras's where they are imported,
begin at `--seed` when pytest starts, before each fixture that several tests share, and before each test. Hypothesis
draws by the test alone with `--seed 0`, else by the seed; its own `--hypothesis-seed` comes before both. Not seeded:
generators that a test makes without a seed (`numpy.random.default_rng()`), PyTorch's and Keras's in a test that is the
first to import them, and other processes.
"""

from __future__ import annotations

import gc
import math
import operator
import os
import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

# Workers of pytest-xdist share the cores already: more threads in each would only wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests that ask for more threads than there are idle cores must not pay for threads that spin while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Seconds after which a test says that something hangs. Not a measure of speed: on a busy machine all takes tenfold.
PATIENCE = 900

GUARD = 64  # numbers before and behind what the engine may write


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, help="where the generators start in each test")


def _start_generators(config: pytest.Config) -> None:
    seed = config.getoption("--seed")
    random.seed(seed)
    numpy.random.seed(seed)
    for name, start in (("torch", "manual_seed"), ("keras", "utils.set_random_seed")):
        if module := sys.modules.get(name):
            operator.attrgetter(start)(module)(seed)


def pytest_sessionstart(session: pytest.Session) -> None:
    """What is drawn while the tests are collected is the same at each run too."""
    _start_generators(session.config)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    """What several tests share does not depend on the tests before it: it is made before `_seeded` is."""
    if fixturedef.scope != "function":
        _start_generators(request.config)


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    """Each test draws the same numbers at each run; `make test ARGS="--seed 1"` tries others."""
    _start_generators(request.config)


@pytest.fixture(autouse=True)
def _unspoken() -> None:
    """A call of the command line leaves what it was told, such as --quiet; the next test was told nothing."""
    if console := sys.modules.get("poolkit.console"):
        console.start(())


@pytest.hookimpl(tryfirst=True)  # before Hypothesis's, which reads its seed
def pytest_configure(config: pytest.Config) -> None:
    _set_up_hypothesis(config)
    config.addinivalue_line("markers", "xdist_group: the worker of pytest-xdist that runs the test")


def _set_up_hypothesis(config: pytest.Config) -> None:
    """Where its draws begin, and no deadlines: on a busy machine any example takes longer than the one before."""
    try:
        from hypothesis import settings
    except ImportError:
        return
    seed, own = config.getoption("--seed"), config.getoption("--hypothesis-seed", None)
    settings.register_profile("patient", deadline=None, derandomize=seed == 0 and own is None)
    settings.load_profile("patient")
    if seed and own is None:
        config.option.hypothesis_seed = str(seed)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist, which reads the mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of a method go to one worker, so that no two workers compile the same kernels."""
    for item in items:
        call = getattr(item, "callspec", None)
        names = [name for value in call.params.values() if (name := _method_name(value))] if call else []
        if names:
            item.add_marker(pytest.mark.xdist_group(names[0]))


def _method_name(value: Any) -> str | None:
    from poolkit import WINDOW_METHODS

    name = value.partition(":")[0] if isinstance(value, str) else getattr(getattr(value, "card", None), "name", None)
    return name if name in WINDOW_METHODS else None


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


class EngineRuns:
    """What the engine did: how often it ran, and whether it wrote only where it may.

    Its outputs and its scratch memory begin as NaN and lie between guards of NaN: a cell that it does not write, or
    that it makes of what lies outside, is NaN, and a write outside shows in the guards.
    """

    def __init__(self) -> None:
        self.count = 0
        self._guarded: list[tuple[Any, int, int]] = []

    def empty(self, shape: tuple[int, ...], x: Any, last: bool) -> Any:
        """In place of torch.empty."""
        import numpy as np
        import torch

        count = math.prod(shape)
        memory = np.full(count + 2 * GUARD, np.nan, str(x.dtype).removeprefix("torch."))
        self._guard(memory, GUARD, GUARD + count)
        dense = memory[GUARD : GUARD + count]
        if not last:
            return torch.from_numpy(dense.reshape(shape))
        n, c, *sizes = shape
        return torch.from_numpy(np.moveaxis(dense.reshape(n, *sizes, c), -1, 1))

    def scratch(self, size: int) -> tuple[Any, int]:
        """In place of memory that is kept from call to call."""
        import numpy as np

        memory = np.full(size // 8 + 9 + GUARD, np.nan)
        address = memory.ctypes.data
        begin = -(-address // 64) * 64
        self._guard(memory, 0, -(-(begin - address + size) // 8))
        return memory, begin

    def _guard(self, memory: Any, begin: int, end: int) -> None:
        if len(self._guarded) > 200:
            self.check()
        self._guarded.append((memory, begin, end))

    def check(self) -> None:
        """No guard was written to."""
        for memory, begin, end in self._guarded:
            outside = [*memory[:begin], *memory[end:]]
            assert all(map(math.isnan, outside)), f"the engine wrote outside its {end - begin} numbers"
        self._guarded.clear()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineRuns]:
    """The engine under guard: see `EngineRuns`."""
    pytest.importorskip("numba")
    from poolkit.kernels import cpu, op

    runs, run = EngineRuns(), cpu.Job.run

    def counted(job: Any, *arguments: Any) -> None:
        runs.count += 1
        run(job, *arguments)

    monkeypatch.setattr(cpu.Job, "run", counted)
    monkeypatch.setattr(cpu, "_memory", runs.scratch)
    monkeypatch.setattr(op, "_empty", runs.empty)
    yield runs
    runs.check()


@pytest.fixture(scope="session")
def timm() -> Any:
    """timm, which imports torchvision: beside a CPU build of torch two declarations are missing for that."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchvision  # noqa: F401
        except ImportError:
            pass
        except RuntimeError:  # the wheels are built for CUDA, and their operators cannot be loaded
            for name in ("nms", "qnms"):
                torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
        return pytest.importorskip("timm", reason="timm is not installed")


@pytest.fixture(scope="module")
def quick_collections():
    """Statsmodels' Holm collects garbage at every call, which is slow where there are many objects."""
    gc.freeze()
    yield
    gc.unfreeze()
