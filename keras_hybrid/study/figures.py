"""The report's figures: plain numbers in, inline SVG out."""

from __future__ import annotations

import dataclasses
import io
import re
import textwrap
import zlib
from collections.abc import Sequence
from html import escape
from typing import Any, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullFormatter,
    StrMethodFormatter,
)

from keras_hybrid.study.statistics import Interval

Line = Literal["-", "--", "-.", ":"]
# Okabe and Ito's colours, without the yellow that white paper swallows. With
# 7 colours, 4 lines and 8 markers no two of 56 arms look alike.
COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#000000",
    "#56B4E9",
    "#E69F00",
)
LINES: tuple[Line, ...] = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 5.2  # inches, 500 CSS pixels: legible when a phone shrinks it
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, selectable, searchable
    "svg.hashsalt": "keras_hybrid",  # the same runs give the same file
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 3.2,
}


@dataclasses.dataclass(frozen=True)
class Style:
    """How one arm looks in every figure."""

    color: str
    line: Line
    marker: str

    @classmethod
    def of(cls, index: int) -> Style:
        """The style of the arm with this index."""
        return cls(
            COLORS[index % len(COLORS)],
            LINES[index % len(LINES)],
            MARKERS[index % len(MARKERS)],
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

    def mean(self) -> npt.NDArray[np.float64]:
        """Mean over the finished seeds, up to the last common epoch."""
        epochs = min((len(values) for values in self.finished), default=0)
        if not epochs:
            return np.empty(0)
        array = np.array([values[:epochs] for values in self.finished])
        return np.asarray(array.mean(axis=0))


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


@matplotlib.rc_context(SETTINGS)
def draw_curves(
    curves: Sequence[Curves], title: str, ylabel: str, *, log: bool = False
) -> str:
    """Mean over seeds as a thick line, seeds as thin lines, the switch marked.

    The dot and the dashed vertical line are the switch; a cross is the last
    epoch of a diverged seed. On a linear axis the first epochs of the means
    may lie below the frame, so that the last ones can be told apart.

    Args:
        curves: One entry an arm.
        title: What the figure shows, for those who cannot see it too.
        ylabel: The quantity and its unit.
        log: Whether the vertical axis is logarithmic; values of 0 and below
            are left out then.

    Returns:
        An `<svg>` element.
    """
    handles = [_handle(entry.label, entry.style) for entry in curves]
    figure, axes = _figure(2.9 + _legend_height(handles))
    for entry in curves:
        _draw_arm(axes, entry, log=log)
    axes.set_xlabel("epoch")
    axes.set_ylabel(ylabel)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if log:
        _set_log(axes)
    else:
        _crop(axes, [entry.mean() for entry in curves])
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return _svg(figure, title)


@matplotlib.rc_context(SETTINGS)
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
    figure, axes = _figure(0.9 + height * len(rows))
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
    return _svg(figure, title)


@matplotlib.rc_context(SETTINGS)
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
        axes.axvline(0, color="black", linewidth=1)
        for y, row in enumerate(rows):
            _draw_interval(axes, y, row.difference, row.style)
        _set_rows(axes, [row.label for row in rows])
        axes.set_title(_wrapped(heading, 50), fontsize=10, loc="left")
    subplots[-1].set_xlabel(xlabel)
    return _svg(figure, title)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure((WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _draw_arm(axes: Axes, entry: Curves, *, log: bool) -> None:
    style = entry.style
    for values in (*entry.finished, *entry.diverged):
        y = _drawable(values, log=log)
        x = np.arange(1, len(y) + 1)
        axes.plot(x, y, color=style.color, linewidth=0.6, alpha=0.35)
    for values in entry.diverged:
        y = _drawable(values, log=log)
        last = np.flatnonzero(np.isfinite(y))[-1:]
        axes.plot(last + 1, y[last], "x", color=style.color, markersize=7)
    mean = _drawable(entry.mean(), log=log)
    epochs = np.arange(1, len(mean) + 1)
    axes.plot(
        epochs,
        mean,
        style.line,
        color=style.color,
        linewidth=2,
        marker=style.marker,
        markersize=4,
        markevery=max(len(mean) // 6, 1),
    )
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
        height = np.interp(entry.switch_epoch, epochs, mean)
        axes.plot(
            entry.switch_epoch,
            height,
            "o",
            color=style.color,
            markersize=9,
            markeredgecolor="white",
            markeredgewidth=1.5,
            zorder=5,
        )


def _drawable(values: npt.ArrayLike, *, log: bool) -> npt.NDArray[np.float64]:
    """A logarithmic axis has no place for 0 and below."""
    array = np.asarray(values, dtype=float)
    return np.where(array > 0, array, np.nan) if log else array


def _set_log(axes: Axes) -> None:
    """Ticks at 1, 2, 5, written as plain numbers."""
    if not np.isfinite(axes.dataLim.intervaly).all():
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _crop(axes: Axes, means: Sequence[npt.NDArray[np.float64]]) -> None:
    """Cuts the lowest quarter of the means off: the steep first epochs."""
    values = np.concatenate(means) if means else np.empty(0)
    values = values[np.isfinite(values)]
    if not values.size:
        return
    low, high = np.quantile(values, 0.25), values.max()
    margin = 0.06 * (high - low)
    if margin > 0:
        axes.set_ylim(low - margin, high + 2 * margin)


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
        markeredgecolor="white",
        markeredgewidth=0.5,
    )


def _set_rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), [_wrapped(x, 22) for x in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=6)


def _handle(label: str, style: Style) -> Line2D:
    return Line2D(
        [],
        [],
        color=style.color,
        linestyle=style.line,
        marker=style.marker,
        markersize=4,
        linewidth=2,
        label=_wrapped(label, 30),
    )


def _legend_height(handles: Sequence[Line2D]) -> float:
    """Inches that two columns of wrapped names need."""
    lines = [str(handle.get_label()).count("\n") + 1 for handle in handles]
    half = (len(lines) + 1) // 2
    longer = max(sum(lines[:half]), sum(lines[half:]))
    return 0.16 * longer + 0.08 * half


def _row_height(labels: Sequence[str]) -> float:
    """Inches that the longest wrapped label needs."""
    lines = max(_wrapped(label, 22).count("\n") + 1 for label in labels)
    return max(0.45, 0.17 * lines + 0.08)


def _wrapped(text: str, width: int) -> str:
    """Text in lines; a dollar in a name does not begin mathematics."""
    lines = textwrap.wrap(text, width) or [text]
    return "\n".join(lines).replace("$", r"\$")


def _svg(figure: Figure, title: str) -> str:
    """The figure as an element that can stand in a page beside others."""
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
    )
    text = buffer.getvalue()
    text = text[text.index("<svg ") :]
    # A hundredth of a point is enough, and a third of the size.
    text = re.sub(
        r' d="[^"]*"',
        lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]),
        text,
    )
    # HTML needs no namespaces.
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    # Matplotlib names the parts of every figure alike.
    prefix = f"f{zlib.crc32(title.encode()):08x}"
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    name = escape(title)
    return text.replace(
        "<svg ", f'<svg role="img" aria-label="{name}" ', 1
    ).replace(">", f"><title>{name}</title>", 1)
