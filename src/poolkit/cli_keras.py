"""The command `poolkit bench keras`: the Keras layers' speed in training, or their agreement with each other."""

from __future__ import annotations

import json as jsons
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from poolkit import console
from poolkit.commands import Json
from poolkit.console import Stop, Wrong, request

EXAMPLES = (
    "poolkit bench keras --backend jax --method soft --method median\n"
    "poolkit bench keras --backend tensorflow --out results/keras-tensorflow.json\n"
    "poolkit bench keras --parity --out docs/keras-parity.md"
)


class Backend(str, Enum):
    """What Keras runs on."""

    tensorflow = "tensorflow"
    jax = "jax"
    torch = "torch"


def layers(  # every option is an argument: that is how typer reads them
    backend: Annotated[Backend, typer.Option(help="What Keras runs on.")] = Backend.tensorflow,
    method: Annotated[
        list[str] | None, typer.Option(metavar="METHOD", help="Such as soft:beta=2; may be repeated; all by default.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Training steps of each in a round.")] = 20,
    rounds: Annotated[int, typer.Option(help="Rounds, 6 or more.")] = 7,
    parity: Annotated[
        bool, typer.Option("--parity", help="Compare values and gradients of all three back ends instead.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JSON, or the parity page.")] = None,
    json: Json = False,
) -> None:
    """Time training steps of the tutorial's net in Keras with each method, next to Keras's own max pooling.

    Or, with --parity, say by how much the three back ends differ from each method's equation.
    """
    import poolkit

    with request():
        spelled = [poolkit.method(spelling).spelling for spelling in method or poolkit.WINDOW_METHODS]
    if parity:
        if json or method:
            raise Wrong("--parity compares all methods and writes a page\n  leave --json and --method out")
        return _parity(out)
    _speed(backend.value, spelled, steps, rounds, out, json)


def _speed(backend: str, methods: list[str], steps: int, rounds: int, out: Path | None, json: bool) -> None:
    from poolkit.lab.bench_keras_layers import bench_keras_layers, in_words

    def watch(method: str) -> None:
        console.remark(f"{method} is measured")

    try:
        with request():
            found = bench_keras_layers(backend, methods, steps, rounds, watch=watch)
    except RuntimeError as reason:
        raise Stop(str(reason)) from reason
    found["command"] = console.settings.command
    if out is not None:
        out.write_text(jsons.dumps(found, indent=1) + "\n", encoding="utf-8")
    if json:
        return console.emit(found)
    shown = [
        (r["method"], f"{r['ratio']['median']:.2f}", f"{r['ratio']['low']:.2f} to {r['ratio']['high']:.2f}",
         f"{r['milliseconds']:.1f}", f"{r['compiling_seconds']:.1f}")
        for r in found["rows"]
    ]  # fmt: skip
    columns = ("method", "÷ max", "95 % interval", "ms a step", "s to compile")
    console.table(columns, shown, right=("÷ max", "ms a step", "s to compile"))
    console.tell("\n" + in_words(found))


def _parity(out: Path | None) -> None:
    from poolkit.lab.keras_parity import BACKENDS, available, markdown, parity

    if missing := [name for name in BACKENDS if not available(name)]:
        raise Stop(f"not installed: {', '.join(missing)}\n  pip install -r requirements-test.lock")
    found: Any = parity(list(BACKENDS))
    page = markdown(found, "poolkit bench keras --parity --out docs/keras-parity.md")
    if out is None:
        return console.answer(page)
    out.write_text(page, encoding="utf-8")
    console.remark(f"{out} is written")
