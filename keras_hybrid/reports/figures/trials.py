"""The figure of a search's trials: scores over the switch point."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from keras_hybrid.reports.figures import scaling, svg
from keras_hybrid.reports.figures.style import (
    INK,
    PAPER,
    Style,
    add_legend,
    figure_of_one,
    handle,
    in_our_style,
    legend_height,
    wrapped,
)


@dataclasses.dataclass(frozen=True)
class Point:
    """One trial of a search in `draw_points`.

    Attributes:
        x: Where it switched, in epochs.
        values: Its score for each seed, at least one.
        is_complete: Whether the score compares with the others; else hollow.
        is_best: Whether it gets a ring.
    """

    x: float
    values: Sequence[float]
    is_complete: bool = True
    is_best: bool = False

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.values))


@dataclasses.dataclass(frozen=True)
class Series:
    """Points of one kind; joined by a line where the kind is ordered."""

    label: str
    style: Style
    points: Sequence[Point]
    has_line: bool


@dataclasses.dataclass(frozen=True)
class Level:
    """A reference beside the plot: a mark at one end, a line across.

    Attributes:
        label: Its name.
        style: Its look.
        values: Its score for each seed, at least one.
        is_left: Whether it stands at the left end, else at the right one.
    """

    label: str
    style: Style
    values: Sequence[float]
    is_left: bool


@in_our_style
def draw_points(
    series: Sequence[Series],
    levels: Sequence[Level],
    title: str,
    xlabel: str,
    ylabel: str,
    *,
    epochs: float,
    lower_is_better: bool = False,
) -> str:
    """Scores over the switch point: seeds as small dots, means as large ones.

    Scores far worse than most are drawn as hollow triangles on the frame, so
    that the good ones can be told apart.

    Args:
        series: The kinds of trials; at least one point in all, or one level.
        levels: References beside the plot.
        title: What the figure shows.
        xlabel: The horizontal quantity.
        ylabel: The score and its unit.
        epochs: The right end: a trial that never switched.
        lower_is_better: Whether low scores are the good ones.

    Returns:
        An `<svg>` element.
    """
    handles = [handle(entry.label, entry.style) for entry in series]
    for item, entry in zip(handles, series, strict=True):
        item.set_markersize(6)
        if not entry.has_line:
            item.set_linestyle("none")
    figure, axes = figure_of_one(3.2 + legend_height(handles))
    points = [point for entry in series for point in entry.points]
    complete = [point for point in points if point.is_complete] or points
    values = [point.values for point in complete]
    values += [level.values for level in levels]
    limits = scaling.limits(
        np.concatenate(values), lower_is_better=lower_is_better
    )
    axes.set_ylim(*limits)
    axes.set_xlim(-0.08 * epochs, 1.08 * epochs)
    for level in levels:
        _draw_level(axes, level, epochs, limits)
    for entry in series:
        _draw_series(axes, entry, limits)
    # With both ends, which mean something.
    axes.set_xticks(np.unique(np.linspace(0, epochs, 6).round()))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    add_legend(figure, handles)
    return svg.element(figure, title)


def _draw_series(
    axes: Axes, entry: Series, limits: tuple[float, float]
) -> None:
    style = entry.style
    points = sorted(entry.points, key=lambda point: point.x)
    if entry.has_line:
        axes.plot(
            [point.x for point in points if point.is_complete],
            [point.mean for point in points if point.is_complete],
            style.line,
            color=style.color,
            linewidth=1.5,
        )
    for point in points:
        axes.plot(
            np.full(len(point.values), point.x),
            point.values,
            "o",
            color=style.color,
            alpha=0.45,
            markersize=3.5,
            markeredgewidth=0,
        )
        if point.is_best:
            axes.plot(
                point.x,
                point.mean,
                "o",
                markersize=15,
                markerfacecolor="none",
                markeredgecolor=INK,
                markeredgewidth=1.5,
            )
        _draw_mean(
            axes,
            point.x,
            point.mean,
            style,
            limits,
            is_filled=point.is_complete,
        )


def _draw_level(
    axes: Axes, level: Level, epochs: float, limits: tuple[float, float]
) -> None:
    mean = float(np.mean(level.values))
    x = (-0.05 if level.is_left else 1.05) * epochs
    color = level.style.color
    axes.axhline(mean, color=color, linestyle=(0, (4, 3)), linewidth=1)
    axes.plot(
        np.full(len(level.values), x),
        level.values,
        "o",
        color=color,
        alpha=0.45,
        markersize=3.5,
        markeredgewidth=0,
    )
    _draw_mean(axes, x, mean, level.style, limits, is_filled=True, size=13)
    height = min(max(mean, limits[0]), limits[1])
    if not level.is_left:
        # Beside the frame: the right end is full of points.
        axes.annotate(
            f"{wrapped(level.label, 8)}\n{mean:.4g}",
            (1.01, height),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
        )
        return
    is_high = height > limits[0] + 0.85 * (limits[1] - limits[0])
    axes.annotate(
        f"{wrapped(level.label, 40)} {mean:.4g}",
        (x, height),
        (7, -5 if is_high else 5),
        textcoords="offset points",
        va="top" if is_high else "bottom",
        fontsize=9,
        zorder=1,
    )


def _draw_mean(
    axes: Axes,
    x: float,
    y: float,
    style: Style,
    limits: tuple[float, float],
    *,
    is_filled: bool,
    size: float = 8,
) -> None:
    """A large marker; on the frame where the score lies outside."""
    low, high = limits
    inside = low <= y <= high
    marker = style.marker if inside else ("v" if y < low else "^")
    axes.plot(
        x,
        min(max(y, low), high),
        marker,
        color=style.color,
        markersize=size if inside else 8,
        markerfacecolor=style.color if is_filled and inside else PAPER,
        markeredgecolor=PAPER if is_filled and inside else style.color,
        markeredgewidth=0.7 if is_filled and inside else 1.5,
        clip_on=inside,
        zorder=5,
    )
