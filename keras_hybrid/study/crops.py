"""What is cut out of images, at random or in the middle."""

from __future__ import annotations

import tensorflow as tf

# Shorter side before the middle is cut out, in crops (256 to 224).
_RESIZED = 256 / 224


def shifted(images: tf.Tensor, seed: tf.Tensor, *, written: bool) -> tf.Tensor:
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


def random_crop(
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


def middle(encoded: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
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
