"""A connection that is closed where nobody asks anything through it."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

#: How long a connection may wait for the whole head of a request, from its start or from the last answer on.
SECONDS = 10.0


class Connection(H11Protocol):
    """uvicorn's connection, which has no limit of its own before a first request, nor once half of a next one came.

    Without one, as many silent connections as the server takes would shut out the page for ever.
    """

    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        """Wait anew: what came of a next request is answered, or will be."""
        self._wait()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        if self._clock:
            self._clock.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._clock:
            self._clock.cancel()
        self._clock = self.loop.call_later(SECONDS, self._leave)

    def _leave(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and not self.flow.write_paused:
            self._wait()
        else:  # also one that reads none of its answers
            self.transport.abort()
