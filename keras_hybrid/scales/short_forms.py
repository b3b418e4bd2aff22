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
        return value
    if isinstance(value, str):
        return checks.choice(name, value, NAMES)
    return checks.number(name, value, above=0)


def scale_of(value: str | float | Scale) -> Scale:
    """Returns the scale that an argument stands for."""
    if isinstance(value, Scale):
        return value
    return NAMES[value]() if isinstance(value, str) else Number(value)
