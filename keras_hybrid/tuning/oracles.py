"""KerasTuner's oracles as ForkedTuner uses them."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras_tuner

from keras_hybrid._support import checks, files

ORACLES = ("grid", "random", "bayesian", "hyperband")


class ResumableGrid(keras_tuner.oracles.GridSearchOracle):
    """Keras Tuner's grid forgets where it was (keras-tuner #1055)."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes the state back, and rebuilds the order of the trials."""
        super().set_state(state)
        self._ordered_ids: Any = type(self._ordered_ids)()
        by_values = functools.cmp_to_key(
            lambda a, b: self._compare(
                self.trials[a].hyperparameters.values,
                self.trials[b].hyperparameters.values,
            )
        )
        ids = sorted(self.start_order, key=by_values)
        for trial_id in ids:
            self._ordered_ids.insert(trial_id)
        # Those whose next combination has been tried are skipped.
        self._populate_next = ids


def given(
    oracle: Any, objective: Any, max_trials: int | None, epochs: int | None
) -> Any:
    """Returns the oracle that a search was given, or makes it by its name.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the name is unknown, or a limit is missing or has no
            place.
    """
    if max_trials is not None:
        checks.integer("max_trials", max_trials, low=1)
    if not isinstance(objective, (str, keras_tuner.Objective, type(None))):
        raise TypeError(
            "`objective` must be the name of a metric or a "
            f"keras_tuner.Objective. Received: objective={objective!r}"
        )
    if isinstance(oracle, str):
        objective = "val_accuracy" if objective is None else objective
        oracle = make(oracle, objective, max_trials, epochs)
    else:
        _refuse_its_own(
            oracle,
            max_trials=max_trials,
            max_epochs=epochs,
            objective=objective,
        )
    save_whole(oracle)
    return oracle


def _refuse_its_own(oracle: Any, **arguments: Any) -> None:
    """Refuses what an oracle object was given when it was made."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"`{name}` is an argument of the oracle you give. Received: "
                f"{name}={value!r}, oracle={type(oracle).__name__}"
            )


def make(
    name: str, objective: Any, max_trials: int | None, epochs: int | None
) -> Any:
    """Makes an oracle by its name.

    Raises:
        ValueError: If the name is unknown, or a limit is missing or has no
            place.
    """
    checks.choice("oracle", name, ORACLES)
    # A retry of a trial whose report was lost reads its records again.
    common = {"objective": objective, "seed": 1, "max_retries_per_trial": 2}
    if name == "grid":
        return ResumableGrid(max_trials=max_trials, **common)
    if name == "hyperband":
        if epochs is None:
            raise ValueError(
                "`max_epochs` must be given for the oracle 'hyperband'. "
                "Received: max_epochs=None"
            )
        if max_trials is not None:
            raise ValueError(
                "`max_trials` has no place with the oracle 'hyperband', whose "
                f"trials follow from `max_epochs`. Received: {max_trials=}"
            )
        # In one epoch there is no time for a switch.
        checks.integer("max_epochs", epochs, low=2)
        hyperband = keras_tuner.oracles.HyperbandOracle(
            max_epochs=epochs, **common
        )
        hyperband.min_epochs = 2
        return hyperband
    kind = {
        "random": keras_tuner.oracles.RandomSearchOracle,
        "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
    }[name]
    return kind(max_trials=max_trials or 10, **common)


def save_whole(oracle: Any) -> None:
    """Lets an oracle replace its files as a whole.

    KerasTuner writes them in place: a kill inside the writing leaves an empty
    file, and a search that cannot go on.
    """
    oracle.save = functools.partial(_save, oracle)
    oracle._save_trial = functools.partial(_save_trial, oracle)


def _save(oracle: Any) -> None:
    write_state(oracle._get_oracle_fname(), oracle)


def _save_trial(oracle: Any, trial: Any) -> None:
    folder = Path(oracle._get_trial_dir(trial.trial_id))
    write_state(folder / "trial.json", trial)


def write_state(path: str | Path, part: Any) -> None:
    """Writes the state of a part of KerasTuner as it does, but at once."""
    with files.atomically(Path(path)) as partial:
        partial.write_text(json.dumps(part.get_state()), encoding="utf-8")


def check_size(kind: str, oracle: Any, max_trials: int | None) -> None:
    """Refuses a grid without end, and a Hyperband without trials."""
    space = oracle.get_space().space
    sizes = [len(list(getattr(p, "values", range(10)))) for p in space]
    combinations = math.prod(sizes)
    if kind == "grid" and max_trials is None and combinations > 1000:
        raise ValueError(
            f"A grid of up to {combinations} trials: give `max_trials`, a "
            "smaller `space` (e.g. 'when' or 'rate') or another `oracle`. "
            "Received: oracle='grid', max_trials=None"
        )
    if kind != "hyperband":
        return
    wanted = oracle._get_size(oracle._get_num_brackets() - 1, 0)
    if combinations < wanted and all(hasattr(p, "values") for p in space):
        raise ValueError(
            f"Hyperband starts with {wanted} different trials, and the "
            f"space has {combinations}: give a larger `space` or another "
            "`oracle`. Received: oracle='hyperband'"
        )


def check_open(space: Sequence[Any], given: Any) -> None:
    """Refuses a space in which nothing is to be chosen."""
    values = [getattr(parameter, "values", None) for parameter in space]
    if all(v is not None and len(list(v)) < 2 for v in values):
        raise ValueError(
            "There is nothing to search: every field of the space has one "
            "value, and the model has no hyperparameters. Received: "
            f"space={given!r}"
        )


@contextlib.contextmanager
def quietly(folder: Path) -> Iterator[None]:
    """Lets KerasTuner read its files in silence, and names damaged ones.

    Raises:
        ValueError: If a file in the folder of the search is damaged.
    """
    try:
        # KerasTuner prints which file it reads.
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except json.JSONDecodeError as error:
        raise ValueError(
            f"`directory` holds a damaged file of KerasTuner's: {error}. "
            "Restore it, or begin anew with overwrite=True. Received: "
            f"{', '.join(_damaged(folder))}"
        ) from error


def _damaged(folder: Path) -> list[str]:
    """The JSON files of a search that are none."""
    damaged = []
    for path in sorted(
        [*folder.glob("*.json"), *folder.glob("trial_*/*.json")]
    ):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            damaged.append(str(path))
    return damaged
