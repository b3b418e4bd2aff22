"""From runs to one row of figures an arm of a cell."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_hybrid.study.cells import KNOWN
from keras_hybrid.study.comparison import (
    Cell,
    accuracies,
    arms_of,
    cell_of,
    check_once,
    distinct,
    finished_runs,
    group,
    library_versions,
)
from keras_hybrid.study.record import Run
from keras_hybrid.study.results import check, load_runs
from keras_hybrid.study.statistics import (
    Interval,
    PairedDifference,
    area_under_curve,
    epochs_to_target,
    generalization_gap,
    holm,
    mean_interval,
    paired_difference,
    seconds_to_target,
)

__all__ = [
    "Cell",
    "Difference",
    "Row",
    "accuracies",
    "arms_of",
    "cell_of",
    "check",
    "distinct",
    "group",
    "library_versions",
    "load_runs",
    "summary",
]


@dataclasses.dataclass(frozen=True)
class Difference:
    """An arm minus a reference, in test accuracy as a fraction.

    Attributes:
        reference: Label of the reference.
        paired: Mean, bootstrap interval, p of the t-test, number of pairs;
            over the seeds that both finished.
        p_holm: The p value, adjusted over the cells in which this arm is
            compared with this kind of reference; NaN where p is.
    """

    reference: str
    paired: PairedDifference
    p_holm: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0 and the adjusted p is below 0.05.

        Both, because a bootstrap interval over five seeds is too narrow.
        """
        excludes_zero = self.paired.low > 0 or self.paired.high < 0
        return excludes_zero and self.p_holm < 0.05


@dataclasses.dataclass(frozen=True)
class Row:
    """One arm of one cell.

    Means and intervals are over the finished seeds; diverged ones are counted.

    Attributes:
        cell: Data set, architecture, epochs.
        arm: Name of the arm.
        label: Its name for people.
        role: "baseline", "control" or "hybrid".
        share: The fraction of the cell's epochs that it got.
        learning_rate: The one it was tuned to, None where it was not tuned.
        tuning_trials: How many trainings that took.
        seeds: All its seeds, diverged ones too, ascending.
        diverged: How many of them diverged.
        is_best_baseline: Whether this is the cell's best baseline.
        test_accuracy: Fraction; None if every seed diverged.
        train_accuracy: What fit logged in the last epoch, mean, a fraction.
            None where a seed ended with other weights than that epoch's.
        val_accuracy: Of the final weights, mean, a fraction.
        epochs_used: Mean.
        seconds_used: Mean, of training.
        test_loss: None also where a finished seed has no finite loss.
        area_under_curve: Mean validation accuracy over the epochs, a fraction.
        generalization_gap: Final training accuracy minus test accuracy, None
            where `train_accuracy` is.
        target: The validation accuracy to reach: the best baseline's final
            one, mean over its seeds. None without a baseline.
        reached: How many seeds finished and reached it.
        epochs_to_target: Median over those seeds, None if there is none.
        seconds_to_target: Likewise, in seconds of training.
        switched: How many seeds switched.
        switch_step: Median over those seeds, None if there is none.
        switch_epoch: Likewise, in epochs since the start.
        against_control: Minus the control, the arm's own in the study; for
            hybrids.
        against_baseline: Minus the best baseline; for hybrids and the control.
        versions: Of keras_hybrid, that made the runs.
    """

    cell: Cell
    arm: str
    label: str
    role: str
    share: float
    learning_rate: float | None
    tuning_trials: int
    seeds: tuple[int, ...]
    diverged: int
    is_best_baseline: bool
    test_accuracy: Interval | None
    train_accuracy: float | None
    val_accuracy: float | None
    epochs_used: float | None
    seconds_used: float | None
    test_loss: Interval | None
    area_under_curve: float | None
    generalization_gap: Interval | None
    target: float | None
    reached: int
    epochs_to_target: float | None
    seconds_to_target: float | None
    switched: int
    switch_step: float | None
    switch_epoch: float | None
    against_control: Difference | None
    against_baseline: Difference | None
    versions: tuple[str, ...]


def summary(runs: Sequence[Run]) -> list[Row]:
    """One row for each data set, architecture, epochs and arm.

    The best baseline of a cell is the one with the highest mean final
    validation accuracy (not test accuracy, which would choose on the test
    set), among those with the fewest diverged seeds (a mean of survivors is
    none of the arm's); of several controls, likewise, the best one is the
    reference.

    Args:
        runs: The runs, at most one an arm and seed of a cell; at least one.

    Returns:
        The rows, cells in the order of their names; in a cell baselines,
        controls, hybrids, each in the order of their first run.

    Raises:
        ValueError: If there are no runs, two of one arm and seed, or one
            lacks what a row needs.
    """
    if not runs:
        raise ValueError("`runs` must not be empty. Received: runs=[]")
    for run in runs:
        check(run)
    check_once(runs)
    rows = []
    for cell, of_cell in sorted(group(runs, cell_of).items()):
        rows.extend(_rows_of_cell(cell, of_cell))
    for kind in ("against_control", "against_baseline"):
        rows = _adjusted(rows, kind)
    return rows


def _best(arms: dict[str, list[Run]], role: str) -> str | None:
    """The arm of the role with the best final validation accuracy."""
    final = {
        arm: (len(finished) - len(runs), last)
        for arm, runs in arms.items()
        if runs[0].configuration["role"] == role
        and runs[0].configuration.get("share", 1) == 1
        and (last := _final(finished := finished_runs(runs))) is not None
    }
    return max(final, key=final.__getitem__, default=None)


def _final(finished: Sequence[Run]) -> float | None:
    """Mean over the finished seeds of the final validation accuracy."""
    return _mean([run.final_val_accuracy for run in finished])


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _to_the_end(run: Run) -> list[float]:
    """Validation accuracies; after a run's own end, its final one."""
    values = list(run.history["val_accuracy"])
    if not run.configuration.get("callbacks"):
        return values
    return values + [run.final_val_accuracy] * (run.epochs - len(values))


def _rows_of_cell(cell: Cell, of_cell: list[Run]) -> list[Row]:
    arms = arms_of(of_cell)
    baseline = _best(arms, "baseline")
    control = _best(arms, "control")
    target = None if baseline is None else _final(finished_runs(arms[baseline]))
    rows = [
        _row(
            cell,
            arm,
            arms,
            target,
            baseline=baseline,
            control=_control_of(arm, arms, control),
        )
        for arm, runs in arms.items()
    ]
    if not is_untuned(cell):
        return rows
    # Its records have a learning rate, which was not tuned.
    return [dataclasses.replace(row, learning_rate=None) for row in rows]


def is_untuned(cell: Cell) -> bool:
    """Whether the cell is one of the study's that has the libraries' rates."""
    known = KNOWN.get(f"{cell.dataset}-{cell.regime}")
    return known is not None and known.untuned is not None


def _control_of(
    arm: str, arms: dict[str, list[Run]], best: str | None
) -> str | None:
    """The arm's own control; `best` where it has none."""
    told = arms[arm][0].configuration
    if "control" in told:
        return told["control"]
    # Those of `compare` tell theirs by the name.
    own = (name for name in (f"{arm}_control", "control") if name in arms)
    return next(own, best)


def _row(
    cell: Cell,
    arm: str,
    arms: dict[str, list[Run]],
    target: float | None,
    *,
    baseline: str | None,
    control: str | None,
) -> Row:
    runs = arms[arm]
    finished = finished_runs(runs)
    role = runs[0].configuration["role"]
    epochs, seconds = [], []
    if target is not None:
        for run in finished:
            at, after = _to_target(run, target)
            epochs.append(at)
            seconds.append(after)
    losses = [run.test_loss for run in finished]
    has_losses = all(x is not None and math.isfinite(x) for x in losses)
    areas = [area_under_curve(_to_the_end(run)) for run in finished]
    trained = finished if all(r.ends_with_last_epoch for r in finished) else []
    return Row(
        cell=cell,
        arm=arm,
        label=runs[0].configuration["label"],
        role=role,
        share=runs[0].configuration.get("share", 1.0),
        learning_rate=runs[0].configuration.get("tuned_learning_rate"),
        tuning_trials=runs[0].configuration.get("tuning_trials", 0),
        seeds=tuple(run.seed for run in runs),
        diverged=len(runs) - len(finished),
        is_best_baseline=arm == baseline,
        test_accuracy=_interval([run.test_accuracy for run in finished]),
        train_accuracy=_mean([run.history["accuracy"][-1] for run in trained]),
        val_accuracy=_final(finished),
        epochs_used=_mean([len(run.history["loss"]) for run in finished]),
        seconds_used=_mean([run.history["seconds"][-1] for run in finished]),
        test_loss=_interval(losses if has_losses else []),
        area_under_curve=float(np.mean(areas)) if areas else None,
        generalization_gap=_interval(
            [generalization_gap(run) for run in trained]
        ),
        target=target,
        reached=len(epochs) - epochs.count(None),
        epochs_to_target=_median(epochs),
        seconds_to_target=_median(seconds),
        switched=sum(run.switch_step is not None for run in runs),
        switch_step=_median([run.switch_step for run in runs]),
        switch_epoch=_median([run.switch_epoch for run in runs]),
        against_control=(
            _difference(arms, arm, control) if role == "hybrid" else None
        ),
        against_baseline=(
            _difference(arms, arm, baseline) if role != "baseline" else None
        ),
        versions=library_versions(runs),
    )


def _to_target(run: Run, target: float) -> tuple[int | None, float | None]:
    """Epochs and seconds until it is reached, in the end at the latest.

    A run may end with other weights than its last epoch's.
    """
    values = run.history["val_accuracy"]
    epochs = epochs_to_target(values, target)
    if epochs is None and run.final_val_accuracy >= target:
        return len(values), float(run.history["seconds"][-1])
    return epochs, seconds_to_target(run, target)


def _interval(values: list[Any]) -> Interval | None:
    return mean_interval(values) if values else None


def _median(values: Sequence[float | None]) -> float | None:
    """Median of those that exist."""
    exist = [value for value in values if value is not None]
    return float(np.median(exist)) if exist else None


def _difference(
    arms: dict[str, list[Run]], arm: str, reference: str | None
) -> Difference | None:
    """Not adjusted yet; None without a reference or a common seed."""
    if reference not in arms:
        return None
    a, b = accuracies(arms[arm]), accuracies(arms[reference])
    if not a.keys() & b.keys():
        return None
    label = arms[reference][0].configuration["label"]
    return Difference(label, paired_difference(a, b), p_holm=math.nan)


def _adjusted(rows: list[Row], kind: str) -> list[Row]:
    """The rows with p of this kind adjusted over the cells of each arm."""
    rows = list(rows)
    of_arm: dict[str, dict[int, float]] = {}
    for index, row in enumerate(rows):
        difference = getattr(row, kind)
        if difference is not None and math.isfinite(difference.paired.p_value):
            p = difference.paired.p_value
            of_arm.setdefault(row.arm, {})[index] = p
    for defined in of_arm.values():
        adjusted = holm(list(defined.values()))
        for index, p in zip(defined, adjusted, strict=True):
            difference = dataclasses.replace(
                getattr(rows[index], kind), p_holm=p
            )
            rows[index] = dataclasses.replace(rows[index], **{kind: difference})
    return rows
