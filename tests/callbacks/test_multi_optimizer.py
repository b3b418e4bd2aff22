"""A HybridOptimizer beside others, in Keras' MultiOptimizer."""

import keras
import numpy as np
import pytest
from switching import assert_equal_states, compiled_model, fit, state_of

from keras_hybrid import (
    DivergenceGuard,
    ExactBackup,
    HybridOptimizer,
    SwitchCallback,
    TrainUntilDone,
)
from keras_hybrid.triggers import AtEpoch

pytestmark = pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras before 3.13"
)


def hybrid():
    return HybridOptimizer(0.01, jit_compile=False)


def beside_sgd(optimizer):
    """The last layer has SGD."""
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            optimizer, {".*dense_1/.*": keras.optimizers.SGD(0.01)}
        )
    )


def chosen(optimizer):
    """The same by a function, which Keras asks when it builds."""
    sgd = keras.optimizers.SGD(0.01)
    return keras.optimizers.MultiOptimizer(
        lambda variable: sgd if "dense_1/" in variable.path else optimizer
    )


def model_of(optimizer):
    keras.utils.clear_session(free_memory=False)  # Paths count the layers.
    return compiled_model(optimizer)


def weights(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


@pytest.mark.parametrize(
    "made", [beside_sgd, pytest.param(chosen, marks=pytest.mark.slow)]
)
def test_it_switches_and_is_adam_before(made):
    optimizer = hybrid()
    model = model_of(made(optimizer))
    fit(model, epochs=2)
    adam = model_of(made(keras.optimizers.Adam(0.01)))
    fit(adam, epochs=2)
    np.testing.assert_allclose(weights(model), weights(adam), atol=2e-6)
    fit(model, SwitchCallback(AtEpoch(1), verbose=0), epochs=2)
    assert optimizer.switch_step is not None
    assert optimizer.sgd_fraction == 1
    fit(adam, epochs=2)
    assert abs(weights(model) - weights(adam)).max() > 1e-4


def test_until_done():
    optimizer = hybrid()
    model = model_of(beside_sgd(optimizer))
    done = TrainUntilDone(AtEpoch(2), verbose=0)
    history = fit(model, done, DivergenceGuard(verbose=0), epochs=9)
    assert done.done
    assert len(history["loss"]) == 3
    assert optimizer.cooldown_factor == 0


class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "backup",
    [
        lambda folder: ExactBackup(folder),
        pytest.param(
            lambda folder: keras.callbacks.BackupAndRestore(folder),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["exact", "keras"],
)
def test_a_killed_fit_goes_on(backup, tmp_path):
    def trained(folder, *more):
        model = model_of(beside_sgd(hybrid()))
        switch = SwitchCallback(AtEpoch(1), verbose=0)
        fit(model, switch, backup(folder), *more, epochs=4)
        return model

    whole = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", Kill())
    again = trained(tmp_path / "killed")
    assert_equal_states(state_of(whole), state_of(again))


def test_several_are_an_error():
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(hybrid(), {".*dense_1/.*": hybrid()})
    )
    with pytest.raises(ValueError, match="can switch one .* Received: 2 in"):
        fit(model_of(several), SwitchCallback(AtEpoch(1)))


def test_several_are_backed_up(tmp_path):
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(hybrid(), {".*dense_1/.*": hybrid()})
    )
    path = tmp_path / "backup.npz"
    fit(model_of(several), ExactBackup(path, delete_checkpoint=False))
    assert path.exists()


def test_none_is_an_error():
    with pytest.raises(ValueError, match="Received: optimizer=MultiOptimizer"):
        fit(
            model_of(beside_sgd(keras.optimizers.Adam())),
            SwitchCallback(AtEpoch(1)),
        )
