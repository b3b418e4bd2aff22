"""The report of a search, from its record alone."""

from __future__ import annotations

import dataclasses
import math
import statistics
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_hybrid.recipes import Plan, Recipe
from keras_hybrid.reports import figures, pages, study
from keras_hybrid.reports.study import MISSING, Verdict
from keras_hybrid.study.statistics import holm, paired_difference
from keras_hybrid.study.summary import Difference
from keras_hybrid.tuning.record import REFERENCES, Search, Trial

NEVER = "-"
NOTES = (
    "Scores are those of the last epoch, mean ± standard deviation (n - 1) "
    "over the seeds. Only trials that finished the full budget with every "
    "seed have a rank; a stopped trial's score is that of the epoch at which "
    "it was stopped, and a diverged seed is in no mean.",
    "The best trial was chosen by these very scores, so its lead flatters it "
    "a little, more so the more trials there were: confirm it on seeds or "
    "data that the search has not seen.",
    "Differences from a reference are paired by seed, with a 95 % bootstrap "
    "interval; p: paired t-test, adjusted by Holm over the references. Better "
    "or worse is said only if the interval excludes 0 and p < 0.05.",
    "Epochs: those that were trained, of those that the same trial costs on "
    "its own; the others came from the prefix that trials share, or were "
    "saved by stopping.",
)
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


@dataclasses.dataclass(frozen=True)
class _Unit:
    """How the objective is written."""

    label: str
    factor: float

    @classmethod
    def of(cls, objective: str) -> _Unit:
        if objective.endswith(("accuracy", "acc")):
            return cls(f"{objective}, %", 100)
        return cls(objective, 1)

    def number(self, value: float, sign: str = "") -> str:
        """Two digits of a percentage, else four that count."""
        kind = ".2f" if self.factor == 100 else ".4g"
        return f"{self.factor * value:{sign}{kind}}"

    def score(self, mean: float, spread: float | None) -> str:
        if not math.isfinite(mean):
            return MISSING
        text = self.number(mean)
        if spread is None:
            return text
        kind = ".2f" if self.factor == 100 else ".2g"
        return f"{text} ± {self.factor * spread:{kind}}"


@dataclasses.dataclass(frozen=True)
class _Entry:
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

    @property
    def mean(self) -> float:
        return (
            statistics.fmean(self.scores.values())
            if self.scores
            else (math.nan)
        )

    @property
    def spread(self) -> float | None:
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
        return statistics.fmean(self.switches) if self.switches else None


@dataclasses.dataclass(frozen=True)
class _Summary:
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
    unit: _Unit
    entries: Sequence[_Entry]
    references: Mapping[str, _Entry]
    shared: str
    fields: Mapping[str, Sequence[Any]]
    plan_fields: frozenset[str]

    @classmethod
    def of(cls, search: Search) -> _Summary:
        complete = {id(trial) for trial in search.complete}

        def place(trial: Trial) -> tuple[bool, float]:
            values = _scores(search, trial).values()
            if not values:
                return True, math.inf
            value = -search.sign * statistics.fmean(values)
            return id(trial) not in complete, value

        trials = sorted(search.trials, key=place)
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
        entries: list[_Entry] = []
        for trial in trials:
            # A loss can be finite and the objective not.
            counts = id(trial) in complete and _scores(search, trial)
            transition = _chosen(trial, plans)
            hyperparameters = _named(
                {name: trial.hyperparameters.get(name) for name in own}
            )
            parts = [part for part in (transition, hyperparameters) if part]
            entries.append(
                _Entry(
                    trial,
                    len(entries) + 1 if counts else None,
                    ", ".join(parts) or str(trial.plan),
                    transition or (str(trial.plan) if not plans else NEVER),
                    hyperparameters,
                    _scores(search, trial),
                    _status(search, trial),
                )
            )
        return cls(
            search,
            _Unit.of(search.objective),
            entries,
            {
                name: _Entry(
                    trial,
                    None,
                    REFERENCES[name],
                    REFERENCES[name],
                    "",
                    _scores(search, trial),
                    _status(search, trial),
                )
                for name in REFERENCES
                for trial in (search.references.get(name),)
                if trial is not None
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
    def best(self) -> _Entry | None:
        return next((e for e in self.entries if e.rank == 1), None)

    @property
    def cost(self) -> str:
        """What the trials cost, in a line."""
        trained, whole = self.search.epochs_trained, self.search.epochs_unshared
        share = f" ({100 * trained / whole:.0f} %)" if whole else ""
        return (
            f"Cost of the {_count(len(self.entries), 'trial')}, without the "
            f"references: {trained} epochs trained of {whole} unshared{share}, "
            f"{self.search.seconds / 60:.1f} minutes."
        )

    @property
    def title(self) -> str:
        return f"Search {self.search.folder.name}"


@dataclasses.dataclass(frozen=True)
class _Column:
    header: str
    text: Callable[[_Entry], str]


def print_table(search: Search, console: Console) -> None:
    """Prints what the trials share, the table, best first, and the cost.

    Args:
        search: The search, finished or not.
        console: Where to print.
    """
    summary = _Summary.of(search)
    table = Table(box=None, padding=(0, 1, 0, 0))
    columns = _columns(summary)
    for i, column in enumerate(columns):
        is_name = column.header in ("Transition", "Hyperparameters")
        table.add_column(
            Text(textwrap.fill(column.header, 15)),
            justify="left" if is_name or i == len(columns) - 1 else "right",
            overflow="fold",
        )
    for entry in summary.entries:
        table.add_row(*(Text(column.text(entry)) for column in columns))
    table.add_row()
    for entry in summary.references.values():
        table.add_row(*(Text(column.text(entry)) for column in columns))
    console.print(Text(summary.title, style="bold"))
    console.print(Text(summary.shared))
    console.print(table)
    console.print(Text(summary.cost))


def markdown_table(search: Search) -> str:
    """The same as `print_table` prints, as GitHub-flavoured Markdown.

    Args:
        search: The search, finished or not.

    Returns:
        A line of what the trials share, the table, a line of the cost; without
        a newline at the end.
    """
    summary = _Summary.of(search)
    columns = _columns(summary)
    lines = [
        [column.header for column in columns],
        ["---"] * len(columns),
    ] + [
        [study.escaped_markdown(column.text(entry)) for column in columns]
        for entry in (*summary.entries, *summary.references.values())
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    shared, cost = map(study.escaped_markdown, (summary.shared, summary.cost))
    return f"{shared}\n\n{table}\n\n{cost}"


def write_html(
    search: Search, path: Path | str, recipe: Recipe | None = None
) -> None:
    """Writes the report as one HTML file that loads nothing from elsewhere.

    The same record gives the same file, byte for byte.

    Args:
        search: The search, finished or not.
        path: The file to write; its folder is made.
        recipe: What the search found; None leaves it out.
    """
    summary = _Summary.of(search)
    columns = _columns(summary)
    drawn = {
        title: figure
        for title, figure in (
            ("Score and switch point", _points(summary)),
            ("Score and choices", _parallel(summary)),
            ("Over the epochs", _learning(summary)),
        )
        if figure is not None
    }
    pages.write(
        path,
        "search.html.jinja",
        title=summary.title,
        finding=_finding(summary),
        verdicts=_verdicts(summary),
        cost=summary.cost,
        shared=summary.shared,
        headers=[column.header for column in columns],
        groups=[
            [[column.text(entry) for column in columns] for entry in entries]
            for entries in (summary.entries, [*summary.references.values()])
            if entries
        ],
        # Markup: figures.py has escaped the names already.
        figures={title: Markup(svg) for title, svg in drawn.items()},
        notes=NOTES,
        recipe=None if recipe is None else _json(recipe),
        usage=None if recipe is None else _usage(recipe),
    )


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
        return f"diverged ({diverged} of {_count(seeds, 'seed')})"
    if trial.status == "stopped":
        epoch = max(
            run.shared_epochs + run.trained_epochs
            for run in trial.runs
            if run.status == "stopped"
        )
        return f"stopped at epoch {epoch}"
    if len(trial.runs) < seeds:
        return f"{len(trial.runs)} of {_count(seeds, 'seed')}"
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


def _chosen(trial: Trial, names: Iterable[str]) -> str:
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
        f"{_count(int(settings['epochs']), 'epoch')}, "
        f"{_count(int(settings['seeds']), 'seed')} a trial, "
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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _columns(summary: _Summary) -> list[_Column]:
    unit = summary.unit
    seeds = int(summary.search.settings["seeds"])

    def switch(entry: _Entry) -> str:
        if entry.switch is None:
            return NEVER
        runs = len(entry.trial.runs)
        some = len(entry.switches)
        return f"{entry.switch:.3g}" + (
            "" if some == runs else f" ({some} of {runs})"
        )

    def epochs(entry: _Entry) -> str:
        trained = sum(run.trained_epochs for run in entry.trial.runs)
        return f"{trained} of {entry.trial.epochs * seeds}"

    columns = [
        _Column("Rank", lambda e: MISSING if e.rank is None else str(e.rank)),
        _Column("Transition", lambda entry: entry.transition),
        _Column("Hyperparameters", lambda entry: entry.hyperparameters),
        _Column("Switch epoch", switch),
        _Column(unit.label, lambda e: unit.score(e.mean, e.spread)),
        _Column("Epochs trained", epochs),
        _Column("Status", lambda entry: entry.status),
    ]
    if not any(entry.hyperparameters for entry in summary.entries):
        del columns[2]
    return columns


def _finding(summary: _Summary) -> str:
    """What won, in a sentence."""
    search, best = summary.search, summary.best
    if best is None:
        return (
            "No trial of the full budget has finished "
            f"({_count(len(summary.entries), 'trial')} begun): there is no "
            "best one."
        )
    ranked = sum(entry.rank is not None for entry in summary.entries)
    spread = (
        "one seed, so no spread"
        if best.spread is None
        else f"mean ± standard deviation over {len(best.scores)} seeds"
    )
    switch = (
        "it never switches"
        if best.switch is None
        else f"it switches at epoch {best.switch:.3g} of {best.trial.epochs}"
    )
    return (
        f"Best of {_count(ranked, 'complete trial')}: {best.label}, with "
        f"{search.objective} {summary.unit.score(best.mean, best.spread)}"
        f"{' %' if summary.unit.factor == 100 else ''} ({spread}); {switch}."
    )


def _verdicts(summary: _Summary) -> list[Verdict]:
    """What the best trial did against each reference."""
    best = summary.best
    if best is None:
        return []
    found: dict[str, Difference | None] = {}
    for name, entry in summary.references.items():
        common = best.scores.keys() & entry.scores.keys()
        found[name] = (
            Difference(
                entry.label,
                paired_difference(best.scores, entry.scores),
                math.nan,
            )
            if common
            else None
        )
    p_values = {
        name: d.paired.p_value
        for name, d in found.items()
        if d is not None and math.isfinite(d.paired.p_value)
    }
    if p_values:
        adjusted = holm(list(p_values.values()))
        for name, p_value in zip(p_values, adjusted, strict=True):
            difference = found[name]
            if difference is not None:
                found[name] = dataclasses.replace(difference, p_holm=p_value)
    return [
        _verdict(summary, best, summary.references[name], difference)
        for name, difference in found.items()
    ]


def _verdict(
    summary: _Summary,
    best: _Entry,
    reference: _Entry,
    difference: Difference | None,
) -> Verdict:
    unit = summary.unit
    label = reference.label
    if difference is None:
        return Verdict(label, "unclear", "nothing to pair with", MISSING)
    paired = difference.paired
    # No interval for one seed, no test for equal differences.
    interval = (
        MISSING
        if math.isnan(paired.low)
        else f"{unit.number(paired.low, '+')}, {unit.number(paired.high, '+')}"
    )
    numbers = f"{unit.number(paired.mean, '+')} [{interval}]"
    if unit.factor == 100:
        numbers += " points"
    if math.isfinite(difference.p_holm):
        p = study.p_text(difference)
        numbers += f", p {p}" if p.startswith("<") else f", p = {p}"
    if best.trial.plan == reference.trial.plan and best.scores == (
        reference.scores
    ):
        return Verdict(label, "unclear", "the same as", numbers)
    if paired.seeds == 1:
        words = "not shown to be better (one seed) than"
        return Verdict(label, "unclear", words, numbers)
    if not difference.is_clear:
        if summary.search.sign * paired.mean > 0:
            numbers += f" over {paired.seeds} seeds: may be chance"
        return Verdict(label, "unclear", "not better than", numbers)
    if summary.search.sign * paired.mean > 0:
        return Verdict(label, "higher", "better than", numbers)
    return Verdict(label, "lower", "worse than", numbers)


def _points(summary: _Summary) -> str | None:
    """Score over the switch point."""
    entries = [entry for entry in summary.entries if entry.scores]
    references = {k: e for k, e in summary.references.items() if e.scores}
    if not entries and not references:
        return None
    search, factor = summary.search, summary.unit.factor
    epochs = int(search.settings["epochs"])

    def point(entry: _Entry) -> figures.Point:
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
    summary: _Summary, entries: Sequence[_Entry]
) -> dict[str, list[_Entry]]:
    """Label -> trials; a line of switch points of otherwise equal plans."""
    kinds: dict[str, list[_Entry]] = {}
    for entry in entries:
        if entry.trial.plan.when != "fraction":
            continue
        others = summary.plan_fields - {"when", "fraction"}
        parts = [_chosen(entry.trial, sorted(others)), entry.hyperparameters]
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


def _parallel(summary: _Summary) -> str | None:
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


def _learning(summary: _Summary) -> str | None:
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


def _json(recipe: Recipe) -> str:
    """The text of the recipe's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = recipe.save(Path(folder) / "recipe.json")
        return path.read_text(encoding="utf-8")


def _usage(recipe: Recipe) -> str:
    """Python lines that use the recipe."""
    epochs = recipe.budget["epochs"]
    steps = recipe.budget["steps_per_epoch"]
    return f"""\
from keras_hybrid import HybridOptimizer, SwitchCallback

path = {f"{recipe.name}.json"!r}
optimizer = HybridOptimizer.from_recipe(path)
callback = SwitchCallback.from_recipe(path)
model.compile(optimizer, loss=...)
model.fit(..., epochs={epochs}, callbacks=[callback])

# {epochs} epochs of {steps} steps, as in the search; for another length:
# HybridOptimizer.from_recipe(path, epochs=..., steps_per_epoch=...)
# SwitchCallback.from_recipe(path, epochs=...)
"""
