"""A restart of a training with SwitchCallback goes on where it was."""

import contextlib
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import slow_but
from switching import (
    STEPS,
    Inject,
    Interrupt,
    Interrupted,
    assert_equal_states,
    compiled_model,
    dataset,
    fit,
    hybrid_model,
    new_model,
    state_of,
    unknown_length,
)

from keras_hybrid import HybridOptimizer, SwitchCallback
from keras_hybrid.transitions import Blend, Cooldown
from keras_hybrid.triggers import AtEpoch, AtStep, Plateau

PLATEAU_OF_3 = [1.0, 0.5, 0.75, 0.625, 0.5, 0.5, 0.5]


def plateau_of_3():
    return Plateau("score", patience=3, mode="min")


def at_epoch_2():
    return AtEpoch(2)


@functools.cache
def uninterrupted(make_trigger, **kwargs):
    """The state and the switch step after all 7 epochs."""
    model = hybrid_model(cooldown=Cooldown(), **kwargs)
    switch = SwitchCallback(make_trigger and make_trigger(), verbose=0)
    fit(model, Inject(score=PLATEAU_OF_3), switch, epochs=7)
    return state_of(model), model.optimizer.switch_step


@pytest.mark.slow
@pytest.mark.parametrize("after", slow_but({2}, [2, 6]))
def test_trigger_state_survives_in_the_optimizer(after):
    """Saved in the middle of the patience, and after the switch."""
    whole, switch_step = uninterrupted(plateau_of_3)
    assert switch_step == 5 * STEPS

    def callbacks():
        switch = SwitchCallback(plateau_of_3(), verbose=0)
        return Inject(score=PLATEAU_OF_3), switch

    first = hybrid_model(cooldown=Cooldown())
    # A run of 7 epochs that ends early: the cool-down goes to epoch 7.
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(
            first, "stop_training", epoch + 1 == after
        )
    )
    fit(first, *callbacks(), stop, epochs=7)
    assert int(first.optimizer.iterations) == after * STEPS

    second = new_model(cooldown=Cooldown())
    second.set_weights(first.get_weights())
    second.optimizer.build(second.trainable_variables)
    for new, old in zip(
        second.optimizer.variables, first.optimizer.variables, strict=True
    ):
        new.assign(old.value)
    fit(second, *callbacks(), epochs=7, initial_epoch=after)
    assert second.optimizer.switch_step == switch_step
    assert_equal_states(state_of(second), whole)


def test_another_trigger_starts_anew():
    model = hybrid_model()
    scores = Inject(score=[1.0] * 9)

    def plateau(patience):
        trigger = Plateau("score", patience=patience, mode="min")
        return SwitchCallback(trigger, verbose=0)

    fit(model, scores, plateau(5), epochs=4)
    assert not model.optimizer.has_switched
    # After 3 epochs without improvement patience 2 would hold at once; anew
    # it needs a first epoch and two more.
    fit(model, scores, plateau(2), epochs=9, initial_epoch=4)
    assert model.optimizer.switch_step == 7 * STEPS


def test_the_same_trigger_goes_on_in_another_callback():
    model = hybrid_model()
    scores = Inject(score=[1.0] * 9)

    def plateau():
        trigger = Plateau("score", patience=5, mode="min")
        return SwitchCallback(trigger, verbose=0)

    fit(model, scores, plateau(), epochs=4)
    fit(model, scores, plateau(), epochs=9, initial_epoch=4)
    assert model.optimizer.switch_step == 6 * STEPS


def restarted(folder, make_trigger, *, interrupt, switch_first, **kwargs):
    """Trains under BackupAndRestore until it fails, then in new objects."""
    for model, fatal in (
        (hybrid_model(cooldown=Cooldown(), **kwargs), interrupt),
        (new_model(cooldown=Cooldown(), **kwargs), None),
    ):
        switch = SwitchCallback(make_trigger and make_trigger(), verbose=0)
        backup = keras.callbacks.BackupAndRestore(str(folder))
        order = [switch, backup] if switch_first else [backup, switch]
        fails = pytest.raises(Interrupted)
        with contextlib.nullcontext() if fatal is None else fails:
            fit(
                model,
                Inject(score=PLATEAU_OF_3),
                *order,
                Interrupt(fatal),
                epochs=7,
            )
    return model


@pytest.mark.parametrize(
    ("make_trigger", "kwargs", "interrupt"),
    [
        pytest.param(plateau_of_3, {}, 3, marks=pytest.mark.slow),
        (plateau_of_3, {}, 5),
        pytest.param(
            at_epoch_2, {"transition": Blend(12)}, 3, marks=pytest.mark.slow
        ),
        pytest.param(None, {"trigger": AtStep(9)}, 3, marks=pytest.mark.slow),
    ],
    ids=["in_patience", "at_switch", "in_transition", "step_trigger"],
)
def test_backup_after_the_switch_callback_resumes_exactly(
    tmp_path, make_trigger, kwargs, interrupt
):
    whole, switch_step = uninterrupted(make_trigger, **kwargs)
    again = restarted(
        tmp_path, make_trigger, interrupt=interrupt, switch_first=True, **kwargs
    )
    assert switch_step is not None
    assert again.optimizer.switch_step == switch_step
    assert_equal_states(state_of(again), whole)


def steady(monitor):
    """Holds after three epochs; two numbers of state change on the way."""
    return Plateau(monitor, patience=2, min_delta=10.0, mode="min")


@functools.cache
def unbroken(monitor):
    """State and history of 6 epochs with callbacks in the natural order."""
    model = hybrid_model()
    history = fit(
        model,
        SwitchCallback(steady(monitor), verbose=0),
        epochs=6,
        validation_data=dataset(),
    )
    return state_of(model), history


@pytest.mark.parametrize("interrupt", slow_but({3}, [2, 3, 4]))
@pytest.mark.parametrize("monitor", ["val_loss", "loss"])
def test_backup_before_the_switch_callback_resumes_exactly(
    tmp_path, monitor, interrupt
):
    """The trigger looks at the epoch when the backup is written."""
    whole, whole_history = unbroken(monitor)
    assert whole_history["switch_step"][-2:] == [3 * STEPS] * 2
    # The metrics are known without a validation too.
    validation = {"validation_data": dataset()} if monitor[0] == "v" else {}
    for fatal in (interrupt, None):
        model = hybrid_model()
        fails = pytest.raises(Interrupted)
        with contextlib.nullcontext() if fatal is None else fails:
            history = fit(
                model,
                keras.callbacks.BackupAndRestore(str(tmp_path)),
                SwitchCallback(steady(monitor), verbose=0),
                Interrupt(fatal),
                epochs=6,
                **validation,
            )
    assert_equal_states(state_of(model), whole)
    for name, values in history.items():
        np.testing.assert_array_equal(values, whole_history[name][interrupt:])


@pytest.mark.slow
def test_backup_before_the_switch_callback_with_loss_scaling(tmp_path):
    """The scaling saves its inner optimizer's state too, and before it."""

    def run(*callbacks):
        scaled = keras.optimizers.LossScaleOptimizer(
            HybridOptimizer(0.01, jit_compile=False)
        )
        model = compiled_model(scaled)
        fit(model, *callbacks, SwitchCallback(AtEpoch(1), verbose=0))
        return state_of(model)

    backup = keras.callbacks.BackupAndRestore(str(tmp_path))
    with pytest.raises(Interrupted):
        run(backup, Interrupt(1))
    assert_equal_states(run(backup), run())


@pytest.mark.parametrize("way", slow_but({"keras"}, ["keras", "checkpoint"]))
def test_saved_half_way_through_a_plateau(tmp_path, way):
    whole, whole_history = unbroken("val_loss")
    first = hybrid_model()
    switch = SwitchCallback(steady("val_loss"), verbose=0)
    if way == "keras":
        path = tmp_path / "{epoch}.keras"
        callbacks = [keras.callbacks.ModelCheckpoint(str(path)), switch]
    else:
        saved = tf.train.Checkpoint(model=first, optimizer=first.optimizer)
        callback = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: saved.write(
                str(tmp_path / f"{epoch + 1}")
            )
        )
        callbacks = [switch, callback]
    fit(first, *callbacks, epochs=2, validation_data=dataset())
    if way == "keras":
        second = keras.saving.load_model(tmp_path / "2.keras")
    else:
        second = new_model()
        second.optimizer.build(second.trainable_variables)
        tf.train.Checkpoint(model=second, optimizer=second.optimizer).read(
            str(tmp_path / "2")
        ).assert_existing_objects_matched()
    assert second.optimizer.switch_step is None
    history = fit(
        second,
        SwitchCallback(steady("val_loss"), verbose=0),
        epochs=6,
        initial_epoch=2,
        validation_data=dataset(),
    )
    assert_equal_states(state_of(second), whole)
    for name, values in history.items():
        np.testing.assert_array_equal(values, whole_history[name][2:])


def test_a_file_written_within_an_epoch_decides_nothing(tmp_path):
    whole, _ = unbroken("val_loss")
    model = hybrid_model()
    backup = keras.callbacks.BackupAndRestore(str(tmp_path), save_freq=1)
    switch = SwitchCallback(steady("val_loss"), verbose=0)
    fit(model, backup, switch, epochs=6, validation_data=dataset())
    assert_equal_states(state_of(model), whole)


def test_a_file_written_before_a_metric_is_known_warns(tmp_path):
    """Another callback's metric; and the run itself is as it should be."""
    model = hybrid_model()
    backup = keras.callbacks.BackupAndRestore(str(tmp_path))
    score = Inject(score=[1.0] * 4)
    switch = SwitchCallback(Plateau("score", 2, mode="min"), verbose=0)
    with pytest.warns(UserWarning, match="epoch 1 before Plateau") as caught:
        fit(model, backup, score, switch, epochs=4)
    assert sum(w.category is UserWarning for w in caught) == 1
    assert model.optimizer.switch_step == 3 * STEPS


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_file_written_at_an_unknown_end_warns(tmp_path):
    model = hybrid_model()
    backup = keras.callbacks.BackupAndRestore(str(tmp_path))
    data = unknown_length(dataset())
    with pytest.warns(UserWarning, match="put SwitchCallback before"):
        fit(model, backup, SwitchCallback(AtEpoch(1), verbose=0), data=data)
    assert model.optimizer.has_switched


def test_a_metric_changed_after_a_file_was_written_is_an_error(tmp_path):
    backup = keras.callbacks.BackupAndRestore(str(tmp_path))
    switch = SwitchCallback(Plateau("loss", mode="min"), verbose=0)
    with pytest.raises(ValueError, match="has changed the logs since.*epoch=0"):
        fit(hybrid_model(), backup, Inject(loss=[7.0]), switch, epochs=1)


@pytest.mark.filterwarnings("ignore:A file was written at the end of epoch")
def test_a_restart_after_a_missed_look_warns(tmp_path):
    def run(*callbacks):
        trigger = Plateau("score", patience=9, mode="min")
        fit(
            hybrid_model(),
            keras.callbacks.BackupAndRestore(str(tmp_path)),
            Inject(score=[1.0] * 5),
            SwitchCallback(trigger, verbose=0),
            *callbacks,
            epochs=5,
        )

    with pytest.raises(Interrupted):
        run(Interrupt(3))
    with pytest.warns(UserWarning, match="has seen 2 epochs.*with epoch 4"):
        run()


@pytest.mark.parametrize("noted", [None, 1], ids=["first", "second"])
def test_a_kill_inside_keras_backup_warns(tmp_path, noted):
    """The weights are written, and the note of the epoch is not yet."""

    def run(*callbacks):
        fit(
            hybrid_model(),
            SwitchCallback(verbose=0),
            keras.callbacks.BackupAndRestore(str(tmp_path)),
            *callbacks,
        )

    with pytest.raises(Interrupted):
        run(Interrupt(1 if noted is None else 2))
    metadata = tmp_path / "training_metadata.json"
    if noted is None:
        metadata.unlink()
    else:
        metadata.write_text('{"epoch": 1, "batch": 0}')
    with pytest.warns(UserWarning, match="trained twice"):
        run()
