"""keras-hybrid compare: what people do, TrainUntilDone, and its control."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_hybrid.cli import options, report
from keras_hybrid.study.arms import DEFAULT_ARMS


def add_to(commands: options.Commands) -> None:
    """Adds the command's parser."""
    parser = options.add_command(
        commands,
        "compare",
        run,
        "train what people do, TrainUntilDone and its control; table and "
        "report",
    )
    options.add_cell(parser, architecture="mlp")
    parser.add_argument(
        "--arms",
        default=",".join(DEFAULT_ARMS),
        help="names of arms, separated by commas; also a switch at half of the "
        "epochs: hybrid, and its control; that with other estimates of the "
        "SGD learning rate: hybrid_norm, hybrid_swats, hybrid_model; and the "
        "published methods: "
        "swats, swats_layer, gnmt, rmsprop_warmup, adabound, amsbound, "
        "dstadam, padam, mas, grafted",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=30,
        help="budget of each run; a ceiling for those that end themselves",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("compare-results"),
        help="folder of the records and the report; a killed comparison goes "
        "on from it",
    )


def run(given: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Trains the arms that are left, then reports."""
    from keras_hybrid.study import protocol

    with options.bar("epochs") as bar:
        task = bar.add_task("loading", total=None)

        def tell(progress: protocol.Progress) -> None:
            bar.update(
                task,
                description=f"{progress.arm}, seed {progress.seed}",
                completed=progress.done,
                total=progress.total,
            )
            if progress.run is not None:
                bar.console.print(_line(progress.run))

        protocol.compare(
            dataset=given.dataset,
            architecture=given.architecture,
            epochs=given.epochs,
            seeds=given.seeds,
            arms=options.names(given.arms, {}),
            output=given.output,
            data_dir=given.data_dir,
            batch_size=given.batch_size,
            report=tell,
        )
    report.report(given.output)


def _line(run: Any) -> str:
    """What a finished run gave."""
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
    return f"{run.arm}, seed {run.seed}: {result}{where}"
