"""A method of its own at each pooling place of a net: `soft:beta=2 | max`."""

import sys

import pytest
import torch
from torch import nn

from poolkit import cli
from poolkit.lab import other_nets
from poolkit.lab.nets import build, known_pool, pools
from poolkit.lab.recipe import Recipe
from poolkit.lab.run import Run
from poolkit.torch import Pool2d


def small(shape, classes):
    return nn.Sequential(
        nn.Conv2d(shape[0], 4, 3),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


def methods(model):
    return [layer.method.spelling for layer in model.modules() if isinstance(layer, Pool2d)]


def test_each_place_has_its_own_method_in_the_order_of_the_net():
    model = build("tutorial", "soft:beta=2.0|max", (1, 16, 16), 10, 0)
    assert [model.pool1.method.spelling, model.pool2.method.spelling] == ["soft:beta=2", "max"]
    x = torch.rand(2, 1, 16, 16)
    same = build("tutorial", "max | max", (1, 16, 16), 10, 0)
    assert torch.equal(same.eval()(x), build("tutorial", "max", (1, 16, 16), 10, 0).eval()(x))
    assert not torch.equal(model.eval()(x), same(x))


def test_the_spelling_is_normalised_so_that_equal_recipes_have_equal_hashes():
    assert Recipe(pool="soft:beta=2.0|max").pool == "soft:beta=2 | max" == known_pool("tutorial", "soft:beta=2 |max")
    assert Recipe(pool="soft:beta=2.0|max").hash("a") == Recipe(pool=" soft:beta=2 | max").hash("a")
    assert Recipe(pool="max | soft:beta=2").hash("a") != Recipe(pool="soft:beta=2 | max").hash("a")
    assert pools("tutorial", "max | soft") == ("max", "soft")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pool": "max | max | max"}, "names 3 pools; the net .tutorial. has 2 places(.|\n)*each of pool1, pool2"),
        ({"pool": "max | sotf"}, 'no pooling method "sotf"(.|\n)*nearest: soft'),
        ({"pool": "max |"}, 'no pooling method ""'),
        ({"pool": "max | soft", "pool_at": "conv2"}, "what stands at each place(.|\n)*take one of the two"),
    ],
)
def test_what_cannot_be_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        Recipe(**changes)


def test_the_places_of_a_net_of_ones_own_are_counted_when_it_is_built(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_nets", sys.modules[__name__])
    monkeypatch.setattr(other_nets, "_ALLOWED", set())
    assert methods(build("my_nets:small", "soft | max", (1, 16, 16), 10, 0)) == ["soft", "max"]
    with pytest.raises(ValueError, match="names 3 pools; the net has 2 places: 1, 3"):
        build("my_nets:small", "soft | max | avg", (1, 16, 16), 10, 0)


def test_train_and_its_report_take_one_method_for_each_place(tmp_path, capsys):
    words = ["train", "--data", "digits", "--epochs", "1", "--limit", "64", "--out", str(tmp_path / "run")]
    assert cli.main([*words, "--pool", "avg | genetic-weights:weights=9-1-3-2"]) == 0
    assert "genetic-weights:weights=9-1-3-2, 2×2" in capsys.readouterr().out
    run = Run.load(tmp_path / "run")
    assert methods(run.model())[1] == "genetic-weights:weights=9-1-3-2"
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "genetic-weights:<wbr>weights=<wbr>9-1-3-2" in page
