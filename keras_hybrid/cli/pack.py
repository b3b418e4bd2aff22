"""keras-hybrid pack: a folder's records into tables, and back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from keras_hybrid._support import records
from keras_hybrid.cli import options


def add_to(commands: options.Commands) -> None:
    """Adds the command's parser."""
    parser = commands.add_parser(
        "pack",
        help="put the records of a folder into tables that pandas opens; every "
        "command goes on from them",
    )
    parser.set_defaults(run=run)
    parser.add_argument("folder", type=Path, help="folder of the tables")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--source",
        type=Path,
        default=None,
        help="another folder of records to add, which is left as it is",
    )
    which.add_argument(
        "--undo",
        action="store_true",
        help="make files of the tables again",
    )


def run(given: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Packs a folder, or takes its tables apart."""
    from rich.console import Console

    console = Console(soft_wrap=True, markup=False)
    if given.undo:
        unpacked = records.unpack(given.folder)
        for name in unpacked.beside:
            console.print(f"another file was there; the table's: {name}")
        console.print(f"{unpacked.files} files")
        return
    packed = records.pack(given.folder, given.source)
    for name in packed.left:
        console.print(f"left as it is: {name}")
    for table, count in packed.tables.items():
        path = given.folder / f"{table}.parquet"
        console.print(f'{count} rows: pandas.read_parquet("{path}")')
    console.print(f"{packed.added} records added")
