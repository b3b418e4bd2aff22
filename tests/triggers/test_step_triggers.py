"""When step triggers fire: hand-made signals, and the paper."""

import math

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from hand_made import BETA_1, BETA_2, feed, fires, gammas, signals, tensor

from keras_hybrid import HybridOptimizer
from keras_hybrid.triggers import (
    AtStep,
    GradientSignalToNoise,
    ProjectionConverged,
)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_at_step_fires_when_the_next_update_is_number_n(n):
    expected = [step + 1 >= n for step in range(5)]
    assert fires(AtStep(n), [{}] * 5) == expected


def test_at_step_0_alone_fires_before_the_first_update():
    assert AtStep(0).fires_at_start
    assert not AtStep(1).fires_at_start
    assert not ProjectionConverged().fires_at_start


def reference_lambdas(values, beta=BETA_2):
    """Algorithm 1's Lambda after each gamma."""
    lam, result = 0.0, []
    for k, gamma in enumerate(values, start=1):
        lam = beta * lam + (1 - beta) * gamma
        result.append(lam / (1 - beta**k))
    return np.array(result)


PROJECTIONS = [8.0, 1.0, 3.0, 2.5, 2.0, 2.25, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("index", [2, 4, 6])
@pytest.mark.parametrize("relative", [True, False], ids=["rel", "abs"])
def test_projection_fires_below_its_tolerance_only(relative, index):
    lambdas = reference_lambdas(PROJECTIONS)
    distance = np.abs(lambdas - PROJECTIONS)
    if relative:
        distance = distance / np.abs(lambdas)
    for factor, expected in ((1 + 1e-9, True), (1 - 1e-9, False)):
        trigger = ProjectionConverged(
            distance[index] * factor, relative, 1, 2, against="gamma"
        )
        assert fires(trigger, gammas(*PROJECTIONS))[index] == expected


def test_absolute_tolerance_is_in_units_of_the_learning_rate():
    # Lambda is (1 + 0.75 * 3) / 1.75 = 13 / 7 in the paper's units lr * gamma,
    # 6 / 7 from gamma.
    for rate, expected in ((0.1, False), (0.01, True)):
        sequence = [
            {"step_square": [g], "learning_rate": rate} for g in (3.0, 1.0)
        ]
        trigger = ProjectionConverged(0.05, False, 1, 2, against="gamma")
        assert fires(trigger, sequence) == [False, expected]


def test_relative_tolerance_is_free_of_the_learning_rate():
    trigger = ProjectionConverged(0.1, True, 1, 2, against="gamma")
    for rate in (1e-6, 1.0):
        sequence = [
            {"step_square": [g], "learning_rate": rate}
            for g in (1.0, 1.05, 5.0)
        ]
        assert fires(trigger, sequence) == [False, True, False]


def test_projection_works_with_negative_estimates():
    sequence = gammas(-2.0, -2.0, 2.0)
    trigger = ProjectionConverged(0.1, True, 1, 2, against="gamma")
    assert fires(trigger, sequence) == [False, True, False]


def test_first_update_never_counts():
    """After it Lambda and gamma are equal by definition."""
    trigger = ProjectionConverged(patience=2, min_steps=2, against="gamma")
    assert fires(trigger, gammas(2.0, 2.0, 2.0)) == [False, False, True]


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_patience_counts_updates_in_a_row(patience):
    # Relative distances: equal, equal, far, then equal enough again.
    values = [1.0, 1.0, 1.0, 9.0, *([3.0] * 12)]
    lambdas = reference_lambdas(values)
    near = np.abs(lambdas - values) < 0.1 * lambdas
    near[0] = False
    row, expected = 0, []
    for holds in near:
        row = row + 1 if holds else 0
        expected.append(row >= patience)
    assert True in expected[4:]
    assert False in expected[4:]
    trigger = ProjectionConverged(0.1, True, patience, 2, against="gamma")
    assert fires(trigger, gammas(*values)) == expected


def test_min_steps_holds_back_but_does_not_reset_the_patience():
    trigger = ProjectionConverged(patience=2, min_steps=5)
    expected = [False] * 4 + [True] * 2
    assert fires(trigger, gammas(*[2.0] * 6)) == expected


def test_max_steps_fires_anyway():
    trigger = ProjectionConverged(1e-12, True, 1, 2, 4, "gamma")
    growing = gammas(*[2.0**k for k in range(6)])
    assert fires(trigger, growing) == [False] * 3 + [True] * 3


def test_orthogonal_update_leaves_the_average_and_never_fires():
    values = (2.0, 2.0, 2.0, 2.0)
    sequence = gammas(*values)
    sequence[1]["step_descent"] = [0.0]
    trigger = ProjectionConverged(1e-9, True, 1, 2, against="gamma")
    state = [tensor(s) for s in trigger.init(1)]
    averages, fired = [], []
    for step, changed in enumerate(sequence):
        now, state = trigger.update(state, signals(step, **changed))
        fired.append(bool(now[0]))
        averages.append(float(state[0][0]))
    # lambda: 0.25 * 2, unchanged, then as ever; Lambda = lambda / (1 - b^k).
    assert averages[:3] == [0.5, 0.5, 0.875]
    assert not any(fired)


def test_groups_decide_for_themselves():
    sequence = gammas([1.0, 1.0], [1.0, 9.0], [1.0, 1.0], [1.0, 99.0])
    fired = feed(
        ProjectionConverged(0.1, True, 1, 2, against="gamma"),
        sequence,
        groups=2,
    )
    np.testing.assert_array_equal(fired[:, 0], [False, True, True, True])
    assert not fired[:, 1].any()


# ---- Against its past -------------------------------------------------------


@pytest.mark.parametrize("relative", [True, False], ids=["rel", "abs"])
@pytest.mark.parametrize("patience", [1, 3])
def test_projection_against_its_past_is_the_formulas(relative, patience):
    values = 2 + np.random.default_rng(0).normal(size=40)
    options = {"tolerance": 0.2, "relative": relative, "patience": patience}
    expected = reference.settled(values, BETA_2, min_steps=2, **options)
    trigger = ProjectionConverged(min_steps=2, **options)
    assert fires(trigger, gammas(*values)) == expected
    assert len(set(expected)) == 2


@pytest.mark.parametrize("against", ["past", "gamma"])
def test_by_default_projection_waits_for_two_windows(against):
    trigger = ProjectionConverged(against=against)
    window = round(1 / (1 - BETA_2))
    fired = fires(trigger, gammas(*[2.0] * 12))
    assert fired == [k >= 2 * window for k in range(1, 13)]


def test_max_steps_may_come_before_two_windows():
    trigger = ProjectionConverged(max_steps=3)
    assert fires(trigger, gammas(*[2.0] * 4)) == [False, False, True, True]


WINDOW, RUNS = 100, 300


def first_updates(trigger, trend):
    """When it first fires for gammas that are noise around a trend.

    One entry a run, infinite for never. gamma grows by `trend` a window; its
    noise is 0.3 of it, which a window averages as it does 1 with beta_2 0.999.
    """
    rng = np.random.default_rng(0)
    update = tf.function(trigger.update)
    state = [tensor(s) for s in trigger.init(RUNS)]
    first = np.full(RUNS, np.inf)
    for k in range(6 * WINDOW):
        gamma = np.exp(trend * k / WINDOW) * rng.normal(1, 0.3, RUNS)
        seen = signals(k, RUNS, step_square=gamma)
        fired, state = update(state, seen._replace(beta_2=1 - 1 / WINDOW))
        first[np.asarray(fired) & np.isinf(first)] = k + 1
    return first


def test_noise_around_a_constant_has_settled_after_two_windows():
    first = first_updates(ProjectionConverged(), trend=0.0)
    assert first.min() >= 2 * WINDOW
    assert (first == 2 * WINDOW).mean() > 0.99


def test_noise_around_a_trend_never_settles():
    first = first_updates(ProjectionConverged(), trend=0.5)
    assert np.isinf(first).all()


@pytest.mark.slow
@pytest.mark.parametrize(("trend", "share"), [(0.0, 0.9), (0.5, 0.25)])
def test_against_gamma_noise_fires_by_chance(trend, share):
    """What the default was: it fires early, whether or not there is a trend."""
    early = ProjectionConverged(min_steps=WINDOW // 10, against="gamma")
    assert np.median(first_updates(early, trend)) < WINDOW
    # Waiting alone does not help.
    late = first_updates(ProjectionConverged(against="gamma"), trend)
    assert np.isfinite(late).mean() > share


def test_what_was_saved_without_against_goes_on_against_gamma():
    config = ProjectionConverged(min_steps=100).get_config()
    del config["against"]
    again = ProjectionConverged.from_config(config)
    assert again.against == "gamma"
    assert len(again.init(2)) == 3


class Quadratic:
    """A badly conditioned quadratic seen through varying noise."""

    def __init__(self, seed=0, noise=0.5, steps=200):
        random = np.random.default_rng(seed)
        self.curvature = np.array([0.3, 1.0, 3.0, 0.1, 10.0])
        self.optimum = random.normal(size=5)
        self.noise = noise * random.normal(size=(steps, 5))
        self.w0 = random.normal(size=5) * 3
        self.steps = steps

    def gradient(self, w, k):
        return self.curvature * (w - self.optimum) + self.noise[k]


# A learning rate that Keras' float32 variable holds exactly.
RATE = 2**-6


# Algorithm 1 at once, early, late, and not at all.
@pytest.mark.parametrize(
    ("tolerance", "switch_step", "jit"),
    [
        pytest.param(1e-2, 2, False, marks=pytest.mark.slow),
        (2e-4, 10, False),
        pytest.param(5e-5, 110, False, marks=pytest.mark.slow),
        (5e-5, 110, "auto"),
        (1e-9, None, False),
    ],
)
def test_optimizer_follows_algorithm_1(tolerance, switch_step, jit):
    problem = Quadratic()
    expected = reference.swats(
        problem.gradient,
        problem.w0,
        RATE,
        eps=1e-8,
        tolerance=tolerance,
        steps=problem.steps,
    )
    assert expected.switch_step == switch_step
    # Two variables, one decision and one scale: the model is one vector.
    variables = [
        keras.Variable(problem.w0[:3], dtype="float64"),
        keras.Variable(problem.w0[3:], dtype="float64"),
    ]
    optimizer = HybridOptimizer(
        RATE,
        epsilon=1e-8,
        sgd_scale="swats",
        trigger=ProjectionConverged(
            tolerance,
            relative=False,
            patience=1,
            min_steps=2,
            against="gamma",
        ),
        scale_scope="model",
        carry_momentum=False,
        jit_compile=jit,
    )
    optimizer.build(variables)
    apply = tf.function(lambda grads: optimizer.apply(grads, variables))
    trajectory = []
    for k in range(problem.steps):
        w = np.concatenate([v.numpy() for v in variables])
        g = problem.gradient(w, k)
        apply([tensor(g[:3]), tensor(g[3:])])
        trajectory.append(np.concatenate([v.numpy() for v in variables]))
    assert optimizer.switch_step == expected.switch_step
    np.testing.assert_allclose(
        trajectory, expected.trajectory, rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("threshold", [0.001, 0.01, 0.5])
def test_signal_to_noise_threshold_is_the_formulas(threshold):
    # r = (c + t) / (1 + t) has signal-to-noise t exactly.
    c = (1 - BETA_1) / (1 + BETA_1)
    step, v_hat = 4, 3.0
    for factor, expected in ((1 - 1e-6, True), (1 + 1e-6, False)):
        snr = threshold * factor
        m_hat_square = v_hat * (c + snr) / (1 + snr)
        sample = signals(
            step,
            moment_square=[m_hat_square * (1 - BETA_1 ** (step + 1)) ** 2],
            second_moment=[v_hat * (1 - BETA_2 ** (step + 1))],
        )
        trigger = GradientSignalToNoise(threshold, patience=1, min_steps=1)
        fired, _ = trigger.update([tensor(s) for s in trigger.init(1)], sample)
        assert bool(fired[0]) == expected


@pytest.mark.parametrize("snr", [0.25, 1.0, 4.0])
def test_signal_to_noise_of_synthetic_gradients(snr):
    """Fires for thresholds above mean^2 / variance, not for those below."""
    random = np.random.default_rng(0)
    weights, steps, beta_2 = 40_000, 80, 0.95
    m, v = np.zeros(weights), np.zeros(weights)
    for _ in range(steps):
        g = random.normal(loc=math.sqrt(snr), scale=1.0, size=weights)
        m = BETA_1 * m + (1 - BETA_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
    sample = signals(
        steps - 1,
        moment_square=[m @ m],
        second_moment=[v.sum()],
        correction_2=[1 - beta_2**steps],
    )
    # Three standard errors of both sums are within 5 %.
    for factor, expected in ((1.05, True), (0.95, False)):
        trigger = GradientSignalToNoise(snr * factor, patience=1, min_steps=1)
        fired, _ = trigger.update([tensor(s) for s in trigger.init(1)], sample)
        assert bool(fired[0]) == expected


def test_pure_signal_never_fires_and_pure_noise_always_does():
    c = (1 - BETA_1) / (1 + BETA_1)
    for r, expected in ((1.0, False), (c / 2, True), (c, True)):
        sequence = [
            {
                "moment_square": [r * (1 - BETA_1 ** (k + 1)) ** 2],
                "second_moment": [1 - BETA_2 ** (k + 1)],
            }
            for k in range(6)
        ]
        trigger = GradientSignalToNoise(1e-3, patience=2, min_steps=3)
        fired = fires(trigger, sequence)
        assert fired == [False, False, *[expected] * 4]


def test_signal_to_noise_of_zero_gradients_does_not_fire():
    sequence = [{"moment_square": [0.0], "second_moment": [0.0]}] * 3
    trigger = GradientSignalToNoise(0.01, patience=1, min_steps=1)
    assert fires(trigger, sequence) == [False] * 3


def test_by_default_signal_to_noise_waits_for_two_windows():
    trigger = GradientSignalToNoise(patience=1)
    window = round(1 / (1 - BETA_2))
    sequence = [{"moment_square": [0.0]}] * 3 * window
    fired = fires(trigger, sequence)
    assert fired == [k >= 2 * window for k in range(1, 3 * window + 1)]


@pytest.mark.parametrize("name", ["min_steps", "max_steps"])
def test_more_updates_than_are_counted_in_float32(name):
    GradientSignalToNoise(**{name: 1 << 24})
    with pytest.raises(ValueError, match=f"`{name}` must be .* <= 16777216"):
        GradientSignalToNoise(**{name: (1 << 24) + 1})


def test_signal_to_noise_max_steps():
    trigger = GradientSignalToNoise(0.01, patience=1, min_steps=1, max_steps=2)
    sequence = [{"moment_square": [9.0]}] * 3
    assert fires(trigger, sequence) == [False, True, True]
