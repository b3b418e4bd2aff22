"""What a report of a search says of its trials, before it is written."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras_hybrid.plans import Plan
from keras_hybrid.reports.texts import MISSING
from keras_hybrid.tuning.record import REFERENCES, Search, Trial

NEVER = "-"


@dataclasses.dataclass(frozen=True)
class Unit:
    """How the objective is written."""

    label: str
    factor: float

    @classmethod
    def of(cls, objective: str) -> Unit:
        """Returns how a metric of that name is written."""
        if objective.endswith(("accuracy", "acc")):
            return cls(f"{objective}, %", 100)
        return cls(objective, 1)

    def number(self, value: float, sign: str = "") -> str:
        """Two digits of a percentage, else four that count."""
        kind = ".2f" if self.factor == 100 else ".4g"
        return f"{self.factor * value:{sign}{kind}}"

    def score(self, mean: float, spread: float | None) -> str:
        """A mean with its standard deviation, if it has one."""
        if not math.isfinite(mean):
            return MISSING
        text = self.number(mean)
        if spread is None:
            return text
        kind = ".2f" if self.factor == 100 else ".2g"
        return f"{text} ± {self.factor * spread:{kind}}"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A trial with what the search knows about it.

    Attributes:
        trial: The trial.
        rank: From 1, None unless it is complete.
        label: What tells it from the others, or the name of a reference.
        transition: Likewise, of its plan alone.
        hyperparameters: Likewise, of the user's own.
        scores: Seed -> finite score of the seeds that did not diverge.
        status: In words.
    """

    trial: Trial
    rank: int | None
    label: str
    transition: str
    hyperparameters: str
    scores: Mapping[int, float]
    status: str

    @classmethod
    def of(cls, search: Search, trial: Trial, label: str) -> Entry:
        """Makes an entry without a rank, told apart by its label alone."""
        return cls(
            trial,
            None,
            label,
            label,
            "",
            _scores(search, trial),
            _status(search, trial),
        )

    @property
    def mean(self) -> float:
        """Of the scores, NaN where there is none."""
        if not self.scores:
            return math.nan
        return statistics.fmean(self.scores.values())

    @property
    def spread(self) -> float | None:
        """Standard deviation (n - 1) of the scores, None for one."""
        values = list(self.scores.values())
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def switches(self) -> list[float]:
        """Epochs of the switches; one at the very end, or to Adam, is none."""
        if self.trial.plan.end == 0:
            return []
        return [
            epoch
            for epoch in self.trial.switch_epochs
            if epoch is not None and epoch < self.trial.epochs
        ]

    @property
    def switch(self) -> float | None:
        """The mean of `switches`, None where there is none."""
        return statistics.fmean(self.switches) if self.switches else None


@dataclasses.dataclass(frozen=True)
class Summary:
    """All that the table, the words and the figures draw on.

    Attributes:
        search: The search.
        unit: Of the objective.
        entries: Best first, those without a rank last.
        references: In the order of `REFERENCES`.
        shared: What all trials have in common.
        fields: Field -> value of each entry, for those that differ.
        plan_fields: Those of them that are the plan's.
    """

    search: Search
    unit: Unit
    entries: Sequence[Entry]
    references: Mapping[str, Entry]
    shared: str
    fields: Mapping[str, Sequence[Any]]
    plan_fields: frozenset[str]

    @classmethod
    def of(cls, search: Search) -> Summary:
        """Sums up a search, finished or not."""
        trials = _ordered(search)
        # Without a value, a plan's field only says what another one says.
        plans = {
            name: values
            for name, values in _columns_of(
                [dataclasses.asdict(trial.plan) for trial in trials]
            ).items()
            if _differ([value for value in values if value is not None])
        }
        own = _differing([dict(t.hyperparameters) for t in trials])
        budgets = _differing([{"epochs": trial.epochs} for trial in trials])
        taken = {"epochs", *(field.name for field in dataclasses.fields(Plan))}
        return cls(
            search,
            Unit.of(search.objective),
            _entries_of(search, trials, plans, own),
            {
                name: Entry.of(
                    search, search.references[name], REFERENCES[name]
                )
                for name in REFERENCES
                if name in search.references
            },
            _shared(search, trials, plans, own),
            {
                **plans,
                # A name of the user's may be a plan's too.
                **{f"{k} (own)" if k in taken else k: own[k] for k in own},
                **budgets,
            },
            frozenset(plans),
        )

    @property
    def best(self) -> Entry | None:
        """The entry of the first rank, if any has one."""
        return next((e for e in self.entries if e.rank == 1), None)

    @property
    def cost(self) -> str:
        """What the trials cost, in a line."""
        trained, whole = self.search.epochs_trained, self.search.epochs_unshared
        share = f" ({100 * trained / whole:.0f} %)" if whole else ""
        return (
            f"Cost of the {counted(len(self.entries), 'trial')}, without the "
            f"references: {trained} epochs trained of {whole} unshared{share}, "
            f"{self.search.seconds / 60:.1f} minutes."
        )

    @property
    def title(self) -> str:
        """The headline."""
        return f"Search {self.search.folder.name}"


def _ordered(search: Search) -> list[Trial]:
    """The trials, best first, those that are not complete last."""
    complete = {id(trial) for trial in search.complete}

    def place(trial: Trial) -> tuple[bool, float]:
        values = _scores(search, trial).values()
        if not values:
            return True, math.inf
        value = -search.sign * statistics.fmean(values)
        return id(trial) not in complete, value

    return sorted(search.trials, key=place)


def _entries_of(
    search: Search,
    trials: Sequence[Trial],
    plans: Mapping[str, Any],
    own: Mapping[str, Any],
) -> list[Entry]:
    """The entries of trials in their order, with ranks and short labels."""
    complete = {id(trial) for trial in search.complete}
    entries: list[Entry] = []
    for trial in trials:
        # A loss can be finite and the objective not.
        counts = id(trial) in complete and _scores(search, trial)
        transition = choices_text(trial, plans)
        hyperparameters = _named(
            {name: trial.hyperparameters.get(name) for name in own}
        )
        parts = [part for part in (transition, hyperparameters) if part]
        label = ", ".join(parts) or str(trial.plan)
        entries.append(
            dataclasses.replace(
                Entry.of(search, trial, label),
                rank=len(entries) + 1 if counts else None,
                transition=transition
                or (str(trial.plan) if not plans else NEVER),
                hyperparameters=hyperparameters,
            )
        )
    return entries


def _scores(search: Search, trial: Trial) -> dict[int, float]:
    """Seed -> last value, where that is a number of a run that held."""
    scores = {}
    for run in trial.runs:
        values = run.history.get(search.objective, [])
        if run.status != "diverged" and values and math.isfinite(values[-1]):
            scores[run.seed] = values[-1]
    return scores


def _status(search: Search, trial: Trial) -> str:
    seeds = int(search.settings["seeds"])
    diverged = sum(run.status == "diverged" for run in trial.runs)
    if diverged:
        return f"diverged ({diverged} of {counted(seeds, 'seed')})"
    if trial.status == "stopped":
        epoch = max(
            run.shared_epochs + run.trained_epochs
            for run in trial.runs
            if run.status == "stopped"
        )
        return f"stopped at epoch {epoch}"
    if len(trial.runs) < seeds:
        return f"{len(trial.runs)} of {counted(seeds, 'seed')}"
    if trial.epochs != search.settings["epochs"]:
        return f"finished {trial.epochs} epochs"
    return "finished"


def _columns_of(
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, list[Any]]:
    """Name -> value in each row, None where it has none."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _differ(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


def _differing(
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, list[Any]]:
    columns = _columns_of(rows)
    return {name: column for name, column in columns.items() if _differ(column)}


def choices_text(trial: Trial, names: Iterable[str]) -> str:
    """The named fields of a plan, in few words."""
    plan = trial.plan.to_dict()
    chosen = {name: plan.get(name) for name in names}
    if chosen.get("fraction") is not None:
        chosen.pop("when", None)
    words = [chosen.pop(name) for name in ("when", "how") if chosen.get(name)]
    return ", ".join(filter(None, (*words, _named(chosen))))


def _shared(
    search: Search,
    trials: Sequence[Trial],
    plans: Mapping[str, Any],
    own: Mapping[str, Any],
) -> str:
    """One line of what is the same in all trials."""
    settings = search.settings
    text = (
        f"{counted(int(settings['epochs']), 'epoch')}, "
        f"{counted(int(settings['seeds']), 'seed')} a trial, "
        f"{settings['direction']} {search.objective}"
    )
    if not trials:
        return f"No trial yet; {text}."
    always: dict[str, Any] = {}
    sometimes: dict[str, Any] = {}
    rows = [dataclasses.asdict(trial.plan) for trial in trials]
    for name, values in _columns_of(rows).items():
        present = [value for value in values if value is not None]
        if present and name not in plans:
            everywhere = len(present) == len(values)
            (always if everywhere else sometimes)[name] = present[0]
    always |= {
        name: value
        for name, value in trials[0].hyperparameters.items()
        if name not in own
    }
    text = f"All trials: {text}; {_named(always)}"
    if sometimes:
        text += f"; where it applies: {_named(sometimes)}"
    return f"{text}."


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if value is not None
    )


def counted(number: int, noun: str) -> str:
    """A number of things, in the singular or the plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
