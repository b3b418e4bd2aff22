"""Configs and text of triggers."""

import json

import keras
import pytest
from hand_made import config

from keras_hybrid.triggers import (
    AtEpoch,
    AtStep,
    GeneralizationGap,
    GradientSignalToNoise,
    MetricReached,
    Plateau,
    ProjectionConverged,
)

TRIGGERS = [
    AtStep(7),
    ProjectionConverged(),
    ProjectionConverged(1e-9, False, 1, 2, 500),
    GradientSignalToNoise(),
    GradientSignalToNoise(0.5, 2, 3, 40),
    AtStep(7) | ProjectionConverged(min_steps=5),
    AtStep(7) & (AtStep(9) | GradientSignalToNoise()),
    AtEpoch(3),
    Plateau(),
    Plateau("val_accuracy", 5, 0.01, "max"),
    GeneralizationGap(0.1),
    GeneralizationGap(0.1, "accuracy", 2, "max"),
    MetricReached("val_loss", 0.5),
    MetricReached("score", 0.5, "max"),
    AtEpoch(3) | Plateau(),
    AtEpoch(3) & (Plateau() | MetricReached("val_loss", 0.5)),
]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=repr)
def test_config_survives_json(trigger):
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(config(trigger)))
    )
    assert type(again) is type(trigger)
    assert config(again) == config(trigger)
    assert repr(again) == repr(trigger)


@pytest.mark.parametrize("trigger", TRIGGERS, ids=repr)
def test_repr_is_the_expression_that_makes_it(trigger):
    again = eval(repr(trigger))
    assert type(again) is type(trigger)
    assert config(again) == config(trigger)


def test_config_has_no_state():
    trigger = Plateau("loss")
    before = config(trigger)
    trigger.check(0, {"loss": 1.0})
    assert config(trigger) == before
