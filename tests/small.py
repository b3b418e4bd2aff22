"""What tests share: small models, data, trainings, and what watches them."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_hybrid import HybridOptimizer
from keras_hybrid.triggers import AtStep, StepTrigger

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def received(**arguments):
    """The end of every message: what was received."""
    return "Received: " + ", ".join(f"{k}={v!r}" for k, v in arguments.items())


def slow_but(quick, names):
    """The names for parametrize, all marked as slow but the quick ones."""
    names, quick = list(names), set(quick)
    assert quick <= set(names), quick - set(names)
    return [
        name if name in quick else pytest.param(name, marks=pytest.mark.slow)
        for name in names
    ]


# ---- Models made once -------------------------------------------------------

_MODELS = {}


def reset(make, *args, **kwargs):
    """A model as `make` makes it, compiled once and then reset.

    Phase is data, so that the initial values are the initial state. Where new
    Python objects are the point, tests call `make`.
    """
    key = (
        make.__module__,
        make.__qualname__,
        repr((args, sorted(kwargs.items()))),
    )
    if key not in _MODELS:
        model = make(*args, **kwargs)
        model.optimizer.build(model.trainable_variables)
        variables = model.variables + model.optimizer.variables
        _MODELS[key] = model, variables, [v.numpy() for v in variables]
    model, variables, values = _MODELS[key]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    model._initial_epoch = None  # BackupAndRestore sets it.
    return model


# ---- A small model and its data ---------------------------------------------

STEPS = 24
BATCH = 4
SHAPES = [(3, 4), (4,), (4, 2), (2,)]  # Two dense layers.
LAYER_OF = [0, 0, 1, 1]


def tolerance(dtype, scale=1.0):
    """The absolute tolerance on weights near 1 after STEPS updates."""
    return {"float64": 1e-10, "float32": 2e-5}[dtype] * scale


def dense_model(dtype="float32", seed=0, **kernel_arguments):
    model = keras.Sequential(
        [
            keras.Input((3,), dtype=dtype),
            keras.layers.Dense(
                4,
                "tanh",
                dtype=dtype,
                bias_initializer="ones",
                **kernel_arguments,
            ),
            keras.layers.Dense(2, dtype=dtype, bias_initializer="ones"),
        ]
    )
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=shape) for shape in SHAPES])
    return model


def regression_data(dtype="float32", batches=8):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(batches * BATCH, 3))
    y = np.stack([x[:, 0] * x[:, 1], np.sin(x[:, 2])], axis=1)
    # fit casts its data to float32; these stay the same numbers.
    return tuple(a.astype("float32").astype(dtype) for a in (x, y))


def weights_of(variables):
    return [v.numpy().astype("float64") for v in variables]


def assert_equal_weights(got, expected, atol):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def largest_difference(first, second):
    return max(
        float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True)
    )


# ---- The same training in six ways ------------------------------------------

MODES = ("eager", "function", "xla", "fit", "fit-xla", "fit-k")
SOME_MODES = pytest.mark.parametrize(
    "mode",
    [
        "eager",
        *(pytest.param(m, marks=pytest.mark.slow) for m in MODES[1:]),
    ],
)


def train(optimizer, mode, dtype="float32", steps=STEPS, callbacks=None):
    """Trains the dense model for `steps` batches; returns its weights."""
    model = dense_model(dtype)
    x, y = regression_data(dtype)
    if mode.startswith("fit"):
        model.compile(
            optimizer,
            keras.losses.MeanSquaredError(dtype=dtype),
            jit_compile=mode == "fit-xla",
            steps_per_execution=4 if mode == "fit-k" else 1,
        )
        model.fit(
            x,
            y,
            batch_size=BATCH,
            epochs=steps * BATCH // len(x),
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
        return weights_of(model.trainable_variables)

    def update(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x) - y))
            scaled = optimizer.scale_loss(loss)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(scaled, variables), variables)

    if mode != "eager":
        update = tf.function(update, jit_compile=mode == "xla")
    for step in range(steps):
        at = slice(step * BATCH % len(x), step * BATCH % len(x) + BATCH)
        update(tf.constant(x[at]), tf.constant(y[at]))
    # What fit does at its end.
    optimizer.finalize_variable_values(model.trainable_variables)
    return weights_of(model.trainable_variables)


def hybrid_sgd(rate, learning_rate, **options):
    return HybridOptimizer(
        learning_rate,
        trigger=AtStep(0),
        sgd_learning_rate=rate,
        **options,
    )


def quiet_fit(model, *callbacks, **arguments):
    """Fits in the data's order; returns the history."""
    return model.fit(
        **arguments, callbacks=list(callbacks), shuffle=False, verbose=0
    ).history


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    """Fails in the second batch of an epoch, or at its end."""

    def __init__(self, epoch, at_end=False):
        super().__init__()
        self.fatal, self.at_end = epoch, at_end

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if not self.at_end and (self.epoch, batch) == (self.fatal, 1):
            raise Killed

    def on_epoch_end(self, epoch, logs=None):
        if self.at_end and epoch == self.fatal:
            raise Killed


# ---- Updates with given gradients --------------------------------------------


def random_gradients(steps=16, seed=2):
    """Gradients that point one way, so that every projection is positive."""
    rng = np.random.default_rng(seed)
    return [
        [1 + 0.5 * (k + 1) * rng.normal(size=s) for k, s in enumerate(SHAPES)]
        for _ in range(steps)
    ]


def run(optimizer, gradients, dtype="float64", seed=0):
    """The weights after every update of the dense model's variables."""
    variables = dense_model(dtype, seed).trainable_variables
    history = []
    for gradient in gradients:
        tensors = [tf.constant(g, dtype) for g in gradient]
        optimizer.apply(tensors, variables)
        history.append(weights_of(variables))
    return history


def start_weights(seed=0):
    return weights_of(dense_model("float64", seed).trainable_variables)


def exact(value):
    """Keras keeps the learning rate in float32."""
    return float(np.float32(value))


# ---- Parts that tests bring --------------------------------------------------


@keras.saving.register_keras_serializable("tests")
class Staggered(StepTrigger):
    """Group k switches at update steps[k]."""

    def __init__(self, steps):
        self.steps = list(steps)

    def update(self, state, signals):
        steps = keras.ops.convert_to_tensor(self.steps, signals.step.dtype)
        return signals.step + 1 >= steps, state

    def get_config(self):
        return {"steps": self.steps}


def halving(step):
    """What `Halving` is, in Python's floats."""
    return 0.2 * 0.5 ** (step / 4)


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """0.2 / 2^(step / 4), for steps of any type."""

    def __call__(self, step):
        return 0.2 * 0.5 ** (keras.ops.cast(step, "float64") / 4)

    def get_config(self):
        return {}


class AtBatch(keras.callbacks.Callback):
    """Calls `action(optimizer)` after `batch` batches."""

    def __init__(self, actions):
        super().__init__()
        self.actions, self.batches = actions, 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        if self.batches in self.actions:
            self.actions[self.batches](self.model.optimizer)


class Counting(keras.layers.Layer):
    """Counts how often its Python code runs: once a trace."""

    traces = 0

    def call(self, x):
        self.traces += 1
        return x
