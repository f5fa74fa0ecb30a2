"""The command `poolkit bench training`: how fast training is, next to others and part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolkit import console
from poolkit.commands import DataDir, Json, Offline
from poolkit.console import Stop, Wrong, request

if TYPE_CHECKING:
    from poolkit.lab.data import Data

EXAMPLES = (
    "poolkit bench training --data digits --steps 50\npoolkit bench training --profile\n"
    "poolkit bench training --methods\npoolkit bench training --keras --keras-python tf/bin/python"
)


def training(  # every option is an argument: that is how typer reads them
    data: Annotated[
        str, typer.Option("--data", help="cifar10, cifar100, mnist, fashion-mnist, digits, folder:PATH or npz:FILE.")
    ] = "cifar10",
    data_dir: DataDir = None,
    steps: Annotated[
        int | None, typer.Option(help="Training steps of each in a round: 200, for --methods 30, for --profile 50.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds, 6 or more.")] = 7,
    keras: Annotated[bool, typer.Option("--keras", help="Compare with Keras's fit on TensorFlow.")] = False,
    keras_python: Annotated[
        str | None, typer.Option(metavar="FILE", help="The Python that has TensorFlow; by default this one.")
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Say where the time of a step goes.")] = False,
    methods: Annotated[bool, typer.Option("--methods", help="Compare the pooling methods with max.")] = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Compare poolkit's training with plain PyTorch loops of the same net.

    Or with Keras, or one pooling method with another; or say where the time of a training step goes.
    """
    if keras + profile + methods > 1:
        raise Wrong("--keras, --profile and --methods are three measurements\n  ask for one at a time")
    from poolkit.lab import terminal

    loaded = terminal.load(data, data_dir, offline)
    terminal.keep_memory()
    taken = steps if steps is not None else 50 if profile else 30 if methods else 200
    if keras:
        found, answer = _keras(loaded, taken, rounds, keras_python)
    elif profile:
        found, answer = _profile(loaded, taken)
    elif methods:
        found, answer = _methods(loaded, taken, rounds)
    else:
        found, answer = _plain(loaded, taken, rounds)
    console.emit(found) if json else answer()


def _plain(data: Data, steps: int, rounds: int) -> tuple[dict[str, Any], Any]:
    from poolkit.lab.bench import bench_training
    from poolkit.lab.terminal import speed_in_words

    console.remark(f"{rounds} rounds of {steps} steps, poolkit's and two plain loops in turn")
    with request():
        found = bench_training(data, steps, rounds)
    return found, lambda: console.answer(speed_in_words(found))


def _keras(data: Data, steps: int, rounds: int, python: str | None) -> tuple[dict[str, Any], Any]:
    from poolkit.lab.bench_keras import KerasMissing, bench_keras, in_words

    console.remark(f"{rounds} rounds of {steps} steps, poolkit's and Keras's in turn, and a whole quick training")
    try:
        with request():
            found = bench_keras(data, steps, rounds, python=python)
    except KerasMissing as reason:
        raise Stop(str(reason)) from reason
    return found, lambda: console.answer(in_words(found))


def _profile(data: Data, steps: int) -> tuple[dict[str, Any], Any]:
    from poolkit.lab.shares import bench_profile, place_in_words

    with request():
        found = bench_profile(data, steps)

    def answer() -> None:
        for name, seen in found["profiles"].items():
            console.tell(f"recipe {name}, batch {seen['recipe']['batch']}, {seen['milliseconds']:.1f} ms a step")
            rows = [(part, f"{share:.1%}") for part, share in seen["parts"].items()]
            console.table(("part", "share"), rows, right=("share",))
            console.tell(f"the profiler made {seen['steps']} steps {seen['overhead']:.2f} times as long\n")
        console.tell(place_in_words(found))

    return found, answer


def _methods(data: Data, steps: int, rounds: int) -> tuple[dict[str, Any], Any]:
    from poolkit.lab.shares import bench_methods, place_in_words

    console.remark(f"{rounds} rounds of {steps} steps, every window method in turn")
    with request():
        found = bench_methods(data, steps, rounds)

    def answer() -> None:
        rows = [
            (name, f"{ratio['median']:.2f}", f"{ratio['low']:.2f} to {ratio['high']:.2f}")
            for name, ratio in found["methods"].items()
        ]
        console.tell(f"an epoch's training time, divided by that with max; batch {found['batch']}")
        console.table(("method", "÷ max", "95 % interval"), rows, right=("÷ max",))
        console.tell(f"with max {found['milliseconds_with_max']:.1f} ms a step, {found['rounds']} rounds\n")
        console.tell(place_in_words(found))

    return found, answer
