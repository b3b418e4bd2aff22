"""Learning rates that the published methods follow."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import keras
from keras import ops

from keras_hybrid import rules
from keras_hybrid._support import checks

Tensor = Any


class _Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Base of two schedules in the precision of `step`, a float tensor.

    Keras' own compute in float32, whatever the weights' type.
    """

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, kept under their names."""
        names = list(inspect.signature(type(self)).parameters)
        return {name: getattr(self, name) for name in names}


@checks.registered
class LinearFall(_Schedule):
    """From `first` at step 0 to `last` at step `steps`, and on with that."""

    def __init__(self, first: float, last: float, steps: int) -> None:
        self.first = first
        self.last = last
        self.steps = steps

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the value at `step`."""
        s = rules.at_most(step / self.steps, 1)
        return self.first + (self.last - self.first) * s


@checks.registered
class StepDecay(_Schedule):
    """`first`, multiplied with `rate` once more at each of `steps`."""

    def __init__(self, first: float, rate: float, steps: list[int]) -> None:
        self.first = first
        self.rate = rate
        self.steps = steps

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the value at `step`."""
        # Not two numbers of Python's, which would be float32.
        one = ops.ones_like(step / 1)
        factors = [
            ops.where(step >= s, one * self.rate, one) for s in self.steps
        ]
        return self.first * functools.reduce(ops.multiply, factors)
