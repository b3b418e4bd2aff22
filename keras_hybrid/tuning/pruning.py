"""The median rule, which trainings are hopeless; and what they score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_hybrid.tuning.record import History, Search

# From where on a training is judged: a third of the way from its switch.
EARLIEST = 1 / 3


def never(history: History) -> bool:
    """Stops nothing."""
    return False


def median_rule(
    search: Search, seed: int, epochs: int, hyperparameters: Mapping[str, Any]
) -> Callable[[History], bool]:
    """Returns what says after each epoch whether to stop a training.

    It stops if its objective is worse than the median of the finished
    trainings of its seed, each as far between its own switch and the end: so
    far has the cool-down fallen in all of them. Needs two finished ones.

    Args:
        search: The search so far.
        seed: Of the training.
        epochs: Its budget.
        hyperparameters: The user's own, of the training.
    """
    objective, sign = search.objective, search.sign
    finished = []
    for trial in search.trials:
        if trial.epochs != epochs or trial.hyperparameters != hyperparameters:
            continue
        for run, switch in zip(trial.runs, trial.switch_epochs, strict=True):
            if run.seed == seed and run.status == "finished":
                if switch is not None and switch < epochs:
                    finished.append((switch, run.history[objective]))

    def value_at(progress: float, switch: float, values: list[float]) -> float:
        epoch = switch + progress * (epochs - switch)
        return float(np.interp(epoch, np.arange(1, epochs + 1), values))

    def stop(history: History) -> bool:
        epoch, step = len(history["loss"]), history["switch_step"][-1]
        if len(finished) < 2 or step < 0 or epoch == epochs:
            return False
        # The step in epochs; steps_per_epoch is that of all trainings.
        switch = step / search.steps_per_epoch
        progress = (epoch - switch) / (epochs - switch)
        if progress < EARLIEST:
            return False
        median = np.median([value_at(progress, *run) for run in finished])
        return bool(sign * (history[objective][-1] - median) < 0)

    return stop


def no_better_than_finished(
    search: Search, metrics: Mapping[str, float], epochs: int
) -> dict[str, float]:
    """Gives a trial that cannot win a score below all that can.

    One that was stopped or diverged, or whose objective is no number.
    KerasTuner ends a search after three scores in a row that are NaN, and
    decides a tie by the order in which it reads its files.

    Args:
        search: The search so far.
        metrics: Of the trial.
        epochs: Its budget.
    """
    objective, lower_is_better = search.objective, search.sign < 0
    values = [
        trial.mean(objective)
        for trial in search.trials
        if trial.status == "finished" and trial.epochs == epochs
    ]
    values = [v for v in [*values, metrics[objective]] if not math.isnan(v)]
    if not values:  # The first of all: a score that any other one beats.
        values = [1e6 if lower_is_better else -1e6]
    finite = {k: v for k, v in metrics.items() if math.isfinite(v)}
    worst = max(values) if lower_is_better else min(values)
    worst = math.nextafter(worst, math.inf if lower_is_better else -math.inf)
    return {**finite, objective: worst}
