"""rho, or SGD's learning rate, from the user."""

from __future__ import annotations

from typing import Any

import keras

from keras_hybrid._support import checks
from keras_hybrid.scales.base import Scale


class _Given(Scale):
    """Base of what the user gives: one number a variable."""

    estimated = False

    def granularity(self, scale_scope: str) -> str:
        """Returns that rho is one for all, held once a variable."""
        return "variable"


@checks.registered
class Number(_Given):
    """rho itself, the same for all weights.

    Args:
        rho: Positive float: SGD's learning rate is
            learning_rate * rho * (1 - momentum), as
            keras.optimizers.SGD(momentum=...) counts it.

    Raises:
        TypeError: If `rho` is no number.
        ValueError: If `rho` is not positive.

    Example:
    >>> from keras_hybrid import scales
    >>> scales.Number(30.0)
    Number(rho=30.0)
    """

    def __init__(self, rho: float) -> None:
        self.rho = checks.number("rho", rho, above=0)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"rho": self.rho}


@checks.registered
class LearningRate(_Given):
    """SGD's learning rate as keras.optimizers.SGD(momentum=...) counts it.

    The long form of `HybridOptimizer(sgd_learning_rate=...)`.

    Args:
        learning_rate: Positive float a: a at the switch, following the
            optimizer's `learning_rate` in proportion from there (rho = a /
            ((1 - momentum) * learning_rate), with the first learning rate
            after the switch that is not 0: do not switch inside a warm-up). Or
            a LearningRateSchedule a(j), counted in updates from the switch,
            whatever `learning_rate` does.
        inside_momentum: Boolean, for a schedule (and a cool-down's factor,
            which is part of it). False (default): it multiplies the whole
            momentum, w -= a(j) m / (1 - momentum), so that a drop shortens the
            next step. True: the gradients that come, as in
            keras.optimizers.SGD, m <- momentum m + (1 - momentum) a(j) g and
            w -= m / (1 - momentum), so that a drop shortens the steps over the
            next 1 / (1 - momentum) updates. m of before the switch counts as
            if its gradients had come at a(0). Only with a hard transition to
            SGD alone.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a float is not positive, or is to be inside the momentum.

    Example:
    >>> from keras_hybrid import scales
    >>> scales.LearningRate(0.1)
    LearningRate(learning_rate=0.1)

    References: Sutskever et al. 2013, equations 1 and 2 (the rate inside);
    Goyal et al. 2017, arXiv:1706.02677, section 3, remark 2 (how they differ).
    """

    def __init__(
        self, learning_rate: Any, inside_momentum: bool = False
    ) -> None:
        self.learning_rate = checks.rate_or_schedule(
            "learning_rate", learning_rate
        )
        self.inside_momentum = checks.boolean(
            "inside_momentum", inside_momentum
        )
        if inside_momentum and isinstance(self.learning_rate, float):
            raise ValueError(
                "`inside_momentum` is for a LearningRateSchedule: a number "
                "follows the optimizer's `learning_rate`, which multiplies "
                "the whole momentum. Received: inside_momentum=True, "
                f"learning_rate={self.learning_rate!r}"
            )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, serialized."""
        return {
            "learning_rate": keras.saving.serialize_keras_object(
                self.learning_rate
            ),
            "inside_momentum": self.inside_momentum,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Scale:
        """Makes the scale that `get_config` described."""
        rate = keras.saving.deserialize_keras_object(config["learning_rate"])
        # Not in files of 0.3.
        return cls(rate, config.get("inside_momentum", False))

    def __repr__(self) -> str:
        inside = ", inside_momentum=True" if self.inside_momentum else ""
        return f"LearningRate(learning_rate={self.learning_rate!r}{inside})"
