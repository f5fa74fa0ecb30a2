"""The checklist of `checklist.toml` as a page: `python tests/checklist.py` writes `docs/checklist.md`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import tomllib
except ImportError:  # Python 3.10; pytest brings it there
    import tomli as tomllib  # type: ignore[no-redef]

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "checklist.md"


def groups() -> list[dict[str, Any]]:
    """The groups of items, in order."""
    return list(tomllib.loads((HERE / "checklist.toml").read_text(encoding="utf-8"))["group"])


def items() -> Iterator[dict[str, Any]]:
    """All items, in order."""
    for group in groups():
        yield from group["item"]


def page() -> str:
    """The page in Markdown."""
    lines = [
        "---",
        "orphan: true",
        "---",
        "",
        "# What every method passes",
        "",
        "Each line is a test that fails when it is not so. Contracts run for every method, on the CPU engine and on",
        "the array formula (`poolkit check METHOD`); the other tests are functions in `tests/`.",
    ]
    for group in groups():
        lines += ["", f"## {group['title']}", "", "| | what | shown by |", "|---|---|---|"]
        lines += [f"| {item['id']} | {item['says']} | {_shown(item)} |" for item in group["item"]]
    return "\n".join(lines) + "\n"


def _shown(item: dict[str, Any]) -> str:
    contracts = ", ".join(f"*{name}*" for name in item.get("contracts", ()))
    parts = [f"contract {contracts}"] if contracts else []
    parts += [f"`{name}`" for name in item.get("tests", ())]
    return "; ".join(parts) or f"does not apply: {item['reason']}"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
