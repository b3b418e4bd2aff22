"""The end of an epoch, also for files that are written just before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from keras_hybrid.callbacks.length import LengthCallback
from keras_hybrid.callbacks.models import hybrid_optimizer
from keras_hybrid.optimizer.companions import Companion


class EpochSoFar:
    """What is known of the epoch's metrics while it runs.

    Attributes:
        number: Of the epoch, counted from 0; None between epochs.
        complete: Whether all its metrics are known.
        metrics: Those that Keras has reset since, or another callback may.
        logs: Of the last batch.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.complete = False
        self.metrics: dict[str, Any] = {}
        self.logs: Mapping[str, Any] = {}
        self._last_batch: int | None = None

    def begin(self, number: int, last_batch: int | None) -> None:
        """Notes that an epoch begins.

        Args:
            number: Counted from 0.
            last_batch: Where its last execution begins, None if not known.
        """
        self.number = number
        self._last_batch = last_batch

    def begin_batch(self, batch: int) -> None:
        """Notes that an execution begins."""
        last = self._last_batch
        self.complete = last is not None and batch >= last

    def end_training(self, metrics: Mapping[str, Any]) -> None:
        """Notes the training's metrics, as Keras will have them in the logs.

        Of a `train_step` that returns values of its own they are the last's.
        """
        own = set(metrics) != set(self.logs) and self.logs
        self.metrics = dict(self.logs if own else metrics)

    def end_validation(self, metrics: Mapping[str, Any]) -> None:
        """Notes the validation's."""
        for name, value in metrics.items():
            self.metrics[f"val_{name}"] = value
        self.complete = self.number is not None

    def end(self) -> None:
        """Forgets the epoch."""
        self.number = self._last_batch = None
        self.complete = False
        self.metrics, self.logs = {}, {}


class EpochEndCallback(LengthCallback):
    """Acts at an epoch's end, or where a file is written just before it.

    Callbacks that come first in the list (BackupAndRestore, ModelCheckpoint)
    write at the end of an epoch before this one had its turn. The optimizer
    tells it of the file, and `look_before_file` gets the epoch's metrics if
    they are known by then.
    """

    def __init__(self) -> None:
        super().__init__()
        self._so_far = EpochSoFar()
        self._history: Any = None
        self._unseen = False
        self._seen = False

    # ---- What a subclass does -----------------------------------------------

    def look_before_file(self, epoch: int, logs: dict[str, Any]) -> bool:
        """Acts on the metrics of epoch `epoch`; says whether it could."""
        raise NotImplementedError

    def look_again(self) -> bool:
        """Takes back a look from before the validation; says whether it did."""
        raise NotImplementedError

    def companion(self) -> Companion | None:
        """What is saved beside the optimizer's state."""
        return None

    @property
    def wrote_unseen(self) -> bool:
        """Whether the last file of this epoch's end was written without it."""
        return self._unseen

    def forget_epoch(self) -> None:
        """Ends the epoch: files that follow belong to the next."""
        self._so_far.end()
        self._unseen = self._seen = False

    # ---- In `fit` -----------------------------------------------------------

    def set_model(self, model: Any) -> None:
        """Takes the model and builds its optimizer."""
        super().set_model(model)
        # Here, for a backup that restores before this callback has begun.
        hybrid_optimizer(model).accompany(companion=self.companion())

    def on_train_begin(self, logs: Any = None) -> None:
        """Takes notice of files that are written."""
        super().on_train_begin(logs)
        self.forget_epoch()
        hybrid_optimizer(self.model).accompany(
            self._before_file, self.companion()
        )
        # Each fit has one of its own.
        self._history = getattr(self.model, "history", None)

    def on_train_end(self, logs: Any = None) -> None:
        """Takes no more notice of files that are written."""
        hybrid_optimizer(self.model).accompany()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes which epoch it is."""
        super().on_epoch_begin(epoch, logs)
        steps = self.params.get("steps")
        self._so_far.begin(
            epoch,
            None if steps is None else steps - self.model.steps_per_execution,
        )

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Notes how far the epoch is."""
        super().on_train_batch_begin(batch, logs)
        self._so_far.begin_batch(batch)
        self._unseen = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Notes the metrics where the epoch ends: a callback may evaluate."""
        super().on_train_batch_end(batch, logs)
        self._so_far.logs = logs or {}
        if self._so_far.complete:
            self._end_training()

    def _end_training(self) -> None:
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        try:
            metrics = self.model.get_metrics_result()
        except ValueError:  # Nobody updates them, in a loop of one's own.
            metrics = {}
        self._so_far.end_training(metrics)

    def follow(self) -> None:
        """Takes note of metrics that are other ones now."""
        super().follow()
        if self._so_far.complete:
            there = self._so_far.metrics.items()
            validated = {n: x for n, x in there if n.startswith("val_")}
            self._so_far.logs = {}
            self._end_training()
            self._so_far.metrics.update(validated)

    def on_test_begin(self, logs: Any = None) -> None:
        """Notes the epoch's metrics: Keras resets them for the validation."""
        self._unseen = False
        if self._so_far.number is None:
            return
        # A file at the last batch was written before they were complete.
        if self.look_again():
            self._seen = False
        if not self._so_far.complete:
            self._end_training()
        self._so_far.complete = False

    def on_test_end(self, logs: Any = None) -> None:
        """Notes the validation's."""
        self._unseen = False
        self._so_far.end_validation(logs or {})

    def _before_file(self) -> None:
        """Looks at the epoch now if its metrics are known."""
        if getattr(self.model, "history", None) is not self._history:
            # That fit ended by an exception, without `on_train_end`.
            hybrid_optimizer(self.model).accompany()
            return
        epoch = self._so_far.number
        if epoch is None or self._seen:
            return
        self._unseen = True
        if self._so_far.complete:
            logs = self._so_far.metrics or self.model.get_metrics_result()
            self._seen = self.look_before_file(epoch, dict(logs))
            self._unseen = not self._seen
