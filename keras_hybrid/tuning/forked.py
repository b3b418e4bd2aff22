"""KerasTuner's search for when and how to switch, with a shared Adam prefix.

`ForkedTuner` is a tuner whose trials share what they have in common: the run
before the switch. It says what a search may be and speaks to KerasTuner; what
is trained, and from where, is in `trainings` and `forks`.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras_tuner
from keras_tuner.errors import FailedTrialError, FatalError, FatalRuntimeError

from keras_hybrid._support import checks
from keras_hybrid.callbacks.models import hybrid_optimizer
from keras_hybrid.plans import Plan
from keras_hybrid.recipes import Recipe
from keras_hybrid.tuning import (
    chief,
    identity,
    members,
    oracles,
    record,
    references,
)
from keras_hybrid.tuning.fit import Fit
from keras_hybrid.tuning.forks import Forks, Job
from keras_hybrid.tuning.found import recipe_of
from keras_hybrid.tuning.hypermodel import HybridHyperModel
from keras_hybrid.tuning.pruning import no_better_than_finished
from keras_hybrid.tuning.record import (
    REFERENCES,
    SETTINGS_FILE,
    Search,
    Trained,
    Trial,
)
from keras_hybrid.tuning.trainings import Trainings
from keras_hybrid.tuning.trials import mean_metrics


class Progress(NamedTuple):
    """What `ForkedTuner` reports after each epoch and training.

    Attributes:
        trial: The trial's id, or the name of a reference.
        plan: Its transition.
        seed: The seed.
        epoch: Epochs of this training's budget that are behind it.
        epochs: Its budget.
        finished: Trainings of the search that are finished.
        total: All trainings of the search, None if not known.
        run: The record, when the training is finished; else None.
        snapshot_bytes: What the snapshots of the search take on the disk.
    """

    trial: str
    plan: Plan
    seed: int
    epoch: int
    epochs: int
    finished: int
    total: int | None
    run: Trained | None
    snapshot_bytes: int


class ForkedTuner(keras_tuner.Tuner):
    """A tuner whose trials share the run before the switch.

    Every trial starts from the last snapshot that its own switch allows, and
    equals bit for bit a trial that trained all of its epochs. Fixed switch
    points, plateaus and gaps are looked up in the recorded history, step
    triggers in the recorded signals. What trials share: the seed, the user's
    hyperparameters, the estimate of rho and the scopes.

    `search` takes what `fit` takes. `x` is arrays (or a nest of them), or a
    function (seed, first_epoch, epochs) -> (data set of batches of those
    epochs, updates an epoch) in which the order of an epoch is a function of
    the seed and the epoch.

    Several processes, or machines that share the search's folder, search
    together where KerasTuner's environment variables say so (`members`).

    Args:
        hypermodel: A `HybridHyperModel`, or what one wraps (then with its
            default space).
        oracle: `"grid"` (default; resumes after a kill, unlike KerasTuner's),
            `"random"`, `"bayesian"`, `"hyperband"`, or a
            `keras_tuner.Oracle`.
        objective: As in KerasTuner, default `"val_accuracy"`: its value after
            the last epoch. An oracle object has its own.
        max_trials: Integer of at least 1; None (default): the whole grid, 10
            trials of other oracles.
        max_epochs: The largest budget, for `"hyperband"` only.
        prune: Boolean, default False: stop hopeless trials by the median rule.
            From a third of the way between its switch and the end on, a
            trial's first seed stops if its objective is worse than the median
            of that seed's finished trials, each as far between its own
            switch and the end. Stopped trials cannot win.
        directory: Folder of the search, default `"search"`.
        project_name: Folder in it, default `"hybrid"`.
        overwrite: Boolean, default False: go on with a search that is there.
            A worker goes on in any case: its chief begins.
        snapshot_limit: Bytes that one prefix's snapshots may take, default
            2e9. They are removed when the search ends.
        report: Is told the `Progress` after each epoch and training.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its choices, nothing is to be
            searched, or the directory holds another search.

    Attributes:
        folder: Where the search keeps its record (`record.load`).

    Example: see examples/tune_your_model.py.
    """

    def __init__(
        self,
        hypermodel: Any,
        oracle: Any = "grid",
        objective: Any = None,
        max_trials: int | None = None,
        max_epochs: int | None = None,
        prune: bool = False,
        directory: str | Path = "search",
        project_name: str = "hybrid",
        overwrite: bool = False,
        snapshot_limit: int = 2_000_000_000,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        members.check()
        if not isinstance(hypermodel, HybridHyperModel):
            hypermodel = HybridHyperModel(hypermodel)
        self.prune = checks.boolean("prune", prune)
        self.snapshot_limit = checks.integer(
            "snapshot_limit", snapshot_limit, low=1, high=sys.maxsize
        )
        self.report = report
        self._kind = (
            oracle if isinstance(oracle, str) else type(oracle).__name__
        )
        oracle = oracles.given(oracle, objective, max_trials, max_epochs)
        self._max_epochs = getattr(oracle, "max_epochs", None)
        self.folder = Path(directory) / project_name
        # A worker must not clear what its chief has begun.
        overwrite = overwrite and not members.is_worker()
        identity.look_into(self.folder, overwrite)
        with oracles.quietly(self.folder):
            super().__init__(
                oracle=oracle,
                hypermodel=hypermodel,
                directory=str(directory),
                project_name=project_name,
                overwrite=overwrite,
            )
        if members.is_worker():
            members.connect(self.oracle)
        space = self.oracle.get_space().space
        oracles.check_open(space, hypermodel.space)
        if not members.is_worker():
            oracles.check_size(self._kind, self.oracle, max_trials)
        if hasattr(self.oracle, "verbose"):
            self.oracle.verbose = 0
        self._trainings: Trainings | None = None

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Runs the trials that are left; arguments as for `Model.fit`.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If an argument is missing or not supported, the budget
                is shorter than the earliest switch, the directory holds
                another search, is in use by another process or cannot be
                written to, the disk is full, or the chief cannot be reached
                (any more). Finished trials are kept.
            RuntimeError: If three trials in a row fail.
        """
        fit = self._fit(fit_args, fit_kwargs)
        with members.alone(self.folder):
            members.check_port_is_free()
            self._begin(fit)
            if members.is_chief():
                chief.serve(self, fit.rest["verbose"])
            else:
                super().search(*fit_args, **fit_kwargs)

    def _fit(self, args: Any, kwargs: Any) -> Fit:
        fit = Fit.of(args, kwargs)
        objective = self.oracle.objective
        identity.check(fit, self.hypermodel, objective, self._max_epochs)
        return fit

    def _begin(self, fit: Fit) -> Trainings:
        """Says what this search is, or finds it the same as what is there."""
        path = self.folder / SETTINGS_FILE
        if members.is_worker():
            members.wait_for_file(path)
        # Once: it is a checksum of all the data.
        fingerprint = fit.fingerprint()
        identity.claim(
            path,
            identity.describe(
                self.hypermodel,
                fit,
                fingerprint,
                self.oracle.objective,
                self._kind,
                self.prune,
            ),
        )
        forks = Forks(
            self.hypermodel,
            self.folder / "prefixes",
            self.snapshot_limit,
            fingerprint,
        )
        reader = record.Reader(self.folder)
        self._trainings = Trainings(forks, reader, self.prune, self._tell)
        return self._trainings

    def save(self) -> None:
        """As KerasTuner's, but each file is replaced as a whole."""
        if not members.is_worker():
            self.oracle.save()
        oracles.write_state(self._get_tuner_fname(), self)

    def pre_create_trial(self) -> None:
        """Does not ask a waiting oracle a thousand times a second."""
        time.sleep(0.1)

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        """Trains every seed of a trial from the prefix on."""
        hp = trial.hyperparameters
        fit = Fit.of(args, kwargs)
        trainings = self._trainings or self._begin(fit)
        if "tuner/epochs" in hp.values:
            fit = dataclasses.replace(fit, epochs=hp.values["tuner/epochs"])
        folder = Path(self.get_trial_dir(trial.trial_id))
        plan = self.hypermodel.plan(hp)
        try:
            runs = trainings.run(
                self._job(str(trial.trial_id), folder, hp, plan, fit),
                self.hypermodel.seeds,
            )
        except (FatalError, FailedTrialError):
            raise
        except Exception as error:
            if trainings.finished:
                raise
            # What fails in the first training would fail in all.
            raise FatalRuntimeError(
                f"The first training of the search failed: {error}"
            ) from error
        metrics = mean_metrics(runs)
        objective = metrics[self.oracle.objective.name]
        if runs[-1].status != "finished" or not math.isfinite(objective):
            search = trainings.reader.load()
            metrics = no_better_than_finished(search, metrics, fit.epochs)
        return metrics

    def _job(
        self, name: str, folder: Path, hp: Any, plan: Plan, fit: Fit
    ) -> Job:
        """A job with callbacks of its own."""
        copies = tuple(self._deepcopy_callbacks(list(fit.callbacks)))
        return Job(
            name, folder, hp, plan, dataclasses.replace(fit, callbacks=copies)
        )

    def _tell(
        self,
        trainings: Trainings,
        job: Job,
        seed: int,
        epoch: int,
        run: Trained | None,
    ) -> None:
        self.report(
            Progress(
                job.name,
                job.plan,
                seed,
                epoch,
                job.fit.epochs,
                trainings.finished,
                self._total(),
                run,
                trainings.forks.bytes,
            )
        )

    def _total(self) -> int | None:
        if members.is_worker():
            return None
        trials = self.oracle.max_trials
        space = self.oracle.get_space().space
        if self._kind == "grid" and len(space) == 1:
            trials = min(trials or math.inf, len(space[0].values))
        return None if trials is None else trials * self.hypermodel.seeds

    def on_search_end(self) -> None:
        """Removes the snapshots; with workers, whoever started them does."""
        if self._trainings is not None and not members.is_worker():
            self._trainings.forks.remove()

    def load_model(self, trial: Any) -> Any:
        """Loads a trial's model; its optimizer's state is not kept."""
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Skipping variable loading for optimizer"
            )
            return super().load_model(trial)

    def run_references(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Trains what the result is compared with, on the same seeds.

        The library's default plan; Adam alone and SGD alone, each with a
        cosine schedule over the whole budget; all with the best trial's other
        hyperparameters. SGD's learning rate is 0.05 with the optimizer's
        momentum, as often written, not tuned, and outside the momentum (Keras'
        SGD has its schedule inside). Arguments as for `search`.
        """
        fit = self._fit(fit_args, fit_kwargs)
        trainings = self._begin(fit)
        search = trainings.reader.load()
        hp = _hyperparameters(self.oracle, search, search.best)
        plans = references.plans(self._optimizer(hp))
        with members.alone(self.folder):
            for name in REFERENCES:
                folder = self.folder / "references" / name
                trainings.run(
                    self._job(name, folder, hp, plans[name], fit),
                    self.hypermodel.seeds,
                )
            trainings.forks.remove()

    def recipe(
        self,
        name: str = "recipe",
        dataset: str | None = None,
        architecture: str | None = None,
    ) -> Recipe:
        """Returns what the search found: `recipe().save("mine.json")`.

        That is the trial of the full budget whose mean score is best, the
        first of equals; or a reference that `run_references` has trained and
        that is better than all of them.

        Args:
            name: Name of the recipe.
            dataset: Name of the data set, for people.
            architecture: Likewise of the model.

        Raises:
            ValueError: If no trial has finished.
        """
        search = record.load(self.folder)
        hp = _hyperparameters(self.oracle, search, search.found)
        return recipe_of(
            search, self._optimizer(hp), name, dataset, architecture
        )

    def _optimizer(self, hp: Any) -> Any:
        return hybrid_optimizer(self.hypermodel.build_seeded(hp, 0))


def _hyperparameters(oracle: Any, search: Search, trial: Trial) -> Any:
    """Those of a trial, or of a reference: the best's, and its own."""
    hp = oracle.get_trial(search.best.name).hyperparameters.copy()
    hp.values.update(trial.hyperparameters)
    return hp
