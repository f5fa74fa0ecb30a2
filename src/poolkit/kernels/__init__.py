"""Faster ways to compute a method, and which of them may serve a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from poolkit.kernels import native
from poolkit.method import WindowMethod
from poolkit.window import Window


@dataclass(frozen=True)
class Route:
    """How a call is computed.

    Attributes:
        path: `native` (a kernel of the framework itself) or `reference` (the method's array formula).
        why: the reason in words.
    """

    path: str
    why: str


def route(method: WindowMethod, window: Window, x: Any, sampling: bool, asked: str | None = None) -> Route:
    """The way the call for x goes; `sampling`: a random method is in training, `asked`: which path was asked for.

    Raises:
        ValueError: another path than the reference path was asked for.
    """
    if asked not in (None, "reference"):
        raise ValueError(
            f'path="{asked}" cannot be asked for: "reference", or None for the fastest one that serves the call'
        )
    if asked == "reference":
        return Route("reference", "it was asked for")
    if sampling:
        return Route("reference", "the method draws at random in training")
    reason = native.refusal(method, window, x)
    if reason is None:
        return Route("native", "torch's own kernel computes this method on this geometry")
    return Route("reference", reason)


def run(method: WindowMethod, window: Window, x: Any) -> Any:
    """Compute x (N, C, *sizes) by the native kernel; only after `route` said so."""
    return native.run(method, window, x)


__all__ = ["Route", "route", "run"]
