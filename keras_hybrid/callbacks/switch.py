"""SwitchCallback: switches from `model.fit` and says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_hybrid._support import checks
from keras_hybrid.callbacks import looks, messages
from keras_hybrid.callbacks.epochs import EpochEndCallback
from keras_hybrid.callbacks.models import (
    hybrid_optimizer,
    say,
    weights_are_finite,
)
from keras_hybrid.optimizer import (
    EPOCH_STATE_SIZE,
    HybridOptimizer,
    NoEstimate,
)
from keras_hybrid.recipes import Recipe
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import EpochTrigger


class SwitchCallback(EpochEndCallback):
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
            epoch trigger (`AtEpoch`, `Plateau`, `Slope`,
            `GeneralizationGap`, `MetricReached`, composed with `|` and `&`).
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
        self.trigger = _checked(trigger)
        self.verbose = checks.choice("verbose", verbose, (0, 1))
        self.monitor_only = checks.boolean("monitor_only", monitor_only)
        if monitor_only and trigger is None:
            raise ValueError(
                "`monitor_only` needs a `trigger` to monitor. Received: "
                "trigger=None, monitor_only=True"
            )
        self._reported: bool | None = None
        # Of earlier fits, of which this one is the next piece.
        self.earlier_epochs = 0
        self._warned = self._fired = False
        # Of the epoch that runs: found where a file was written at its end.
        self._early: looks.Look | None = None
        self._further: Mapping[str, Any] | None = None

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
        ended = has_cooled_down(optimizer)
        return ended and (
            optimizer.cooldown_factor == 0 or _would_rise(optimizer.cooldown)
        )

    @property
    def has_fired(self) -> bool:
        """Whether the trigger has made the switch of this `fit`."""
        return self._fired

    def announce(self, optimizer: HybridOptimizer, epoch: int) -> None:
        """Says that the optimizer has switched in epoch `epoch`, from 0."""
        cause: Any = self.trigger if self._fired else optimizer.trigger
        by = "optimizer.switch()" if cause is None else repr(cause)
        to_sgd = " to SGD" if optimizer.transition.end else " (Adam goes on)"
        self.say(
            f"Epoch {epoch + 1}: switched{to_sgd} at update "
            f"{optimizer.switch_step} by {by}, {_phase_text(optimizer)}."
        )
        messages.warn_of_rest(optimizer)

    # ---- In `fit` -----------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks that a cool-down until the end knows where that is."""
        super().on_train_begin(logs)
        # One dictionary for all callbacks of this fit.
        if self is not self.params.setdefault("switch_callback", self):
            raise ValueError(
                "`callbacks` may have only one SwitchCallback or "
                "TrainUntilDone: compose triggers with `|` or `&`, and leave "
                "out one without a trigger. "
                f"Received: another one with {self.trigger!r}"
            )
        self.earlier_epochs = 0
        self._reported = None
        self._fired = self._warned = False
        self._early = self._further = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Tells the optimizer the length of the training, as far as known."""
        optimizer = hybrid_optimizer(self.model)
        if self._reported is None:
            self.begin(optimizer, epoch)
        super().on_epoch_begin(epoch, logs)

    def begin(self, optimizer: HybridOptimizer, epoch: int) -> None:
        """Takes note of what was before: epoch `epoch` is the first."""
        restored = self.is_restored(optimizer)
        if not restored and self.has_trained(optimizer):
            optimizer.restart()
            self.say(
                "The training before had cooled down: this one begins anew at "
                "a constant learning rate.",
                in_epoch=False,
            )
        self._reported = optimizer.has_switched
        if not optimizer.built:
            return
        mark, watched = optimizer.state.epoch_trigger.numpy()[:2]
        if (
            not restored
            and self.trigger is not None
            and mark == looks.fingerprint(self.trigger)
        ):
            self.earlier_epochs = max(int(watched) - epoch, 0)
        looks.check_restored(self.trigger, optimizer, epoch, restored)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the phase, asks the trigger, switches."""
        logs = {} if logs is None else logs
        optimizer = hybrid_optimizer(self.model)
        super().on_epoch_end(epoch, logs)
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
            found, self.trigger, epoch + self.earlier_epochs, logs
        ):
            raise ValueError(
                f"{self.trigger!r} was asked when a file was written, and "
                "another callback has changed the logs since, so that it now "
                "says something else. Put SwitchCallback before the callback "
                f"that writes. Received: epoch={epoch}, logs={dict(logs)}"
            )
        if self.wrote_unseen and found.asked and not self._warned:
            self._warned = True
            looks.warn_of_unseen(self.trigger, epoch)
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
        self._early = self._further = None
        self.forget_epoch()

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
            trigger, optimizer, epoch + self.earlier_epochs, logs, phase
        )

    def look_before_file(self, epoch: int, logs: dict[str, Any]) -> bool:
        """Looks at the epoch's end; says whether the file has seen it."""
        logs.update(self._ahead(epoch, logs))
        optimizer = hybrid_optimizer(self.model)
        try:
            self._early = self._look(optimizer, epoch, logs)
        except (KeyError, ValueError):
            return False  # It needs another callback's; `on_epoch_end` tells.
        self._act(optimizer, self._early)
        return True

    def look_again(self) -> bool:
        """Takes back a look from before the validation, if it did not hold."""
        found = self._early
        if found is not None and found.holds:
            return False
        if found is not None:
            optimizer = hybrid_optimizer(self.model)
            optimizer.state.epoch_trigger.assign(found.before)
        self._early = self._further = None
        return True

    def _act(self, optimizer: HybridOptimizer, found: looks.Look) -> None:
        optimizer.state.epoch_trigger.assign(found.after)
        if found.holds and not self.monitor_only:
            self.switch(optimizer)

    def switch(self, optimizer: HybridOptimizer) -> bool:
        """Switches and says whether it could."""
        try:
            optimizer.switch()
        except NoEstimate:
            messages.warn_of_no_estimate(
                self.trigger, weights_are_finite(self.model)
            )
            return False
        return True

    def say(self, message: str, in_epoch: bool = True) -> None:
        """Says a line, unless `verbose` is 0."""
        if self.verbose:
            say(message, self.params if in_epoch else None)


def _checked(trigger: Any) -> EpochTrigger | None:
    """Returns what `trigger` may be."""
    if trigger is None:
        return None
    if not isinstance(trigger, EpochTrigger):
        raise TypeError(
            "`trigger` must be None or an epoch trigger (AtEpoch, Plateau, "
            "GeneralizationGap, MetricReached); step triggers go to "
            f"HybridOptimizer(trigger=...). Received: trigger={trigger!r}"
        )
    if trigger.state_names and type(trigger).reset is EpochTrigger.reset:
        raise TypeError(
            "`trigger` must define `reset`, as it has a state: another "
            "training begins with it. Received: "
            f"state_names={trigger.state_names} of {trigger!r}"
        )
    if len(trigger.get_state()) > EPOCH_STATE_SIZE - 2:
        raise ValueError(
            f"`trigger` must have at most {EPOCH_STATE_SIZE - 2} numbers "
            "of state (a Plateau has 2, a GeneralizationGap 1). Received: "
            f"{len(trigger.get_state())}"
        )
    return trigger


def has_cooled_down(optimizer: HybridOptimizer) -> bool:
    """Whether the cool-down is over."""
    end = optimizer.cooldown_end
    return end is not None and optimizer.updates_made >= end


def _would_rise(cooldown: Cooldown) -> bool:
    """Whether a longer training takes it back to a higher rate."""
    return cooldown.ends_with_training and cooldown.final < 1


def _phase_text(optimizer: HybridOptimizer) -> str:
    rate = optimizer.sgd_learning_rate_equivalent
    if rate is None:
        return "no estimate of the SGD learning rate yet"
    return f"SGD learning rate {rate:.4g}"
