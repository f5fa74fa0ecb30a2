"""kill -9 at random moments over running studies: `python tests/kill_study.py --kills 200`.

A small study on the embedded digits is run by the command line, with two worker processes. Again and again the command,
or one of its workers, is killed; then everything on the disk must be readable, every run that the command had said to
be done must be there, byte for byte, and stay so, and no process may be left over. When a study is complete its table
must be that of one that nobody disturbed, and the next one begins.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import PATIENCE
from poolkit.lab.data import digits
from poolkit.lab.recipe import Recipe
from poolkit.lab.study import Request, Study, store
from poolkit.lab.worker import Job, carry_out

METHODS, SEEDS, LIMIT = ("max", "stochastic"), 2, 60
ASK = [
    "compare", *METHODS, "--data", "digits", "--epochs", "1", "--limit", str(LIMIT), "--seeds", str(SEEDS),
    "--no-robustness", "--workers", "2", "--threads", "1",
]  # fmt: skip
_ACKNOWLEDGED = re.compile(r"\d+/\d+  (.+)  seed (\d+)  ")


def table(study: Study) -> str:
    """Everything that a study found, without times and machines, as text."""
    rows = []
    for label, seed, run, probes, _ in study.results():
        arrays = {**run.predictions(), **(probes or {})} if run.status == "finished" else {}
        clocks = ("seconds", "images_per_second")
        rows.append(
            {
                "label": label,
                "seed": seed,
                "key": run.recipe_hash,
                "status": run.status,
                "message": run.message,
                "final": run.final,
                "epochs": [{k: v for k, v in row.items() if k not in clocks} for row in run.epochs],
                "weights": run.weights_sha256,
                "arrays": {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()},
            }
        )
    return json.dumps(rows, indent=1)


def undisturbed(folder: Path) -> Study:
    """The study as one process trains it, cell by cell."""
    import torch

    torch.set_num_threads(1)
    data = digits()
    base = Recipe(data="digits", epochs=1, limit=LIMIT)
    study = Study.begin(folder, Request(METHODS, SEEDS, base, data.sha256, probes=None))
    job = Job(study.sha256, "digits", data.sha256, None, None, "cpu", 1, 2, None)
    for cell in study.missing():
        store(study.path(cell), carry_out(cell, job, data))
    return study


@dataclass
class Life:
    """One call of the command, from its start to its end or its death."""

    folder: Path
    process: subprocess.Popen[str] = field(init=False)
    lines: queue.Queue[str | None] = field(default_factory=queue.Queue)
    acknowledged: set[tuple[str, int]] = field(default_factory=set)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "poolkit", *ASK, "--out", str(self.folder)]
        self.process = subprocess.Popen(
            command, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.lines.put(line)
        self.lines.put(None)

    def listen(self, seconds: float) -> bool:
        """Hear the command for so long; True if it ended."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                line = self.lines.get(timeout=left)
            except queue.Empty:
                return False
            if line is None:
                return True
            self.said.append(line)
            if match := _ACKNOWLEDGED.match(line):
                self.acknowledged.add((match[1], int(match[2])))
        return False

    def begun(self) -> bool:
        """Wait until the command has begun with its runs; False if it ended before."""
        while not any("at once" in line for line in self.said):
            if self.listen(0.2):
                return False
        return True

    def workers(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [int(word) for word in path.read_text().split()]
        except OSError:
            return []


def kill_study(root: Path, kills: int, seed: int) -> Counter[str]:
    """Kill so many times; raises `AssertionError` where anything was lost. Returns what was done."""
    rng, counts = random.Random(seed), Counter[str]()
    expected = table(undisturbed(root / "undisturbed"))
    while counts["kills"] < kills:
        folder = root / f"study-{counts['studies']}"
        known: dict[tuple[str, int], bytes] = {}
        while True:
            life = Life(folder)
            ended = _disturb(life, rng, counts, kills)
            study = _inspect(folder, life, known)
            if ended:
                assert life.process.wait() == 0, "".join(life.said)
                break
        assert study is not None and study.missing() == () and table(study) == expected
        _no_strangers(study)
        counts["studies"] += 1
    return counts


def _disturb(life: Life, rng: random.Random, counts: Counter[str], kills: int) -> bool:
    """Kill the command or a worker at a random moment; True if the command came to its end."""
    left = kills - counts["kills"]
    if left <= 0:
        return _to_the_end(life)
    if rng.random() < 0.1:
        if life.listen(rng.uniform(0, 3)):  # it may not even have begun
            return True
    elif not life.begun() or life.listen(rng.uniform(0, 5)):
        return True
    workers = life.workers()
    if workers and rng.random() < 0.25:
        _kill_one(workers, rng, counts)
        if left == 1:
            return _to_the_end(life)
        if life.listen(rng.uniform(0, 5)):
            return True
        workers = life.workers()
    life.process.kill()
    counts["kills"] += 1
    counts["commands killed"] += 1
    _to_the_end(life)
    life.process.wait()
    _await_orphans(workers)
    return False


def _to_the_end(life: Life) -> bool:
    while not life.listen(1.0):
        pass
    return True


def _kill_one(workers: list[int], rng: random.Random, counts: Counter[str]) -> None:
    try:
        os.kill(rng.choice(workers), signal.SIGKILL)
    except ProcessLookupError:
        return
    counts["kills"] += 1
    counts["workers killed"] += 1


def _await_orphans(workers: list[int]) -> None:
    until = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}/exe").exists() for pid in workers):
        assert time.monotonic() < until, "a worker outlived its study"
        time.sleep(0.05)


def _inspect(folder: Path, life: Life, known: dict[tuple[str, int], bytes]) -> Study | None:
    """What lies there is readable, and nothing that was acknowledged is lost or another."""
    if not (folder / "study.toml").exists():
        assert not life.acknowledged
        return None
    study = Study.load(folder)
    found: dict[Any, bytes] = {}
    for result in study.results():
        assert result.run.folder is not None
        found[result.label, result.seed] = (result.run.folder / "run.json").read_bytes()
    assert life.acknowledged <= set(found), f"lost: {life.acknowledged - set(found)}"
    for place, content in known.items():
        assert found.get(place) == content, f"{place} was done and is another now"
    known.update(found)
    return study


def _no_strangers(study: Study) -> None:
    """Every folder under runs/ is a cell's, and holds a result's files and no others."""
    assert {path.name for path in (study.folder / "runs").iterdir()} == {cell.folder for cell in study.cells()}
    for cell in study.cells():
        assert {path.name for path in study.path(cell).iterdir()} == {"predictions.npz", "study.json", "run.json"}


def main() -> None:
    """Kill, and say what happened."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        counts = kill_study(Path(root), given.kills, given.seed)
    print(", ".join(f"{count} {words}" for words, count in counts.items()) + ": nothing lost, no table another")


if __name__ == "__main__":
    main()
