"""Who switches together, and who shares a rho."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from formula import simulate
from inside import state
from small import (
    LAYER_OF,
    SHAPES,
    Staggered,
    assert_equal_weights,
    dense_model,
    exact,
    random_gradients,
    run,
    slow_but,
    start_weights,
    tolerance,
)

from keras_hybrid import HybridOptimizer
from keras_hybrid.triggers import AtStep


@pytest.mark.parametrize(
    "scope, steps, switch_at, scale_groups",
    [
        pytest.param("model", [4], [4] * 4, range(4), marks=pytest.mark.slow),
        ("layer", [3, 6], [3, 3, 6, 6], range(4)),
        pytest.param(
            *("variable", [3, 5, 7, 9], [3, 5, 7, 9], range(4)),
            marks=pytest.mark.slow,
        ),
        # One rho for the model, of those that have not switched yet.
        pytest.param(
            *("variable", [3, 5, 7, 9], [3, 5, 7, 9], [0] * 4),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "layer", [3, 6], [3, 3, 6, 6], [0] * 4, marks=pytest.mark.slow
        ),
        pytest.param("model", [4], [4] * 4, LAYER_OF, marks=pytest.mark.slow),
        ("variable", [3, 5, 7, 9], [3, 5, 7, 9], LAYER_OF),
    ],
)
@pytest.mark.parametrize(
    "sgd_scale",
    slow_but({"slots"}, ["slots", "projection", "norm", "swats"]),
)
def test_scopes(scope, steps, switch_at, scale_groups, sgd_scale):
    scale_groups = list(scale_groups)
    scale_scope = {1: "model", 2: "layer", 4: "variable"}[
        len(set(scale_groups))
    ]
    gradients = random_gradients(12)
    optimizer = HybridOptimizer(
        0.01,
        trigger=Staggered(steps),
        scope=scope,
        scale_scope=scale_scope,
        sgd_scale=sgd_scale,
        jit_compile=False,
    )
    got = run(optimizer, gradients)
    expected, rho = simulate(
        start_weights(),
        gradients,
        learning_rate=exact(0.01),
        switch_at=switch_at,
        scale_groups=scale_groups,
        sgd_scale=sgd_scale,
    )
    for step in range(len(gradients)):
        assert_equal_weights(got[step], expected[step], tolerance("float64"))
    sizes = [np.prod(shape) for shape in SHAPES]
    np.testing.assert_allclose(
        optimizer.sgd_learning_rate_equivalent,
        exact(0.01) * 0.1 * np.average(rho, weights=sizes),
        rtol=1e-8,
    )
    assert sorted(optimizer.switch_steps.values()) == sorted(steps)
    assert optimizer.switch_step == max(steps)


def test_sgd_fraction_averages_over_groups():
    optimizer = HybridOptimizer(
        0.01,
        trigger=Staggered([2, 6]),
        scope="layer",
        jit_compile=False,
    )
    run(optimizer, random_gradients(4))
    assert optimizer.sgd_fraction == 0.5
    assert not optimizer.has_switched
    assert optimizer.switch_step is None
    assert sorted(
        optimizer.switch_steps.values(), key=lambda step: step or 0
    ) == [None, 2]


@pytest.mark.parametrize("sgd_scale", ["slots", "projection"])
def test_a_variable_without_estimate_takes_the_models(sgd_scale):
    gradients = [
        [g * (k != 1) for k, g in enumerate(row)] for row in random_gradients(6)
    ]
    options = {"learning_rate": 0.01, "trigger": AtStep(4)}
    options |= {"jit_compile": False, "sgd_scale": sgd_scale}
    own = HybridOptimizer(**options, scale_scope="variable")
    whole = HybridOptimizer(**options, scale_scope="model")
    run(own, gradients)
    run(whole, gradients)
    own, whole = (state(o, "sgd_scale").numpy() for o in (own, whole))
    np.testing.assert_allclose(own[1], whole[1], rtol=1e-12)
    assert own[0] != whole[0]


def test_a_unit_without_gradients_takes_its_variables():
    # The kernel's third column, its second bias, and the whole last bias.
    gradients = random_gradients(6)
    for kernel, bias, _, last in gradients:
        kernel[:, 2], bias[1], last[:] = 0, 0, 0
    options = {"learning_rate": 0.01, "trigger": AtStep(4)}
    rho = {}
    for scope in ("unit", "variable", "model"):
        optimizer = HybridOptimizer(
            **options, scale_scope=scope, jit_compile=False
        )
        run(optimizer, gradients)
        rho[scope] = state(optimizer, "sgd_scale").numpy()
    equal = functools.partial(np.testing.assert_allclose, rtol=1e-12)
    equal(rho["unit"][2], rho["variable"][0])
    equal(rho["unit"][5], rho["variable"][1])
    equal(rho["unit"][-2:], rho["model"][0])
    equal(rho["variable"][3], rho["model"][0])
    assert len(set(rho["unit"])) == 12 - 1


@pytest.mark.parametrize(
    "sgd_scale",
    slow_but({"projection"}, ["projection", "momentum", "norm", "swats"]),
)
def test_rho_lies_between_its_values_with_partial_updates(sgd_scale):
    # The second variable sits out every other update. For g = 1 and beta_1 = 0
    # both |p| / |m| and p.p / p.g are p = sqrt((1 - 0.9^k) / (1 - 0.9^n)) in
    # update k, the variable's n-th; an average is none smaller than all.
    optimizer = HybridOptimizer(
        0.01, beta_1=0.0, beta_2=0.9, sgd_scale=sgd_scale, jit_compile=False
    )
    w, u = (keras.Variable(1.0, dtype="float64") for _ in range(2))
    optimizer.build([w, u])
    one = tf.constant(1.0, "float64")
    values = []
    for step in range(6):
        if step % 2:
            optimizer.apply([one], [w])
            continue
        optimizer.apply([one, one], [w, u])
        k, n = step + 1, step // 2 + 1
        values.append(math.sqrt((1 - 0.9**k) / (1 - 0.9**n)))
    optimizer.switch()
    rho = state(optimizer, "sgd_scale").numpy()[1]
    assert min(values) - 1e-6 <= rho <= max(values) + 1e-6


@pytest.mark.parametrize(
    "sgd_scale", slow_but({"projection"}, ["projection", "norm", "swats"])
)
def test_an_estimate_rests_where_its_variable_is_not_updated(sgd_scale):
    def estimate(absent):
        optimizer = HybridOptimizer(
            0.01, sgd_scale=sgd_scale, beta_1=0.0, jit_compile=False
        )
        w, u = (keras.Variable(1.0, dtype="float64") for _ in range(2))
        optimizer.build([w, u])
        one = tf.constant(1.0, "float64")
        for _ in range(3):
            optimizer.apply([one, one], [w, u])
        before = state(optimizer, "scale_state_0").numpy()[1]
        for _ in range(absent):
            optimizer.apply([one], [w])
        assert state(optimizer, "scale_state_0").numpy()[1] == before
        optimizer.switch()
        return state(optimizer, "sgd_scale").numpy()[1]

    assert estimate(absent=0) == estimate(absent=50)


def test_switch_leaves_switched_groups_alone():
    optimizer = HybridOptimizer(
        0.01, trigger=Staggered([2, 99]), scope="layer", jit_compile=False
    )
    gradients = random_gradients(6)
    variables = dense_model("float64").trainable_variables
    for gradient in gradients[:4]:
        optimizer.apply([tf.constant(g) for g in gradient], variables)
    before = state(optimizer, "sgd_scale").numpy()
    optimizer.switch()
    after = state(optimizer, "sgd_scale").numpy()
    # The first layer's units: 4 of its kernel, 4 of its bias.
    np.testing.assert_array_equal(before[:8], after[:8])
    assert (before[8:] == 0).all() and (after > 0).all()
    assert sorted(optimizer.switch_steps.values()) == [2, 4]


def test_layers_of_unnamed_tensorflow_variables_are_their_own():
    variables = [tf.Variable(1.0), tf.Variable(2.0)]
    optimizer = HybridOptimizer(scope="layer", jit_compile=False)
    optimizer.build(variables)
    assert len(optimizer.switch_steps) == 2
