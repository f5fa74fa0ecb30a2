"""What a kernel is made of, as text: equal texts mean equal machine code, in any process.

The code that runs counts, not a file that may have been edited since: bytecode, constants, what functions have closed
over, and the functions, numbers and words that they reach by global names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

PLAIN = (bool, int, float, str, bytes, type(None), complex)


def fingerprint(*functions: Any) -> str | None:
    """The text of some functions; None where something in them has no value that outlives the process."""
    seen: dict[int, int] = {}
    try:
        return hashlib.sha256("\n".join(part for f in functions for part in _parts(f, seen)).encode()).hexdigest()
    except TypeError:
        return None


def _parts(thing: Any, seen: dict[int, int]) -> Iterator[str]:
    function = getattr(thing, "py_func", thing)
    if isinstance(thing, PLAIN):
        yield f"{type(thing).__name__} {thing!r}"
    elif isinstance(thing, ModuleType):
        yield f"module {thing.__name__}"  # the engine's words: their files count on their own
    elif isinstance(thing, (tuple, list)):
        yield f"{len(thing)} things"
        for one in thing:
            yield from _parts(one, seen)
    elif not isinstance(function, FunctionType):
        raise TypeError(f"{thing!r} is not known by its value")
    elif id(function) in seen:
        yield f"function {seen[id(function)]}"
    else:
        seen[id(function)] = len(seen)
        yield from _code(function.__code__)
        for cell in function.__closure__ or ():
            yield from _parts(cell.cell_contents, seen)
        yield from _parts(function.__defaults__, seen)
        for name in sorted(_names(function.__code__) & function.__globals__.keys()):
            yield f"global {name}"
            yield from _parts(function.__globals__[name], seen)


def _code(code: CodeType) -> Iterator[str]:
    yield f"code {code.co_code.hex()} {code.co_names} {code.co_freevars}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:
            yield repr(constant)


def _names(code: CodeType) -> set[str]:
    inner = (c for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*map(_names, inner))
