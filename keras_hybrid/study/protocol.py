"""The protocol: arms, one run, a comparison over arms and seeds."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_hybrid import checks, presets, snapshot
from keras_hybrid.callbacks import SwitchCallback
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.study import architectures, datasets
from keras_hybrid.study.record import DamagedRecord, Run
from keras_hybrid.transitions import Cooldown, Hard
from keras_hybrid.triggers import AtEpoch, EpochTrigger
from keras_hybrid.versions import versions

BATCH_SIZE = 64
# Not tuned for any data set: Adam's default, and SGD's as often written.
ADAM_LEARNING_RATE = 1e-3
SGD_LEARNING_RATE = 0.05
MOMENTUM = 0.9


class Budget(NamedTuple):
    """How long a run trains."""

    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Updates of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def switch_epoch(self) -> int:
        """Half of the epochs, at least one."""
        return max(1, self.epochs // 2)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: Short name, for files and the command line.
        label: Name for people.
        role: "baseline", "control" or "hybrid".
        make: Returns the optimizer and the epoch trigger (or None).
    """

    name: str
    label: str
    role: str
    make: Callable[[Budget], tuple[Any, EpochTrigger | None]]


def _adam(budget: Budget) -> tuple[Any, None]:
    schedule = keras.optimizers.schedules.CosineDecay(
        ADAM_LEARNING_RATE, budget.steps
    )
    return keras.optimizers.Adam(schedule), None


def _sgd(budget: Budget) -> tuple[Any, None]:
    schedule = keras.optimizers.schedules.CosineDecay(
        SGD_LEARNING_RATE, budget.steps
    )
    return keras.optimizers.SGD(schedule, momentum=MOMENTUM), None


def _at_half(name: str, label: str, role: str, **arguments: Any) -> Arm:
    """Constant until half of the epochs, then a cool-down to the end."""

    def make(budget: Budget) -> tuple[Any, EpochTrigger]:
        optimizer = HybridOptimizer(
            ADAM_LEARNING_RATE, cooldown=Cooldown(), **arguments
        )
        return optimizer, AtEpoch(budget.switch_epoch)

    return Arm(name, label, role, make)


def _preset(
    name: str, label: str, make: Callable[[Budget], HybridOptimizer]
) -> Arm:
    return Arm(name, label, "hybrid", lambda budget: (make(budget), None))


DEFAULT_ARMS = ("adam", "sgd", "control", "hybrid")
# The published methods come with their papers' defaults where these do not
# depend on the length of the training, and without a cool-down.
ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("adam", "Adam, cosine", "baseline", _adam),
        Arm("sgd", "SGD momentum, cosine", "baseline", _sgd),
        _at_half(
            "control",
            "Adam, cool-down from the switch",
            "control",
            transition=Hard(end=0.0),
        ),
        _at_half("hybrid", "Adam to SGD, cool-down", "hybrid"),
        _at_half(
            "hybrid_norm",
            "Adam to SGD by norms, cool-down",
            "hybrid",
            sgd_scale="norm",
        ),
        _at_half(
            "hybrid_swats",
            "Adam to SGD by SWATS' average, cool-down",
            "hybrid",
            sgd_scale="swats",
        ),
        _at_half(
            "hybrid_model",
            "Adam to SGD, one rho for the model, cool-down",
            "hybrid",
            scale_scope="model",
        ),
        _preset("swats", "SWATS", lambda budget: presets.SWATS()),
        _preset(
            "swats_layer",
            "SWATS per layer",
            lambda budget: presets.SWATS(scope="layer"),
        ),
        _preset(
            "gnmt",
            "GNMT, switch at half",
            lambda budget: presets.GNMT(
                ADAM_LEARNING_RATE, switch_step=budget.steps // 2
            ),
        ),
        _preset(
            "rmsprop_warmup",
            "RMSprop warm-up over half",
            lambda budget: presets.RMSpropWarmup(
                max(budget.steps // 2, 1), sgd_learning_rate=SGD_LEARNING_RATE
            ),
        ),
        _preset("adabound", "AdaBound", lambda budget: presets.AdaBound()),
        _preset("amsbound", "AMSBound", lambda budget: presets.AMSBound()),
        _preset(
            "dstadam",
            "DSTAdam",
            lambda budget: presets.DSTAdam(max(budget.steps, 2)),
        ),
        _preset("padam", "Padam", lambda budget: presets.Padam()),
        _preset("mas", "MAS", lambda budget: presets.MAS()),
        _preset(
            "grafted",
            "Grafted at half",
            lambda budget: presets.Grafted(max(budget.steps // 2, 1)),
        ),
    )
}


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
        path: Path,
        history: dict[str, list[float]],
        report: Callable[[int], None],
    ) -> None:
        super().__init__()
        self.path = path
        self.past = history
        self.report = report
        self.trained = history["seconds"][-1] if history else 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._started = time.perf_counter()
        self._counting = True

    def on_test_begin(self, logs: Any = None) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._counting:
            self.trained += time.perf_counter() - self._started
            self._counting = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._stop()
        logs["seconds"] = self.trained
        if not (
            math.isfinite(logs["loss"]) and math.isfinite(logs["val_loss"])
        ):
            self.model.stop_training = True
            return
        for name, value in logs.items():
            self.past.setdefault(name, []).append(float(value))
        snapshot.save(self.path, self.model, self.past)
        self.report(epoch + 1)


def _configuration(
    arm: Arm,
    budget: Budget,
    data: datasets.Data,
    architecture: str,
    batch_size: int,
) -> dict[str, Any]:
    optimizer, trigger = arm.make(budget)
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
    }


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


def train(
    data: datasets.Data,
    architecture: str,
    arm: Arm,
    seed: int,
    epochs: int,
    folder: Path,
    batch_size: int = BATCH_SIZE,
    report: Callable[[int], None] = lambda epoch: None,
) -> Run:
    """Trains one arm with one seed, or goes on where a killed run stopped.

    After each epoch the whole state is kept in a snapshot beside the record;
    when the record is written the snapshot is removed. The test split is read
    once, at the end.

    Raises:
        ValueError: If the record there has another configuration, or is
            damaged; the message says what to do.
    """
    budget = Budget(epochs, len(data.train[1]) // batch_size)
    path = run_path(folder, data.name, architecture, epochs, arm.name, seed)
    configuration = _configuration(arm, budget, data, architecture, batch_size)
    finished = _finished(path, configuration)
    if finished is not None:
        return finished
    keras.utils.set_random_seed(seed)
    optimizer, trigger = arm.make(budget)
    model = architectures.build(architecture, data.image_shape, data.classes)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    optimizer.build(model.trainable_variables)
    kept = path.with_suffix(".npz")
    history: dict[str, list[float]] = {}
    if kept.exists():
        history = snapshot.restore(kept, model)
    first_epoch = len(history.get("loss", []))
    watch = _Watch(kept, history, report)
    callbacks: list[Any] = [watch]
    if isinstance(optimizer, HybridOptimizer):
        callbacks.insert(0, SwitchCallback(trigger, verbose=0))
    if first_epoch < epochs:
        pipeline, steps = datasets.training_pipeline(
            data, batch_size, seed, first_epoch, epochs
        )
        model.fit(
            pipeline,
            steps_per_epoch=steps,
            initial_epoch=first_epoch,
            epochs=epochs,
            shuffle=False,
            validation_data=datasets.evaluation_pipeline(data, "validation"),
            callbacks=callbacks,
            verbose=0,
        )
    diverged = len(history.get("loss", [])) < epochs
    test_loss = test_accuracy = None
    if not diverged:
        scores = model.evaluate(
            datasets.evaluation_pipeline(data, "test"),
            verbose=0,
            return_dict=True,
        )
        test_loss, test_accuracy = scores["loss"], scores["accuracy"]
    run = Run(
        dataset=data.name,
        architecture=architecture,
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
    return {**configuration, "optimizer": _serialized(optimizer)}


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
    architecture: str = "cnn",
    epochs: int = 8,
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
        epochs: Budget of each run, at least 2.
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
            cannot be had, or `output` holds other runs.
    """
    checks.choice("dataset", dataset, datasets.NAMES)
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
                    Progress(arm.name, seed, epoch, before + epoch, total, run)
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
