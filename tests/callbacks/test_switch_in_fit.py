"""SwitchCallback under whatever `fit` offers."""

import copy
import math

import keras
import numpy as np
import pytest
from switching import (
    STEPS,
    Inject,
    assert_equal_states,
    compiled_model,
    fit,
    hybrid_model,
    new_model,
    state_of,
)

from keras_hybrid import HybridOptimizer, SwitchCallback
from keras_hybrid.callbacks import hybrid_optimizer
from keras_hybrid.transitions import Blend, Cooldown, Hard
from keras_hybrid.triggers import AtEpoch, AtStep, Plateau, StepTrigger


@pytest.fixture
def mixed_float16():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(policy)


def test_works_under_loss_scaling(mixed_float16):
    model = new_model(cooldown=Cooldown())
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    history = fit(model, SwitchCallback(AtEpoch(2), verbose=0), epochs=4)
    optimizer = hybrid_optimizer(model)
    assert isinstance(optimizer, HybridOptimizer)
    # No update was skipped for gradients that are not finite.
    assert int(optimizer.iterations) == 4 * STEPS
    assert optimizer.switch_step == 2 * STEPS
    assert optimizer.training_steps == 4 * STEPS
    assert history["sgd_fraction"] == [0, 0, 1, 1]
    np.testing.assert_allclose(history["cooldown"], [1, 1, 0.5, 0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kwargs", "trigger", "switch_step"),
    [
        pytest.param({}, AtEpoch(1), STEPS, marks=pytest.mark.slow),
        ({"trigger": AtStep(6)}, None, 6),
    ],
    ids=["epoch", "step"],
)
def test_works_with_several_steps_per_execution(kwargs, trigger, switch_step):
    optimizer = HybridOptimizer(0.01, jit_compile=False, **kwargs)
    model = compiled_model(optimizer, steps_per_execution=4)
    history = fit(model, SwitchCallback(trigger, verbose=0))
    assert optimizer.switch_step == switch_step
    assert optimizer.training_steps == 3 * STEPS
    one = hybrid_model(**kwargs)
    assert fit(one, SwitchCallback(trigger, verbose=0)) == history
    assert_equal_states(state_of(model), state_of(one))


def test_copies_of_the_callback_are_independent():
    """KerasTuner deep-copies callbacks for each execution."""
    original = SwitchCallback(
        Plateau("score", patience=1, mode="min"), verbose=0
    )
    steps = []
    for scores in ([1.0, 0.5, 0.5], [1.0, 1.0, 0.5]):
        model = hybrid_model()
        fit(model, Inject(score=scores), copy.deepcopy(original))
        steps.append(model.optimizer.switch_step)
    assert steps == [3 * STEPS, 2 * STEPS]
    assert original.trigger.get_state() == [math.inf, 0]


class TraceCounter(keras.layers.Layer):
    """The identity; counts how often it is traced."""

    traces = 0

    def call(self, inputs):
        self.traces += 1
        return inputs


class TracedTrigger(StepTrigger):
    """Never fires; counts how often it is traced."""

    traces = 0

    def update(self, state, signals):
        self.traces += 1
        return signals.step < 0, state

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    ("transition", "jit", "model_jit"),
    [
        pytest.param(
            Blend(5, path="geometric"), False, False, marks=pytest.mark.slow
        ),
        pytest.param(Hard(), "auto", False, marks=pytest.mark.slow),
        (Hard(), "auto", True),
    ],
    ids=["blend", "xla_optimizer", "xla_model"],
)
def test_no_retrace_at_the_switch(transition, jit, model_jit):
    layer, trigger = TraceCounter(), TracedTrigger()
    optimizer = HybridOptimizer(
        0.01,
        trigger=trigger,
        transition=transition,
        cooldown=Cooldown(),
        jit_compile=jit,
    )
    model = compiled_model(optimizer, [layer], jit_compile=model_jit)
    counts = []
    count = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: counts.append(
            (layer.traces, trigger.traces)
        )
    )
    fit(model, SwitchCallback(AtEpoch(2), verbose=0), count, epochs=4)
    assert optimizer.switch_step == 2 * STEPS
    assert optimizer.sgd_fraction == 1
    assert min(counts[0]) > 0
    assert counts == [counts[0]] * 4
