"""TrainUntilDone and what is written, read, or left by an earlier `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import slow_but
from small_fits import (
    BATCH,
    STEPS,
    Kill,
    X,
    Y,
    assert_same,
    backup,
    fit,
    new_model,
)

from keras_hybrid import SwitchCallback, TrainUntilDone
from keras_hybrid.callbacks import averages
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import AtEpoch, Plateau


@pytest.fixture
def perfect_average(monkeypatch):
    """The average is better than whatever the training ends with."""
    scores = {"loss": 0.0, "accuracy": 9.0}
    monkeypatch.setattr(averages, "validate", lambda model: scores)


def killed(model, batch, *callbacks, **options):
    with pytest.raises(KeyboardInterrupt):
        fit(model, *callbacks, Kill(batch), **options)


@pytest.mark.parametrize("first", slow_but({True}, [True, False]))
@pytest.mark.parametrize(
    "every", slow_but({STEPS}, [STEPS, 2 * STEPS, STEPS // 2])
)
def test_a_file_at_an_epochs_last_batch_changes_nothing(every, first, tmp_path):
    whole = new_model(rate=0.1)
    expected = fit(whole, TrainUntilDone(verbose=0)).history
    model = new_model(rate=0.1)
    writer = keras.callbacks.ModelCheckpoint(
        tmp_path / "last.weights.h5", save_weights_only=True, save_freq=every
    )
    callbacks = [writer, TrainUntilDone(verbose=0)]
    found = fit(model, *(callbacks if first else callbacks[::-1])).history
    np.testing.assert_equal(found, expected)
    assert_same(model, whole)


@pytest.mark.slow
def test_a_file_at_the_last_batch_keeps_a_switch_that_needs_no_validation(
    tmp_path,
):
    model = new_model()
    writer = keras.callbacks.ModelCheckpoint(
        tmp_path / "last.weights.h5", save_weights_only=True, save_freq=STEPS
    )
    fit(model, writer, TrainUntilDone(AtEpoch(2), verbose=0))
    assert model.optimizer.switch_step == 2 * STEPS


@pytest.mark.parametrize("after", slow_but({2}, [2, 5]))
def test_a_loaded_model_goes_on(after, tmp_path):
    path = tmp_path / "last.keras"
    whole = new_model(rate=0.1)
    expected = fit(whole, TrainUntilDone(verbose=0), epochs=24).history
    assert len(expected["loss"]) > 6
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    killed(
        *(new_model(rate=0.1), after * STEPS + 1),
        *(TrainUntilDone(verbose=0), checkpoint),
        epochs=24,
    )
    # What was not claimed is written on.
    keras.models.load_model(path).save(path)
    model = keras.models.load_model(path)
    found = fit(
        model, TrainUntilDone(verbose=0), epochs=24, initial_epoch=after
    ).history
    rest = {name: x[after:] for name, x in expected.items()}
    np.testing.assert_equal(found, rest)
    assert_same(model, whole)


@pytest.mark.slow
def test_what_was_loaded_is_outdated_after_an_update(tmp_path):
    path = tmp_path / "last.keras"
    model = new_model()
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    fit(model, TrainUntilDone(AtEpoch(3), verbose=0), checkpoint, epochs=6)
    killed(new_model(), 17, TrainUntilDone(verbose=0), checkpoint)
    model = keras.models.load_model(path)
    fit(model, epochs=1)
    callback = TrainUntilDone(verbose=0)
    callback.set_model(model)
    assert callback.companion().epochs == 0
    callback = TrainUntilDone(verbose=0)
    callback.set_model(keras.models.load_model(path))
    assert callback.companion().epochs == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["keras", "exact"])
def test_it_is_resumed_before_an_epoch_without_validation(kind, tmp_path):
    options = {"epochs": 60, "validation_freq": 2}
    whole = new_model(rate=0.1)
    fit(whole, TrainUntilDone(verbose=0), **options)
    callbacks = TrainUntilDone(verbose=0), backup(kind, tmp_path)
    killed(new_model(rate=0.1), 4 * STEPS + 1, *callbacks, **options)
    model = new_model(rate=0.1)
    fit(model, TrainUntilDone(verbose=0), backup(kind, tmp_path), **options)
    assert_same(model, whole)


@pytest.mark.slow
def test_resumed_where_nothing_is_validated_any_more(tmp_path):
    # The last of seven epochs is not validated, nor is the averaged model.
    options = {"epochs": 7, "validation_freq": 2}
    callbacks = TrainUntilDone(verbose=0), backup("keras", tmp_path)
    killed(new_model(), 6 * STEPS + 1, *callbacks, **options)
    model = new_model()
    callback = TrainUntilDone(verbose=0)
    with pytest.warns(UserWarning, match="epoch 7, .* without a comparison"):
        fit(model, callback, backup("keras", tmp_path), **options)
    assert callback.done
    assert model.optimizer.cooldown_factor == 0


@pytest.mark.parametrize(
    "trigger",
    [pytest.param(Plateau("val_loss", 99), marks=pytest.mark.slow), None],
)
def test_an_interrupted_fit_leaves_no_weights_to_another(
    trigger, perfect_average
):
    model = new_model()
    killed(model, 2 * STEPS + 1, TrainUntilDone(verbose=0))
    callback = TrainUntilDone(trigger, verbose=0)
    options = {} if trigger else {"validation_data": None}
    ends = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: ends.append(model.get_weights())
    )
    fit(model, record, callback, epochs=6, **options)
    assert callback.done
    for now, then in zip(model.get_weights(), ends[-1], strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.slow
def test_pieces_of_which_few_are_validated():
    model = new_model(rate=0.1)
    callback = TrainUntilDone(verbose=0)
    # It ends in a piece without validation.
    with pytest.warns(UserWarning, match="has not validated"):
        for piece in range(90):
            options = {} if piece % 3 == 0 else {"validation_data": None}
            fit(model, callback, epochs=1, **options)
            if callback.done:
                break
    assert callback.done
    assert model.optimizer.cooldown_factor == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_resumed_cooldown_of_unknown_length_is_not_begun_again(tmp_path):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)
    data = data.filter(lambda *_: True)  # Of unknown length.
    options = {"epochs": 8, "data": data, "validation_data": None}
    callbacks = SwitchCallback(AtEpoch(2), verbose=0), backup("keras", tmp_path)
    killed(
        *(new_model(cooldown=Cooldown()), 5 * STEPS + 1),
        *callbacks,
        **options,
    )
    model = new_model(cooldown=Cooldown())
    factors = []
    record = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: factors.append(
            model.optimizer.cooldown_factor
        )
    )
    callbacks = SwitchCallback(AtEpoch(2), verbose=0), backup("keras", tmp_path)
    fit(model, *callbacks, record, **options)
    # Half of the cool-down was over.
    assert 0.3 < factors[0] < 0.6
    assert max(factors) < 0.6
    assert model.optimizer.cooldown_factor == 0


@pytest.mark.parametrize("first", slow_but({True}, [True, False]))
def test_a_backup_of_the_end_has_the_averaged_weights(
    first, perfect_average, tmp_path
):
    def run():
        model = new_model()
        exact = backup("exact", tmp_path)
        exact.delete_checkpoint = False
        callbacks = [exact, TrainUntilDone(verbose=0)]
        fit(model, *(callbacks if first else callbacks[::-1]), epochs=9)
        return model

    model, again = run(), run()
    assert_same(again, model)


def test_the_average_of_use_ema_does_not_take_their_place(perfect_average):
    model = new_model(use_ema=True)
    callback = TrainUntilDone(verbose=0)
    fit(model, callback)
    # No warning, which would be an error, and the weights are there.
    kept = callback.companion().best_weights
    for own, best in zip(model.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(own, best)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_loaded_cooldown_of_unknown_length_goes_on(tmp_path):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)
    data = data.filter(lambda *_: True)  # Of unknown length.
    options = {"epochs": 8, "data": data, "validation_data": None}
    save = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}.keras", save_freq="epoch"
    )
    switch = SwitchCallback(AtEpoch(2), verbose=0)
    fit(new_model(cooldown=Cooldown()), switch, save, **options)
    model = keras.saving.load_model(tmp_path / "5.keras")
    before = model.optimizer.cooldown_factor
    switch = SwitchCallback(AtEpoch(2), verbose=0)
    history = fit(model, switch, initial_epoch=5, **options).history
    assert 1 > before > history["cooldown"][0] > history["cooldown"][1] > 0


@pytest.mark.slow
def test_other_weights_in_their_place_are_told(perfect_average):
    early = keras.callbacks.EarlyStopping(
        patience=50, restore_best_weights=True
    )
    with pytest.warns(UserWarning, match="restore_best_weights"):
        fit(new_model(), early, TrainUntilDone(verbose=0), epochs=9)


@pytest.mark.slow
def test_it_says_what_another_fit_needs(capsys):
    model = new_model()
    fit(model, TrainUntilDone(AtEpoch(2)))
    assert "call `optimizer.restart()` before" in capsys.readouterr().out
    before = model.get_weights()
    fit(model, epochs=1)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    model.optimizer.restart()
    fit(model, epochs=1)
    assert (model.get_weights()[0] != before[0]).any()
