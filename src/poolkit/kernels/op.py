"""The CPU engine as operators of torch: one for eager calls, one that torch.compile takes as a single node.

Only the input is kept for backward. A gradient that shall itself be differentiated goes through the method's formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from poolkit.kernels import KNOWN, class_name, cpu, plain
from poolkit.method import WindowMethod, parse
from poolkit.window import Window

NAMES = {torch.float32: "float32", torch.float64: "float64"}
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Call:
    """What is computed: method, window, for a random method in training its key and first example's number.

    With `relu`, cells x count as max(x, 0).
    """

    method: WindowMethod
    window: Window
    draws: tuple[int, int] | None = None
    relu: bool = False


def pool(x: Tensor, values: Tensor, call: Call, formula: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Pool x (N, C, *sizes) with the parameters `values`, (Q, 1) or (Q, C), by the CPU engine.

    `formula` computes the same by differentiable operators; it serves second derivatives.
    """
    if torch.is_grad_enabled() and (x.requires_grad or values.requires_grad):
        return _Pooling.apply(x, values, call, formula)
    return _forward(x, values, call)


class _Pooling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, call: Call, formula: Any) -> Tensor:
        ctx.save_for_backward(x, values)
        ctx.call, ctx.formula = call, formula
        return _forward(x, values, call)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, values = ctx.saved_tensors
        again = torch.is_grad_enabled()  # create_graph=True
        if again or not plain(g) or not _has_memory(g):
            first, second = _by_formula(x, values, g, ctx.formula, ctx.needs_input_grad, again)
            return first, second, None, None
        gx, slopes = _backward(x, values, g, ctx.call, ctx.needs_input_grad[1])
        return gx if ctx.needs_input_grad[0] else None, slopes, None, None


def _has_memory(g: Tensor) -> bool:
    """Whether there are numbers to point to: a batch of gradients (`is_grads_batched`) has none and does not say so."""
    try:
        g.data_ptr()
    except RuntimeError:
        return False
    return True


def _by_formula(x: Tensor, values: Tensor, g: Tensor, formula: Any, wanted: Any, again: bool) -> list[Tensor | None]:
    """The gradients, `again` as differentiable functions of x, values and g."""
    inputs = [t for t, want in zip((x, values), wanted, strict=False) if want]
    # Views, so that the graph of these gradients ends in the tensors that were saved.
    with torch.enable_grad():
        aliases = {id(t): t.view_as(t) for t in (x, values)}
        y = formula(aliases[id(x)], aliases[id(values)])
    found = iter(torch.autograd.grad(y, [aliases[id(t)] for t in inputs], g, create_graph=again, allow_unused=True))
    return [next(found) if want else None for want in wanted[:2]]


def _dense(x: Tensor) -> tuple[Tensor, bool]:
    """x in the engine's number types and one of its two layouts, and whether that is channels-last."""
    last = _keeps_last(x)
    x = x if x.dtype in NAMES else x.float()
    return x.contiguous(memory_format=FORMATS[x.dim()] if last else torch.contiguous_format), last


def _keeps_last(x: Tensor) -> bool:
    form = FORMATS.get(x.dim())
    return form is not None and not x.is_contiguous() and x.is_contiguous(memory_format=form)


@lru_cache(maxsize=256)
def _output(window: Window, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], *window.output_size(shape[2:]))


def _empty(shape: tuple[int, ...], x: Tensor, last: bool) -> Tensor:
    return torch.empty(
        shape, dtype=x.dtype, device=x.device, memory_format=FORMATS[x.dim()] if last else torch.contiguous_format
    )


def _forward(x: Tensor, values: Tensor, call: Call) -> Tensor:
    dense, last = _dense(x)
    job = _job(call, dense, last, values, False)
    y = _empty(_output(call.window, dense.shape), dense, last)
    job.run(dense.data_ptr(), y.data_ptr(), 0, values.data_ptr(), 0, call.draws, torch.get_num_threads())
    return y if y.dtype == x.dtype else y.to(x.dtype)


def _backward(x: Tensor, values: Tensor, g: Tensor, call: Call, learns: bool) -> tuple[Tensor, Tensor | None]:
    dense, last = _dense(x)
    job = _job(call, dense, last, values, True)
    # A gradient of another layout than the output's is brought to it.
    g = g.to(dense.dtype).contiguous(memory_format=FORMATS[x.dim()] if last else torch.contiguous_format)
    gx = _empty(tuple(dense.shape), dense, last)
    slopes = torch.empty(len(values), job.slopes, dtype=torch.float64, device=x.device) if learns else None
    to = 0 if slopes is None else slopes.data_ptr()
    threads = torch.get_num_threads()
    job.run(dense.data_ptr(), g.data_ptr(), gx.data_ptr(), values.data_ptr(), to, call.draws, threads)
    if slopes is not None:
        slopes = slopes.reshape(len(values), -1, values.shape[1]).sum(1).to(values.dtype)
    return gx if gx.dtype == x.dtype else gx.to(x.dtype), slopes


def _job(call: Call, x: Tensor, last: bool, values: Tensor, backward: bool) -> cpu.Job:
    per = call.method.draws if call.draws else None
    about = call.method, call.window, NAMES[x.dtype], tuple(x.shape), last, per, values.shape[1], backward, call.relu
    return cpu.job(*about)


# What torch.compile sees: tensors and plain values alone, so that its caches on disk stay right in another process.


def compiled(x: Tensor, values: Tensor, call: Call, key: Tensor | None, first: Tensor | None) -> Tensor:
    """`pool` as one node of a compiled graph; the draws' key and first example are tensors there."""
    w = call.window
    padding = [] if isinstance(w.padding, str) else list(w.padding)
    geometry = [*w.size, *w.stride, *w.dilation, int(w.ceil_mode), *padding]
    return _node(x, values, key, first, f"{class_name(call.method)} {call.method.spelling}", w.dims, geometry)


def _call(spelling: str, dims: int, geometry: list[int], key: Tensor | None, first: Tensor | None) -> Call:
    size, stride, dilation = (tuple(geometry[i * dims : (i + 1) * dims]) for i in range(3))
    padding = tuple(geometry[3 * dims + 1 :]) or "same"
    name, spelling = spelling.split(" ", 1)
    method = parse(spelling, {KNOWN[name].card.name: KNOWN[name]})
    if not isinstance(method, WindowMethod):
        raise TypeError(f"{spelling} is no window method")
    draws = None if key is None else (int(key), int(first) if first is not None else 0)
    return Call(method, Window(size, stride, padding, dilation, bool(geometry[3 * dims])), draws)


@torch.library.custom_op("poolkit::window_pool", mutates_args=())
def _node(
    x: Tensor, values: Tensor, key: Tensor | None, first: Tensor | None, spelling: str, dims: int, geometry: list[int]
) -> Tensor:
    return _forward(x, values, _call(spelling, dims, geometry, key, first))


@_node.register_fake
def _(x: Any, values: Any, key: Any, first: Any, spelling: str, dims: int, geometry: list[int]) -> Tensor:
    window = _call(spelling, dims, geometry, None, None).window
    y = x.new_empty((*x.shape[:2], *window.output_size(x.shape[2:])))
    return y.contiguous(memory_format=FORMATS[x.dim()]) if _keeps_last(x) else y


@torch.library.custom_op("poolkit::window_pool_backward", mutates_args=())
def _node_backward(
    g: Tensor,
    x: Tensor,
    values: Tensor,
    key: Tensor | None,
    first: Tensor | None,
    spelling: str,
    dims: int,
    geometry: list[int],
    learns: bool,
) -> tuple[Tensor, Tensor]:
    gx, slopes = _backward(x, values, g, _call(spelling, dims, geometry, key, first), learns)
    return gx, torch.zeros_like(values) if slopes is None else slopes


@_node_backward.register_fake
def _(g: Any, x: Any, values: Any, *rest: Any) -> tuple[Tensor, Tensor]:
    gx = torch.empty_like(x, memory_format=torch.contiguous_format)
    return gx.contiguous(memory_format=FORMATS[x.dim()]) if _keeps_last(x) else gx, torch.empty_like(values)


def _remember(ctx: Any, inputs: Any, output: Any) -> None:
    x, values, key, first, *ctx.plain = inputs
    ctx.save_for_backward(x, values, key, first)


def _node_gradient(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    gx, slopes = _node_backward(g, *ctx.saved_tensors, *ctx.plain, ctx.needs_input_grad[1])
    return gx, slopes if ctx.needs_input_grad[1] else None, None, None, None, None, None


_node.register_autograd(_node_gradient, setup_context=_remember)
