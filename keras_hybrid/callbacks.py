"""SwitchCallback: switches from `model.fit` and says so.

DivergenceGuard is here too, from `keras_hybrid.divergence`.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import MutableMapping
from typing import Any

import keras
import numpy as np

from keras_hybrid import checks
from keras_hybrid.divergence import Diverged, DivergenceGuard
from keras_hybrid.fits import build_optimizer, hybrid_optimizer, say
from keras_hybrid.optimizer import EPOCH_STATE_SIZE, HybridOptimizer
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
    (BackupAndRestore, a checkpoint) restores it. Put this callback before
    BackupAndRestore: a backup taken before the trigger saw its epoch lacks
    that epoch, and a resumed fit warns of it. A trigger other than the one
    that left its state there starts anew.

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
            known; at the end of an epoch if a monitored metric is missing.

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
        self._told_steps = False
        self._reported = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Tells the optimizer the length of the training, once a fit."""
        optimizer = hybrid_optimizer(self.model)
        if self._reported is None:
            self._reported = optimizer.has_switched
        steps = self.params.get("steps")
        if self._told_steps or steps is None:
            return
        self._warn_of_missed_epochs(optimizer, epoch)
        # Only here, not when training begins: the first epoch tells where a
        # resumed training starts.
        micro_batches = steps * (self.params["epochs"] - epoch)
        done = int(optimizer._iterations.numpy())
        accumulated = optimizer.gradient_accumulation_steps or 1
        optimizer.training_steps = max((done + micro_batches) // accumulated, 1)
        self._told_steps = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the phase, asks the trigger, switches."""
        logs = {} if logs is None else logs
        optimizer = hybrid_optimizer(self.model)
        self._log(optimizer, logs)
        cause: Any = optimizer.trigger
        if self.trigger is not None and not optimizer.has_switched:
            holds = _check(self.trigger, optimizer, epoch, logs)
            if self.monitor_only:
                logs["would_switch"] = int(holds)
                if holds:
                    self._say(
                        f"Epoch {epoch + 1}: {self.trigger!r} would switch "
                        f"{_phase_text(optimizer)} (monitor only)."
                    )
            elif holds:
                optimizer.switch()
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

    def _warn_of_missed_epochs(
        self, optimizer: HybridOptimizer, epoch: int
    ) -> None:
        if self.trigger is None or not optimizer.built:
            return
        if optimizer.has_switched:
            return
        mark, watched = optimizer._epoch_state.numpy()[:2]
        if mark == _fingerprint(self.trigger) and 0 < watched < epoch:
            warnings.warn(
                f"The trigger {self.trigger!r} has seen {int(watched)} epochs, "
                f"and the training goes on with epoch {epoch + 1}: a backup "
                "was taken before the trigger saw its epoch. Put "
                "SwitchCallback before BackupAndRestore in the list.",
                stacklevel=2,
            )

    def _log(
        self, optimizer: HybridOptimizer, logs: MutableMapping[str, Any]
    ) -> None:
        rate = optimizer.sgd_learning_rate_equivalent
        step = optimizer.switch_step
        logs["sgd_fraction"] = optimizer.sgd_fraction
        logs["switch_step"] = -1 if step is None else step
        logs["learning_rate"] = float(
            np.asarray(keras.ops.convert_to_tensor(optimizer.learning_rate))
        )
        logs["cooldown"] = optimizer.cooldown_factor
        logs["sgd_learning_rate"] = float("nan") if rate is None else rate

    def _say(self, message: str) -> None:
        if self.verbose:
            say(message)


def _check(
    trigger: EpochTrigger,
    optimizer: HybridOptimizer,
    epoch: int,
    logs: MutableMapping[str, Any],
) -> bool:
    """Asks the trigger, with its state taken from the optimizer."""
    stored = optimizer._epoch_state.numpy()
    mark = _fingerprint(trigger)
    if stored[0] == mark:
        length = len(trigger.get_state())
        trigger.set_state([float(x) for x in stored[2 : 2 + length]])
    else:
        trigger.reset()
    holds = trigger.check(epoch, logs)
    state = np.zeros(EPOCH_STATE_SIZE, "float32")
    values = trigger.get_state()
    state[:2] = mark, epoch + 1
    state[2 : 2 + len(values)] = values
    optimizer._epoch_state.assign(state)
    return holds


def _phase_text(optimizer: HybridOptimizer) -> str:
    rate = optimizer.sgd_learning_rate_equivalent
    if rate is None:
        return "no estimate of the SGD learning rate yet"
    return f"SGD learning rate {rate:.4g}"


def _fingerprint(trigger: EpochTrigger) -> np.float32:
    """A number that tells whose state is stored, exact in float32."""
    config = keras.saving.serialize_keras_object(trigger)
    text = json.dumps(config, sort_keys=True, default=str)
    return np.float32(1 + zlib.crc32(text.encode()) % (2**24 - 1))
