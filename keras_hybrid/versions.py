"""Versions of what can change a figure."""

from __future__ import annotations

import platform

import keras
import numpy as np
import tensorflow as tf

from keras_hybrid._version import __version__


def versions() -> dict[str, str]:
    """Returns the versions of what can change a figure."""
    return {
        "keras_hybrid": __version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
