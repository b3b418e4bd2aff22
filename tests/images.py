"""Data sets of images: a tiny one, and those that this machine has."""

import os
from pathlib import Path

import numpy as np
import pytest

from keras_hybrid.study import datasets


def tiny_data():
    """Three classes of noisy bright rows, 96 training images."""
    rng = np.random.default_rng(0)
    labels = np.arange(160) % 3
    images = rng.integers(0, 80, (160, 6, 6, 1))
    images[np.arange(160), labels * 2] += 120
    images = images.astype("uint8")
    cut = [(0, 96), (96, 128), (128, 160)]
    parts = [(images[a:b], labels[a:b].astype("int64")) for a, b in cut]
    return datasets.Data("tiny", *parts, classes=3, augmented=False)


def prepared(name):
    """Returns the folder of a data set; skips the test where it lacks."""
    root = os.environ.get("TFDS_DATA_DIR")
    folder = Path(root or "") / name
    if not root or not folder.exists():
        pytest.skip(f"TFDS_DATA_DIR holds no prepared {name}")
    return folder
