"""Recipes: the plan that a search found, with its score, in a JSON file."""

from __future__ import annotations

import dataclasses
import json
import os
import site
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_hybrid._support import checks, files
from keras_hybrid.plans import Plan
from keras_hybrid.triggers import AtStep

__all__ = ["SHIPPED", "Plan", "Recipe", "serialized_arguments"]

FORMAT = 1
# Where the recipes that come with the library are: in a source tree, and where
# an installed wheel puts them. That is not always `sys.prefix`: Debian's Python
# has /usr for it and installs into /usr/local, and --user into a home.
SHIPPED = (
    Path(__file__).resolve().parent.parent / "tuning",
    *(
        Path(base) / "share" / "keras_hybrid" / "tuning"
        for base in (sysconfig.get_path("data"), site.getuserbase())
    ),
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a search found, and what it cost.

    Attributes:
        name: Of the search, e.g. "mnist-cnn".
        dataset: Name of the data set, or None for data of the user's own.
        architecture: Likewise of the model.
        plan: The transition.
        optimizer: The optimizer's other arguments, serialized.
        hyperparameters: The user's own hyperparameters, as found.
        budget: "epochs", "steps_per_epoch", "batch_size".
        score: "objective", "direction", "mean", "std" (over the seeds, with
            n - 1; None for one seed), "values" (one a seed), "seeds".
        search: "tuner", "trials", "epochs_trained", "epochs_unshared" (what
            the same trials cost without sharing and stopping), "seconds",
            "references" (the scores of what the recipe was compared with).
        versions: Of the packages.
    """

    name: str
    dataset: str | None
    architecture: str | None
    plan: Plan
    optimizer: Mapping[str, Any]
    hyperparameters: Mapping[str, Any]
    budget: Mapping[str, int]
    score: Mapping[str, Any]
    search: Mapping[str, Any]
    versions: Mapping[str, str]

    def save(self, path: Path | str) -> Path:
        """Writes the recipe as JSON; a kill leaves the old file or the new."""
        path = Path(path)
        fields = dataclasses.asdict(self)
        fields["plan"] = self.plan.to_dict()
        files.write_json(path, {"format": FORMAT, **fields})
        return path

    @classmethod
    def load(cls, recipe: Any) -> Recipe:
        """Reads a recipe from a file, or one that comes with the library.

        Args:
            recipe: A path (it ends in .json), or a name such as "mnist-cnn".

        Raises:
            ValueError: If there is no such recipe, or the file is none.
        """
        path = _located(recipe)
        content = files.read_json(path, FORMAT, "recipe")
        names = {field.name for field in dataclasses.fields(cls)}
        files.check_fields(path, content, names)
        for name in ("plan", "optimizer", "budget", "score", "search"):
            if not isinstance(content[name], dict):
                raise ValueError(f"{path}: {name} is no mapping")
        try:
            for name in ("epochs", "steps_per_epoch"):
                length = content["budget"].get(name)
                checks.integer(f"budget.{name}", length, low=1)
            plan = Plan.from_dict(content.pop("plan"))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        return cls(plan=plan, **content)

    @classmethod
    def of(cls, recipe: Any) -> Recipe:
        """Returns a recipe as it is, or loads it."""
        return recipe if isinstance(recipe, cls) else cls.load(recipe)

    def steps(self, epochs: int | None, steps_per_epoch: int | None) -> int:
        """Updates of the training: as given, or as in the search."""
        if (epochs is None) != (steps_per_epoch is None):
            raise ValueError(
                "`epochs` and `steps_per_epoch` come together, or both are "
                f"left out for the recipe's own. Received: epochs={epochs!r}, "
                f"steps_per_epoch={steps_per_epoch!r}"
            )
        if epochs is None:
            return int(self.budget["epochs"] * self.budget["steps_per_epoch"])
        return checks.integer("epochs", epochs, low=1) * checks.integer(
            "steps_per_epoch", steps_per_epoch, low=1
        )

    def optimizer_arguments(
        self, epochs: int | None, steps_per_epoch: int | None
    ) -> dict[str, Any]:
        """Arguments of HybridOptimizer; a fixed switch is an `AtStep`."""
        steps = self.steps(epochs, steps_per_epoch)
        arguments = self.plan.optimizer_arguments(steps)
        whole = epochs or self.budget["epochs"]
        switch_epoch = self.plan.switch_epoch(whole)
        # A fraction of 1 never switches, however long it goes on.
        if switch_epoch is not None and self.plan.fraction != 1:
            arguments["trigger"] = AtStep(switch_epoch * (steps // whole))
        return {**self.optimizer, **arguments}


def _located(recipe: Any) -> Path:
    if not isinstance(recipe, (str, os.PathLike)):
        raise TypeError(
            f"`recipe` must be a path or a name. Received: recipe={recipe!r}"
        )
    if str(recipe).endswith(".json"):
        return Path(recipe)
    for folder in SHIPPED:
        path = folder / f"{recipe}.json"
        if path.is_file():
            return path
    known = sorted(
        {p.stem for folder in SHIPPED for p in folder.glob("*.json")}
    )
    raise ValueError(
        "`recipe` must be the path of a .json file, or one of "
        f"{', '.join(known) or '(none found)'}. Received: recipe={recipe!r}"
    )


def serialized_arguments(optimizer: Any, leave_out: set[str]) -> dict[str, Any]:
    """Constructor arguments as JSON, but for the name and `leave_out`."""
    config = optimizer.get_config()
    kept = {k: v for k, v in config.items() if k not in {"name", *leave_out}}
    plain = keras.saving.serialize_keras_object(kept)
    return json.loads(json.dumps(plain))
