"""What a search is given: the arguments of `fit`, understood."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras_tuner.errors import FatalTypeError, FatalValueError

from keras_hybrid import batches
from keras_hybrid._support import checks
from keras_hybrid.callbacks import (
    DivergenceGuard,
    ExactBackup,
    SwitchCallback,
)

FUNCTION = (
    "a function (seed, first_epoch, epochs) -> (data set, updates an epoch)"
)


@dataclasses.dataclass(frozen=True)
class Fit:
    """The arguments of `search` or `fit`, understood."""

    x: Any
    y: Any
    sample_weight: Any
    batch_size: int
    epochs: int
    shuffle: bool
    callbacks: tuple[Any, ...]
    rest: dict[str, Any]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Fit:
        """Understands the arguments, which are those of `Model.fit`.

        Raises:
            FatalTypeError: If one has the wrong type; and
            FatalValueError: if one is missing or has no place in a search:
                both end a KerasTuner search at once.
        """
        names = ("x", "y", "batch_size", "epochs")
        if len(args) > len(names):
            raise FatalTypeError(
                "Only x, y, batch_size and epochs may be positional. Received: "
                f"{len(args)} positional arguments"
            )
        rest = dict(zip(names, args, strict=False)) | dict(kwargs)
        for refused, same, instead in (
            ("validation_split", 0, "give `validation_data`"),
            ("steps_per_epoch", None, "it follows from the data"),
            ("validation_freq", 1, "every epoch is validated"),
            ("initial_epoch", 0, "each trial is a whole training"),
        ):
            if rest.pop(refused, None) not in (None, same):
                raise FatalValueError(
                    f"`{refused}` is not supported in a search: {instead}. "
                    f"Received: {refused}={kwargs[refused]!r}"
                )
        epochs = rest.pop("epochs", None)
        if epochs is None:
            raise FatalValueError(
                "`epochs` must be given: the budget of a trial. Received: "
                "epochs=None"
            )
        size = rest.pop("batch_size", None)
        try:
            return cls(
                x=rest.pop("x", None),
                y=rest.pop("y", None),
                sample_weight=rest.pop("sample_weight", None),
                batch_size=checks.integer(
                    "batch_size", 32 if size is None else size, low=1
                ),
                epochs=checks.integer("epochs", epochs, low=1),
                shuffle=checks.boolean("shuffle", rest.pop("shuffle", True)),
                callbacks=tuple(
                    keras.tree.flatten(rest.pop("callbacks", None) or ())
                ),
                rest={"verbose": 0, **rest},
            )._checked()
        except TypeError as error:
            raise FatalTypeError(str(error)) from error
        except ValueError as error:
            raise FatalValueError(str(error)) from error

    def _checked(self) -> Fit:
        if self.x is None:
            raise ValueError("`x` must be given. Received: x=None")
        if isinstance(self.x, Iterator):
            raise TypeError(
                "`x` can be read only once: give arrays, or "
                f"{FUNCTION}. Received: x of type {type(self.x).__name__}"
            )
        validation = self.rest.get("validation_data")
        if isinstance(validation, Iterator):
            raise TypeError(
                "`validation_data` can be read only once, and every training "
                "reads it: give arrays or a data set. Received: "
                f"validation_data of type {type(validation).__name__}"
            )
        if callable(self.x):
            _check_signature(self.x)
        for callback in self.callbacks:
            if isinstance(
                callback,
                (
                    DivergenceGuard,
                    ExactBackup,
                    SwitchCallback,
                    keras.callbacks.BackupAndRestore,
                    keras.callbacks.EarlyStopping,
                    keras.callbacks.LearningRateScheduler,
                    keras.callbacks.ReduceLROnPlateau,
                    keras.callbacks.SwapEMAWeights,
                ),
            ):
                raise ValueError(
                    "`callbacks` of a search may watch but not steer: the "
                    "search switches, resumes and stops by itself, and other "
                    "callbacks' state is not shared with the prefix. "
                    f"Received: {type(callback).__name__}"
                )
        return self

    @property
    def is_replayable(self) -> bool:
        """Whether the order of examples is a function of (seed, epoch)."""
        return not isinstance(self.x, (tf.data.Dataset, keras.utils.PyDataset))

    def without_callbacks(self) -> Fit:
        """Returns the same without the callbacks."""
        return dataclasses.replace(self, callbacks=())

    def pipeline(self, seed: int, first_epoch: int) -> tuple[Any, int]:
        """Returns the data set from `first_epoch` on, and updates an epoch."""
        if callable(self.x):
            return _checked_pair(self.x(seed, first_epoch, self.epochs))
        if not self.is_replayable:
            steps = _length(self.x)
            repeated = (
                self.x.repeat()
                if isinstance(self.x, tf.data.Dataset)
                else self.x
            )
            return repeated, steps
        given = (self.x, self.y, self.sample_weight)
        parts = [
            tf.nest.map_structure(_tensor, part)
            for part in given
            if part is not None
        ]
        lengths = {len(part) if part.ndim else 0 for part in _flat(parts)}
        if len(lengths) != 1 or lengths == {0}:
            raise FatalValueError(
                "`x`, `y` and `sample_weight` must be arrays with one row an "
                "example, as many in each. Received: "
                f"{' and '.join(map(str, sorted(lengths)))} rows"
            )
        (count,) = lengths

        def batch_of(chosen: Any, epoch: Any) -> Any:
            return tuple(
                tf.nest.map_structure(lambda t: tf.gather(t, chosen), part)
                for part in parts
            )

        pipeline = batches.shuffled(
            count,
            self.batch_size,
            seed,
            first_epoch,
            self.epochs,
            batch_of,
            drop_remainder=False,
            in_order=not self.shuffle,
        )
        return pipeline, math.ceil(count / self.batch_size)

    def first_batch(self, seed: int = 0, epoch: int = 0) -> Any:
        """Returns the first batch of an epoch: x, or (x, y) and weights.

        Raises:
            FatalValueError: If there is none.
        """
        pipeline, _ = self.pipeline(seed, epoch)
        for batch in pipeline:
            return batch
        raise FatalValueError(
            "`x` must give at least one batch an epoch. Received: none for "
            f"seed={seed}, first_epoch={epoch}, epochs={self.epochs}"
        )

    def first_input(self) -> Any:
        """Returns x of one batch, to build a model on."""
        return keras.utils.unpack_x_y_sample_weight(self.first_batch())[0]

    def examples_in(self, batch: Any) -> int:
        """Returns the batch size: of a function's data, this batch's."""
        x = keras.utils.unpack_x_y_sample_weight(batch)[0]
        shape = np.shape(_flat(x)[0])
        return int(shape[0]) if callable(self.x) and shape else self.batch_size

    def sample(self, first: Any) -> Any:
        """Returns what tells a function's data from others, else None.

        That is a checksum of the very first batch, and of the first one of the
        last epoch with another seed: other data, another order, another
        augmentation differ in them.
        """
        if not callable(self.x):
            return None  # The fingerprint has a checksum of all arrays.
        last = self.first_batch(seed=1, epoch=self.epochs - 1)
        _, steps = self.pipeline(0, 0)
        parts = [[digest(leaf) for leaf in _flat(b)] for b in (first, last)]
        return [steps, *parts]

    def validation(self) -> int | None:
        """Returns a checksum of a data set's validation examples.

        In whatever order they come. None for arrays, which the fingerprint
        has, and for a data set without an end.
        """
        given = self.rest.get("validation_data")
        if not isinstance(given, tf.data.Dataset):
            return None
        if given.cardinality() == tf.data.INFINITE_CARDINALITY:
            return None
        return sum(map(_checksum, given)) % 2**32

    def fingerprint(self) -> str:
        """Returns a text that tells other data or arguments apart."""
        data: Any = getattr(self.x, "__qualname__", type(self.x).__name__)
        if not callable(self.x) and self.is_replayable:
            data = digest((self.x, self.y, self.sample_weight))
        rest = {k: digest(v) for k, v in self.rest.items() if k != "verbose"}
        return json.dumps(
            [data, self.batch_size, self.shuffle, rest], sort_keys=True
        )


def _check_signature(function: Any) -> None:
    try:
        inspect.signature(function).bind(0, 0, 1)
    except TypeError as error:
        raise TypeError(
            f"`x` must be arrays, or {FUNCTION}. Received: {function!r} "
            f"({error})"
        ) from error


def _checked_pair(given: Any) -> tuple[Any, int]:
    """Returns what a function `x` gives."""
    if not isinstance(given, tuple) or len(given) != 2:
        raise FatalTypeError(
            f"`x` must be {FUNCTION}. Received: it returned a "
            f"{type(given).__name__}, no pair"
        )
    data, steps = given
    try:
        return data, checks.integer("updates an epoch", steps, low=1)
    except (TypeError, ValueError) as error:
        raise FatalValueError(f"`x` must be {FUNCTION}: {error}") from error


def _tensor(values: Any) -> tf.Tensor:
    """In Keras' precision where it is of another, as `fit` does it."""
    tensor = tf.convert_to_tensor(values)
    if tensor.dtype.is_floating:
        return tf.cast(tensor, keras.config.floatx())
    return tensor


def _flat(parts: Any) -> list[Any]:
    return list(tf.nest.flatten(parts))


def _checksum(batch: Any) -> int:
    """The sum of its examples' checksums."""
    leaves = tf.nest.flatten(batch, expand_composites=True)
    arrays = [np.asarray(leaf) for leaf in leaves]
    if len({a.shape[:1] for a in arrays}) > 1 or not arrays[0].ndim:
        return zlib.crc32(repr(digest(arrays)).encode())
    return sum(
        zlib.crc32(repr(digest(list(example))).encode())
        for example in zip(*arrays, strict=True)
    )


def digest(value: Any) -> Any:
    """Returns what is left of a value in a fingerprint: shapes, checksums."""
    if isinstance(value, (type(None), bool, int, float, str)):
        return value
    if isinstance(value, tf.data.Dataset):
        return [repr(value.element_spec), int(value.cardinality())]
    if isinstance(value, (list, tuple)):
        return [digest(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): digest(part) for key, part in value.items()}
    if isinstance(value, keras.utils.PyDataset):
        return [type(value).__qualname__, value.num_batches]
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    array = np.ascontiguousarray(value)
    if array.dtype == object:  # Its bytes are addresses.
        array = np.frombuffer(repr(array.tolist()).encode(), "uint8")
    return [str(array.dtype), list(array.shape), zlib.crc32(array.tobytes())]


def _length(x: Any) -> int:
    steps = int(x.cardinality()) if hasattr(x, "cardinality") else len(x)
    if steps < 1:
        raise FatalValueError(
            "`x` is a data set that does not know its length, and the length "
            "of a blend is a fraction of all updates: use "
            "`x.apply(tf.data.experimental.assert_cardinality(...))`, or give "
            f"arrays. Received: cardinality={steps}"
        )
    return steps
