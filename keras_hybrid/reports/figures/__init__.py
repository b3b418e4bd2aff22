"""The report's figures: plain numbers in, inline SVG out."""

from keras_hybrid.reports.figures.choices import draw_parallel
from keras_hybrid.reports.figures.intervals import (
    Comparison,
    Dots,
    draw_dots,
    draw_forest,
)
from keras_hybrid.reports.figures.lines import (
    Curves,
    draw_curves,
    draw_trace,
)
from keras_hybrid.reports.figures.style import Style
from keras_hybrid.reports.figures.svg import document
from keras_hybrid.reports.figures.trials import (
    Level,
    Point,
    Series,
    draw_points,
)

__all__ = [
    "Comparison",
    "Curves",
    "Dots",
    "Level",
    "Point",
    "Series",
    "Style",
    "document",
    "draw_curves",
    "draw_dots",
    "draw_forest",
    "draw_parallel",
    "draw_points",
    "draw_trace",
]
