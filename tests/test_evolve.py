"""The genetic search over the pools of a net, and the window weights that it finds."""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("optuna")

from poolkit import GeneticWeights, cli, method  # noqa: E402
from poolkit.lab import evolve as module  # noqa: E402
from poolkit.lab import evolve_folder  # noqa: E402
from poolkit.lab.data import digits  # noqa: E402
from poolkit.lab.evolve import EvolveWatch, Request, Trial, ask, best, evolve, held_out  # noqa: E402
from poolkit.lab.genes import Choice, Genome  # noqa: E402
from poolkit.lab.recipe import Recipe  # noqa: E402
from poolkit.lab.record import RunError  # noqa: E402
from poolkit.torch import GlobalPool2d, Pool2d, pool  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
MENU = ("max", "avg", "genetic-weights:weights=1..9")
RECIPE = Recipe(data="digits", epochs=1, batch=16, lr=0.003, limit=256)
REQUEST = Request(RECIPE, MENU, population=4, generations=4)
WORDS = (
    "evolve --data digits --epochs 1 --batch 16 --lr 0.003 --limit 256 --population 4 --generations 4 "
    "--method max --method avg --method genetic-weights:weights=1..9 --threads 1"
).split()


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A search that nobody stopped, and its folder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return evolve(REQUEST, data, tmp_path_factory.mktemp("whole") / "search")
    finally:
        torch.set_num_threads(threads)


def without_time(trials):
    return [dataclasses.replace(trial, seconds=0.0) for trial in trials]


# The search


def test_it_beats_its_own_first_generation(whole):
    first = best(whole.trials[: REQUEST.population])
    assert whole.winner.accuracy > first.accuracy and whole.winner.generation > 1
    assert [trial.generation for trial in whole.trials] == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    written = json.loads((whole.folder / "winner.json").read_bytes())
    assert written["validation_accuracy"] == whole.winner.accuracy > written["first_generation_accuracy"]
    assert (whole.folder / "search.png").read_bytes().startswith(b"\x89PNG")
    assert len((whole.folder / "log.txt").read_text(encoding="utf-8").splitlines()) == REQUEST.nets


def test_the_winner_is_a_recipe_that_train_accepts(whole, tmp_path, capsys):
    written = json.loads((whole.folder / "winner.json").read_bytes())
    assert Recipe.from_dict(written["recipe"]) == whole.recipe() == dataclasses.replace(RECIPE, pool=whole.winner.pool)
    words = shlex.split(written["command"])
    assert words[:2] == ["poolkit", "train"]
    assert cli.main([*words[1:], "--threads", "1", "--out", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == written["recipe"]


def test_the_command_that_a_search_ends_with_trains_the_winner(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "evolve --data digits --epochs 1 --batch 16 --lr 0.003 --limit 64 --population 2 --generations 1 --seed 3"
    words += " --method max --method soft:beta=0.1..10 --head netvlad:clusters=2 --threads 1 --data-dir my\\ pictures"
    assert cli.main(shlex.split(words)) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    winner = tmp_path / "runs" / "evolve-digits-seed3" / "winner.json"
    assert last == "next: poolkit train --recipe runs/evolve-digits-seed3/winner.json --data-dir 'my pictures'"
    assert cli.main([*shlex.split(last)[2:], "--threads", "1", "--json"]) == 0
    found, wanted = json.loads(capsys.readouterr().out), json.loads(winner.read_bytes())["recipe"]
    assert found["recipe"] == wanted and wanted["head"] == "netvlad:clusters=2" and wanted["seed"] == 3
    assert found["folder"].startswith("runs/digits-") and found["folder"].endswith("-winner-seed3")
    # What is said beside the file counts more than the file; a bare recipe and a run are files with a recipe too.
    (tmp_path / "bare.json").write_text(json.dumps(wanted))
    for number, file in enumerate(("bare.json", f"{found['folder']}/run.json")):
        words = f"train --recipe {file} --seed 4 --pool avg --limit 32 --threads 1 --json --out run{number}".split()
        assert cli.main(words) == 0
        again = json.loads(capsys.readouterr().out)
        assert again["recipe"] == {**wanted, "seed": 4, "pool": "avg", "limit": 32}


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (None, 1, "no recipe.json"),
        ("{", 1, "is damaged"),
        ("[]", 1, "holds no JSON object"),
        ('{"recipe": 3}', 1, "holds no recipe: its recipe is no JSON object"),
        ('{"recipe": {"pol": "max"}}', 1, 'nearest: "pool"'),
        ('{"recipe": {"pool": "sotf"}}', 1, "nearest: soft"),
        ('{"lr": "fast"}', 1, "a learning rate above 0"),
        ('{"net": "json:loads", "data": "digits"}', 2, "if you trust it: --net json:loads"),
    ],
)
def test_a_file_without_a_recipe_that_can_be_is_refused(content, code, says, tmp_path, capsys):
    path = tmp_path / "recipe.json"
    if content is not None:
        path.write_text(content)
    assert cli.main(["train", "--recipe", str(path), "--out", str(tmp_path / "run")]) == code
    assert says in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_killed_and_resumed_it_ends_the_same(data, whole, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "poolkit", *WORDS, "--out", str(tmp_path / "search")]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, text=True
    ) as one:
        while "net  5/16" not in (line := one.stderr.readline()):
            assert line, "it ended before it could be killed"
        os.kill(one.pid, signal.SIGKILL)
    done = len(list((tmp_path / "search").glob("net-*.json")))
    assert 5 <= done < REQUEST.nets and not (tmp_path / "search" / "winner.json").exists()

    class Count(EvolveWatch):
        told = 0

        def trial(self, trial, trials):
            self.told += 1

    watch = Count()
    again = evolve(REQUEST, data, tmp_path / "search", resume=True, watch=watch)
    assert watch.told == REQUEST.nets - done
    assert without_time(again.trials) == without_time(whole.trials)
    winners = [(folder / "winner.json").read_bytes() for folder in (again.folder, whole.folder)]
    assert winners[0] == winners[1]


def test_what_is_asked_next_follows_from_what_is_finished_alone(whole, data):
    genome = Genome.of(MENU, "tutorial", data.shape, 10)
    for number in (0, 3, 4, 9, 15):
        genes, attributes = ask(REQUEST, genome, whole.trials[:number])
        assert (genes, attributes) == (whole.trials[number].genes, whole.trials[number].attributes)
    other = [*whole.trials[:8], dataclasses.replace(whole.trials[8], accuracy=1.0)]
    assert ask(REQUEST, genome, other)[0] == whole.trials[9].genes  # its generation is not over
    seeded = dataclasses.replace(REQUEST, recipe=dataclasses.replace(RECIPE, seed=1))
    assert ask(seeded, genome, [])[0] != whole.trials[0].genes


def test_children_have_the_genes_of_the_best_of_the_generations_before(whole, data):
    genome = Genome.of(MENU, "tutorial", data.shape, 10)
    request = dataclasses.replace(REQUEST, mutation=0.0)
    parents = sorted(whole.trials[:4], key=lambda trial: -trial.accuracy)
    genes, _ = ask(request, genome, whole.trials[:4])
    for name in ("1.method", "2.method"):
        assert genes[name] in {parent.genes[name] for parent in parents}
    last = whole.trials[:12]
    better = [dataclasses.replace(trial, accuracy=float(trial.number in (1, 2, 5, 7))) for trial in last]
    genes, _ = ask(dataclasses.replace(request, crossover=0.0), genome, better)
    assert genes in [last[number].genes for number in (1, 2, 5, 7)]


def test_new_pools_are_preferred_and_equal_ones_trained_once(data, whole, monkeypatch):
    assert len({trial.pool for trial in whole.trials}) == REQUEST.nets
    asked = []

    def counted(recipe, *given, **named):
        asked.append(recipe.pool)
        return SimpleNamespace(final={"accuracy": len(asked) / 10, "loss": 1.0})

    monkeypatch.setattr(module, "train", counted)
    trials = evolve(Request(RECIPE, ("max", "avg"), population=3, generations=3), data).trials
    assert len(trials) == 9 and len(asked) == len(set(asked)) == len({trial.pool for trial in trials}) <= 4
    first = {trial.pool: trial.accuracy for trial in reversed(trials)}
    assert all(trial.accuracy == first[trial.pool] for trial in trials)


def test_a_training_that_diverges_has_the_accuracy_0(data, monkeypatch):
    finals = iter([None, {"accuracy": 0.5, "loss": 1.0}] * 4)
    monkeypatch.setattr(module, "train", lambda *given, **named: SimpleNamespace(final=next(finals)))
    request = Request(RECIPE, ("max", "avg"), population=2, generations=1, seeds=2)
    for trial in evolve(request, data).trials:
        assert (trial.accuracies, trial.accuracy, trial.loss) == ((0.0, 0.5), 0.25, None)


def test_the_best_is_the_accurate_then_the_sure_then_the_early():
    def trial(number, accuracy, loss):
        return Trial(number, 1, {}, {}, "max", (accuracy,), accuracy, loss, 1.0)

    trials = [trial(0, 0.5, None), trial(1, 0.5, 2.0), trial(2, 0.5, 1.0), trial(3, 0.5, 1.0), trial(4, 0.4, 0.1)]
    assert best(trials).number == 2 and best(trials[:2]).number == 1


# What it may look at


class Sealed:
    """A data set whose test pictures cannot be opened."""

    def __init__(self, data):
        self._data = data

    def __getattr__(self, name):
        assert not name.startswith("test"), "the search looked at the test pictures"
        return getattr(self._data, name)


def test_the_test_pictures_are_never_looked_at(data, whole):
    short = dataclasses.replace(REQUEST, generations=1)
    found = evolve(short, Sealed(data))
    assert without_time(found.trials) == without_time(whole.trials[:4])
    with pytest.raises(AssertionError, match="test pictures"):
        _ = Sealed(data).test_x


def test_the_training_pictures_are_parted_by_the_seed(data):
    parts = held_out(data, 0, 0.2)
    assert (len(parts.train_x), len(parts.test_x)) == (1150, 287)
    joined = np.concatenate([parts.train_x, parts.test_x]).reshape(len(data.train_x), -1)
    assert sorted(map(bytes, joined)) == sorted(map(bytes, data.train_x.reshape(len(data.train_x), -1)))
    assert held_out(data, 0, 0.2).sha256 == parts.sha256 != held_out(data, 1, 0.2).sha256
    with pytest.raises(ValueError, match="leaves a part empty"):
        held_out(dataclasses.replace(data, train_x=data.train_x[:2], train_y=data.train_y[:2]), 0, 0.2)


# Genes


def test_a_gene_is_a_place_in_a_range():
    assert [Choice.parse("soft:beta=0.1..10").spelling(share, ()) for share in (0.0, 0.5, 1.0)] == [
        "soft:beta=0.1",
        "soft",
        "soft:beta=10",
    ]
    ranks = Choice.parse("avg-topk:k=1..4")
    assert [method(ranks.spelling(share, ())).k for share in (0.0, 0.24, 0.26, 0.99, 1.0)] == [1, 1, 2, 4, 4]
    assert Choice.parse("blend:a=0..1").spelling(0.25, ()) == "blend:a=0.25"
    fixed = Choice.parse("rank-weighted:normalize=true,alpha=0.25..1").spelling(0.5, ())
    assert fixed == "rank-weighted:normalize=true"  # in the middle of the logarithms, alpha's default
    weights = Choice.parse("genetic-weights:weights=1..9").spelling(0.0, (0.0, 0.999, 1.0, 0.5))
    assert weights == "genetic-weights:weights=1-9-9-5"


def small(shape, classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 3), nn.AvgPool2d(2), nn.Flatten(),
                         nn.LazyLinear(classes))  # fmt: skip


def test_a_net_of_ones_own_has_genes_for_its_places_and_its_largest_window(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_nets", sys.modules[__name__])
    genome = Genome.of(MENU, "my_nets:small", (1, 32, 32), 10)
    assert (genome.places, genome.cells) == (2, 9)
    assert Genome.of(("max", "lp:p=1..4"), "tutorial", (1, 32, 32), 10).cells == 0
    genes = {name: 0.0 for name in genome.distributions()} | {"1.method": MENU[2], "2.method": "avg", "1.cell9": 1.0}
    assert genome.pool(genes) == "genetic-weights:weights=1-1-1-1-1-1-1-1-9 | avg"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sotf", "nearest: soft"),
        ("soft:beta=1..x", "is not allowed"),
        ("soft:beta=2..1", "up to a larger one"),
        ("lp:p=0.1..4", "allowed: number ≥"),
        ("ordinal:init=avg..max", "from a number"),
        ("genetic-weights:weights=0..9", "from 0.001 to 1000"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        Choice.parse(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("strip", "takes no window"),
        ("spp", "takes no window"),
        ("bilinear", "a head method"),
        ("s3:grid=3", "no multiple of the stride"),
        ("s3:grid=2..3", "no multiple of the stride"),  # at one end of its range
    ],
)
def test_a_method_that_the_net_cannot_have_is_refused_before_anything_is_written(
    text, reason, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(module, "train", lambda *given, **named: pytest.fail("a net was trained"))
    folder, state = tmp_path / "search", torch.random.get_rng_state()
    with pytest.raises(ValueError, match=f'menu: "{text}" cannot stand in the net "tutorial".*{reason}'):
        evolve(Request(RECIPE, ("max", text), population=2, generations=1), data, folder)
    for more in ((), ("--dry-run",)):
        words = ["evolve", "--data", "digits", "--method", "max", "--method", text, "--out", str(folder), *more]
        assert cli.main(words) == 2
        assert f'menu: "{text}" cannot stand in' in capsys.readouterr().err
    assert not folder.exists() and torch.equal(torch.random.get_rng_state(), state)


def test_a_method_is_tried_as_in_evaluation_too_and_leaves_the_random_state_alone(data, monkeypatch):
    state = torch.random.get_rng_state()
    Genome.of(("stochastic", "mixed", "spectral:keep=0.5"), "tutorial", data.shape, 10)
    assert torch.equal(torch.random.get_rng_state(), state)

    def fails(self, x):
        if not self.training:
            raise RuntimeError("in evaluation alone")
        return real(self, x)

    real = Pool2d.forward
    monkeypatch.setattr(Pool2d, "forward", fails)
    with pytest.raises(ValueError, match='"avg" cannot stand in .*: in evaluation alone'):
        Genome.of(("avg",), "tutorial", data.shape, 10)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"population": 1}, "an integer from 2"),
        ({"mutation": 1.5}, "a number from 0 to 1"),
        ({"menu": ()}, "one method or more"),
        ({"validation": 0.0}, "a number from 0.01"),
        ({"recipe": Recipe(pool_at="conv2")}, "every place"),
    ],
)
def test_a_request_that_cannot_be_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        Request(**{"recipe": RECIPE, **changes})


# The folder and the command


def test_a_folder_is_gone_on_with_only_where_it_is_the_same_search(data, whole, tmp_path):
    with pytest.raises(RunError, match="--resume"):
        evolve(REQUEST, data, whole.folder)
    with pytest.raises(RunError, match=r"population: there 4, asked for 5"):
        evolve(dataclasses.replace(REQUEST, population=5), data, whole.folder, resume=True)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no search: letter.txt"):
        evolve(REQUEST, data, tmp_path)
    assert evolve(REQUEST, data, whole.folder, resume=True).trials == whole.trials


def test_the_device_is_recorded_and_another_one_is_noted(data, tmp_path, monkeypatch):
    request = Request(RECIPE, ("max",), population=2, generations=1)
    real, asked = evolve_folder.machine, []

    def machine(device):
        asked.append(device)
        return {**real(torch.device("cpu")), "device": f"the {device.type} one"}

    monkeypatch.setattr(evolve_folder, "machine", machine)
    final = SimpleNamespace(final={"accuracy": 0.5, "loss": 1.0})
    monkeypatch.setattr(module, "train", lambda *given, **named: final)
    evolve(request, data, tmp_path / "search", device="cuda:1")
    assert json.loads((tmp_path / "search" / "evolve.json").read_bytes())["machine"]["device"] == "the cuda one"
    watch, notes = EvolveWatch(), []
    watch.note = notes.append
    evolve(request, data, tmp_path / "search", resume=True, device="cuda:1", watch=watch)
    assert not notes and set(asked) == {torch.device("cuda:1")}
    evolve(request, data, tmp_path / "search", resume=True, watch=watch)
    assert notes == ["The search began with device the cuda one, now it is the cpu one: it may go on differently."]


@pytest.mark.parametrize("damage", ["{}", "no JSON", '{"number": 3}'])
def test_a_damaged_net_is_named(data, tmp_path, damage):
    request = Request(RECIPE, ("max",), population=2, generations=1)
    evolve(request, data, tmp_path / "search")
    (tmp_path / "search" / "net-0001.json").write_text(damage)
    with pytest.raises(RunError, match="net-0001.json"):
        evolve(request, data, tmp_path / "search", resume=True)


def test_a_dry_run_trains_nothing(tmp_path, capsys):
    assert cli.main([*WORDS, "--dry-run", "--out", str(tmp_path / "search")]) == 0
    out = capsys.readouterr().out
    assert "16 nets would be trained" in out and "256 training pictures to train on, 287 held out" in out
    assert not (tmp_path / "search").exists()


def test_the_command_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    assert cli.main([*WORDS, "--population", "1"]) == 2
    assert "population=1 is not allowed" in capsys.readouterr().err
    assert cli.main(["evolve", "--data", "digits", "--method", "sotf"]) == 2
    assert "nearest: soft" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(WORDS) == 1
    assert 'pip install "poolkit[evolve]"' in capsys.readouterr().err


def test_ctrl_c_says_what_is_safe_and_how_to_go_on(tmp_path, capsys, monkeypatch):
    calls = iter(range(100))
    real = module.train

    def stopped(*given, **named):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(module, "train", stopped)
    folder = tmp_path / "search"
    assert cli.main([*WORDS, "--out", str(folder)]) == 130
    err = capsys.readouterr().err
    done = len(list(folder.glob("net-*.json")))
    assert f"stopped. {done} of 16 nets are finished and safe in {folder}" in err and done >= 2
    assert err.rstrip().endswith("--resume")


# Window weights


def test_genes_are_weights_in_the_order_of_the_places():
    x = torch.tensor([[8.0, 4.0], [2.0, 1.0]], dtype=torch.float64)[None, None]
    assert float(pool(x, "genetic-weights:weights=1-3-2-4", 2)) == pytest.approx((8 + 12 + 4 + 4) / 10)
    assert float(pool(x, GeneticWeights(weights=[2, 1]), 2)) == pytest.approx((16 + 4 + 2 + 1) / 5)
    assert float(GlobalPool2d("genetic-weights:weights=2-1")(x)) == pytest.approx((16 + 4 + 2 + 1) / 5)
    # At the border the weights of the cells inside share the whole.
    padded = pool(x, "genetic-weights:weights=1-3-2-4", 2, stride=2, padding=1)
    assert padded.flatten().tolist() == [8.0, 4.0, 2.0, 1.0]


def test_weights_are_no_parameters_and_stand_in_the_spelling():
    layer = Pool2d("genetic-weights:weights=9-1-3-2", 2)
    assert not list(layer.parameters()) and not layer.state_dict()
    assert "weights=9-1-3-2" in repr(layer)
    assert method("genetic-weights:weights=9-1.0-3-2.0") == GeneticWeights(weights=(9, 1, 3, 2)) == layer.method
    assert hash(layer.method) == hash(GeneticWeights(weights=(9, 1, 3, 2)))


@pytest.mark.parametrize("weights", [(), (1, 0), (1, -1), (1, float("nan")), 2, "1-2", (True,)])
def test_weights_that_cannot_be_are_refused(weights):
    with pytest.raises(ValueError, match="one or more numbers from 0.001 to 1000"):
        GeneticWeights(weights=weights)
