"""Splits, pipelines and their errors."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from images import prepared

from keras_hybrid.study import crops, datasets


@pytest.fixture(scope="module")
def digits():
    return datasets.load("mnist-5k")


def small(augmented=False, count=20):
    """Images whose every pixel is their index."""
    values = np.arange(count, dtype="uint8")
    images = np.broadcast_to(
        values[:, None, None, None], (count, 8, 8, 1)
    ).copy()
    part = images, values.astype("int64")
    return datasets.Data("small", part, part, part, count, augmented)


def epochs_of(data, seed, first, last, batch_size=5):
    pipeline, steps = datasets.training_pipeline(
        data, batch_size, seed, first, last
    )
    labels = [y.numpy() for _, y in pipeline]
    assert len(labels) == steps * (last - first)
    return [
        np.concatenate(labels[e * steps : (e + 1) * steps])
        for e in range(last - first)
    ]


def test_embedded_digits_are_split_without_overlap(digits):
    assert digits.sizes == {"train": 3500, "validation": 500, "test": 1000}
    assert digits.image_shape == (28, 28, 1)
    assert digits.classes == 10
    assert digits.train[0].dtype == np.uint8
    # All classes are in every split.
    for split in (digits.train, digits.validation, digits.test):
        assert len(np.unique(split[1])) == 10
    seen = [
        {image.tobytes() for image in part[0]}
        for part in (digits.train, digits.validation, digits.test)
    ]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_train_size_leaves_validation_as_it_is(digits):
    fewer = datasets.load("mnist-5k", train_size=100)
    assert fewer.sizes["train"] == 100
    np.testing.assert_array_equal(fewer.validation[0], digits.validation[0])
    np.testing.assert_array_equal(fewer.train[0], digits.train[0][:100])


def test_few_images_leave_the_classes_as_they_are():
    assert datasets.load("mnist-5k", train_size=2).classes == 10


def test_a_folder_has_the_name_in_its_files(tmp_path):
    folder = tmp_path / "1.0.0"
    folder.mkdir()
    (folder / "dataset_info.json").write_text('{"name": "birds"}')
    assert datasets.short_name(str(folder)) == "birds"
    assert datasets.short_name("mnist") == "mnist"
    (folder / "dataset_info.json").write_text("{")
    assert datasets.short_name(str(folder)) == "1.0.0"


def test_every_epoch_has_each_image_once_in_another_order():
    first, second = epochs_of(small(), seed=0, first=0, last=2)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first.tolist() != second.tolist()


def test_order_is_a_function_of_seed_and_epoch():
    whole = epochs_of(small(), seed=3, first=0, last=4)
    resumed = epochs_of(small(), seed=3, first=2, last=4)
    np.testing.assert_array_equal(whole[2:], resumed)
    other = epochs_of(small(), seed=4, first=0, last=1)
    assert other[0].tolist() != whole[0].tolist()


def test_images_stay_with_their_labels_and_are_scaled():
    data = small()
    mean, std = data.moments
    pipeline, _ = datasets.training_pipeline(data, 5, 0, 0, 1)
    for images, labels in pipeline:
        expected = (labels.numpy() / 255 - mean) / std
        np.testing.assert_allclose(images[:, 0, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(("written", "margin"), [(False, 4), (True, 2)])
def test_augmentation_crops_and_flips_and_repeats_by_seed(written, margin):
    rng = np.random.default_rng(0)
    images = tf.constant(rng.integers(0, 256, (64, 8, 8, 1), dtype="uint8"))
    once, again, other = (
        crops.shifted(
            images, tf.constant(seed, tf.int64), written=written
        ).numpy()
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
    edges = (margin, margin)
    padded = np.pad(images, [(0, 0), edges, edges, (0, 0)], "reflect")
    flips = 0
    for i in range(64):
        windows = {
            (r, c): padded[i, r : r + 8, c : c + 8]
            for r in range(2 * margin + 1)
            for c in range(2 * margin + 1)
        }
        plain = any(np.array_equal(once[i], w) for w in windows.values())
        flipped = any(
            np.array_equal(once[i], w[:, ::-1]) for w in windows.values()
        )
        assert plain or flipped
        flips += flipped and not plain
    # Of 64 fair flips, between 16 and 48 with probability 0.99996.
    assert flips == 0 if written else 16 <= flips <= 48


@pytest.mark.parametrize(
    ("name", "written"), [("mnist", True), ("mnist-5k", True), ("b", False)]
)
def test_digits_are_never_mirrored(name, written, monkeypatch):
    told = []
    monkeypatch.setattr(
        crops,
        "shifted",
        lambda images, seed, *, written: told.append(written) or images,
    )
    data = dataclasses.replace(small(augmented=True), name=name)
    datasets.training_pipeline(data, 5, 0, 0, 1)
    assert told == [written]


def test_cutout_takes_a_square_of_each_image():
    """Around any pixel, the same again for (seed, epoch), and nothing else."""
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (600, 8, 8, 3), dtype="uint8")
    part = images, np.arange(600)
    whole = datasets.Data("small", part, part, part, 600, augmented=True)
    cut = dataclasses.replace(whole, cutout=4)

    def batch(data, seed, epoch):
        pipeline, _ = datasets.training_pipeline(
            data, 600, seed, epoch, epoch + 1
        )
        return next(iter(pipeline))[0].numpy()

    once = batch(cut, 3, 1)
    np.testing.assert_array_equal(once, batch(cut, 3, 1))
    holes = (once == 0).all(-1)
    np.testing.assert_array_equal(once[~holes], batch(whole, 3, 1)[~holes])
    assert (holes != (batch(cut, 3, 2) == 0).all(-1)).any()
    seen = set()
    for hole in holes:
        rows, columns = hole.any(1), hole.any(0)
        np.testing.assert_array_equal(hole, np.outer(rows, columns))
        for side in (rows, columns):
            (inside,) = np.nonzero(side)
            assert np.all(np.diff(inside) == 1)
            # Four, or as many as the edge leaves of them.
            assert len(inside) == 4 or {inside[0], inside[-1]} & {0, 7}
            seen.add((inside[0], inside[-1]))
    # One for each of the eight centers, in rows and in columns.
    assert seen == {(max(0, c - 2), min(7, c + 1)) for c in range(8)}


def test_evaluation_keeps_the_order(digits):
    labels = np.concatenate(
        [y.numpy() for _, y in datasets.evaluation_pipeline(digits, "test")]
    )
    np.testing.assert_array_equal(labels, digits.test[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: datasets.load("mnits"), "one of 'mnist-5k'.*'mnits'"),
        (lambda: datasets.load("mnist-5k", train_size=0), "train_size=0"),
        (
            lambda: datasets.load("mnist-5k", train_size=3501),
            "at most 3500.*train_size=3501",
        ),
        (
            lambda: datasets.training_pipeline(small(), 21, 0, 0, 1),
            "at most the 20 training images.*batch_size=21",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_missing_set_says_what_provides_it(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", refuse
    )
    with pytest.raises(ValueError, match="--data-dir or TFDS_DATA_DIR") as e:
        datasets.load("mnist", data_dir=str(tmp_path))
    assert str(tmp_path) in str(e.value)
    assert "no network" in str(e.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "train", "shape"),
    [
        ("mnist", 55_000, (28, 28, 1)),
        ("fashion_mnist", 55_000, (28, 28, 1)),
        ("cifar10", 45_000, (32, 32, 3)),
    ],
)
def test_full_sets(name, train, shape):
    prepared(name)
    data = datasets.load(name)
    assert data.sizes == {"train": train, "validation": 5000, "test": 10_000}
    assert data.image_shape == shape
    assert data.classes == 10
