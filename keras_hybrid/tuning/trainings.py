"""The trainings of a search: each is trained once, and its record kept."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from keras_tuner.errors import FatalValueError

from keras_hybrid._support import files
from keras_hybrid.tuning import record
from keras_hybrid.tuning.forks import Forks, Job, weights_in
from keras_hybrid.tuning.pruning import median_rule, never
from keras_hybrid.tuning.record import History, Search, Trained


class Trainings:
    """Trains jobs seed by seed, unless a record has the training already.

    Args:
        forks: Trains one seed of a job.
        reader: Of the record.
        prune: Whether hopeless trials are stopped.
        told: Is told of each epoch and training: these, the job, the seed, how
            many epochs are behind it, and at its end the run.

    Attributes:
        finished: How many trainings have a record.
    """

    def __init__(
        self,
        forks: Forks,
        reader: record.Reader,
        prune: bool,
        told: Callable[[Trainings, Job, int, int, Trained | None], None],
    ) -> None:
        self.forks = forks
        self.reader = reader
        self.prune = prune
        self.told = told
        search = reader.load()
        trials = [*search.trials, *search.references.values()]
        self.finished = sum(len(trial.runs) for trial in trials)

    def run(self, job: Job, seeds: int) -> list[Trained]:
        """Returns the trainings of a job, up to one that did not finish."""
        runs: list[Trained] = []
        for seed in range(seeds):
            runs.append(self._run_seed(job, seed))
            if runs[-1].status != "finished":
                break
        return runs

    def _run_seed(self, job: Job, seed: int) -> Trained:
        path = job.folder / f"seed-{seed}.json"
        job.folder.mkdir(parents=True, exist_ok=True)
        is_there = path.exists()
        run = self._recorded(path, job) if is_there else None
        if run is None:
            try:
                search = self.reader.load()
                run = self._taken(search, job, seed)
                run = run or self._train(search, job, seed)
                record.write_run(path, job.plan, job.own, job.fit.epochs, run)
            except files.DiskFull as error:
                raise FatalValueError(
                    f"{error} A smaller `snapshot_limit` takes less room; the "
                    f"snapshots are in {self.forks.folder}."
                ) from error
            self.finished += not is_there
        self._tell(job, seed, len(run.history["loss"]), run)
        return run

    def _recorded(self, path: Path, job: Job) -> Trained | None:
        """The training of a record, if it is the job's.

        A reference is of the trial that was the best.
        """
        *of, run = self.reader.read_run(path)
        return run if of == [job.plan, job.own, job.fit.epochs] else None

    def _taken(self, search: Search, job: Job, seed: int) -> Trained | None:
        """The run of another trial, whose weights become this one's too."""
        found = known(search, job, seed)
        if found is None:
            return None
        name, run = found
        if seed == 0 and not job.is_reference:
            for path in weights_in(job.folder.parent / f"trial_{name}"):
                if path.exists():
                    shutil.copy(path, job.folder)
        return run

    def _train(self, search: Search, job: Job, seed: int) -> Trained:
        stop: Callable[[History], bool] = never
        if self.prune and seed == 0 and not job.is_reference:
            stop = median_rule(search, seed, job.fit.epochs, job.own)
        started = time.perf_counter()
        run = self.forks.train(
            job,
            seed,
            stop,
            lambda epoch: self._tell(job, seed, epoch),
            search.objective,
        )
        run = run._replace(seconds=time.perf_counter() - started)
        if seed == 0 and not job.is_reference:
            self.forks.keep_weights(job.folder)
        return run

    def _tell(
        self, job: Job, seed: int, epoch: int, run: Trained | None = None
    ) -> None:
        os.utime(job.folder)  # Whoever watches the folder sees a sign of life.
        self.told(self, job, seed, epoch, run)


def known(search: Search, job: Job, seed: int) -> tuple[str, Trained] | None:
    """Returns the trial whose run is this one, and that run, at no cost.

    Two fractions may be one epoch, and a reference one of the trials.
    """
    plan, epochs = job.plan, job.fit.epochs
    switch = plan.switch_epoch(epochs)
    for trial in search.trials:
        if (
            trial.plan.when == plan.when
            and dataclasses.replace(trial.plan, fraction=plan.fraction) == plan
            and trial.plan.switch_epoch(epochs) == switch
            and trial.epochs == epochs
            and trial.hyperparameters == job.own
        ):
            for run in trial.runs:
                if run.seed == seed and run.status == "finished":
                    whole = len(run.history["loss"])
                    return trial.name, run._replace(
                        shared_epochs=whole, trained_epochs=0, seconds=0.0
                    )
    return None
