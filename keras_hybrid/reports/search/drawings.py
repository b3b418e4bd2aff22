"""The figures of a search's report: score by switch, by choices, by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_hybrid.reports import figures
from keras_hybrid.reports.search.summary import Entry, Summary, choices_text

KINDS = {
    "fraction": "other fixed switch points",
    "plateau": "switch at a plateau",
    "gap": "switch at a gap",
    "projection": "switch when the projection converged",
    "start": "SGD from the start",
}
# Kinds of fixed switch points with a line of their own, and curves.
MAX_LINES = 6
MAX_CURVES = 5


def points(summary: Summary) -> str | None:
    """Score over the switch point."""
    entries = [entry for entry in summary.entries if entry.scores]
    references = {k: e for k, e in summary.references.items() if e.scores}
    if not entries and not references:
        return None
    search, factor = summary.search, summary.unit.factor
    epochs = int(search.settings["epochs"])

    def point(entry: Entry) -> figures.Point:
        end = entry.trial.epochs
        x = end if entry.switch is None else entry.switch
        return figures.Point(
            # In epochs of the full budget.
            x * epochs / end,
            [factor * score for score in entry.scores.values()],
            is_complete=entry.rank is not None or entry in references.values(),
            is_best=entry.rank == 1,
        )

    series: list[figures.Series] = []
    for label, of_kind in _kinds(summary, entries).items():
        series.append(
            figures.Series(
                label,
                figures.Style.of(len(series)),
                [point(entry) for entry in of_kind],
                has_line=label not in KINDS.values(),
            )
        )
    if "default" in references:
        style = figures.Style("#000000", "-", "D")
        points = [point(references["default"])]
        label = references["default"].label
        series.append(figures.Series(label, style, points, has_line=False))
    levels = [
        figures.Level(
            name,
            figures.Style(color, "--", "*"),
            [factor * score for score in references[key].scores.values()],
            is_left=key == "sgd",
        )
        for key, name, color in (
            ("sgd", "SGD alone", "#8c4a00"),
            ("adam", "Adam alone", "#444444"),
        )
        if key in references
    ]
    return figures.draw_points(
        series,
        levels,
        f"Score and switch point: {summary.title}",
        "epoch of the switch (0: SGD from the start;\n"
        f"{epochs}: never switched)",
        summary.unit.label,
        epochs=epochs,
        lower_is_better=search.sign < 0,
    )


def _kinds(
    summary: Summary, entries: Sequence[Entry]
) -> dict[str, list[Entry]]:
    """Label -> trials; a line of switch points of otherwise equal plans."""
    kinds: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.trial.plan.when != "fraction":
            continue
        others = summary.plan_fields - {"when", "fraction"}
        parts = [
            choices_text(entry.trial, sorted(others)),
            entry.hyperparameters,
        ]
        if entry.trial.epochs != summary.search.settings["epochs"]:
            parts.append(f"{entry.trial.epochs} epochs")
        label = ", ".join(["fixed switch", *filter(None, parts)])
        kinds.setdefault(label, []).append(entry)
    several = [label for label in kinds if len(kinds[label]) > 1]
    lines = sorted(several, key=lambda label: -len(kinds[label]))[:MAX_LINES]
    found = {label: kinds[label] for label in kinds if label in lines}
    on_lines = {id(entry) for of_kind in found.values() for entry in of_kind}
    for entry in entries:
        if id(entry) not in on_lines:
            found.setdefault(KINDS[entry.trial.plan.when], []).append(entry)
    return found


def parallel(summary: Summary) -> str | None:
    """Parallel coordinates, where at least two fields differ."""
    if len(summary.fields) < 2:
        return None
    return figures.draw_parallel(
        summary.fields,
        [
            math.nan if e.rank is None else summary.unit.factor * e.mean
            for e in summary.entries
        ],
        f"Score and choices: {summary.title}",
        summary.unit.label,
        lower_is_better=summary.search.sign < 0,
    )


def learning(summary: Summary) -> str | None:
    """The objective over the epochs of the best, the worst and some trials."""
    objective, factor = summary.search.objective, summary.unit.factor
    entries = [
        entry
        for entry in summary.entries
        if any(run.history.get(objective) for run in entry.trial.runs)
    ]
    ranked = [entry for entry in entries if entry.rank is not None]
    entries = ranked or entries
    count = min(len(entries), MAX_CURVES)
    if not count:
        return None
    last = len(entries) - 1
    chosen = [
        entries[round(i * last / max(count - 1, 1))] for i in range(count)
    ]
    curves = []
    for i, entry in enumerate(chosen):
        values: dict[bool, list[list[float]]] = {False: [], True: []}
        for run in entry.trial.runs:
            values[run.status == "diverged"].append(
                [factor * x for x in run.history.get(objective, [])]
            )
        place = entry.status if entry.rank is None else f"{entry.rank}"
        curves.append(
            figures.Curves(
                f"{place}: {entry.label}",
                figures.Style.of(i),
                values[False],
                values[True],
                entry.switch,
            )
        )
    return figures.draw_curves(
        curves,
        f"Over the epochs: {summary.title}",
        summary.unit.label,
        lower_is_better=summary.search.sign < 0,
    )
