"""Figures of lines: over the epochs, over the updates, over anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_hybrid.reports.figures import scaling, svg
from keras_hybrid.reports.figures.style import (
    PAPER,
    WIDTH,
    Style,
    add_legend,
    figure_of_one,
    handle,
    in_our_style,
    legend_height,
)


@dataclasses.dataclass(frozen=True)
class Curves:
    """One quantity of one arm over the epochs.

    Attributes:
        label: Name of the arm.
        style: Its look.
        finished: One list of values (one an epoch) for each finished seed.
        diverged: Likewise for the diverged seeds: shorter, maybe empty.
        switch_epoch: Where SGD took over, in epochs since the start, or None.
    """

    label: str
    style: Style
    finished: Sequence[Sequence[float]]
    diverged: Sequence[Sequence[float]] = ()
    switch_epoch: float | None = None

    def mean(self) -> scaling.Array:
        """Mean over the finished seeds, up to the last common epoch."""
        epochs = min((len(values) for values in self.finished), default=0)
        if not epochs:
            return np.empty(0)
        array = np.array([values[:epochs] for values in self.finished])
        return np.asarray(array.mean(axis=0))


@in_our_style
def draw_curves(
    curves: Sequence[Curves],
    title: str,
    ylabel: str,
    *,
    log: bool = False,
    lower_is_better: bool = False,
) -> str:
    """Mean over seeds as a thick line, seeds as thin lines, the switch marked.

    The dot and the dashed vertical line are the switch; a cross is the last
    epoch of a diverged seed. On a linear axis the first epochs of the means
    may lie outside the frame, so that the last ones can be told apart.

    Args:
        curves: One entry an arm.
        title: What the figure shows, for those who cannot see it too.
        ylabel: The quantity and its unit.
        log: Whether the vertical axis is logarithmic; values of 0 and below
            are left out then.
        lower_is_better: Whether the first epochs lie above, not below.

    Returns:
        An `<svg>` element.
    """
    handles = [handle(entry.label, entry.style) for entry in curves]
    figure, axes = figure_of_one(2.9 + legend_height(handles))
    for entry in curves:
        _draw_arm(axes, entry, log=log)
    axes.set_xlabel("epoch")
    axes.set_ylabel(ylabel)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if log:
        scaling.set_log(axes)
    else:
        means = [entry.mean() for entry in curves]
        scaling.crop(axes, means, lower_is_better=lower_is_better)
    add_legend(figure, handles)
    return svg.element(figure, title)


@in_our_style
def draw_trace(
    gamma: Sequence[float],
    projection: Sequence[float],
    sgd_fraction: Sequence[float],
    title: str,
) -> str:
    """The projection over the updates, above the weight of SGD.

    Args:
        gamma: SWATS' gamma of each update; what is not positive is left out.
        projection: Its bias-corrected moving average, Lambda.
        sgd_fraction: SGD's weight after each update.
        title: What the figure shows, for those who cannot see it too.

    Returns:
        An `<svg>` element.
    """
    styles = Style.of(5), Style.of(1), Style.of(4)
    names = "gamma of each update", "Lambda, its average", "weight of SGD"
    handles = [
        handle(name, style) for name, style in zip(names, styles, strict=True)
    ]
    handles[0].set_linestyle("none")
    for entry in handles[1:]:
        entry.set_marker("")
    figure = Figure((WIDTH, 3.6 + legend_height(handles)), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    updates = np.arange(1.0, len(gamma) + 1)
    _draw_dots(above, updates, scaling.drawable(gamma, log=True), styles[0])
    above.plot(
        updates,
        scaling.drawable(projection, log=True),
        styles[1].line,
        color=styles[1].color,
        linewidth=2,
    )
    scaling.set_log(above)
    above.set_ylabel("rho")
    below.plot(updates, sgd_fraction, color=styles[2].color, linewidth=2)
    below.set_ylabel("weight")
    below.set_ylim(-0.05, 1.05)
    below.set_xlabel("update")
    add_legend(figure, handles)
    return svg.element(figure, title)


def _draw_dots(
    axes: Axes, x: scaling.Array, y: scaling.Array, style: Style
) -> None:
    """Hundreds of dots as one path: a marker each takes four times as much.

    (A picture would be smaller yet, but the page allows none.)
    """
    short = 1e-3  # A line without length would be left out.
    gap = np.full(len(x), np.nan)
    axes.plot(
        np.column_stack([x, x + short, gap]).ravel(),
        np.column_stack([y, y, gap]).ravel(),
        color=style.color,
        linewidth=2,
        solid_capstyle="round",
    )


def _draw_arm(axes: Axes, entry: Curves, *, log: bool) -> None:
    style = entry.style
    for values in (*entry.finished, *entry.diverged):
        y = scaling.drawable(values, log=log)
        x = np.arange(1, len(y) + 1)
        axes.plot(x, y, color=style.color, linewidth=0.6, alpha=0.35)
    for values in entry.diverged:
        y = scaling.drawable(values, log=log)
        last = np.flatnonzero(np.isfinite(y))[-1:]
        axes.plot(last + 1, y[last], "x", color=style.color, markersize=7)
    mean = scaling.drawable(entry.mean(), log=log)
    epochs = np.arange(1.0, len(mean) + 1)
    _plot(axes, epochs, mean, style)
    if entry.switch_epoch is None:
        return
    axes.axvline(
        entry.switch_epoch,
        color=style.color,
        linestyle=(0, (2, 2)),
        linewidth=1,
        alpha=0.8,
    )
    if len(mean):
        height = float(np.interp(entry.switch_epoch, epochs, mean))
        _plot_mark(axes, entry.switch_epoch, height, style.color, "o")


def _plot(axes: Axes, x: scaling.Array, y: scaling.Array, style: Style) -> None:
    """A thick line with a few markers, which tell it from others."""
    axes.plot(
        x,
        y,
        style.line,
        color=style.color,
        linewidth=2,
        marker=style.marker,
        markersize=4,
        markevery=max(len(y) // 6, 1),
    )


def _plot_mark(axes: Axes, x: float, y: float, color: str, marker: str) -> None:
    axes.plot(
        x,
        y,
        marker,
        color=color,
        markersize=9,
        markeredgecolor=PAPER,
        markeredgewidth=1.5,
        zorder=5,
    )
