"""The published methods, each a point in the table of when, how and how fast.

Every preset returns a configured `HybridOptimizer`. Three need another form of
the adaptive step than Keras' Adam has, and are small subclasses (`forms`); all
else is the shared mechanism.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_hybrid._support import checks
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.presets.blends import MAS, AdaBound, AMSBound, DSTAdam, Padam
from keras_hybrid.presets.forms import (
    CorrectedHybrid,
    StepMomentumHybrid,
    UncorrectedHybrid,
)
from keras_hybrid.presets.schedules import LinearFall, StepDecay
from keras_hybrid.presets.switches import GNMT, SWATS, Grafted, RMSpropWarmup

__all__ = [
    "AMSBound",
    "AdaBound",
    "CorrectedHybrid",
    "DSTAdam",
    "GNMT",
    "Grafted",
    "LinearFall",
    "MAS",
    "PRESETS",
    "Padam",
    "RMSpropWarmup",
    "SWATS",
    "StepDecay",
    "StepMomentumHybrid",
    "UncorrectedHybrid",
    "by_name",
]

PRESETS: dict[str, Callable[..., HybridOptimizer]] = {
    preset.__name__: preset
    for preset in (
        SWATS,
        GNMT,
        Grafted,
        RMSpropWarmup,
        AdaBound,
        AMSBound,
        DSTAdam,
        Padam,
        MAS,
    )
}


def by_name(name: str, /, **arguments: Any) -> HybridOptimizer:
    """Makes a preset from its name.

    Args:
        name: One of `PRESETS`, as it is spelled there.
        **arguments: The preset's own and further ones of `HybridOptimizer`.

    Raises:
        TypeError: If an argument has the wrong type, is missing, or is not
            the preset's.
        ValueError: If the name is unknown or an argument is outside its range.

    Example:
    >>> from keras_hybrid import presets
    >>> presets.by_name("Grafted", switch_step=500).trigger
    AtStep(n=500)
    """
    return PRESETS[checks.choice("name", name, PRESETS)](**arguments)
