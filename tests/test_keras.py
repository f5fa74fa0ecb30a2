"""Keras's three back ends, each in a process of its own: the layers' manners, and every method's numbers."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from poolkit import HEADS, MAP_METHODS, METHODS, WINDOW_METHODS
from poolkit.cli import main

BACKENDS = ("tensorflow", "jax", "torch")
TESTS = Path(__file__).parent / "keras_layers.py"


def needs(backend):
    for module in ("keras", backend):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install -e '.[keras-test]'")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_layers_have_kerass_manners(backend, request):
    needs(backend)
    # Every operation of JAX is compiled at its first use: that takes longer than these tests compute.
    settings = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    call = [sys.executable, TESTS, "--seed", str(request.config.getoption("--seed"))]
    done = subprocess.run(call, env={**os.environ, **settings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_jax_alone_is_enough_to_train_the_tutorial(tmp_path):
    needs("jax")
    code = """
import runpy, sys
from importlib.machinery import PathFinder
real = PathFinder.find_spec
hidden = ("torch", "tensorflow", "numba")
PathFinder.find_spec = classmethod(lambda cls, name, *a: None if name.split(".")[0] in hidden else real(name, *a))
runpy.run_path(sys.argv[0], run_name="__main__")
assert not {"torch", "tensorflow", "numba"} & set(sys.modules)
"""
    tutorial = Path(__file__).parents[1] / "examples" / "tutorial_keras.py"
    asked = [tutorial, "--data", "digits", "--epochs", "1", "--pool", "soft:beta=learn", "--out", tmp_path]
    code = f"import sys; sys.argv = {[str(word) for word in asked]!r}\n{code}"
    settings = {"KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **settings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    accuracy = float(re.search(r"soft:beta=learn: test loss .*, test accuracy ([\d.]+)%", done.stdout)[1])
    assert accuracy > 30, "one epoch on the digits gives about 60 %; ten classes by chance 10 %"


def test_what_the_cells_of_overlapping_windows_share_is_computed_once():
    # XLA, left alone, computes it again for each cell: then the ratio is in the hundreds.
    needs("jax")
    code = """
import time, jax, numpy as np
from poolkit.keras import Pooling2D
x = np.random.default_rng(0).normal(size=(4, 24, 24, 8)).astype("float32")
pools = [Pooling2D(name, 3, 1) for name in ("alpha-integration", "soft")]
work = [jax.jit(jax.grad(lambda x, pool=pool: pool(x).sum())) for pool in pools]
times = [[], []]
for turn in range(6):
    for seconds, slope in zip(times, work):
        began = time.perf_counter()
        slope(x).block_until_ready()
        seconds.append(time.perf_counter() - began)
print(np.median(np.divide(*times)[1:]))
"""
    settings = {"KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **settings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout) < 60


def test_the_page_has_the_layer_of_every_method_on_maps():
    page = (Path(__file__).parents[1] / "docs" / "api" / "keras.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?) \|", page, re.MULTILINE)
    assert set(MAP_METHODS) <= set(re.findall("`([^`]+)`", " ".join(rows)))


def test_the_extra_of_the_tutorial_has_what_it_needs_without_torch():
    tomli = pytest.importorskip("tomllib", reason="from Python 3.11 on")
    root = Path(__file__).parents[1]
    extras = tomli.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = {re.match(r"[\w-]+(\[\w+\])?", one)[0] for one in extras["tutorial"]}
    assert {"poolkit[keras]", "matplotlib", "scikit-learn", "pooch", "requests", "pillow"} <= named
    assert not {"torch", "numba", "tensorflow"} & named


@pytest.mark.parametrize("text", [None, '{"backend": "jax", "floatx": "float32", "epsilon": 1e-7}'])
def test_the_tutorial_leaves_the_choice_of_the_back_end_to_keras(tmp_path, text):
    needs("tensorflow")
    needs("jax")
    if text:
        tmp_path.joinpath("keras.json").write_text(text)
    script = Path(__file__).parents[1] / "examples" / "tutorial_keras.py"
    code = f"import runpy; print(runpy.run_path({str(script)!r})['keras'].backend.backend())"
    settings = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    settings |= {"KERAS_HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ["jax" if text else "tensorflow"], done.stderr[-3000:]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_method_has_the_numbers_of_its_equation(backend):
    needs(backend)
    from poolkit.lab.keras_parity import GEOMETRIES, ask, questions, variants

    # JAX compiles a second for each: a part of what `poolkit bench keras --parity` asks, all that learns learned.
    asked = [
        one
        for one in questions(list(WINDOW_METHODS), GEOMETRIES[:2])
        if one.method == variants(one.method.card.name)[-1]
        and (one.dtype == "float64" or (one.where == GEOMETRIES[0][0] and not one.draws))
    ]
    # Of methods on whole maps, each on its first geometry with its defaults, and drawing.
    first: dict[Any, Any] = {}
    for one in questions([*MAP_METHODS, *HEADS], dtypes=("float64",)):
        first.setdefault((one.method.card.name, one.draws), one)
    asked += first.values()
    worse = [
        f"{error.asked.method}, {error.asked.where}, {error.asked.data_format}, {error.asked.dtype}: {error.worst:.1e}"
        for error in ask(backend, asked)
        if not error.worst <= error.allowed
    ]
    assert not worse, "\n".join(worse)


def test_the_parity_page_has_every_method_within_the_bars():
    page = Path(__file__).parents[1] / "docs" / "keras-parity.md"
    if not page.exists():
        pytest.skip(f"no stored page: poolkit bench keras --parity --out {page}")
    pytest.importorskip("torch")
    from poolkit.lab.keras_parity import BARS

    line = r"^\| `(.+)` \| (float\d\d) \| (\S+) \| (.+) \|$"
    rows = re.findall(line, page.read_text(encoding="utf-8"), re.MULTILINE)
    assert {(name, dtype) for name, dtype, *_ in rows} == {(name, dtype) for name in METHODS for dtype in BARS}
    assert all(float(number) <= float(allowed) for _, _, allowed, numbers in rows for number in numbers.split(" | "))
    looser = {name for name, dtype, allowed, _ in rows if float(allowed) > BARS[dtype]}
    divide = {"lip", "ppm", "mpm", "compact-bilinear", "netvlad"}  # by nearly nothing, or add up to it
    assert looser <= divide


def test_the_parity_page_shows_the_worst_of_each_back_end():
    pytest.importorskip("torch")
    from poolkit.lab.keras_parity import GEOMETRIES, Error, markdown, questions

    asked = questions(["max"], GEOMETRIES[:2])
    found = {
        "jax": [Error(one, 1e-9, 2e-9, 3e-9) for one in asked],
        "torch": [Error(one, 4e-9, 0.0, 0.0) for one in asked],
    }
    page = markdown(found, "the command")
    assert "| `max` | float32 | 1.0e-06 | 3.0e-09 | 4.0e-09 |" in page and "`the command`" in page and "8 calls" in page


def test_a_step_is_timed_next_to_kerass_max_pooling(capsys):
    needs("torch")
    from poolkit.lab.bench_keras_layers import bench_keras_layers, in_words

    found = bench_keras_layers("torch", ["avg"], steps=1, rounds=6, batch=2)
    (row,) = found["rows"]
    assert row["method"] == "avg" and row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
    assert json.loads(json.dumps(found)) == found and "of 1 methods keep the bar" in in_words(found)
    with pytest.raises(RuntimeError, match="failed at once"):
        bench_keras_layers("no-such", ["avg"], steps=1, rounds=6)


def test_the_command_refuses_what_it_cannot_answer(capsys):
    assert main(["bench", "keras", "--parity", "--json"]) == 2
    assert "--parity compares all methods" in capsys.readouterr().err
    assert main(["bench", "keras", "--method", "sotf"]) == 2
    assert "soft" in capsys.readouterr().err
