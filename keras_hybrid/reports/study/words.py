"""A cell of a study in words: what a reader gets in ten seconds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from keras_hybrid.reports import texts
from keras_hybrid.reports.study.rows import (
    REFERENCES,
    differences,
    role,
    seeds,
    subtracted,
)
from keras_hybrid.reports.texts import Verdict
from keras_hybrid.study.summary import Cell, Difference, Row


@dataclasses.dataclass(frozen=True)
class Finding:
    """A cell in words.

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

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Finding:
        """What the rows of one cell say."""
        verdicts = {
            row.label: [
                _verdict(row, reference, difference)
                for reference, difference in differences(row).items()
            ]
            for row in rows
            if row.role == "hybrid"
        }
        return cls(
            title=title(rows[0].cell, rows),
            fit=_fit(rows),
            best=_best(rows),
            references=_references(rows),
            hybrids={
                label: found for label, found in verdicts.items() if found
            },
        )


def title(cell: Cell, rows: Sequence[Row]) -> str:
    """The cell and its target."""
    target = rows[0].target
    if target is None:
        return f"{cell} ({_why_none(rows)}, so no target)"
    best = next(row.label for row in rows if row.is_best_baseline)
    return f"{cell} (target {100 * target:.2f} % validation accuracy: {best})"


def _fit(rows: Sequence[Row]) -> str:
    """How far the best baseline fits."""
    for row in rows:
        if not row.is_best_baseline or row.val_accuracy is None:
            continue
        validation = f"{100 * row.val_accuracy:.2f} % validation accuracy"
        if row.train_accuracy is None:
            return (
                f"{row.label} ends at {validation}, with weights of an earlier "
                "epoch, or an average's."
            )
        train = f"{100 * row.train_accuracy:.2f} % training accuracy"
        return f"{row.label} ends at {train} and {validation}."
    why = _why_none(rows)
    return f"{why[0].upper()}{why[1:]}."


def _why_none(rows: Sequence[Row]) -> str:
    """Why no baseline is the best."""
    if any(row.role == "baseline" for row in rows):
        return "every baseline diverged"
    return "no baseline"


def _best(rows: Sequence[Row]) -> str:
    """Who has the highest mean on the test split."""
    ranked = [
        (row.test_accuracy, row)
        for row in rows
        if row.test_accuracy is not None
    ]
    if not ranked:
        return "Every run diverged."
    accuracy, row = max(ranked, key=lambda pair: pair[0].mean)
    return (
        f"Highest mean test accuracy: {row.label} ({role(row)}), "
        f"{texts.interval_text(texts.percent(accuracy), 2)} %, "
        f"seeds: {seeds(row)}."
    )


def _references(rows: Sequence[Row]) -> str:
    """Who is subtracted from the hybrids."""
    labels: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.role == "hybrid":
            for name, difference in differences(row).items():
                labels.setdefault(name, {})[subtracted(difference)] = None
    named = [
        f"{name.capitalize()}: {', or '.join(labels[name])}"
        for name in REFERENCES
        if name in labels
    ]
    return ". ".join(named) or "Nothing to compare a hybrid with"


def _verdict(row: Row, reference: str, difference: Difference) -> Verdict:
    """What the hybrid did against one reference."""
    low, high = difference.paired.low, difference.paired.high
    direction, words = "unclear", "no clear difference from"
    if math.isnan(low):
        words = "one seed, so no interval, against"
    elif low == high:
        words = "equal in every seed to"
        if low:
            words = "the same difference in every seed, so no interval, from"
    elif difference.is_clear:
        direction = "higher" if low > 0 else "lower"
        words = f"{direction} than"
    numbers = f"{texts.difference_text(difference)} points"
    if math.isfinite(difference.p_holm):
        p = texts.p_text(difference)
        numbers += f", p {p}" if p.startswith("<") else f", p = {p}"
    excludes = low > 0 or high < 0
    if direction == "unclear" and excludes and low != high:
        numbers += ", the interval excludes 0 but p is not below 0.05"
    unpaired = len(row.seeds) - difference.paired.seeds
    if unpaired:
        numbers += f", {unpaired} of {len(row.seeds)} seeds without a pair"
    return Verdict(reference, direction, words, numbers)
