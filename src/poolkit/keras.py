"""The Keras 3 face: pooling layers with the arguments of `keras.layers.MaxPooling2D`, on TensorFlow, JAX and torch.

>>> import keras
>>> pool = Pooling2D("soft:beta=2", 2)
>>> tuple(pool(keras.ops.reshape(keras.ops.arange(16.0), (1, 4, 4, 1))).shape)
(1, 2, 2, 1)
"""

from __future__ import annotations

from poolkit.keras_layers import (
    GlobalPooling1D,
    GlobalPooling2D,
    GlobalPooling3D,
    Pooling1D,
    Pooling2D,
    Pooling3D,
)
from poolkit.keras_map_layers import Head, MapPooling1D, MapPooling2D, MapPooling3D
from poolkit.keras_swap import swap

__all__ = [
    "GlobalPooling1D",
    "GlobalPooling2D",
    "GlobalPooling3D",
    "Head",
    "MapPooling1D",
    "MapPooling2D",
    "MapPooling3D",
    "Pooling1D",
    "Pooling2D",
    "Pooling3D",
    "swap",
]
