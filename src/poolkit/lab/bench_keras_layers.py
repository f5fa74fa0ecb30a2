"""What a training step of the tutorial's net costs in Keras with each method, next to Keras's max pooling."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from poolkit.lab.run import machine, now
from poolkit.lab.stopwatch import Ratio, outside

#: What a step may cost divided by the step with Keras's max pooling.
BARS = {"tensorflow": 1.25, "jax": 1.25, "torch": 1.15}


def bench_keras_layers(
    backend: str,
    methods: Sequence[str],
    steps: int = 20,
    rounds: int = 7,
    batch: int = 32,
    watch: Callable[[str], None] = lambda method: None,
) -> dict[str, Any]:
    """Time `fit` with each method and with Keras's max pooling by turns, in a process of its own on a back end.

    A round is one `fit` of each over so many steps, in an order that turns; on TensorFlow and JAX with
    `jit_compile=True`. The first, compiling calls do not count. Pictures are random: no time depends on them.

    Arguments: `backend`, tensorflow, jax or torch; `methods`, spellings; `steps` a round; `rounds`, at least 6;
    `batch`; `watch`, called with each method that is done.
    Returns for each method the ratio as median with a 95 % interval, the milliseconds of a step of both and the
    seconds before the first step; the bar, versions, machine, date.
    Raises `RuntimeError` where the back end cannot be used; `ValueError` for too few rounds or steps.
    """
    outside(rounds)
    if steps < 1 or batch < 1:
        raise ValueError(f"steps={steps}, batch={batch}: at least 1 each")
    order = {"methods": list(methods), "steps": steps, "rounds": rounds, "batch": batch}
    settings = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    words = [sys.executable, "-m", "poolkit.lab.keras_steps"]
    with tempfile.TemporaryFile("w+", errors="replace") as errors:  # a pipe that nobody reads would fill
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors, "text": True}
        with subprocess.Popen(words, env={**os.environ, **settings}, **pipes) as child:  # noqa: S603 - our own module
            versions, rows = _heard(child, json.dumps(order), steps, watch)
        errors.seek(0)
        reason = last_words(errors.read())
    if len(rows) != len(methods):
        if versions:
            raise RuntimeError(f"Keras on {backend} failed with {methods[len(rows)]}: {reason}")
        raise RuntimeError(f"Keras on {backend} failed at once: {reason}\n  pip install -r requirements-test.lock")
    return {
        "backend": backend,
        "bar": BARS[backend],
        **{key: order[key] for key in ("steps", "rounds", "batch")},
        "rows": rows,
        "versions": versions,
        "machine": machine(torch.device("cpu")),
        "date": now(),
    }


def last_words(errors: str) -> str:
    """What a process that died said last: from its error's name on, up to three lines."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    named = [i for i, line in enumerate(lines) if "Error" in line.split(":")[0]]
    return " ".join(lines[named[-1] :][:3] if named else lines[-1:]) or "it ended without a word"


def _heard(
    child: Any, order: str, steps: int, watch: Callable[[str], None]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The child's versions and a row for each method."""
    child.stdin.write(order)
    child.stdin.close()
    first, rows = child.stdout.readline(), []
    for line in child.stdout:
        heard = json.loads(line)
        rows.append(
            {
                "method": heard["method"],
                "ratio": asdict(Ratio.of(heard["ours"], heard["theirs"])),
                "milliseconds": 1e3 * statistics.median(heard["ours"]) / steps,
                "milliseconds_with_keras_max": 1e3 * statistics.median(heard["theirs"]) / steps,
                "compiling_seconds": heard["compiling"],
            }
        )
        watch(heard["method"])
    return json.loads(first or "{}"), rows


def in_words(found: dict[str, Any]) -> str:
    """Under which circumstances the table was measured, and how many rows keep the bar."""
    rows, where = found["rows"], found["machine"]
    kept = sum(row["ratio"]["median"] <= found["bar"] for row in rows)
    versions = ", ".join(f"{name} {value}" for name, value in found["versions"].items() if name != "jit_compile")
    return (
        f"a training step of the tutorial's net under fit, divided by the same with keras.layers.MaxPooling2D; "
        f"batch {found['batch']}, {found['rounds']} rounds of {found['steps']} steps, "
        f"jit_compile={found['versions']['jit_compile']}\n"
        f"{kept} of {len(rows)} methods keep the bar of {found['bar']}\n"
        f"{where['processor']}, {where['cores']} cores, {versions}, {found['date']}"
    )
