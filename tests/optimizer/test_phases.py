"""What each phase keeps, forgets and tells."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from inside import slots, tracing_counts
from small import (
    MODES,
    assert_equal_weights,
    dense_model,
    exact,
    largest_difference,
    random_gradients,
    run,
    start_weights,
    tolerance,
    train,
)

from keras_hybrid import HybridOptimizer
from keras_hybrid.execution import kernels
from keras_hybrid.transitions import Blend, Cooldown, Hard
from keras_hybrid.triggers import AtStep, ProjectionConverged


def test_properties_follow_the_phase():
    gradients = random_gradients(8)
    optimizer = HybridOptimizer(
        0.01,
        trigger=AtStep(3),
        transition=Blend(4),
        cooldown=Cooldown("linear", steps=4, final=0.5),
        sgd_scale=2.0,
    )
    assert optimizer.switch_step is None
    assert optimizer.has_switched is False
    assert optimizer.sgd_fraction == 0.0
    assert optimizer.sgd_learning_rate_equivalent is None
    assert optimizer.cooldown_factor == 1.0
    assert optimizer.switch_steps == {}
    assert optimizer.training_steps is None
    seen = []
    variables = dense_model("float64").trainable_variables
    for gradient in gradients:
        optimizer.apply([tf.constant(g) for g in gradient], variables)
        seen.append(
            (
                optimizer.has_switched,
                optimizer.switch_step,
                optimizer.sgd_fraction,
                optimizer.cooldown_factor,
            )
        )
        # learning_rate * cool-down * (1 - momentum) * rho
        np.testing.assert_allclose(
            optimizer.sgd_learning_rate_equivalent,
            exact(0.01) * optimizer.cooldown_factor * 0.1 * 2.0,
            rtol=1e-12,
        )
    # The values are those of the next update.
    assert seen == [
        (False, None, 0.0, 1.0),
        (False, None, 0.0, 1.0),
        (True, 3, 0.25, 1.0),
        (True, 3, 0.5, 0.875),
        (True, 3, 0.75, 0.75),
        (True, 3, 1.0, 0.625),
        (True, 3, 1.0, 0.5),
        (True, 3, 1.0, 0.5),
    ]
    assert optimizer.switch_steps == {"model": 3}
    for name in (
        "has_switched",
        "switch_step",
        "sgd_fraction",
        "sgd_learning_rate_equivalent",
    ):
        with pytest.raises(AttributeError):
            setattr(optimizer, name, 1)


def test_weight_decay_is_continuous_across_the_switch():
    # Without gradients only the decay moves w: by 0.01 * 0.5 in every update.
    optimizer = HybridOptimizer(
        0.01, weight_decay=0.5, trigger=AtStep(3), sgd_scale=100.0
    )
    w = keras.Variable(1.0, dtype="float64")
    values = [1.0]
    for _ in range(6):
        optimizer.apply([tf.constant(0.0, "float64")], [w])
        values.append(float(w.numpy()))
    ratios = np.array(values[1:]) / np.array(values[:-1])
    np.testing.assert_allclose(ratios, 1 - exact(0.01) * 0.5, rtol=1e-12)
    assert optimizer.has_switched


@pytest.mark.parametrize(
    ("surround", "amsgrad"),
    [
        pytest.param(False, True, id="alone-amsgrad"),
        pytest.param(True, False, id="xla-adam"),
        pytest.param(False, False, id="alone-adam", marks=pytest.mark.slow),
        pytest.param(True, True, id="xla-amsgrad", marks=pytest.mark.slow),
    ],
)
def test_the_second_moment_rests_after_the_switch(surround, amsgrad):
    optimizer = HybridOptimizer(0.01, amsgrad=amsgrad, trigger=AtStep(3))
    variables = dense_model().trainable_variables
    optimizer.build(variables)

    def update(gradient):
        optimizer.apply(gradient, variables)

    if surround:
        update = tf.function(update, jit_compile=True)
    watched = slots(optimizer, "second_moment")
    if amsgrad:
        watched += slots(optimizer, "second_moment_max")
    seen = []
    for gradient in random_gradients(7):
        update([tf.constant(g, "float32") for g in gradient])
        seen.append([s.numpy() for s in watched])
    for step in range(3, 7):
        for now, at_switch in zip(seen[step], seen[2], strict=True):
            np.testing.assert_array_equal(now, at_switch)
    assert largest_difference(seen[1], seen[2]) > 0


@pytest.mark.parametrize("amsgrad", [False, True], ids=["adam", "amsgrad"])
def test_memory_is_adams(amsgrad):
    def sizes(units):
        variables = [
            keras.Variable(np.zeros((units, 3)), name="kernel"),
            keras.Variable(np.zeros(units), name="bias"),
        ]
        optimizer = HybridOptimizer(
            amsgrad=amsgrad, trigger=ProjectionConverged()
        )
        optimizer.build(variables)
        shapes = [tuple(v.shape) for v in variables]
        all_shapes = [tuple(v.shape) for v in optimizer.variables]
        slots = [shape for shape in all_shapes if shape in shapes]
        rest = [shape for shape in all_shapes if shape not in shapes]
        return len(slots), sum(math.prod(shape) for shape in rest)

    small, large = sizes(1000), sizes(2000)
    assert small[0] == large[0] == 2 * (3 if amsgrad else 2)
    # rho: one for each column of the kernel and each bias.
    assert large[1] - small[1] == 1000
    assert small[1] - 1003 < 100


def test_carried_momentum_starts_at_zero_if_not_carried():
    optimizer = HybridOptimizer(
        0.01,
        trigger=AtStep(3),
        carry_momentum=False,
        momentum=0.8,
        jit_compile=False,
    )
    gradients = random_gradients(4)
    run(optimizer, gradients)
    for m, g in zip(
        slots(optimizer, "first_moment"), gradients[-1], strict=True
    ):
        np.testing.assert_allclose(m, 0.2 * g, rtol=1e-12)


def test_no_step_is_nan_while_the_learning_rate_is_zero():
    warmup = keras.optimizers.schedules.PolynomialDecay(0.0, 4, 0.01)

    class LateWarmup(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            late = keras.ops.maximum(keras.ops.cast(step, "float32") - 3, 0)
            return warmup(late)

    for trigger in (AtStep(0), AtStep(2)):
        optimizer = HybridOptimizer(
            LateWarmup(),
            trigger=trigger,
            sgd_learning_rate=0.01,
            jit_compile=False,
        )
        history = run(optimizer, random_gradients(8))
        for step in range(4):
            assert largest_difference(history[step], start_weights()) == 0
        assert all(np.isfinite(w).all() for w in history[-1])
        assert largest_difference(history[4], start_weights()) > 1e-3


def blending_optimizer(jit_compile="auto"):
    return HybridOptimizer(
        0.01,
        trigger=AtStep(6),
        transition=Blend(6, curve="cosine"),
        cooldown=Cooldown(steps=15, final=0.2),
        weight_decay=0.05,
        scope="layer",
        nesterov=True,
        jit_compile=jit_compile,
    )


@functools.cache
def blended_weights():
    return train(blending_optimizer(jit_compile=False), "eager")


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode",
    [
        m if m == "fit-xla" else pytest.param(m, marks=pytest.mark.slow)
        for m in MODES
    ],
)
def test_blend_and_cooldown_in_every_mode(mode):
    got = train(blending_optimizer(), mode)
    assert_equal_weights(got, blended_weights(), tolerance("float32"))


def test_each_phase_is_traced_once(monkeypatch):
    traced = []
    can_update = kernels.can_update

    def watched(formula, phase, layout):
        """Asked of every variable while an update of a phase is traced."""
        if layout.index == 0:
            traced.append(phase)
        return can_update(formula, phase, layout)

    monkeypatch.setattr(kernels, "can_update", watched)
    optimizer = HybridOptimizer(
        0.01, trigger=AtStep(3), transition=Blend(3), jit_compile=False
    )
    run(optimizer, random_gradients(12))
    counts = tracing_counts(optimizer)
    assert set(counts.values()) == {1}
    assert counts
    # Where the trigger fires, and where it does not.
    assert sorted(traced) == 2 * ["adaptive"] + 2 * ["mixed"] + 2 * ["sgd"]


def test_restarted_behind_a_revert_what_starts_switched_has_its_rate():
    results = []
    for reverts in (True, False):
        variable = keras.Variable([1.0, 2.0])
        optimizer = HybridOptimizer(0.01, trigger=AtStep(0), sgd_scale=2.0)
        optimizer.build([variable])
        if reverts:
            optimizer.revert()
        optimizer.restart()
        optimizer.apply([np.ones(2, "float32")], [variable])
        results.append(variable.numpy())
    np.testing.assert_array_equal(*results)
    assert results[0][0] < 1


def test_a_transition_derived_from_hard_mixes_in_its_own_way():
    class Halved(Hard):
        def mix(self, weight, adaptive, sgd):
            return 0.5 * super().mix(weight, adaptive, sgd)

    def step(transition, jit_compile):
        variable = keras.Variable([1.0, 2.0])
        optimizer = HybridOptimizer(
            0.01, transition=transition, jit_compile=jit_compile
        )
        optimizer.build([variable])
        for _ in range(2):
            optimizer.apply([np.ones(2, "float32")], [variable])
        optimizer.switch()
        before = variable.numpy()
        optimizer.apply([np.ones(2, "float32")], [variable])
        return before - variable.numpy()

    for jit_compile in ("auto", False):
        np.testing.assert_allclose(
            step(Halved(0.5), jit_compile),
            0.5 * step(Hard(0.5), jit_compile),
            rtol=1e-5,
        )
