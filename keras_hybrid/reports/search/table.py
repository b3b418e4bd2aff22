"""The table of a search's trials: its columns, for every medium."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from keras_hybrid.reports.search.summary import NEVER, Entry, Summary
from keras_hybrid.reports.texts import MISSING


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: its header, and what it says of an entry."""

    header: str
    text: Callable[[Entry], str]


def columns_of(summary: Summary) -> list[Column]:
    """The columns of the table, in their order."""
    unit = summary.unit
    seeds = int(summary.search.settings["seeds"])

    def switch(entry: Entry) -> str:
        if entry.switch is None:
            return NEVER
        runs = len(entry.trial.runs)
        some = len(entry.switches)
        return f"{entry.switch:.3g}" + (
            "" if some == runs else f" ({some} of {runs})"
        )

    def epochs(entry: Entry) -> str:
        trained = sum(run.trained_epochs for run in entry.trial.runs)
        return f"{trained} of {entry.trial.epochs * seeds}"

    columns = [
        Column("Rank", lambda e: MISSING if e.rank is None else str(e.rank)),
        Column("Transition", lambda entry: entry.transition),
        Column("Hyperparameters", lambda entry: entry.hyperparameters),
        Column("Switch epoch", switch),
        Column(unit.label, lambda e: unit.score(e.mean, e.spread)),
        Column("Epochs trained", epochs),
        Column("Status", lambda entry: entry.status),
    ]
    if not any(entry.hyperparameters for entry in summary.entries):
        del columns[2]
    return columns
