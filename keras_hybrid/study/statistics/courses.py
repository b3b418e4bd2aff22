"""What is read off the course of one run: when it got there, what it lost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from keras_hybrid.study.record import Run
from keras_hybrid.study.statistics.checked import finite


def epochs_to_target(values: Sequence[float], target: float) -> int | None:
    """The first epoch whose value reaches the target.

    min {e : values[e - 1] >= target}; higher is better.

    Args:
        values: One finite number an epoch, at least one.
        target: Finite float in the unit of `values`.

    Returns:
        The epoch, counted from 1, or None if it is never reached.

    Raises:
        ValueError: If `values` is empty or not finite, or `target` is not
            finite.

    Example:
    >>> from keras_hybrid.study.statistics import epochs_to_target
    >>> epochs_to_target([0.5, 0.9, 0.8], target=0.9)
    2
    """
    array = finite("values", values)
    if not math.isfinite(target):
        raise ValueError(
            f"`target` must be finite. Received: target={target!r}"
        )
    reached = np.flatnonzero(array >= target)
    return int(reached[0]) + 1 if reached.size else None


def seconds_to_target(
    run: Run, target: float, metric: str = "val_accuracy"
) -> float | None:
    """Seconds of training until an epoch ends with the target reached.

    `history["seconds"][epochs_to_target(history[metric], target) - 1]`: time
    is read at the ends of epochs, without interpolation.

    Args:
        run: The record of the run.
        target: Finite float in the unit of the metric.
        metric: Name of a metric in the history of which higher is better,
            default "val_accuracy".

    Returns:
        Seconds as `Run` counts them (training alone), or None if the target
        is never reached.

    Raises:
        ValueError: If the history has no such metric or no seconds for all of
            its epochs, or as `epochs_to_target`.

    Example:
    >>> from keras_hybrid.study.record import Run
    >>> from keras_hybrid.study.statistics import seconds_to_target
    >>> history = {"val_accuracy": [0.5, 0.9], "seconds": [2.5, 5.0]}
    >>> run = Run("mnist", "mlp", "adam", 0, 2, {}, {}, "finished", history,
    ...           None, 10, 0.3, 0.9)
    >>> seconds_to_target(run, target=0.8)
    5.0
    """
    values = _history(run, metric)
    seconds = _history(run, "seconds")
    if len(seconds) != len(values):
        raise ValueError(
            f"`run.history` must have seconds for each epoch of {metric!r}. "
            f"Received: seconds={seconds!r}"
        )
    epoch = epochs_to_target(values, target)
    if epoch is None:
        return None
    return float(finite("seconds", seconds)[epoch - 1])


def generalization_gap(run: Run) -> float:
    """Final training accuracy minus test accuracy, as a fraction.

    `history["accuracy"][-1] - test_accuracy`. The training accuracy is what
    `fit` logged: a mean over the last epoch while the weights still moved, on
    augmented inputs and under dropout where the run has them. So the gap of
    a regularized run can be negative, and gaps compare arms of one cell, not
    architectures.

    Args:
        run: The record of a finished run.

    Returns:
        The gap, between -1 and 1.

    Raises:
        ValueError: If the run has no test accuracy (it diverged) or no
            finite training accuracy.

    Example:
    >>> from keras_hybrid.study.record import Run
    >>> from keras_hybrid.study.statistics import generalization_gap
    >>> run = Run("mnist", "mlp", "adam", 0, 1, {}, {}, "finished",
    ...           {"accuracy": [1.0]}, None, 10, 0.3, 0.75)
    >>> generalization_gap(run)
    0.25
    """
    final = finite("accuracy", _history(run, "accuracy"))[-1]
    if run.test_accuracy is None or not math.isfinite(run.test_accuracy):
        raise ValueError(
            "`run` must have a test accuracy. Received: "
            f"test_accuracy={run.test_accuracy!r}"
        )
    return float(final - run.test_accuracy)


def area_under_curve(values: Sequence[float]) -> float:
    """Mean of the validation accuracy over the epochs.

    The area under the curve divided by its length, each epoch with its value
    at the end: between two runs that end alike, the faster one has more.

    Args:
        values: Validation accuracy of each epoch, finite, at least one.

    Returns:
        The mean, in the unit of `values`.

    Raises:
        ValueError: If `values` is empty or not finite.

    Example:
    >>> from keras_hybrid.study.statistics import area_under_curve
    >>> area_under_curve([0.5, 1.0])
    0.75
    """
    return float(finite("values", values).mean())


def _history(run: Run, name: str) -> list[float]:
    if name not in run.history:
        raise ValueError(
            f"`run.history` must have {name!r}. Received: "
            f"history={sorted(run.history)}"
        )
    return run.history[name]
