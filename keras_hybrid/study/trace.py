"""The projection, update by update: gamma, Lambda and the weight of SGD.

Runs record an epoch's end only; a trace is the start of one run with every
update looked at (Keskar & Socher 2017, algorithm 1: Lambda is the
bias-corrected moving average of gamma).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_hybrid._support import files, records
from keras_hybrid.callbacks.switch import SwitchCallback
from keras_hybrid.study import datasets
from keras_hybrid.study.arms import Arm
from keras_hybrid.study.trainer import Trainer

FORMAT = 1
# The folder of traces beside the runs of a cell.
TRACES = "traces"
UPDATES = 1000


class Trace(NamedTuple):
    """One entry an update, from the first on.

    Attributes:
        gamma: p.p / -p.g of the whole model, NaN after the switch.
        projection: Lambda, NaN after the switch.
        sgd_fraction: SGD's weight in the next update.
    """

    gamma: list[float]
    projection: list[float]
    sgd_fraction: list[float]

    @property
    def switch(self) -> int | None:
        """The first update that SGD made, None if Adam made all."""
        for update, fraction in enumerate(self.sgd_fraction):
            if fraction > 0:
                return update + 1
        return None

    def save(self, path: Path) -> None:
        """Writes it as JSON."""
        files.write_json(path, {"format": FORMAT, **self._asdict()})

    @classmethod
    def load(cls, path: Path) -> Trace:
        """Reads it, from its file or from a table above it.

        Raises:
            ValueError: If it is no complete trace.
        """
        content = records.read(path, FORMAT, "trace")
        files.check_fields(path, content, set(cls._fields))
        return cls(**files.history_of(path, content))


class _Watch(keras.callbacks.Callback):
    """Reads the trigger's state after each update."""

    def __init__(self) -> None:
        super().__init__()
        self.trace = Trace([], [], [])
        self.sum = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        optimizer = self.model.optimizer
        beta = optimizer.beta_2
        # lambda <- beta lambda + (1 - beta) gamma, solved for gamma.
        new = float(optimizer.state.trigger_state[0].numpy()[0])
        waits = not self.trace.sgd_fraction or not self.trace.sgd_fraction[-1]
        count = len(self.trace.gamma) + 1
        self.trace.gamma.append(
            (new - beta * self.sum) / (1 - beta) if waits else math.nan
        )
        self.trace.projection.append(
            new / (1 - beta**count) if waits else math.nan
        )
        self.trace.sgd_fraction.append(optimizer.sgd_fraction)
        self.sum = new


def record(
    trainer: Trainer,
    arm: Arm,
    learning_rate: float,
    epochs: int,
    batch_size: int,
) -> Trace:
    """Trains the first epochs of seed 0, at least 1,000 updates if it has them.

    Args:
        trainer: Of the cell's data, architecture and precision.
        arm: One whose optimizer has `ProjectionConverged` as first trigger.
        learning_rate: The arm's.
        epochs: The cell's.
        batch_size: Images an update.
    """
    data = trainer.data
    once = Trainer(
        data,
        trainer.architecture,
        trainer.precision,
        trainer.label_smoothing,
        most_steps=1,
    )
    budget = arm.budget(epochs, data.sizes["train"] // batch_size)
    made = arm.make(budget, learning_rate)
    model = once.start(made, 0, budget.steps_per_epoch)
    looked_at = min(epochs, math.ceil(UPDATES / budget.steps_per_epoch))
    pipeline, steps = datasets.training_pipeline(
        data, batch_size, 0, 0, looked_at
    )
    watch = _Watch()
    model.fit(
        pipeline,
        steps_per_epoch=steps,
        epochs=looked_at,
        shuffle=False,
        callbacks=[SwitchCallback(made[1], verbose=0), watch],
        verbose=0,
    )
    return watch.trace
