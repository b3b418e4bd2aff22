"""Named architectures, from too small to too large."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers

from keras_hybrid import checks

Builder = Callable[[], list[keras.layers.Layer]]


def _linear() -> list[keras.layers.Layer]:
    return [layers.Flatten()]


def _mlp_small() -> list[keras.layers.Layer]:
    return [layers.Flatten(), layers.Dense(16, activation="relu")]


def _mlp() -> list[keras.layers.Layer]:
    return [
        layers.Flatten(),
        layers.Dense(256, activation="relu"),
        layers.Dense(256, activation="relu"),
    ]


def _cnn() -> list[keras.layers.Layer]:
    # Strides in place of pooling: four times as fast on a CPU.
    return [
        layers.Conv2D(32, 5, strides=2, activation="relu"),
        layers.Conv2D(64, 3, strides=2, activation="relu"),
        layers.Flatten(),
        layers.Dropout(0.4),
        layers.Dense(128, activation="relu"),
    ]


def _mlp_large() -> list[keras.layers.Layer]:
    return [
        layers.Flatten(),
        layers.Dense(512, activation="relu"),
        layers.Dense(512, activation="relu"),
    ]


def _cnn_tiny() -> list[keras.layers.Layer]:
    return [
        layers.Conv2D(8, 5, strides=2, activation="relu"),
        layers.Conv2D(8, 3, strides=2, activation="relu"),
        layers.Flatten(),
    ]


def _cnn_small() -> list[keras.layers.Layer]:
    return [
        layers.Conv2D(16, 5, strides=2, activation="relu"),
        layers.Conv2D(32, 3, strides=2, activation="relu"),
        layers.Flatten(),
        layers.Dropout(0.4),
        layers.Dense(64, activation="relu"),
    ]


def _cnn_large() -> list[keras.layers.Layer]:
    # Nothing that regularizes.
    return [
        layers.Conv2D(32, 5, strides=2, activation="relu"),
        layers.Conv2D(64, 3, strides=2, activation="relu"),
        layers.Flatten(),
        layers.Dense(256, activation="relu"),
    ]


ARCHITECTURES: dict[str, Builder] = {
    "linear": _linear,
    "mlp_small": _mlp_small,
    "mlp": _mlp,
    "mlp_large": _mlp_large,
    "cnn_tiny": _cnn_tiny,
    "cnn_small": _cnn_small,
    "cnn": _cnn,
    "cnn_large": _cnn_large,
}


def build(name: str, image_shape: tuple[int, ...], classes: int) -> keras.Model:
    """Builds a named architecture; it ends in one logit a class.

    Args:
        name: `"linear"`; dense layers: `"mlp_small"` (16), `"mlp"` (256-256),
            `"mlp_large"` (512-512); two convolutions with strides: `"cnn_tiny"`
            (8-8), `"cnn_small"` (16-32, dropout, 64), `"cnn"` (32-64, dropout,
            128), `"cnn_large"` (32-64, 256, no dropout).
        image_shape: Height, width and channels.
        classes: Number of classes.

    Raises:
        ValueError: If the name is unknown.
    """
    checks.choice("architecture", name, ARCHITECTURES)
    return keras.Sequential(
        [
            keras.Input(image_shape),
            *ARCHITECTURES[name](),
            layers.Dense(classes),
        ]
    )
