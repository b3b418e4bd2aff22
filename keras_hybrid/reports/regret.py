"""The regret of triggers as a picture: where on the curve each would switch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_hybrid.reports import pages
from keras_hybrid.reports.figures import svg
from keras_hybrid.reports.figures.style import (
    INK,
    PAPER,
    WIDTH,
    Style,
    add_legend,
    handle,
    in_our_style,
    legend_height,
)
from keras_hybrid.study.curves import STEP_TRIGGERS, Curve
from keras_hybrid.study.regret import (
    DEFAULT,
    RULES,
    STEP_RULES,
    Lands,
    regret,
)

# Those that are drawn, each always in the same look.
DRAWN = (
    DEFAULT,
    "averaged loss, patience 3",
    "accuracy, patience 3",
    "slope of the training loss",
    *STEP_TRIGGERS,
)
KINDS = {
    "test_accuracy": "test accuracy",
    "val_accuracy": "validation accuracy",
}
# Inches of a plot. Marks nearer than this share of it would hide each other:
# they stand apart by that share of its height.
_HEIGHT, _NEAR, _APART = 2.3, 0.03, 0.07
# What is below that share of the median has failed, and would squash the plot:
# a triangle on the frame says where it is.
_FAILED = 0.5


@dataclasses.dataclass(frozen=True)
class Choice:
    """Where a rule lands in a cell: means over the seeds.

    Attributes:
        rule: Its name.
        switched: The epoch after which it switches.
        trained: Epochs trained in all.
        accuracy: What it ends with, in percent.
        lost: Points below the best of the curve.
        late: Epochs after the curve's best; negative is early.
    """

    rule: str
    switched: float
    trained: float
    accuracy: float
    lost: float
    late: float


def choices(curves: Sequence[Curve], kind: str) -> list[Choice]:
    """Returns where every rule lands that the curves of a cell can tell."""
    rules: dict[str, Lands] = dict(RULES)
    if all(curve.fired.keys() >= STEP_TRIGGERS.keys() for curve in curves):
        rules |= STEP_RULES
    made = []
    for name, rule in rules.items():
        found = [regret(curve, rule, kind) for curve in curves]
        late = [
            landing.switched - curve.best_epoch(kind)
            for curve, (landing, _) in zip(curves, found, strict=True)
        ]
        made.append(
            Choice(
                rule=name,
                switched=_mean(landing.switched for landing, _ in found),
                trained=_mean(landing.epochs for landing, _ in found),
                accuracy=100 * _mean(landing.accuracy for landing, _ in found),
                lost=_mean(points for _, points in found),
                late=_mean(late),
            )
        )
    return made


@in_our_style
def draw(
    of_cell: Mapping[str, Sequence[Curve]],
    kind: str = "test_accuracy",
    columns: int = 1,
) -> str:
    """A plot a cell: the final accuracy over the switch, and who lands where.

    Args:
        of_cell: At least one cell, each with curves over the same epochs.
        kind: `"test_accuracy"` or `"val_accuracy"`.
        columns: Plots side by side.

    Returns:
        An `<svg>` element; `figures.document` makes it a file of its own.
    """
    styles = {name: Style.of(i) for i, name in enumerate(DRAWN)}
    landed = {cell: choices(curves, kind) for cell, curves in of_cell.items()}
    told = {choice.rule for found in landed.values() for choice in found}
    handles = []
    for name in (name for name in DRAWN if name in told):
        entry = handle(name, styles[name])
        entry.set_linestyle("none")
        entry.set_markersize(8)
        handles.append(entry)
    rows = -(-len(of_cell) // columns)
    width = WIDTH if columns == 1 else 0.75 * WIDTH * columns
    height = (_HEIGHT + 0.4) * rows + legend_height(handles)
    figure = Figure((width, height), layout="constrained")
    plots = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (cell, curves) in zip(plots, of_cell.items(), strict=False):
        marked = [c for c in landed[cell] if c.rule in styles]
        _draw_cell(axes, curves, kind, marked, styles)
        axes.set_title(cell, fontsize=10, loc="left")
        axes.set_xlabel("switch after epoch")
        axes.set_ylabel(f"final {KINDS[kind]}, %")
    for axes in plots[len(of_cell) :]:
        axes.set_visible(False)
    add_legend(figure, handles)
    title = f"Final {KINDS[kind]} over the switch epoch: {', '.join(of_cell)}"
    return svg.element(figure, title)


def _draw_cell(
    axes: Axes,
    curves: Sequence[Curve],
    kind: str,
    marked: Sequence[Choice],
    styles: Mapping[str, Style],
) -> None:
    epochs = curves[0].switches
    every = 100 * np.array([getattr(curve, kind) for curve in curves])
    failed = every < _FAILED * np.median(every)
    for curve, ends, low in zip(curves, every, failed, strict=True):
        at, shown = np.array(curve.switches), np.where(low, np.nan, ends)
        axes.plot(at, shown, ".", color=INK, markersize=4, alpha=0.5)
        (triangles,) = axes.plot(
            at[low],
            np.zeros(low.sum()),
            "v",
            color=INK,
            markerfacecolor=PAPER,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            zorder=6,
        )
        triangles.set_in_layout(False)
    smooth = [
        100 * _mean(curve.final(epoch, kind) for curve in curves)
        for epoch in epochs
    ]
    axes.plot(epochs, smooth, color=INK, linewidth=2)
    best = int(np.argmax(smooth))
    axes.axvline(epochs[best], color=INK, linestyle=":", linewidth=1)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    low, high = axes.get_ylim()
    near_x, near_y = _NEAR * curves[0].latest, _NEAR * (high - low)
    for i, choice in enumerate(marked):
        above = sum(
            abs(other.switched - choice.switched) < near_x
            and abs(other.accuracy - choice.accuracy) < near_y
            for other in marked[:i]
        )
        style = styles[choice.rule]
        axes.plot(
            choice.switched,
            choice.accuracy + above * _APART * (high - low),
            style.marker,
            color=style.color,
            markersize=8,
            markeredgecolor=PAPER,
            markeredgewidth=1,
            zorder=5,
        )


def write_html(
    of_cell: Mapping[str, Sequence[Curve]], path: Path | str
) -> None:
    """Writes the page: a plot and a table a cell.

    Args:
        of_cell: What `study.curves.load` returned.
        path: The file to write; its folder is made.

    Raises:
        ValueError: If there is no curve.
    """
    if not of_cell:
        raise ValueError(
            "`of_cell` must hold at least one curve. Received: of_cell={}"
        )
    kind = "test_accuracy"
    made = []
    for cell, curves in of_cell.items():
        found = sorted(choices(curves, kind), key=lambda choice: choice.lost)
        best = _mean(curve.best_epoch(kind) for curve in curves)
        made.append(
            {
                "name": cell,
                "seeds": len(curves),
                "ceiling": curves[0].ceiling,
                "best": f"{100 * _mean(c.best(kind) for c in curves):.2f}",
                "best_epoch": f"{best:.3g}",
                "svg": Markup(draw({cell: curves}, kind)),
                "rows": [
                    (
                        choice.rule,
                        f"{choice.lost:.2f}",
                        f"{choice.switched:.1f}",
                        f"{choice.late:+.1f}",
                        f"{choice.trained:.1f}",
                        f"{choice.accuracy:.2f}",
                    )
                    for choice in found
                ],
            }
        )
    pages.write(path, "regret.html.jinja", cells=made)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
