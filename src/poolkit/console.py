"""How the command line speaks: answers on stdout, remarks on stderr, errors that say what to do next."""

from __future__ import annotations

import json
import re
import shlex
import sys
import traceback
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

# What a stream without Unicode shows instead; what else it cannot encode becomes a question mark.
_ASCII = str.maketrans(
    {**dict.fromkeys("┌┬┐├┼┤└┴┘", "+"), "─": "-", "│": "|", "→": ">", "×": "x", "·": "-", "…": "..."}
)
_ASCII |= str.maketrans(
    {"✓": "ok", "✗": "FAIL", "–": "-", "−": "-", "≥": ">=", "≤": "<=", "“": '"', "”": '"', "’": "'"}
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# By name: to import these classes would import NumPy and torch before a command needs them.
_OURS = ("DataMissing", "DataError", "PictureError", "RunError", "ReportError")


class Stop(Exception):
    """The end of a command whose work failed; the message says what to do next."""

    code = 1


class Wrong(Stop):
    """The end of a command that cannot answer such a request."""

    code = 2


@dataclass
class Settings:
    """One call of the command line: its words, and what it wants to hear."""

    words: tuple[str, ...] = ()
    quiet: bool = False
    verbose: bool = False
    json: bool = False

    @property
    def command(self) -> str:
        """The call as one types it."""
        return shlex.join(["poolkit", *self.words])


settings = Settings()


@contextmanager
def request() -> Iterator[None]:
    """What the library refuses as a value, raising `ValueError` or `TypeError`, is `Wrong` here."""
    try:
        yield
    except (ValueError, TypeError) as reason:
        raise Wrong(str(reason)) from reason


def start(words: Sequence[str]) -> None:
    """Begin a call of the command line with these words; nothing is kept of the one before."""
    global settings
    settings = Settings(tuple(words))


def answer(text: str, lead: str = "", style: str = "") -> None:
    """Print what was asked for, on stdout; `lead` stands before it, in a `style` of rich's on a terminal."""
    _write(sys.stdout, text, lead, style)


def tell(text: str) -> None:
    """Print what leads to the answer, on stdout; not with --quiet and not beside JSON."""
    if not (settings.quiet or settings.json):
        answer(text)


def remark(text: str) -> None:
    """Print how the work goes on, on stderr; not with --quiet."""
    if not settings.quiet:
        _write(sys.stderr, text)


def complain(text: str) -> None:
    """Print an error, on stderr."""
    _write(sys.stderr, text, "error: ", "bold red")


def emit(value: Any) -> None:
    """Print a value as JSON, on stdout; raises `ValueError` for NaN and infinity, which JSON does not have."""
    answer(json.dumps(value, indent=1, ensure_ascii=not _fits("→", sys.stdout), allow_nan=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> None:
    """Print rows under the names of their columns, on stdout; the columns named in `right` are set to the right.

    On a terminal they are folded to its width; in a file or a pipe a line is as long as it needs to be.
    """
    cells = [[_printable(str(cell), sys.stdout) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        for row in (columns, *cells):
            placed = zip(columns, row, widths, strict=True)
            answer("  ".join(t.rjust(w) if name in right else t.ljust(w) for name, t, w in placed).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        grid.add_column(Text(name), justify="right" if name in right else "left")
    for row in cells:
        grid.add_row(*map(Text, row))
    Console(highlight=False).print(grid)


def failed(error: Exception) -> int:
    """Say what went wrong and return the exit code: 1 the work failed, 2 the request was wrong."""
    if settings.verbose:
        traceback.print_exception(error)
    if isinstance(error, Stop):
        complain(str(error))
        return error.code
    if type(error).__name__ in _OURS and type(error).__module__.startswith("poolkit."):
        complain(str(error))
    elif isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("poolkit"):
        complain(
            f'{error.name} is not installed, and this command needs it\n  install it: pip install "poolkit[lab]"\n'
            "  if it is your own, beside your net or method: import it at the top of that module"
        )
    elif isinstance(error, OSError):
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    else:
        lines = str(error).splitlines() or [""]
        complain(f"{type(error).__name__}: {lines[0]}\n  run again with --verbose for the stack trace")
    return 1


def _write(stream: TextIO, text: str, lead: str = "", style: str = "") -> None:
    text, lead = _printable(text, stream), _printable(lead, stream)
    if style and stream.isatty():
        from rich.console import Console
        from rich.text import Text

        Console(file=stream, highlight=False).print(Text.assemble((lead, style), text), soft_wrap=True)
    else:
        # Flushed each time, so that stdout and stderr stay in order where both go to one file.
        print(lead + text, file=stream, flush=True)


def _printable(text: str, stream: TextIO) -> str:
    """The text as the stream can encode it, without characters that steer a terminal.

    Names of classes and files come from others: an escape sequence in them is shown, not obeyed.
    """
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
    if _fits(text, stream):
        return text
    encoding = stream.encoding or "utf-8"
    # Compatibility forms are plain letters and digits where Unicode has subscripts and superscripts: xᵢ is xi.
    plain = unicodedata.normalize("NFKC", text.translate(_ASCII))
    return plain.encode(encoding, "replace").decode(encoding)


def _fits(text: str, stream: TextIO) -> bool:
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
