"""The study at a glance: where a hybrid helps, and where not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from keras_hybrid.study.summary import Cell, Difference, Row

# In points: a loss of which the intervals allow no more is none.
MARGIN = 0.1


class Entry(NamedTuple):
    """One arm in one cell against one reference.

    Attributes:
        mark: A sign that needs no colour.
        direction: "higher", "lower" or "unclear".
        text: The difference in points.
    """

    mark: str
    direction: str
    text: str


class Table(NamedTuple):
    """All hybrids in all cells against one kind of reference.

    Attributes:
        title: What they are compared with.
        cells: Titles of the columns.
        rows: Label -> one entry a cell, None where the arm has no run.
    """

    title: str
    cells: Sequence[str]
    rows: Mapping[str, Sequence[Entry | None]]


LEGEND = (
    "▲ clearly higher, ▼ clearly lower (interval without 0 and p < 0.05, "
    "adjusted over the cells); ≈ no clear difference, and a loss of more than "
    f"{MARGIN} points is outside both intervals (bootstrap and Student's t), "
    "or equal in every seed; · open. Points of test accuracy, means over "
    "paired seeds. In brackets, where there are several: the version of "
    "keras_hybrid that made the arm."
)
KINDS = {
    "against_baseline": "minus the best baseline",
    "against_control": "minus the control",
}


def entry(difference: Difference | None) -> Entry | None:
    """What to show of a difference."""
    if difference is None:
        return None
    mean, low = (100 * x for x in difference.paired[:2])
    text = f"{mean:+.2f}"
    if difference.is_clear:
        if low > 0:
            return Entry("▲", "higher", text)
        return Entry("▼", "lower", text)
    if not_worse(difference):
        return Entry("≈", "unclear", text)
    return Entry("·", "unclear", text)


def not_worse(difference: Difference) -> bool:
    """Whether the intervals' lower ends are above -0.1 points.

    Both, because a bootstrap interval over five seeds is too narrow. Seeds that
    all differ by the same have none: only no difference at all is no loss.
    """
    if difference.paired.seeds > 1 and math.isnan(difference.paired.p_value):
        return difference.paired.mean == 0
    lows = difference.paired.low, difference.paired.t_low
    return all(math.isfinite(x) and 100 * x > -MARGIN for x in lows)


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table a kind of reference; none for a single cell."""
    cells = _cells(rows)
    if len(cells) < 2:
        return []
    labels = _labels(rows)
    made = []
    for kind, title in KINDS.items():
        of_arm: dict[str, dict[Cell, Entry | None]] = {}
        for row in rows:
            found = entry(getattr(row, kind))
            if row.role == "hybrid" and found is not None:
                of_arm.setdefault(labels[row.label], {})[row.cell] = found
        made.append(
            Table(
                title,
                [_short(cell) for cell in cells],
                {
                    label: [entries.get(cell) for cell in cells]
                    for label, entries in sorted(of_arm.items())
                },
            )
        )
    return made


def headline(rows: Sequence[Row]) -> list[str]:
    """The whole study in two sentences; none for a single cell."""
    if len(_cells(rows)) < 2:
        return []
    said = []
    for kind, title in KINDS.items():
        entries = [
            found
            for row in rows
            if row.role == "hybrid" and row.share == 1
            if (found := entry(getattr(row, kind))) is not None
        ]
        marks = [found.mark for found in entries]
        said.append(
            f"Hybrids {title}: of {len(marks)} comparisons {marks.count('▲')} "
            f"clearly higher, {marks.count('▼')} clearly lower, "
            f"{marks.count('≈')} level, {marks.count('·')} open."
        )
    return said


def sentences(rows: Sequence[Row]) -> list[str]:
    """One sentence a hybrid: in how many cells it holds its own."""
    if len(_cells(rows)) < 2:
        return []
    of_label: dict[str, list[Row]] = {}
    for row in rows:
        if row.role == "hybrid" and row.against_baseline is not None:
            of_label.setdefault(row.label, []).append(row)
    return [_sentence(label, found) for label, found in of_label.items()]


def _sentence(label: str, rows: Sequence[Row]) -> str:
    count = len(rows)
    if rows[0].share < 1:
        level = sum(
            row.against_baseline is not None
            and row.against_baseline.paired.mean >= 0
            for row in rows
        )
        return (
            f"{label}: at or above the best baseline with all epochs in "
            f"{level} of {count} cells."
        )
    both = [
        (row.against_baseline, row.against_control)
        for row in rows
        if row.against_baseline and row.against_control
    ]
    level = sum(all(map(not_worse, pair)) for pair in both)
    above, below = (
        [
            sum(
                (d := getattr(row, kind)) is not None
                and d.is_clear
                and sign * d.paired.mean > 0
                for row in rows
            )
            for kind in KINDS
        ]
        for sign in (1, -1)
    )
    held = (
        f"not worse than best baseline and control by more than {MARGIN} "
        f"points in {level} of {len(both)} cells; "
        if both
        else ""
    )
    return (
        f"{label}: {held}clearly above the best baseline in {above[0]} and the "
        f"control in {above[1]}, clearly below in {below[0]} and {below[1]}."
    )


def _labels(rows: Sequence[Row]) -> dict[str, str]:
    """Label -> with its versions, where the study has several."""
    of_label: dict[str, dict[str, None]] = {}
    for row in rows:
        of_label.setdefault(row.label, {}).update(dict.fromkeys(row.versions))
    if len({version for row in rows for version in row.versions}) < 2:
        return {label: label for label in of_label}
    return {
        label: f"{label} ({', '.join(versions)})" if versions else label
        for label, versions in of_label.items()
    }


def _cells(rows: Sequence[Row]) -> list[Cell]:
    return list(dict.fromkeys(row.cell for row in rows))


def _short(cell: Cell) -> str:
    if cell.regime:
        return f"{cell.dataset} {cell.regime}"
    return str(cell)
