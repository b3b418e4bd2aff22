"""What users do around `fit`: other optimizers, averages, broken-off fits."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from inside import state
from small import Kill, Killed, quiet_fit

from keras_hybrid import (
    DivergenceGuard,
    ExactBackup,
    HybridOptimizer,
    SwitchCallback,
)
from keras_hybrid.callbacks import Diverged
from keras_hybrid.recipes import Plan
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import AtEpoch

BATCH, STEPS = 8, 4  # Updates an epoch.

_RANDOM = np.random.default_rng(0)

X = _RANDOM.normal(size=(BATCH * STEPS, 4)).astype("float32")

Y = (X @ _RANDOM.normal(size=(4, 1))).astype("float32")


def new_model(metrics=(), **kwargs):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4, "tanh"),
            keras.layers.Dense(1),
        ]
    )
    arguments = {"learning_rate": 0.01, "jit_compile": False}
    model.compile(
        HybridOptimizer(**arguments | kwargs), "mse", metrics=list(metrics)
    )
    return model


def fit(model, *callbacks, x=X, y=Y, epochs=4, **kwargs):
    arguments = {"x": x, "y": y, "batch_size": BATCH, "epochs": epochs}
    return quiet_fit(model, *callbacks, **arguments, **kwargs)


def weights_of(model):
    return [np.array(w) for w in model.get_weights()]


def assert_equal(weights, others):
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(one, other)


def resumed_and_unbroken(make, train, path):
    """Weights of a fit killed in its third epoch and resumed, and of another.

    `train(model, backup, *more)` fits with these callbacks.
    """
    whole = make()
    train(whole, ExactBackup(path))
    killed = make()
    with pytest.raises(Killed):
        train(killed, ExactBackup(path), Kill(2))
    resumed = make()
    train(resumed, ExactBackup(path))
    return weights_of(resumed), weights_of(whole)


class TwoOptimizers(keras.Model):
    """As a GAN's model: a part each for the compiled one and another."""

    def __init__(self):
        super().__init__()
        self.first, self.second = keras.layers.Dense(4), keras.layers.Dense(1)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((None, 4))
        self.built = True

    def call(self, x):
        return self.second(self.first(x))

    def train_step(self, data):
        x, y = data
        parts = [
            layer.trainable_variables for layer in (self.first, self.second)
        ]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x) - y) ** 2)
        grads = tape.gradient(loss, parts)
        for optimizer, grad, part in zip(
            (self.optimizer, self.other), grads, parts, strict=True
        ):
            optimizer.apply(grad, part)
        return {"loss": loss}


def two_optimizers(is_built=True):
    keras.utils.set_random_seed(1)
    model = TwoOptimizers()
    model.build((None, 4))
    model.compile(HybridOptimizer(0.01, jit_compile=False))
    model.other = HybridOptimizer(0.01, jit_compile=False)
    model.optimizer.build(model.first.trainable_variables)
    if is_built:
        model.other.build(model.second.trainable_variables)
    return model


@pytest.mark.slow
def test_a_second_optimizer_is_backed_up(tmp_path):
    assert_equal(
        *resumed_and_unbroken(two_optimizers, fit, tmp_path / "backup.npz")
    )


def test_a_second_optimizer_goes_back():
    x = X.copy()
    x[2 * BATCH : 3 * BATCH] = np.nan
    model = two_optimizers()
    guard = DivergenceGuard(snapshot_every=1, verbose=0)
    fit(model, guard, x=x, epochs=1)
    for optimizer in (model.optimizer, model.other):
        # The third of four updates is undone; of two snapshots, the second is
        # still on trial.
        assert int(optimizer.iterations.numpy()) == 2
        assert all(np.isfinite(v.numpy()).all() for v in optimizer.variables)


def test_a_second_optimizer_must_be_built(tmp_path):
    with pytest.raises(ValueError, match=r"`other` must be built.*built=False"):
        fit(two_optimizers(is_built=False), ExactBackup(tmp_path / "a.npz"))


@pytest.mark.slow
@pytest.mark.parametrize("swap_first", [True, False])
def test_averages_in_the_model_are_not_backed_up(tmp_path, swap_first):
    """SwapEMAWeights gives the weights back when the next epoch begins."""

    def train(model, *callbacks):
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
        both = [swap, *callbacks] if swap_first else [*callbacks, swap]
        fit(model, *both)

    make = functools.partial(new_model, use_ema=True, ema_momentum=0.9)
    assert_equal(*resumed_and_unbroken(make, train, tmp_path / "backup.npz"))


@pytest.mark.parametrize("swap_first", [True, False])
def test_averages_in_the_model_do_not_become_the_weights(swap_first):
    seen = {}

    class Poison(keras.callbacks.Callback):
        """Spoils a weight in the second update after the switch."""

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_begin(self, batch, logs=None):
            kernel = self.model.layers[0].kernel
            if (self.epoch, batch) == (3, 0):
                seen["at_switch"] = kernel.numpy()
            if (self.epoch, batch) == (3, 1):
                kernel.assign(np.full(kernel.shape, np.nan))

        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch) == (3, 1):
                seen["back"] = self.model.layers[0].kernel.numpy()

    model = new_model(use_ema=True, ema_momentum=0.9, sgd_learning_rate=0.01)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    guard = DivergenceGuard(snapshot_every=STEPS, verbose=0)
    both = [swap, guard] if swap_first else [guard, swap]
    fit(model, *both, SwitchCallback(AtEpoch(3), verbose=0), Poison())
    np.testing.assert_array_equal(seen["back"], seen["at_switch"])


@pytest.mark.slow
@pytest.mark.parametrize("backup_first", [True, False])
def test_a_restart_may_ask_for_more_epochs(tmp_path, backup_first):
    def train(model, epochs, *more):
        backup = ExactBackup(tmp_path / "backup.npz")
        switch = SwitchCallback(AtEpoch(1), verbose=0)
        both = [backup, switch] if backup_first else [switch, backup]
        return fit(model, *both, *more, epochs=epochs)

    with pytest.raises(Killed):
        train(new_model(cooldown=Cooldown()), 4, Kill(2))
    history = train(new_model(cooldown=Cooldown()), 8)
    # Epochs 0 and 1 are those of the first call, with its length.
    left = np.array(history["cooldown"][2:])
    assert (np.diff(left) < 0).all()
    assert left[-2] > 0
    assert left[-1] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_metrics_that_are_arrays_are_backed_up(tmp_path):
    def make():
        return new_model(metrics=[keras.metrics.F1Score(threshold=0.5)])

    scores = []

    def train(model, *callbacks):
        labels = (Y > 0).astype("float32")
        scores.append(fit(model, *callbacks, y=labels)["f1_score"])

    path = tmp_path / "backup.npz"
    assert_equal(*resumed_and_unbroken(make, train, path))
    unbroken, resumed = scores
    np.testing.assert_array_equal(resumed, unbroken)


@pytest.fixture
def mixed_float16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.slow
def test_loss_scaling_is_built_once(mixed_float16, tmp_path):
    model = new_model()
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    callbacks = SwitchCallback(verbose=0), DivergenceGuard(verbose=0)
    fit(model, *callbacks, epochs=1)
    count = len(model.optimizer.variables)
    model.optimizer.dynamic_scale.assign(1024.0)
    fit(model, *callbacks, epochs=1)
    assert len(model.optimizer.variables) == count
    assert float(model.optimizer.dynamic_scale.numpy()) == 1024
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert float(again.optimizer.dynamic_scale.numpy()) == 1024


def test_a_new_training_has_a_usual_loss_of_its_own():
    model = new_model()
    guard = DivergenceGuard(factor=3.0, snapshot_every=2, verbose=0)
    fit(model, guard, y=0.01 * Y)
    # Ten thousand times the loss.
    history = fit(model, guard, y=Y)
    assert history["divergences"] == [0] * 4
    assert history["loss"][-1] < history["loss"][0]


def test_a_fit_that_goes_on_keeps_the_usual_loss():
    model = new_model()
    guard = DivergenceGuard(factor=3.0, snapshot_every=2, verbose=0)
    fit(model, guard, y=0.01 * Y)
    usual = float(state(model.optimizer, "usual_loss").numpy())
    assert usual > 0
    history = fit(model, guard, y=0.01 * Y, initial_epoch=4, epochs=5)
    assert history["divergences"] == [0]
    x = X.copy()
    x[0] *= 1e3
    history = fit(model, guard, x=x, y=Y, initial_epoch=5, epochs=6)
    assert history["divergences"][0] > 0


def test_a_file_after_a_fit_broken_off_within_an_epoch_decides_nothing(
    tmp_path,
):
    model = new_model()
    with pytest.raises(Killed):
        fit(model, SwitchCallback(AtEpoch(1), verbose=0), Kill(0))
    model.save(tmp_path / "model.keras")
    assert not model.optimizer.has_switched


def test_a_file_after_the_guard_gave_up_decides_nothing(tmp_path):
    x = X.copy()
    x[-BATCH:] = np.nan  # In the epoch's last batch.
    model = new_model()
    guard = DivergenceGuard(max_retries=0, verbose=0)
    with pytest.raises(Diverged):
        fit(model, SwitchCallback(AtEpoch(1), verbose=0), guard, x=x)
    model.save(tmp_path / "model.keras")
    assert not model.optimizer.has_switched


def test_a_next_fit_without_the_callback_does_not_switch(tmp_path):
    model = new_model()
    switch = SwitchCallback(AtEpoch(1), verbose=0)
    with pytest.raises(Killed):
        fit(model, Kill(0, at_end=True), switch)
    fit(model, keras.callbacks.ModelCheckpoint(tmp_path / "model.keras"))
    assert not model.optimizer.has_switched


def test_without_an_estimate_the_training_goes_on():
    y = Y.copy()
    y[3] = np.nan
    model = new_model()
    with pytest.warns(UserWarning, match=r"AtEpoch\(n=2\).*not a finite"):
        history = fit(
            model, SwitchCallback(AtEpoch(2), verbose=0), y=y, epochs=3
        )
    assert history["switch_step"] == [-1, -1, -1]
    with pytest.raises(ValueError, match=r"positive, finite.*iterations="):
        model.optimizer.switch()


def test_the_trigger_is_asked_again_where_there_was_no_estimate():
    model = new_model()

    class Unknown(keras.callbacks.Callback):
        """Takes the estimate away at the end of the first epoch."""

        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                for variable in model.optimizer.variables:
                    if "first_moment" in variable.path:
                        variable.assign(np.zeros(variable.shape))

    with pytest.warns(UserWarning, match="asked again"):
        history = fit(
            model, Unknown(), SwitchCallback(AtEpoch(1), verbose=0), epochs=12
        )
    assert history["switch_step"][0] == -1
    assert model.optimizer.has_switched


@pytest.mark.parametrize("scope", ["model", "layer", "variable"])
def test_a_frozen_model_is_no_error(scope):
    model = new_model(scope=scope)
    model.trainable = False
    model.compile(HybridOptimizer(0.01, scope=scope), "mse")
    with pytest.warns(UserWarning):  # Keras': there is nothing to train.
        fit(model, SwitchCallback(AtEpoch(3), verbose=0), epochs=1)


def test_layers_made_by_the_first_batch():
    class Late(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def build(self, shape=None):
            self.built = True

        def call(self, x):
            return self.dense(x)

    model = Late()
    model.build()
    model.compile(HybridOptimizer(0.01, jit_compile=False), "mse")
    guard = DivergenceGuard(verbose=0)
    history = fit(model, SwitchCallback(AtEpoch(1), verbose=0), guard)
    assert history["switch_step"][-1] == STEPS
    assert history["loss"][-1] < history["loss"][0]


def test_a_skipped_batch_leaves_the_others_in_the_metrics():
    y = Y.copy()
    y[2 * BATCH] = np.nan
    model = new_model(learning_rate=0.0, skip_nonfinite=True)
    guard = DivergenceGuard(snapshot_every=50, verbose=0)
    history = fit(model, guard, y=y, epochs=2)
    good = np.r_[0 : 2 * BATCH, 3 * BATCH : 4 * BATCH]
    expected = model.evaluate(X[good], Y[good], verbose=0)
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)
    assert history["skipped_steps"] == [1, 2]
    assert history["divergences"] == [0, 0]


def test_a_skipped_first_batch_leaves_the_epoch_before_out():
    y = Y.copy()
    y[0] = np.nan
    model = new_model(skip_nonfinite=True)
    history = fit(model, DivergenceGuard(verbose=0), y=y, epochs=3)
    expected = fit(new_model(), x=X[BATCH:], y=Y[BATCH:], epochs=3)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)
    assert history["skipped_steps"] == [1, 2, 3]


def test_an_assigned_argument_reaches_the_next_fit():
    model = new_model()
    optimizer = model.optimizer
    callback = SwitchCallback(AtEpoch(9), verbose=0)
    fit(model, callback, epochs=1)
    traced = model.train_function
    fit(model, callback, epochs=1)
    assert model.train_function is traced
    optimizer.cooldown = Cooldown("linear", steps=STEPS)
    optimizer.switch()
    ends = []
    noted = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(weights_of(model))
    )
    fit(model, callback, noted, epochs=2)
    assert_equal(*ends)


def test_a_skipped_batch_after_a_rollback_brings_nothing_undone_back():
    class Losses(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(logs["loss"])

    losses = []
    x, y = np.concatenate([X, X]), np.concatenate([Y, Y])
    # The first is skipped, the second a divergence, the third is skipped.
    y[1 * BATCH : 4 * BATCH] = np.nan
    guard = DivergenceGuard(snapshot_every=50, verbose=0)
    fit(new_model(skip_nonfinite=True), guard, Losses(), x=x, y=y, epochs=1)
    # Back before the first batch, of whose loss nothing is left.
    assert losses[1] == losses[0] > 0
    assert losses[3] == losses[2] == 0


def test_a_plan_leaves_an_epoch_to_sgd():
    epochs = [2, 3, 4, 10]
    late = [Plan(fraction=0.9).switch_epoch(n) for n in epochs]
    assert late == [1, 2, 3, 9]
    assert Plan(fraction=0.9).switch_epoch(1) == 1
    assert [Plan(fraction=1.0).switch_epoch(n) for n in epochs] == epochs
