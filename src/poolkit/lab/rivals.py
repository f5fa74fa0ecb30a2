"""What people use instead of our layers: the usual unfold-and-reduce code, and the pools of other packages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolkit.method import WindowMethod

# The packages whose pools are timed where they are installed.
PACKAGES = ("timm", "kornia")

Formula = Callable[[Tensor, Any, bool], Tensor]


class Unfolded(nn.Module):
    """A method as it is usually written: unfold the windows, then reduce them.

    Args:
        method: one that `FORMULAS` has; learned parameters are learned here too, as they are, without a range.
        geometry: `kernel_size` and `stride` of windows that lie wholly in the picture.
    """

    def __init__(self, method: WindowMethod, geometry: Mapping[str, Any]) -> None:
        super().__init__()
        self.formula = FORMULAS[method.card.name]
        self.size = geometry["kernel_size"]
        self.stride = geometry.get("stride", self.size)
        self.values = method.values()
        for name, value in method.learned.items():
            parameter = nn.Parameter(torch.tensor(float(value.start or 0.0)))
            self.register_parameter(name, parameter)
            setattr(self.values, name, parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Pool x, (N, C, H, W)."""
        n, c, *sizes = x.shape
        w = F.unfold(x, self.size, stride=self.stride).view(n, c, self.size**2, -1)
        out = [(length - self.size) // self.stride + 1 for length in sizes]
        return self.formula(w, self.values, self.training).reshape(n, c, *out)


def _mixed(w: Tensor, p: Any, training: bool) -> Tensor:
    top, mean = w.max(2).values, w.mean(2)
    if not training:
        return (top + mean) / 2
    return torch.where(torch.rand(*w.shape[:2], 1) < 0.5, top, mean)


def _stochastic(w: Tensor, p: Any, training: bool) -> Tensor:
    a = w.clamp(min=0)
    if not training:
        return (a * a).sum(2) / a.sum(2).clamp(min=1e-12)
    chances = (a.detach() + 1e-12).movedim(2, -1)
    drawn = torch.multinomial(chances.reshape(-1, chances.shape[-1]), 1)
    return a.gather(2, drawn.view(*chances.shape[:-1]).unsqueeze(2)).squeeze(2)


#: Windows (N, C, K, windows) to (N, C, windows), as user code and tutorials have it.
FORMULAS: dict[str, Formula] = {
    "max": lambda w, p, training: w.max(2).values,
    "min": lambda w, p, training: w.min(2).values,
    "avg": lambda w, p, training: w.mean(2),
    "lp": lambda w, p, training: w.abs().pow(p.p).mean(2).pow(1 / p.p),
    "gem": lambda w, p, training: w.clamp(min=p.eps).pow(p.p).mean(2).pow(1 / p.p),
    "median": lambda w, p, training: w.quantile(0.5, 2),
    "lse": lambda w, p, training: ((p.r * w).logsumexp(2) - math.log(w.shape[2])) / p.r,
    "blend": lambda w, p, training: p.a * w.max(2).values + (1 - p.a) * w.mean(2),
    "soft": lambda w, p, training: ((p.beta * w).softmax(2) * w).sum(2),
    "rank-avg": lambda w, p, training: w.sort(2, descending=True).values[:, :, : p.t].mean(2),
    "avg-topk": lambda w, p, training: w.topk(p.k, 2).values.mean(2),
    "mixed": _mixed,
    "stochastic": _stochastic,
}


def rivals(method: WindowMethod, geometry: Mapping[str, Any] | None) -> Iterator[tuple[str, nn.Module]]:
    """The rivals of a method on a geometry (None: global) that are here, by name.

    That they compute the same is for the caller to test: some do only for some parameters.
    """
    inside = geometry is not None and not geometry.get("padding") and not geometry.get("ceil_mode")
    if method.card.name in FORMULAS and inside and geometry is not None:
        yield "unfold", Unfolded(method, geometry)
    for name, build in (("torch", _torch), ("timm", _timm), ("kornia", _kornia)):
        if importable(name) and (found := build(method, geometry)) is not None:
            yield name, found


def importable(name: str) -> bool:
    """Whether a package is installed and its own imports work."""
    if find_spec(name) is None:
        return False
    try:
        __import__(name)
    except (ImportError, RuntimeError):  # a torchvision that does not fit torch names an operator that torch lacks
        return False
    return True


def _torch(method: WindowMethod, geometry: Mapping[str, Any] | None) -> nn.Module | None:
    if method.spelling != "avg":
        return None
    return nn.AdaptiveAvgPool2d(1) if geometry is None else nn.AvgPool2d(**geometry, count_include_pad=False)


def _timm(method: WindowMethod, geometry: Mapping[str, Any] | None) -> nn.Module | None:
    if method.spelling != "avg" or geometry is not None:
        return None
    from timm.layers import SelectAdaptivePool2d

    return SelectAdaptivePool2d(pool_type="fast", flatten=False, input_fmt="NCHW")


def _kornia(method: WindowMethod, geometry: Mapping[str, Any] | None) -> nn.Module | None:
    if method.card.name != "soft" or geometry is None or geometry.get("ceil_mode"):
        return None
    return _KorniaSoft(method, geometry)


class _KorniaSoft(nn.Module):
    """Kornia's soft-argmax, whose second output is soft pooling."""

    def __init__(self, method: WindowMethod, geometry: Mapping[str, Any]) -> None:
        super().__init__()
        size = geometry["kernel_size"]
        self.arguments = ((size,) * 2, (geometry.get("stride", size),) * 2, (geometry.get("padding", 0),) * 2)
        beta = torch.tensor(float(method.values().beta))
        self.beta = nn.Parameter(beta) if method.learned else beta

    def forward(self, x: Tensor) -> Tensor:
        """Pool x, (N, C, H, W)."""
        from kornia.geometry.subpix import conv_soft_argmax2d

        return conv_soft_argmax2d(x, *self.arguments, temperature=1 / self.beta, output_value=True)[1]
