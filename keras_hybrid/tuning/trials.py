"""One training of a trial: from where it starts, to its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras_tuner.errors import FatalValueError

from keras_hybrid.callbacks import losses
from keras_hybrid.callbacks.models import build_once, hybrid_optimizer
from keras_hybrid.callbacks.switch import SwitchCallback
from keras_hybrid.plans import Plan
from keras_hybrid.tuning.fit import Fit
from keras_hybrid.tuning.prefix import Prefix, Recorder
from keras_hybrid.tuning.record import History, Trained


def mean_metrics(runs: Sequence[Trained]) -> dict[str, float]:
    """Returns each metric's last value, averaged over the runs."""
    if any(run.status == "diverged" for run in runs):
        return {name: math.nan for name in runs[0].history}
    return {
        name: float(np.mean([run.history[name][-1] for run in runs]))
        for name in runs[0].history
    }


class Watch(SwitchCallback):
    """The trial's switch; keeps its history and its epochs' ends."""

    def __init__(
        self,
        trigger: Any,
        history: History,
        prefix: Prefix | None,
        stop: Callable[[History], bool],
        told: Callable[[int], None],
        objective: str | None,
    ) -> None:
        super().__init__(trigger, verbose=0)
        self.objective = objective
        self.past = history
        self.prefix = prefix
        self.stop = stop
        self.told = told
        self.status = "finished"

    def record(self, optimizer: Any, logs: Any) -> None:
        """Keeps the logs, and the end of an epoch that others may share."""
        announced, given = self.params["steps"], self.horizon.lengths[-1]
        if given != announced:
            raise FatalValueError(
                "`x` must give the updates an epoch that it announces. "
                f"Received: {announced} announced, {given} given"
            )
        if self.objective is not None and self.objective not in logs:
            raise FatalValueError(
                "`objective` must be one of the metrics in the logs: "
                f"{', '.join(sorted(logs))}. Received: "
                f"objective={self.objective!r}"
            )
        for name, value in logs.items():
            if np.ndim(value) == 0:
                self.past.setdefault(name, []).append(float(value))
        if not losses.are_finite(logs):
            self.status = "diverged"
            self.model.stop_training = True
            return
        waiting = all(step is None for step in optimizer.switch_steps.values())
        if self.prefix is not None and waiting:
            # Before the trigger is asked: the snapshot has not switched.
            self.prefix.save(self.model, self.past)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs, keeps, asks the trigger, and stops what is hopeless."""
        super().on_epoch_end(epoch, logs)
        self.told(epoch + 1)
        if self.status == "finished" and self.stop(self.past):
            self.status = "stopped"
            self.model.stop_training = True


def prepare(model: Any, fit: Fit) -> None:
    """Makes the model's weights and the optimizer's state."""
    if not model.built:
        model(fit.first_input())
    build_once(model)


def copy_values(source: Any, target: Any, fit: Fit, seed: int) -> None:
    """Gives a model the weights and seed states of another."""
    for model in (source, target):
        if not model.built:
            keras.utils.set_random_seed(seed)
            model(fit.first_input())
    for old, new in zip(source.variables, target.variables, strict=True):
        new.assign(old)


def set_plan(
    model: Any, plan: Plan, steps: int, fit: Fit, recorded: Sequence[str]
) -> None:
    """Gives the model's optimizer the plan for this budget."""
    if steps % model.steps_per_execution:
        raise FatalValueError(
            "`steps_per_execution` must divide the updates of an epoch, or the "
            "epochs would not begin where they are shared. Received: "
            f"steps_per_execution={model.steps_per_execution}, {steps} updates"
        )
    arguments = plan.optimizer_arguments(steps * fit.epochs)
    if recorded and plan.when != "start":
        arguments["trigger"] = Recorder(
            steps, list(recorded), arguments["trigger"]
        )
    hybrid_optimizer(model).reconfigure(**arguments)


def train_whole(
    model: Any, plan: Plan, fit: Fit, seed: int, recorded: Sequence[str]
) -> Trained:
    """Trains a freshly built model from its start to its end."""
    _, steps = fit.pipeline(seed, 0)
    set_plan(model, plan, steps, fit, recorded)
    prepare(model, fit)
    return go_on(model, plan, fit, seed, {}, steps)


def go_on(
    model: Any,
    plan: Plan,
    fit: Fit,
    seed: int,
    history: History,
    steps: int,
    prefix: Prefix | None = None,
    stop: Callable[[History], bool] = lambda history: False,
    told: Callable[[int], None] = lambda epoch: None,
    objective: str | None = None,
) -> Trained:
    """Trains a model with its state from the end of `history` on."""
    started = time.perf_counter()
    first_epoch = len(history.get("loss", []))
    watch = Watch(
        plan.epoch_trigger(fit.epochs), history, prefix, stop, told, objective
    )
    if first_epoch < fit.epochs:
        pipeline, _ = fit.pipeline(seed, first_epoch)
        model.stop_training = False
        model.fit(
            pipeline,
            steps_per_epoch=steps,
            initial_epoch=first_epoch,
            epochs=fit.epochs,
            shuffle=False,
            callbacks=[watch, *fit.callbacks],
            **fit.rest,
        )
    return Trained(
        seed=seed,
        history=history,
        switch_step=hybrid_optimizer(model).switch_step,
        steps_per_epoch=steps,
        shared_epochs=first_epoch,
        trained_epochs=len(history["loss"]) - first_epoch,
        seconds=time.perf_counter() - started,
        status=watch.status,
    )
