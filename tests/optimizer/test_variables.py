"""Whatever variables there are: frozen, shared, sparse, in half precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from inside import slots, state
from small import (
    BATCH,
    assert_equal_weights,
    dense_model,
    largest_difference,
    random_gradients,
    regression_data,
    slow_but,
    tolerance,
    weights_of,
)

from keras_hybrid import HybridOptimizer, SwitchCallback
from keras_hybrid.transitions import Blend
from keras_hybrid.triggers import AtEpoch, AtStep, ProjectionConverged


def test_frozen_layers_stay():
    model = dense_model()
    model.layers[0].trainable = False
    before = weights_of(model.layers[0].variables)
    optimizer = HybridOptimizer(0.01, trigger=AtStep(3))
    model.compile(optimizer, "mse")
    x, y = regression_data()
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    assert (
        largest_difference(weights_of(model.layers[0].variables), before) == 0
    )
    assert optimizer.switch_step == 3
    assert len(slots(optimizer, "first_moment")) == 2


def test_partial_variable_lists_are_adams():
    # Built for all, each update for some: as Keras' Adam does.
    gradients = random_gradients(6)
    results = []
    for optimizer in (
        HybridOptimizer(0.01, jit_compile=False),
        keras.optimizers.Adam(0.01),
    ):
        variables = dense_model().trainable_variables
        optimizer.build(variables)
        for step, gradient in enumerate(gradients):
            part = [0, 1] if step % 2 else [2, 3]
            optimizer.apply(
                [tf.constant(gradient[i], "float32") for i in part],
                [variables[i] for i in part],
            )
        results.append(weights_of(variables))
    assert_equal_weights(*results, tolerance("float32"))


@pytest.mark.parametrize(
    "scope", slow_but({"variable"}, ["model", "layer", "variable"])
)
def test_partial_variable_lists_switch(scope):
    optimizer = HybridOptimizer(
        0.01, trigger=AtStep(4), scope=scope, jit_compile=False
    )
    variables = dense_model("float64").trainable_variables
    optimizer.build(variables)
    for step, gradient in enumerate(random_gradients(8)):
        part = [0, 1] if step % 2 else [2, 3]
        optimizer.apply(
            [tf.constant(gradient[i]) for i in part],
            [variables[i] for i in part],
        )
    assert optimizer.switch_step == 4
    assert (state(optimizer, "sgd_scale").numpy() > 0).all()
    assert all(np.isfinite(w).all() for w in weights_of(variables))


def test_none_gradients_warn_and_leave_the_variable():
    a, b = keras.Variable([1.0, 2.0]), keras.Variable([1.0, 2.0])
    optimizer = HybridOptimizer(0.01, trigger=AtStep(2), jit_compile=False)
    optimizer.build([a, b])
    for _ in range(4):
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            optimizer.apply([tf.constant([1.0, 1.0]), None], [a, b])
    np.testing.assert_array_equal(b, [1.0, 2.0])
    assert np.isfinite(a.numpy()).all() and float(a.numpy()[0]) < 1.0
    assert optimizer.switch_step == 2
    with pytest.raises(ValueError, match="No gradients provided"):
        optimizer.apply([None, None], [a, b])


@pytest.mark.slow
@pytest.mark.parametrize(
    "jit_compile",
    [pytest.param("auto", marks=pytest.mark.slow), False],
    ids=str,
)
def test_mixed_dtypes_in_one_model(jit_compile):
    variables = [
        keras.Variable([1.0, 2.0], dtype=d)
        for d in ("float64", "float32", "bfloat16")
    ]
    optimizer = HybridOptimizer(
        0.01, trigger=AtStep(4), transition=Blend(3), jit_compile=jit_compile
    )
    references = [keras.Variable([1.0, 2.0], dtype="float64")]
    alone = HybridOptimizer(
        0.01, trigger=AtStep(4), transition=Blend(3), jit_compile=False
    )
    for step in range(10):
        gradient = [0.5, 1.0 + 0.25 * step]
        optimizer.apply(
            [tf.constant(gradient, v.dtype) for v in variables], variables
        )
        alone.apply([tf.constant(gradient, "float64")], references)
    expected = references[0].numpy()
    for variable, atol in zip(variables, (1e-10, 1e-5, 0.08), strict=True):
        np.testing.assert_allclose(
            np.asarray(variable, "float64"), expected, atol=atol
        )


def test_embedding_gradients_are_summed_over_duplicates():
    start = np.arange(12, dtype="float32").reshape(4, 3)
    table, dense = keras.Variable(start), keras.Variable(start)
    optimizer = HybridOptimizer(0.01)
    adam = keras.optimizers.Adam(0.01)
    for step in range(6):
        values = np.ones((3, 3), "float32") * [[1.0], [2.0], [step - 2.0]]
        slices = tf.IndexedSlices(
            tf.constant(values, "float32"),
            tf.constant([1, 3, 1]),
            tf.constant([4, 3]),
        )
        optimizer.apply([slices], [table])
        adam.apply([tf.convert_to_tensor(slices)], [dense])
    np.testing.assert_allclose(table, dense, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"clipnorm": 0.5}, marks=pytest.mark.slow),
        pytest.param({"global_clipnorm": 0.5}, marks=pytest.mark.slow),
        pytest.param({"clipvalue": 0.01}, marks=pytest.mark.slow),
        pytest.param({"use_ema": True}, marks=pytest.mark.slow),
        pytest.param(
            {"gradient_accumulation_steps": 2}, marks=pytest.mark.slow
        ),
    ],
    ids=str,
)
def test_embedding_models_train(options):
    tokens = np.tile([[0, 1, 1], [2, 1, 3]], (8, 1))
    labels = np.tile([[0.0], [1.0]], (8, 1)).astype("float32")
    results = []
    for dense in (False, True):
        keras.utils.set_random_seed(0)
        embedding = keras.layers.Embedding(5, 2)
        head = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
        model = keras.Sequential([keras.Input((3,)), embedding, head])
        optimizer = HybridOptimizer(
            0.05, trigger=AtStep(3), jit_compile=False, **options
        )
        for _ in range(8):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(tokens) - labels))
            gradients = tape.gradient(loss, model.trainable_variables)
            assert isinstance(gradients[0], tf.IndexedSlices)
            if dense:
                gradients[0] = tf.convert_to_tensor(gradients[0])
            optimizer.apply(gradients, model.trainable_variables)
        results.append(weights_of(model.trainable_variables))
    assert_equal_weights(*results, 1e-5)


@pytest.mark.slow
def test_constraints_and_regularizers_hold_in_both_phases():
    model = dense_model(kernel_constraint="non_neg", kernel_regularizer="l2")
    optimizer = HybridOptimizer(0.1, trigger=AtStep(4))
    model.compile(optimizer, "mse")
    x, y = regression_data()
    for _ in range(2):
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
        kernel = model.layers[0].kernel.numpy()
        assert kernel.min() == 0 and kernel.max() > 0
    assert optimizer.switch_step == 4


@pytest.mark.slow
def test_shared_layers_have_one_slot():
    layer = keras.layers.Dense(3)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layer(keras.ops.tanh(layer(inputs))))
    optimizer = HybridOptimizer(0.01, trigger=AtStep(2), scope="layer")
    model.compile(optimizer, "mse")
    x, _ = regression_data()
    model.fit(x, x, batch_size=BATCH, shuffle=False, verbose=0)
    assert len(slots(optimizer, "first_moment")) == 2
    assert list(optimizer.switch_steps.values()) == [2]


@pytest.mark.slow
def test_batch_normalization_and_dropout_train():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(2),
        ]
    )
    optimizer = HybridOptimizer(
        0.01, trigger=AtStep(10), transition=Blend(4), scope="layer"
    )
    model.compile(optimizer, "mse")
    x, y = regression_data()
    history = model.fit(x, y, batch_size=BATCH, epochs=3, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert set(optimizer.switch_steps.values()) == {10}
    assert len(optimizer.switch_steps) == 3
    # The moving statistics are no weights.
    assert len(slots(optimizer, "first_moment")) == 6


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def fit_policy_model(optimizer, **fit_arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, "tanh"),
            keras.layers.Dense(2, dtype="float32"),
        ]
    )
    model.compile(optimizer, "mse")
    x, y = regression_data()
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, **fit_arguments)
    return model


@pytest.mark.parametrize(
    "policy",
    slow_but({"mixed_float16"}, ["mixed_float16", "mixed_bfloat16"]),
    indirect=True,
)
def test_mixed_precision_is_adams_then_switches(policy):
    model = fit_policy_model(HybridOptimizer(0.01, jit_compile=False), epochs=3)
    reference = fit_policy_model(keras.optimizers.Adam(0.01), epochs=3)
    # Half-precision gradients: a rounding of w may change their last bit.
    assert_equal_weights(
        weights_of(model.trainable_variables),
        weights_of(reference.trainable_variables),
        2e-3,
    )
    inner = HybridOptimizer(0.01, trigger=AtStep(5))
    model = fit_policy_model(inner)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (
        policy == "mixed_float16"
    )
    assert inner.switch_step == 5
    assert all(
        np.isfinite(w).all() for w in weights_of(model.trainable_variables)
    )


@pytest.mark.parametrize("n", [0, 3], ids=["sgd", "adam"])
def test_non_finite_gradients_are_skipped_by_loss_scaling(n):
    inner = HybridOptimizer(
        0.01,
        trigger=AtStep(n),
        sgd_learning_rate=0.1,
        jit_compile=False,
    )
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
    w = keras.Variable([1.0, 2.0])
    optimizer.apply([tf.constant([8.0, 8.0])], [w])
    before = [v.numpy() for v in (w, *inner.variables)]
    optimizer.apply([tf.constant([np.inf, 8.0])], [w])
    after = [v.numpy() for v in (w, *inner.variables)]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    for _ in range(3):
        optimizer.apply([tf.constant([8.0, 8.0])], [w])
    # Four finite updates in all.
    assert int(inner.iterations) == 4 and inner.has_switched
    assert inner.switch_step == n


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [{"trigger": ProjectionConverged()}, {"sgd_scale": "norm"}],
    ids=repr,
)
def test_sums_of_an_embedding_in_mixed_precision(arguments):
    """Its gradient has no shape of its own inside the loss scale's `cond`."""
    half = keras.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(10, 3, dtype=half),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    optimizer = HybridOptimizer(1e-2, **arguments)
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer), "mse")
    x = np.arange(32).reshape(8, 4) % 10
    history = model.fit(x, np.ones((8, 2)), epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.filterwarnings("ignore:The model does not have any trainable")
def test_a_model_without_trainable_weights_switches():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.trainable = False
    model.compile(HybridOptimizer(), "mse")
    x = np.ones((4, 2))
    callback = SwitchCallback(AtEpoch(1), verbose=0)
    model.fit(x, x[:, :1], epochs=2, callbacks=[callback], verbose=0)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_empty_variable_has_no_part_in_the_rate(place):
    rates = []
    for with_empty in (True, False):
        values = [np.ones(2), np.ones((2, 3))]
        if with_empty:
            values.insert(place, np.ones((0,)))
        variables = [keras.Variable(v, dtype="float32") for v in values]
        optimizer = HybridOptimizer(0.01)
        for _ in range(3):
            optimizer.apply([0.5 * v for v in variables], variables)
        optimizer.switch()
        rates.append(optimizer.sgd_learning_rate_equivalent)
    assert rates[0] == pytest.approx(rates[1])
