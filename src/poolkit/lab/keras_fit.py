"""The tutorial's network trained by Keras on TensorFlow, in a process of its own; needs nothing of poolkit's.

It is started as `python keras_fit.py FOLDER`, where FOLDER holds x.npy, uint8 (N, H, W, C), and y.npy, int64 (N,).
It says on stdout, in lines of JSON: first the versions and the number of parameters, then for each line
`PICTURES BATCH` on stdin the seconds that `fit` took for one pass over the first so many pictures.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def tutorial(
    keras: Any, shape: tuple[int, ...], classes: int, pool: Any = None, jit_compile: bool | str = "auto"
) -> Any:
    """The tutorial's network, compiled as there: Adam, cross-entropy of the scores, accuracy.

    `pool`: a function of the window's size that makes the pooling layers; by default Keras's max pooling.
    """
    layers = keras.layers
    pool = layers.MaxPooling2D if pool is None else pool
    model = keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(32, 3, activation="relu"),
            pool(2),
            layers.Conv2D(64, 3, activation="relu"),
            pool(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(classes),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"], jit_compile=jit_compile)
    return model


def serve(folder: Path) -> None:
    """Answer lines of stdin until it ends."""
    # WHY: libraries print to stdout as they like, and there only answers may stand.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow

    x, y = np.load(folder / "x.npy").astype(np.float32) / 255, np.load(folder / "y.npy")
    model = tutorial(keras, x.shape[1:], int(y.max()) + 1)
    versions = {"keras": keras.__version__, "tensorflow": tensorflow.__version__, "python": sys.version.split()[0]}
    print(json.dumps({**versions, "parameters": model.count_params()}), file=answers, flush=True)
    for line in sys.stdin:
        pictures, batch = map(int, line.split())
        began = time.perf_counter()
        model.fit(x[:pictures], y[:pictures], batch_size=batch, epochs=1, verbose=0)
        print(json.dumps({"seconds": time.perf_counter() - began}), file=answers, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
