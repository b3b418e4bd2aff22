"""SwitchCallback under `fit`: what it logs and says."""

import logging
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from switching import BATCH, STEPS, X, Y, fit, hybrid_model, new_model

from keras_hybrid import SwitchCallback
from keras_hybrid.transitions import Blend, Cooldown
from keras_hybrid.triggers import AtEpoch, AtStep


def test_history_sees_phase_and_learning_rates():
    model = hybrid_model(
        learning_rate=0.25,
        sgd_scale=0.5,
        momentum=0.75,
        cooldown=Cooldown("linear", steps=8),
    )
    history = fit(model, SwitchCallback(AtEpoch(1), verbose=0), epochs=4)
    assert history["sgd_fraction"] == [0, 1, 1, 1]
    assert history["switch_step"] == [-1, STEPS, STEPS, STEPS]
    assert history["learning_rate"] == [0.25] * 4
    # 4 and 8 of 8 updates after the switch.
    assert history["cooldown"] == [1, 0.5, 0, 0]
    # learning_rate * rho * (1 - momentum) * cooldown.
    at_switch = 0.25 * 0.5 * 0.25
    np.testing.assert_allclose(
        history["sgd_learning_rate"],
        [at_switch, at_switch / 2, 0, 0],
        rtol=1e-6,
    )


def test_logs_hold_plain_numbers():
    model = hybrid_model()
    history = fit(model, SwitchCallback(AtEpoch(1), verbose=0), epochs=2)
    for name, kind in (
        ("sgd_fraction", float),
        ("switch_step", int),
        ("learning_rate", float),
        ("cooldown", float),
        ("sgd_learning_rate", float),
    ):
        assert {type(value) for value in history[name]} == {kind}, name


def test_sgd_fraction_is_the_weight_of_the_next_update():
    model = hybrid_model(transition=Blend(8, end=0.5))
    history = fit(model, SwitchCallback(AtEpoch(1), verbose=0), epochs=4)
    # Positions 4, 8 and 12: 0.5 * min((position + 1) / 8, 1).
    assert history["sgd_fraction"] == [0, 0.3125, 0.5, 0.5]


def test_learning_rate_of_a_schedule_is_logged():
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 16, 0.0)
    model = hybrid_model(learning_rate=schedule)
    history = fit(model, SwitchCallback(AtEpoch(1), verbose=0))
    assert history["learning_rate"] == [0.75, 0.5, 0.25]


def test_sgd_learning_rate_is_nan_without_an_estimate():
    model = hybrid_model()
    data = tf.data.Dataset.from_tensor_slices((0 * X, 0 * Y)).batch(BATCH)
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    history = fit(model, SwitchCallback(verbose=0), epochs=1, data=data)
    assert math.isnan(history["sgd_learning_rate"][0])
    with pytest.warns(UserWarning, match="would switch.*stays adaptive"):
        fit(model, SwitchCallback(AtEpoch(1)), epochs=1, data=data)
    assert not model.optimizer.has_switched


def test_a_switch_after_skipped_updates_alone_waits():
    model = new_model(sgd_scale=1.0, cooldown=Cooldown(share=0.5))
    scaled = keras.optimizers.LossScaleOptimizer(
        model.optimizer, initial_scale=3e38
    )
    model.compile(scaled, "mse")
    data = tf.data.Dataset.from_tensor_slices((X, 1e6 + Y)).batch(BATCH)
    with pytest.warns(UserWarning, match="would switch.*stays adaptive"):
        fit(model, SwitchCallback(AtEpoch(1)), epochs=1, data=data)
    assert scaled.inner_optimizer.updates_made == 0
    assert not scaled.inner_optimizer.has_switched


@pytest.mark.parametrize(
    ("kwargs", "trigger", "epoch", "update", "reason"),
    [
        ({}, AtEpoch(2), 2, 2 * STEPS, "AtEpoch(n=2)"),
        ({"trigger": AtStep(5)}, None, 2, 5, "AtStep(n=5)"),
        ({"trigger": AtStep(5)}, AtEpoch(1), 1, STEPS, "AtEpoch(n=1)"),
        ({"trigger": AtStep(5)}, AtEpoch(3), 2, 5, "AtStep(n=5)"),
    ],
    ids=["epoch", "step", "epoch_first", "step_first"],
)
def test_says_once_when_why_and_how_fast(
    capsys, kwargs, trigger, epoch, update, reason
):
    model = hybrid_model(sgd_learning_rate=0.05, **kwargs)
    callback = SwitchCallback(trigger)
    fit(model, callback)
    assert capsys.readouterr().out == (
        f"Epoch {epoch}: switched to SGD at update {update} by {reason}, "
        "SGD learning rate 0.05.\n"
    )
    fit(model, callback, epochs=4, initial_epoch=3)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("monitor_only", [False, True])
def test_verbose_0_is_silent(capsys, caplog, monitor_only):
    callback = SwitchCallback(AtEpoch(1), verbose=0, monitor_only=monitor_only)
    with caplog.at_level(logging.DEBUG, logger="keras_hybrid"):
        fit(hybrid_model(), callback, epochs=2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "SGD" not in captured.err
    assert not caplog.records


@pytest.fixture
def logging_instead_of_printing():
    keras.config.disable_interactive_logging()
    yield
    keras.config.enable_interactive_logging()


def test_follows_keras_interactive_logging(
    logging_instead_of_printing, capsys, caplog
):
    with caplog.at_level(logging.INFO, logger="keras_hybrid"):
        fit(hybrid_model(), SwitchCallback(AtEpoch(1)), epochs=2)
    assert capsys.readouterr().out == ""
    assert [r.message for r in caplog.records][0].startswith(
        "Epoch 1: switched to SGD at update 4 by AtEpoch(n=1), "
    )
    assert len(caplog.records) == 1
