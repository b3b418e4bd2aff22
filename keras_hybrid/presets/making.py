"""How a preset is made from what it sets and what it is given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_hybrid._support import checks
from keras_hybrid.optimizer import HybridOptimizer


def made(
    preset: Callable[..., HybridOptimizer],
    kind: type[HybridOptimizer],
    kwargs: dict[str, Any],
    **settings: Any,
) -> HybridOptimizer:
    """Makes `preset` from what it sets and what it was given beyond that."""
    shared = set(HybridOptimizer().get_config()) - set(settings)
    wrong = {k: v for k, v in kwargs.items() if k not in shared}
    if wrong:
        own = list(inspect.signature(preset).parameters)[:-1]
        fixed = [name for name in settings if name not in own]
        raise TypeError(
            f"{preset.__name__} takes {', '.join(own)} and the arguments of "
            f"HybridOptimizer, without {', '.join(fixed)}, which it sets "
            "itself. Received: "
            + ", ".join(f"{k}={v!r}" for k, v in wrong.items())
        )
    return kind(**settings, **kwargs)


def first_rate(learning_rate: Any) -> float:
    """The first value of a float or schedule."""
    if isinstance(
        learning_rate, keras.optimizers.schedules.LearningRateSchedule
    ):
        try:
            learning_rate = learning_rate.initial_learning_rate
        except AttributeError as error:
            raise TypeError(
                "`learning_rate` must be a float or a schedule with "
                "`initial_learning_rate`. Received: "
                f"learning_rate={learning_rate!r}"
            ) from error
    return checks.number("learning_rate", learning_rate, above=0)


def check_first_rate(learning_rate: Any) -> None:
    """Refuses a warm-up from 0, at which SGD's rate would be fixed."""
    schedule = keras.optimizers.schedules.LearningRateSchedule
    if isinstance(learning_rate, schedule) and not learning_rate(0) > 0:
        raise ValueError(
            "`learning_rate` must begin above 0: SGD's rate follows it from "
            "its first value on. Received: learning_rate="
            f"{type(learning_rate).__name__}, {float(learning_rate(0)):g} at 0"
        )
