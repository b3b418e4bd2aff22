"""What people do to a model between two fits, with keras Adam beside it."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from makers import RATE, compiled, dense, fit, two_outputs, values_of

from keras_hybrid import HybridOptimizer, SwitchCallback
from keras_hybrid.triggers import AtEpoch, AtStep

pytestmark = pytest.mark.slow

ADAM = keras.optimizers.Adam
# 4 updates of weights up to 2, with a spacing of 1.2e-7.
ROUNDING = 1e-6


def compile_again(model, optimizer=None):
    """As users do after they have changed what is trained."""
    optimizer = model.optimizer if optimizer is None else optimizer
    model.compile(optimizer, "mse", jit_compile=False)


def fresh(make, kind):
    keras.utils.set_random_seed(1)
    model, x, y = make()
    compile_again(model, kind(RATE))
    return model, x, y


def assert_close(model, other):
    for mine, theirs in zip(model.weights, other.weights, strict=True):
        np.testing.assert_allclose(
            mine, theirs, rtol=ROUNDING, atol=ROUNDING, err_msg=mine.path
        )


def switch_now(model, x, y):
    """One epoch of Adam's and one of SGD's, with the optimizer as it is."""
    before = [v.numpy() for v in model.trainable_variables]
    switch = SwitchCallback(AtEpoch(1), verbose=0)
    history = fit(model, x, y, switch, epochs=2)
    assert np.isfinite(history["loss"]).all()
    assert model.optimizer.has_switched
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert np.isfinite(variable.numpy()).all()
        assert (variable.numpy() != old).any()


# ---- What is trained changes ------------------------------------------------


def frozen_and_thawed(kind):
    """The first layer is trained, is frozen, and is trained again."""
    model, x, y = fresh(two_outputs, kind)
    layer, kernels = model.layers[1], []
    for trainable in (True, False, True):
        layer.trainable = trainable
        compile_again(model)
        fit(model, x, y, epochs=1)
        kernels.append(layer.kernel.numpy())
    return model, x, y, kernels


def test_a_layer_is_frozen_and_thawed_between_fits():
    model, x, y, kernels = frozen_and_thawed(HybridOptimizer)
    other, _, _, _ = frozen_and_thawed(ADAM)
    assert_close(model, other)
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert (kernels[1] != kernels[2]).any()
    switch_now(model, x, y)


def test_a_layer_stays_frozen_through_the_switch():
    model, x, y = fresh(two_outputs, HybridOptimizer)
    fit(model, x, y, epochs=1)
    model.layers[1].trainable = False
    compile_again(model)
    before = model.layers[1].kernel.numpy()
    switch_now(model, x, y)
    np.testing.assert_array_equal(model.layers[1].kernel, before)


# ---- LoRA -------------------------------------------------------------------


def with_lora(kind):
    model, x, y = fresh(dense, kind)
    fit(model, x, y, epochs=1)
    model.layers[0].enable_lora(2)
    return model, x, y


@pytest.mark.parametrize("kind", [ADAM, HybridOptimizer])
def test_lora_needs_a_new_optimizer(kind):
    """As any new weight does: the old one has no slots for it."""
    model, x, y = with_lora(kind)
    compile_again(model)
    with pytest.raises(
        ValueError, match="Unknown variable.*lora_kernel_a.*a new optimizer"
    ):
        fit(model, x, y, epochs=1)


def test_lora_with_a_new_optimizer():
    models = []
    for kind in (HybridOptimizer, ADAM):
        model, x, y = with_lora(kind)
        kernel = model.layers[0]._kernel.numpy()
        compile_again(model, kind(RATE))
        fit(model, x, y, epochs=1)
        np.testing.assert_array_equal(model.layers[0]._kernel, kernel)
        models.append(model)
    assert_close(*models)
    switch_now(models[0], x, y)


@pytest.mark.parametrize("kind", [ADAM, HybridOptimizer])
def test_a_file_adds_lora_to_the_kernel(kind, tmp_path):
    """So that no training goes on from it exactly: ExactBackup's does."""
    model, x, y = compiled("lora", kind)
    fit(model, x, y, epochs=1)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6
    )
    layer, loaded = model.layers[-1], again.layers[-1]
    assert np.abs(layer.lora_kernel_b).max() > 0
    np.testing.assert_array_equal(loaded.lora_kernel_b, 0)
    assert (loaded._kernel.numpy() != layer._kernel.numpy()).any()


# ---- Quantized --------------------------------------------------------------


def quantized(kind):
    model, x, y = fresh(dense, kind)
    fit(model, x, y, epochs=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Layer InputLayer does not")
        model.quantize("int8")
    return model, x, y


@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
def test_a_quantized_model_trains_its_biases(new):
    """Integers have no gradients: what is left is trained, as with Adam."""
    models = []
    for kind in (HybridOptimizer, ADAM):
        model, x, y = quantized(kind)
        if new:
            compile_again(model, kind(RATE))
        assert {v.name for v in model.trainable_variables} == {"bias"}
        fit(model, x, y, epochs=1)
        models.append(model)
    assert_close(*models)
    kernels = [v.numpy() for v in models[0].non_trainable_variables]
    assert "int8" in {str(kernel.dtype) for kernel in kernels}
    switch_now(models[0], x, y)
    for before, after in zip(
        kernels, models[0].non_trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(before, after)


# ---- Exported ---------------------------------------------------------------


@pytest.mark.parametrize("switched", [False, True], ids=["adam", "sgd"])
def test_an_exported_model_computes_the_same(switched, tmp_path):
    trigger = AtStep(1) if switched else None
    model, x, y = compiled("bert", HybridOptimizer, trigger=trigger)
    fit(model, x, y, epochs=1)
    before = values_of(model)
    model.export(tmp_path / "model", verbose=False)
    for (path, value), (_, other) in zip(before, values_of(model), strict=True):
        np.testing.assert_array_equal(value, other, err_msg=path)
    exported = tf.saved_model.load(tmp_path / "model")
    np.testing.assert_allclose(
        exported.serve(x), model.predict(x, verbose=0), rtol=0, atol=ROUNDING
    )
    fit(model, x, y, epochs=1)
    assert (values_of(model)[0][1] != before[0][1]).any()
    assert model.optimizer.has_switched == switched
