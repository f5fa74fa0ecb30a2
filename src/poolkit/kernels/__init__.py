"""Faster ways to compute a method than its array formula, and which of them serves a call."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from importlib import util
from typing import Any

from poolkit.method import WindowMethod
from poolkit.window import Window

#: The process that imported poolkit (threads do not live on in a forked child), and when.
HOME = os.getpid()
BEGAN = time.time()
PATHS = ("cpu", "reference")
MANY = 32  # channels that fill a vector of the engine; batches of pictures come in any number


@dataclass(frozen=True)
class Route:
    """How a call is computed.

    Attributes:
        path: `cpu` (poolkit's CPU engine) or `reference` (the method's array formula).
        why: the reason in words.
    """

    path: str
    why: str


#: Why there is no CPU engine here, or None. Numba is looked for, not imported.
ENGINE_MISSING = (
    None if util.find_spec("numba") else "Numba is not installed (pip install numba): there is no CPU engine"
)


def route(method: WindowMethod, window: Window, x: Any, sampling: bool, asked: str | None = None) -> Route:
    """The way the call for x goes; `sampling`: a random method is in training, `asked`: which path was asked for.

    Raises:
        ValueError: the path asked for is unknown or cannot serve the call; the message says why.
    """
    if asked not in (None, *PATHS):
        raise ValueError(
            f"path={asked!r}: allowed are {', '.join(map(repr, PATHS))}, or None for the fastest that serves"
        )
    if asked == "reference":
        return Route("reference", "it was asked for")
    reason = _engine_refusal(method, window, x, sampling)
    if reason is None:
        return Route("cpu", f"poolkit's CPU engine has a kernel of {method.card.name}; exports take the formula")
    if asked == "cpu":
        raise ValueError(f'path="cpu" cannot serve this call: {reason}')
    return Route("reference", reason)


def numbers_of(method: WindowMethod) -> tuple[str, ...]:
    """The single numbers that a kernel reads at run time; words and truth values are constants of the kernel."""
    declared = method.params().items()
    names = tuple(name for name, one in declared if type(one.default) in (int, float) and not one.table)
    return (*names, method.counts) if method.counts else names  # in the order of `method.values()`


def _engine_refusal(method: WindowMethod, window: Window, x: Any, sampling: bool) -> str | None:
    """Why the CPU engine cannot serve x, or None if it can."""
    import torch

    if ENGINE_MISSING:
        return ENGINE_MISSING
    if not method.has_kernel[sampling]:
        return f"{method.card.name} has no kernel" + (" for training" if sampling else "")
    if x.device.type != "cpu":
        return f"the CPU engine does not reach tensors on {x.device.type}"
    if torch.compiler.is_exporting():
        return "an exported program takes the array formula, so that it runs without poolkit"
    few, many = method.kernel_reach
    # The second is asked for where windows are large only: it binds a graph of torch.compile to a number of channels.
    if window.k > few and (window.k > many or x.shape[1] < MANY):
        which = f"{few} cells of fewer than {MANY} channels" if few < window.k <= many else f"{many} cells"
        return f"a window of more than {which} takes torch's own operators, parallel inside it"
    if torch.compiler.is_compiling():
        known = KNOWN.get(class_name(method)) is type(method)
        return None if known else "torch.compile takes the formula of a method that no layer has been made of"
    if not plain(x):
        return (
            "transforms of torch.func, tracing, forward-mode derivatives, tensor subclasses and tensors without memory "
            "of their own take the formula"
        )
    return None


#: The classes of methods that a compiled graph may name.
KNOWN: dict[str, type[WindowMethod]] = {}


def class_name(method: WindowMethod) -> str:
    """The class of a method as a word for compiled graphs."""
    return f"{type(method).__module__}:{type(method).__qualname__}"


def plain(x: Any) -> bool:
    """Whether x has memory of its own: no subclass, not inside a transform or a trace, without a tangent."""
    import torch
    from torch.autograd import forward_ad

    if type(x) not in (torch.Tensor, torch.nn.Parameter) or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    if x.layout is not torch.strided or x.is_neg() or x._is_zerotensor():
        return False
    if torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack():
        return False
    return forward_ad._current_level < 0 or forward_ad.unpack_dual(x).tangent is None


__all__ = ["ENGINE_MISSING", "KNOWN", "PATHS", "Route", "class_name", "numbers_of", "plain", "route"]
