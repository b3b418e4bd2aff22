"""When TrainUntilDone must act next, in updates."""

from __future__ import annotations

import math

from keras_hybrid.optimizer import HybridOptimizer


def latest_switch(end: float, share: float, start: int) -> float:
    """Returns the updates after which a cool-down just fits.

    With a switch after s updates the cool-down takes share (s - start): the
    largest s with s + share (s - start) <= end.

    Args:
        end: Updates at the ceiling; infinite without one.
        share: The cool-down's, of the constant phase.
        start: Updates before that phase.
    """
    if end == math.inf:
        return end
    return math.floor((end + share * start) / (1 + share))


def next_look(optimizer: HybridOptimizer, share: float, latest: float) -> int:
    """Returns the updates before which there is nothing to do.

    Args:
        optimizer: Is read.
        share: The cool-down's.
        latest: `latest_switch`.
    """
    made = optimizer.updates_made
    if optimizer.has_switched:
        end = optimizer.cooldown_end
        return made + 1 if end is None else end
    if optimizer.trigger is not None:
        # It may fire at any update, and the cool-down end soon after.
        so_far = made - optimizer.phase_start
        latest = min(latest, made + int(share * so_far))
    return int(min(latest, made + 1_000_000))
