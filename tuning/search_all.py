"""Searches the cells of the study; their recipes are in this folder.

    python tuning/search_all.py [NAME ...]

The record of each search is in results/tune/NAME (a killed search goes on
from it), its recipe is copied to tuning/NAME.json. The data sets come through
TFDS (TFDS_DATA_DIR). The records there are of version 0.1.0, whose scale was
another: to search anew, move them away first.
"""

import shutil
import sys
from pathlib import Path

from keras_hybrid.study.search import Cell, finish, prepare
from keras_hybrid.tuner import Progress

ROOT = Path(__file__).resolve().parent.parent
# One good-fit, under-fit and over-fit cell a data set: a net of the right
# size, one that is too small, and one too large for so few images.
CELLS = [
    cell._replace(space="rate")
    for cell in (
        Cell("mnist-5k", "cnn"),
        Cell("mnist-5k", "mlp_small"),
        Cell("mnist", "mlp", train_size=2000),
        Cell("fashion_mnist", "mlp", train_size=2000),
        Cell("mnist", "mlp_small", epochs=10, batch_size=128),
        Cell("fashion_mnist", "mlp_small", epochs=10, batch_size=128),
        Cell("cifar10", "cnn", train_size=5000),
        Cell("mnist", "cnn", epochs=10, batch_size=128),
        Cell("fashion_mnist", "cnn", epochs=10, batch_size=128),
        Cell("cifar10", "cnn", epochs=10, batch_size=128),
    )
]


def search(cell: Cell) -> None:
    """Runs or goes on with one search and copies its recipe here."""

    def tell(progress: Progress) -> None:
        print(
            f"\r{cell.name}: trial {progress.trial}, seed {progress.seed}, "
            f"epoch {progress.epoch}/{progress.epochs}, "
            f"{progress.finished} trainings finished ",
            end="",
            flush=True,
        )

    prepared = prepare(cell, ROOT / "results" / "tune", report=tell)
    prepared.tuner.search(**prepared.arguments)
    recipe = finish(cell, prepared)
    path = prepared.tuner.folder / "recipe.json"
    shutil.copy(path, ROOT / "tuning" / f"{cell.name}.json")
    print(f"\n{cell.name}: {recipe.plan}", flush=True)


def main() -> None:
    """Runs the searches that are named, or all."""
    for cell in CELLS:
        if not sys.argv[1:] or cell.name in sys.argv[1:]:
            search(cell)


if __name__ == "__main__":
    main()
