"""A training's whole state in one npz file, without pickle.

Model weights, seed states, the optimizer's variables and the history so far:
what `.weights.h5` leaves out (dropout's seed state) is in it, so a training
that goes on from a snapshot equals one that never stopped.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np


class DamagedSnapshot(ValueError):
    """A file that is no snapshot, or one of another model."""


def _variables(model: Any) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def save(path: Path, model: Any, history: dict[str, list[float]]) -> None:
    """Writes the state; a kill leaves the old file or the new one.

    Args:
        path: The file, by convention `*.npz`; its folder is made.
        model: A compiled model whose optimizer is built.
        history: Lists with one number a finished epoch.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"variable_{i}": v.numpy() for i, v in enumerate(_variables(model))
    }
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, history=np.array(json.dumps(history)), **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def restore(path: Path, model: Any) -> dict[str, list[float]]:
    """Gives the state back to a model of the same kind.

    Returns:
        The history.

    Raises:
        DamagedSnapshot: If the file cannot be read or does not fit the model;
            the model is then left as it was.
    """
    variables = _variables(model)
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            history = json.loads(str(file["history"]))
            arrays = [file[f"variable_{i}"] for i in range(len(variables))]
            extra = len(file.files) - 1 - len(variables)
    except Exception as error:  # zipfile, zlib, NumPy and JSON all differ.
        raise DamagedSnapshot(f"{path}: not readable ({error})") from error
    fits = extra == 0 and all(
        tuple(v.shape) == a.shape
        for v, a in zip(variables, arrays, strict=True)
    )
    if not fits:
        raise DamagedSnapshot(f"{path}: a snapshot of another model")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return {
        name: [math.nan if x is None else x for x in values]
        for name, values in history.items()
    }
