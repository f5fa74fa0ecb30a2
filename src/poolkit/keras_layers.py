"""Pooling layers for Keras 3: a window method with windows, or on whole maps."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

import poolkit
from poolkit import kernels
from poolkit.keras_cells import cells_of
from poolkit.keras_layer import HALF, PoolingLayer, floating, windows
from poolkit.keras_map_layers import MAP_POOLS, layer_of
from poolkit.learned import without_size
from poolkit.method import Method, Values, WindowMethod
from poolkit.window import Window
from poolkit.xp import Cells, keras_words


class _Pool(PoolingLayer):
    """A window method as a layer; the public classes fix the number of dimensions and the window."""

    def __init__(
        self, method: str | Method, *, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(window_method(method, self.dims), data_format=data_format, seed=seed, **kwargs)
        kernels.KNOWN[kernels.class_name(self.method)] = type(self.method)
        self.input_spec = keras.layers.InputSpec(ndim=self.dims + 2)

    def build(self, input_shape: Any) -> None:
        """Make the weights of learned parameters, and the whole numbers of methods that count."""
        channels, window = self._channels(input_shape), getattr(self, "window", None)
        self._add_learned(channels, None if window is None else window.k)
        if name := self.method.counts:
            each = (1 if self.method.draws == "layer" else self._known_channels(input_shape),)
            count = self.add_weight(name=name, shape=each, initializer="zeros", dtype="int32", trainable=False)
            setattr(self, name, count)
        super().build(input_shape)

    def _window(self, sizes: Any) -> Window:
        raise NotImplementedError

    def _out(self, input_shape: Any) -> tuple[int | None, ...]:
        """The output's spatial sizes; None where the input's are."""
        raise NotImplementedError

    def _shape(self, input_shape: Any, sizes: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the input with other spatial sizes."""
        return (*input_shape[: self._first], *sizes, *input_shape[self._first + self.dims :])

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Pool the windows of (N, *sizes, C), or (N, C, *sizes) if channels come first; the type stays."""
        self._refuse(mask)
        dtype = floating(inputs)
        draws = bool(training) and self._random
        values = {**self._start, **self.learned()}  # in the order of the parameters, which the engine goes by
        if self.method.counts:
            values[self.method.counts] = ops.convert_to_tensor(getattr(self, self.method.counts))
        if keras.backend.backend() == "torch":
            return self._by_torch(inputs, values, draws)
        # exp, powers and sums of half precision are computed in float32 and rounded once, at the end.
        wide = ops.cast(inputs, "float32") if dtype in HALF else inputs
        return ops.cast(self._formula(wide, values, draws), dtype)

    def compute_output_spec(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The output of `keras.Input`s; what a call refuses is refused where the model is built already."""
        self._refuse(mask)
        floating(inputs)
        return super().compute_output_spec(inputs, training=training, mask=mask)

    def _formula(self, x: Any, values: dict[str, Any], draws: bool) -> Any:
        """The array formula in `keras.ops`, on x in float32 or float64."""
        words = keras_words(keras.backend.standardize_dtype(x.dtype))
        cells = cells_of(getattr(self, "window", None), x, words, self._first)
        own = {*self._ranges, self.method.counts}
        p = Values(**{n: self._laid(v, n, x, self._first) if n in own else v for n, v in values.items()})
        if draws:
            u = self._draw(cells)
            self._count(u, cells.channel - 1)
            y = self.method.sample(cells, p, u)
        else:
            y = self.method.reduce(cells, p)
        return y if len(y.shape) == len(x.shape) else ops.broadcast_to(y, ops.shape(cells.x[0]))

    def _count(self, u: Any, channel: int) -> None:
        """Add the draws u to what the layer counts for evaluation; `channel`: u's axis of channels."""
        if name := self.method.counts:
            more = ops.cast(self.method.count(u), "int32")
            known = getattr(self, name)
            known.assign(known + ops.sum(more, axis=tuple(a for a in range(len(u.shape)) if a != channel)))

    def _draw(self, cells: Cells) -> Any:
        """Uniform numbers for the windows: one for each region, map or example."""
        shape = ops.shape(cells.x[0])
        own = {"region": range(len(shape)), "map": (0, cells.channel - 1), "layer": (0,)}[str(self.method.draws)]
        drawn = self.uniform([n if axis in own else 1 for axis, n in enumerate(shape)])
        return ops.cast(drawn, keras.backend.standardize_dtype(cells.x.dtype))

    def _by_torch(self, x: Any, values: dict[str, Any], draws: bool) -> Any:
        """PyTorch's face: its engine on the CPU, its formula elsewhere."""
        from poolkit import torch as face

        # `int`: where torch.jit traces, as Keras's export to ONNX has it do, sizes are tensors.
        where = self._window(tuple(int(n) for n in x.shape[self._first : self._first + self.dims]))
        key = (self._torch_key(), 0) if draws else None
        # A channels-last picture is what PyTorch calls one in channels-last memory: nothing is copied. That trace
        # takes no axis counted from the end.
        last = self.dims + 1
        x = x if self._first == 2 else x.movedim(last, 1)
        if key is not None and self.method.counts:
            from poolkit.draws import draw_shape, uniform

            shape = (*x.shape[:2], *where.output_size(tuple(x.shape[2:])))
            self._count(uniform(*key, draw_shape(self.method.draws, shape)), 1)
        y = face._apply(x, self.method, where, values, key)
        return y if self._first == 2 else y.movedim(1, last)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The shape of the output; None where the input's is unknown."""
        return self._shape(input_shape, self._out(input_shape))


class _WindowPool(_Pool):
    """Pool the windows of x with a method.

    Args:
        method: a method such as `Soft(beta=2)` or its spelling `"soft:beta=2"`.
        pool_size: cells of a window along each axis, an int or one for each.
        strides: cells from window to window; None: the pool size.
        padding: `"valid"`, or `"same"`: ⌈L/strides⌉ windows, an odd cell at the end; padded cells never count.
        data_format: `"channels_last"` or `"channels_first"`; None: Keras's setting.
        seed: for random methods, the seed of the layer's `keras.random.SeedGenerator`; None draws one.
        kwargs: of every Keras layer: name, dtype, trainable.

    A map method that takes a window, such as `"blur"`, gives its layer, a `MapPooling2D`.

    Shape:
        (N, *sizes, C) to (N, *out, C), or (N, C, *sizes) to (N, C, *out).

    A learned parameter is the weight `raw_<name>`, unconstrained and mapped smoothly into the parameter's range as in
    `poolkit.torch`; `layer.learned()` gives the values. In training a random method draws, in inference it gives its
    expectation. Half precision is computed in float32.

    A saved model with it is loaded by `import poolkit.keras  # before load_model`, or Keras does not know the class.

    Raises:
        ValueError: unknown method, or a geometry that cannot be; at a call for a picture smaller than the window, or
            with a mask.
        TypeError: x is not floating point.
    """

    def __new__(cls, method: Any = None, *arguments: Any, **named: Any) -> Any:
        """The layer of the method's kind."""
        if isinstance(method, (str, Method)) and poolkit.method(method).kind == "map":
            return MAP_POOLS[cls.dims](method, *(arguments or [named.pop("pool_size", 2)]), **named)
        return super().__new__(cls, method, *arguments, **named)

    def __init__(
        self,
        method: str | Method,
        pool_size: Any = 2,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        where = windows(pool_size, strides, padding, self.dims)
        super().__init__(method, data_format=data_format, seed=seed, **kwargs)
        self.window, self.pool_size, self.strides, self.padding = where, where.size, where.stride, padding.lower()

    def _window(self, sizes: Any) -> Window:
        return self.window

    def _out(self, input_shape: Any) -> tuple[int | None, ...]:
        sizes = self._sizes(input_shape)
        out = self.window.output_size([k if n is None else n for n, k in zip(sizes, self.window.size, strict=True)])
        return tuple(None if n is None else o for n, o in zip(sizes, out, strict=True))

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer again; the method by its spelling."""
        own = {"pool_size": self.pool_size, "strides": self.strides, "padding": self.padding}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("poolkit")
class Pooling1D(_WindowPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _WindowPool.__doc__
    dims = 1


@keras.saving.register_keras_serializable("poolkit")
class Pooling2D(_WindowPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _WindowPool.__doc__
    dims = 2


@keras.saving.register_keras_serializable("poolkit")
class Pooling3D(_WindowPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _WindowPool.__doc__
    dims = 3


class _GlobalPool(_Pool):
    """Pool each whole map with a method.

    Args:
        method: a method such as `GeM(p=learn())` or its spelling `"gem:p=learn"`.
        data_format: `"channels_last"` or `"channels_first"`; None: Keras's setting.
        keepdims: keep the spatial axes, with one cell each.
        seed: as in `Pooling2D`.
        kwargs: of every Keras layer: name, dtype, trainable.

    Shape:
        (N, *sizes, C) or (N, C, *sizes) to (N, C); with keepdims to (N, 1, …, C) or (N, C, 1, …).

    Raises:
        ValueError: unknown method, or one that learns a number for each cell of a window, whose size the picture tells
            (`Pooling2D` with the sizes of the map learns them); a map without cells, or a mask.
        TypeError: x is not floating point.
    """

    def __init__(
        self,
        method: str | Method,
        data_format: str | None = None,
        keepdims: bool = False,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(method, data_format=data_format, seed=seed, **kwargs)
        self.keepdims = bool(keepdims)
        if self.method.tables:
            raise without_size(self.method, next(iter(self.method.tables)), self.dims, f"Pooling{self.dims}D")

    def _window(self, sizes: Any) -> Window:
        return Window.whole(sizes)

    def _out(self, input_shape: Any) -> tuple[int | None, ...]:
        return (1,) * self.dims if self.keepdims else ()

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Pool every map of (N, *sizes, C), or (N, C, *sizes) if channels come first."""
        y = super().call(inputs, training, mask)
        if not self.keepdims:
            for _ in range(self.dims):  # one by one, which torch.onnx understands
                y = ops.squeeze(y, self._first)
        return y

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer again; the method by its spelling."""
        return {**super().get_config(), "keepdims": self.keepdims}


@keras.saving.register_keras_serializable("poolkit")
class GlobalPooling1D(_GlobalPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _GlobalPool.__doc__
    dims = 1


@keras.saving.register_keras_serializable("poolkit")
class GlobalPooling2D(_GlobalPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _GlobalPool.__doc__
    dims = 2


@keras.saving.register_keras_serializable("poolkit")
class GlobalPooling3D(_GlobalPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _GlobalPool.__doc__
    dims = 3


def window_method(method: str | Method, dims: int = 2) -> WindowMethod:
    """The method of a spelling, which must be one on windows; TypeError says which layer takes another."""
    found = poolkit.method(method)
    if not isinstance(found, WindowMethod):
        raise TypeError(f"{found.spelling} is a {found.kind} method\n  its layer: {layer_of(found, dims)}")
    return found
