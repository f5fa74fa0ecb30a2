"""The one thread that computes the explorer's views, one after the other, while the server goes on answering."""

from __future__ import annotations

import asyncio
import importlib
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any


class Worker:
    """A thread of its own for what takes long; nobody waits for it when the process ends.

    A pool of threads would be waited for: Ctrl-C would then end nothing before the computation had.
    """

    def __init__(self) -> None:
        self._jobs: queue.Queue[tuple[Future[Any], Callable[[], Any]]] = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    @property
    def is_busy(self) -> bool:
        """Whether something is being computed, or waits to be."""
        return self._jobs.unfinished_tasks > 0

    def later(self, work: Callable[[], Any]) -> Future[Any]:
        """Call a function after all that was asked for before."""
        job: Future[Any] = Future()
        self._jobs.put((job, work))
        return job

    async def done(self, work: Callable[[], Any]) -> Any:
        """What a function returns, called after all that was asked for before."""
        return await asyncio.wrap_future(self.later(work))

    def _work(self) -> None:
        while True:
            job, work = self._jobs.get()
            if job.set_running_or_notify_cancel():
                try:
                    with _one_thread():
                        found = work()
                except BaseException as reason:  # this thread goes on, whatever the work raises
                    job.set_exception(reason)
                else:
                    job.set_result(found)
            self._jobs.task_done()


@contextmanager
def _one_thread() -> Iterator[None]:
    """On pictures this small torch's threads would wait for each other many times as long as they compute."""
    torch = importlib.import_module("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
