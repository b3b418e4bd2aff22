"""The numbers that statistics are made of, or an error that names them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def finite(name: str, values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Returns finite numbers, at least one, as an array."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"`{name}` must be a sequence of finite numbers, at least one. "
            f"Received: {name}={values!r}"
        )
    return array


def check_confidence(confidence: float) -> None:
    """Checks that a confidence is a fraction that an interval can have."""
    if not isinstance(confidence, (int, float)) or not 0 < confidence < 1:
        raise ValueError(
            "`confidence` must be a number between 0 and 1. Received: "
            f"confidence={confidence!r}"
        )
