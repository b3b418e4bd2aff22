"""The protocol: one run, and a comparison over arms and seeds."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_hybrid._support import checks, files
from keras_hybrid._support.versions import versions
from keras_hybrid.callbacks import snapshot
from keras_hybrid.callbacks.switch import SwitchCallback
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.study import architectures, datasets
from keras_hybrid.study.arms import ARMS, DEFAULT_ARMS, Arm, Budget
from keras_hybrid.study.record import LATER, DamagedRecord, Run
from keras_hybrid.triggers import EpochTrigger

__all__ = ["ARMS", "DEFAULT_ARMS", "Arm", "Budget", "compare", "train"]

BATCH_SIZE = 64
# Updates a call of the compiled step: it spares small models the overhead of
# Python, and costs no more than the progress within an epoch.
_MOST_STEPS_PER_CALL = 40


class Progress(NamedTuple):
    """What `compare` reports after each epoch and run.

    Attributes:
        arm: Name of the arm.
        seed: The seed.
        epoch: Finished epochs of this run.
        done: Finished epochs of the comparison.
        total: All epochs of the comparison.
        run: The record, when the run is finished; else None.
    """

    arm: str
    seed: int
    epoch: int
    done: int
    total: int
    run: Run | None


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
        if not (
            math.isfinite(logs["loss"]) and math.isfinite(logs["val_loss"])
        ):
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
        "optimizer": _serialized(optimizer),
        "trigger": None
        if trigger is None
        else keras.saving.serialize_keras_object(trigger),
        "batch_size": batch_size,
        "images": data.sizes,
        "augmented": data.augmented,
        "cutout": data.cutout,
        "label_smoothing": label_smoothing,
        "label_noise": getattr(data, "label_noise", 0.0),
        "callbacks": []
        if arm.callbacks is None
        else [_described(callback) for callback in arm.callbacks()],
    }


def _described(callback: Any) -> str:
    """A callback of an arm: its class, and its numbers and words."""
    parts = ", ".join(
        f"{name}={value!r}"
        for name, value in sorted(vars(callback).items())
        if not name.startswith("_") and isinstance(value, (int, float, str))
    )
    return f"{type(callback).__name__}({parts})"


def run_path(
    folder: Path,
    dataset: str,
    architecture: str,
    epochs: int,
    arm: str,
    seed: int,
) -> Path:
    """Returns where the record of a run is."""
    cell = f"{dataset}-{architecture}-{epochs}epochs"
    return folder / cell / f"{arm}-seed{seed}.json"


class Trainer:
    """Compiles a model for an arm, once for many seeds and learning rates.

    Whatever a run starts with is set anew, so that it equals the run of a
    model of its own bit for bit; only the compiled step is kept.

    Args:
        data: The data of all runs.
        architecture: Name of the architecture.
        precision: Keras' dtype policy.
        label_smoothing: The share of a label's weight that is spread over all
            classes, in [0, 1), when it trains and in every loss it reports.
        most_steps: Updates a call of the compiled step, at most.
    """

    def __init__(
        self,
        data: datasets.AnyData,
        architecture: str,
        precision: str = "float32",
        label_smoothing: float = 0.0,
        most_steps: int = _MOST_STEPS_PER_CALL,
    ) -> None:
        self.data = data
        self.architecture = architecture
        self.precision = precision
        self.label_smoothing = label_smoothing
        self.most_steps = most_steps
        self._key: str | None = None
        self._model: keras.Model = None

    def start(
        self,
        made: tuple[Any, EpochTrigger | None],
        seed: int,
        steps_per_epoch: int,
    ) -> keras.Model:
        """Returns a compiled model as new, its optimizer built."""
        optimizer, _ = made
        keras.utils.set_random_seed(seed)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.precision)
        try:
            model = architectures.build(
                self.architecture, self.data.image_shape, self.data.classes
            )
        finally:
            keras.config.set_dtype_policy(before)
        content = _serialized(optimizer)
        rate = content["config"].get("learning_rate")
        if isinstance(rate, float):
            del content["config"]["learning_rate"]
        key = json.dumps(content, sort_keys=True)
        if key == self._key:
            self._reset(model, rate)
            return self._model
        model.compile(
            optimizer=optimizer,
            loss=_loss(self.data.classes, self.label_smoothing),
            metrics=["accuracy"],
            steps_per_execution=_divisor(steps_per_epoch, self.most_steps),
        )
        optimizer.build(model.trainable_variables)
        self._key, self._model = key, model
        self._fresh = [v.numpy() for v in optimizer.variables]
        return model

    def _reset(self, fresh: keras.Model, rate: float) -> None:
        optimizer = self._model.optimizer
        # Metrics, which come last, are reset by fit.
        for old, new in zip(
            self._model.variables, fresh.variables, strict=False
        ):
            old.assign(new.value)
        for variable, value in zip(
            optimizer.variables, self._fresh, strict=True
        ):
            variable.assign(value)
        if isinstance(rate, float):
            optimizer.learning_rate = rate


def _loss(classes: int, smoothing: float) -> Any:
    """Cross-entropy of logits and labels that are class numbers."""
    if not smoothing:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    # Keras' sparse loss does not smooth labels.
    def smoothed(labels: Any, logits: Any) -> Any:
        return keras.losses.categorical_crossentropy(
            keras.ops.one_hot(labels, classes),
            logits,
            from_logits=True,
            label_smoothing=smoothing,
        )

    return smoothed


def _divisor(steps: int, most: int) -> int:
    """Returns the largest divisor up to `most`."""
    return max(n for n in range(1, most + 1) if steps % n == 0)


def train(
    data: datasets.AnyData,
    architecture: str,
    arm: Arm,
    seed: int,
    epochs: int,
    folder: Path,
    batch_size: int = BATCH_SIZE,
    report: Callable[[int], None] = lambda epoch: None,
) -> Run:
    """Trains one arm of `compare` with one seed (see `train_to`)."""
    return train_to(
        run_path(folder, data.name, architecture, epochs, arm.name, seed),
        Trainer(data, architecture),
        arm,
        seed,
        epochs,
        batch_size,
        report,
    )


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
    optimizer, trigger = model.optimizer, made[1]
    kept = path.with_suffix(".npz")
    history: dict[str, list[float]] = {}
    resumes = arm.callbacks is None
    if resumes and kept.exists():
        try:
            history = snapshot.restore(kept, model, configuration=configuration)
        except snapshot.DamagedSnapshot as error:
            raise ValueError(
                f"{error}. Give another --output, or remove the file to train "
                "this run from its start. Received: output="
                f"{str(path.parent.parent)!r}"
            ) from error
    first_epoch = len(history.get("loss", []))
    callbacks = [] if arm.callbacks is None else arm.callbacks()
    if resumes and isinstance(optimizer, HybridOptimizer):
        callbacks = [SwitchCallback(trigger, verbose=0)]
    watch = _Watch(
        kept if resumes else None, history, report, clock, configuration
    )
    callbacks.append(watch)
    if first_epoch < budget.epochs:
        pipeline, steps = datasets.training_pipeline(
            data, batch_size, seed, first_epoch, budget.epochs
        )
        model.fit(
            pipeline,
            steps_per_epoch=steps,
            initial_epoch=first_epoch,
            epochs=budget.epochs,
            shuffle=False,
            validation_data=datasets.evaluation_pipeline(data, "validation"),
            callbacks=callbacks,
            verbose=0,
        )
    diverged = watch.diverged
    test_loss = test_accuracy = val_accuracy = None
    if not resumes and not diverged:
        # A callback may have restored other weights than the last epoch's.
        val_accuracy = model.evaluate(
            datasets.evaluation_pipeline(data, "validation"),
            verbose=0,
            return_dict=True,
        )["accuracy"]
    if read_test and not diverged:
        scores = model.evaluate(
            datasets.evaluation_pipeline(data, "test"),
            verbose=0,
            return_dict=True,
        )
        test_loss, test_accuracy = scores["loss"], scores["accuracy"]
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
        switch_step=getattr(optimizer, "switch_step", None),
        steps_per_epoch=budget.steps_per_epoch,
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        val_accuracy=val_accuracy,
    )
    run.save(path)
    kept.unlink(missing_ok=True)
    return run


def _with_defaults(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a record, with arguments that came after it."""
    # A copy: Keras writes into what it deserializes.
    optimizer = keras.saving.deserialize_keras_object(
        copy.deepcopy(configuration["optimizer"])
    )
    return {
        **LATER,
        **configuration,
        "optimizer": _serialized(optimizer),
    }


def _serialized(optimizer: Any) -> dict[str, Any]:
    config = keras.saving.serialize_keras_object(optimizer)
    # Auto-numbered names say nothing and differ from run to run.
    config["config"].pop("name", None)
    # As it will be read back: tuples are lists in JSON.
    return json.loads(json.dumps(config))


def _finished(path: Path, configuration: dict[str, Any]) -> Run | None:
    if not path.exists():
        return None
    try:
        run = Run.load(path)
    except DamagedRecord as error:
        raise ValueError(
            f"{error}. Remove the file to train this run again. Received: "
            f"output={str(path.parent.parent)!r}"
        ) from error
    if _with_defaults(run.configuration) != configuration:
        raise ValueError(
            f"{path} is of another configuration (batch size, learning rate, "
            "sizes or transition): give another --output, or remove the file "
            "to train this run again. Received: output="
            f"{str(path.parent.parent)!r}"
        )
    return run


def compare(
    dataset: str = "mnist-5k",
    architecture: str = "mlp",
    epochs: int = 30,
    seeds: int = 3,
    arms: Sequence[str] = DEFAULT_ARMS,
    output: str | Path = "compare-results",
    data_dir: str | None = None,
    batch_size: int = BATCH_SIZE,
    report: Callable[[Progress], None] = lambda progress: None,
) -> list[Run]:
    """Trains every arm with every seed; what is finished is not repeated.

    Args:
        dataset: Name of a data set (`datasets.load`).
        architecture: Name of an architecture (`architectures.build`).
        epochs: Budget of each run, at least 2; a ceiling for those that end
            themselves.
        seeds: Number of seeds, 0 to seeds - 1, the same in every arm.
        arms: Names from `ARMS`.
        output: Folder of the records, one JSON a run.
        data_dir: TFDS's folder (`datasets.load`).
        batch_size: Images an update.
        report: Is told the progress after each epoch and run.

    Returns:
        The records, seed by seed.

    Raises:
        ValueError: If a name is unknown, a number is out of range, the data
            cannot be had, or `output` holds other runs or is in use by another
            process.
    """
    datasets.check(dataset)
    checks.choice("architecture", architecture, architectures.ARCHITECTURES)
    checks.integer("epochs", epochs, low=2)
    checks.integer("seeds", seeds, low=1)
    checks.integer("batch_size", batch_size, low=1)
    if not arms:
        raise ValueError(
            f"`arms` must name at least one of {', '.join(ARMS)}. Received: "
            f"arms={arms!r}"
        )
    chosen = [ARMS[checks.choice("arms", name, ARMS)] for name in arms]
    data = datasets.load(dataset, data_dir)
    total = len(chosen) * seeds * epochs
    runs: list[Run] = []
    with files.locked(Path(output)):
        for seed in range(seeds):
            for arm in chosen:
                before = len(runs) * epochs

                def tell(
                    epoch: int,
                    run: Run | None = None,
                    arm: Arm = arm,
                    seed: int = seed,
                    before: int = before,
                ) -> None:
                    report(
                        Progress(
                            arm.name, seed, epoch, before + epoch, total, run
                        )
                    )

                run = train(
                    data,
                    architecture,
                    arm,
                    seed,
                    epochs,
                    Path(output),
                    batch_size,
                    tell,
                )
                runs.append(run)
                tell(epochs, run)
    return runs
