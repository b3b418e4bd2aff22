"""Searches of a moment: data, models and a tuner for tests."""

import keras
import numpy as np
import tensorflow as tf

from keras_hybrid import HybridOptimizer
from keras_hybrid.tuner import SWITCH_POINTS, ForkedTuner, HybridHyperModel
from keras_hybrid.tuning.fit import Fit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 6)).astype("float32")
Y = (X[:, 0] * X[:, 1] > 0).astype("int64")
DATA = {"x": X, "y": Y, "batch_size": 16, "validation_data": (X[:32], Y[:32])}
LOSS = "sparse_categorical_crossentropy"


def build(hp, optimizer=HybridOptimizer):
    """Dropout and batch normalization: state beside the weights."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(optimizer(1e-2), LOSS, metrics=["accuracy"])
    return model


def build_light(hp):
    """Compiles fast: for tests that do not look at the training."""
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(2, activation="softmax")]
    )
    optimizer = HybridOptimizer(1e-2, jit_compile=False)
    model.compile(optimizer, LOSS, metrics=["accuracy"])
    return model


def build_uncompiled(hp):
    """As `build`, without XLA, which compiles for longer than it trains."""
    return build(hp, lambda rate: HybridOptimizer(rate, jit_compile=False))


POINTS = {**SWITCH_POINTS, "fraction": [0.5, 0.75, 0.25]}


def tuner_in(tmp_path, model=build_light, space=POINTS, seeds=1, **arguments):
    return ForkedTuner(
        HybridHyperModel(model, space, seeds),
        **{"objective": "val_loss", "directory": tmp_path, **arguments},
    )


FIXED = {"how": "hard", "end": 1.0, "scale": "projection", "multiplier": 1.0}


def begin(tuner, **data):
    """Lets a search claim its folder, and trains nothing."""
    tuner._begin(Fit.of((), {**DATA, "epochs": 4, **data}))


def batches_of(x, size=16, shift=0):
    """A function that gives the data, `shift` more in each later epoch."""

    def pipeline(seed, first_epoch, epochs):
        parts = [
            tf.data.Dataset.from_tensor_slices((x + shift * epoch, Y))
            for epoch in range(first_epoch, epochs)
        ]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole.concatenate(part)
        return whole.batch(size), len(Y) // size

    return pipeline
