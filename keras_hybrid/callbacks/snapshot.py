"""A training's whole state in one npz file, without pickle.

Model weights, seed states, the optimizer's variables and the history so far:
what `.weights.h5` leaves out (dropout's seed state) is in it, so a training
that goes on from a snapshot equals one that never stopped.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_hybrid._support import files
from keras_hybrid.callbacks.models import unwrapped_optimizer
from keras_hybrid.optimizer import companions

# What the states of random generators are called in a file.
_RANDOM = "random_"


class DamagedSnapshot(ValueError):
    """A file that is no snapshot, or one of another model."""


def variables_of(model: Any, without: Collection[Any]) -> list[Any]:
    """Returns all variables of the model and its optimizers in order.

    Its optimizers are the one it is compiled with, and those that it has in
    attributes of its own, as a GAN's model may, or in lists and the like there.

    Raises:
        ValueError: If one of these has no variables yet.
    """
    variables = [*model.variables, *model.optimizer.variables]
    for name, value in vars(model).items():
        if name.startswith("_self_"):  # TensorFlow's own lists of attributes.
            continue
        for optimizer in _optimizers_in(value):
            if not optimizer.built:
                raise ValueError(
                    f"The model's optimizer `{name}` must be built before "
                    f"`fit`: `model.{name}.build(variables)`. Received: "
                    "built=False"
                )
            variables += optimizer.variables
    left = {id(v): v for v in variables}
    for variable in without:
        left.pop(id(variable), None)
    return list(left.values())


def _optimizers_in(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [one for part in value for one in _optimizers_in(part)]
    return [value] if isinstance(value, keras.optimizers.Optimizer) else []


def save(
    path: Path,
    model: Any,
    history: dict[str, list[float]],
    without: Collection[Any] = (),
    configuration: Any = None,
    generators: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes the state; a kill leaves the old file or the new one.

    Args:
        path: The file, by convention `*.npz`; its folder is made.
        model: A compiled model whose optimizer is built.
        history: Lists with one number a finished epoch.
        without: Variables to leave out, here and in `restore`.
        configuration: What the training is, in JSON's types; a `restore` with
            another one is refused.
        generators: States of random generators, by name.
    """
    variables = variables_of(model, without)
    arrays = {f"variable_{i}": v.numpy() for i, v in enumerate(variables)}
    arrays |= companions.entries_of(_companion(model))
    for name, state in (generators or {}).items():
        arrays[_RANDOM + name] = state
    with files.atomically(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            history=np.array(json.dumps(history)),
            configuration=np.array(_text(configuration)),
            dtypes=np.array(_dtypes(variables), "U"),
            **arrays,
        )


def _companion(model: Any) -> companions.Companion | None:
    return getattr(unwrapped_optimizer(model), "companion", None)


def _text(configuration: Any) -> str:
    return json.dumps(configuration, sort_keys=True)


def read_history(path: Path) -> dict[str, list[float]]:
    """Reads the history alone.

    Raises:
        DamagedSnapshot: If the file cannot be read.
    """
    with _opened(path) as file:
        return _history(path, file)


def read_generators(path: Path) -> dict[str, np.ndarray]:
    """Reads the states of random generators; older files have none.

    Raises:
        DamagedSnapshot: If the file cannot be read.
    """
    with _opened(path) as file:
        return {
            name.removeprefix(_RANDOM): file[name]
            for name in file.files
            if name.startswith(_RANDOM)
        }


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            yield file
    except Exception as error:  # zipfile, zlib, NumPy and JSON all differ.
        raise DamagedSnapshot(f"{path}: not readable ({error})") from error


def _dtype(variable: Any) -> np.dtype[Any]:
    return np.dtype(keras.backend.standardize_dtype(variable.dtype))


def _dtypes(variables: Sequence[Any]) -> list[str]:
    return [str(_dtype(v)) for v in variables]


def _typed(array: np.ndarray, variable: Any) -> np.ndarray:
    """Gives a dtype back that NumPy's files do not know, as bfloat16."""
    return array.view(_dtype(variable)) if array.dtype.kind == "V" else array


def _history(path: Path, file: Any) -> dict[str, list[float]]:
    content = json.loads(str(file["history"]))
    return files.history_of(path, content, arrays=True)


def restore(
    path: Path,
    model: Any,
    without: Collection[Any] = (),
    configuration: Any = None,
) -> dict[str, list[float]]:
    """Gives the state back to a model of the same kind.

    Returns:
        The history.

    Raises:
        DamagedSnapshot: If the file cannot be read, does not fit the model, or
            is of another configuration; the model is then left as it was.
    """
    variables = variables_of(model, without)
    with _opened(path) as file:
        history = _history(path, file)
        names = [f"variable_{i}" for i in range(len(variables))]
        missing = set(names) - {*file.files}
        arrays = [
            _typed(file[name], variable)
            for name, variable in zip(names, variables, strict=True)
            if not missing
        ]
        there = str(file["configuration"])
        dtypes = _dtypes(variables)
        # Older snapshots have none.
        kept = file["dtypes"].tolist() if "dtypes" in file.files else dtypes
        beside = {n: file[n] for n in file.files if companions.is_entry(n)}
        extra = {*file.files} - {*names, *beside}
        extra -= {"history", "configuration", "dtypes"}
        extra = {name for name in extra if not name.startswith(_RANDOM)}
    fits = not (extra or missing) and kept == dtypes
    fits = fits and all(
        tuple(v.shape) == a.shape and _dtype(v) == a.dtype
        for v, a in zip(variables, arrays, strict=True)
    )
    if not fits:
        raise DamagedSnapshot(f"{path}: a snapshot of another model")
    if there != _text(configuration):
        raise DamagedSnapshot(f"{path}: a snapshot of another configuration")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    companions.give_back(_companion(model), beside)
    return history
