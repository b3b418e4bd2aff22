"""What the callbacks share: the optimizer inside `fit`, and their voice."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import keras

from keras_hybrid.callbacks import averages
from keras_hybrid.optimizer import HybridOptimizer

_LOGGER = logging.getLogger(__name__)


# From Keras 3.13 on.
_MULTI = getattr(keras.optimizers, "MultiOptimizer", ())


def unwrapped_optimizer(model: Any) -> Any:
    """Returns the model's optimizer (or None), without what wraps it.

    Of a MultiOptimizer that is its HybridOptimizer, if it has just one.
    """
    optimizer = getattr(model, "optimizer", None)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    if not isinstance(optimizer, _MULTI):
        return optimizer
    if not optimizer.optimizers and model.built:
        build_once(model)  # A function that chooses is asked then.
    hybrids = _hybrids_in(optimizer)
    return hybrids[0] if len(hybrids) == 1 else optimizer


def _hybrids_in(optimizer: Any) -> list[HybridOptimizer]:
    """Those that a MultiOptimizer has; none in another optimizer."""
    inner = optimizer.optimizers if isinstance(optimizer, _MULTI) else []
    return [one for one in inner if isinstance(one, HybridOptimizer)]


def weights_are_finite(model: Any) -> bool:
    """Whether a model has numbers for all weights."""
    return averages.are_finite(averages.values_of(model.weights))


def build_once(model: Any) -> None:
    """Builds the optimizer unless it is built.

    Keras' loss scaling would be built, and reset, at each call.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def hybrid_optimizer(model: Any) -> HybridOptimizer:
    """Returns the model's HybridOptimizer, without what wraps it.

    Raises:
        ValueError: If the model is not compiled, or with another optimizer, or
            with several of these.
    """
    optimizer = unwrapped_optimizer(model)
    several = len(_hybrids_in(optimizer))
    if several:
        raise ValueError(
            "A callback can switch one `HybridOptimizer` of a MultiOptimizer; "
            "let the others have step triggers, in a loop without callbacks "
            f"of this library. Received: {several} in optimizer="
            f"{type(optimizer).__name__}"
        )
    if not isinstance(optimizer, HybridOptimizer):
        raise ValueError(
            "The model must be compiled with a `HybridOptimizer`: "
            "model.compile(optimizer=keras_hybrid.HybridOptimizer("
            f"{_rate_text(optimizer)}), ...). Received: "
            f"optimizer={type(optimizer).__name__}"
        )
    return optimizer


def _rate_text(optimizer: Any) -> str:
    """The argument that keeps the learning rate of another Adam."""
    if not isinstance(optimizer, keras.optimizers.Adam):
        return ""
    rate = getattr(optimizer, "_learning_rate", None)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return ""
    return f"learning_rate={float(optimizer.learning_rate):g}"


def build_optimizer(model: Any) -> None:
    """Builds the optimizer of a built model, once, as `fit` is to use it.

    If arguments were assigned to it, `fit` traces its step anew: Keras' has the
    old ones in it.

    A layer that makes its weights with the first batch leaves the optimizer to
    that batch.

    `fit` sets the model of every callback before any begins to train, so a
    BackupAndRestore anywhere in the list finds an optimizer with all its
    variables; into an unbuilt one it would silently restore nothing.

    Raises:
        ValueError: If the model has no HybridOptimizer.
    """
    optimizer = hybrid_optimizer(model)
    if optimizer.outdates_traces:
        model.train_function, optimizer.outdates_traces = None, False
    if model.built and all(layer.built for layer in model._flatten_layers()):
        build_once(model)


def say(message: str, params: Mapping[str, Any] | None = None) -> None:
    """Says a line as Keras does: on the screen, or in the log.

    Args:
        message: Without an end of line.
        params: Of a callback that says it within an epoch: where Keras shows a
            progress bar, that has begun a line.
    """
    if keras.config.is_interactive_logging_enabled():
        begun = (params or {}).get("verbose") == 1
        sys.stdout.write("\n" * begun + message + "\n")
        sys.stdout.flush()
    else:
        _LOGGER.info(message)
