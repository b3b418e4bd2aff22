"""Shapes, sizes and types at the edge of what an optimizer meets."""

import copy
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_hybrid import HybridOptimizer
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import AtStep


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("rows", [3, 900])
def test_a_gradient_of_another_shape_is_refused(rows, compiled):
    variables = [keras.Variable(np.zeros((rows, 1000))) for _ in range(3)]
    gradients = [tf.ones((rows, 1000)) for _ in range(3)]
    gradients[1] = tf.ones((1000, rows))
    optimizer = HybridOptimizer(0.1)
    optimizer.build(variables)

    def apply(gradients):
        optimizer.apply(gradients, variables)

    if compiled:
        apply = tf.function(apply)
    with pytest.raises(ValueError, match=rf"shape \(1000, {rows}\) for '.*'"):
        apply(gradients)
    assert not any(v.numpy().any() for v in variables)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_sparse_gradients_of_another_float_type(dtype):
    found = []
    for own in ("float32", dtype):
        table = keras.Variable(np.ones((5, 3), "float32"))
        values = tf.ones((2, 3), own)
        gradient = tf.IndexedSlices(values, [0, 2], [5, 3])
        HybridOptimizer(0.1).apply([gradient], [table])
        found.append(table.numpy())
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("made", [10, 2**24 + 10, 100_000_000])
def test_a_cooldown_that_ends_after_many_updates(made):
    optimizer = HybridOptimizer(0.1, cooldown=Cooldown("linear"))
    optimizer.training_steps = math.inf
    w = keras.Variable([1.0])
    optimizer.apply([tf.ones(1)], [w])
    optimizer.iterations.assign(made)
    optimizer.training_steps = made + 7
    optimizer.switch()
    factors = []
    for _ in range(7):
        factors.append(optimizer.cooldown_factor)
        optimizer.apply([tf.ones(1)], [w])
    np.testing.assert_allclose(factors, 1 - np.arange(7) / 7, atol=1e-6)
    assert optimizer.cooldown_end == made + 7
    assert optimizer.cooldown_factor == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_small_gradients_in_half_precision(dtype):
    """Their squares are 0 in float16: no step of Adam's can be read there."""
    rng = np.random.default_rng(0)
    w = keras.Variable(np.ones(8), dtype=dtype)
    optimizer = HybridOptimizer(1e-3, trigger=AtStep(30))
    for _ in range(30):
        g = 1e-3 * rng.normal(1.0, 0.5, 8)
        optimizer.apply([tf.cast(g, dtype)], [w])
    rate = optimizer.sgd_learning_rate_equivalent
    if dtype == "float16":
        assert rate is None
        assert not optimizer.has_switched
    else:
        assert 0.03 < rate < 0.3
        assert optimizer.has_switched


def test_a_copy_keeps_a_learning_rate_that_is_a_function():
    rate = 0.5
    optimizer = HybridOptimizer(lambda: rate)
    w = keras.Variable([1.0])
    optimizer.apply([tf.ones(1)], [w])
    again = copy.deepcopy(optimizer)
    rate = 0.25
    assert float(again.learning_rate) == float(optimizer.learning_rate) == 0.25
    other = keras.Variable(w.numpy())
    optimizer.apply([tf.ones(1)], [w])
    again.apply([tf.ones(1)], [other])
    np.testing.assert_array_equal(w.numpy(), other.numpy())


def test_a_normalization_over_several_axes_has_a_scale_a_weight():
    layer = keras.layers.LayerNormalization(axis=[1, 2])
    layer.build((None, 4, 5))
    optimizer = HybridOptimizer(0.1)
    optimizer.build(layer.trainable_variables)
    assert [u.count for u in optimizer.state.units] == [20, 20]


def test_variables_without_weights_have_no_rate():
    empty = keras.Variable(np.zeros((0,)))
    optimizer = HybridOptimizer(0.1)
    for _ in range(3):
        optimizer.apply([tf.zeros((0,))], [empty])
    assert optimizer.sgd_learning_rate_equivalent is None
