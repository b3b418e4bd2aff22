"""The losses of batches: read from the logs, and judged against the usual."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras


def are_finite(logs: Mapping[str, Any]) -> bool:
    """Whether the losses of an epoch, in training and validation, are."""
    losses = [logs[name] for name in ("loss", "val_loss") if name in logs]
    return all(map(math.isfinite, losses))


class BatchLosses:
    """The loss of each batch, from logs that have the epoch's mean.

    Attributes:
        seen: The mean and the count of the loss in the metrics so far.
    """

    def __init__(self) -> None:
        self.seen = 0.0, 0.0
        self._trackers: list[Any] = []

    def begin_epoch(self, model: Any) -> None:
        """Notes that the metrics begin anew."""
        self.seen = 0.0, 0.0
        self._trackers = [
            metric
            for metric in model.metrics
            if metric.name == "loss" and isinstance(metric, keras.metrics.Mean)
        ]

    def since_last(self, logs: Mapping[str, Any]) -> float:
        """Returns the loss since the last call of the epoch.

        Raises:
            ValueError: If there is no loss in the logs.
        """
        if "loss" not in logs:
            raise ValueError(
                "`DivergenceGuard` needs the `loss` in the logs of each batch. "
                f"Received: logs={sorted(logs)}"
            )
        mean = float(logs["loss"])
        count = sum(float(metric.count.numpy()) for metric in self._trackers)
        old_mean, old_count = self.seen
        self.seen = mean, count
        if count <= old_count:  # A train_step that logs the batch's own loss.
            return mean
        return (mean * count - old_mean * old_count) / (count - old_count)


class LossWindow:
    """The losses since a snapshot, against what is usual.

    usual <- (usual + mean) / 2 over the windows that were good.

    Args:
        factor: How many times the usual is a divergence; None: never.
        length: Batches of a full window.

    Attributes:
        usual: The usual loss, 0 while it is not known.
        batches: In the window so far.
    """

    def __init__(self, factor: float | None, length: int) -> None:
        self._factor = factor
        self._length = length
        self.usual = 0.0
        self.begin()

    def begin(self) -> None:
        """Begins a new window."""
        self.batches = 0
        self._sum = 0.0

    @property
    def is_full(self) -> bool:
        """Whether it has all its batches."""
        return self.batches >= self._length

    @property
    def measures(self) -> bool:
        """Whether there is a usual loss to compare with."""
        return self._factor is not None and self.usual > 0

    def add(self, loss: float, batches: int) -> str | None:
        """Takes a loss; returns why it says that the training diverges."""
        self.batches += batches
        self._sum += loss * batches
        if not math.isfinite(loss):
            return f"loss {loss}"
        if self._exceeds(self._sum, max(self.batches, self._length)):
            return f"loss {loss:.4g}, usually {self.usual:.4g}"
        return None

    def is_unusual(self, loss: float) -> bool:
        """Whether a single loss is too much."""
        return self._exceeds(loss, 1)

    @property
    def was_unusual(self) -> bool:
        """Whether the window's losses are too much for its batches."""
        return self._exceeds(self._sum, self.batches)

    def close(self) -> None:
        """Takes the window for usual, and begins a new one."""
        mean = self._sum / self.batches
        usual = (self.usual + mean) / 2 if self.usual > 0 else mean
        # A mean of 0 or less is no measure.
        self.usual = usual if mean > 0 else 0.0
        self.begin()

    def _exceeds(self, total: float, batches: int) -> bool:
        if self._factor is None or self.usual <= 0:
            return False
        return total > self._factor * self.usual * batches
