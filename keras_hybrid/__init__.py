"""Adam's fast start, SGD's finish: one Keras 3 optimizer."""

import os
import sys

if os.path.basename(sys.argv[0]) == "keras-hybrid":
    # The command line alone: TensorFlow reads it when it is imported, and its
    # start-up notes would run through the progress bar.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from keras_hybrid import presets, scales, transitions, triggers
from keras_hybrid._version import __version__
from keras_hybrid.callbacks import (
    DivergenceGuard,
    ExactBackup,
    SwitchCallback,
    TrainUntilDone,
)
from keras_hybrid.optimizer import HybridOptimizer

__all__ = [
    "DivergenceGuard",
    "ExactBackup",
    "HybridOptimizer",
    "SwitchCallback",
    "TrainUntilDone",
    "__version__",
    "presets",
    "scales",
    "transitions",
    "triggers",
]
