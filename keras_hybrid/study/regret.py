"""The regret of a trigger: what the best switch would have given beyond it.

One constant phase a seed, and from the end of its epochs a cool-down each: the
final accuracy as a curve over the switch epoch. Every epoch's metrics are
recorded, of the weights and of their running average, so that any trigger can
be asked afterwards where it would have landed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_hybrid._support import files
from keras_hybrid._support.versions import versions
from keras_hybrid.callbacks import averages
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.study import datasets, protocol
from keras_hybrid.study.cells import Cell
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import EpochTrigger, Plateau, Slope

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
            accuracy, val_loss, val_accuracy, and of the averaged weights
            averaged_val_loss, averaged_val_accuracy, averaged_test_loss,
            averaged_test_accuracy.
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
    results: dict[str, list[float]] = {"val_accuracy": [], "test_accuracy": []}
    variables = [*model.variables, *optimizer.variables]

    def scores_on(split: Any) -> dict[str, float]:
        return model.evaluate(split, verbose=0, return_dict=True)

    def note(scores: Mapping[str, float], prefix: str) -> None:
        for name, value in scores.items():
            history.setdefault(prefix + name, []).append(float(value))

    for epoch in range(max(switches)):
        pipeline, _ = datasets.training_pipeline(
            data, cell.batch_size, seed, epoch, epoch + 1
        )
        fitted = model.fit(
            pipeline, steps_per_epoch=steps, shuffle=False, verbose=0
        )
        note({k: v[-1] for k, v in fitted.history.items()}, "")
        note(scores_on(validation), "val_")
        own = averages.values_of(model.weights)
        average.update(own)
        with averages.in_place(model, average.values, own):
            note(scores_on(validation), "averaged_val_")
            note(scores_on(test), "averaged_test_")
        if epoch + 1 not in switches:
            continue
        kept = averages.values_of(variables)
        optimizer.switch()
        end = optimizer.cooldown_end or 0
        pipeline, _ = datasets.training_pipeline(
            data, cell.batch_size, seed, epoch + 1, ceiling + 1
        )
        length = end - optimizer.updates_made
        model.fit(
            pipeline.take(length).repeat(),
            steps_per_epoch=length,
            shuffle=False,
            verbose=0,
        )
        for kind, split in (("val", validation), ("test", test)):
            accuracy = float(scores_on(split)["accuracy"])
            results[f"{kind}_accuracy"].append(accuracy)
        averages.assign(variables, kept)
    return Curve(
        cell=cell.name,
        seed=seed,
        ceiling=ceiling,
        share=SHARE,
        learning_rate=learning_rate,
        history=history,
        switches=list(switches),
        versions=versions(),
        **results,
    )


def grid(latest: int) -> list[int]:
    """Epochs to switch after: the first twelve, then further apart."""
    epochs, epoch = [], 1
    while epoch <= latest:
        epochs.append(epoch)
        epoch += max(1, epoch // 6)
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
        accuracy: Of the weights that it ends with, a fraction.
    """

    fired: int
    switched: int
    epochs: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Rule:
    """When to switch, from which epoch's state, and which weights to keep.

    Attributes:
        trigger: Makes the trigger.
        back: None: the cool-down starts where the trigger fires. A float: it
            starts from the metric's best epoch if the metric has since become
            worse by this share of it.
        keeps: Whether the average's best weights, by validation accuracy, are
            kept where they are better than those the cool-down ends with.
    """

    trigger: Callable[[], EpochTrigger]
    back: float | None = None
    keeps: bool = False

    def land(self, curve: Curve, kind: str) -> Landing:
        """Asks the trigger, epoch by epoch."""
        trigger = self.trigger()
        trigger.reset()
        fired, was_asked = curve.latest, False
        for epoch in range(1, curve.latest + 1):
            logs = {name: v[epoch - 1] for name, v in curve.history.items()}
            if trigger.check(epoch - 1, logs):
                fired, was_asked = epoch, True
                break
        switched = fired
        values = np.array(curve.history[trigger.monitors()[0]][:fired])
        if trigger.monitors()[0].endswith("accuracy"):
            values = -values
        best = int(np.argmin(values))
        if self.back is not None and was_asked:
            worse = values[-1] - values[best]
            if worse > self.back * abs(values[best]):
                switched = best + 1
        accuracy = curve.final(switched, kind)
        if self.keeps:
            seen = np.array(curve.history["averaged_val_accuracy"][:fired])
            if seen.max() > curve.final(switched):
                kept = curve.history[f"averaged_{kind}"]
                accuracy = kept[int(np.argmax(seen))]
        epochs = fired + curve.share * switched
        return Landing(fired, switched, epochs, accuracy)


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


def _plateau(monitor: str, patience: int) -> Callable[[], EpochTrigger]:
    return lambda: Plateau(monitor, patience)


_LOSS, _ACCURACY = "averaged_val_loss", "averaged_val_accuracy"
DEFAULT = "averaged loss, patience 3, keeps the better"
RULES = {
    DEFAULT: Rule(_plateau(_LOSS, 3), keeps=True),
    "averaged loss, patience 2, keeps the better": Rule(
        _plateau(_LOSS, 2), keeps=True
    ),
    "averaged loss, patience 5, keeps the better": Rule(
        _plateau(_LOSS, 5), keeps=True
    ),
    "averaged accuracy, patience 3, keeps the better": Rule(
        _plateau(_ACCURACY, 3), keeps=True
    ),
    "averaged loss, growing patience, keeps the better": Rule(
        lambda: Growing(_LOSS, 2), keeps=True
    ),
    "loss, patience 3, keeps the better": Rule(
        _plateau("val_loss", 3), keeps=True
    ),
    "averaged loss, patience 3": Rule(_plateau(_LOSS, 3)),
    "averaged loss, patience 3, back if risen by 2 %": Rule(
        _plateau(_LOSS, 3), 0.02
    ),
    "averaged loss, patience 3, back if risen by 2 %, keeps the better": Rule(
        _plateau(_LOSS, 3), 0.02, keeps=True
    ),
    "averaged loss, patience 3, always back": Rule(_plateau(_LOSS, 3), 0.0),
    "averaged accuracy, patience 3": Rule(_plateau(_ACCURACY, 3)),
    "loss, patience 2": Rule(_plateau("val_loss", 2)),
    "loss, patience 3": Rule(_plateau("val_loss", 3)),
    "loss, patience 3, always back": Rule(_plateau("val_loss", 3), 0.0),
    "loss, patience 5": Rule(_plateau("val_loss", 5)),
    "loss, patience 5, always back": Rule(_plateau("val_loss", 5), 0.0),
    "loss, growing patience": Rule(lambda: Growing("val_loss", 2)),
    "loss smoothed, patience 3": Rule(lambda: Smoothed("val_loss", 3)),
    "accuracy, patience 3": Rule(_plateau("val_accuracy", 3)),
    "slope of the loss": Rule(lambda: Slope("val_loss")),
    "slope of the averaged loss": Rule(lambda: Slope(_LOSS)),
    "slope of the training loss": Rule(lambda: Slope("loss")),
}


def regret(curve: Curve, rule: Rule, kind: str) -> tuple[Landing, float]:
    """Returns where the rule lands, and what it loses, in points."""
    landing = rule.land(curve, kind)
    return landing, 100 * (curve.best(kind) - landing.accuracy)


def load(folder: Path | str) -> dict[str, list[Curve]]:
    """Reads the curves of a folder, cell by cell."""
    of_cell: dict[str, list[Curve]] = {}
    for path in sorted(Path(folder).glob("*.json")):
        curve = Curve.load(path)
        of_cell.setdefault(curve.cell, []).append(curve)
    return of_cell


def brief(
    of_cell: Mapping[str, Sequence[Curve]], kind: str, rule: Rule
) -> tuple[float, float, float]:
    """Returns a rule's mean regret, its worst cell's, and its epochs.

    Each cell counts alike; epochs are a fraction of the ceiling.
    """
    lost, used = [], []
    for curves in of_cell.values():
        found = [(curve, *regret(curve, rule, kind)) for curve in curves]
        lost.append(np.mean([points for _, _, points in found]))
        used.append(
            np.mean([landing.epochs / c.ceiling for c, landing, _ in found])
        )
    return float(np.mean(lost)), float(max(lost)), float(np.mean(used))


def markdown(of_cell: Mapping[str, Sequence[Curve]], kind: str) -> str:
    """A line a rule: of each cell the mean; then their mean and the worst."""
    lines = [["rule", *of_cell, "mean", "worst"]]
    lines.append(["---"] * len(lines[0]))
    for name, rule in RULES.items():
        texts = []
        for curves in of_cell.values():
            found = [regret(curve, rule, kind) for curve in curves]
            lost = np.mean([points for _, points in found])
            at = np.mean([landing.switched for landing, _ in found])
            used = np.mean([landing.epochs for landing, _ in found])
            texts.append(f"{lost:.2f}, {at:.0f} / {used:.0f}")
        mean, worst, _ = brief(of_cell, kind, rule)
        lines.append([name, *texts, f"{mean:.2f}", f"{worst:.2f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
