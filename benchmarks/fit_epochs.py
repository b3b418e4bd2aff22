"""Whole epochs of `fit` on MNIST: keras Adam's, and this library's."""

import statistics
import time

import keras
from keras import layers

from keras_hybrid import HybridOptimizer
from keras_hybrid.study import datasets

ROUNDS = 2
OPTIMIZERS = {
    "keras Adam": lambda: keras.optimizers.Adam(1e-3),
    "keras_hybrid": lambda: HybridOptimizer(1e-3),
}


def mlp():
    """Two hidden layers of 512."""
    return [
        layers.Flatten(),
        layers.Dense(512, activation="relu"),
        layers.Dense(512, activation="relu"),
    ]


def cnn():
    """Two convolutions with strides and one dense layer."""
    return [
        layers.Conv2D(32, 5, strides=2, activation="relu"),
        layers.Conv2D(64, 3, strides=2, activation="relu"),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
    ]


def residual():
    """Nine residual blocks with batch normalization, 58 variables."""

    class Block(layers.Layer):
        def __init__(self, filters):
            super().__init__()
            self.parts = [
                layers.Conv2D(filters, 3, padding="same", use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Conv2D(filters, 3, padding="same", use_bias=False),
                layers.BatchNormalization(),
            ]

        def build(self, shape):
            for part in self.parts:
                part.build(shape)

        def call(self, x, training=None):
            y = x
            for part in self.parts:
                batch = isinstance(part, layers.BatchNormalization)
                y = part(y, training=training) if batch else part(y)
            return keras.ops.relu(x + y)

    stem = [layers.Conv2D(16, 5, strides=4, activation="relu")]
    return [
        *stem,
        *[Block(16) for _ in range(9)],
        layers.GlobalAveragePooling2D(),
    ]


# Name: layers, images, batch size.
MODELS = {
    "MLP 512-512": (mlp, 50_000, 128),
    "CNN": (cnn, 50_000, 128),
    "residual CNN": (residual, 20_000, 64),
}


def model_of(make, optimizer, jit):
    """A compiled model with the same initial weights each time."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), *make(), layers.Dense(10)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit)
    return model


def run(data_dir=None):
    """Times first and later epochs, alternating; returns seconds."""
    data = datasets.load("mnist", data_dir)
    images = data.train[0].astype("float32") / 255
    labels = data.train[1]
    results = {}
    for jit in ("auto", True):
        for name, (make, count, batch) in MODELS.items():
            if jit is True and make is not mlp:
                continue  # XLA is 3 times slower on convolutions on a CPU.
            label = f"{name}, XLA" if jit is True else name
            x, y = images[:count], labels[:count]
            first = {kind: [] for kind in OPTIMIZERS}
            later = {kind: [] for kind in OPTIMIZERS}
            for _ in range(ROUNDS):
                for kind, optimizer in OPTIMIZERS.items():
                    model = model_of(make, optimizer(), jit)
                    for epoch in range(3):
                        started = time.perf_counter()
                        model.fit(x, y, batch_size=batch, verbose=0)
                        took = time.perf_counter() - started
                        (later if epoch else first)[kind].append(took)
            results[label] = {
                "variables": len(model.trainable_variables),
                "weights": model.count_params(),
                "first_epoch_s": {k: spread(v) for k, v in first.items()},
                "epoch_s": {k: spread(v) for k, v in later.items()},
            }
            for kind in OPTIMIZERS:
                print(
                    f"{label}, {kind}: first "
                    f"{of(results[label]['first_epoch_s'], kind):.2f}, later "
                    f"{of(results[label]['epoch_s'], kind):.2f} of keras Adam",
                    flush=True,
                )
    return results


def spread(seconds):
    """Median and range."""
    return {
        "median": statistics.median(seconds),
        "range": [min(seconds), max(seconds)],
    }


def of(times, kind):
    """The ratio to keras Adam."""
    return times[kind]["median"] / times["keras Adam"]["median"]
