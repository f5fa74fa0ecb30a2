"""The nets that the lab trains, built from a name, a pooling method and a seed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolkit.lab.chance import seed_of

Shape: TypeAlias = tuple[int, int, int]
Pool: TypeAlias = "str | Callable[[], nn.Module]"


class Tutorial(nn.Module):
    """The tutorial's small net: two convolutions, each followed by a pool, then two dense layers.

        conv1 3×3, 32 → ReLU → pool1 2×2 → conv2 3×3, 64 → ReLU → pool2 2×2 → dense1 64 → ReLU → dense2

    The convolutions have no padding. Input (N, C, H, W), output (N, classes): scores before the softmax.

    Arguments: `pool`, makes one pooling layer, called twice; `shape`, (C, H, W) of a picture; `classes`,
    how many.
    Raises `ValueError` for a picture that is too small.
    """

    def __init__(self, pool: Callable[[], nn.Module], shape: Shape, classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        if min(height, width) < 10:
            raise ValueError(
                f'The net "tutorial" needs pictures of at least 10×10 pixels, these have {height}×{width}.\n'
                "  Enlarge the pictures."
            )
        self.conv1 = nn.Conv2d(channels, 32, 3)
        self.pool1 = pool()
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.pool2 = pool()
        with torch.no_grad():
            flat = self._features(torch.zeros(1, *shape)).numel()
        self.dense1 = nn.Linear(flat, 64)
        self.dense2 = nn.Linear(64, classes)

    def _features(self, x: Tensor) -> Tensor:
        # In place saves a tenth of a training step; not in evaluation, where a hook on conv1 shall see
        # conv1's output.
        x = self.pool1(F.relu(self.conv1(x), inplace=self.training))
        return self.pool2(F.relu(self.conv2(x), inplace=self.training))

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, classes) of pictures (N, C, H, W) with values from 0 to 1."""
        return self.dense2(F.relu(self.dense1(self._features(x).flatten(1))))


NETS: dict[str, Callable[[Callable[[], nn.Module], Shape, int], nn.Module]] = {"tutorial": Tutorial}


def known_net(net: str) -> str:
    """The name itself, if there is such a net; raises `ValueError`, with the nearest names, if not."""
    if net in NETS:
        return net
    near = difflib.get_close_matches(str(net), NETS, n=1)
    hint = f'\n  nearest: "{near[0]}"' if near else ""
    raise ValueError(f'There is no net "{net}".{hint}\n  allowed: {", ".join(NETS)}')


def build(net: str, pool: Pool, shape: Shape, classes: int, seed: int) -> nn.Module:
    """A net with fresh weights that follow from the seed alone, on the CPU.

    Weights are drawn as Keras does: uniform within ±√(6 / (fan_in + fan_out)) (Glorot), biases zero. Each
    layer has a generator of its own, so that nets which differ in the pool start from the same weights.

    Arguments: `net`, a name in `NETS`; `pool`, a method's spelling such as `soft:beta=2` (a 2×2 window then
    moves by 2) or a function that makes one pooling layer; `shape`, (C, H, W) of a picture; `classes`, how
    many; `seed`.
    Raises `ValueError` for an unknown net or pool. The caller's random state stays as it is.
    """
    make = NETS[known_net(net)]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, "pool"))
        model = make(_maker(pool), shape, classes)
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            generator = torch.Generator().manual_seed(seed_of(seed, "init", name))
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model


def _maker(pool: Pool) -> Callable[[], nn.Module]:
    if not isinstance(pool, str):
        return pool
    from poolkit.torch import Pool2d

    return lambda: Pool2d(pool, 2)


def layers(model: nn.Module, shape: Shape) -> list[dict[str, Any]]:
    """One row for each layer in the order of computation: what it is, what comes out, its parameters.

    Arguments: `model`, a net; `shape`, (C, H, W) of a picture.
    Rows are `{"layer": "Conv2d 3×3, 32", "output": [32, 30, 30], "parameters": 896}`; activations have
    none, the flattening before the first dense layer has one.
    """
    rows: list[dict[str, Any]] = []

    def note(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Linear) and rows and len(rows[-1]["output"]) > 1:
            rows.append({"layer": "Flatten", "output": [given[0].shape[1]], "parameters": 0})
        count = sum(p.numel() for p in layer.parameters())
        rows.append({"layer": _words(layer), "output": list(output.shape[1:]), "parameters": count})

    hooks = [layer.register_forward_hook(note) for layer in model.children()]
    was_training = model.training
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *shape, device=device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return rows


def _words(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d):
        return f"Conv2d {'×'.join(map(str, layer.kernel_size))}, {layer.out_channels}"
    if isinstance(layer, nn.Linear):
        return f"Linear, {layer.out_features}"
    method, window = getattr(layer, "method", None), getattr(layer, "window", None)
    if method is not None and window is not None:
        return f"{type(layer).__name__} {method.spelling}, {'×'.join(map(str, window.size))}"
    return f"{type(layer).__name__} {layer.extra_repr()}".strip()


def learned(model: nn.Module) -> dict[str, float | None]:
    """The present values of the pools' learned parameters, `{"pool1.p": 3.02}`; over channels, the mean.

    A value that is not finite is None, as in run.json.
    """
    values: dict[str, float | None] = {}
    for name, layer in model.named_children():
        present = getattr(layer, "learned", dict)
        for parameter, tensor in present().items():
            value = float(tensor.detach().double().mean())
            values[f"{name}.{parameter}"] = value if math.isfinite(value) else None
    return values
