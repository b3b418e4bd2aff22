"""A look at an epoch's end: what the trigger says, kept in the optimizer.

The optimizer's vector has the mark of the trigger whose state it is, the number
of epochs that were looked at, and the trigger's numbers.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
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
    before = np.array(optimizer.state.epoch_trigger.numpy())
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


def check_restored(
    trigger: EpochTrigger | None,
    optimizer: HybridOptimizer,
    epoch: int,
    restored: bool,
) -> None:
    """Warns if the state is not that of the end of the epoch before.

    Args:
        trigger: Of the callback.
        optimizer: Its state is read.
        epoch: That begins now, counted from 0.
        restored: Whether the state comes from a file.
    """
    mark, watched = optimizer.state.epoch_trigger.numpy()[:2]
    if 0 < watched < epoch and not optimizer.has_switched:
        if trigger is None or mark != fingerprint(trigger):
            return
        warnings.warn(
            f"The trigger {trigger!r} has seen {int(watched)} epochs, "
            f"and the training goes on with epoch {epoch + 1}: a backup "
            "was taken before the trigger saw its epoch. Put "
            "SwitchCallback before BackupAndRestore in the list.",
            stacklevel=2,
        )
    elif watched > epoch and restored:
        warnings.warn(
            f"The restored weights are those after {int(watched)} epochs, "
            f"and the training goes on with epoch {epoch + 1}: the process "
            "was killed while BackupAndRestore wrote, and some epochs are "
            "trained twice. keras_hybrid.ExactBackup writes at once.",
            stacklevel=2,
        )


def warn_of_unseen(trigger: EpochTrigger | None, epoch: int) -> None:
    """Warns that a file lacks the look at the end of epoch `epoch`."""
    warnings.warn(
        f"A file was written at the end of epoch {epoch + 1} before "
        f"{trigger!r} could look at the epoch's metrics. A "
        "training restored from it lacks that look: put SwitchCallback "
        "before the callback that writes.",
        stacklevel=2,
    )


def fingerprint(trigger: EpochTrigger) -> np.float32:
    """A number that tells whose state is stored, exact in float32."""
    config = keras.saving.serialize_keras_object(trigger)
    text = json.dumps(config, sort_keys=True, default=str)
    return np.float32(1 + zlib.crc32(text.encode()) % (2**24 - 1))
