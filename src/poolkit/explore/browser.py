"""The page in the user's browser, without its secret where other users of this machine can see it."""

from __future__ import annotations

import contextlib
import html
import os
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path

_PAGE = """<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<title>poolkit explore</title><meta http-equiv="refresh" content="0;url={0}"><p><a href="{0}">The explorer</a></p>
"""


@contextlib.contextmanager
def opened(address: str) -> Iterator[None]:
    """Open an address in a browser, beside what is done meanwhile.

    The browser's command line, which every user may list, names a file that only this user can read and that leads to
    the address. It is gone afterwards.
    """
    handle, name = tempfile.mkstemp(prefix="poolkit-", suffix=".html")  # for this user alone: mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_PAGE.format(html.escape(address)))
        # A browser of the terminal does not return before it is left.
        threading.Thread(target=_open, args=[Path(name).as_uri()], daemon=True).start()
        yield
    finally:
        Path(name).unlink(missing_ok=True)


def _open(address: str) -> None:
    with contextlib.suppress(webbrowser.Error, OSError):  # the address stands in the terminal
        webbrowser.open(address)
