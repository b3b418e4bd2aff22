"""One record of one run: written whole, read back with a check."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_hybrid._support import files, records

FORMAT = 1
STATUSES = ("finished", "diverged")


class DamagedRecord(ValueError):
    """A result file that is unreadable, incomplete or of another program."""


# What a configuration from before these fields had of them.
LATER: dict[str, Any] = {
    "cutout": 0,
    "label_smoothing": 0.0,
    "label_noise": 0.0,
    "checksum": "",
    "callbacks": [],
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One training of one arm with one seed.

    Attributes:
        dataset: Name of the data set.
        architecture: Name of the architecture.
        arm: Name of the arm.
        seed: The seed of weights, data order and dropout.
        epochs: The budget of epochs.
        configuration: Everything else that was chosen: batch size, sizes of
            the splits, the serialized optimizer and trigger.
        versions: Version of each package that can change a figure.
        status: "finished" or "diverged" (the loss became non-finite, and no
            callback put finite weights back). From the epoch of such a loss on
            all epochs are missing, not filled in.
        history: Lists with one entry an epoch: "loss", "accuracy", "val_loss",
            "val_accuracy", "seconds" (of training since its start, compilation
            included, validation left out), and for the hybrids
            "sgd_fraction", "learning_rate", "cooldown" and
            "sgd_learning_rate".
        switch_step: The first update that SGD made, or None.
        steps_per_epoch: Updates in an epoch.
        test_loss: Loss on the test split at the end, None if diverged.
        test_accuracy: Likewise, a fraction.
        val_accuracy: On the validation split, of the weights that it ended
            with; None: they are those of the last epoch.
    """

    dataset: str
    architecture: str
    arm: str
    seed: int
    epochs: int
    configuration: Mapping[str, Any]
    versions: Mapping[str, str]
    status: str
    history: Mapping[str, list[float]]
    switch_step: int | None
    steps_per_epoch: int
    test_loss: float | None
    test_accuracy: float | None
    val_accuracy: float | None = None

    @property
    def final_val_accuracy(self) -> float:
        """The validation accuracy of the weights that it ended with."""
        if self.val_accuracy is not None:
            return self.val_accuracy
        return self.history["val_accuracy"][-1]

    @property
    def ends_with_last_epoch(self) -> bool:
        """Whether the weights that it ended with are the last epoch's.

        Where a callback has put others in their place their validation accuracy
        tells, as far as two accuracies differ.
        """
        return self.final_val_accuracy == self.history["val_accuracy"][-1]

    @property
    def switch_epoch(self) -> float | None:
        """The switch in epochs since the start, or None."""
        if self.switch_step is None:
            return None
        return self.switch_step / self.steps_per_epoch

    def save(self, path: Path) -> None:
        """Writes the record; a kill leaves the old file or the new one."""
        files.write_json(path, {"format": FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def load(cls, path: Path) -> Run:
        """Reads a record, from its file or from a table above it.

        Raises:
            DamagedRecord: If it is no complete record of this format.
        """
        try:
            content = records.read(path, FORMAT, "run record")
            content.setdefault("val_accuracy", None)  # Older ones have none.
            names = {field.name for field in dataclasses.fields(cls)}
            files.check_fields(path, content, names)
            history = files.history_of(path, content.pop("history"))
        except ValueError as error:
            raise DamagedRecord(str(error)) from error
        if content["status"] not in STATUSES:
            raise DamagedRecord(f"{path}: status {content['status']!r}")
        return cls(history=history, **content)
