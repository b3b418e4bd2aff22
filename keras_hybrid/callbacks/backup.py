"""ExactBackup: a killed `fit` goes on as if it had never stopped."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_hybrid._support import checks
from keras_hybrid.callbacks import generators, snapshot
from keras_hybrid.callbacks.models import build_once, unwrapped_optimizer

# A list beside the metrics' own: the finished epochs, then the next one. No
# metric can be called so.
_EPOCHS = "(epochs)"


class ExactBackup(keras.callbacks.Callback):
    """Keeps the whole state of a training in one file, and goes on from it.

    Killed at any moment (SIGKILL too) and started again with the same call,
    `fit` ends with the weights, the optimizer and the History of a training
    that was never killed, bit for bit. Keras' BackupAndRestore leaves out the
    states of random generators (Dropout draws other masks) and the History of
    the finished epochs, and a kill inside its writing leaves a broken file or
    weights that do not belong to the epoch it notes.

    Before the first batch of each epoch, when all callbacks have begun it, the
    state is written to a new file that takes the old one's place as a whole. It
    is given back at that very point, so the place in the list of callbacks does
    not matter. Only `HybridOptimizer.training_steps` stays as SwitchCallback
    has set it: a restart may ask for more epochs. A power cut may still lose
    the file: it is not forced to the disk.

    What it cannot know: the order of the examples must be a function of the
    epoch, or of the generators of NumPy, Python and torch, whose states at the
    epoch's begin are in the file. With arrays and `fit(shuffle=True)` after
    `keras.utils.set_random_seed` it is; the sequence of a
    `tf.data.Dataset.shuffle` begins anew, so make the data set start at
    `next_epoch` (examples/resume.py does). Callbacks that count in Python
    (EarlyStopping, ReduceLROnPlateau) count anew. Layers must draw random
    numbers from a generator of their own, as Keras' do. The model must be
    built before `fit`.

    Args:
        path: The file, by convention `*.npz`; one for each training. It fits
            the same model and optimizer only.
        delete_checkpoint: Boolean, default True: remove the file when `fit`
            ends. False keeps the end, so that the same call restores it and
            trains nothing; last in the list it keeps what other callbacks do at
            the end too (EarlyStopping's best weights).

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: When `fit` starts, if the model is not built, the file is
            damaged or of another model, or BackupAndRestore goes on with
            another epoch; when an epoch ends, if a value in the logs is
            neither a number nor an array of numbers.

    Example:
    >>> import keras_hybrid
    >>> backup = keras_hybrid.ExactBackup("training.npz")
    """

    def __init__(
        self, path: str | os.PathLike[str], delete_checkpoint: bool = True
    ) -> None:
        super().__init__()
        self.path = _checked(path)
        self.delete_checkpoint = checks.boolean(
            "delete_checkpoint", delete_checkpoint
        )
        self._goes_on = False
        self._epoch: int | None = None
        self._random: dict[str, np.ndarray] = {}

    @property
    def next_epoch(self) -> int:
        """The epoch with which `fit` will begin, 0 if there is no file."""
        if not self.path.exists():
            return 0
        return int(snapshot.read_history(self.path)[_EPOCHS][-1])

    def on_train_begin(self, logs: Any = None) -> None:
        """Restores, if there is a file, and says with which epoch to go on."""
        model = self.model
        if getattr(model, "history", None) is None:
            raise ValueError(
                "In a loop of your own ExactBackup needs Keras' History: "
                "keras.callbacks.CallbackList(callbacks, add_history=True, "
                f"model=model, epochs=...). Received: model={model.name} "
                "without a history"
            )
        if not self.delete_checkpoint and "epochs" not in (self.params or {}):
            raise ValueError(
                "To keep its end ExactBackup must be told the training's "
                "length: keras.callbacks.CallbackList(callbacks, epochs=...). "
                f"Received: delete_checkpoint=False, params={self.params}"
            )
        if not model.built:
            raise ValueError(
                "The model must be built before `fit`, or a restart could not "
                "restore it: give it an Input or call it on a batch. Received: "
                f"model={model.name} (not built)"
            )
        build_once(model)
        # A kill inside the writing leaves these.
        pattern = glob.escape(self.path.name) + ".*.partial"
        for partial in self.path.parent.glob(pattern):
            partial.unlink()
        self._goes_on = self.path.exists()
        if self._goes_on:
            model._initial_epoch = self._restore()  # As BackupAndRestore does.

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes that the next batch begins an epoch.

        Between the two Keras may draw the order of its examples.
        """
        self._epoch = epoch
        if self._goes_on:
            generators.give_back(snapshot.read_generators(self.path))
        self._random = generators.states()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Saves, or in the first epoch after a restart restores.

        Once more: all callbacks have begun their epoch, as they had when the
        file was written.
        """
        if self._epoch is None:
            return
        if self._goes_on:
            optimizer = unwrapped_optimizer(self.model)
            steps = getattr(optimizer, "training_steps", None)
            epoch = self._restore()
            if epoch != self._epoch:
                raise ValueError(
                    f"The file {self.path} goes on with epoch {epoch}, counted "
                    "from 0, and another callback has set where `fit` begins: "
                    "leave out BackupAndRestore, or ExactBackup. Received: "
                    f"epoch={self._epoch}"
                )
            if steps is not None:
                optimizer.training_steps = steps
            # Keras has read it, and keeps it: a next `fit` would begin there.
            self.model._initial_epoch = None
        else:
            self._save(self._epoch)
        self._goes_on = False
        self._epoch = None

    def on_train_end(self, logs: Any = None) -> None:
        """Removes the file, or keeps the end."""
        end = (self.params or {}).get("epochs")
        if self._goes_on:  # There was no epoch left.
            epoch = self._restore()
            generators.give_back(snapshot.read_generators(self.path))
            self.model._initial_epoch = None
            # The file's training is not over.
            if end is not None and epoch > end:
                return
        if self.delete_checkpoint:
            self.path.unlink(missing_ok=True)
        else:
            self._random = generators.states()
            self._save(self.params["epochs"])

    def _save(self, epoch: int) -> None:
        history = {
            name: [_plain(name, v) for v in values]
            for name, values in self.model.history.history.items()
        }
        history[_EPOCHS] = [*self.model.history.epoch, epoch]
        snapshot.save(self.path, self.model, history, generators=self._random)

    def _restore(self) -> int:
        history = snapshot.restore(self.path, self.model)
        *finished, epoch = history.pop(_EPOCHS)
        self.model.history.history = history
        self.model.history.epoch = finished
        return int(epoch)


def _checked(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)) or isinstance(
        os.fspath(path), bytes
    ):
        raise TypeError(
            "`path` must be the path of a file, as text or a Path. Received: "
            f"path={path!r}"
        )
    if not os.fspath(path) or Path(path).is_dir():
        raise ValueError(
            "`path` must be the path of a file, not of a folder. Received: "
            f"path={str(path)!r}"
        )
    return Path(path)


def _plain(name: str, value: Any) -> Any:
    """A number of the logs, or an array as `files.history_of` reads it."""
    if isinstance(value, int):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            "`logs` may have numbers and arrays of numbers alone, or a restart "
            f"could not restore the History. Received: logs[{name!r}]={value!r}"
        )
    if array.ndim == 0:
        return array.tolist()
    return {"dtype": str(array.dtype), "values": array.tolist()}
