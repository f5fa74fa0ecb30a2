"""What every pooling layer in Keras is made of: its method, its learned numbers, its draws."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import keras
from keras import ops

from poolkit import own
from poolkit.learned import bounded, stored_start, without_size
from poolkit.map_method import MapMethod
from poolkit.method import Method, named
from poolkit.window import Window, window

HALF = ("float16", "bfloat16")
WIDE = ("float32", "float64")


class PoolingLayer(keras.layers.Layer):
    """A method as a layer: the learned parameters as weights `raw_<name>`, and a random one's seed generator."""

    dims: ClassVar[int]
    method: Any

    def __init__(
        self, method: Method, *, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        kwargs["name"] = kwargs.get("name") or _name(method, type(self).__name__)
        super().__init__(**kwargs)
        self.method = method
        self.data_format = _data_format(data_format)
        self.seed = seed
        self._random = method.random if isinstance(method, MapMethod) else self.method.draws is not None
        if self._random:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self._start = vars(method.values())
        self._ranges = {name: method.declared(name) for name in method.learned}

    @property
    def _first(self) -> int:
        """The axis at which the sizes of the picture begin."""
        return 1 if self.data_format == "channels_last" else 2

    def _channels(self, shape: Any) -> Any:
        return shape[-1 if self._first == 1 else 1]

    def _known_channels(self, shape: Any) -> int:
        """The number of channels, for a layer that keeps numbers for each."""
        if (channels := self._channels(shape)) is None:
            raise ValueError(f"{self.name}: the number of channels must be known, the input has {tuple(shape)}")
        return int(channels)

    def _sizes(self, shape: Any) -> tuple[int | None, ...]:
        return tuple(shape[self._first : self._first + len(shape) - 2])

    def _add_learned(self, channels: int | None, cells: int | None = None) -> None:
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

    def _laid(self, value: Any, name: str, x: Any, first: int) -> Any:
        """A value of the layer in x's type; a number for each channel lies along x's channels."""
        value = ops.cast(value, keras.backend.standardize_dtype(x.dtype))
        if name in self.method.tables or len(value.shape) == 0:
            return value
        return value if first == 1 else ops.reshape(value, (-1, *[1] * (len(x.shape) - 2)))

    def _refuse(self, mask: Any) -> None:
        """ValueError for a mask, which would change nothing; at a call, and where a model is built."""
        if mask is not None:
            raise ValueError(
                f"{self.name}: {type(self).__name__} does not know masks, and would pool masked steps like others\n"
                "  remove the mask before it (mask_zero=False), or multiply masked steps away where 0 suits the method"
            )

    def uniform(self, shape: Any) -> Any:
        """The next numbers in [0, 1) of the seed generator, in float32."""
        if keras.backend.backend() == "torch":
            from poolkit.draws import uniform

            return uniform(self._torch_key(), 0, tuple(shape))
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def _torch_key(self) -> Any:
        seed, calls = self.seed_generator.next().long()
        return (seed << 32) + calls

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer again; the method by its spelling."""
        if not own.comes_back(self.method):
            why = own.nowhere(named(type(self.method))) or "another class, or none, is found under its name"
            raise ValueError(f'"{self.method.spelling}" does not bring the method back: {why}')
        seed = {"seed": self.seed} if self._random else {}
        return {**super().get_config(), "method": self.method.spelling, "data_format": self.data_format, **seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The layer of a config; a method of one's own must be imported or allowed, for a file chooses no code.

        Raises `ValueError` where it is not.
        """
        method = config.get("method")
        if isinstance(method, str) and not own.is_allowed(method):
            raise ValueError(
                f'the method of {config.get("name")} is the code "{method}", which only runs where you say so\n'
                f"  import its module first, or poolkit.own.allow({method!r})"
            )
        return super().from_config(config)


def floating(x: Any) -> str:
    """The type of x; TypeError for cells that pooling does not compute with."""
    dtype = str(keras.backend.standardize_dtype(x.dtype))
    if dtype not in (*HALF, *WIDE):
        raise TypeError(f'pooling wants floating-point cells, got {dtype}: convert with keras.ops.cast(x, "float32")')
    return dtype


def windows(pool_size: Any, strides: Any, padding: str, dims: int) -> Window:
    """The window of a layer's arguments, which errors name in this face's words."""
    if not isinstance(padding, str) or padding.lower() not in ("valid", "same"):
        raise ValueError(f'padding={padding!r}: must be "valid" or "same"')
    try:
        return window(pool_size, strides, "same" if padding.lower() == "same" else 0, dims=dims)
    except ValueError as reason:
        raise ValueError(str(reason).replace("kernel_size", "pool_size").replace("stride=", "strides=")) from None


def _data_format(given: str | None) -> str:
    known = ("channels_last", "channels_first")
    found = keras.config.image_data_format() if given is None else given
    if found not in known:
        raise ValueError(f"data_format={given!r}: must be one of {', '.join(map(repr, known))}, or None")
    return str(found)


def _name(method: Method, layer: str) -> str:
    """A name that says the method, for `model.summary()`: `avg_topk_pooling2d_1`."""
    words = re.sub("(?<=[a-z])(?=[A-Z])", "_", layer).lower()
    plain = f"{method.card.name.replace('-', '_')}_{words}"
    number = keras.backend.get_uid(plain) - 1
    return f"{plain}_{number}" if number else plain
