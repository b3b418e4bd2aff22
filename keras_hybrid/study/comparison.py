"""What runs are compared with what: cells, arms, and configurations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from keras_hybrid.study.record import Run

ROLES = ("baseline", "control", "hybrid")
# Its name in a record's versions.
LIBRARY = "keras_hybrid"


class Cell(NamedTuple):
    """What one comparison holds fixed.

    Attributes:
        dataset: Name of the data set.
        architecture: Name of the architecture.
        epochs: The budget of epochs.
        regime: "under-fit", "good-fit" or "over-fit" in the study, else "".
    """

    dataset: str
    architecture: str
    epochs: int
    regime: str = ""

    def __str__(self) -> str:
        """The cell as a title."""
        regime = f" {self.regime}" if self.regime else ""
        return (
            f"{self.dataset}{regime}, {self.architecture}, {self.epochs} epochs"
        )


def cell_of(run: Run) -> Cell:
    """The cell of a run."""
    regime = run.configuration.get("regime", "")
    return Cell(run.dataset, run.architecture, run.epochs, regime)


def configuration(run: Run) -> dict[str, Any]:
    """What was chosen for the arm: the configuration without the command."""
    return {k: v for k, v in run.configuration.items() if k != "command"}


def arms_of(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Arm -> its runs by seed; baselines, controls, hybrids."""
    arms = group(runs, lambda run: run.arm)
    return {
        arm: sorted(of_arm, key=lambda run: run.seed)
        for arm, of_arm in sorted(
            arms.items(),
            key=lambda item: ROLES.index(item[1][0].configuration["role"]),
        )
    }


def group(
    runs: Iterable[Run], key: Callable[[Run], Any]
) -> dict[Any, list[Run]]:
    """Key -> its runs, keys in the order of their first run."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def distinct(values: Iterable[Any]) -> list[Any]:
    """The values without repetition, compared as JSON, in their order."""
    return list(
        {
            json.dumps(value, sort_keys=True, default=str): value
            for value in values
        }.values()
    )


def check_once(runs: Sequence[Run]) -> None:
    """Refuses two runs of one arm and seed of a cell.

    Raises:
        ValueError: If there are such.
    """
    known = {(cell_of(run), run.arm, run.seed) for run in runs}
    if len(known) < len(runs):
        raise ValueError(
            "`runs` may have one run of an arm and seed of a cell. Received: "
            f"{len(runs)} runs of {len(known)} arms and seeds"
        )


def accuracies(runs: Iterable[Run]) -> dict[int, float]:
    """Seed -> test accuracy of the runs that finished."""
    return {
        run.seed: run.test_accuracy
        for run in finished_runs(runs)
        if run.test_accuracy is not None
    }


def finished_runs(runs: Iterable[Run]) -> list[Run]:
    """The runs that did not diverge."""
    return [run for run in runs if run.status == "finished"]


def library_versions(runs: Iterable[Run]) -> tuple[str, ...]:
    """Versions of keras_hybrid that made the runs, in their order."""
    return tuple(
        version
        for version in distinct(run.versions.get(LIBRARY) for run in runs)
        if version is not None
    )
