"""The regret of a trigger: what the best switch would have given beyond it.

On a curve of the final accuracy over the switch epoch (`curves`), a rule lands
where its trigger fires.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from keras_hybrid.study.curves import STEP_TRIGGERS, Curve, load
from keras_hybrid.triggers import EpochTrigger, Plateau, Slope

__all__ = [
    "DEFAULT",
    "RULES",
    "STEP_RULES",
    "Landing",
    "Rule",
    "StepRule",
    "Brief",
    "brief",
    "briefly",
    "fresh",
    "load",
    "markdown",
    "regret",
    "watched",
]


class Landing(NamedTuple):
    """What a rule does on a curve.

    Attributes:
        fired: The epoch after which it fires, or the latest.
        switched: The epoch from whose end the cool-down starts.
        epochs: Trained in all.
        accuracy: Of the weights that it ends with, a fraction.
    """

    fired: float
    switched: float
    epochs: float
    accuracy: float


class Lands(Protocol):
    """Whatever says where it would have switched."""

    def land(self, curve: Curve, kind: str) -> Landing:
        """Returns that; `kind` is "val_accuracy" or "test_accuracy"."""


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


@dataclasses.dataclass(frozen=True)
class StepRule:
    """A step trigger: it switches within an epoch, as the curve has noted.

    Attributes:
        name: In `Curve.fired`.
    """

    name: str

    def land(self, curve: Curve, kind: str) -> Landing:
        """Looks it up; before the end of epoch 1, the curve is that epoch's.

        Raises:
            KeyError: If the record does not know the trigger.
        """
        noted = curve.fired[self.name]
        at = curve.latest if noted is None else min(noted, curve.latest)
        epochs = at * (1 + curve.share)
        return Landing(at, at, epochs, curve.final(at, kind))


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
# The seed whose curves it was chosen on.
CHOSEN_ON = 100
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


STEP_RULES = {name: StepRule(name) for name in STEP_TRIGGERS}


def regret(curve: Curve, rule: Lands, kind: str) -> tuple[Landing, float]:
    """Returns where the rule lands, and what it loses, in points."""
    landing = rule.land(curve, kind)
    return landing, 100 * (curve.best(kind) - landing.accuracy)


class Brief(NamedTuple):
    """What a rule loses over the cells, in points; each cell counts alike.

    Attributes:
        mean: Of the cells' mean regrets.
        median: Of them.
        worst: Of them.
        epochs: What it trains, a fraction of the ceiling.
    """

    mean: float
    median: float
    worst: float
    epochs: float


def brief(
    of_cell: Mapping[str, Sequence[Curve]], kind: str, rule: Lands
) -> Brief:
    """Returns what a rule loses over the cells."""
    lost, used = [], []
    for curves in of_cell.values():
        found = [(curve, *regret(curve, rule, kind)) for curve in curves]
        lost.append(np.mean([points for _, _, points in found]))
        used.append(
            np.mean([landing.epochs / c.ceiling for c, landing, _ in found])
        )
    return Brief(
        mean=float(np.mean(lost)),
        median=float(np.median(lost)),
        worst=float(max(lost)),
        epochs=float(np.mean(used)),
    )


def watched(
    of_cell: Mapping[str, Sequence[Curve]],
) -> dict[str, list[Curve]]:
    """Returns those curves that know when each step trigger would fire."""
    return _where(of_cell, lambda c: c.fired.keys() >= STEP_TRIGGERS.keys())


def fresh(of_cell: Mapping[str, Sequence[Curve]]) -> dict[str, list[Curve]]:
    """Returns the curves that the default rule was not chosen on."""
    return _where(of_cell, lambda curve: curve.seed != CHOSEN_ON)


def _where(
    of_cell: Mapping[str, Sequence[Curve]], keep: Callable[[Curve], bool]
) -> dict[str, list[Curve]]:
    kept = {
        cell: [curve for curve in curves if keep(curve)]
        for cell, curves in of_cell.items()
    }
    return {cell: curves for cell, curves in kept.items() if curves}


def briefly(
    of_cell: Mapping[str, Sequence[Curve]],
    kind: str,
    rules: Mapping[str, Lands] = RULES,
) -> str:
    """A line a rule: what it loses over the cells."""
    lines = [
        f"| rule | mean of {len(of_cell)} cells | median | worst "
        "| epochs, of the ceiling |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, rule in rules.items():
        found = brief(of_cell, kind, rule)
        lines.append(
            f"| {name} | {found.mean:.2f} | {found.median:.2f} "
            f"| {found.worst:.2f} | {100 * found.epochs:.0f} % |"
        )
    return "\n".join(lines)


def markdown(
    of_cell: Mapping[str, Sequence[Curve]],
    kind: str,
    rules: Mapping[str, Lands] = RULES,
) -> str:
    """A line a rule: of each cell the mean; then their mean and the worst.

    Of a cell: points lost, epoch of the switch / epochs trained.
    """
    lines = [["rule", *of_cell, "mean", "worst"]]
    lines.append(["---"] * len(lines[0]))
    for name, rule in rules.items():
        texts = []
        for curves in of_cell.values():
            found = [regret(curve, rule, kind) for curve in curves]
            lost = np.mean([points for _, points in found])
            at = np.mean([landing.switched for landing, _ in found])
            used = np.mean([landing.epochs for landing, _ in found])
            texts.append(f"{lost:.2f}, {at:.0f} / {used:.0f}")
        over = brief(of_cell, kind, rule)
        lines.append([name, *texts, f"{over.mean:.2f}", f"{over.worst:.2f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
