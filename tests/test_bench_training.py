"""The measurements of training: next to Keras, part by part, method by method."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

import poolkit  # noqa: E402
from poolkit.cli import main  # noqa: E402
from poolkit.lab import bench_keras as keras_bench  # noqa: E402
from poolkit.lab.bench_keras import KerasMissing, bench_keras, in_words  # noqa: E402
from poolkit.lab.recipe import Recipe, named  # noqa: E402
from poolkit.lab.shares import OTHER, bench_methods, bench_profile, shares  # noqa: E402
from test_train import tiny  # noqa: E402

# It answers as keras_fit.py does, without Keras: each picture takes a millisecond.
PRETENDER = """#!{python}
import json, sys
from pathlib import Path
import numpy as np
x = np.load(Path(sys.argv[2]) / "x.npy")
print(json.dumps({{"keras": "0", "tensorflow": str(x.shape), "python": "0", "parameters": 0}}), flush=True)
for line in sys.stdin:
    print(json.dumps({{"seconds": int(line.split()[0]) / 1000}}), flush=True)
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def pretender(tmp_path):
    path = tmp_path / "python"
    path.write_text(PRETENDER.format(python=sys.executable), encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_keras_is_compared_on_the_same_pictures_and_its_epochs_with_a_whole_quick_run(pretender):
    found = bench_keras(tiny(), steps=2, rounds=6, batch=8, python=pretender)
    assert found["versions"]["tensorflow"] == "(96, 16, 16, 3)" and found["pictures"] == 16
    assert found["keras_images_per_second"] == pytest.approx(1000)
    assert found["keras_seconds_for_10_epochs"] == pytest.approx(10 * 96 / 1000)
    ratios = sorted(row["poolkit"] / row["keras"] for row in found["rounds"])
    assert found["ratio"]["low"] == ratios[0] and found["ratio"]["high"] == ratios[-1]
    ratios = sorted(10 * 96 / row["keras"] / row["quick_seconds"] for row in found["rounds"])
    assert found["quick"]["low"] == pytest.approx(ratios[0]) and ratios[0] <= found["quick"]["median"] <= ratios[-1]
    assert len(set(row["quick_seconds"] for row in found["rounds"])) == 6
    said = in_words(found)
    assert "as fast as Keras" in said and "95 % interval" in said and "process of its own" in said
    assert json.loads(json.dumps(found)) == found


def test_a_rival_that_cannot_start_or_dies_says_how_to_get_tensorflow(tmp_path, pretender):
    for python in (str(tmp_path / "nowhere"), "/bin/false"):
        with pytest.raises(KerasMissing, match="pip install tensorflow-cpu(.|\n)*--keras-python"):
            bench_keras(tiny(), steps=1, rounds=6, batch=8, python=python)
    with pytest.raises(ValueError, match="fewer than 6"):
        bench_keras(tiny(), rounds=5, python=pretender)
    with pytest.raises(ValueError, match="batch of at most 96"):
        bench_keras(tiny(), batch=97, python=pretender)


@pytest.mark.skipif(find_spec("tensorflow") is not None, reason="TensorFlow is here")
def test_without_tensorflow_the_command_says_so_in_words(capsys):
    assert main(["bench", "training", "--data", "digits", "--keras", "--steps", "1", "--rounds", "6"]) == 1
    said = capsys.readouterr().err
    assert "tensorflow" in said.lower() and "pip install tensorflow-cpu" in said and "Traceback" not in said


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs TensorFlow")
def test_keras_trains_the_tutorials_net():
    rival = keras_bench.Keras(tiny(side=32))
    try:
        assert rival.versions["parameters"] == 167_562 - 7 * 65
        assert rival.fit(32, 16) > 0
    finally:
        rival.close()


@pytest.mark.parametrize("pool", ["max", "soft", "stochastic"])
def test_the_shares_of_a_step_name_every_layer_both_ways_and_add_up(pool):
    found = shares(tiny(), Recipe(data="tiny", pool=pool, batch=16), steps=3)
    parts = found["parts"]
    assert sum(parts.values()) == pytest.approx(1) and min(parts.values()) >= 0
    layers = {f"{name} {way}" for name in ("conv1", "pool1", "conv2", "pool2", "dense1", "dense2")
              for way in ("forward", "backward")}  # fmt: skip
    assert set(parts) == layers | {"ReLU and flatten", "loss", "optimiser", "data", OTHER}
    assert list(parts.values()) == sorted(parts.values(), reverse=True)
    assert found["milliseconds"] > 0 and found["overhead"] > 0


def test_nothing_is_computed_backwards_below_a_whitened_layer():
    parts = shares(tiny(), named("quick", data="tiny", batch=16), steps=2)["parts"]
    assert {"conv1 backward", "pool1 backward"}.isdisjoint(parts) and parts["conv2 backward"] > 0


def test_both_recipes_are_profiled_and_too_few_pictures_are_refused():
    found = bench_profile(tiny(n=160), steps=1)
    assert {name: seen["recipe"]["batch"] for name, seen in found["profiles"].items()} == {
        "tutorial": named("tutorial").batch,
        "quick": named("quick").batch,
    }
    with pytest.raises(ValueError, match="at most 96"):
        bench_profile(tiny(), steps=1)


def test_every_window_method_is_compared_with_max():
    found = bench_methods(tiny(), steps=1, rounds=6, batch=8)
    assert list(found["methods"]) == list(poolkit.WINDOW_METHODS)
    assert found["methods"]["max"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert all(0 < ratio["low"] <= ratio["median"] <= ratio["high"] for ratio in found["methods"].values())
    with pytest.raises(ValueError, match="fewer than 6"):
        bench_methods(tiny(), rounds=5)


@pytest.mark.parametrize(("option", "key"), [("--profile", "profiles"), ("--methods", "methods")])
def test_the_command_answers_in_words_and_in_json(capfd, option, key):
    words = ["bench", "training", "--data", "digits", option, "--steps", "1", "--rounds", "6"]
    assert main(words) == 0
    said = capfd.readouterr().out
    assert "max" in said or "conv2 backward" in said
    assert main([*words, "--json"]) == 0
    assert key in json.loads(capfd.readouterr().out)


def test_two_measurements_at_once_are_refused(capsys):
    assert main(["bench", "training", "--profile", "--methods"]) == 2
    assert "one at a time" in capsys.readouterr().err
