"""Arguments assigned, and copies of an optimizer that is not built."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_hybrid import HybridOptimizer
from keras_hybrid.transitions import Blend, Cooldown
from keras_hybrid.triggers import AtStep, ProjectionConverged


@pytest.mark.parametrize("when", ["before", "built", "by hand"])
def test_an_assigned_transition_is_the_one_that_runs(when):
    trigger = None if when == "by hand" else AtStep(3)
    optimizer = HybridOptimizer(0.01, trigger=trigger, jit_compile=False)
    variable = keras.Variable([1.0, 2.0])
    if when == "built":
        optimizer.build([variable])
    optimizer.transition = Blend(4)
    for _ in range(3):
        optimizer.apply([2 * variable.value], [variable])
    if when == "by hand":
        optimizer.switch()
    weights = []
    for _ in range(4):
        weights.append(optimizer.sgd_fraction)
        optimizer.apply([2 * variable.value], [variable])
    np.testing.assert_allclose(weights, [0.25, 0.5, 0.75, 1.0])


def test_an_assigned_sgd_learning_rate_is_checked():
    optimizer = HybridOptimizer(0.01, jit_compile=False)
    optimizer.sgd_learning_rate = 1
    assert optimizer.sgd_learning_rate == 1.0
    assert isinstance(optimizer.sgd_learning_rate, float)
    with pytest.raises(ValueError, match="sgd_learning_rate=0"):
        optimizer.sgd_learning_rate = 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("amsgrad", True),
        ("scope", "variable"),
        ("scale_scope", "model"),
        ("trigger", ProjectionConverged()),
    ],
)
def test_what_decides_the_variables_is_set_before_they_are(name, value):
    optimizer = HybridOptimizer(0.01, jit_compile=False)
    before = getattr(optimizer, name)
    optimizer.build([keras.Variable([1.0, 2.0])])
    with pytest.raises(ValueError, match=f"`{name}` decides.*{name}="):
        setattr(optimizer, name, value)
    assert getattr(optimizer, name) == before
    setattr(optimizer, name, before)
    optimizer.trigger = AtStep(5)  # It has no state.


def test_a_copy_before_the_first_update_knows_the_length():
    optimizer = HybridOptimizer(cooldown=Cooldown())
    optimizer.training_steps = 10
    for again in (
        copy.deepcopy(optimizer),
        pickle.loads(pickle.dumps(optimizer)),
    ):
        assert again.training_steps == 10
        again.apply([tf.ones(2)], [keras.Variable([1.0, 2.0])])


def test_a_copy_before_the_first_update_cannot_exclude_variables():
    variable = keras.Variable([1.0, 2.0])
    optimizer = HybridOptimizer(weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[variable])
    with pytest.raises(ValueError, match="var_names.*not built"):
        copy.deepcopy(optimizer)
    optimizer.build([variable])
    copy.deepcopy(optimizer)
