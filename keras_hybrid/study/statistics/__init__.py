"""What the study computes from its runs: pure functions on plain numbers."""

from keras_hybrid.study.statistics.courses import (
    area_under_curve,
    epochs_to_target,
    generalization_gap,
    seconds_to_target,
)
from keras_hybrid.study.statistics.intervals import (
    RESAMPLES,
    Interval,
    PairedDifference,
    holm,
    mean_interval,
    mean_of_means,
    paired_difference,
)

__all__ = [
    "RESAMPLES",
    "Interval",
    "PairedDifference",
    "area_under_curve",
    "epochs_to_target",
    "generalization_gap",
    "holm",
    "mean_interval",
    "mean_of_means",
    "paired_difference",
    "seconds_to_target",
]
