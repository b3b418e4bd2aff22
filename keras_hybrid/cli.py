"""The command line: keras-hybrid compare | report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-hybrid",
        description="Train with Adam first and SGD after, and compare.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser(
        "compare",
        help="train Adam, SGD, the hybrid and its control; table and report",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    compare.add_argument(
        "--dataset",
        default="mnist-5k",
        help="mnist-5k (embedded), mnist, fashion_mnist or cifar10",
    )
    compare.add_argument(
        "--architecture", default="cnn", help="linear, mlp or cnn"
    )
    compare.add_argument(
        "--arms",
        default="adam,sgd,control,hybrid",
        help="names of arms, separated by commas; also other estimates of the "
        "SGD learning rate: hybrid_norm, hybrid_swats, hybrid_model; and the "
        "published methods: "
        "swats, swats_layer, gnmt, rmsprop_warmup, adabound, amsbound, "
        "dstadam, padam, mas, grafted",
    )
    compare.add_argument(
        "--epochs", type=int, default=8, help="budget of each run"
    )
    compare.add_argument(
        "--seeds", type=int, default=3, help="seeds of each arm"
    )
    compare.add_argument(
        "--batch-size", type=int, default=64, help="images an update"
    )
    compare.add_argument(
        "--data-dir",
        default=None,
        help="TFDS's folder of prepared data sets (default: TFDS_DATA_DIR)",
    )
    compare.add_argument(
        "--output",
        type=Path,
        default=Path("compare-results"),
        help="folder of the records and the report; a killed comparison goes "
        "on from it",
    )
    report = commands.add_parser(
        "report", help="make the report from a folder of records again"
    )
    report.add_argument("folder", type=Path, help="folder of the records")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "compare":
            _compare(options)
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


def _compare(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from keras_hybrid.study import protocol

    console = Console()
    names = [name.strip() for name in options.arms.split(",") if name.strip()]
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
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


def _report(folder: Path) -> None:
    from rich.console import Console

    from keras_hybrid.study import report

    console = Console()
    runs, warnings = report.load_runs(folder)
    for warning in warnings:
        console.print(f"skipped: {warning}", markup=False)
    report.print_table(report.summary(runs), console)
    page = folder / "report.html"
    report.write_html(runs, page, warnings)
    report.write_markdown(runs, folder / "report.md")
    console.print(f"Report: {page.resolve().as_uri()}", soft_wrap=True)
    command = shlex.join(["keras-hybrid", "report", str(folder)])
    console.print(f"Again from the records: {command}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
