"""Bugs of other implementations, which the presets have not."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from cases import RATE, SETTLED
from problem import START, gradients, new_variables, run

from keras_hybrid import presets


def constant_gradients(optimizer, grads, steps):
    """Weights of one variable a gradient, from zero, after each update."""
    variables = [
        keras.Variable(np.zeros_like(g), dtype="float64") for g in grads
    ]
    trajectory = []
    for _ in range(steps):
        optimizer.apply([tf.constant(g, "float64") for g in grads], variables)
        trajectory.append([v.numpy() for v in variables])
    return trajectory


def constant_swats(**arguments):
    # At a constant gradient Adam's step is rate * sign(g) but for epsilon, so
    # gamma is the same in every update and SWATS switches after two.
    return presets.SWATS(
        0.5**7, tolerance=1e-4, relative=True, jit_compile=False, **arguments
    )


@pytest.mark.parametrize("nesterov", [False, True])
def test_mrpatekful_jettify_kozistr_sgd_steps_have_their_size(nesterov):
    # Mrpatekful/swats and jettify/pytorch-optimizer: `grad = buf;
    # grad.mul_(1 - beta1)` scales the buffer itself, which then settles at
    # .1 g / (1 - .1 * .9) = .11 g: steps 9 times too small. (Their #2:
    # "training is flat after the switch".) kozistr/pytorch_optimizer adds
    # beta1 * buf unscaled for Nesterov: 10 times too large.
    g = np.array([3.0, -0.5])
    optimizer = constant_swats(nesterov=nesterov)
    trajectory = constant_gradients(optimizer, [g], 202)
    assert optimizer.switch_step == 2
    last = trajectory[-2][0] - trajectory[-1][0]
    # gamma = p.p / -p.g = rate * 2 / 3.5; .9^200 of the momentum is missing.
    np.testing.assert_allclose(last, 0.5**7 * 2 / 3.5 * g, rtol=1e-4)


def test_kozistr_tolerance_is_not_epsilon(whole):
    # kozistr/pytorch_optimizer has one argument for both.
    arguments = {"b2": SETTLED["beta_2"], "eps": 1e-7, "steps": 39}
    adam = reference.adam(gradients(), START, RATE, **arguments)
    got = whole("SWATS")[0][:39]
    np.testing.assert_allclose(got, adam, rtol=0, atol=1e-10)
    optimizer = presets.SWATS(
        tolerance=1e-15, epsilon=0.1, jit_compile=False, **SETTLED
    )
    run(optimizer, new_variables("float64"), last=60)
    assert not optimizer.has_switched


@pytest.mark.parametrize("scope", ["model", "variable"])
def test_mrpatekful_jettify_first_tensor_does_not_decide_for_all(scope):
    # The first tensor that fires sets everyone's learning rate, and the others
    # switch in the middle of the same update. gamma of one is rate / |g|.
    grads = [np.full(2, 4.0), np.full(6, 0.125)]
    optimizer = constant_swats(scope=scope)
    trajectory = constant_gradients(optimizer, grads, 102)
    assert set(optimizer.switch_steps.values()) == {2}
    # Of the model: p.p = 8 rate^2 and -p.g = (2 * 4 + 6 / 8) rate.
    scales = [8 / 8.75] * 2 if scope == "model" else [1 / 4, 1 / 0.125]
    for i, scale in enumerate(scales):
        adam = trajectory[0][i] - trajectory[1][i]
        np.testing.assert_allclose(adam, 0.5**7, rtol=1e-4)
        last = trajectory[-2][i] - trajectory[-1][i]
        # .9^100 = 3e-5 of the momentum is missing.
        np.testing.assert_allclose(last, 0.5**7 * scale * grads[i], rtol=1e-4)


def test_mdnt_lambda_does_not_shrink_after_the_switch():
    # MDNT freezes lambda, but goes on dividing it by 1 - beta2^k: from update
    # 2 to update 100 that is (1 - .999^100) / (1 - .999^2) = 48 times less.
    optimizer = constant_swats()
    w = keras.Variable(np.zeros(2), dtype="float64")
    rates = []
    for _ in range(100):
        optimizer.apply([tf.constant([3.0, -0.5], "float64")], [w])
        rates.append(optimizer.sgd_learning_rate_equivalent)
    assert optimizer.switch_step == 2 and rates[2] > 0
    assert set(rates[2:]) == {rates[2]}


@pytest.mark.parametrize("jit_compile", [False, True])
def test_deepsaki_phase_is_not_a_traced_constant(jit_compile):
    # DeepSaki keeps the phase in a Python attribute: a compiled step keeps the
    # value it was traced with, so the switch does nothing.
    optimizer = presets.GNMT(0.5**7, 3, sgd_learning_rate=0.25)
    w = keras.Variable([0.0, 0.0])
    optimizer.build([w])

    @tf.function(jit_compile=jit_compile)
    def step(g):
        optimizer.apply([g], [w])

    sizes = []
    for _ in range(5):
        before = w.numpy()
        step(tf.constant([4.0, -2.0]))
        sizes.append(before - w.numpy())
    assert step.experimental_get_tracing_count() == 1
    adam, sgd = [0.5**7, -(0.5**7)], [1.0, -0.5]
    np.testing.assert_allclose(sizes, [adam] * 3 + [sgd] * 2, rtol=1e-4)


def test_tr7200_condition_can_be_false():
    # tr7200: `(x < 1e-9) is not None` is always true.
    optimizer = presets.SWATS(RATE, jit_compile=False)
    run(optimizer, new_variables("float64"), last=60)
    assert not optimizer.has_switched


def test_akiba_middle_branch_ends_at_one():
    # As printed in copies, 1/2 + 2 (e - c) / p reaches 3/2 at c + p / 2, and
    # RMSprop's part (1 - a_s) turns negative.
    transition = presets.RMSpropWarmup(warmup_steps=1250).transition
    weights = np.array(transition.weight(np.arange(1300.0)))
    assert (np.diff(weights) >= 0).all()
    assert np.diff(weights).max() < 0.0021  # An update's: 1 / (5 * 100).
    assert weights.max() == 1 and weights[1248] < 1
    # Epochs 10, 11.25 and 12.5, of 100 updates.
    np.testing.assert_allclose(weights[[999, 1124, 1249]], [0.5, 0.75, 1])
