"""Replace the pooling layers of any PyTorch model by poolkit's: `poolkit.torch.swap`."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

import poolkit
import poolkit.torch as face
from poolkit import swap_plans as plans
from poolkit.layer import TYPES
from poolkit.map_method import MapMethod
from poolkit.method import Method, WindowMethod
from poolkit.swap_plans import Plan, Refused, Seen, Wanted

Where: TypeAlias = "str | Sequence[str] | type | tuple[type, ...] | Callable[[str, nn.Module], bool] | None"
_HOOKS = [
    name
    for name in vars(nn.Module())
    if "hook" in name and "state_dict" not in name and "non_persistent" not in name  # how a layer is called, not stored
]


#: By name: importing the first takes a second.
FIXED = ("OptimizedModule", "DistributedDataParallel", "FullyShardedDataParallel")
ALREADY = "it has this method already"
UNKNOWN = "a kind of layer that swap does not know"
UNASKED = "poolkit's own are changed where they are asked for, by where=Pool2d or by a path"


@dataclass(frozen=True)
class Change:
    """One layer that was replaced.

    Attributes:
        paths: where it stands in the model, every place of a shared layer.
        old, new: the layer before and the one in its place.
        note: in what else than the method the two differ, or "".
    """

    paths: tuple[str, ...]
    old: nn.Module
    new: nn.Module
    note: str = ""

    def __str__(self) -> str:
        return f"{_places(self.paths)}: {_line(self.old)} → {_line(self.new)}" + (
            f"\n    {self.note}" * bool(self.note)
        )


@dataclass(frozen=True)
class Left:
    """One layer that was left as it is, and why."""

    paths: tuple[str, ...]
    layer: nn.Module
    why: str

    def __str__(self) -> str:
        return f"{_places(self.paths)}: {type(self.layer).__name__}, {self.why}"


@dataclass(frozen=True)
class Swapped:
    """What `swap` did. `print` it; `undo()` takes it back.

    Attributes:
        model: the model; where it was itself one pooling layer, the new layer.
        method: what the new layers compute.
        changed: the layers that were replaced.
        left: pooling that was not replaced, with reasons.
    """

    model: nn.Module
    method: Wanted
    changed: tuple[Change, ...]
    left: tuple[Left, ...]

    def __str__(self) -> str:
        lines = [f"{self.method.spelling}: {_count(self.changed, 'layer')} changed, {len(self.left)} left as they were"]
        lines += [f"  {line}" for change in self.changed for line in str(change).splitlines()]
        lines += ["left"] * bool(self.left) + [f"  {left}" for left in self.left]
        numbers = sum(p.numel() for change in self.changed for p in face.pool_parameters(change.new))
        if numbers:
            lines.append(
                f"{numbers} more numbers are learned: pool_parameters(model) yields them for the optimiser;\n"
                "load weights that were stored without them before the swap"
            )
        return "\n".join(lines)

    def undo(self) -> nn.Module:
        """Put the old layers back, in the mode of training that the new ones have; gives the model.

        Raises:
            RuntimeError: a new layer is no longer where it was put; nothing is changed then.
        """
        for change in self.changed:
            if any(_at(self.model, path) is not change.new for path in change.paths):
                raise RuntimeError(
                    f"{_places(change.paths)}: no longer the layer that this swap put there; undo later swaps first, "
                    "each once"
                )
        model = self.model
        for change in self.changed:
            change.old.train(change.new.training)
            for path in change.paths:
                model = _put(model, path, change.old)
        return model


def swap(
    model: nn.Module, method: str | Method, where: Where = None, *, strided_convs: bool = False, example: Any = None
) -> Swapped:
    """Replace the pooling layers of a model by layers of one method, in place.

    A new layer has the kernel, stride, padding, dilation and ceil mode of the old one, its mode of training and its
    hooks; adaptive pooling to one cell becomes a global layer. Layers that stand in several places stay shared. What
    the method learns is made on the device and in the type of the weights beside it.

    Args:
        model: any module: torch's pooling layers, timm's and poolkit's own are known; timm is not needed for it.
        method: a method or its spelling: a window method, or a map method that takes a window, such as `blur`.
        where: which layers: a path such as `"layer1.pool"`, which also means everything inside, a glob such as
            `"*.downsample.*"`, or a list of them; a type of layer or a tuple of types; a function of path and layer.
            None: all but poolkit's own, which are replaced only where they are asked for.
        strided_convs: also turn a convolution with a stride s into the same convolution with stride 1, its weights
            kept, and a pooling layer whose windows are s wide and move by s. The output keeps its size, and with the
            method `strided` its numbers; the convolution costs as many times more as a window has cells, and its
            weights' names gain a `.0`.
        example: an input that the model takes, or a tuple of its inputs. For a map method the model is given it once,
            in evaluation, to see the channels and sizes of the maps at each layer: `lip` and `universal` keep weights
            for each channel, which a pooling layer does not tell. Without it such layers are left.

    Returns:
        What was changed and what was left with the reason. `undo()` takes the swap back.

    Raises:
        ValueError: unknown method; `where` names nothing, or names a layer that cannot be replaced; there was nothing
            to replace. The model is unchanged then.
        TypeError: not a module, a method that takes no window, or a model that cannot be changed any more.

    Pooling that a `forward` computes by a function, such as `F.max_pool2d`, cannot be replaced; where the call is seen
    it is listed among what was left.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> print(swap(net, "soft", where=nn.MaxPool2d))
    soft: 1 layer changed, 0 left as they were
      1: MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False) → Pool2d('soft', 2)
    """
    wanted = _checked(model, method)
    chosen = _Choice(model, where)
    changed, left = [], []
    layers = _layers(model)
    seen = plans.seen_by(model, [layer for layer, _ in layers], example) if example is not None else {}
    for layer, paths in layers:
        picked = tuple(path for path in paths if chosen.takes(path, layer))
        if not picked:
            continue
        try:
            planned = _planned(layer, wanted, strided_convs, asked=where is not None)
            if planned is not None:
                new = _made(planned, layer, model, wanted, seen)
                changed.append(Change(_every_place(model, picked), layer, new, planned.note))
        except Refused as reason:
            left.append(Left(picked, layer, str(reason)))
    left = _without_containers(left, changed)
    chosen.refuse_unmet(changed, left)
    if not changed and not any(one.why in (ALREADY, UNASKED) for one in left):
        raise ValueError(_nothing(model, left, strided_convs))
    result = model
    for change in changed:
        for path in change.paths:
            result = _put(result, path, change.new)
    return Swapped(result, wanted, tuple(changed), tuple(left))


def _checked(model: Any, method: str | Method) -> Wanted:
    """The method, if model and method are such that a swap can begin."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"swap wants a torch.nn.Module, got {type(model).__name__}")
    wanted = poolkit.method(method)
    if not isinstance(wanted, WindowMethod) and (not isinstance(wanted, MapMethod) or wanted.takes_window == "never"):
        raise TypeError(
            f"{wanted.spelling} is a {wanted.kind} method{' without a window' * (wanted.kind == 'map')}; swap takes "
            "window methods, and map methods that take a window"
        )
    for path, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule) or type(part).__name__ in FIXED:
            raise TypeError(f"{_places((path,))} is a {type(part).__name__}: swap first, then script, compile or wrap")
    return wanted


def _layers(model: nn.Module) -> list[tuple[nn.Module, list[str]]]:
    """Every module once, with all its paths, in the order of definition."""
    found: dict[int, tuple[nn.Module, list[str]]] = {}
    for path, layer in model.named_modules(remove_duplicate=False):
        found.setdefault(id(layer), (layer, []))[1].append(path)
    return list(found.values())


def _planned(layer: nn.Module, wanted: Wanted, strided_convs: bool, asked: bool) -> Plan | None:
    """What stands for this layer; None: it is no pooling. Raises `Refused`."""
    if plans.is_own(layer):
        if not asked:
            raise Refused(UNASKED)
        if layer.method == wanted:
            raise Refused(ALREADY)
    planned = plans.plan(layer, wanted)
    if planned is None and strided_convs and plans.is_strided_convolution(layer):
        return plans.convolution_plan(layer, wanted)
    if planned is None and plans.looks_like_pooling(layer):
        raise Refused(UNKNOWN)
    if planned is None and (names := plans.calls_pooling(layer)):
        raise Refused(f"its code calls {', '.join(names)}, which swap cannot replace: make it a layer")
    return planned


def _made(planned: Plan, old: nn.Module, model: nn.Module, wanted: Wanted, seen: Seen) -> nn.Module:
    """The layer of a plan, in the mode of the old one and where the weights beside it are."""
    try:
        if isinstance(wanted, MapMethod):
            new = plans.for_maps(planned, wanted, seen.get(id(old), ()) if planned.keeps is None else ())
        else:
            new = planned.make(None)
    except ValueError as reason:
        raise Refused("; ".join(line.strip() for line in str(reason).splitlines())) from None
    beside = _weight_beside(model, old)
    if beside is not None:
        # Weights that are stored in 8 bits are no type to compute in.
        new.to(device=beside.device, dtype=beside.dtype if beside.dtype in TYPES else None)
    new.train(old.training)
    if planned.keeps is not None:  # the convolution itself keeps its hooks
        return nn.Sequential(planned.keeps, new).train(old.training)
    for name in _HOOKS:
        # The same dictionaries: a handle of a hook can still remove it.
        setattr(new, name, getattr(old, name))
    return new


def _weight_beside(model: nn.Module, layer: nn.Module) -> nn.Parameter | None:
    """The floating-point weight defined last before a layer, or first after it."""
    before: nn.Parameter | None = None
    passed = False
    for part in model.modules():
        passed = passed or part is layer
        for weight in part.parameters(recurse=False):
            if weight.is_floating_point():
                if passed:
                    return before if before is not None else weight
                before = weight
    return before


class _Choice:
    """The layers that `where` means."""

    def __init__(self, model: nn.Module, where: Where) -> None:
        self.names: tuple[str, ...] = ()
        self._test: Callable[[str, nn.Module], Any] = lambda path, layer: True
        if isinstance(where, str):
            where = [where]
        if isinstance(where, (list, tuple)) and all(isinstance(name, str) for name in where):
            self.names = tuple(map(str, where))
            self._test = lambda path, layer: any(_matches(name, path) for name in self.names)
            self._refuse_unknown([path for path, _ in model.named_modules(remove_duplicate=False)])
        elif isinstance(where, (type, tuple)):
            kinds = where if isinstance(where, tuple) else (where,)
            if not all(isinstance(kind, type) for kind in kinds):
                raise TypeError(f"where={where!r}: a tuple must hold types only, or paths only")
            outer = [path for path, layer in model.named_modules(remove_duplicate=False) if isinstance(layer, kinds)]
            self._test = lambda path, layer: any(path == o or not o or path.startswith(f"{o}.") for o in outer)
        elif callable(where):
            self._test = where
        elif where is not None:
            raise TypeError(f"where={where!r}: expected paths, a type of layer, or a function of path and layer")

    def takes(self, path: str, layer: nn.Module) -> bool:
        """Whether this layer at this path is meant."""
        return bool(self._test(path, layer))

    def _refuse_unknown(self, paths: list[str]) -> None:
        if not self.names:
            raise ValueError("where is an empty list: leave it out to take all pooling layers")
        for name in self.names:
            if not any(_matches(name, path) for path in paths):
                near = difflib.get_close_matches(name, paths, n=3, cutoff=0.5)
                hint = f"\n  nearest: {', '.join(near)}" if near else ""
                raise ValueError(f'where: the model has nothing at "{name}"{hint}')

    def refuse_unmet(self, changed: Sequence[Change], left: Sequence[Left]) -> None:
        """A path that was asked for by name must be heeded or refused aloud."""
        for name in self.names:
            if any(_matches(name, path) for change in changed for path in change.paths):
                continue
            named = [one for one in left if any(_matches(name, path) for path in one.paths)]
            if any(one.why == ALREADY for one in named):
                continue
            hint = "no pooling layer is there (strided_convs=True takes strided convolutions)"
            said = "\n  ".join(map(str, named)) or hint
            raise ValueError(f'where: nothing at "{name}" can be replaced\n  {said}')


def _matches(name: str, path: str) -> bool:
    """Whether a path, or something that it lies in, has this name or fits this glob."""
    if fnmatch.fnmatchcase(path, name):
        return True
    parts = path.split(".")
    return any(fnmatch.fnmatchcase(".".join(parts[:n]), name) for n in range(1, len(parts)))


def _every_place(model: nn.Module, picked: Sequence[str]) -> tuple[str, ...]:
    """The picked paths with those that cannot differ from them, because a block is itself shared."""
    slots = {(id(_at(model, path.rpartition(".")[0])), path.rpartition(".")[2]) for path in picked if path}
    paths = [path for path, _ in model.named_modules(remove_duplicate=False)]
    also = [p for p in paths if p and (id(_at(model, p.rpartition(".")[0])), p.rpartition(".")[2]) in slots]
    return tuple(also) or tuple(picked)


def _without_containers(left: list[Left], changed: Sequence[Change]) -> list[Left]:
    """A wrapper around layers that are listed themselves says nothing more."""
    listed = {path for places in (*(one.paths for one in left), *(one.paths for one in changed)) for path in places}

    def wraps(one: Left) -> bool:
        inside = (path.startswith(f"{p}." if p else "") and path != p for path in listed for p in one.paths)
        return one.why == UNKNOWN and any(inside)

    return [one for one in left if not wraps(one)]


def _nothing(model: nn.Module, left: Sequence[Left], strided_convs: bool) -> str:
    """Why there was nothing to replace, and what could be done."""
    if left:
        return "\n  ".join([f"{type(model).__name__} has no layer that can be replaced", *map(str, left)])
    hint = "" if strided_convs else "; strided_convs=True replaces strided convolutions"
    return (
        f"{type(model).__name__} has no pooling layer\n"
        f"  pooling by a function inside a forward cannot be replaced: make it a layer{hint}"
    )


def _at(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _put(model: nn.Module, path: str, layer: nn.Module) -> nn.Module:
    """The model with a layer at a path."""
    if not path:
        return layer
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, layer)
    return model


def _places(paths: Sequence[str]) -> str:
    return ", ".join(path or "the model itself" for path in paths)


def _line(layer: nn.Module) -> str:
    parts = list(layer) if isinstance(layer, nn.Sequential) else [layer]
    return " and ".join(" ".join(repr(part).split()) for part in parts)


def _count(things: Sequence[Any], name: str) -> str:
    return f"{len(things)} {name}" + ("s" if len(things) != 1 else "")


__all__ = ["Change", "Left", "Swapped", "swap"]
