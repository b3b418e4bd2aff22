"""The callbacks of `model.fit`."""

from keras_hybrid.callbacks.backup import ExactBackup
from keras_hybrid.callbacks.divergence import Diverged, DivergenceGuard
from keras_hybrid.callbacks.models import hybrid_optimizer
from keras_hybrid.callbacks.switch import SwitchCallback
from keras_hybrid.callbacks.until_done import TrainUntilDone

__all__ = [
    "Diverged",
    "DivergenceGuard",
    "ExactBackup",
    "SwitchCallback",
    "TrainUntilDone",
    "hybrid_optimizer",
]
