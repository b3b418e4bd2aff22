"""Named architectures: what Keras does not do already."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from images import prepared
from sklearn.datasets import load_sample_images
from small import slow_but

from keras_hybrid.study import architectures, datasets

IMAGES = np.random.default_rng(0).normal(1, 2, (64, 4, 4, 8)).astype("float32")


def learned(layer):
    """Outputs and gradients of a training step, then the moving averages."""
    inputs = tf.Variable(IMAGES)
    with tf.GradientTape() as tape:
        outputs = tf.cast(layer(inputs, training=True), "float32")
        loss = tf.reduce_sum(outputs**3)
    weights = [inputs, *(v.value for v in layer.trainable_variables)]
    gradients = tape.gradient(loss, weights)
    averages = layer.moving_mean, layer.moving_variance
    return [np.array(x) for x in (outputs, *gradients, *averages)]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 0.02)]
)
def test_fused_normalization_is_that_of_keras(dtype, tolerance):
    fused = architectures.FusedNormalization(momentum=0.9, dtype=dtype)
    plain = keras.layers.BatchNormalization(momentum=0.9, dtype=dtype)
    *ours, variance = learned(fused)
    *theirs, biased = learned(plain)
    for one, other in zip(ours, theirs, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, atol=tolerance * scale)
    # What was averaged into the initial 1: divided by n - 1 in place of n.
    count = IMAGES[..., 0].size
    np.testing.assert_allclose(
        (variance - 0.9) * (count - 1) / count, biased - 0.9, rtol=1e-4
    )


@pytest.mark.parametrize("training", [False, True])
def test_a_frozen_fused_normalization_uses_its_moving_averages(training):
    fused = architectures.FusedNormalization()
    fused.build(IMAGES.shape)
    fused.moving_mean.assign(np.full(8, 2.0))
    fused.moving_variance.assign(np.full(8, 4.0))
    fused.trainable = not training
    np.testing.assert_allclose(
        fused(IMAGES, training=training),
        (IMAGES - 2) / np.sqrt(4 + fused.epsilon),
        atol=1e-5,
    )
    np.testing.assert_array_equal(fused.moving_mean, np.full(8, 2.0))


@pytest.mark.parametrize("channels", [1, 3])
def test_contrasts_are_orthonormal_with_both_signs(channels):
    filters = architectures._contrasts(channels).reshape(4 * channels, -1)
    half, other = np.split(filters, 2, axis=1)
    np.testing.assert_allclose(half.T @ half, np.eye(4 * channels), atol=1e-12)
    np.testing.assert_array_equal(other, -half)


def correlated(images):
    """Largest correlation of the 2x2 pixels, and of their contrasts."""
    channels = images.shape[-1]
    count = 4 * channels
    contrasts = architectures._contrasts(channels)[..., :count]
    pixels = np.eye(count).reshape(2, 2, channels, count)
    images = images.astype("float32") - images.mean((0, 1, 2))
    largest = []
    for filters in (pixels, contrasts):
        found = tf.nn.conv2d(images, filters.astype("float32"), 1, "VALID")
        matrix = np.corrcoef(found.numpy().reshape(-1, count).T)
        largest.append(np.abs(matrix - np.eye(count)).max())
    return largest


def test_contrasts_of_grey_photographs_are_nearly_uncorrelated():
    photographs = np.stack(load_sample_images().images)
    before, after = correlated(photographs.mean(-1, keepdims=True))
    assert before > 0.9
    assert after < 0.1


@pytest.mark.slow
def test_contrasts_of_cifar10_are_nearly_uncorrelated():
    prepared("cifar10")
    before, after = correlated(datasets.load("cifar10").train[0][:2000])
    assert before > 0.9
    assert after < 0.15


def test_a_net_of_contrasts_learns_all_but_them():
    model = architectures.build("resnet_best", (16, 16, 3), 5)
    (fixed,) = (
        layer for layer in model.layers if not layer.trainable and layer.weights
    )
    np.testing.assert_array_equal(
        fixed.kernel, architectures._contrasts(3).astype("float32")
    )


@pytest.mark.parametrize(
    "name",
    slow_but({"mlp", "cnn_small", "resnet_best"}, architectures.OF_IMAGES),
)
def test_a_saved_architecture_predicts_the_same(name, tmp_path):
    model = architectures.build(name, (16, 16, 3), 5)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    predicted = model.predict(images, verbose=0)
    assert predicted.shape == (2, 5)
    np.testing.assert_array_equal(again.predict(images, verbose=0), predicted)
