"""What the study computes from its runs: pure functions on plain numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from keras_hybrid.study.record import Run

RESAMPLES = 9999


class Interval(NamedTuple):
    """A mean with its confidence interval, in the unit of the values.

    Attributes:
        mean: The arithmetic mean.
        low: The lower bound, NaN where one value leaves no spread to estimate.
        high: The upper bound, likewise.
    """

    mean: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """The mean of a - b over common seeds, in the unit of the values.

    Attributes:
        mean: Mean of a[seed] - b[seed].
        low: Lower bound of the bootstrap interval, NaN with one seed.
        high: Upper bound, likewise.
        p_value: Two-sided p of the paired t-test, NaN where it is undefined:
            one seed, or the same difference in every seed.
        seeds: The number of common seeds.
        t_low: Lower bound of Student's interval, as `low` where it is
            undefined.
    """

    mean: float
    low: float
    high: float
    p_value: float
    seeds: int
    t_low: float


def mean_interval(
    values: Sequence[float], confidence: float = 0.95
) -> Interval:
    """Mean and two-sided confidence interval of independent values.

    mean +- t * s / sqrt(n), with s the standard deviation (n - 1 in the
    denominator) and t the (1 + confidence) / 2 quantile of Student's t with
    n - 1 degrees of freedom. The interval takes the values to be about normal;
    it does not know that an accuracy ends at 1.

    Args:
        values: Finite numbers, at least one, any unit.
        confidence: Float in (0, 1), default 0.95.

    Returns:
        An `Interval` in the unit of `values`; its bounds are NaN for one value.

    Raises:
        ValueError: If `values` is empty or not finite, or `confidence` is not
            between 0 and 1.

    Example:
    >>> from keras_hybrid.study.statistics import mean_interval
    >>> [round(x, 2) for x in mean_interval([1.0, 2.0, 3.0])]
    [2.0, -0.48, 4.48]
    """
    array = _finite("values", values)
    _check_confidence(confidence)
    mean = float(array.mean())
    if array.size == 1:
        return Interval(mean, math.nan, math.nan)
    quantile = stats.t.ppf((1 + confidence) / 2, df=array.size - 1)
    half = float(quantile * stats.sem(array))
    return Interval(mean, mean - half, mean + half)


def mean_of_means(
    groups: Sequence[Sequence[float]], confidence: float = 0.95
) -> Interval:
    """Mean of the groups' means, with Welch's confidence interval.

    Each group counts alike, however many values it has, and the groups are
    fixed: only the spread within them makes the mean uncertain. With k groups,
    a_i = s_i^2 / n_i of group i, the interval is mean +- t sqrt(sum a_i) / k,
    t of Student's with (sum a_i)^2 / sum(a_i^2 / (n_i - 1)) degrees of freedom.

    Args:
        groups: Finite numbers of each group, at least one, any unit.
        confidence: Float in (0, 1), default 0.95.

    Returns:
        An `Interval`; its bounds are NaN where a group has one value alone.

    Raises:
        ValueError: If there is no group, or as `mean_interval`.

    References:
        Welch, The generalization of "Student's" problem when several
        different population variances are involved (Biometrika 1947).

    Example:
    >>> from keras_hybrid.study.statistics import mean_of_means
    >>> mean_of_means([[1.0, 1.0], [4.0, 4.0, 4.0]]).mean
    2.5
    """
    _check_confidence(confidence)
    if not groups:
        raise ValueError("`groups` must not be empty. Received: groups=[]")
    arrays = [_finite("groups", group) for group in groups]
    mean = float(np.mean([array.mean() for array in arrays]))
    if min(array.size for array in arrays) == 1:
        return Interval(mean, math.nan, math.nan)
    variances = np.array([array.var(ddof=1) / array.size for array in arrays])
    if not variances.any():
        return Interval(mean, mean, mean)
    freedom = np.array([array.size - 1 for array in arrays])
    df = variances.sum() ** 2 / (variances**2 / freedom).sum()
    quantile = stats.t.ppf((1 + confidence) / 2, df=df)
    half = float(quantile * math.sqrt(variances.sum()) / len(arrays))
    return Interval(mean, mean - half, mean + half)


def paired_difference(
    a: Mapping[int, float],
    b: Mapping[int, float],
    confidence: float = 0.95,
) -> PairedDifference:
    """Mean of a - b over the seeds that both have.

    The interval is a bootstrap over the differences of the seeds (9,999
    resamples, fixed generator): bias-corrected and accelerated (BCa) where
    that is defined, else by percentiles. The p value is that of the paired
    t-test: t = mean / (s / sqrt(n)) with n - 1 degrees of freedom.

    A bootstrap is too narrow for few seeds: of intervals named 95 %, over
    normal differences, about 83 % hold the true value with 5 seeds and 90 %
    with 10. Student's t keeps its level; call a difference clear, or no loss,
    only if both agree.

    Args:
        a: Seed -> finite value, any unit.
        b: Seed -> finite value in the same unit.
        confidence: Float in (0, 1), default 0.95.

    Returns:
        A `PairedDifference` in the unit of the values. With one common seed
        the bounds and p are NaN; with equal differences (up to rounding) the
        bounds are the mean and p is NaN.

    Raises:
        ValueError: If no seed is common, a value is not finite, or
            `confidence` is not between 0 and 1.

    References:
        Efron, Better Bootstrap Confidence Intervals (JASA 1987).

    Example:
    >>> from keras_hybrid.study.statistics import paired_difference
    >>> paired_difference({0: 3.0, 1: 4.0}, {1: 2.0, 2: 9.0}).mean
    2.0
    """
    _check_confidence(confidence)
    common = sorted(a.keys() & b.keys())
    if not common:
        raise ValueError(
            "`a` and `b` must have a seed in common. Received: "
            f"a={sorted(a)}, b={sorted(b)}"
        )
    of_a = _finite("a", [a[seed] for seed in common])
    of_b = _finite("b", [b[seed] for seed in common])
    difference = of_a - of_b
    mean = float(difference.mean())
    if len(common) == 1:
        nan = math.nan
        return PairedDifference(mean, nan, nan, nan, 1, nan)
    # Equal up to the rounding of the subtraction: no spread to estimate.
    rounding = 4 * np.finfo(float).eps * np.abs([of_a, of_b]).max()
    if np.ptp(difference) <= rounding:
        return PairedDifference(mean, mean, mean, math.nan, len(common), mean)
    low, high = _bootstrap(difference, confidence)
    test = stats.ttest_1samp(difference, 0.0)
    t_low = float(test.confidence_interval(confidence).low)
    return PairedDifference(
        mean, low, high, float(test.pvalue), len(common), t_low
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p values for testing several hypotheses at once.

    Sorted ascending, adjusted[i] = max over j <= i of min(1, (n - j) * p[j]),
    j counted from 0. Rejecting where adjusted <= alpha keeps the chance of
    one or more false rejections at alpha, whatever the dependence.

    Args:
        p_values: Numbers in [0, 1], at least one.

    Returns:
        The adjusted p values, in the order of `p_values`.

    Raises:
        ValueError: If `p_values` is empty or one is not in [0, 1].

    References:
        Holm, A Simple Sequentially Rejective Multiple Test Procedure
        (Scandinavian Journal of Statistics, 1979).

    Example:
    >>> from keras_hybrid.study.statistics import holm
    >>> holm([0.5, 0.125])
    [0.5, 0.25]
    """
    array = _finite("p_values", p_values)
    if (array < 0).any() or (array > 1).any():
        raise ValueError(
            "`p_values` must be in [0, 1]. Received: "
            f"p_values={list(p_values)!r}"
        )
    order = np.argsort(array)
    scaled = array[order] * np.arange(array.size, 0, -1)
    adjusted = np.empty_like(array)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(p) for p in adjusted]


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
    array = _finite("values", values)
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

    history["seconds"][epochs_to_target(history[metric], target) - 1]: time is
    read at the ends of epochs, without interpolation.

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
    return float(_finite("seconds", seconds)[epoch - 1])


def generalization_gap(run: Run) -> float:
    """Final training accuracy minus test accuracy, as a fraction.

    history["accuracy"][-1] - test_accuracy. The training accuracy is what
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
    final = _finite("accuracy", _history(run, "accuracy"))[-1]
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
    return float(_finite("values", values).mean())


def _bootstrap(
    difference: npt.NDArray[np.float64], confidence: float
) -> tuple[float, float]:
    """Bounds by BCa, or by percentiles where SciPy finds BCa undefined."""
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            bounds = stats.bootstrap(
                (difference,),
                np.mean,
                n_resamples=RESAMPLES,
                confidence_level=confidence,
                method=method,
                rng=np.random.default_rng(0),
            ).confidence_interval
        if np.isfinite(bounds).all():
            break
    return float(bounds.low), float(bounds.high)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(
            "`confidence` must be between 0 and 1. Received: "
            f"confidence={confidence!r}"
        )


def _finite(name: str, values: Sequence[float]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"`{name}` must be a sequence of finite numbers, at least one. "
            f"Received: {name}={values!r}"
        )
    return array


def _history(run: Run, name: str) -> list[float]:
    if name not in run.history:
        raise ValueError(
            f"`run.history` must have {name!r}. Received: "
            f"history={sorted(run.history)}"
        )
    return run.history[name]
