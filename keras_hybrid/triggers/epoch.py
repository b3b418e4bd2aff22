"""Epoch triggers: when, from the logs of each epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_hybrid._support import checks
from keras_hybrid.triggers.base import (
    EpochTrigger,
)


def _logged(logs: Mapping[str, float], name: str) -> float:
    if name not in logs:
        raise ValueError(
            f"The monitored metric is not in the logs. Available: "
            f"{', '.join(sorted(logs)) or 'nothing'}. (Metrics that start "
            "with val_ need validation data in every epoch that is watched.) "
            f"Received: monitor={name!r}"
        )
    value = np.asarray(logs[name])
    if value.ndim:
        raise ValueError(
            "The monitored metric must be one number (F1Score, for one, gives "
            "one with average='macro'). Received: "
            f"monitor={name!r}, of shape {value.shape}"
        )
    return float(value)


# Endings by which a metric's better direction is known, as in Keras.
_HIGHER_IS_BETTER = ("acc", "accuracy", "auc", "precision", "recall", "f1")


_LOWER_IS_BETTER = ("loss", "error", "mae", "mse", "entropy", "divergence")


def _better_sign(monitor: str, mode: str) -> int:
    """Returns 1 where higher values of `monitor` are better, else -1."""
    checks.choice("mode", mode, ("auto", "min", "max"))
    if mode == "max" or mode == "min":
        return 1 if mode == "max" else -1
    if monitor.endswith(_HIGHER_IS_BETTER):
        return 1
    if monitor.endswith(_LOWER_IS_BETTER):
        return -1
    raise ValueError(
        "`mode` must be 'min' or 'max' for a metric whose better direction "
        f"its name does not tell. Received: mode={mode!r}, monitor={monitor!r}"
    )


@checks.registered
class AtEpoch(EpochTrigger):
    """Switches at a fixed epoch: n epochs are adaptive.

    Args:
        n: Integer of at least 1. The first update of epoch n, counted from 0,
            is the first that SGD makes. (To start with SGD, use `AtStep(0)`.)

    Raises:
        TypeError: If `n` is no integer.
        ValueError: If `n` is below 1.

    Example:
    >>> from keras_hybrid import triggers
    >>> trigger = triggers.AtEpoch(2)
    >>> [trigger.update(finished) for finished in (1, 2, 3)]
    [False, True, True]
    """

    def __init__(self, n: int) -> None:
        self.n = checks.integer("n", n, low=1)

    def read(self, epoch: int, logs: Mapping[str, float]) -> float:
        """Returns the number of finished epochs."""
        return epoch + 1

    def update(self, value: float) -> bool:
        """Holds once n epochs are finished."""
        return value >= self.n

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"n": self.n}


class _Monitoring(EpochTrigger):
    """A trigger that reads one metric, whose better direction it knows."""

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor = checks.text("monitor", monitor)
        self.mode = mode
        self._sign = _better_sign(monitor, mode)

    def read(self, epoch: int, logs: Mapping[str, float]) -> float:
        """Returns the monitored metric."""
        return _logged(logs, self.monitor)


@checks.registered
class Plateau(_Monitoring):
    """Switches when a metric has stopped improving.

    An epoch improves if its value is better than the best so far by more than
    `min_delta`. The condition holds from `patience` epochs without improvement
    on, until the next one. NaN never improves.

    Args:
        monitor: Name in the logs, default `"val_loss"`.
        patience: Integer of at least 1, default 3, in epochs.
        min_delta: Float of at least 0, default 0, in the metric's units.
        mode: `"auto"` (default: by the metric's name), `"min"` or `"max"`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range or choices.

    Example:
    >>> from keras_hybrid import triggers
    >>> trigger = triggers.Plateau(patience=2)
    >>> [trigger.update(v) for v in (1.0, 0.8, 0.9, 0.85)]
    [False, False, False, True]
    """

    state_names = ("best", "waited")

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 3,
        min_delta: float = 0.0,
        mode: str = "auto",
    ) -> None:
        super().__init__(monitor, mode)
        self.patience = checks.integer("patience", patience, low=1)
        self.min_delta = checks.number("min_delta", min_delta, low=0)
        self.reset()

    def reset(self) -> None:
        """Forgets the best value."""
        self.best = -self._sign * math.inf
        self.waited = 0.0

    def update(self, value: float) -> bool:
        """Holds after `patience` epochs without improvement."""
        # As it is stored: 0.1 must not improve on float32's 0.1.
        value = float(np.float32(value))
        if self._sign * (value - self.best) > self.min_delta:
            self.best = value
            self.waited = 0.0
        else:
            self.waited += 1
        return self.waited >= self.patience

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "monitor": self.monitor,
            "patience": self.patience,
            "min_delta": self.min_delta,
            "mode": self.mode,
        }


@checks.registered
class Slope(_Monitoring):
    """Switches when a metric's trend is no longer an improvement.

    A line is fitted by least squares through the values of the last half of
    the epochs (of at least `least`, at most 24 of them). The condition holds
    where its slope is not better than 0 by `errors` standard errors: a window
    that grows sees a slow improvement through more and more noise.

    Args:
        monitor: Name in the logs, default `"val_loss"`.
        least: Integer of at least 3, default 5, in epochs: the shortest window.
        errors: Float of at least 0, default 2.
        mode: `"auto"` (default: by the metric's name), `"min"` or `"max"`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range or choices.

    Example:
    >>> from keras_hybrid import triggers
    >>> trigger = triggers.Slope(least=3)
    >>> [trigger.update(v) for v in (0.9, 0.5, 0.3, 0.31, 0.3, 0.31)]
    [False, False, False, True, True, True]
    """

    MOST = 24

    def __init__(
        self,
        monitor: str = "val_loss",
        least: int = 5,
        errors: float = 2.0,
        mode: str = "auto",
    ) -> None:
        super().__init__(monitor, mode)
        self.least = checks.integer("least", least, low=3)
        if self.least > self.MOST:
            raise ValueError(
                f"`least` must be at most {self.MOST}. Received: least={least}"
            )
        self.errors = checks.number("errors", errors, low=0)
        self.reset()

    def reset(self) -> None:
        """Forgets all values."""
        self.epochs = 0
        self.values: list[float] = []

    def update(self, value: float) -> bool:
        """Holds where the line through the window does not improve."""
        self.epochs += 1
        self.values = [*self.values, float(np.float32(value))][-self.MOST :]
        window = max(self.least, (self.epochs + 1) // 2)
        values = self._sign * np.array(self.values[-window:])
        if len(values) < self.least or not np.isfinite(values).all():
            return False
        x = np.arange(len(values)) - (len(values) - 1) / 2
        spread = (x**2).sum()
        slope = (x * values).sum() / spread
        rest = values - values.mean() - slope * x
        error = math.sqrt((rest**2).sum() / (len(values) - 2) / spread)
        return bool(slope <= self.errors * error)

    def get_state(self) -> list[float]:
        """Returns the number of epochs and the values kept."""
        room = [math.nan] * (self.MOST - len(self.values))
        return [float(self.epochs), *self.values, *room]

    def set_state(self, state: list[float]) -> None:
        """Takes back what `get_state` returned."""
        self.epochs = int(state[0])
        kept = min(self.epochs, self.MOST)
        self.values = list(state[1 : 1 + kept])

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "monitor": self.monitor,
            "least": self.least,
            "errors": self.errors,
            "mode": self.mode,
        }


@checks.registered
class GeneralizationGap(EpochTrigger):
    """Switches when validation falls behind training.

    The gap is val_metric - metric where lower is better, metric - val_metric
    where higher is; the condition holds when it has exceeded `threshold` for
    `patience` epochs in a row.

    Args:
        threshold: Float: the gap, in the metric's units.
        metric: Name of the training metric in the logs, default `"loss"`; the
            validation metric is its name after `val_`.
        patience: Integer of at least 1, default 1, in epochs.
        mode: `"auto"` (default: by the metric's name), `"min"` or `"max"`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range or choices.

    Example:
    >>> from keras_hybrid import triggers
    >>> trigger = triggers.GeneralizationGap(0.1, metric="accuracy")
    >>> trigger.check(0, {"accuracy": 0.9, "val_accuracy": 0.85})
    False
    >>> trigger.check(1, {"accuracy": 0.99, "val_accuracy": 0.86})
    True
    """

    state_names = ("exceeded",)

    def __init__(
        self,
        threshold: float,
        metric: str = "loss",
        patience: int = 1,
        mode: str = "auto",
    ) -> None:
        self.threshold = checks.number("threshold", threshold)
        self.metric = checks.text("metric", metric)
        self.patience = checks.integer("patience", patience, low=1)
        self.mode = mode
        self._sign = _better_sign(metric, mode)
        self.reset()

    def reset(self) -> None:
        """Forgets the epochs in a row."""
        self.exceeded = 0.0

    def read(self, epoch: int, logs: Mapping[str, float]) -> float:
        """Returns the gap, positive where validation is worse."""
        train = _logged(logs, self.metric)
        validation = _logged(logs, f"val_{self.metric}")
        gap = self._sign * (train - validation)
        # As Keras logs them: float32's 0.95 - 0.9 is above Python's 0.05.
        rounding = 2.0**-23 * max(abs(train), abs(validation))
        return self.threshold if abs(gap - self.threshold) <= rounding else gap

    def update(self, value: float) -> bool:
        """Holds after `patience` gaps in a row above the threshold."""
        self.exceeded = self.exceeded + 1 if value > self.threshold else 0.0
        return self.exceeded >= self.patience

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "threshold": self.threshold,
            "metric": self.metric,
            "patience": self.patience,
            "mode": self.mode,
        }


@checks.registered
class MetricReached(_Monitoring):
    """Switches when a metric has reached a value.

    Args:
        monitor: Name in the logs.
        target: Float: the value, reached if equal or better.
        mode: `"auto"` (default: by the metric's name), `"min"` or `"max"`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range or choices.

    Example:
    >>> from keras_hybrid import triggers
    >>> trigger = triggers.MetricReached("val_accuracy", 0.9)
    >>> [trigger.update(v) for v in (0.85, 0.9)]
    [False, True]
    """

    def __init__(self, monitor: str, target: float, mode: str = "auto") -> None:
        super().__init__(monitor, mode)
        self.target = checks.number("target", target)

    def update(self, value: float) -> bool:
        """Holds where the value is equal to the target or better."""
        # As Keras logs it: float32's 0.9 is below Python's.
        distance = float(np.float32(value)) - float(np.float32(self.target))
        return self._sign * distance >= 0

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "monitor": self.monitor,
            "target": self.target,
            "mode": self.mode,
        }
