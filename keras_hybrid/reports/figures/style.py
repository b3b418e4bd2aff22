"""How every figure looks: colours, lines, markers, legends."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

LineStyle = Literal["-", "--", "-.", ":"]
# What is drawn in these two follows the page: its text and its background.
INK = "#000000"
PAPER = "#ffffff"
# Okabe and Ito's colours, without the yellow that white paper swallows. With
# 7 colours, 4 lines and 8 markers no two of 56 arms look alike.
COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    INK,
    "#56B4E9",
    "#E69F00",
)
LINES: tuple[LineStyle, ...] = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 5.2  # inches, 500 CSS pixels: legible when a phone shrinks it
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, selectable, searchable
    "svg.hashsalt": "keras_hybrid",  # the same runs give the same file
    "path.simplify": False,  # it would join what lies close together
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 3.2,
}
# Around each function that draws.
in_our_style = matplotlib.rc_context(SETTINGS)


@dataclasses.dataclass(frozen=True)
class Style:
    """How one arm looks in every figure."""

    color: str
    line: LineStyle
    marker: str

    @classmethod
    def of(cls, index: int) -> Style:
        """The style of the arm with this index."""
        return cls(
            COLORS[index % len(COLORS)],
            LINES[index % len(LINES)],
            MARKERS[index % len(MARKERS)],
        )


def figure_of_one(height: float) -> tuple[Figure, Axes]:
    """A figure with one plot, its height in inches."""
    figure = Figure((WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def handle(label: str, style: Style) -> Line2D:
    """An entry of a legend."""
    return Line2D(
        [],
        [],
        color=style.color,
        linestyle=style.line,
        marker=style.marker,
        markersize=4,
        linewidth=2,
        label=wrapped(label, 30),
    )


def add_legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Two columns below the plot; `legend_height` is what they need."""
    figure.legend(handles=handles, loc="outside lower center", ncols=2)


def legend_height(handles: Sequence[Line2D]) -> float:
    """Inches that two columns of wrapped names need."""
    lines = [str(entry.get_label()).count("\n") + 1 for entry in handles]
    half = (len(lines) + 1) // 2
    longer = max(sum(lines[:half]), sum(lines[half:]))
    return 0.16 * longer + 0.08 * half


def wrapped(text: str, width: int) -> str:
    """Text in lines; a dollar in a name does not begin mathematics."""
    lines = textwrap.wrap(text, width) or [text]
    return "\n".join(lines).replace("$", r"\$")
