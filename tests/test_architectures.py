"""Named architectures: what Keras does not do already."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_hybrid.study import architectures

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


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_a_saved_architecture_predicts_the_same(name, tmp_path):
    model = architectures.build(name, (16, 16, 3), 5)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    predicted = model.predict(images, verbose=0)
    assert predicted.shape == (2, 5)
    np.testing.assert_array_equal(again.predict(images, verbose=0), predicted)
