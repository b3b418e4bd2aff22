"""Photographs of any size, read from disk: ImageNet and sets like it."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

IMAGENET = "imagenet2012"
IMAGE_SIZE = 224
# Of the training split, for validation: the split that ImageNet calls so is
# the one with public labels that results are reported on, and our test split.
_VALIDATION_FRACTION = 0.01
# Mean and deviation of ImageNet's channels, from 0 to 1 (He et al. 2016).
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
# Shorter side before the middle is cut out, in crops (256 to 224).
_RESIZED = 256 / 224
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
    """

    name: str
    builder: Any
    splits: dict[str, str]
    sizes: dict[str, int]
    classes: int
    image_size: int
    augmented: bool = True
    cutout: int = 0

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
                _random_crop(example["image"], place, shape)
                if self.augmented
                else _middle(example["image"], shape)
            )
            image = _scaled(image)
            if self.cutout:
                image = cut_out(image[None], self.cutout, place)[0]
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
                    _scaled(_middle(example["image"], shape)),
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


def _random_crop(
    encoded: tf.Tensor, place: tf.Tensor, shape: tuple[int, ...]
) -> tf.Tensor:
    """8 to 100 % of the area, sides 3:4 to 4:3, flipped or not (Szegedy)."""
    is_jpeg = tf.io.is_jpeg(encoded)

    def decoded() -> tf.Tensor:
        return tf.io.decode_image(encoded, channels=3, expand_animations=False)

    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.cond(
            is_jpeg,
            lambda: tf.image.extract_jpeg_shape(encoded),
            lambda: tf.shape(decoded()),
        ),
        bounding_boxes=tf.zeros((1, 0, 4)),
        seed=place,
        area_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], size[:2]], axis=0)
    # JPEG alone can be cropped before it is decoded.
    image = tf.cond(
        is_jpeg,
        lambda: tf.image.decode_and_crop_jpeg(encoded, window, channels=3),
        lambda: tf.image.crop_to_bounding_box(decoded(), *tf.unstack(window)),
    )
    image = tf.image.resize(image, shape[:2])
    return tf.image.stateless_random_flip_left_right(image, place)


def _middle(encoded: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """The middle of the image, its shorter side brought to 8/7 of the crop."""
    image = tf.io.decode_jpeg(encoded, channels=3)
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    ratio = _RESIZED * shape[0] / tf.reduce_min(size)
    image = tf.image.resize(image, tf.cast(tf.round(size * ratio), tf.int32))
    image = tf.image.resize_with_crop_or_pad(image, *shape[:2])
    return tf.ensure_shape(image, shape)


def cut_out(images: tf.Tensor, side: int, seed: tf.Tensor) -> tf.Tensor:
    """Sets a square of each image to the mean, 0: Cutout.

    Its center is any pixel, so that a part may lie outside of the image.

    Source: DeVries and Taylor 2017, section 3.2.
    """
    count, height, width, _ = images.shape
    # Of another stream than the crops of the same batch.
    places = tf.random.stateless_uniform((2, count), seed=seed + [1, 0])
    inside = []
    for place, length in zip(tf.unstack(places), (height, width), strict=True):
        first = tf.cast(place * length, tf.int32) - side // 2
        from_first = tf.range(length) - first[:, None]
        inside.append((from_first >= 0) & (from_first < side))
    cut = inside[0][:, :, None] & inside[1][:, None, :]
    return tf.where(cut[..., None], 0.0, images)
