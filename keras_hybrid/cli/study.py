"""keras-hybrid study: all arms in all cells, each tuned."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from keras_hybrid.cli import options, report


def add_to(commands: options.Commands) -> None:
    """Adds the command's parser."""
    parser = options.add_command(
        commands,
        "study",
        run,
        "train all arms in all cells, each tuned; table and report",
    )
    parser.add_argument(
        "--cells",
        default="all",
        help="names of cells, separated by commas, such as mnist-good-fit; or "
        "all, the nine of the study, which leaves out those that are untuned "
        "(mnist-best; cifar10-best, -regularized, -long and -longer) and those "
        "where epochs are a ceiling (mnist-good-fit-ceiling, and with the "
        "libraries' own learning rates mnist-good-fit-defaults; of each cell, "
        "of mnist-noisy and of words-good-fit)",
    )
    parser.add_argument(
        "--arms",
        default="all",
        help="names of arms, separated by commas; all (of each cell); or "
        "variants, the changes of the hybrid that were compared",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=5,
        help="seeds of each arm (of cifar10-good-fit's at most 3)",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes, each with one core"
    )
    options.add_data_dir(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("study-results"),
        help="folder of the records and the report; a killed study goes on "
        "from it",
    )


def run(given: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Trains the runs that are left, in processes, then reports."""
    from rich.console import Console

    from keras_hybrid._support import checks, processes
    from keras_hybrid.study import arms, campaign, cells

    checks.integer("workers", given.workers, low=1)
    plan = campaign.Plan(
        cells=options.names(given.cells, {"all": list(cells.CELLS)}),
        arms=None
        if given.arms == "all"
        else options.names(given.arms, {"variants": list(arms.VARIANTS)}),
        seeds=given.seeds,
        output=given.output,
        data_dir=given.data_dir,
    )
    plan.check()
    if processes.is_copy():
        processes.die_with_parent()
        campaign.run(plan)
        return
    with options.bar("runs") as bar:
        task = bar.add_task("study", total=plan.least_runs())

        def look() -> None:
            bar.update(task, completed=plan.finished_runs())

        processes.run_copies(
            processes.own_command(arguments), given.workers, look
        )
        look()
    waiting = plan.waiting()
    if waiting:
        Console(markup=False).print(
            f"Another process works in {given.output}: {waiting} runs are "
            "left to it. The same command, once it has ended, trains what it "
            "left and writes the report.",
            soft_wrap=True,
        )
    else:
        report.report(given.output)
