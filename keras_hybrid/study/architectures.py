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


ARCHITECTURES: dict[str, Builder] = {
    "linear": _linear,
    "mlp_small": _mlp_small,
    "mlp": _mlp,
    "cnn": _cnn,
}


def build(name: str, image_shape: tuple[int, ...], classes: int) -> keras.Model:
    """Builds a named architecture; it ends in one logit a class.

    Args:
        name: `"linear"`, `"mlp_small"` (16), `"mlp"` (256-256) or
            `"cnn"` (two convolutions with strides, dropout, one dense layer of
            128).
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
