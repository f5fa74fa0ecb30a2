"""Replace the pooling layers of a Keras model."""

from __future__ import annotations

import re
import warnings
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
# Pools whose windows follow from the size of the output; older versions of Keras have none.
_ADAPTIVE = tuple(
    getattr(keras.layers, name)
    for name in (f"Adaptive{kind}Pooling{d}D" for kind in ("Max", "Average") for d in (1, 2, 3))
    if hasattr(keras.layers, name)
)
# The names that Keras and poolkit give: they say the method, which the new layer does not have.
_AUTOMATIC = re.compile(
    rf"(global_)?(max|average)_pooling[123]d(_\d+)?|"
    rf"({'|'.join(name.replace('-', '_') for name in poolkit.METHODS)})_(global_|map_)?pooling[123]d(_\d+)?"
)


def swap(model: Any, method: str | Method, where: Where = None) -> Any:
    """A copy of a Keras model whose pooling layers pool by another method; the model itself does not change.

    The new layers have the windows, data format, type and, where somebody chose it, the name of the old ones; all other
    layers have the weights of theirs. Models inside the model are copied too, and what wrappers such as
    `TimeDistributed` hold. The copy of a compiled model is compiled as it was, with its optimizer at the start.

    Pools inside layers of a class of your own, pools of such a class, pools with adaptive windows, and those in
    wrappers that have weights of their own stay; a warning names them.

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
    copier = _Copier(_wanted(method), where, {layer.name for layer in _inside(model)})
    if not _clonable(model):
        raise ValueError(
            f"swap copies Sequential and functional models, and {type(model).__name__} is a class of its own, whose "
            "call it cannot read\n  write the layer of poolkit.keras where the class makes its pooling layer, or swap "
            "in the Sequential and functional models inside it"
        )
    copy = copier(model)
    names = _patterns(where) if isinstance(where, (str, list)) else []
    unmet = [name for name in names if not any(fnmatchcase(layer, name) for layer in copier.taken)]
    left = (
        f"{', '.join(copier.left)}: inside a layer that swap cannot open, with adaptive windows, or of your own class"
    )
    if unmet or not copier.taken:
        asked = "" if where is None else f": where={', '.join(map(repr, unmet)) or repr(where)}"
        why = f"\n  left as they are: {left}" if copier.left else ""
        raise ValueError(f"{model.name} has no pooling layer to replace{asked}{why}")
    if copier.left:
        warnings.warn(f"swap left as they are: {left}", stacklevel=2)
    for old, new in copier.pairs:
        _same_state(old, new)
    return copy


class _Copier:
    """Copies layers, each once, as `keras.models.clone_model` asks for them.

    Arguments: the method, where it goes, and the names in the model, which no new layer may take.
    """

    def __init__(self, wanted: Method, where: Where, names: set[str]) -> None:
        self.wanted, self.where, self.names = wanted, where, names
        self.pairs: list[tuple[Any, Any]] = []  # a layer and its copy
        self.taken: list[str] = []  # the names of the layers that were replaced
        self.left: list[str] = []  # the names of pools that were asked for and could not be
        self.done: dict[int, Any] = {}  # by the layer's id: one that is used twice stays one

    def __call__(self, layer: Any) -> Any:
        if id(layer) not in self.done:
            self.done[id(layer)] = self._copied(layer)
        return self.done[id(layer)]

    def _copied(self, layer: Any) -> Any:
        if _chosen(layer, self.where, self.wanted):
            self.taken.append(layer.name)
            return _replaced(layer, self.wanted, self.names)
        if _clonable(layer):
            return keras.models.clone_model(layer, clone_function=self)
        if any(self._asked(one) for one in _inside(layer)) and _opens(layer):
            config = layer.get_config()
            return type(layer)(self(layer.layer), **{k: v for k, v in config.items() if k != "layer"})
        new = type(layer).from_config(layer.get_config())
        if isinstance(layer, keras.layers.Layer):  # a plain operation such as x + y has no state
            self.left += [one.name for one in (layer, *_inside(layer)) if self._asked(one)]
            self.pairs.append((layer, new))
        return new

    def _asked(self, layer: Any) -> bool:
        """Whether this is a pool that `where` means, whether or not it can be replaced."""
        whole_is_fine = self.where is None and isinstance(self.wanted, MapMethod) and isinstance(layer, tuple(_GLOBAL))
        if isinstance(layer, PoolingLayer) or whole_is_fine:
            return _chosen(layer, self.where, self.wanted)
        return isinstance(layer, (*_ADAPTIVE, *_WINDOWED, *_GLOBAL)) and _meant(layer, self.where)


def _clonable(layer: Any) -> bool:
    """Whether it is a Sequential or functional model: only those know their layers as `operations`."""
    return isinstance(layer, keras.Sequential) or (isinstance(layer, keras.Model) and hasattr(layer, "operations"))


def _opens(layer: Any) -> bool:
    """Whether it is a wrapper that its configuration and another layer make again, with no weights of its own."""
    plain = getattr(type(layer).from_config, "__func__", None) is keras.layers.Wrapper.from_config.__func__
    return isinstance(layer, keras.layers.Wrapper) and plain and len(layer.weights) == len(layer.layer.weights)


def _inside(layer: Any) -> list[Any]:
    """All layers within this one, at any depth."""
    return list(layer._flatten_layers(include_self=False)) if isinstance(layer, keras.layers.Layer) else []


def _same_state(old: Any, new: Any) -> None:
    """Give the copy of a layer its weights, and what the layer derived from them, as `Normalization` does."""
    if not (new.built and old.weights):
        return
    new.set_weights(old.get_weights())
    for layer in (new, *_inside(new)):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _wanted(method: str | Method) -> Method:
    found = poolkit.method(method)
    if isinstance(found, MapMethod) and found.takes_window != "never":
        return found
    return ours.window_method(found)


def _chosen(layer: Any, where: Where, wanted: Method) -> bool:
    windowed = type(layer) in _WINDOWED and getattr(layer, "pool_size", None) is not None
    if not windowed and type(layer) not in _GLOBAL:
        return False
    if where is None and not windowed and isinstance(wanted, MapMethod):
        return False
    return _meant(layer, where)


def _meant(layer: Any, where: Where) -> bool:
    if where is None:
        return not isinstance(layer, PoolingLayer)
    if isinstance(where, (type, tuple)):
        return isinstance(layer, where)
    if callable(where):
        return bool(where(layer))
    return any(fnmatchcase(layer.name, pattern) for pattern in _patterns(where))


def _patterns(where: str | list[str]) -> list[str]:
    return [where] if isinstance(where, str) else where


def _replaced(layer: Any, method: Method, names: set[str]) -> Any:
    """The layer of ours that stands for one of Keras's, with a name that is not among these."""
    config = layer.get_config()
    common = {"data_format": config["data_format"], "dtype": layer.dtype_policy, "trainable": layer.trainable}
    if type(layer) in _GLOBAL:
        if isinstance(method, MapMethod):
            raise ValueError(f"{layer.name} pools whole maps, and {method.spelling} has windows: leave it out of where")
        kind, common["keepdims"] = _GLOBAL[type(layer)], config["keepdims"]
    else:
        kind = _WINDOWED[type(layer)]
        common |= {name: config[name] for name in ("pool_size", "strides", "padding")}
    if not _AUTOMATIC.fullmatch(layer.name):
        return kind(method, name=layer.name, **common)
    # A loaded model brings its names along, of which the count of names in this process knows nothing.
    while (new := kind(method, **common)).name in names:
        pass
    names.add(new.name)
    return new
