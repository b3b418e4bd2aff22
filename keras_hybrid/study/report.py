"""The reports: from result files alone to a table, Markdown and one HTML."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_hybrid.study import figures
from keras_hybrid.study.record import Run
from keras_hybrid.study.statistics import Interval
from keras_hybrid.study.summary import (
    Cell,
    Difference,
    Row,
    arms_of,
    cell_of,
    configuration,
    distinct,
    group,
    load_runs,
    summary,
)

__all__ = [
    "load_runs",
    "markdown_table",
    "print_table",
    "summary",
    "write_html",
    "write_markdown",
]

MISSING = "–"
NOTES = (
    "Accuracies are means over the finished seeds with a 95 % interval "
    "(Student's t); a diverged seed is counted, and in no mean.",
    "Differences are paired by seed, in percentage points of test accuracy, "
    "with a 95 % bootstrap interval. p: paired t-test, adjusted by Holm over "
    "all arms and cells compared with this kind of reference. With few seeds "
    "a bootstrap interval is too narrow (of 95 % intervals over 5 seeds about "
    "83 % hold the true value), so a difference is called higher or lower "
    "only if the interval excludes 0 and p < 0.05.",
    "Best baseline: the baseline with the highest mean final validation "
    "accuracy, which is the target too. Epochs and seconds to target: median "
    "over the seeds that reach it, and how many do. Seconds are training "
    "alone.",
    "Gap: final training accuracy minus test accuracy; the training accuracy "
    "is what fit logged, under dropout and augmentation where there are any.",
    "Curve mean: validation accuracy, averaged over the epochs.",
)
# Name in the history -> title, axis, whether logarithmic.
CURVE_FIGURES = {
    "val_accuracy": ("Validation accuracy", "validation accuracy, %", False),
    "val_loss": ("Validation loss", "validation loss", True),
    "accuracy": ("Training accuracy", "training accuracy, %", False),
    "loss": ("Training loss", "training loss", True),
    "sgd_fraction": ("Fraction of SGD", "fraction of SGD", False),
    "learning_rate": (
        "Learning rate with cool-down",
        "learning rate × cool-down",
        True,
    ),
    "sgd_learning_rate": (
        "Equivalent SGD learning rate",
        "SGD learning rate",
        True,
    ),
}


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        header: Its title, with the unit.
        text: Row -> text of the entry.
        in_terminal: Whether it is worth the width of a terminal.
    """

    header: str
    text: Callable[[Row], str]
    in_terminal: bool = False


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One comparison in words."""

    arm: str
    reference: str
    difference: str
    words: str
    direction: str


def markdown_table(rows: Sequence[Row]) -> str:
    """The table as GitHub-flavoured Markdown.

    Args:
        rows: What `summary` returned.

    Returns:
        A header and one line a row, without a newline at the end.

    Example:

    >>> from keras_hybrid.study.report import markdown_table
    >>> markdown_table([]).startswith("| Cell | Arm | Role |")
    True
    """
    lines = [
        ["Cell", *(column.header for column in COLUMNS)],
        ["---"] * (1 + len(COLUMNS)),
    ]
    for row in rows:
        texts = [str(row.cell), *(column.text(row) for column in COLUMNS)]
        lines.append([_markdown(text) for text in texts])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Prints one table a cell, with the columns that fit a terminal.

    Args:
        rows: What `summary` returned.
        console: Where to print.
    """
    shown = [column for column in COLUMNS if column.in_terminal]
    for cell, of_cell in _by_cell(rows).items():
        table = Table(title=Text(_title(cell, of_cell)), title_justify="left")
        for index, column in enumerate(shown):
            # The interval goes below its mean: half the width.
            table.add_column(
                column.header,
                no_wrap=index > 0,
                justify="right" if index else "left",
            )
        for row in of_cell:
            texts = (column.text(row) for column in shown)
            table.add_row(*(Text(x.replace(" [", "\n[")) for x in texts))
        console.print(table)


def write_markdown(
    runs: Sequence[Run], path: Path | str, warnings: Sequence[str] = ()
) -> None:
    """Writes the report as Markdown: verdicts, table, how to read it.

    Args:
        runs: The runs, as `load_runs` returned them.
        path: The file to write; its folder is made.
        warnings: The second result of `load_runs`.

    Raises:
        ValueError: If `runs` is empty or one lacks what a row needs.
    """
    rows = summary(runs)
    parts = ["# Study of optimizers\n"]
    for cell, of_cell in _by_cell(rows).items():
        parts.append(f"**{_markdown(_title(cell, of_cell))}**\n")
        lines = [_best(of_cell)] + [
            f"{v.arm} minus {v.reference}: {v.difference}: {v.words}."
            for v in _verdicts(of_cell)
        ]
        parts.append("".join(f"- {_markdown(line)}\n" for line in lines))
    parts.append(markdown_table(rows) + "\n")
    sections = {
        "Warnings": warnings,
        "How to read this": NOTES,
        "Commands": _commands(runs),
        "Versions": [f"{k}: {v}" for k, v in _versions(runs).items()],
    }
    for heading, lines in sections.items():
        if lines:
            parts.append(f"## {heading}\n")
            parts.append("".join(f"- {_markdown(line)}\n" for line in lines))
    _write(path, "\n".join(parts))


def write_html(
    runs: Sequence[Run], path: Path | str, warnings: Sequence[str] = ()
) -> None:
    """Writes the report as one HTML file that loads nothing from elsewhere.

    The same runs give the same file, byte for byte.

    Args:
        runs: The runs, as `load_runs` returned them.
        path: The file to write; its folder is made.
        warnings: The second result of `load_runs`.

    Raises:
        ValueError: If `runs` is empty or one lacks what a row needs.
    """
    rows = summary(runs)
    of_cell = group(runs, cell_of)
    styles = {arm: figures.Style.of(i) for i, arm in enumerate(arms_of(runs))}
    cells = [
        {
            "title": _title(cell, cell_rows),
            "best": _best(cell_rows),
            "verdicts": _verdicts(cell_rows),
            "rows": [[c.text(row) for c in COLUMNS] for row in cell_rows],
            "figures": [
                # Markup: figures.py has escaped the names already.
                {"title": title, "svg": Markup(svg)}
                for title, svg in _figures(
                    cell, cell_rows, of_cell[cell], styles
                ).items()
            ],
            "arms": [_configuration(row, of_cell[cell]) for row in cell_rows],
        }
        for cell, cell_rows in _by_cell(rows).items()
    ]
    template = resources.files("keras_hybrid.study") / "report.html.jinja"
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.from_string(template.read_text("utf-8")).render(
        cells=cells,
        headers=[column.header for column in COLUMNS],
        notes=NOTES,
        warnings=warnings,
        commands=_commands(runs),
        versions=_versions(runs),
        runs=len(runs),
    )
    _write(path, page)


def _figures(
    cell: Cell,
    rows: Sequence[Row],
    runs: Sequence[Run],
    styles: Mapping[str, figures.Style],
) -> dict[str, str]:
    """Title -> figure of one cell; those without data are left out."""
    by_arm = arms_of(runs)
    drawn = {"Test accuracy of each seed": _dots(cell, rows, by_arm, styles)}
    forest = _forest(cell, rows, styles)
    if forest is not None:
        drawn["Paired differences in test accuracy"] = forest
    for name, (title, ylabel, log) in CURVE_FIGURES.items():
        curves = [
            _curves(row, by_arm[row.arm], name, styles[row.arm])
            for row in rows
            if any(run.history.get(name) for run in by_arm[row.arm])
        ]
        if curves:
            drawn[title] = figures.draw_curves(
                curves, f"{title}: {cell}", ylabel, log=log
            )
    return drawn


def _curves(
    row: Row, runs: Sequence[Run], name: str, style: figures.Style
) -> figures.Curves:
    values: dict[str, list[Sequence[float]]] = {"finished": [], "diverged": []}
    for run in runs:
        curve = run.history.get(name, [])
        if name in ("accuracy", "val_accuracy"):
            curve = [100 * x for x in curve]
        if name == "learning_rate" and "cooldown" in run.history:
            factors = run.history["cooldown"]
            curve = [x * f for x, f in zip(curve, factors, strict=False)]
        values[run.status].append(curve)
    return figures.Curves(
        row.label, style, **values, switch_epoch=row.switch_epoch
    )


def _dots(
    cell: Cell,
    rows: Sequence[Row],
    by_arm: Mapping[str, Sequence[Run]],
    styles: Mapping[str, figures.Style],
) -> str:
    dots = [
        figures.Dots(
            _label_with_diverged(row),
            styles[row.arm],
            [
                100 * run.test_accuracy
                for run in by_arm[row.arm]
                if run.status == "finished" and run.test_accuracy is not None
            ],
            _percent(row.test_accuracy),
        )
        for row in rows
    ]
    return figures.draw_dots(
        dots, f"Test accuracy of each seed: {cell}", "test accuracy, %"
    )


def _forest(
    cell: Cell, rows: Sequence[Row], styles: Mapping[str, figures.Style]
) -> str | None:
    panels = []
    for name, kind in (
        ("control", "against_control"),
        ("best baseline", "against_baseline"),
    ):
        compared = [
            (row, difference)
            for row in rows
            if (difference := getattr(row, kind)) is not None
        ]
        if compared:
            heading = f"minus {name}: {compared[0][1].reference}"
            panels.append(
                (
                    heading,
                    [
                        figures.Comparison(
                            row.label,
                            styles[row.arm],
                            Interval(*(100 * x for x in d.paired[:3])),
                        )
                        for row, d in compared
                    ],
                )
            )
    if not panels:
        return None
    return figures.draw_forest(
        panels,
        f"Paired differences in test accuracy: {cell}",
        "difference in test accuracy, points",
    )


def _configuration(row: Row, runs: Sequence[Run]) -> dict[str, Any]:
    """What the arm was, and in which seeds."""
    of_arm = [run for run in runs if run.arm == row.arm]
    return {
        "label": row.label,
        "arm": row.arm,
        "seeds": ", ".join(map(str, row.seeds)),
        "texts": [
            json.dumps(content, indent=1, sort_keys=True, default=str)
            for content in distinct(configuration(run) for run in of_arm)
        ],
    }


def _commands(runs: Sequence[Run]) -> list[str]:
    return [
        str(command)
        for command in distinct(
            run.configuration.get("command") for run in runs
        )
        if command
    ]


def _versions(runs: Sequence[Run]) -> dict[str, str]:
    """Package -> its versions, more than one where runs differ."""
    names = sorted({name for run in runs for name in run.versions})
    return {
        name: ", ".join(
            str(version)
            for version in distinct(run.versions.get(name) for run in runs)
        )
        for name in names
    }


def _by_cell(rows: Sequence[Row]) -> dict[Cell, list[Row]]:
    cells: dict[Cell, list[Row]] = {}
    for row in rows:
        cells.setdefault(row.cell, []).append(row)
    return cells


def _title(cell: Cell, rows: Sequence[Row]) -> str:
    target = rows[0].target
    if target is None:
        return f"{cell} (no baseline, so no target)"
    best = next(row.label for row in rows if row.is_best_baseline)
    return f"{cell} (target {100 * target:.2f} % validation accuracy: {best})"


def _best(rows: Sequence[Row]) -> str:
    """Which arm has the highest mean, in words."""
    ranked = [
        (row.test_accuracy, row)
        for row in rows
        if row.test_accuracy is not None
    ]
    if not ranked:
        return "Every run diverged."
    accuracy, best = max(ranked, key=lambda pair: pair[0].mean)
    return (
        f"Highest mean test accuracy: {best.label} ({_role(best)}), "
        f"{_interval_text(_percent(accuracy), 2)} %, seeds: {_seeds(best)}."
    )


def _verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """What the hybrids did against control and best baseline."""
    verdicts = []
    for row in rows:
        for name, difference in (
            ("control", row.against_control),
            ("best baseline", row.against_baseline),
        ):
            if row.role != "hybrid" or difference is None:
                continue
            direction, words = _words(difference)
            missing = len(row.seeds) - difference.paired.seeds
            if missing:
                words += f", {missing} of {len(row.seeds)} seeds without a pair"
            verdicts.append(
                Verdict(
                    row.label,
                    f"{name} ({difference.reference})",
                    f"{_difference_text(difference)} points",
                    words,
                    direction,
                )
            )
    return verdicts


def _words(difference: Difference) -> tuple[str, str]:
    """Direction (a CSS class) and words."""
    low, high = difference.paired.low, difference.paired.high
    if math.isnan(low):
        return "unclear", "one seed, so no interval"
    if low <= 0 <= high:
        return "unclear", "no clear difference"
    p = _p_text(difference)
    if not difference.is_clear:
        return "unclear", (
            f"no clear difference (the interval excludes 0, but p = {p})"
        )
    direction = "higher" if low > 0 else "lower"
    return direction, f"{direction} (p = {p})"


def _label_with_diverged(row: Row) -> str:
    if not row.diverged:
        return row.label
    return f"{row.label} ({row.diverged} of {len(row.seeds)} diverged)"


def _percent(interval: Interval | None) -> Interval | None:
    if interval is None:
        return None
    return Interval(*(100 * bound for bound in interval))


def _interval_text(interval: Interval | None, digits: int) -> str:
    if interval is None:
        return MISSING
    if math.isnan(interval.low):
        return f"{interval.mean:.{digits}f} [{MISSING}]"
    return (
        f"{interval.mean:.{digits}f} "
        f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
    )


def _difference_text(difference: Difference | None) -> str:
    if difference is None:
        return MISSING
    mean, low, high = (100 * x for x in difference.paired[:3])
    if math.isnan(low):
        return f"{mean:+.2f} [{MISSING}]"
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _p_text(difference: Difference | None) -> str:
    if difference is None or math.isnan(difference.p_holm):
        return MISSING
    if difference.p_holm < 0.001:
        return "< 0.001"
    return f"{difference.p_holm:.3f}"


def _number(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def _role(row: Row) -> str:
    return "best baseline" if row.is_best_baseline else row.role


def _seeds(row: Row) -> str:
    count = str(len(row.seeds))
    return f"{count} ({row.diverged} diverged)" if row.diverged else count


def _epochs_to_target(row: Row) -> str:
    if row.target is None:
        return MISSING
    reached = f"{row.reached} of {len(row.seeds)}"
    if row.epochs_to_target is None:
        return f"never ({reached})"
    return f"{row.epochs_to_target:g} ({reached})"


def _switch(row: Row) -> str:
    if row.switch_step is None:
        return "never" if row.role == "hybrid" else MISSING
    text = f"{row.switch_epoch:.1f} ({row.switch_step:g})"
    if row.switched < len(row.seeds):
        text += f", {row.switched} of {len(row.seeds)}"
    return text


COLUMNS = (
    Column("Arm", lambda row: row.label, in_terminal=True),
    Column("Role", _role),
    Column("Seeds", _seeds, in_terminal=True),
    Column(
        "Test accuracy, %",
        lambda row: _interval_text(_percent(row.test_accuracy), 2),
        in_terminal=True,
    ),
    Column(
        "Minus control",
        lambda row: _difference_text(row.against_control),
        in_terminal=True,
    ),
    Column("p", lambda row: _p_text(row.against_control)),
    Column(
        "Minus best baseline",
        lambda row: _difference_text(row.against_baseline),
        in_terminal=True,
    ),
    Column("p", lambda row: _p_text(row.against_baseline)),
    Column("Test loss", lambda row: _interval_text(row.test_loss, 4)),
    Column("Epochs to target", _epochs_to_target, in_terminal=True),
    Column("Seconds to target", lambda row: _number(row.seconds_to_target, 1)),
    Column(
        "Gap, points",
        lambda row: _interval_text(_percent(row.generalization_gap), 2),
    ),
    Column(
        "Curve mean, %",
        lambda row: _number(
            None
            if row.area_under_curve is None
            else 100 * row.area_under_curve,
            2,
        ),
    ),
    Column("Switch, epoch (step)", _switch, in_terminal=True),
)


def _markdown(text: str) -> str:
    """One line in which nothing of a name is taken for markup."""
    return re.sub(r"([\\`*\[\]|<>&])", r"\\\1", " ".join(text.split()))


def _write(path: Path | str, text: str) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
