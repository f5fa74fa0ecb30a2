"""Methods of your own, named as `module:Class` on the command line."""

from __future__ import annotations

import difflib
import importlib
import re
import sys

from poolkit.console import Stop, Wrong
from poolkit.map_method import HeadMethod, MapMethod
from poolkit.method import Method, WindowMethod

_KINDS = (Method, WindowMethod, MapMethod, HeadMethod)


def imported(asked: str) -> type[Method]:
    """The class that `module:Class` names; the module may lie in the current folder.

    Raises `Wrong`: no such module, no such class in it, or one that is no pooling method; `Stop`: importing failed.
    """
    module, _, name = asked.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", module) or not name.isidentifier() or module.endswith(".py"):
        raise Wrong(
            f'"{asked}" names no class\n  write module:Class, such as my_module:MyPool for a class in my_module.py'
        )
    sys.path.insert(0, "")
    try:
        found = importlib.import_module(module)
    except Exception as error:  # importing runs the module, which may fail in any way
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            raise Wrong(
                f'no module "{error.name}"\n  searched: the current folder, then the installed packages'
            ) from error
        raise Stop(f'importing "{module}" failed: {type(error).__name__}: {error}\n  --verbose shows where') from error
    finally:
        sys.path.remove("")
    methods = [n for n, v in vars(found).items() if isinstance(v, type) and issubclass(v, Method) and v not in _KINDS]
    methods.sort(key=lambda n: getattr(found, n).__module__ != module)  # its own before those it imports
    if not hasattr(found, name):
        raise Wrong(f'the module "{module}" has no class "{name}"{_hint(name, methods)}')
    if name not in methods:
        bases = ", ".join(f"poolkit.{kind.__name__}" for kind in _KINDS[1:])
        raise Wrong(f'"{asked}" is not a pooling method\n  its class must derive from one of {bases}')
    return getattr(found, name)


def _hint(name: str, methods: list[str]) -> str:
    """The methods of a module whose names are near to one, or else the first three, and how many more there are."""
    near = difflib.get_close_matches(name, methods, n=3) or methods[:3]
    more = len(methods) - len(near)
    return f"\n  it has: {', '.join(near)}" + (f" and {more} more" if more else "") if near else ""
