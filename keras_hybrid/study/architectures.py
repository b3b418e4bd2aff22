"""Named architectures, from too small to too large."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_hybrid._support import checks
from keras_hybrid.study import transformer

# Each is called with the output of the one before it.
Builder = Callable[[], list[Callable[..., Any]]]


def _linear() -> list[Callable[..., Any]]:
    return [layers.Flatten()]


def _mlp_small() -> list[Callable[..., Any]]:
    return [layers.Flatten(), layers.Dense(16, activation="relu")]


def _mlp() -> list[Callable[..., Any]]:
    return [
        layers.Flatten(),
        layers.Dense(256, activation="relu"),
        layers.Dense(256, activation="relu"),
    ]


def _cnn() -> list[Callable[..., Any]]:
    # Strides in place of pooling: four times as fast on a CPU.
    return [
        layers.Conv2D(32, 5, strides=2, activation="relu"),
        layers.Conv2D(64, 3, strides=2, activation="relu"),
        layers.Flatten(),
        layers.Dropout(0.4),
        layers.Dense(128, activation="relu"),
    ]


def _mlp_large() -> list[Callable[..., Any]]:
    return [
        layers.Flatten(),
        layers.Dense(512, activation="relu"),
        layers.Dense(512, activation="relu"),
    ]


def _cnn_tiny() -> list[Callable[..., Any]]:
    return [
        layers.Conv2D(8, 5, strides=2, activation="relu"),
        layers.Conv2D(8, 3, strides=2, activation="relu"),
        layers.Flatten(),
    ]


def _cnn_small() -> list[Callable[..., Any]]:
    return [
        layers.Conv2D(16, 5, strides=2, activation="relu"),
        layers.Conv2D(32, 3, strides=2, activation="relu"),
        layers.Flatten(),
        layers.Dropout(0.4),
        layers.Dense(64, activation="relu"),
    ]


def _cnn_large() -> list[Callable[..., Any]]:
    # Nothing that regularizes.
    return [
        layers.Conv2D(32, 5, strides=2, activation="relu"),
        layers.Conv2D(64, 3, strides=2, activation="relu"),
        layers.Flatten(),
        layers.Dense(256, activation="relu"),
    ]


@keras.saving.register_keras_serializable("keras_hybrid")
class FusedNormalization(layers.BatchNormalization):
    """Keras' batch normalization over the last axis, in TensorFlow's kernel.

    Keras computes it operation by operation and in float32, slowly on a CPU:
    the kernel shortened a step of the resnets by 40 to 50 %. The moving
    variance is the unbiased one (divided by n - 1), as in PyTorch.

    Source: Ioffe and Szegedy 2015, algorithm 1.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the normalized inputs (batch, height, width, channels)."""
        import tensorflow as tf

        learns = bool(training and self.trainable)
        moving = () if learns else (self.moving_mean, self.moving_variance)
        outputs, *moments = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            self.gamma.value,
            self.beta.value,
            *(variable.value for variable in moving),
            epsilon=self.epsilon,
            is_training=learns,
        )
        if learns:
            for variable, moment in zip(
                (self.moving_mean, self.moving_variance), moments, strict=True
            ):
                variable.assign(
                    self.momentum * variable + (1 - self.momentum) * moment
                )
        return outputs


def _normalized(x: Any) -> Any:
    """Batch normalization, ReLU."""
    tensorflow = keras.backend.backend() == "tensorflow"
    kind = FusedNormalization if tensorflow else layers.BatchNormalization
    x = kind(momentum=0.9)(x)
    return layers.Activation("relu")(x)


def _contrasts(channels: int) -> np.ndarray:
    """Returns filters (2, 2, channels, 8 x channels) for photographs.

    The mean, the two slopes and the saddle of 2x2 pixels, along three axes of
    colour (where there are three), each with both signs. In these coordinates
    photographs are nearly uncorrelated.

    Sources: cosines, Ahmed, Natarajan and Rao 1974; colours, Ohta, Kanade and
    Sakai 1980 (I1, I2, I3).
    """
    slopes = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    patches = np.einsum("ai,bj->ijab", slopes, slopes).reshape(2, 2, 1, 4, 1)
    colours = np.eye(channels)
    if channels == 3:
        colours = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]])
    colours = colours / np.linalg.norm(colours, axis=1, keepdims=True)
    filters = patches * colours.T.reshape(1, 1, channels, 1, channels)
    filters = filters.reshape(2, 2, channels, 4 * channels)
    return np.concatenate([filters, -filters], axis=-1)


def _whitened(x: Any) -> Any:
    """Fixed contrasts of pixels, batch normalization, ReLU.

    That the first layer whitens patches, which then need not be learned, is of
    Page 2019 (How to train your ResNet, 8), there with their own eigenvectors.
    """
    filters = _contrasts(x.shape[-1])
    x = layers.Conv2D(
        filters.shape[-1],
        2,
        padding="same",
        use_bias=False,
        kernel_initializer=keras.initializers.Constant(filters),
        trainable=False,
    )(x)
    return _normalized(x)


def _convolution(filters: int, pool: bool = False) -> Callable[..., Any]:
    """3x3, batch normalization, ReLU; max-pooled before the normalization."""

    def apply(x: Any) -> Any:
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        if pool:
            x = layers.MaxPooling2D()(x)
        return _normalized(x)

    return apply


def _residual(filters: int) -> Callable[..., Any]:
    def apply(x: Any) -> Any:
        return layers.Add()([x, _convolution(filters)(x)])

    return apply


def _residuals(
    first: Callable[..., Any], *widths: int
) -> list[Callable[..., Any]]:
    steps = [first]
    for filters in widths:
        steps += [_convolution(filters, pool=True), _residual(filters)]
    return [*steps, layers.GlobalMaxPooling2D()]


def _resnet_small() -> list[Callable[..., Any]]:
    return _residuals(_convolution(16), 32, 64, 128)


def _resnet() -> list[Callable[..., Any]]:
    # Narrow where the image is large, so that two CPU cores can train it.
    return _residuals(_convolution(32), 64, 256, 256)


def _resnet_best() -> list[Callable[..., Any]]:
    # Scaled, logits begin small and are less changed by an update of Adam's.
    return [*_residuals(_whitened, 64, 256, 256), layers.Rescaling(1 / 8)]


def _cnn_best() -> list[Callable[..., Any]]:
    return [
        layers.Conv2D(32, 5, strides=2, activation="relu"),
        layers.Conv2D(64, 3, activation="relu"),
        layers.Conv2D(128, 3, strides=2, activation="relu"),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(256, activation="relu"),
    ]


OF_IMAGES: dict[str, Builder] = {
    "linear": _linear,
    "mlp_small": _mlp_small,
    "mlp": _mlp,
    "mlp_large": _mlp_large,
    "cnn_tiny": _cnn_tiny,
    "cnn_small": _cnn_small,
    "cnn": _cnn,
    "cnn_large": _cnn_large,
    "cnn_best": _cnn_best,
    "resnet_small": _resnet_small,
    "resnet": _resnet,
    "resnet_best": _resnet_best,
}
# Called with the words of an input and of the vocabulary.
OF_WORDS: dict[str, Callable[[int, int], keras.Model]] = {
    "transformer_small": transformer.language_model,
}
ARCHITECTURES = {**OF_IMAGES, **OF_WORDS}


def build(name: str, image_shape: tuple[int, ...], classes: int) -> keras.Model:
    """Builds a named architecture; it ends in one logit a class.

    Args:
        name: `"linear"`; dense layers: `"mlp_small"` (16), `"mlp"` (256-256),
            `"mlp_large"` (512-512); two convolutions with strides: `"cnn_tiny"`
            (8-8), `"cnn_small"` (16-32, dropout, 64), `"cnn"` (32-64, dropout,
            128), `"cnn_large"` (32-64, 256, no dropout); three: `"cnn_best"`
            (32-64-128, dropout, 256); seven 3x3 convolutions with batch
            normalization, three of them residual: `"resnet_small"`
            (16-32-32-64-64-128-128), `"resnet"` (32-64-64-256-256-256-256);
            `"resnet_best"`, that with fixed contrasts of 2x2 pixels as first
            convolution and logits divided by 8. Of words:
            `"transformer_small"` (64 wide, two blocks).
        image_shape: Height, width and channels; of a text, its words.
        classes: Number of classes.

    Raises:
        ValueError: If there is no such architecture for this input.
    """
    if len(image_shape) == 1:
        checks.choice("architecture", name, OF_WORDS)
        return OF_WORDS[name](*image_shape, classes)
    checks.choice("architecture", name, OF_IMAGES)
    steps = OF_IMAGES[name]()
    # Logits in full precision whatever the policy.
    logits = layers.Dense(classes, dtype="float32")
    inputs = keras.Input(image_shape)
    if all(isinstance(step, layers.Layer) for step in steps):
        return keras.Sequential([inputs, *steps, logits])
    x = inputs
    for step in steps:
        x = step(x)
    return keras.Model(inputs, logits(x))
