"""Docstrings as Sphinx reads them: ours are plain text in which an indented paragraph is a formula."""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"(`[^`]*`)")
_SECTION = re.compile(r"(Args|Arguments|Attributes|Returns|Yields|Raises|Shape|Example|Examples|Note):$")

_passed: dict[str, list[str]] = {}


def rewrite(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Mark formulas as such, and let stars, bars and trailing underscores mean just themselves."""
    written: list[str] = []
    for number, line in enumerate(lines):
        starts = line.startswith("    ") and number > 1 and not lines[number - 1].strip()
        above = next((known for known in reversed(written) if known.strip()), "")
        if starts and not above.startswith(" ") and not _SECTION.match(above):
            written += [".. code-block:: none", ""]
        formula = line.startswith("    ") and not _in_section(lines, number)
        written.append(line if formula or line.lstrip().startswith((">>>", "...")) else _plain(line))
    if what in ("attribute", "property"):  # napoleon would take the words before the first colon for a type
        _passed[name], written = written, []
    lines[:] = written


def restore(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Bring back what napoleon was not to see."""
    lines[:] = _passed.pop(name, lines)


def _in_section(lines: list[str], number: int) -> bool:
    """Whether an indented line belongs to a section such as `Args:`."""
    above = next((line for line in reversed(lines[:number]) if line and not line.startswith(" ")), "")
    return bool(_SECTION.match(above))


def _plain(line: str) -> str:
    parts = _CODE.split(line)
    return "".join(p if p.startswith("`") else re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", p) for p in parts)


def setup(app: Any) -> dict[str, bool]:
    """Run before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", rewrite, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)
    return {"parallel_read_safe": True}
