"""What holds for every valid configuration."""

import os

import numpy as np
import pytest
import tensorflow as tf
from configurations import check, trainings, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_hybrid.transitions import CURVES, PATHS, Blend

FEW = settings(max_examples=5, deadline=None, derandomize=True, database=None)
# Others each night.
MANY = settings(
    FEW,
    max_examples=int(os.environ.get("KERAS_HYBRID_FUZZ", 1000)),
    derandomize=False,
    print_blob=True,
)
# Traced like any; most are not, to try ten times as many in that time.
uncompiled = given(
    **trainings
    | {"mode": st.sampled_from(["untraced", "untraced", "untraced", "eager"])}
)
compiled = given(**trainings | {"mode": st.just("compiled")})


@FEW
@uncompiled
def test_any_configuration(**training):
    check(**training)


@pytest.mark.slow
@MANY
@uncompiled
def test_any_configuration_more(**training):
    check(**training)


@pytest.mark.slow
@settings(FEW, max_examples=30)
@compiled
def test_any_configuration_compiled(**training):
    check(**training)


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
