"""Models to train, each with data, made by `MODELS[name](quick)`."""

import dataclasses
import functools

import keras
import numpy as np
from keras import layers


@dataclasses.dataclass(frozen=True)
class Task:
    """A model, and what it is trained on."""

    model: keras.Model
    x: object
    y: np.ndarray
    batch_size: int
    loss: keras.losses.Loss = dataclasses.field(
        default_factory=lambda: keras.losses.SparseCategoricalCrossentropy(
            from_logits=True
        )
    )


@functools.cache
def digits(count, quick):
    """Images of MNIST and their labels."""
    # TensorFlow's, which the models without images need not.
    from keras_hybrid.study import datasets

    data = datasets.load("mnist-5k" if quick else "mnist").train
    return data[0][:count].astype("float32") / 255, data[1][:count]


def classifier(x, inputs):
    """A model that ends in the logits of ten classes."""
    return keras.Model(inputs, layers.Dense(10)(x))


def mlp(quick):
    """Two hidden layers of 512 on 50,000 digits."""
    inputs = keras.Input((28, 28, 1))
    x = layers.Flatten()(inputs)
    for _ in range(2):
        x = layers.Dense(512, activation="relu")(x)
    images = digits(640 if quick else 50_000, quick)
    return Task(classifier(x, inputs), *images, 128)


def residual_cnn(quick):
    """Nine narrow residual blocks on 20,000 digits: many small variables."""
    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(16, 5, strides=4, activation="relu")(inputs)
    for _ in range(1 if quick else 9):
        y = x
        for activation in ("relu", "linear"):
            y = layers.Conv2D(16, 3, padding="same", use_bias=False)(y)
            y = layers.BatchNormalization()(y)
            y = layers.Activation(activation)(y)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    images = digits(640 if quick else 20_000, quick)
    return Task(classifier(x, inputs), *images, 64)


def application(name, steps, batch_size, quick):
    """A model of keras.applications on random images of 64x64."""
    if quick:
        steps, batch_size = 2, 4
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(64, 64, 3), classifier_activation=None
    )
    rng = np.random.default_rng(0)
    count = steps * batch_size
    images = rng.random((count, 64, 64, 3), "float32")
    return Task(model, images, rng.integers(0, 1000, count), batch_size)


def transformer(batch_size, quick):
    """A transformer encoder of six layers, 30,000 words, no positions."""
    words, length, width = 30_000, 64, 128
    depth, steps = (1, 2) if quick else (6, 40)
    inputs = keras.Input((length,), dtype="int32")
    x = layers.Embedding(words, width)(inputs)
    for _ in range(depth):
        y = layers.LayerNormalization()(x)
        y = layers.MultiHeadAttention(4, width // 4)(y, y)
        x = layers.Add()([x, y])
        y = layers.LayerNormalization()(x)
        y = layers.Dense(4 * width, activation="gelu")(y)
        x = layers.Add()([x, layers.Dense(width)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    rng = np.random.default_rng(0)
    count = steps * batch_size
    text = rng.integers(0, words, (count, length), "int32")
    return Task(
        classifier(x, inputs), text, rng.integers(0, 10, count), batch_size
    )


def two_towers(quick):
    """Users and items, 200,000 of each: almost all gradients are sparse."""
    rows, batch_size = 2_000 if quick else 200_000, 256
    steps = 2 if quick else 40
    inputs, towers = [], []
    for _ in range(2):
        inputs.append(keras.Input((), dtype="int32"))
        x = layers.Embedding(rows, 32)(inputs[-1])
        towers.append(layers.Dense(32)(x))
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, rows, (2, steps * batch_size), "int32")
    return Task(
        keras.Model(inputs, layers.Dot(axes=1)(towers)),
        list(pairs),
        rng.integers(0, 2, steps * batch_size).astype("float32"),
        batch_size,
        keras.losses.BinaryCrossentropy(from_logits=True),
    )


def five_dense(quick, width):
    """Five dense layers, as a search over the width would make them."""
    inputs = keras.Input((64,))
    x = inputs
    for _ in range(4):
        x = layers.Dense(width, activation="relu")(x)
    rng = np.random.default_rng(0)
    count = 64 if quick else 1600
    x_train = rng.standard_normal((count, 64), "float32")
    return Task(classifier(x, inputs), x_train, rng.integers(0, 10, count), 32)


MODELS = {
    "MLP 512-512": mlp,
    "residual CNN": residual_cnn,
    "ResNet50": functools.partial(application, "ResNet50", 20, 16),
    "ResNet50, 256 images": functools.partial(application, "ResNet50", 20, 256),
    "MobileNetV2": functools.partial(application, "MobileNetV2", 30, 16),
    "transformer encoder": functools.partial(transformer, 16),
    "transformer encoder, 256 texts": functools.partial(transformer, 256),
    "two towers": two_towers,
    "five dense": five_dense,
}
