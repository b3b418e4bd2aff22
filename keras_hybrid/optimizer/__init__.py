"""The optimizer."""

from keras_hybrid.optimizer.hybrid import HybridOptimizer
from keras_hybrid.optimizer.phased import NoEstimate
from keras_hybrid.optimizer.state import EPOCH_STATE_SIZE

__all__ = ["EPOCH_STATE_SIZE", "HybridOptimizer", "NoEstimate"]
