"""The cool-down ends with the training, whose length is told."""

import keras
import numpy as np
import pytest
import reference
from switching import (
    STEPS,
    batch_factors,
    compiled_model,
    dataset,
    fit,
    hybrid_model,
    new_model,
    unknown_length,
)

from keras_hybrid import SwitchCallback
from keras_hybrid.transitions import Cooldown, Hard
from keras_hybrid.triggers import AtEpoch, AtStep


@pytest.mark.parametrize(
    ("optimizer_kwargs", "fits", "expected"),
    [
        ({}, [{"epochs": 3}], 3 * STEPS),
        ({}, [{"epochs": 3, "initial_epoch": 1}], 2 * STEPS),
        (
            {},
            [{"epochs": 2}, {"epochs": 5, "initial_epoch": 2}],
            5 * STEPS,
        ),
        ({}, [{"epochs": 2}, {"epochs": 2}], 4 * STEPS),
        ({}, [{"epochs": 2, "rows": 30}], 2 * STEPS),
        (
            {},
            [{"epochs": 2, "steps_per_epoch": 3, "repeated": True}],
            6,
        ),
        (
            {"gradient_accumulation_steps": 2},
            [{"epochs": 3}],
            3 * STEPS // 2,
        ),
        # 12 and 8 micro-batches, 3 an update.
        (
            {"gradient_accumulation_steps": 3},
            [{"epochs": 3}, {"epochs": 5, "initial_epoch": 3}],
            6,
        ),
    ],
    ids=[
        "plain",
        "initial_epoch",
        "continued",
        "fitted_twice",
        "partial_batch",
        "steps_per_epoch",
        "accumulation",
        "accumulation_continued",
    ],
)
def test_training_steps_are_told(optimizer_kwargs, fits, expected):
    model = hybrid_model(cooldown=Cooldown(), **optimizer_kwargs)
    for arguments in fits:
        arguments = dict(arguments)
        data = dataset(arguments.pop("rows", None))
        if arguments.pop("repeated", False):
            data = unknown_length(data.repeat())
        fit(model, SwitchCallback(verbose=0), data=data, **arguments)
    assert model.optimizer.training_steps == expected
    assert int(model.optimizer.iterations) == expected


@pytest.mark.parametrize(
    ("kwargs", "arguments", "adaptive", "length"),
    [
        ({}, {"epochs": 3}, STEPS, 2 * STEPS),
        ({}, {"epochs": 4, "initial_epoch": 2}, STEPS, STEPS),
        (
            {"gradient_accumulation_steps": 2},
            {"epochs": 5},
            STEPS // 2,
            4 * STEPS // 2,
        ),
    ],
    ids=["plain", "initial_epoch", "accumulation"],
)
def test_cooldown_without_steps_ends_with_the_training(
    kwargs, arguments, adaptive, length
):
    """The factor of each update is keras' CosineDecay from the switch."""
    model = hybrid_model(cooldown=Cooldown(), **kwargs)
    factors, callback = batch_factors(model)
    fit(model, callback, SwitchCallback(AtEpoch(1), verbose=0), **arguments)
    assert model.optimizer.switch_step == adaptive
    decay = keras.optimizers.schedules.CosineDecay(1.0, length)
    accumulated = kwargs.get("gradient_accumulation_steps", 1)
    expected = np.repeat(
        [1.0] * adaptive + [float(decay(j)) for j in range(length)],
        accumulated,
    )
    np.testing.assert_allclose(
        factors, expected, **reference.tolerance("float32")
    )
    assert model.optimizer.cooldown_factor == pytest.approx(0, abs=1e-7)


@keras.saving.register_keras_serializable("tests")
class ConstantThenCosine(keras.optimizers.schedules.LearningRateSchedule):
    """The schedule-matched Adam's: constant, then a cosine to zero."""

    def __init__(self, rate, constant_steps, decay_steps):
        self.arguments = (rate, constant_steps, decay_steps)

    def __call__(self, step):
        rate, constant, length = self.arguments
        decay = keras.optimizers.schedules.CosineDecay(rate, length)
        after = keras.ops.maximum(keras.ops.cast(step, "float32") - constant, 0)
        return decay(after)


@pytest.mark.slow
def test_cooldown_with_end_weight_0_is_schedule_matched_adam():
    model = hybrid_model(transition=Hard(0.0), cooldown=Cooldown())
    fit(model, SwitchCallback(AtEpoch(1), verbose=0), epochs=3)
    schedule = ConstantThenCosine(0.01, STEPS, 2 * STEPS)
    adam = compiled_model(keras.optimizers.Adam(schedule))
    fit(adam, epochs=3)
    for mine, adams in zip(model.weights, adam.weights, strict=True):
        np.testing.assert_allclose(
            mine.numpy(), adams.numpy(), rtol=1e-4, atol=1e-6
        )


def test_cooldown_needs_a_data_set_of_known_length():
    model = new_model(cooldown=Cooldown())
    with pytest.raises(ValueError, match="Received: steps_per_epoch=None"):
        fit(model, SwitchCallback(), data=unknown_length(dataset()), epochs=1)


def test_cooldown_needs_the_callback():
    model = new_model(cooldown=Cooldown(), trigger=AtStep(2))
    with pytest.raises(ValueError, match="length is not known.*SwitchCallback"):
        fit(model, epochs=1)


def test_cooldown_of_known_length_needs_no_callback():
    model = hybrid_model(cooldown=Cooldown(steps=4), trigger=AtStep(2))
    fit(model, epochs=1)
    assert model.optimizer.training_steps is None
    # 2 of 4 updates after the switch.
    assert model.optimizer.cooldown_factor == pytest.approx(0.5, abs=1e-6)
