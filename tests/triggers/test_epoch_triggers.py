"""When epoch triggers hold: lists of floats."""

import copy
import math

import numpy as np
import pytest
from hand_made import LOGS, NAN, STATEFUL, updates

from keras_hybrid.triggers import (
    AtEpoch,
    GeneralizationGap,
    MetricReached,
    Plateau,
    Slope,
)


@pytest.mark.parametrize(
    "trigger",
    [
        Plateau("val_f1_score", mode="max"),
        MetricReached("val_f1_score", 0.5, mode="max"),
    ],
    ids=repr,
)
def test_a_metric_of_several_numbers_is_named(trigger):
    logs = {"val_f1_score": np.ones(3)}
    with pytest.raises(ValueError, match="monitor='val_f1_score', of shape"):
        trigger.check(0, logs)


@pytest.mark.parametrize("n", [1, 3])
def test_at_epoch_fires_at_the_end_of_the_nth_epoch(n):
    trigger = AtEpoch(n)
    held = [trigger.check(epoch, {}) for epoch in range(5)]
    assert held == [epoch + 1 >= n for epoch in range(5)]


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


def through_float32(trigger):
    """Puts the state through the optimizer's float32 vector."""
    state = np.asarray(trigger.get_state(), "float32")
    trigger.reset()
    trigger.set_state([float(x) for x in state])


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


@pytest.mark.parametrize(
    ("train", "validation", "held"),
    [(0.95, 0.9, False), (0.9500001, 0.9, True), (0.9499999, 0.9, False)],
)
def test_a_gap_is_compared_as_it_is_logged(train, validation, held):
    # In float64 the float32 of .95 and .9 lie .0500000119 apart.
    logs = {
        "accuracy": float(np.float32(train)),
        "val_accuracy": float(np.float32(validation)),
    }
    assert GeneralizationGap(0.05, "accuracy").check(0, logs) is held
