"""The table of a study: what its columns are, and a row's text in each."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_hybrid.reports import texts
from keras_hybrid.reports.study import words
from keras_hybrid.reports.study.rows import (
    by_cell,
    label_with_diverged,
    role,
    seeds,
)
from keras_hybrid.study.summary import Row


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


def _epochs_to_target(row: Row) -> str:
    if row.target is None:
        return texts.MISSING
    reached = f"{row.reached} of {len(row.seeds)}"
    if row.epochs_to_target is None:
        return f"never ({reached})"
    return f"{row.epochs_to_target:g} ({reached})"


def _learning_rate(row: Row) -> str:
    if row.learning_rate is None:
        return texts.MISSING
    return f"{row.learning_rate:g} ({row.tuning_trials})"


def _switch(row: Row) -> str:
    if row.switch_step is None:
        return "never" if row.role == "hybrid" else texts.MISSING
    text = f"{row.switch_epoch:.1f} ({row.switch_step:g})"
    if row.switched < len(row.seeds):
        text += f" ({row.switched} of {len(row.seeds)})"
    return text


COLUMNS = (
    Column("Arm", label_with_diverged),
    Column(
        "Test accuracy, %",
        lambda row: texts.interval_text(texts.percent(row.test_accuracy), 2),
        in_terminal=True,
    ),
    Column(
        "Epochs used",
        lambda row: texts.number(row.epochs_used, 1),
        in_terminal=True,
    ),
    Column(
        "Seconds used",
        lambda row: texts.number(row.seconds_used, 1),
        in_terminal=True,
    ),
    Column(
        "Minus control",
        lambda row: texts.difference_text(row.against_control),
        in_terminal=True,
    ),
    Column("p", lambda row: texts.p_text(row.against_control)),
    Column(
        "Minus best baseline",
        lambda row: texts.difference_text(row.against_baseline),
    ),
    Column("p", lambda row: texts.p_text(row.against_baseline)),
    Column("Test loss", lambda row: texts.interval_text(row.test_loss, 4)),
    Column("Epochs to target", _epochs_to_target, in_terminal=True),
    Column(
        "Seconds to target",
        lambda row: texts.number(row.seconds_to_target, 1),
    ),
    Column(
        "Gap, points",
        lambda row: texts.interval_text(
            texts.percent(row.generalization_gap), 2
        ),
    ),
    Column(
        "Curve mean, %",
        lambda row: texts.number(
            None
            if row.area_under_curve is None
            else 100 * row.area_under_curve,
            2,
        ),
    ),
    Column("Switch, epoch (step)", _switch, in_terminal=True),
    Column("Learning rate (trials)", _learning_rate),
    Column("Seeds", seeds),
    Column("Role", role),
    Column("Version", lambda row: ", ".join(row.versions) or texts.MISSING),
)


def markdown_table(rows: Sequence[Row]) -> str:
    """The table as GitHub-flavoured Markdown.

    Args:
        rows: What `summary` returned.

    Returns:
        A header and one line a row, without a newline at the end.

    Example:
    >>> from keras_hybrid.study.report import markdown_table
    >>> markdown_table([]).startswith("| Cell | Arm | Test")
    True
    """
    return texts.markdown_lines(
        ["Cell", *(column.header for column in COLUMNS)],
        [
            [str(row.cell), *(column.text(row) for column in COLUMNS)]
            for row in rows
        ],
    )


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Prints one table a cell, with the columns that fit a terminal.

    Args:
        rows: What `summary` returned.
        console: Where to print.
    """
    shown = [column for column in COLUMNS if column.in_terminal]
    for cell, of_cell in by_cell(rows).items():
        table = Table(
            title=Text(words.title(cell, of_cell)),
            title_justify="left",
            box=None,
            padding=(0, 1, 1, 0),
        )
        table.add_column("Arm", overflow="fold")
        for column in shown:
            header = textwrap.fill(column.header, 10)
            table.add_column(header, justify="right")
        for row in of_cell:
            # The second half of an entry goes below the first.
            texts = (
                re.sub(r",? (?=[\[(])", "\n", column.text(row))
                for column in shown
            )
            label = Text(label_with_diverged(row))
            table.add_row(label, *(Text(text) for text in texts))
        console.print(table)
