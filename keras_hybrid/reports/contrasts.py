"""Contrasts: one arm minus another over all cells that have both."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from keras_hybrid.reports.glance import entry
from keras_hybrid.reports.texts import MISSING, escaped_markdown, p_text
from keras_hybrid.study.comparison import check_once
from keras_hybrid.study.record import Run
from keras_hybrid.study.statistics import (
    Interval,
    holm,
    mean_of_means,
    paired_difference,
)
from keras_hybrid.study.summary import (
    Cell,
    Difference,
    accuracies,
    cell_of,
    group,
    is_untuned,
    library_versions,
)


class InCell(NamedTuple):
    """What a contrast is in one cell.

    Attributes:
        difference: In test accuracy, a fraction; p adjusted over the cells of
            the contrast, and over the looks at it.
        learning_rates: Of the arm and of the reference, None where untuned.
        versions: Of keras_hybrid, likewise; several where its runs differ.
    """

    difference: Difference
    learning_rates: tuple[float | None, ...]
    versions: tuple[str, ...]


class Contrast(NamedTuple):
    """An arm minus a reference, paired by seed, cell by cell.

    Attributes:
        arm: Name of the arm.
        reference: Name of the arm that is subtracted.
        cells: Those in which both have a finished seed in common.
        mean: Of the cells' differences, each cell alike (`mean_of_means`).
    """

    arm: str
    reference: str
    cells: Mapping[Cell, InCell]
    mean: Interval

    def clearly(self, sign: int) -> int:
        """In how many cells the arm is clearly higher (1) or lower (-1)."""
        return sum(
            found.difference.is_clear
            and sign * found.difference.paired.mean > 0
            for found in self.cells.values()
        )


def contrast(
    runs: Sequence[Run], arm: str, reference: str, looks: int = 1
) -> Contrast | None:
    """Compares two arms over the cells.

    Args:
        runs: The runs, as `summary.load_runs` returned them.
        arm: Name of an arm.
        reference: Name of the arm to subtract.
        looks: How often the differences have been looked at, this time and
            those with fewer seeds: p is multiplied by it (Bonferroni).

    Returns:
        The contrast, or None if no cell has a seed of both.

    Raises:
        ValueError: If two runs are of one arm and seed of a cell.
    """
    check_once(runs)
    cells: dict[Cell, InCell] = {}
    differences: list[list[float]] = []
    for cell, of_cell in sorted(group(runs, cell_of).items()):
        both = [
            [run for run in of_cell if run.arm == name]
            for name in (arm, reference)
        ]
        a, b = map(accuracies, both)
        seeds = sorted(a.keys() & b.keys())
        if not seeds:
            continue
        cells[cell] = InCell(
            Difference(reference, paired_difference(a, b), math.nan),
            tuple(map(_learning_rate, both)),
            tuple(", ".join(library_versions(each)) for each in both),
        )
        differences.append([a[seed] - b[seed] for seed in seeds])
    if not cells:
        return None
    return Contrast(
        arm, reference, _adjusted(cells, looks), mean_of_means(differences)
    )


def markdown(found: Contrast) -> str:
    """The contrast as a heading and a table in GitHub-flavoured Markdown."""
    lines = [
        ("cell", "points", "95 % interval", "p", "learning rates", "versions"),
        ("---",) * 6,
    ]
    for cell, of_cell in found.cells.items():
        difference = of_cell.difference
        shown = entry(difference)
        lines.append(
            (
                escaped_markdown(str(cell)),
                "" if shown is None else f"{shown.mark} {shown.text}",
                bounds(difference.paired.low, difference.paired.high),
                escaped_markdown(p_text(difference)),
                ", ".join(
                    MISSING if rate is None else f"{rate:g}"
                    for rate in dict.fromkeys(of_cell.learning_rates)
                ),
                ", ".join(dict.fromkeys(of_cell.versions)),
            )
        )
    mean = found.mean
    lines.append(
        (
            f"mean of {len(found.cells)}",
            f"{100 * mean.mean:+.3f}",
            bounds(mean.low, mean.high),
            *("", "", ""),
        )
    )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"**{found.arm} minus {found.reference}**: clearly higher in "
        f"{found.clearly(1)}, clearly lower in {found.clearly(-1)} of "
        f"{len(found.cells)} cells.\n\n{table}\n"
    )


def bounds(low: float, high: float) -> str:
    """An interval as text, in points."""
    if not math.isfinite(low):
        return MISSING
    return f"{100 * low:+.3f} to {100 * high:+.3f}"


def _learning_rate(runs: Sequence[Run]) -> float | None:
    if is_untuned(cell_of(runs[0])):
        return None
    return runs[0].configuration.get("tuned_learning_rate")


def _adjusted(cells: Mapping[Cell, InCell], looks: int) -> dict[Cell, InCell]:
    """The cells with p adjusted over them and over the looks."""
    p_values = {
        cell: min(1.0, looks * found.difference.paired.p_value)
        for cell, found in cells.items()
        if math.isfinite(found.difference.paired.p_value)
    }
    adjusted = holm(list(p_values.values())) if p_values else []
    p_holm = dict(zip(p_values, adjusted, strict=True))
    return {
        cell: found._replace(
            difference=dataclasses.replace(
                found.difference, p_holm=p_holm.get(cell, math.nan)
            )
        )
        for cell, found in cells.items()
    }
