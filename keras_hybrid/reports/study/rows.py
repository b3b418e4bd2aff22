"""What the parts of a study's report ask of its rows."""

from __future__ import annotations

from collections.abc import Sequence

from keras_hybrid.study.summary import Cell, Difference, Row

# What a row is compared with, in the order in which it is said.
REFERENCES = ("control", "best baseline")


def by_cell(rows: Sequence[Row]) -> dict[Cell, list[Row]]:
    """Cell -> its rows, in their order."""
    cells: dict[Cell, list[Row]] = {}
    for row in rows:
        cells.setdefault(row.cell, []).append(row)
    return cells


def differences(row: Row) -> dict[str, Difference]:
    """Name of the reference -> the row minus it, where there is one."""
    pair = row.against_control, row.against_baseline
    return {
        name: found
        for name, found in zip(REFERENCES, pair, strict=True)
        if found is not None
    }


def subtracted(difference: Difference) -> str:
    """The reference's name, where it is said already that it is a control."""
    return difference.reference.removeprefix("Control: ")


def label_with_diverged(row: Row) -> str:
    """The row's name, and how many of its seeds diverged."""
    if not row.diverged:
        return row.label
    return f"{row.label} ({row.diverged} of {len(row.seeds)} diverged)"


def role(row: Row) -> str:
    """The row's role; of the best baseline, that."""
    return "best baseline" if row.is_best_baseline else row.role


def seeds(row: Row) -> str:
    """How many seeds it has, and how many of them diverged."""
    count = str(len(row.seeds))
    return f"{count} ({row.diverged} diverged)" if row.diverged else count
