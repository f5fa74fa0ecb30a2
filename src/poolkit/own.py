"""Methods of your own, spelled `module:Class` and `module:Class:b=2`.

Whoever spells a method runs the code of its module. What a file spells, a run's or a study's, runs no code until its
reader has allowed it by its name.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import poolkit
from poolkit.console import Stop, Wrong
from poolkit.map_method import HeadMethod, MapMethod
from poolkit.method import Card, Method, Param, WindowMethod, named, nearest, with_parameters

_KINDS = (Method, WindowMethod, MapMethod, HeadMethod)
# With what only a class that cannot be imported has in its name, such as "<locals>", so that it is refused by its name.
_FORM = re.compile(r"(?P<name>[A-Za-z_]\w*(?:\.\w+)*:[A-Za-z_][\w.<>]*)(?::(?P<rest>[^:]*))?")
_ALLOWED: set[str] = set()


def names_own(spelling: object) -> bool:
    """Whether a spelling is one of a method that is not poolkit's; nothing is imported to say so."""
    found = _FORM.fullmatch(spelling.strip()) if isinstance(spelling, str) else None
    return found is not None and found["name"].partition(":")[0] not in poolkit.METHODS


def allow(spelling: str) -> None:
    """Say that the code which a spelling stands for may run in this process: its user asked for it by that name.

    Of several with | between, as recipes have them, each.
    """
    _ALLOWED.update(_parts(part)[0] for part in spelling.split("|") if names_own(part))


def is_allowed(spelling: str) -> bool:
    """Whether the methods that a file spells may be made: a folder from elsewhere shall not choose which code runs.

    They may where nothing would be imported: the user's own code has imported their classes.
    """
    return all(is_here(part) or _parts(part)[0] in _ALLOWED for part in spelling.split("|"))


def allowed() -> list[type[Method]]:
    """The user's own classes that were allowed and are imported."""
    return [cls for name in sorted(_ALLOWED) if (cls := _here(name))]


def is_here(spelling: str) -> bool:
    """Whether a method can be made of a spelling without importing anything."""
    return not names_own(spelling) or _here(_parts(spelling)[0]) is not None


def spelled(spelling: str) -> str:
    """The one spelling of a method; that of a class which is not here yet stays as it is, for nothing is imported.

    Raises `ValueError`: no such method.
    """
    return poolkit.method(spelling).spelling if is_here(spelling) else spelling.strip()


def typed(*spellings: str | None) -> None:
    """Take what the user typed: import the classes, so that what is wrong with them is said before any work.

    Raises `Wrong` or `Stop`, as `imported`.
    """
    for part in (part for spelling in spellings if spelling for part in spelling.split("|")):
        if names_own(part):
            imported(_parts(part)[0])
            allow(part)


def read(spelling: str) -> Method:
    """The method of a user's spelling, whose module is imported.

    Raises `ValueError`: no such class, one that is no complete method, an unknown parameter or value.
    """
    name, text = _parts(spelling)
    try:
        cls = imported(name)
    except Stop as reason:
        raise ValueError(str(reason).removesuffix(_WHERE)) from reason
    _complete(cls, name)
    allow(name)
    return with_parameters(cls, name, text)


def comes_back(method: Method) -> bool:
    """Whether a method's spelling finds its class again."""
    name = named(type(method))
    return (_here(name) if names_own(name) else poolkit.METHODS.get(name)) is type(method)


def nowhere(name: str) -> str:
    """Why a class of such a name cannot be imported, and what to do; nothing where it can."""
    module, _, cls = name.partition(":")
    if module != "__main__" and "." not in cls:
        return ""
    where = "in __main__" if module == "__main__" else "inside a function or another class"
    return (
        f"its class is defined {where}, where no other process finds it\n"
        f"  move it to the top of a module, such as my_module.py, and spell it my_module:{cls.rpartition('.')[2]}"
    )


_WHERE = "\n  --verbose shows where"


def _parts(spelling: str) -> tuple[str, str]:
    found = _FORM.fullmatch(spelling.strip())
    return (found["name"], found["rest"] or "") if found else (spelling, "")


def _here(name: str) -> type[Method] | None:
    """The class that is found under a name without importing anything."""
    module, _, cls = name.partition(":")
    # Its dictionary, for a module may compute what is not there yet.
    found = getattr(sys.modules.get(module), "__dict__", {}).get(cls) if module != "__main__" else None
    return found if isinstance(found, type) and issubclass(found, Method) and found not in _KINDS else None


def _complete(cls: type[Method], name: str) -> None:
    """Refuse a class of which no value can be made or spelled."""
    if not isinstance(getattr(cls, "card", None), Card):
        missing = "has no card"
    elif not dataclasses.is_dataclass(cls):
        missing = "is not a frozen dataclass"
    elif any(not isinstance(field.metadata.get("param"), Param) for field in dataclasses.fields(cls)):
        missing = "has a field that is not made by param"
    else:
        return
    raise ValueError(f'"{name}" {missing}\n  what to write: poolkit check {name}')


@contextmanager
def current_folder_first() -> Iterator[None]:
    """Modules are looked for in the current folder, then among the installed packages, as `python -m` does."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")


def imported(asked: str) -> type[Method]:
    """The class that `module:Class` names; the module may lie in the current folder.

    Raises `Wrong`: no such module, no such class in it, or one that is no pooling method; `Stop`: importing failed.
    """
    module, _, name = asked.partition(":")
    if reason := nowhere(asked):
        raise Wrong(f'"{asked}" cannot be imported: {reason}')
    if not re.fullmatch(r"\w+(\.\w+)*", module) or not name.isidentifier() or module.endswith(".py"):
        raise Wrong(
            f'"{asked}" names no class\n  write module:Class, such as my_module:MyPool for a class in my_module.py'
        )
    try:
        with current_folder_first():
            found = importlib.import_module(module)
    except Exception as error:  # importing runs the module, which may fail in any way
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            raise Wrong(
                f'no pooling method and no module "{error.name}"{nearest(error.name, poolkit.METHODS)}\n'
                "  searched: the current folder, then the installed packages"
            ) from error
        raise Stop(f'importing "{module}" failed: {type(error).__name__}: {error}{_WHERE}') from error
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
