"""One run: it is trained, or gone on with where it was killed, or read."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_hybrid import callbacks as own
from keras_hybrid._support import records
from keras_hybrid._support.versions import versions
from keras_hybrid.callbacks import losses, snapshot
from keras_hybrid.callbacks.models import weights_are_finite
from keras_hybrid.callbacks.switch import SwitchCallback
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.study import datasets
from keras_hybrid.study.arms import Arm
from keras_hybrid.study.record import LATER, DamagedRecord, Run
from keras_hybrid.study.trainer import Trainer, serialized
from keras_hybrid.triggers import EpochTrigger


def train_to(
    path: Path,
    trainer: Trainer,
    arm: Arm,
    seed: int,
    epochs: int,
    batch_size: int,
    report: Callable[[int], None] = lambda epoch: None,
    *,
    learning_rate: float | None = None,
    further: Mapping[str, Any] | None = None,
    read_test: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Run:
    """Trains one arm with one seed, or goes on where a killed run stopped.

    After each epoch the whole state is kept in a snapshot beside the record;
    when the record is written the snapshot is removed. An arm whose callbacks
    count epochs begins anew instead. The test split is read once, at the end.

    Args:
        path: The record.
        trainer: Has the data and the architecture.
        arm: What is trained.
        seed: Of weights, data order and dropout.
        epochs: The cell's; the arm gets its share.
        batch_size: Images an update.
        report: Is told each finished epoch.
        learning_rate: None (default) for the arm's own.
        further: What else the configuration says.
        read_test: Whether the test split is read; not while tuning.
        clock: What the seconds are read from.

    Raises:
        ValueError: If the record there has another configuration, or is
            damaged; the message says what to do.
    """
    data = trainer.data
    datasets.check_batch_size(batch_size, data)
    budget = arm.budget(epochs, data.sizes["train"] // batch_size)
    made = arm.make(
        budget, arm.learning_rate if learning_rate is None else learning_rate
    )
    configuration = {
        **_configuration(arm, made, data, batch_size, trainer.label_smoothing),
        **(further or {}),
    }
    finished = _finished(path, configuration)
    if finished is not None:
        return finished
    model = trainer.start(made, seed, budget.steps_per_epoch)
    kept = path.with_suffix(".npz")
    resumes = arm.callbacks is None
    history = _restored(kept, model, configuration) if resumes else {}
    watch = _Watch(
        kept if resumes else None, history, report, clock, configuration
    )
    callbacks = [*_callbacks(arm, model.optimizer, made[1]), watch]
    epochs_left = range(len(history.get("loss", [])), budget.epochs)
    if epochs_left:
        _fit(model, data, seed, batch_size, epochs_left, callbacks)
    scores: dict[str, float] = {}
    # A callback may have put finite ones back.
    diverged = watch.diverged and not weights_are_finite(model)
    if not diverged:
        # A callback may have restored other weights than the last epoch's.
        scores = _scores(model, data, validation=not resumes, test=read_test)
    run = Run(
        dataset=data.name,
        architecture=trainer.architecture,
        arm=arm.name,
        seed=seed,
        epochs=epochs,
        configuration=configuration,
        versions=versions(),
        status="diverged" if diverged else "finished",
        history=history,
        switch_step=getattr(model.optimizer, "switch_step", None),
        steps_per_epoch=budget.steps_per_epoch,
        test_loss=scores.get("test_loss"),
        test_accuracy=scores.get("test_accuracy"),
        val_accuracy=scores.get("val_accuracy"),
    )
    run.save(path)
    kept.unlink(missing_ok=True)
    return run


def _restored(
    kept: Path, model: keras.Model, configuration: Mapping[str, Any]
) -> dict[str, list[float]]:
    """The history of a killed run, whose state the model gets; else empty."""
    if not kept.exists():
        return {}
    try:
        return snapshot.restore(kept, model, configuration=configuration)
    except snapshot.DamagedSnapshot as error:
        raise ValueError(
            f"{error}. Give another --output, or remove the file to train "
            "this run from its start. Received: output="
            f"{str(kept.parent.parent)!r}"
        ) from error


def _callbacks(
    arm: Arm, optimizer: Any, trigger: EpochTrigger | None
) -> list[keras.callbacks.Callback]:
    """What trains the arm: its own callbacks, or the switch."""
    if arm.callbacks is not None:
        return arm.callbacks()
    if isinstance(optimizer, HybridOptimizer):
        return [SwitchCallback(trigger, verbose=0)]
    return []


def _fit(
    model: keras.Model,
    data: datasets.AnyData,
    seed: int,
    batch_size: int,
    epochs: range,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains epochs, each with the order of its number."""
    pipeline, steps = datasets.training_pipeline(
        data, batch_size, seed, epochs.start, epochs.stop
    )
    model.fit(
        pipeline,
        steps_per_epoch=steps,
        initial_epoch=epochs.start,
        epochs=epochs.stop,
        shuffle=False,
        validation_data=datasets.evaluation_pipeline(data, "validation"),
        callbacks=callbacks,
        verbose=0,
    )


def _scores(
    model: keras.Model, data: datasets.AnyData, validation: bool, test: bool
) -> dict[str, float]:
    """Of the weights as they are, on the splits that are asked for."""
    scores: dict[str, float] = {}
    for prefix, split, is_asked in (
        ("val", "validation", validation),
        ("test", "test", test),
    ):
        if is_asked:
            found = model.evaluate(
                datasets.evaluation_pipeline(data, split),
                verbose=0,
                return_dict=True,
            )
            scores |= {f"{prefix}_{k}": value for k, value in found.items()}
    return scores


def _configuration(
    arm: Arm,
    made: tuple[Any, EpochTrigger | None],
    data: datasets.AnyData,
    batch_size: int,
    label_smoothing: float,
) -> dict[str, Any]:
    optimizer, trigger = made
    return {
        "label": arm.label,
        "role": arm.role,
        "optimizer": serialized(optimizer),
        "trigger": None
        if trigger is None
        else keras.saving.serialize_keras_object(trigger),
        "batch_size": batch_size,
        "images": data.sizes,
        "augmented": data.augmented,
        "cutout": data.cutout,
        "label_smoothing": label_smoothing,
        "label_noise": getattr(data, "label_noise", 0.0),
        "checksum": getattr(data, "checksum", ""),
        "callbacks": []
        if arm.callbacks is None
        else [described(callback) for callback in arm.callbacks()],
    }


def described(callback: Any) -> str:
    """A callback of an arm: its class, and the numbers and words it was given.

    Not what it counts: that differs from version to version.
    """
    given = inspect.signature(type(callback)).parameters
    parts = ", ".join(
        f"{name}={value!r}"
        for name, value in sorted(vars(callback).items())
        if name in given and isinstance(value, (int, float, str))
    )
    return f"{type(callback).__name__}({parts})"


def _described_now(text: str) -> str:
    """As `described` has it; older records have what was counted, too."""
    name, _, inside = text.removesuffix(")").partition("(")
    kind = getattr(keras.callbacks, name, None) or getattr(own, name, None)
    if kind is None:
        return text
    given = inspect.signature(kind).parameters
    parts = [p for p in inside.split(", ") if p.partition("=")[0] in given]
    return f"{name}({', '.join(parts)})"


class _Watch(keras.callbacks.Callback):
    """Measures training time, stops a diverged run, snapshots each epoch."""

    def __init__(
        self,
        path: Path | None,
        history: dict[str, list[float]],
        report: Callable[[int], None],
        clock: Callable[[], float],
        configuration: dict[str, Any],
    ) -> None:
        super().__init__()
        self.path = path
        self.configuration = configuration
        self.clock = clock
        self.past = history
        self.report = report
        self.trained = history["seconds"][-1] if history else 0.0
        self.diverged = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._started = self.clock()
        self._counting = True

    def on_test_begin(self, logs: Any = None) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._counting:
            self.trained += self.clock() - self._started
            self._counting = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._stop()
        logs["seconds"] = self.trained
        if not losses.are_finite(logs):
            self.model.stop_training = self.diverged = True
            return
        for name, value in logs.items():
            self.past.setdefault(name, []).append(float(value))
        if self.path is not None:
            snapshot.save(
                self.path,
                self.model,
                self.past,
                configuration=self.configuration,
            )
        self.report(epoch + 1)


def _finished(path: Path, configuration: dict[str, Any]) -> Run | None:
    """The run of a path, in a file or a table, which must be this one."""
    if not records.exists(path):
        return None
    run = load_finished(path)
    check_same(path, with_defaults(run.configuration), configuration)
    return run


def load_finished(path: Path) -> Run:
    """Returns the run of a path, in a file or a table.

    Raises:
        ValueError: If the record is damaged; says what to do.
    """
    try:
        return Run.load(path)
    except DamagedRecord as error:
        removing = _removing(path)
        raise ValueError(
            f"{error}. {removing[0].upper()}{removing[1:]} to train this run "
            f"again. Received: output={str(path.parent.parent)!r}"
        ) from error


def check_same(
    path: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Refuses a record of another configuration.

    Raises:
        ValueError: If it is; says which fields differ, and what to do.
    """
    if there != wanted:
        differing = sorted(
            name
            for name in there.keys() | wanted.keys()
            if there.get(name) != wanted.get(name)
        )
        raise ValueError(
            f"{path} is of another configuration ({', '.join(differing)}): "
            f"give another --output, or {_removing(path)} to train this run "
            f"again. Received: output={str(path.parent.parent)!r}"
        )


def _removing(path: Path) -> str:
    """How a record is removed."""
    table = records.packed_in(path)
    if table is None:
        return "remove the file"
    return f"`keras-hybrid pack --undo {table.parent}`, then remove the file"


def with_defaults(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a record, as it would be written today.

    Arguments that came later are added, objects are named by the modules in
    which they are now, and callbacks by their arguments.
    """
    now = {**LATER, **configuration}
    for name in ("optimizer", "trigger"):
        if now.get(name) is not None:
            # A copy: Keras writes into what it deserializes.
            made = keras.saving.deserialize_keras_object(
                copy.deepcopy(now[name])
            )
            now[name] = serialized(made)
    now["callbacks"] = [_described_now(text) for text in now["callbacks"]]
    return now
