"""The record of a search: what each trial trained, read from its folder.

`ForkedTuner` keeps `search.json` (what is searched), one `seed-N.json` a
training in `trial_ID/`, and those of what the result is compared with in
`references/NAME/`.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from keras_hybrid._support import files, records
from keras_hybrid.plans import Plan

FORMAT = 1
SETTINGS_FILE = "search.json"
STATUSES = ("finished", "stopped", "diverged")
# What a report reads of search.json.
SETTINGS = {
    *("objective", "direction", "tuner", "prune", "seeds"),
    *("epochs", "batch_size"),
}
REFERENCES = {
    "default": "library default",
    "adam": "Adam alone, cosine",
    "sgd": "SGD alone, cosine",
}


History = dict[str, list[float]]
Read = TypeVar("Read")


class Trained(NamedTuple):
    """One training of one trial.

    Attributes:
        seed: Of weights, data order and dropout.
        history: Lists with one number an epoch, the shared prefix included.
        switch_step: The first update of SGD, None if it never switched.
        steps_per_epoch: Updates an epoch.
        shared_epochs: Epochs that came from the prefix.
        trained_epochs: Epochs that this run trained.
        seconds: Wall-clock time of this run, building the model included.
        status: "finished", "stopped" (early: hopeless) or "diverged".
    """

    seed: int
    history: History
    switch_step: int | None
    steps_per_epoch: int
    shared_epochs: int
    trained_epochs: int
    seconds: float
    status: str


@dataclasses.dataclass(frozen=True)
class Trial:
    """The trainings of one set of hyperparameters.

    Attributes:
        name: KerasTuner's id, or the name of a reference.
        plan: The transition.
        hyperparameters: The user's own.
        epochs: The budget.
        runs: One a seed.
    """

    name: str
    plan: Plan
    hyperparameters: Mapping[str, Any]
    epochs: int
    runs: Sequence[Trained]

    @property
    def status(self) -> str:
        """What a run became that is not finished, else "finished"."""
        others = [r.status for r in self.runs if r.status != "finished"]
        return others[0] if others else "finished"

    def scores(self, objective: str) -> list[float]:
        """Returns the last value of each run."""
        return [run.history[objective][-1] for run in self.runs]

    def mean(self, objective: str) -> float:
        """Returns the mean of the scores."""
        return statistics.fmean(self.scores(objective))

    def spread(self, objective: str) -> float | None:
        """Returns the scores' standard deviation (n - 1), None for one."""
        scores = self.scores(objective)
        return statistics.stdev(scores) if len(scores) > 1 else None

    @property
    def switch_epochs(self) -> list[float | None]:
        """The switch of each run, in epochs since its start."""
        return [
            None
            if run.switch_step is None
            else run.switch_step / run.steps_per_epoch
            for run in self.runs
        ]


@dataclasses.dataclass(frozen=True)
class Search:
    """All of a search.

    Attributes:
        folder: Where it is.
        settings: What `search.json` holds.
        trials: In the order of their names.
        references: What the result is compared with, by name.
    """

    folder: Path
    settings: Mapping[str, Any]
    trials: Sequence[Trial]
    references: Mapping[str, Trial]

    @property
    def objective(self) -> str:
        """Name of the objective."""
        return str(self.settings["objective"])

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1."""
        return 1 if self.settings["direction"] == "max" else -1

    @property
    def steps_per_epoch(self) -> int:
        """Updates an epoch, of every training; 1 before the first."""
        found = [run.steps_per_epoch for t in self.trials for run in t.runs]
        return found[0] if found else 1

    @property
    def complete(self) -> list[Trial]:
        """Trials of the full budget whose runs are all there, best first."""
        found = [
            trial
            for trial in self.trials
            if trial.status == "finished"
            and len(trial.runs) == self.settings["seeds"]
            and trial.epochs == self.settings["epochs"]
            and math.isfinite(trial.mean(self.objective))
        ]
        return sorted(found, key=lambda t: -self.sign * t.mean(self.objective))

    @property
    def best(self) -> Trial:
        """The trial whose mean score is best.

        Raises:
            ValueError: If no trial is complete.
        """
        if not self.complete:
            raise ValueError(
                "No trial of the full budget has finished in this search: "
                "run it again to go on, or look at the trials' messages. "
                f"Received: {self.folder}"
            )
        return self.complete[0]

    @property
    def found(self) -> Trial:
        """What the recipe is made of: the best trial, or a better reference.

        Raises:
            ValueError: If no trial is complete.
        """
        found = self.best
        for trial in self.references.values():
            comparable = len(trial.runs) == self.settings["seeds"]
            if comparable and trial.status == "finished":
                gain = trial.mean(self.objective) - found.mean(self.objective)
                if self.sign * gain > 0:
                    found = trial
        return found

    @property
    def epochs_trained(self) -> int:
        """Epochs that the trials trained."""
        return sum(r.trained_epochs for t in self.trials for r in t.runs)

    @property
    def epochs_unshared(self) -> int:
        """Epochs of the same trials without sharing and stopping."""
        return sum(t.epochs for t in self.trials) * int(self.settings["seeds"])

    @property
    def seconds(self) -> float:
        """Seconds that the trials trained, one after the other."""
        return sum(r.seconds for t in self.trials for r in t.runs)


class Reader:
    """Reads a search again and again, each file once unless it changes.

    Files are replaced as a whole, so a changed one is another one.

    Args:
        folder: Of the search.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._read: dict[Path, tuple[tuple[int, int, int], Any]] = {}

    def load(self) -> Search:
        """Reads the search, finished or not.

        Raises:
            ValueError: If there is none, or a file of it is damaged.
        """
        settings = self._once(self.folder / SETTINGS_FILE, _read_settings)
        seeds: dict[Path, list[Path]] = {}
        for path in records.below(self.folder):
            if path.match("seed-*.json"):
                seeds.setdefault(path.parent, []).append(path)
        trials = [
            self._trial(paths, part.name.removeprefix("trial_"))
            for part, paths in sorted(seeds.items())
            if part.parent == self.folder and part.name.startswith("trial_")
        ]
        references = {
            name: self._trial(seeds[part], name)
            for name in REFERENCES
            if (part := self.folder / "references" / name) in seeds
        }
        return Search(self.folder, settings, trials, references)

    def read_run(self, path: Path) -> tuple[Plan, dict[str, Any], int, Trained]:
        """As `read_run`."""
        return self._once(path, read_run)

    def _trial(self, paths: Sequence[Path], name: str) -> Trial:
        in_order = sorted(paths, key=lambda path: (len(path.name), path))
        read = [self.read_run(path) for path in in_order]
        plan, own, epochs, _ = read[0]
        return Trial(name, plan, own, epochs, [run for *_, run in read])

    def _once(self, path: Path, read: Callable[[Path], Read]) -> Read:
        try:
            stat = path.stat()
        except OSError:
            return read(path)  # In a table, or it says what is wrong.
        mark = stat.st_ino, stat.st_mtime_ns, stat.st_size
        if path not in self._read or self._read[path][0] != mark:
            self._read[path] = mark, read(path)
        content: Read = self._read[path][1]
        return content


def load(folder: Path | str) -> Search:
    """Reads a search once; see `Reader`.

    Raises:
        ValueError: If there is none, or a file of it is damaged.
    """
    return Reader(folder).load()


def _read_settings(path: Path) -> dict[str, Any]:
    settings = files.read_json(path, FORMAT, "search")
    read = {name: settings[name] for name in SETTINGS & set(settings)}
    files.check_fields(path, read, SETTINGS)
    problem = _wrong_counts(read, ("seeds", "epochs", "batch_size"))
    if not isinstance(read["objective"], str):
        problem = f"objective={read['objective']!r}"
    if read["direction"] not in ("min", "max"):
        problem = f"direction={read['direction']!r}"
    if problem is not None:
        raise ValueError(f"{path}: not a search. Received: {problem}")
    return settings


def _wrong_counts(content: Mapping[str, Any], names: Sequence[str]) -> Any:
    """A field that is no integer of at least 1, as text, or None."""
    for name in names:
        if type(content[name]) is not int or content[name] < 1:
            return f"{name}={content[name]!r}"
    return None


def write_run(
    path: Path,
    plan: Plan,
    hyperparameters: Mapping[str, Any],
    epochs: int,
    run: Trained,
) -> None:
    """Writes one training."""
    files.write_json(
        path,
        {
            "format": FORMAT,
            "plan": plan.to_dict(),
            "hyperparameters": hyperparameters,
            "epochs": epochs,
            **run._asdict(),
        },
    )


def read_run(path: Path) -> tuple[Plan, dict[str, Any], int, Trained]:
    """Reads one training: plan, the user's hyperparameters, budget, run.

    Raises:
        ValueError: If the file is damaged.
    """
    content = records.read(path, FORMAT, "training of a trial")
    names = {"plan", "hyperparameters", "epochs", *Trained._fields}
    files.check_fields(path, content, names)
    if content["status"] not in STATUSES:
        raise ValueError(f"{path}: status {content['status']!r}")
    history = files.history_of(path, content.pop("history"))
    problem = _wrong_counts(content, ("epochs", "steps_per_epoch"))
    if not history or not all(history.values()):
        problem = f"history={history!r}"
    if type(content["seconds"]) not in (int, float):
        problem = f"seconds={content['seconds']!r}"
    if not isinstance(content["hyperparameters"], dict):
        problem = f"hyperparameters={content['hyperparameters']!r}"
    if problem is not None:
        raise ValueError(
            f"{path}: not a training of a trial. Received: {problem}"
        )
    rest = {f: content[f] for f in Trained._fields if f != "history"}
    try:
        plan = Plan.from_dict(content["plan"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return (
        plan,
        content["hyperparameters"],
        content["epochs"],
        Trained(history=history, **rest),
    )
