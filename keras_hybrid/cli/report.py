"""keras-hybrid report: the report again, from the records alone."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from keras_hybrid.cli import options


def add_to(commands: options.Commands) -> None:
    """Adds the command's parser."""
    parser = commands.add_parser(
        "report",
        help="make the report from a folder of records, or of a search, again",
    )
    parser.set_defaults(run=run)
    parser.add_argument("folder", type=Path, help="folder of the records")


def run(given: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Makes the report of a folder."""
    report(given.folder)


def report(folder: Path) -> None:
    """Prints the table and writes the report of a study or of a search."""
    if (folder / "search.json").exists():
        report_search(folder)
    else:
        report_study(folder)


def report_study(folder: Path) -> None:
    """As `report`, of a folder of the runs of arms."""
    from rich.console import Console

    from keras_hybrid.reports import study
    from keras_hybrid.study.results import NoResults

    console = Console(markup=False)
    try:
        runs, warnings = study.load_runs(folder)
    except NoResults as error:
        searches = sorted(folder.glob("*/search.json"))
        if not searches:
            raise
        of_first = _command(searches[0].parent)
        raise ValueError(
            f"`folder` holds {len(searches)} searches, each with a report of "
            f"its own: {of_first}. Received: folder={str(folder)!r}"
        ) from error
    traces, damaged = study.load_traces(folder)
    warnings += damaged
    for warning in warnings:
        console.print(f"warning: {warning}")
    page = folder / "report.html"
    study.write_html(runs, page, warnings, traces)
    study.write_markdown(runs, folder / "report.md", warnings)
    study.print_table(study.summary(runs), console)
    console.print(f"Report: {page.resolve().as_uri()}", soft_wrap=True)
    console.print(f"Again from the records: {_command(folder)}", soft_wrap=True)


def _command(folder: Path) -> str:
    return shlex.join(["keras-hybrid", "report", str(folder)])


def report_search(folder: Path) -> None:
    """As `report`, of the folder of a search."""
    from rich.console import Console

    from keras_hybrid.recipes import Recipe
    from keras_hybrid.reports import search
    from keras_hybrid.tuning import record

    console = Console(markup=False)
    found = record.load(folder)
    path = folder / "recipe.json"
    recipe = Recipe.load(path) if path.exists() else None
    page = folder / "search.html"
    search.write_html(found, page, recipe)
    search.print_table(found, console)
    console.print(f"Report: {page.resolve().as_uri()}", soft_wrap=True)
