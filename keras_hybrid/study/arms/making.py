"""The kinds of arms there are: each function makes one from its choices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.study.arms.arm import ADAM_LEARNING_RATE, Arm, Budget, Made
from keras_hybrid.transitions import Blend, Cooldown
from keras_hybrid.triggers import AtEpoch, EpochTrigger


def make_cosine(
    name: str,
    label: str,
    optimizer: Callable[..., Any],
    learning_rate: float = ADAM_LEARNING_RATE,
    **arguments: Any,
) -> Arm:
    """A baseline of Keras, its learning rate on a cosine to zero."""

    def make(budget: Budget, rate: float) -> Made:
        schedule = keras.optimizers.schedules.CosineDecay(rate, budget.steps)
        return optimizer(schedule, **arguments), None

    return Arm(name, label, "baseline", make, learning_rate)


def make_hybrid(
    name: str,
    label: str,
    when: Callable[[Budget], Any] = lambda b: AtEpoch(b.switch_epoch),
    how: Callable[[Budget], Any] = lambda b: None,
    role: str = "hybrid",
    **arguments: Any,
) -> Arm:
    """Adam at a constant rate until the trigger, then a cool-down."""

    def make(budget: Budget, rate: float) -> Made:
        trigger = when(budget)
        own = None if isinstance(trigger, EpochTrigger) else trigger
        optimizer = HybridOptimizer(
            rate,
            trigger=own,
            transition=how(budget),
            **{"cooldown": Cooldown(), **arguments},
        )
        return optimizer, trigger if own is None else None

    return Arm(name, label, role, make)


def at(fraction: float) -> Callable[[Budget], EpochTrigger]:
    """Returns what makes the trigger at a fraction of a budget's epochs."""
    return lambda budget: AtEpoch(budget.epoch(fraction))


def blend_half(**arguments: Any) -> Callable[[Budget], Blend]:
    """Returns what makes the blend of a budget that switches at half.

    It takes the first half of the updates that are left.
    """

    def make(budget: Budget) -> Blend:
        left = budget.steps - budget.switch_epoch * budget.steps_per_epoch
        return Blend(max(1, left // 2), **arguments)

    return make


def make_preset(
    name: str, label: str, make: Callable[[Budget, float], HybridOptimizer]
) -> Arm:
    """A published method, which brings its own trigger."""
    return Arm(
        name, label, "hybrid", lambda budget, rate: (make(budget, rate), None)
    )


def make_ending(
    name: str,
    label: str,
    callbacks: Callable[[], list[Any]] | None,
    optimizer: Callable[..., Any] = keras.optimizers.Adam,
    role: str = "baseline",
    control: str | None = None,
    **arguments: Any,
) -> Arm:
    """A constant learning rate, and callbacks that decide what comes of it."""

    def make(budget: Budget, rate: float) -> Made:
        return optimizer(rate, **arguments), None

    return Arm(name, label, role, make, control=control, callbacks=callbacks)
