"""The search, under the name it is imported by; `tuning` holds it."""

from keras_hybrid.tuning.forked import ForkedTuner, Progress
from keras_hybrid.tuning.hypermodel import (
    DEFAULT_SPACE,
    SPACES,
    SWITCH_POINTS,
    HybridHyperModel,
)
from keras_hybrid.tuning.oracles import ORACLES

__all__ = [
    "DEFAULT_SPACE",
    "ORACLES",
    "SPACES",
    "SWITCH_POINTS",
    "ForkedTuner",
    "HybridHyperModel",
    "Progress",
]
