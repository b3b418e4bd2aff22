"""DivergenceGuard beside the callbacks that switch: what it takes back."""

import itertools
import math

import keras
import pytest
import tensorflow as tf
from small_fits import BATCH, STEPS, X, Y, fit, new_model

from keras_hybrid import DivergenceGuard, SwitchCallback, TrainUntilDone
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import AtEpoch, MetricReached, Plateau

ORDERS = pytest.mark.parametrize(
    "guard_first", [True, pytest.param(False, marks=pytest.mark.slow)]
)


class Lost(keras.callbacks.Callback):
    """Says once that the loss of a batch, counted from 0, is lost."""

    def __init__(self, batch):
        super().__init__()
        self.batches = itertools.count()
        self.batch = batch

    def on_train_batch_end(self, batch, logs=None):
        if next(self.batches) == self.batch:
            logs["loss"] = math.nan


def train(batch, callback, guard_first, epochs=2, model=None, **options):
    """Two epochs of 8 batches, snapshots after 4, 8 and 12."""
    guard = DivergenceGuard(**{"snapshot_every": 4, "verbose": 0, **options})
    pair = [guard, callback] if guard_first else [callback, guard]
    model = new_model() if model is None else model
    fit(model, Lost(batch), *pair, epochs=epochs)
    return model.optimizer


@ORDERS
def test_a_forced_switch_just_before_is_kept(guard_first):
    # At 10 of 16 its cool-down just fits, and the next batch diverges.
    callback = TrainUntilDone(AtEpoch(50), verbose=0)
    optimizer = train(10, callback, guard_first)
    assert optimizer.switch_step == 10
    assert optimizer.updates_made == 15
    assert optimizer.cooldown_factor == 0
    assert callback.done


@ORDERS
def test_a_switch_that_was_undone_comes_again_in_time(guard_first):
    # Back from 12 to 10, as Adam: 4 are left.
    callback = TrainUntilDone(AtEpoch(50), verbose=0)
    optimizer = train(11, callback, guard_first, action="revert")
    assert optimizer.switch_step in (10, 11)
    assert optimizer.updates_made == optimizer.cooldown_end == 14
    assert optimizer.cooldown_factor == 0


@ORDERS
def test_the_last_batch_taken_back_is_not_the_end(guard_first):
    """A cool-down that ends there goes on; `fit` has no epochs left."""
    callback = TrainUntilDone(AtEpoch(1), verbose=0)
    optimizer = train(11, callback, guard_first, epochs=3)
    # The cool-down of 4 ends with batch 11, which goes back to 8.
    assert optimizer.switch_step == 8
    assert optimizer.cooldown_factor == 0
    assert callback.done


@pytest.mark.parametrize("batch", [9, 10, 13])
@ORDERS
def test_the_end_is_exact_with_accumulated_gradients(batch, guard_first):
    model = new_model(
        gradient_accumulation_steps=2, cooldown=Cooldown("linear")
    )
    callback = SwitchCallback(AtEpoch(1), verbose=0)
    optimizer = train(batch, callback, guard_first, model=model)
    assert optimizer.updates_made == optimizer.training_steps
    assert optimizer.cooldown_factor == 0


class Evaluates(keras.callbacks.Callback):
    """Before the callbacks that follow, on other data."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.evaluate(9 * X, 1 - Y, verbose=0)


class OwnStep(keras.Sequential):
    """Its step returns a value that no metric has."""

    def train_step(self, data):
        return {**super().train_step(data), "batch": 1.0}


@pytest.mark.parametrize("validated", [True, False])
def test_an_evaluation_at_the_epochs_end_is_not_the_epochs(validated, tmp_path):
    """It resets the metrics, which a file's look read then."""
    name = "val_loss" if validated else "loss"
    options = {} if validated else {"validation_data": None}
    history = fit(
        new_model(),
        Evaluates(),
        keras.callbacks.BackupAndRestore(tmp_path / "kept"),
        SwitchCallback(Plateau(name, patience=1), verbose=0),
        epochs=3,
        **options,
    )
    assert len(history.history["loss"]) == 3


def test_a_step_with_values_of_its_own(tmp_path):
    made = new_model()
    model = OwnStep([keras.Input((5,)), *made.layers])
    model.compile(made.optimizer, made.loss, metrics=["accuracy"])
    history = fit(
        model,
        keras.callbacks.BackupAndRestore(tmp_path / "kept"),
        TrainUntilDone(verbose=0),
        epochs=3,
    )
    assert history.history["batch"] == [1.0] * 3


def test_the_steps_of_an_epoch_are_those_of_small_fits():
    assert STEPS == 8


def test_a_loop_whose_metrics_nobody_updates():
    model = new_model()
    callbacks = keras.callbacks.CallbackList(
        [SwitchCallback(AtEpoch(1), verbose=0)],
        model=model,
        epochs=2,
        steps=STEPS,
    )
    callbacks.on_train_begin()
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        for batch in range(STEPS):
            callbacks.on_train_batch_begin(batch)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(X) ** 2)
            gradients = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply(gradients, model.trainable_variables)
            callbacks.on_train_batch_end(batch, {"loss": float(loss)})
        callbacks.on_epoch_end(epoch, {"loss": float(loss)})
    callbacks.on_train_end()
    assert model.optimizer.switch_step == STEPS


class Poison(keras.callbacks.Callback):
    """Spoils a weight with the last batch of the second epoch."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            bias = self.model.weights[1]
            bias.assign(bias * math.nan)


@pytest.mark.filterwarnings("ignore:.*ran out of data")
def test_going_back_at_an_epochs_end_keeps_its_validation(tmp_path):
    """Of a data set of unknown length, before a file is written."""

    unknown = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)
    unknown = unknown.filter(lambda *_: True)
    history = fit(
        new_model(),
        Poison(),
        DivergenceGuard(verbose=0),
        keras.callbacks.ModelCheckpoint(tmp_path / "model.keras"),
        TrainUntilDone(AtEpoch(9) | MetricReached("averaged_val_loss", -1)),
        data=unknown,
        epochs=3,
    ).history
    assert {len(values) for values in history.values()} == {3}
