"""The random generators of the whole process, as arrays and back.

Keras draws from them: the order of `fit(shuffle=True)` from NumPy's on JAX and
from torch's on torch, where dropout does so too; and data of one's own may.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

_CUDA = "torch_cuda_"


def states() -> dict[str, np.ndarray]:
    """Returns the states of NumPy's, Python's and torch's, by name."""
    found: dict[str, np.ndarray] = {}
    numpy_state: Any = np.random.get_state(legacy=True)
    if isinstance(numpy_state, tuple):  # Else one of the user's own kind.
        found["numpy"] = np.asarray(numpy_state[1])
        found["numpy_rest"] = np.array(numpy_state[2:], "float64")
    version, words, gauss = random.getstate()
    found["python"] = np.array(words, "uint64")
    found["python_rest"] = np.array(
        [version, math.nan if gauss is None else gauss], "float64"
    )
    if keras.backend.backend() == "torch":
        import torch

        found["torch"] = torch.get_rng_state().numpy()
        for i, state in enumerate(torch.cuda.get_rng_state_all()):
            found[f"{_CUDA}{i}"] = state.numpy()
    return found


def give_back(found: Mapping[str, np.ndarray]) -> None:
    """Sets those that there are."""
    if "numpy" in found:
        position, has_gauss, gauss = found["numpy_rest"].tolist()
        np.random.set_state(
            ("MT19937", found["numpy"], int(position), int(has_gauss), gauss)
        )
    if "python" in found:
        version, gauss = found["python_rest"].tolist()
        random.setstate(
            (
                int(version),
                tuple(found["python"].tolist()),
                None if math.isnan(gauss) else gauss,
            )
        )
    if keras.backend.backend() == "torch" and "torch" in found:
        import torch

        torch.set_rng_state(torch.tensor(found["torch"]))
        of_devices = [name for name in found if name.startswith(_CUDA)]
        if len(of_devices) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(
                [
                    torch.tensor(found[f"{_CUDA}{i}"])
                    for i in range(len(of_devices))
                ]
            )
