"""The reports: from result files alone to a table, Markdown and one HTML."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_hybrid._support import files
from keras_hybrid.reports import figures, glance, pages
from keras_hybrid.study.record import Run
from keras_hybrid.study.statistics import Interval
from keras_hybrid.study.summary import (
    TRACES,
    Cell,
    Difference,
    Row,
    arms_of,
    cell_of,
    configuration,
    distinct,
    group,
    load_runs,
    summary,
)
from keras_hybrid.study.trace import Trace

__all__ = [
    "load_runs",
    "load_traces",
    "markdown_glance",
    "markdown_table",
    "print_table",
    "summary",
    "write_html",
    "write_markdown",
]

MISSING = "–"
NOTES = (
    "Accuracies are means over the finished seeds with a 95 % interval "
    "(Student's t); a diverged seed is counted, and in no mean.",
    "Differences are paired by seed, in percentage points of test accuracy, "
    "with a 95 % bootstrap interval. p: paired t-test, adjusted by Holm over "
    "the cells in which the arm is compared with this kind of reference. With "
    "few seeds "
    "a bootstrap interval is too narrow (of 95 % intervals over 5 seeds about "
    "83 % hold the true value), so a difference is called higher or lower "
    "only if the interval excludes 0 and p < 0.05.",
    "Best baseline: the baseline with the highest mean final validation "
    "accuracy, which is the target too. Epochs and seconds to target: median "
    "over the seeds that reach it, and how many do. Seconds are of "
    "training, compilation included, validation left out; in a study, of one "
    "core, and compilation falls on the first seed.",
    "Learning rate: tuned on the validation split with a seed that is not "
    "reported; in brackets the trainings it took (0: that of another arm).",
    "Gap: final training accuracy minus test accuracy; the training accuracy "
    "is what fit logged, under dropout and augmentation where there are any.",
    "Epochs and seconds used: means. A run that ends itself uses fewer than "
    "there are.",
    "Curve mean: validation accuracy, averaged over the epochs; of a run that "
    "ended itself, the epochs after its end have its final one.",
    "Version: of keras_hybrid, that made the runs.",
)
# Name in the history -> title, axis, whether logarithmic.
# More arms than these make a figure unreadable.
_MOST_CURVES = 6
CURVE_FIGURES = {
    "val_accuracy": ("Validation accuracy", "validation accuracy, %", False),
    "val_loss": ("Validation loss", "validation loss", True),
    "accuracy": ("Training accuracy", "training accuracy, %", False),
    "loss": ("Training loss", "training loss", True),
    "sgd_fraction": ("Fraction of SGD", "fraction of SGD", False),
    "learning_rate": (
        "Learning rate with cool-down",
        "learning rate × cool-down",
        True,
    ),
    "sgd_learning_rate": (
        "Equivalent SGD learning rate",
        "SGD learning rate",
        True,
    ),
}


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        header: Its title, with the unit.
        text: Row -> text of the entry.
        in_terminal: Whether it is worth the width of a terminal.
    """

    header: str
    text: Callable[[Row], str]
    in_terminal: bool = False


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One comparison in words.

    Attributes:
        reference: "control" or "best baseline".
        direction: "higher", "lower" or "unclear".
        words: What to think of the difference.
        figures: The difference with its interval, p and missing pairs.
    """

    reference: str
    direction: str
    words: str
    figures: str


@dataclasses.dataclass(frozen=True)
class Finding:
    """A cell in words: what a reader gets in ten seconds.

    Attributes:
        title: The cell and its target.
        fit: What the best baseline's curves say of the regime.
        best: Which arm has the highest mean.
        references: Who are the control and the best baseline.
        hybrids: Label -> its verdicts.
    """

    title: str
    fit: str
    best: str
    references: str
    hybrids: Mapping[str, Sequence[Verdict]]


def markdown_table(rows: Sequence[Row]) -> str:
    """The table as GitHub-flavoured Markdown.

    Args:
        rows: What `summary` returned.

    Returns:
        A header and one line a row, without a newline at the end.

    Example:
    >>> from keras_hybrid.study.report import markdown_table
    >>> markdown_table([]).startswith("| Cell | Arm | Test")
    True
    """
    lines = [
        ["Cell", *(column.header for column in COLUMNS)],
        ["---"] * (1 + len(COLUMNS)),
    ]
    for row in rows:
        texts = [str(row.cell), *(column.text(row) for column in COLUMNS)]
        lines.append([escaped_markdown(text) for text in texts])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Prints one table a cell, with the columns that fit a terminal.

    Args:
        rows: What `summary` returned.
        console: Where to print.
    """
    shown = [column for column in COLUMNS if column.in_terminal]
    for cell, of_cell in _by_cell(rows).items():
        table = Table(
            title=Text(_title(cell, of_cell)),
            title_justify="left",
            box=None,
            padding=(0, 1, 1, 0),
        )
        table.add_column("Arm", overflow="fold")
        for column in shown:
            header = textwrap.fill(column.header, 10)
            table.add_column(header, justify="right")
        for row in of_cell:
            # The second half of an entry goes below the first.
            texts = (
                re.sub(r",? (?=[\[(])", "\n", column.text(row))
                for column in shown
            )
            label = Text(_label_with_diverged(row))
            table.add_row(label, *(Text(text) for text in texts))
        console.print(table)


def write_markdown(
    runs: Sequence[Run], path: Path | str, warnings: Sequence[str] = ()
) -> None:
    """Writes the report as Markdown: verdicts, table, how to read it.

    Args:
        runs: The runs, as `load_runs` returned them.
        path: The file to write; its folder is made.
        warnings: The second result of `load_runs`.

    Raises:
        ValueError: If `runs` is empty or one lacks what a row needs.
    """
    rows = summary(runs)
    parts = ["# Study of optimizers\n"]
    if glances := glance.tables(rows):
        parts.append(_list(glance.headline(rows)))
        parts.extend(map(markdown_glance, glances))
        parts.append(f"{glance.LEGEND}\n")
        parts.append(_list(glance.sentences(rows)))
    for of_cell in _by_cell(rows).values():
        finding = _finding(of_cell)
        parts.append(f"**{escaped_markdown(finding.title)}**\n")
        lines = [finding.fit, finding.best, finding.references] + [
            f"{label}: "
            + "; ".join(
                f"{v.words} {v.reference} ({v.figures})" for v in verdicts
            )
            for label, verdicts in finding.hybrids.items()
        ]
        parts.append(_list(lines))
    parts.append(markdown_table(rows) + "\n")
    sections: dict[str, Sequence[str]] = {
        "Warnings": warnings,
        "How to read this": NOTES,
        "Commands": _commands(runs),
        "Versions": [f"{k}: {v}" for k, v in _versions(runs).items()],
    }
    for heading, entries in sections.items():
        if entries:
            parts.append(f"## {heading}\n")
            parts.append(_list(entries))
    with files.atomically(Path(path)) as partial:
        partial.write_text("\n".join(parts), encoding="utf-8")


def markdown_glance(table: glance.Table) -> str:
    """A table of the glance as GitHub-flavoured Markdown, a line a hybrid.

    Args:
        table: One that `glance.tables` returned.

    Example:
    >>> from keras_hybrid.study import glance, report
    >>> table = glance.Table("minus", ["a"], {"x": [None]})
    >>> report.markdown_glance(table).splitlines()
    ['| minus | a |', '| --- | --- |', '| x | – |']
    """
    lines = [[table.title, *table.cells], ["---"] * (1 + len(table.cells))]
    for label, entries in table.rows.items():
        texts = [f"{e.mark} {e.text}" if e else MISSING for e in entries]
        lines.append([escaped_markdown(text) for text in (label, *texts)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def load_traces(folder: Path | str) -> tuple[dict[Cell, Trace], list[str]]:
    """Reads the traces of the projection that lie beside the records.

    Returns:
        `(traces, warnings)`: one a cell, and a text for each file that was
        skipped.
    """
    traces, warnings = {}, []
    for path in sorted(Path(folder).rglob(f"{TRACES}/*.json")):
        try:
            trace = Trace.load(path)
            records = path.parent.parent.glob("*-seed*.json")
            traces[cell_of(Run.load(min(records)))] = trace
        except ValueError as error:
            warnings.append(f"{path.relative_to(folder)}: skipped: {error}")
    return traces, warnings


def write_html(
    runs: Sequence[Run],
    path: Path | str,
    warnings: Sequence[str] = (),
    traces: Mapping[Cell, Trace] | None = None,
) -> None:
    """Writes the report as one HTML file that loads nothing from elsewhere.

    The same runs give the same file, byte for byte.

    Args:
        runs: The runs, as `load_runs` returned them.
        path: The file to write; its folder is made.
        warnings: The second result of `load_runs`.
        traces: The first result of `load_traces`.

    Raises:
        ValueError: If `runs` is empty or one lacks what a row needs.
    """
    rows = summary(runs)
    of_cell = group(runs, cell_of)
    styles = {arm: figures.Style.of(i) for i, arm in enumerate(arms_of(runs))}
    cells = [
        {
            "finding": _finding(cell_rows),
            "rows": [[c.text(row) for c in COLUMNS] for row in cell_rows],
            "figures": [
                # Markup: figures.py has escaped the names already.
                {"title": title, "svg": Markup(svg)}
                for title, svg in {
                    **_figures(cell, cell_rows, of_cell[cell], styles),
                    **_trace_figure(cell, (traces or {}).get(cell)),
                }.items()
            ],
            "arms": [_configuration(row, of_cell[cell]) for row in cell_rows],
        }
        for cell, cell_rows in _by_cell(rows).items()
    ]
    pages.write(
        path,
        "report.html.jinja",
        cells=cells,
        glance=glance.tables(rows),
        headline=glance.headline(rows),
        sentences=glance.sentences(rows),
        legend=glance.LEGEND,
        headers=[column.header for column in COLUMNS],
        notes=NOTES,
        warnings=warnings,
        commands=_commands(runs),
        versions=_versions(runs),
        runs=len(runs),
    )


def _figures(
    cell: Cell,
    rows: Sequence[Row],
    runs: Sequence[Run],
    styles: Mapping[str, figures.Style],
) -> dict[str, str]:
    """Title -> figure of one cell; those without data are left out."""
    by_arm = arms_of(runs)
    shown = _shown(rows)
    drawn = {"Test accuracy of each seed": _dots(cell, rows, by_arm, styles)}
    forest = _forest(cell, rows, styles)
    if forest is not None:
        drawn["Paired differences in test accuracy"] = forest
    for name, (title, ylabel, log) in CURVE_FIGURES.items():
        curves = [
            _curves(row, by_arm[row.arm], name, styles[row.arm])
            for row in shown
            if any(run.history.get(name) for run in by_arm[row.arm])
        ]
        if curves:
            drawn[title] = figures.draw_curves(
                curves, f"{title}: {cell}", ylabel, log=log
            )
    return drawn


def _trace_figure(cell: Cell, trace: Trace | None) -> dict[str, str]:
    if trace is None:
        return {}
    title = "Projection: gamma, Lambda and the weight of SGD"
    svg = figures.draw_trace(
        trace.gamma,
        trace.projection,
        trace.sgd_fraction,
        f"{title}: {cell}",
    )
    return {title: svg}


def _shown(rows: Sequence[Row]) -> list[Row]:
    """The arms whose curves are drawn, chosen on the validation split.

    All, if there are few. Else the best baseline, the controls of what is
    drawn and the hybrids with all epochs that end highest.
    """
    if len(rows) <= _MOST_CURVES:
        return list(rows)
    hybrids = [
        row
        for row in rows
        if row.role == "hybrid" and row.share == 1 and row.val_accuracy
    ]
    hybrids.sort(key=lambda row: -(row.val_accuracy or 0))
    chosen = hybrids[: _MOST_CURVES - 3]
    references = {
        row.against_control.reference
        for row in chosen
        if row.against_control is not None
    }
    return [
        row
        for row in rows
        if row.is_best_baseline or row in chosen or row.label in references
    ]


def _curves(
    row: Row, runs: Sequence[Run], name: str, style: figures.Style
) -> figures.Curves:
    values: dict[str, list[Sequence[float]]] = {"finished": [], "diverged": []}
    for run in runs:
        curve = run.history.get(name, [])
        if name in ("accuracy", "val_accuracy"):
            curve = [100 * x for x in curve]
        if name == "learning_rate" and "cooldown" in run.history:
            factors = run.history["cooldown"]
            curve = [x * f for x, f in zip(curve, factors, strict=False)]
        values[run.status].append(curve)
    return figures.Curves(
        row.label, style, **values, switch_epoch=row.switch_epoch
    )


def _dots(
    cell: Cell,
    rows: Sequence[Row],
    by_arm: Mapping[str, Sequence[Run]],
    styles: Mapping[str, figures.Style],
) -> str:
    dots = [
        figures.Dots(
            _label_with_diverged(row),
            styles[row.arm],
            [
                100 * run.test_accuracy
                for run in by_arm[row.arm]
                if run.status == "finished" and run.test_accuracy is not None
            ],
            _percent(row.test_accuracy),
        )
        for row in rows
    ]
    return figures.draw_dots(
        dots, f"Test accuracy of each seed: {cell}", "test accuracy, %"
    )


def _forest(
    cell: Cell, rows: Sequence[Row], styles: Mapping[str, figures.Style]
) -> str | None:
    panels = []
    for name, kind in (
        ("control", "against_control"),
        ("best baseline", "against_baseline"),
    ):
        compared = [
            (row, difference)
            for row in rows
            if (difference := getattr(row, kind)) is not None
        ]
        if compared:
            heading = _reference(name, [d for _, d in compared])
            panels.append(
                (
                    heading,
                    [
                        figures.Comparison(
                            row.label,
                            styles[row.arm],
                            Interval(*(100 * x for x in d.paired[:3])),
                        )
                        for row, d in compared
                    ],
                )
            )
    if not panels:
        return None
    return figures.draw_forest(
        panels,
        f"Paired differences in test accuracy: {cell}",
        "difference in test accuracy, points",
    )


def _reference(name: str, differences: Sequence[Difference]) -> str:
    """Who is subtracted; in the study each hybrid has a control."""
    labels = {difference.reference for difference in differences}
    if len(labels) > 1:
        return f"minus {name}, each its own"
    return f"minus {name}: {labels.pop()}"


def _configuration(row: Row, runs: Sequence[Run]) -> dict[str, Any]:
    """What the arm was, and in which seeds."""
    of_arm = [run for run in runs if run.arm == row.arm]
    return {
        "label": row.label,
        "arm": row.arm,
        "seeds": ", ".join(map(str, row.seeds)),
        "texts": [
            json.dumps(content, indent=1, sort_keys=True, default=str)
            for content in distinct(configuration(run) for run in of_arm)
        ],
    }


def _commands(runs: Sequence[Run]) -> list[str]:
    return [
        str(command)
        for command in distinct(
            run.configuration.get("command") for run in runs
        )
        if command
    ]


def _versions(runs: Sequence[Run]) -> dict[str, str]:
    """Package -> its versions, more than one where runs differ."""
    names = sorted({name for run in runs for name in run.versions})
    return {
        name: ", ".join(
            str(version)
            for version in distinct(run.versions.get(name) for run in runs)
        )
        for name in names
    }


def _by_cell(rows: Sequence[Row]) -> dict[Cell, list[Row]]:
    cells: dict[Cell, list[Row]] = {}
    for row in rows:
        cells.setdefault(row.cell, []).append(row)
    return cells


def _title(cell: Cell, rows: Sequence[Row]) -> str:
    target = rows[0].target
    if target is None:
        return f"{cell} (no baseline, so no target)"
    best = next(row.label for row in rows if row.is_best_baseline)
    return f"{cell} (target {100 * target:.2f} % validation accuracy: {best})"


def _finding(rows: Sequence[Row]) -> Finding:
    ranked = [
        (row.test_accuracy, row)
        for row in rows
        if row.test_accuracy is not None
    ]
    best = "Every run diverged."
    if ranked:
        accuracy, row = max(ranked, key=lambda pair: pair[0].mean)
        best = (
            f"Highest mean test accuracy: {row.label} ({_role(row)}), "
            f"{_interval_text(_percent(accuracy), 2)} %, "
            f"seeds: {_seeds(row)}."
        )
    hybrids = {row: _verdicts(row) for row in rows if row.role == "hybrid"}
    names: dict[str, str] = {}
    for name, kind in (
        ("Control", "against_control"),
        ("Best baseline", "against_baseline"),
    ):
        found = [d for row in hybrids if (d := getattr(row, kind)) is not None]
        labels = dict.fromkeys(difference.reference for difference in found)
        if labels:
            names[name] = ", or ".join(labels)
    return Finding(
        title=_title(rows[0].cell, rows),
        fit=_fit(rows),
        best=best,
        references=". ".join(f"{k}: {v}" for k, v in names.items())
        or "Nothing to compare a hybrid with",
        hybrids={
            row.label: verdicts for row, verdicts in hybrids.items() if verdicts
        },
    )


def _fit(rows: Sequence[Row]) -> str:
    """How far the best baseline fits, in words."""
    for row in rows:
        if row.is_best_baseline and row.train_accuracy and row.val_accuracy:
            train, validation = row.train_accuracy, row.val_accuracy
            return (
                f"{row.label} ends at {100 * train:.2f} % training accuracy "
                f"and {100 * validation:.2f} % validation accuracy."
            )
    return "No baseline."


def _verdicts(row: Row) -> list[Verdict]:
    """What the hybrid did against control and best baseline."""
    verdicts = []
    for reference, difference in (
        ("control", row.against_control),
        ("best baseline", row.against_baseline),
    ):
        if difference is None:
            continue
        low, high = difference.paired.low, difference.paired.high
        direction, words = "unclear", "no clear difference from"
        if math.isnan(low):
            words = "one seed, so no interval, against"
        elif difference.is_clear:
            direction = "higher" if low > 0 else "lower"
            words = f"{direction} than"
        numbers = f"{_difference_text(difference)} points"
        if math.isfinite(difference.p_holm):
            p = p_text(difference)
            numbers += f", p {p}" if p.startswith("<") else f", p = {p}"
        if direction == "unclear" and (low > 0 or high < 0):
            numbers += ", the interval excludes 0 but p is not below 0.05"
        unpaired = len(row.seeds) - difference.paired.seeds
        if unpaired:
            numbers += f", {unpaired} of {len(row.seeds)} seeds without a pair"
        verdicts.append(Verdict(reference, direction, words, numbers))
    return verdicts


def _label_with_diverged(row: Row) -> str:
    if not row.diverged:
        return row.label
    return f"{row.label} ({row.diverged} of {len(row.seeds)} diverged)"


def _percent(interval: Interval | None) -> Interval | None:
    if interval is None:
        return None
    return Interval(*(100 * bound for bound in interval))


def _interval_text(interval: Interval | None, digits: int) -> str:
    if interval is None:
        return MISSING
    if math.isnan(interval.low):
        return f"{interval.mean:.{digits}f} [{MISSING}]"
    return (
        f"{interval.mean:.{digits}f} "
        f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
    )


def _difference_text(difference: Difference | None) -> str:
    if difference is None:
        return MISSING
    mean, low, high = (100 * x for x in difference.paired[:3])
    if math.isnan(low):
        return f"{mean:+.2f} [{MISSING}]"
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def p_text(difference: Difference | None) -> str:
    if difference is None or math.isnan(difference.p_holm):
        return MISSING
    if difference.p_holm < 0.001:
        return "< 0.001"
    return f"{difference.p_holm:.3f}"


def _number(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def _role(row: Row) -> str:
    return "best baseline" if row.is_best_baseline else row.role


def _seeds(row: Row) -> str:
    count = str(len(row.seeds))
    return f"{count} ({row.diverged} diverged)" if row.diverged else count


def _epochs_to_target(row: Row) -> str:
    if row.target is None:
        return MISSING
    reached = f"{row.reached} of {len(row.seeds)}"
    if row.epochs_to_target is None:
        return f"never ({reached})"
    return f"{row.epochs_to_target:g} ({reached})"


def _learning_rate(row: Row) -> str:
    if row.learning_rate is None:
        return MISSING
    return f"{row.learning_rate:g} ({row.tuning_trials})"


def _switch(row: Row) -> str:
    if row.switch_step is None:
        return "never" if row.role == "hybrid" else MISSING
    text = f"{row.switch_epoch:.1f} ({row.switch_step:g})"
    if row.switched < len(row.seeds):
        text += f" ({row.switched} of {len(row.seeds)})"
    return text


COLUMNS = (
    Column("Arm", _label_with_diverged),
    Column(
        "Test accuracy, %",
        lambda row: _interval_text(_percent(row.test_accuracy), 2),
        in_terminal=True,
    ),
    Column(
        "Minus control",
        lambda row: _difference_text(row.against_control),
        in_terminal=True,
    ),
    Column("p", lambda row: p_text(row.against_control)),
    Column(
        "Minus best baseline",
        lambda row: _difference_text(row.against_baseline),
    ),
    Column("p", lambda row: p_text(row.against_baseline)),
    Column("Test loss", lambda row: _interval_text(row.test_loss, 4)),
    Column(
        "Epochs used", lambda row: _number(row.epochs_used, 1), in_terminal=True
    ),
    Column(
        "Seconds used",
        lambda row: _number(row.seconds_used, 1),
        in_terminal=True,
    ),
    Column("Epochs to target", _epochs_to_target, in_terminal=True),
    Column(
        "Seconds to target",
        lambda row: _number(row.seconds_to_target, 1),
    ),
    Column(
        "Gap, points",
        lambda row: _interval_text(_percent(row.generalization_gap), 2),
    ),
    Column(
        "Curve mean, %",
        lambda row: _number(
            None
            if row.area_under_curve is None
            else 100 * row.area_under_curve,
            2,
        ),
    ),
    Column("Switch, epoch (step)", _switch, in_terminal=True),
    Column("Learning rate (trials)", _learning_rate),
    Column("Seeds", _seeds),
    Column("Role", _role),
    Column("Version", lambda row: ", ".join(row.versions) or MISSING),
)


def _list(lines: Sequence[str]) -> str:
    return "".join(f"- {escaped_markdown(line)}\n" for line in lines)


def escaped_markdown(text: str) -> str:
    """One line in which nothing of a name is taken for markup."""
    return re.sub(r"([\\`*\[\]|<>&])", r"\\\1", " ".join(text.split()))
