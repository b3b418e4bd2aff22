"""How: the weight of SGD after the switch, the mixing path, the cool-down.

A transition says what weight SGD has `position` updates after the switch and
how the two step sizes are mixed. A cool-down is the learning rate's fall that
starts at the switch. All are pure: settings in, tensors out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_hybrid import rules
from keras_hybrid._support import checks

Tensor = Any


def _cos(x: Tensor) -> Tensor:
    """Of x's own precision: on JAX `ops.cos` of float64 is float32."""
    if keras.backend.backend() != "jax":
        return ops.cos(x)
    import jax

    return jax.numpy.cos(x)


# Curves take s = (position + 1) / steps, which grows past 1.


def _linear(s: Tensor) -> Tensor:
    return rules.at_most(s, 1.0)


def _cosine(s: Tensor) -> Tensor:
    return (1 - _cos(math.pi * _linear(s))) / 2


def _exponential(s: Tensor) -> Tensor:
    # The curve of DSTAdam with its default coefficient. At s = 1 it is
    # 1 - 1e-8, which float32 rounds to 1.
    return ops.where(s <= 1, 1 - ops.exp(math.log(1e-8) * s), 1.0)


def _akiba(s: Tensor) -> Tensor:
    # exp(2 (e - c) / p) / 2 up to epoch c, then 1/2 + (e - c) / p up to 1 at
    # c + p / 2, with c = 10 and p = 5 epochs: s = e / 12.5, so c is at 0.8
    # and p spans 0.4.
    rise = ops.exp(2 * rules.at_most(s - 0.8, 0.0) / 0.4) / 2
    # 1/2 + (s - 0.8) / 0.4 is 2.5 s - 1.5, which is exactly 1 at s = 1.
    return ops.where(s < 0.8, rise, _linear(2.5 * s - 1.5))


def _hyperbolic(s: Tensor) -> Tensor:
    # gamma k / (gamma k + 1) with gamma = 1 / steps, k = position + 1.
    return s / (s + 1)


CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": _linear,
    "cosine": _cosine,
    "exponential": _exponential,
    "akiba": _akiba,
    "hyperbolic": _hyperbolic,
}


def _arithmetic(adaptive: Tensor, sgd: Tensor, weight: Tensor) -> Tensor:
    return (1 - weight) * adaptive + weight * sgd


def _geometric(adaptive: Tensor, sgd: Tensor, weight: Tensor) -> Tensor:
    return ops.power(adaptive, 1 - weight) * ops.power(sgd, weight)


def _clip(adaptive: Tensor, sgd: Tensor, weight: Tensor) -> Tensor:
    # Weight 0 bounds nothing: [0, inf). Weight 1 leaves only sgd.
    started = weight > 0
    upper = ops.where(
        started, sgd / ops.where(started, weight, 1), float("inf")
    )
    return rules.at_most(rules.at_least(adaptive, sgd * weight), upper)


PATHS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "arithmetic": _arithmetic,
    "geometric": _geometric,
    "clip": _clip,
}


class Transition:
    """Base of `Hard` and `Blend`: a weight curve, a path and an end weight.

    Attributes:
        end: Float in [0, 1], default 1.0: the final weight of SGD.
    """

    end: float = 1.0

    @property
    def is_at_once(self) -> bool:
        """Whether SGD is alone from the switch on."""
        return False

    def weight(self, position: Tensor) -> Tensor:
        """Returns SGD's weight `position` (0, 1, ...) updates after the switch.

        Args:
            position: Float tensor of any shape, at least 0.
        """
        raise NotImplementedError

    def mix(self, adaptive: Tensor, sgd: Tensor, weight: Tensor) -> Tensor:
        """Mixes two step sizes; weight 0 gives `adaptive`, weight 1 `sgd`."""
        return _arithmetic(adaptive, sgd, weight)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments by name.

        A transition without arguments has this one.

        Raises:
            TypeError: If the class has arguments and no `get_config`.
        """
        return checks.empty_config(self, "transition")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Transition:
        """Makes the transition that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        return checks.call_text(self)


@checks.registered
class Hard(Transition):
    """The switch in one update: SGD's weight goes from 0 to `end`.

    Args:
        end: Float in [0, 1], default 1.0: the final weight of SGD. 1 is SGD;
            between 0 and 1 both steps stay mixed, (1 - end) * adaptive + end *
            SGD; 0 keeps Adam (with a `Cooldown`, the schedule-matched control).

    Raises:
        TypeError: If `end` is no number.
        ValueError: If `end` is outside [0, 1].

    Example:
    >>> from keras_hybrid import HybridOptimizer, transitions, triggers
    >>> HybridOptimizer(
    ...     trigger=triggers.AtStep(1000), transition=transitions.Hard()
    ... ).transition
    Hard(end=1.0)
    """

    def __init__(self, end: float = 1.0) -> None:
        self.end = checks.number("end", end, low=0, high=1)

    @property
    def is_at_once(self) -> bool:
        """Whether SGD is alone from the switch on."""
        return self.end == 1

    def weight(self, position: Tensor) -> Tensor:
        """Returns `end`, whatever the position."""
        return ops.zeros_like(position) + self.end

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"end": self.end}


@checks.registered
class Blend(Transition):
    """A smooth transition: SGD's weight grows from 0 to `end`.

    Update j after the switch (j = 0, 1, ...) has the weight
    end * curve((j + 1) / steps), so `Blend(1)` is `Hard()`.

    Curves, for s from 0 to 1 (then they stay at 1):
      - `"linear"`: s.
      - `"cosine"`: (1 - cos(pi s)) / 2.
      - `"exponential"`: 1 - 1e-8^s, most of it early (DSTAdam's).
      - `"akiba"`: exp((s - 0.8) / 0.2) / 2 up to s = 0.8, then
        1/2 + (s - 0.8) / 0.4: slow, then fast (Akiba et al. 2017, section 3.2,
        with its 10 and 5 epochs as fractions of 12.5).
      - `"hyperbolic"`: s / (s + 1), half of the way at s = 1 and never over
        (AdaBound's, with gamma = 1 / steps).

    Paths between the adaptive step size A and SGD's step size R, at weight x:
      - `"arithmetic"`: (1 - x) A + x R.
      - `"geometric"`: A^(1 - x) R^x (the power of Padam).
      - `"clip"`: A clipped to [x R, R / x] (the bounds of AdaBound).

    Args:
        steps: Integer of at least 1: the length of the transition in updates.
        curve: `"linear"` (default), `"cosine"`, `"exponential"`, `"akiba"` or
            `"hyperbolic"`.
        path: `"arithmetic"` (default), `"geometric"` or `"clip"`.
        end: Float in [0, 1], default 1.0: the final weight, as in `Hard`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range or choices.

    Example:
    >>> from keras_hybrid import transitions
    >>> blend = transitions.Blend(4, curve="linear")
    >>> [float(blend.weight(float(j))) for j in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(
        self,
        steps: int,
        curve: str = "linear",
        path: str = "arithmetic",
        end: float = 1.0,
    ) -> None:
        self.steps = checks.integer("steps", steps, low=1)
        self.curve = checks.choice("curve", curve, CURVES)
        self.path = checks.choice("path", path, PATHS)
        self.end = checks.number("end", end, low=0, high=1)

    def weight(self, position: Tensor) -> Tensor:
        """Returns end * curve((position + 1) / steps)."""
        position = ops.convert_to_tensor(position)
        return self.end * CURVES[self.curve]((position + 1) / self.steps)

    def mix(self, adaptive: Tensor, sgd: Tensor, weight: Tensor) -> Tensor:
        """Mixes two step sizes along the path."""
        return PATHS[self.path](adaptive, sgd, weight)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "steps": self.steps,
            "curve": self.curve,
            "path": self.path,
            "end": self.end,
        }


COOLDOWN_CURVES = {
    "cosine": lambda s: (1 + _cos(math.pi * s)) / 2,
    "linear": lambda s: 1 - s,
    "1-sqrt": lambda s: 1 - ops.sqrt(s),
}


@checks.registered
class Cooldown:
    """The learning rate's fall that starts when the trigger fires.

    Update j after the switch is multiplied with
    final + (1 - final) * curve(min(j / length, 1)), where curve is
    (1 + cos(pi s)) / 2, 1 - s, or 1 - sqrt(s): keras' CosineDecay counted from
    the switch. The factor falls on weight decay too, as a schedule of the
    learning rate would. It does not change `optimizer.learning_rate`.

    The length, in updates, is `steps`; or `share` of the updates before the
    switch, rounded, but no more than the training has left where that is
    known; or, without both, all that the training has left. `SwitchCallback`
    and `TrainUntilDone` tell the optimizer how long the training is, and again
    where that changes (a skipped update, an epoch that ends early); in a loop
    of your own, set `optimizer.training_steps`.

    Source of `"1-sqrt"`: Hägele et al. 2024, arXiv:2405.18392, section 3.

    Args:
        curve: `"cosine"` (default), `"linear"` or `"1-sqrt"`.
        steps: None (default) or an integer of at least 1.
        share: None (default) or a float above 0. Updates before the switch are
            counted from the start of the training, or from the last
            `optimizer.restart()`.
        final: Float in [0, 1], default 0.0: the last value of the factor.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range or choices, or `steps`
            and `share` are both given.

    Example:
    >>> from keras_hybrid import transitions
    >>> cooldown = transitions.Cooldown("linear", share=0.5, final=0.2)
    >>> factors = [cooldown.factor(float(j), 99.0, 8.0) for j in range(6)]
    >>> [round(float(factor), 3) for factor in factors]
    [1.0, 0.8, 0.6, 0.4, 0.2, 0.2]
    """

    def __init__(
        self,
        curve: str = "cosine",
        steps: int | None = None,
        share: float | None = None,
        final: float = 0.0,
    ) -> None:
        self.curve = checks.choice("curve", curve, COOLDOWN_CURVES)
        self.steps = (
            None if steps is None else checks.integer("steps", steps, low=1)
        )
        self.share = (
            None if share is None else checks.number("share", share, above=0)
        )
        if steps is not None and share is not None:
            raise ValueError(
                "`share` must be None where `steps` says how long the "
                f"cool-down is ({steps} updates). Received: share={share!r}"
            )
        self.final = checks.number("final", final, low=0, high=1)

    @property
    def ends_with_training(self) -> bool:
        """Whether it lasts until the end of the training."""
        return self.steps is None and self.share is None

    def length(self, remaining: Tensor, before: Tensor) -> Tensor:
        """Returns the number of updates of the cool-down.

        Args:
            remaining: Float tensor: updates from the switch to the end of the
                training, infinite where that is not known.
            before: Float tensor: updates before the switch.
        """
        remaining = ops.convert_to_tensor(remaining)
        if self.steps is not None:
            return ops.maximum(ops.full_like(remaining, self.steps), 1)
        if self.share is not None:
            before = ops.cast(ops.convert_to_tensor(before), remaining.dtype)
            remaining = ops.minimum(ops.round(self.share * before), remaining)
        return ops.maximum(remaining, 1)

    def factor(
        self, position: Tensor, remaining: Tensor, before: Tensor = 0.0
    ) -> Tensor:
        """Returns the factor on the learning rate.

        Args:
            position: Float tensor: updates since the switch.
            remaining: As for `length`.
            before: As for `length`.
        """
        position = ops.convert_to_tensor(position)
        length = ops.cast(self.length(remaining, before), position.dtype)
        s = ops.clip(position / length, 0, 1)
        return self.final + (1 - self.final) * COOLDOWN_CURVES[self.curve](s)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "curve": self.curve,
            "steps": self.steps,
            "share": self.share,
            "final": self.final,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Cooldown:
        """Makes the cool-down that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        return checks.call_text(self)
