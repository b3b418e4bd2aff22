"""The average of the weights over the epochs, as an honest look ahead.

At a constant learning rate the weights wander about; their average is close to
what a cool-down would give, and its validation loss tells when cooling down
later gains nothing more (Sanyal et al. 2023, arXiv:2306.03241; Hägele et al.
2024, arXiv:2405.18392).
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

Arrays = list[np.ndarray]
# Keras numbers the metrics that it names.
_JUDGES = re.compile(r"(accuracy|acc|auc)(_\d+)?$")


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
def in_place(
    model: Any, values: Sequence[np.ndarray], own: Sequence[np.ndarray]
) -> Iterator[None]:
    """Puts other values in `model.weights`, and gives its own back.

    These are the weights, and the moments of normalizations.
    """
    assign(model.weights, values)
    try:
        yield
    finally:
        assign(model.weights, own)


@contextlib.contextmanager
def averaging(model: Any, average: RunningAverage) -> Iterator[None]:
    """Takes an epoch's weights into the average, which is in place inside."""
    own = values_of(model.weights)
    average.update(own)
    with in_place(model, average.values, own):
        yield


def can_validate(model: Any) -> bool:
    """Whether the `fit` that runs has validated yet."""
    return getattr(model, "_eval_epoch_iterator", None) is not None


def validate(model: Any) -> dict[str, float]:
    """Returns the metrics on the validation data of the `fit` that runs.

    The model's metrics stay what they were.

    Raises:
        ValueError: If it has not validated yet, as in a loop of one's own.
    """
    if not can_validate(model):
        raise ValueError(
            "Keras has no validation data to look at the averaged weights "
            "with: outside of `fit` give TrainUntilDone a trigger on what "
            "your loop logs, such as Plateau('val_loss'). Received: no "
            "validation by `fit`"
        )
    before = [v.numpy() for v in model.metrics_variables]
    # Keras' own way to evaluate on what it has cached.
    found = model.evaluate(
        verbose=0, return_dict=True, _use_cached_eval_dataset=True
    )
    assign(model.metrics_variables, before)
    return found


def judge(metrics: Iterable[str]) -> str:
    """Returns the metric by which weights are chosen.

    The loss of a classifier is a bad judge of its weights: as it fits its data
    ever better, the loss rises while the accuracy does too. So an accuracy is,
    one of the best k where there is no other; but before it an AUC, which tells
    a model that says the most frequent class from one that has learnt, and
    before both what is weighted as the training is. Of several outputs (each
    has a loss of its own) none speaks for all: there it is the loss.
    """
    names = list(metrics)
    found = [name for name in names if _JUDGES.search(name)]
    if not found or any(name.endswith("_loss") for name in names):
        return "loss"
    return min(found, key=_rank)


def _rank(name: str) -> tuple[bool, bool, bool]:
    """The least is the best judge."""
    return not name.startswith("weighted_"), "auc" not in name, "top" in name


def is_better(name: str, value: float, than: float) -> bool:
    """Compares two values of `judge`'s metric; any number is better than NaN.

    What is not finite is never better.
    """
    if not math.isfinite(value):
        return False
    better = value < than if name == "loss" else value > than
    return better or math.isnan(than)


def are_finite(values: Iterable[np.ndarray]) -> bool:
    """Whether all numbers of all arrays are."""
    return all(np.isfinite(value).all() for value in values)


def assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    """Gives variables their values."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
