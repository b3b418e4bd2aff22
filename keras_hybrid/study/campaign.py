"""The study: every arm of every cell, tuned, then trained with every seed.

A piece of work is one arm of one cell: its learning rate is tuned on the
validation split with a seed of its own, then it is trained with every seed,
and the test split read once. Each run is a record, what is finished is not
repeated, and several processes may share one folder: a piece is locked while a
process works on it, and the lock ends with the process.
"""

from __future__ import annotations

import fnmatch
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_hybrid._support import checks, files, records
from keras_hybrid.study import arms as all_arms
from keras_hybrid.study import runs, trace, tuning
from keras_hybrid.study.arms import Arm
from keras_hybrid.study.cells import KNOWN, Cell
from keras_hybrid.study.record import LATER, Run
from keras_hybrid.study.trace import TRACES
from keras_hybrid.study.trainer import Trainer

# The arm whose projection is recorded update by update.
TRACED = "projection"
# Not one of the seeds that are reported.
TUNING_SEED = 1000


class Plan(NamedTuple):
    """What a study consists of.

    Attributes:
        cells: Names from `cells.KNOWN`.
        arms: Names from `arms.STUDY` and `arms.VARIANTS`; None for all of
            `arms.STUDY`, or those that a cell has.
        seeds: Number of seeds, 0 to seeds - 1; less where a cell has less.
        output: Folder of the records.
        data_dir: TFDS's folder, or None.
    """

    cells: Sequence[str]
    arms: Sequence[str] | None
    seeds: int
    output: Path
    data_dir: str | None

    def check(self) -> None:
        """Raises ValueError or TypeError if a field is out of range."""
        for name in self.cells:
            checks.choice("cells", name, KNOWN)
        if not self.cells or (self.arms is not None and not self.arms):
            raise ValueError(
                "`cells` and `arms` must name at least one each. Received: "
                f"cells={self.cells!r}, arms={self.arms!r}"
            )
        for name in self.arms or ():
            checks.choice("arms", name, known_arms())
        checks.integer("seeds", self.seeds, low=1)

    def arms_of(self, cell: Cell) -> list[Arm]:
        """Returns the arms that are trained in a cell."""
        names = self.arms or cell.arms or all_arms.STUDY
        return [known_arms()[name] for name in names]

    def seeds_of(self, cell: Cell) -> int:
        """Returns the number of seeds in a cell."""
        return min(self.seeds, cell.most_seeds or self.seeds)

    def least_runs(self) -> int:
        """How many runs there are if no tuning needs more trials."""
        total = 0
        for cell in (KNOWN[name] for name in self.cells):
            arms = self.arms_of(cell)
            total += len(arms) * self.seeds_of(cell)
            if cell.untuned is None:
                tuned = sum(arm.tuned_as is None for arm in arms)
                total += tuned * tuning.TRIALS
        return total

    def finished_runs(self) -> int:
        """How many records of the plan there are, tuning included."""
        names: dict[Path, list[str]] = {}
        for path in records.below(self.output):
            names.setdefault(path.parent, []).append(path.name)
        return sum(
            len(fnmatch.filter(names.get(folder, []), pattern))
            for name in self.cells
            for arm in self.arms_of(KNOWN[name])
            for folder, pattern in (
                (self.output / name, f"{arm.name}-seed*.json"),
                (self.output / name / "tuning", f"{arm.name}-*.json"),
            )
        )

    def waiting(self) -> int:
        """How many of the runs that are reported have no record yet."""
        return sum(
            not records.exists(path)
            for cell in (KNOWN[name] for name in self.cells)
            for arm in self.arms_of(cell)
            for path in run_paths(
                self.output / cell.name, arm, self.seeds_of(cell)
            )
        )

    def pieces(self) -> Iterator[tuple[Cell, str, list[Arm]]]:
        """Cells, and the arms that share a tuned learning rate."""
        for cell in (KNOWN[name] for name in self.cells):
            groups: dict[str, list[Arm]] = {}
            for arm in self.arms_of(cell):
                groups.setdefault(arm.tuned_as or arm.name, []).append(arm)
            for name, members in groups.items():
                yield cell, name, members


def known_arms() -> dict[str, Arm]:
    """All arms by name."""
    return {**all_arms.STUDY, **all_arms.VARIANTS, **all_arms.CEILING}


class Tuned(NamedTuple):
    """The result of tuning an arm.

    Attributes:
        learning_rate: The best on the validation split, or the cell's untuned.
        trials: How many were trained.
    """

    learning_rate: float
    trials: int


def run(plan: Plan, report: Callable[[str, Run], None] | None = None) -> None:
    """Works on what is not finished and not locked by another process.

    Args:
        plan: The study.
        report: Is told each record, new or old, with the cell's name.

    Raises:
        ValueError: If a name is unknown, the data cannot be had, or the folder
            holds runs of another configuration.
    """
    plan.check()
    data: Any = None
    loaded: Cell | None = None
    for cell, name, members in plan.pieces():
        folder, seeds = plan.output / cell.name, plan.seeds_of(cell)
        with files.claimed(folder / f"{name}.lock") as is_ours:
            if not is_ours:
                continue
            waiting = [
                arm
                for arm in members
                if not _is_finished(cell, run_paths(folder, arm, seeds))
            ]
            untraced = name == TRACED and not records.exists(
                folder / TRACES / f"{name}.json"
            )
            if not (waiting or untraced):
                continue
            if loaded != cell:
                data, loaded = cell.load(plan.data_dir), cell
            keras.backend.clear_session()
            trainer = Trainer(
                data, cell.architecture, cell.precision, cell.label_smoothing
            )
            piece = _Piece(cell, trainer, folder, report)
            tuned = piece.tune(known_arms()[name])
            for arm in waiting:
                piece.train(arm, tuned, seeds)
            if untraced:
                piece.trace(known_arms()[name], tuned)


def _is_finished(cell: Cell, paths: Sequence[Path]) -> bool:
    """Whether all records are there, and of this cell as far as it says."""
    if not all(map(records.exists, paths)):
        return False  # Those that are there are compared as the rest trains.
    wanted = {
        "epochs": cell.epochs,
        "batch_size": cell.batch_size,
        "label_noise": cell.label_noise,
        "label_smoothing": cell.label_smoothing,
        "cutout": cell.cutout,
    }
    for path in paths:
        record = runs.load_finished(path)
        there = {**LATER, **record.configuration, "epochs": record.epochs}
        runs.check_same(
            path, {name: there.get(name) for name in wanted}, wanted
        )
    return True


def run_paths(folder: Path, arm: Arm, seeds: int) -> list[Path]:
    """Returns where the records of an arm are, one a seed."""
    return [folder / f"{arm.name}-seed{seed}.json" for seed in range(seeds)]


class _Piece:
    """One arm of one cell, and those that take its learning rate."""

    def __init__(
        self,
        cell: Cell,
        trainer: Trainer,
        folder: Path,
        report: Callable[[str, Run], None] | None,
    ) -> None:
        self.cell = cell
        self.trainer = trainer
        self.folder = folder
        self.report = report

    def _one(
        self, path: Path, arm: Arm, seed: int, further: Any, **arguments: Any
    ) -> Run:
        record = runs.train_to(
            path,
            self.trainer,
            arm,
            seed,
            self.cell.epochs,
            self.cell.batch_size,
            # With a core for each process, it is what a quiet core would take.
            clock=time.process_time,
            further={
                "regime": self.cell.regime,
                "share": arm.share,
                "control": arm.control,
                **further,
            },
            **arguments,
        )
        if self.report is not None:
            self.report(self.cell.name, record)
        return record

    def tune(self, arm: Arm) -> Tuned:
        """Finds the learning rate on the validation split."""
        if self.cell.untuned is not None:
            return Tuned(arm.learning_rate * self.cell.untuned, 0)
        center = tuning.start(arm.learning_rate)
        scores: dict[int, float] = {}
        while (place := tuning.next_place(scores, center)) is not None:
            rate = tuning.learning_rate(place)
            record = self._one(
                self.folder / "tuning" / f"{arm.name}-{rate:g}.json",
                arm,
                TUNING_SEED,
                {"is_tuning": True},
                learning_rate=rate,
                read_test=False,
            )
            finished = record.status == "finished"
            scores[place] = record.final_val_accuracy if finished else -math.inf
        best = tuning.best_place(scores)
        return Tuned(tuning.learning_rate(best), len(scores))

    def train(self, arm: Arm, tuned: Tuned, seeds: int) -> None:
        """Trains with every seed at the tuned learning rate."""
        further = {
            "tuned_learning_rate": tuned.learning_rate,
            "tuning_trials": tuned.trials if arm.tuned_as is None else 0,
        }
        for seed, path in enumerate(run_paths(self.folder, arm, seeds)):
            self._one(
                path, arm, seed, further, learning_rate=tuned.learning_rate
            )

    def trace(self, arm: Arm, tuned: Tuned) -> None:
        """Records the projection of the first updates."""
        trace.record(
            self.trainer,
            arm,
            tuned.learning_rate,
            self.cell.epochs,
            self.cell.batch_size,
        ).save(self.folder / TRACES / f"{arm.name}.json")
