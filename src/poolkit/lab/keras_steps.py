"""Training steps of the tutorial's net in Keras with each method, next to Keras's own max pooling, by turns.

It is started as `python -m poolkit.lab.keras_steps`, with KERAS_BACKEND set and the order as JSON on stdin: the
methods' spellings, steps, rounds, batch. It says on stdout, in lines of JSON: first the versions, then for each method
the seconds of each round. It needs poolkit and Keras with its back end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np


def measure(order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The versions, then for each method its rounds: seconds of `fit` with it and with Keras's max pooling."""
    import keras

    from poolkit.keras import Pooling2D
    from poolkit.lab.keras_fit import tutorial

    backend = keras.backend.backend()
    # On torch, Keras's jit_compile needs a C++ compiler; there the layers run on poolkit's own kernels.
    jit = backend != "torch"
    batch, count = order["batch"], order["steps"] * order["batch"]
    numbers = np.random.default_rng(0)
    x, y = numbers.random((count, 32, 32, 3), "float32"), numbers.integers(0, 10, count)
    yield {"keras": keras.__version__, backend: sys.modules[backend].__version__, "jit_compile": jit}

    def contestant(pool: Any) -> Any:
        keras.utils.set_random_seed(0)
        model = tutorial(keras, x.shape[1:], 10, pool, jit)

        def once() -> float:
            began = time.perf_counter()
            model.fit(x, y, batch_size=batch, epochs=1, verbose=0, shuffle=False)
            return time.perf_counter() - began

        once()  # compiles
        return once

    theirs = contestant(None)
    for method in order["methods"]:
        began = time.perf_counter()
        ours = contestant(lambda size, method=method: Pooling2D(method, size))
        compiled = time.perf_counter() - began
        ours(), theirs()
        rounds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for number in range(order["rounds"]):
            turns = [("ours", ours), ("theirs", theirs)]
            for name, work in turns if number % 2 == 0 else reversed(turns):
                rounds[name].append(work())
        yield {"method": method, "compiling": compiled, **rounds}
        del ours


if __name__ == "__main__":
    # WHY: libraries print to stdout as they like, and there only answers may stand.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for answer in measure(json.load(sys.stdin)):
        print(json.dumps(answer), file=answers, flush=True)
