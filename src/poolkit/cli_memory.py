"""The command `poolkit bench memory`: what a training step of heads and map methods needs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from poolkit import console
from poolkit.commands import Json
from poolkit.console import request

EXAMPLES = (
    "poolkit bench memory\npoolkit bench memory --method netvlad:clusters=8 --method bilinear --shape 8x256x14x14"
)
_DEFAULTS = ["netvlad", "compact-bilinear"]


def memory(
    method: Annotated[
        list[str] | None, typer.Option(metavar="METHOD", help="Such as netvlad:clusters=8; may be repeated.")
    ] = None,
    shape: Annotated[str, typer.Option(metavar="NxCxHxW", help="Of the maps.")] = "32x512x28x28",
    json: Json = False,
) -> None:
    """Count the memory of a training step with heads and map methods: what is kept, the peak, the largest array.

    Counted on the CPU, from what torch allocates; nothing is timed. Window methods: poolkit bench.
    """
    from poolkit.lab.head_memory import measured

    with request():
        found = measured(method or _DEFAULTS, _sizes(shape))
    if json:
        return console.emit(found)
    console.tell(f"a step in float32 with maps of {shape}, {_mega(found['input'])} MB, input and weights apart\n")
    rows = [
        (r["method"], _mega(r["kept"]), _mega(r["peak"]), f"{r['peak'] / found['input']:.1f}", _mega(r["largest"]))
        for r in found["rows"]
    ]
    console.table(("method", "kept MB", "peak MB", "÷ input", "largest array MB"), rows, right=_RIGHT)


_RIGHT = ("kept MB", "peak MB", "÷ input", "largest array MB")


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(map(int, text.split("x")))
    except ValueError:
        sizes = ()
    if len(sizes) != 4 or min(sizes) < 1:
        raise ValueError(f'shape "{text}": write batch, channels, height and width, such as 32x512x28x28')
    return sizes


def _mega(count: Any) -> str:
    return f"{count / 1e6:.1f}"
