"""Prepared folders of one name and size, with other data in them."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_hybrid.study import datasets, protocol

LABELS = np.arange(60) % 3
OTHER = np.where(np.arange(60) == 50, 0, LABELS)
ONE_SIZE, ANY_SIZE = (8, 8, 1), (None, None, 1)


def stored(place, labels, shape):
    """A folder of TFDS with the images and these labels."""
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 1))
    examples = tf.data.Dataset.from_tensor_slices(
        {"image": images.astype("uint8"), "label": labels}
    )
    builder = tfds.dataset_builders.store_as_tfds_dataset(
        *("tiny", "1.0.0"),
        data_dir=place,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=shape),
                "label": tfds.features.ClassLabel(num_classes=3),
            }
        ),
        split_datasets={
            "train": examples.take(60),
            "test": examples.take(30),
        },
        disable_shuffling=True,
    )
    return str(builder.data_path)


@pytest.mark.parametrize("shape", [ONE_SIZE, ANY_SIZE])
def test_one_label_makes_another_checksum(shape, tmp_path):
    first, again, other = (
        datasets.load(stored(tmp_path / name, labels, shape)).checksum
        for name, labels in (("a", LABELS), ("b", LABELS), ("c", OTHER))
    )
    assert first == again != other
    assert len(first) == 16


def test_a_name_needs_no_checksum():
    assert not datasets.load("mnist-5k").checksum


@pytest.mark.slow
def test_runs_on_other_data_of_the_same_name_are_not_reused(tmp_path):
    def train(labels, name):
        data = datasets.load(stored(tmp_path / name, labels, ONE_SIZE))
        arm = protocol.ARMS["adam"]
        return protocol.train(data, "linear", arm, 0, 1, tmp_path / "out", 16)

    first = train(LABELS, "a")
    assert train(LABELS, "b") == first
    with pytest.raises(ValueError, match=r"another configuration \(checksum\)"):
        train(OTHER, "c")
