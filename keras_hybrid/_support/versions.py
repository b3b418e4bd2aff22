"""Versions of what can change a figure."""

from __future__ import annotations

import platform
import sys

import keras
import numpy as np

from keras_hybrid._version import __version__


def versions() -> dict[str, str]:
    """Returns the versions of what can change a figure, the backend's too."""
    backend = str(keras.backend.backend())
    return {
        "keras_hybrid": __version__,
        "keras": keras.__version__,
        # Keras has imported it under its own name; nothing else is imported.
        backend: str(sys.modules[backend].__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
