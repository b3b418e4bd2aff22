"""The report's figures: plain numbers in, inline SVG out."""

from __future__ import annotations

import dataclasses
import io
import re
import textwrap
import zlib
from collections.abc import Mapping, Sequence
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


@matplotlib.rc_context(SETTINGS)
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
        means = [entry.mean() for entry in curves]
        _crop(axes, means, lower_is_better=lower_is_better)
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return _svg(figure, title)


@matplotlib.rc_context(SETTINGS)
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
        _handle(name, style) for name, style in zip(names, styles, strict=True)
    ]
    handles[0].set_linestyle("none")
    for handle in handles[1:]:
        handle.set_marker("")
    figure = Figure(
        (WIDTH, 3.6 + _legend_height(handles)), layout="constrained"
    )
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    updates = np.arange(1, len(gamma) + 1)
    above.plot(
        updates,
        _drawable(gamma, log=True),
        ".",
        color=styles[0].color,
        markersize=2,
        # Hundreds of points: one picture inside the SVG is smaller.
        rasterized=True,
    )
    above.plot(
        updates,
        _drawable(projection, log=True),
        styles[1].line,
        color=styles[1].color,
        linewidth=2,
    )
    _set_log(above)
    above.set_ylabel("rho")
    below.plot(updates, sgd_fraction, color=styles[2].color, linewidth=2)
    below.set_ylabel("weight")
    below.set_ylim(-0.05, 1.05)
    below.set_xlabel("update")
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


@matplotlib.rc_context(SETTINGS)
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
    handles = [_handle(entry.label, entry.style) for entry in series]
    for handle, entry in zip(handles, series, strict=True):
        handle.set_markersize(6)
        if not entry.has_line:
            handle.set_linestyle("none")
    figure, axes = _figure(3.2 + _legend_height(handles))
    points = [point for entry in series for point in entry.points]
    complete = [point for point in points if point.is_complete] or points
    values = [point.values for point in complete]
    values += [level.values for level in levels]
    limits = _limits(np.concatenate(values), lower_is_better=lower_is_better)
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
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return _svg(figure, title)


@matplotlib.rc_context(SETTINGS)
def draw_parallel(
    fields: Mapping[str, Sequence[Any]],
    scores: Sequence[float],
    title: str,
    score: str,
    *,
    lower_is_better: bool = False,
) -> str:
    """A line a trial through its value of each field, to its score.

    The better, the darker; the best is thick. A trial without a score is grey
    and ends before the last axis.

    Args:
        fields: Field -> value of each trial, None where it has none. Numbers
            are placed by size, on a logarithmic axis where they span a factor
            of 20; others side by side.
        scores: One a trial, NaN for none.
        title: What the figure shows.
        score: The score and its unit.
        lower_is_better: Whether low scores are the good ones.

    Returns:
        An `<svg>` element.
    """
    array = np.asarray(scores, dtype=float)
    scored = np.isfinite(array)
    figure, axes = _figure(3.6)
    columns = [_places(values) for values in fields.values()]
    low, high = _limits(array, lower_is_better=lower_is_better)
    places = np.clip((array - low) / (high - low), 0, 1)
    ticks = {(x - low) / (high - low): f"{x:.4g}" for x in array[scored]}
    kept = {x: ticks[x] for x in (min(ticks), max(ticks))} if ticks else {}
    columns.append((places, {max(0.0, x): y for x, y in kept.items()}))
    quality = 1 - places if lower_is_better else places
    colors = matplotlib.colormaps["cividis_r"]
    # The worst first: the best lies on top.
    order = np.argsort(np.where(scored, quality, -1), kind="stable")
    for trial in order:
        is_best = bool(scored[trial]) and trial == order[-1]
        y = np.array([column[trial] for column, _ in columns])
        axes.plot(
            np.arange(len(y)),
            y,
            color=colors(0.2 + 0.8 * quality[trial])
            if scored[trial]
            else "#bbbbbb",
            linewidth=3 if is_best else 1.3,
            marker="o",
            markersize=6 if is_best else 3,
        )
    for x, (_, labels) in enumerate(columns):
        axes.axvline(x, color="black", linewidth=0.8, zorder=0)
        for place, label in labels.items():
            axes.annotate(
                _wrapped(label, 16),
                (x, place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                zorder=4,
                bbox={"color": "white", "alpha": 0.75, "pad": 0.5},
            )
    names = [_wrapped(name, 16) for name in (*fields, score)]
    slant: dict[str, Any] = (
        {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
        if len(names) > 4
        else {}
    )
    axes.set_xticks(range(len(names)), names, **slant)
    axes.set_xlim(-0.15, len(names) - 1 + 0.13 * len(names))
    axes.set_yticks([])
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    return _svg(figure, title)


def _limits(
    values: npt.NDArray[np.float64], *, lower_is_better: bool
) -> tuple[float, float]:
    """An axis for scores; it leaves out those far worse than most."""
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    sign = -1 if lower_is_better else 1
    signed = sign * values
    best, quarter = signed.max(), np.quantile(signed, 0.25)
    worst = signed.min()
    if best > quarter:
        worst = max(worst, quarter - 2 * (best - quarter))
    margin = 0.08 * (best - worst) or 0.01 * abs(best) or 0.01
    ends = (sign * (worst - margin), sign * (best + margin))
    return float(min(ends)), float(max(ends))


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
                markeredgecolor="black",
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
            f"{_wrapped(level.label, 8)}\n{mean:.4g}",
            (1.01, height),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            color=color,
        )
        return
    is_high = height > limits[0] + 0.85 * (limits[1] - limits[0])
    axes.annotate(
        f"{_wrapped(level.label, 40)} {mean:.4g}",
        (x, height),
        (7, -5 if is_high else 5),
        textcoords="offset points",
        va="top" if is_high else "bottom",
        fontsize=9,
        color=color,
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
        markerfacecolor=style.color if is_filled and inside else "white",
        markeredgecolor="white" if is_filled and inside else style.color,
        markeredgewidth=0.7 if is_filled and inside else 1.5,
        clip_on=inside,
        zorder=5,
    )


def _places(
    values: Sequence[Any],
) -> tuple[npt.NDArray[np.float64], dict[float, str]]:
    """Heights in [0, 1] of one field's values, and the labels to write."""
    present = [value for value in values if value is not None]
    place: dict[Any, float] = {}
    if all(_is_number(value) for value in present):
        distinct = sorted(set(present))
        numbers = np.array(distinct, dtype=float)
        if numbers.size and numbers[0] > 0 and numbers[-1] >= 20 * numbers[0]:
            numbers = np.log(numbers)
        span = np.ptp(numbers) if numbers.size else 0.0
        place = {
            value: float((number - numbers[0]) / span) if span else 0.5
            for value, number in zip(distinct, numbers, strict=True)
        }
        shown = distinct
        if len(distinct) > 6:
            shown = [distinct[0], distinct[len(distinct) // 2], distinct[-1]]
        labels = {place[value]: f"{value:.3g}" for value in shown}
    else:
        # As text: a list or None has no order, and True equals 1.
        names = sorted({str(value) for value in present})
        place = {name: (i + 0.5) / len(names) for i, name in enumerate(names)}
        labels = {place[name]: name for name in names}
        values = [None if value is None else str(value) for value in values]
    if len(present) < len(values):
        labels[-0.15] = "–"
    places = np.array([place.get(value, -0.15) for value in values])
    return places, labels


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


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


def _crop(
    axes: Axes,
    means: Sequence[npt.NDArray[np.float64]],
    *,
    lower_is_better: bool,
) -> None:
    """Cuts the worst quarter of the means off: the steep first epochs."""
    values = np.concatenate(means) if means else np.empty(0)
    values = values[np.isfinite(values)]
    if not values.size:
        return
    sign = -1 if lower_is_better else 1
    worst, best = np.quantile(sign * values, 0.25), (sign * values).max()
    margin = 0.06 * (best - worst)
    if margin > 0:
        ends = (sign * (worst - margin), sign * (best + 2 * margin))
        axes.set_ylim(min(ends), max(ends))


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
