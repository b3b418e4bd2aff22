"""Never switched it is Keras' Adam, switched at 0 Keras' SGD."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import (
    MODES,
    SOME_MODES,
    STEPS,
    assert_equal_weights,
    hybrid_sgd,
    largest_difference,
    random_gradients,
    run,
    slow_but,
    tolerance,
    train,
)

from keras_hybrid import HybridOptimizer
from keras_hybrid.transitions import Blend, Cooldown, Hard
from keras_hybrid.triggers import AtStep

ADAM = {"learning_rate": 0.01}


def cosine_schedule():
    return keras.optimizers.schedules.CosineDecay(
        0.0, STEPS, warmup_target=0.02, warmup_steps=5
    )


ADAM_OPTIONS = {
    "plain": {},
    "betas-epsilon": {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3},
    "amsgrad": {"amsgrad": True, "beta_2": 0.8},
    "weight_decay": {"weight_decay": 0.1},
    "clipnorm": {"clipnorm": 0.1, "epsilon": 1e-2},
    "clipvalue": {"clipvalue": 0.02, "epsilon": 1e-2},
    "global_clipnorm": {"global_clipnorm": 0.1, "epsilon": 1e-2},
    "ema": {"use_ema": True, "ema_momentum": 0.9},
    "ema_overwrite": {
        "use_ema": True,
        "ema_momentum": 0.9,
        "ema_overwrite_frequency": 5,
    },
    "loss_scale_factor": {"loss_scale_factor": 0.01, "epsilon": 1e-2},
    "accumulation": {"gradient_accumulation_steps": 3},
    "schedule": {"learning_rate": cosine_schedule},
    "callable": {"learning_rate": lambda: lambda: 0.03},
    "all": {
        "learning_rate": cosine_schedule,
        "amsgrad": True,
        "weight_decay": 0.05,
        "global_clipnorm": 0.5,
        "use_ema": True,
        "ema_momentum": 0.9,
        "ema_overwrite_frequency": 5,
        "gradient_accumulation_steps": 2,
    },
}


def made(options, **more):
    """The options with what must be made anew for each optimizer."""
    made_options = ADAM | options | more
    if callable(made_options["learning_rate"]):
        made_options["learning_rate"] = made_options["learning_rate"]()
    return made_options


@functools.cache
def keras_adam_weights(name):
    options = made(ADAM_OPTIONS[name])
    kind = (
        keras.optimizers.AdamW
        if "weight_decay" in options
        else keras.optimizers.Adam
    )
    return train(kind(**options), "eager")


def table(options, quick):
    """Each of the options in each mode, all slow but the quick ones."""
    rows = [(name, mode) for name in options for mode in MODES]
    assert quick <= set(rows)
    return [
        pytest.param(
            *row,
            id="-".join(row),
            marks=() if row in quick else pytest.mark.slow,
        )
        for row in rows
    ]


# "all" has schedule, AMSGrad, decay, clipping, average and accumulation.
QUICK_ADAM = {
    ("plain", "eager"),
    ("weight_decay", "eager"),
    ("all", "eager"),
    ("plain", "fit-xla"),
}
QUICK_SGD = {
    ("plain", "eager"),
    ("accumulation", "eager"),
    ("weight_decay", "fit"),
}


@pytest.mark.parametrize("name, mode", table(ADAM_OPTIONS, QUICK_ADAM))
def test_never_switched_is_adam(name, mode):
    # Compiled where the mode is the point, else for its speed not.
    jit_compile = "auto" if name in ("plain", "all") else False
    optimizer = HybridOptimizer(
        **made(ADAM_OPTIONS[name], jit_compile=jit_compile)
    )
    got = train(optimizer, mode)
    assert_equal_weights(got, keras_adam_weights(name), tolerance("float32"))


@pytest.mark.parametrize(
    "name",
    slow_but(
        {name for name, _ in QUICK_ADAM} - {"plain"},
        [name for name in ADAM_OPTIONS if name != "plain"],
    ),
)
def test_each_adam_option_changes_the_training(name):
    # Or its row above would compare plain Adam with plain Adam.
    difference = largest_difference(
        keras_adam_weights(name), keras_adam_weights("plain")
    )
    assert difference > 20 * tolerance("float32")


@pytest.mark.parametrize("options", [{}, {"amsgrad": True}], ids=str)
@SOME_MODES
def test_never_switched_is_adam_in_float64(options, mode):
    # Keras casts its betas through float32; these are exact there.
    options = ADAM | {"beta_1": 0.875, "beta_2": 0.984375} | options
    expected = train(keras.optimizers.Adam(**options), "eager", "float64")
    got = train(HybridOptimizer(**options), mode, "float64")
    assert_equal_weights(got, expected, tolerance("float64"))


SGD_OPTIONS = {
    "plain": {"momentum": 0.0},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "weight_decay": {"momentum": 0.8, "weight_decay": 0.1},
    "clipnorm": {"momentum": 0.9, "clipnorm": 0.1},
    "ema": {"momentum": 0.9, "use_ema": True, "ema_momentum": 0.9},
    "accumulation": {"momentum": 0.9, "gradient_accumulation_steps": 3},
    "loss_scale_factor": {"momentum": 0.9, "loss_scale_factor": 128.0},
}


@functools.cache
def keras_sgd_weights(name):
    return train(keras.optimizers.SGD(0.05, **SGD_OPTIONS[name]), "eager")


@pytest.mark.parametrize("name, mode", table(SGD_OPTIONS, QUICK_SGD))
def test_switched_at_step_0_is_sgd(name, mode):
    # With weight decay the learning rates must agree: it is what decays.
    rate = 0.05 if name == "weight_decay" else 1e-3
    jit_compile = "auto" if name == "nesterov" else False
    optimizer = hybrid_sgd(
        0.05, rate, jit_compile=jit_compile, **SGD_OPTIONS[name]
    )
    got = train(optimizer, mode)
    assert_equal_weights(got, keras_sgd_weights(name), tolerance("float32"))
    assert optimizer.switch_step == 0
    np.testing.assert_allclose(
        optimizer.sgd_learning_rate_equivalent, 0.05, rtol=1e-5
    )


@pytest.mark.parametrize("nesterov", [False, True], ids=["plain", "nesterov"])
@SOME_MODES
def test_switched_at_step_0_is_sgd_in_float64(nesterov, mode):
    # As above: 0.0625 and 0.875 are exact in float32.
    options = {"momentum": 0.875, "nesterov": nesterov}
    expected = train(
        keras.optimizers.SGD(0.0625, **options), "eager", "float64"
    )
    got = train(hybrid_sgd(0.0625, 1e-3, **options), mode, "float64")
    assert_equal_weights(got, expected, tolerance("float64"))


@pytest.mark.parametrize(
    "dtype", slow_but({"bfloat16"}, ["float16", "bfloat16"])
)
@pytest.mark.parametrize("jit_compile", ["auto", False], ids=str)
@pytest.mark.parametrize("switch", [None, 0], ids=["adam", "sgd"])
def test_half_precision_follows_float32(dtype, jit_compile, switch):
    # Against float32: Keras' own Adam stands still in bfloat16, where 0.999
    # rounds to 1. bfloat16 near 1 has a spacing of 2^-8 = 0.004, the weights
    # move by 8 * 0.05.
    start, gradient = [1.0, -1.0, 0.5], [0.5, -0.25, 1.0]
    w = keras.Variable(start, dtype=dtype)
    reference = keras.Variable(start)
    if switch is None:
        expected = keras.optimizers.Adam(0.05)
        optimizer = HybridOptimizer(0.05, jit_compile=jit_compile)
    else:
        expected = keras.optimizers.SGD(0.05, momentum=0.9)
        optimizer = hybrid_sgd(0.05, 0.05, jit_compile=jit_compile)
    for _ in range(8):
        optimizer.apply([keras.ops.convert_to_tensor(gradient, dtype)], [w])
        expected.apply([keras.ops.convert_to_tensor(gradient)], [reference])
    moved = np.abs(np.asarray(reference) - start).max()
    error = np.abs(np.asarray(w, "float32") - np.asarray(reference)).max()
    assert w.dtype == dtype
    assert error < 0.06 * moved


@pytest.mark.parametrize(
    "dtype", slow_but({"float16"}, ["float16", "bfloat16", "float32"])
)
@pytest.mark.parametrize("jit_compile", ["auto", False], ids=str)
@pytest.mark.parametrize("n", [2, None], ids=["switch", "adam"])
def test_zero_gradients_leave_the_weight(dtype, jit_compile, n):
    # A dead unit's gradient is 0 in every update, and v with it.
    w = keras.Variable([1.0, 1.0], dtype=dtype)
    trigger = None if n is None else AtStep(n)
    optimizer = HybridOptimizer(0.01, trigger=trigger, jit_compile=jit_compile)
    for _ in range(4):
        gradient = keras.ops.convert_to_tensor([0.0, 0.5], dtype)
        optimizer.apply([gradient], [w])
    values = np.asarray(w, "float32")
    assert values[0] == 1.0
    assert np.isfinite(values).all() and values[1] < 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"trigger": AtStep(8)}, marks=pytest.mark.slow),
        pytest.param(
            {"trigger": AtStep(8), "transition": Blend(8, path="geometric")},
            marks=pytest.mark.slow,
        ),
        {
            "trigger": AtStep(8),
            "transition": Blend(8, path="clip"),
            "sgd_scale": "norm",
            "amsgrad": True,
            "nesterov": True,
            "weight_decay": 0.01,
        },
    ],
    ids=["adam", "hard", "geometric", "clip"],
)
def test_jit_compile_changes_nothing(options):
    compiled = train(HybridOptimizer(**ADAM, **options), "eager")
    plain = train(
        HybridOptimizer(**ADAM, **options, jit_compile=False), "eager"
    )
    assert_equal_weights(compiled, plain, 1e-6)


def test_learning_rate_is_assignable_in_both_phases():
    # As Keras' SGD in proportion: 0.1 at the switch, halved later is 0.05.
    optimizer = hybrid_sgd(0.1, 0.01)
    adam = HybridOptimizer(0.01, jit_compile=False)
    sgd_reference = keras.optimizers.SGD(0.1, momentum=0.9)
    adam_reference = keras.optimizers.Adam(0.01)
    for first, second in (
        (optimizer, sgd_reference),
        (adam, adam_reference),
    ):
        a, b = keras.Variable([1.0, 2.0]), keras.Variable([1.0, 2.0])
        for step in range(8):
            gradient = tf.constant([0.5, -1.0])
            if step == 4:
                first.learning_rate = first.learning_rate.numpy() / 2
                # The velocity of Keras' SGD has the old learning rate in it.
                if second is sgd_reference:
                    momentum = second.momentums[0]
                    momentum.assign(momentum.numpy() / 2)
                second.learning_rate = second.learning_rate.numpy() / 2
            first.apply([gradient], [a])
            second.apply([gradient], [b])
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert math.isclose(
        optimizer.sgd_learning_rate_equivalent, 0.05, rel_tol=1e-5
    )


def test_the_optimizer_can_be_built_inside_a_traced_function():
    options = {"trigger": AtStep(2), "jit_compile": False}
    built, unbuilt = HybridOptimizer(**options), HybridOptimizer(**options)
    first, second = keras.Variable([1.0, 2.0]), keras.Variable([1.0, 2.0])
    built.build([first])

    def update_of(optimizer, variable):
        return tf.function(lambda g: optimizer.apply([g], [variable]))

    for update in (update_of(built, first), update_of(unbuilt, second)):
        for step in range(4):
            update(tf.constant([0.5, step - 1.0]))
    np.testing.assert_array_equal(first, second)
    assert unbuilt.switch_step == 2


@pytest.mark.parametrize("n", [1, 3])
def test_updates_before_the_switch_are_adams(n):
    gradients = random_gradients(n + 2)
    # Keras casts its betas through float32; these are exact there.
    options = {"learning_rate": 0.01, "beta_1": 0.875, "beta_2": 0.984375}
    adam = keras.optimizers.Adam(**options)
    options["jit_compile"] = False
    switching = HybridOptimizer(**options, trigger=AtStep(n))
    never = HybridOptimizer(**options)
    switched, plain = run(switching, gradients), run(never, gradients)
    keras_adam = run(adam, gradients)
    for step in range(n):
        assert largest_difference(switched[step], plain[step]) == 0
        assert largest_difference(switched[step], keras_adam[step]) < 1e-14
    assert largest_difference(switched[n], plain[n]) > 1e-4


def test_schedule_matched_control_is_adam_with_the_same_curve():
    # Hard(end=0) and a cool-down: Adam whose learning rate falls from step 8.
    class Curve(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            j = keras.ops.maximum(keras.ops.cast(step, "float32") - 8, 0)
            s = keras.ops.minimum(j / 10, 1)
            fall = (1 + keras.ops.cos(math.pi * s)) / 2
            return 0.01 * (0.1 + 0.9 * fall)

    expected = train(keras.optimizers.AdamW(Curve(), weight_decay=0.1), "eager")
    optimizer = HybridOptimizer(
        0.01,
        weight_decay=0.1,
        trigger=AtStep(8),
        transition=Hard(end=0.0),
        cooldown=Cooldown(steps=10, final=0.1),
    )
    got = train(optimizer, "fit")
    assert_equal_weights(got, expected, tolerance("float32"))
    assert optimizer.has_switched and optimizer.sgd_fraction == 0.0
