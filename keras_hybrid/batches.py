"""The order of training examples, a function of (seed, epoch).

So a training that goes on at an epoch sees what it would have seen had it
never stopped; Keras' own shuffling of arrays depends on what ran before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def shuffled(
    count: int,
    batch_size: int,
    seed: int,
    first_epoch: int,
    epochs: int,
    batch_of: Callable[[tf.Tensor, tf.Tensor], Any],
    *,
    drop_remainder: bool,
    in_order: bool = False,
) -> tf.data.Dataset:
    """Batches of epochs `first_epoch` to `epochs` - 1, one after the other.

    Args:
        count: Number of examples.
        batch_size: Examples a batch.
        seed: With the epoch, it gives the order.
        first_epoch: The first epoch, counted from 0.
        epochs: The last one plus 1.
        batch_of: Makes a batch of the indices (shape (batch,), int32) and the
            epoch (shape (), int64).
        drop_remainder: Whether the examples that do not fill a last batch are
            left out of an epoch.
        in_order: Every epoch as the examples come.
    """

    def epoch_of(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.range(count)
        if not in_order:
            order = tf.random.experimental.stateless_shuffle(
                order, seed=tf.stack([tf.cast(seed, tf.int64), epoch])
            )
        indices = tf.data.Dataset.from_tensor_slices(order)
        batches = indices.batch(batch_size, drop_remainder=drop_remainder)
        return batches.map(
            lambda chosen: batch_of(chosen, epoch), num_parallel_calls=1
        )

    pipeline = tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch_of)
    return untuned(pipeline.prefetch(2))


def untuned(pipeline: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the pipeline without tf.data's tuner.

    The end of an iterator waits for the thread that tunes, and that thread can
    miss the call and sleep on: short epochs then stall for seconds.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return pipeline.with_options(options)
