"""The report of a search, from its record alone."""

from __future__ import annotations

import tempfile
import textwrap
from pathlib import Path

from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_hybrid.recipes import Recipe
from keras_hybrid.reports import pages, texts
from keras_hybrid.reports.search import drawings, words
from keras_hybrid.reports.search.summary import Summary
from keras_hybrid.reports.search.table import columns_of
from keras_hybrid.tuning.record import Search

NOTES = (
    "Scores are those of the last epoch, mean ± standard deviation (n - 1) "
    "over the seeds. Only trials that finished the full budget with every "
    "seed have a rank; a stopped trial's score is that of the epoch at which "
    "it was stopped, and a diverged seed is in no mean.",
    "The best trial was chosen by these very scores, so its lead flatters it "
    "a little, more so the more trials there were: confirm it on seeds or "
    "data that the search has not seen.",
    "Differences from a reference are paired by seed, with a 95 % bootstrap "
    "interval; p: paired t-test, adjusted by Holm over the references. Better "
    "or worse is said only if the interval excludes 0 and p < 0.05.",
    "Epochs: those that were trained, of those that the same trial costs on "
    "its own; the others came from the prefix that trials share, or were "
    "saved by stopping.",
)


def print_table(search: Search, console: Console) -> None:
    """Prints what the trials share, the table, best first, and the cost.

    Args:
        search: The search, finished or not.
        console: Where to print.
    """
    summary = Summary.of(search)
    table = Table(box=None, padding=(0, 1, 0, 0))
    columns = columns_of(summary)
    for i, column in enumerate(columns):
        is_name = column.header in ("Transition", "Hyperparameters")
        table.add_column(
            Text(textwrap.fill(column.header, 15)),
            justify="left" if is_name or i == len(columns) - 1 else "right",
            overflow="fold",
        )
    for entry in summary.entries:
        table.add_row(*(Text(column.text(entry)) for column in columns))
    table.add_row()
    for entry in summary.references.values():
        table.add_row(*(Text(column.text(entry)) for column in columns))
    console.print(Text(summary.title, style="bold"))
    console.print(Text(summary.shared))
    console.print(table)
    console.print(Text(summary.cost))


def markdown_table(search: Search) -> str:
    """The same as `print_table` prints, as GitHub-flavoured Markdown.

    Args:
        search: The search, finished or not.

    Returns:
        A line of what the trials share, the table, a line of the cost; without
        a newline at the end.
    """
    summary = Summary.of(search)
    columns = columns_of(summary)
    table = texts.markdown_lines(
        [column.header for column in columns],
        (
            [column.text(entry) for column in columns]
            for entry in (*summary.entries, *summary.references.values())
        ),
    )
    shared, cost = map(texts.escaped_markdown, (summary.shared, summary.cost))
    return f"{shared}\n\n{table}\n\n{cost}"


def write_html(
    search: Search, path: Path | str, recipe: Recipe | None = None
) -> None:
    """Writes the report as one HTML file that loads nothing from elsewhere.

    The same record gives the same file, byte for byte.

    Args:
        search: The search, finished or not.
        path: The file to write; its folder is made.
        recipe: What the search found; None leaves it out.
    """
    summary = Summary.of(search)
    columns = columns_of(summary)
    drawn = {
        title: figure
        for title, figure in (
            ("Score and switch point", drawings.points(summary)),
            ("Score and choices", drawings.parallel(summary)),
            ("Over the epochs", drawings.learning(summary)),
        )
        if figure is not None
    }
    pages.write(
        path,
        "search.html.jinja",
        title=summary.title,
        finding=words.finding(summary),
        verdicts=words.verdicts(summary),
        cost=summary.cost,
        shared=summary.shared,
        headers=[column.header for column in columns],
        groups=[
            [[column.text(entry) for column in columns] for entry in entries]
            for entries in (summary.entries, [*summary.references.values()])
            if entries
        ],
        # Markup: figures.py has escaped the names already.
        figures={title: Markup(svg) for title, svg in drawn.items()},
        notes=NOTES,
        reference=None if recipe is None else words.reference(search),
        recipe=None if recipe is None else _json(recipe),
        usage=None if recipe is None else _usage(recipe),
    )


def _json(recipe: Recipe) -> str:
    """The text of the recipe's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = recipe.save(Path(folder) / "recipe.json")
        return path.read_text(encoding="utf-8")


def _usage(recipe: Recipe) -> str:
    """Python lines that use the recipe."""
    epochs = recipe.budget["epochs"]
    steps = recipe.budget["steps_per_epoch"]
    return f"""\
from keras_hybrid import HybridOptimizer, SwitchCallback

path = "recipe.json"  # Beside this report, or where you have saved it.
optimizer = HybridOptimizer.from_recipe(path)
callback = SwitchCallback.from_recipe(path)
model.compile(optimizer, loss=...)
model.fit(..., epochs={epochs}, callbacks=[callback])

# {epochs} epochs of {steps} steps, as in the search; for another length:
# HybridOptimizer.from_recipe(path, epochs=..., steps_per_epoch=...)
# SwitchCallback.from_recipe(path, epochs=...)
"""
