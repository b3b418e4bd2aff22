"""What a trigger is: the two families, and what each is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from keras_hybrid._support import checks

Tensor = Any


class Signals(NamedTuple):
    """What a step trigger sees of the update just made.

    Attributes:
        step: Integer tensor, the index of that update, counted from 0.
        learning_rate: Scalar tensor, the learning rate without cool-down.
        correction_1: 1 - beta_1^k.
        correction_2: 1 - beta_2^k, one entry a group.
        beta_1: Float.
        beta_2: Float.
        step_square: p.p of the adaptive step p at unit learning rate, summed
            over the weights of each group; None unless needed. So all below.
        step_descent: -p.g.
        moment_square: m.m, the first moment (uncorrected).
        second_moment: The sum of v (uncorrected).
    """

    step: Tensor
    learning_rate: Tensor
    correction_1: Tensor
    correction_2: Tensor
    beta_1: float
    beta_2: float
    step_square: Tensor = None
    step_descent: Tensor = None
    moment_square: Tensor = None
    second_moment: Tensor = None


# What `StepTrigger.needs` may name.
SUMS = frozenset(Signals._field_defaults)


class Trigger:
    """What both families share: composition, config and text."""

    # What `|` and `&` make of a family: the module `combined` sets them.
    any_of: ClassVar[Callable[[list[Any]], Any]]
    all_of: ClassVar[Callable[[list[Any]], Any]]

    def _check_family(self, other: Any, operator: str) -> None:
        family = StepTrigger if isinstance(self, StepTrigger) else EpochTrigger
        if not isinstance(other, family):
            raise TypeError(
                f"`{operator}` composes triggers of one family: a step trigger "
                "runs inside the compiled update, an epoch trigger on the "
                f"logs. Received: {self!r} {operator} {other!r}"
            )

    def __or__(self, other: Any) -> Any:
        self._check_family(other, "|")
        return type(self).any_of([self, other])

    def __and__(self, other: Any) -> Any:
        self._check_family(other, "&")
        return type(self).all_of([self, other])

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments by name.

        A trigger without arguments has this one; of others it is needed for
        files and messages.

        Raises:
            TypeError: If the class has arguments and no `get_config`.
        """
        return checks.empty_config(self, "trigger")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Makes the trigger that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        return checks.call_text(self)


class StepTrigger(Trigger):
    """Base of the triggers that are given to `HybridOptimizer(trigger=...)`.

    Attributes:
        needs: Names of the `Signals` that `update` reads.
        fires_at_start: Whether SGD makes the very first update.
    """

    needs: frozenset[str] = frozenset()
    fires_at_start: bool = False

    def init(self, groups: int) -> list[np.ndarray]:
        """Returns the state before the first update, one entry a group."""
        return []

    def update(
        self, state: list[Tensor], signals: Signals
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns whether the groups switch before the next update.

        And the new state. The first is a bool tensor of shape () or (groups,).
        """
        raise NotImplementedError


class EpochTrigger(Trigger):
    """Base of the triggers that are given to `SwitchCallback`.

    Attributes:
        state_names: Names of the attributes that `update` changes, floats.
    """

    state_names: tuple[str, ...] = ()

    def read(self, epoch: int, logs: Mapping[str, float]) -> float:
        """Returns the value for `update` at the end of epoch `epoch`."""
        raise NotImplementedError

    def update(self, value: float) -> bool:
        """Takes the value of one epoch, says whether the condition holds."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forgets all epochs."""

    def monitors(self) -> list[str]:
        """Returns the names of the metrics that it reads."""
        name = getattr(self, "monitor", None)
        return [] if name is None else [name]

    def check(self, epoch: int, logs: Mapping[str, float]) -> bool:
        """Reads the logs of epoch `epoch` (counted from 0) and updates.

        Raises:
            ValueError: If a monitored metric is not in the logs.
        """
        return self.update(self.read(epoch, logs))

    def get_state(self) -> list[float]:
        """Returns what `update` has changed, as floats."""
        return [float(getattr(self, name)) for name in self.state_names]

    def set_state(self, state: list[float]) -> None:
        """Takes back what `get_state` returned."""
        for name, value in zip(self.state_names, state, strict=True):
            setattr(self, name, value)
