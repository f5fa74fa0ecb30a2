"""A study on a Ray cluster of two nodes: the same results, whatever of it is lost on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import PATIENCE

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

from poolkit.cli import main  # noqa: E402
from poolkit.lab import cluster as cluster_module  # noqa: E402
from poolkit.lab.cluster import connected  # noqa: E402
from poolkit.lab.data import digits  # noqa: E402
from poolkit.lab.record import RunError  # noqa: E402
from poolkit.lab.study import ProbeSettings, Study  # noqa: E402
from poolkit.lab.worker import Job  # noqa: E402

pytestmark = pytest.mark.xdist_group("ray")
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason='Ray is not installed: pip install "poolkit[ray]"')
needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="the processes of the tasks are looked for in /proc")

ASK = ["compare", "max", "avg", "soft", "--data", "digits", "--epochs", "1", "--limit", "300", "--seeds", "3",
       "--no-robustness"]  # fmt: skip
RUNS = 12
TOKEN = "a-token-for-the-tests-alone-0123456789abcdef"  # noqa: S105


def environment(**more):
    """Of a process that may talk to the cluster."""
    path = os.pathsep.join(filter(None, sys.path))
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    return {**os.environ, **ray, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="module")
def cluster():
    command = [sys.executable, Path(__file__).with_name("ray_cluster.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, env=environment(), **pipes) as process:
        yield process, f"ray://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()
        process.wait(PATIENCE)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """What the study gives on this machine without a cluster."""
    folder = tmp_path_factory.mktemp("local")
    assert main([*ASK, "--out", str(folder / "study"), "--quiet"]) == 0
    return table(folder / "study")


def table(folder):
    """What must not depend on where a study ran: every result, without times and machines."""
    results = Study.load(folder).results()
    assert len(results) == RUNS
    return [(r.label, r.seed, r.run.status, r.run.final, r.run.weights_sha256, r.run.recipe_hash) for r in results]


class Driver:
    """A study on the cluster, in a process of its own that does not outlive the test."""

    def __init__(self, address, folder):
        self._said = folder.with_suffix(".out")
        command = [sys.executable, "-m", "poolkit", *ASK, "--on", address, "--out", str(folder)]
        with self._said.open("a") as said:
            self.process = subprocess.Popen(command, env=environment(), stdout=said, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def said(self):
        return self._said.read_text(encoding="utf-8")

    def until(self, condition):
        """What the condition gives when it gives something; it must while the process runs."""
        end = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert self.process.poll() is None, f"the study ended too early: {self.said()}"
            assert time.monotonic() < end, f"the study hangs: {self.said()}"
            time.sleep(0.05)
        return found


def stored(folder):
    return sorted((folder / "runs").glob("*/run.json"))


def tasks():
    """The processes that execute a cell."""
    titles = {int(p.name): p / "cmdline" for p in Path("/proc").iterdir() if p.name.isdigit()}
    found = []
    for pid, title in titles.items():
        try:
            if title.read_bytes().startswith(b"ray::_execute"):
                found.append(pid)
        except OSError:
            continue
    return found


@needs_ray
@needs_proc
def test_a_killed_driver_loses_no_result_and_a_killed_worker_and_a_lost_node_change_none(cluster, local, tmp_path):
    process, address = cluster
    folder = tmp_path / "study"

    with Driver(address, folder) as first:  # killed at the end
        first.until(lambda: len(stored(folder)) >= 2)
    kept = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in stored(folder)}
    assert 2 <= len(kept) < RUNS

    with Driver(address, folder) as second:
        os.kill(second.until(tasks)[0], signal.SIGKILL)
        second.until(lambda: len(stored(folder)) > len(kept))
        process.stdin.write("a node\n")
        process.stdin.flush()
        assert second.process.wait(PATIENCE) == 0, second.said()
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept} == kept
    assert table(folder) == local
    log = (folder / "log.txt").read_text(encoding="utf-8")
    assert all(log.count(f"{label}, seed {seed}: accuracy") == 1 for label, seed, *_ in local)


@needs_ray
def test_a_wrong_token_is_refused(cluster, tmp_path):
    code = f"import ray; ray.init({cluster[1]!r})"
    wrong = environment(RAY_AUTH_TOKEN=TOKEN[::-1])
    done = subprocess.run([sys.executable, "-c", code], env=wrong, capture_output=True, text=True, timeout=PATIENCE)
    # The cluster does not answer a stranger: its client gives up. With the right token it is taken, see above.
    assert done.returncode != 0
    assert "ConnectionError" in done.stderr or "uthentication" in done.stderr or "token" in done.stderr


def test_a_cluster_elsewhere_wants_a_token(monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    with (
        pytest.raises(RunError, match="wants a token(.|\n)*RAY_AUTH_TOKEN"),
        connected("ray://127.0.0.1:1", None, None),
    ):
        pass


def test_another_place_is_refused_with_the_two_there_are():
    with pytest.raises(RunError, match="spark(.|\n)*allowed: ray, ray://HOST:PORT"), connected("spark", None, None):
        pass


def test_without_ray_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    with pytest.raises(RunError, match=r'needs Ray\n  pip install "poolkit\[ray\]"'), connected("ray", None, None):
        pass


@pytest.mark.parametrize(
    ("on", "without", "words"),
    [
        ("spark", None, "allowed: ray, ray://HOST:PORT"), ("ray://127.0.0.1:1", "token", "wants a token"),
        ("ray", "ray", "needs Ray"),
    ],
)  # fmt: skip
def test_an_impossible_place_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys, on, without, words):
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "" if without == "token" else TOKEN)
    if without == "ray":
        monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*ASK, "--on", on, "--out", str(tmp_path / "study")]) == 1
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--gpus", "0.5"], "add --on"),
        (["--on", "ray", "--gpus", "0.5"], "add --device cuda"),
        (["--on", "ray", "--device", "cuda:1"], "needs --gpus"),
        (["--on", "ray", "--device", "cud", "--gpus", "1"], 'no device "cud"'),
    ],
)
def test_a_device_and_a_share_of_a_gpu_go_together(tmp_path, capsys, more, words):
    assert main([*ASK, *more, "--out", str(tmp_path / "study")]) == 2
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())


class Here:
    """In place of the module ray: a cluster whose tasks run in this process."""

    def __init__(self, gpus=0.0):
        self.gpus, self.taken = gpus, []

    def init(self, **given):
        self.given = given

    def shutdown(self):
        self.given = None

    def put(self, value):
        return value

    get = put

    def cancel(self, task, force):
        pass

    def cluster_resources(self):
        return {"CPU": 4.0, "GPU": self.gpus}

    def remote(self, work):
        def options(**takes):
            self.taken.append({name: takes[name] for name in ("num_cpus", "num_gpus")})
            return SimpleNamespace(remote=work)

        return SimpleNamespace(options=options)


@pytest.fixture
def here(monkeypatch):
    found = Here(gpus=1.0)
    monkeypatch.setattr(cluster_module, "_ray", lambda address: found)
    return found


def job(**changes):
    return Job(**{"study": "s", "data": "digits", "data_sha256": "d", "data_dir": None, "probes": None, "device": "cpu",
                  "threads": 1, "workers": 2, "command": None, **changes})  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "cuda"}, 'cannot use the device "cuda"(.|\n)*--gpus'),
        ({"sources": {"no_such_net": "0" * 64}}, "comes from no_such_net(.|\n)*Copy the file"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="takes CUDA for what is not there")
def test_a_task_says_what_the_cluster_lacks(here, changes, words):
    with pytest.raises(RunError, match=words), connected("ray", digits(), job(**changes), 0.5):
        pass
    assert here.taken == [{"num_cpus": 0, "num_gpus": 0.5}] and here.given is None


def test_the_device_of_a_cluster_is_not_looked_for_on_this_machine(here, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster_module, "fault", lambda device: f"{device} is asked for there")
    words = [*ASK, "--on", "ray", "--device", "cuda", "--gpus", "0.5", "--out", str(tmp_path / "study")]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert 'A task of the cluster cannot use the device "cuda": cuda is asked for there' in said
    here.gpus = 0.0
    assert main(words) == 1 and "0 GPUs: too few" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [False, True])
def test_a_run_on_a_cluster_is_told_when_it_is_given_and_when_it_is_done(
    here, tmp_path, monkeypatch, capsys, terminal, one_thread
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    words = ["compare", "max", "avg", *ASK[4:], "--limit", "60", "--seeds", "2"]
    assert main([*words, "--on", "ray", "--workers", "1", "--out", str(tmp_path / "study")]) == 0
    lines = [line.partition("accuracy")[0].strip() for line in capsys.readouterr().err.splitlines()]
    told = [line for line in lines if "seed" in line]
    order = [f"{cell.label}  seed {cell.recipe.seed}" for cell in Study.load(tmp_path / "study").schedule()]
    assert told == [line for n, name in enumerate(order, 1) for line in (f"given  {name}", f"{n}/6  {name}")]


@pytest.mark.parametrize("name", ["poolkit", "torch"])
def test_a_cluster_of_another_version_is_refused(here, monkeypatch, name):
    seen = cluster_module._seen
    monkeypatch.setattr(cluster_module, "_seen", lambda *given: {**seen(*given), name: "0.0.1"})
    with pytest.raises(RunError, match=f"The cluster has {name} 0.0.1"), connected("ray", digits(), job()):
        pass


@needs_ray
def test_the_number_of_places_follows_from_what_a_task_takes():
    from poolkit.lab.cluster import Cluster

    def places(threads, gpus, **have):
        ray = SimpleNamespace(cluster_resources=lambda: have)
        return Cluster(ray, None, SimpleNamespace(threads=threads), gpus).places

    assert places(2, 0.0, CPU=9.0) == 4
    assert places(1, 0.25, CPU=16.0, GPU=2.0) == 8
    with pytest.raises(RunError, match="16 CPUs and 0 GPUs: too few for one task of 1 CPUs and 0.5 GPUs"):
        places(1, 0.5, CPU=16.0)


def test_json_is_asked_for_what_a_task_is_given():
    """A task gets plain values: what JSON holds."""
    given = job(probes=ProbeSettings(), sources={"net_of_mine": "0" * 64})
    assert Job.from_dict(json.loads(json.dumps(given.as_dict()))) == given
