"""Nets of others, named `timm:resnet18` or `my_module:my_net`: made as they are, then their pools replaced."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from poolkit import optional
from poolkit.own import current_folder_first
from poolkit.swap import swap
from poolkit.torch import GlobalPool1d, GlobalPool2d, GlobalPool3d

_ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, GlobalPool1d, GlobalPool2d, GlobalPool3d)
#: The pool of a recipe whose net keeps those that its author made.
AS_MADE = "as-made"
_NAME = re.compile(r"timm:[\w.\-/]+|[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")


def names_other(net: str) -> bool:
    """Whether a name is one of a net that is not poolkit's; nothing is imported to say so."""
    return bool(_NAME.fullmatch(net))


_ALLOWED: set[str] = set()


def allow(net: str) -> None:
    """Say that the code which a net's name stands for may run in this process: its user asked for it by that name."""
    _ALLOWED.add(net)


def is_allowed(net: str) -> bool:
    """Whether a net that a file names may be made: a folder from elsewhere shall not choose which code runs here."""
    return not names_other(net) or net.startswith("timm:") or net in _ALLOWED


def make(net: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A net as its author made it, on the CPU, with fresh weights from torch's present random state.

    Arguments: `net`, `timm:NAME`, a model of timm's without its weights, made for so many channels and classes; or
    `module:callable`, whose module may lie in the current folder: `callable(shape, classes)` gives a `torch.nn.Module`
    that takes float32 (N, C, H, W) from 0 to 1 and gives scores (N, classes). `shape` is (C, H, W).
    Raises `ValueError`: no such model or module, or what it gives is no net for these pictures.
    """
    made = _of_timm(net.partition(":")[2], shape, classes) if net.startswith("timm:") else _own(net)(shape, classes)
    if not isinstance(made, nn.Module):
        raise ValueError(f'net="{net}" gave a {type(made).__name__}: a torch.nn.Module is wanted')
    was_training = made.training
    try:
        with torch.no_grad():
            scores = made.eval()(torch.zeros(1, *shape))
    except Exception as error:  # the author's code may fail in any way
        raise ValueError(f'net="{net}" cannot take pictures of {shape}: {type(error).__name__}: {error}') from error
    made.train(was_training)
    if not isinstance(scores, torch.Tensor) or scores.shape != (1, classes):
        got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ValueError(f'net="{net}" gave {got} for one picture: scores of shape (1, {classes}) are wanted')
    return made


def pooled(model: nn.Module, pool: str, at: str = "") -> nn.Module:
    """The net with its pooling layers replaced in place by those of a method, at the places asked for.

    Arguments: `pool`, a spelling, or one for each of the net's places in the order in which it names them, with |
    between, or "as-made", which leaves the net as it is; `at`, paths or globs as `poolkit.torch.swap` takes them, with
    commas between; by default every pool with a window. Global pools, at the end of many nets, change only where `at`
    names them: they answer another question than the windows do.
    Raises `ValueError`: nothing is there that could be replaced, or not so many places.
    """
    if pool == AS_MADE:
        return model
    first, *others = pool.split("|")
    try:
        swapped = swap(model, first, [name.strip() for name in at.split(",")] if at else _has_window)
        places = [list(change.paths) for change in swapped.changed]
        if others and len(others) + 1 != len(places):
            names = ", ".join(paths[0] for paths in places)
            raise ValueError(f"pool={pool!r} names {len(others) + 1} pools; the net has {len(places)} places: {names}")
        model = swapped.model
        for paths, other in zip(places[1:], others, strict=False):
            model = swap(model, other, paths).model
        return model
    except TypeError as error:
        raise ValueError(f"pool={pool!r}: {error}") from None


def _has_window(path: str, layer: nn.Module) -> bool:
    if isinstance(layer, _ADAPTIVE):
        return False
    # timm's wrapper of global pools, and what stands inside it
    return not any("adaptive" in cls.__name__.lower() for cls in type(layer).__mro__)


def _of_timm(name: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    try:
        import timm
    except (ImportError, OSError, RuntimeError) as error:  # the last two from a torchvision built for another torch
        if isinstance(error, ModuleNotFoundError) and error.name == "timm":
            raise ValueError(f'net="timm:{name}" needs timm\n  pip install timm') from None
        why = optional.unusable(f"{type(error).__name__}: {error}")
        raise ValueError(
            f'net="timm:{name}": timm is {why}\n  {optional.for_torch(torch.__version__)}\n'
            "  what works here: poolkit doctor"
        ) from error
    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:6]}*")[:3]
        raise ValueError(f'timm has no model "{name}"' + (f"\n  nearest: {', '.join(near)}" if near else ""))
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=shape[0])
    return model


def _own(net: str) -> Callable[..., Any]:
    module, _, name = net.partition(":")
    try:
        with current_folder_first():
            found = importlib.import_module(module)
    except Exception as error:  # importing runs the module, which may fail in any way
        raise ValueError(
            f'net="{net}": importing "{module}" failed: {type(error).__name__}: {error}\n'
            "  searched: the current folder, then the installed packages"
        ) from error
    made = getattr(found, name, None)
    if not callable(made):
        raise ValueError(f'net="{net}": the module "{module}" has no callable "{name}"')
    return made  # type: ignore[no-any-return]
