"""What TrainUntilDone remembers from epoch to epoch, and through files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_hybrid.callbacks import averages
from keras_hybrid.callbacks.models import unwrapped_optimizer


class Memory:
    """What TrainUntilDone remembers from epoch to epoch: a `Companion`.

    Attributes:
        is_piece: Whether the `fit` is a piece of a training, in a loop.
    """

    def __init__(self) -> None:
        self.is_piece = False
        self.forget()

    def forget(self) -> None:
        """Begins anew."""
        self.average = averages.RunningAverage()
        self.judge = "loss"
        self.best = math.nan
        self.best_epoch = 0
        self.best_weights: list[np.ndarray] = []
        self.names: list[str] = []

    @property
    def epochs(self) -> int:
        """Epochs that were averaged."""
        return self.average.epochs

    def look(self, model: Any, epoch: int) -> dict[str, float]:
        """Averages an epoch's weights; returns the average's validation.

        Args:
            model: The compiled model.
            epoch: Counted from 1, those without validation too.
        """
        with averages.averaging(model, self.average):
            scores = averages.validate(model)
        self.names = list(scores)
        self.compare(scores, epoch)
        return scores

    def compare(self, scores: Mapping[str, float], epoch: int) -> None:
        """Takes the average's validation, and keeps the weights of the best."""
        self.judge = averages.judge(scores)
        value = float(scores[self.judge])
        better = averages.is_better(self.judge, value, self.best)
        # A relu hides a weight that is no number from the scores.
        if better and averages.are_finite(self.average.values):
            # A callback made anew for each piece counts pieces from 1.
            self.best, self.best_epoch = value, max(epoch, self.epochs)
            self.best_weights = [np.array(w) for w in self.average.values]

    def score(self, model: Any, logs: Mapping[str, Any]) -> float | None:
        """Returns the model's own score at an epoch's end, None if unknown."""
        name = f"val_{self.judge}"
        if name in logs:
            return float(logs[name])
        if not averages.can_validate(model):  # `validation_freq`, resumed.
            return None
        return float(averages.validate(model)[self.judge])

    def named(self, logs: Mapping[str, Any]) -> list[str]:
        """Names of the average's metrics; of older files those of the model."""
        if self.names or not self.epochs:
            return self.names
        own = [name for name in logs if name.startswith("val_")]
        return [name.removeprefix("val_") for name in own]

    def stays_in(self, model: Any) -> bool:
        """Whether the best weights that it was given are still its own.

        They are given again where `use_ema` has put its average in their place
        at the end of `fit`.
        """
        if unwrapped_optimizer(model).use_ema:
            averages.assign(model.weights, self.best_weights)
        return all(
            np.array_equal(own, best, equal_nan=True)
            for own, best in zip(
                averages.values_of(model.weights),
                self.best_weights,
                strict=True,
            )
        )

    def gives_better(self, model: Any, score: float) -> bool:
        """Gives a model the best weights, if its own score is worse."""
        if not averages.is_better(self.judge, self.best, score):
            return False
        averages.assign(model.weights, self.best_weights)
        return True

    def get_state(self) -> dict[str, np.ndarray]:
        """Returns arrays by name."""
        state = {
            "judge": np.frombuffer(self.judge.encode(), "uint8"),
            "counts": np.array([self.epochs, self.best, self.best_epoch]),
            "piece": np.array(int(self.is_piece)),
        }
        if self.names:
            text = "\n".join(self.names)
            state["names"] = np.frombuffer(text.encode(), "uint8")
        for kind, arrays in (
            ("average", self.average.values),
            ("best", self.best_weights),
        ):
            for i, array in enumerate(arrays):
                state[f"{kind}_{i}"] = array
        return state

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes them back; begins anew where there are none."""
        self.forget()
        if "counts" not in state:
            return
        epochs, self.best, best_epoch = (float(x) for x in state["counts"])
        self.average.epochs, self.best_epoch = int(epochs), int(best_epoch)
        self.judge = state["judge"].tobytes().decode()
        # Files of earlier versions have neither.
        self.is_piece = bool(state.get("piece", False))
        if "names" in state:
            self.names = state["names"].tobytes().decode().split("\n")
        self.average.values = _listed(state, "average")
        self.best_weights = _listed(state, "best")


def _listed(state: dict[str, np.ndarray], kind: str) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    while f"{kind}_{len(found)}" in state:
        found.append(state[f"{kind}_{len(found)}"])
    return found
