"""The tutorial in Keras: a small convolutional network with two pools learns what is on a picture.

    python examples/tutorial_keras.py                            # CIFAR-10, 10 epochs: some minutes
    python examples/tutorial_keras.py --data digits --epochs 2   # embedded data, seconds, no network
    python examples/tutorial_keras.py --pool avg-topk:k=2        # now change one word: the pool

tutorial_torch.py tells the same story in PyTorch. Keras runs on TensorFlow, JAX or PyTorch: KERAS_BACKEND=jax python …
"""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.metrics import classification_report

# With TensorFlow, Keras's own choice stands: KERAS_BACKEND, ~/.keras/keras.json, or TensorFlow. Without it Keras, which
# insists on it and writes so into that file, would fail: take what is installed.
if not find_spec("tensorflow"):
    os.environ.setdefault("KERAS_BACKEND", "jax" if find_spec("jax") else "torch")
import keras  # noqa: E402

from poolkit.keras import Pooling2D  # noqa: E402
from poolkit.lab.data import DataMissing, load  # noqa: E402

matplotlib.use("agg")  # pictures go to files, no window opens
from matplotlib import pyplot as plt  # noqa: E402


def tutorial_net(pool: str, shape: tuple[int, int, int], classes: int) -> keras.Sequential:
    """Twice: look for patterns (convolution), keep what was found (ReLU), summarise it (pool). Then decide."""
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(32, 3, activation="relu"),
            Pooling2D(pool, 2),  # in the place of keras.layers.MaxPooling2D(2)
            keras.layers.Conv2D(64, 3, activation="relu"),
            Pooling2D(pool, 2),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(classes),  # a score for each class; the largest one is the answer
        ]
    )


def show(path: Path, x: np.ndarray, titles: list[str]) -> None:
    """Write the first ten pictures with their titles."""
    figure, axes = plt.subplots(2, 5, figsize=(8, 3.8), layout="constrained")
    for ax, picture, title in zip(axes.flat, x, titles, strict=False):
        ax.imshow(picture, cmap="gray")
        ax.set_title(title, fontsize=9)
        ax.axis("off")
    figure.savefig(path)


def show_curves(path: Path, history: dict[str, list[float]]) -> None:
    """Draw loss and accuracy after each epoch, on the training and on the test pictures."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    epochs = range(1, len(history["loss"]) + 1)
    for ax, what in zip(axes, ("loss", "accuracy"), strict=True):
        for column, part in ((what, "training"), (f"val_{what}", "test")):
            ax.plot(epochs, history[column], marker="o", label=part)
        ax.set(title=what, xlabel="epoch", xticks=epochs)
        ax.legend()
    figure.savefig(path)


def main() -> None:
    """Tell the story from the data to the report."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--data", default="cifar10", choices=("cifar10", "digits"))
    words.add_argument("--pool", default="max", help="any spelling of `poolkit list`: soft, avg-topk:k=2 …")
    words.add_argument("--epochs", type=int, default=10)
    words.add_argument("--out", type=Path, default=Path("runs/tutorial_keras"), help="folder for the pictures")
    asked = words.parse_args()
    if asked.epochs < 1:
        words.error("--epochs: 1 or more")
    asked.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)

    # 1. Data: pictures as numbers from 0 to 1, each with the number of its class. Keras wants the channels last.
    try:
        data = load(asked.data)
    except DataMissing as missing:
        sys.exit(f"{missing}\nOr take the embedded digits: --data digits")
    train_x, test_x = (x.transpose(0, 2, 3, 1).astype("float32") / 255 for x in (data.train_x, data.test_x))
    train_y, test_y = data.train_y, data.test_y
    print(f"{len(train_x):,} pictures to learn from, {len(test_x):,} to test on; classes: {', '.join(data.classes)}")
    if data.caveat:
        print(f"mind: {data.caveat}")
    show(asked.out / "samples.png", train_x, [data.classes[label] for label in train_y[:10]])

    # 2. Model and summary: what comes out of each layer (batch, height, width, channels), and how much it learns.
    model = tutorial_net(asked.pool, train_x.shape[1:], len(data.classes))
    model.summary()

    # 3. Compile: how weights are corrected (Adam), what counts as wrong (cross-entropy), what is reported.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])

    # 4. Fit. Where the test curve stops following the training curve, the net learns its pictures by heart.
    fitted = model.fit(train_x, train_y, epochs=asked.epochs, validation_data=(test_x, test_y), verbose=2)
    show_curves(asked.out / "curves.png", fitted.history)

    # 5. Evaluate and predict: probabilities are the softmax of the scores.
    test_loss, accuracy = model.evaluate(test_x, test_y, verbose=0)
    print(f"{asked.pool}: test loss {test_loss:.3f}, test accuracy {accuracy:.1%} (one run is one number)")
    scores = model.predict(test_x, verbose=0)
    chances = keras.ops.convert_to_numpy(keras.ops.softmax(scores))
    answer = chances.argmax(1)
    firsts = zip(answer[:10], chances.max(1)[:10], test_y[:10], strict=True)
    titles = [f"{data.classes[a]} {p:.0%}" + ("" if a == y else f", is {data.classes[y]}") for a, p, y in firsts]
    show(asked.out / "predictions.png", test_x, titles)

    # 6. Per class: precision, "of those called cat, how many are"; recall, "of the cats, how many were called so".
    print(classification_report(test_y, answer, target_names=list(data.classes), zero_division=0.0))
    other = "soft" if asked.pool.startswith("avg-topk") else "avg-topk:k=2"
    print(f"pictures: {asked.out}. Now change one word: --pool {other}")


if __name__ == "__main__":
    main()
