"""Methods of one's own: `module:Class:b=2` wherever a method is spelled, and no code that only a file asks for."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

import poolkit  # noqa: E402
import studies  # noqa: E402
from poolkit import Card, WindowMethod, own, param  # noqa: E402
from poolkit.check import check  # noqa: E402
from poolkit.cli import main  # noqa: E402
from poolkit.lab import other_nets  # noqa: E402
from poolkit.lab.data import digits  # noqa: E402
from poolkit.lab.findings import findings  # noqa: E402
from poolkit.lab.recipe import Recipe  # noqa: E402
from poolkit.lab.record import RunError  # noqa: E402
from poolkit.lab.run import Run  # noqa: E402
from poolkit.lab.study import Request, Study  # noqa: E402
from poolkit.lab.train import train  # noqa: E402
from poolkit.report.study import build_study  # noqa: E402
from poolkit.torch import Pool2d, swap  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

MODULE = '''
from dataclasses import dataclass
from typing import ClassVar

import poolkit
from poolkit import Card, param


@dataclass(frozen=True)
class Share(poolkit.WindowMethod):
    """A share b of the largest cell, the rest of the mean."""

    b: float = param(0.5, low=0.0, high=4.0, learnable=True, says="share of the largest cell", tries=(1.0,))
    card: ClassVar[Card] = Card("share", "Share", "y = b max x + (1 - b) mean x", "nobody", "test")

    def reduce(self, w, p):
        return p.b * w.max(w.x) + (1 - p.b) * w.mean(w.x)

    def oracle(self, w, p):
        return p.b * max(w.x) + (1 - p.b) * sum(w.x) / len(w.x)


class Bare(poolkit.WindowMethod):
    pass


@dataclass(frozen=True)
class Vector(poolkit.HeadMethod):
    card: ClassVar[Card] = Card("vector", "Vector", "y = mean", "nobody", "test")
'''
NET = """
from torch import nn
from poolkit.torch import Pool2d

def small(shape, classes):
    pool = Pool2d("mine_to_test:Share:b=1", 2)
    return nn.Sequential(nn.Conv2d(shape[0], 2, 3), nn.ReLU(), pool, nn.Flatten(), nn.LazyLinear(classes))
"""
NAMES = ("mine_to_test", "net_to_test")
FEW = ("--data", "digits", "--epochs", "1", "--limit", "60")


def forget():
    """As a process that has imported nothing of it and allowed nothing."""
    for name in NAMES:
        sys.modules.pop(name, None)
    own._ALLOWED.clear()
    other_nets._ALLOWED.clear()
    importlib.invalidate_caches()


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module with a method, and one with a net that has it, in the current folder; the method's spelling."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own, "_ALLOWED", set())
    monkeypatch.setattr(other_nets, "_ALLOWED", set())
    Path("mine_to_test.py").write_text(MODULE, encoding="utf-8")
    Path("net_to_test.py").write_text(NET, encoding="utf-8")
    forget()
    yield "mine_to_test:Share"
    forget()


@pytest.fixture
def call(capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def run(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


# How it is spelled


@pytest.mark.parametrize("parameters", ["", ":b=2", ":b=learn", ":b=learn@1x4"])
def test_a_spelling_reads_back(mine, parameters):
    found = poolkit.method(mine + parameters)
    assert type(found).__name__ == "Share"
    assert poolkit.method(found.spelling) == found and poolkit.method(str(found)) == found
    assert poolkit.method(f" {mine}:b=2.0 ").spelling == f"{mine}:b=2"


def test_layers_and_swap_take_it_and_show_it(mine):
    layer = Pool2d(f"{mine}:b=1", 2)
    assert f"'{mine}:b=1'" in repr(layer)
    assert torch.equal(layer(torch.arange(16.0).reshape(1, 1, 4, 4)).flatten(), torch.tensor([5.0, 7.0, 13.0, 15.0]))
    swapped = swap(torch.nn.Sequential(torch.nn.MaxPool2d(2)), f"{mine}:b=learn")
    assert swapped.model[0].method.spelling == f"{mine}:b=learn@0.5"


def test_a_module_may_have_the_name_that_is_on_the_card(mine, tmp_path):
    Path("share.py").write_text(MODULE, encoding="utf-8")
    found = poolkit.method("share:Share:b=2")
    assert poolkit.method(found.spelling) == found
    [result] = check(found, only=["card"])
    assert result.passed, result.detail
    sys.modules.pop("share")


def test_names_of_poolkits_methods_win(mine, tmp_path):
    Path("soft.py").write_text(MODULE, encoding="utf-8")
    with pytest.raises(ValueError, match='"soft" has no parameter "Share"'):
        poolkit.method("soft:Share")
    assert "soft" not in sys.modules


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("mine_to_test:Shar", 'no class "Shar"(.|\n)*Share'),
        ("mine_to_test:poolkit", "not a pooling method"),
        ("mine_to_test:Bare", "has no card(.|\n)*poolkit check mine_to_test:Bare"),
        ("mine_to_test:Share:c=2", '"mine_to_test:Share" has no parameter "c"(.|\n)*its parameters: b'),
        ("mine_to_test:Share:b=9", "number from 0 to 4"),
        ("no_such_module_here:Share", 'no module "no_such_module_here"'),
        ("sotf:beta", "nearest: soft"),
        ("__main__:Share", "defined in __main__(.|\n)*my_module:Share"),
        ("mine_to_test:make.<locals>.Share:b=2", "inside a function(.|\n)*my_module:Share"),
        ("mine:b=2", 'no pooling method "mine"'),
    ],
)
def test_what_cannot_be_read_says_what_to_do(mine, spelling, words, call):
    with pytest.raises(ValueError, match=words):
        poolkit.method(spelling)
    code, _, err = call("show", spelling)
    assert code == 2 and "--verbose" not in err


def test_a_class_inside_a_function_says_where_it_is_and_is_refused_when_read():
    @dataclasses.dataclass(frozen=True)
    class Local(WindowMethod):
        """Only here."""

        b: float = param(0.5, low=0.0, high=1.0, says="nothing")
        card = Card("local", "Local", "y = 0", "nobody", "test")

    assert Local(b=1).spelling.endswith("<locals>.Local:b=1")
    with pytest.raises(ValueError, match="inside a function"):
        poolkit.method(Local().spelling)


# The command line


def test_show_and_check_take_it(mine, call):
    code, out, _ = call("show", f"{mine}:b=2")
    assert code == 0 and f"Share · {mine}:b=2" in out
    code, out, _ = call("check", f"{mine}:b=2", "--only", "card", "--only", "oracle", "--only", "state")
    assert code == 0 and "3 of 3 contracts hold" in out


def test_a_run_of_it_is_read_again_only_by_who_trusts_its_code(mine, call, tmp_path):
    code, _, _ = call("train", *FEW, "--pool", f"{mine}:b=learn | max", "--out", "run")
    assert code == 0 and Path("run/report.html").exists()
    forget()
    run = Run.load("run")
    assert run.recipe["pool"] == f"{mine}:b=learn@0.5 | max"
    with pytest.raises(RunError, match="the code(.|\n)*--trust-net"):
        run.model()
    assert call("report", "run")[0] == 1
    assert "mine_to_test" not in sys.modules
    own.allow(run.recipe["pool"])
    assert run.model().pool1.method.spelling == f"{mine}:b=learn@0.5"
    forget()
    assert call("report", "run", "--trust-net")[0] == 0


def test_who_has_imported_the_module_need_not_allow_it(mine, tmp_path, monkeypatch):
    run = train(Recipe(data="digits", pool=f"{mine}:b=2.0", epochs=1, limit=60), digits(), "run")
    assert run.recipe["pool"] == f"{mine}:b=2"
    forget()
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("mine_to_test")
    assert Run.load("run").model() is not None


def test_reading_a_recipe_a_run_or_a_study_imports_nothing(mine, tmp_path):
    recipe = Recipe(data="digits", pool="antigravity:Fly | max", head="antigravity:Float")
    assert recipe.pool == "antigravity:Fly | max" and Recipe.from_dict(recipe.as_dict()) == recipe
    Study.begin(tmp_path / "study", Request(("max", "antigravity:Fly"), 2, Recipe(data="digits"), "0" * 64))
    assert len(Study.load(tmp_path / "study").cells()) == 6
    assert "antigravity" not in sys.modules


def test_a_file_with_a_recipe_does_not_choose_the_code(mine, call):
    Path("winner.json").write_text(json.dumps({"recipe": {"data": "digits", "pool": mine, "epochs": 1, "limit": 60}}))
    code, _, err = call("train", "--recipe", "winner.json", "--out", "run")
    assert code == 2 and f"--pool {mine}" in err and "mine_to_test" not in sys.modules
    assert call("train", "--recipe", "winner.json", "--pool", mine, "--out", "run")[0] == 0


def test_evolve_takes_it_with_a_range(mine, call):
    pytest.importorskip("optuna")
    code, out, _ = call("evolve", "--data", "digits", "--method", f"{mine}:b=0.5..2", "--method", "max", "--dry-run")
    assert code == 0 and f"{mine}:b=0.5..2, max" in out
    code, _, err = call("evolve", "--data", "digits", "--method", "gem:p=learn..3", "--dry-run")
    assert code == 2 and "a range goes from a number up to a larger one" in err


# Studies


def test_a_study_of_it_is_reported_without_its_module_and_refused_to_a_changed_one(mine, call):
    words = ["compare", "max", mine, f"{mine}:b=2", *FEW, "--seeds", "2", "--workers", "1", "--tune", "2"]
    words += ["--no-robustness", "--out", "study"]
    code, _, err = call(*words)
    assert code == 0, err
    assert set(json.loads(Path("study/origin.json").read_text())["sources"]) == {"mine_to_test"}
    here = findings(Study.load("study"))
    assert here["counts"] == {"asked": 8, "finished": 8, "failed": 0, "missing": 0}
    assert "b" in here["tuning"]["rows"][1]["space"] and "b" not in here["tuning"]["rows"][2]["space"]

    Path("mine_to_test.py").write_text(MODULE + "# a word more\n", encoding="utf-8")
    forget()
    code, _, err = call(*words)
    assert code == 1 and "the file of mine_to_test" in err and "--out" in err

    Path("mine_to_test.py").unlink()
    shutil.rmtree("__pycache__", ignore_errors=True)
    forget()
    assert findings(Study.load("study")) == here
    assert call("report", "study")[0] == 0 and f"{mine}:b=2" in Path("study/report.html").read_text(encoding="utf-8")
    assert call("report", "study", "--verify")[0] == 0
    assert "mine_to_test" not in sys.modules


def test_the_page_of_a_study_imports_nothing(mine, tmp_path):
    poolkit.method(mine)
    methods = {"max": 0.5, "soft": 0.7, f"{mine}:b=2": 0.9}
    made = [
        studies.made(tmp_path / name, methods, baseline=name.replace("own", f"{mine}:b=2")) for name in ("max", "own")
    ]
    pages = [build_study(study.folder).read_text(encoding="utf-8") for study in made]
    forget()
    assert [build_study(study.folder).read_text(encoding="utf-8") for study in made] == pages
    assert f"{mine}:b=2" in pages[0] and "runs no code" in pages[0]
    assert "mine_to_test" not in sys.modules


def test_a_head_of_ones_own_is_no_row_of_a_study(mine, call):
    code, _, err = call("compare", "max", "mine_to_test:Vector", *FEW, "--dry-run")
    assert code == 2 and "--head" in err


# Nets of one's own


def test_a_net_keeps_its_pools_where_none_is_asked_for(mine, call):
    code, out, err = call("train", *FEW, "--net", "net_to_test:small", "--out", "kept")
    assert code == 0 and "pooling as made" in out and f"Pool2d {mine}:b=1, 2×2" in out, err
    assert Run.load("kept").recipe["pool"] == other_nets.AS_MADE
    code, out, _ = call("train", *FEW, "--net", "net_to_test:small", "--pool", "max", "--out", "replaced")
    assert code == 0 and "pooling max" in out and "Pool2d max, 2×2" in out
    forget()
    with pytest.raises(RunError, match="--trust-net"):
        Run.load("kept").model()
    other_nets.allow("net_to_test:small")
    assert [p.method.spelling for p in Run.load("kept").model().modules() if isinstance(p, Pool2d)] == [f"{mine}:b=1"]


def test_as_made_is_for_nets_of_others_and_for_all_their_places():
    with pytest.raises(ValueError, match="as-made keeps the pools of a net of others"):
        Recipe(pool="as-made")
    with pytest.raises(ValueError, match="pool_at(.|\n)*take one"):
        Recipe(net="net_to_test:small", pool="as-made", pool_at="2")


# Keras


def test_kerass_models_with_it_are_copied_saved_and_loaded_by_who_trusts_its_code(mine, tmp_path):
    import subprocess

    pytest.importorskip("keras")
    code = f"""
import sys
import keras, numpy as np
from poolkit import own
from poolkit.keras import Pooling2D, swap

x = np.arange(64, dtype="float32").reshape(1, 8, 8, 1)
model = keras.Sequential([keras.Input((8, 8, 1)), Pooling2D("{mine}:b=learn", 2), Pooling2D("{mine}:b=2", 2)])
same = [keras.models.clone_model(model), swap(keras.Sequential([keras.Input((8, 8, 1)), Pooling2D("max", 2),
        Pooling2D("{mine}:b=2", 2)]), "{mine}:b=learn", where=lambda layer: "max" in layer.name)]
model.save("model.keras")
same.append(keras.saving.load_model("model.keras", safe_mode=True))
for other in same:
    np.testing.assert_allclose(other.predict(x, verbose=0), model.predict(x, verbose=0))
del sys.modules["mine_to_test"]
own._ALLOWED.clear()
try:
    keras.saving.load_model("model.keras")
except Exception as error:
    assert "only runs where you say so" in str(error), error
else:
    raise SystemExit("a file chose which code runs")
assert "mine_to_test" not in sys.modules
own.allow("{mine}")
keras.saving.load_model("model.keras")

import dataclasses, poolkit
@dataclasses.dataclass(frozen=True)
class Here(type(model.layers[0].method)):
    pass
try:
    Pooling2D(Here(), 2).get_config()
except ValueError as error:
    assert "defined in __main__" in str(error) and "my_module:Here" in str(error), error
else:
    raise SystemExit("nobody could read it back")
"""
    import os

    source = str(Path(poolkit.__file__).parents[1])
    env = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": source}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
