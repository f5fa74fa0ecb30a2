"""What stands for a pooling layer of torch, timm or poolkit: the geometry of each kind, in poolkit's words.

timm is not imported: its layers are known by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import poolkit.torch as face
from poolkit.map_method import MapMethod, MapShape
from poolkit.method import WindowMethod
from poolkit.methods import Avg, Lp


class Refused(Exception):
    """A layer stays; the text says why."""


@dataclass(frozen=True)
class Plan:
    """A layer to be made, for a number of channels or None: a pool, for `keeps` (a convolution) behind it.

    `note` says in what else than the method old and new layer differ. `dims` and `channels`: of the maps, the second
    where the old layer tells it.
    """

    make: Callable[[int | None], nn.Module]
    note: str = ""
    keeps: nn.Module | None = None
    dims: int = 0
    channels: int | None = None


#: A method that takes a window.
Wanted: TypeAlias = WindowMethod | MapMethod

#: Shapes of maps by the id of the layer that they came to.
Seen: TypeAlias = "dict[int, set[tuple[int, ...]]]"

Rule = Callable[[Any, Wanted], Plan]


def plan(layer: nn.Module, wanted: Wanted) -> Plan | None:
    """What stands for a pooling layer; None: it is none. Raises `Refused`."""
    if is_own(layer):
        return _of_poolkit(layer, wanted)
    for cls in type(layer).__mro__:
        rule = RULES.get(f"{cls.__module__.partition('.')[0]}.{cls.__name__}")
        if rule is not None:
            if type(layer).forward is not getattr(cls, "forward", None):
                raise Refused(f"computes in its own way, not as {cls.__name__} does")
            return rule(layer, wanted)
    return None


def is_own(layer: nn.Module) -> bool:
    """Whether it is a pool of poolkit's."""
    return isinstance(layer, (face.WindowLayer, face.MapPool1d, face.MapPool2d, face.MapPool3d))


def looks_like_pooling(layer: nn.Module) -> bool:
    """Whether a layer is named as a pool."""
    return "pool" in type(layer).__name__.lower()


def is_strided_convolution(layer: nn.Module) -> bool:
    """Whether it is a convolution of torch that leaves out cells."""
    return isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and max(layer.stride) > 1


def convolution_plan(conv: Any, wanted: Wanted) -> Plan:
    """The same convolution with stride 1, sharing weights and hooks, and a pool of the stride's size.

    M positions give ⌈M/s⌉ outputs, strided or pooled with ceil mode.
    """
    base = next(cls for cls in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(conv, cls))
    if type(conv).forward is not base.forward:
        raise Refused(f"computes in its own way, not as {base.__name__} does")
    dense: Any = nn.Module.__new__(type(conv))  # parametrised layers refuse copy.copy
    dense.__dict__.update(conv.__dict__)
    dense.stride = (1,) * len(conv.stride)
    pooled = _pool(len(conv.stride), wanted, conv.stride, ceil_mode=True)
    note, dims, channels = f"about {math.prod(conv.stride)} times its arithmetic", len(conv.stride), conv.out_channels
    return Plan(pooled.make, note, dense, dims, channels)


def seen_by(model: nn.Module, layers: Iterable[nn.Module], example: Any) -> Seen:
    """The shapes of the maps that come to each layer, by its id, when the model is given an example, in evaluation."""
    found: Seen = {}

    def note(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            found.setdefault(id(layer), set()).add(tuple(inputs[0].shape))

    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    modes = [(part, part.training) for part in model.modules()]
    try:
        with torch.no_grad():
            model.eval()(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for part, mode in modes:
            part.training = mode
        for handle in handles:
            handle.remove()
    return found


def for_maps(planned: Plan, wanted: MapMethod, seen: Iterable[tuple[int, ...]]) -> nn.Module:
    """A map method's layer, for maps of the shapes seen; raises `Refused` where it could not pool them."""
    shapes = list(seen)
    channels = {shape[-planned.dims - 1] for shape in shapes} if planned.channels is None else {planned.channels}
    try:
        wanted.weights(MapShape(None, planned.dims))
    except ValueError:  # it keeps weights for each channel
        if not channels:
            name = wanted.card.name
            raise Refused(f"{name} keeps weights for each channel: example=x has the model say how many") from None
        if len(channels) > 1:
            raise Refused(f"stands where there are {' and '.join(map(str, sorted(channels)))} channels") from None
    new: Any = planned.make(min(channels, default=None))
    ample = (1, *(8 * size for size in new.window.size))
    for shape in shapes or [ample]:
        new.output_shape(*shape[-planned.dims - 1 :])
    return new


def calls_pooling(layer: nn.Module) -> list[str]:
    """The pooling functions of torch that a layer's own code names."""
    names: set[str] = set()
    for cls in type(layer).__mro__:
        if cls.__module__.partition(".")[0] != "torch":
            for function in vars(cls).values():
                if isinstance(function, FunctionType):
                    names.update(_names(function.__code__))
    found = (n for n in names if re.fullmatch(r"(adaptive_|fractional_)?(max|avg|lp)_pool[123]d", n))
    return sorted(f"{name}()" for name in found if not hasattr(layer, name))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _pool(dims: int, wanted: Wanted, size: Any, note: str = "", **geometry: Any) -> Plan:
    def make(channels: int | None) -> nn.Module:
        return getattr(face, f"Pool{dims}d")(wanted, size, channels=channels, **geometry)

    return Plan(make, note, dims=dims)


def _global(dims: int, wanted: Wanted, flatten: bool = False) -> Plan:
    _refuse_whole_maps(wanted)
    return Plan(lambda _: getattr(face, f"GlobalPool{dims}d")(wanted, flatten=flatten))


def _refuse_whole_maps(wanted: Wanted) -> None:
    if isinstance(wanted, MapMethod):
        raise Refused(f"pools whole maps; {wanted.card.name} is no statistic of one window")


def _dims(layer: nn.Module) -> int:
    """2 for AvgPool2d."""
    kind = next(cls.__name__ for cls in type(layer).__mro__ if re.search(r"[123]d(Same)?$", cls.__name__))
    return int(kind.removesuffix("Same")[-2])


def _of_poolkit(layer: Any, wanted: Wanted) -> Plan:
    whole = isinstance(layer, (face.GlobalPool1d, face.GlobalPool2d, face.GlobalPool3d))
    if whole:
        _refuse_whole_maps(wanted)
    elif layer.window is None:
        raise Refused(f"has no window that {wanted.card.name} could take")
    kind: Any = type(layer) if isinstance(layer, face.WindowLayer) else getattr(face, f"Pool{layer.dims}d")

    def make(channels: int | None) -> nn.Module:
        if whole:
            new = kind(wanted, flatten=layer.flatten, seed=layer.seed)
        else:
            w, named = layer.window, {"channels": channels, "seed": layer.seed}
            new = kind(wanted, w.size, w.stride, w.padding, w.dilation, w.ceil_mode, **named)
        if isinstance(layer, face.WindowLayer) and isinstance(new, face.WindowLayer):
            new.path = layer.path
        return new

    return Plan(make, dims=layer.dims)


def _max(layer: Any, wanted: Wanted) -> Plan:
    _refuse_indices(layer)
    return _pool(_dims(layer), wanted, layer.kernel_size, **_geometry(layer), dilation=layer.dilation)


def _avg(layer: Any, wanted: Wanted) -> Plan:
    divisor, cells, dims = getattr(layer, "divisor_override", None), layer.kernel_size, _dims(layer)
    k = math.prod(cells) if isinstance(cells, tuple) and len(cells) == dims else math.prod((cells,) * dims)
    if divisor not in (None, k):
        raise Refused(f"divides sums of {k} cells by {divisor}, which is no mean; divisor_override=None makes it one")
    padded = max(layer.padding) if isinstance(layer.padding, tuple) else layer.padding
    counts = layer.count_include_pad and padded and not (isinstance(wanted, Avg) and wanted.count_include_pad)
    note = "its means counted padded cells as zeros, which the new layer never does" if counts else ""
    if divisor and (padded or layer.ceil_mode):
        note = f"it divided by {divisor} at the edges too, the new layer looks at the cells inside the picture"
    return _pool(dims, wanted, cells, note, **_geometry(layer))


def _lp(layer: Any, wanted: Wanted) -> Plan:
    same = isinstance(wanted, Lp) and wanted.reduction == "sum"
    note = f"it summed |x|^p over a window, it took no mean: lp:p={layer.norm_type:g},reduction=sum does"
    stride = layer.kernel_size if layer.stride is None else layer.stride
    return _pool(
        _dims(layer), wanted, layer.kernel_size, "" if same else note, stride=stride, ceil_mode=layer.ceil_mode
    )


def _geometry(layer: Any) -> dict[str, Any]:
    return {"stride": layer.stride, "padding": layer.padding, "ceil_mode": layer.ceil_mode}


def _adaptive(layer: Any, wanted: Wanted) -> Plan:
    _refuse_indices(layer)
    size = layer.output_size
    if set(size if isinstance(size, (tuple, list)) else (size,)) != {1}:
        raise Refused(f"adapts its windows to give {size} cells; only whole maps (output_size=1) have a fixed window")
    return _global(_dims(layer), wanted)


def _refuse_indices(layer: Any) -> None:
    if getattr(layer, "return_indices", False):
        raise Refused("gives the places of its cells too (return_indices=True), which no pool here does")


def _fractional(layer: Any, wanted: Wanted) -> Plan:
    raise Refused("places its windows at random: it has no kernel and stride to copy")


def _same_max(layer: Any, wanted: Wanted) -> Plan:
    return _pool(2, wanted, layer.kernel_size, stride=layer.stride, padding="same", dilation=layer.dilation)


def _same_avg(layer: Any, wanted: Wanted) -> Plan:
    counts = not (isinstance(wanted, Avg) and wanted.count_include_pad)
    note = "its means counted padded cells as zeros, which the new layer never does" if counts else ""
    return _pool(2, wanted, layer.kernel_size, note, stride=layer.stride, padding="same")


def _fast(layer: Any, wanted: Wanted) -> Plan:
    if tuple(layer.dim) != (2, 3):
        raise Refused("pools maps with their channels last; poolkit's layers want (N, C, H, W)")
    return _global(2, wanted, flatten=layer.flatten)


def _concatenating(layer: Any, wanted: Wanted) -> Plan:
    raise Refused("gives average and maximum side by side, twice the channels that one method gives")


def _blur(layer: Any, wanted: Wanted) -> Plan:
    pads = set(layer.padding)
    if len(pads) != 1:
        raise Refused(f"pads unevenly: {layer.padding}")
    note = f"it weighted cells by a fixed filter, its padding was {layer.pad_mode}" if layer.padding[0] else ""
    return _pool(2, wanted, layer.filt_size, note, stride=layer.stride, padding=layer.padding[0])


def _median(layer: Any, wanted: Wanted) -> Plan:
    left, right, top, bottom = layer.padding
    if (left, top) != (right, bottom) and not layer.same:
        raise Refused(f"pads unevenly: {layer.padding}")
    padding = "same" if layer.same else (top, left)
    note = "its padding reflected the picture; here padded cells never count" if layer.same or top or left else ""
    return _pool(2, wanted, layer.k, note, stride=layer.stride, padding=padding)


def _lse_plus(layer: Any, wanted: Wanted) -> Plan:
    return _global(_dims(layer), wanted, flatten=layer.flatten)


def _each(name: str, rule: Rule, dims: str = "123") -> dict[str, Rule]:
    return {f"torch.{name}{n}d": rule for n in dims}


#: By the package and the name of the class.
RULES: dict[str, Rule] = {
    **_each("MaxPool", _max),
    **_each("AvgPool", _avg),
    **_each("LPPool", _lp),
    **_each("AdaptiveAvgPool", _adaptive),
    **_each("AdaptiveMaxPool", _adaptive),
    **_each("FractionalMaxPool", _fractional, "23"),
    "timm.MaxPool2dSame": _same_max,
    "timm.AvgPool2dSame": _same_avg,
    "timm.AdaptiveAvgMaxPool2d": _adaptive,
    "timm.AdaptiveCatAvgMaxPool2d": _concatenating,
    "timm.FastAdaptiveAvgPool": _fast,
    "timm.FastAdaptiveMaxPool": _fast,
    "timm.FastAdaptiveAvgMaxPool": _fast,
    "timm.FastAdaptiveCatAvgMaxPool": _concatenating,
    "timm.BlurPool2d": _blur,
    "timm.MedianPool2d": _median,
    "timm.LsePlus2d": _lse_plus,
}

__all__ = [
    "RULES",
    "Plan",
    "Refused",
    "Seen",
    "Wanted",
    "calls_pooling",
    "convolution_plan",
    "for_maps",
    "is_own",
    "is_strided_convolution",
    "looks_like_pooling",
    "plan",
    "seen_by",
]
