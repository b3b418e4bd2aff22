"""The figures of a cell: from rows and runs to what `figures` draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keras_hybrid.reports import figures, texts
from keras_hybrid.reports.study.rows import (
    REFERENCES,
    differences,
    label_with_diverged,
    subtracted,
)
from keras_hybrid.study.record import Run
from keras_hybrid.study.statistics import Interval
from keras_hybrid.study.summary import Cell, Difference, Row, arms_of
from keras_hybrid.study.trace import Trace

# More arms than these make a figure unreadable.
_MOST_CURVES = 6
# Name in the history -> title, axis, whether logarithmic.
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


def draw(
    rows: Sequence[Row],
    runs: Sequence[Run],
    styles: Mapping[str, figures.Style],
    trace: Trace | None = None,
) -> dict[str, str]:
    """Draws one cell.

    Args:
        rows: Those of the cell.
        runs: Likewise.
        styles: Arm -> its look, the same in every cell.
        trace: Of the projection, where there is one.

    Returns:
        Title -> `<svg>` element; figures without data are left out.
    """
    cell, by_arm = rows[0].cell, arms_of(runs)
    drawn = {
        "Test accuracy of each seed": _dots(cell, rows, by_arm, styles),
        "Paired differences in test accuracy": _forest(cell, rows, styles),
    }
    shown = _shown(rows)
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
    if trace is not None:
        title = "Projection: gamma, Lambda and the weight of SGD"
        drawn[title] = figures.draw_trace(*trace, f"{title}: {cell}")
    return {title: svg for title, svg in drawn.items() if svg is not None}


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
        row.label,
        style,
        **values,
        switch_epoch=None if row.role == "control" else row.switch_epoch,
    )


def _dots(
    cell: Cell,
    rows: Sequence[Row],
    by_arm: Mapping[str, Sequence[Run]],
    styles: Mapping[str, figures.Style],
) -> str:
    dots = [
        figures.Dots(
            label_with_diverged(row),
            styles[row.arm],
            [
                100 * run.test_accuracy
                for run in by_arm[row.arm]
                if run.status == "finished" and run.test_accuracy is not None
            ],
            texts.percent(row.test_accuracy),
        )
        for row in rows
    ]
    return figures.draw_dots(
        dots, f"Test accuracy of each seed: {cell}", "test accuracy, %"
    )


def _forest(
    cell: Cell, rows: Sequence[Row], styles: Mapping[str, figures.Style]
) -> str | None:
    of_kind: dict[str, list[tuple[Row, Difference]]] = {}
    for row in rows:
        for name, difference in differences(row).items():
            of_kind.setdefault(name, []).append((row, difference))
    panels = [
        (
            _heading(name, [difference for _, difference in compared]),
            [
                figures.Comparison(
                    row.label,
                    styles[row.arm],
                    Interval(*(100 * x for x in difference.paired[:3])),
                )
                for row, difference in compared
            ],
        )
        for name in REFERENCES
        if (compared := of_kind.get(name))
    ]
    if not panels:
        return None
    return figures.draw_forest(
        panels,
        f"Paired differences in test accuracy: {cell}",
        "difference in test accuracy, points",
    )


def _heading(name: str, differences: Sequence[Difference]) -> str:
    """Who is subtracted; in the study each hybrid has a control."""
    labels = {subtracted(difference) for difference in differences}
    if len(labels) > 1:
        return f"minus {name}, each its own"
    return f"minus {name}: {labels.pop()}"
