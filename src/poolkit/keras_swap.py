"""Replace the pooling layers of a Keras model."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import keras

import poolkit
from poolkit import keras_layers as ours
from poolkit.keras_layer import PoolingLayer
from poolkit.keras_map_layers import MAP_POOLS
from poolkit.map_method import MapMethod
from poolkit.method import Method

Where = str | list[str] | type | tuple[type, ...] | Callable[[Any], bool] | None

_WINDOWED = {
    getattr(keras.layers, f"{kind}Pooling{d}D"): getattr(ours, f"Pooling{d}D")
    for kind in ("Max", "Average")
    for d in (1, 2, 3)
} | {cls: getattr(ours, f"Pooling{d}D") for d in (1, 2, 3) for cls in (getattr(ours, f"Pooling{d}D"), MAP_POOLS[d])}
_GLOBAL = {
    getattr(keras.layers, f"Global{kind}Pooling{d}D"): getattr(ours, f"GlobalPooling{d}D")
    for kind in ("Max", "Average")
    for d in (1, 2, 3)
} | {getattr(ours, f"GlobalPooling{d}D"): getattr(ours, f"GlobalPooling{d}D") for d in (1, 2, 3)}


def swap(model: Any, method: str | Method, where: Where = None) -> Any:
    """A copy of a Keras model whose pooling layers pool by another method; the model itself does not change.

    The new layers have the windows, data format, type and, where somebody chose it, the name of the old ones; all other
    layers have the weights of theirs. Models inside the model are copied too. The copy is not compiled.

    Args:
        model: Sequential or functional.
        method: a window method, or a map method that takes a window, or its spelling.
        where: which layers: a name or a pattern such as `"block?_pool"`, or a list of them; a type of layer or a tuple
            of types; a function of the layer. None: all of Keras's own, whole-map pooling too, which a map method
            leaves as it is.

    Raises:
        ValueError: unknown method; there was nothing to replace, or nothing at one of the names; a model of a class of
            its own, which cannot be copied; a method with a number for each cell of a window, or one on maps, on a
            layer that pools whole maps; a window that the method cannot have, such as wavelets with a stride of 3.
        TypeError: a head, or a map method that takes no window.

    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.MaxPooling2D(2), keras.layers.Flatten()])
    >>> [type(layer).__name__ for layer in swap(model, "soft").layers]
    ['Pooling2D', 'Flatten']
    """
    wanted, pairs, taken = _wanted(method), [], []

    def copied(layer: Any) -> Any:
        if _chosen(layer, where, wanted):
            taken.append(layer.name)
            return _replaced(layer, wanted)
        new = type(layer).from_config(layer.get_config())
        pairs.append((layer, new))
        return new

    copy = keras.models.clone_model(model, clone_function=copied, recursive=True)
    names = _patterns(where) if isinstance(where, (str, list)) else []
    unmet = [name for name in names if not any(fnmatchcase(layer, name) for layer in taken)]
    if unmet or not taken:
        asked = "" if where is None else f": where={', '.join(map(repr, unmet)) or repr(where)}"
        raise ValueError(f"{model.name} has no pooling layer to replace{asked}")
    for old, new in pairs:
        if new.built and old.weights:
            new.set_weights(old.get_weights())
    return copy


def _wanted(method: str | Method) -> Method:
    found = poolkit.method(method)
    if isinstance(found, MapMethod) and found.takes_window != "never":
        return found
    return ours.window_method(found)


def _chosen(layer: Any, where: Where, wanted: Method) -> bool:
    windowed = type(layer) in _WINDOWED and getattr(layer, "pool_size", None) is not None
    if not windowed and type(layer) not in _GLOBAL:
        return False
    if where is None:
        return not isinstance(layer, PoolingLayer) and (windowed or not isinstance(wanted, MapMethod))
    if isinstance(where, (type, tuple)):
        return isinstance(layer, where)
    if callable(where):
        return bool(where(layer))
    return any(fnmatchcase(layer.name, pattern) for pattern in _patterns(where))


def _patterns(where: str | list[str]) -> list[str]:
    return [where] if isinstance(where, str) else where


def _replaced(layer: Any, method: Method) -> Any:
    """The layer of ours that stands for one of Keras's."""
    config = layer.get_config()
    common = {"data_format": config["data_format"], "dtype": layer.dtype_policy, "trainable": layer.trainable}
    if not re.fullmatch(r"(global_)?(max|average)_pooling[123]d(_\d+)?", layer.name):
        common["name"] = layer.name
    if type(layer) in _GLOBAL:
        if isinstance(method, MapMethod):
            raise ValueError(f"{layer.name} pools whole maps, and {method.spelling} has windows: leave it out of where")
        return _GLOBAL[type(layer)](method, keepdims=config["keepdims"], **common)
    windows = {name: config[name] for name in ("pool_size", "strides", "padding")}
    return _WINDOWED[type(layer)](method, **windows, **common)
