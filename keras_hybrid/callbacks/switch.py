"""SwitchCallback: switches from `model.fit` and says so."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from keras_hybrid._support import checks
from keras_hybrid.callbacks import looks
from keras_hybrid.callbacks.horizon import Horizon
from keras_hybrid.callbacks.models import build_optimizer, hybrid_optimizer, say
from keras_hybrid.optimizer import (
    EPOCH_STATE_SIZE,
    HybridOptimizer,
    NoEstimate,
)
from keras_hybrid.optimizer.companions import Companion
from keras_hybrid.recipes import Recipe
from keras_hybrid.triggers import EpochTrigger


class SwitchCallback(keras.callbacks.Callback):
    """Switches a HybridOptimizer in `fit`, and puts the switch into the logs.

    It tells the optimizer how many updates the training has, for a cool-down
    that ends there, and again where that changes: loss scaling skips an update,
    or an epoch ends early; a data set of unknown length tells it with its first
    epoch. At the end of each epoch it adds to the logs: `sgd_fraction`,
    `switch_step` (-1 before the switch), `learning_rate`, `cooldown` (its
    factor on the learning rate) and `sgd_learning_rate` (as
    keras.optimizers.SGD counts it; NaN before there is
    an estimate), then asks the trigger, and switches from the next epoch on.

    The trigger's state lives in the optimizer: whatever restores the optimizer
    (`ExactBackup`, BackupAndRestore, a checkpoint) restores it. A trigger
    other than the one that left its state there starts anew; the same goes on,
    and counts the epochs of an earlier `fit` of the same model too (so
    `AtEpoch(3)` works with `fit(epochs=1)` in a loop). Where an earlier `fit`
    ended at a learning rate of 0, the next begins anew with Adam
    (`HybridOptimizer.restart`).

    The place in the list of callbacks does not matter: where Keras writes a
    file at the end of an epoch before this callback had its turn
    (BackupAndRestore, ModelCheckpoint), the trigger looks at the epoch right
    then, in Keras' own metrics. Two things it cannot know yet, and warns of: a
    metric that another callback puts into the logs, and without validation
    the end of a data set of unknown length. There, and where a callback writes
    a tf.train.Checkpoint, which asks nobody, put this callback first. A fit
    restored to another epoch's end than its callbacks believe (a kill inside
    BackupAndRestore's writing) warns too.

    Args:
        trigger: None (default: the optimizer's own step trigger decides) or an
            epoch trigger (`AtEpoch`, `Plateau`, `GeneralizationGap`,
            `MetricReached`, composed with `|` and `&`).
        verbose: 0 is silent, 1 (default) says in one line when and why it
            switched and with which SGD learning rate.
        monitor_only: Boolean, default False: say when it would have switched,
            and put `would_switch` (0 or 1) into the logs, without switching.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: At construction if `verbose` is not 0 or 1 or
            `monitor_only` has no trigger; when `fit` starts if the model has
            no HybridOptimizer or the length of the training is needed and not
            known; at the end of an epoch if a monitored metric is missing, or
            another callback has changed it since a file was written.

    Example:
    >>> import keras_hybrid
    >>> callback = keras_hybrid.SwitchCallback(
    ...     keras_hybrid.triggers.Plateau("val_loss", patience=2)
    ... )
    """

    def __init__(
        self,
        trigger: EpochTrigger | None = None,
        verbose: int = 1,
        monitor_only: bool = False,
    ) -> None:
        super().__init__()
        if trigger is not None and not isinstance(trigger, EpochTrigger):
            raise TypeError(
                "`trigger` must be None or an epoch trigger (AtEpoch, Plateau, "
                "GeneralizationGap, MetricReached); step triggers go to "
                f"HybridOptimizer(trigger=...). Received: trigger={trigger!r}"
            )
        self.trigger = trigger
        self.verbose = checks.choice("verbose", verbose, (0, 1))
        self.monitor_only = checks.boolean("monitor_only", monitor_only)
        if monitor_only and trigger is None:
            raise ValueError(
                "`monitor_only` needs a `trigger` to monitor. Received: "
                "trigger=None, monitor_only=True"
            )
        if (
            trigger is not None
            and len(trigger.get_state()) > EPOCH_STATE_SIZE - 2
        ):
            raise ValueError(
                f"`trigger` must have at most {EPOCH_STATE_SIZE - 2} numbers "
                "of state (a Plateau has 2, a GeneralizationGap 1). Received: "
                f"{len(trigger.get_state())}"
            )
        self._reported: bool | None = None
        self._horizon: Horizon | None = None
        self._earlier_epochs = 0
        self._warned = False
        self._batches_at_start: int | None = None
        self._fired = False
        # Of the epoch that runs: what files written at its end need to know.
        self._epoch: int | None = None
        self._last_batch: int | None = None
        self._complete = False
        self._metrics: dict[str, Any] = {}
        self._early: looks.Look | None = None
        self._further: Mapping[str, Any] | None = None
        self._saved_unseen = False
        self._history: Any = None

    @classmethod
    def from_recipe(
        cls, recipe: Any, epochs: int | None = None, verbose: int = 1
    ) -> SwitchCallback:
        """Makes the callback that a recipe's optimizer wants in `fit`.

        Args:
            recipe: As for `HybridOptimizer.from_recipe`.
            epochs: Of your training; None (default): as in the search.
            verbose: As above.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If there is no such recipe, or the file is damaged.

        Example:
        >>> from keras_hybrid import SwitchCallback
        >>> callback = SwitchCallback.from_recipe("mnist-mlp_small", epochs=10)
        """
        found = Recipe.of(recipe)
        if epochs is None:
            epochs = found.budget["epochs"]
        checks.integer("epochs", epochs, low=1)
        # A fixed switch is in the optimizer already.
        fixed = found.plan.switch_epoch(epochs) is not None
        return cls(None if fixed else found.plan.epoch_trigger(epochs), verbose)

    # ---- What subclasses do otherwise ---------------------------------------

    def record(
        self, optimizer: HybridOptimizer, logs: Mapping[str, Any]
    ) -> None:
        """Takes an epoch's logs before the trigger is asked."""

    def decides(self) -> bool:
        """Whether it decides when to switch."""
        return self.trigger is not None

    def companion(self) -> Companion | None:
        """What is saved beside the optimizer's state."""
        return None

    def look_ahead(
        self, epoch: int, logs: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Returns further metrics of an epoch's end, which the trigger reads.

        Asked once an epoch, when its own metrics are known.
        """
        return {}

    def is_asked(self, logs: Mapping[str, Any]) -> bool:
        """Whether the trigger is asked at this epoch's end."""
        return True

    def has_trained(self, optimizer: HybridOptimizer) -> bool:
        """Whether an earlier `fit` has ended the training."""
        return has_cooled_down(optimizer) and optimizer.cooldown_factor == 0

    def training_end(self, optimizer: HybridOptimizer) -> float:
        """Updates at the end of the training; `math.inf`: not known yet."""
        return self.horizon.end(optimizer)

    def announce(self, optimizer: HybridOptimizer, epoch: int) -> None:
        """Says that the optimizer has switched in epoch `epoch`, from 0."""
        cause: Any = self.trigger if self._fired else optimizer.trigger
        by = "optimizer.switch()" if cause is None else repr(cause)
        self.say(
            f"Epoch {epoch + 1}: switched to SGD at update "
            f"{optimizer.switch_step} by {by}, {_phase_text(optimizer)}."
        )

    # ---- In `fit` -----------------------------------------------------------

    def set_model(self, model: Any) -> None:
        """Takes the model and builds its optimizer."""
        super().set_model(model)
        build_optimizer(model)
        optimizer = hybrid_optimizer(model)
        # Here, for a backup that restores before this callback has begun.
        optimizer.accompany(companion=self.companion())
        self._batches_at_start = optimizer.batches_seen

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks that a cool-down until the end knows where that is."""
        optimizer = hybrid_optimizer(self.model)
        cooldown = optimizer.cooldown
        needs_length = cooldown is not None and cooldown.ends_with_training
        if (
            needs_length
            and self.params.get("steps") is None
            and self.params["epochs"] < 2
        ):
            raise ValueError(
                "`Cooldown()` lasts until the end of the training, and this "
                "data set tells its length after the only epoch: pass "
                "`steps_per_epoch` to `fit` or `Cooldown(steps=...)`. "
                "Received: steps_per_epoch=None, epochs=1"
            )
        # One dictionary for all callbacks of this fit.
        if self.decides() and self is not self.params.setdefault(
            "switch_callback", self
        ):
            raise ValueError(
                "`callbacks` may have only one SwitchCallback with a trigger, "
                "or one TrainUntilDone: compose triggers with `|` or `&`. "
                f"Received: another one with {self.trigger!r}"
            )
        self._horizon = Horizon(self.params, self.model)
        self._earlier_epochs = 0
        self._reported = None
        self._fired = self._warned = False
        self._forget_epoch()
        optimizer.accompany(self._look_before_saving, self.companion())
        # Each fit has one of its own.
        self._history = getattr(self.model, "history", None)

    def on_train_end(self, logs: Any = None) -> None:
        """Takes no more notice of files that are written."""
        hybrid_optimizer(self.model).accompany()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Tells the optimizer the length of the training, as far as known."""
        optimizer = hybrid_optimizer(self.model)
        if self._reported is None:
            self.begin(optimizer, epoch)
        self._epoch = epoch
        steps = self.params.get("steps")
        if steps is not None:
            self._last_batch = steps - self.model.steps_per_execution
        self.horizon.begin_epoch(epoch)
        self._tell_end(optimizer)

    def begin(self, optimizer: HybridOptimizer, epoch: int) -> None:
        """Takes note of what was before: epoch `epoch` is the first."""
        restored = self.is_restored(optimizer)
        if not restored and self.has_trained(optimizer):
            optimizer.restart()
            self.say(
                "The training before had cooled down: this one begins anew at "
                "a constant learning rate."
            )
        self._reported = optimizer.has_switched
        if not optimizer.built:
            return
        mark, watched = optimizer.epoch_state[:2]
        if (
            not restored
            and self.trigger is not None
            and mark == looks.fingerprint(self.trigger)
        ):
            self._earlier_epochs = max(int(watched) - epoch, 0)
        self._check_restored(optimizer, epoch, restored)

    def is_restored(self, optimizer: HybridOptimizer) -> bool:
        """Whether a file was restored since this `fit` was given the model."""
        return self._batches_at_start != optimizer.batches_seen

    @property
    def horizon(self) -> Horizon:
        """The end of the `fit` that runs."""
        if self._horizon is None:
            raise ValueError(
                "The callback must be in `callbacks` of a `fit` that runs. "
                "Received: no `on_train_begin`"
            )
        return self._horizon

    def _tell_end(self, optimizer: HybridOptimizer) -> None:
        end = self.training_end(optimizer)
        if end != self.horizon.told:
            optimizer.training_steps = end
            self.horizon.told = end

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Notes how far the epoch is, and how far it moves the end."""
        horizon = self.horizon
        horizon.begin_batch(batch)
        if horizon.moves:
            self._tell_end(hybrid_optimizer(self.model))
        self._complete = self._last_batch is not None and (
            batch >= self._last_batch
        )
        self._saved_unseen = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Notes how far the epoch is."""
        self.horizon.end_batch(batch)

    def on_test_begin(self, logs: Any = None) -> None:
        """Notes the epoch's metrics: Keras resets them for the validation."""
        self._complete = self._saved_unseen = False
        if self._epoch is not None:
            self._metrics = dict(self.model.get_metrics_result())

    def on_test_end(self, logs: Any = None) -> None:
        """Notes the validation's."""
        for name, value in (logs or {}).items():
            self._metrics[f"val_{name}"] = value
        self._complete = self._epoch is not None
        self._saved_unseen = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the phase, asks the trigger, switches."""
        logs = {} if logs is None else logs
        optimizer = hybrid_optimizer(self.model)
        if self._horizon is not None:
            self._horizon.end_epoch()
        early = self._early
        phase = looks.phase_of(optimizer) if early is None else early.phase
        logs.update(phase)
        logs.update(self._ahead(epoch, logs))
        self.record(optimizer, logs)
        found = early
        if found is None:
            found = self._look(optimizer, epoch, logs, phase)
            self._act(optimizer, found)
        elif looks.would_differ(
            found, self.trigger, epoch + self._earlier_epochs, logs
        ):
            raise ValueError(
                f"{self.trigger!r} was asked when a file was written, and "
                "another callback has changed the logs since, so that it now "
                "says something else. Put SwitchCallback before the callback "
                f"that writes. Received: epoch={epoch}, logs={dict(logs)}"
            )
        if self._saved_unseen and found.asked and not self._warned:
            self._warned = True
            warnings.warn(
                f"A file was written at the end of epoch {epoch + 1} before "
                f"{self.trigger!r} could look at the epoch's metrics. A "
                "training restored from it lacks that look: put SwitchCallback "
                "before the callback that writes.",
                stacklevel=2,
            )
        if found.asked and self.monitor_only:
            logs["would_switch"] = int(found.holds)
            if found.holds:
                self.say(
                    f"Epoch {epoch + 1}: {self.trigger!r} would switch "
                    f"{_phase_text(optimizer)} (monitor only)."
                )
        elif found.holds:
            self._fired = True
        if optimizer.has_switched and not self._reported:
            self._reported = True
            self.announce(optimizer, epoch)
        elif not optimizer.has_switched:
            self._reported = False
        self._forget_epoch()

    def _ahead(self, epoch: int, logs: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._further is None:
            self._further = dict(self.look_ahead(epoch, logs))
        return self._further

    def _look(
        self,
        optimizer: HybridOptimizer,
        epoch: int,
        logs: Mapping[str, Any],
        phase: dict[str, float] | None = None,
    ) -> looks.Look:
        trigger = self.trigger if self.is_asked(logs) else None
        return looks.look(
            trigger, optimizer, epoch + self._earlier_epochs, logs, phase
        )

    def _forget_epoch(self) -> None:
        self._epoch = self._last_batch = self._early = None
        self._further = None
        self._complete = self._saved_unseen = False
        self._metrics = {}

    def _look_before_saving(self) -> None:
        """Looks at the epoch now if its metrics are known."""
        optimizer = hybrid_optimizer(self.model)
        if getattr(self.model, "history", None) is not self._history:
            # That fit ended by an exception, without `on_train_end`.
            optimizer.accompany()
            return
        if self._epoch is None or self._early is not None:
            return
        self._saved_unseen = True
        if not self._complete:
            return
        logs = dict(self._metrics or self.model.get_metrics_result())
        logs.update(self._ahead(self._epoch, logs))
        try:
            found = self._look(optimizer, self._epoch, logs)
        except (KeyError, ValueError):
            return  # It needs another callback's metric; `on_epoch_end` tells.
        self._saved_unseen = False
        self._early = found
        self._act(optimizer, found)

    def _act(self, optimizer: HybridOptimizer, found: looks.Look) -> None:
        optimizer.epoch_state = found.after
        if found.holds and not self.monitor_only:
            self.switch(optimizer)

    def switch(self, optimizer: HybridOptimizer) -> bool:
        """Switches and says whether it could."""
        try:
            optimizer.switch()
        except NoEstimate:
            cause = "The callback" if self.trigger is None else self.trigger
            warnings.warn(
                f"{cause!r} would switch, and the estimate of the SGD "
                "learning rate is not a positive number (or no update has "
                "given one): the training stays adaptive, and the trigger is "
                "asked again after the next epoch.",
                stacklevel=2,
            )
            return False
        return True

    def _check_restored(
        self, optimizer: HybridOptimizer, epoch: int, restored: bool
    ) -> None:
        """Warns if the state is not that of the end of the epoch before."""
        mark, watched = optimizer.epoch_state[:2]
        if 0 < watched < epoch and not optimizer.has_switched:
            if self.trigger is None or mark != looks.fingerprint(self.trigger):
                return
            warnings.warn(
                f"The trigger {self.trigger!r} has seen {int(watched)} epochs, "
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

    def say(self, message: str) -> None:
        """Says a line, unless `verbose` is 0."""
        if self.verbose:
            say(message)


def has_cooled_down(optimizer: HybridOptimizer) -> bool:
    """Whether the cool-down is over."""
    end = optimizer.cooldown_end
    return end is not None and optimizer.updates_made >= end


def _phase_text(optimizer: HybridOptimizer) -> str:
    rate = optimizer.sgd_learning_rate_equivalent
    if rate is None:
        return "no estimate of the SGD learning rate yet"
    return f"SGD learning rate {rate:.4g}"
