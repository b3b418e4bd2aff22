"""The average of the weights over the epochs, as an honest look ahead.

At a constant learning rate the weights wander about; their average is close to
what a cool-down would give, and its validation loss tells when cooling down
later gains nothing more (Sanyal et al. 2023, arXiv:2306.03241; Hägele et al.
2024, arXiv:2405.18392).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

Arrays = list[np.ndarray]

# The least rise of the averaged weights' validation loss, of its best value and
# in standard errors, that calls for going back.
RISE = 0.02
ERRORS = 2.0


class RunningAverage:
    """A <- A + (w - A) 9 / (e + 8) at the end of epoch e, counted from 1.

    The weight of epoch e's end falls as (e / E)^8 towards the past: it is close
    to the mean over the last fifth of the epochs, in one copy of the weights.
    """

    def __init__(self) -> None:
        self.epochs = 0
        self.values: Arrays = []

    def update(self, weights: Sequence[np.ndarray]) -> None:
        """Takes the weights as they are at an epoch's end."""
        self.epochs += 1
        share = 9 / (self.epochs + 8)
        if self.epochs == 1:
            self.values = [np.array(w) for w in weights]
            return
        for i, w in enumerate(weights):
            if w.dtype.kind != "f":  # A count is not averaged.
                self.values[i] = np.array(w)
                continue
            value = self.values[i].astype("float64")
            value += (w.astype("float64") - value) * share
            self.values[i] = value.astype(w.dtype)


def values_of(variables: Sequence[Any]) -> Arrays:
    """Returns copies; of bfloat16, which NumPy's files lack, in float32."""
    arrays = [np.array(v.numpy()) for v in variables]
    return [a.astype("float32") if a.dtype.kind == "V" else a for a in arrays]


@contextlib.contextmanager
def in_place(model: Any, values: Sequence[np.ndarray]) -> Iterator[None]:
    """Puts other values in `model.weights`, and gives its own back.

    These are the weights, and the moments of normalizations.
    """
    own = values_of(model.weights)
    _assign(model.weights, values)
    try:
        yield
    finally:
        _assign(model.weights, own)


def _assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


class _BatchLosses(keras.callbacks.Callback):
    """The loss of each batch of an evaluation, from Keras' running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self._sum, self._count = 0.0, 0

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        count = batch + 1
        total = float(logs["loss"]) * count
        share = count - self._count  # More than one with steps_per_execution.
        self.losses.append((total - self._sum) / share)
        self._sum, self._count = total, count


def losses_of(
    model: Any, data: Any = None, **arguments: Any
) -> tuple[dict[str, float], np.ndarray]:
    """Evaluates; returns the metrics by name, and the loss of each batch."""
    recorder = _BatchLosses()
    scores = model.evaluate(
        data, verbose=0, callbacks=[recorder], return_dict=True, **arguments
    )
    return scores, np.array(recorder.losses)


def validate(model: Any) -> tuple[dict[str, float], np.ndarray]:
    """Evaluates on the validation data of the `fit` that runs.

    Returns:
        The metrics by name, and the loss of each batch.

    Raises:
        RuntimeError: If this `fit` has not validated yet.
    """
    if getattr(model, "_eval_epoch_iterator", None) is None:
        raise RuntimeError("`fit` has not validated yet")
    # Keras' own way to evaluate on what it has cached.
    return losses_of(model, _use_cached_eval_dataset=True)


def has_risen(
    best: np.ndarray,
    now: np.ndarray,
    least: float = RISE,
    errors: float = ERRORS,
) -> bool:
    """Whether a validation loss has risen, and not by chance.

    Args:
        best: The loss of each batch, at its best.
        now: The same batches' later.
        least: Of the best.
        errors: Standard errors of the batches' differences.

    Returns:
        Whether the mean has risen by more than both.
    """
    rise = now.mean() - best.mean()
    if rise <= least * abs(best.mean()):
        return False
    if len(now) < 2:
        return True
    if len(now) == len(best):
        error = (now - best).std(ddof=1) / np.sqrt(len(now))
    else:  # Not the same examples.
        error = np.sqrt(now.var(ddof=1) / len(now) + best.var() / len(best))
    return bool(rise > errors * error)
