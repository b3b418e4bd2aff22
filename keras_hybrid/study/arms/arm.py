"""An arm: one way of training, and how long it trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from keras_hybrid.plans import epoch_at
from keras_hybrid.triggers import EpochTrigger

ADAM_LEARNING_RATE = 1e-3  # Adam's default: where the tuning starts.
SHORT = 0.7  # Of the epochs, in arms that show how much fewer are enough.


class Budget(NamedTuple):
    """How long a run trains."""

    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Updates of the whole run."""
        return self.epochs * self.steps_per_epoch

    def epoch(self, fraction: float) -> int:
        """The epoch at a fraction of the run, neither its start nor its end."""
        return epoch_at(fraction, self.epochs)

    @property
    def switch_epoch(self) -> int:
        """Half of the epochs, at least one."""
        return max(1, self.epochs // 2)


Made = tuple[Any, EpochTrigger | None]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: Short name, for files and the command line.
        label: Name for people.
        role: "baseline", "control" or "hybrid".
        make: Returns the optimizer and the epoch trigger (or None) of a budget
            and a learning rate.
        learning_rate: The one it has untuned.
        share: The fraction of the cell's epochs that it gets.
        tuned_as: The arm whose tuned learning rate it takes; None: its own.
        control: For hybrids of the study, the arm with the same trigger,
            cool-down and decay that stays with Adam; None: there is none.
        callbacks: Makes the callbacks that decide when it is done, for one
            run; None: it trains for all epochs.
    """

    name: str
    label: str
    role: str
    make: Callable[[Budget, float], Made]
    learning_rate: float = ADAM_LEARNING_RATE
    share: float = 1.0
    tuned_as: str | None = None
    control: str | None = None
    callbacks: Callable[[], list[Any]] | None = None

    def budget(self, epochs: int, steps_per_epoch: int) -> Budget:
        """Returns what the arm gets in a cell of so many epochs."""
        return Budget(max(2, round(self.share * epochs)), steps_per_epoch)

    def shortened(self) -> Arm:
        """Returns the arm at 70 % of the epochs."""
        return dataclasses.replace(
            self,
            name=f"{self.name}@70",
            label=f"{self.label}, 70 % of the epochs",
            share=SHORT,
            tuned_as=self.tuned_as or self.name,
            control=None if self.control is None else f"{self.control}@70",
        )


def named(arms: Iterable[Arm]) -> dict[str, Arm]:
    """Name -> arm, in their order."""
    return {arm.name: arm for arm in arms}
