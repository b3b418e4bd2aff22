"""Hand-made signals of updates, and logs of epochs."""

import math

import keras
import numpy as np
from keras import ops

from keras_hybrid.triggers import (
    AtEpoch,
    GeneralizationGap,
    MetricReached,
    Plateau,
    Signals,
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


def updates(trigger, values):
    return [trigger.update(value) for value in values]


NAN = math.nan
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


def config(trigger):
    return keras.saving.serialize_keras_object(trigger)
