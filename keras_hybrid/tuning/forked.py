"""KerasTuner's search for when and how to switch, with a shared Adam prefix.

`HybridHyperModel` adds the transition's hyperparameters to a model-building
function, for any KerasTuner tuner. `ForkedTuner` is a tuner whose trials
share what they have in common: the run before the switch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import keras_tuner
import numpy as np
from keras import ops
from keras_tuner.errors import (
    FailedTrialError,
    FatalError,
    FatalRuntimeError,
    FatalValueError,
)

from keras_hybrid import recipes
from keras_hybrid._support import checks, files
from keras_hybrid._support.versions import versions
from keras_hybrid.callbacks.models import hybrid_optimizer
from keras_hybrid.recipes import Plan, Recipe
from keras_hybrid.tuning import oracles, record
from keras_hybrid.tuning.hypermodel import (
    HybridHyperModel,
    own_values,
    values_of,
)
from keras_hybrid.tuning.prefix import Prefix, size_of
from keras_hybrid.tuning.pruning import median_rule, never
from keras_hybrid.tuning.record import FORMAT, REFERENCES, Trained
from keras_hybrid.tuning.trials import (
    Fit,
    go_on,
    mean_metrics,
    prepare,
    set_plan,
)

# What a search is compared with, beside each other on the same seeds. SGD's
# learning rate is as often written, and not tuned.
SGD_LEARNING_RATE = 0.05


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

    Args:
        hypermodel: A `HybridHyperModel`, or what one wraps (then with its
            default space).
        oracle: `"grid"` (default; resumes after a kill, unlike KerasTuner's),
            `"random"`, `"bayesian"`, `"hyperband"`, or a
            `keras_tuner.Oracle`.
        objective: As in KerasTuner, default `"val_accuracy"`: its value after
            the last epoch.
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
        objective: Any = "val_accuracy",
        max_trials: int | None = None,
        max_epochs: int | None = None,
        prune: bool = False,
        directory: str | Path = "search",
        project_name: str = "hybrid",
        overwrite: bool = False,
        snapshot_limit: int = 2_000_000_000,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        if not isinstance(hypermodel, HybridHyperModel):
            hypermodel = HybridHyperModel(hypermodel)
        if max_trials is not None:
            checks.integer("max_trials", max_trials, low=1)
        if not isinstance(objective, (str, keras_tuner.Objective)):
            raise TypeError(
                "`objective` must be the name of a metric or a "
                f"keras_tuner.Objective. Received: objective={objective!r}"
            )
        self.prune = checks.boolean("prune", prune)
        self.snapshot_limit = checks.integer(
            "snapshot_limit", snapshot_limit, low=1
        )
        self.report = report
        self._kind = (
            oracle if isinstance(oracle, str) else type(oracle).__name__
        )
        self._max_epochs = max_epochs if oracle == "hyperband" else None
        if isinstance(oracle, str):
            oracle = oracles.make(oracle, objective, max_trials, max_epochs)
        elif max_trials is not None:
            raise ValueError(
                "`max_trials` is an argument of the oracle you give. Received: "
                f"max_trials={max_trials}, oracle={self._kind}"
            )
        oracles.save_whole(oracle)
        self.folder = Path(directory) / project_name
        self._look_into_folder(overwrite)
        try:
            # KerasTuner prints which file it reads.
            with contextlib.redirect_stdout(io.StringIO()):
                super().__init__(
                    oracle=oracle,
                    hypermodel=hypermodel,
                    directory=str(directory),
                    project_name=project_name,
                    overwrite=overwrite,
                )
        except json.JSONDecodeError as error:
            raise ValueError(
                f"`directory` holds a damaged file of KerasTuner's: {error}. "
                "Restore it, or begin anew with overwrite=True. Received: "
                f"{', '.join(_damaged(self.folder))}"
            ) from error
        if self._is_worker():
            oracles.reconnect_quickly(self.oracle)
        space = self.oracle.get_space().space
        if not any(_is_open(parameter) for parameter in space):
            raise ValueError(
                "There is nothing to search: every field of the space has one "
                "value, and the model has no hyperparameters. Received: "
                f"space={hypermodel.space!r}"
            )
        if not self._is_worker():
            oracles.check_size(self._kind, self.oracle, max_trials)
        if hasattr(self.oracle, "verbose"):
            self.oracle.verbose = 0
        # The model at work, and what other trials may use it for.
        self._model: Any = None
        self._cached: tuple[str, Any] | None = None
        self._finished = 0
        self._fit_fingerprint = ""

    def _look_into_folder(self, overwrite: bool) -> None:
        if overwrite or not (self.folder / "oracle.json").exists():
            # Not to be cleared under another's feet, and writable.
            with self._alone():
                return
        if not self._search_path.exists():
            raise ValueError(
                f"`directory` holds another search, not made by ForkedTuner: "
                f"give another, or overwrite=True. Received: {self.folder}"
            )
        # KerasTuner goes on only where this tuner's own file is: not after a
        # kill in the first trial, nor after other tuners' trials.
        name = os.environ.get("KERASTUNER_TUNER_ID", "tuner0")
        own = self.folder / f"{name}.json"
        if not own.exists():
            files.write_json(own, {})

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """Keeps the folder; workers share it with their chief."""
        if self._is_worker():
            return contextlib.nullcontext()
        return files.locked(self.folder)

    @property
    def _search_path(self) -> Path:
        return self.folder / "search.json"

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Runs the trials that are left; arguments as for `Model.fit`.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If an argument is missing or not supported, the budget
                is shorter than the earliest switch, the directory holds
                another search, is in use by another process or cannot be
                written to, or the disk is full. Finished trials are kept.
        """
        fit = self._checked_fit(fit_args, fit_kwargs)
        with self._alone():
            self._claim(fit)
            super().search(*fit_args, **fit_kwargs)

    def _checked_fit(self, args: Any, kwargs: Any) -> Fit:
        fit = Fit.of(args, kwargs)
        if not fit.is_replayable:
            raise ValueError(
                "`x` must be arrays, or a function (seed, first_epoch, epochs) "
                "-> (data set, updates an epoch): trials share epochs, so the "
                "order of examples must be a function of the seed and the "
                f"epoch. Received: x of type {type(fit.x).__name__}"
            )
        if self._max_epochs not in (None, fit.epochs):
            raise ValueError(
                "`epochs` must be the tuner's `max_epochs`. Received: "
                f"epochs={fit.epochs}, max_epochs={self._max_epochs}"
            )
        # What is wrong with the data is said now, not in the first trial.
        fit.pipeline(0, 0)
        name = getattr(self.oracle.objective, "name", "")
        if name.startswith("val_") and fit.rest.get("validation_data") is None:
            raise ValueError(
                f"The objective {name!r} needs `validation_data`. Received: "
                "validation_data=None"
            )
        fractions = values_of(self.hypermodel.space["fraction"])
        whens = values_of(self.hypermodel.space["when"])
        earliest = min(v[0] if isinstance(v, tuple) else v for v in fractions)
        if "fraction" in whens and earliest * fit.epochs < 0.5:
            raise ValueError(
                "`epochs` is shorter than the earliest switch: a switch at "
                f"{earliest:.3g} of {fit.epochs} epochs would be before the "
                f"first epoch ends; it takes {math.ceil(0.5 / earliest)} "
                "epochs or a later switch. Received: epochs="
                f"{fit.epochs}, fraction={self.hypermodel.space['fraction']!r}"
            )
        return fit

    def _claim(self, fit: Fit) -> None:
        """Writes what this search is, or compares with what is there."""
        # Once: it is a checksum of all the data.
        self._fit_fingerprint = fit.fingerprint()
        objective = self.oracle.objective
        model = self.hypermodel.build_seeded(self.oracle.get_space(), 0)
        content = {
            "objective": objective.name,
            "direction": objective.direction,
            "tuner": self._kind,
            "prune": self.prune,
            "seeds": self.hypermodel.seeds,
            "epochs": fit.epochs,
            "batch_size": fit.batch_size,
            "space": json.loads(json.dumps(self.hypermodel.space)),
            "fit": self._fit_fingerprint,
            "model": _fingerprint(model),
            "architecture": _architecture(model),
        }
        if self._search_path.exists():
            there = files.read_json(self._search_path, FORMAT, "search")
            # Searches from before the last field lack it.
            there.setdefault("architecture", content["architecture"])
            differing = [k for k in content if there.get(k) != content[k]]
            if differing:
                raise ValueError(
                    f"`directory` holds a search with another "
                    f"{', '.join(differing)}: give another directory or "
                    f"project_name, or overwrite=True. Received: {self.folder}"
                )
        else:
            files.write_json(self._search_path, {"format": FORMAT, **content})
        self._count()

    def _count(self) -> None:
        found = record.load(self.folder)
        trials = [*found.trials, *found.references.values()]
        self._finished = sum(len(trial.runs) for trial in trials)

    def save(self) -> None:
        """As KerasTuner's, but each file is replaced as a whole."""
        if not self._is_worker():
            self.oracle.save()
        oracles.write_state(self._get_tuner_fname(), self)

    def pre_create_trial(self) -> None:
        """Does not ask a waiting oracle a thousand times a second."""
        time.sleep(0.1)

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        """Trains every seed of a trial from the prefix on."""
        hp = trial.hyperparameters
        fit = Fit.of(args, kwargs)
        if "tuner/epochs" in hp.values:
            fit = dataclasses.replace(fit, epochs=hp.values["tuner/epochs"])
        folder = Path(self.get_trial_dir(trial.trial_id))
        plan = self.hypermodel.plan(hp)
        try:
            runs = self._run_seeds(hp, plan, fit, folder, str(trial.trial_id))
        except (FatalError, FailedTrialError):
            raise
        except Exception as error:
            if self._finished:
                raise
            # What fails in the first training would fail in all.
            raise FatalRuntimeError(
                f"The first training of the search failed: {error}"
            ) from error
        metrics = mean_metrics(runs)
        if runs[-1].status != "finished":
            metrics = self._no_better_than_finished(metrics, fit.epochs)
        return metrics

    def _no_better_than_finished(
        self, metrics: dict[str, float], epochs: int
    ) -> dict[str, float]:
        """Gives a stopped or diverged trial the worst score so far.

        KerasTuner ends a search after three scores in a row that are NaN.
        """
        objective = self.oracle.objective
        worst = max if objective.direction == "min" else min
        values = [
            trial.mean(objective.name)
            for trial in record.load(self.folder).trials
            if trial.status == "finished" and trial.epochs == epochs
        ]
        values = [v for v in [*values, metrics[objective.name]] if v == v]
        if not values:  # The first of all: a score that any other one beats.
            values = [1e6 if objective.direction == "min" else -1e6]
        finite = {k: v for k, v in metrics.items() if math.isfinite(v)}
        return {**finite, objective.name: worst(values)}

    def _run_seeds(
        self, hp: Any, plan: Plan, fit: Fit, folder: Path, name: str
    ) -> list[Trained]:
        runs: list[Trained] = []
        for seed in range(self.hypermodel.seeds):
            run = self._run(hp, plan, fit, folder, name, seed)
            runs.append(run)
            if run.status != "finished":
                break
        return runs

    def _run(
        self,
        hp: Any,
        plan: Plan,
        fit: Fit,
        folder: Path,
        name: str,
        seed: int,
    ) -> Trained:
        path = folder / f"seed-{seed}.json"

        def told(epoch: int, run: Trained | None = None) -> None:
            os.utime(folder)  # Whoever watches the folder sees a sign of life.
            self.report(
                Progress(
                    name,
                    plan,
                    seed,
                    epoch,
                    fit.epochs,
                    self._finished,
                    self._total(),
                    run,
                    size_of(self.folder / "prefixes"),
                )
            )

        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            run = record.read_run(path)[-1]
        elif known := self._known(hp, plan, fit, seed):
            run = known
            record.write_run(path, plan, own_values(hp), fit.epochs, run)
            self._finished += 1
        else:
            try:
                started = time.perf_counter()
                stops = self.prune and name not in REFERENCES
                run = self._forked(hp, plan, fit, seed, told, stops)
                run = run._replace(seconds=time.perf_counter() - started)
                if seed == 0 and folder.name.startswith("trial_"):
                    self._keep_weights(folder)
                record.write_run(path, plan, own_values(hp), fit.epochs, run)
            except files.DiskFull as error:
                raise FatalValueError(
                    f"{error} A smaller `snapshot_limit` takes less room; the "
                    f"snapshots are in {self.folder / 'prefixes'}."
                ) from error
            self._finished += 1
        told(len(run.history["loss"]), run)
        return run

    def _known(
        self, hp: Any, plan: Plan, fit: Fit, seed: int
    ) -> Trained | None:
        """Returns the run of another trial that is this one.

        Two fractions may be one epoch, and a reference one of the trials.
        """
        switch = plan.switch_epoch(fit.epochs)
        for trial in record.load(self.folder).trials:
            if (
                trial.plan.when == plan.when
                and dataclasses.replace(trial.plan, fraction=plan.fraction)
                == plan
                and trial.plan.switch_epoch(fit.epochs) == switch
                and trial.epochs == fit.epochs
                and trial.hyperparameters == own_values(hp)
            ):
                for run in trial.runs:
                    if run.seed == seed and run.status == "finished":
                        whole = len(run.history["loss"])
                        return run._replace(
                            shared_epochs=whole, trained_epochs=0, seconds=0.0
                        )
        return None

    def _total(self) -> int | None:
        if self._is_worker():
            return None
        trials = self.oracle.max_trials
        space = self.oracle.get_space().space
        if self._kind == "grid" and len(space) == 1:
            trials = min(trials or math.inf, len(space[0].values))
        return None if trials is None else trials * self.hypermodel.seeds

    def _keep_weights(self, folder: Path) -> None:
        """Keeps the last weights for `get_best_models`."""
        model = self._model
        model.save_weights(folder / "checkpoint.weights.h5")
        files.write_json(
            folder / "build_config.json", model.get_build_config() or {}
        )

    def _prefix(self, hp: Any, plan: Plan, seed: int) -> Prefix:
        """What must be equal for two trials to be one run until a switch."""
        estimate = plan.scale if plan.rho is None else None
        key = json.dumps(
            [
                own_values(hp),
                seed,
                estimate,
                plan.scale_scope,
                plan.scope,
                self.hypermodel.recorded_signals,
                self._fit_fingerprint,
            ],
            sort_keys=True,
        )
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return Prefix(
            self.folder / "prefixes" / f"seed{seed}-{digest}",
            self.snapshot_limit,
        )

    def _forked(
        self,
        hp: Any,
        plan: Plan,
        fit: Fit,
        seed: int,
        told: Callable[[int], None],
        stops: bool,
    ) -> Trained:
        """Trains from the last snapshot that the switch allows."""
        # The first seed's training is the one that callbacks watch.
        watching = list(fit.callbacks) if seed == 0 else []
        fit = dataclasses.replace(
            fit, callbacks=tuple(self._deepcopy_callbacks(watching))
        )
        _, steps = fit.pipeline(seed, 0)
        shares = plan.when != "start"
        prefix = self._prefix(hp, plan, seed)
        # A model is traced once for all trials that differ only in when.
        key = json.dumps(
            [
                own_values(hp),
                keras.saving.serialize_keras_object(
                    plan.optimizer_arguments(steps * fit.epochs)
                ),
                steps,
            ],
            sort_keys=True,
        )
        trigger = plan.epoch_trigger(fit.epochs)
        history = None
        if self._cached and self._cached[0] == key:
            model = self._cached[1]
            history = prefix.start(model, trigger, fit.epochs)
        if history is None:
            self._cached = None
            keras.backend.clear_session()
            model = self.hypermodel.build_seeded(hp, seed)
            set_plan(model, plan, steps, fit, self.hypermodel.recorded_signals)
            prepare(model, fit)
            self._model = model
            history = {}
            if shares:
                self._cached = key, model
                prefix.save(model, {})
                history = prefix.start(model, trigger, fit.epochs) or {}
        return go_on(
            model,
            plan,
            fit,
            seed,
            history,
            steps,
            prefix if shares else None,
            median_rule(
                record.load(self.folder),
                seed,
                fit.epochs,
                own_values(hp),
            )
            if stops and seed == 0
            else never,
            told,
            self.oracle.objective.name,
        )

    def run_references(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Trains what the result is compared with, on the same seeds.

        The library's default plan; Adam alone and SGD alone, each with a
        cosine schedule over the whole budget; all with the best trial's other
        hyperparameters. SGD's learning rate is 0.05 with the optimizer's
        momentum, as often written, not tuned, and outside the momentum (Keras'
        SGD has its schedule inside). Arguments as for `search`.
        """
        fit = self._checked_fit(fit_args, fit_kwargs)
        self._claim(fit)
        search = record.load(self.folder)
        hp = self._hyperparameters(search.best.name)
        optimizer = hybrid_optimizer(self.hypermodel.build_seeded(hp, 0))
        rate = float(np.asarray(ops.convert_to_tensor(optimizer.learning_rate)))
        if rate == 0:
            raise ValueError(
                "The references need a learning rate above 0 in the first "
                "update, from which SGD's is reckoned: give the schedule a "
                "start. Received: "
                f"{type(optimizer._learning_rate).__name__} with 0 at update 0"
            )
        # learning_rate * rho * (1 - momentum) is SGD's learning rate.
        rho = SGD_LEARNING_RATE / (rate * (1 - optimizer.sgd_momentum))
        plans = {
            "default": Plan(),
            "adam": Plan(when="start", scale="number", rho=1.0, end=0.0),
            "sgd": Plan(when="start", scale="number", rho=rho),
        }
        with self._alone():
            for name in REFERENCES:
                folder = self.folder / "references" / name
                self._run_seeds(hp, plans[name], fit, folder, name)
            self._remove_snapshots()

    def _hyperparameters(self, trial_id: str) -> Any:
        return self.oracle.get_trial(trial_id).hyperparameters

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
        best = search.found
        # The references have the hyperparameters of the best trial.
        hp = self._hyperparameters(search.best.name)
        optimizer = hybrid_optimizer(self.hypermodel.build_seeded(hp, 0))
        objective = search.objective
        return Recipe(
            name=checks.text("name", name),
            dataset=dataset,
            architecture=architecture,
            plan=best.plan,
            optimizer=recipes.serialized_arguments(
                optimizer, set(best.plan.optimizer_arguments(1))
            ),
            hyperparameters=dict(best.hyperparameters),
            budget={
                "epochs": best.epochs,
                "steps_per_epoch": best.runs[0].steps_per_epoch,
                "batch_size": search.settings["batch_size"],
            },
            score={
                "objective": objective,
                "direction": search.settings["direction"],
                "mean": best.mean(objective),
                "std": best.spread(objective),
                "values": best.scores(objective),
                "seeds": [run.seed for run in best.runs],
            },
            search={
                "tuner": search.settings["tuner"],
                "prune": search.settings["prune"],
                "trials": len(search.trials),
                "epochs_trained": search.epochs_trained,
                "epochs_unshared": search.epochs_unshared,
                "seconds": round(search.seconds, 1),
                "references": {
                    key: {
                        "mean": trial.mean(objective),
                        "std": trial.spread(objective),
                        "values": trial.scores(objective),
                    }
                    for key, trial in search.references.items()
                },
            },
            versions=versions(),
        )

    def load_model(self, trial: Any) -> Any:
        """Loads a trial's model; its optimizer's state is not kept."""
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Skipping variable loading for optimizer"
            )
            return super().load_model(trial)

    def on_search_end(self) -> None:
        """Removes the snapshots; with workers, whoever started them does."""
        if not self._is_worker():
            self._remove_snapshots()

    def _remove_snapshots(self) -> None:
        shutil.rmtree(self.folder / "prefixes", ignore_errors=True)


def _is_open(parameter: Any) -> bool:
    values = getattr(parameter, "values", None)
    return values is None or len(list(values)) > 1


def _damaged(folder: Path) -> list[str]:
    """The JSON files of a search that are none."""
    damaged = []
    for path in sorted(
        [*folder.glob("*.json"), *folder.glob("trial_*/*.json")]
    ):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            damaged.append(str(path))
    return damaged


def _fingerprint(model: Any) -> str:
    """Tells other weights or another optimizer apart."""
    optimizer = hybrid_optimizer(model)
    shapes = [list(v.shape) for v in model.trainable_variables]
    arguments = recipes.serialized_arguments(optimizer, set())
    return json.dumps([shapes, arguments], sort_keys=True)


def _architecture(model: Any) -> str | None:
    """The model's config, its numbered names aside; None if it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lambdas, which are told apart.
            text = json.dumps(model.get_config(), sort_keys=True)
    except (NotImplementedError, TypeError, ValueError):
        return None
    layers = [model, *model._flatten_layers(include_self=False)]
    for number, layer in enumerate(layers):
        text = text.replace(f'"{layer.name}"', f'"({number})"')
    return text
