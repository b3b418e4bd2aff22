"""Run by test_devices.py: trains with one device, and with several.

    python devices.py mirrored CASE ...    two logical CPUs
    python devices.py worker CASE ...      a process of the cluster in TF_CONFIG

Logical devices and clusters must be configured before TensorFlow starts.
Prints what each training ended with as one line of JSON.
"""

import json
import sys

import numpy as np
import tensorflow as tf

BATCH, STEPS, EPOCHS = 8, 6, 2


def strategy_of(kind):
    if kind == "worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


if __name__ == "__main__":
    SEVERAL = strategy_of(sys.argv[1])
    assert SEVERAL.num_replicas_in_sync == 2

import keras  # noqa: E402

from keras_hybrid import (  # noqa: E402
    DivergenceGuard,
    HybridOptimizer,
    SwitchCallback,
)
from keras_hybrid.transitions import Blend, Cooldown  # noqa: E402
from keras_hybrid.triggers import (  # noqa: E402
    AtEpoch,
    AtStep,
    ProjectionConverged,
)


def converged(**options):
    return ProjectionConverged(
        tolerance=0.5, patience=2, min_steps=3, max_steps=9, **options
    )


class AtBatch(keras.callbacks.Callback):
    """Calls a method of the optimizer after so many batches."""

    def __init__(self, count, method):
        super().__init__()
        self.count, self.method = count, method

    def on_train_batch_end(self, batch, logs=None):
        self.count -= 1
        if self.count == 0:
            getattr(self.model.optimizer, self.method)()


class Spoil(keras.callbacks.Callback):
    """Makes the weights NaN before a batch of the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.armed = epoch == 1

    def on_train_batch_begin(self, batch, logs=None):
        if self.armed and batch == 3:
            for variable in self.model.trainable_variables:
                variable.assign(variable * float("nan"))


class Overflow(keras.callbacks.Callback):
    """Makes the gradients of a batch overflow."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 2:
            self.weights = self.model.get_weights()
            self.model.set_weights([w * 1e30 for w in self.weights])

    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            self.model.set_weights(self.weights)


def blend(scope):
    return {
        "trigger": AtStep(3),
        "transition": Blend(4),
        "cooldown": Cooldown(steps=8),
        "scope": scope,
        "amsgrad": True,
        "nesterov": True,
    }


# The optimizer's arguments, and the callbacks of `fit`; None: a custom loop.
CASES = {
    "adam": ({"weight_decay": 0.1}, []),
    "at-step": (
        {"trigger": AtStep(4), "weight_decay": 0.1, "global_clipnorm": 0.1},
        [],
    ),
    "clipnorm": ({"trigger": AtStep(4), "clipnorm": 0.1}, []),
    "clipvalue": ({"trigger": AtStep(4), "clipvalue": 0.05}, []),
    "ema": ({"trigger": AtStep(4), "use_ema": True}, []),
    "blend-layer": (blend("layer"), []),
    "blend-variable": (blend("variable"), []),
    "norm": (
        {"trigger": AtStep(4), "sgd_scale": "norm", "scale_scope": "model"},
        [],
    ),
    "sgd": ({"trigger": AtStep(0), "sgd_learning_rate": 0.05}, []),
    "sgd-rate": ({"trigger": AtStep(4), "sgd_learning_rate": 0.05}, []),
    "projection": ({"beta_2": 0.9, "trigger": converged()}, []),
    "projection-layer": (
        {"beta_2": 0.9, "trigger": converged(), "scope": "layer"},
        [],
    ),
    "projection-variable": (
        {"beta_2": 0.9, "trigger": converged(), "scope": "variable"},
        [],
    ),
    "callback": (
        {"transition": Blend(9), "cooldown": Cooldown(), "scope": "layer"},
        [lambda: SwitchCallback(AtEpoch(1), verbose=0)],
    ),
    "guard": (
        {"trigger": AtStep(4)},
        [Spoil, lambda: DivergenceGuard(snapshot_every=2, verbose=0)],
    ),
    "skips": ({"trigger": AtStep(4), "skip_nonfinite": True}, [Overflow]),
    "switch": ({}, [lambda: AtBatch(5, "switch")]),
    "revert": ({"trigger": AtStep(3)}, [lambda: AtBatch(6, "revert")]),
    "loop": (
        {"trigger": AtStep(4), "transition": Blend(4), "clipnorm": 0.1},
        None,
    ),
    "loop-projection": (
        {"beta_2": 0.9, "trigger": converged(), "scope": "variable"},
        None,
    ),
}


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * STEPS, 3)).astype("float32")
    y = np.stack([x[:, 0] * x[:, 1], np.sin(x[:, 2])], axis=1)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(
        BATCH, drop_remainder=True
    )
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return batches.with_options(options)


def compiled(strategy, **arguments):
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(4, "tanh"),
                keras.layers.Dense(2),
            ]
        )
        rng = np.random.default_rng(1)
        model.set_weights([rng.normal(size=v.shape) for v in model.weights])
        model.compile(HybridOptimizer(0.01, **arguments), "mse")
    return model


def loop(model, strategy):
    """A custom loop: each replica's share of the global batch's mean loss."""

    def on_replica(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(x) - y)) / (2 * BATCH)
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(loss, variables), variables)

    step = tf.function(lambda batch: strategy.run(on_replica, args=batch))
    with strategy.scope():
        model.optimizer.build(model.trainable_variables)
    for _ in range(EPOCHS):
        for batch in strategy.experimental_distribute_dataset(data()):
            step(batch)


def train(case, strategy, **arguments):
    options, callbacks = CASES[case]
    model = compiled(strategy, **options, **arguments)
    if callbacks is None:
        loop(model, strategy)
    else:
        model.fit(
            data(),
            epochs=EPOCHS,
            shuffle=False,
            verbose=0,
            callbacks=[make() for make in callbacks],
        )
    optimizer = model.optimizer
    return {
        "weights": [np.array(w).tolist() for w in model.get_weights()],
        "switch_steps": list(optimizer.switch_steps.values()),
        "sgd_fraction": optimizer.sgd_fraction,
        "rate": optimizer.sgd_learning_rate_equivalent,
        "skipped": optimizer.skipped_steps,
    }


def error_of(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def errors(several, one):
    """What each of these says."""

    def fit(strategy, optimizer, run_eagerly=False):
        with strategy.scope():
            model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
            model.compile(optimizer, "mse", run_eagerly=run_eagerly)
        model.fit(data(), shuffle=False, verbose=0)

    def inside(**arguments):
        with several.scope():
            return HybridOptimizer(**arguments)

    averaging = {"use_ema": True, "ema_overwrite_frequency": 3}
    return {
        name: error_of(call)
        for name, call in {
            "jit": lambda: fit(several, inside(jit_compile=True)),
            "outside": lambda: fit(several, HybridOptimizer()),
            "inside": lambda: fit(one, inside()),
            "accumulation": lambda: fit(
                several, inside(gradient_accumulation_steps=2)
            ),
            "overwriting": lambda: fit(several, inside(**averaging)),
            "eager": lambda: fit(several, inside(**averaging), True),
        }.items()
    }


def mirrored(names):
    one = tf.distribute.get_strategy()
    results = {}
    for name in names:
        if name == "errors":
            results[name] = errors(SEVERAL, one)
        else:
            results[name] = {
                "one": train(name, one, jit_compile=False),
                "two": train(name, SEVERAL),
            }
    return results


def worker(names):
    results = {name: {"two": train(name, SEVERAL)} for name in names}
    # Last: what fails there may leave the cluster unusable.
    results["fit"] = error_of(
        lambda: compiled(SEVERAL).fit(data(), shuffle=False, verbose=0)
    )
    return results


if __name__ == "__main__":
    make = {"mirrored": mirrored, "worker": worker}[sys.argv[1]]
    sys.stdout.write("RESULT " + json.dumps(make(sys.argv[2:])) + "\n")
