"""Optimizers in pickles and deep copies, with all their state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras


class Weight(NamedTuple):
    """What an optimizer knows of a variable that it trains.

    Attributes:
        path: Its path.
        shape: Its shape.
        dtype: Its dtype.
        decays: Whether weight decay applies.
        overwritten: Whether Keras overwrites it with its gradient.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    decays: bool
    overwritten: bool


def without_state(optimizer: Any) -> tuple[Any, ...]:
    """Returns what pickle keeps of an optimizer that is not built.

    Raises:
        ValueError: If variables are excluded from its weight decay.
    """
    if getattr(optimizer, "_exclude_from_weight_decay", None):
        raise ValueError(
            "`exclude_from_weight_decay(var_list=...)` names variables "
            "of this process: copy or pickle the optimizer after its "
            "first update, or give `var_names`. Received: an optimizer "
            "that is not built"
        )
    return _remade, (*_settings_of(optimizer), None, None)


def with_state(optimizer: Any, weights: Sequence[Weight]) -> tuple[Any, ...]:
    """Returns what pickle keeps of a built one."""
    values = [v.numpy() for v in optimizer.variables]
    return _remade, (*_settings_of(optimizer), list(weights), values)


def _settings_of(optimizer: Any) -> tuple[Any, Any, dict[str, Any]]:
    beside = optimizer.beside_config()
    rate = optimizer._learning_rate
    schedule = keras.optimizers.schedules.LearningRateSchedule
    is_function = callable(rate) and not isinstance(rate, schedule)
    if is_function:  # It stays what it is; Keras would ask for its source.
        beside = {**beside, "learning_rate": rate}
        optimizer._learning_rate = 0.0
    try:
        config = keras.saving.serialize_keras_object(optimizer)
    finally:
        if is_function:
            optimizer._learning_rate = rate
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    return config, pattern, beside


def _remade(
    config: Any,
    pattern: Any,
    beside: dict[str, Any],
    weights: Sequence[Weight] | None,
    values: Sequence[Any] | None,
) -> Any:
    """Makes the optimizer again; pickle calls it."""
    optimizer = keras.saving.deserialize_keras_object(config)
    for name, value in beside.items():
        setattr(optimizer, name, value)
    if pattern is not None:
        optimizer._exclude_from_weight_decay_pattern = pattern
    if weights is None or values is None:
        return optimizer
    stand_ins, excluded = [], []
    for weight in weights:
        stand_in = keras.Variable(
            initializer="zeros", shape=weight.shape, dtype=weight.dtype
        )
        stand_in._path = weight.path
        stand_in.overwrite_with_gradient = weight.overwritten
        stand_ins.append(stand_in)
        if not weight.decays:
            excluded.append(stand_in)
    optimizer.exclude_from_weight_decay(excluded)
    optimizer.build(stand_ins)
    for variable, value in zip(optimizer.variables, values, strict=True):
        variable.assign(value)
    optimizer.wait_for_variables()
    return optimizer
