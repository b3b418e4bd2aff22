"""switch(), revert() and restart(), by hand, by triggers and in `fit`."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import (
    BATCH,
    SHAPES,
    AtBatch,
    Counting,
    Halving,
    assert_equal_weights,
    dense_model,
    exact,
    random_gradients,
    regression_data,
    run,
    tolerance,
    train,
    weights_of,
)

from keras_hybrid import HybridOptimizer
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import AtStep, ProjectionConverged


def test_switch_is_at_step():
    gradients = random_gradients(10)
    by_trigger = HybridOptimizer(0.01, trigger=AtStep(4), jit_compile=False)
    expected = run(by_trigger, gradients)
    optimizer = HybridOptimizer(0.01, jit_compile=False)
    variables = dense_model("float64").trainable_variables
    for step, gradient in enumerate(gradients):
        if step == 4:
            optimizer.switch()
            optimizer.switch()  # Switched groups stay as they are.
            assert optimizer.has_switched
        optimizer.apply([tf.constant(g) for g in gradient], variables)
    assert_equal_weights(
        weights_of(variables), expected[-1], tolerance("float64")
    )
    assert optimizer.switch_step == 4


def test_revert_goes_on_with_adam():
    # No update between: as if switch() had never been called.
    gradients = random_gradients(10)
    expected = run(HybridOptimizer(0.01, jit_compile=False), gradients)
    optimizer = HybridOptimizer(0.01, jit_compile=False)
    variables = dense_model("float64").trainable_variables
    for step, gradient in enumerate(gradients):
        if step == 4:
            optimizer.switch()
            optimizer.revert()
        optimizer.apply([tf.constant(g) for g in gradient], variables)
    assert_equal_weights(
        weights_of(variables), expected[-1], tolerance("float64")
    )
    assert not optimizer.has_switched and optimizer.sgd_fraction == 0


def test_restart_counts_from_there():
    optimizer = HybridOptimizer(
        0.01,
        trigger=AtStep(4),
        cooldown=Cooldown("linear", share=0.5),
        jit_compile=False,
    )
    variable = keras.Variable(np.ones(3), dtype="float64")
    factors = []
    optimizer.training_steps = 8

    def update():
        optimizer.apply([tf.constant([0.1, -0.2, 0.3], "float64")], [variable])
        factors.append(optimizer.cooldown_factor)

    for _ in range(7):
        update()
    assert optimizer.switch_step == 4
    assert optimizer.cooldown_end == 6
    assert factors == [1, 1, 1, 1, 0.5, 0, 0]
    optimizer.state.scale_cut.assign(0.25)  # A guard has.
    optimizer.restart()
    assert not optimizer.has_switched
    assert optimizer.phase_start == 7
    assert float(optimizer.state.scale_cut) == 1
    assert optimizer.training_steps is None
    for _ in range(6):
        update()
    assert optimizer.switch_step == 11
    assert factors[7:] == [1, 1, 1, 1, 0.5, 0]


def test_a_share_of_no_updates_is_no_cooldown():
    optimizer = HybridOptimizer(
        0.1, sgd_scale=1.0, cooldown=Cooldown(share=0.5)
    )
    variable = keras.Variable(np.ones(2, "float32"))
    optimizer.build([variable])
    with pytest.raises(ValueError, match="no updates since the training began"):
        optimizer.switch()
    optimizer.apply([keras.ops.ones(2)], [variable])
    optimizer.restart()
    with pytest.raises(ValueError, match="a share of the updates before it"):
        optimizer.switch()
    optimizer.apply([keras.ops.ones(2)], [variable])
    optimizer.switch()
    assert optimizer.switch_step == 2


def test_restart_of_what_starts_as_sgd():
    optimizer = HybridOptimizer(
        0.01, trigger=AtStep(0), sgd_scale=2.0, jit_compile=False
    )
    variable = keras.Variable(np.ones(3), dtype="float64")
    gradient = tf.constant([0.1, -0.2, 0.3], "float64")
    for _ in range(3):
        optimizer.apply([gradient], [variable])
    optimizer.restart()
    assert optimizer.switch_step == 3
    assert optimizer.sgd_fraction == 1
    before = variable.numpy()
    optimizer.apply([gradient], [variable])
    m = 0.1 * gradient.numpy() * sum(0.9**k for k in range(4))
    np.testing.assert_allclose(
        variable.numpy(), before - np.float32(0.01) * 2.0 * m, rtol=1e-6
    )


def test_revert_continues_the_second_moment():
    gradients = random_gradients(9)
    optimizer = HybridOptimizer(0.01, beta_2=0.9, jit_compile=False)
    variables = dense_model("float64").trainable_variables
    v = [np.zeros(s) for s in SHAPES]
    m = [np.zeros(s) for s in SHAPES]
    adaptive = 0
    for step, gradient in enumerate(gradients):
        if step == 3:
            optimizer.switch()
        if step == 6:
            optimizer.revert()
        before = weights_of(variables)
        optimizer.apply([tf.constant(g) for g in gradient], variables)
        m = [0.9 * x + 0.1 * g for x, g in zip(m, gradient, strict=True)]
        if not 3 <= step < 6:
            adaptive += 1
            v = [0.9 * x + 0.1 * g**2 for x, g in zip(v, gradient, strict=True)]
            # v has seen `adaptive` updates, m all of them.
            corrections = math.sqrt(1 - 0.9**adaptive) / (1 - 0.9 ** (step + 1))
            expected = [
                b - exact(0.01) * corrections * x / (np.sqrt(y) + 1e-7)
                for b, x, y in zip(before, m, v, strict=True)
            ]
            assert_equal_weights(
                weights_of(variables), expected, tolerance("float64")
            )


def test_a_reverted_trigger_starts_anew():
    optimizer = HybridOptimizer(
        0.01,
        trigger=ProjectionConverged(tolerance=100.0, patience=3, min_steps=2),
        jit_compile=False,
    )
    variables = dense_model("float64").trainable_variables
    gradients = random_gradients(12)

    def update():
        gradient = gradients.pop()
        optimizer.apply([tf.constant(g) for g in gradient], variables)

    for _ in range(4):
        update()
    # Equal by definition in the first update, so three in a row end at 4.
    assert optimizer.switch_step == 4
    update()
    optimizer.revert()
    for _ in range(3):
        update()
    assert not optimizer.has_switched
    update()
    assert optimizer.switch_step == 9


def test_a_reverted_projection_settles_as_the_first_time():
    optimizer = HybridOptimizer(
        0.01,
        trigger=ProjectionConverged(0.1, patience=3, min_steps=30),
        jit_compile=False,
    )
    variable = keras.Variable(np.ones(3), dtype="float64")
    gradient = tf.constant([1.0, 2.0, 3.0], "float64")
    taken = []
    for _ in range(3):
        start = int(optimizer.iterations.numpy())
        for _ in range(40):
            optimizer.apply([gradient], [variable])
        taken.append(optimizer.switch_step - start)
        optimizer.revert()
    # Constant gradients: gamma does not move, Lambda is gamma.
    assert taken == [30, 30, 30]


@pytest.mark.parametrize("jit_compile", [False, True], ids=["plain", "xla"])
def test_switch_and_revert_in_fit_without_a_retrace(jit_compile):
    counting = Counting()
    model = keras.Sequential([*dense_model().layers, counting])
    optimizer = HybridOptimizer(0.01)
    model.compile(optimizer, "mse", jit_compile=jit_compile)
    traces, weights = [], []
    snapshot = {
        4: lambda o: (o.switch(), traces.append(counting.traces)),
        12: lambda o: (weights.append(o.sgd_fraction), o.revert()),
        16: lambda o: weights.append(o.sgd_fraction),
        20: lambda o: o.switch(),
    }
    x, y = regression_data()
    model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[AtBatch(snapshot)],
    )
    assert counting.traces == traces[0]
    assert weights == [1.0, 0.0]
    assert optimizer.switch_step == 20


def test_switch_in_fit_is_at_step():
    expected = train(
        HybridOptimizer(0.01, trigger=AtStep(10), jit_compile=False), "eager"
    )
    got = train(
        HybridOptimizer(0.01, jit_compile=False),
        "fit",
        callbacks=[AtBatch({10: lambda o: o.switch()})],
    )
    assert_equal_weights(got, expected, tolerance("float32"))


@pytest.mark.slow
def test_at_step_is_exact_within_one_execution():
    # The switch at 10 falls inside an execution of 4 updates.
    optimizer = HybridOptimizer(0.01, trigger=AtStep(10))
    expected = train(
        HybridOptimizer(0.01, trigger=AtStep(10), jit_compile=False), "eager"
    )
    got = train(optimizer, "fit-k")
    assert_equal_weights(got, expected, tolerance("float32"))
    assert optimizer.switch_step == 10


@pytest.mark.slow
def test_projection_converged_switches_in_fit():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(256, 4)).astype("float32")
    y = x @ rng.normal(size=(4, 1)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    optimizer = HybridOptimizer(
        0.01,
        beta_2=0.95,
        trigger=ProjectionConverged(tolerance=0.3, min_steps=20),
    )
    model.compile(optimizer, "mse")
    model.fit(x, y, batch_size=16, epochs=12, shuffle=False, verbose=0)
    assert optimizer.has_switched
    assert 20 <= optimizer.switch_step < 12 * 16
    assert optimizer.sgd_learning_rate_equivalent > 0


@pytest.mark.slow
def test_accumulation_counts_updates_not_micro_batches():
    optimizer = HybridOptimizer(
        0.01, trigger=AtStep(3), gradient_accumulation_steps=2
    )
    # 24 micro-batches are 12 updates; 6 of them make the first three.
    seen = []
    train(
        optimizer,
        "fit",
        callbacks=[
            AtBatch(
                {
                    5: lambda o: seen.append(o.switch_step),
                    6: lambda o: seen.append(o.switch_step),
                }
            )
        ],
    )
    assert seen == [None, 3]
    averaged = [
        [(a + b) / 2 for a, b in zip(*pair, strict=True)]
        for pair in zip(
            random_gradients(16)[::2], random_gradients(16)[1::2], strict=True
        )
    ]
    micro = HybridOptimizer(
        0.01,
        trigger=AtStep(3),
        gradient_accumulation_steps=2,
        sgd_learning_rate=Halving(),
        jit_compile=False,
    )
    whole = HybridOptimizer(
        0.01,
        trigger=AtStep(3),
        sgd_learning_rate=Halving(),
        jit_compile=False,
    )
    got = run(micro, random_gradients(16))[-1]
    assert_equal_weights(got, run(whole, averaged)[-1], tolerance("float64"))
