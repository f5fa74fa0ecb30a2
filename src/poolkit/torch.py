"""The PyTorch face: pooling layers and functions with the arguments of `torch.nn.MaxPool2d`.

>>> import torch
>>> pool = Pool2d("soft:beta=2", 2)
>>> pool(torch.arange(16.0).reshape(1, 1, 4, 4)).shape
torch.Size([1, 1, 2, 2])
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

import poolkit
from poolkit import kernels, map_layers
from poolkit.draws import draw_shape, uniform
from poolkit.layer import TYPES, Draws, Explanation, Layer, described, floating, spatial_sizes, start_of
from poolkit.learned import without_size
from poolkit.map_layers import Head, MapPool1d, MapPool2d, MapPool3d
from poolkit.map_method import MapMethod
from poolkit.method import Learn, Method, WindowMethod, nearest
from poolkit.paths import by_engine, by_formula, fitting, table_shapes
from poolkit.window import Window, window

if TYPE_CHECKING:  # `__getattr__` below imports them when they are asked for
    from poolkit.swap import Swapped, swap

__all__ = [
    "Explanation",
    "GlobalPool1d",
    "GlobalPool2d",
    "GlobalPool3d",
    "Head",
    "MapPool1d",
    "MapPool2d",
    "MapPool3d",
    "Pool1d",
    "Pool2d",
    "Pool3d",
    "Swapped",
    "pool",
    "pool_parameters",
    "swap",
]


class WindowLayer(Layer):
    """A method on windows as a layer; the public classes fix the number of dimensions and the window."""

    method: Any
    #: Deep copies of this layer, where it counts.
    _copies: Collection[WindowLayer] = ()

    def __init__(self, method: str | Method, cells: int | None = None, *, seed: int | None = None) -> None:
        super().__init__(_window_method(method), cells, seed=seed)
        kernels.KNOWN[kernels.class_name(self.method)] = type(self.method)
        #: None lets poolkit choose the fastest path; "cpu" and "reference" insist on one.
        self.path: str | None = None
        # The kind of the last input with its path and window, to spare eager calls the decision.
        self._last: tuple[Any, str, Any] = (None, "", None)
        if self.method.counts:
            # One number until the first call in training tells how many channels there are.
            self.register_buffer(self.method.counts, torch.zeros(1, dtype=torch.int64))

    def _untrained(self, name: str, cells: int | None) -> Tensor:
        """What a learned parameter stores before training; `cells`: of the window, None if the picture tells them."""
        if name not in self.method.tables:
            return super()._untrained(name, cells)
        if cells is None:
            raise without_size(self.method, name, self.dims, f"Pool{self.dims}d")
        return start_of(self.method, name, cells)

    def explain(self, x: Tensor) -> Explanation:
        """Geometry and path of the call `self(x)`, without computing it."""
        sizes = spatial_sizes(x, self.dims)
        where = self._window(sizes)
        route = kernels.route(self.method, where, x, self._draws(), self.path)
        return Explanation(where.explain(sizes), route.path, route.why)

    def _draws(self) -> bool:
        return self.training and self.method.draws is not None

    def _window(self, sizes: tuple[int, ...]) -> Window:
        raise NotImplementedError

    def forward(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """Pool x, (N, C, *sizes) or (C, *sizes), any floating-point type; the type and memory format stay.

        With `relu` it pools max(x, 0): the same bits as of `self(x.relu())`, on the CPU in one pass over the cells.
        """
        draws = self._key_and_first_example(x) if self._draws() else None
        if draws and self.method.counts:
            self._count(x, draws, self.method.counts)
        if not torch.compiler.is_compiling() and x.dim() == self.dims + 2 and kernels.plain(x):
            path, where = self._path_and_window(x)
            if path == "cpu":
                return by_engine(x, self.method, where, self._values(), draws, relu)
        x = x.relu() if relu else x
        where = self._window(spatial_sizes(x, self.dims))
        return _apply(x, self.method, where, self._values(), draws, self.path)

    def _values(self) -> dict[str, Any]:
        """All that the formula reads, by name and in the order of `kernels.numbers_of`."""
        counted = {self.method.counts: getattr(self, self.method.counts)} if self.method.counts else {}
        return {**self._fixed, **self.learned(), **counted}

    def _count(self, x: Tensor, draws: tuple[Tensor, Tensor | int], name: str) -> None:
        """Add a call's draws to what the layer counts for evaluation."""
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            return  # inside a backward pass: activation checkpointing repeats a call that was counted
        sizes = spatial_sizes(x, self.dims)
        shape = (*(x if x.dim() == self.dims + 2 else x[None]).shape[:2], *self._window(sizes).output_size(sizes))
        u = uniform(*draws, draw_shape(self.method.draws, shape))
        more = self.method.count(u).long().transpose(0, 1).flatten(1).sum(1)
        known = getattr(self, name)
        if len(known) != len(more):
            if len(known) > 1 and bool(known.any()):
                raise ValueError(f"draws were counted for {len(known)} channels, the input has {shape[1]}")
            known = self._make_room(name, len(more), known)
        setattr(self, name, known + more)

    def _make_room(self, name: str, channels: int, known: Tensor) -> Tensor:
        """What was counted so far, for each of so many channels; the copies that have counted nothing get room too."""
        room = known[:1].expand(channels).clone()
        for copied in () if torch.compiler.is_compiling() else self._copies:
            theirs = getattr(copied, name)
            if len(theirs) != channels and not bool(theirs.any()):
                setattr(copied, name, copied._make_room(name, channels, theirs))
        return room

    def __deepcopy__(self, memo: dict[int, Any]) -> WindowLayer:
        """A copy, which the layer knows: a mean of models is taken buffer by buffer, and those must have one shape."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(deepcopy(self.__getstate__(), memo))
        if self.method.counts:
            self._copies = WeakSet([*self._copies, copied])
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """All but the copies: a copy's copies are its own."""
        return {name: value for name, value in vars(self).items() if name != "_copies"}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """A state from before or after the first training call may meet a layer from after or before it."""
        name = self.method.counts
        stored = state_dict.get(f"{prefix}{name}")
        if name and isinstance(stored, Tensor) and 1 in (len(getattr(self, name)), stored.numel()):
            setattr(self, name, torch.zeros(stored.shape, dtype=torch.int64, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _path_and_window(self, x: Tensor) -> tuple[str, Window]:
        """The path of a call, decided once for each kind of input."""
        kind = (x.shape, x.device.type, x.dtype, self.training, self.path, self.method, self.__dict__.get("window"))
        last, path, where = self._last  # read once: another thread may pool with this layer
        if kind != last:
            where = self._window(spatial_sizes(x, self.dims))
            where.axes(tuple(x.shape[2:]))
            path = kernels.route(self.method, where, x, self._draws(), self.path).path if x.dtype in TYPES else ""
            self._last = (kind, path, where)
        return path, where


class _WindowPool(WindowLayer):
    """Pool the windows of x with a method.

    Args:
        method: a method such as `Soft(beta=2)` or its spelling `"soft:beta=2"`. A map method that takes a window, such
            as `Blur()`, gives its layer, a `MapPool2d`.
        kernel_size: cells of a window along each axis, an int or one for each.
        stride: cells from window to window; None: the kernel size.
        padding: cells on both sides, or `"same"` (TensorFlow's rule); padded cells never enter a statistic.
        dilation: cells from cell to cell of a window.
        ceil_mode: keep a last window that reaches over the end.
        channels: number of maps, for methods that keep weights for them; others do not look at it.
        seed: for random methods: None draws from torch's default generator (`torch.manual_seed`); a number makes the
            draws a function of this seed and of how many examples the layer has seen in training (buffer `seen`);
            then leave the layer out of activation checkpointing, which would count its examples twice. Layers with the
            same seed draw the same numbers: give the layers of a net different seeds and, where several processes
            train together, one for each rank.

    Shape:
        (N, C, *sizes) to (N, C, *out), or (C, *sizes) to (C, *out); sizes as `torch.nn.MaxPool2d`'s.

    Raises:
        ValueError: at construction for an unknown method or a geometry that cannot be; at a call for a picture smaller
            than the window, of the wrong rank, or without cells.
        TypeError: no kernel size; x is not floating point.
    """

    def __new__(cls, method: Any = None, *arguments: Any, **named: Any) -> Any:
        """The layer of the method's kind."""
        if isinstance(method, (str, Method)) and poolkit.method(method).kind == "map":
            return map_layers.MAP_POOLS[cls.dims](method, *arguments, **named)
        return super().__new__(cls)

    def __init__(
        self,
        method: str | Method,
        kernel_size: Any = None,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        *,
        channels: int | None = None,
        seed: int | None = None,
    ) -> None:
        if kernel_size is None:  # Python's own message would name a private class
            name = type(self).__name__
            raise TypeError(
                f'{name} wants a method and a kernel_size, such as {name}("max", 2)\n'
                f'  for the whole map: Global{name}("max")'
            )
        where = window(kernel_size, stride, padding, dilation, ceil_mode, dims=self.dims)
        super().__init__(method, where.k, seed=seed)
        self.window = where

    def _window(self, sizes: tuple[int, ...]) -> Window:
        return self.window

    def extra_repr(self) -> str:
        """The arguments that are not defaults, as one would write them."""
        return described(self.method, self.window, self.seed)


class Pool1d(_WindowPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _WindowPool.__doc__
    dims = 1


class Pool2d(_WindowPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _WindowPool.__doc__
    dims = 2


class Pool3d(_WindowPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _WindowPool.__doc__
    dims = 3


class _GlobalPool(WindowLayer):
    """Pool each whole map with a method.

    Args:
        method: a method such as `GeM(p=learn())` or its spelling `"gem:p=learn"`.
        flatten: give (N, C) instead of (N, C, 1, …), the shape of `torch.nn.AdaptiveAvgPool2d(1)`.
        seed: as in `Pool2d`.

    Shape:
        (N, C, *sizes) to (N, C, 1, …) or (N, C); without N likewise.

    Raises:
        ValueError: unknown method, or one that learns a number for each cell of a window, whose size the picture tells
            (`Pool2d` with the sizes of the map learns them); a picture of the wrong rank or without cells.
        TypeError: x is not floating point.
    """

    def __init__(self, method: str | Method, *, flatten: bool = False, seed: int | None = None) -> None:
        super().__init__(method, seed=seed)
        self.flatten = flatten

    def _window(self, sizes: tuple[int, ...]) -> Window:
        return Window.whole(sizes)

    def forward(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """Pool every map of x, (N, C, *sizes) or (C, *sizes); with `relu`, of max(x, 0)."""
        y = super().forward(x, relu=relu)
        return y.flatten(-self.dims - 1) if self.flatten else y

    def extra_repr(self) -> str:
        """The arguments that are not defaults, as one would write them."""
        seed = [f"seed={self.seed}"] if self.seed is not None else []
        return ", ".join([repr(self.method.spelling), *(["flatten=True"] if self.flatten else []), *seed])


class GlobalPool1d(_GlobalPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _GlobalPool.__doc__
    dims = 1


class GlobalPool2d(_GlobalPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _GlobalPool.__doc__
    dims = 2


class GlobalPool3d(_GlobalPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _GlobalPool.__doc__
    dims = 3


def pool_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The learned parameters of all pooling layers of a model, each once: for an optimiser group of their own.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), Pool2d("soft:beta=learn", 2))
    >>> own = list(pool_parameters(model))
    >>> others = [p for p in model.parameters() if all(p is not q for q in own)]
    >>> groups = [{"params": others, "weight_decay": 1e-4}, {"params": own, "weight_decay": 0.0}]
    >>> [len(group["params"]) for group in groups]
    [2, 1]
    """
    layers = (layer for layer in model.modules() if isinstance(layer, Layer))
    yield from {id(p): p for layer in layers for p in layer.parameters(recurse=False)}.values()


def pool(
    x: Tensor,
    method: str | Method,
    kernel_size: Any = None,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    dims: int = 2,
    **values: Tensor | float,
) -> Tensor:
    """Pool x once, as `Pool2d` does in evaluation, without a layer.

    Args:
        x: (N, C, *sizes) or (C, *sizes), floating point.
        method: a method or its spelling.
        kernel_size: cells of a window; None pools the whole map.
        stride, padding, dilation, ceil_mode: as in `Pool2d`.
        dims: number of spatial axes, 1, 2 or 3.
        values: values for learned parameters and weights: a number, or a tensor of one number or one a channel; for a
            table of K cells a tensor (K,) or (C, K), or with rows (rows, K) or (C, rows, K); for a weight a tensor of
            its shape. Also the further inputs of map methods, by name.

    Returns:
        The pooled tensor. A random method gives its expectation; drawing belongs to a layer, which owns its seed.

    Raises:
        ValueError: unknown method or value, or an impossible geometry.
        TypeError: x is not floating point.
    """
    found = poolkit.method(method)
    where = None if kernel_size is None else window(kernel_size, stride, padding, dilation, ceil_mode, dims=dims)
    if isinstance(found, MapMethod):
        return map_layers.pool(x, found, where, values, dims)
    which = _window_method(found)
    given = {name: _given(which, name, value) for name, value in values.items()}
    whole = Window.whole(spatial_sizes(x, dims))
    return _apply(x, which, where or whole, {**vars(which.values()), **given})


def _given(method: WindowMethod, name: str, value: Any) -> Any:
    """A value for a learned parameter; a number must lie in the range, a tensor's numbers are not looked at."""
    if name not in method.learned:
        near = nearest(name, [*("kernel_size", "stride", "padding", "dilation", "ceil_mode", "dims"), *method.learned])
        raise ValueError(f"{name}: no argument of pool, and no learned parameter of {method.spelling}{near}")
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Learn):
        raise ValueError(f"{name}={value!r} is not allowed: a number or a tensor")
    if name in method.tables:
        raise ValueError(f"{name}={value!r} is not allowed: a tensor, {table_shapes(method.tables[name])}")
    try:
        return method.declared(name).accept(value)
    except ValueError as reason:
        raise ValueError(f"{name}={value!r} is not allowed: {reason}") from None


def _apply(
    x: Tensor, method: WindowMethod, where: Window, values: dict[str, Any], draws: Draws = None, path: str | None = None
) -> Tensor:
    """Compute one call; `draws`: a random method's key and number of the first example, None in evaluation."""
    floating(x)
    single = x.dim() == where.dims + 1
    values = {name: fitting(method, name, value, x.shape[-where.dims - 1], where) for name, value in values.items()}
    batch = x.unsqueeze(0) if single else x
    route = kernels.route(method, where, batch, draws is not None, path)
    compute = by_engine if route.path == "cpu" else by_formula
    y = compute(batch, method, where, values, draws)
    return y.squeeze(0) if single else y


def _window_method(method: str | Method) -> WindowMethod:
    found = poolkit.method(method)
    if not isinstance(found, WindowMethod):
        raise TypeError(
            f"{found.spelling} is a {found.kind} method; these layers take window methods\n"
            f"  its layer: poolkit.torch.{map_layers.layer_of(found)}"
        )
    return found


def __getattr__(name: str) -> Any:
    if name in ("swap", "Swapped"):  # they need the layers above, and few programs need them
        from poolkit import swap

        return getattr(swap, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
