"""TrainUntilDone and what else people do with their models."""

import keras
import numpy as np
import pytest
from small import slow_but
from small_fits import STEPS, VALIDATION, Kill, X, Y, fit, new_model

from keras_hybrid import DivergenceGuard, SwitchCallback, TrainUntilDone
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import (
    AtEpoch,
    AtStep,
    EpochTrigger,
    MetricReached,
    Plateau,
)

# It looks at the average, and never fires.
NEVER = MetricReached("averaged_val_loss", -1.0)
OTHER = {"data": (X[:8], 1 - Y[:8]), "validation_data": (X[:4], Y[:4])}


def killed_in_epoch_3(model, callback):
    with pytest.raises(KeyboardInterrupt):
        fit(model, callback, Kill(2 * 2 + 1), **OTHER)


@pytest.mark.parametrize(
    "earlier",
    [
        lambda model, callback: fit(model, callback, epochs=1, **OTHER),
        pytest.param(killed_in_epoch_3, marks=pytest.mark.slow),
    ],
    ids=["tried", "killed"],
)
@pytest.mark.parametrize("fresh", slow_but({True}, [True, False]))
def test_scores_on_other_data_do_not_count(earlier, fresh):
    model = new_model()
    callback = TrainUntilDone(NEVER, verbose=0)
    earlier(model, callback)
    assert callback.companion().epochs > 0
    if fresh:
        callback = TrainUntilDone(NEVER, verbose=0)
    history = fit(model, callback, epochs=3).history
    # The average of one epoch's end is that.
    assert history["averaged_val_loss"][0] == history["val_loss"][0]
    assert callback.companion().best_epoch <= 2


def test_the_trigger_forgets_an_earlier_fit_of_other_data():
    model = new_model(rate=1e-4)
    plateau = Plateau("val_loss", patience=2)
    fit(model, TrainUntilDone(plateau, verbose=0), epochs=1, **OTHER)
    model.optimizer.state.epoch_trigger.assign(
        # As if no loss had ever been as low.
        np.where(
            np.arange(model.optimizer.state.epoch_trigger.shape[0]) == 2,
            -9.0,
            model.optimizer.state.epoch_trigger.numpy(),
        )
    )
    callback = TrainUntilDone(plateau, verbose=0)
    losses = fit(model, callback, epochs=12).history["val_loss"]
    best = np.minimum.accumulate(losses[:3])
    assert np.all(np.diff(best) < 0)
    assert model.optimizer.switch_step > 3 * STEPS


@pytest.mark.parametrize("activation", slow_but({"relu"}, ["relu", "tanh"]))
@pytest.mark.parametrize("validates", slow_but({False}, [True, False]))
def test_nan_in_the_data_ends_it(activation, validates):
    x = X.copy()
    x[7, 3] = np.nan
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8, activation=activation),
            keras.layers.Dense(1),
        ]
    )
    model.compile(
        new_model().optimizer,
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    callback = TrainUntilDone(verbose=0)
    options = {} if validates else {"validation_data": None}
    with pytest.warns(UserWarning) as caught:
        history = fit(model, callback, data=(x, Y), **options).history
    said = {str(w.message) for w in caught if w.category is UserWarning}
    (text,) = {text for text in said if "TrainUntilDone" in text}
    assert "After epoch 1, before the switch" in text
    assert "there are no averaged weights" in text
    assert len(history["loss"]) == 1
    assert callback.done
    assert not model.optimizer.has_switched


def test_lost_before_the_switch_it_has_the_average():
    model = new_model()

    def spoil(epoch, logs=None):
        if epoch == 3:
            model.weights[0].assign(model.weights[0] * np.nan)

    spoiler = keras.callbacks.LambdaCallback(on_epoch_begin=spoil)
    callback = TrainUntilDone(NEVER, verbose=0)
    with pytest.warns(
        UserWarning, match=r"epoch 4, before .* of epoch [123][.]"
    ):
        history = fit(model, callback, spoiler, epochs=15).history
    assert len(history["loss"]) == 4
    for w, best in zip(
        model.get_weights(), callback.companion().best_weights, strict=True
    ):
        np.testing.assert_array_equal(w, best)


@pytest.mark.parametrize(
    "cooldown",
    [
        Cooldown(share=0.5),
        pytest.param(Cooldown(), marks=pytest.mark.slow),
        pytest.param(Cooldown(share=0.5, final=0.1), marks=pytest.mark.slow),
    ],
)
def test_a_fit_that_rests_at_its_end_says_so(cooldown, recwarn):
    model = new_model(cooldown=cooldown)
    fit(model, SwitchCallback(AtEpoch(2), verbose=0), epochs=6)
    said = [str(w.message) for w in recwarn if "rate is 0" in str(w.message)]
    if cooldown.share is None or cooldown.final:
        assert not said
    else:
        (text,) = said
        assert f"ends at update {3 * STEPS}, and `fit` at {6 * STEPS}" in text
        assert repr(cooldown) in text


class Nth(EpochTrigger):
    """Holds from its third call on, and cannot begin anew."""

    state_names = ("seen",)
    seen = 0.0

    def read(self, epoch, logs):
        return epoch

    def update(self, value):
        self.seen += 1
        return self.seen >= 3

    def get_config(self):
        return {}


@pytest.mark.parametrize("kind", [SwitchCallback, TrainUntilDone])
def test_a_trigger_with_a_state_can_begin_anew(kind):
    with pytest.raises(TypeError, match="must define `reset`.*'seen'"):
        kind(Nth())


def test_in_a_loop_of_ones_own_it_names_a_trigger_to_give():
    model = new_model()
    callbacks = keras.callbacks.CallbackList(
        [TrainUntilDone(verbose=0)], model=model, epochs=9, steps=STEPS
    )
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    for batch in range(STEPS):
        callbacks.on_train_batch_begin(batch)
        loss = model.train_on_batch(X[:4], Y[:4])[0]
        callbacks.on_train_batch_end(batch, {"loss": loss})
    with pytest.raises(ValueError, match=r"such as Plateau\('val_loss'\)"):
        callbacks.on_epoch_end(0, {"loss": loss, "val_loss": 1.0})
    callbacks.on_train_end()


def test_epochs_beyond_what_is_counted():
    model = new_model()
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: setattr(model, "stop_training", True)
    )
    with pytest.warns(UserWarning, match="Another callback"):
        fit(model, TrainUntilDone(verbose=0), stop, epochs=2**31)
    assert model.optimizer.training_steps is None
    assert not model.optimizer.has_switched


class TotalLoss(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.total = keras.metrics.Mean(name="total_loss")

    @property
    def metrics(self):
        return [self.total]

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x) - y) ** 2)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self.total.update_state(loss)
        return {"total_loss": self.total.result()}

    def test_step(self, data):
        self.total.update_state(0.0)
        return {"total_loss": self.total.result()}


@pytest.mark.parametrize("given", slow_but({False}, [False, True]))
def test_a_loss_of_another_name(given):
    model = TotalLoss()
    model.compile(new_model().optimizer, jit_compile=False)
    if given:
        trigger = Plateau("val_total_loss", patience=2, mode="min")
        callback = TrainUntilDone(trigger, verbose=0)
        fit(model, callback)
        assert callback.done
    else:
        with pytest.raises(ValueError, match="val_total_loss.*total_loss"):
            fit(model, TrainUntilDone(verbose=0))


def test_messages_begin_a_line(capsys):
    model = new_model()
    callbacks = [TrainUntilDone(AtStep(STEPS))]
    model.fit(X, Y, 4, 3, 1, callbacks, validation_data=VALIDATION)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("Epoch 1: AtStep") for line in lines) == 1
    assert sum(line.startswith("Done in epoch") for line in lines) == 1


def test_messages_of_the_guard_begin_a_line(capsys):
    model = new_model()
    model.fit(X, Y, 4, 1, 0)
    x = X.copy()
    x[-1] = np.nan
    guard = DivergenceGuard()
    model.fit(x, Y, 4, 1, 1, [guard], shuffle=False)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("Epoch 1, batch 8: diverged") for line in lines)


def test_another_callback_reads_the_models_own_metrics():
    model = new_model()
    read, logged = [], []

    def look(epoch, logs):
        read.append(float(model.get_metrics_result()["accuracy"]))
        logged.append(logs["val_accuracy"])

    look = keras.callbacks.LambdaCallback(on_epoch_end=look)
    fit(model, TrainUntilDone(NEVER, verbose=0), look, epochs=3)
    # After an epoch Keras' metrics are the validation's.
    assert read == pytest.approx(logged)
