"""TrainUntilDone in `fit`."""

import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import slow_but
from small_fits import (
    BATCH,
    STEPS,
    VALIDATION,
    Kill,
    X,
    Y,
    assert_same,
    backup,
    fit,
    new_model,
)

from keras_hybrid import (
    ExactBackup,
    HybridOptimizer,
    SwitchCallback,
    TrainUntilDone,
)
from keras_hybrid.callbacks import averages
from keras_hybrid.transitions import Cooldown, Hard
from keras_hybrid.triggers import AtEpoch, AtStep, MetricReached, Plateau, Slope

NEVER = MetricReached("loss", -1.0)
# It looks at the average, and never fires.
NEVER_AVERAGED = MetricReached("averaged_val_loss", -1.0)


class Factors(keras.callbacks.Callback):
    """The cool-down's factor in each update."""

    def on_train_begin(self, logs=None):
        self.used = []

    def on_train_batch_begin(self, batch, logs=None):
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        self.used.append(optimizer.cooldown_factor)


def test_it_ends_itself(capsys):
    model = new_model()
    callback = TrainUntilDone()
    history = fit(model, callback, epochs=200).history
    optimizer = model.optimizer
    made = optimizer.updates_made
    assert callback.done
    assert optimizer.has_switched
    assert len(history["loss"]) < 200
    # Epoch 8's end is after 64 updates, half of which are 32.
    assert made == optimizer.switch_step + round(optimizer.switch_step / 2)
    assert optimizer.cooldown_factor == 0
    assert "averaged_val_loss" in history
    said = capsys.readouterr().out
    assert "averaged weights has had no new best for 3 epochs" in said
    assert "saved" in said


def test_the_cooldown_just_fits_into_the_ceiling():
    model = new_model(cooldown=Cooldown("linear"))
    factors = Factors()
    callback = TrainUntilDone(NEVER, verbose=0)
    fit(model, callback, factors, epochs=9)
    assert callback.done
    assert model.optimizer.switch_step == 9 * STEPS * 2 // 3
    assert model.optimizer.updates_made == 9 * STEPS
    # Linear: the last update has 1 / length.
    length = 9 * STEPS // 3
    np.testing.assert_allclose(factors.used[-1], 1 / length, rtol=1e-6)
    assert model.optimizer.cooldown_factor == 0


@pytest.mark.slow
def test_it_adds_nothing_to_the_updates():
    switch, share = 3 * STEPS, 0.4
    model = new_model()
    fit(model, TrainUntilDone(AtEpoch(3), share=share, verbose=0))
    other = new_model(trigger=AtStep(switch), cooldown=Cooldown(share=share))
    length = round(share * switch)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH).repeat()
    steps = switch + length
    other.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0)
    for a, b in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize(
    "trigger",
    [
        pytest.param(AtStep(19), marks=pytest.mark.slow),
        AtEpoch(2) | NEVER,
        pytest.param(NEVER, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "steps_per_execution", [1, pytest.param(3, marks=pytest.mark.slow)]
)
def test_the_length_is_the_share(trigger, steps_per_execution):
    model = new_model(steps_per_execution=steps_per_execution)
    fit(model, TrainUntilDone(trigger, share=0.5, verbose=0), epochs=6)
    optimizer = model.optimizer
    assert (
        optimizer.switch_step
        == {
            repr(AtStep(19)): 19,
            repr(AtEpoch(2) | NEVER): 16,
            repr(NEVER): {1: 32, 3: 32}[steps_per_execution],
        }[repr(trigger)]
    )
    end = optimizer.switch_step + round(optimizer.switch_step / 2)
    assert optimizer.cooldown_end == end
    # A call of the compiled step is not interrupted.
    assert end <= optimizer.updates_made < end + steps_per_execution


def test_the_averaged_weights_are_validated():
    model = new_model(keras.layers.BatchNormalization())
    ends = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: ends.append([w.numpy() for w in model.weights])
    )
    callback = TrainUntilDone(Plateau("averaged_val_loss", 9), verbose=0)
    history = fit(model, callback, record, epochs=4).history
    # The ceiling's switch is in the third epoch: two are averaged.
    average = ends[0]
    for e, weights in enumerate(ends[:2], start=1):
        average = [
            a + (w - a) * 9 / (e + 8)
            for a, w in zip(average, weights, strict=True)
        ]
        model.set_weights(average)
        loss, accuracy = model.evaluate(*VALIDATION, verbose=0)
        np.testing.assert_allclose(
            history["averaged_val_loss"][e - 1], loss, rtol=1e-5
        )
        assert history["averaged_val_accuracy"][e - 1] == accuracy
    # All of equal length, as pandas wants them.
    assert len({len(values) for values in history.values()}) == 1
    assert np.isnan(history["averaged_val_loss"][2:]).all()


@pytest.mark.slow
def test_validating_the_average_changes_nothing():
    runs = []
    for trigger in (Plateau("averaged_val_loss", 99), Plateau(patience=99)):
        model = new_model(keras.layers.BatchNormalization())
        runs.append((model, fit(model, TrainUntilDone(trigger), epochs=5)))
    (one, first), (other, second) = runs
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        assert first.history[name] == second.history[name]
    for a, b in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def ends_at(monkeypatch, accuracies):
    """The validation of the average, epoch by epoch."""
    values = iter(accuracies)
    monkeypatch.setattr(
        averages,
        "validate",
        lambda model: {"loss": 1.0, "accuracy": next(values)},
    )


def test_the_better_weights_are_kept(monkeypatch, capsys):
    # The average is best in the second epoch, and its loss never again.
    ends_at(monkeypatch, [0.5, 1.5, 1.5, 1.0])
    model = new_model()
    ends = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: ends.append([w.numpy() for w in model.weights])
    )
    history = fit(model, TrainUntilDone(), record).history
    assert model.optimizer.switch_step == 4 * STEPS
    assert len(ends) == 6
    first, second = ends[:2]
    for now, a, b in zip(model.weights, first, second, strict=True):
        np.testing.assert_allclose(
            now.numpy(), a + (b - a) * 9 / 10, rtol=1e-6, atol=1e-7
        )
    said = capsys.readouterr().out
    end = history["val_accuracy"][-1]
    assert "averaged weights of epoch 2 are better" in said
    assert f"(val_accuracy 1.5000, at the end {end:.4f})" in said


@pytest.mark.parametrize("judge", slow_but({"loss"}, ["accuracy", "loss"]))
def test_a_loss_that_is_lost_ends_it_with_the_average(judge, monkeypatch):
    ends_at(monkeypatch, [0.5, 1.5, 1.5, 1.0])
    model = new_model()
    if judge == "loss":
        losses = iter([0.5, 0.7, 0.7, 0.6])
        monkeypatch.setattr(
            averages, "validate", lambda model: {"loss": next(losses)}
        )
        model.compile(model.optimizer, model.loss)

    def spoil(epoch, logs=None):
        if epoch == 4:
            model.weights[0].assign(model.weights[0] * np.nan)

    best = {"accuracy": 2, "loss": 1}[judge]
    spoiler = keras.callbacks.LambdaCallback(on_epoch_begin=spoil)
    callback = TrainUntilDone(verbose=0)
    with pytest.warns(UserWarning, match=f"epoch 5, .* of epoch {best}[.]"):
        history = fit(model, callback, spoiler).history
    assert model.optimizer.has_switched
    assert len(history["loss"]) == 5
    assert np.isnan(history["loss"][-1])
    assert callback.done
    for now, best in zip(
        model.weights, callback.companion().best_weights, strict=True
    ):
        np.testing.assert_array_equal(now.numpy(), best)
        assert np.isfinite(now.numpy()).all()


@pytest.mark.slow
def test_the_cooled_weights_are_kept_if_they_are_better(monkeypatch):
    ends_at(monkeypatch, [0.01] * 4)
    model = new_model()
    ends = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: ends.append([w.numpy() for w in model.weights])
    )
    fit(model, TrainUntilDone(verbose=0), record)
    for now, end in zip(model.weights, ends[-1], strict=True):
        np.testing.assert_array_equal(now.numpy(), end)


def test_the_judge_is_an_accuracy_or_the_loss():
    assert averages.judge(["loss", "mae", "binary_accuracy"]) == (
        "binary_accuracy"
    )
    assert averages.judge(["loss", "mae"]) == "loss"
    assert averages.judge(["top_5_acc", "loss", "accuracy"]) == "accuracy"
    assert averages.judge(["loss", "top_k_accuracy"]) == "top_k_accuracy"
    # The accuracy of a model that says the frequent class alone is high.
    assert averages.judge(["loss", "accuracy", "auc_1"]) == "auc_1"
    assert averages.judge(["accuracy", "auc", "weighted_accuracy"]) == (
        "weighted_accuracy"
    )
    assert averages.is_better("auc_1", 0.9, 0.8)
    # Of two outputs no accuracy speaks for both.
    two = ["kind_accuracy", "kind_loss", "loss", "price_loss"]
    assert averages.judge(two) == "loss"
    assert averages.is_better("accuracy", 0.9, 0.8)
    assert averages.is_better("loss", 0.8, 0.9)
    assert not averages.is_better("loss", float("nan"), 0.9)
    assert not averages.is_better("loss", 0.9, 0.9)


# Which backup, whether it comes first, and where the kill is as a fraction of
# the run: each backup in either order, each at every place.
PLACES = (0.02, 0.3, 0.6, 0.75, 0.9)
KILLS = [
    (kind, (i + j) % 2 == 0, place)
    for (i, kind), (j, place) in itertools.product(
        enumerate(("keras", "exact"), 1), enumerate(PLACES)
    )
]
QUICK = {("keras", True, 0.75)}


@pytest.mark.parametrize(
    ("kind", "first", "place"),
    [
        pytest.param(*k, marks=() if k in QUICK else pytest.mark.slow)
        for k in KILLS
    ],
)
def test_a_killed_fit_goes_on(kind, first, place, tmp_path):
    whole = new_model(rate=0.1)
    expected = fit(whole, TrainUntilDone(verbose=0), epochs=24).history
    batches = len(expected["loss"]) * STEPS
    killed = new_model(rate=0.1)
    with pytest.raises(KeyboardInterrupt):
        fit(
            killed,
            TrainUntilDone(verbose=0),
            backup(kind, tmp_path),
            Kill(int(place * batches)),
            epochs=24,
        )
    model = new_model(rate=0.1)
    callbacks = [TrainUntilDone(verbose=0), backup(kind, tmp_path)]
    done = callbacks[0]
    history = fit(
        model, *(callbacks[::-1] if first else callbacks), epochs=24
    ).history
    assert done.done
    assert_same(model, whole)
    rest = len(history["loss"])
    assert history["loss"] == expected["loss"][-rest:]


@pytest.mark.slow
def test_files_of_a_training_load_without_the_callback(tmp_path):
    path = str(tmp_path / "model.keras")
    model = new_model()
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    fit(model, TrainUntilDone(NEVER | Plateau(patience=99)), checkpoint)
    saved = keras.models.load_model(path)
    assert saved.optimizer.updates_made == model.optimizer.updates_made
    fit(new_model(), TrainUntilDone(), checkpoint, epochs=2)
    keras.models.load_model(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved = keras.models.load_model(path)
    # Two thirds of 16, and the half of that.
    assert saved.optimizer.updates_made == 10 + 5


def test_validation_data_with_nan_are_no_divergence():
    model = new_model()
    x = VALIDATION[0].copy()
    x[0] = np.nan
    with pytest.warns(UserWarning, match="look at the validation data"):
        history = fit(
            model,
            TrainUntilDone(AtEpoch(2) | NEVER_AVERAGED, verbose=0),
            validation_data=(x, VALIDATION[1]),
        ).history
    assert len(history["loss"]) == 3
    assert model.optimizer.updates_made == 3 * STEPS
    assert model.optimizer.cooldown_factor == 0


def test_a_second_fit_begins_anew(capsys):
    model = new_model()
    callback = TrainUntilDone(AtEpoch(2))
    fit(model, callback)
    assert model.optimizer.updates_made == 3 * STEPS
    factors = Factors()
    fit(model, callback, factors)
    assert callback.done
    assert factors.used[: 2 * STEPS] == [1.0] * 2 * STEPS
    assert len(factors.used) == 3 * STEPS
    assert model.optimizer.updates_made == 6 * STEPS
    assert "begins anew" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("final", "again"),
    [(0.5, True), pytest.param(1.0, False, marks=pytest.mark.slow)],
)
def test_a_second_fit_does_not_leap_back_into_a_cooldown(final, again):
    model = new_model(cooldown=Cooldown(final=final))
    fit(model, SwitchCallback(AtEpoch(1), verbose=0), epochs=2)
    assert model.optimizer.cooldown_factor == final
    switched = model.optimizer.switch_step
    factors = Factors()
    fit(model, SwitchCallback(verbose=0), factors, epochs=2)
    assert factors.used == [1.0] * 2 * STEPS
    assert model.optimizer.switch_step == (None if again else switched)


@pytest.mark.slow
def test_a_second_fit_of_a_cooled_model_does_not_rest():
    model = new_model(cooldown=Cooldown())
    fit(model, SwitchCallback(AtEpoch(2), verbose=0), epochs=4)
    assert model.optimizer.cooldown_factor == 0
    factors = Factors()
    fit(model, SwitchCallback(AtEpoch(2), verbose=0), factors, epochs=4)
    assert factors.used[: 2 * STEPS] == [1.0] * 2 * STEPS
    assert min(factors.used) > 0
    assert model.optimizer.cooldown_factor == 0
    started = new_model(
        trigger=AtStep(0), sgd_learning_rate=0.1, cooldown=Cooldown()
    )
    for _ in range(2):
        fit(started, SwitchCallback(verbose=0), factors, epochs=2)
        assert started.optimizer.has_switched
        assert factors.used[0] == 1
        assert started.optimizer.cooldown_factor == 0


@pytest.mark.parametrize(
    "fresh",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["one", "new"],
)
def test_epochs_one_by_one(fresh, capsys):
    whole = new_model()
    fit(whole, TrainUntilDone(AtEpoch(2), verbose=0))
    model = new_model()
    callback = TrainUntilDone(AtEpoch(2))
    fits = 0
    while True:
        fit(model, callback, epochs=1)
        fits += 1
        if callback.done:
            break
        if fresh:
            callback = TrainUntilDone(AtEpoch(2))
    assert fits == 3
    assert_same(model, whole, but=["training_steps"])
    assert "a piece of a longer training" in capsys.readouterr().out


@pytest.mark.slow
def test_the_average_is_kept_from_fit_to_fit():
    whole, model = new_model(), new_model()
    plateau = Plateau("averaged_val_loss", patience=3)
    expected = fit(whole, TrainUntilDone(plateau, verbose=0), epochs=99).history
    seen = []
    callback = TrainUntilDone(plateau, verbose=0)
    while not callback.done:
        callback = TrainUntilDone(plateau, verbose=0)
        seen += fit(model, callback, epochs=1).history.get(
            "averaged_val_loss", []
        )
    np.testing.assert_array_equal(seen, expected["averaged_val_loss"])
    assert_same(model, whole, but=["training_steps"])


@pytest.mark.slow
def test_switch_callback_counts_from_fit_to_fit():
    model = new_model()
    for _ in range(4):
        fit(model, SwitchCallback(AtEpoch(3), verbose=0), epochs=1)
    assert model.optimizer.switch_step == 3 * STEPS


# A call of the compiled step that meets the end of the data counts an update in
# TensorFlow, though none is made: ends of unknown places move.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("known", [True, False])
def test_data_of_unknown_length(known):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)
    if not known:
        data = data.filter(lambda *_: True)
    model = new_model()
    callback = TrainUntilDone(NEVER, verbose=0)
    history = fit(model, callback, data=data, epochs=6).history
    assert callback.done
    assert len(history["loss"]) == 6
    assert abs(model.optimizer.switch_step - 4 * STEPS) <= (0 if known else 4)
    until_the_end = new_model(cooldown=Cooldown("linear"), trigger=AtStep(11))
    fit(until_the_end, SwitchCallback(verbose=0), data=data, epochs=3)
    assert until_the_end.optimizer.cooldown_factor == 0


def test_data_that_end_within_an_epoch():
    """Keras begins anew with the next one: every other epoch has one batch."""
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)
    model = new_model()
    with pytest.warns(UserWarning, match="ran out of data"):
        fit(
            model,
            TrainUntilDone(NEVER, verbose=0),
            data=data,
            epochs=10,
            steps_per_epoch=STEPS - 1,
        )
    # 7 + 1 + 7 + 1 + ...: the cool-down is a third of 40.
    assert abs(model.optimizer.switch_step - 27) <= 1
    assert model.optimizer.updates_made in (39, 40)


def test_pieces_of_a_loop_that_is_started_again(tmp_path):
    """As they were before: no piece is a whole training."""

    def script(epochs):
        model, until_done = new_model(), TrainUntilDone(NEVER, verbose=0)
        path = tmp_path / "kept.npz"
        for epoch in range(ExactBackup(path).next_epoch, epochs):
            kept = ExactBackup(path, delete_checkpoint=False)
            fit(model, kept, until_done, epochs=epoch + 1, initial_epoch=epoch)
            assert not until_done.done
        return model.optimizer

    script(2)
    assert not script(4).has_switched


def test_another_callbacks_metric_of_the_validation():
    class Adds(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_f1"] = 0.5

    history = fit(
        new_model(), Adds(), TrainUntilDone(verbose=0), epochs=6
    ).history
    assert {len(values) for values in history.values()} == {
        len(history["loss"])
    }
    assert "averaged_val_f1" not in history


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_an_end_that_moves():
    """Epochs of 8, 5 and then 6 batches."""
    lengths = iter([8, 5, 6, 6, 6, 6])

    def batches():
        for i in range(next(lengths) * BATCH):
            yield X[i % len(X)], Y[i % len(Y)]

    data = tf.data.Dataset.from_generator(
        batches,
        output_signature=(tf.TensorSpec((5,)), tf.TensorSpec((1,))),
    ).batch(BATCH)
    model = new_model(cooldown=Cooldown("linear"), trigger=AtStep(9))
    left = []

    def look(*_):
        optimizer = model.optimizer
        if optimizer.training_steps is not None:
            left.append(optimizer.training_steps - optimizer.updates_made)

    record = keras.callbacks.LambdaCallback(on_epoch_begin=look)
    fit(
        *(model, SwitchCallback(verbose=0), record),
        data=data,
        epochs=5,
        validation_data=None,
    )
    # What is left is told by the epoch before; of the first nothing is known.
    assert left == [4 * 8, 3 * 5, 2 * 6, 6]
    assert model.optimizer.cooldown_factor == 0


@pytest.mark.slow
def test_skipped_updates_do_not_count():
    """One overflow an epoch, with mixed precision's loss scaling."""
    x = np.array(X)
    x[5 * BATCH] = np.inf
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    optimizer = HybridOptimizer(
        0.01,
        cooldown=Cooldown("linear"),
        trigger=AtStep(14),
        sgd_scale=1.0,
        jit_compile=False,
    )
    model.compile(
        keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0), "mse"
    )
    factors = Factors()
    fit(model, SwitchCallback(verbose=0), factors, data=(x, Y), epochs=4)
    assert optimizer.updates_made == 4 * (STEPS - 1)
    assert factors.used[-1] == pytest.approx(1 / 14, rel=1e-6)
    assert optimizer.cooldown_factor == 0
    done = TrainUntilDone(NEVER, verbose=0)
    fit(model, done, factors, data=(x, Y), epochs=6)
    assert done.done
    assert optimizer.cooldown_factor == 0


@pytest.mark.slow
def test_accumulated_gradients():
    model = new_model(gradient_accumulation_steps=2)
    fit(model, TrainUntilDone(NEVER, verbose=0), epochs=6)
    optimizer = model.optimizer
    assert optimizer.switch_step == 2 * STEPS
    assert optimizer.updates_made == 3 * STEPS
    assert optimizer.cooldown_factor == 0


def test_without_validation_the_training_loss_decides():
    model = new_model()
    callback = TrainUntilDone(verbose=0)
    fit(model, callback, epochs=12, validation_data=None)
    assert isinstance(callback.trigger, Slope)
    assert callback.done


@pytest.mark.slow
def test_validation_of_every_other_epoch():
    model = new_model()
    callback = TrainUntilDone(verbose=0)
    fit(model, callback, epochs=300, validation_freq=2)
    assert isinstance(callback.trigger, Plateau)
    assert callback.done
    assert model.optimizer.updates_made < 300 * STEPS


@pytest.mark.slow
def test_the_better_epoch_is_counted_with_those_not_validated(
    monkeypatch, capsys
):
    ends_at(monkeypatch, [0.5, 1.5, 1.5, 1.0])
    fit(new_model(), TrainUntilDone(), epochs=30, validation_freq=2)
    assert "averaged weights of epoch 4 are better" in capsys.readouterr().out


def test_without_a_stop_the_last_epoch_is_no_piece():
    model = new_model()
    callback = TrainUntilDone(AtEpoch(99), stop=False, verbose=0)
    fit(model, callback, initial_epoch=9, epochs=10)
    assert callback.done
    assert model.optimizer.updates_made == STEPS
    assert model.optimizer.cooldown_factor == 0


@pytest.mark.slow
def test_one_callback_for_two_models():
    """What it chose for the first is not what the second is given."""
    callback = TrainUntilDone(verbose=0)
    fit(new_model(trigger=AtStep(9)), callback, epochs=30)
    again, other = new_model(), new_model()
    seen = fit(again, callback, epochs=30).history
    expected = fit(other, TrainUntilDone(verbose=0), epochs=30).history
    np.testing.assert_array_equal(
        seen["averaged_val_loss"], expected["averaged_val_loss"]
    )
    assert_same(again, other)


def test_a_loop_of_ones_own_tells_the_length():
    def loop(**length):
        model = new_model()
        callback = TrainUntilDone(AtEpoch(2), verbose=0)
        callbacks = keras.callbacks.CallbackList(
            [callback], model=model, **length
        )
        callbacks.on_train_begin()
        for epoch in range(9):
            callbacks.on_epoch_begin(epoch)
            for batch in range(STEPS):
                callbacks.on_train_batch_begin(batch)
                part = slice(BATCH * batch, BATCH * (batch + 1))
                logs = model.train_on_batch(X[part], Y[part], return_dict=True)
                callbacks.on_train_batch_end(batch, logs)
            model.reset_metrics()
            callbacks.on_epoch_end(epoch, dict(logs))
            if model.stop_training:
                break
        callbacks.on_train_end()
        return model

    whole = new_model()
    fit(whole, TrainUntilDone(AtEpoch(2), verbose=0), epochs=9)
    assert_same(loop(epochs=9, steps=STEPS), whole)
    for length in ({}, {"steps": STEPS}):
        with pytest.raises(ValueError, match=r"CallbackList\(.*epochs=") as e:
            loop(**length)
        assert f"Received: {length or None}" in str(e.value)


@pytest.mark.slow
def test_without_a_stop_the_cooldown_lasts():
    model = new_model()
    callback = TrainUntilDone(AtEpoch(2), stop=False, verbose=0)
    factors = Factors()
    fit(model, callback, factors, epochs=10)
    assert model.optimizer.switch_step == 2 * STEPS
    assert len(factors.used) == 10 * STEPS
    assert min(factors.used) > 0
    assert model.optimizer.cooldown_factor == 0
    assert callback.done


@pytest.mark.slow
def test_adam_alone_may_cool_down(capsys):
    model = new_model(transition=Hard(0.0))
    callback = TrainUntilDone(AtEpoch(2))
    fit(model, callback)
    said = capsys.readouterr().out
    assert f"Adam goes on from update {2 * STEPS}" in said
    assert "SGD" not in said
    assert callback.done
    assert model.optimizer.sgd_fraction == 0


@pytest.mark.slow
def test_a_model_that_was_trained_without_it():
    model = new_model()
    fit(model, epochs=2)
    factors = Factors()
    fit(model, TrainUntilDone(AtEpoch(2), verbose=0), factors)
    # Of 2 + 2 epochs, the cool-down is half.
    assert len(factors.used) == 4 * STEPS
    assert model.optimizer.cooldown_factor == 0


@pytest.mark.slow
def test_it_says_who_interferes():
    model = new_model()
    early = keras.callbacks.EarlyStopping("loss", patience=1, mode="max")
    with pytest.warns(UserWarning, match="EarlyStopping"):
        fit(model, TrainUntilDone(verbose=0), early)
    model = new_model()
    reduce = keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=9)
    with pytest.warns(UserWarning, match="ReduceLROnPlateau") as found:
        fit(model, reduce, TrainUntilDone(NEVER, verbose=0), epochs=8)
    assert (
        len([w for w in found if "learning rate fell" in str(w.message)]) == 1
    )


@pytest.mark.slow
def test_early_stopping_that_waits_does_not_matter():
    model = new_model()
    early = keras.callbacks.EarlyStopping(
        patience=50, restore_best_weights=True
    )
    callback = TrainUntilDone(AtEpoch(3), verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, early, callback)
    assert callback.done


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"trigger": "val_loss"}, TypeError, "trigger"),
        ({"share": 0}, ValueError, "share"),
        ({"share": "half"}, TypeError, "share"),
        ({"stop": 1}, TypeError, "stop"),
        ({"verbose": 2}, ValueError, "verbose"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=f"`{text}`"):
        TrainUntilDone(**arguments)


def test_bad_models():
    model = new_model()
    model.compile("adam", "mse")
    with pytest.raises(
        ValueError, match=r"HybridOptimizer\(learning_rate=0.00"
    ):
        fit(model, TrainUntilDone())
    for options, text in (
        ({"cooldown": Cooldown(steps=3)}, "`share`"),
        (
            {"trigger": AtStep(0), "sgd_learning_rate": 0.1},
            "constant phase",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            fit(new_model(**options), TrainUntilDone())
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)
    with pytest.raises(ValueError, match="`epochs` is the ceiling"):
        fit(
            *(new_model(), TrainUntilDone()),
            data=data.filter(lambda *_: True),
            epochs=1,
        )
    with pytest.raises(ValueError, match="not in the logs"):
        fit(
            new_model(),
            TrainUntilDone(Plateau("averaged_val_loss")),
            validation_data=None,
        )
    with pytest.raises(ValueError, match="only one SwitchCallback"):
        fit(
            new_model(),
            SwitchCallback(AtEpoch(2)),
            TrainUntilDone(),
        )


@pytest.mark.parametrize(
    ("name", "value", "than", "better"),
    [
        ("loss", 0.5, 0.6, True),
        ("loss", 0.6, 0.5, False),
        ("accuracy", 0.5, 0.6, False),
        ("accuracy", 0.6, 0.5, True),
        ("loss", 0.5, np.nan, True),
        ("accuracy", 0.5, np.nan, True),
        ("loss", 0.5, np.inf, True),
        ("loss", np.nan, 0.5, False),
        ("accuracy", np.nan, np.nan, False),
        ("loss", np.inf, np.nan, False),
    ],
)
def test_any_number_is_better_than_none(name, value, than, better):
    assert averages.is_better(name, value, than) == better
