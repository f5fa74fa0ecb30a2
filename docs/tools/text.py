"""Words of the code as Markdown and as reStructuredText."""

from __future__ import annotations

import re

_CODE = re.compile(r"(`[^`]*`)")


def markdown(text: str) -> str:
    """Prose as MyST Markdown: what stands in backticks is code, all else means just itself."""
    parts = _CODE.split(text)
    return "".join(p if p.startswith("`") else re.sub(r"([*_<>|\[\]\\{}#$~])", r"\\\1", p) for p in parts)


def cell(text: str) -> str:
    """The same inside a table, where a bar would end the cell even in code."""
    return re.sub(r"(?<!\\)\|", r"\\|", markdown(text))


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table whose cells are Markdown already."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
