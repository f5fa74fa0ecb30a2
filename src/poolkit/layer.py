"""What every pooling layer in PyTorch is made of: its method, its learned numbers, its draws."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolkit.draws import draw_key, seed_key, whole_seed
from poolkit.learned import bounded, stored_start
from poolkit.method import Method, Param
from poolkit.window import Window

# A random method's key and the number of its first example; None in evaluation.
Draws = tuple[Tensor, Tensor | int] | None
HALF = (torch.float16, torch.bfloat16)
TYPES = (torch.float32, torch.float64, *HALF)
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Explanation:
    """What a pooling call does: geometry in words, path and reason. `print` it."""

    geometry: str
    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.geometry}\npath: {self.path} ({self.why})"


class Layer(nn.Module):
    """A method as a layer: the learned parameters as `raw_<name>`, the seed and the count of examples."""

    dims: ClassVar[int]
    method: Method
    seen: Tensor
    _numbers = itertools.count()

    def __init__(self, method: Method, cells: int | None = None, *, seed: int | None = None) -> None:
        super().__init__()
        self.method = method
        self.seed = whole_seed(seed)
        # Two layers of one net must not share a draw; the number tells their calls apart inside one compiled graph.
        self._number = next(self._numbers)
        # Looked up here, once: torch.compile does not trace dataclass fields.
        self._fixed = {n: v for n, v in vars(method.values()).items() if n not in method.tables}
        self._ranges = {name: method.declared(name) for name in method.learned}
        for name in method.learned:
            self.register_parameter(f"raw_{name}", nn.Parameter(self._untrained(name, cells)))
        if self.seed is not None:
            self._seed_key = seed_key(self.seed)
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def _untrained(self, name: str, cells: int | None) -> Tensor:
        """What a learned parameter stores before training; `cells`: of the window, None if the picture tells them."""
        one = start_of(self.method, name)
        return one.reshape((*one.shape, *[1] * (self.dims * one.dim())))

    def learned(self) -> dict[str, Tensor]:
        """The present values of the learned parameters, with their gradient.

        A number each, or (channels, 1, …); of a table for K cells (K,) or (rows, K), or the same after (channels, …).
        """
        return {name: _value(getattr(self, f"raw_{name}"), declared) for name, declared in self._ranges.items()}

    def _key_and_first_example(self, x: Tensor) -> tuple[Tensor, Tensor | int]:
        if self.seed is None:
            return draw_key(x, self._number), 0
        first = self.seen.clone()
        self.seen += x.shape[0] if x.dim() == self.dims + 2 else 1
        return torch.full_like(first, self._seed_key), first


def start_of(method: Method, name: str, cells: int | None = None) -> Tensor:
    """`stored_start` as a tensor, with its channels first; on the device "meta" any number of them takes no room."""
    one, channels = torch.tensor(stored_start(method, name, cells)), method.learned[name].channels
    return one if channels is None else one.repeat(channels, *[1] * one.dim())


def _value(raw: Tensor, declared: Param) -> Tensor:
    """A stored number's value."""
    return bounded(raw, declared, F.softplus, torch.sigmoid)


def floating(x: Tensor) -> None:
    """TypeError for cells that pooling does not compute with."""
    if x.dtype not in TYPES:
        raise TypeError(f"pooling wants floating-point cells of 16 bits or more, got {x.dtype}: convert with x.float()")


def widened(x: Tensor) -> Tensor:
    """Half precision as float32; a formula's result is rounded once, at the end."""
    return x.float() if x.dtype in HALF else x


@contextmanager
def float64_by_default() -> Iterator[None]:
    """Layers made here learn in float64: a learned parameter begins at its number, not at the nearest float32."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """A formula computes in the type it is given."""
    return torch.autocast(x.device.type, enabled=False) if x.device.type != "meta" else nullcontext()


def in_format_of(x: Tensor, y: Tensor) -> Tensor:
    """y in x's memory format where it can be."""
    form = FORMATS.get(y.dim())
    # In this order: inside torch.vmap no other format than the plain one can be asked for.
    if form is None or x.dim() != y.dim():
        return y.contiguous()
    kept = not x.is_contiguous() and x.is_contiguous(memory_format=form)
    return y.contiguous(memory_format=form) if kept else y.contiguous()


def spatial_sizes(x: Any, dims: int) -> tuple[int, ...]:
    """The spatial sizes of (N, C, *sizes) or (C, *sizes); ValueError for another rank, TypeError for no tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"pooling wants a torch.Tensor, got {type(x).__name__}: convert with torch.as_tensor(x)")
    if x.dim() not in (dims + 1, dims + 2):
        shape = ", ".join(["N", "C", *"DHW"[-dims:]])
        raise ValueError(f"expected ({shape}) or the same without N, got shape {tuple(x.shape)}")
    return tuple(x.shape[-dims:])


def described(method: Method, w: Window | None, seed: int | None) -> str:
    """A layer's arguments that are not defaults, as one would write them."""
    parts = [repr(method.spelling)]
    if w is not None:
        parts += [_plain(w.size)]
        parts += [f"stride={_plain(w.stride)}"] if w.stride != w.size else []
        parts += [f"padding={_plain(w.padding)}"] if w.padding != (0,) * w.dims else []
        parts += [f"dilation={_plain(w.dilation)}"] if w.dilation != (1,) * w.dims else []
        parts += ["ceil_mode=True"] if w.ceil_mode else []
    parts += [f"seed={seed}"] if seed is not None else []
    return ", ".join(parts)


def _plain(values: Any) -> str:
    """(2, 2) as 2, (2, 3) as (2, 3)."""
    return repr(values if isinstance(values, str) or len(set(values)) > 1 else values[0])
