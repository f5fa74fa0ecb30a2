"""Pooling layers for Keras 3: a window method with windows, or on whole maps."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

import poolkit
from poolkit import kernels
from poolkit.keras_words import cells_of_any_size
from poolkit.learned import bounded, stored_start, without_size
from poolkit.method import Method, Values, WindowMethod
from poolkit.window import Window, window
from poolkit.xp import Cells, keras_words

HALF = ("float16", "bfloat16")
WIDE = ("float32", "float64")


class _Pool(keras.layers.Layer):
    """A window method as a layer; the public classes fix the number of dimensions and the window."""

    dims: ClassVar[int]

    def __init__(
        self, method: str | Method, *, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        chosen = _window_method(method)
        kwargs["name"] = kwargs.get("name") or _name(chosen, type(self).__name__)
        super().__init__(**kwargs)
        if chosen.counts:
            raise ValueError(f"{chosen.spelling} counts its draws in training, which the Keras layers do not offer")
        self.method = chosen
        kernels.KNOWN[kernels.class_name(self.method)] = type(self.method)
        self.data_format = _data_format(data_format)
        self.seed = seed
        if self.method.draws is not None:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self._start = vars(self.method.values())
        self._ranges = {name: self.method.declared(name) for name in self.method.learned}
        self.input_spec = keras.layers.InputSpec(ndim=self.dims + 2)

    @property
    def _first(self) -> int:
        """The axis at which the sizes of the picture begin."""
        return 1 if self.data_format == "channels_last" else 2

    def _add_weights(self, channels: int | None, cells: int | None) -> None:
        """One weight for each learned parameter; `cells`: of the window, None if the picture tells them."""
        for name, learned in self.method.learned.items():
            if name in self.method.tables and cells is None:
                raise without_size(self.method, name, self.dims, f"Pooling{self.dims}D")
            if learned.channels not in (None, channels):
                raise ValueError(f"{name} is learned for {learned.channels} channels, the input has {channels}")
            start, rows = stored_start(self.method, name, cells), () if learned.channels is None else (channels,)
            weight = self.add_weight(
                name=f"raw_{name}",
                shape=(*rows, *ops.convert_to_tensor(start).shape),
                initializer=lambda shape, dtype, start=start: ops.zeros(shape, dtype) + ops.cast(start, dtype),
                autocast=False,
            )
            setattr(self, f"raw_{name}", weight)

    def learned(self) -> dict[str, Any]:
        """The present values of the learned parameters.

        A number each, or (channels,); of a table for K cells (K,) or (rows, K), or the same after (channels, …).
        """
        return {
            name: bounded(ops.convert_to_tensor(getattr(self, f"raw_{name}")), declared, ops.softplus, ops.sigmoid)
            for name, declared in self._ranges.items()
        }

    def _window(self, sizes: Any) -> Window:
        raise NotImplementedError

    def _out(self, input_shape: Any) -> tuple[int | None, ...]:
        """The output's spatial sizes; None where the input's are."""
        raise NotImplementedError

    def _shape(self, input_shape: Any, sizes: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the input with other spatial sizes."""
        return (*input_shape[: self._first], *sizes, *input_shape[self._first + self.dims :])

    def _sizes(self, shape: Any) -> tuple[int | None, ...]:
        return tuple(shape[self._first : self._first + self.dims])

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Pool the windows of (N, *sizes, C), or (N, C, *sizes) if channels come first; the type stays."""
        if mask is not None:
            raise ValueError(
                f"{self.name}: {type(self).__name__} does not know masks, and would pool masked steps like others\n"
                "  remove the mask before it (mask_zero=False), or multiply masked steps away where 0 suits the method"
            )
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        if dtype not in (*HALF, *WIDE):
            raise TypeError(
                f'pooling wants floating-point cells, got {dtype}: convert with keras.ops.cast(x, "float32")'
            )
        draws = bool(training) and self.method.draws is not None
        values = {**self._start, **self.learned()}  # in the order of the parameters, which the engine goes by
        if keras.backend.backend() == "torch":
            return self._by_torch(inputs, values, draws)
        # exp, powers and sums of half precision are computed in float32 and rounded once, at the end.
        wide = ops.cast(inputs, "float32") if dtype in HALF else inputs
        return ops.cast(self._formula(wide, values, draws), dtype)

    def _formula(self, x: Any, values: dict[str, Any], draws: bool) -> Any:
        """The array formula in `keras.ops`, on x in float32 or float64."""
        words = keras_words(keras.backend.standardize_dtype(x.dtype))
        if None in self._sizes(x.shape):
            cells = cells_of_any_size(getattr(self, "window", None), x, words, self._first)
        else:
            cells = self._window(self._sizes(x.shape)).cells(x, words, self._first)
        p = Values(**{name: self._laid(v, name, x) if name in self._ranges else v for name, v in values.items()})
        y = self.method.sample(cells, p, self._draw(cells)) if draws else self.method.reduce(cells, p)
        return y if len(y.shape) == len(x.shape) else ops.broadcast_to(y, ops.shape(cells.x[0]))

    def _laid(self, value: Any, name: str, x: Any) -> Any:
        """A learned value in x's type; a number for each channel lies along x's channels."""
        value = ops.cast(value, keras.backend.standardize_dtype(x.dtype))
        if name in self.method.tables or len(value.shape) == 0:
            return value
        return value if self._first == 1 else ops.reshape(value, (-1, *[1] * self.dims))

    def _draw(self, cells: Cells) -> Any:
        """Uniform numbers for the windows: one for each region, map or example."""
        shape = ops.shape(cells.x[0])
        own = {"region": range(len(shape)), "map": (0, cells.channel - 1), "layer": (0,)}[str(self.method.draws)]
        drawn = self.uniform([n if axis in own else 1 for axis, n in enumerate(shape)])
        return ops.cast(drawn, keras.backend.standardize_dtype(cells.x.dtype))

    def uniform(self, shape: Any) -> Any:
        """The next numbers in [0, 1) of the seed generator, in float32."""
        if keras.backend.backend() == "torch":
            from poolkit.draws import uniform

            return uniform(self._torch_key(), 0, tuple(shape))
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def _torch_key(self) -> Any:
        seed, calls = self.seed_generator.next().long()
        return (seed << 32) + calls

    def _by_torch(self, x: Any, values: dict[str, Any], draws: bool) -> Any:
        """PyTorch's face: its engine on the CPU, its formula elsewhere."""
        from poolkit import torch as face

        # `int`: where torch.jit traces, as Keras's export to ONNX has it do, sizes are tensors.
        where = self._window(tuple(int(n) for n in x.shape[self._first : self._first + self.dims]))
        key = (self._torch_key(), 0) if draws else None
        if self._first == 2:
            return face._apply(x, self.method, where, values, key)
        # A channels-last picture is what PyTorch calls one in channels-last memory: nothing is copied. That trace
        # takes no axis counted from the end.
        last = self.dims + 1
        return face._apply(x.movedim(last, 1), self.method, where, values, key).movedim(1, last)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The shape of the output; None where the input's is unknown."""
        return self._shape(input_shape, self._out(input_shape))

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer again; the method by its spelling."""
        if poolkit.METHODS.get(self.method.card.name) is not type(self.method):
            raise ValueError(
                f"{type(self.method).__name__} is not one of poolkit's methods: its spelling does not bring it back"
            )
        seed = {} if self.method.draws is None else {"seed": self.seed}
        return {
            **super().get_config(),
            "method": self.method.spelling,
            "data_format": self.data_format,
            **seed,
        }


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

    Shape:
        (N, *sizes, C) to (N, *out, C), or (N, C, *sizes) to (N, C, *out).

    A learned parameter is the weight `raw_<name>`, unconstrained and mapped smoothly into the parameter's range as in
    `poolkit.torch`; `layer.learned()` gives the values. In training a random method draws, in inference it gives its
    expectation. Half precision is computed in float32.

    Raises:
        ValueError: unknown method, or a geometry that cannot be; at a call for a picture smaller than the window, or
            with a mask.
        TypeError: x is not floating point.
    """

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
        if padding not in ("valid", "same"):
            raise ValueError(f'padding={padding!r}: must be "valid" or "same"')
        super().__init__(method, data_format=data_format, seed=seed, **kwargs)
        try:
            where = window(pool_size, strides, "same" if padding == "same" else 0, dims=self.dims)
        except ValueError as reason:  # in the words of this face
            raise ValueError(str(reason).replace("kernel_size", "pool_size").replace("stride=", "strides=")) from None
        self.window, self.pool_size, self.strides, self.padding = where, where.size, where.stride, padding

    def build(self, input_shape: Any) -> None:
        """Make the weights of learned parameters."""
        self._add_weights(input_shape[-1 if self._first == 1 else 1], self.window.k)
        super().build(input_shape)

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

    def build(self, input_shape: Any) -> None:
        """Make the weights of learned parameters."""
        self._add_weights(input_shape[-1 if self._first == 1 else 1], None)
        super().build(input_shape)

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


def _window_method(method: str | Method) -> WindowMethod:
    found = poolkit.method(method)
    if not isinstance(found, WindowMethod):
        raise TypeError(f"{found.spelling} is a {found.kind} method; these layers take window methods")
    return found


def _data_format(given: str | None) -> str:
    known = ("channels_last", "channels_first")
    found = keras.config.image_data_format() if given is None else given
    if found not in known:
        raise ValueError(f"data_format={given!r}: must be one of {', '.join(map(repr, known))}, or None")
    return str(found)


def _name(method: Method, layer: str) -> str:
    """A name that says the method, for `model.summary()`: `avg_topk_pooling2d_1`."""
    plain = f"{method.card.name.replace('-', '_')}_{layer.replace('GlobalPooling', 'global_pooling').lower()}"
    number = keras.backend.get_uid(plain) - 1
    return f"{plain}_{number}" if number else plain
