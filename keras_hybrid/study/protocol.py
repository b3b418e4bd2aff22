"""The protocol: a comparison over arms and seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from keras_hybrid._support import checks, files
from keras_hybrid.study import architectures, datasets
from keras_hybrid.study.arms import ARMS, DEFAULT_ARMS, Arm, Budget
from keras_hybrid.study.record import Run
from keras_hybrid.study.runs import train_to
from keras_hybrid.study.trainer import Trainer

__all__ = [
    "ARMS",
    "DEFAULT_ARMS",
    "Arm",
    "Budget",
    "Progress",
    "Trainer",
    "compare",
    "run_path",
    "train",
    "train_to",
]

BATCH_SIZE = 64


class Progress(NamedTuple):
    """What `compare` reports after each epoch and run.

    Attributes:
        arm: Name of the arm.
        seed: The seed.
        epoch: Finished epochs of this run.
        done: Finished epochs of the comparison.
        total: All epochs of the comparison.
        run: The record, when the run is finished; else None.
    """

    arm: str
    seed: int
    epoch: int
    done: int
    total: int
    run: Run | None


def run_path(
    folder: Path,
    dataset: str,
    architecture: str,
    epochs: int,
    arm: str,
    seed: int,
) -> Path:
    """Returns where the record of a run is."""
    cell = f"{dataset}-{architecture}-{epochs}epochs"
    return folder / cell / f"{arm}-seed{seed}.json"


def train(
    data: datasets.AnyData,
    architecture: str,
    arm: Arm,
    seed: int,
    epochs: int,
    folder: Path,
    batch_size: int = BATCH_SIZE,
    report: Callable[[int], None] = lambda epoch: None,
) -> Run:
    """Trains one arm of `compare` with one seed (see `train_to`)."""
    return train_to(
        run_path(folder, data.name, architecture, epochs, arm.name, seed),
        Trainer(data, architecture),
        arm,
        seed,
        epochs,
        batch_size,
        report,
    )


def compare(
    dataset: str = "mnist-5k",
    architecture: str = "mlp",
    epochs: int = 30,
    seeds: int = 3,
    arms: Sequence[str] = DEFAULT_ARMS,
    output: str | Path = "compare-results",
    data_dir: str | None = None,
    batch_size: int = BATCH_SIZE,
    report: Callable[[Progress], None] = lambda progress: None,
) -> list[Run]:
    """Trains every arm with every seed; what is finished is not repeated.

    Args:
        dataset: Name of a data set (`datasets.load`).
        architecture: Name of an architecture (`architectures.build`).
        epochs: Budget of each run, at least 2; a ceiling for those that end
            themselves.
        seeds: Number of seeds, 0 to seeds - 1, the same in every arm.
        arms: Names from `ARMS`.
        output: Folder of the records, one JSON a run.
        data_dir: TFDS's folder (`datasets.load`).
        batch_size: Images an update.
        report: Is told the progress after each epoch and run.

    Returns:
        The records, seed by seed.

    Raises:
        ValueError: If a name is unknown, a number is out of range, the data
            cannot be had, or `output` holds other runs or is in use by another
            process.
    """
    datasets.check(dataset)
    checks.choice("architecture", architecture, architectures.ARCHITECTURES)
    checks.integer("epochs", epochs, low=2)
    checks.integer("seeds", seeds, low=1)
    checks.integer("batch_size", batch_size, low=1)
    if not arms:
        raise ValueError(
            f"`arms` must name at least one of {', '.join(ARMS)}. Received: "
            f"arms={arms!r}"
        )
    names = dict.fromkeys(checks.choice("arms", name, ARMS) for name in arms)
    chosen = [ARMS[name] for name in names]
    data = datasets.load(dataset, data_dir)
    total = len(chosen) * seeds * epochs
    runs: list[Run] = []
    with files.locked(Path(output)):
        for seed in range(seeds):
            for arm in chosen:
                before = len(runs) * epochs

                def tell(
                    epoch: int,
                    run: Run | None = None,
                    arm: Arm = arm,
                    seed: int = seed,
                    before: int = before,
                ) -> None:
                    report(
                        Progress(
                            arm.name, seed, epoch, before + epoch, total, run
                        )
                    )

                run = train(
                    data,
                    architecture,
                    arm,
                    seed,
                    epochs,
                    Path(output),
                    batch_size,
                    tell,
                )
                runs.append(run)
                tell(epochs, run)
    return runs
