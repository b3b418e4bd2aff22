"""What `HybridOptimizer(sgd_scale=...)` may be beside a scale."""

from __future__ import annotations

from typing import Any

from keras_hybrid._support import checks
from keras_hybrid.scales.averaged import Momentum, Norm, Projection, Swats
from keras_hybrid.scales.base import Scale
from keras_hybrid.scales.given import Number
from keras_hybrid.scales.slots import Slots

# The strings of `HybridOptimizer(sgd_scale=...)`.
NAMES: dict[str, type[Scale]] = {
    "slots": Slots,
    "projection": Projection,
    "momentum": Momentum,
    "swats": Swats,
    "norm": Norm,
}


def scale_argument(name: str, value: Any) -> str | float | Scale:
    """Returns what `sgd_scale` may be, checked."""
    if isinstance(value, Scale):
        return _whole(name, value)
    if isinstance(value, str):
        return checks.choice(name, value, NAMES)
    if value is None or isinstance(value, type) or callable(value):
        raise TypeError(
            f"`{name}` must be one of {', '.join(NAMES)}, a scale such as "
            f"scales.Slots(), or a number > 0. Received: {name}={value!r}"
        )
    return checks.number(name, value, above=0)


def _whole(name: str, scale: Scale) -> Scale:
    """Refuses a scale of the user's own that could not estimate."""
    needed = {"estimate": scale.estimated, "update": bool(scale.needs)}
    lacks = [m for m, is_needed in needed.items() if is_needed]
    lacks = [method for method in lacks if not hasattr(scale, method)]
    if lacks:
        raise TypeError(
            f"`{name}` needs the methods that it estimates rho with (see "
            f"scales.Projection): it has no {' and no '.join(lacks)}. "
            f"Received: {name}={scale!r}"
        )
    return scale


def scale_of(value: str | float | Scale) -> Scale:
    """Returns the scale that an argument stands for."""
    if isinstance(value, Scale):
        return value
    return NAMES[value]() if isinstance(value, str) else Number(value)
