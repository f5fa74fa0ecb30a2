"""The Keras layers of methods on whole maps: `MapPooling1D/2D/3D` and `Head`. `poolkit.keras` exports them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

import poolkit
from poolkit.keras_layer import HALF, PoolingLayer, floating, windows
from poolkit.map_method import Map, MapMethod, MapShape, Weight
from poolkit.map_words import keras_map_words
from poolkit.method import Method, Values
from poolkit.window import Window

# Two sizes that stand for an unknown one: where they give different outputs, the output's size is unknown too.
STAND_INS = (2**12, 2**13)


class MapLayer(PoolingLayer):
    """A method on whole maps as a layer: what map pools and heads share."""

    method: MapMethod

    def __init__(self, method: MapMethod, where: Window | None, **kwargs: Any) -> None:
        # Keras would turn boxes into half precision as it does the maps: the call turns the maps alone.
        super().__init__(method, **{"autocast": False, **kwargs})
        self.window = where
        self.supports_masking = "mask" in method.takes

    def build(self, input_shape: Any) -> None:
        """Make the weights of the method, with the start it says, and those of learned parameters."""
        shape = self._map_shape(input_shape)
        self._add_learned(shape.channels)
        self._names = list(weights := self._weights(shape))
        for name, weight in weights.items():
            if hasattr(self, name):
                raise ValueError(f"{name}: a Keras layer has something of this name, which a weight cannot take")
            array = self.add_weight(
                name=name,
                shape=weight.shape,
                initializer=_start(weight),
                dtype="int32" if weight.start == "integer" else None,
                trainable=weight.learned,
                autocast=False,
            )
            setattr(self, name, array)
        super().build(input_shape)

    def _map_shape(self, input_shape: Any) -> MapShape:
        channels, sizes = self._known_channels(input_shape), self._sizes(input_shape)
        if len(sizes) not in self.method.takes_dims:
            raise ValueError(_wrong_dims(self.method, len(sizes)))
        known = tuple(n for n in sizes if n is not None)
        return MapShape(channels, len(sizes), known if len(known) == len(sizes) else None, self.window)

    def _weights(self, shape: MapShape) -> dict[str, Weight]:
        try:
            return self.method.weights(shape)
        except ValueError as reason:
            if shape.sizes is not None:
                raise
            sizes = ", ".join("DHW"[-shape.dims :])
            raise ValueError(
                f"{self.method.spelling} keeps weights that depend on the sizes of the map, which the input does not "
                f"say\n  write keras.Input(({sizes}, C)) with numbers"
            ) from reason

    def call(self, inputs: Any, *others: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Pool the maps (N, *sizes, C), or (N, C, *sizes) if channels come first.

        `others` are the method's further inputs, in its order: labels, boxes, a choice. A mask (N, *sizes), false for
        cells that do not count, is taken by methods that have such an input, and refused by others.
        """
        named = self._admitted(inputs, others, mask)
        draws, x = bool(training) and self._random, ops.cast(inputs, self.compute_dtype)
        wide = ops.cast(x, "float32") if self.compute_dtype in HALF else x
        arrays = {name: ops.convert_to_tensor(getattr(self, name)) for name in self._names}
        values = {**self._start, **{n: self._laid(v, n, wide, 2) for n, v in self.learned().items()}, **arrays}
        if keras.backend.backend() == "torch":
            return self._by_torch(x, named, values, draws)
        return ops.cast(self._formula(wide, named, values, draws), self.compute_dtype)

    def compute_output_spec(self, inputs: Any, *others: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The output of `keras.Input`s; what a call refuses is refused where the model is built already."""
        self._admitted(inputs, others, mask)
        return super().compute_output_spec(inputs, *others, training=training, mask=mask)

    def _formula(self, x: Any, named: dict[str, Any], values: dict[str, Any], draws: bool) -> Any:
        """The array formula in `keras.ops`, on x in float32 or float64."""
        m = self._map(x, named)
        out = self.method.output_shape(m.shape)
        p = Values(**{n: _as(v, x) if ops.is_tensor(v) else v for n, v in values.items()})
        if draws:
            u = self.uniform((ops.shape(x)[0], *self.method.draw_shape(m.shape)))
            y = self.method.sample(m, p, ops.cast(u, keras.backend.standardize_dtype(x.dtype)))
        else:
            y = self.method.pool(m, p)
        y = y if tuple(y.shape[1:]) == out else ops.broadcast_to(y, (ops.shape(x)[0], *out))
        return y if self._first == 2 or len(out) == 1 else ops.moveaxis(y, 1, -1)

    def _map(self, x: Any, named: dict[str, Any]) -> Map:
        if None in x.shape[1:]:
            raise ValueError(
                f"{self.name}: {self.method.spelling} must know the sizes of its maps when TensorFlow draws the graph, "
                f"they are {tuple(x.shape)}\n  write keras.Input with numbers, or pool batches of equal sizes"
            )
        if 0 in x.shape[1:]:
            raise ValueError(f"a map of {tuple(x.shape)} has no cells to pool")
        x = x if self._first == 2 else ops.moveaxis(x, -1, 1)
        return Map(x, keras_map_words(str(keras.backend.standardize_dtype(x.dtype))), self.window,
                   **{n: _as(v, x) for n, v in named.items()})  # fmt: skip

    def _by_torch(self, x: Any, named: dict[str, Any], values: dict[str, Any], draws: bool) -> Any:
        """PyTorch's face."""
        from poolkit import map_layers

        key = (self._torch_key(), 0) if draws else None
        dims, last = x.dim() - 2, x.dim() - 1  # a trace of torch.jit takes no axis counted from the end
        x = x if self._first == 2 else x.movedim(last, 1)
        y = map_layers.apply(x, self.method, self.window, values, named, key, dims)
        return y if self._first == 2 or y.dim() == 2 else y.movedim(1, y.dim() - 1)

    def choice(self, inputs: Any) -> Any:
        """What the method chooses for each of these maps (no symbolic ones), as a further input for another layer.

        Raises:
            TypeError: the method makes no choice that could be shared.
        """
        if "choice" not in self.method.takes:
            raise TypeError(f"{self.method.spelling} makes no choice that layers could share")
        x = ops.cast(inputs, "float64" if self.compute_dtype == "float64" else "float32")
        return self.method.choose(self._map(x, {}), self.method.values())

    def _admitted(self, inputs: Any, others: tuple[Any, ...], mask: Any) -> dict[str, Any]:
        """Further inputs by name, a mask that Keras hands on among them; errors for what this layer cannot take."""
        named = self._named(others)
        if "mask" in self.method.takes and mask is not None:
            named.setdefault("mask", mask)
        else:
            self._refuse(mask)
        floating(inputs)
        for name, value in named.items():
            self._refuse_shape(name, tuple(value.shape), inputs.shape)
        return named

    def _refuse_shape(self, name: str, given: tuple[int | None, ...], maps: Any) -> None:
        """ValueError for a further input of another shape than the maps want, as far as sizes are known."""
        shape = self._map_shape(maps)
        wanted = (maps[0], *self.method.input_shape(name, shape))
        fits = len(given) == len(wanted) and all(
            None in pair or pair[0] == pair[1] for pair in zip(given, wanted, strict=True)
        )
        if shape.sizes is not None and not fits:
            raise ValueError(f"{self.method.spelling}: {name} of shape {given} for maps that want {wanted}")

    def _named(self, others: tuple[Any, ...]) -> dict[str, Any]:
        """Further inputs by name; TypeError where some are missing or too many."""
        needed = [name for name in self.method.takes if name not in self.method.optional]
        if not len(needed) <= len(others) <= len(self.method.takes):
            wanted = ", ".join(["x", *self.method.takes])
            raise TypeError(f"{self.method.spelling} is called as layer({wanted}), got {1 + len(others)} inputs")
        return {name: v for name, v in zip(self.method.takes, others, strict=False) if v is not None}

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The shape of the output; None where the input's is unknown."""
        shape = self._map_shape(input_shape)
        answers = [
            self.method.output_shape(MapShape(shape.channels, shape.dims, sizes, self.window))
            for sizes in (tuple(n or one for n in self._sizes(input_shape)) for one in STAND_INS)
        ]
        channels, *rest = (a if a == b else None for a, b in zip(*answers, strict=True))
        return (input_shape[0], *rest, channels) if self._first == 1 else (input_shape[0], channels, *rest)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """None: a mask of the maps says nothing of what they are pooled to."""
        return None


class _MapPool(MapLayer):
    """Pool whole maps with a method such as `Blur()`.

    `Pooling2D("blur", 2)` is this layer too.

    Args:
        method: a map method or its spelling.
        pool_size, strides, padding: the window, as in `Pooling2D`, for methods that take one; the output has the sizes
            of `keras.layers.MaxPooling2D`'s.
        data_format: `"channels_last"` or `"channels_first"`; None: Keras's setting.
        seed, kwargs: as in `Pooling2D`.

    Shape:
        (N, *sizes, C) to (N, *out, C'), or (N, C, *sizes) to (N, C', *out), where the method's `output_shape` of maps
        (C, *sizes) is (C', *out): channels come last also where `out` counts bins, regions or boxes.

    Raises:
        ValueError: at construction for an unknown method or a missing or unneeded window; at a call for maps that the
            method cannot pool, or a mask.
        TypeError: x is not floating point, or further inputs are missing.

    The method's weights are made at the first call, when channels and sizes are known, with the same start as in
    `poolkit.torch` and by its names: `layer.filter`, `layer.centres`. Half precision is computed in float32.

    A saved model with it is loaded by `import poolkit.keras  # before load_model`, or Keras does not know the class.
    """

    def __init__(
        self,
        method: str | Method,
        pool_size: Any = None,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        found = of_kind(method, "map", self.dims)
        if self.dims not in found.takes_dims:
            raise ValueError(_wrong_dims(found, self.dims))
        window = windows(1 if pool_size is None else pool_size, strides, padding, self.dims)
        where = None if pool_size is None else window
        if where is None and found.takes_window == "needs":
            raise ValueError(f'{found.spelling} wants a window\n  write Pooling{self.dims}D("{found.spelling}", 2)')
        if (where or strides) and found.takes_window == "never":
            raise ValueError(f'{found.spelling} takes no window\n  write MapPooling{self.dims}D("{found.spelling}")')
        super().__init__(found, where, data_format=data_format, seed=seed, **kwargs)
        self.pool_size = None if where is None else where.size
        self.strides = None if where is None else where.stride
        self.padding = padding.lower()
        self.input_spec = keras.layers.InputSpec(ndim=self.dims + 2)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer again; the method by its spelling."""
        own = {"pool_size": self.pool_size, "strides": self.strides, "padding": self.padding}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("poolkit")
class MapPooling1D(_MapPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _MapPool.__doc__
    dims = 1


@keras.saving.register_keras_serializable("poolkit")
class MapPooling2D(_MapPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _MapPool.__doc__
    dims = 2


@keras.saving.register_keras_serializable("poolkit")
class MapPooling3D(_MapPool):  # noqa: D101 - the same words for each number of axes
    __doc__ = _MapPool.__doc__
    dims = 3


MAP_POOLS: dict[int, type[_MapPool]] = {1: MapPooling1D, 2: MapPooling2D, 3: MapPooling3D}


@keras.saving.register_keras_serializable("poolkit")
class Head(MapLayer):
    """Turn each map into one vector with a method such as `Bilinear()`.

    Args:
        method: a head or its spelling.
        data_format: `"channels_last"` or `"channels_first"`; None: Keras's setting.
        seed, kwargs: as in `Pooling2D`.

    Shape:
        (N, *sizes, C) or (N, C, *sizes), with one, two or three spatial axes, to (N, D).

    `Head("mil-attention")` takes the mask that an `Embedding(mask_zero=True)` or another layer hands on.

    Raises:
        ValueError: unknown method; at a call for maps that the head cannot take, or with a mask.
        TypeError: x is not floating point, or there are inputs too many.
    """

    def __init__(
        self, method: str | Method, data_format: str | None = None, *, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(of_kind(method, "head"), None, data_format=data_format, seed=seed, **kwargs)
        self.input_spec = keras.layers.InputSpec(min_ndim=3, max_ndim=5)


def of_kind(method: str | Method, kind: str, dims: int = 2) -> MapMethod:
    """The method of a spelling, which must be of this kind; TypeError says which layer takes it."""
    found = poolkit.method(method)
    if found.kind != kind or not isinstance(found, MapMethod):
        raise TypeError(f"{found.spelling} is a {found.kind} method\n  its layer: {layer_of(found, dims)}")
    return found


def layer_of(method: Method, dims: int) -> str:
    """How the layer of a method is written where the maps have so many axes, or as many as the method takes."""
    if method.kind == "head":
        return f"Head({method.spelling!r})"
    if not isinstance(method, MapMethod):
        return f"Pooling{dims}D({method.spelling!r}, 2)"
    dims = dims if dims in method.takes_dims else method.takes_dims[0]
    if method.takes_window == "never":
        return f"MapPooling{dims}D({method.spelling!r})"
    return f"Pooling{dims}D({method.spelling!r}, 2)"


def _wrong_dims(method: MapMethod, dims: int) -> str:
    known = " or ".join(map(str, method.takes_dims))
    return f"{method.spelling} is defined for {known} spatial axes, not for {dims}"


def _as(value: Any, x: Any) -> Any:
    """In x's type where it is a number or a truth, else as an index."""
    dtype = str(keras.backend.standardize_dtype(value.dtype))
    return ops.cast(value, "int32" if "int" in dtype else keras.backend.standardize_dtype(x.dtype))


def _start(weight: Weight) -> Any:
    """The initializer that fills a weight as its method says."""
    if weight.start == "constant":
        return keras.initializers.Constant(weight.scale)
    if weight.start == "uniform":
        return keras.initializers.RandomUniform(-weight.scale, weight.scale)
    if weight.start == "normal":
        return keras.initializers.RandomNormal(0.0, weight.scale)
    if weight.start == "sign":
        return lambda shape, dtype: ops.cast(2 * keras.random.randint(shape, 0, 2) - 1, dtype)
    return lambda shape, dtype: keras.random.randint(shape, 0, int(weight.scale), dtype)
