"""Photographs of any size, read from disk: ImageNet and sets like it."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from keras_hybrid.study import crops

IMAGENET = "imagenet2012"
IMAGE_SIZE = 224
# Of the training split, for validation: the split that ImageNet calls so is
# the one with public labels that results are reported on, and our test split.
_VALIDATION_FRACTION = 0.01
# Mean and deviation of ImageNet's channels, from 0 to 1 (He et al. 2016).
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_SHUFFLED = 10_000


@dataclasses.dataclass(frozen=True)
class Photographs:
    """A prepared TFDS data set whose images are decoded as they are needed.

    Attributes:
        name: Name of the data set.
        builder: TFDS's builder.
        splits: Split -> TFDS's name of it, e.g. `"train[:990]"`.
        sizes: Split -> number of images.
        classes: Number of classes.
        image_size: Height and width after cropping.
        augmented: Whether training images are cropped and flipped at random.
        cutout: Side in pixels of the square that each training image loses
            (Cutout), 0 for none.
        checksum: Tells a folder's files from those of another; "" where the
            name does.
    """

    name: str
    builder: Any
    splits: dict[str, str]
    sizes: dict[str, int]
    classes: int
    image_size: int
    augmented: bool = True
    cutout: int = 0
    checksum: str = ""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels."""
        return self.image_size, self.image_size, 3

    def training(
        self, batch_size: int, seed: int, first_epoch: int, epochs: int
    ) -> tuple[tf.data.Dataset, int]:
        """As `datasets.training_pipeline`: a function of (seed, epoch)."""
        steps = self.sizes["train"] // batch_size
        parts = [
            self._epoch(seed, epoch).batch(batch_size).take(steps)
            for epoch in range(first_epoch, epochs)
        ]
        pipeline = parts[0]
        for part in parts[1:]:
            pipeline = pipeline.concatenate(part)
        return pipeline.prefetch(2), steps

    def _epoch(self, seed: int, epoch: int) -> tf.data.Dataset:
        # One number of both; TFDS and tf.data shuffle by it.
        order = (seed * 1_000_003 + epoch) % 2**31
        read = self._read("train", order).shuffle(_SHUFFLED, seed=order)
        shape = self.image_shape

        def prepared(index: Any, example: Any) -> Any:
            place = tf.stack([tf.cast(seed, tf.int64), epoch * 2**32 + index])
            image = (
                crops.random_crop(example["image"], place, shape)
                if self.augmented
                else crops.middle(example["image"], shape)
            )
            image = _scaled(image)
            if self.cutout:
                image = crops.cut_out(image[None], self.cutout, place)[0]
            return image, example["label"]

        return read.enumerate().map(
            prepared, num_parallel_calls=tf.data.AUTOTUNE
        )

    def evaluation(self, split: str, batch_size: int) -> tf.data.Dataset:
        """Batches of a split in order, the middle of each image."""
        shape = self.image_shape
        return (
            self._read(split)
            .map(
                lambda example: (
                    _scaled(crops.middle(example["image"], shape)),
                    example["label"],
                ),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
            .batch(batch_size)
            .prefetch(2)
        )

    def _read(self, split: str, order: int | None = None) -> tf.data.Dataset:
        """Encoded images and labels, the files in an order of their own."""
        import tensorflow_datasets as tfds

        options = tf.data.Options()
        options.deterministic = True
        return self.builder.as_dataset(
            split=self.splits[split],
            shuffle_files=order is not None,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(options=options, shuffle_seed=order),
        )


def of(builder: Any, train_size: int | None, image_size: int) -> Photographs:
    """Makes the splits of a prepared data set.

    Raises:
        ValueError: If there is no split to test on, or `train_size` is too
            large.
    """
    count = builder.info.splits["train"].num_examples
    held = max(1, int(_VALIDATION_FRACTION * count))
    train = count - held
    if train_size is not None:
        check_size(train_size, train, builder.name)
        train = train_size
    test = test_split(builder)
    return Photographs(
        name=builder.name,
        builder=builder,
        splits={
            "train": f"train[:{train}]",
            "validation": f"train[{count - held}:]",
            "test": test,
        },
        sizes={
            "train": train,
            "validation": held,
            "test": builder.info.splits[test].num_examples,
        },
        classes=builder.info.features["label"].num_classes,
        image_size=image_size,
    )


def check_size(train_size: int, most: int, name: str) -> None:
    """Raises ValueError if there are not so many training images."""
    if train_size > most:
        raise ValueError(
            f"`train_size` must be at most {most} for {name}. Received: "
            f"train_size={train_size}"
        )


def test_split(builder: Any) -> str:
    """Returns TFDS's name of the split to test on.

    ImageNet's test split has no labels.

    Raises:
        ValueError: If there is none.
    """
    names: tuple[str, ...] = ("test", "validation")
    if builder.name == IMAGENET:
        names = ("validation",)
    for name in names:
        if name in builder.info.splits:
            return name
    raise ValueError(
        f"The data set must have one of the splits {', '.join(names)}. "
        f"Received: {builder.name} with {sorted(builder.info.splits)}"
    )


def _scaled(image: tf.Tensor) -> tf.Tensor:
    return (image / 255 - tf.constant(_MEAN)) / tf.constant(_DEVIATION)
