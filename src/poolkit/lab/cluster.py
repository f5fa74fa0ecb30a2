"""A study on a Ray cluster: a cell is a task, and the files of its result come back as bytes to who runs the study.

    pip install "poolkit[ray]"
    poolkit compare max soft --seeds 10 --on ray                      # a cluster of this machine alone
    RAY_AUTH_TOKEN=… poolkit compare … --on ray://head.example:10001  # one that is there

Nothing is written by a task. The driver stores results as it does those of its own processes, so that a lost worker, a
lost node or a killed driver costs the runs that were at work and no result that was told. Every machine of the cluster
needs this version of poolkit.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

import poolkit
from poolkit.lab.compare import Event, Events, Hand
from poolkit.lab.data import Data
from poolkit.lab.device import fault
from poolkit.lab.origin import changed, torch_version
from poolkit.lab.recipe import Recipe
from poolkit.lab.record import RunError
from poolkit.lab.study import Cell
from poolkit.lab.validation import Pictures, Validation
from poolkit.lab.worker import Job, carry_out

_RETRIES = 3  # of a task whose worker or node is lost, by Ray, on another one
_OLDEST = (2, 52)  # the first Ray that can ask its clients for a token
_HOW = '  pip install "poolkit[ray]"'


@dataclass(frozen=True)
class Cluster:
    """A connected cluster.

    Fields: `ray`, the module; `data`, a reference to the pictures in its store; `job`, what all tasks share; `gpus`,
    the share of a GPU that each task takes.
    """

    ray: Any
    data: Any
    job: Job
    gpus: float = 0.0

    @property
    def places(self) -> int:
        """How many tasks run at once: by cores, and by GPUs where tasks take some."""
        have = self.ray.cluster_resources()
        places = have.get("CPU", 0.0) // self.job.threads
        if self.gpus:
            places = min(places, have.get("GPU", 0.0) / self.gpus)
        if places < 1:
            raise RunError(
                f"The cluster has {have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs: too few for one task of "
                f"{self.job.threads} CPUs and {self.gpus:g} GPUs.\n  Ask for fewer with --threads or --gpus."
            )
        return int(places)

    def hire(self, number: int, events: Events) -> Hand:
        """A place of the cluster, as `poolkit.lab.compare.complete` takes workers."""
        return _Place(number, events, self)


class _Place:
    """A place in the cluster: gives one task at a time and waits for it in a thread of its own."""

    def __init__(self, number: int, events: Events, cluster: Cluster) -> None:
        self.number, self._events, self._cluster = number, events, cluster
        self._task: Any = None
        self._tell({"kind": "ready"})

    def give(self, cell: Cell) -> None:
        """Submit a cell."""
        c = self._cluster
        options = {"num_cpus": c.job.threads, "num_gpus": c.gpus, "max_retries": _RETRIES, "retry_exceptions": False}
        asked = {"label": cell.label, "recipe": cell.recipe.as_dict(), "key": cell.key}
        self._task = c.ray.remote(_execute).options(**options).remote(asked, c.job.as_dict(), c.data)
        threading.Thread(target=self._wait, args=(self._task,), daemon=True).start()

    def end(self) -> None:
        """Cancel what runs; a cluster that is gone has nothing to cancel."""
        if self._task is not None:
            with suppress(Exception):
                self._cluster.ray.cancel(self._task, force=True)

    def _wait(self, task: Any) -> None:
        try:
            files = self._cluster.ray.get(task)
        except Exception as error:  # Ray has many for what can be lost, and passes on those of a task
            last = (str(error).strip().splitlines() or [""])[-1]
            self._tell({"kind": "gone", "why": f"{type(error).__name__}: {last}"})
            return
        self._tell({"kind": "result"}, files)

    def _tell(self, message: Mapping[str, Any], files: Mapping[str, bytes] | None = None) -> None:
        self._events.put(Event(self, message, files or {}))


@contextmanager
def connected(address: str, data: Pictures, job: Job, gpus: float = 0.0) -> Iterator[Cluster]:
    """A cluster that executes a study's cells.

    Whoever may talk to a Ray cluster may run anything on it: our side shows a token. A cluster of this machine alone
    gets one of its own and asks for it; for one that is there, give its token as RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.
    Whether that one asks for it is set where it is started.

    Arguments: `address`, "ray" for this machine alone, or `ray://HOST:PORT`; `data`, sent to the cluster once; `job`,
    what all cells share; `gpus`, the share of a GPU that each task takes.
    Raises `RunError`: no Ray, an old one, no token, no such cluster, or one whose tasks have another version, another
    net or no such device.
    """
    ray = _ray(address)
    own: dict[str, Any] = {"address": "local", "include_dashboard": False} if address == "ray" else {"address": address}
    try:
        ray.init(**own, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray has no one class for a cluster that does not answer
        raise RunError(f"The Ray cluster {address} does not take us: {type(error).__name__}: {error}") from error
    try:
        cluster = Cluster(ray, ray.put(_plain(data)), job, gpus)
        _check_tasks(cluster)
        yield cluster
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raise `RunError` where `connected` would for what this machine has: the address, the token, or Ray itself."""
    _ray(address)


def _ray(address: str) -> Any:
    if address != "ray" and not address.startswith("ray://"):
        raise RunError(f"--on {address}: there is no such place\n  allowed: ray, ray://HOST:PORT")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Read by Ray when it is imported.
    os.environ["RAY_AUTH_MODE"] = "token"
    if not any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        if address != "ray":
            raise RunError(
                "The cluster wants a token.\n  Give it as RAY_AUTH_TOKEN, or its file as RAY_AUTH_TOKEN_PATH."
            )
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        import ray
    except ImportError:
        raise RunError(f"--on {address} needs Ray\n{_HOW}") from None
    if tuple(map(int, ray.__version__.split(".")[:2])) < _OLDEST:
        raise RunError(f"Ray {ray.__version__} is too old: {'.'.join(map(str, _OLDEST))} or newer\n{_HOW}")
    return ray


def _check_tasks(cluster: Cluster) -> None:
    """See that a task there has this version, the net's files and the device; raises `RunError`."""
    job, takes = cluster.job, {"num_cpus": 0, "num_gpus": cluster.gpus}
    if cluster.gpus and not cluster.places:  # raises where there are none, for which a task would wait for ever
        return
    try:
        task = cluster.ray.remote(_seen).options(**takes).remote(job.device, dict(job.sources))
        there = cluster.ray.get(task)
    except Exception as error:
        raise RunError(f"The cluster cannot run poolkit: {error}\n  Install this version there.") from error
    for name, version in {"poolkit": poolkit.__version__, "torch": torch_version()}.items():
        if there[name] != version:
            raise RunError(f"The cluster has {name} {there[name]}, here it is {version}.\n  Install the same.")
    for module in there["changed"]:
        raise RunError(
            f"The net or a method comes from {module}, which the cluster has not, or another.\n  Copy the file there."
        )
    if there["fault"]:
        raise RunError(
            f'A task of the cluster cannot use the device "{job.device}": {there["fault"]}\n'
            "  Ray shows a task only what --gpus gives it, as cuda or cuda:0."
        )


def _seen(device: str, sources: dict[str, str]) -> dict[str, Any]:
    """A task: what a cell would find where it runs."""
    return {
        "poolkit": poolkit.__version__,
        "torch": torch_version(),
        "changed": changed(sources),
        "fault": fault(device),
    }


def _plain(data: Pictures) -> dict[str, Any]:
    """A data set as arrays and texts."""
    return {f.name: getattr(data, f.name) for f in dataclasses.fields(data)}  # type: ignore[arg-type]


_KEPT: dict[str, Pictures] = {}  # in a worker: the data of its study


def _execute(asked: Mapping[str, Any], job: dict[str, Any], given: Mapping[str, Any]) -> dict[str, bytes]:
    """A task: a cell's files."""
    import torch

    from poolkit.lab.terminal import keep_memory

    wanted = Job.from_dict(job)
    torch.set_num_threads(wanted.threads)
    if given["sha256"] not in _KEPT:
        keep_memory()
        # Ray's arrays are read-only, which torch warns of.
        writable = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in given.items()}
        _KEPT.clear()
        _KEPT[given["sha256"]] = Validation(**writable) if wanted.tuning else Data(**writable)
    cell = Cell(asked["label"], Recipe.from_dict(asked["recipe"]), asked["key"])
    return carry_out(cell, wanted, _KEPT[given["sha256"]])
