"""Cells of the study: a data set and an architecture in one regime."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from keras_hybrid.study import datasets
from keras_hybrid.study.arms import DEFAULT_ARMS
from keras_hybrid.study.text import Text

REGIMES = ("under-fit", "good-fit", "over-fit")


class Cell(NamedTuple):
    """What one comparison of the study holds fixed.

    Attributes:
        dataset: Name of a data set (`datasets.load`). Of "words" an image is a
            window of the text, and a label each word's next.
        regime: One of `REGIMES`; beyond them "best", as accurate as is cheap,
            "regularized", the same with Cutout and smoothed labels, "long",
            that with more epochs, and "longer", with yet more, a larger square
            and a net that learns faster; "noisy", with wrong labels; and each
            with "-ceiling" or "-defaults", where epochs are a ceiling.
        architecture: Name of an architecture (`architectures.build`).
        train_size: Number of training images, None for all.
        epochs: The full budget of a run.
        batch_size: Images an update.
        augmented: Whether training images are cropped and flipped at random
            (digits are not flipped).
        cutout: Side in pixels of the square that a training image loses.
        label_smoothing: Share of a label's weight spread over all classes.
        precision: Keras' dtype policy.
        untuned: None, and each arm's learning rate is tuned; or, where that
            would take days, a factor on the arms' usual ones.
        arms: What `all` stands for here, None for every arm.
        most_seeds: More are not trained; None for no limit.
        label_noise: Share of the training labels that are drawn at random.
    """

    dataset: str
    regime: str
    architecture: str
    train_size: int | None
    epochs: int
    batch_size: int
    augmented: bool = False
    cutout: int = 0
    label_smoothing: float = 0.0
    precision: str = "float32"
    untuned: float | None = None
    arms: tuple[str, ...] | None = None
    most_seeds: int | None = None
    label_noise: float = 0.0

    @property
    def name(self) -> str:
        """Short name, for folders and the command line."""
        return f"{self.dataset}-{self.regime}"

    def load(self, data_dir: str | None = None) -> datasets.AnyData:
        """Loads the data of the cell (see `datasets.load`)."""
        data = datasets.load(self.dataset, data_dir, self.train_size)
        data = datasets.with_noise(data, self.label_noise)
        if isinstance(data, Text):
            return data
        return dataclasses.replace(
            data, augmented=self.augmented, cutout=self.cutout
        )


def _cells() -> dict[str, Cell]:
    """Small models for under-fit, few images for over-fit: cheap by design."""
    cells = []
    for dataset in ("mnist", "fashion_mnist"):
        cells += [
            Cell(dataset, "under-fit", "mlp_small", None, 10, 128),
            Cell(dataset, "good-fit", "cnn_small", None, 8, 128),
            Cell(dataset, "over-fit", "mlp_large", 2000, 30, 64),
        ]
    # The precision halves the time of a step where the CPU computes in it. A
    # run takes some four minutes of a core: arms for which tuning is paid.
    resnet = Cell(
        *("cifar10", "good-fit", "resnet_small", None, 10, 256),
        augmented=True,
        precision="mixed_bfloat16",
        arms=("control", "hybrid", "adamw", "sgd"),
        most_seeds=3,
    )
    cells += [
        resnet,
        Cell("cifar10", "under-fit", "cnn_tiny", 15000, 15, 128),
        Cell("cifar10", "over-fit", "cnn_large", 4000, 20, 64),
    ]
    return {cell.name: cell for cell in cells}


# The nine of the study.
CELLS = _cells()
_REGULARIZED = Cell(
    *("cifar10", "regularized", "resnet", None, 32, 256),
    augmented=True,
    cutout=8,
    label_smoothing=0.1,
    precision="mixed_bfloat16",
    untuned=2.0,
    arms=("control_decay8", "decay8"),
)
_LONG = _REGULARIZED._replace(
    regime="long", epochs=48, arms=("control_decay8_at20", "decay8_at20")
)
# Where epochs are a ceiling: the nine, one with wrong labels, and one of words.
NOISY = Cell("mnist", "noisy", "mlp_large", 20000, 20, 128, label_noise=0.3)
WORDS = Cell("words", "good-fit", "transformer_small", None, 8, 16)
CEILINGS = {**CELLS, NOISY.name: NOISY, WORDS.name: WORDS}
# Beyond them: how far it goes on MNIST and CIFAR-10.
BEST = (
    Cell(
        *("mnist", "best", "cnn_best", None, 20, 128),
        augmented=True,
        untuned=1.0,
        arms=("control", "hybrid"),
    ),
    Cell(
        *("cifar10", "best", "resnet", None, 32, 256),
        augmented=True,
        precision="mixed_bfloat16",
        untuned=2.0,
        arms=("control", "hybrid"),
    ),
    _REGULARIZED,
    _LONG,
    _LONG._replace(
        regime="longer", architecture="resnet_best", epochs=56, cutout=12
    ),
)


def _with_ceiling(cell: Cell, untuned: float | None) -> Cell:
    """A cell for arms that end themselves: twice what the cosine gets."""
    kind = "ceiling" if untuned is None else "defaults"
    return cell._replace(
        regime=f"{cell.regime}-{kind}",
        epochs=2 * cell.epochs,
        untuned=untuned,
        arms=DEFAULT_ARMS,
    )


# Each arm's learning rate tuned, and as the libraries have them.
UNTIL_DONE = [
    _with_ceiling(cell, untuned)
    for untuned in (1.0, None)
    for cell in CEILINGS.values()
]
KNOWN = {
    **CEILINGS,
    **{cell.name: cell for cell in (*BEST, *UNTIL_DONE)},
}
