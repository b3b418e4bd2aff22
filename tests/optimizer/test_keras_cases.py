"""The cases that Keras publishes for its own Adam and SGD."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import hybrid_sgd

from keras_hybrid import HybridOptimizer


def adam_like(**options):
    return HybridOptimizer(**options)


def sgd_like(learning_rate=0.01, momentum=0.0, **options):
    return hybrid_sgd(
        learning_rate, learning_rate, momentum=momentum, **options
    )


PHASES = pytest.mark.parametrize(
    "make", [adam_like, sgd_like], ids=["adam", "sgd"]
)


@pytest.mark.parametrize(
    "make, expected",
    [(adam_like, [0.5, 1.5, 2.5, 3.5]), (sgd_like, [0.5, -1.0, -0.5, 3.0])],
    ids=["adam", "sgd"],
)
def test_keras_single_step(make, expected):
    optimizer = make(learning_rate=0.5)
    w = keras.Variable([1.0, 2.0, 3.0, 4.0])
    gradient = keras.ops.array([1.0, 6.0, 7.0, 2.0])
    optimizer.apply_gradients(zip([gradient], [w], strict=True))
    np.testing.assert_allclose(w, expected, rtol=1e-4, atol=1e-4)


def expect_decay(make, exclude):
    """One zero gradient, decay 0.004 at learning rate 1: 2 -> 1.992."""
    zero = keras.ops.zeros(())
    decayed = keras.Variable(2.0, name="kept")
    excluded = keras.Variable(2.0, name="exclude")
    optimizer = make(learning_rate=1.0, weight_decay=0.004)
    exclude(optimizer, excluded)
    optimizer.apply([zero, zero], [decayed, excluded])
    np.testing.assert_allclose(decayed, 1.992, atol=1e-6)
    np.testing.assert_allclose(excluded, 2.0, atol=1e-6)


@PHASES
def test_keras_weight_decay_excludes_by_name(make):
    expect_decay(
        make, lambda o, v: o.exclude_from_weight_decay(var_names=["exclude"])
    )


@PHASES
def test_keras_weight_decay_excludes_by_variable(make):
    expect_decay(make, lambda o, v: o.exclude_from_weight_decay(var_list=[v]))


@PHASES
def test_keras_weight_decay_published_case(make):
    # Three optimizers in turn decay var1: 2 (1 - 0.004)^3 = 1.9760959.
    zero, var1 = keras.ops.zeros(()), keras.Variable(2.0)
    var2 = keras.Variable(2.0, name="exclude")
    var3 = keras.Variable(2.0)
    options = {"learning_rate": 1.0, "weight_decay": 0.004}
    make(**options).apply_gradients([(zero, var1)])
    second = make(**options)
    second.exclude_from_weight_decay(var_names=["exclude"])
    second.apply_gradients([(zero, var1), (zero, var2)])
    third = make(**options)
    third.exclude_from_weight_decay(var_list=[var3])
    third.apply_gradients([(zero, var1), (zero, var3)])
    np.testing.assert_allclose(var1, 1.9760959, atol=1e-6)
    np.testing.assert_allclose(var2, 2.0, atol=1e-6)
    np.testing.assert_allclose(var3, 2.0, atol=1e-6)


def golden_trajectory(optimizer):
    w = keras.Variable(np.ones(10, "float32"))
    optimizer.apply([keras.ops.full((10,), 0.01)], [w])
    trajectory = [w.numpy()]
    for _ in range(4):
        optimizer.apply([keras.ops.arange(0.1, 1.1, 0.1)], [w])
        trajectory.append(w.numpy())
    return np.array(trajectory)


def test_keras_golden_amsgrad():
    golden = np.tile([[0.999], [0.9982], [0.9974], [0.9965], [0.9955]], (1, 10))
    np.testing.assert_allclose(
        golden_trajectory(HybridOptimizer(amsgrad=True)),
        golden,
        rtol=5e-4,
        atol=5e-4,
    )


@pytest.mark.parametrize("jit_compile", ["auto", False], ids=str)
def test_keras_golden_sgd(jit_compile):
    # Keras' case: momentum 0, so w falls by 0.01 g: 0.0001, then 0.01 i / 10.
    first = np.full(10, 0.9999)
    slope = 0.01 * np.arange(0.1, 1.1, 0.1)
    golden = [first - k * slope for k in range(5)]
    optimizer = sgd_like(nesterov=True, jit_compile=jit_compile)
    np.testing.assert_allclose(golden_trajectory(optimizer), golden, atol=1e-6)


@PHASES
@pytest.mark.parametrize(
    "options, expected",
    [
        ({"clipnorm": 1}, [0.5**0.5, 0.5**0.5]),
        ({"clipvalue": 1}, [1.0, 1.0]),
        ({"global_clipnorm": 1}, [0.5**0.5, 0.5**0.5]),
    ],
    ids=["clipnorm", "clipvalue", "global_clipnorm"],
)
def test_keras_clips(make, options, expected):
    clipped = make(**options)._clip_gradients([tf.constant([100.0, 100.0])])
    np.testing.assert_allclose(clipped[0], expected, rtol=1e-6)


@PHASES
def test_keras_ema(make):
    optimizer = make(learning_rate=1.0, use_ema=True, ema_momentum=0.9)
    w, gradient = keras.Variable([1.0, 2.0]), keras.ops.array([0.1, 0.2])
    optimizer.apply([gradient], [w])
    first = w.numpy()
    average = optimizer._model_variables_moving_average[0]
    np.testing.assert_allclose(average, first)
    optimizer.apply([gradient], [w])
    expected = 0.9 * first + 0.1 * w.numpy()
    np.testing.assert_allclose(average, expected, rtol=1e-6)
    assert np.abs(w.numpy() - expected).max() > 0.01
    optimizer.finalize_variable_values([w])
    np.testing.assert_allclose(w, expected, rtol=1e-6)


@PHASES
def test_keras_ema_overwrite_frequency(make):
    options = {"learning_rate": 1.0}
    optimizer = make(
        **options, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=2
    )
    plain = make(**options)
    w, w_plain = keras.Variable([1.0, 2.0]), keras.Variable([1.0, 2.0])
    gradient = keras.ops.array([0.1, 0.2])
    optimizer.apply([gradient], [w])
    plain.apply([gradient], [w_plain])
    first = w_plain.numpy()
    np.testing.assert_allclose(w, first)
    optimizer.apply([gradient], [w])
    plain.apply([gradient], [w_plain])
    np.testing.assert_allclose(
        w, 0.9 * first + 0.1 * w_plain.numpy(), rtol=1e-6
    )


def test_keras_ema_in_fit():
    model = keras.Sequential(
        [keras.layers.Dense(2, kernel_initializer="ones", use_bias=False)]
    )
    optimizer = sgd_like(0.1, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer, "mse", run_eagerly=True)
    model.fit(np.ones((1, 1)), np.zeros((1, 1)), epochs=2, verbose=0)
    average = optimizer._model_variables_moving_average[0]
    np.testing.assert_allclose(average, [[0.891, 0.891]], atol=1e-5)
    np.testing.assert_allclose(
        model.trainable_variables[0], [[0.891, 0.891]], atol=1e-5
    )


def test_keras_gradient_accumulation():
    w = keras.Variable([[1.0, 2.0], [3.0, 4.0]])
    optimizer = sgd_like(1.0, gradient_accumulation_steps=3)
    seen = []
    for _ in range(4):
        optimizer.apply([keras.ops.ones((2, 2))], [w])
        accumulator = optimizer._accumulated_gradients[0]
        seen.append(
            (
                float(w.numpy()[0, 0]),
                float(accumulator.numpy()[0, 0]),
                int(optimizer.iterations),
            )
        )
    assert seen == [(1, 1, 0), (1, 2, 0), (0, 0, 1), (0, 1, 1)]


def test_keras_static_loss_scaling():
    w = keras.Variable([[1.0, 2.0], [3.0, 4.0]])
    optimizer = sgd_like(1.0, loss_scale_factor=1024.0)
    gradient = 1024.0 * keras.ops.array([[1.0, 2.0], [3.0, 4.0]])
    optimizer.apply([gradient], [w])
    assert optimizer.scale_loss(1.0) == 1024.0
    np.testing.assert_allclose(w, np.zeros((2, 2)), atol=1e-6)


def test_keras_overwrite_with_gradient():
    # As float8 training does: the variable takes its gradient's value.
    first, second = keras.Variable([1.0, 2.0]), keras.Variable([1.0, 2.0])
    first.overwrite_with_gradient = True
    optimizer = sgd_like(1.0)
    ones = keras.ops.ones(2)
    optimizer.apply([ones, ones], [first, second])
    np.testing.assert_allclose(first, [1.0, 1.0])
    np.testing.assert_allclose(second, [0.0, 1.0], atol=1e-6)


def test_keras_set_weights():
    w = keras.Variable([1.0, 2.0])
    first, second = HybridOptimizer(), HybridOptimizer()
    first.apply([keras.ops.array([1.0, 2.0])], [w])
    second.build([w])
    second.set_weights(first.variables)
    for a, b in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(a, b)
