"""Cells of the study: a data set and an architecture in one regime."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from keras_hybrid.study import datasets

REGIMES = ("under-fit", "good-fit", "over-fit")


class Cell(NamedTuple):
    """What one comparison of the study holds fixed.

    Attributes:
        dataset: Name of a data set (`datasets.load`).
        regime: One of `REGIMES`.
        architecture: Name of an architecture (`architectures.build`).
        train_size: Number of training images, None for all.
        epochs: The full budget of a run.
        batch_size: Images an update.
        augmented: Whether training images are cropped and flipped.
        precision: Keras' dtype policy.
    """

    dataset: str
    regime: str
    architecture: str
    train_size: int | None
    epochs: int
    batch_size: int
    augmented: bool = False
    precision: str = "float32"

    @property
    def name(self) -> str:
        """Short name, for folders and the command line."""
        return f"{self.dataset}-{self.regime}"

    def load(self, data_dir: str | None = None) -> datasets.AnyData:
        """Loads the data of the cell (see `datasets.load`)."""
        data = datasets.load(self.dataset, data_dir, self.train_size)
        return dataclasses.replace(data, augmented=self.augmented)


def _cells() -> dict[str, Cell]:
    """Small models for under-fit, few images for over-fit: cheap by design."""
    cells = []
    for dataset in ("mnist", "fashion_mnist"):
        cells += [
            Cell(dataset, "under-fit", "mlp_small", None, 10, 128),
            Cell(dataset, "good-fit", "cnn_small", None, 8, 128),
            Cell(dataset, "over-fit", "mlp_large", 2000, 30, 64),
        ]
    # The precision halves the time of a step where the CPU computes in it.
    resnet = Cell(
        "cifar10", "good-fit", "resnet", None, 12, 256, True, "mixed_bfloat16"
    )
    cells += [
        resnet,
        Cell("cifar10", "under-fit", "cnn_tiny", 15000, 15, 128),
        Cell("cifar10", "over-fit", "cnn_large", 4000, 20, 64),
    ]
    return {cell.name: cell for cell in cells}


CELLS = _cells()
