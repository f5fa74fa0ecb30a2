"""The named recipes and what they are made of: schedule, mirroring, computed first layer, Muon."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import poolkit  # noqa: E402
from poolkit.lab import train as training  # noqa: E402
from poolkit.lab.chance import coins, order  # noqa: E402
from poolkit.lab.nets import build, whiten  # noqa: E402
from poolkit.lab.optimisers import Muon, orthogonal  # noqa: E402
from poolkit.lab.recipe import RECIPES, Recipe, named, options  # noqa: E402
from poolkit.lab.run import Run  # noqa: E402
from poolkit.lab.schedules import SCHEDULES  # noqa: E402
from poolkit.lab.train import Trainer, train  # noqa: E402
from poolkit.torch import Pool2d  # noqa: E402
from test_train import Stop, tiny  # noqa: E402

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def quick(**changes) -> Recipe:
    return named("quick", **{"data": "tiny", "epochs": 3, "batch": 20, **changes})


# Names


def test_the_tutorials_recipe_is_written_and_hashed_as_before_there_were_others():
    fields = {"data": "cifar10", "net": "tutorial", "pool": "max", "epochs": 10, "batch": 32, "optimiser": "adam"}
    fields |= {"lr": 0.001, "seed": 0, "limit": None}
    assert named("tutorial") == Recipe() and Recipe().as_dict() == fields
    asked = json.dumps({"recipe": fields, "data": "d"}, sort_keys=True, separators=(",", ":"))
    assert Recipe().hash("d") == hashlib.sha256(asked.encode()).hexdigest()


def test_whatever_quick_changes_is_written_down_and_part_of_the_hash():
    recipe = named("quick")
    assert RECIPES["quick"].items() <= recipe.as_dict().items()
    assert Recipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe
    plain = {f.name: f.default for f in dataclasses.fields(Recipe)}
    hashes = {dataclasses.replace(recipe, **{name: plain[name]}).hash("d") for name in RECIPES["quick"]}
    assert len(hashes | {recipe.hash("d")}) == len(RECIPES["quick"]) + 1


@pytest.mark.parametrize(
    "wrong",
    [{"schedule": "cosine"}, {"flip": 1}, {"flip": "yes"}, {"start": "white"}, {"optimiser": "muno"}, {"pool": "mux"}],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(wrong):
    with pytest.raises(ValueError, match="allowed|nearest"):
        quick(**wrong)


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match='no recipe "quik"(.|\n)*nearest: "quick"'):
        named("quik")


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(data="digits", seed=3), named("quick"), named("quick", flip=False, epochs=2, pool="soft:beta=2"),
        Recipe(flip=True, schedule="one-cycle", limit=7), named("quick", optimiser="adam", lr=0.003),
    ],
)  # fmt: skip
def test_the_command_line_asks_for_exactly_the_recipe_that_its_options_name(recipe, monkeypatch):
    from poolkit import cli
    from poolkit.lab import terminal

    class Asked(Exception):
        pass

    def data(name, data_dir, offline):
        return dataclasses.replace(tiny(), name=name)

    def carry_out(asked, *rest):
        seen.append(asked)
        raise Asked

    seen = []
    monkeypatch.setattr(terminal, "load", data)
    monkeypatch.setattr(terminal, "carry_out", carry_out)
    assert cli.main(["train", *options(recipe)]) == 1
    assert seen == [recipe]


def test_the_help_of_train_names_the_recipes_own_values(capsys):
    from poolkit import cli

    cli.main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for name in ("epochs", "batch", "optimiser", "lr", "schedule", "start"):
        first, second = (getattr(named(recipe), name) for recipe in ("tutorial", "quick"))
        assert f"tutorial {first}, quick {second}." in said


# Its parts


def test_one_cycle_rises_then_falls_to_nothing_and_constant_stays():
    steps = np.linspace(0, 1, 101)
    rates = [SCHEDULES["one-cycle"](x) for x in steps]
    top = int(np.argmax(rates))
    assert rates[0] == 0 and rates[top] == pytest.approx(1) and rates[-1] == pytest.approx(0) and min(rates) == 0
    assert (np.diff(rates[: top + 1]) > 0).all() and (np.diff(rates[top:]) < 0).all()
    assert {SCHEDULES["constant"](x) for x in steps} == {1.0}
    assert SCHEDULES["one-cycle"](1.5) == 0  # the benchmark takes more steps than a run has


def test_the_rate_follows_the_steps_of_the_whole_run(monkeypatch):
    rates = []
    real = training.learn

    def learn(model, optimiser, x, y):
        rates.append(optimiser.param_groups[0]["lr"])
        return real(model, optimiser, x, y)

    monkeypatch.setattr(training, "learn", learn)
    train(quick(epochs=2), tiny())
    curve = SCHEDULES["one-cycle"]
    np.testing.assert_allclose(rates, [named("quick").lr * curve((k + 0.5) / 10) for k in range(10)])


def test_coins_are_fair_and_a_function_of_seed_epoch_picture_and_purpose():
    toss = coins(0, 1, 4000, "flip")
    assert toss.dtype == bool and abs(toss.mean() - 0.5) < 0.03
    assert np.array_equal(toss[:100], coins(0, 1, 100, "flip"))
    for other in ((1, 1, 4000, "flip"), (0, 2, 4000, "flip"), (0, 1, 4000, "other")):
        assert abs((coins(*other) == toss).mean() - 0.5) < 0.03


def test_each_picture_is_shown_as_it_is_or_mirrored_as_its_coin_says(monkeypatch):
    shown = []
    real = training.learn
    monkeypatch.setattr(training, "learn", lambda m, o, x, y: shown.append(x.clone()) or real(m, o, x, y))
    data = tiny()
    train(quick(epochs=1), data)
    mirrored, pictures = coins(0, 1, 96, "flip"), torch.from_numpy(data.train_x).float() / 255
    assert 0 < mirrored.sum() < 96
    wanted = [pictures[k].flip(2) if mirrored[k] else pictures[k] for k in order(0, 1, 96)]
    assert torch.equal(torch.cat(shown), torch.stack(wanted))


@pytest.mark.parametrize(("shape", "pairs"), [((3, 16, 16), 16), ((1, 16, 16), 9)])
def test_whitened_filters_see_patches_with_mean_zero_and_no_correlation(shape, pairs):
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=(60, *shape)).cumsum(2).cumsum(3) * 8 + 128  # neighbours alike, as in pictures
    pixels = torch.from_numpy(smooth.clip(0, 255).astype(np.uint8)).permute(0, 2, 3, 1)
    model, plain = (build("tutorial", "max", shape, 3, 0) for _ in range(2))
    whiten(model, pixels)
    seen = model.conv1(pixels.permute(0, 3, 1, 2).float() / 255).transpose(0, 1).flatten(1).double()
    assert seen[: 2 * pairs].mean(1).abs().max() < 1e-3
    covariance = torch.cov(seen[:pairs])
    spread = covariance.diagonal()
    assert (spread < 1).all() and spread[0] > 0.9
    assert (covariance - spread.diag()).abs().max() < 1e-3
    torch.testing.assert_close(seen[pairs : 2 * pairs], -seen[:pairs], atol=1e-4, rtol=0)
    assert torch.equal(model.conv1.weight[2 * pairs :], plain.conv1.weight[2 * pairs :])
    assert not model.dense2.weight.any() and torch.equal(model.conv2.weight, plain.conv2.weight)


def test_a_whitened_layer_stays_and_all_others_learn():
    trainer = Trainer(quick(), tiny(), CPU)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.steps(1, torch.arange(96))
    trainer.steps(2, torch.arange(96))
    moved = {name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if not name.startswith("conv1.")}


def test_pictures_that_are_all_the_same_do_not_break_the_start():
    data = tiny()
    flat = dataclasses.replace(data, train_x=np.full_like(data.train_x, 7))
    assert train(quick(epochs=1, limit=1, batch=1), flat).status == "finished"


@pytest.mark.parametrize("shape", [(64, 288), (288, 64), (10, 10), (3, 1)])
def test_orthogonal_moves_all_singular_values_close_to_one_and_keeps_the_directions(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonal(1e3 * matrix)
    values = (u.t() @ made @ v.t()).double()
    torch.testing.assert_close(values, values.diagonal().diag(), atol=1e-4, rtol=0)
    large = s > s.max() / 20
    assert large.sum() >= len(s) - 1 and (values.diagonal()[large] > 0.6).all() and (values.diagonal() < 1.25).all()
    torch.testing.assert_close(orthogonal(matrix), made, atol=1e-4, rtol=0)
    assert not orthogonal(torch.zeros(shape)).any()


def test_muon_turns_hidden_matrices_and_steps_the_rest_as_adam_does():
    generator = torch.Generator().manual_seed(0)
    given = [nn.Parameter(torch.randn(s, generator=generator)) for s in ((4, 3, 2, 2), (4,), (3, 4), ())]
    twins = [nn.Parameter(p.detach().clone()) for p in given]
    muon = Muon(given, lr=0.5, momentum=0.8, vector_lr=0.1)
    adam = torch.optim.Adam(twins[1:], lr=0.05, betas=(0.9, 0.99))
    kept = torch.zeros(4, 12)
    for _ in range(3):
        for p, twin in zip(given, twins, strict=True):
            p.grad = twin.grad = torch.randn(p.shape, generator=generator)
        before = given[0].detach().clone()
        muon.step()
        adam.step()
        gradient = given[0].grad.flatten(1)
        kept = 0.8 * kept + gradient
        step = 0.5 * orthogonal(gradient + 0.8 * kept)
        torch.testing.assert_close(before.flatten(1) - given[0].detach().flatten(1), step, atol=1e-5, rtol=0)
        for p, twin in zip(given[1:], twins[1:], strict=True):
            torch.testing.assert_close(p, twin, atol=1e-5, rtol=1e-5)


# The run


@pytest.mark.parametrize("pool", ["max", "stochastic", "gem:p=learn"])
def test_a_resumed_quick_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, pool):
    whole = train(quick(pool=pool), tiny())
    for after, within in ((1, False), (2, True)):
        folder = tmp_path / f"{after}-{within}"
        with pytest.raises(KeyboardInterrupt):
            train(quick(pool=pool), tiny(), folder, watch=Stop(after, within))
        torch.rand(3)
        train(quick(pool=pool), tiny(), folder, resume=True)
        loaded = Run.load(folder)
        assert loaded.weights_sha256 == whole.weights_sha256 and loaded.final == whole.final
        assert loaded.model().conv1.weight.equal(whole.weights["conv1.weight"])


def test_quick_learns_the_textures_in_fewer_pictures_than_the_tutorial():
    data = tiny()
    few = train(quick(epochs=1, batch=16), data).final["accuracy"]
    plain = train(Recipe(data="tiny", epochs=1, batch=16), data).final["accuracy"]
    assert few > plain


def test_learned_pooling_below_and_above_the_fixed_layer_moves():
    rows = train(quick(pool="gem:p=learn"), tiny()).epochs
    assert all(rows[0]["learned"][name] != rows[-1]["learned"][name] for name in ("pool1.p", "pool2.p"))


def test_the_test_pictures_are_asked_once_an_epoch(monkeypatch, tmp_path):
    asked = []
    real = training.evaluate
    monkeypatch.setattr(training, "evaluate", lambda *given: asked.append(0) or real(*given))
    run = train(Recipe(data="tiny", epochs=2), tiny())
    assert len(asked) == 2 and run.final["accuracy"] == run.epochs[-1]["test_accuracy"]
    with pytest.raises(KeyboardInterrupt):
        train(Recipe(data="tiny", epochs=2), tiny(), tmp_path, watch=Stop(2))
    again = train(Recipe(data="tiny", epochs=2), tiny(), tmp_path, resume=True)
    assert len(asked) == 5 and again.final == run.final


# A ReLU that the pool takes along


@pytest.mark.parametrize("pool", [*poolkit.WINDOW_METHODS, "gem:p=learn"])
def test_a_pool_that_takes_the_relu_along_gives_the_same_bits(pool):
    model = build("tutorial", pool, (3, 16, 16), 3, 0).train()
    seen = []

    def look(layer, given, named, output):
        seen.append((given[0].min().item(), named.get("relu", False)))

    model.pool1.register_forward_hook(look, with_kwargs=True)
    # Whole numbers make many ties, and a constant corner makes windows of nothing but ties.
    x = torch.randint(-2, 3, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0)).float()
    x[:, :, :8] = 0
    with torch.no_grad():
        model.conv1.weight.mul_(8).round_()
        model.conv2.weight.mul_(8).round_()
    torch.manual_seed(0)
    scores = model(x)
    scores.square().sum().backward()
    assert seen[0][0] < 0 and seen[0][1] is True
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    torch.manual_seed(0)
    h = model.pool2(F.relu(model.conv2(model.pool1(F.relu(model.conv1(x))))))
    plain = model.dense2(F.relu(model.dense1(h.flatten(1))))
    plain.square().sum().backward()
    assert torch.equal(scores, plain)
    for name, p in model.named_parameters():
        assert torch.equal(grads[name], p.grad), name


class Noisy(Pool2d):
    """A layer of one's own, whose forward takes the picture alone."""

    def forward(self, x):
        return super().forward(x) + 1.0


@pytest.mark.parametrize("pool", [lambda: Noisy("soft", 2), lambda: Pool2d("blur", 2)], ids=["own", "blur"])
def test_a_layer_that_cannot_take_the_relu_along_gets_the_pictures_after_it(pool):
    model = build("tutorial", pool, (3, 16, 16), 3, 0).train()
    seen = []
    model.pool1.register_forward_hook(lambda layer, given, output: seen.append(given[0].min().item()))
    model(torch.randn(2, 3, 16, 16))
    assert seen[0] == 0


def test_a_net_with_max_pool2d_of_torchs_own_is_not_reordered():
    model = build("tutorial", lambda: nn.MaxPool2d(2), (3, 16, 16), 3, 0).train()
    seen = []
    model.pool1.register_forward_hook(lambda layer, given, output: seen.append(given[0].min().item()))
    model(torch.randn(2, 3, 16, 16))
    assert seen[0] == 0 and isinstance(build("tutorial", "max", (3, 16, 16), 3, 0).pool1, Pool2d)
