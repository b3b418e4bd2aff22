"""What holds for every valid configuration."""

import copy
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_hybrid import HybridOptimizer
from keras_hybrid.transitions import CURVES, PATHS, Blend, Cooldown, Hard
from keras_hybrid.triggers import (
    AtStep,
    GradientSignalToNoise,
    ProjectionConverged,
)

STEPS, COPIED_AT = 8, 4
SHAPES = ((2, 2), (2,))
FEW = settings(max_examples=50, deadline=None, derandomize=True, database=None)
MANY = settings(FEW, max_examples=1000)

scopes = st.sampled_from(["model", "layer", "variable"])
unit = st.floats(0, 1)
below_one = st.sampled_from([0.0, 0.5, 0.9, 0.99])
rates = st.sampled_from([0.0, 1e-4, 1e-2, 0.1])
schedules = st.builds(
    keras.optimizers.schedules.CosineDecay,
    st.sampled_from([0.0, 0.01]),
    st.just(6),
    warmup_target=st.just(0.05),
    warmup_steps=st.just(2),
)
step_triggers = st.one_of(
    st.builds(AtStep, st.integers(1, 6)),
    st.builds(
        ProjectionConverged,
        tolerance=st.sampled_from([1e-9, 0.1, 10.0]),
        relative=st.booleans(),
        patience=st.integers(1, 3),
        min_steps=st.integers(2, 4),
        max_steps=st.sampled_from([None, 4, 6]),
    ),
    st.builds(
        GradientSignalToNoise,
        threshold=st.sampled_from([0.01, 100.0]),
        patience=st.integers(1, 3),
        min_steps=st.integers(1, 3),
        max_steps=st.sampled_from([None, 3, 5]),
    ),
)
triggers = st.one_of(
    step_triggers,
    st.builds(lambda a, b: a | b, step_triggers, step_triggers),
    st.builds(lambda a, b: a & b, step_triggers, step_triggers),
)
transitions = st.one_of(
    st.builds(Hard, end=unit),
    st.builds(
        Blend,
        st.integers(1, 6),
        curve=st.sampled_from(sorted(CURVES)),
        path=st.sampled_from(sorted(PATHS)),
        end=unit,
    ),
)
cooldowns = st.builds(
    Cooldown,
    curve=st.sampled_from(["cosine", "linear"]),
    steps=st.integers(1, 6),
    final=unit,
)


@st.composite
def configurations(draw):
    """Valid constructor arguments, each of them anything it may be."""
    options = {
        "learning_rate": draw(st.one_of(rates, schedules)),
        "beta_1": draw(below_one),
        "beta_2": draw(st.sampled_from([0.0, 0.9, 0.999])),
        "epsilon": draw(st.sampled_from([1e-8, 1e-7, 1e-2])),
        "amsgrad": draw(st.booleans()),
        "momentum": draw(st.one_of(st.none(), below_one)),
        "nesterov": draw(st.booleans()),
        "carry_momentum": draw(st.booleans()),
        "trigger": draw(triggers),
        "transition": draw(transitions),
        "scope": draw(scopes),
        "scale_scope": draw(scopes),
        "cooldown": draw(st.one_of(st.none(), cooldowns)),
        "weight_decay": draw(st.sampled_from([None, 0.0, 0.1])),
        "use_ema": draw(st.booleans()),
        "jit_compile": False,
    }
    options |= draw(
        st.one_of(
            st.builds(
                lambda scale: {"sgd_scale": scale},
                st.sampled_from(["projection", "swats", "norm", 0.5, 20.0]),
            ),
            st.builds(
                lambda rate: {"sgd_learning_rate": rate},
                st.one_of(st.sampled_from([1e-3, 0.1]), schedules),
            ),
        )
    )
    options |= draw(
        st.sampled_from(
            [
                {},
                {"clipnorm": 0.5},
                {"clipvalue": 0.5},
                {"global_clipnorm": 0.5},
                {"gradient_accumulation_steps": 2},
            ]
        )
    )
    return options


gradient_lists = st.lists(
    st.integers(0, 2**32 - 1).map(
        lambda seed: [
            np.random.default_rng(seed).normal(size=s) * 10.0 ** (seed % 5 - 2)
            for s in SHAPES
        ]
    ),
    min_size=STEPS,
    max_size=STEPS,
)


def make_variables():
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, bias_initializer="ones")]
    )
    model.set_weights([np.full(s, 0.5) for s in SHAPES])
    return model.trainable_variables


def update(optimizer, variables, gradients):
    for gradient in gradients:
        optimizer.apply(
            [tf.constant(g, "float32") for g in gradient], variables
        )


def values(optimizer, variables):
    return [v.numpy() for v in [*variables, *optimizer.variables]]


def check_configuration(options, gradients, copied):
    optimizer = HybridOptimizer(**options)
    config = optimizer.get_config()
    text = json.dumps(config, sort_keys=True)
    again = HybridOptimizer.from_config(json.loads(text))
    assert json.dumps(again.get_config(), sort_keys=True) == text

    variables = make_variables()
    update(optimizer, variables, gradients[:COPIED_AT])
    if copied:
        duplicate, others = copy.deepcopy(optimizer), make_variables()
        for mine, theirs in zip(others, variables, strict=True):
            mine.assign(theirs)
    update(optimizer, variables, gradients[COPIED_AT:])
    end = values(optimizer, variables)
    assert all(np.isfinite(value).all() for value in end)
    if copied:
        update(duplicate, others, gradients[COPIED_AT:])
        for a, b in zip(end, values(duplicate, others), strict=True):
            np.testing.assert_array_equal(a, b)
    assert 0 <= optimizer.sgd_fraction <= 1
    assert 0 <= optimizer.cooldown_factor <= 1
    rate = optimizer.sgd_learning_rate_equivalent
    assert rate is None or (math.isfinite(rate) and rate >= 0)
    if optimizer.has_switched:
        assert 1 <= optimizer.switch_step <= STEPS
        assert optimizer.switch_step == max(optimizer.switch_steps.values())
    assert set(optimizer._functions.tracing_counts().values()) <= {0, 1}


@FEW
@given(options=configurations(), gradients=gradient_lists, copied=st.booleans())
def test_any_configuration(options, gradients, copied):
    check_configuration(options, gradients, copied)


@pytest.mark.slow
@MANY
@given(options=configurations(), gradients=gradient_lists, copied=st.booleans())
def test_any_configuration_more(options, gradients, copied):
    check_configuration(options, gradients, copied)


@pytest.mark.slow
@settings(FEW, max_examples=30)
@given(options=configurations(), gradients=gradient_lists, copied=st.booleans())
def test_any_configuration_compiled(options, gradients, copied):
    check_configuration(options | {"jit_compile": "auto"}, gradients, copied)


@FEW
@given(
    curve=st.sampled_from(sorted(CURVES)),
    path=st.sampled_from(sorted(PATHS)),
    steps=st.integers(1, 1000),
    end=unit,
    adaptive=st.floats(1e-3, 1e3),
    sgd=st.floats(1e-3, 1e3),
)
def test_blends_stay_between_their_ends(curve, path, steps, end, adaptive, sgd):
    blend = Blend(steps, curve=curve, path=path, end=end)
    weights = np.asarray(blend.weight(np.arange(steps + 2.0)))
    assert (np.diff(weights) >= -1e-6).all()
    assert weights[0] >= 0 and weights[-1] <= end + 1e-6
    # AdaBound's bounds close for ever, half of the way after `steps`.
    reached = end / 2 if curve == "hyperbolic" else end
    assert abs(weights[steps - 1] - reached) < 1e-6
    for weight in weights[:: max(steps // 5, 1)]:
        numbers = (tf.constant(x, "float32") for x in (adaptive, sgd, weight))
        size = float(blend.mix(*numbers))
        low, high = sorted((adaptive, sgd))
        assert low * (1 - 1e-4) <= size <= high * (1 + 1e-4)
