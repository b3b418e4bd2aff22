"""A look at an epoch's end: what the trigger says, kept in the optimizer.

The optimizer's vector has the mark of the trigger whose state it is, the number
of epochs that were looked at, and the trigger's numbers.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.triggers import EpochTrigger


@dataclasses.dataclass(frozen=True)
class Look:
    """What was found; nothing is changed yet.

    Attributes:
        phase: The optimizer's numbers for the logs.
        asked: Whether there is a trigger and it was still to decide.
        before: The optimizer's vector.
        holds: What the trigger said.
        after: The vector that takes its place.
    """

    phase: dict[str, float]
    asked: bool
    before: np.ndarray
    holds: bool
    after: np.ndarray


def look(
    trigger: EpochTrigger | None,
    optimizer: HybridOptimizer,
    epoch: int,
    logs: Mapping[str, Any],
    phase: dict[str, float] | None = None,
) -> Look:
    """Looks at the end of epoch `epoch`.

    Args:
        trigger: None: nobody is asked.
        optimizer: Its state is read.
        epoch: Counted from 0.
        logs: The epoch's metrics.
        phase: What `phase_of` said; None: it is asked.

    Raises:
        ValueError: If the trigger misses a metric (KeyError: a trigger of
            the user's own may).
    """
    phase = phase_of(optimizer) if phase is None else phase
    before = optimizer.epoch_state
    asked = trigger is not None and not optimizer.has_switched
    return _decide(
        trigger,
        epoch,
        {**logs, **phase},
        phase=phase,
        asked=asked,
        before=before,
    )


def would_differ(
    found: Look,
    trigger: EpochTrigger | None,
    epoch: int,
    logs: Mapping[str, Any],
) -> bool:
    """Says whether another look, at these logs, would find something else."""
    now = _decide(
        trigger,
        epoch,
        {**logs, **found.phase},
        phase=found.phase,
        asked=found.asked,
        before=found.before,
    )
    same = np.array_equal(now.after, found.after, equal_nan=True)
    return now.holds != found.holds or not same


def _decide(
    trigger: EpochTrigger | None,
    epoch: int,
    logs: Mapping[str, Any],
    phase: dict[str, float],
    asked: bool,
    before: np.ndarray,
) -> Look:
    holds, after = False, before.copy()
    if trigger is not None and asked:
        mark = fingerprint(trigger)
        if before[0] == mark:
            length = len(trigger.get_state())
            trigger.set_state([float(x) for x in before[2 : 2 + length]])
        else:
            trigger.reset()
        holds = trigger.check(epoch, logs)
        values = trigger.get_state()
        after[:] = 0
        after[0] = mark
        after[2 : 2 + len(values)] = values
    after[1] = epoch + 1
    return Look(phase, asked, before, holds, after)


def phase_of(optimizer: HybridOptimizer) -> dict[str, float]:
    """Returns where the optimizer is, as numbers for the logs."""
    rate = optimizer.sgd_learning_rate_equivalent
    step = optimizer.switch_step
    return {
        "sgd_fraction": optimizer.sgd_fraction,
        "switch_step": -1 if step is None else step,
        "learning_rate": float(
            keras.ops.convert_to_numpy(optimizer.learning_rate)
        ),
        "cooldown": optimizer.cooldown_factor,
        "sgd_learning_rate": float("nan") if rate is None else rate,
    }


def fingerprint(trigger: EpochTrigger) -> np.float32:
    """A number that tells whose state is stored, exact in float32."""
    config = keras.saving.serialize_keras_object(trigger)
    text = json.dumps(config, sort_keys=True, default=str)
    return np.float32(1 + zlib.crc32(text.encode()) % (2**24 - 1))
