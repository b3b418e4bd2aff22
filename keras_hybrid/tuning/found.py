"""The recipe of a search: what its record says was found."""

from __future__ import annotations

from typing import Any

from keras_hybrid import recipes
from keras_hybrid._support import checks
from keras_hybrid._support.versions import versions
from keras_hybrid.recipes import Recipe
from keras_hybrid.tuning.record import Search, Trial


def recipe_of(
    search: Search,
    optimizer: Any,
    name: str,
    dataset: str | None,
    architecture: str | None,
) -> Recipe:
    """Returns the recipe of the trial or reference that is best.

    Args:
        search: The record.
        optimizer: The HybridOptimizer of the best trial's model.
        name: Name of the recipe.
        dataset: Name of the data set, for people.
        architecture: Likewise of the model.

    Raises:
        ValueError: If no trial has finished.
    """
    best = search.found
    objective = search.objective
    return Recipe(
        name=checks.text("name", name),
        dataset=dataset,
        architecture=architecture,
        plan=best.plan,
        optimizer=recipes.serialized_arguments(
            optimizer, set(best.plan.optimizer_arguments(1))
        ),
        hyperparameters=dict(best.hyperparameters),
        budget={
            "epochs": best.epochs,
            "steps_per_epoch": best.runs[0].steps_per_epoch,
            "batch_size": search.settings["batch_size"],
        },
        score={
            "objective": objective,
            "direction": search.settings["direction"],
            **_score(best, objective),
            "seeds": [run.seed for run in best.runs],
        },
        search={
            "tuner": search.settings["tuner"],
            "prune": search.settings["prune"],
            "trials": len(search.trials),
            "epochs_trained": search.epochs_trained,
            "epochs_unshared": search.epochs_unshared,
            "seconds": round(search.seconds, 1),
            "references": {
                key: _score(trial, objective)
                for key, trial in search.references.items()
            },
        },
        versions=versions(),
    )


def _score(trial: Trial, objective: str) -> dict[str, Any]:
    return {
        "mean": trial.mean(objective),
        "std": trial.spread(objective),
        "values": trial.scores(objective),
    }
