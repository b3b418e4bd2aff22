"""One constant phase, and tails from where it is: what each would end at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_hybrid._support import checks
from keras_hybrid.callbacks import averages
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.study import datasets, protocol
from keras_hybrid.study.cells import Cell
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import Signals, StepTrigger
from keras_hybrid.triggers.base import Tensor

# Images of a validation batch.
_BATCH = 250


class Training:
    """A cell's training at a constant rate, from one look at it to the next.

    A tail leaves no trace in it: whatever it changed is put back.

    Args:
        cell: What is trained.
        data: Of the cell.
        seed: Of weights, order and dropout.
        optimizer: Unbuilt. Its cool-down is that of the tails.
        looks: In an epoch; 1: at its end.
    """

    def __init__(
        self,
        cell: Cell,
        data: datasets.AnyData,
        seed: int,
        optimizer: HybridOptimizer,
        looks: int = 1,
    ) -> None:
        self.updates = 0
        self.steps_per_epoch = data.sizes["train"] // cell.batch_size
        self.steps = self.steps_per_epoch // looks
        trainer = protocol.Trainer(data, cell.architecture, cell.precision)
        self.model = trainer.start((optimizer, None), seed, self.steps)
        self.optimizer = optimizer
        self._data, self._seed = data, seed
        self._batch_size = cell.batch_size
        self._splits = {
            "val": datasets.evaluation_pipeline(data, "validation", _BATCH),
            "test": datasets.evaluation_pipeline(data, "test"),
        }
        self._splits = {k: split.cache() for k, split in self._splits.items()}
        self._average = averages.RunningAverage()

    def _pipeline(self, updates: int) -> Any:
        """The batches of the next updates."""
        epoch, made = divmod(self.updates, self.steps_per_epoch)
        end = math.ceil((self.updates + updates) / self.steps_per_epoch)
        batches, _ = datasets.training_pipeline(
            self._data, self._batch_size, self._seed, epoch, end
        )
        return batches.skip(made).take(updates)

    def train(self) -> dict[str, float]:
        """Trains to the next look; returns what the look sees."""
        fitted = self.model.fit(
            self._pipeline(self.steps),
            steps_per_epoch=self.steps,
            shuffle=False,
            verbose=0,
        )
        self.updates += self.steps
        logs = {name: float(v[-1]) for name, v in fitted.history.items()}
        return {**logs, **_prefixed("val_", self.scores("val"))}

    def average(self) -> dict[str, float]:
        """Takes the weights into the average; returns what that scores."""
        with averages.averaging(self.model, self._average):
            return {
                **_prefixed("averaged_val_", self.scores("val")),
                **_prefixed("averaged_test_", self.scores("test")),
            }

    def scores(self, split: str) -> dict[str, float]:
        """Returns the metrics on a split, "val" or "test"."""
        return self.model.evaluate(
            self._splits[split], verbose=0, return_dict=True
        )

    def tail(self, cooldown: Cooldown | None = None) -> dict[str, float]:
        """Switches, cools down, and goes back to before.

        Args:
            cooldown: With a share. None: the optimizer's own; another one is
                compiled anew.

        Returns:
            The accuracy at the tail's end, on each split.
        """
        optimizer = self.optimizer
        if cooldown is not None:
            optimizer.cooldown = cooldown
            self.model.train_function = None  # It has the old one in it.
        variables = [*self.model.variables, *optimizer.variables]
        kept = averages.values_of(variables)
        optimizer.switch()
        length = (optimizer.cooldown_end or 0) - optimizer.updates_made
        self.model.fit(
            self._pipeline(length).repeat(),
            steps_per_epoch=length,
            shuffle=False,
            verbose=0,
        )
        ends = {
            split: float(self.scores(split)["accuracy"])
            for split in self._splits
        }
        averages.assign(variables, kept)
        return ends


def _prefixed(prefix: str, scores: Mapping[str, Any]) -> dict[str, float]:
    return {prefix + name: float(value) for name, value in scores.items()}


@checks.registered
class Noted(StepTrigger):
    """Notes after which update a trigger first fires, and never fires itself.

    Args:
        trigger: The one that is watched.
    """

    def __init__(self, trigger: StepTrigger) -> None:
        self.trigger = trigger

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """As the trigger inside."""
        return self.trigger.needs

    def init(self, groups: int) -> list[np.ndarray]:
        """Returns the number of updates when it fired, -1; then its state."""
        return [np.full(groups, -1.0), *self.trigger.init(groups)]

    def update(
        self, state: list[Tensor], signals: Signals
    ) -> tuple[Tensor, list[Tensor]]:
        """Asks the trigger inside."""
        noted, *inner = state
        fires, inner = self.trigger.update(inner, signals)
        is_first = ops.logical_and(noted < 0, fires)
        made = ops.cast(signals.step + 1, noted.dtype)
        return False, [ops.where(is_first, made, noted), *inner]

    def get_config(self) -> dict[str, Any]:
        """Returns the trigger, serialized."""
        return {"trigger": keras.saving.serialize_keras_object(self.trigger)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Noted:
        """Makes what `get_config` described."""
        return cls(keras.saving.deserialize_keras_object(config["trigger"]))


def noted_updates(
    optimizer: HybridOptimizer, triggers: Sequence[Noted]
) -> list[int | None]:
    """Returns after how many updates each would have switched the model.

    Args:
        optimizer: Built, its trigger an `AnyStep` of these.
        triggers: In their order.
    """
    found: list[int | None] = []
    place = 0
    for trigger in triggers:
        noted = float(optimizer.state.trigger_state[place].numpy()[0])
        found.append(None if noted < 0 else int(noted))
        place += len(trigger.init(1))
    return found
