"""Tests draw the same numbers at each run: what `--seed` reaches."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis")

DRAWS = """
import atexit, json, random
from pathlib import Path
import pytest
from hypothesis import given, strategies as st

SAID = {"collected": random.random(), "generated": []}
atexit.register(lambda: Path("said.json").write_text(json.dumps(SAID)))

@pytest.fixture(scope="session")
def early():
    return random.random()

@pytest.fixture(scope="module")
def shared():
    import numpy
    return [random.random(), numpy.random.rand()]

def test_before():
    import numpy
    SAID["first"] = [random.random(), numpy.random.rand()]

@given(st.integers(), st.text())
def test_generated(number, text):
    SAID["generated"].append([number, text])

def test_shared(shared, early):
    SAID["shared"], SAID["early"], SAID["own"] = shared, early, random.random()
"""


def said(folder: Path, *arguments: str) -> Any:
    """What the tests drew, in a process and a folder of their own."""
    folder.mkdir(exist_ok=True)
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "test_draws.py").write_text(DRAWS)
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_draws.py", *arguments]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "said.json").read_text())


def test_a_run_draws_what_the_last_one_drew(tmp_path: Path) -> None:
    by_default = said(tmp_path / "a")
    assert said(tmp_path / "b") == by_default
    assert len(by_default["generated"]) == 100
    other = said(tmp_path / "c", "--seed", "1")
    assert said(tmp_path / "d", "--seed", "1") == other
    assert all(other[name] != drawn for name, drawn in by_default.items()), "the seed reaches each"
    own = [said(tmp_path / "e", "--hypothesis-seed", seed)["generated"] for seed in "23"]
    assert own[0] != own[1], "Hypothesis has its own seed still"


def test_what_tests_share_does_not_depend_on_the_tests_before(tmp_path: Path) -> None:
    whole, alone = said(tmp_path / "a"), said(tmp_path / "b", "-k", "test_shared")
    for name in ("shared", "early", "own"):
        assert whole[name] == alone[name]
