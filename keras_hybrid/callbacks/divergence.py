"""DivergenceGuard: back to the last good state when a training diverges."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_hybrid._support import checks
from keras_hybrid.callbacks import snapshot
from keras_hybrid.callbacks.models import build_optimizer, hybrid_optimizer, say
from keras_hybrid.execution import backends
from keras_hybrid.optimizer import HybridOptimizer

# Weights whose norm grows tenfold between two snapshots have exploded; with
# weights that began at zero it grows fourfold under a warm-up.
_WEIGHT_FACTOR = 10


class Diverged(RuntimeError):
    """The training diverged and the tries are used up.

    The weights and the optimizer are those of the last good snapshot.
    """


class _Metrics(NamedTuple):
    """What the metrics say of the epoch so far.

    Attributes:
        values: Of the model's metrics; None before the first batch.
        seen: The mean and the count of the loss in these metrics.
    """

    values: list[np.ndarray] | None
    seen: tuple[float, float]


_NO_METRICS = _Metrics(None, (0.0, 0.0))


class _Snapshot(NamedTuple):
    """A good state, on the host.

    Attributes:
        values: Of `DivergenceGuard._state`, in order.
        metrics: Of the model.
        weight_norm: The norm of all trainable weights.
    """

    values: list[np.ndarray]
    metrics: _Metrics
    weight_norm: float


class DivergenceGuard(keras.callbacks.Callback):
    """Rolls a diverging `fit` back to its last good state and tries again.

    The training has diverged when, at the end of a batch (of an execution,
    with `steps_per_execution`),

      - the loss of the batch is not finite;
      - the losses since the last snapshot add up to more than `factor` times
        what `snapshot_every` batches usually have: one batch at 200 times the
        usual loss, or 20 at ten times; or
      - a weight or a moment is not finite, or the weights' norm is ten times
        the last snapshot's. This is looked at every `snapshot_every` batches,
        at the end of an epoch, and where the loss of a batch is more than
        `factor` times the usual.

    What is usual is a moving average over the snapshots' good batches
    (usual <- (usual + mean) / 2), so the first `snapshot_every` batches of a
    training are checked for what is not finite alone. So is a loss that is
    negative; for one that changes its sign set `factor=None`.

    Then weights, moments, the counter of updates, the phase, seed states and
    metrics go back to the last good snapshot, SGD's scale rho is multiplied
    with `scale_cut` for the rest of the training, and the training goes on
    with the next batches: `fit` cannot rewind the data. The scale is not cut
    where it is not to blame: before the switch, and where the very first batch
    after the good snapshot fails. Schedules go on from the snapshot;
    `Cooldown(steps=None)` still ends where the training does. A learning rate
    that callbacks set stays as it is. After more than `max_retries` tries from
    one snapshot the guard gives up with an error.

    A snapshot is good when the losses and weights after it were. So two are
    kept, the last good one and the one on trial, each of the size of the
    model and its optimizer (3 times the weights' with Adam's moments), on the
    host. When the optimizer switches, a snapshot is taken before the first
    update of SGD, and a divergence after it does not undo the switch. With
    step triggers inside an execution of several steps the switch is undone,
    and the trigger fires again.

    The logs of each epoch get `divergences`, the number so far, and with
    `HybridOptimizer(skip_nonfinite=True)` `skipped_steps`. There a batch
    whose loss is not finite is left out of the metrics, and only a second one
    in a row is a divergence.

    What a restart needs (the cut, the tries, the usual loss) is in the
    optimizer's variables. A `fit` that begins with epoch 0 is a new training:
    its usual loss and its tries begin anew. The losses since the last snapshot
    are not kept: after a restart the first window begins with the epoch. Put
    the guard before BackupAndRestore and ModelCheckpoint, so that they save
    what it has judged.

    Args:
        factor: Number above 1, default 3.0; or None: only what is not finite
            is a divergence.
        max_retries: Integer of at least 0, default 10: tries from the same
            snapshot. They count anew after `2 * snapshot_every` good batches.
        scale_cut: Float between 0 and 1, default 0.5: the factor on SGD's
            scale at each try.
        action: `"cut"` (default), or `"revert"`: go back to Adam as well.
            The trigger starts anew and switches again when it fires, to a rho
            estimated anew and cut: at the next end of an epoch after an
            `AtEpoch`, with the next update after an `AtStep`.
        snapshot_every: Integer of at least 1, default 50: batches between
            snapshots. A rollback loses at most twice as many.
        verbose: 0 is silent, 1 (default) says each event in one line.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range or choices; when `fit`
            starts if the model has no HybridOptimizer or a weight is not
            finite; at the end of a batch if there is no loss in the logs.
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
        self._snapshots: list[_Snapshot] = []
        self._usual = 0.0
        self._good_metrics = _NO_METRICS
        self._switch_steps: Any = None
        self._trackers: list[Any] = []
        self._skipped = False
        self._start_epoch(0)
        self._start_window()

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._batches_seen = 0
        # The running mean of the loss in the logs, and its count.
        self._seen = 0.0, 0.0

    def _start_window(self) -> None:
        """The batches since a snapshot, and the sum of their losses."""
        self._batches, self._sum = 0, 0.0

    # ---- The callback -------------------------------------------------------

    def set_model(self, model: Any) -> None:
        """Takes the model and builds its optimizer."""
        super().set_model(model)
        build_optimizer(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts anew."""
        self._start()

    def on_train_end(self, logs: Any = None) -> None:
        """Frees the memory."""
        self._start()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts to count the epoch's batches."""
        self._start_epoch(epoch)
        self._trackers = [
            metric
            for metric in self.model.metrics
            if metric.name == "loss" and isinstance(metric, keras.metrics.Mean)
        ]

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Takes a snapshot of the start, or of a switch between epochs.

        Before the first batch, when all callbacks have begun the epoch:
        SwapEMAWeights gives the weights back only then.
        """
        if self._batches_seen:
            return
        optimizer = hybrid_optimizer(self.model)
        if self._snapshots:
            self._keep_switch(optimizer)
        elif optimizer.built:  # Else the model is built by its first batch.
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
        loss = self._loss(logs)
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
        cause = self._cause(loss, batches)
        if cause is None and (
            self._window_is_full()
            or self._epoch_is_over()
            or self._is_unusual(loss, 1)
        ):
            cause = self._weights_cause(optimizer)
        if cause is not None:
            self._recover(optimizer, cause, logs)
        elif not self._snapshots:
            self._keep_first(optimizer)
        elif self._window_is_full():
            self._keep(optimizer)
        else:
            self._keep_switch(optimizer)
        if optimizer.skip_nonfinite and cause is None:
            self._good_metrics = self._metrics()

    def on_epoch_end(
        self, epoch: int, logs: MutableMapping[str, Any] | None = None
    ) -> None:
        """Puts the counts into the logs."""
        logs = {} if logs is None else logs
        optimizer = hybrid_optimizer(self.model)
        if self.params.get("steps") is None:
            # Only now is it known which batch was the last.
            cause = self._weights_cause(optimizer)
            if cause is not None:
                self._recover(optimizer, cause, {})
        logs["divergences"] = int(optimizer._guard_counts.numpy()[0])
        if optimizer.skip_nonfinite:
            logs["skipped_steps"] = optimizer.skipped_steps

    # ---- What is judged -----------------------------------------------------

    def _loss(self, logs: MutableMapping[str, Any]) -> float:
        """The loss since the last look; the logs have the epoch's mean."""
        if "loss" not in logs:
            raise ValueError(
                "`DivergenceGuard` needs the `loss` in the logs of each batch. "
                f"Received: logs={sorted(logs)}"
            )
        mean = float(logs["loss"])
        count = sum(float(metric.count.numpy()) for metric in self._trackers)
        old_mean, old_count = self._seen
        self._seen = mean, count
        if count <= old_count:  # A train_step that logs the batch's own loss.
            return mean
        return (mean * count - old_mean * old_count) / (count - old_count)

    def _cause(self, loss: float, batches: int) -> str | None:
        """Why the losses say that the training diverges, None if not."""
        self._batches += batches
        self._sum += loss * batches
        if not math.isfinite(loss):
            return f"loss {loss}"
        if self._is_unusual(self._sum, max(self._batches, self.snapshot_every)):
            return f"loss {loss:.4g}, usually {self._usual:.4g}"
        return None

    def _is_unusual(self, total: float, batches: int) -> bool:
        """Whether these losses are too much for so many batches."""
        if self.factor is None or self._usual <= 0:
            return False
        return total > self.factor * self._usual * batches

    def _window_is_full(self) -> bool:
        return self._batches >= self.snapshot_every

    def _epoch_is_over(self) -> bool:
        steps = self.params.get("steps")
        return steps is not None and self._batches_seen >= steps

    def _weights_cause(self, optimizer: HybridOptimizer) -> str | None:
        """Why the state cannot be good, None if it can."""
        slots = [
            *optimizer._first_moments,
            *optimizer._second_moments,
            *optimizer._second_moments_max,
        ]
        for variable in [*self.model.weights, *slots]:
            if variable is not None and not _is_finite(variable):
                return f"{variable.path} is not finite"
        if self.factor is None or self._usual <= 0 or not self._snapshots:
            return None
        norm, old = self._weight_norm(), self._snapshots[-1].weight_norm
        if norm > _WEIGHT_FACTOR * old:
            return f"norm of the weights {norm:.4g}, {old:.4g} before"
        return None

    def _weight_norm(self) -> float:
        total = 0.0
        for variable in self.model.trainable_variables:
            square = backends.square_sum(ops.cast(variable, "float32"))
            # As numpy: a torch tensor would carry its gradient.
            total += float(ops.convert_to_numpy(square))
        return math.sqrt(total)

    # ---- Snapshots ----------------------------------------------------------

    def _state(self, optimizer: HybridOptimizer) -> list[Any]:
        """What goes back: all but what callbacks and the guard itself set."""
        stays = [
            optimizer._learning_rate,
            optimizer._training_steps,
            optimizer._skipped_steps,
            optimizer._scale_cut,
            optimizer._guard_counts,
        ]
        return snapshot.variables_of(self.model, stays)

    def _snapshot(self, optimizer: HybridOptimizer) -> _Snapshot:
        metrics = _NO_METRICS
        if self._batches_seen:
            metrics = self._metrics()
        elif self._snapshots:  # The epoch has no batch yet.
            metrics = self._snapshots[-1].metrics
        return _Snapshot(
            [v.numpy() for v in self._state(optimizer)],
            metrics,
            self._weight_norm(),
        )

    def _metrics(self) -> _Metrics:
        values = [v.numpy() for v in self.model.metrics_variables]
        return _Metrics(values, self._seen)

    def _keep_first(self, optimizer: HybridOptimizer) -> None:
        cause = self._weights_cause(optimizer)
        if cause is not None:
            raise ValueError(
                "`DivergenceGuard` needs finite weights to start from. "
                f"Received: {cause}"
            )
        if self._epoch == 0 and not self._batches_seen:
            optimizer._usual_loss.assign(0)
            divergences, _ = optimizer._guard_counts.numpy()
            optimizer._guard_counts.assign([divergences, 0])
        self._usual = float(optimizer._usual_loss.numpy())
        self._switch_steps = optimizer._switch_steps.numpy()
        self._snapshots = [self._snapshot(optimizer)]

    def _keep(self, optimizer: HybridOptimizer) -> None:
        """Takes a snapshot, which makes the one before it the good one."""
        mean = self._sum / self._batches
        self._usual = (self._usual + mean) / 2 if self._usual > 0 else mean
        # A mean of 0 or less is no measure.
        self._usual = self._usual if mean > 0 else 0.0
        optimizer._usual_loss.assign(self._usual)
        if len(self._snapshots) == 2:
            del self._snapshots[0]
            divergences, tries = optimizer._guard_counts.numpy()
            if tries:
                optimizer._guard_counts.assign([divergences, 0])
        self._switch_steps = optimizer._switch_steps.numpy()
        self._snapshots.append(self._snapshot(optimizer))
        self._start_window()

    def _keep_switch(self, optimizer: HybridOptimizer) -> None:
        """Keeps the state of a switch, if SGD has made no update yet."""
        steps = optimizer._switch_steps.numpy()
        if np.array_equal(steps, self._switch_steps):
            return
        self._switch_steps = steps
        at_switch = steps.max() == optimizer.updates_made
        if (
            at_switch
            and not self._is_unusual(self._sum, self._batches)
            and self._weights_cause(optimizer) is None
        ):
            self._snapshots = [self._snapshot(optimizer)]
            self._start_window()

    # ---- Going back ---------------------------------------------------------

    def _recover(
        self,
        optimizer: HybridOptimizer,
        cause: str,
        logs: MutableMapping[str, Any],
    ) -> None:
        where = f"Epoch {self._epoch + 1}, batch {self._batches_seen}"
        divergences, tries = (optimizer._guard_counts.numpy() + 1).tolist()
        optimizer._guard_counts.assign([divergences, tries])
        switched = bool(optimizer._switch_steps.numpy().max() >= 0)
        # Only a batch that the good weights have met says nothing of SGD.
        by_batch = len(self._snapshots) == 1 and self._batches <= 1
        if not self._snapshots:
            raise Diverged(
                f"{where}: diverged ({cause}) before there was a good state "
                "to go back to. Build the model before `fit`."
            )
        self._go_back(optimizer, logs)
        update = optimizer.updates_made
        cut = float(optimizer._scale_cut.numpy())
        if tries > self.max_retries:
            self._start()
            # This epoch has not ended: a file has nothing to look at.
            optimizer._before_saving = None
            raise Diverged(
                f"{where}: diverged ({cause}) again after {tries - 1} tries; "
                f"SGD's scale was cut to {cut:.3g} of what it was. The weights "
                f"and the optimizer are those of the last good snapshot, after "
                f"update {update}. Received: max_retries={self.max_retries}"
            )
        done = f"back to update {update}"
        if switched and not by_batch:
            cut *= self.scale_cut
            optimizer._scale_cut.assign(cut)
            done += f", SGD's scale cut to {cut:.3g} of what it was"
            if self.action == "revert":
                optimizer.revert()
                done += ", reverted to Adam"
        self._switch_steps = optimizer._switch_steps.numpy()
        if self.verbose:
            say(
                f"{where}: diverged ({cause}); {done} (try {tries} of "
                f"{self.max_retries})."
            )

    def _go_back(
        self, optimizer: HybridOptimizer, logs: MutableMapping[str, Any]
    ) -> None:
        """Restores the last good snapshot."""
        good = self._snapshots[0]
        self._snapshots = [good]
        done, steps = optimizer.updates_made, optimizer.training_steps
        for variable, value in zip(
            self._state(optimizer), good.values, strict=True
        ):
            variable.assign(value)
        if steps is not None:
            # So many updates fewer will fit into the training.
            lost = done - optimizer.updates_made
            optimizer.training_steps = max(steps - lost, 1)
        self._usual = float(optimizer._usual_loss.numpy())
        self._start_window()
        self._give_metrics(good.metrics, logs)

    def _give_metrics(
        self, good: _Metrics, logs: MutableMapping[str, Any]
    ) -> None:
        """Restores the metrics, which one NaN would spoil for the epoch.

        They go on from the snapshot's, also from an earlier epoch's: an epoch
        without any batch would log a loss of 0.
        """
        self._good_metrics = good
        if good.values is not None:
            variables = self.model.metrics_variables
            for variable, value in zip(variables, good.values, strict=True):
                variable.assign(value)
        elif self._epoch_is_over():
            return  # There is no good batch to show.
        else:
            self.model.reset_metrics()
        self._seen = good.seen
        for name, value in self.model.get_metrics_result().items():
            if name in logs:
                logs[name] = np.asarray(value).tolist()


def _is_finite(variable: Any) -> bool:
    return bool(ops.all(ops.isfinite(ops.convert_to_tensor(variable))))
