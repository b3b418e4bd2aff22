"""The optimizer against Keras' own, and against its formula in float64."""

import copy
import functools
import math
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_hybrid import HybridOptimizer
from keras_hybrid.scales import Slots
from keras_hybrid.transitions import Blend, Cooldown, Hard
from keras_hybrid.triggers import AtStep, ProjectionConverged, StepTrigger

STEPS = 24
BATCH = 4
SHAPES = [(3, 4), (4,), (4, 2), (2,)]  # Two dense layers.
LAYER_OF = [0, 0, 1, 1]
ADAM = {"learning_rate": 0.01}


def tolerance(dtype, scale=1.0):
    """The absolute tolerance on weights near 1 after STEPS updates."""
    return {"float64": 1e-10, "float32": 2e-5}[dtype] * scale


def dense_model(dtype="float32", seed=0, **kernel_arguments):
    model = keras.Sequential(
        [
            keras.Input((3,), dtype=dtype),
            keras.layers.Dense(
                4,
                "tanh",
                dtype=dtype,
                bias_initializer="ones",
                **kernel_arguments,
            ),
            keras.layers.Dense(2, dtype=dtype, bias_initializer="ones"),
        ]
    )
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=shape) for shape in SHAPES])
    return model


def regression_data(dtype="float32", batches=8):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(batches * BATCH, 3))
    y = np.stack([x[:, 0] * x[:, 1], np.sin(x[:, 2])], axis=1)
    # fit casts its data to float32; these stay the same numbers.
    return tuple(a.astype("float32").astype(dtype) for a in (x, y))


def weights_of(variables):
    return [v.numpy().astype("float64") for v in variables]


def assert_equal_weights(got, expected, atol):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def largest_difference(first, second):
    return max(
        float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True)
    )


# ---- The same training in six ways ------------------------------------------

MODES = ("eager", "function", "xla", "fit", "fit-xla", "fit-k")


def train(optimizer, mode, dtype="float32", steps=STEPS, callbacks=None):
    """Trains the dense model for `steps` batches; returns its weights."""
    model = dense_model(dtype)
    x, y = regression_data(dtype)
    if mode.startswith("fit"):
        model.compile(
            optimizer,
            keras.losses.MeanSquaredError(dtype=dtype),
            jit_compile=mode == "fit-xla",
            steps_per_execution=4 if mode == "fit-k" else 1,
        )
        model.fit(
            x,
            y,
            batch_size=BATCH,
            epochs=steps * BATCH // len(x),
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
        return weights_of(model.trainable_variables)

    def update(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x) - y))
            scaled = optimizer.scale_loss(loss)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(scaled, variables), variables)

    if mode != "eager":
        update = tf.function(update, jit_compile=mode == "xla")
    for step in range(steps):
        at = slice(step * BATCH % len(x), step * BATCH % len(x) + BATCH)
        update(tf.constant(x[at]), tf.constant(y[at]))
    # What fit does at its end.
    optimizer.finalize_variable_values(model.trainable_variables)
    return weights_of(model.trainable_variables)


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


# Every option in an eager loop, one in all modes, some in fit.
ADAM_TABLE = [
    pytest.param(
        name,
        mode,
        id=f"{name}-{mode}",
        marks=()
        if mode == "eager"
        or (name, mode)
        in (("plain", "fit"), ("plain", "fit-xla"), ("all", "fit"))
        else pytest.mark.slow,
    )
    for name in ADAM_OPTIONS
    for mode in MODES
]


@pytest.mark.parametrize("name, mode", ADAM_TABLE)
def test_never_switched_is_adam(name, mode):
    # Compiled where the mode is the point, else for its speed not.
    jit_compile = "auto" if name in ("plain", "all") else False
    optimizer = HybridOptimizer(
        **made(ADAM_OPTIONS[name], jit_compile=jit_compile)
    )
    got = train(optimizer, mode)
    assert_equal_weights(got, keras_adam_weights(name), tolerance("float32"))


@pytest.mark.parametrize("name", [n for n in ADAM_OPTIONS if n != "plain"])
def test_each_adam_option_changes_the_training(name):
    # Or its row above would compare plain Adam with plain Adam.
    difference = largest_difference(
        keras_adam_weights(name), keras_adam_weights("plain")
    )
    assert difference > 20 * tolerance("float32")


SOME_MODES = pytest.mark.parametrize(
    "mode",
    [
        "eager",
        *(pytest.param(m, marks=pytest.mark.slow) for m in MODES[1:]),
    ],
)


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


def hybrid_sgd(rate, learning_rate, **options):
    return HybridOptimizer(
        learning_rate,
        trigger=AtStep(0),
        sgd_learning_rate=rate,
        **options,
    )


@functools.cache
def keras_sgd_weights(name):
    return train(keras.optimizers.SGD(0.05, **SGD_OPTIONS[name]), "eager")


@pytest.mark.parametrize(
    "name, mode",
    [
        pytest.param(
            name,
            mode,
            id=f"{name}-{mode}",
            marks=()
            if mode == "eager"
            or (name, mode)
            in (
                ("nesterov", "function"),
                ("nesterov", "xla"),
                ("weight_decay", "fit-k"),
            )
            else pytest.mark.slow,
        )
        for name in SGD_OPTIONS
        for mode in MODES
    ],
)
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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
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


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"trigger": AtStep(8)},
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


# ---- Keras' own published cases ---------------------------------------------


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


# ---- The formula, slow and in float64 ---------------------------------------


def simulate(
    weights,
    gradients,
    *,
    switch_at=None,
    learning_rate=0.01,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-7,
    amsgrad=False,
    momentum=None,
    nesterov=False,
    sgd_scale="slots",
    scale_scope="unit",
    sgd_learning_rate=None,
    carry_momentum=True,
    weight=lambda j: 1.0,
    mix=lambda a, r, x: (1 - x) * a + x * r,
    factor=lambda j: 1.0,
    scale_groups=None,
    weight_decay=0.0,
    multiplier=1.0,
):
    """The formula of DESIGN.md in NumPy, one list entry a variable.

    `switch_at` has each variable's first SGD update; `scale_groups` each
    variable's scale group. Returns the weights after every update, and the
    variables' rho.
    """
    count = len(weights)
    switch_at = switch_at or [math.inf] * count
    groups = list(range(count)) if scale_groups is None else scale_groups
    momentum = beta_1 if momentum is None else momentum
    w = [np.array(x, "float64") for x in weights]
    m, v = [0 * x for x in w], [0 * x for x in w]
    v_max = [0 * x for x in w]
    above, below = dict.fromkeys(groups, 0.0), dict.fromkeys(groups, 0.0)
    rho, history = [None] * count, []
    rate_at = (
        learning_rate if callable(learning_rate) else lambda t: learning_rate
    )
    for t, gradient in enumerate(gradients):
        rate = rate_at(t)
        p = [None] * count
        for i, g in enumerate(gradient):
            j = t - switch_at[i]
            x = weight(j) if j >= 0 else 0.0
            beta = beta_1 + x * (momentum - beta_1)
            if j == 0 and not carry_momentum:
                m[i] = 0 * m[i]
            m[i] = beta * m[i] + (1 - beta) * g
            if x < 1:
                v[i] = beta_2 * v[i] + (1 - beta_2) * g**2
                v_max[i] = np.maximum(v_max[i], v[i])
            corrections = np.sqrt(1 - beta_2 ** (t + 1)) / (
                1 - beta_1 ** (t + 1)
            )
            root = np.sqrt(v_max[i] if amsgrad else v[i])
            scale = corrections / (root + epsilon)
            p[i] = scale * m[i]
            cooled = rate * (factor(j) if j >= 0 else 1.0)
            direction = m[i]
            if nesterov:
                ahead = beta * m[i] + (1 - beta) * g
                direction = (1 - x) * m[i] + x * ahead
            size = cooled * scale
            if scale_scope == "weight" and x < 1:
                # Adam's own, which rests with v once SGD is alone.
                rho[i] = multiplier * scale
            if x > 0:
                if sgd_learning_rate is None:
                    sgd_step = cooled * rho[i]
                elif callable(sgd_learning_rate):
                    sgd_step = sgd_learning_rate(j) / (1 - momentum)
                    sgd_step *= factor(j)
                else:
                    if rho[i] is None:
                        rho[i] = sgd_learning_rate / (1 - momentum) / rate
                    sgd_step = cooled * rho[i]
                size = mix(cooled * scale, sgd_step, x)
            w[i] = w[i] - direction * size - cooled * weight_decay * w[i]
        history.append([x.copy() for x in w])
        for group in set(groups):
            members = [
                i
                for i in range(count)
                if groups[i] == group and t < switch_at[i]
            ]
            if not members:
                continue
            p_p = sum((p[i] ** 2).sum() for i in members)
            p_g = sum((p[i] * gradient[i]).sum() for i in members)
            m_m = sum((m[i] ** 2).sum() for i in members)
            p_m = sum((p[i] * m[i]).sum() for i in members)
            numerator, denominator = {
                "slots": (0.0, 1.0),
                "projection": (p_p, p_g),
                "swats": (p_p / p_g, 1.0),
                "momentum": (p_p, p_m),
                "norm": (math.sqrt(p_p / m_m), 1.0),
            }.get(sgd_scale, (sgd_scale, 1.0))
            above[group] = beta_2 * above[group] + (1 - beta_2) * numerator
            below[group] = beta_2 * below[group] + (1 - beta_2) * denominator
        for i in range(count):
            if t + 1 != switch_at[i] or sgd_learning_rate is not None:
                continue
            if sgd_scale != "slots":
                # Both averages have the same bias correction.
                rho[i] = above[groups[i]] / below[groups[i]]
            elif scale_groups is not None or scale_scope == "variable":
                members = [
                    k
                    for k in range(count)
                    if groups[k] == groups[i] and t < switch_at[k]
                ]
                rho[i] = sum((p[k] ** 2).sum() for k in members) / sum(
                    (p[k] * m[k]).sum() for k in members
                )
            elif scale_scope == "unit":
                # A column of a kernel, each weight of a bias.
                axes = () if p[i].ndim == 1 else 0
                rho[i] = (p[i] ** 2).sum(axes) / (p[i] * m[i]).sum(axes)
            if scale_scope != "weight":
                rho[i] = multiplier * rho[i]
    return history, rho


def random_gradients(steps=16, seed=2):
    """Gradients that point one way, so that every projection is positive."""
    rng = np.random.default_rng(seed)
    return [
        [1 + 0.5 * (k + 1) * rng.normal(size=s) for k, s in enumerate(SHAPES)]
        for _ in range(steps)
    ]


def run(optimizer, gradients, dtype="float64", seed=0):
    """The weights after every update of the dense model's variables."""
    variables = dense_model(dtype, seed).trainable_variables
    history = []
    for gradient in gradients:
        tensors = [tf.constant(g, dtype) for g in gradient]
        optimizer.apply(tensors, variables)
        history.append(weights_of(variables))
    return history


def start_weights(seed=0):
    return weights_of(dense_model("float64", seed).trainable_variables)


def exact(value):
    """Keras keeps the learning rate in float32."""
    return float(np.float32(value))


@keras.saving.register_keras_serializable("test_optimizer")
class Staggered(StepTrigger):
    """Group k switches at update steps[k]."""

    def __init__(self, steps):
        self.steps = list(steps)

    def update(self, state, signals):
        steps = keras.ops.convert_to_tensor(self.steps, signals.step.dtype)
        return signals.step + 1 >= steps, state

    def get_config(self):
        return {"steps": self.steps}


def linear(j, steps=4):
    return min((j + 1) / steps, 1.0)


def cosine(j, steps=4):
    return (1 - math.cos(math.pi * linear(j, steps))) / 2


def exponential(j, steps=4):
    return 1 - 1e-8 ** linear(j, steps) if j + 1 <= steps else 1.0


def akiba(j, steps=4):
    s = linear(j, steps)
    if s < 0.8:
        return math.exp((s - 0.8) / 0.2) / 2
    return min(0.5 + (s - 0.8) / 0.4, 1.0)


def hyperbolic(j, steps=4):
    return (j + 1) / steps / ((j + 1) / steps + 1)


def geometric(a, r, x):
    return a ** (1 - x) * r**x


def clip(a, r, x):
    return np.clip(a, x * r, r / x)


def cosine_factor(j, steps=6, final=0.1):
    s = min(j / steps, 1.0)
    return final + (1 - final) * (1 + math.cos(math.pi * s)) / 2


def linear_factor(j, steps=6, final=0.0):
    return final + (1 - final) * (1 - min(j / steps, 1.0))


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """0.2 / 2^(step / 4), for steps of any type."""

    def __call__(self, step):
        return 0.2 * 0.5 ** (keras.ops.cast(step, "float64") / 4)

    def get_config(self):
        return {}


# Name: (options of the optimizer, options of the simulation). All switch at 5.
FORMULA = {
    "never": ({"trigger": None}, {"switch_at": None}),
    "hard": ({}, {}),
    "variable-rho": (
        {"scale_scope": "variable"},
        {"scale_scope": "variable"},
    ),
    "weight-rho": ({"scale_scope": "weight"}, {"scale_scope": "weight"}),
    "weight-amsgrad-blend": (
        {
            "sgd_scale": Slots("weight"),
            "amsgrad": True,
            "beta_2": 0.7,
            "transition": Blend(4),
        },
        {
            "scale_scope": "weight",
            "amsgrad": True,
            "beta_2": 0.7,
            "weight": linear,
        },
    ),
    "projection": (
        {"sgd_scale": "projection"},
        {"sgd_scale": "projection"},
    ),
    "multiplied": (
        {"scale_multiplier": 2.0, "sgd_scale": "projection"},
        {"sgd_scale": "projection", "multiplier": 2.0},
    ),
    "multiplied-unit": ({"scale_multiplier": 2.0}, {"multiplier": 2.0}),
    "multiplied-weight": (
        {"scale_multiplier": 2.0, "scale_scope": "weight"},
        {"scale_scope": "weight", "multiplier": 2.0},
    ),
    "norm": ({"sgd_scale": "norm"}, {"sgd_scale": "norm"}),
    "swats": ({"sgd_scale": "swats"}, {"sgd_scale": "swats"}),
    "momentum-rho": ({"sgd_scale": "momentum"}, {"sgd_scale": "momentum"}),
    "number": ({"sgd_scale": 3.0}, {"sgd_scale": 3.0}),
    "layer-rho": ({"scale_scope": "layer"}, {"scale_groups": LAYER_OF}),
    "model-rho": ({"scale_scope": "model"}, {"scale_groups": [0] * 4}),
    "layer-norm": (
        {"scale_scope": "layer", "sgd_scale": "norm"},
        {"scale_groups": LAYER_OF, "sgd_scale": "norm"},
    ),
    "sgd-rate": ({"sgd_learning_rate": 0.1}, {"sgd_learning_rate": 0.1}),
    "sgd-schedule": (
        {"sgd_learning_rate": Halving()},
        {"sgd_learning_rate": lambda j: 0.2 * 0.5 ** (j / 4)},
    ),
    "zero-momentum": ({"carry_momentum": False}, {"carry_momentum": False}),
    "momentum": ({"momentum": 0.5}, {"momentum": 0.5}),
    "nesterov": (
        {"momentum": 0.8, "nesterov": True},
        {"momentum": 0.8, "nesterov": True},
    ),
    "amsgrad": (
        {"amsgrad": True, "beta_2": 0.7},
        {"amsgrad": True, "beta_2": 0.7},
    ),
    "decay": ({"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "decay-cooldown": (
        {"weight_decay": 0.1, "cooldown": Cooldown(steps=6, final=0.1)},
        {"weight_decay": 0.1, "factor": cosine_factor},
    ),
    "linear-cooldown": (
        {"cooldown": Cooldown("linear", steps=6)},
        {"factor": linear_factor},
    ),
    "sgd-rate-cooldown": (
        {"sgd_learning_rate": 0.1, "cooldown": Cooldown("linear", steps=6)},
        {"sgd_learning_rate": 0.1, "factor": linear_factor},
    ),
    "half": ({"transition": Hard(end=0.5)}, {"weight": lambda j: 0.5}),
    "blend": ({"transition": Blend(4)}, {"weight": linear}),
    "blend-end": (
        {"transition": Blend(4, end=0.5)},
        {"weight": lambda j: linear(j) / 2},
    ),
    "blend-akiba": (
        {"transition": Blend(4, curve="akiba")},
        {"weight": akiba},
    ),
    "blend-hyperbolic-clip": (
        {"transition": Blend(4, curve="hyperbolic", path="clip")},
        {"weight": hyperbolic, "mix": clip},
    ),
    "blend-all": (
        {
            "transition": Blend(4, path="clip"),
            "momentum": 0.6,
            "nesterov": True,
            "amsgrad": True,
            "weight_decay": 0.1,
            "carry_momentum": False,
            "scale_scope": "layer",
            "cooldown": Cooldown("linear", steps=6),
        },
        {
            "weight": linear,
            "mix": clip,
            "momentum": 0.6,
            "nesterov": True,
            "amsgrad": True,
            "weight_decay": 0.1,
            "carry_momentum": False,
            "scale_groups": LAYER_OF,
            "factor": linear_factor,
        },
    ),
}
for _path, _mix in (("geometric", geometric), ("clip", clip)):
    for _curve, _weight in (
        ("linear", linear),
        ("cosine", cosine),
        ("exponential", exponential),
        ("akiba", akiba),
    ):
        FORMULA[f"blend-{_curve}-{_path}"] = (
            {"transition": Blend(4, curve=_curve, path=_path)},
            {"weight": _weight, "mix": _mix},
        )
RARE_BLENDS = {
    f"blend-{curve}-{path}"
    for curve in ("linear", "exponential", "akiba")
    for path in ("geometric", "clip")
} - {"blend-linear-geometric"}
SWITCH = 5


def formula_run(name, gradients, **more):
    options, simulated = FORMULA[name]
    optimizer = HybridOptimizer(
        **({"learning_rate": 0.01, "trigger": AtStep(SWITCH)} | options | more)
    )
    got = run(optimizer, gradients)
    expected, rho = simulate(
        start_weights(),
        gradients,
        **(
            {"learning_rate": exact(0.01), "switch_at": [SWITCH] * 4}
            | simulated
        ),
    )
    return optimizer, got, expected, rho


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow)
        if name in RARE_BLENDS
        else name
        for name in FORMULA
    ],
)
def test_the_formula_at_every_update(name):
    gradients = random_gradients()
    _, got, expected, _ = formula_run(name, gradients, jit_compile=False)
    for step in range(len(gradients)):
        assert_equal_weights(got[step], expected[step], tolerance("float64"))


@pytest.mark.parametrize(
    "name", ["hard", "norm", "sgd-schedule", "blend-all", "decay-cooldown"]
)
def test_the_formula_compiled(name):
    gradients = random_gradients()
    _, got, expected, _ = formula_run(name, gradients)
    assert_equal_weights(got[-1], expected[-1], tolerance("float64"))


@pytest.mark.parametrize("name", ["hard", "blend-all", "sgd-rate"])
def test_the_formula_where_xla_surrounds(name):
    # There one update computes any phase.
    options, simulated = FORMULA[name]
    optimizer = HybridOptimizer(
        **({"learning_rate": 0.01, "trigger": AtStep(SWITCH)} | options)
    )
    variables = dense_model("float64").trainable_variables
    optimizer.build(variables)

    @tf.function(jit_compile=True)
    def update(gradient):
        optimizer.apply(gradient, variables)

    gradients = random_gradients()
    for gradient in gradients:
        update([tf.constant(g, "float64") for g in gradient])
    expected, _ = simulate(
        start_weights(),
        gradients,
        **(
            {"learning_rate": exact(0.01), "switch_at": [SWITCH] * 4}
            | simulated
        ),
    )
    assert_equal_weights(
        weights_of(variables), expected[-1], tolerance("float64")
    )


@pytest.mark.parametrize("name", [n for n in FORMULA if n != "hard"])
def test_each_row_of_the_formula_differs_from_a_hard_switch(name):
    gradients = random_gradients()
    switch = {"learning_rate": 0.01, "switch_at": [SWITCH] * 4}
    rows = [
        simulate(start_weights(), gradients, **(switch | FORMULA[n][1]))[0][-1]
        for n in (name, "hard")
    ]
    assert largest_difference(*rows) > 2e-5


# ---- Phase and scopes -------------------------------------------------------


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


@pytest.mark.parametrize(
    "scope, steps, switch_at, scale_groups",
    [
        ("model", [4], [4] * 4, range(4)),
        ("layer", [3, 6], [3, 3, 6, 6], range(4)),
        ("variable", [3, 5, 7, 9], [3, 5, 7, 9], range(4)),
        # One rho for the model, of those that have not switched yet.
        ("variable", [3, 5, 7, 9], [3, 5, 7, 9], [0] * 4),
        ("layer", [3, 6], [3, 3, 6, 6], [0] * 4),
        ("model", [4], [4] * 4, LAYER_OF),
        ("variable", [3, 5, 7, 9], [3, 5, 7, 9], LAYER_OF),
    ],
)
@pytest.mark.parametrize(
    "sgd_scale",
    [
        "slots",
        "projection",
        pytest.param("norm", marks=pytest.mark.slow),
        pytest.param("swats", marks=pytest.mark.slow),
    ],
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
    np.testing.assert_allclose(
        own._scales.numpy()[1], whole._scales.numpy()[1], rtol=1e-12
    )
    assert own._scales.numpy()[0] != whole._scales.numpy()[0]


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
        rho[scope] = optimizer._scales.numpy()
    equal = functools.partial(np.testing.assert_allclose, rtol=1e-12)
    equal(rho["unit"][2], rho["variable"][0])
    equal(rho["unit"][5], rho["variable"][1])
    equal(rho["unit"][-2:], rho["model"][0])
    equal(rho["variable"][3], rho["model"][0])
    assert len(set(rho["unit"])) == 12 - 1


@pytest.mark.parametrize(
    "sgd_scale", ["projection", "momentum", "norm", "swats"]
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
    rho = optimizer._scales.numpy()[1]
    assert min(values) - 1e-6 <= rho <= max(values) + 1e-6


@pytest.mark.parametrize("sgd_scale", ["projection", "norm", "swats"])
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
        before = optimizer._scale_state[0].numpy()[1]
        for _ in range(absent):
            optimizer.apply([one], [w])
        assert optimizer._scale_state[0].numpy()[1] == before
        optimizer.switch()
        return optimizer._scales.numpy()[1]

    assert estimate(absent=0) == estimate(absent=50)


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


@pytest.mark.parametrize("surround", [False, True], ids=["alone", "xla"])
@pytest.mark.parametrize("amsgrad", [False, True], ids=["adam", "amsgrad"])
def test_the_second_moment_rests_after_the_switch(surround, amsgrad):
    optimizer = HybridOptimizer(0.01, amsgrad=amsgrad, trigger=AtStep(3))
    variables = dense_model().trainable_variables
    optimizer.build(variables)

    def update(gradient):
        optimizer.apply(gradient, variables)

    if surround:
        update = tf.function(update, jit_compile=True)
    slots = [*optimizer._second_moments]
    if amsgrad:
        slots += optimizer._second_moments_max
    seen = []
    for gradient in random_gradients(7):
        update([tf.constant(g, "float32") for g in gradient])
        seen.append([s.numpy() for s in slots])
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
    for m, g in zip(optimizer._first_moments, gradients[-1], strict=True):
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


# ---- switch() and revert() --------------------------------------------------


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


def test_switch_leaves_switched_groups_alone():
    optimizer = HybridOptimizer(
        0.01, trigger=Staggered([2, 99]), scope="layer", jit_compile=False
    )
    gradients = random_gradients(6)
    variables = dense_model("float64").trainable_variables
    for gradient in gradients[:4]:
        optimizer.apply([tf.constant(g) for g in gradient], variables)
    before = optimizer._scales.numpy()
    optimizer.switch()
    after = optimizer._scales.numpy()
    # The first layer's units: 4 of its kernel, 4 of its bias.
    np.testing.assert_array_equal(before[:8], after[:8])
    assert (before[8:] == 0).all() and (after > 0).all()
    assert sorted(optimizer.switch_steps.values()) == [2, 4]


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

    def update():
        optimizer.apply([tf.constant([0.1, -0.2, 0.3], "float64")], [variable])
        factors.append(optimizer.cooldown_factor)

    for _ in range(7):
        update()
    assert optimizer.switch_step == 4
    assert optimizer.cooldown_end == 6
    assert factors == [1, 1, 1, 1, 0.5, 0, 0]
    optimizer.restart()
    assert not optimizer.has_switched
    assert optimizer.phase_start == 7
    for _ in range(6):
        update()
    assert optimizer.switch_step == 11
    assert factors[7:] == [1, 1, 1, 1, 0.5, 0]


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


class AtBatch(keras.callbacks.Callback):
    """Calls `action(optimizer)` after `batch` batches."""

    def __init__(self, actions):
        super().__init__()
        self.actions, self.batches = actions, 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        if self.batches in self.actions:
            self.actions[self.batches](self.model.optimizer)


class Counting(keras.layers.Layer):
    """Counts how often its Python code runs: once a trace."""

    traces = 0

    def call(self, x):
        self.traces += 1
        return x


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


def test_at_step_is_exact_within_one_execution():
    # The switch at 10 falls inside an execution of 4 updates.
    optimizer = HybridOptimizer(0.01, trigger=AtStep(10))
    expected = train(
        HybridOptimizer(0.01, trigger=AtStep(10), jit_compile=False), "eager"
    )
    got = train(optimizer, "fit-k")
    assert_equal_weights(got, expected, tolerance("float32"))
    assert optimizer.switch_step == 10


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


@pytest.mark.parametrize(
    "mode",
    [
        m
        if m in ("fit", "fit-xla")
        else pytest.param(m, marks=pytest.mark.slow)
        for m in MODES
    ],
)
def test_blend_and_cooldown_in_every_mode(mode):
    got = train(blending_optimizer(), mode)
    assert_equal_weights(got, blended_weights(), tolerance("float32"))


def test_each_phase_is_traced_once(monkeypatch):
    traced = []
    update = HybridOptimizer._update_by_layout

    def watched(self, layouts, phase, arguments):
        traced.append(phase)
        update(self, layouts, phase, arguments)

    monkeypatch.setattr(HybridOptimizer, "_update_by_layout", watched)
    optimizer = HybridOptimizer(
        0.01, trigger=AtStep(3), transition=Blend(3), jit_compile=False
    )
    run(optimizer, random_gradients(12))
    counts = optimizer._functions.tracing_counts()
    assert set(counts.values()) == {1}
    assert counts
    # Where the trigger fires, and where it does not.
    assert sorted(traced) == 2 * ["adaptive"] + 2 * ["mixed"] + 2 * ["sgd"]


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


# ---- Whatever variables there are -------------------------------------------


def test_frozen_layers_stay():
    model = dense_model()
    model.layers[0].trainable = False
    before = weights_of(model.layers[0].variables)
    optimizer = HybridOptimizer(0.01, trigger=AtStep(3))
    model.compile(optimizer, "mse")
    x, y = regression_data()
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    assert (
        largest_difference(weights_of(model.layers[0].variables), before) == 0
    )
    assert optimizer.switch_step == 3
    assert len(optimizer._first_moments) == 2


def test_partial_variable_lists_are_adams():
    # Built for all, each update for some: as Keras' Adam does.
    gradients = random_gradients(6)
    results = []
    for optimizer in (
        HybridOptimizer(0.01, jit_compile=False),
        keras.optimizers.Adam(0.01),
    ):
        variables = dense_model().trainable_variables
        optimizer.build(variables)
        for step, gradient in enumerate(gradients):
            part = [0, 1] if step % 2 else [2, 3]
            optimizer.apply(
                [tf.constant(gradient[i], "float32") for i in part],
                [variables[i] for i in part],
            )
        results.append(weights_of(variables))
    assert_equal_weights(*results, tolerance("float32"))


@pytest.mark.parametrize("scope", ["model", "layer", "variable"])
def test_partial_variable_lists_switch(scope):
    optimizer = HybridOptimizer(
        0.01, trigger=AtStep(4), scope=scope, jit_compile=False
    )
    variables = dense_model("float64").trainable_variables
    optimizer.build(variables)
    for step, gradient in enumerate(random_gradients(8)):
        part = [0, 1] if step % 2 else [2, 3]
        optimizer.apply(
            [tf.constant(gradient[i]) for i in part],
            [variables[i] for i in part],
        )
    assert optimizer.switch_step == 4
    assert (optimizer._scales.numpy() > 0).all()
    assert all(np.isfinite(w).all() for w in weights_of(variables))


def test_none_gradients_warn_and_leave_the_variable():
    a, b = keras.Variable([1.0, 2.0]), keras.Variable([1.0, 2.0])
    optimizer = HybridOptimizer(0.01, trigger=AtStep(2), jit_compile=False)
    optimizer.build([a, b])
    for _ in range(4):
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            optimizer.apply([tf.constant([1.0, 1.0]), None], [a, b])
    np.testing.assert_array_equal(b, [1.0, 2.0])
    assert np.isfinite(a.numpy()).all() and float(a.numpy()[0]) < 1.0
    assert optimizer.switch_step == 2
    with pytest.raises(ValueError, match="No gradients provided"):
        optimizer.apply([None, None], [a, b])


@pytest.mark.parametrize("jit_compile", ["auto", False], ids=str)
def test_mixed_dtypes_in_one_model(jit_compile):
    variables = [
        keras.Variable([1.0, 2.0], dtype=d)
        for d in ("float64", "float32", "bfloat16")
    ]
    optimizer = HybridOptimizer(
        0.01, trigger=AtStep(4), transition=Blend(3), jit_compile=jit_compile
    )
    references = [keras.Variable([1.0, 2.0], dtype="float64")]
    alone = HybridOptimizer(
        0.01, trigger=AtStep(4), transition=Blend(3), jit_compile=False
    )
    for step in range(10):
        gradient = [0.5, 1.0 + 0.25 * step]
        optimizer.apply(
            [tf.constant(gradient, v.dtype) for v in variables], variables
        )
        alone.apply([tf.constant(gradient, "float64")], references)
    expected = references[0].numpy()
    for variable, atol in zip(variables, (1e-10, 1e-5, 0.08), strict=True):
        np.testing.assert_allclose(
            np.asarray(variable, "float64"), expected, atol=atol
        )


def test_embedding_gradients_are_summed_over_duplicates():
    start = np.arange(12, dtype="float32").reshape(4, 3)
    table, dense = keras.Variable(start), keras.Variable(start)
    optimizer = HybridOptimizer(0.01)
    adam = keras.optimizers.Adam(0.01)
    for step in range(6):
        values = np.ones((3, 3), "float32") * [[1.0], [2.0], [step - 2.0]]
        slices = tf.IndexedSlices(
            tf.constant(values, "float32"),
            tf.constant([1, 3, 1]),
            tf.constant([4, 3]),
        )
        optimizer.apply([slices], [table])
        adam.apply([tf.convert_to_tensor(slices)], [dense])
    np.testing.assert_allclose(table, dense, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clipnorm": 0.5},
        {"global_clipnorm": 0.5},
        {"clipvalue": 0.01},
        {"use_ema": True},
        {"gradient_accumulation_steps": 2},
    ],
    ids=str,
)
def test_embedding_models_train(options):
    tokens = np.tile([[0, 1, 1], [2, 1, 3]], (8, 1))
    labels = np.tile([[0.0], [1.0]], (8, 1)).astype("float32")
    results = []
    for dense in (False, True):
        keras.utils.set_random_seed(0)
        embedding = keras.layers.Embedding(5, 2)
        head = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
        model = keras.Sequential([keras.Input((3,)), embedding, head])
        optimizer = HybridOptimizer(
            0.05, trigger=AtStep(3), jit_compile=False, **options
        )
        for _ in range(8):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(tokens) - labels))
            gradients = tape.gradient(loss, model.trainable_variables)
            assert isinstance(gradients[0], tf.IndexedSlices)
            if dense:
                gradients[0] = tf.convert_to_tensor(gradients[0])
            optimizer.apply(gradients, model.trainable_variables)
        results.append(weights_of(model.trainable_variables))
    assert_equal_weights(*results, 1e-5)


def test_constraints_and_regularizers_hold_in_both_phases():
    model = dense_model(kernel_constraint="non_neg", kernel_regularizer="l2")
    optimizer = HybridOptimizer(0.1, trigger=AtStep(4))
    model.compile(optimizer, "mse")
    x, y = regression_data()
    for _ in range(2):
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
        kernel = model.layers[0].kernel.numpy()
        assert kernel.min() == 0 and kernel.max() > 0
    assert optimizer.switch_step == 4


def test_shared_layers_have_one_slot():
    layer = keras.layers.Dense(3)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layer(keras.ops.tanh(layer(inputs))))
    optimizer = HybridOptimizer(0.01, trigger=AtStep(2), scope="layer")
    model.compile(optimizer, "mse")
    x, _ = regression_data()
    model.fit(x, x, batch_size=BATCH, shuffle=False, verbose=0)
    assert len(optimizer._first_moments) == 2
    assert list(optimizer.switch_steps.values()) == [2]


def test_batch_normalization_and_dropout_train():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(2),
        ]
    )
    optimizer = HybridOptimizer(
        0.01, trigger=AtStep(10), transition=Blend(4), scope="layer"
    )
    model.compile(optimizer, "mse")
    x, y = regression_data()
    history = model.fit(x, y, batch_size=BATCH, epochs=3, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert set(optimizer.switch_steps.values()) == {10}
    assert len(optimizer.switch_steps) == 3
    # The moving statistics are no weights.
    assert len(optimizer._first_moments) == 6


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def fit_policy_model(optimizer, **fit_arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, "tanh"),
            keras.layers.Dense(2, dtype="float32"),
        ]
    )
    model.compile(optimizer, "mse")
    x, y = regression_data()
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, **fit_arguments)
    return model


@pytest.mark.parametrize(
    "policy", ["mixed_float16", "mixed_bfloat16"], indirect=True
)
def test_mixed_precision_is_adams_then_switches(policy):
    model = fit_policy_model(HybridOptimizer(0.01, jit_compile=False), epochs=3)
    reference = fit_policy_model(keras.optimizers.Adam(0.01), epochs=3)
    # Half-precision gradients: a rounding of w may change their last bit.
    assert_equal_weights(
        weights_of(model.trainable_variables),
        weights_of(reference.trainable_variables),
        2e-3,
    )
    inner = HybridOptimizer(0.01, trigger=AtStep(5))
    model = fit_policy_model(inner)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (
        policy == "mixed_float16"
    )
    assert inner.switch_step == 5
    assert all(
        np.isfinite(w).all() for w in weights_of(model.trainable_variables)
    )


@pytest.mark.parametrize("n", [0, 3], ids=["sgd", "adam"])
def test_non_finite_gradients_are_skipped_by_loss_scaling(n):
    inner = HybridOptimizer(
        0.01,
        trigger=AtStep(n),
        sgd_learning_rate=0.1,
        jit_compile=False,
    )
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
    w = keras.Variable([1.0, 2.0])
    optimizer.apply([tf.constant([8.0, 8.0])], [w])
    before = [v.numpy() for v in (w, *inner.variables)]
    optimizer.apply([tf.constant([np.inf, 8.0])], [w])
    after = [v.numpy() for v in (w, *inner.variables)]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    for _ in range(3):
        optimizer.apply([tf.constant([8.0, 8.0])], [w])
    # Four finite updates in all.
    assert int(inner.iterations) == 4 and inner.has_switched
    assert inner.switch_step == n


# ---- Stock callbacks --------------------------------------------------------


@pytest.mark.parametrize("phase", ["adam", "sgd"])
def test_learning_rate_callbacks_act_in_both_phases(phase):
    def optimizer():
        options = (
            {"trigger": AtStep(0), "sgd_scale": 2.0} if phase == "sgd" else {}
        )
        return HybridOptimizer(0.02, jit_compile=False, **options)

    def halve(epoch, rate):
        return rate / 2 if epoch else rate

    stock = optimizer()
    weights = train(
        stock, "fit", callbacks=[keras.callbacks.LearningRateScheduler(halve)]
    )
    np.testing.assert_allclose(stock.learning_rate, 0.005, rtol=1e-6)
    scheduled = optimizer()
    # Batches 0-7 at 0.02, 8-15 at 0.01, 16-23 at 0.005, by hand.
    expected = train(
        scheduled,
        "fit",
        callbacks=[
            AtBatch(
                {
                    8: lambda o: o.learning_rate.assign(0.01),
                    16: lambda o: o.learning_rate.assign(0.005),
                }
            )
        ],
    )
    assert largest_difference(weights, expected) == 0
    unscheduled = train(optimizer(), "eager")
    assert largest_difference(weights, unscheduled) > 1e-3
    if phase == "sgd":
        # 0.005 * (1 - 0.9) * 2
        np.testing.assert_allclose(
            stock.sgd_learning_rate_equivalent, 0.001, rtol=1e-5
        )
        plateau = optimizer()
        reduce = keras.callbacks.ReduceLROnPlateau(
            "loss", factor=0.1, patience=1, min_delta=1e9
        )
        train(plateau, "fit", callbacks=[reduce])
        # Nothing improves by 1e9: reduced after the second and third epoch.
        np.testing.assert_allclose(plateau.learning_rate, 2e-4, rtol=1e-5)


# ---- Arguments assigned -----------------------------------------------------


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


# ---- Copies of an optimizer that is not built -------------------------------


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


def test_layers_of_unnamed_tensorflow_variables_are_their_own():
    variables = [tf.Variable(1.0), tf.Variable(2.0)]
    optimizer = HybridOptimizer(scope="layer", jit_compile=False)
    optimizer.build(variables)
    assert len(optimizer.switch_steps) == 2
