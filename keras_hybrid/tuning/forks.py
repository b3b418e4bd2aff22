"""Trainings that start from the last snapshot that their switch allows."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_hybrid._support import files
from keras_hybrid.plans import Plan
from keras_hybrid.tuning.fit import Fit
from keras_hybrid.tuning.hypermodel import HybridHyperModel, own_values
from keras_hybrid.tuning.prefix import Prefix, size_of
from keras_hybrid.tuning.record import REFERENCES, History, Trained
from keras_hybrid.tuning.trials import go_on, prepare, set_plan


class Job(NamedTuple):
    """A trial or a reference, each of whose seeds is a training.

    Attributes:
        name: KerasTuner's id of the trial, or the name of a reference.
        folder: Of its record.
        hp: Its hyperparameters.
        plan: Its transition.
        fit: Data and budget, with callbacks of its own.
    """

    name: str
    folder: Path
    hp: Any
    plan: Plan
    fit: Fit

    @property
    def own(self) -> dict[str, Any]:
        """The user's own hyperparameters."""
        return own_values(self.hp)

    @property
    def is_reference(self) -> bool:
        """Whether it is no trial."""
        return self.name in REFERENCES


def weights_in(folder: Path) -> tuple[Path, Path]:
    """Returns where KerasTuner looks for a trial's weights and its inputs."""
    return folder / "checkpoint.weights.h5", folder / "build_config.json"


class Forks:
    """The snapshots that jobs share, and the model at work on them.

    Args:
        hypermodel: Builds the models.
        folder: Of the snapshots.
        limit: Bytes that the snapshots of one prefix may take.
        data: A text that tells the data apart.
    """

    def __init__(
        self,
        hypermodel: HybridHyperModel,
        folder: Path,
        limit: int,
        data: str,
    ) -> None:
        self.hypermodel = hypermodel
        self.folder = folder
        self.limit = limit
        self.data = data
        # The model of the last training, and what it may go on for.
        self.model: Any = None
        self._reusable_for: str | None = None

    @property
    def bytes(self) -> int:
        """What the snapshots take on the disk."""
        return size_of(self.folder)

    def remove(self) -> None:
        """Removes the snapshots."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def train(
        self,
        job: Job,
        seed: int,
        stop: Callable[[History], bool],
        told: Callable[[int], None],
        objective: str,
    ) -> Trained:
        """Trains one seed of a job from the last snapshot that it may use.

        Args:
            job: What to train.
            seed: Of the training; callbacks watch the first.
            stop: Is asked after each epoch whether to stop.
            told: Is told the number of epochs after each.
            objective: The metric that must be in the logs.
        """
        fit = job.fit if seed == 0 else job.fit.without_callbacks()
        _, steps = fit.pipeline(seed, 0)
        shares = job.plan.when != "start"
        prefix = self._prefix(job, seed)
        trigger = job.plan.epoch_trigger(fit.epochs)
        history: History | None = None
        key = _model_key(job, steps)
        if self._reusable_for == key:
            history = prefix.start(self.model, trigger, fit.epochs)
        if history is None:
            self._build(job, seed, steps)
            history = {}
            if shares:
                self._reusable_for = key
                prefix.save(self.model, {})
                history = prefix.start(self.model, trigger, fit.epochs) or {}
        return go_on(
            self.model,
            job.plan,
            fit,
            seed,
            history,
            steps,
            prefix if shares else None,
            stop,
            told,
            objective,
        )

    def _build(self, job: Job, seed: int, steps: int) -> None:
        self._reusable_for = self.model = None
        keras.backend.clear_session()
        model = self.hypermodel.build_seeded(job.hp, seed)
        recorded = self.hypermodel.recorded_signals
        set_plan(model, job.plan, steps, job.fit, recorded)
        prepare(model, job.fit)
        self.model = model

    def keep_weights(self, folder: Path) -> None:
        """Keeps the last weights, where KerasTuner looks for them."""
        weights, config = weights_in(folder)
        self.model.save_weights(weights)
        files.write_json(config, self.model.get_build_config() or {})

    def _prefix(self, job: Job, seed: int) -> Prefix:
        """What must be equal for two jobs to be one run until a switch."""
        plan = job.plan
        key = json.dumps(
            [
                job.own,
                seed,
                plan.scale if plan.rho is None else None,
                plan.scale_scope,
                plan.scope,
                self.hypermodel.recorded_signals,
                self.data,
            ],
            sort_keys=True,
        )
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return Prefix(self.folder / f"seed{seed}-{digest}", self.limit)


def _model_key(job: Job, steps: int) -> str:
    """Tells models apart: trials that differ only in when share its traces."""
    arguments = job.plan.optimizer_arguments(steps * job.fit.epochs)
    plain = keras.saving.serialize_keras_object(arguments)
    return json.dumps([job.own, plain, steps], sort_keys=True)
