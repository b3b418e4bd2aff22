"""keras-hybrid tune: when and how to switch, searched; and a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_hybrid.cli import options, report

if TYPE_CHECKING:  # The help does without their packages.
    from keras_hybrid.recipes import Recipe
    from keras_hybrid.study import search


def add_to(commands: options.Commands) -> None:
    """Adds the command's parser."""
    parser = options.add_command(
        commands,
        "tune",
        run,
        "search when and how to switch; table, report and a recipe",
    )
    options.add_cell(parser, architecture="cnn")
    parser.add_argument(
        "--train-size",
        type=int,
        default=None,
        help="number of training images; None: all",
    )
    parser.add_argument(
        "--epochs", type=int, default=20, help="budget of a trial"
    )
    parser.add_argument(
        "--space",
        default="when",
        help="when (nine switch points, and none), rate (five, and the factor "
        "on the SGD learning rate) or all (when, how, how fast, how it ends)",
    )
    parser.add_argument(
        "--tuner", default="grid", help="grid, random, bayesian or hyperband"
    )
    parser.add_argument(
        "--max-trials",
        type=int,
        default=None,
        help="trials at most; None: the whole grid, else 10",
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="stop hopeless trials by the median rule",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes that train trials at the same time",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("tune-results"),
        help="folder of the search, its report and its recipe; a killed search "
        "goes on from it",
    )


def run(given: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Searches what is left, trains the references, writes the recipe."""
    from keras_hybrid._support import checks, processes
    from keras_hybrid.study import search

    checks.integer("workers", given.workers, low=1)
    cell = search.Cell(
        dataset=given.dataset,
        architecture=given.architecture,
        train_size=given.train_size,
        epochs=given.epochs,
        batch_size=given.batch_size,
        seeds=given.seeds,
        space=given.space,
        oracle=given.tuner,
        max_trials=given.max_trials,
        prune=given.prune,
    )
    cell.check()
    if processes.is_member():
        processes.die_with_parent()
        _search(search.prepare(cell, given.directory, given.data_dir))
        return
    recipe = _lead(given, cell, arguments)
    folder = given.directory / cell.name
    report.report_search(folder)
    _say_what_was_found(folder, recipe)


def _lead(
    given: argparse.Namespace, cell: search.Cell, arguments: Sequence[str]
) -> Recipe:
    """Searches with a bar, alone or over workers, to the recipe."""
    from keras_hybrid._support import processes
    from keras_hybrid.study import search

    folder = given.directory / cell.name
    with options.bar("trainings") as bar:
        task = bar.add_task("loading", total=None)
        if given.workers > 1:
            processes.run(
                processes.own_command(arguments),
                given.workers,
                folder,
                watch=_watching(bar, task, folder, given.workers),
            )
        prepared = search.prepare(
            cell,
            given.directory,
            given.data_dir,
            _telling(bar, task, cell.seeds),
        )
        _search(prepared)
        return search.finish(cell, prepared)


def _watching(
    bar: Any, task: Any, folder: Path, workers: int
) -> Callable[[], None]:
    """Returns what shows the progress of other processes, from their files."""
    from keras_hybrid.tuning import record

    reader = record.Reader(folder)

    def look() -> None:
        if (folder / "search.json").exists():
            bar.update(
                task,
                description=f"{workers} workers",
                completed=sum(len(t.runs) for t in reader.load().trials),
            )

    return look


def _telling(bar: Any, task: Any, seeds: int) -> Callable[[Any], None]:
    """Returns what shows the progress of the search in this process."""
    from keras_hybrid.tuning import record

    def tell(progress: Any) -> None:
        bar.update(
            task,
            description=f"trial {progress.trial}, seed {progress.seed}, "
            f"epoch {progress.epoch}/{progress.epochs}, snapshots "
            f"{progress.snapshot_bytes / 1e6:.0f} MB",
            completed=progress.finished,
            total=None
            if progress.total is None
            else progress.total + len(record.REFERENCES) * seeds,
        )

    return tell


def _search(prepared: Any) -> None:
    try:
        prepared.tuner.search(**prepared.arguments)
    except RuntimeError as error:  # KerasTuner's, when trainings fail.
        raise ValueError(
            f"the search has ended: {error}\nFinished trials are kept; the "
            "same command goes on."
        ) from error


def _say_what_was_found(folder: Path, recipe: Recipe) -> None:
    from rich.console import Console

    from keras_hybrid.reports.search import words
    from keras_hybrid.tuning import record

    console = Console(markup=False)
    reference = words.reference(record.load(folder))
    if reference is not None:
        console.print(reference)
    console.print(f"Found: {recipe.plan}", soft_wrap=True)
    console.print(f"Recipe: {folder / 'recipe.json'}", soft_wrap=True)
