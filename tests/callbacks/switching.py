"""A small model, trained and reset, for the tests of SwitchCallback."""

import keras
import numpy as np
import tensorflow as tf
from small import quiet_fit, reset

from keras_hybrid import HybridOptimizer

BATCH, STEPS = 8, 4  # Updates an epoch.
_RANDOM = np.random.default_rng(0)
X = _RANDOM.normal(size=(BATCH * STEPS, 3)).astype("float32")
Y = (0.1 * X @ [[1.0], [-2.0], [3.0]]).astype("float32")


def dataset(rows=None):
    return tf.data.Dataset.from_tensor_slices((X[:rows], Y[:rows])).batch(BATCH)


def unknown_length(data):
    return data.filter(lambda *_: True)


def compiled_model(optimizer, layers=(), **compile_kwargs):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.layers.Input((3,)),
            keras.layers.Dense(4, activation="tanh"),
            *layers,
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer, loss="mse", **compile_kwargs)
    return model


def new_model(**kwargs):
    kwargs = {"learning_rate": 0.01, "jit_compile": False, **kwargs}
    return compiled_model(HybridOptimizer(**kwargs))


def hybrid_model(**kwargs):
    """As `new_model`, made once."""
    return reset(new_model, **kwargs)


def fit(model, *callbacks, epochs=3, data=None, **kwargs):
    data = dataset() if data is None else data
    return quiet_fit(model, *callbacks, x=data, epochs=epochs, **kwargs)


class Inject(keras.callbacks.Callback):
    """Puts chosen metrics into the logs: `Inject(score=[1.0, 0.5])`."""

    def __init__(self, **values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: v[epoch] for name, v in self.values.items()})


def state_of(model):
    """All weights and all optimizer state."""
    variables = model.variables + model.optimizer.variables
    return [(v.path.split("/")[-1], v.numpy()) for v in variables]


def assert_equal_states(state, other):
    """Equal to the last bit."""
    for (name, a), (_, b) in zip(state, other, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def batch_factors(model):
    """A callback with the cool-down's factor of every update."""
    factors = []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: factors.append(
            model.optimizer.cooldown_factor
        )
    )
    return factors, callback


class Interrupted(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    """Fails in the second batch of one epoch, after the first update."""

    def __init__(self, epoch):
        super().__init__()
        self.fatal, self.epoch = epoch, None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.epoch == self.fatal and batch == 1:
            raise Interrupted
