"""What the commands share: options of the same meaning, and a bar.

A command is a module with two functions: `add_to` adds its parser, and `run`
gets the parsed options and the command line they came from. What a command
needs to work is imported in `run`: others do without its packages.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

Commands = Any
Run = Callable[[argparse.Namespace, Sequence[str]], None]


def add_command(
    commands: Commands, name: str, run: Run, summary: str
) -> argparse.ArgumentParser:
    """Adds the parser of a command, which shows the options' defaults."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_cell(parser: argparse.ArgumentParser, architecture: str) -> None:
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
    add_data_dir(parser)


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds where the data sets are."""
    parser.add_argument(
        "--data-dir",
        default=None,
        help="TFDS's folder of prepared data sets; None: TFDS_DATA_DIR",
    )


def names(text: str, groups: dict[str, list[str]]) -> list[str]:
    """Names separated by commas, or those of a group."""
    given = [name.strip() for name in text.split(",") if name.strip()]
    return groups[text] if text in groups else given


def bar(unit: str) -> Any:
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
        console=Console(markup=False),
    )
