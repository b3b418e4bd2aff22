"""The callbacks of `model.fit`."""

from keras_hybrid.backup import ExactBackup
from keras_hybrid.divergence import Diverged, DivergenceGuard
from keras_hybrid.fits import hybrid_optimizer
from keras_hybrid.switching import SwitchCallback
from keras_hybrid.until_done import TrainUntilDone

__all__ = [
    "Diverged",
    "DivergenceGuard",
    "ExactBackup",
    "SwitchCallback",
    "TrainUntilDone",
    "hybrid_optimizer",
]
