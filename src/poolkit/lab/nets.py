"""The nets that the lab trains, built from a name, a pooling method and a seed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolkit import own
from poolkit.lab import other_nets
from poolkit.lab.chance import seed_of
from poolkit.torch import WindowLayer

Shape: TypeAlias = tuple[int, int, int]
Pool: TypeAlias = "str | Callable[[], nn.Module]"
HeadMaker: TypeAlias = "Callable[[int, tuple[int, ...]], nn.Module] | None"
FLATTEN = "flatten"


class Tutorial(nn.Module):
    """The tutorial's small net: two convolutions, each followed by a pool, then two dense layers.

        conv1 3×3, 32 → ReLU → pool1 2×2 → conv2 3×3, 64 → ReLU → pool2 2×2 → dense1 64 → ReLU → dense2

    The convolutions have no padding. Input (N, C, H, W), output (N, classes): scores before the softmax.

    Between pool2 and dense1 the maps become a vector: they are flattened, or a head such as NetVLAD takes them.

    Arguments: `pool`, makes the pooling layer of so many maps, called twice; `shape`, (C, H, W) of a
    picture; `classes`, how many; `head`, makes the head of so many maps of these sizes, None to flatten them.
    Raises `ValueError` for a picture that is too small.
    """

    def __init__(self, pool: Callable[[int], nn.Module], shape: Shape, classes: int, head: HeadMaker = None) -> None:
        super().__init__()
        channels, height, width = shape
        if min(height, width) < 10:
            raise ValueError(
                f'The net "tutorial" needs pictures of at least 10×10 pixels, these have {height}×{width}.\n'
                "  Enlarge the pictures."
            )
        self.conv1 = nn.Conv2d(channels, 32, 3)
        self.pool1 = pool(32)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.pool2 = pool(64)
        with torch.no_grad():
            maps = self._features(torch.zeros(1, *shape))
            self.head = head(64, tuple(maps.shape[2:])) if head else None
            flat = self._vector(maps).numel()
        self.dense1 = nn.Linear(flat, 64)
        self.dense2 = nn.Linear(64, classes)

    def _features(self, x: Tensor) -> Tensor:
        return _pooled(self.conv2(_pooled(self.conv1(x), self.pool1)), self.pool2)

    def _vector(self, x: Tensor) -> Tensor:
        return x.flatten(1) if self.head is None else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, classes) of pictures (N, C, H, W) with values from 0 to 1."""
        return self.dense2(F.relu(self.dense1(self._vector(self._features(x)))))


def _pooled(x: Tensor, pool: nn.Module) -> Tensor:
    """pool(ReLU(x)). In evaluation in this order and on memory of its own, so that hooks see each layer's output."""
    if not pool.training:
        return pool(F.relu(x))
    # A layer of one's own may have a `forward` without the argument.
    along = type(pool).forward is WindowLayer.forward
    return pool(x, relu=True) if along else pool(F.relu(x, inplace=True))


NETS: dict[str, Callable[[Callable[[int], nn.Module], Shape, int, HeadMaker], nn.Module]] = {"tutorial": Tutorial}
#: Where a net's pools stand, in the order in which they are made: the pool's name, and that of the layer before it.
PLACES = {"tutorial": (("pool1", "conv1"), ("pool2", "conv2"))}


def known_net(net: str) -> str:
    """The name itself, if there can be such a net; raises `ValueError`, with the nearest names, if not.

    `timm:NAME` and `module:callable` are known by their form: they are looked for when they are built.
    """
    if net in NETS or (isinstance(net, str) and other_nets.names_other(net)):
        return net
    near = difflib.get_close_matches(str(net), NETS, n=1)
    hint = f'\n  nearest: "{near[0]}"' if near else ""
    raise ValueError(f'There is no net "{net}".{hint}\n  allowed: {", ".join(NETS)}, timm:NAME, module:callable')


def known_places(net: str, at: str) -> str:
    """`at` itself, if the net has pools there; raises `ValueError` if not. Of nets of others, see `other_nets`."""
    if not isinstance(at, str):
        raise ValueError(f"pool_at={at!r} is not allowed: names of places with commas between, or nothing for all")
    if at and net in PLACES:
        names = [name for place in PLACES[net] for name in place]
        for name in (part.strip() for part in at.split(",")):
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"\n  nearest: {near[0]}" if near else ""
                raise ValueError(
                    f'pool_at: the net "{net}" has no pool at "{name}".{hint}\n  allowed: {", ".join(names)}'
                )
    return at


def known_pool(net: str, pool: str, at: str = "") -> str:
    """A pool as it is spelled, `soft:beta=2`, or one for each place of the net in its order, `soft:beta=2 | max`.

    The pools of a net of others may be "as-made". One's own method that is not imported yet is known by its form.
    Raises `ValueError`: an unknown method, several with places `at` which they stand, or more or fewer than the net has
    places. Those of nets of others are counted when they are built.
    """
    if other_nets.AS_MADE in map(str.strip, str(pool).split("|")):
        pool = str(pool).strip()
        if net in NETS or pool != other_nets.AS_MADE:
            raise ValueError(
                f'pool="{pool}" with net="{net}": as-made keeps the pools of a net of others, all of them\n'
                "  give a method; all: poolkit list"
            )
        if at:
            raise ValueError(f'pool="{pool}" keeps every pool of the net, and pool_at={at!r} names some\n  take one')
        return pool
    each = tuple(map(own.spelled, str(pool).split("|")))
    if len(each) > 1 and at:
        raise ValueError(
            f"pool={pool!r} says what stands at each place, and pool_at={at!r} at which\n  take one of the two"
        )
    if len(each) > 1 and len(each) != len(PLACES.get(net, each)):
        names = ", ".join(name for name, _ in PLACES[net])
        raise ValueError(
            f'pool={pool!r} names {len(each)} pools; the net "{net}" has {len(PLACES[net])} places\n'
            f"  allowed: one for all, or one for each of {names} with | between"
        )
    return " | ".join(each)


def assemble(net: str, pool: Pool, shape: Shape, classes: int, head: str = FLATTEN, at: str = "") -> nn.Module:
    """A net with whatever weights its layers are born with; arguments as `build`."""
    if net in NETS:
        return NETS[net](_in_turn(pools(net, pool, at)), shape, classes, head_maker(head))
    if head != FLATTEN:
        raise ValueError(f'head={head!r} is not allowed with net="{known_net(net)}": that net has a head of its own')
    if not isinstance(pool, str):
        raise ValueError(f'net="{net}" takes the spelling of a method')
    return other_nets.pooled(other_nets.make(known_net(net), shape, classes), pool, at)


def pools(net: str, pool: Pool, at: str = "") -> tuple[Pool, ...]:
    """What stands at each place of a net in `PLACES`, in their order: `pool` where it is asked for, elsewhere max."""
    if isinstance(pool, str) and "|" in pool:
        return tuple(known_pool(net, pool, at).split(" | "))
    wanted = {part.strip() for part in known_places(net, at).split(",")}
    return tuple(pool if not at or wanted.intersection(names) else "max" for names in PLACES[net])


def _in_turn(pools: Iterable[Pool]) -> Callable[[int], nn.Module]:
    """Makes the pools of a net one after the other, each for so many maps."""
    makers = iter([maker(pool) for pool in pools])
    return lambda channels: next(makers)(channels)


def build(net: str, pool: Pool, shape: Shape, classes: int, seed: int, head: str = FLATTEN, at: str = "") -> nn.Module:
    """A net with fresh weights that follow from the seed alone, on the CPU.

    Weights are drawn as Keras does: uniform within ±√(6 / (fan_in + fan_out)) (Glorot), biases zero. Each
    layer has a generator of its own, so that nets which differ in the pool start from the same weights.

    A net of others (`timm:NAME`, `module:callable`) keeps the distributions that its author chose.

    Arguments: `net`, a name in `NETS`, or a net of others; `pool`, a method's spelling such as `soft:beta=2` (a 2×2
    window then moves by 2), one for each place such as `soft:beta=2 | max`, or a function that makes one pooling layer;
    `shape`, (C, H, W) of a picture; `classes`, how many; `seed`; `head`, what makes a vector of the maps before the
    dense layers: "flatten", or a head's spelling such as `netvlad`; `at`, the places where the pool stands, such as
    "conv2", with commas between: by default all, elsewhere the net has the pools it has without it (the tutorial's has
    max).
    Raises `ValueError` for an unknown net, pool, head or place. The caller's random state stays as it is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, "pool"))
        model = assemble(net, pool, shape, classes, head, at)
    if net not in NETS:
        return model
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            generator = torch.Generator().manual_seed(seed_of(seed, "init", name))
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model


#: What a recipe's `start` may be.
STARTS = ("glorot", "whitened")
_RIDGE = 1e-2  # added to the variances, of pixels from 0 to 1: directions with less are mostly noise
_SEEN = 500  # pictures that are looked at: on CIFAR-10 450,000 patches, for the covariance of 27 numbers


def whiten(model: nn.Module, pixels: Tensor) -> None:
    """Compute the first convolution from pictures and fix it; the last layer starts at 0. Nothing is random.

        filter k = uₖ / √(vₖ + 0.01),  filter k + K = −filter k,  bias = −filter · mean

    where vₖ, uₖ are the largest variances and their directions among the pictures' patches of the filter's size. What
    the later layers see then has mean 0 and about the same variance in each direction, before the ReLU, so that
    they learn in far fewer steps; and as the layer stays, nothing is computed backwards below the second
    convolution. Filters beyond twice the numbers in a patch keep the weights they have.

    Arguments: `model`; `pixels`, uint8 (N, H, W, C).
    Raises `ValueError`: its first convolution has no bias, or groups, or there is no dense layer.
    """
    first = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d)), None)
    dense = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if first is None or first.bias is None or first.groups > 1 or not dense:
        raise ValueError(
            'start="whitened" needs a net whose first convolution has a bias and which ends in a dense layer\n'
            '  take start="glorot": the weights that the net is made with'
        )
    last = dense[-1]
    # Evenly spaced, because folders of pictures are sorted by class.
    some = pixels[:: -(-len(pixels) // _SEEN)].permute(0, 3, 1, 2).float().div_(255)
    rows, columns = first.kernel_size
    patches = some.unfold(2, rows, 1).unfold(3, columns, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
    mean = patches.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov((patches - mean).t(), correction=0).double())
    k = min(first.out_channels // 2, len(variances))
    filters = (directions / (variances.clamp_min(0) + _RIDGE).sqrt()).t().flip(0)[:k]
    filters = filters * torch.where(filters.sum(1, keepdim=True) < 0, -1.0, 1.0)  # a direction has no sign of its own
    filters = torch.cat([filters, -filters])
    with torch.no_grad():
        first.weight[: 2 * k] = filters.view(-1, *first.weight.shape[1:]).to(first.weight)
        first.bias[: 2 * k] = -(filters @ mean.double()).to(first.weight)
        last.weight.zero_()
    first.requires_grad_(False)


def maker(pool: Pool) -> Callable[[int], nn.Module]:
    """What makes a net's pooling layer for so many maps: windows of 2×2 of a spelled method, or the given function."""
    if not isinstance(pool, str):
        return lambda channels: pool()
    from poolkit.torch import Pool2d

    return lambda channels: Pool2d(pool, 2, channels=channels)


def head_maker(head: str) -> HeadMaker:
    """What makes a net's head for so many maps of these sizes; None for "flatten"."""
    if head == FLATTEN:
        return None
    from poolkit.torch import Head

    return lambda channels, sizes: Head(head, channels, sizes)


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
        if not isinstance(output, Tensor):
            return
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
    if isinstance(layer, nn.Flatten):
        return "Flatten"
    method, window = getattr(layer, "method", None), getattr(layer, "window", None)
    if method is not None and window is not None:
        return f"{type(layer).__name__} {method.spelling}, {'×'.join(map(str, window.size))}"
    return f"{type(layer).__name__} {layer.extra_repr()}".strip()


def learned(model: nn.Module) -> dict[str, float | None]:
    """The present values of the pools' learned parameters, `{"pool1.p": 3.02}`; over channels, the mean.

    A value that is not finite is None, as in run.json.
    """
    values: dict[str, float | None] = {}
    for name, layer in model.named_modules():
        present = getattr(layer, "learned", dict)
        for parameter, tensor in present().items():
            value = float(tensor.detach().double().mean())
            values[f"{name}.{parameter}"] = value if math.isfinite(value) else None
    return values
