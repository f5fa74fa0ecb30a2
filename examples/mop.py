"""Features of a trained net, pooled without regard to place at three scales, against their global average.

    python examples/mop.py --data digits                # embedded data, seconds, no network
    python examples/mop.py --limit 4000 --test 2000     # CIFAR-10, a few thousand pictures

The tutorial's net is trained; the maps of its second convolution are the features. A linear classifier is fitted on
what each way of pooling makes of the maps of the training pictures, and tested on those of the test pictures.
"""

import argparse
import sys

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn
from torch.nn import functional as F

from poolkit.lab.data import DataMissing, load
from poolkit.lab.mop import MultiScaleOrderlessPooling
from poolkit.lab.recipe import named
from poolkit.lab.run import as_input
from poolkit.lab.train import train


@torch.no_grad()
def second_maps(model: nn.Module, pictures: np.ndarray) -> np.ndarray:
    """The maps (N, 64, H, W) of the net's second convolution, after its ReLU, of uint8 pictures (N, C, H, W)."""
    pixels = torch.from_numpy(pictures).permute(0, 2, 3, 1)
    parts = [F.relu(model.conv2(model.pool1(F.relu(model.conv1(as_input(part)))))) for part in pixels.split(500)]
    return torch.cat(parts).contiguous().numpy()


def global_average(maps: np.ndarray) -> np.ndarray:
    """(N, C, H, W) to (N, C)."""
    return maps.mean((2, 3))


def main() -> None:
    """Train, pool in two ways, classify."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--epochs", type=int, default=1, help="of the recipe quick, on all training pictures")
    parser.add_argument("--limit", type=int, default=4000, help="training pictures that the classifiers see")
    parser.add_argument("--test", type=int, default=2000, help="test pictures")
    parser.add_argument("--clusters", type=int, default=32)
    asked = parser.parse_args()
    try:
        data = load(asked.data)
    except DataMissing as reason:
        sys.exit(f"{reason}\nwithout a network: --data digits")

    run = train(named("quick", data=data.name, epochs=asked.epochs), data)
    print(f"the net itself, on all test pictures: {run.final['accuracy']:.1%}")
    model = run.model()
    train_maps = second_maps(model, data.train_x[: asked.limit])
    test_maps = second_maps(model, data.test_x[: asked.test])
    train_y, test_y = data.train_y[: asked.limit], data.test_y[: asked.test]
    poolings = {
        "global average": FunctionTransformer(global_average),
        "multi-scale orderless": MultiScaleOrderlessPooling(clusters=asked.clusters, output_components=256),
    }
    print(f"a linear classifier on maps of {train_maps.shape[1:]}, {len(train_y):,} to fit, {len(test_y):,} to test")
    for name, pooling in poolings.items():
        classifier = make_pipeline(pooling, StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        classifier.fit(train_maps, train_y)
        length = classifier[:-1].transform(test_maps[:1]).shape[1]
        print(f"{name}: {length} numbers, test accuracy {classifier.score(test_maps, test_y):.1%}")


if __name__ == "__main__":
    main()
