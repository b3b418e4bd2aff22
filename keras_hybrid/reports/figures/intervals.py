"""Figures of intervals: a dot a seed, and differences beside none."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_hybrid.reports.figures import svg
from keras_hybrid.reports.figures.style import (
    INK,
    PAPER,
    WIDTH,
    Style,
    figure_of_one,
    in_our_style,
    wrapped,
)
from keras_hybrid.study.statistics import Interval

_LABEL = 22  # characters of a row's name in a line


@dataclasses.dataclass(frozen=True)
class Dots:
    """One row of a dot plot: a value for each seed and their interval."""

    label: str
    style: Style
    values: Sequence[float]
    interval: Interval | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One row of a forest plot."""

    label: str
    style: Style
    difference: Interval


@in_our_style
def draw_dots(rows: Sequence[Dots], title: str, xlabel: str) -> str:
    """Each seed as a dot; below it the mean with its interval.

    Args:
        rows: One entry an arm, the first on top.
        title: What the figure shows.
        xlabel: The quantity and its unit.

    Returns:
        An `<svg>` element.
    """
    height = _row_height([row.label for row in rows])
    figure, axes = figure_of_one(0.9 + height * len(rows))
    for y, row in enumerate(rows):
        if row.interval is None:
            continue
        axes.plot(
            row.values,
            np.full(len(row.values), y - 0.12),
            row.style.marker,
            color=row.style.color,
            alpha=0.5,
            markersize=6,
            markeredgewidth=0,
        )
        _draw_interval(axes, y + 0.17, row.interval, row.style)
    _set_rows(axes, [row.label for row in rows])
    axes.set_xlabel(xlabel)
    return svg.element(figure, title)


@in_our_style
def draw_forest(
    panels: Sequence[tuple[str, Sequence[Comparison]]], title: str, xlabel: str
) -> str:
    """Differences with their intervals beside the line of no difference.

    Args:
        panels: `(heading, rows)`, one a reference, the first on top.
        title: What the figure shows.
        xlabel: The quantity and its unit.

    Returns:
        An `<svg>` element.
    """
    height = _row_height([row.label for _, rows in panels for row in rows])
    heights = [0.4 + height * len(rows) for _, rows in panels]
    figure = Figure((WIDTH, sum(heights) + 0.6), layout="constrained")
    subplots = figure.subplots(
        len(panels), sharex=True, squeeze=False, height_ratios=heights
    )[:, 0]
    for axes, (heading, rows) in zip(subplots, panels, strict=True):
        axes.axvline(0, color=INK, linewidth=1)
        for y, row in enumerate(rows):
            _draw_interval(axes, y, row.difference, row.style)
        _set_rows(axes, [row.label for row in rows])
        axes.set_title(wrapped(heading, 50), fontsize=10, loc="left")
    subplots[-1].set_xlabel(xlabel)
    return svg.element(figure, title)


def _draw_interval(
    axes: Axes, y: float, interval: Interval, style: Style
) -> None:
    """A marker at the mean; NaN bounds draw nothing."""
    axes.plot(
        [interval.low, interval.high],
        [y, y],
        color=style.color,
        linewidth=2,
        marker="|",
        markersize=8,
    )
    axes.plot(
        interval.mean,
        y,
        style.marker,
        color=style.color,
        markersize=9,
        markeredgecolor=PAPER,
        markeredgewidth=0.5,
    )


def _set_rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), [wrapped(x, _LABEL) for x in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=6)


def _row_height(labels: Sequence[str]) -> float:
    """Inches that the longest wrapped label needs."""
    lines = max(wrapped(label, _LABEL).count("\n") + 1 for label in labels)
    return max(0.45, 0.17 * lines + 0.08)
