"""Adam's fast start, SGD's finish: one Keras 3 optimizer."""

from keras_hybrid import presets, transitions, triggers
from keras_hybrid._version import __version__
from keras_hybrid.callbacks import SwitchCallback
from keras_hybrid.optimizer import HybridOptimizer

__all__ = [
    "HybridOptimizer",
    "SwitchCallback",
    "__version__",
    "presets",
    "transitions",
    "triggers",
]
