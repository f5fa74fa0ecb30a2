"""The PyTorch layers of methods on whole maps: `MapPool1d/2d/3d` and `Head`. `poolkit.torch` exports them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import poolkit
from poolkit.draws import uniform
from poolkit.layer import (
    Draws,
    Explanation,
    Layer,
    described,
    floating,
    in_format_of,
    spatial_sizes,
    widened,
    without_autocast,
)
from poolkit.map_method import Map, MapMethod, MapShape, Weight
from poolkit.map_words import torch_map_words
from poolkit.method import Method, Values
from poolkit.window import Window, window

WORDS = torch_map_words()


class MapLayer(Layer):
    """A method on whole maps as a layer: what map pools and heads share."""

    method: MapMethod
    window: Window | None

    def __init__(
        self, method: MapMethod, where: Window | None, channels: int | None, sizes: Any, seed: int | None
    ) -> None:
        super().__init__(method, seed=seed)
        if self.dims not in method.takes_dims:
            known = " or ".join(map(str, method.takes_dims))
            raise ValueError(f"{method.spelling} is defined for {known} spatial axes, not for {self.dims}")
        self.window = where
        sizes = None if sizes is None else tuple(int(n) for n in sizes)
        self._known = {"channels": channels, "sizes": sizes}
        self._weights = method.weights(MapShape(channels, self.dims, sizes, where))
        for name, weight in self._weights.items():
            if weight.learned:
                self.register_parameter(name, nn.Parameter(torch.empty(weight.shape)))
            else:
                kind = torch.int64 if weight.start == "integer" else torch.get_default_dtype()
                self.register_buffer(name, torch.empty(weight.shape, dtype=kind))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start again: fill the weights as the method says, from torch's default generator."""
        with torch.no_grad():
            for name, weight in self._weights.items():
                _fill(getattr(self, name), weight)

    def weights(self) -> dict[str, Tensor]:
        """The arrays that the method keeps, learned and fixed ones, by name."""
        return {name: getattr(self, name) for name in self._weights}

    def output_shape(self, channels: int, *sizes: int) -> tuple[int, ...]:
        """The shape of one example's output, for maps of these channels and sizes.

        Raises:
            ValueError: the method cannot pool such maps.
        """
        return self.method.output_shape(MapShape(channels, self.dims, tuple(sizes), self.window))

    def choice(self, x: Tensor) -> Tensor:
        """What the method chooses for maps (N, C, *sizes) or one, (C, *sizes): a further input for another layer.

        Raises:
            TypeError: the method makes no choice that could be shared, or x is not floating point.
        """
        if "choice" not in self.method.takes:
            raise TypeError(f"{self.method.spelling} makes no choice that layers could share")
        floating(x)
        single = x.dim() == self.dims + 1
        batch = widened(x.unsqueeze(0) if single else x)
        chosen = self.method.choose(Map(batch, WORDS, self.window), Values(**self._fixed))
        return chosen[0] if single else chosen

    def explain(self, x: Tensor) -> Explanation:
        """Shapes and path of the call `self(x)`, without computing it."""
        sizes = spatial_sizes(x, self.dims)
        channels = int(x.shape[-self.dims - 1])
        out = self.output_shape(channels, *sizes)
        lines = [f"{_by((channels, *sizes))} → {_by(out)} (channels first)"]
        lines += [self.window.explain(sizes)] if self.window else []
        why = "methods on whole maps are computed by their array formula"
        return Explanation("\n".join(lines), "reference", why)

    def forward(self, x: Tensor, *others: Tensor, relu: bool = False) -> Tensor:
        """Pool x, (N, C, *sizes) or (C, *sizes), any floating-point type, which stays; with `relu`, max(x, 0)."""
        x = x.relu() if relu else x
        draws = self._key_and_first_example(x) if self.training and self.method.random else None
        values = {**self._fixed, **self.learned(), **self.weights()}
        return apply(x, self.method, self.window, values, _named(self.method, others), draws, self.dims)

    def extra_repr(self) -> str:
        """The arguments that are not defaults, as one would write them."""
        known = (f"{name}={value}" for name, value in self._known.items() if value is not None)
        return ", ".join([described(self.method, self.window, self.seed), *known])


class _MapPool(MapLayer):
    """Pool whole maps with a method such as `Blur()`.

    `Pool2d("blur", 2)` is this layer too: it has the arguments of `torch.nn.MaxPool2d` for methods that take a window.

    Args:
        method: a map method or its spelling.
        kernel_size, stride, padding, dilation, ceil_mode: the window, for methods that take one; the output has the
            sizes of `torch.nn.MaxPool2d`'s.
        channels: number of maps, which methods that keep weights for them must know.
        sizes: the spatial sizes, for weights that depend on them.
        seed: for random methods, as in `Pool2d`.

    Shape:
        (N, C, *sizes) to (N, *layer.output_shape(C, *sizes)), without N likewise.

    Raises:
        ValueError: at construction for an unknown method, a missing or unneeded window, missing channels; at a call for
            maps that the method cannot pool.
        TypeError: x is not floating point, or further inputs are missing.
    """

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
        sizes: Any = None,
        seed: int | None = None,
    ) -> None:
        found = of_kind(method, "map")
        where = None
        if kernel_size is not None:
            where = window(kernel_size, stride, padding, dilation, ceil_mode, dims=self.dims)
        check_window(found, where, self.dims)
        super().__init__(found, where, channels, sizes, seed)


class MapPool1d(_MapPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _MapPool.__doc__
    dims = 1


class MapPool2d(_MapPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _MapPool.__doc__
    dims = 2


class MapPool3d(_MapPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _MapPool.__doc__
    dims = 3


MAP_POOLS: dict[int, type[_MapPool]] = {1: MapPool1d, 2: MapPool2d, 3: MapPool3d}


class Head(MapLayer):
    """Turn each map into one vector with a method such as `Bilinear()`.

    Args:
        method: a head or its spelling.
        channels: number of maps, which heads that keep weights for them must know.
        sizes: the spatial sizes, for weights that depend on them.
        dims: number of spatial axes.
        seed: for random heads, as in `Pool2d`.

    Shape:
        (N, C, *sizes) to (N, D), without N likewise; `layer.output_shape(C, *sizes)` is (D,).

    Raises:
        ValueError: unknown method, missing channels or sizes; at a call for maps that the head cannot take.
        TypeError: x is not floating point, or further inputs are missing.
    """

    dims: ClassVar[int] = 2

    def __init__(
        self,
        method: str | Method,
        channels: int | None = None,
        sizes: Any = None,
        *,
        dims: int = 2,
        seed: int | None = None,
    ) -> None:
        self.__dict__["dims"] = dims
        super().__init__(of_kind(method, "head"), None, channels, sizes, seed)


def of_kind(method: str | Method, kind: str) -> MapMethod:
    """The method of a spelling, which must be of this kind; TypeError says which layer takes it."""
    found = poolkit.method(method)
    if found.kind != kind or not isinstance(found, MapMethod):
        raise TypeError(f"{found.spelling} is a {found.kind} method\n  its layer: {layer_of(found)}")
    return found


def layer_of(method: Method) -> str:
    """How the layer that takes a method is written."""
    layer = {"window": "Pool2d", "map": "MapPool2d", "head": "Head"}[method.kind]
    return f"{layer}({method.spelling!r}, …)"


def check_window(method: MapMethod, where: Window | None, dims: int) -> None:
    """ValueError if a window is missing, or given to a method that takes none."""
    if where is None and method.takes_window == "needs":
        raise ValueError(f'{method.spelling} wants a window\n  write Pool{dims}d("{method.spelling}", 2)')
    if where is not None and method.takes_window == "never":
        raise ValueError(
            f"{method.spelling} takes no window, and one is given here\n"
            f'  without one: MapPool{dims}d("{method.spelling}"); in training that is a net of your own, --net'
        )


def apply(
    x: Tensor,
    method: MapMethod,
    where: Window | None,
    values: dict[str, Any],
    others: dict[str, Tensor],
    draws: Draws = None,
    dims: int = 2,
) -> Tensor:
    """Compute one call by the array formula. Half precision is computed in float32 and rounded once, at the end."""
    floating(x)
    sizes = spatial_sizes(x, dims)
    if min(sizes) < 1:
        raise ValueError(f"a map of {_by(sizes)} has no cells to pool")
    single = x.dim() == dims + 1
    batch = x.unsqueeze(0) if single else x
    others = {name: v.unsqueeze(0) for name, v in others.items()} if single else others
    wide, shape = widened(batch), MapShape(int(batch.shape[1]), dims, sizes, where)
    out = method.output_shape(shape)
    if others and not torch.compiler.is_compiling():  # a graph stands for batches of any size
        _check_others(others, method, shape, len(batch))
    with without_autocast(x):
        m = Map(wide, WORDS, where, **{n: _as(v, wide) for n, v in others.items()})
        p = Values(**{n: _as(v, wide) if isinstance(v, Tensor) else v for n, v in values.items()})
        if draws is None:
            y = method.pool(m, p)
        else:
            u = uniform(*draws, (batch.shape[0], *method.draw_shape(m.shape)))
            y = method.sample(m, p, u.to(wide.dtype))
    y = in_format_of(batch, y.expand(-1, *out).to(x.dtype))
    if _has_memory(x) and y.numel() and y.data_ptr() == x.data_ptr():  # an identity gives memory of its own
        y = y.clone()
    return y.squeeze(0) if single else y


def pool(x: Tensor, method: MapMethod, where: Window | None, given: dict[str, Any], dims: int) -> Tensor:
    """The function `poolkit.torch.pool` for methods on whole maps; `given` holds weights and further inputs."""
    check_window(method, where, dims)
    shape = MapShape(int(x.shape[-dims - 1]), dims, spatial_sizes(x, dims), where)
    weights, known = method.weights(shape), {*method.learned, *method.takes}
    if unknown := set(given) - known - set(weights):
        names = ", ".join([*known, *weights]) or "none"
        raise ValueError(f"{', '.join(sorted(unknown))}: not an input of {method.spelling}\n  its inputs: {names}")
    needed = [*weights, *(n for n in method.takes if n not in method.optional)]
    if missing := [name for name in needed if name not in given]:
        raise ValueError(f"{method.spelling} wants {', '.join(missing)}; a layer keeps its weights itself")
    for name, weight in weights.items():
        if tuple(given[name].shape) != weight.shape:
            raise ValueError(f"{name} has the shape {tuple(given[name].shape)}, expected {weight.shape}")
    others = {name: given[name] for name in method.takes if name in given}
    values = {**vars(method.values()), **{n: v for n, v in given.items() if n not in others}}
    return apply(x, method, where, values, others, dims=dims)


def _check_others(others: dict[str, Tensor], method: MapMethod, shape: MapShape, examples: int) -> None:
    """ValueError if a further input has another shape than this batch of maps wants."""
    for name, value in others.items():
        wanted, given = (examples, *method.input_shape(name, shape)), tuple(value.shape)
        if given != wanted:
            raise ValueError(f"{method.spelling}: {name} of shape {given} for maps that want {wanted}")


def _has_memory(x: Tensor) -> bool:
    return not torch.compiler.is_compiling() and x.device.type != "meta" and type(x) in (Tensor, nn.Parameter)


def _as(value: Tensor, x: Tensor) -> Tensor:
    """In x's type, where it is a number and not an index."""
    return value.to(x.dtype) if value.is_floating_point() else value


def _named(method: MapMethod, others: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Further inputs by name; TypeError where some are missing or too many."""
    needed = [name for name in method.takes if name not in method.optional]
    if not len(needed) <= len(others) <= len(method.takes):
        wanted = ", ".join(["x", *method.takes])
        raise TypeError(f"{method.spelling} is called as layer({wanted}), got {1 + len(others)} inputs")
    return {name: v for name, v in zip(method.takes, others, strict=False) if v is not None}


def _fill(tensor: Tensor, weight: Weight) -> None:
    if weight.start == "constant":
        tensor.fill_(weight.scale)
    elif weight.start == "uniform":
        tensor.uniform_(-weight.scale, weight.scale)
    elif weight.start == "normal":
        tensor.normal_(0.0, weight.scale)
    elif weight.start == "sign":
        tensor.copy_(2.0 * torch.randint(2, tensor.shape) - 1.0)
    else:
        tensor.copy_(torch.randint(int(weight.scale), tensor.shape))


def _by(values: Any) -> str:
    return "×".join(str(v) for v in values)
