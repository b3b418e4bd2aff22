"""One training of a trial: what `fit` is given, from where, to its end."""

from __future__ import annotations

import dataclasses
import json
import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras_tuner.errors import FatalTypeError, FatalValueError

from keras_hybrid import batches
from keras_hybrid._support import checks
from keras_hybrid.callbacks.models import build_once, hybrid_optimizer
from keras_hybrid.callbacks.switch import SwitchCallback
from keras_hybrid.recipes import Plan
from keras_hybrid.tuning.prefix import Prefix, Recorder
from keras_hybrid.tuning.record import Trained


def mean_metrics(runs: Sequence[Trained]) -> dict[str, float]:
    """Returns each metric's last value, averaged over the runs."""
    if any(run.status == "diverged" for run in runs):
        return {name: math.nan for name in runs[0].history}
    return {
        name: float(np.mean([run.history[name][-1] for run in runs]))
        for name in runs[0].history
    }


@dataclasses.dataclass(frozen=True)
class Fit:
    """The arguments of `search` or `fit`, understood."""

    x: Any
    y: Any
    sample_weight: Any
    batch_size: int
    epochs: int
    shuffle: bool
    callbacks: tuple[Any, ...]
    rest: dict[str, Any]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Fit:
        """Understands the arguments, which are those of `Model.fit`.

        Raises:
            FatalTypeError: If one has the wrong type; and
            FatalValueError: if one is missing or has no place in a search:
                both end a KerasTuner search at once.
        """
        names = ("x", "y", "batch_size", "epochs")
        if len(args) > len(names):
            raise FatalTypeError(
                "Only x, y, batch_size and epochs may be positional. Received: "
                f"{len(args)} positional arguments"
            )
        rest = dict(zip(names, args, strict=False)) | dict(kwargs)
        for refused, instead in (
            ("validation_split", "give `validation_data`"),
            ("steps_per_epoch", "it follows from the data"),
            ("validation_freq", "every epoch is validated"),
        ):
            if rest.pop(refused, None) not in (None, 0, 1):
                raise FatalValueError(
                    f"`{refused}` is not supported in a search: {instead}. "
                    f"Received: {refused}={kwargs[refused]!r}"
                )
        rest.pop("initial_epoch", None)  # Each trial is a whole training.
        epochs = rest.pop("epochs", None)
        if epochs is None:
            raise FatalValueError(
                "`epochs` must be given: the budget of a trial. Received: "
                "epochs=None"
            )
        size = rest.pop("batch_size", None)
        try:
            return cls(
                x=rest.pop("x", None),
                y=rest.pop("y", None),
                sample_weight=rest.pop("sample_weight", None),
                batch_size=checks.integer(
                    "batch_size", 32 if size is None else size, low=1
                ),
                epochs=checks.integer("epochs", epochs, low=1),
                shuffle=checks.boolean("shuffle", rest.pop("shuffle", True)),
                callbacks=tuple(rest.pop("callbacks", None) or ()),
                rest={"verbose": 0, **rest},
            )._checked()
        except TypeError as error:
            raise FatalTypeError(str(error)) from error
        except ValueError as error:
            raise FatalValueError(str(error)) from error

    def _checked(self) -> Fit:
        if self.x is None:
            raise ValueError("`x` must be given. Received: x=None")
        for callback in self.callbacks:
            if isinstance(
                callback,
                (
                    SwitchCallback,
                    keras.callbacks.BackupAndRestore,
                    keras.callbacks.EarlyStopping,
                    keras.callbacks.ReduceLROnPlateau,
                ),
            ):
                raise ValueError(
                    "`callbacks` of a search may watch but not steer: the "
                    "search switches, resumes and stops by itself, and other "
                    "callbacks' state is not shared with the prefix. "
                    f"Received: {type(callback).__name__}"
                )
        return self

    @property
    def is_replayable(self) -> bool:
        """Whether the order of examples is a function of (seed, epoch)."""
        return not isinstance(self.x, (tf.data.Dataset, keras.utils.PyDataset))

    def without_callbacks(self) -> Fit:
        """Returns the same without the callbacks."""
        return dataclasses.replace(self, callbacks=())

    def pipeline(self, seed: int, first_epoch: int) -> tuple[Any, int]:
        """Returns the data set from `first_epoch` on, and updates an epoch."""
        if callable(self.x):
            return self.x(seed, first_epoch, self.epochs)
        if not self.is_replayable:
            steps = _length(self.x)
            repeated = (
                self.x.repeat()
                if isinstance(self.x, tf.data.Dataset)
                else self.x
            )
            return repeated, steps
        given = (self.x, self.y, self.sample_weight)
        parts = [
            tf.nest.map_structure(_tensor, part)
            for part in given
            if part is not None
        ]
        lengths = {len(part) if part.ndim else 0 for part in _flat(parts)}
        if len(lengths) != 1 or lengths == {0}:
            raise FatalValueError(
                "`x`, `y` and `sample_weight` must be arrays with one row an "
                "example, as many in each. Received: "
                f"{' and '.join(map(str, sorted(lengths)))} rows"
            )
        (count,) = lengths

        def batch_of(chosen: Any, epoch: Any) -> Any:
            return tuple(
                tf.nest.map_structure(lambda t: tf.gather(t, chosen), part)
                for part in parts
            )

        pipeline = batches.shuffled(
            count,
            self.batch_size,
            seed,
            first_epoch,
            self.epochs,
            batch_of,
            drop_remainder=False,
            in_order=not self.shuffle,
        )
        return pipeline, math.ceil(count / self.batch_size)

    def first_input(self) -> Any:
        """Returns x of one batch, to build a model on."""
        pipeline, _ = self.pipeline(0, 0)
        return next(iter(pipeline))[0]

    def fingerprint(self) -> str:
        """Returns a text that tells other data or arguments apart."""
        data: Any = getattr(self.x, "__qualname__", type(self.x).__name__)
        if not callable(self.x) and self.is_replayable:
            data = _digest((self.x, self.y, self.sample_weight))
        rest = {k: _digest(v) for k, v in self.rest.items() if k != "verbose"}
        return json.dumps(
            [data, self.batch_size, self.shuffle, rest], sort_keys=True
        )


def _tensor(values: Any) -> tf.Tensor:
    """In Keras' precision where it is of another, as `fit` does it."""
    tensor = tf.convert_to_tensor(values)
    if tensor.dtype.is_floating:
        return tf.cast(tensor, keras.config.floatx())
    return tensor


def _flat(parts: Any) -> list[Any]:
    return list(tf.nest.flatten(parts))


def _digest(value: Any) -> Any:
    """What is left of an argument in a fingerprint: shapes and checksums."""
    if isinstance(value, (type(None), bool, int, float, str)):
        return value
    if isinstance(value, tf.data.Dataset):
        return [repr(value.element_spec), int(value.cardinality())]
    if isinstance(value, (list, tuple)):
        return [_digest(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): _digest(part) for key, part in value.items()}
    if isinstance(value, keras.utils.PyDataset):
        return [type(value).__qualname__, value.num_batches]
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    array = np.ascontiguousarray(value)
    if array.dtype == object:  # Its bytes are addresses.
        array = np.frombuffer(repr(array.tolist()).encode(), "uint8")
    return [str(array.dtype), list(array.shape), zlib.crc32(array.tobytes())]


def _length(x: Any) -> int:
    steps = int(x.cardinality()) if hasattr(x, "cardinality") else len(x)
    if steps < 1:
        raise FatalValueError(
            "`x` is a data set that does not know its length, and the length "
            "of a blend is a fraction of all updates: use "
            "`x.apply(tf.data.experimental.assert_cardinality(...))`, or give "
            f"arrays. Received: cardinality={steps}"
        )
    return steps


class Watch(SwitchCallback):
    """The trial's switch; keeps its history and its epochs' ends."""

    def __init__(
        self,
        trigger: Any,
        history: dict[str, list[float]],
        prefix: Prefix | None,
        stop: Callable[[dict[str, list[float]]], bool],
        told: Callable[[int], None],
        objective: str | None,
    ) -> None:
        super().__init__(trigger, verbose=0)
        self.objective = objective
        self.past = history
        self.prefix = prefix
        self.stop = stop
        self.told = told
        self.status = "finished"

    def record(self, optimizer: Any, logs: Any) -> None:
        """Keeps the logs, and the end of an epoch that others may share."""
        if self.objective is not None and self.objective not in logs:
            raise FatalValueError(
                "`objective` must be one of the metrics in the logs: "
                f"{', '.join(sorted(logs))}. Received: "
                f"objective={self.objective!r}"
            )
        for name, value in logs.items():
            if np.ndim(value) == 0:
                self.past.setdefault(name, []).append(float(value))
        losses = [logs[n] for n in ("loss", "val_loss") if n in logs]
        if not all(map(math.isfinite, losses)):
            self.status = "diverged"
            self.model.stop_training = True
            return
        waiting = all(step is None for step in optimizer.switch_steps.values())
        if self.prefix is not None and waiting:
            # Before the trigger is asked: the snapshot has not switched.
            self.prefix.save(self.model, self.past)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs, keeps, asks the trigger, and stops what is hopeless."""
        super().on_epoch_end(epoch, logs)
        self.told(epoch + 1)
        if self.status == "finished" and self.stop(self.past):
            self.status = "stopped"
            self.model.stop_training = True


def prepare(model: Any, fit: Fit) -> None:
    """Makes the model's weights and the optimizer's state."""
    if not model.built:
        model(fit.first_input())
    build_once(model)


def copy_values(source: Any, target: Any, fit: Fit, seed: int) -> None:
    """Gives a model the weights and seed states of another."""
    for model in (source, target):
        if not model.built:
            keras.utils.set_random_seed(seed)
            model(fit.first_input())
    for old, new in zip(source.variables, target.variables, strict=True):
        new.assign(old)


def set_plan(
    model: Any, plan: Plan, steps: int, fit: Fit, recorded: Sequence[str]
) -> None:
    """Gives the model's optimizer the plan for this budget."""
    arguments = plan.optimizer_arguments(steps * fit.epochs)
    if recorded and plan.when != "start":
        arguments["trigger"] = Recorder(
            steps, list(recorded), arguments["trigger"]
        )
    hybrid_optimizer(model).reconfigure(**arguments)


def train_whole(
    model: Any, plan: Plan, fit: Fit, seed: int, recorded: Sequence[str]
) -> Trained:
    """Trains a freshly built model from its start to its end."""
    _, steps = fit.pipeline(seed, 0)
    set_plan(model, plan, steps, fit, recorded)
    prepare(model, fit)
    return go_on(model, plan, fit, seed, {}, steps)


def go_on(
    model: Any,
    plan: Plan,
    fit: Fit,
    seed: int,
    history: dict[str, list[float]],
    steps: int,
    prefix: Prefix | None = None,
    stop: Callable[[dict[str, list[float]]], bool] = lambda history: False,
    told: Callable[[int], None] = lambda epoch: None,
    objective: str | None = None,
) -> Trained:
    """Trains a model with its state from the end of `history` on."""
    started = time.perf_counter()
    first_epoch = len(history.get("loss", []))
    watch = Watch(
        plan.epoch_trigger(fit.epochs), history, prefix, stop, told, objective
    )
    if first_epoch < fit.epochs:
        pipeline, _ = fit.pipeline(seed, first_epoch)
        model.stop_training = False
        model.fit(
            pipeline,
            steps_per_epoch=steps,
            initial_epoch=first_epoch,
            epochs=fit.epochs,
            shuffle=False,
            callbacks=[watch, *fit.callbacks],
            **fit.rest,
        )
    return Trained(
        seed=seed,
        history=history,
        switch_step=hybrid_optimizer(model).switch_step,
        steps_per_epoch=steps,
        shared_epochs=first_epoch,
        trained_epochs=len(history["loss"]) - first_epoch,
        seconds=time.perf_counter() - started,
        status=watch.status,
    )
