"""Known answers; the arithmetic is in the comments."""

import math

import numpy as np
import pytest
from scipy import stats

from keras_hybrid.study.record import Run
from keras_hybrid.study.statistics import (
    area_under_curve,
    epochs_to_target,
    generalization_gap,
    holm,
    mean_interval,
    mean_of_means,
    paired_difference,
    seconds_to_target,
)


def run_of(history, test_accuracy=0.75):
    return Run(
        dataset="mnist",
        architecture="mlp",
        arm="adam",
        seed=0,
        epochs=3,
        configuration={},
        versions={},
        status="finished",
        history=history,
        switch_step=None,
        steps_per_epoch=10,
        test_loss=0.5,
        test_accuracy=test_accuracy,
    )


def test_mean_interval_is_students():
    # s = sqrt((1 + 0 + 1) / 2) = 1, s / sqrt(3) = 0.57735; the table's t for
    # 97.5 % and 2 degrees of freedom is 4.30265: half = 2.48414.
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval == pytest.approx((2.0, -0.48414, 4.48414), abs=1e-5)


def test_mean_interval_takes_the_confidence():
    # One degree of freedom is Cauchy's distribution: its 75 % quantile is
    # tan(pi / 4) = 1. s = sqrt(2), s / sqrt(2) = 1: half = 1 at 50 %.
    interval = mean_interval([1.0, 3.0], confidence=0.5)
    assert interval == pytest.approx((2.0, 1.0, 3.0))


def test_mean_interval_of_one_value_has_no_bounds():
    mean, low, high = mean_interval([0.25])
    assert mean == 0.25
    assert math.isnan(low)
    assert math.isnan(high)


def test_mean_interval_of_equal_values_is_a_point():
    assert mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_mean_of_means_is_welchs():
    # With two groups: half of Welch's interval for a - (-b).
    a, b = [1.0, 2.0, 4.0], [0.5, 0.0, 0.25, 0.75, 0.5]
    welch = stats.ttest_ind(a, [-x for x in b], equal_var=False)
    expected = welch.confidence_interval(0.9)
    found = mean_of_means([a, b], confidence=0.9)
    assert found.mean == pytest.approx((7 / 3 + 0.4) / 2)
    assert found.low == pytest.approx(expected.low / 2)
    assert found.high == pytest.approx(expected.high / 2)


def test_mean_of_means_of_one_group_is_students():
    values = [1.0, 2.0, 3.0]
    assert mean_of_means([values]) == pytest.approx(mean_interval(values))


def test_mean_of_means_needs_a_spread_in_each_group():
    mean, low, high = mean_of_means([[1.0], [2.0, 4.0]])
    assert mean == 2.0
    assert math.isnan(low)
    assert math.isnan(high)
    assert mean_of_means([[1.0, 1.0], [2.0, 2.0]]) == (1.5, 1.5, 1.5)
    with pytest.raises(ValueError, match="groups"):
        mean_of_means([])


def test_paired_difference_uses_the_common_seeds():
    # Seeds 1, 2, 3: 1 - 0, 4 - 1, 2 - 0 = 1, 3, 2. Mean 2, s = 1,
    # t = 2 / (1 / sqrt(3)) = 3.4641; with 2 degrees of freedom
    # p = 1 - t / sqrt(t^2 + 2) = 1 - 3.4641 / sqrt(14) = 0.074180.
    a = {0: 99.0, 1: 1.0, 2: 4.0, 3: 2.0}
    b = {3: 0.0, 2: 1.0, 1: 0.0, 4: 99.0}
    difference = paired_difference(a, b)
    assert difference.seeds == 3
    assert difference.mean == pytest.approx(2.0)
    assert difference.p_value == pytest.approx(0.074180, abs=1e-6)
    assert 1.0 <= difference.low < 2.0 < difference.high <= 3.0


def test_paired_difference_has_students_lower_bound():
    # Differences 1, 3, 2: t(0.975, 2) = 4.30265, half = 4.30265 / sqrt(3).
    a, b = {1: 1.0, 2: 4.0, 3: 2.0}, {1: 0.0, 2: 1.0, 3: 0.0}
    difference = paired_difference(a, b)
    assert difference.t_low == pytest.approx(2 - 2.484138, abs=1e-6)
    # With 68 %: t(0.84, 2) = 1.311578.
    narrow = paired_difference(a, b, confidence=0.68)
    assert narrow.t_low == pytest.approx(2 - 1.311578 / 3**0.5, abs=1e-5)


def test_paired_difference_is_antisymmetric_in_mean_and_p():
    a = {0: 0.91, 1: 0.93, 2: 0.92, 3: 0.95, 4: 0.90}
    b = {0: 0.90, 1: 0.93, 2: 0.90, 3: 0.91, 4: 0.91}
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.mean == pytest.approx(-back.mean)
    assert there.p_value == pytest.approx(back.p_value)


def test_paired_difference_is_the_same_every_time():
    a = {0: 0.91, 1: 0.93, 2: 0.92, 3: 0.95, 4: 0.90}
    b = {0: 0.90, 1: 0.93, 2: 0.90, 3: 0.91, 4: 0.91}
    again = paired_difference(dict(reversed(a.items())), b)
    assert paired_difference(a, b) == again


def test_paired_difference_bootstraps_a_large_sample_like_the_normal():
    # 400 differences with s = 1 exactly half at +1 and -1 around 0.5:
    # mean 0.5, s / sqrt(400) = 0.05, half = 1.96 * 0.05 = 0.098.
    a = {seed: 0.5 + (-1.0) ** seed for seed in range(400)}
    difference = paired_difference(a, dict.fromkeys(a, 0.0))
    assert difference.low == pytest.approx(0.402, abs=0.006)
    assert difference.high == pytest.approx(0.598, abs=0.006)


def test_paired_difference_of_one_seed_has_no_bounds():
    difference = paired_difference({0: 2.0}, {0: 1.0, 1: 5.0})
    assert (difference.mean, difference.seeds) == (1.0, 1)
    assert np.isnan(difference[1:4]).all()
    assert math.isnan(difference.t_low)


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_paired_difference_that_never_varies_is_a_point(offset):
    # 0.1 + x - x differs from seed to seed only by rounding.
    b = {0: 0.3, 1: 0.7, 2: 0.9}
    a = {seed: value + offset for seed, value in b.items()}
    difference = paired_difference(a, b)
    assert difference.low == difference.mean == difference.high
    assert difference.mean == difference.t_low == pytest.approx(offset)
    assert math.isnan(difference.p_value)


def test_paired_difference_of_two_seeds_warns_of_nothing():
    difference = paired_difference({0: 1.0, 1: 3.0}, {0: 0.0, 1: 0.0})
    # Half of the resamples are (1, 1) or (3, 3): the bounds are the extremes.
    assert (difference.low, difference.high) == (1.0, 3.0)


def test_holm_by_hand():
    # Ascending 0.01, 0.02, 0.03, 0.4 times 4, 3, 2, 1 = 0.04, 0.06, 0.06,
    # 0.4; none is below its predecessor.
    assert holm([0.03, 0.01, 0.4, 0.02]) == pytest.approx(
        [0.06, 0.04, 0.4, 0.06]
    )


def test_holm_is_monotone_and_at_most_one():
    # 0.3 * 3 = 0.9, 0.35 * 2 = 0.7 -> 0.9, 0.95 * 1 = 0.95; 0.6 * 2 > 1.
    assert holm([0.3, 0.35, 0.95]) == pytest.approx([0.9, 0.9, 0.95])
    assert holm([0.6, 0.6]) == [1.0, 1.0]


def test_epochs_to_target_counts_from_one_and_takes_the_first():
    values = [0.5, 0.9, 0.8, 0.95]
    assert epochs_to_target(values, 0.5) == 1
    assert epochs_to_target(values, 0.9) == 2
    assert epochs_to_target(values, 0.91) == 4
    assert epochs_to_target(values, 0.96) is None


def test_seconds_to_target_is_the_end_of_that_epoch():
    run = run_of(
        {
            "val_accuracy": [0.5, 0.9, 0.8],
            "accuracy": [0.1, 0.2, 0.9],
            "seconds": [2.0, 4.5, 7.0],
        }
    )
    assert seconds_to_target(run, 0.9) == 4.5
    assert seconds_to_target(run, 0.9, metric="accuracy") == 7.0
    assert seconds_to_target(run, 0.99) is None


def test_generalization_gap_is_final_training_minus_test():
    assert generalization_gap(run_of({"accuracy": [0.5, 1.0]})) == 0.25


def test_area_under_curve_is_the_mean():
    # (0.5 + 0.75 + 1) / 3 = 0.75.
    assert area_under_curve([0.5, 0.75, 1.0]) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), r"Received: values=\[\]$"),
        (
            lambda: mean_interval([1.0, math.nan]),
            r"Received: values=\[1.0, nan",
        ),
        (lambda: mean_interval(["a"]), r"`values`.*Received: values=\['a'\]$"),
        (lambda: mean_interval([[1.0], [2.0, 3.0]]), r"`values`.*Received"),
        (lambda: mean_interval([1.0], 1.0), r"Received: confidence=1.0$"),
        (
            lambda: mean_interval([1.0, 2.0], "x"),
            r"`confidence`.*Received: confidence='x'$",
        ),
        (
            lambda: mean_of_means([[1.0, 2.0]], None),
            r"`confidence`.*Received: confidence=None$",
        ),
        (
            lambda: paired_difference({0: 1.0}, {1: 1.0}),
            r"Received: a=\[0\], b=\[1\]$",
        ),
        (
            lambda: paired_difference({0: math.inf}, {0: 1.0}),
            r"Received: a=\[inf\]$",
        ),
        (
            lambda: paired_difference({0: 1.0}, {0: 1.0}, confidence=0),
            "Received: confidence=0$",
        ),
        (lambda: holm([]), r"Received: p_values=\[\]$"),
        (lambda: holm([0.1, 1.5]), r"Received: p_values=\[0.1, 1.5\]$"),
        (lambda: epochs_to_target([], 0.5), r"Received: values=\[\]$"),
        (lambda: epochs_to_target([0.5], math.nan), "Received: target=nan$"),
        (
            lambda: seconds_to_target(run_of({"seconds": [1.0]}), 0.5),
            r"Received: history=\['seconds'\]$",
        ),
        (
            lambda: seconds_to_target(
                run_of({"val_accuracy": [0.5], "seconds": []}), 0.5
            ),
            r"Received: seconds=\[\]$",
        ),
        (
            lambda: generalization_gap(run_of({"accuracy": [1.0]}, None)),
            "Received: test_accuracy=None$",
        ),
        (
            lambda: generalization_gap(run_of({"accuracy": []})),
            r"Received: accuracy=\[\]$",
        ),
        (lambda: area_under_curve([math.inf]), r"Received: values=\[inf\]$"),
    ],
)
def test_bad_input_says_what_it_received(call, message):
    with pytest.raises(ValueError, match=message):
        call()
