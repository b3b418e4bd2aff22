"""ImageNet on TFDS's own builder, with small archives of its real layout."""

import dataclasses
import io
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from images import prepared
from PIL import Image
from sklearn.datasets import load_sample_images

from keras_hybrid.study import arms, crops, datasets, protocol
from keras_hybrid.study.photographs import Photographs

# Two of ImageNet's thousand classes, the last of them too.
SYNSETS = {"n01440764": 0, "n15075141": 999}
TRAIN, VALIDATION = 60, 6


def photograph(rng):
    """A part of a real photograph, of any size and shape, as JPEG."""
    image = load_sample_images().images[rng.integers(2)]
    height, width = rng.integers(40, 90, 2)
    top, left = (rng.integers(0, n - 90) for n in image.shape[:2])
    part = Image.fromarray(image[top : top + height, left : left + width])
    encoded = io.BytesIO()
    part.save(encoded, "JPEG")
    return encoded.getvalue()


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """TFDS's folder with ImageNet's archives where it wants them."""
    folder = tmp_path_factory.mktemp("tfds")
    manual = folder / "downloads" / "manual"
    manual.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with tarfile.open(manual / "ILSVRC2012_img_train.tar", "w") as train:
        for synset in SYNSETS:
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for i in range(TRAIN // 2):
                    add(archive, f"{synset}_{i}.JPEG", photograph(rng))
            add(train, f"{synset}.tar", inner.getvalue())
    with tarfile.open(manual / "ILSVRC2012_img_val.tar", "w") as validation:
        for i in range(VALIDATION):
            name = f"ILSVRC2012_val_{i + 1:08d}.JPEG"
            add(validation, name, photograph(rng))
    return folder


@pytest.fixture(scope="module")
def imagenet(folder):
    return datasets.load("imagenet2012", str(folder), image_size=32)


def test_the_real_builder_reads_the_archives(imagenet):
    assert isinstance(imagenet, Photographs)
    assert imagenet.classes == 1000
    assert imagenet.image_shape == (32, 32, 3)
    # One image in a hundred is held, at least one.
    assert imagenet.sizes == {
        "train": TRAIN - 1,
        "validation": 1,
        "test": VALIDATION,
    }
    batch = next(iter(datasets.evaluation_pipeline(imagenet, "test", 10)))
    assert batch[0].shape == (VALIDATION, 32, 32, 3)
    # As ImageNet's own labels of its first validation images say.
    labels = tfds.core.tfds_path(
        "datasets/imagenet2012/validation_labels.txt"
    ).read_text()
    names = imagenet.builder.info.features["label"].names
    expected = labels.split()[:VALIDATION]
    got = {names[label] for label in batch[1].numpy()}
    assert got == set(expected)


def epoch_of(data, seed, epoch, last=None):
    pipeline, steps = datasets.training_pipeline(
        data, 8, seed, epoch, last or epoch + 1
    )
    batches = list(pipeline.as_numpy_iterator())
    assert len(batches) == steps * ((last or epoch + 1) - epoch)
    return [np.concatenate([b[i] for b in batches]) for i in (0, 1)]


def test_order_and_crops_are_a_function_of_seed_and_epoch(imagenet):
    whole = epoch_of(imagenet, 3, 0, 2)
    again = epoch_of(imagenet, 3, 1)
    for one, other in zip(whole, again, strict=True):
        np.testing.assert_array_equal(one[len(other) :], other)
    other = epoch_of(imagenet, 4, 1)
    assert np.abs(other[0] - again[0]).max() > 0.1
    assert set(np.unique(whole[1])) <= set(SYNSETS.values())
    assert np.isfinite(whole[0]).all()
    # Scaled to the channels' deviations.
    assert 0.3 < whole[0].std() < 3


def test_photographs_lose_a_square_to_cutout(imagenet):
    whole, cut = (
        epoch_of(dataclasses.replace(imagenet, cutout=side), 3, 1)[0]
        for side in (0, 8)
    )
    holes = (cut == 0).all(-1)
    np.testing.assert_array_equal(cut[~holes], whole[~holes])
    sizes = holes.sum((1, 2))
    # A quarter of it where the center is a corner.
    assert sizes.min() >= 16
    assert sizes.max() == 64


def test_png_is_cropped_too():
    image = np.zeros((64, 80, 3), "uint8")
    image[:, :, 1] = 200
    place = tf.constant([1, 2], tf.int64)
    cropped = [
        crops.random_crop(encode(image), place, (16, 16, 3)).numpy()
        for encode in (tf.io.encode_png, tf.io.encode_jpeg)
    ]
    np.testing.assert_allclose(cropped[0], cropped[1], atol=3)
    np.testing.assert_array_equal(cropped[0][..., 1], 200)
    middle = crops.middle(tf.io.encode_png(image), (16, 16, 3))
    np.testing.assert_array_equal(middle[..., 1], 200)


def test_evaluation_takes_the_middle(imagenet):
    # Bright in the middle half, dark around it; twice as wide as high.
    image = np.zeros((64, 128, 3), "uint8")
    image[16:48, 48:80] = 255
    encoded = tf.io.encode_jpeg(image, quality=100)
    middle = crops.middle(encoded, (56, 56, 3)).numpy()
    # 64 rows become 64 of which the middle 56 are left: 4 off each side.
    np.testing.assert_allclose(middle[13:43, 13:43], 255, atol=6)
    np.testing.assert_allclose(middle[:, :11], 0, atol=6)


@pytest.mark.slow
def test_a_model_trains_on_it(imagenet, tmp_path):
    run = protocol.train(
        imagenet, "cnn_tiny", protocol.ARMS["hybrid"], 0, 2, tmp_path, 16
    )
    assert run.status == "finished"
    assert run.switch_step == run.steps_per_epoch == (TRAIN - 1) // 16
    assert run.configuration["images"]["test"] == VALIDATION


def test_missing_archives_are_asked_for(tmp_path):
    with pytest.raises(ValueError, match="archives must be laid"):
        datasets.load("imagenet2012", str(tmp_path))


def test_any_prepared_folder_can_be_given(folder, imagenet):
    path = str(imagenet.builder.data_path)
    again = datasets.load(path, image_size=32)
    assert again.sizes == imagenet.sizes


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "no readable TFDS data set"), ("[", "no readable TFDS data set")],
)
def test_a_damaged_folder_is_named(content, message, tmp_path):
    (tmp_path / "dataset_info.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        datasets.load(str(tmp_path))


def test_a_folder_without_a_data_set_is_no_choice(tmp_path):
    with pytest.raises(ValueError, match="folder of a prepared TFDS"):
        datasets.load(str(tmp_path))


@pytest.fixture
def tiny_imagenet():
    return str(prepared("tiny_imagenet_20") / "1.0.0")


@pytest.mark.slow
def test_a_prepared_folder_is_trained_on(tiny_imagenet, tmp_path):
    data = datasets.load(tiny_imagenet, train_size=256)
    run = protocol.train(
        data, "cnn", arms.ARMS["hybrid"], 0, 2, tmp_path, batch_size=64
    )
    assert run.status == "finished"
    assert run.dataset == "tiny_imagenet_20"
    assert run.switch_step == 4
    assert 0 < run.test_accuracy < 1
    assert list(tmp_path.glob("tiny_imagenet_20-cnn-2epochs/*.json"))


@pytest.mark.slow
def test_images_of_one_size_come_into_memory(tiny_imagenet):
    data = datasets.load(tiny_imagenet)
    # Not the folder's name, which is the version.
    assert data.name == "tiny_imagenet_20"
    assert data.sizes == {"train": 9000, "validation": 1000, "test": 1000}
    assert data.image_shape == (64, 64, 3)
    assert data.classes == 20
    assert data.augmented
