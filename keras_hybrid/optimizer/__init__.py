"""The optimizer."""

from keras_hybrid.optimizer.hybrid import (
    EPOCH_STATE_SIZE,
    HybridOptimizer,
    NoEstimate,
)

__all__ = ["EPOCH_STATE_SIZE", "HybridOptimizer", "NoEstimate"]
