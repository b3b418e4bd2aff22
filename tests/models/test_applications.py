"""keras.applications: the smallest of each family, on its smallest images."""

import keras
import numpy as np
import pytest
from makers import values_of, variables_of
from small import Kill, Killed, quiet_fit

from keras_hybrid import ExactBackup, HybridOptimizer, SwitchCallback
from keras_hybrid.triggers import AtEpoch

RATE = 1e-3
EPOCHS = 3  # Of one update each.
# The smallest of each family, and the side of the smallest image it takes.
SMALLEST = {
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "VGG19": 32,
    "Xception": 71,
}


def family(name):
    """The module that has it."""
    return getattr(keras.applications, name).__module__


def test_no_family_is_missing():
    every = {n for n in dir(keras.applications) if n[0].isupper()}
    listed = SMALLEST.keys() | TOO_LARGE
    assert listed <= every
    assert {family(n) for n in every} == {family(n) for n in listed}


def application(name):
    keras.utils.set_random_seed(0)
    side = SMALLEST[name]
    body = getattr(keras.applications, name)(
        include_top=False,
        weights=None,
        input_shape=(side, side, 3),
        pooling="avg",
    )
    model = keras.Sequential([body, keras.layers.Dense(3)])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, side, side, 3)).astype("float32")
    return model, x, np.eye(4, 3, dtype="float32")


# Not run, as one case takes minutes of a CPU, most of them Keras' own: hundreds
# of layers, or 28 million weights (ConvNeXt).
TOO_LARGE = {
    "ConvNeXtTiny",
    "DenseNet121",
    "InceptionResNetV2",
    "NASNetMobile",
}
# As users have them; of the others tracing and XLA take a minute and more.
COMPILED = ("MobileNet", "VGG16")


def gradients_of(model, x, y):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
    return tape.gradient(loss, model.trainable_variables)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_each_update_is_keras_adams(name):
    """From the same gradients.

    A bias before a batch normalization has a gradient of rounding alone, of
    which Adam makes full steps: two trainings would soon be apart.
    """
    model, x, y = application(name)
    variables = model.trainable_variables
    others = [keras.Variable(v.numpy()) for v in variables]
    optimizer = HybridOptimizer(RATE)
    adam = keras.optimizers.Adam(RATE)
    for _ in range(3):
        grads = gradients_of(model, x, y)
        optimizer.apply(grads, variables)
        adam.apply(grads, others)
        for mine, other in zip(variables, others, strict=True):
            # 1.2e-7 is the spacing of weights up to 2.
            np.testing.assert_allclose(
                mine, other, rtol=0, atol=5e-7, err_msg=mine.path
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_it_switches_and_is_resumed_exactly(name, tmp_path):
    """Two promises of one training, as each of these takes its time."""
    model, x, y = application(name)
    is_compiled = name in COMPILED
    model.compile(
        HybridOptimizer(RATE, jit_compile="auto" if is_compiled else False),
        "mse",
        jit_compile=False,
        run_eagerly=not is_compiled,
    )
    model.optimizer.build(model.trainable_variables)
    start = values_of(model)

    def train(*more):
        """As a new process would, with the model made once."""
        for variable, (_, value) in zip(
            variables_of(model), start, strict=True
        ):
            variable.assign(value)
        switch = SwitchCallback(AtEpoch(2), verbose=0)
        arguments = {"x": x, "y": y, "batch_size": len(x), "epochs": EPOCHS}
        return quiet_fit(model, switch, *more, **arguments)

    history = train()
    whole = values_of(model)
    assert model.optimizer.switch_step == 2
    assert all(np.isfinite(value).all() for _, value in whole)
    # The second epoch is Adam's, and decides the third's rho.
    backup = ExactBackup(tmp_path / "backup.npz")
    with pytest.raises(Killed):
        train(backup, Kill(1, at_end=True))
    again = train(ExactBackup(tmp_path / "backup.npz"))
    assert repr(again) == repr(history)
    for (path, value), (_, other) in zip(whole, values_of(model), strict=True):
        np.testing.assert_array_equal(value, other, err_msg=path)
