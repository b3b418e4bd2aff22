"""The formula's pure functions in float64 against the papers' formulas."""

import math

import numpy as np
import pytest
import reference
from keras import ops
from vectors import (
    BETA_1,
    BETA_2,
    EPSILON,
    GRADS,
    W0,
    assert_close,
    settings,
    tensor,
)

from keras_hybrid import rules, transitions
from keras_hybrid.formula import Formula


def run_sgd(beta, nesterov, decay=None):
    w, m = tensor(W0), tensor(np.zeros(5))
    trajectory = []
    for g in GRADS:
        delta, m = rules.sgd_update(
            w,
            tensor(g),
            m,
            settings(beta=beta, decay=decay),
            nesterov=nesterov,
        )
        w = w - delta
        trajectory.append(np.asarray(w))
    return np.array(trajectory)


def run_adaptive(update, amsgrad=False, **changed):
    """Runs `update` (adaptive or mixed) over all gradients."""
    zeros = tensor(np.zeros(5))
    w, m, v, v_max = tensor(W0), zeros, zeros, zeros if amsgrad else None
    trajectory = []
    for index, g in enumerate(GRADS):
        delta, m, v, v_max = update(
            w, tensor(g), m, v, v_max, settings(index, **changed)
        )
        w = w - delta
        trajectory.append(np.asarray(w))
    return np.array(trajectory)


def adaptive(*args):
    return rules.adaptive_update(*args, beta_2=BETA_2, epsilon=EPSILON)


def mixed(path, nesterov=False):
    def update(*args):
        return rules.mixed_update(
            *args,
            transitions.PATHS[path],
            beta_2=BETA_2,
            epsilon=EPSILON,
            nesterov=nesterov,
        )

    return update


def test_moving_average_is_exponential():
    average = 0.0
    for value in (3.0, -1.0, 4.0):
        average = rules.moving_average(tensor(average), tensor(value), 0.75)
    # 0.25 (3 * 0.75^2 - 1 * 0.75 + 4)
    assert_close(average, 0.25 * (3 * 0.5625 - 0.75 + 4))


def test_adaptive_root_is_adams():
    root = rules.adaptive_root(tensor([4.0, 0.0]), settings(2), 0.5)
    correction = (1 - BETA_1**3) / math.sqrt(1 - BETA_2**3)
    assert_close(root, [2.5 * correction, 0.5 * correction])


@pytest.mark.parametrize("decay", [None, 0.1], ids=["no_decay", "decay"])
@pytest.mark.parametrize("amsgrad", [False, True], ids=["adam", "amsgrad"])
def test_adaptive_update_is_adam(amsgrad, decay):
    expected = reference.adam(
        GRADS,
        W0,
        0.01,
        BETA_1,
        BETA_2,
        EPSILON,
        amsgrad=amsgrad,
        weight_decay=decay or 0.0,
    )
    assert_close(run_adaptive(adaptive, amsgrad, decay=decay), expected)


def formula():
    return Formula(BETA_2, EPSILON, False, transitions.Hard())


def test_the_step_from_the_slots_is_that_of_the_update():
    zeros = tensor(np.zeros(5))
    g = tensor(GRADS[0])
    first = settings(0, learning_rate=0.25)
    delta, m, v, _ = adaptive(tensor(W0), g, zeros, zeros, None, first)
    p = formula().step(first, g, m, v)
    assert_close(p * 0.25, np.asarray(delta))


@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy", "nesterov"])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.95])
def test_sgd_update_is_keras_sgd(momentum, nesterov):
    # sgd_step = a / (1 - momentum), with the sgd_step of 0.2.
    expected = reference.sgd(
        GRADS, W0, 0.2 * (1 - momentum), momentum, nesterov
    )
    assert_close(run_sgd(momentum, nesterov), expected)


def test_sgd_update_decays_with_the_learning_rate_not_the_sgd_step():
    w, zeros = tensor(W0), tensor(np.zeros(5))
    delta, _ = rules.sgd_update(
        w, zeros, zeros, settings(decay=0.3), nesterov=False
    )
    assert_close(delta, 0.01 * 0.3 * W0)


@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy", "nesterov"])
def test_momentum_kept_zero_starts_from_zero(nesterov):
    w, g, m = tensor(W0), tensor(GRADS[0]), tensor(GRADS[1])
    dropped = rules.sgd_update(
        w, g, m, settings(momentum_kept=0.0), nesterov=nesterov
    )
    fresh = rules.sgd_update(w, g, 0 * m, settings(), nesterov=nesterov)
    assert_close(dropped[0], np.asarray(fresh[0]))
    assert_close(dropped[1], np.asarray(fresh[1]))


@pytest.mark.parametrize("amsgrad", [False, True], ids=["adam", "amsgrad"])
@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy", "nesterov"])
@pytest.mark.parametrize("path", transitions.PATHS)
def test_mixed_update_at_weight_0_is_adam(path, nesterov, amsgrad):
    expected = reference.adam(
        GRADS,
        W0,
        0.01,
        BETA_1,
        BETA_2,
        EPSILON,
        amsgrad=amsgrad,
        weight_decay=0.1,
    )
    actual = run_adaptive(mixed(path, nesterov), amsgrad, decay=0.1)
    assert_close(actual, expected)


@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy", "nesterov"])
@pytest.mark.parametrize("path", transitions.PATHS)
def test_mixed_update_at_weight_1_is_sgd(path, nesterov):
    expected = reference.sgd(GRADS, W0, 0.2 * (1 - BETA_1), BETA_1, nesterov)
    actual = run_adaptive(mixed(path, nesterov), weight=1.0)
    assert_close(actual, expected)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_mixed_update_leaves_the_second_moment_only_at_weight_1(weight):
    v, v_max = tensor(np.full(5, 0.3)), tensor(np.full(5, 0.4))
    g = tensor(np.full(5, 7.0))
    _, _, new_v, new_max = mixed("arithmetic")(
        tensor(W0), g, g, v, v_max, settings(weight=weight)
    )
    if weight == 1:
        np.testing.assert_array_equal(np.asarray(new_v), 0.3)
        np.testing.assert_array_equal(np.asarray(new_max), 0.4)
    else:
        updated = BETA_2 * 0.3 + (1 - BETA_2) * 49
        assert_close(new_v, np.full(5, updated))
        assert_close(new_max, np.full(5, updated))


@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy", "nesterov"])
@pytest.mark.parametrize("path", transitions.PATHS)
def test_mixed_update_in_between_mixes_the_two_step_sizes(path, nesterov):
    weight, lr, sgd_step, decay, index = 0.3, 0.01, 0.2, 0.05, 6
    g, m, v = GRADS[0], GRADS[1], GRADS[2] ** 2
    delta, new_m, new_v, _ = mixed(path, nesterov)(
        tensor(W0),
        tensor(g),
        tensor(m),
        tensor(v),
        None,
        settings(index, weight=weight, decay=decay),
    )
    m = BETA_1 * m + (1 - BETA_1) * g
    v = BETA_2 * v + (1 - BETA_2) * g**2
    k = index + 1
    scale = math.sqrt(1 - BETA_2**k) / (1 - BETA_1**k) / (np.sqrt(v) + EPSILON)
    sizes = [reference.PATHS[path](lr * s, sgd_step, weight) for s in scale]
    direction = m
    if nesterov:
        ahead = BETA_1 * m + (1 - BETA_1) * g
        direction = (1 - weight) * m + weight * ahead
    assert_close(new_m, m)
    assert_close(new_v, v)
    assert_close(delta, sizes * direction + lr * decay * W0)


def test_projection_is_the_papers_gamma():
    adam_run = reference.swats(GRADS, W0, 1.0, tolerance=1e-300)
    w, previous = W0, W0
    for g, w, gamma in zip(
        GRADS, adam_run.trajectory, adam_run.gamma, strict=True
    ):
        p = w - previous
        previous = w
        value = rules.projection(tensor(p @ p), tensor(-(p @ g)))
        np.testing.assert_allclose(float(value), gamma, rtol=1e-9)


@pytest.mark.parametrize(
    ("square", "descent", "gamma"),
    [(6.0, 2.0, 3.0), (6.0, -2.0, -3.0), (6.0, 0.0, 0.0), (0.0, 0.0, 0.0)],
    ids=["descent", "ascent", "orthogonal", "no_step"],
)
def test_projection_of_numbers(square, descent, gamma):
    assert float(rules.projection(tensor(square), tensor(descent))) == gamma


def test_projection_of_groups_is_elementwise():
    value = rules.projection(tensor([6.0, 6.0]), tensor([2.0, 0.0]))
    np.testing.assert_array_equal(np.asarray(value), [3.0, 0.0])


@pytest.mark.parametrize(
    ("step", "moment", "ratio"),
    [(9.0, 4.0, 1.5), (9.0, 0.0, 0.0), (0.0, 4.0, 0.0), (0.0, 0.0, 0.0)],
    ids=["both", "no_moment", "no_step", "neither"],
)
def test_norm_ratio_of_numbers(step, moment, ratio):
    assert float(rules.norm_ratio(tensor(step), tensor(moment))) == ratio


def test_reference_adam_and_sgd_are_keras():
    """The references themselves, against the optimizers users know."""
    import keras

    for optimizer, expected in (
        # Rates that float32, Keras' dtype of the learning rate, holds exactly.
        (
            keras.optimizers.AdamW(2**-7, weight_decay=0.125, amsgrad=True),
            reference.adam(GRADS, W0, 2**-7, amsgrad=True, weight_decay=0.125),
        ),
        (
            keras.optimizers.SGD(2**-4, momentum=0.9, nesterov=True),
            reference.sgd(GRADS, W0, 2**-4, 0.9, nesterov=True),
        ),
    ):
        w = keras.Variable(W0, dtype="float64")
        trajectory = []
        for g in GRADS:
            optimizer.apply([ops.convert_to_tensor(g)], [w])
            trajectory.append(np.asarray(w))
        # Keras computes 0.9 and 0.999's powers in float32.
        np.testing.assert_allclose(trajectory, expected, rtol=2e-5)
