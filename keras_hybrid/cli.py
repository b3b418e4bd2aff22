"""The command line: keras-hybrid compare | tune | study | report | pack."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_hybrid.study import packing


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-hybrid",
        description="Train with Adam first and SGD after, and compare.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser(
        "compare",
        help="train what people do, TrainUntilDone and its control; table and "
        "report",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_cell(compare, architecture="mlp")
    compare.add_argument(
        "--arms",
        default="adam_constant,adam_stop,adam_reduce,schedule_free,adam_ema,"
        "adam,sgd,until_done_control,until_done",
        help="names of arms, separated by commas; also a switch at half of the "
        "epochs: hybrid, and its control; that with other estimates of the "
        "SGD learning rate: hybrid_norm, hybrid_swats, hybrid_model; and the "
        "published methods: "
        "swats, swats_layer, gnmt, rmsprop_warmup, adabound, amsbound, "
        "dstadam, padam, mas, grafted",
    )
    compare.add_argument(
        "--epochs",
        type=int,
        default=30,
        help="budget of each run; a ceiling for those that end themselves",
    )
    compare.add_argument(
        "--output",
        type=Path,
        default=Path("compare-results"),
        help="folder of the records and the report; a killed comparison goes "
        "on from it",
    )
    tune = commands.add_parser(
        "tune",
        help="search when and how to switch; table, report and a recipe",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_cell(tune, architecture="cnn")
    tune.add_argument(
        "--train-size",
        type=int,
        help="number of training images (default: all)",
    )
    tune.add_argument(
        "--epochs", type=int, default=20, help="budget of a trial"
    )
    tune.add_argument(
        "--space",
        default="when",
        help="when (ten switch points), rate (five, and the factor on the "
        "SGD learning rate) or all (when, how, how fast, how it ends)",
    )
    tune.add_argument(
        "--tuner", default="grid", help="grid, random, bayesian or hyperband"
    )
    tune.add_argument(
        "--max-trials",
        type=int,
        help="trials at most (default: the whole grid, else 10)",
    )
    tune.add_argument(
        "--prune",
        action="store_true",
        help="stop hopeless trials by the median rule",
    )
    tune.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes that train trials at the same time",
    )
    tune.add_argument(
        "--directory",
        type=Path,
        default=Path("tune-results"),
        help="folder of the search, its report and its recipe; a killed search "
        "goes on from it",
    )
    study = commands.add_parser(
        "study",
        help="train all arms in all cells, each tuned; table and report",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    study.add_argument(
        "--cells",
        default="all",
        help="names of cells, separated by commas, such as mnist-good-fit; or "
        "all, the nine of the study, which leaves out those that are untuned "
        "(mnist-best; cifar10-best, -regularized, -long and -longer) and those "
        "where epochs are a ceiling (mnist-good-fit-ceiling, and with the "
        "libraries' own learning rates mnist-good-fit-defaults; of each cell "
        "and of mnist-noisy)",
    )
    study.add_argument(
        "--arms",
        default="all",
        help="names of arms, separated by commas; all (of each cell); or "
        "variants, the changes of the hybrid that were compared",
    )
    study.add_argument("--seeds", type=int, default=5, help="seeds of each arm")
    study.add_argument(
        "--workers", type=int, default=1, help="processes, each with one core"
    )
    _add_data_dir(study)
    study.add_argument(
        "--output",
        type=Path,
        default=Path("study-results"),
        help="folder of the records and the report; a killed study goes on "
        "from it",
    )
    report = commands.add_parser(
        "report",
        help="make the report from a folder of records, or of a search, again",
    )
    report.add_argument("folder", type=Path, help="folder of the records")
    packing.add_to(commands)
    return parser


def _add_cell(parser: argparse.ArgumentParser, architecture: str) -> None:
    """Adds what says on what to train."""
    parser.add_argument(
        "--dataset",
        default="mnist-5k",
        help="mnist-5k (embedded), mnist, fashion_mnist, cifar10, imagenet2012 "
        "or the folder of a prepared TFDS data set",
    )
    parser.add_argument(
        "--architecture",
        default=architecture,
        help="linear, mlp_small, mlp, mlp_large, cnn_tiny, cnn_small, cnn, "
        "cnn_large, cnn_best, resnet_small, resnet or resnet_best",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="seeds of each arm or trial"
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, help="images an update"
    )
    _add_data_dir(parser)


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir",
        default=None,
        help="TFDS's folder of prepared data sets (default: TFDS_DATA_DIR)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        if options.command == "compare":
            _compare(options)
        elif options.command == "tune":
            _tune(options, given)
        elif options.command == "study":
            _study(options, given)
        elif options.command == "pack":
            packing.run(options, given)
        else:
            _report(options.folder)
    except ValueError as error:
        sys.stderr.write(f"keras-hybrid: {error}\n")
        return 2
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"keras-hybrid: {error}: pip install 'keras-hybrid[all]'\n"
        )
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nkeras-hybrid: interrupted; the same command goes on from here\n"
        )
        return 130
    return 0


def _progress(unit: str) -> Any:
    """A bar with the time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(),
    )


def _compare(options: argparse.Namespace) -> None:
    from keras_hybrid.study import protocol

    names = _names(options.arms, {})
    with _progress("epochs") as bar:
        task = bar.add_task("loading", total=None)

        def tell(progress: protocol.Progress) -> None:
            bar.update(
                task,
                description=f"{progress.arm}, seed {progress.seed}",
                completed=progress.done,
                total=progress.total,
            )
            run = progress.run
            if run is None:
                return
            result = (
                "diverged"
                if run.test_accuracy is None
                else f"test accuracy {run.test_accuracy:.2%}"
            )
            where = (
                ""
                if run.switch_step is None
                else f", switch at update {run.switch_step}"
            )
            bar.console.print(f"{run.arm}, seed {run.seed}: {result}{where}")

        protocol.compare(
            dataset=options.dataset,
            architecture=options.architecture,
            epochs=options.epochs,
            seeds=options.seeds,
            arms=names,
            output=options.output,
            data_dir=options.data_dir,
            batch_size=options.batch_size,
            report=tell,
        )
    _report(options.output)


def _names(text: str, groups: dict[str, list[str]]) -> list[str]:
    """Names separated by commas, or those of a group."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return groups[text] if text in groups else names


def _study(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    from rich.console import Console

    from keras_hybrid._support import checks, processes
    from keras_hybrid.study import arms, campaign, cells

    checks.integer("workers", options.workers, low=1)
    plan = campaign.Plan(
        cells=_names(options.cells, {"all": list(cells.CELLS)}),
        arms=None
        if options.arms == "all"
        else _names(options.arms, {"variants": list(arms.VARIANTS)}),
        seeds=options.seeds,
        output=options.output,
        data_dir=options.data_dir,
    )
    plan.check()
    if processes.is_copy():
        processes.die_with_parent()
        campaign.run(plan)
        return
    with _progress("runs") as bar:
        task = bar.add_task("study", total=plan.least_runs())

        def look() -> None:
            bar.update(task, completed=plan.finished_runs())

        processes.run_copies(
            processes.own_command(arguments), options.workers, look
        )
        look()
    waiting = plan.waiting()
    if waiting:
        Console().print(
            f"Another process works in {options.output}: {waiting} runs are "
            "left to it. The same command, once it has ended, trains what it "
            "left and writes the report.",
            soft_wrap=True,
            markup=False,
        )
    else:
        _report(options.output)


def _tune(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    from rich.console import Console

    from keras_hybrid._support import checks, processes
    from keras_hybrid.study import search
    from keras_hybrid.tuning import record

    checks.integer("workers", options.workers, low=1)
    cell = search.Cell(
        dataset=options.dataset,
        architecture=options.architecture,
        train_size=options.train_size,
        epochs=options.epochs,
        batch_size=options.batch_size,
        seeds=options.seeds,
        space=options.space,
        oracle=options.tuner,
        max_trials=options.max_trials,
        prune=options.prune,
    )
    cell.check()
    if processes.is_member():
        processes.die_with_parent()
        prepared = search.prepare(cell, options.directory, options.data_dir)
        _search(prepared)
        return
    folder = options.directory / cell.name
    with _progress("trainings") as bar:
        task = bar.add_task("loading", total=None)

        def tell(progress: Any) -> None:
            bar.update(
                task,
                description=f"trial {progress.trial}, seed {progress.seed}, "
                f"epoch {progress.epoch}/{progress.epochs}, snapshots "
                f"{progress.snapshot_bytes / 1e6:.0f} MB",
                completed=progress.finished,
                total=None
                if progress.total is None
                else progress.total + len(record.REFERENCES) * cell.seeds,
            )

        def look() -> None:
            if (folder / "search.json").exists():
                finished = sum(len(t.runs) for t in record.load(folder).trials)
                bar.update(
                    task,
                    description=f"{options.workers} workers",
                    completed=finished,
                )

        if options.workers > 1:
            processes.run(
                processes.own_command(arguments),
                options.workers,
                folder,
                watch=look,
            )
        prepared = search.prepare(
            cell, options.directory, options.data_dir, tell
        )
        _search(prepared)
        recipe = search.finish(cell, prepared)
    _report_search(folder)
    console = Console()
    found = record.load(folder).found
    if found.name in record.REFERENCES:
        label = record.REFERENCES[found.name]
        console.print(f"No trial did better than: {label}. The recipe is that.")
    console.print(f"Found: {recipe.plan}", soft_wrap=True)
    console.print(f"Recipe: {folder / 'recipe.json'}", soft_wrap=True)


def _search(prepared: Any) -> None:
    try:
        prepared.tuner.search(**prepared.arguments)
    except RuntimeError as error:  # KerasTuner's, when trainings fail.
        raise ValueError(
            f"the search has ended: {error}\nFinished trials are kept; the "
            "same command goes on."
        ) from error


def _report_search(folder: Path) -> None:
    from rich.console import Console

    from keras_hybrid.recipes import Recipe
    from keras_hybrid.reports import search
    from keras_hybrid.tuning import record

    console = Console()
    found = record.load(folder)
    path = folder / "recipe.json"
    recipe = Recipe.load(path) if path.exists() else None
    search.print_table(found, console)
    page = folder / "search.html"
    search.write_html(found, page, recipe)
    console.print(f"Report: {page.resolve().as_uri()}", soft_wrap=True)


def _report(folder: Path) -> None:
    if (folder / "search.json").exists():
        _report_search(folder)
        return
    from rich.console import Console

    from keras_hybrid.reports import study

    console = Console()
    runs, warnings = study.load_runs(folder)
    traces, damaged = study.load_traces(folder)
    warnings += damaged
    for warning in warnings:
        console.print(f"warning: {warning}", markup=False)
    study.print_table(study.summary(runs), console)
    page = folder / "report.html"
    study.write_html(runs, page, warnings, traces)
    study.write_markdown(runs, folder / "report.md", warnings)
    console.print(f"Report: {page.resolve().as_uri()}", soft_wrap=True)
    command = shlex.join(["keras-hybrid", "report", str(folder)])
    console.print(f"Again from the records: {command}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
