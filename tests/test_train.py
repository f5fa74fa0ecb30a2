"""Training: reproducible, resumable at any moment, and honest about what happened."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from poolkit.lab import checkpoint  # noqa: E402
from poolkit.lab.bench import bench_training  # noqa: E402
from poolkit.lab.chance import order, seed_of, stream  # noqa: E402
from poolkit.lab.data import Data, fingerprint  # noqa: E402
from poolkit.lab.durable import remove_leftovers, write_atomic  # noqa: E402
from poolkit.lab.nets import build, layers  # noqa: E402
from poolkit.lab.run import (  # noqa: E402
    Evaluation,
    Run,
    RunError,
    evaluate,
    overfitting,
    predict,
    prediction_arrays,
    weights_sha256,
)
from poolkit.lab.train import Recipe, Trainer, Watch, train  # noqa: E402

CLASSES = ("stripes", "checks", "flat")


pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(seed: int = 0, n: int = 96, side: int = 16) -> Data:
    """Noisy pictures of three textures: learnable in a few epochs, and small."""
    rng = np.random.default_rng(seed)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count, dtype=np.int64) % 3
        row, column = np.mgrid[:side, :side]
        textures = np.stack([row % 4 < 2, (row // 2 + column // 2) % 2 == 0, np.full((side, side), 0.5)])
        clean = 60 + 120 * textures[labels][:, None]
        noisy = clean + rng.normal(0, 25, (count, 3, side, side))
        return noisy.clip(0, 255).astype(np.uint8), labels

    train_x, train_y = part(n)
    test_x, test_y = part(45)
    sha256 = fingerprint(train_x, train_y, test_x, test_y)
    return Data("tiny", train_x, train_y, test_x, test_y, CLASSES, "made in a test", sha256)


def recipe(**changes) -> Recipe:
    return Recipe(**{"data": "tiny", "epochs": 3, "batch": 20, **changes})


class Stop(Watch):
    """Ctrl-C: after an epoch, or within the one that follows."""

    def __init__(self, after: int, within: bool = False):
        self.after, self.within, self.seen, self.notes = after, within, [], []

    def step(self, progress):
        if self.within and progress.epoch == self.after + 1:
            raise KeyboardInterrupt

    def epoch(self, row):
        self.seen.append(row["epoch"])
        if not self.within and row["epoch"] == self.after:
            raise KeyboardInterrupt

    def note(self, text):
        self.notes.append(text)


def interrupted(folder: Path, after: int, within: bool = False, **changes) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(recipe(**changes), tiny(), folder, watch=Stop(after, within))


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


FINISHED = {"run.json", "model.safetensors", "predictions.npz"}

# The net


def test_the_tutorials_net_has_the_tutorials_layers_and_parameters():
    rows = layers(build("tutorial", lambda: nn.MaxPool2d(2), (3, 32, 32), 10, 0), (3, 32, 32))
    assert [row["output"] for row in rows] == [
        [32, 30, 30],
        [32, 15, 15],
        [64, 13, 13],
        [64, 6, 6],
        [2304],
        [64],
        [10],
    ]
    assert [row["parameters"] for row in rows] == [896, 0, 18496, 0, 0, 147520, 650]
    assert sum(row["parameters"] for row in rows) == 167_562
    assert rows[0]["layer"] == "Conv2d 3×3, 32"
    assert [row["layer"] for row in layers(build("tutorial", "avg", (1, 28, 28), 10, 0), (1, 28, 28))][
        1
    ] == "Pool2d avg, 2×2"


def test_weights_start_as_in_keras_from_the_seed_alone_and_the_same_for_each_pool():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    max_, again, gem, other = (build("tutorial", pool, (3, 32, 32), 10, s) for pool, s in
                               (("max", 0), ("max", 0), ("gem:p=learn", 0), ("max", 1)))  # fmt: skip
    assert torch.equal(before, torch.get_rng_state())
    for name, fans in {
        "conv1": (27, 288),
        "conv2": (288, 576),
        "dense1": (2304, 64),
        "dense2": (64, 10),
    }.items():
        weight = getattr(max_, name).weight
        bound = math.sqrt(6 / sum(fans))
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert not getattr(max_, name).bias.any()
        assert torch.equal(weight, getattr(again, name).weight)
        assert torch.equal(weight, getattr(gem, name).weight)
        assert not torch.equal(weight, getattr(other, name).weight)


def test_a_hook_on_conv1_sees_what_conv1_gives_not_what_relu_made_of_it():
    model, seen = build("tutorial", "max", (3, 16, 16), 3, 0).eval(), []
    model.conv1.register_forward_hook(lambda layer, given, output: seen.append(output))
    x = torch.rand(2, 3, 16, 16)
    model(x)
    assert torch.equal(seen[0], model.conv1(x))


def test_an_unknown_net_or_a_picture_too_small_is_an_error_that_teaches():
    with pytest.raises(ValueError, match='no net "tutorail"(.|\n)*nearest: "tutorial"'):
        build("tutorail", "max", (3, 32, 32), 10, 0)
    with pytest.raises(ValueError, match="at least 10×10 pixels, these have 8×8"):
        build("tutorial", "max", (1, 8, 8), 10, 0)


# The recipe


@pytest.mark.parametrize(
    "wrong",
    [
        {"net": "tutor"}, {"pool": "sotf"}, {"data": ""}, {"epochs": 0}, {"epochs": 2.5}, {"epochs": True},
        {"batch": 0}, {"optimiser": "adamw"}, {"lr": 0}, {"lr": math.nan}, {"lr": math.inf}, {"lr": "1e-3"},
        {"seed": -1}, {"limit": 0},
    ],
)  # fmt: skip
def test_a_recipe_refuses_what_cannot_be_and_says_what_can(wrong):
    with pytest.raises(ValueError, match="allowed|nearest"):
        recipe(**wrong)


def test_a_recipe_survives_json_and_refuses_unknown_keys():
    original = recipe(pool="soft:beta=2", limit=7, lr=1)
    assert Recipe.from_dict(json.loads(json.dumps(original.as_dict()))) == original
    with pytest.raises(ValueError, match='no "epoch"(.|\n)*nearest: "epochs"'):
        Recipe.from_dict({"epoch": 3})


def test_a_recipes_hash_is_of_its_meaning_and_of_the_data():
    assert recipe(pool="soft:beta=1.0").hash("a") == recipe(pool="soft").hash("a")
    hashes = {recipe().hash("a"), recipe().hash("b"), recipe(seed=1).hash("a"), recipe(pool="avg").hash("a")}
    assert len(hashes) == 4


# Randomness


def test_streams_differ_by_seed_epoch_and_purpose_and_orders_are_permutations():
    draws = {
        tuple(stream(*words).integers(0, 2**62, 2)) for words in ((0, 1, "a"), (1, 1, "a"), (0, 2, "a"), (0, 1, "b"))
    }
    assert len(draws) == 4
    assert seed_of(1, 11) != seed_of(11, 1) and seed_of("1", 1) != seed_of(1, "1")
    first, again, second = order(0, 1, 500), order(0, 1, 500), order(0, 2, 500)
    assert np.array_equal(first, again) and not np.array_equal(first, second)
    assert np.array_equal(np.sort(first), np.arange(500))


def test_the_order_of_epoch_one_is_the_same_on_every_machine_and_numpy():
    assert order(0, 1, 8).tolist() == ORDER_OF_EIGHT


# Philox4x64-10 is a published generator, so these numbers hold for every version of NumPy.
ORDER_OF_EIGHT = [6, 1, 0, 5, 3, 2, 7, 4]


@pytest.mark.parametrize("pool", ["max", "stochastic"])
def test_same_seed_same_weights_whatever_the_callers_random_state(pool):
    torch.manual_seed(1)
    first = train(recipe(pool=pool, epochs=2), tiny())
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = train(recipe(pool=pool, epochs=2), tiny())
    assert torch.equal(state, torch.get_rng_state())
    assert first.weights_sha256 == second.weights_sha256
    assert np.array_equal(first.predictions()["probabilities"], second.predictions()["probabilities"])
    assert train(recipe(pool=pool, epochs=2, seed=1), tiny()).weights_sha256 != first.weights_sha256


# Learning


def test_training_is_what_a_plain_loop_computes():
    """The fast loop (channels-last, uint8, fused) against the obvious one; the last batch is short."""
    data = tiny()
    run = train(recipe(epochs=1), data)
    model = build("tutorial", lambda: nn.MaxPool2d(2), data.shape, 3, 0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7)
    x, y = torch.from_numpy(data.train_x).float() / 255, torch.from_numpy(data.train_y)
    rows, total, right = torch.from_numpy(order(0, 1, 96)), 0.0, 0
    for start in range(0, 96, 20):
        chosen = rows[start : start + 20]
        scores = model(x[chosen])
        loss = F.cross_entropy(scores, y[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item() * len(chosen)
        right += int((scores.argmax(1) == y[chosen]).sum())
    assert run.epochs[0]["train_loss"] == pytest.approx(total / 96, rel=1e-5)
    assert run.epochs[0]["train_accuracy"] == right / 96
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(run.weights[name], weight, rtol=1e-3, atol=1e-5)
    scores = model(torch.from_numpy(data.test_x).float() / 255)
    test_loss = F.cross_entropy(scores, torch.from_numpy(data.test_y)).item()
    assert run.epochs[0]["test_loss"] == pytest.approx(test_loss, rel=1e-3)


def test_the_textures_are_learned():
    run = train(recipe(epochs=8), tiny())
    assert run.final["accuracy"] >= 0.9
    assert run.epochs[-1]["train_loss"] < run.epochs[0]["train_loss"] / 2
    assert [row["epoch"] for row in run.epochs] == list(range(1, 9))


def test_limit_trains_on_the_first_pictures_only():
    data = tiny()
    first = Data("tiny", data.train_x[:40], data.train_y[:40], data.test_x, data.test_y, CLASSES, "", data.sha256)
    limited = train(recipe(limit=40), data)
    assert limited.weights_sha256 == train(recipe(), first).weights_sha256
    assert (limited.data["train"], limited.data["test"]) == (40, 45)


def test_learned_pooling_parameters_are_recorded_and_move():
    run = train(recipe(pool="gem:p=learn", lr=0.01), tiny())
    values = [row["learned"] for row in run.epochs]
    assert all(set(row) == {"pool1.p", "pool2.p"} for row in values)
    assert values[0] != values[-1]
    assert run.model().pool1.learned()["p"].item() == pytest.approx(values[-1]["pool1.p"])
    assert train(recipe(epochs=1), tiny()).epochs[0]["learned"] == {}


def test_a_run_that_diverges_is_a_result(tmp_path):
    run = train(recipe(lr=1e30, optimiser="sgd"), tiny(), tmp_path)
    assert run.status == "failed" and "learning rate smaller" in run.message
    assert run.final is None and run.weights_sha256 is None
    assert files(tmp_path) == {"run.json"}
    assert "NaN" not in (tmp_path / "run.json").read_text(encoding="utf-8")
    loaded = Run.load(tmp_path)
    assert loaded.as_dict() == run.as_dict()
    with pytest.raises(RunError, match="learning rate smaller"):
        loaded.model()
    again = Stop(0)
    assert train(recipe(lr=1e30, optimiser="sgd"), tiny(), tmp_path, resume=True, watch=again).status == "failed"
    assert again.seen == []


def test_data_that_are_not_the_recipes_are_refused():
    with pytest.raises(ValueError, match='wants the data "digits", these are "tiny"'):
        train(recipe(data="digits"), tiny())


def test_the_watch_hears_of_each_epoch_and_of_every_picture():
    heard = []

    class Listen(Watch):
        def step(self, progress):
            heard.append((progress.epoch, progress.step))
            assert progress.images_per_second > 0 and progress.eta >= 0

    train(recipe(epochs=2, batch=2), tiny(), watch=Listen())
    assert heard == [(1, 25), (1, 48), (2, 25), (2, 48)]


# Stopping and going on


@pytest.mark.parametrize(
    "changes", [{}, {"pool": "stochastic"}, {"pool": "gem:p=learn"}, {"optimiser": "sgd", "lr": 0.01}]
)
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, changes):
    whole = train(recipe(**changes), tiny(), tmp_path / "whole")
    assert files(tmp_path / "whole") == FINISHED
    for after, within in ((1, False), (2, False), (3, False), (0, True), (1, True)):
        folder = tmp_path / f"{after}-{within}"
        interrupted(folder, after, within, **changes)
        assert not (folder / "run.json").exists()
        torch.rand(3)
        rest = Stop(99)
        resumed = train(recipe(**changes), tiny(), folder, resume=True, watch=rest)
        assert rest.seen == list(range(after + 1, 4)) and rest.notes == []
        assert resumed.weights_sha256 == whole.weights_sha256
        assert resumed.final == whole.final
        clocks = ("seconds", "images_per_second")
        for mine, theirs in zip(resumed.epochs, whole.epochs, strict=True):
            assert {k: v for k, v in mine.items() if k not in clocks} == {
                k: v for k, v in theirs.items() if k not in clocks
            }
        assert files(folder) == FINISHED
        for name in ("model.safetensors", "predictions.npz"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_finished_run_is_returned_at_once_and_not_overwritten(tmp_path):
    run = train(recipe(epochs=1), tiny(), tmp_path, command="poolkit train")
    content = (tmp_path / "run.json").read_bytes()
    watch = Stop(0)
    again = train(recipe(epochs=1), tiny(), tmp_path, resume=True, watch=watch)
    assert again.as_dict() == run.as_dict() and watch.seen == []
    with pytest.raises(RunError, match="holds a run already(.|\n)*--resume(.|\n)*--out"):
        train(recipe(epochs=1), tiny(), tmp_path)
    assert (tmp_path / "run.json").read_bytes() == content


def test_an_unfinished_run_is_not_overwritten_without_resume(tmp_path):
    interrupted(tmp_path, 1)
    before = files(tmp_path)
    with pytest.raises(RunError, match="unfinished run already(.|\n)*--resume"):
        train(recipe(), tiny(), tmp_path)
    assert files(tmp_path) == before


def test_another_recipe_or_other_data_are_refused_with_the_differences(tmp_path):
    interrupted(tmp_path / "unfinished", 1)
    train(recipe(), tiny(), tmp_path / "finished")
    for folder in (tmp_path / "unfinished", tmp_path / "finished"):
        before = files(folder)
        with pytest.raises(RunError) as refused:
            train(recipe(pool="avg", epochs=4), tiny(), folder, resume=True)
        assert "pool: there 'max', asked for 'avg'" in str(refused.value)
        assert "epochs: there 3, asked for 4" in str(refused.value) and "seed" not in str(refused.value)
        with pytest.raises(RunError, match="SHA-256: there"):
            train(recipe(), tiny(seed=1), folder, resume=True)
        assert files(folder) == before


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", ["safetensors", "json"])
@pytest.mark.parametrize(
    "damage",
    [_flip, lambda p: p.write_bytes(p.read_bytes()[:-100]), lambda p: p.write_bytes(b""), Path.unlink],
)
def test_a_damaged_checkpoint_steps_back_to_the_one_before(tmp_path, suffix, damage):
    interrupted(tmp_path, 2)
    damage(tmp_path / f"checkpoint-0002.{suffix}")
    watch = Stop(99)
    resumed = train(recipe(), tiny(), tmp_path, resume=True, watch=watch)
    assert watch.seen == [2, 3]
    if not (suffix == "json" and damage is Path.unlink):
        assert len(watch.notes) == 1 and "checkpoint-0002" in watch.notes[0]
    assert resumed.weights_sha256 == train(recipe(), tiny()).weights_sha256


def test_with_every_checkpoint_damaged_the_run_starts_again_and_says_so(tmp_path):
    interrupted(tmp_path, 2)
    for path in tmp_path.glob("checkpoint-*.safetensors"):
        _flip(path)
    watch = Stop(99)
    resumed = train(recipe(), tiny(), tmp_path, resume=True, watch=watch)
    assert watch.seen == [1, 2, 3] and len(watch.notes) == 2
    assert resumed.weights_sha256 == train(recipe(), tiny()).weights_sha256


def test_two_checkpoints_are_kept_and_leftovers_are_cleaned(tmp_path):
    leftovers = (".poolkit-0123456789abcdef.part", "checkpoint-0001.safetensors")
    for name in leftovers:
        tmp_path.joinpath(name).write_bytes(b"torn")
    interrupted(tmp_path, 3, epochs=4)
    assert files(tmp_path) == {f"checkpoint-{e:04d}.{s}" for e in (2, 3) for s in ("json", "safetensors")}
    for name in leftovers:
        tmp_path.joinpath(name).write_bytes(b"torn")
    train(recipe(epochs=4), tiny(), tmp_path, resume=True)
    assert files(tmp_path) == FINISHED


MINE = (
    "checkpoint-best.json", "checkpoint-best.safetensors", "checkpoint-12.json", "checkpoint-0001.json.bak",
    "checkpoint-0001.safetensors.index.json", "mycheckpoint-0001.json", ".poolkit-notes.part", "mine.txt",
)  # fmt: skip


def test_files_of_the_user_outlive_training_whatever_they_are_called(tmp_path):
    interrupted(tmp_path, 1)
    for name in MINE:
        tmp_path.joinpath(name).write_text("keep")
    tmp_path.joinpath("checkpoint-0009.json").mkdir()
    train(recipe(), tiny(), tmp_path, resume=True)
    train(recipe(), tiny(), tmp_path, resume=True)
    assert files(tmp_path) == {*MINE, "checkpoint-0009.json", *FINISHED}
    assert all(tmp_path.joinpath(name).read_text() == "keep" for name in MINE)


@pytest.mark.parametrize("name", [*MINE, "model.safetensors"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_files_of_the_user_is_refused_by_name_and_left_as_it_is(tmp_path, name, resume):
    tmp_path.joinpath(name).write_text("keep")
    tmp_path.joinpath(".poolkit-0123456789abcdef.part").write_text("ours")
    before = files(tmp_path)
    with pytest.raises(RunError, match=f"no run of poolkit's: {name}(.|\n)*--out"):
        train(recipe(), tiny(), tmp_path, resume=resume)
    assert files(tmp_path) == before and tmp_path.joinpath(name).read_text() == "keep"


def test_the_newest_checkpoint_is_the_one_of_the_latest_epoch_not_of_the_last_name(tmp_path):
    epochs = [{"epoch": 1}] * 9999
    for count in (9999, 10000):
        checkpoint.Checkpoint({}, "", epochs[:1] * count, "", {}, {"x": torch.ones(1)}).write(tmp_path)
    assert len(checkpoint.newest(tmp_path, pytest.fail).epochs) == 10000


def test_other_versions_or_threads_are_mentioned_on_resuming(tmp_path):
    interrupted(tmp_path, 1)
    found = checkpoint.newest(tmp_path, pytest.fail)
    found.machine["threads"] = 64
    found.write(tmp_path)
    watch = Stop(99)
    train(recipe(), tiny(), tmp_path, resume=True, watch=watch)
    assert len(watch.notes) == 1 and "threads 64, now it is 1" in watch.notes[0]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_at_any_write_loses_nothing(tmp_path, monkeypatch, call):
    """The n-th call fails, for every n of the run: each time the folder resumes to the same weights."""
    data, short, real = tiny(n=20), recipe(epochs=2), getattr(os, call)
    calls = []
    monkeypatch.setattr(os, call, lambda *a: (calls.append(0), real(*a))[1])
    whole = train(short, data, tmp_path / "whole")
    assert len(calls) >= 7
    for n in range(len(calls)):
        left = iter(range(n))

        def fail(*a, left=left):
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*a)

        monkeypatch.setattr(os, call, fail)
        with pytest.raises(RunError, match="No space left(.|\n)*--resume"):
            train(short, data, tmp_path / str(n))
        monkeypatch.setattr(os, call, real)
        assert not [name for name in files(tmp_path / str(n)) if name.endswith(".part")]
        assert train(short, data, tmp_path / str(n), resume=True).weights_sha256 == whole.weights_sha256


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from test_train import Watch, recipe, tiny, train
torch.set_num_threads(1)

class Tell(Watch):
    def epoch(self, row):
        os.write(1, b"epoch %d\\n" % row["epoch"])

# One import of torch serves all: each line of input forks a trainer, which the test kills.
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        os.write(1, b"pid %d\\n" % os.getpid())
        asked = recipe(epochs=int(sys.argv[3]), pool="stochastic")
        run = train(asked, tiny(), Path(sys.argv[2]), resume=True, watch=Tell())
        os.write(1, b"done %s\\n" % run.weights_sha256.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.write(1, b"gone\\n")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_dash_nine_at_random_moments_loses_at_most_one_epoch(tmp_path):
    """POOLKIT_KILLS sets how many kills; the folder must end with the weights of a run that nobody killed."""
    kills = int(os.environ.get("POOLKIT_KILLS", "6"))
    epochs = 3 * kills + 3
    whole = train(recipe(epochs=epochs, pool="stochastic"), tiny())
    pace = min(row["seconds"] for row in whole.epochs)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path), str(epochs)]
    rng, safe, firsts = random.Random(3), 0, []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as forker:

        def hear() -> list[str]:
            return forker.stdout.readline().split()

        for kill in range(kills + 1):
            forker.stdin.write("go\n")
            forker.stdin.flush()
            child, lines = int(hear()[1]), []
            if kill < kills:
                # Up to two epochs are let through, then it dies at any moment of the next: in a step, in a write.
                for _ in range(rng.choice((0, 1, 1, 2, 2))):
                    lines.append(hear())
                time.sleep(rng.uniform(0, 1.5) * pace)
                os.kill(child, signal.SIGKILL)
            lines += iter(hear, ["gone"])
            told = [int(word) for kind, word in lines if kind == "epoch"]
            if told:
                # An epoch whose checkpoint was written just before the kill is safe though nobody was told.
                assert told[0] in (safe + 1, safe + 2) and told == list(range(told[0], told[0] + len(told)))
                safe = told[-1]
                firsts.append(told[0])
            for path in tmp_path.glob("*.json"):
                json.loads(path.read_bytes())
        forker.stdin.close()
    assert lines[-1] == ["done", whole.weights_sha256]
    assert files(tmp_path) == FINISHED
    assert len(set(firsts)) > kills / 3, "most kills came before the training began: they tested nothing"


# Durable files


def test_a_writer_that_dies_before_the_rename_leaves_the_old_content(tmp_path):
    target = tmp_path / "value"
    write_atomic(target, b"old")
    script = (
        "import os, pathlib, sys\nos.replace = lambda *a: os._exit(9)\n"
        "from poolkit.lab.durable import write_atomic\nwrite_atomic(pathlib.Path(sys.argv[1]), b'new')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script, str(target)], env=environment).returncode == 9
    assert target.read_bytes() == b"old" and len(files(tmp_path)) == 2
    remove_leftovers(tmp_path)
    assert files(tmp_path) == {"value"}


def test_the_content_is_on_the_disk_before_the_rename_and_the_rename_before_the_return(tmp_path, monkeypatch):
    steps = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (steps.append(name), real(*a))[1])
    write_atomic(tmp_path / "value", b"new")
    assert steps == ["fsync", "replace", "fsync"] or os.name == "nt"


# The run's folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train(recipe(epochs=2), tiny(), folder, command="poolkit train --data tiny")
    return folder


def copy(folder: Path, to: Path) -> Path:
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_run_json_has_the_keys_of_the_contract_in_their_order(finished):
    record = json.loads((finished / "run.json").read_text(encoding="utf-8"))
    assert " ".join(record) == (
        "format poolkit status message recipe recipe_hash command started finished seconds data layers parameters "
        "epochs final overfitting weights_sha256 machine"
    )
    assert " ".join(record["epochs"][0]) == (
        "epoch train_loss train_accuracy test_loss test_accuracy seconds images_per_second learned"
    )
    assert " ".join(record["data"]) == "name source sha256 caveat classes shape train test"
    assert " ".join(record["machine"]) == "platform processor cores threads device python torch numpy poolkit"
    assert record["recipe_hash"] == recipe(epochs=2).hash(record["data"]["sha256"])


def test_a_loaded_runs_net_gives_the_recorded_numbers(finished):
    run, data = Run.load(finished), tiny()
    evaluation = evaluate(run.model(), data.test_x, data.test_y)
    assert (evaluation.loss, evaluation.accuracy) == (run.final["loss"], run.final["accuracy"])
    assert run.final["accuracy"] == run.epochs[-1]["test_accuracy"]
    arrays = run.predictions()
    assert (arrays["probabilities"].argmax(1) == arrays["labels"]).mean() == run.final["accuracy"]
    index, probabilities = predict(run, data.test_x[3])
    np.testing.assert_allclose(probabilities, evaluation.probabilities[3], rtol=1e-4)
    assert index == evaluation.probabilities[3].argmax()
    assert weights_sha256(run.model().state_dict()) == run.weights_sha256


def test_final_metrics_follow_from_the_confusion_matrix(finished):
    final = Run.load(finished).final
    matrix = np.array(final["confusion"])
    assert matrix.sum() == 45 and np.trace(matrix) / 45 == pytest.approx(final["accuracy"])
    for kind, row in enumerate(final["per_class"]):
        right, told, true = matrix[kind, kind], matrix[:, kind].sum(), matrix[kind].sum()
        assert row["class"] == CLASSES[kind] and row["support"] == true == 15
        assert row["precision"] == pytest.approx(right / told if told else 0)
        assert row["recall"] == pytest.approx(right / true)
        assert row["f1"] == pytest.approx(2 * right / (told + true))


def test_the_pictures_worth_showing_are_the_first_right_and_the_worst_wrong_ones():
    data = tiny()
    probabilities = np.full((45, 3), 0.2, np.float32)
    told = np.where(np.arange(45) < 20, data.test_y, (data.test_y + 1) % 3)
    probabilities[np.arange(45), told] = 0.5 + np.arange(45) / 100
    arrays = prediction_arrays(Evaluation(0.0, 0.0, probabilities), data)
    assert arrays["shown_index"].tolist() == [*range(12), *range(44, 32, -1)]
    assert np.array_equal(arrays["shown_pixels"], data.test_x[arrays["shown_index"]])
    assert np.array_equal(arrays["sample_pixels"], data.train_x[:25])


def test_rounding_to_half_precision_never_changes_the_predicted_class():
    close = np.array([[0.40000, 0.40001, 0.19999], [0.33333, 0.33333, 0.33334], [0.6, 0.3, 0.1]], np.float32)
    probabilities = np.concatenate([close] * 15)
    arrays = prediction_arrays(Evaluation(0.0, 0.0, probabilities), tiny())
    assert np.array_equal(arrays["probabilities"].argmax(1), probabilities.argmax(1))
    np.testing.assert_allclose(arrays["probabilities"], probabilities, atol=1e-3)


def test_wrong_pictures_are_refused_with_the_shape_that_is_wanted(finished):
    run = Run.load(finished)
    for pixels in (np.zeros((3, 8, 8), np.uint8), np.zeros((3, 16, 16), np.float32)):
        with pytest.raises(RunError, match=r"uint8 pictures of shape \(3, 16, 16\)(.|\n)*read_picture"):
            predict(run, pixels)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda t: "", "damaged"),
        (lambda t: t[: len(t) // 2], "damaged"),
        (lambda t: "[]", "no JSON object"),
        (lambda t: "[" * 100_000, "damaged"),
        (lambda t: t.replace('"format": 1', '"format": 2'), "format 2"),
        (lambda t: t.replace('"status"', '"state"'), "unknown keys state, status"),
        (lambda t: t.replace('"message": null', '"message": NaN'), "NaN is not JSON"),
    ],
)
def test_a_damaged_run_json_is_refused_in_words(finished, tmp_path, damage, says):
    path = copy(finished, tmp_path) / "run.json"
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(RunError, match=says):
        Run.load(tmp_path)


def test_a_folder_without_a_run_says_how_to_go_on(tmp_path):
    with pytest.raises(RunError, match="no run.json(.|\n)*--resume"):
        Run.load(tmp_path)


def test_weights_that_are_damaged_exchanged_or_anothers_are_refused(finished, tmp_path):
    from safetensors.torch import load, save

    run = Run.load(copy(finished, tmp_path))
    path, good = tmp_path / "model.safetensors", (tmp_path / "model.safetensors").read_bytes()
    weights = load(good)
    cases = {
        "is damaged": good[:50],
        "not those that run.json names": save({**weights, "conv1.bias": weights["conv1.bias"] + 1}),
        "unknown extra": save({**weights, "extra": torch.zeros(1)}),
        "conv1.bias is": save({**weights, "conv1.bias": torch.zeros(7)}),
        "larger than this net's": good + bytes(2_000_000),
    }
    for says, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(RunError, match=says):
            run.model()
    path.unlink()
    with pytest.raises(RunError, match="is missing"):
        run.model()


def test_predictions_that_are_damaged_or_would_fill_the_memory_are_refused(finished, tmp_path, monkeypatch):
    run, path = Run.load(copy(finished, tmp_path)), tmp_path / "predictions.npz"
    pickled = io.BytesIO()
    np.savez(pickled, probabilities=np.array([{}], dtype=object))
    for content in (b"", b"PK\x03\x04 nothing", path.read_bytes()[:-50], pickled.getvalue()):
        path.write_bytes(content)
        with pytest.raises(RunError, match="predictions.npz is damaged"):
            run.predictions()
    path.write_bytes((finished / "predictions.npz").read_bytes())
    monkeypatch.setattr("poolkit.lab.run._MAX_ARRAYS", 10_000)
    with pytest.raises(RunError, match="would unpack to"):
        run.predictions()


def test_overfitting_is_said_in_words_and_only_when_it_happens():
    def rows(train_losses, test_losses):
        pairs = enumerate(zip(train_losses, test_losses, strict=True), start=1)
        return [
            {"epoch": e, "train_loss": a, "test_loss": b, "train_accuracy": 0.9, "test_accuracy": 0.7}
            for e, (a, b) in pairs
        ]

    sentence = overfitting(rows([1.0, 0.8, 0.5], [1.0, 0.9, 0.95]))
    assert "after epoch 2, from 0.900 to 0.950" in sentence
    assert "90.0\u202f% of the training" in sentence and "20.0 points" in sentence
    assert overfitting(rows([1.0, 0.8, 0.5], [1.0, 0.9, 0.92])) is None
    assert overfitting(rows([1.0, 0.8, 0.9], [1.0, 0.9, 0.99])) is None
    assert overfitting(rows([1.0, 0.8], [None, None])) is None
    assert overfitting([]) is None


# Speed


def test_the_benchmark_compares_with_both_plain_loops_and_names_the_faster():
    result = bench_training(tiny(), steps=2, rounds=6, batch=8)
    assert {frozenset(row) for row in result["rounds"]} == {frozenset({"poolkit", "plain", "plain_channels_last"})}
    for name in ("plain", "plain_channels_last"):
        ratios = sorted(row["poolkit"] / row[name] for row in result["rounds"])
        assert result[f"interval_to_{name}"] == [ratios[0], ratios[-1]]
        assert ratios[2] <= result[f"ratio_to_{name}"] <= ratios[3]
    faster = result["faster_plain"]
    speeds = [result[f"{name}_images_per_second"] for name in ("plain", "plain_channels_last")]
    assert result[f"{faster}_images_per_second"] == max(speeds)
    assert (result["ratio"], result["interval"]) == (result[f"ratio_to_{faster}"], result[f"interval_to_{faster}"])
    with pytest.raises(ValueError, match="fewer than 6"):
        bench_training(tiny(), rounds=5)


def test_the_benchmark_times_the_steps_that_training_takes(monkeypatch):
    called = []

    def steps(self, epoch, rows, look=None):
        called.append(len(rows))
        return real(self, epoch, rows, look)

    real = Trainer.steps
    monkeypatch.setattr(Trainer, "steps", steps)
    train(recipe(epochs=1), tiny())
    assert called == [96]
    bench_training(tiny(), steps=15, rounds=6, batch=8)
    assert called.count(15 * 8) == 6


@pytest.mark.parametrize(("pool", "seeded"), [("max", False), ("gem:p=learn", False), ("stochastic", True)])
def test_only_nets_that_draw_are_seeded_in_each_step(monkeypatch, pool, seeded):
    seeds = []
    monkeypatch.setattr("poolkit.lab.train.seed_layers", lambda place, seed: seeds.append(seed))
    train(recipe(pool=pool, epochs=1), tiny())
    assert len(set(seeds)) == (5 if seeded else 0)
