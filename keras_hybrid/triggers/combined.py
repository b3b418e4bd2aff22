"""Triggers made of others: `a | b` and `a & b`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_hybrid._support import checks
from keras_hybrid.triggers.base import (
    EpochTrigger,
    Signals,
    StepTrigger,
    Tensor,
)


class _Composite:
    """The members of an `|` or `&`, for both families."""

    operator: str

    def __init__(self, triggers: list[Any]) -> None:
        family = StepTrigger if isinstance(self, StepTrigger) else EpochTrigger
        listed = isinstance(triggers, (list, tuple))
        if not listed or not all(isinstance(t, family) for t in triggers):
            raise TypeError(
                f"`triggers` must be a list of {family.__name__}s. Received: "
                f"triggers={triggers!r}"
            )
        self.triggers = list(triggers)
        leaves = [id(leaf) for leaf in self._leaves()]
        if not leaves or len(set(leaves)) < len(leaves):
            raise ValueError(
                "`triggers` must hold at least one trigger, each only once (it "
                f"keeps a state). Received: triggers={triggers!r}"
            )

    def _leaves(self) -> list[Any]:
        return [
            leaf
            for t in self.triggers
            for leaf in (t._leaves() if isinstance(t, _Composite) else [t])
        ]

    def get_config(self) -> dict[str, Any]:
        """Returns the members, serialized."""
        return {
            "triggers": [
                keras.saving.serialize_keras_object(t) for t in self.triggers
            ]
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Makes the composite that `get_config` described."""
        return cls(
            [
                keras.saving.deserialize_keras_object(t)
                for t in config["triggers"]
            ]
        )

    def __repr__(self) -> str:
        members = f" {self.operator} ".join(repr(t) for t in self.triggers)
        return f"({members})"


class _StepComposite(_Composite, StepTrigger):
    """Feeds every member and combines what they say."""

    combine: Callable[[Tensor, Tensor], Tensor]

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """What any member needs."""
        return frozenset().union(*(t.needs for t in self.triggers))

    def init(self, groups: int) -> list[np.ndarray]:
        """Returns the members' states in a row."""
        return [s for t in self.triggers for s in t.init(groups)]

    def update(
        self, state: list[Tensor], signals: Signals
    ) -> tuple[Tensor, list[Tensor]]:
        """Updates every member, whatever the others say."""
        fired, new_state = None, []
        for trigger in self.triggers:
            length = len(trigger.init(1))
            part, state = state[:length], state[length:]
            fires, part = trigger.update(part, signals)
            new_state += part
            fired = fires if fired is None else self.combine(fired, fires)
        return fired, new_state


@checks.registered
class AnyStep(_StepComposite):
    """What `a | b` makes of step triggers."""

    operator = "|"
    combine = staticmethod(ops.logical_or)

    @property
    def fires_at_start(self) -> bool:  # type: ignore[override]
        """Whether any member does."""
        return any(t.fires_at_start for t in self.triggers)


@checks.registered
class AllSteps(_StepComposite):
    """What `a & b` makes of step triggers."""

    operator = "&"
    combine = staticmethod(ops.logical_and)

    @property
    def fires_at_start(self) -> bool:  # type: ignore[override]
        """Whether all members do."""
        return all(t.fires_at_start for t in self.triggers)


class _EpochComposite(_Composite, EpochTrigger):
    """Checks every member and combines what they say."""

    combine: Callable[[list[bool]], bool]

    def check(self, epoch: int, logs: Mapping[str, float]) -> bool:
        """Checks every member, whatever the others say."""
        held = [trigger.check(epoch, logs) for trigger in self.triggers]
        return self.combine(held)

    def update(self, value: float) -> bool:
        """Not for composites: their members read different metrics."""
        raise TypeError(
            "A composed epoch trigger has no single value: use "
            f"`check(epoch, logs)`. Received: update({value!r})"
        )

    def monitors(self) -> list[str]:
        """Returns the members' names."""
        return [name for t in self.triggers for name in t.monitors()]

    def reset(self) -> None:
        """Resets every member."""
        for trigger in self.triggers:
            trigger.reset()

    def get_state(self) -> list[float]:
        """Returns the members' states in a row."""
        return [s for t in self.triggers for s in t.get_state()]

    def set_state(self, state: list[float]) -> None:
        """Takes back what `get_state` returned."""
        for trigger in self.triggers:
            length = len(trigger.get_state())
            trigger.set_state(state[:length])
            state = state[length:]


@checks.registered
class AnyEpoch(_EpochComposite):
    """What `a | b` makes of epoch triggers."""

    operator = "|"
    combine = staticmethod(any)


@checks.registered
class AllEpochs(_EpochComposite):
    """What `a & b` makes of epoch triggers."""

    operator = "&"
    combine = staticmethod(all)


StepTrigger.any_of, StepTrigger.all_of = AnyStep, AllSteps
EpochTrigger.any_of, EpochTrigger.all_of = AnyEpoch, AllEpochs
