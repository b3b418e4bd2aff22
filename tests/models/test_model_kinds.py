"""Every kind of model: Adam before, SGD after, resumed to the last bit."""

import keras
import numpy as np
import pytest
from makers import (
    CASES,
    RATE,
    STEPS,
    compiled,
    fit,
    optimizers_of,
    values_of,
    variables_of,
)
from small import Kill, Killed, slow_but

from keras_hybrid import ExactBackup, HybridOptimizer, SwitchCallback
from keras_hybrid.transitions import Blend
from keras_hybrid.triggers import AtEpoch, AtStep

EPOCHS = 4
UPDATES = EPOCHS * STEPS


def tolerance(name):
    """Of weights up to 2, with a spacing of 1.2e-7, rounded in each update.

    In float16 a rounding of a weight may change a gradient's last bit.
    """
    rounding = UPDATES * 2.5e-7
    return rounding + (UPDATES * RATE * 2**-10 if name == "loss-scale" else 0)


@pytest.mark.parametrize("name", slow_but({"towers"}, CASES))
def test_before_the_switch_it_is_keras_adam(name):
    ours, x, y = compiled(name, HybridOptimizer)
    theirs, _, _ = compiled(name, keras.optimizers.Adam)
    start = [v.numpy() for v in ours.trainable_variables]
    losses = [fit(model, x, y, epochs=EPOCHS) for model in (ours, theirs)]
    for before, mine, other in zip(
        start, ours.trainable_variables, theirs.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(mine, other, atol=tolerance(name), rtol=0)
        assert np.abs(mine.numpy() - before).max() > 20 * tolerance(name)
    np.testing.assert_allclose(losses[0]["loss"], losses[1]["loss"], rtol=1e-4)


@pytest.mark.slow
def test_the_first_loss_scale_skips_an_update():
    """Or the case would not have what a loss scale is for."""
    model, x, y = compiled("loss-scale", HybridOptimizer)
    fit(model, x, y, epochs=EPOCHS)
    (optimizer,) = optimizers_of(model)
    assert optimizer.updates_made == UPDATES - 1


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_switches_inside_fit(name):
    """By a trigger in the compiled step, between two batches."""
    model, x, y = compiled(name, HybridOptimizer, trigger=AtStep(3))
    history = fit(model, x, y, epochs=EPOCHS)
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(value).all() for _, value in values_of(model))
    for optimizer in optimizers_of(model):
        assert optimizer.switch_step == 3
        assert optimizer.sgd_fraction == 1


def switching(name):
    """A switch after the first epoch, and a blend until the last but one."""
    model, x, y = compiled(
        name, HybridOptimizer, transition=Blend(2 * STEPS), jit_compile=False
    )
    return model, x, y, SwitchCallback(AtEpoch(1), verbose=0)


def assert_same(model, expected):
    for (path, value), (_, other) in zip(
        values_of(model), expected, strict=True
    ):
        np.testing.assert_array_equal(value, other, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_killed_inside_the_transition_it_is_resumed_exactly(name, tmp_path):
    model, x, y, switch = switching(name)
    start = values_of(model)

    def train(*more):
        """As a new process would, with the model compiled once."""
        for variable, (_, value) in zip(
            variables_of(model), start, strict=True
        ):
            variable.assign(value)
        backup = ExactBackup(tmp_path / "backup.npz")
        return fit(model, x, y, switch, backup, *more, epochs=EPOCHS)

    history = train()
    assert 0 < history["sgd_fraction"][1] < history["sgd_fraction"][-1] == 1
    expected = values_of(model)
    with pytest.raises(Killed):
        train(Kill(2))
    assert repr(train()) == repr(history)
    assert_same(model, expected)


# Of a GAN the file of weights below; LoRA's file has other weights, see
# test_model_habits.py.
SAVED = [name for name in CASES if name not in ("gan", "lora")]


@pytest.mark.slow
@pytest.mark.parametrize("name", SAVED)
def test_loaded_inside_the_transition_it_is_resumed_exactly(name, tmp_path):
    model, x, y, switch = switching(name)
    seeds = {}

    def keep_seeds(epoch, logs):
        seeds[epoch] = [v.numpy() for v in model.non_trainable_variables]

    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    keep = keras.callbacks.LambdaCallback(on_epoch_end=keep_seeds)
    fit(model, x, y, switch, keep, checkpoint, epochs=EPOCHS)
    again = keras.saving.load_model(tmp_path / "2.keras")
    # Keras' file leaves out the states of dropout's generators.
    for variable, value in zip(
        again.non_trainable_variables, seeds[1], strict=True
    ):
        if "seed" in variable.path:
            variable.assign(value)
        np.testing.assert_array_equal(variable, value)
    switch = SwitchCallback(AtEpoch(1), verbose=0)
    fit(again, x, y, switch, initial_epoch=2, epochs=EPOCHS)
    assert_same(again, values_of(model))


@pytest.mark.slow
def test_a_file_of_weights_has_both_optimizers_of_a_gan(tmp_path):
    model, x, y, switch = switching("gan")
    fit(model, x, y, switch, epochs=2)
    again, _, _, new_switch = switching("gan")
    model.save_weights(tmp_path / "gan.weights.h5")
    again.load_weights(tmp_path / "gan.weights.h5")
    # As dropout's, the noise's state is in no file of Keras'.
    again.noise.state.assign(model.noise.state)
    assert_same(again, values_of(model))
    for gan, callback in ((model, switch), (again, new_switch)):
        fit(gan, x, y, callback, initial_epoch=2, epochs=EPOCHS)
    assert_same(again, values_of(model))
