"""The Adam prefix that trials share: snapshots at the end of each epoch.

Trials that differ only after the switch are the same run before it. Whoever
trains an epoch without having switched leaves its end here; a later trial
starts from the last snapshot that its own switch allows, and equals bit for
bit a trial that trained all epochs. Files are renamed into place, so workers
share a folder without locks: two that train the same epoch write the same.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_hybrid._support import checks, files
from keras_hybrid.callbacks import snapshot
from keras_hybrid.callbacks.models import hybrid_optimizer
from keras_hybrid.callbacks.switch import SwitchCallback
from keras_hybrid.scales import Number
from keras_hybrid.scales.short_forms import scale_of
from keras_hybrid.triggers import EpochTrigger, Signals, StepTrigger

Tensor = Any

_ALWAYS = ("learning_rate", "correction_1", "correction_2")


@checks.registered
class Recorder(StepTrigger):
    """Keeps the signals of an epoch's updates, and passes them on.

    A step trigger can so be asked afterwards where along the prefix it would
    have fired.

    Args:
        capacity: Updates in an epoch.
        needs: Names of the `Signals` to keep besides the learning rate and
            the bias corrections.
        trigger: The trigger that decides; None never fires.
    """

    def __init__(
        self,
        capacity: int,
        needs: list[str],
        trigger: StepTrigger | None = None,
    ) -> None:
        self.capacity = checks.integer(
            "capacity", capacity, low=1, high=sys.maxsize
        )
        self.names = [*_ALWAYS, *sorted(needs)]
        self.needs = frozenset(needs)
        self.trigger = trigger

    @property
    def fires_at_start(self) -> bool:  # type: ignore[override]
        """As the trigger inside."""
        return self.trigger is not None and self.trigger.fires_at_start

    def init(self, groups: int) -> list[np.ndarray]:
        """Returns one (capacity, groups) array a signal, then the trigger's."""
        kept = [np.zeros((self.capacity, groups)) for _ in self.names]
        return kept + (
            [] if self.trigger is None else self.trigger.init(groups)
        )

    def update(
        self, state: list[Tensor], signals: Signals
    ) -> tuple[Tensor, list[Tensor]]:
        """Writes this update's row and asks the trigger inside."""
        row = signals.step % self.capacity
        kept = []
        for name, rows in zip(self.names, state, strict=False):
            value = ops.cast(getattr(signals, name), rows.dtype)
            value = ops.broadcast_to(value, (1, rows.shape[1]))
            kept.append(ops.slice_update(rows, (row, 0), value))
        if self.trigger is None:
            return False, kept
        fires, inner = self.trigger.update(state[len(kept) :], signals)
        return fires, [*kept, *inner]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "capacity": self.capacity,
            "needs": sorted(self.needs),
            "trigger": None
            if self.trigger is None
            else keras.saving.serialize_keras_object(self.trigger),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Recorder:
        """Makes the recorder that `get_config` described."""
        inner = config["trigger"]
        return cls(
            config["capacity"],
            config["needs"],
            None
            if inner is None
            else keras.saving.deserialize_keras_object(inner),
        )


class Prefix:
    """The snapshots of one run before its switch.

    Args:
        folder: Holds `epoch-0007.npz` (the state after 7 epochs) and
            `signals-0007.npz` (the signals of the 7th epoch's updates).
        limit: Bytes that the snapshots may take; beyond them every second one
            goes (a trial then starts from an earlier one, and is the same).
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def epochs(self) -> list[int]:
        """Returns the numbers of epochs after which there is a snapshot."""
        return sorted(
            int(path.stem.partition("-")[2])
            for path in self.folder.glob("epoch-*.npz")
        )

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04d}.npz"

    def _signals_path(self, epoch: int) -> Path:
        return self.folder / f"signals-{epoch:04d}.npz"

    def save(self, model: Any, history: dict[str, list[float]]) -> None:
        """Keeps the state after the epochs of `history`, if it is new.

        Raises:
            files.DiskFull: If there is no room.
        """
        epoch = len(history.get("loss", []))
        optimizer = hybrid_optimizer(model)
        recorder = optimizer.trigger
        if isinstance(recorder, Recorder) and epoch > 0:
            self._save_signals(epoch, recorder, optimizer)
        if self._path(epoch).exists():
            return
        plain = {name: list(values) for name, values in history.items()}
        _scale_rates(plain, 1 / _given_scale(optimizer))
        snapshot.save(self._path(epoch), model, plain, _own_state(optimizer))
        self._thin_out()

    def _save_signals(
        self, epoch: int, recorder: Recorder, optimizer: Any
    ) -> None:
        path = self._signals_path(epoch)
        if path.exists():
            return
        arrays = {
            name: variable.numpy()
            for name, variable in zip(
                recorder.names, optimizer.state.trigger_state, strict=False
            )
        }
        with files.atomically(path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)

    def _thin_out(self) -> None:
        kept = self.epochs()
        while size_of(self.folder) > self.limit and len(kept) > 2:
            # The start stays, and the last; of the others every second goes.
            for epoch in kept[1:-1:2]:
                self._path(epoch).unlink(missing_ok=True)
            kept = self.epochs()

    def start(
        self,
        model: Any,
        trigger: EpochTrigger | None,
        epochs: int,
    ) -> dict[str, list[float]] | None:
        """Gives the model the state that its trial may start from.

        That is the last snapshot at or before the switch, with the state of
        the triggers as if they had watched; where the epoch trigger fires at
        the end of that very epoch, the optimizer is switched. Damaged
        snapshots are removed with a warning, and their epochs trained again.
        The logged SGD learning rates become the trial's: snapshots are shared
        by trials with other factors and numbers as rho.

        Args:
            model: Built, as is its optimizer.
            trigger: The epoch trigger of the trial.
            epochs: Its budget.

        Returns:
            The history up to there; None where there is no snapshot.
        """
        while candidates := [e for e in self.epochs() if e <= epochs]:
            try:
                return self._start(model, trigger, candidates)
            except snapshot.DamagedSnapshot as error:
                path = Path(str(error).partition(".npz")[0] + ".npz")
                if path.exists():  # Else another worker has thinned it out.
                    warnings.warn(
                        f"{error}: removed; its epochs are trained again.",
                        stacklevel=2,
                    )
                    path.unlink(missing_ok=True)
        return None

    def _start(
        self,
        model: Any,
        trigger: EpochTrigger | None,
        candidates: list[int],
    ) -> dict[str, list[float]]:
        optimizer = hybrid_optimizer(model)
        last = candidates[-1]
        if trigger is not None:
            known = snapshot.read_history(self._path(last))
            last = min(last, _epochs_until(trigger, known))
        states: list[list[np.ndarray]] = []
        inner = getattr(optimizer.trigger, "trigger", None)
        if isinstance(optimizer.trigger, Recorder) and inner is not None:
            if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
                # A skipped update has no row, so that they do not tell when.
                candidates, last = candidates[:1], candidates[0]
            last, states = self._states_along(optimizer, inner, last)
        start = max(e for e in candidates if e <= last)
        history = snapshot.restore(
            self._path(start), model, _own_state(optimizer)
        )
        if states:
            for variable, value in zip(
                _own_state(optimizer), states[start], strict=True
            ):
                variable.assign(value)
        _scale_rates(history, _given_scale(optimizer))
        _replay(model, trigger, history)
        return history

    def _states_along(
        self, optimizer: Any, trigger: StepTrigger, last: int
    ) -> tuple[int, list[list[np.ndarray]]]:
        """Asks a step trigger along the recorded signals.

        Returns the last epoch (at most `last`) whose end is before the update
        that fires, and the trigger's state after 0, 1, ... epochs.
        """
        dtype = optimizer.state.dtype
        groups = len(optimizer.state.groups.names)
        state = [tf.constant(v, dtype) for v in trigger.init(groups)]
        states = [[s.numpy() for s in state]]

        @tf.function
        def advance(
            state: list[Tensor], step: Tensor, values: dict[str, Tensor]
        ) -> tuple[Tensor, list[Tensor]]:
            signals = Signals(
                step=step,
                beta_1=optimizer.beta_1,
                beta_2=optimizer.beta_2,
                **values,
            )
            return trigger.update(state, signals)

        step = 0
        for epoch in range(1, last + 1):
            rows = _load_arrays(self._signals_path(epoch))
            if rows is None:  # Of a trial with a shorter space; or damaged.
                return epoch - 1, states
            for index in range(len(rows["learning_rate"])):
                values = {
                    name: tf.constant(
                        # One learning rate and one beta_1 for all groups.
                        array[index, 0]
                        if name in ("learning_rate", "correction_1")
                        else array[index],
                        dtype,
                    )
                    for name, array in rows.items()
                }
                fires, state = advance(
                    state,
                    tf.constant(step, optimizer.state.switch_steps.dtype),
                    values,
                )
                step += 1
                if bool(np.any(fires)):
                    return epoch - 1, states
            states.append([s.numpy() for s in state])
        return last, states


def size_of(folder: Path) -> int:
    """Returns the bytes that the snapshots in a folder take."""
    total = 0
    for path in files.walk(folder, ".npz"):
        # Another worker may thin out at the same time.
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _own_state(optimizer: Any) -> list[Any]:
    """The state of the trial's own step trigger, which others do not share."""
    if not isinstance(optimizer.trigger, Recorder):
        return []
    return list(optimizer.state.trigger_state[len(optimizer.trigger.names) :])


def _given_scale(optimizer: Any) -> float:
    """What of rho is given, not estimated: trials with others share a run."""
    scale = scale_of(optimizer.sgd_scale)
    rho = scale.rho if isinstance(scale, Number) else 1
    return optimizer.scale_multiplier * rho


def _scale_rates(history: dict[str, list[float]], factor: float) -> None:
    """Multiplies the SGD learning rates that would have been used."""
    if factor != 1 and "sgd_learning_rate" in history:
        rates = history["sgd_learning_rate"]
        history["sgd_learning_rate"] = [rate * factor for rate in rates]


def _load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception:  # noqa: BLE001 - missing or damaged: the epoch is trained.
        return None


def _logs_of(
    history: Mapping[str, list[float]], epoch: int
) -> dict[str, float]:
    return {name: values[epoch] for name, values in history.items()}


def _epochs_until(
    trigger: EpochTrigger, history: Mapping[str, list[float]]
) -> int:
    """Returns after how many epochs the trigger holds first, or all."""
    trigger.reset()
    count = len(history.get("loss", []))
    for epoch in range(count):
        if trigger.check(epoch, _logs_of(history, epoch)):
            return epoch + 1
    return count


def _replay(
    model: Any, trigger: EpochTrigger | None, history: dict[str, list[float]]
) -> None:
    """Lets the epoch trigger watch the epochs, and switch at the last."""
    optimizer = hybrid_optimizer(model)
    # A trial with the same trigger may have left its state in the snapshot.
    optimizer.state.forget_epochs()
    callback = SwitchCallback(trigger, verbose=0)
    callback.set_model(model)
    for epoch in range(len(history.get("loss", []))):
        callback.on_epoch_end(epoch, _logs_of(history, epoch))
