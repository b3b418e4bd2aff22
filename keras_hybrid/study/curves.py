"""The final accuracy as a curve over the switch epoch.

One constant phase a seed, and from the end of its epochs a cool-down each.
Every epoch's metrics are recorded, of the weights and of their running
average, and when each of some step triggers would have fired, so that any
trigger can be asked afterwards where on the curve it would have landed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_hybrid._support import files, records
from keras_hybrid._support.versions import versions
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.study import datasets, tails
from keras_hybrid.study.cells import Cell
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import (
    GradientSignalToNoise,
    ProjectionConverged,
    StepTrigger,
)
from keras_hybrid.triggers.combined import AnyStep

FORMAT = 1
SHARE = 0.5
# Those that a measurement watches; a record may know fewer.
STEP_TRIGGERS: dict[str, Callable[[], StepTrigger]] = {
    "ProjectionConverged()": ProjectionConverged,
    "ProjectionConverged against gamma, from update 100 on": lambda: (
        ProjectionConverged(min_steps=100, against="gamma")
    ),
    "ProjectionConverged as in SWATS": lambda: ProjectionConverged(
        1e-9, relative=False, patience=1, min_steps=2, against="gamma"
    ),
    "GradientSignalToNoise()": GradientSignalToNoise,
    "GradientSignalToNoise from update 100 on": lambda: GradientSignalToNoise(
        min_steps=100
    ),
}


class Curve(NamedTuple):
    """The record of one seed of one cell.

    Attributes:
        cell: Its name.
        seed: Of weights, order and dropout.
        ceiling: Epochs that the training may take.
        share: Of the cool-down.
        learning_rate: Of the constant phase.
        history: Lists with an entry an epoch of the constant phase: loss,
            accuracy, val_loss, val_accuracy, and of the averaged weights
            averaged_val_loss, averaged_val_accuracy, averaged_test_loss,
            averaged_test_accuracy.
        switches: Epochs from whose end there is a cool-down.
        val_accuracy: At the end of each of these.
        test_accuracy: Likewise.
        versions: Of the packages.
        fired: Of each step trigger that was watched, after how many epochs
            (a fraction) it would have fired; None: not in the constant phase.
    """

    cell: str
    seed: int
    ceiling: int
    share: float
    learning_rate: float
    history: Mapping[str, list[float]]
    switches: list[int]
    val_accuracy: list[float]
    test_accuracy: list[float]
    versions: Mapping[str, str]
    fired: Mapping[str, float | None] = {}

    @property
    def latest(self) -> int:
        """The last epoch from which the cool-down fits into the ceiling."""
        return int(self.ceiling / (1 + self.share))

    def final(self, epoch: float, kind: str = "val_accuracy") -> float:
        """The final accuracy of a switch after an epoch, smoothed over three.

        Between two epochs of `switches` it is interpolated.
        """
        values = np.array(getattr(self, kind))
        padded = np.pad(values, 1, mode="edge")
        smooth = np.convolve(padded, np.ones(3) / 3, mode="valid")
        return float(np.interp(epoch, self.switches, smooth))

    def best(self, kind: str = "val_accuracy") -> float:
        """The best of the curve."""
        return self.final(self.best_epoch(kind), kind)

    def best_epoch(self, kind: str = "val_accuracy") -> int:
        """Where the curve is at its best, the first if there are several."""
        return max(self.switches, key=lambda epoch: self.final(epoch, kind))

    def save(self, path: Path) -> None:
        """Writes it whole."""
        files.write_json(path, {"format": FORMAT, **self._asdict()})

    @classmethod
    def load(cls, path: Path) -> Curve:
        """Reads it, from its file or from a table above it.

        Raises:
            ValueError: If it is no such record.
        """
        content = records.read(path, FORMAT, "regret curve")
        # Records of before step triggers were watched have none.
        content = {"fired": {}, **content}
        files.check_fields(path, content, set(cls._fields))
        curve = cls(**content)
        if not _is_complete(curve):
            raise ValueError(
                f"{path}: no regret curve: it needs an accuracy for each of "
                "`switches`, and a history as long as the last. Received: "
                f"switches={curve.switches!r}"
            )
        kinds = ("val_accuracy", "test_accuracy")
        ends = files.history_of(path, {n: content[n] for n in kinds})
        return curve._replace(
            history=files.history_of(path, curve.history),
            val_accuracy=ends["val_accuracy"],
            test_accuracy=ends["test_accuracy"],
        )


def _is_complete(curve: Curve) -> bool:
    """Whether a record has all that its switches need."""
    try:
        ends = map(len, (curve.val_accuracy, curve.test_accuracy))
        return (
            set(ends) == {len(curve.switches)}
            and min(map(len, curve.history.values())) >= max(curve.switches)
            and curve.fired is not None
        )
    except (AttributeError, TypeError, ValueError):
        return False


def measure(
    cell: Cell,
    data: datasets.AnyData,
    seed: int,
    ceiling: int,
    switches: Sequence[int],
    learning_rate: float = 1e-3,
    looks: int = 1,
) -> Curve:
    """Trains the constant phase, and a cool-down from each of `switches`.

    With more than one look in an epoch, its "epochs" are the looks.
    """
    watch = _Watch(cell, data, seed, learning_rate, looks)
    training = watch.training
    history: dict[str, list[float]] = {}
    ends: dict[str, list[float]] = {"val": [], "test": []}
    for epoch in range(1, max(switches) + 1):
        logs = {**training.train(), **training.average()}
        for name, value in logs.items():
            history.setdefault(name, []).append(value)
        if epoch in switches:
            for split, accuracy in training.tail().items():
                ends[split].append(accuracy)
    return Curve(
        cell=cell.name,
        seed=seed,
        ceiling=ceiling,
        share=SHARE,
        learning_rate=learning_rate,
        history=history,
        switches=list(switches),
        val_accuracy=ends["val"],
        test_accuracy=ends["test"],
        versions=versions(),
        fired=watch.fired(),
    )


def watch_again(curve: Curve, cell: Cell, data: datasets.AnyData) -> Curve:
    """Adds to a record when step triggers would have fired.

    Trains its constant phase again, without the cool-downs.

    Raises:
        ValueError: If that is another training, as by other versions.
    """
    watch = _Watch(cell, data, curve.seed, curve.learning_rate)
    for epoch in range(max(curve.switches)):
        for name, value in watch.training.train().items():
            if value != curve.history[name][epoch]:
                raise ValueError(
                    f"{curve.cell}, seed {curve.seed}: the constant phase is "
                    "not the record's: measure the curve anew. Received: "
                    f"{name}={value} for {curve.history[name][epoch]} in epoch "
                    f"{epoch + 1}"
                )
    return curve._replace(fired=watch.fired())


class _Watch:
    """A training at a constant rate under the eyes of all step triggers."""

    def __init__(
        self,
        cell: Cell,
        data: datasets.AnyData,
        seed: int,
        learning_rate: float,
        looks: int = 1,
    ) -> None:
        self._watched = [tails.Noted(make()) for make in STEP_TRIGGERS.values()]
        optimizer = HybridOptimizer(
            learning_rate,
            cooldown=Cooldown(share=SHARE),
            trigger=AnyStep(self._watched),
        )
        self.training = tails.Training(cell, data, seed, optimizer, looks)

    def fired(self) -> dict[str, float | None]:
        """Returns after how many epochs each would have fired."""
        updates = tails.noted_updates(self.training.optimizer, self._watched)
        steps = self.training.steps
        return {
            name: None if made is None else made / steps
            for name, made in zip(STEP_TRIGGERS, updates, strict=True)
        }


def grid(latest: int) -> list[int]:
    """Epochs to switch after: the first twelve, then further apart."""
    epochs, epoch = [], 1
    while epoch <= latest:
        epochs.append(epoch)
        epoch += max(1, epoch // 6)
    if epochs[-1] != latest:
        epochs.append(latest)
    return epochs


def load(folder: Path | str) -> dict[str, list[Curve]]:
    """Reads the curves of a folder, in files or in a table, cell by cell."""
    of_cell: dict[str, list[Curve]] = {}
    for path in records.in_folder(Path(folder), "*.json"):
        curve = Curve.load(path)
        of_cell.setdefault(curve.cell, []).append(curve)
    return of_cell
