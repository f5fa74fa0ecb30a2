"""Every public name has its place in the site, or the build says which has not."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from sphinx.util import logging

import poolkit

# Modules that belong to the library's own works: nobody outside imports from them by design.
INTERNAL = {
    "poolkit.__main__", "poolkit.cards", "poolkit.cli", "poolkit.cli_bench", "poolkit.cli_training", "poolkit.commands",
    "poolkit.console", "poolkit.contracts", "poolkit.doctor", "poolkit.draws", "poolkit.kernels", "poolkit.lab",
    "poolkit.layer_contracts", "poolkit.methods", "poolkit.own", "poolkit.report", "poolkit.subject",
}  # fmt: skip


def faces() -> list[str]:
    """The modules whose names are public: poolkit itself and whatever beside it is not internal."""
    beside = (f"poolkit.{found.name}" for found in pkgutil.iter_modules(poolkit.__path__))
    return ["poolkit", *(name for name in beside if name not in INTERNAL)]


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
    for face in faces():
        module = importlib.import_module(face)
        for name in public(module):
            known = {f"{face}.{name}", homes.get(id(getattr(module, name)), "")}
            if not known & documented:
                found.append(f"{face}.{name}")
    return found


def _check(app: Any, env: Any) -> None:
    for name in missing(set(env.domains["py"].objects)):
        logging.getLogger(__name__).warning("%s is public and stands nowhere: add it to a page of docs/api", name)


def setup(app: Any) -> dict[str, bool]:
    """Look when all pages have been read."""
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True}
