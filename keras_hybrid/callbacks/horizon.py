"""Where a `fit` ends, in updates: followed, because it moves.

An update that is skipped, an epoch that ends early and a data set that tells
its length only after an epoch all change how many updates a training makes.
"""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_hybrid.optimizer import HybridOptimizer


class Horizon:
    """Counts what a `fit` has left.

    Args:
        params: Of the callback: `epochs`, and `steps` or None.
        model: The compiled model.

    Attributes:
        steps: Batches of an epoch to come; None: not known.
        lengths: Batches of the epochs that are over.
        moves: Whether the end may move between two batches.
        told: The end that the optimizer was told last.
    """

    def __init__(self, params: dict[str, Any], model: Any) -> None:
        self._epochs = int(params["epochs"])
        self._given: int | None = params.get("steps")
        self.steps: float | None = self._given
        self.lengths: list[int] = []
        self.moves = isinstance(
            model.optimizer, keras.optimizers.LossScaleOptimizer
        )
        self.told: float | None = None
        self._epochs_left = self._epochs
        self._done = 0

    def begin_epoch(self, epoch: int) -> None:
        """Notes that epoch `epoch`, counted from 0, begins."""
        self._epochs_left = self._epochs - epoch
        self._done = 0

    def begin_batch(self, batch: int) -> None:
        """Notes that `batch` batches of the epoch are done."""
        self._done = batch

    def end_batch(self, batch: int) -> None:
        """Notes the batch that was last, counted from 0.

        Of a call of several batches that the epoch's end cuts short, Keras
        names the last that would have been.
        """
        self._done = batch + 1
        if self._given is not None:
            self._done = min(self._done, self._given)

    def end_epoch(self) -> None:
        """Takes the epoch's length for that of those to come.

        Where a length is given, the mean of all: of data that end within an
        epoch, and begin anew with the next, every other epoch is short.
        """
        self.lengths.append(self._done)
        if not self._done:
            return
        if self._given is None:
            self.steps = self._done
        else:
            self.steps = sum(self.lengths) / len(self.lengths)

    def end(self, optimizer: HybridOptimizer) -> float:
        """Updates that the optimizer will have made at the end of `fit`.

        Infinite while that is not known.
        """
        if self.steps is None:
            return math.inf
        left = max(round(self.steps * self._epochs_left) - self._done, 0)
        accumulated = optimizer.gradient_accumulation_steps or 1
        return max((optimizer.batches_seen + left) // accumulated, 1)
