"""LengthCallback: tells the optimizer how long the training is."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_hybrid._support import checks
from keras_hybrid.callbacks.horizon import Horizon
from keras_hybrid.callbacks.models import build_optimizer, hybrid_optimizer
from keras_hybrid.optimizer import HybridOptimizer


class LengthCallback(keras.callbacks.Callback):
    """Sets `HybridOptimizer.training_steps` in `fit`, and follows it.

    The end moves where loss scaling skips an update or an epoch ends early; a
    data set of unknown length tells it with its first epoch.

    Raises:
        ValueError: When `fit` starts, if the model has no HybridOptimizer, or
            one whose cool-down needs a length that is known too late; in a
            loop of your own, without `epochs`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._horizon: Horizon | None = None
        self._set_back = False
        self._batches_at_start: int | None = None

    def training_end(self, optimizer: HybridOptimizer) -> float:
        """Updates at the end of the training; `math.inf`: not known yet."""
        return self.horizon.end(optimizer)

    @property
    def horizon(self) -> Horizon:
        """The end of the `fit` that runs."""
        if self._horizon is None:
            raise ValueError(
                "The callback must be in `callbacks` of a `fit` that runs. "
                "Received: no `on_train_begin`"
            )
        return self._horizon

    def set_model(self, model: Any) -> None:
        """Takes the model and builds its optimizer."""
        super().set_model(model)
        build_optimizer(model)
        self._batches_at_start = hybrid_optimizer(model).batches_seen

    def is_restored(self, optimizer: HybridOptimizer) -> bool:
        """Whether a file was restored since this `fit` was given the model."""
        return self._batches_at_start != optimizer.batches_seen

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks that a cool-down until the end knows where that is."""
        if "epochs" not in (self.params or {}):
            raise ValueError(
                "Outside of `fit` the callback must be told the length of the "
                "training: keras.callbacks.CallbackList(callbacks, "
                "model=model, epochs=..., steps=...), `steps` in batches an "
                f"epoch. Received: {self.params}"
            )
        if self.params.get("steps") is None and self.params["epochs"] < 2:
            _check_length(hybrid_optimizer(self.model))
        self._horizon = Horizon(self.params, self.model)

    def follow(self) -> None:
        """Takes note that DivergenceGuard has taken the last batches back."""
        self._set_back = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Tells the optimizer the length of the training, as far as known."""
        self.horizon.begin_epoch(epoch)
        self._tell_end()

    def _tell_end(self) -> None:
        optimizer = hybrid_optimizer(self.model)
        if self.horizon.steps is None and (
            self.is_restored(optimizer) or _is_cooling_down(optimizer)
        ):
            return  # The file knows it.
        end = self.training_end(optimizer)
        if end > checks.MOST:
            end = math.inf  # `epochs` is a ceiling that is never reached.
        if end != self.horizon.told or self._set_back:
            optimizer.training_steps = end
            self.horizon.told = end
        self._set_back = False

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Notes how far the epoch is, and how far it moves the end."""
        self.horizon.begin_batch(batch)
        if self.horizon.moves or self._set_back:
            self._tell_end()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Notes how far the epoch is."""
        self.horizon.end_batch(batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Takes the epoch's length for that of those to come."""
        if self._horizon is not None:
            self._horizon.end_epoch()


def _check_length(optimizer: HybridOptimizer) -> None:
    """Refuses a cool-down until an end that is known too late."""
    cooldown = optimizer.cooldown
    if cooldown is not None and cooldown.ends_with_training:
        raise ValueError(
            "`Cooldown()` lasts until the end of the training, and this "
            "data set tells its length after the only epoch: pass "
            "`steps_per_epoch` to `fit` or `Cooldown(steps=...)`. "
            "Received: steps_per_epoch=None, epochs=1"
        )


def _is_cooling_down(optimizer: HybridOptimizer) -> bool:
    """Whether a switched one, loaded say, is before an end that it knows."""
    end = optimizer.training_steps
    return (
        optimizer.has_switched
        and end is not None
        and optimizer.updates_made < end
    )
