"""What the tests of TrainUntilDone train, and how they kill it."""

import keras
import numpy as np

from keras_hybrid import ExactBackup, HybridOptimizer

rng = np.random.default_rng(0)
X = rng.normal(size=(48, 5)).astype("float32")
Y = (X[:, :1] - X[:, 1:2] > rng.normal(size=(48, 1))).astype("float32")
VALIDATION = (X[32:], Y[32:])
X, Y = X[:32], Y[:32]
BATCH = 4
STEPS = len(X) // BATCH


def new_model(*layers, steps_per_execution=1, rate=0.05, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8, activation="tanh"),
            *layers,
            keras.layers.Dense(1),
        ]
    )
    model.compile(
        HybridOptimizer(rate, **{"jit_compile": False, **options}),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    return model


def fit(model, *callbacks, epochs=30, data=None, **options):
    options = {"validation_data": VALIDATION, **options}
    data = (X, Y) if data is None else data
    arguments = {"x": data}
    if isinstance(data, tuple):
        arguments = {"x": data[0], "y": data[1], "batch_size": BATCH}
    return model.fit(
        **arguments,
        epochs=epochs,
        callbacks=list(callbacks),
        shuffle=False,
        verbose=0,
        **options,
    )


def values(model):
    return [v.numpy() for v in [*model.weights, *model.optimizer.variables]]


def assert_same(model, other, but=()):
    variables = [*model.weights, *model.optimizer.variables]
    for v, a, b in zip(variables, values(model), values(other), strict=True):
        if v.path.split("/")[-1] not in but:
            np.testing.assert_array_equal(a, b, err_msg=v.path)


class Kill(keras.callbacks.Callback):
    def __init__(self, batch):
        super().__init__()
        self.left = batch

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def backup(kind, folder):
    if kind == "exact":
        return ExactBackup(folder / "backup.npz")
    return keras.callbacks.BackupAndRestore(str(folder / "backup"))
