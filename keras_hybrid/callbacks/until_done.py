"""TrainUntilDone: trains until it has stopped paying, cools down, stops."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from keras_hybrid._support import checks
from keras_hybrid.callbacks import due, losses, messages
from keras_hybrid.callbacks.memory import Memory
from keras_hybrid.callbacks.models import (
    hybrid_optimizer,
    weights_are_finite,
)
from keras_hybrid.callbacks.rates import RateWatch
from keras_hybrid.callbacks.switch import SwitchCallback, has_cooled_down
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import EpochTrigger, Plateau, Slope, StepTrigger

# The metrics of the averaged weights are called so in the logs.
AVERAGED = "averaged_"
PATIENCE = 3


class TrainUntilDone(SwitchCallback):
    """Trains until it has stopped paying, switches, cools down, and stops.

    `epochs` of `fit` is a ceiling, not a schedule:

        model.compile(optimizer=keras_hybrid.HybridOptimizer(), ...)
        model.fit(..., epochs=100, callbacks=[keras_hybrid.TrainUntilDone()])

    1. Adam at a constant rate, until the trigger fires. By default, with
       validation data: the average of the weights,
       A <- A + (w - A) 9 / (e + 8) at the end of epoch e, is validated too
       (`averaged_val_loss` and so on, in the logs; NaN behind the switch, where
       there is no average), and the trigger fires where its loss has not been
       at a new best for 3 epochs: the average shows today what a cool-down
       would give. Without validation data (`triggers.Slope("loss")`): where the
       training loss has no falling trend over the last half of the epochs.
    2. The switch, and a cool-down of `share` of the updates really made so far.
       If the trigger has not fired in time, the switch comes where the
       cool-down still fits into `epochs`.
    3. `model.stop_training`. If the averaged weights of an earlier epoch had a
       better validation accuracy (a weighted one, or an AUC, where the model
       has it; of one without any, loss) than those that the cool-down ends
       with, the model gets these: as it cools down it may learn wrong labels
       by heart. Where the weights are not finite, the training ends with them
       at once.
    4. The next `fit` with this callback begins anew at the constant rate; one
       without it needs `optimizer.restart()` before, as the rate is 0 now.

    What looks at the average (the default, or a trigger of your own on a metric
    that begins with `averaged_`) takes one more validation an epoch of the
    constant phase, and two copies of the weights on the host. With
    `Plateau("val_loss")` there is none of that, and the model keeps the weights
    that the cool-down ends with.

    `fit(epochs=1)` is taken for a piece of a longer training, in a loop of
    your own: the epochs are counted from one `fit` to the next, there is no
    ceiling, and `done` tells when to end the loop. With `stop=False`, which
    needs a ceiling, it is a whole training. A whole one that begins with epoch
    0 has a new average and a trigger that begins anew, also behind a `fit` that
    was interrupted: scores on other data say nothing.

    It needs no EarlyStopping and no ReduceLROnPlateau, and says so where they
    interfere. ModelCheckpoint, BackupAndRestore and ExactBackup work as ever,
    anywhere in the list: a resumed training ends as one never stopped.

    Args:
        trigger: None (default: see above, or the optimizer's own if it has
            one), an epoch trigger or a step trigger, from then on its own.
        share: Float above 0, default 0.5: the length of the cool-down, of the
            updates before it. Its curve and final value are those of the
            optimizer's `cooldown`, or else a cosine to 0.
        stop: Boolean, default True. False: the cool-down lasts until `epochs`
            are over, whenever it begins.
        verbose: 0 is silent; 1 (default) says in one line when it switches, why
            and when it will end, and in another what it saved.

    Attributes:
        done: Whether the cool-down has ended.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range; when `fit` starts, if
            the model has no HybridOptimizer, one that starts as SGD, or one
            with a cool-down of fixed length, or if the ceiling is one epoch of
            unknown length; at the end of an epoch, if a monitored metric is
            missing.

    Example:
    >>> import keras_hybrid
    >>> callback = keras_hybrid.TrainUntilDone()
    """

    def __init__(
        self,
        trigger: EpochTrigger | StepTrigger | None = None,
        share: float = 0.5,
        stop: bool = True,
        verbose: int = 1,
    ) -> None:
        if trigger is not None and not isinstance(
            trigger, (EpochTrigger, StepTrigger)
        ):
            raise TypeError(
                "`trigger` must be None, an epoch trigger (Plateau(...)) or a "
                f"step trigger (AtStep(...)). Received: trigger={trigger!r}"
            )
        of_steps = trigger if isinstance(trigger, StepTrigger) else None
        of_epochs = trigger if isinstance(trigger, EpochTrigger) else None
        super().__init__(of_epochs, verbose)
        self.share = checks.number("share", share, above=0)
        self.stop = checks.boolean("stop", stop)
        self.done = False
        self._step_trigger = of_steps
        self._default = self._chooses = trigger is None
        self._memory = Memory()
        self._of: HybridOptimizer | None = None
        self._next_look = 0
        self._piece = self._validated = self._forced = False
        self._diverged, self._gave, self._rates = False, False, RateWatch()

    # ---- Before the first batch ---------------------------------------------

    def set_model(self, model: Any) -> None:
        """Gives the optimizer the cool-down and, if it is a step's, trigger."""
        optimizer = hybrid_optimizer(model)
        if self._default and self._of is not optimizer:
            self.trigger, self._chooses = None, True
        changes: dict[str, Any] = {
            "cooldown": _cooldown(optimizer, self.share if self.stop else None)
        }
        if self._step_trigger is not None:
            changes["trigger"] = self._step_trigger
        for name, value in changes.items():
            if repr(getattr(optimizer, name)) != repr(value):
                setattr(optimizer, name, value)
        if optimizer.trigger is not None:
            self._chooses = False
            _check_start(optimizer.trigger)
        if self._of is not optimizer:
            kept = optimizer.companion
            self._memory = kept if isinstance(kept, Memory) else Memory()
            self._of = optimizer
        super().set_model(model)

    def companion(self) -> Memory:
        """The average, and the best so far."""
        return self._memory

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins a `fit`."""
        super().on_train_begin(logs)
        self._validated = self._forced = self.done = self._gave = False
        self._last_epoch = -1
        self._diverged, self._rates = False, RateWatch()
        self._started = time.monotonic()
        self._first_epoch: int | None = None
        _check_ceiling(self.params)

    def has_trained(self, optimizer: HybridOptimizer) -> bool:
        """Whether an earlier `fit` has ended the training."""
        return has_cooled_down(optimizer)

    def begin(self, optimizer: HybridOptimizer, epoch: int) -> None:
        """Takes note of what was before: epoch `epoch` is the first."""
        restored = self.is_restored(optimizer)
        self._first_epoch = epoch
        self._piece = self.stop and self.params["epochs"] - epoch == 1
        self._piece &= not restored or self._memory.is_piece
        self._memory.is_piece = self._piece
        new = epoch == 0 and not self._piece and not optimizer.has_switched
        begins_anew = not restored and (new or self.has_trained(optimizer))
        looks_at_it = self._chooses or _monitors_average(self.trigger)
        if begins_anew or not looks_at_it:
            self._memory.forget()
        # Other data's scores are no measure: what ran before was no piece.
        if begins_anew and optimizer.has_state():
            optimizer.state.forget_epochs()
        # A training that goes on has validated if it has averaged.
        self._validated = self._memory.epochs > 0
        super().begin(optimizer, epoch)
        if self._piece and self._memory.epochs == 0:
            self.say(messages.PIECE, in_epoch=False)

    def training_end(self, optimizer: HybridOptimizer) -> float:
        """Updates at the ceiling; infinite where this is a piece."""
        return math.inf if self._piece else super().training_end(optimizer)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Looks at the first batch again."""
        super().on_epoch_begin(epoch, logs)
        self._next_look = 0

    # ---- Within an epoch ----------------------------------------------------

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Switches before it is too late, and stops at the end."""
        super().on_train_batch_end(batch, logs)
        if batch + 1 < self._next_look:
            return
        optimizer = hybrid_optimizer(self.model)
        made = optimizer.updates_made
        latest = due.latest_switch(
            self.training_end(optimizer), self.share, optimizer.phase_start
        )
        if not optimizer.has_switched and made >= latest:
            self._forced = self.switch(optimizer)
        if optimizer.has_switched and has_cooled_down(optimizer):
            self.done = self.model.stop_training = True
            return
        waits = max(due.next_look(optimizer, self.share, latest) - made, 1)
        accumulated = optimizer.gradient_accumulation_steps or 1
        self._next_look = batch + 1 + (waits - 1) * accumulated + 1

    def follow(self) -> None:
        """Looks again at the next batch: a switch may have been undone."""
        super().follow()
        self._next_look = 0
        if self.done and not has_cooled_down(hybrid_optimizer(self.model)):
            self.done = self.model.stop_training = False

    # ---- At the end of an epoch ---------------------------------------------

    def look_ahead(
        self, epoch: int, logs: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Returns the metrics of the averaged weights."""
        validated = "val_loss" in logs
        self._validated = self._validated or validated
        if self._chooses and not self._validated and "loss" not in logs:
            raise ValueError(messages.no_loss(logs))
        if self._chooses:
            self.trigger = (
                Plateau(f"{AVERAGED}val_loss", PATIENCE)
                if self._validated
                else Slope("loss")
            )
        if not _monitors_average(self.trigger) or not validated:
            return {}
        if hybrid_optimizer(self.model).has_switched:
            names = self._memory.named(logs)  # Lists stay equally long.
            return {f"{AVERAGED}val_{name}": math.nan for name in names}
        number = epoch + self.earlier_epochs + 1
        scores = self._memory.look(self.model, number)
        return {f"{AVERAGED}val_{name}": x for name, x in scores.items()}

    def is_asked(self, logs: Mapping[str, Any]) -> bool:
        """Whether there is a validation to look at (`validation_freq`)."""
        return not self._chooses or not self._validated or "val_loss" in logs

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Asks the trigger, and looks who else changes the learning rate."""
        super().on_epoch_end(epoch, logs)
        if logs:
            self._rates.see(epoch, logs["learning_rate"])
        self._last_epoch = epoch
        optimizer = hybrid_optimizer(self.model)
        best = self._memory.best_epoch if self._validated else 0
        if _has_diverged(self.model, logs or {}):
            messages.warn_of_divergence(epoch, optimizer.has_switched, best)
            self.done = self._diverged = self.model.stop_training = True
            if best:
                self._choose(math.nan)
        elif best and has_cooled_down(optimizer):
            score = self._memory.score(self.model, logs or {})
            if score is None:
                messages.warn_of_no_validation(epoch)
            else:
                self._choose(score)

    def _choose(self, score: float) -> None:
        """Gives the model the averaged weights if they are the better ones."""
        self._gave = self._memory.gives_better(self.model, score)
        if self._gave:
            self.say(messages.better(self._memory, score))

    def announce(self, optimizer: HybridOptimizer, epoch: int) -> None:
        """Says when it switched, why, and when it will end."""
        if self._forced:
            why = "the cool-down just fits into `epochs`"
        elif self.has_fired and self._chooses and self._validated:
            why = messages.NO_NEW_BEST.format(PATIENCE)
        else:
            trigger = self.trigger if self.has_fired else optimizer.trigger
            why = "optimizer.switch()" if trigger is None else repr(trigger)
        plan = messages.plan(optimizer, self.horizon.steps)
        self.say(f"Epoch {epoch + 1}: {why}. {plan}")

    def on_train_end(self, logs: Any = None) -> None:
        """Says what was saved."""
        optimizer = hybrid_optimizer(self.model)
        stopped = bool(self.model.stop_training)
        super().on_train_end(logs)
        first = self._first_epoch
        if first is None:
            return
        if self._piece and not (self._diverged or has_cooled_down(optimizer)):
            optimizer.accompany(companion=self._memory)
            return
        self.done = self.done or has_cooled_down(optimizer)
        if self._gave and not self._memory.stays_in(self.model):
            messages.warn_of_other_weights(self._memory.best_epoch)
        if self._diverged:
            return
        ran = self._last_epoch + 1
        if self.done:
            ceiling = math.inf if self._piece else self.params["epochs"]
            seconds = time.monotonic() - self._started
            text = messages.done(ran, ceiling, first, seconds)
            self.say(text, in_epoch=False)
        elif stopped:
            messages.warn_of_other_stop(optimizer, ran)


def _check_start(trigger: StepTrigger) -> None:
    """Refuses a training without a constant phase."""
    if trigger.fires_at_start:
        raise ValueError(
            "TrainUntilDone needs a constant phase before the switch, "
            "whose share the cool-down is: give the optimizer another "
            f"trigger. Received: trigger={trigger!r}"
        )


def _check_ceiling(params: Mapping[str, Any]) -> None:
    """Refuses a single epoch of unknown length."""
    if params.get("steps") is None and params["epochs"] < 2:
        raise ValueError(
            "`epochs` is the ceiling of the training, and this data set "
            "tells its length after the first epoch: pass "
            "`steps_per_epoch` to `fit`, or more epochs. Received: "
            f"epochs={params['epochs']}, steps_per_epoch=None"
        )


def _has_diverged(model: Any, logs: Mapping[str, Any]) -> bool:
    """Whether updates have spoilt the weights.

    A loss of an update that was skipped is none of theirs. Of a loss that hides
    them (a relu of NaN is 0) Adam's estimate of SGD's learning rate tells,
    which does not exist then.
    """
    estimate = logs.get("sgd_learning_rate", math.nan)
    if losses.are_finite(logs) and math.isfinite(estimate):
        return False
    if not weights_are_finite(model):
        return True
    in_training = {n: x for n, x in logs.items() if n == "loss"}
    if losses.are_finite(in_training) and not losses.are_finite(logs):
        messages.warn_of_validation()
    return False


def _cooldown(optimizer: HybridOptimizer, share: float | None) -> Cooldown:
    """Returns the optimizer's cool-down with a share for its length."""
    own = optimizer.cooldown
    if own is None:
        return Cooldown(share=share)
    if own.steps is not None:
        raise ValueError(
            "TrainUntilDone decides how long the cool-down is: give it "
            "`share`, and the optimizer a `Cooldown` without `steps`. "
            f"Received: cooldown={own!r}"
        )
    return Cooldown(own.curve, share=share, final=own.final)


def _monitors_average(trigger: EpochTrigger | None) -> bool:
    if trigger is None:
        return False
    return any(name.startswith(AVERAGED) for name in trigger.monitors())
