"""When the triggers fire: hand-made signals, lists of floats, the paper."""

import copy
import json
import math

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import ops

from keras_hybrid import HybridOptimizer
from keras_hybrid.triggers import (
    AtEpoch,
    AtStep,
    EpochTrigger,
    GeneralizationGap,
    GradientSignalToNoise,
    MetricReached,
    Plateau,
    ProjectionConverged,
    Signals,
    Slope,
    StepTrigger,
)

pytestmark = pytest.mark.filterwarnings(
    # Keras' Variable takes no `copy`, which NumPy 2 asks of np.array(variable).
    "ignore:__array__ implementation:DeprecationWarning"
)

BETA_1, BETA_2 = 0.9, 0.75  # 0.75 and its powers are exact.


def tensor(value):
    return ops.convert_to_tensor(np.asarray(value, "float64"))


def signals(step, groups=1, **changed):
    """The statistics of update `step`; by default gamma is 1, noise 0."""
    values = {
        "learning_rate": 1.0,
        "correction_1": np.full(groups, 1 - BETA_1 ** (step + 1)),
        "correction_2": np.full(groups, 1 - BETA_2 ** (step + 1)),
        "step_square": np.ones(groups),
        "step_descent": np.ones(groups),
        "moment_square": np.ones(groups),
        "second_moment": np.ones(groups),
    }
    values.update(changed)
    return Signals(
        step=ops.convert_to_tensor(step, "int32"),
        beta_1=BETA_1,
        beta_2=BETA_2,
        **{name: tensor(value) for name, value in values.items()},
    )


def feed(trigger, sequence, groups=1):
    """Feeds one dict of signals an update; returns fired, (updates, groups)."""
    state = [tensor(s) for s in trigger.init(groups)]
    rows = []
    for step, changed in enumerate(sequence):
        fired, state = trigger.update(state, signals(step, groups, **changed))
        rows.append(np.broadcast_to(np.asarray(fired), (groups,)))
    return np.array(rows)


def gammas(*values):
    """Signals of these projections, one a value (a list: one a group)."""
    return [{"step_square": np.atleast_1d(value)} for value in values]


def fires(trigger, sequence):
    """What `trigger` says after each update, for one group."""
    return feed(trigger, sequence)[:, 0].tolist()


# ---- AtStep -----------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 3])
def test_at_step_fires_when_the_next_update_is_number_n(n):
    expected = [step + 1 >= n for step in range(5)]
    assert fires(AtStep(n), [{}] * 5) == expected


def test_at_step_0_alone_fires_before_the_first_update():
    assert AtStep(0).fires_at_start
    assert not AtStep(1).fires_at_start
    assert not ProjectionConverged().fires_at_start


# ---- ProjectionConverged ----------------------------------------------------


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
            distance[index] * factor, relative, patience=1, min_steps=2
        )
        assert fires(trigger, gammas(*PROJECTIONS))[index] == expected


def test_absolute_tolerance_is_in_units_of_the_learning_rate():
    # Lambda is (1 + 0.75 * 3) / 1.75 = 13 / 7 in the paper's units lr * gamma,
    # 6 / 7 from gamma.
    for rate, expected in ((0.1, False), (0.01, True)):
        sequence = [
            {"step_square": [g], "learning_rate": rate} for g in (3.0, 1.0)
        ]
        trigger = ProjectionConverged(0.05, False, patience=1, min_steps=2)
        assert fires(trigger, sequence) == [False, expected]


def test_relative_tolerance_is_free_of_the_learning_rate():
    trigger = ProjectionConverged(0.1, patience=1, min_steps=2)
    for rate in (1e-6, 1.0):
        sequence = [
            {"step_square": [g], "learning_rate": rate}
            for g in (1.0, 1.05, 5.0)
        ]
        assert fires(trigger, sequence) == [False, True, False]


def test_projection_works_with_negative_estimates():
    sequence = gammas(-2.0, -2.0, 2.0)
    trigger = ProjectionConverged(0.1, patience=1, min_steps=2)
    assert fires(trigger, sequence) == [False, True, False]


def test_first_update_never_counts():
    """After it Lambda and gamma are equal by definition."""
    trigger = ProjectionConverged(patience=2, min_steps=2)
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
    trigger = ProjectionConverged(0.1, patience=patience, min_steps=2)
    assert fires(trigger, gammas(*values)) == expected


def test_min_steps_holds_back_but_does_not_reset_the_patience():
    trigger = ProjectionConverged(patience=2, min_steps=5)
    expected = [False] * 4 + [True] * 2
    assert fires(trigger, gammas(*[2.0] * 6)) == expected


def test_max_steps_fires_anyway():
    trigger = ProjectionConverged(1e-12, patience=1, min_steps=2, max_steps=4)
    growing = gammas(*[2.0**k for k in range(6)])
    assert fires(trigger, growing) == [False] * 3 + [True] * 3


def test_orthogonal_update_leaves_the_average_and_never_fires():
    values = (2.0, 2.0, 2.0, 2.0)
    sequence = gammas(*values)
    sequence[1]["step_descent"] = [0.0]
    trigger = ProjectionConverged(1e-9, patience=1, min_steps=2)
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
        ProjectionConverged(0.1, patience=1, min_steps=2), sequence, groups=2
    )
    np.testing.assert_array_equal(fired[:, 0], [False, True, True, True])
    assert not fired[:, 1].any()


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
        (1e-2, 2, False),
        (2e-4, 10, False),
        (5e-5, 110, False),
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
            tolerance, relative=False, patience=1, min_steps=2
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


# ---- GradientSignalToNoise --------------------------------------------------


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


def test_signal_to_noise_max_steps():
    trigger = GradientSignalToNoise(0.01, patience=1, min_steps=1, max_steps=2)
    sequence = [{"moment_square": [9.0]}] * 3
    assert fires(trigger, sequence) == [False, True, True]


# ---- Composition ------------------------------------------------------------


@pytest.mark.parametrize(
    ("composite", "expected"),
    [
        (AtStep(2) | AtStep(4), [False, True, True, True, True]),
        (AtStep(2) & AtStep(4), [False, False, False, True, True]),
        (
            ProjectionConverged(1e-9, patience=1, min_steps=2) | AtStep(5),
            [False, True, True, False, True],
        ),
        (
            ProjectionConverged(1e-9, patience=1, min_steps=2) & AtStep(3),
            [False, False, True, False, False],
        ),
        (
            (ProjectionConverged(1e-9, patience=1, min_steps=2) & AtStep(3))
            | AtStep(5),
            [False, False, True, False, True],
        ),
    ],
    ids=["or", "and", "or_state", "and_state", "nested"],
)
def test_step_composites(composite, expected):
    sequence = gammas(2.0, 2.0, 2.0, 9.0, 4.0)
    assert isinstance(composite, StepTrigger)
    assert fires(composite, sequence) == expected


def test_step_composites_feed_every_member():
    """A member's patience grows while another one holds the switch back."""
    trigger = AtStep(4) & ProjectionConverged(patience=3, min_steps=2)
    assert fires(trigger, gammas(*[2.0] * 5)) == [False] * 3 + [True] * 2


def test_step_composites_keep_the_members_states_apart():
    first = ProjectionConverged(0.1, patience=2, min_steps=2)
    second = GradientSignalToNoise(0.5, patience=3, min_steps=1)
    sequence = gammas(1.0, 1.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0)
    for k, changed in enumerate(sequence):
        noisy = k not in (2, 3)
        changed["moment_square"] = [0.0 if noisy else 9.0]
    a, b = np.array(fires(first, sequence)), np.array(fires(second, sequence))
    np.testing.assert_array_equal(fires(first | second, sequence), a | b)
    np.testing.assert_array_equal(fires(first & second, sequence), a & b)
    np.testing.assert_array_equal(fires(second & first, sequence), a & b)
    assert (a != b).any()
    assert (a & b).any()


def test_step_composites_need_what_any_member_needs():
    projection, noise = ProjectionConverged(), GradientSignalToNoise()
    assert (projection | noise).needs == projection.needs | noise.needs
    assert (AtStep(3) & noise).needs == noise.needs
    assert AtStep(3).needs == frozenset()


def test_step_composites_at_the_start():
    assert (AtStep(0) | AtStep(3)).fires_at_start
    assert not (AtStep(0) & AtStep(3)).fires_at_start
    assert (AtStep(0) & AtStep(0)).fires_at_start


@pytest.mark.parametrize("operator", ["|", "&"])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        (AtStep(1), AtEpoch(1)),
        (AtEpoch(1), AtStep(1)),
        (AtStep(1) | AtStep(2), Plateau()),
        (Plateau() & AtEpoch(1), AtStep(2)),
        (AtStep(1), 3),
        (AtEpoch(1), "val_loss"),
        (AtEpoch(1), None),
    ],
    ids=repr,
)
def test_composing_across_families_is_an_error(left, right, operator):
    with pytest.raises(TypeError, match="one family.*Received: ") as caught:
        left | right if operator == "|" else left & right  # noqa: B018
    assert f"{left!r} {operator} {right!r}" in str(caught.value)


# ---- Epoch triggers ---------------------------------------------------------


def updates(trigger, values):
    return [trigger.update(value) for value in values]


@pytest.mark.parametrize("n", [1, 3])
def test_at_epoch_fires_at_the_end_of_the_nth_epoch(n):
    trigger = AtEpoch(n)
    held = [trigger.check(epoch, {}) for epoch in range(5)]
    assert held == [epoch + 1 >= n for epoch in range(5)]


NAN = math.nan


@pytest.mark.parametrize(
    ("kwargs", "values", "expected"),
    [
        ({"patience": 1}, [3, 2, 2, 1], [0, 0, 1, 0]),
        ({"patience": 2}, [3, 2, 4, 2.5, 1], [0, 0, 0, 1, 0]),
        ({"patience": 2}, [1, 2, 3, 4, 5], [0, 0, 1, 1, 1]),
        ({"patience": 2, "mode": "max"}, [1, 2, 3, 3, 2], [0, 0, 0, 0, 1]),
        (
            {"monitor": "val_accuracy", "patience": 1},
            [0.1, 0.2, 0.2],
            [0, 0, 1],
        ),
        # 0.25 below the best is not more than min_delta; 0.375 below is.
        (
            {"patience": 1, "min_delta": 0.25},
            [2, 1.75, 1.5, 1.5],
            [0, 1, 0, 1],
        ),
        ({"patience": 2}, [NAN, NAN, 1, NAN, 0.5], [0, 1, 0, 0, 0]),
        ({"patience": 2, "mode": "max"}, [1, NAN, NAN, 2], [0, 0, 1, 0]),
        ({"patience": 1}, [math.inf, 1, -math.inf], [1, 0, 0]),
    ],
    ids=[
        "patience_1",
        "patience_2",
        "stays",
        "max",
        "auto_max",
        "min_delta",
        "nan_min",
        "nan_max",
        "infinite",
    ],
)
def test_plateau(kwargs, values, expected):
    assert updates(Plateau(**kwargs), values) == [bool(e) for e in expected]


@pytest.mark.parametrize(
    ("kwargs", "logs", "gap"),
    [
        ({}, {"loss": 0.25, "val_loss": 1.0}, 0.75),
        (
            {"metric": "accuracy"},
            {"accuracy": 0.75, "val_accuracy": 0.5},
            0.25,
        ),
        ({"mode": "max"}, {"loss": 0.25, "val_loss": 1.0}, -0.75),
        (
            {"metric": "score", "mode": "min"},
            {"score": 1, "val_score": 3},
            2.0,
        ),
    ],
    ids=["loss", "accuracy", "max", "min"],
)
def test_generalization_gap_reads_the_gap(kwargs, logs, gap):
    assert GeneralizationGap(0.5, **kwargs).read(0, logs) == gap


def test_generalization_gap_counts_epochs_in_a_row():
    trigger = GeneralizationGap(0.5, patience=2)
    values = [0.6, 0.5, 0.6, 0.7, 0.8, NAN, 0.9, 0.9]
    expected = [False, False, False, True, True, False, False, True]
    assert updates(trigger, values) == expected


def test_generalization_gap_takes_a_negative_threshold():
    assert updates(GeneralizationGap(-0.1), [-0.2, -0.05]) == [False, True]


@pytest.mark.parametrize(
    ("args", "values", "expected"),
    [
        (("val_accuracy", 0.9), [0.8, 0.9, 0.95, NAN], [0, 1, 1, 0]),
        (("val_loss", 0.5), [0.6, 0.5, 0.4, NAN], [0, 1, 1, 0]),
        (("score", 2.0, "max"), [1, 3, 2], [0, 1, 1]),
        (("score", 2.0, "min"), [1, 3, 2], [1, 0, 1]),
        # As Keras logs 0.9 and 0.1.
        (("val_accuracy", 0.9), [float(np.float32(0.9))], [1]),
        (("val_loss", 0.1), [float(np.float32(0.1))], [1]),
    ],
    ids=["accuracy", "loss", "max", "min", "float32 max", "float32 min"],
)
def test_metric_reached(args, values, expected):
    assert updates(MetricReached(*args), values) == [bool(e) for e in expected]


@pytest.mark.parametrize(
    "trigger",
    [
        Plateau("score", mode="min"),
        MetricReached("score", 0.5, mode="max"),
        GeneralizationGap(0.1, metric="score", mode="max"),
        AtEpoch(2) | Plateau("score", mode="max"),
        AtEpoch(2) & Plateau("score", mode="max"),
    ],
    ids=repr,
)
def test_missing_metric_lists_the_available_ones(trigger):
    with pytest.raises(ValueError, match="Received: monitor='score'") as caught:
        trigger.check(0, {"loss": 1.0, "accuracy": 0.5})
    caught.match("Available: accuracy, loss")


def test_missing_validation_metric_of_a_gap_is_named():
    with pytest.raises(ValueError, match="Received: monitor='val_loss'"):
        GeneralizationGap(0.1).check(0, {"loss": 1.0})


def test_missing_metric_in_empty_logs():
    with pytest.raises(ValueError, match="Available: nothing"):
        Plateau().check(0, {})


def is_flat(values, least, errors, sign):
    """Whether the line through the last half does not fall, by polyfit."""
    window = max(least, math.ceil(len(values) / 2))
    window = np.array(values[-min(window, 24) :])
    if len(window) < least:
        return False
    (slope, _), covariance = np.polyfit(
        np.arange(len(window)), window, 1, cov=True
    )
    return -sign * slope >= -errors * math.sqrt(covariance[0, 0])


@pytest.mark.parametrize("errors", [0.5, 2.0])
@pytest.mark.parametrize("least", [4, 7])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_slope(mode, least, errors):
    rng = np.random.default_rng(least)
    sign = -1 if mode == "min" else 1
    falling = np.exp(-np.arange(60) / 8) + 0.03 * rng.normal(size=60)
    values = [float(np.float32(-sign * x)) for x in falling]
    expected = [
        is_flat(values[: e + 1], least, errors, sign)
        for e in range(len(values))
    ]
    assert updates(Slope("x", least, errors, mode), values) == expected
    assert {*expected} == {False, True}


def test_slope_goes_on_from_its_state():
    values = [float(np.float32(1 / (e + 1))) for e in range(40)]
    values[30:] = [0.03] * 10
    whole = updates(Slope(), values)
    for cut in (2, 11, 33):
        first, second = Slope(), Slope()
        held = updates(first, values[:cut])
        second.set_state([float(np.float32(x)) for x in first.get_state()])
        assert held + updates(second, values[cut:]) == whole


def test_slope_does_not_hold_where_a_value_is_not_finite():
    assert not any(updates(Slope(least=3), [1.0] * 3 + [math.nan] * 9)[3:])


def test_epoch_composites():
    losses = [1.0, 1.0, 1.0, 0.1, 0.1]
    expected = {"|": [0, 1, 1, 1, 1], "&": [0, 0, 1, 0, 1]}
    for operator in "|&":
        plateau, late = Plateau("loss", patience=1), AtEpoch(3)
        trigger = plateau | late if operator == "|" else plateau & late
        assert isinstance(trigger, EpochTrigger)
        held = [trigger.check(e, {"loss": x}) for e, x in enumerate(losses)]
        assert held == [bool(e) for e in expected[operator]]


def test_epoch_composites_feed_every_member():
    """A plateau goes on counting behind an AtEpoch that already holds."""
    plateau = Plateau("loss", patience=3)
    trigger = AtEpoch(1) | plateau
    for epoch in range(4):
        assert trigger.check(epoch, {"loss": 1.0})
    assert plateau.waited == 3
    both = AtEpoch(4) & Plateau("loss", patience=3)
    held = [both.check(epoch, {"loss": 1.0}) for epoch in range(4)]
    assert held == [False, False, False, True]


def test_epoch_composites_have_no_single_value():
    with pytest.raises(TypeError, match=r"Received: update\(0\.5\)"):
        (AtEpoch(1) | AtEpoch(2)).update(0.5)


def through_float32(trigger):
    """Puts the state through the optimizer's float32 vector."""
    state = np.asarray(trigger.get_state(), "float32")
    trigger.reset()
    trigger.set_state([float(x) for x in state])


STATEFUL = [
    Plateau("loss", patience=2),
    Plateau("loss", patience=2, mode="max"),
    Plateau("loss", patience=2, min_delta=0.125),
    GeneralizationGap(0.25, patience=2),
    AtEpoch(3),
    MetricReached("loss", 0.5),
    Plateau("loss", patience=2) | GeneralizationGap(1.0, patience=2),
    Plateau("loss", patience=1)
    & (Plateau("val_loss", patience=2) | AtEpoch(4)),
]
LOSSES = [2.0, 1.5, 1.75, 1.5, 1.0, 1.0, 1.25, 0.25]
LOGS = [{"loss": x, "val_loss": 3 - x / 2} for x in LOSSES]


@pytest.mark.parametrize("trigger", STATEFUL, ids=repr)
def test_state_round_trip_changes_nothing(trigger):
    whole, parts = copy.deepcopy(trigger), copy.deepcopy(trigger)
    for epoch, logs in enumerate(LOGS):
        through_float32(parts)
        assert parts.check(epoch, logs) == whole.check(epoch, logs)
        assert parts.get_state() == whole.get_state()


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_constant_value_does_not_improve_by_the_rounding(mode, value):
    """0.1 is no float32, and other callbacks may log what they like."""
    trigger = Plateau("score", patience=2, mode=mode)
    held = []
    for epoch in range(4):
        through_float32(trigger)
        held.append(trigger.check(epoch, {"score": value}))
    assert held == [False, False, True, True]


@pytest.mark.parametrize("trigger", STATEFUL, ids=repr)
def test_reset_forgets_all_epochs(trigger):
    trigger = copy.deepcopy(trigger)
    initial = trigger.get_state()
    first = [trigger.check(e, logs) for e, logs in enumerate(LOGS)]
    trigger.reset()
    assert trigger.get_state() == initial
    assert [trigger.check(e, logs) for e, logs in enumerate(LOGS)] == first
    assert True in first


def test_state_of_the_wrong_length_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        Plateau().set_state([1.0])


# ---- Config, text, errors ---------------------------------------------------

TRIGGERS = [
    AtStep(7),
    ProjectionConverged(),
    ProjectionConverged(1e-9, False, 1, 2, 500),
    GradientSignalToNoise(),
    GradientSignalToNoise(0.5, 2, 3, 40),
    AtStep(7) | ProjectionConverged(min_steps=5),
    AtStep(7) & (AtStep(9) | GradientSignalToNoise()),
    AtEpoch(3),
    Plateau(),
    Plateau("val_accuracy", 5, 0.01, "max"),
    GeneralizationGap(0.1),
    GeneralizationGap(0.1, "accuracy", 2, "max"),
    MetricReached("val_loss", 0.5),
    MetricReached("score", 0.5, "max"),
    AtEpoch(3) | Plateau(),
    AtEpoch(3) & (Plateau() | MetricReached("val_loss", 0.5)),
]


def config(trigger):
    return keras.saving.serialize_keras_object(trigger)


@pytest.mark.parametrize("trigger", TRIGGERS, ids=repr)
def test_config_survives_json(trigger):
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(config(trigger)))
    )
    assert type(again) is type(trigger)
    assert config(again) == config(trigger)
    assert repr(again) == repr(trigger)


@pytest.mark.parametrize("trigger", TRIGGERS, ids=repr)
def test_repr_is_the_expression_that_makes_it(trigger):
    again = eval(repr(trigger))
    assert type(again) is type(trigger)
    assert config(again) == config(trigger)


def test_config_has_no_state():
    trigger = Plateau("loss")
    before = config(trigger)
    trigger.check(0, {"loss": 1.0})
    assert config(trigger) == before


def test_restored_composites_behave_alike():
    trigger = AtEpoch(4) & Plateau("loss", patience=1)
    again = keras.saving.deserialize_keras_object(config(trigger))
    for epoch, logs in enumerate(LOGS):
        assert again.check(epoch, logs) == trigger.check(epoch, logs)


def test_repr_shows_the_operators():
    assert repr(AtStep(3)) == "AtStep(n=3)"
    assert (
        repr(AtEpoch(1) & (AtEpoch(2) | AtEpoch(3)))
        == "(AtEpoch(n=1) & (AtEpoch(n=2) | AtEpoch(n=3)))"
    )
