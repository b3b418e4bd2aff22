"""Where weights are float64, no Python float passes through float32.

Thresholds too: what is compared is compared in float64, to the last bits.
"""

import math

import keras
import numpy as np
import pytest
import reference
from formula import simulate
from keras import ops
from small import Halving, halving

from keras_hybrid import HybridOptimizer, presets
from keras_hybrid.scales import Projection, Slots, Swats
from keras_hybrid.transitions import Blend, Cooldown
from keras_hybrid.triggers import (
    AtStep,
    GradientSignalToNoise,
    ProjectionConverged,
    Signals,
)

BETA_1, BETA_2 = 0.9, 0.999  # No float32 is either.
EXACT = 1e-12


@pytest.fixture(autouse=True)
def float64():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


# ---- Triggers ---------------------------------------------------------------


def signals(step, **changed):
    values = {
        "learning_rate": 0.01,
        "correction_1": 1 - BETA_1 ** (step + 1),
        "correction_2": 1 - BETA_2 ** (step + 1),
        "step_square": 1.0,
        "step_descent": 1.0,
        "moment_square": 1.0,
        "second_moment": 1.0,
        **changed,
    }
    tensors = {
        k: ops.convert_to_tensor(np.array([v])) for k, v in values.items()
    }
    return Signals(
        step=ops.convert_to_tensor(step, "int32"),
        beta_1=BETA_1,
        beta_2=BETA_2,
        **tensors,
    )


def fires_after(trigger, sequence):
    """Whether it fires after the last of these signals."""
    state = [ops.convert_to_tensor(s) for s in trigger.init(1)]
    for step, changed in enumerate(sequence):
        fired, state = trigger.update(state, signals(step, **changed))
    return bool(np.asarray(fired)[0])


def distance(gammas, against, relative):
    """What the condition compares with the tolerance, after the last."""
    average = past = 0.0
    for k, gamma in enumerate(gammas, start=1):
        gamma = gamma if relative else 0.01 * gamma
        average = BETA_2 * average + (1 - BETA_2) * gamma
        corrected = average / (1 - BETA_2**k)
        past = BETA_2 * past + (1 - BETA_2) * corrected
    other = gamma if against == "gamma" else past / (1 - BETA_2**k)
    size = abs(corrected) if relative else 1.0
    return abs(corrected - other) / size


@pytest.mark.parametrize("against", ["past", "gamma"])
@pytest.mark.parametrize("relative", [True, False], ids=["rel", "abs"])
def test_projection_converged_fires_below_its_tolerance_alone(
    relative, against
):
    gammas = np.random.default_rng(0).uniform(0.5, 1.5, 84)
    limit = distance(gammas, against, relative)
    sequence = [{"step_square": gamma} for gamma in gammas]
    fired = [
        fires_after(
            ProjectionConverged(limit * factor, relative, 1, 2, None, against),
            sequence,
        )
        for factor in (1 - EXACT, 1 + EXACT)
    ]
    assert fired == [False, True]


def test_signal_to_noise_fires_below_its_threshold_alone():
    signal = 2.0 / (1 - BETA_1**3) ** 2
    total = 0.7 / (1 - BETA_2**3)
    floor = (1 - BETA_1) / (1 + BETA_1)
    ratio = (signal - floor * total) / (total - signal)
    sequence = [{"moment_square": 2.0, "second_moment": 0.7}] * 3
    fired = [
        fires_after(GradientSignalToNoise(ratio * factor, 1, 1), sequence)
        for factor in (1 - EXACT, 1 + EXACT)
    ]
    assert fired == [False, True]


@pytest.mark.parametrize(
    "which", [-1, pytest.param(-2, marks=pytest.mark.slow)]
)
def test_swats_switches_where_the_paper_does(which):
    """Noisy logistic regression: Lambda - gamma passes near the tolerance."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 8))
    y = (x @ rng.normal(size=8) + rng.normal(size=400) > 0).astype("float64")
    batches = rng.integers(0, 400, (300, 16))

    def gradient(w, k):
        rows = batches[k]
        p = 1 / (1 + np.exp(-x[rows] @ w))
        return x[rows].T @ (p - y[rows]) / len(rows)

    start = np.zeros(8)
    options = {"eps": 1e-7, "steps": 300}
    paper = reference.swats(gradient, start, 1e-2, tolerance=0.0, **options)
    # The first is 0 by definition.
    distances = np.abs(paper.corrected - paper.gamma)[1:]
    closest = [k for k in range(1, 299) if distances[k] < distances[:k].min()]
    for factor in (1 - 1e-9, 1 + 1e-9):
        tolerance = distances[closest[which]] * factor
        expected = reference.swats(
            gradient, start, 1e-2, tolerance=tolerance, **options
        )
        w = keras.Variable(start, dtype="float64")
        optimizer = presets.SWATS(1e-2, tolerance=tolerance)
        optimizer.build([w])
        for i in range(300):
            g = gradient(w.numpy(), i)
            optimizer.apply([ops.convert_to_tensor(g)], [w])
        assert optimizer.switch_step == expected.switch_step
        np.testing.assert_allclose(
            w.numpy(), expected.trajectory[-1], rtol=0, atol=EXACT
        )


# ---- Transitions and cool-downs ---------------------------------------------


def positions(count):
    return ops.convert_to_tensor(np.arange(count, dtype="float64"))


@pytest.mark.parametrize(
    ("curve", "weight"),
    [
        ("linear", lambda s: s),
        ("cosine", lambda s: (1 - math.cos(math.pi * s)) / 2),
    ],
)
def test_the_weight_of_a_blend(curve, weight):
    blend = Blend(7, curve=curve, end=0.3)
    expected = [0.3 * weight(min((j + 1) / 7, 1)) for j in range(9)]
    np.testing.assert_allclose(
        blend.weight(positions(9)), expected, rtol=EXACT, atol=0
    )


@pytest.mark.parametrize(
    ("curve", "factor"),
    [
        ("linear", lambda s: 1 - s),
        ("cosine", lambda s: (1 + math.cos(math.pi * s)) / 2),
        ("1-sqrt", lambda s: 1 - math.sqrt(s)),
    ],
)
@pytest.mark.parametrize(
    ("options", "length"), [({"steps": 7}, 7), ({"share": 0.3}, 0.3 * 31)]
)
def test_the_factor_of_a_cooldown(curve, factor, options, length):
    cooldown = Cooldown(curve, final=0.1, **options)
    remaining, before = (ops.convert_to_tensor(x) for x in (100.0, 31.0))
    got = np.asarray(cooldown.factor(positions(12), remaining, before))
    whole = round(length)
    expected = [0.1 + 0.9 * factor(min(j / whole, 1)) for j in range(12)]
    np.testing.assert_allclose(got, expected, rtol=EXACT, atol=0)


# ---- Scales -----------------------------------------------------------------


def rho(name, gradients):
    """What each scale estimates after these gradients, in NumPy."""
    m = v = square = descent = lam = 0.0
    for k, g in enumerate(gradients, start=1):
        m = BETA_1 * m + (1 - BETA_1) * g
        v = BETA_2 * v + (1 - BETA_2) * g**2
        correction = math.sqrt(1 - BETA_2**k) / (1 - BETA_1**k)
        p = correction * m / (np.sqrt(v) + 1e-9)
        square = BETA_2 * square + (1 - BETA_2) * (p @ p)
        descent = BETA_2 * descent + (1 - BETA_2) * (p @ g)
        lam = BETA_2 * lam + (1 - BETA_2) * (p @ p) / (p @ g)
    return {
        "slots": (p @ p) / (p @ m),
        "projection": square / descent,
        "swats": lam / (1 - BETA_2**k),
    }[name]


@pytest.mark.parametrize(
    ("name", "scale"),
    [("slots", Slots()), ("projection", Projection()), ("swats", Swats())],
)
def test_rho(name, scale):
    gradients = np.random.default_rng(1).uniform(0.2, 1.0, (5, 6))
    w = keras.Variable(np.ones(6), dtype="float64")
    optimizer = HybridOptimizer(
        0.01,
        trigger=AtStep(5),
        sgd_scale=scale,
        scale_scope="model",
        scale_multiplier=0.7,
        epsilon=1e-9,
    )
    optimizer.build([w])
    for g in gradients:
        optimizer.apply([ops.convert_to_tensor(g)], [w])
    # As keras.optimizers.SGD counts it.
    rate = (1 - BETA_1) * 0.01 * 0.7 * rho(name, gradients)
    assert optimizer.sgd_learning_rate_equivalent == pytest.approx(
        rate, rel=EXACT
    )


# ---- Schedules --------------------------------------------------------------


def test_schedules_are_followed_in_float64():
    """Of the learning rate before the switch, of SGD's after it.

    Keras' own schedules are float32 on TensorFlow; this one is not.
    """
    switch, schedule = 4, Halving()
    optimizer = HybridOptimizer(
        schedule, trigger=AtStep(switch), sgd_learning_rate=schedule
    )
    w = keras.Variable(np.linspace(-1, 1, 5), dtype="float64")
    optimizer.build([w])
    gradients = np.random.default_rng(0).normal(size=(9, 5))
    expected, _ = simulate(
        [w.numpy()],
        [[g] for g in gradients],
        switch_at=[switch],
        learning_rate=halving,
        sgd_learning_rate=halving,
    )
    for g, (after,) in zip(gradients, expected, strict=True):
        optimizer.apply([ops.convert_to_tensor(g)], [w])
        np.testing.assert_allclose(w.numpy(), after, rtol=0, atol=EXACT)
