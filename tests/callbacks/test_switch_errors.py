"""What SwitchCallback refuses, and what it says then."""

import re

import keras
import pytest
from switching import compiled_model, fit, hybrid_model

from keras_hybrid import SwitchCallback
from keras_hybrid.callbacks import hybrid_optimizer
from keras_hybrid.triggers import AtEpoch, AtStep, Plateau


@pytest.mark.parametrize(
    ("kwargs", "error", "received"),
    [
        ({"trigger": "epoch"}, TypeError, "trigger='epoch'"),
        ({"trigger": 3}, TypeError, "trigger=3"),
        ({"trigger": AtStep(3)}, TypeError, r"trigger=AtStep\(n=3\)"),
        ({"trigger": AtEpoch}, TypeError, "trigger=<class"),
        ({"verbose": 2}, ValueError, "verbose=2"),
        ({"verbose": True}, ValueError, "verbose=True"),
        ({"verbose": "1"}, ValueError, "verbose='1'"),
        (
            {"trigger": AtEpoch(1), "monitor_only": 1},
            TypeError,
            "monitor_only=1",
        ),
        ({"monitor_only": True}, ValueError, "trigger=None, monitor_only=True"),
    ],
)
def test_errors_say_what_was_received(kwargs, error, received):
    with pytest.raises(error, match=f"Received: .*{received}"):
        SwitchCallback(**kwargs)


def test_a_trigger_with_too_much_state_is_an_error():
    trigger = Plateau()
    for _ in range(14):
        trigger = trigger | Plateau()
    SwitchCallback(trigger)  # 30 numbers, fingerprint and epoch: 32 of 32.
    with pytest.raises(ValueError, match="at most 30 .*Received: 32"):
        SwitchCallback(trigger | Plateau())


@pytest.mark.parametrize("optimizer", ["adam", keras.optimizers.SGD(0.1)])
def test_another_optimizer_is_an_error(optimizer):
    model = compiled_model(optimizer)
    with pytest.raises(ValueError, match="Received: optimizer=(Adam|SGD)"):
        fit(model, SwitchCallback(AtEpoch(1)), epochs=1)


@pytest.mark.parametrize("trigger", [AtEpoch(2), None])
def test_two_in_one_fit_are_an_error(trigger):
    """They would share the state that the optimizer keeps, and its length."""
    model = hybrid_model()
    first, second = SwitchCallback(AtEpoch(1)), SwitchCallback(trigger)
    with pytest.raises(
        ValueError, match=re.escape(f"another one with {trigger}")
    ):
        fit(model, first, second)
    with pytest.raises(ValueError, match=r"only one.*`\|`.*with AtEpoch"):
        fit(model, second, first)
    # One of them alone, again.
    fit(model, first, epochs=1)
    assert model.optimizer.has_switched


def test_an_uncompiled_model_is_an_error():
    with pytest.raises(ValueError, match="Received: optimizer=NoneType"):
        hybrid_optimizer(keras.Sequential([keras.layers.Dense(1)]))


def test_missing_metric_lists_the_available_ones():
    with pytest.raises(
        ValueError, match="Received: monitor='val_loss'"
    ) as caught:
        fit(hybrid_model(), SwitchCallback(Plateau("val_loss")), epochs=1)
    caught.match(
        "Available: cooldown, learning_rate, loss, sgd_fraction, "
        "sgd_learning_rate, switch_step"
    )
