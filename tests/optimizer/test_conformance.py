"""Keras' own optimizer tests, for ours: what an optimizer must do in Keras.

Single steps, clipping, weight decay, the average of the weights, accumulation
and golden numbers are in test_optimizer.py, copies and checkpoints in
test_saving.py.
"""

import pickle
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from inside import slots
from keras import layers
from small import slow_but

from keras_hybrid import HybridOptimizer, SwitchCallback
from keras_hybrid.triggers import AtEpoch, AtStep, ProjectionConverged

ONES = tf.ones((2, 2))


def square():
    return keras.Variable([[1.0, 2.0], [3.0, 4.0]])


def adam_like(learning_rate=1.0, **options):
    return HybridOptimizer(learning_rate, **options)


def sgd_like(learning_rate=1.0, **options):
    """SGD without momentum from the first update on."""
    return HybridOptimizer(
        learning_rate,
        trigger=AtStep(0),
        sgd_scale=1.0,
        momentum=0.0,
        **options,
    )


def switching(learning_rate=1.0, **options):
    return HybridOptimizer(learning_rate, trigger=AtStep(2), **options)


PHASES = pytest.mark.parametrize("make", [adam_like, sgd_like, switching])


# ---- Variables and learning rates -------------------------------------------


def test_iterations_are_counted():
    v, optimizer = square(), switching()
    for count in range(4):
        assert int(optimizer.iterations) == count
        optimizer.apply_gradients([(ONES, v)])
    assert optimizer.apply_gradients([(ONES, v)]) is optimizer.iterations


def test_apply_without_variables_needs_a_built_optimizer():
    v, optimizer = square(), sgd_like()
    with pytest.raises(ValueError, match="must already be built"):
        optimizer.apply([ONES])
    optimizer.build([v])
    optimizer.apply([ONES])
    np.testing.assert_allclose(v, [[0.0, 1.0], [2.0, 3.0]])
    with pytest.raises(ValueError, match="list of 2 gradients"):
        optimizer.apply([ONES, ONES])
    optimizer.apply([])
    assert int(optimizer.iterations) == 1


def test_set_weights_needs_a_built_optimizer_and_its_shapes():
    optimizer = HybridOptimizer()
    with pytest.raises(ValueError, match="has not yet been built"):
        optimizer.set_weights([np.zeros(())])
    optimizer.build([square()])
    with pytest.raises(ValueError, match="not compatible with provided"):
        optimizer.set_weights([np.zeros(3)] * len(optimizer.variables))


def test_names_are_numbered():
    keras.backend.clear_session()
    first, second = HybridOptimizer(), HybridOptimizer()
    assert (first.name, second.name) == (
        "hybrid_optimizer",
        "hybrid_optimizer_1",
    )
    named = HybridOptimizer(name="mine")
    for optimizer in (second, named):
        config = keras.optimizers.serialize(optimizer)
        assert keras.optimizers.deserialize(config).name == optimizer.name
        assert keras.optimizers.get(config).name == optimizer.name
    second.build([square()])
    assert all(v.path.startswith(second.name) for v in second.variables)


def test_a_callable_learning_rate_is_called_each_update():
    rates = iter([0.1, 0.5])
    v, optimizer = square(), sgd_like(lambda: next(rates))
    optimizer.apply([ONES], [v])
    np.testing.assert_allclose(v, [[0.9, 1.9], [2.9, 3.9]], rtol=1e-6)
    optimizer.apply([ONES], [v])
    np.testing.assert_allclose(v, [[0.4, 1.4], [2.4, 3.4]], rtol=1e-6)


def test_a_schedule_in_place_of_a_number_drops_its_variable():
    optimizer = HybridOptimizer(0.001)
    count = len(optimizer.variables)
    optimizer.learning_rate = keras.optimizers.schedules.PolynomialDecay(1, 4)
    assert len(optimizer.variables) == count - 1
    again = HybridOptimizer.from_config(optimizer.get_config())
    assert float(again.learning_rate) == 1.0


def test_tf_variables_are_trained_as_keras_variables():
    v, w = square(), tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    optimizer = switching(0.1, weight_decay=0.1)
    for _ in range(4):
        optimizer.apply_gradients([(ONES, v), (ONES, w)])
    np.testing.assert_array_equal(v, w)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply_gradients([(ONES, v), (None, w)])
    assert np.abs(v.numpy() - w.numpy()).min() > 0
    again = pickle.loads(pickle.dumps(optimizer))
    assert again.switch_step == optimizer.switch_step
    assert int(again.iterations) == 5


def test_stateless_apply_is_as_keras_has_it():
    v, optimizer = square(), HybridOptimizer()
    optimizer.build([v])
    with pytest.raises(ValueError, match="not supported with the TensorFlow"):
        optimizer.stateless_apply(
            [x.value for x in optimizer.variables], [ONES], [v.value]
        )


# ---- What happens after the update ------------------------------------------


def small():
    return (2, 3)


def in_blocks():
    return (300, 300)  # More than blocks.LEAST.


@pytest.mark.parametrize("shape", [small, in_blocks])
@pytest.mark.parametrize("jit_compile", ["auto", False], ids=str)
def test_constraints_hold_after_each_update(shape, jit_compile):
    rng = np.random.default_rng(0)
    start = rng.normal(size=shape()).astype("float32")
    gradient = rng.normal(size=shape()).astype("float32")
    weight, adams = keras.Variable(start), keras.Variable(start)
    weight.constraint = adams.constraint = keras.constraints.NonNeg()
    optimizer = HybridOptimizer(
        0.1,
        trigger=AtStep(2),
        sgd_learning_rate=0.1,
        momentum=0.9,
        jit_compile=jit_compile,
    )
    adam = keras.optimizers.Adam(0.1)
    for _ in range(2):
        optimizer.apply([gradient], [weight])
        adam.apply([gradient], [adams])
        np.testing.assert_allclose(weight, adams, atol=1e-5)
    # m = (1 - 0.9^3) g in the first update of SGD, divided by 1 - 0.9.
    expected = np.maximum(weight.numpy() - 0.271 * gradient, 0)
    optimizer.apply([gradient], [weight])
    np.testing.assert_allclose(weight, expected, atol=1e-5)
    assert (weight.numpy() == 0).mean() > 0.2
    assert optimizer.switch_step == 2


def overwritten():
    """A variable that takes its gradient's value, as float8 training has."""
    v = square()
    v.overwrite_with_gradient = True
    return v


def test_overwritten_variables_under_accumulation():
    v, w = overwritten(), square()
    optimizer = sgd_like(gradient_accumulation_steps=2)
    seen = []
    for gradient in (ONES, 2 * ONES, ONES):
        optimizer.apply_gradients([(gradient, v), (gradient, w)])
        seen.append((float(v[0, 0]), float(w[0, 0])))
    # The larger gradient, and the mean of both.
    assert seen == [(1.0, 1.0), (2.0, -0.5), (2.0, -0.5)]


@pytest.mark.parametrize(
    "scope", slow_but({"layer"}, ["model", "layer", "variable"])
)
def test_overwritten_variables_have_no_slots_and_are_pickled(scope):
    v, w = overwritten(), square()
    optimizer = switching(0.1, scope=scope)
    for _ in range(3):
        optimizer.apply([ONES, ONES], [v, w])
    assert len(slots(optimizer, "first_moment")) == 1
    assert optimizer.switch_step == 2
    again = pickle.loads(pickle.dumps(optimizer))
    for a, b in zip(optimizer.variables, again.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    values = [w.numpy()]
    optimizer.apply([ONES, ONES], [v, w])
    w2 = keras.Variable(values[0])
    again.apply([ONES, ONES], [overwritten(), w2])
    np.testing.assert_array_equal(w, w2)


@pytest.mark.slow
def test_float8_training():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Layer InputLayer does not")
        model.quantize("float8")
    optimizer = HybridOptimizer(0.01, trigger=AtStep(2))
    model.compile(optimizer, "mse")
    x = np.random.default_rng(0).normal(size=(16, 4))
    before = model.get_weights()
    model.fit(x, x[:, :2], batch_size=4, verbose=0)
    assert optimizer.switch_step == 2
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.isfinite(new).all() and (old != new).any()


# ---- Sparse gradients -------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"amsgrad": True, "nesterov": True}, {"clipnorm": 0.1}],
    ids=str,
)
def test_sparse_gradients_are_dense_ones(options):
    sparse, dense = switching(**options), switching(**options)
    a = keras.Variable(np.ones((5, 3, 2), "float32"))
    b = keras.Variable(np.ones((5, 3, 2), "float32"))
    for i in range(4):
        gradient = tf.IndexedSlices(
            tf.ones((3, 3, 2)) * (10.0 - i),
            tf.constant([0, 2, 4]),
            tf.constant([5, 3, 2]),
        )
        sparse.apply([gradient], [a])
        dense.apply([tf.convert_to_tensor(gradient)], [b])
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_duplicate_indices_are_where_keras_adam_differs():
    gradient = tf.IndexedSlices(
        tf.constant([1.0, 1.0]), tf.constant([0, 0]), tf.constant([2])
    )
    seconds = []
    for optimizer in (HybridOptimizer(), keras.optimizers.Adam()):
        optimizer.apply([gradient], [keras.Variable([1.0, 1.0])])
        slots = {v.name: v.numpy() for v in optimizer.variables}
        seconds.append(
            next(
                value[0]
                for name, value in slots.items()
                if name.endswith(("second_moment", "velocity"))
            )
        )
    # The sum's square, (1 - beta_2) 2^2, with beta_2 in float32 as everywhere
    # in the update; Keras' adds the squares, and takes beta_2 from 1 before.
    of_sum = 4 * (1 - np.float32(0.999))
    np.testing.assert_allclose(seconds, [of_sum, 0.002], rtol=1e-6)


# ---- Accumulation and loss scaling ------------------------------------------


@PHASES
def test_accumulation_with_weight_decay_is_the_mean_gradient(make):
    rng = np.random.default_rng(0)
    one, three = (
        make(0.1, weight_decay=0.05, gradient_accumulation_steps=steps)
        for steps in (None, 3)
    )
    a, b = square(), square()
    for _ in range(4):
        gradients = rng.normal(size=(3, 2, 2)).astype("float32")
        one.apply([tf.constant(gradients.mean(0))], [a])
        for gradient in gradients:
            three.apply([tf.constant(gradient)], [b])
    np.testing.assert_allclose(a, b, rtol=1e-5)
    assert one.switch_step == three.switch_step


@PHASES
def test_a_loss_scaled_optimizer_is_the_inner_one(make):
    gradient = tf.constant([[1.0, 6.0], [7.0, 2.0]])
    v, w, u = square(), square(), overwritten()
    plain, inner = make(0.5), make(0.5, loss_scale_factor=100)
    scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=16.0)
    scaled.build([w, u])
    for _ in range(4):
        plain.apply([gradient], [v])
        # The overwritten one is not scaled.
        scaled.apply([gradient * 16.0, gradient])
    np.testing.assert_allclose(v, w, rtol=1e-6)
    np.testing.assert_array_equal(u, gradient)
    before = [x.numpy() for x in inner.variables]
    scaled.apply([gradient * np.inf, gradient])
    np.testing.assert_allclose(v, w, rtol=1e-6)
    assert scaled.scale_loss(1.0) == 8.0
    for old, new in zip(before, inner.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    again = keras.optimizers.LossScaleOptimizer.from_config(scaled.get_config())
    assert again.inner_optimizer.get_config() == inner.get_config()


# ---- Models -----------------------------------------------------------------

ROWS, BATCH, RATE = 32, 8, 0.05
STEPS = 2 * ROWS // BATCH


def functional():
    """A shared layer, two outputs, frozen parts, statistics that move."""
    shared = layers.Dense(4, "tanh")
    x = keras.Input((4,))
    frozen = layers.Dense(4, trainable=False)(shared(x))
    moving = layers.BatchNormalization(momentum=0.5)(frozen)
    outputs = [
        layers.Dense(2, name="a")(shared(moving)),
        layers.Dense(1, name="b", use_bias=False)(moving),
    ]
    return keras.Model(x, outputs), (4,), "float32"


class SubClassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(4, "tanh")
        self.head = layers.Dense(2)

    def call(self, x):
        return self.head(self.hidden(x))


def subclassed():
    """Without variables until `fit` sees the data."""
    return SubClassed(), (4,), "float32"


def recurrent():
    """Tokens with a mask, an embedding with duplicates, LSTM and GRU."""
    return (
        keras.Sequential(
            [
                layers.Embedding(5, 3, mask_zero=True),
                layers.LSTM(3, return_sequences=True),
                layers.GRU(2),
            ]
        ),
        (4,),
        "int32",
    )


def example(make):
    keras.utils.set_random_seed(0)
    model, shape, dtype = make()
    rng = np.random.default_rng(0)
    x = (3 * np.abs(rng.normal(size=(ROWS, *shape)))).astype(dtype)
    if dtype == "int32":
        x = np.minimum(x, 4)
    y = rng.normal(size=(ROWS, 2)).astype("float32")
    outputs = 2 if make is functional else 1
    return model, x, [y, y[:, :1]][:outputs]


def by_keras(make, switch_at):
    """keras Adam, then keras SGD that goes on with Adam's momentum."""
    model, x, targets = example(make)
    model(x[:1])
    variables = model.trainable_variables
    adam = keras.optimizers.Adam(0.01)
    sgd = keras.optimizers.SGD(RATE, momentum=0.9)
    adam.build(variables)
    sgd.build(variables)

    @tf.function
    def gradients(rows, wanted):
        with tf.GradientTape() as tape:
            outputs = model(rows, training=True)
            outputs = outputs if isinstance(outputs, list) else [outputs]
            loss = sum(
                tf.reduce_mean(tf.square(o - t))
                for o, t in zip(outputs, wanted, strict=True)
            )
        # Dense: see the sparse gradients above.
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]

    for step in range(STEPS):
        if step == switch_at:
            for velocity, m in zip(sgd.momentums, adam._momentums, strict=True):
                velocity.assign(-RATE / (1 - 0.9) * m)
        part = slice(step * BATCH % ROWS, step * BATCH % ROWS + BATCH)
        optimizer = adam if step < switch_at else sgd
        optimizer.apply(
            gradients(x[part], [t[part] for t in targets]), variables
        )
    return model.get_weights()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "jit_compile", "callback"),
    [
        (functional, True, True),
        pytest.param(recurrent, False, False, marks=pytest.mark.slow),
        pytest.param(functional, False, False, marks=pytest.mark.slow),
        pytest.param(subclassed, True, True, marks=pytest.mark.slow),
        pytest.param(subclassed, False, False, marks=pytest.mark.slow),
        pytest.param(recurrent, True, True, marks=pytest.mark.slow),
    ],
)
def test_models_train_as_with_keras_adam_then_keras_sgd(
    make, jit_compile, callback
):
    switch_at = ROWS // BATCH if callback else 3
    model, x, targets = example(make)
    optimizer = HybridOptimizer(
        0.01,
        sgd_learning_rate=RATE,
        trigger=None if callback else AtStep(switch_at),
    )
    model.compile(optimizer, ["mse"] * len(targets), jit_compile=jit_compile)
    trigger = AtEpoch(1) if callback else None
    model.fit(
        x,
        targets,
        batch_size=BATCH,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[SwitchCallback(trigger, verbose=0)],
    )
    assert optimizer.switch_step == switch_at
    expected = by_keras(make, switch_at)
    for ours, theirs in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


def test_unfrozen_layers_train_after_a_new_compile():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.Dense(2)]
    )
    model.layers[0].trainable = False
    x = np.random.default_rng(0).normal(size=(16, 4))
    old = HybridOptimizer(0.1, trigger=ProjectionConverged())
    model.compile(old, "mse", run_eagerly=True)
    model.train_on_batch(x, x[:, :2])
    frozen = model.layers[0].get_weights()
    model.layers[0].trainable = True
    model.compile(old, "mse", run_eagerly=True)
    # As keras Adam has it.
    with pytest.raises(ValueError, match="Unknown variable"):
        model.train_on_batch(x, x[:, :2])
    np.testing.assert_array_equal(model.layers[0].get_weights()[0], frozen[0])
    model.compile(HybridOptimizer(0.1), "mse", run_eagerly=True)
    model.train_on_batch(x, x[:, :2])
    assert (model.layers[0].get_weights()[0] != frozen[0]).any()
