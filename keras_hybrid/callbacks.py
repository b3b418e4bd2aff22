"""SwitchCallback: switches from `model.fit` and says so.

DivergenceGuard is here too, from `keras_hybrid.divergence`.
"""

from __future__ import annotations

import warnings
from collections.abc import MutableMapping
from typing import Any

import keras

from keras_hybrid import checks, looks
from keras_hybrid.divergence import Diverged, DivergenceGuard
from keras_hybrid.fits import build_optimizer, hybrid_optimizer, say
from keras_hybrid.optimizer import EPOCH_STATE_SIZE, HybridOptimizer, NoEstimate
from keras_hybrid.recipes import Recipe
from keras_hybrid.triggers import EpochTrigger

__all__ = [
    "Diverged",
    "DivergenceGuard",
    "SwitchCallback",
    "hybrid_optimizer",
]


class SwitchCallback(keras.callbacks.Callback):
    """Switches a HybridOptimizer in `fit`, and puts the switch into the logs.

    When `fit` starts it tells the optimizer how many updates the training
    has, for `Cooldown(steps=None)`. At the end of each epoch it adds to the
    logs: `sgd_fraction`, `switch_step` (-1 before the switch),
    `learning_rate`, `cooldown` (its factor on the learning rate) and
    `sgd_learning_rate` (as keras.optimizers.SGD counts it; NaN before there is
    an estimate), then asks the trigger, and switches from the next epoch on.

    The trigger's state lives in the optimizer: whatever restores the optimizer
    (`ExactBackup`, BackupAndRestore, a checkpoint) restores it. A trigger
    other than the one that left its state there starts anew.

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
        self._told_steps = False
        self._warned = False
        self._updates_at_start: int | None = None
        # Of the epoch that runs: what files written at its end need to know.
        self._epoch: int | None = None
        self._last_batch: int | None = None
        self._complete = False
        self._metrics: dict[str, Any] = {}
        self._early: looks.Look | None = None
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

    def set_model(self, model: Any) -> None:
        """Takes the model and builds its optimizer."""
        super().set_model(model)
        build_optimizer(model)
        self._updates_at_start = _updates(hybrid_optimizer(model))

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks that a cool-down until the end knows where that is."""
        optimizer = hybrid_optimizer(self.model)
        cooldown = optimizer.cooldown
        needs_length = cooldown is not None and cooldown.steps is None
        if needs_length and self.params.get("steps") is None:
            raise ValueError(
                "`Cooldown(steps=None)` needs the number of updates of the "
                "training, and this data set does not know its length: pass "
                "`steps_per_epoch` to `fit` or `Cooldown(steps=...)`. "
                "Received: steps=None"
            )
        # One dictionary for all callbacks of this fit.
        if self.trigger is not None and self is not self.params.setdefault(
            "switch_callback", self
        ):
            raise ValueError(
                "`callbacks` may have only one SwitchCallback with a trigger: "
                "compose triggers with `|` or `&`. Received: another one with "
                f"{self.trigger!r}"
            )
        self._told_steps = False
        self._reported = None
        self._warned = False
        self._forget_epoch()
        optimizer._before_saving = self._look_before_saving
        # Each fit has one of its own.
        self._history = getattr(self.model, "history", None)

    def on_train_end(self, logs: Any = None) -> None:
        """Takes no more notice of files that are written."""
        hybrid_optimizer(self.model)._before_saving = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Tells the optimizer the length of the training, once a fit."""
        optimizer = hybrid_optimizer(self.model)
        if self._reported is None:
            self._reported = optimizer.has_switched
            self._check_restored(optimizer, epoch)
        steps = self.params.get("steps")
        self._epoch = epoch
        if steps is not None:
            self._last_batch = steps - self.model.steps_per_execution
        if self._told_steps or steps is None:
            return
        # Only here, not when training begins: the first epoch tells where a
        # resumed training starts.
        micro_batches = steps * (self.params["epochs"] - epoch)
        done = _updates(optimizer)
        accumulated = optimizer.gradient_accumulation_steps or 1
        optimizer.training_steps = max((done + micro_batches) // accumulated, 1)
        self._told_steps = True

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Notes whether the epoch's metrics are complete after this batch."""
        self._complete = self._last_batch is not None and (
            batch >= self._last_batch
        )
        self._saved_unseen = False

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
        self._log(optimizer, logs)
        found = self._early
        if found is None:
            found = looks.look(self.trigger, optimizer, epoch, logs)
            self._act(optimizer, found)
        elif looks.would_differ(found, self.trigger, epoch, logs):
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
        cause: Any = optimizer.trigger
        if found.asked and self.monitor_only:
            logs["would_switch"] = int(found.holds)
            if found.holds:
                self._say(
                    f"Epoch {epoch + 1}: {self.trigger!r} would switch "
                    f"{_phase_text(optimizer)} (monitor only)."
                )
        elif found.holds:
            cause = self.trigger
        if optimizer.has_switched and not self._reported:
            self._reported = True
            by = "optimizer.switch()" if cause is None else repr(cause)
            self._say(
                f"Epoch {epoch + 1}: switched to SGD at update "
                f"{optimizer.switch_step} by {by}, "
                f"{_phase_text(optimizer)}."
            )
        elif not optimizer.has_switched:
            self._reported = False
        self._forget_epoch()

    def _log(
        self, optimizer: HybridOptimizer, logs: MutableMapping[str, Any]
    ) -> None:
        early = self._early
        logs.update(looks.phase_of(optimizer) if early is None else early.phase)

    def _forget_epoch(self) -> None:
        self._epoch = self._last_batch = self._early = None
        self._complete = self._saved_unseen = False
        self._metrics = {}

    def _look_before_saving(self) -> None:
        """Looks at the epoch now if its metrics are known."""
        optimizer = hybrid_optimizer(self.model)
        if getattr(self.model, "history", None) is not self._history:
            # That fit ended by an exception, without `on_train_end`.
            optimizer._before_saving = None
            return
        if self._epoch is None or self._early is not None:
            return
        self._saved_unseen = True
        if not self._complete:
            return
        logs = self._metrics or self.model.get_metrics_result()
        try:
            found = looks.look(self.trigger, optimizer, self._epoch, logs)
        except (KeyError, ValueError):
            return  # It needs another callback's metric; `on_epoch_end` tells.
        self._saved_unseen = False
        self._early = found
        self._act(optimizer, found)

    def _act(self, optimizer: HybridOptimizer, found: looks.Look) -> None:
        optimizer._epoch_state.assign(found.after)
        if not found.holds or self.monitor_only:
            return
        try:
            optimizer.switch()
        except NoEstimate:
            warnings.warn(
                f"{self.trigger!r} would switch, and the estimate of the SGD "
                "learning rate is not a positive number (or no update has "
                "given one): the training stays adaptive, and the trigger is "
                "asked again after the next epoch.",
                stacklevel=2,
            )

    def _check_restored(self, optimizer: HybridOptimizer, epoch: int) -> None:
        """Warns if the state is not that of the end of the epoch before."""
        if not optimizer.built:
            return
        restored_since = self._updates_at_start != _updates(optimizer)
        mark, watched = optimizer._epoch_state.numpy()[:2]
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
        elif watched > epoch and restored_since:
            warnings.warn(
                f"The restored weights are those after {int(watched)} epochs, "
                f"and the training goes on with epoch {epoch + 1}: the process "
                "was killed while BackupAndRestore wrote, and some epochs are "
                "trained twice. keras_hybrid.ExactBackup writes at once.",
                stacklevel=2,
            )

    def _say(self, message: str) -> None:
        if self.verbose:
            say(message)


def _updates(optimizer: HybridOptimizer) -> int:
    return int(optimizer._iterations.numpy())


def _phase_text(optimizer: HybridOptimizer) -> str:
    rate = optimizer.sgd_learning_rate_equivalent
    if rate is None:
        return "no estimate of the SGD learning rate yet"
    return f"SGD learning rate {rate:.4g}"
