"""The figure of a search's choices: parallel coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from keras_hybrid.reports.figures import scaling, svg
from keras_hybrid.reports.figures.style import (
    COLORS,
    INK,
    PAPER,
    figure_of_one,
    in_our_style,
    wrapped,
)

_BEST, _UNRANKED = COLORS[0], "#888888"


@in_our_style
def draw_parallel(
    fields: Mapping[str, Sequence[Any]],
    scores: Sequence[float],
    title: str,
    score: str,
    *,
    lower_is_better: bool = False,
) -> str:
    """A line a trial through its value of each field, to its score.

    The better, the stronger its colour; the best is thick. A trial without a
    score is grey and ends before the last axis.

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
    figure, axes = figure_of_one(3.6)
    columns = [_column_of(values) for values in fields.values()]
    last = _score_column(scores, lower_is_better=lower_is_better)
    quality = 1 - last.places if lower_is_better else last.places
    columns.append(last)
    _draw_trials(axes, columns, quality)
    for x, column in enumerate(columns):
        axes.axvline(x, color=INK, linewidth=0.8, zorder=0)
        for place, label in column.labels.items():
            axes.annotate(
                wrapped(label, 16),
                (x, place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                zorder=4,
                bbox={"color": PAPER, "alpha": 0.75, "pad": 0.5},
            )
    names = [wrapped(name, 16) for name in (*fields, score)]
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
    return svg.element(figure, title)


class _Column(NamedTuple):
    """One vertical axis.

    Attributes:
        places: Height of each trial, in [0, 1]; NaN where it has none.
        labels: Height -> what to write there.
    """

    places: scaling.Array
    labels: dict[float, str]


def _draw_trials(
    axes: Axes, columns: Sequence[_Column], quality: scaling.Array
) -> None:
    """A line a trial, the worst first: the best lies on top."""
    scored = np.isfinite(quality)
    order = np.argsort(np.where(scored, quality, -1), kind="stable")
    for trial in order:
        is_best = bool(scored[trial]) and trial == order[-1]
        axes.plot(
            range(len(columns)),
            [column.places[trial] for column in columns],
            color=_BEST if scored[trial] else _UNRANKED,
            # Not from light to dark: on a dark page dark is faint.
            alpha=0.25 + 0.75 * quality[trial] ** 2 if scored[trial] else 0.5,
            linewidth=3 if is_best else 1.3,
            marker="o",
            markersize=6 if is_best else 3,
        )


def _score_column(scores: Sequence[float], *, lower_is_better: bool) -> _Column:
    """The last axis; scores far worse than most lie at its end."""
    array = np.asarray(scores, dtype=float)
    low, high = scaling.limits(array, lower_is_better=lower_is_better)
    heights = (array - low) / (high - low)
    labels = {
        height: f"{score:.4g}"
        for height, score in zip(heights, array, strict=True)
        if np.isfinite(score)
    }
    ends = (min(labels), max(labels)) if labels else ()
    return _Column(
        np.clip(heights, 0, 1), {max(0.0, x): labels[x] for x in ends}
    )


def _column_of(values: Sequence[Any]) -> _Column:
    """The axis of one field; a trial without a value lies below it."""
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
    return _Column(places, labels)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
