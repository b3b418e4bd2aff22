"""The report of a study, from result files alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from keras_hybrid.reports import figures, glance, pages, texts
from keras_hybrid.reports.study import drawings
from keras_hybrid.reports.study.rows import by_cell
from keras_hybrid.reports.study.table import (
    COLUMNS,
    markdown_table,
    print_table,
)
from keras_hybrid.reports.study.words import Finding
from keras_hybrid.reports.texts import MISSING
from keras_hybrid.study.record import Run
from keras_hybrid.study.results import (
    configurations,
    load_runs,
    load_traces,
)
from keras_hybrid.study.summary import (
    Cell,
    Row,
    arms_of,
    cell_of,
    distinct,
    group,
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
    "accuracy (of those with the fewest diverged seeds), which is the target "
    "too. Epochs and seconds to target: median "
    "over the seeds that reach it, and how many do. Seconds are of "
    "training, compilation included, validation left out; in a study, of one "
    "core, and compilation falls on the first seed.",
    "Learning rate: tuned on the validation split with a seed that is not "
    "reported; in brackets the trainings it took (0: that of another arm).",
    "Gap: final training accuracy minus test accuracy; the training accuracy "
    "is what fit logged, under dropout and augmentation where there are any. "
    "None where a seed ended with other weights than its last epoch's: an "
    "earlier epoch's (EarlyStopping), or an average.",
    "Switch: the first update that SGD made; of a control, with which its "
    "cool-down began.",
    "Epochs and seconds used: means. A run that ends itself uses fewer than "
    "there are.",
    "Curve mean: validation accuracy, averaged over the epochs; of a run that "
    "ended itself, the epochs after its end have its final one.",
    "Version: of keras_hybrid, that made the runs.",
)


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
    versions = _versions(runs).items()
    pages.write(
        path,
        "report.md.jinja",
        **_seen_at_a_glance(rows),
        # Markup: tables are Markdown already, and the legend is ours.
        tables=[Markup(markdown_glance(t)) for t in glance.tables(rows)],
        legend=Markup(glance.LEGEND),
        findings=[Finding.of(of_cell) for of_cell in by_cell(rows).values()],
        table=Markup(markdown_table(rows)),
        sections={
            "Warnings": warnings,
            "How to read this": NOTES,
            "Commands": _commands(runs),
            "Versions": [f"{name}: {version}" for name, version in versions],
        },
    )


def markdown_glance(table: glance.Table) -> str:
    """A table of the glance as GitHub-flavoured Markdown, a line a hybrid.

    Args:
        table: One that `glance.tables` returned.

    Example:
    >>> from keras_hybrid.reports import glance, study
    >>> table = glance.Table("minus", ["a"], {"x": [None]})
    >>> study.markdown_glance(table).splitlines()
    ['| minus | a |', '| --- | --- |', '| x | – |']
    """
    rows = [
        [label, *(f"{e.mark} {e.text}" if e else MISSING for e in entries)]
        for label, entries in table.rows.items()
    ]
    return texts.markdown_lines([table.title, *table.cells], rows) + "\n"


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
    rows, of_cell = summary(runs), group(runs, cell_of)
    styles = {arm: figures.Style.of(i) for i, arm in enumerate(arms_of(runs))}
    traces = traces or {}
    pages.write(
        path,
        "report.html.jinja",
        cells=[
            {
                "finding": Finding.of(found),
                "rows": [[c.text(row) for c in COLUMNS] for row in found],
                # Markup: `figures` has escaped the names already.
                "figures": {
                    title: Markup(svg)
                    for title, svg in drawings.draw(
                        found, of_cell[cell], styles, traces.get(cell)
                    ).items()
                },
                "arms": [_configuration(row, of_cell[cell]) for row in found],
            }
            for cell, found in by_cell(rows).items()
        ],
        **_seen_at_a_glance(rows),
        tables=glance.tables(rows),
        legend=glance.LEGEND,
        headers=[column.header for column in COLUMNS],
        notes=NOTES,
        warnings=warnings,
        commands=_commands(runs),
        versions=_versions(runs),
        runs=len(runs),
    )


def _seen_at_a_glance(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The words of the glance, alike in both reports."""
    return {
        "headline": glance.headline(rows),
        "sentences": glance.sentences(rows),
    }


def _configuration(row: Row, runs: Sequence[Run]) -> dict[str, Any]:
    """What the arm was, and in which seeds."""
    of_arm = [run for run in runs if run.arm == row.arm]
    return {
        "label": row.label,
        "arm": row.arm,
        "seeds": ", ".join(map(str, row.seeds)),
        "texts": [
            json.dumps(content, indent=1, sort_keys=True, default=str)
            for content in configurations(of_arm)
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
