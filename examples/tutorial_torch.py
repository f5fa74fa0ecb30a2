"""The tutorial in PyTorch: a small convolutional network with two pools learns what is on a picture.

    python examples/tutorial_torch.py                            # CIFAR-10, 10 epochs: some minutes
    python examples/tutorial_torch.py --data digits --epochs 2   # embedded data, seconds, no network
    python examples/tutorial_torch.py --pool avg-topk:k=2        # now change one word: the pool

tutorial_keras.py tells the same story in Keras. `poolkit train` does all of this in one command, and more carefully:
there a run follows from its seed alone, can be resumed, and ends in a report.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import torch
from sklearn.metrics import classification_report
from torch import nn
from torch.nn import functional as F

from poolkit.lab.data import DataMissing, load
from poolkit.lab.nets import layers
from poolkit.torch import Pool2d

matplotlib.use("agg")  # pictures go to files, no window opens
from matplotlib import pyplot as plt  # noqa: E402


def tutorial_net(pool: str, channels: int, side: int, classes: int) -> nn.Sequential:
    """Twice: look for patterns (convolution), keep what was found (ReLU), summarise it (pool). Then decide."""
    side = (side - 2) // 2  # a 3×3 filter fits side - 2 times, a 2×2 pool halves that and drops an odd last cell
    side = (side - 2) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3),
        nn.ReLU(),
        Pool2d(pool, 2),  # in the place of nn.MaxPool2d(2)
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        Pool2d(pool, 2),
        nn.Flatten(),
        nn.Linear(64 * side * side, 64),
        nn.ReLU(),
        nn.Linear(64, classes),  # a score for each class; the largest one is the answer
    )


def fit_epoch(
    model: nn.Module, optimiser: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> tuple[float, float]:
    """Show every picture once, 32 at a time in random order; correct the weights each time. Mean loss and accuracy."""
    model.train()
    loss_sum, right = 0.0, 0
    for rows in torch.randperm(len(x)).split(32):
        scores = model(x[rows])
        loss = F.cross_entropy(scores, y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss_sum += loss.item() * len(rows)
        right += int((scores.argmax(1) == y[rows]).sum())
    return loss_sum / len(x), right / len(x)


@torch.no_grad()
def evaluate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    """Mean loss, share of right answers, and the scores."""
    model.eval()  # pools that draw at random in training give their expectation now
    scores = torch.cat([model(part) for part in x.split(1000)])
    return F.cross_entropy(scores, y).item(), (scores.argmax(1) == y).float().mean().item(), scores


def show(path: Path, x: torch.Tensor, titles: list[str]) -> None:
    """Write the first ten pictures with their titles."""
    figure, axes = plt.subplots(2, 5, figsize=(8, 3.8), layout="constrained")
    for ax, picture, title in zip(axes.flat, x, titles, strict=False):
        ax.imshow(picture.permute(1, 2, 0).numpy(), cmap="gray")
        ax.set_title(title, fontsize=9)
        ax.axis("off")
    figure.savefig(path)


def show_curves(path: Path, history: list[tuple[float, ...]]) -> None:
    """Draw loss and accuracy after each epoch, on the training and on the test pictures."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    epochs = range(1, len(history) + 1)
    for ax, what, columns in zip(axes, ("loss", "accuracy"), ((0, 2), (1, 3)), strict=True):
        for column, part in zip(columns, ("training", "test"), strict=True):
            ax.plot(epochs, [row[column] for row in history], marker="o", label=part)
        ax.set(title=what, xlabel="epoch", xticks=epochs)
        ax.legend()
    figure.savefig(path)


def main() -> None:
    """Tell the story from the data to the report."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--data", default="cifar10", choices=("cifar10", "digits"))
    words.add_argument("--pool", default="max", help="any spelling of `poolkit list`: soft, avg-topk:k=2 …")
    words.add_argument("--epochs", type=int, default=10)
    words.add_argument("--out", type=Path, default=Path("runs/tutorial_torch"), help="folder for the pictures")
    asked = words.parse_args()
    if asked.epochs < 1:
        words.error("--epochs: 1 or more")
    asked.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)

    # 1. Data: pictures as numbers from 0 to 1, each with the number of its class.
    try:
        data = load(asked.data)
    except DataMissing as missing:
        sys.exit(f"{missing}\nOr take the embedded digits: --data digits")
    train_x, test_x = (torch.from_numpy(x).float() / 255 for x in (data.train_x, data.test_x))
    train_y, test_y = torch.from_numpy(data.train_y), torch.from_numpy(data.test_y)
    print(f"{len(train_x):,} pictures to learn from, {len(test_x):,} to test on; classes: {', '.join(data.classes)}")
    if data.caveat:
        print(f"mind: {data.caveat}")
    show(asked.out / "samples.png", train_x, [data.classes[label] for label in train_y[:10]])

    # 2. Model and summary: what comes out of each layer (channels, height, width), and how much it learns.
    model = tutorial_net(asked.pool, data.shape[0], data.shape[1], len(data.classes))
    for row in layers(model, data.shape):
        print(f"{row['layer']:28} {str(row['output']):14} {row['parameters']:>8,} parameters")

    # 3. Compile: how weights are corrected. The loss is in `fit_epoch`.
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    # 4. Fit. Where the test curve stops following the training curve, the net learns its pictures by heart.
    history = []
    for epoch in range(1, asked.epochs + 1):
        history.append((*fit_epoch(model, optimiser, train_x, train_y), *evaluate(model, test_x, test_y)[:2]))
        print(f"epoch {epoch}: accuracy {history[-1][1]:.1%} in training, {history[-1][3]:.1%} on the test pictures")
    show_curves(asked.out / "curves.png", history)

    # 5. Evaluate and predict: probabilities are the softmax of the scores.
    loss, accuracy, scores = evaluate(model, test_x, test_y)
    print(f"{asked.pool}: test loss {loss:.3f}, test accuracy {accuracy:.1%} (one run is one number)")
    sure, answer = scores.softmax(1).max(1)
    firsts = zip(answer[:10].tolist(), sure[:10].tolist(), data.test_y[:10], strict=True)
    titles = [f"{data.classes[a]} {p:.0%}" + ("" if a == y else f", is {data.classes[y]}") for a, p, y in firsts]
    show(asked.out / "predictions.png", test_x, titles)

    # 6. Per class: precision, "of those called cat, how many are"; recall, "of the cats, how many were called so".
    print(classification_report(data.test_y, answer.numpy(), target_names=list(data.classes), zero_division=0.0))
    other = "soft" if asked.pool.startswith("avg-topk") else "avg-topk:k=2"
    print(f"pictures: {asked.out}. Now change one word: --pool {other}")


if __name__ == "__main__":
    main()
