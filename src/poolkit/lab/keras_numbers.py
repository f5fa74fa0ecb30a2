"""What Keras's layers compute: values, gradients and draws of given cases, on the back end of this process.

It is started as `python -m poolkit.lab.keras_numbers FOLDER`, with KERAS_BACKEND set, where FOLDER holds cases.json and
cases.npz, and leaves numbers.npz there. It needs poolkit and Keras with its back end; not torch, where that is another.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def layer(case: dict[str, Any], weights: Arrays) -> Any:
    """The built layer of a case, with its weights."""
    from poolkit import keras as face

    made = getattr(face, case["layer"])(case["method"], dtype=case["dtype"], **case["arguments"])
    made.build(tuple(case["shape"]))
    for weight in made.weights:
        weight.assign(weights[weight.name].reshape(weight.shape))
    return made


def numbers(folder: Path) -> Arrays:
    """For case i the outputs `i.y` and gradients `i.dx` and `i.d<weight>`; drawing, `i.y` and draws `i.u`."""
    cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    given = np.load(folder / "cases.npz")
    found: Arrays = {}
    groups: dict[tuple[str, str], list[int]] = {}
    for i, case in enumerate(cases):
        groups.setdefault((case["method"], case["dtype"]), []).append(i)
    for members in groups.values():
        known = {i: {n.partition(".")[2]: given[n] for n in given.files if n.startswith(f"{i}.")} for i in members}
        still = [i for i in members if not cases[i]["draws"]]
        layers = {i: layer(cases[i], known[i]) for i in members}
        for i, result in zip(still, _answers([layers[i] for i in still], [known[i] for i in still]), strict=True):
            found |= {f"{i}.{name}": value for name, value in result.items()}
        for i in (i for i in members if cases[i]["draws"]):
            found |= {f"{i}.{name}": v for name, v in _drawn(layers[i], known[i], cases[i]["draw_shape"]).items()}
    return found


def _answers(layers: list[Any], known: list[Arrays]) -> list[Arrays]:
    """Outputs and gradients of several layers at once: JAX compiles once for them all."""
    import keras

    with_gradients: Callable[..., Any] = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[
        keras.backend.backend()
    ]
    return [
        {"y": y, "dx": dx} | {f"d{w.name}": d for w, d in zip(made.trainable_weights, dw, strict=True)}
        for made, (y, dx, dw) in zip(layers, with_gradients(layers, known), strict=True)
    ]


def _jax(layers: list[Any], known: list[Arrays]) -> Any:
    import jax

    def all_of(xs: Any, weights: Any, outer: Any) -> Any:
        answers = []
        for made, k, x, w, g in zip(layers, known, xs, weights, outer, strict=True):
            rest, more = [variable.value for variable in made.non_trainable_variables], _others(k)

            def call(x: Any, w: Any, made: Any = made, rest: Any = rest, more: Any = more) -> Any:
                return made.stateless_call(w, rest, x, *more)[0]

            y, back = jax.vjp(call, x, w)
            answers.append((y, *back(g)))
        return answers

    weights = [[w.value for w in made.trainable_weights] for made in layers]
    found = jax.jit(all_of)([k["x"] for k in known], weights, [k["g"] for k in known])
    return jax.tree.map(np.asarray, found)


def _tensorflow(layers: list[Any], known: list[Arrays]) -> Any:
    import tensorflow as tf

    for made, k in zip(layers, known, strict=True):
        x, weights = tf.convert_to_tensor(k["x"]), [w.value for w in made.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = made(x, *_others(k))
        dx, *dw = tape.gradient(y, [x, *weights], output_gradients=tf.convert_to_tensor(k["g"]))
        yield y.numpy(), dx.numpy(), [d.numpy() for d in dw]


def _torch(layers: list[Any], known: list[Arrays]) -> Any:
    import torch

    for made, k in zip(layers, known, strict=True):
        x = torch.from_numpy(k["x"]).requires_grad_()
        y = made(x, *_others(k))
        dx, *dw = torch.autograd.grad(y, [x, *(w.value for w in made.trainable_weights)], torch.from_numpy(k["g"]))
        yield y.detach().numpy(), dx.numpy(), [d.numpy() for d in dw]


def _others(known: Arrays) -> list[Any]:
    """The further inputs of a case."""
    import keras

    return [keras.ops.convert_to_tensor(known[name]) for name in sorted(known) if name.startswith("other")]


def _drawn(made: Any, known: Arrays, draw_shape: list[int] | None) -> Arrays:
    """A training call, and the uniform numbers that a generator with the same seed gives at its first call."""
    import keras

    state = keras.ops.convert_to_numpy(made.seed_generator.state).copy()
    x = keras.ops.convert_to_tensor(known["x"])
    y = keras.ops.convert_to_numpy(made(x, *_others(known), training=True))
    made.seed_generator.state.assign(state)
    if draw_shape is not None:
        return {"y": y, "u": keras.ops.convert_to_numpy(made.uniform((len(y), *draw_shape)))}
    return {"y": y, "u": _uniform(made, y.shape)}


def _uniform(made: Any, shape: tuple[int, ...]) -> np.ndarray:
    import keras

    last = made.data_format == "channels_last"
    if torch := keras.backend.backend() == "torch":  # there it draws for channels-first pictures, and turns them
        shape = (shape[0], shape[-1], *shape[1:-1]) if last else shape
    channel = len(shape) - 1 if last and not torch else 1
    own = {"region": range(len(shape)), "map": (0, channel), "layer": (0,)}[made.method.draws]
    u = keras.ops.convert_to_numpy(made.uniform([n if axis in own else 1 for axis, n in enumerate(shape)]))
    return np.moveaxis(u, 1, -1) if torch and last else u


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    into = Path(sys.argv[1])
    np.savez(into / "numbers.npz", **numbers(into))  # type: ignore[arg-type]
