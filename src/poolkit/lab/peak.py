"""The memory of a piece of work: by how much the process grew."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """From here on, the most memory that the process holds at any one time beyond what it holds now.

    WHY not `resource.getrusage`: its peak is that of the whole life of the process, so that a run in a process which
    has done a larger one before would show the larger one's. Linux alone can begin anew; elsewhere it is not measured.
    What is free is given back first, or a run that finds the last one's memory would seem to need none.
    """

    def __init__(self) -> None:
        gc.collect()
        self._start: int | None = None
        try:
            ctypes.CDLL(None).malloc_trim(0)
            _CLEAR.write_text("5", encoding="ascii")
            self._start = _resident("VmRSS")
        except (OSError, AttributeError, TypeError):  # not Linux, or not glibc
            pass

    def grown(self) -> int | None:
        """Bytes, or None where it cannot be measured."""
        if self._start is None or (most := _resident("VmHWM")) is None:
            return None
        return max(most - self._start, 0)


def _resident(name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None
