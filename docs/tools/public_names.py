"""Every public name has its place in the site, or the build says which has not."""

from __future__ import annotations

import importlib
import inspect
import re
from types import ModuleType
from typing import Any

from sphinx.util import logging

import poolkit

# The modules from which others import.
FACES = (
    "poolkit", "poolkit.torch", "poolkit.keras", "poolkit.check", "poolkit.method", "poolkit.window", "poolkit.xp",
)  # fmt: skip


def public(module: ModuleType) -> list[str]:
    """A module's public names: `__all__`, or what it defines itself without a leading underscore."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        n for n, v in vars(module).items() if not n.startswith("_") and getattr(v, "__module__", "") == module.__name__
    ]


def missing(documented: set[str]) -> list[str]:
    """Public names that are not among the documented ones, under their own name or one that poolkit gives them."""
    homes = {id(value): f"poolkit.{name}" for name, value in vars(poolkit).items() if name in poolkit.__all__}
    found = []
    for face in FACES:
        module = importlib.import_module(face)
        for name in public(module):
            known = {f"{face}.{name}", homes.get(id(getattr(module, name)), "")}
            if not known & documented:
                found.append(f"{face}.{name}")
    return found


def unwritten(text: str) -> str:
    """Entries for the public names that the hand-written pages, `text`, do not know yet, in reStructuredText."""
    methods = {id(cls) for cls in poolkit.METHODS.values()}
    entries: dict[int, str] = {}
    for face in FACES:
        for name in public(importlib.import_module(face)):
            value = getattr(importlib.import_module(face), name)
            if id(value) in methods or isinstance(value, poolkit.Fact) or re.search(rf"\b{name}\b", text):
                continue
            kind = "autoclass" if inspect.isclass(value) else "autofunction" if callable(value) else "py:data"
            entry = f"py:data:: {name}\n   :module: {face}" if kind == "py:data" else f"{kind}:: {face}.{name}"
            entries.setdefault(id(value), f".. {entry}\n")
    return "\n".join(entries.values())


def _check(app: Any, env: Any) -> None:
    for name in missing(set(env.domains["py"].objects)):
        logging.getLogger(__name__).warning("%s is public and stands nowhere: add it to a page of docs/api", name)


def setup(app: Any) -> dict[str, bool]:
    """Look when all pages have been read."""
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True}
