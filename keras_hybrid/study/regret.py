"""The regret of a trigger: what the best switch would have given beyond it.

One constant phase a seed, and from the end of its epochs a cool-down each: the
final accuracy as a curve over the switch epoch. Every epoch's metrics are
recorded, of the weights and of their running average, so that any trigger can
be asked afterwards where it would have landed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_hybrid import averages, files
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.study import datasets, protocol
from keras_hybrid.study.cells import Cell
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import EpochTrigger, Plateau, Slope
from keras_hybrid.versions import versions

FORMAT = 1
SHARE = 0.5


class Curve(NamedTuple):
    """The record of one seed of one cell.

    Attributes:
        cell: Its name.
        seed: Of weights, order and dropout.
        ceiling: Epochs that the training may take.
        share: Of the cool-down.
        learning_rate: Of the constant phase.
        history: Lists with an entry an epoch of the constant phase: loss,
            accuracy, val_loss, val_accuracy, averaged_val_loss,
            averaged_val_accuracy.
        batch_losses: A list an epoch: the averaged weights' validation loss on
            each batch.
        switches: Epochs from whose end there is a cool-down.
        val_accuracy: At the end of each of these.
        test_accuracy: Likewise.
        versions: Of the packages.
    """

    cell: str
    seed: int
    ceiling: int
    share: float
    learning_rate: float
    history: Mapping[str, list[float]]
    batch_losses: list[list[float]]
    switches: list[int]
    val_accuracy: list[float]
    test_accuracy: list[float]
    versions: Mapping[str, str]

    @property
    def latest(self) -> int:
        """The last epoch from which the cool-down fits into the ceiling."""
        return int(self.ceiling / (1 + self.share))

    def final(self, epoch: int, kind: str = "val_accuracy") -> float:
        """The final accuracy of a switch after an epoch, smoothed over three.

        Between two epochs of `switches` it is interpolated.
        """
        values = np.array(getattr(self, kind))
        padded = np.pad(values, 1, mode="edge")
        smooth = np.convolve(padded, np.ones(3) / 3, mode="valid")
        return float(np.interp(epoch, self.switches, smooth))

    def best(self, kind: str = "val_accuracy") -> float:
        """The best of the curve."""
        return max(self.final(epoch, kind) for epoch in self.switches)

    def save(self, path: Path) -> None:
        """Writes it whole."""
        files.write_json(path, {"format": FORMAT, **self._asdict()})

    @classmethod
    def load(cls, path: Path) -> Curve:
        """Reads it.

        Raises:
            ValueError: If the file is no such record.
        """
        content = files.read_json(path, FORMAT, "regret curve")
        files.check_fields(path, content, set(cls._fields))
        return cls(**content)


def measure(
    cell: Cell,
    data: datasets.AnyData,
    seed: int,
    ceiling: int,
    switches: Sequence[int],
    learning_rate: float = 1e-3,
) -> Curve:
    """Trains the constant phase, and a cool-down from each of `switches`."""
    optimizer = HybridOptimizer(learning_rate, cooldown=Cooldown(share=SHARE))
    trainer = protocol.Trainer(data, cell.architecture, cell.precision)
    steps = data.sizes["train"] // cell.batch_size
    model = trainer.start((optimizer, None), seed, steps)
    validation = datasets.evaluation_pipeline(data, "validation", 250).cache()
    test = datasets.evaluation_pipeline(data, "test").cache()
    average = averages.RunningAverage()
    history: dict[str, list[float]] = {}
    batch_losses: list[list[float]] = []
    results: dict[str, list[float]] = {"val_accuracy": [], "test_accuracy": []}
    variables = [*model.variables, *optimizer.variables]

    def note(scores: Mapping[str, float], prefix: str) -> None:
        for name, value in scores.items():
            history.setdefault(prefix + name, []).append(float(value))

    for epoch in range(max(switches)):
        pipeline, _ = datasets.training_pipeline(
            data, cell.batch_size, seed, epoch, epoch + 1
        )
        fitted = model.fit(pipeline, steps_per_epoch=steps, verbose=0)
        note({k: v[-1] for k, v in fitted.history.items()}, "")
        scores, _ = averages.losses_of(model, validation)
        note(scores, "val_")
        average.update(averages.values_of(model.weights))
        with averages.in_place(model, average.values):
            scores, losses = averages.losses_of(model, validation)
        note(scores, "averaged_val_")
        batch_losses.append([float(x) for x in losses])
        if epoch + 1 not in switches:
            continue
        kept = [v.numpy() for v in variables]
        optimizer.switch()
        end = optimizer.cooldown_end or 0
        pipeline, _ = datasets.training_pipeline(
            data, cell.batch_size, seed, epoch + 1, ceiling + 1
        )
        length = end - optimizer.updates_made
        model.fit(
            pipeline.take(length).repeat(),
            steps_per_epoch=length,
            verbose=0,
        )
        for kind, split in (("val", validation), ("test", test)):
            scores = model.evaluate(split, verbose=0, return_dict=True)
            results[f"{kind}_accuracy"].append(float(scores["accuracy"]))
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
    return Curve(
        cell=cell.name,
        seed=seed,
        ceiling=ceiling,
        share=SHARE,
        learning_rate=learning_rate,
        history=history,
        batch_losses=batch_losses,
        switches=list(switches),
        versions=versions(),
        **results,
    )


def grid(latest: int) -> list[int]:
    """Epochs to switch after: all of the first eight, then further apart."""
    epochs, step = [], 1
    epoch = 1
    while epoch <= latest:
        epochs.append(epoch)
        step = max(1, epoch // 6)
        epoch += step
    if epochs[-1] != latest:
        epochs.append(latest)
    return epochs


# ---- Where a trigger lands --------------------------------------------------


class Landing(NamedTuple):
    """What a rule does on a curve.

    Attributes:
        fired: The epoch after which it fires, or the latest.
        switched: The epoch from whose end the cool-down starts.
        epochs: Trained in all.
    """

    fired: int
    switched: int
    epochs: float


# Best epoch, last epoch, curve -> whether to go back.
Back = Callable[[int, int, Curve], bool]


def never(best: int, last: int, curve: Curve) -> bool:
    """Does not go back."""
    return False


def always(best: int, last: int, curve: Curve) -> bool:
    """Goes back whenever there is a better epoch."""
    return best < last


def risen(rise: float, errors: float) -> Back:
    """Goes back where the averaged loss has risen (`averages.has_risen`)."""

    def back(best: int, last: int, curve: Curve) -> bool:
        return averages.has_risen(
            np.array(curve.batch_losses[best - 1]),
            np.array(curve.batch_losses[last - 1]),
            rise,
            errors,
        )

    return back


def land(curve: Curve, trigger: EpochTrigger, back: Back = never) -> Landing:
    """Asks a trigger, epoch by epoch."""
    trigger.reset()
    monitor = trigger.monitors()[0]
    values = curve.history[monitor]
    fired = curve.latest
    for epoch in range(1, curve.latest + 1):
        logs = {name: v[epoch - 1] for name, v in curve.history.items()}
        if trigger.check(epoch - 1, logs):
            fired = epoch
            break
    switched = fired
    if fired < curve.latest:
        best = int(np.argmin(values[:fired])) + 1
        if back(best, fired, curve):
            switched = best
    return Landing(fired, switched, fired + curve.share * switched)


class Smoothed(Plateau):
    """A plateau of a running mean: half of the last value."""

    def reset(self) -> None:
        """Forgets the mean."""
        super().reset()
        self.mean: float | None = None

    def update(self, value: float) -> bool:
        """Takes a value into the mean, and that into the plateau."""
        old = value if self.mean is None else self.mean
        self.mean = (old + value) / 2
        return super().update(self.mean)


class Growing(Plateau):
    """Waits for half of the best epoch's number, at least `patience`."""

    def reset(self) -> None:
        """Forgets the epochs."""
        super().reset()
        self.seen = 0.0

    def update(self, value: float) -> bool:
        """Compares the wait with the number of the best epoch."""
        self.seen += 1
        super().update(value)
        best_at = self.seen - self.waited
        return self.waited >= max(self.patience, best_at / 2)


AVERAGED = "averaged_val_loss"
RULES: dict[str, tuple[Callable[[], EpochTrigger], Back]] = {
    "averaged, patience 3, back if risen": (
        lambda: Plateau(AVERAGED, 3),
        risen(averages.RISE, averages.ERRORS),
    ),
    **{
        f"averaged, patience 3, back if risen {rise:.1%}, {errors:g} errors": (
            lambda: Plateau(AVERAGED, 3),
            risen(rise, errors),
        )
        for rise, errors in (
            (0.0, 2.0),
            (0.0, 3.0),
            (0.01, 0.0),
            (0.02, 0.0),
            (0.02, 3.0),
            (0.05, 0.0),
        )
    },
    "averaged, patience 3, always back": (lambda: Plateau(AVERAGED, 3), always),
    "averaged, patience 3": (lambda: Plateau(AVERAGED, 3), never),
    "averaged, patience 2, back if risen": (
        lambda: Plateau(AVERAGED, 2),
        risen(averages.RISE, averages.ERRORS),
    ),
    "averaged, patience 5, back if risen": (
        lambda: Plateau(AVERAGED, 5),
        risen(averages.RISE, averages.ERRORS),
    ),
    "averaged, growing patience, back if risen": (
        lambda: Growing(AVERAGED, 2),
        risen(averages.RISE, averages.ERRORS),
    ),
    "raw loss, patience 2": (lambda: Plateau("val_loss", 2), never),
    "raw loss, patience 3": (lambda: Plateau("val_loss", 3), never),
    "raw loss, patience 3, always back": (
        lambda: Plateau("val_loss", 3),
        always,
    ),
    "raw loss, patience 5": (lambda: Plateau("val_loss", 5), never),
    "raw loss, patience 5, always back": (
        lambda: Plateau("val_loss", 5),
        always,
    ),
    "raw loss, growing patience": (lambda: Growing("val_loss", 2), never),
    "smoothed loss, patience 3": (lambda: Smoothed("val_loss", 3), never),
    "slope of the loss": (lambda: Slope("val_loss"), never),
    "slope of the averaged loss": (lambda: Slope(AVERAGED), never),
    "slope of the training loss": (lambda: Slope("loss"), never),
    "raw accuracy, patience 3": (lambda: Plateau("val_accuracy", 3), never),
}


def regrets(
    curves: Sequence[Curve], kind: str = "val_accuracy"
) -> dict[str, list[tuple[Landing, float]]]:
    """Returns for each rule its landing on each curve, and the points lost."""
    found: dict[str, list[tuple[Landing, float]]] = {}
    for name, (make, back) in RULES.items():
        for curve in curves:
            landing = land(curve, make(), back)
            lost = curve.best(kind) - curve.final(landing.switched, kind)
            found.setdefault(name, []).append((landing, 100 * lost))
    return found
