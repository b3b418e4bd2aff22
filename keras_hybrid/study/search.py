"""A search on one of the study's data sets and architectures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_hybrid._support import checks
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.recipes import Recipe
from keras_hybrid.study import architectures, datasets
from keras_hybrid.tuner import (
    ORACLES,
    SPACES,
    ForkedTuner,
    HybridHyperModel,
    Progress,
)


class Cell(NamedTuple):
    """What is searched, and with what effort.

    Attributes:
        dataset: Name of a data set (`datasets.load`).
        architecture: Name of an architecture (`architectures.build`).
        train_size: Number of training images, None for all.
        epochs: Budget of a trial.
        batch_size: Images an update.
        seeds: Trainings a trial.
        space: One of `tuner.SPACES`.
        oracle: One of `tuner.ORACLES`.
        max_trials: None: all of the grid, else 10.
        prune: Whether hopeless trials are stopped.
    """

    dataset: str = "mnist-5k"
    architecture: str = "cnn"
    train_size: int | None = None
    epochs: int = 20
    batch_size: int = 64
    seeds: int = 3
    space: str = "when"
    oracle: str = "grid"
    max_trials: int | None = None
    prune: bool = False

    @property
    def name(self) -> str:
        """Name of the recipe, e.g. "mnist-cnn" or "mnist-mlp-2000"."""
        size = "" if self.train_size is None else f"-{self.train_size}"
        name = datasets.short_name(self.dataset)
        return f"{name}-{self.architecture}{size}"

    def check(self) -> None:
        """Raises ValueError or TypeError if a field is out of range."""
        datasets.check(self.dataset)
        checks.choice(
            "architecture", self.architecture, architectures.ARCHITECTURES
        )
        checks.choice("space", self.space, SPACES)
        checks.choice("tuner", self.oracle, ORACLES)
        checks.integer("epochs", self.epochs, low=2)
        checks.integer("batch_size", self.batch_size, low=1)
        checks.integer("seeds", self.seeds, low=1)
        checks.boolean("prune", self.prune)
        if self.max_trials is not None:
            checks.integer("max_trials", self.max_trials, low=1)


class Searched(NamedTuple):
    """A tuner and what its `search` takes."""

    tuner: ForkedTuner
    arguments: dict[str, Any]


def prepare(
    cell: Cell,
    directory: Path | str,
    data_dir: str | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Searched:
    """Makes the tuner of a cell; its record is in directory/cell.name.

    The validation split decides; the test split is not read.

    Raises:
        TypeError: If a field of the cell has the wrong type.
        ValueError: If one is out of range, the data cannot be had, or the
            directory holds another search.
    """
    cell.check()
    data = datasets.load(cell.dataset, data_dir, cell.train_size)

    def build(hp: Any) -> keras.Model:
        model = architectures.build(
            cell.architecture, data.image_shape, data.classes
        )
        model.compile(
            optimizer=HybridOptimizer(),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    def pipeline(seed: int, first_epoch: int, epochs: int) -> Any:
        return datasets.training_pipeline(
            data, cell.batch_size, seed, first_epoch, epochs
        )

    tuner = ForkedTuner(
        HybridHyperModel(build, cell.space, cell.seeds),
        oracle=cell.oracle,
        max_trials=cell.max_trials,
        max_epochs=cell.epochs if cell.oracle == "hyperband" else None,
        prune=cell.prune,
        directory=directory,
        project_name=cell.name,
        report=report,
    )
    arguments = {
        "x": pipeline,
        "epochs": cell.epochs,
        "batch_size": cell.batch_size,
        "validation_data": datasets.evaluation_pipeline(data, "validation"),
    }
    return Searched(tuner, arguments)


def finish(cell: Cell, searched: Searched) -> Recipe:
    """Trains the references and writes the recipe beside the record."""
    searched.tuner.run_references(**searched.arguments)
    recipe = searched.tuner.recipe(cell.name, cell.dataset, cell.architecture)
    recipe.save(searched.tuner.folder / "recipe.json")
    return recipe
