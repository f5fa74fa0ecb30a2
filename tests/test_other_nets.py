"""Nets that are not poolkit's: timm's and anybody's, their pools replaced, and which places a pool may take."""

import sys

import pytest
import torch
from torch import nn

from poolkit.lab import other_nets
from poolkit.lab.data import digits
from poolkit.lab.nets import build
from poolkit.lab.recipe import Recipe
from poolkit.lab.run import Run, RunError
from poolkit.lab.train import train
from poolkit.torch import Pool2d

SHAPE = (1, 16, 16)


def small(shape, classes):
    """What a user would write into a file."""
    return nn.Sequential(
        nn.Conv2d(shape[0], 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_nets", sys.modules[__name__])
    monkeypatch.setattr(other_nets, "_ALLOWED", set())
    return "my_nets:small"


def methods(model):
    return [layer.method.spelling for layer in model.modules() if isinstance(layer, Pool2d)]


def test_pool_at_leaves_max_where_it_is_not_asked_for():
    assert methods(build("tutorial", "soft", (3, 32, 32), 10, 0)) == ["soft", "soft"]
    assert methods(build("tutorial", "soft", (3, 32, 32), 10, 0, at="conv2")) == ["max", "soft"]
    assert methods(build("tutorial", "soft", (3, 32, 32), 10, 0, at="pool1")) == ["soft", "max"]
    assert methods(build("tutorial", "soft", (3, 32, 32), 10, 0, at="pool1, conv2")) == ["soft", "soft"]


def test_a_place_that_the_net_has_not_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match='no pool at "conv3"(.|\n)*nearest: conv2(.|\n)*allowed: pool1, conv1'):
        Recipe(pool_at="conv3")
    with pytest.raises(ValueError, match="names of places"):
        Recipe(pool_at=1)


def test_without_places_a_recipe_keeps_the_hash_it_had():
    assert "pool_at" not in Recipe().as_dict()
    assert Recipe(pool_at="conv2").hash("d") != Recipe().hash("d")


def test_a_net_of_ones_own_has_its_windows_replaced_and_its_global_pool_kept(own):
    model = build(own, "soft", SHAPE, 5, 0)
    assert methods(model) == ["soft", "soft"]
    assert isinstance(model[5], nn.AdaptiveAvgPool2d)
    assert methods(build(own, "soft", SHAPE, 5, 0, at="4")) == ["soft"]
    assert type(build(own, "soft", SHAPE, 5, 0, at="5")[5]).__name__ == "GlobalPool2d"


def test_nets_that_differ_in_the_pool_start_from_the_same_weights_and_other_seeds_from_others(own):
    first, same, other = (
        build(own, *rest) for rest in (("max", SHAPE, 5, 1), ("avg", SHAPE, 5, 1), ("max", SHAPE, 5, 2))
    )
    assert torch.equal(first[0].weight, same[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


def test_it_trains_and_is_read_again_only_by_who_trusts_its_code(own, tmp_path):
    given = digits()
    run = train(Recipe(data="digits", net=own, pool="avg", pool_at="2", epochs=1, limit=64), given, tmp_path)
    assert run.status == "finished"
    assert Run.load(tmp_path).model() is not None  # this process trained it
    other_nets._ALLOWED.clear()
    with pytest.raises(RunError, match='is the code "my_nets:small"(.|\n)*--trust-net'):
        Run.load(tmp_path).model()
    other_nets.allow(own)
    assert methods(Run.load(tmp_path).model()) == ["avg"]


def test_loading_a_record_imports_nothing(own, tmp_path, monkeypatch):
    train(Recipe(data="digits", net=own, epochs=1, limit=64), digits(), tmp_path)
    record = (tmp_path / "run.json").read_text().replace("my_nets:small", "antigravity:fly")
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(RunError, match="the code"):
        Run.load(tmp_path).model()
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("net", "words"),
    [
        ("no_such_module:net", 'importing "no_such_module" failed'),
        ("my_nets:smal", 'has no callable "smal"'),
        ("my_nets:SHAPE", "no callable"),
        ("my_nets:methods", "cannot|positional"),
    ],
)
def test_a_net_that_cannot_be_made_says_why(own, net, words):
    with pytest.raises((ValueError, TypeError), match=words):
        build(net, "max", SHAPE, 5, 0)


def test_a_net_with_other_scores_than_classes_is_refused(own, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "wrong", lambda shape, classes: small(shape, classes + 1), raising=False)
    with pytest.raises(ValueError, match=r"gave \(1, 6\) for one picture: scores of shape \(1, 5\) are wanted"):
        build("my_nets:wrong", "max", SHAPE, 5, 0)


def test_quicks_first_weights_need_a_bias_and_say_so(timm):
    with pytest.raises(ValueError, match='start="whitened" needs(.|\n)*start="glorot"'):
        train(Recipe(data="digits", net="timm:resnet10t", start="whitened", epochs=1, limit=8), digits())


def test_a_model_of_timms_trains_with_its_windows_replaced(timm, tmp_path):
    run = train(
        Recipe(data="digits", net="timm:resnet10t", pool="soft", epochs=1, limit=64, batch=16), digits(), tmp_path
    )
    model = Run.load(tmp_path).model()
    assert run.status == "finished"
    assert "soft" in methods(model)
    with pytest.raises(ValueError, match='no model "resnet10"(.|\n)*nearest'):
        build("timm:resnet10", "soft", SHAPE, 10, 0)
