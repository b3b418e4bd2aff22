"""What holds for every valid configuration."""

import contextlib
import copy
import json
import math
import os
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from inside import tracing_counts

from keras_hybrid import HybridOptimizer
from keras_hybrid.scales import Slots
from keras_hybrid.transitions import CURVES, PATHS, Blend, Cooldown, Hard
from keras_hybrid.triggers import (
    AtStep,
    GradientSignalToNoise,
    ProjectionConverged,
)

STEPS, COPIED_AT = 8, 4
FEW = settings(max_examples=5, deadline=None, derandomize=True, database=None)
# Others each night.
MANY = settings(
    FEW,
    max_examples=int(os.environ.get("KERAS_HYBRID_FUZZ", 1000)),
    derandomize=False,
    print_blob=True,
)

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
        "scale_scope": draw(
            st.one_of(scopes, st.sampled_from(["unit", "weight"]))
        ),
        "cooldown": draw(st.one_of(st.none(), cooldowns)),
        "weight_decay": draw(st.sampled_from([None, 0.0, 0.1])),
        "loss_scale_factor": draw(st.sampled_from([None, 8.0])),
        "use_ema": draw(st.booleans()),
        "ema_momentum": draw(unit),
        "ema_overwrite_frequency": draw(st.sampled_from([None, 1, 3])),
        "jit_compile": False,
    }
    options |= draw(
        st.one_of(
            st.builds(
                lambda scale: {"sgd_scale": scale},
                st.sampled_from(
                    [
                        *("slots", "slots", Slots("unit"), Slots("weight")),
                        *("projection", "momentum", "swats", "norm"),
                        *(0.5, 20.0),
                    ]
                ),
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


# Half precision in its wider form: in float16 the squares of the largest
# gradients here would overflow, as in Keras' Adam.
layouts = st.lists(
    st.tuples(
        st.sampled_from([(), (1,), (2,), (2, 2), (3, 1, 2)]),
        st.sampled_from(["float32", "float32", "float64", "bfloat16"]),
    ),
    min_size=1,
    max_size=3,
)
ways = st.sampled_from([None, "deepcopy", "pickle", "store"])
trainings = given(
    options=configurations(),
    layout=layouts,
    seed=st.integers(0, 2**32 - 1),
    way=ways,
    # Traced like any; most are not, to try ten times as many in that time.
    eager=st.sampled_from([False, True, True, True]),
)


def make_gradients(layout, seed):
    """Of sizes from a hundredth to a hundred, which change every step."""
    rng = np.random.default_rng(seed)
    return [
        [
            tf.cast(rng.normal(size=s) * 10.0 ** rng.integers(-2, 3), dtype)
            for s, dtype in layout
        ]
        for _ in range(STEPS)
    ]


def make_variables(layout):
    return [
        keras.Variable(np.full(shape, 0.5), dtype=dtype)
        for shape, dtype in layout
    ]


def update(optimizer, variables, gradients):
    for gradient in gradients:
        optimizer.apply(gradient, variables)


def values(optimizer, variables):
    return [np.asarray(v) for v in [*variables, *optimizer.variables]]


def duplicated(optimizer, way, variables):
    if way == "deepcopy":
        return copy.deepcopy(optimizer)
    if way == "pickle":
        return pickle.loads(pickle.dumps(optimizer))
    other = HybridOptimizer.from_config(optimizer.get_config())
    other.build(variables)
    store = {}
    optimizer.save_own_variables(store)
    other.load_own_variables(store)
    return other


@contextlib.contextmanager
def run_eagerly(eager):
    tf.config.run_functions_eagerly(eager)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def check_configuration(options, layout, seed, way):
    optimizer = HybridOptimizer(**options)
    config = optimizer.get_config()
    text = json.dumps(config, sort_keys=True)
    again = HybridOptimizer.from_config(json.loads(text))
    assert json.dumps(again.get_config(), sort_keys=True) == text

    variables, gradients = make_variables(layout), make_gradients(layout, seed)
    update(optimizer, variables, gradients[:COPIED_AT])
    if way is not None:
        others = make_variables(layout)
        for mine, theirs in zip(others, variables, strict=True):
            mine.assign(theirs)
        duplicate = duplicated(optimizer, way, others)
    update(optimizer, variables, gradients[COPIED_AT:])
    end = values(optimizer, variables)
    assert all(np.isfinite(value.astype("float64")).all() for value in end)
    if way is not None:
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
    assert set(tracing_counts(optimizer).values()) <= {0, 1}
    assert json.dumps(optimizer.get_config(), sort_keys=True) == text


@FEW
@trainings
def test_any_configuration(options, layout, seed, way, eager):
    with run_eagerly(eager):
        check_configuration(options, layout, seed, way)


@pytest.mark.slow
@MANY
@trainings
def test_any_configuration_more(options, layout, seed, way, eager):
    with run_eagerly(eager):
        check_configuration(options, layout, seed, way)


@pytest.mark.slow
@settings(FEW, max_examples=30)
@trainings
def test_any_configuration_compiled(options, layout, seed, way, eager):
    check_configuration(options | {"jit_compile": "auto"}, layout, seed, way)


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
