"""Workers of a study that are processes of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Any

from poolkit.lab.compare import Event, Events
from poolkit.lab.study import Cell
from poolkit.lab.worker import Job, read_frame

# Not -m: that would look for every module in the current folder first.
_START = "import sys; sys.path[:] = filter(None, sys.path); from poolkit.lab.worker import main; main()"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LAST_WORDS = 2000  # bytes of what a dead worker wrote


def processes(job: Job) -> Callable[[int, Events], Process]:
    """What hires a process for a job."""
    return lambda number, events: Process(number, job, events)


class Process:
    """A worker process. It ends when this process does, also when that is killed.

    Arguments: `number`, its place among the workers; `job`, what its runs share; `events`, told what it tells.
    """

    def __init__(self, number: int, job: Job, events: Events) -> None:
        self.number, self._events = number, events
        self._errors = tempfile.TemporaryFile()
        # Threads are counted when the libraries are loaded. Modules lie where they lie for us.
        path = os.pathsep.join(filter(None, sys.path))
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(job.threads)), "PYTHONPATH": path}
        self._process = subprocess.Popen(  # noqa: S603 - this very Python, with a program of ours
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._send(job.as_dict())

    def give(self, cell: Cell) -> None:
        """Have it execute a cell."""
        self._send({"label": cell.label, "recipe": cell.recipe.as_dict(), "key": cell.key})

    def end(self) -> None:
        """Kill it: whatever it had not sent is lost."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._input, self._output, self._errors):
            with contextlib.suppress(OSError):  # closing writes what is left to a reader that is gone
                stream.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None  # noqa: S101 - asked for as a pipe
        return self._process.stdin

    @property
    def _output(self) -> IO[bytes]:
        assert self._process.stdout is not None  # noqa: S101 - asked for as a pipe
        return self._process.stdout

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it is gone, and its listener will say so
            self._input.write(json.dumps(message).encode() + b"\n")
            self._input.flush()

    def _listen(self) -> None:
        while frame := read_frame(self._output):
            self._events.put(Event(self, *frame))
        self._events.put(Event(self, {"kind": "gone", "why": self._why(self._process.wait())}))

    def _why(self, code: int) -> str:
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return f"{name}, often a sign of too little memory" if name == "SIGKILL" else name
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _LAST_WORDS))
        lines = self._errors.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1] if said else f"exit code {code}"
