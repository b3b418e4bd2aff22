"""The results of a folder: runs, traces, and one table of them for pandas.

Records are files while a study runs, one JSON each; `pack` puts them into
tables. Either is read the same way.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_hybrid._support import checks, records, tables
from keras_hybrid.study.comparison import (
    ROLES,
    Cell,
    cell_of,
    configuration,
    distinct,
    group,
)
from keras_hybrid.study.record import LATER, Run
from keras_hybrid.study.trace import TRACES, Trace

if TYPE_CHECKING:
    import pandas

CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")
COMMAND = "keras-hybrid compare --output"
# What the arms of a cell must share.
_SHARED = (
    *("batch_size", "images", "augmented"),
    *(name for name in LATER if name != "callbacks"),
)


class NoResults(ValueError):
    """There is no run below a folder."""


def load_runs(folder: Path | str) -> tuple[list[Run], list[str]]:
    """Reads every run below a folder, in files or in tables.

    Args:
        folder: Where `keras-hybrid compare --output FOLDER` wrote.

    Returns:
        `(runs, warnings)`: the runs in the order of their paths, without those
        that tuned a learning rate (they never read the test split), and one
        text for each file that was skipped (damaged, of another program, a
        second file of the same run), for each arm of which the configuration
        is not the same in all seeds, and for each cell whose arms had not the
        same images, batch size or labels.

    Raises:
        ValueError: If there is no run to report; it says which command
            makes them. If a table is unreadable.

    Example:
    >>> from keras_hybrid.study.results import load_runs
    >>> runs, warnings = load_runs("results/study")  # doctest: +SKIP
    >>> runs[0].history["val_accuracy"][-1]  # doctest: +SKIP
    0.9146000146865845
    """
    folder = Path(folder)
    origin: dict[tuple[Any, ...], int] = {}
    runs: list[Run] = []
    paths: list[Path] = []
    warnings: list[str] = []
    for path in records.below(folder):
        name = path.relative_to(folder)
        if path.parent.name == TRACES:
            continue
        try:
            run = Run.load(path)
            if _is_tuning(run):
                continue
            check(run)
        except (ValueError, TypeError) as error:
            # Run.load names the whole path, the reader knows the folder.
            reason = str(error).removeprefix(f"{path}: ")
            warnings.append(f"{name}: skipped: {reason}")
            continue
        key = (*cell_of(run), run.arm, run.seed)
        if key in origin:
            first = origin[key]
            same = configurations([run, runs[first]])
            what = "the same run as"
            if len(same) > 1:
                what = "another configuration of the run in"
            warnings.append(f"{name}: skipped: {what} {paths[first]}")
            continue
        origin[key] = len(runs)
        runs.append(run)
        paths.append(name)
    if not runs:
        skipped = "".join(f"\n{text}" for text in warnings)
        raise NoResults(
            "`folder` must hold results; this command makes them: "
            f"{COMMAND} {folder}{skipped}\nReceived: folder={str(folder)!r}"
        )
    return runs, [*warnings, *_unequal(runs)]


def load_traces(folder: Path | str) -> tuple[dict[Cell, Trace], list[str]]:
    """Reads the traces of the projection that lie beside the runs.

    Returns:
        `(traces, warnings)`: one a cell, and a text for each file that was
        skipped.
    """
    folder = Path(folder)
    paths = records.below(folder)
    traces, warnings = {}, []
    for path in paths:
        if path.parent.name != TRACES:
            continue
        try:
            trace = Trace.load(path)
            runs = records.in_folder(path.parent.parent, "*-seed*.json")
            if not runs:
                raise ValueError("there are no runs beside it")
            traces[_cell_of_any(runs)] = trace
        except ValueError as error:
            warnings.append(f"{path.relative_to(folder)}: skipped: {error}")
    return traces, warnings


def _cell_of_any(paths: Sequence[Path]) -> Cell:
    """The cell of the first run that is not damaged."""
    for path in paths:
        with contextlib.suppress(ValueError, TypeError):
            run = Run.load(path)
            check(run)
            return cell_of(run)
    raise ValueError("every run beside it is damaged")


def load_table(folder: Path | str, table: str = "runs") -> pandas.DataFrame:
    """Returns the records below a folder as a table, whether packed or not.

    A row is a record. `path` names it; its fields are columns, the fields of a
    field are `configuration.label`, `versions.keras`, or `history.accuracy`,
    an array with one number an epoch; what lies deeper is JSON. A packed
    folder's is what `pandas.read_parquet(f"{folder}/{table}.parquet")` gives.

    Args:
        folder: That of a comparison, a study or a search.
        table: "runs" (default; those that tuned a learning rate have
            `configuration.is_tuning`), "traces", "curves" (of regret),
            "trainings" or "trials" (both of searches), "tails" (of
            `benchmarks/transformer.py`) or "cooldowns" (of
            `benchmarks/cooldowns.py`).

    Raises:
        ValueError: If `table` is none of these, or there is no such record.

    Example:
    >>> from keras_hybrid.study.results import load_table
    >>> runs = load_table("results/study")  # doctest: +SKIP
    >>> runs.groupby("arm").test_accuracy.mean()  # doctest: +SKIP
    """
    checks.choice("table", table, records.TABLES)
    folder = Path(folder)
    found, _ = records.by_table(folder)
    if table not in found:
        raise ValueError(
            f"`folder` must hold records of `table`. Received: folder="
            f"{str(folder)!r}, table={table!r}"
        )
    return tables.arrow(found[table]).to_pandas()


def _is_tuning(run: Run) -> bool:
    """Whether the run tuned a learning rate, and is not reported."""
    given = run.configuration
    return isinstance(given, Mapping) and bool(given.get("is_tuning"))


def configurations(runs: Sequence[Run]) -> list[Any]:
    """What an arm was, once or more: as written, or as it would be today.

    A later version writes the same arm with more fields.
    """
    found = distinct(configuration(run) for run in runs)
    if len(found) > 1:
        # Late: it takes TensorFlow, and is seldom needed.
        from keras_hybrid.study.runs import with_defaults

        with contextlib.suppress(KeyError, TypeError, ValueError):
            return distinct(map(with_defaults, found))
    return found


def _unequal(runs: Sequence[Run]) -> list[str]:
    """What differs among runs that are compared as equals."""
    warnings = []
    for (cell, arm), of_arm in group(
        runs, lambda run: (cell_of(run), run.arm)
    ).items():
        if len(configurations(of_arm)) > 1:
            warnings.append(
                f"{cell}: the configuration of {arm!r} is not the same in "
                "all seeds"
            )
    for cell, of_cell in group(runs, cell_of).items():
        for field in _SHARED:
            values = distinct(
                {**LATER, **run.configuration}.get(field) for run in of_cell
            )
            if len(values) > 1:
                warnings.append(
                    f"{cell}: {field} is not the same in all runs, which are "
                    f"compared nevertheless: {', '.join(map(str, values))}"
                )
    return warnings


def check(run: Run) -> None:
    """Checks that a run has what a report needs.

    Raises:
        ValueError: If it does not; says what is missing.
    """
    names = (run.dataset, run.architecture, run.arm)
    counts = (run.seed, run.epochs, run.steps_per_epoch)
    problem = None
    if not all(isinstance(name, str) for name in names):
        problem = "a name is no text"
    elif not all(type(count) is int for count in counts):
        problem = "seed, epochs or steps_per_epoch is no integer"
    elif run.steps_per_epoch < 1:
        problem = "steps_per_epoch is below 1"
    elif not isinstance(run.switch_step, (int, type(None))):
        problem = "switch_step is no integer"
    elif not isinstance(run.configuration, Mapping):
        problem = "configuration is no mapping"
    elif not isinstance(run.versions, Mapping):
        problem = "versions is no mapping"
    elif run.configuration.get("role") not in ROLES:
        problem = f'configuration["role"] is none of {", ".join(ROLES)}'
    elif not isinstance(run.configuration.get("label"), str):
        problem = 'configuration["label"] is no text'
    elif not isinstance(run.configuration.get("regime", ""), str):
        problem = 'configuration["regime"] is no text'
    elif not isinstance(
        run.configuration.get("control", ""), (str, type(None))
    ):
        problem = 'configuration["control"] is no text'
    elif not _is_number(run.val_accuracy):
        problem = "val_accuracy is no number"
    elif not _is_number(run.configuration.get("tuned_learning_rate")):
        problem = 'configuration["tuned_learning_rate"] is no number'
    elif not all(isinstance(text, str) for text in run.versions.values()):
        problem = "versions has what is no text"
    elif run.status == "finished":
        problem = _missing_result(run)
    if problem is not None:
        raise ValueError(
            f"{problem}. Received: arm={run.arm!r}, seed={run.seed!r}"
        )


def _missing_result(run: Run) -> str | None:
    """What a finished run lacks, or None."""
    lengths = {len(run.history.get(name, [])) for name in CURVES}
    if 0 in lengths or len(lengths) > 1:
        return f"history has not the same epochs in {', '.join(CURVES)}"
    if not all(
        math.isfinite(value)
        for name in ("accuracy", "val_accuracy", "seconds")
        for value in run.history[name]
    ):
        return "history has an accuracy or time that is not finite"
    if run.test_accuracy is None or not _is_number(run.test_accuracy):
        return "a finished run without test accuracy"
    if not _is_number(run.test_loss):
        return "test_loss is no number"
    return None


def _is_number(value: Any) -> bool:
    """Whether it is a finite number, or None."""
    if value is None:
        return True
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and math.isfinite(value)
