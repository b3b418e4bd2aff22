"""DivergenceGuard: back to the last good state when a training diverges."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from typing import Any

import keras
import numpy as np

from keras_hybrid._support import checks
from keras_hybrid.callbacks import good_states
from keras_hybrid.callbacks.good_states import NO_METRICS, GoodState, Metrics
from keras_hybrid.callbacks.guard_record import GuardRecord
from keras_hybrid.callbacks.losses import BatchLosses, LossWindow
from keras_hybrid.callbacks.models import build_optimizer, hybrid_optimizer, say
from keras_hybrid.optimizer import HybridOptimizer


class Diverged(RuntimeError):
    """The training diverged and the tries are used up.

    The weights and the optimizer are those of the last good snapshot.
    """


class DivergenceGuard(keras.callbacks.Callback):
    """Rolls a diverging `fit` back to its last good state and tries again.

    The training has diverged when, at the end of a batch (of an execution,
    with `steps_per_execution`), its loss is not finite; the losses since the
    last snapshot add up to more than `factor` times what `snapshot_every`
    batches usually have (one batch at 200 times the usual loss, or 20 at ten
    times); or a weight or a moment is not finite, or the weights' norm is ten
    times the last snapshot's (looked at every `snapshot_every` batches, at the
    end of an epoch, and after a loss of more than `factor` times the usual).
    What is usual is a moving average over the snapshots' good batches (usual
    <- (usual + mean) / 2): the first `snapshot_every` batches of a training,
    and a negative loss, are checked for what is not finite alone; where a loss
    changes its sign set `factor=None`.

    Then weights, moments, the counter of updates, the phase, seed states and
    metrics go back to the last good snapshot, SGD's scale rho is multiplied
    with `scale_cut` for the rest of the training (not before the switch, nor
    where the very first batch after the snapshot fails), and the training goes
    on with the next batches: `fit` cannot rewind the data. Schedules go on
    from the snapshot; `Cooldown(steps=None)` still ends where the training
    does; a learning rate that callbacks set stays.

    A snapshot is good when the losses and weights after it were: two are kept
    on the host, each of the size of the model and its optimizer (3 times the
    weights' with Adam's moments). One is taken when the optimizer switches,
    before SGD's first update, and a divergence after it does not undo the
    switch, but inside an execution of several steps, where a step trigger then
    fires again.

    The logs get `divergences`, the number so far, and with
    `HybridOptimizer(skip_nonfinite=True)` `skipped_steps`: there a batch whose
    loss is not finite is left out of the metrics, and only a second one in a
    row is a divergence. A restart finds the cut, the tries and the usual loss
    in the optimizer; its first window begins with the epoch, and a `fit` from
    epoch 0 on begins anew. Put the guard before callbacks that save files.

    Args:
        factor: Number above 1, default 3.0; or None: only what is not finite
            is a divergence.
        max_retries: Integer of at least 0, default 10: tries from one snapshot
            before it gives up; anew after `2 * snapshot_every` good batches.
        scale_cut: Float between 0 and 1, default 0.5: of SGD's scale, each try.
        action: `"cut"` (default), or `"revert"`: go back to Adam as well. The
            trigger starts anew (an `AtEpoch` switches at the next end of an
            epoch, an `AtStep` with the next update), to an estimate cut.
        snapshot_every: Integer of at least 1, default 50: batches between
            snapshots. A rollback loses at most twice as many.
        verbose: 0 is silent, 1 (default) says each event in one line.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range or choices, the model
            has no HybridOptimizer, a weight is not finite when `fit` starts,
            or there is no loss in a batch's logs.
        Diverged: In `fit`, when it gives up.

    Example:
    >>> import keras_hybrid
    >>> guard = keras_hybrid.DivergenceGuard(max_retries=5)
    """

    def __init__(
        self,
        factor: float | None = 3.0,
        max_retries: int = 10,
        scale_cut: float = 0.5,
        action: str = "cut",
        snapshot_every: int = 50,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        self.factor = (
            None if factor is None else checks.number("factor", factor, above=1)
        )
        self.max_retries = checks.integer("max_retries", max_retries, low=0)
        self.scale_cut = checks.number("scale_cut", scale_cut, above=0, below=1)
        self.action = checks.choice("action", action, ("cut", "revert"))
        self.snapshot_every = checks.integer(
            "snapshot_every", snapshot_every, low=1
        )
        self.verbose = checks.choice("verbose", verbose, (0, 1))
        self._start()

    def _start(self) -> None:
        """Forgets the last training."""
        # At most two, the older first: that is the good one.
        self._snapshots: list[GoodState] = []
        self._window = LossWindow(self.factor, self.snapshot_every)
        self._losses = BatchLosses()
        self._good_metrics = NO_METRICS
        self._switch_steps: Any = None
        self._skipped = False
        self._epoch = self._batches_seen = 0

    # ---- The callback -------------------------------------------------------

    def set_model(self, model: Any) -> None:
        """Takes the model and builds its optimizer."""
        super().set_model(model)
        build_optimizer(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts anew."""
        self._start()

    on_train_end = on_train_begin  # It frees the snapshots.

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts to count the epoch's batches."""
        self._epoch, self._batches_seen = epoch, 0
        self._good_metrics = NO_METRICS
        self._losses.begin_epoch(self.model)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Takes a snapshot of the start, or of a switch since the last batch.

        All callbacks have begun the epoch, or ended the last batch.
        """
        optimizer = hybrid_optimizer(self.model)
        if self._snapshots:
            self._keep_switch(optimizer)
        elif optimizer.built and not self._batches_seen:  # Else: by its batch.
            self._keep_first(optimizer)

    def on_train_batch_end(
        self, batch: int, logs: MutableMapping[str, Any] | None = None
    ) -> None:
        """Judges the batch; keeps a snapshot, or goes back to one."""
        logs = {} if logs is None else logs
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        optimizer = hybrid_optimizer(self.model)
        batches = batch + 1 - self._batches_seen
        self._batches_seen = batch + 1
        loss = self._losses.since_last(logs)
        if (
            optimizer.skip_nonfinite
            and not math.isfinite(loss)
            and not self._skipped
            and self._snapshots
        ):
            self._skipped = True
            self._give_metrics(self._good_metrics, logs)
            return
        self._skipped = False
        cause = self._window.add(loss, batches)
        if cause is None and (
            self._window.is_full
            or self._epoch_is_over()
            or self._window.is_unusual(loss)
        ):
            cause = self._fault(optimizer)
        if cause is not None:
            self._recover(optimizer, cause, logs)
        elif not self._snapshots:
            self._keep_first(optimizer)
        elif self._window.is_full:
            self._keep(optimizer)
        else:
            self._keep_switch(optimizer)
        if optimizer.skip_nonfinite and cause is None:
            self._good_metrics = good_states.metrics_of(
                self.model, self._losses.seen
            )

    def on_epoch_end(
        self, epoch: int, logs: MutableMapping[str, Any] | None = None
    ) -> None:
        """Puts the counts into the logs."""
        logs = {} if logs is None else logs
        optimizer = hybrid_optimizer(self.model)
        # Without a number of steps only now is the last batch known.
        if cause := self._steps is None and self._fault(optimizer):
            self._recover(optimizer, cause, {})
        logs["divergences"] = GuardRecord(optimizer).divergences
        if optimizer.skip_nonfinite:
            logs["skipped_steps"] = optimizer.skipped_steps

    # ---- What is judged -----------------------------------------------------

    @property
    def _steps(self) -> int | None:
        return (self.params or {}).get("steps")  # A loop may not say.

    def _epoch_is_over(self) -> bool:
        return self._steps is not None and self._batches_seen >= self._steps

    def _fault(self, optimizer: HybridOptimizer) -> str | None:
        """Why the state cannot be good, None if it can."""
        before = self._snapshots[-1:] if self._window.measures else []
        return good_states.fault(self.model, optimizer, before)

    # ---- Snapshots ----------------------------------------------------------

    def _snapshot(self, optimizer: HybridOptimizer) -> GoodState:
        metrics = NO_METRICS
        if self._batches_seen:
            metrics = good_states.metrics_of(self.model, self._losses.seen)
        elif self._snapshots:  # The epoch has no batch yet.
            metrics = self._snapshots[-1].metrics
        return good_states.taken(self.model, optimizer, metrics)

    def _keep_first(self, optimizer: HybridOptimizer) -> None:
        good_states.check_start(self.model, optimizer)
        record = GuardRecord(optimizer)
        if self._epoch == 0 and not self._batches_seen:
            record.begin_training()
        self._window.usual = record.usual_loss
        self._switch_steps = optimizer.state.switch_steps.numpy()
        self._snapshots = [self._snapshot(optimizer)]

    def _keep(self, optimizer: HybridOptimizer) -> None:
        """Takes a snapshot, which makes the one before it the good one."""
        self._window.close()
        record = GuardRecord(optimizer)
        record.usual_loss = self._window.usual
        if len(self._snapshots) == 2:
            del self._snapshots[0]
            record.forget_tries()
        self._switch_steps = optimizer.state.switch_steps.numpy()
        self._snapshots.append(self._snapshot(optimizer))

    def _keep_switch(self, optimizer: HybridOptimizer) -> None:
        """Keeps the state of a switch, if SGD has made no update yet."""
        steps = optimizer.state.switch_steps.numpy()
        if np.array_equal(steps, self._switch_steps):
            return
        self._switch_steps = steps
        at_switch = steps.max() == optimizer.updates_made
        usual = at_switch and not self._window.was_unusual
        if usual and self._fault(optimizer) is None:
            self._snapshots = [self._snapshot(optimizer)]
            self._window.begin()

    # ---- Going back ---------------------------------------------------------

    def _recover(
        self,
        optimizer: HybridOptimizer,
        cause: str,
        logs: MutableMapping[str, Any],
    ) -> None:
        where = f"Epoch {self._epoch + 1}, batch {self._batches_seen}"
        record = GuardRecord(optimizer)
        tries = record.diverged()
        switched = optimizer.state.has_begun_to_switch()
        # Only a batch that the good weights have met says nothing of SGD.
        by_batch = len(self._snapshots) == 1 and self._window.batches <= 1
        if not self._snapshots:
            raise Diverged(
                f"{where}: diverged ({cause}) before there was a good state "
                "to go back to. Build the model before `fit`."
            )
        self._go_back(optimizer, logs)
        if tries > self.max_retries:
            self._start()
            # This epoch has not ended: a file has nothing to look at.
            optimizer.accompany(companion=optimizer.companion)
            raise Diverged(
                f"{where}: diverged ({cause}){_tried(tries - 1, record)}. "
                "The weights and the optimizer are those of the last good "
                f"snapshot, after update {optimizer.updates_made}. Received: "
                f"max_retries={self.max_retries}"
            )
        done = f"back to update {optimizer.updates_made}"
        if switched and not by_batch:
            cut = record.cut(self.scale_cut)
            done += f", SGD's scale cut to {cut:.3g} of what it was"
            if self.action == "revert":
                optimizer.revert()
                done += ", reverted to Adam"
        self._switch_steps = optimizer.state.switch_steps.numpy()
        done += f" (try {tries} of {self.max_retries})."
        if self.verbose:
            say(f"{where}: diverged ({cause}); {done}", self.params)

    def _go_back(
        self, optimizer: HybridOptimizer, logs: MutableMapping[str, Any]
    ) -> None:
        """Restores the last good snapshot."""
        good = self._snapshots[0]
        self._snapshots = [good]
        good_states.give_back(good, self.model, optimizer)
        self._window.usual = GuardRecord(optimizer).usual_loss
        self._window.begin()
        self._give_metrics(good.metrics, logs)

    def _give_metrics(
        self, good: Metrics, logs: MutableMapping[str, Any]
    ) -> None:
        """Restores the metrics, which one NaN would spoil for the epoch."""
        self._good_metrics = good
        # Else there is no good batch to show.
        if good.values is not None or not self._epoch_is_over():
            self._losses.seen = good.seen
            good_states.give_metrics_back(good, self.model, logs)
        _tell_switch_callback(self.params)


def _tell_switch_callback(params: Any) -> None:
    """Tells the SwitchCallback of the same `fit` that batches were undone."""
    callback = (params or {}).get("switch_callback")
    if callback is not None:
        callback.follow()


def _tried(tries: int, record: GuardRecord) -> str:
    """What was tried before it gave up, as the end of a sentence."""
    if not tries:
        return ""
    text = f" again after {tries} tries"
    if record.scale_cut < 1:
        cut = f"{record.scale_cut:.3g} of what it was"
        text += f"; SGD's scale was cut to {cut}"
    return text
