"""Small models of the kinds that people train, each with its data."""

import keras
import numpy as np
from keras import layers, ops
from small import quiet_fit

BATCH, STEPS = 4, 2  # Updates an epoch.
ROWS = BATCH * STEPS
RATE = 0.01


def numbers(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=(ROWS, *shape))
    return values.astype("float32")


def ids(length, seed=0):
    """Rows of ids from 1 on, none of them twice in a batch.

    Keras' Adam squares the gradient of each duplicate alone, and ours is Adam
    of the sum (tests/optimizer/test_conformance.py).
    """
    rng = np.random.default_rng(seed)
    count = BATCH * length
    batches = [1 + rng.permutation(count) for _ in range(STEPS)]
    return np.reshape(batches, (ROWS, length)).astype("int32")


# ---- Kinds of models --------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
class Positions(layers.Layer):
    """Adds a learned vector to each place of a sequence."""

    def build(self, shape):
        self.supports_masking = True
        self.table = self.add_weight(shape=shape[1:], name="table")

    def call(self, x):
        return x + self.table


def bert():
    """Tokens, places, attention with a mask, LayerNormalization, dropout."""
    length, width = 5, 8
    tokens = keras.Input((length,), dtype="int32")
    x = layers.Embedding(BATCH * length + 1, width, mask_zero=True)(tokens)
    x = layers.Dropout(0.1)(layers.LayerNormalization()(Positions()(x)))
    for _ in range(2):
        # A bias of the keys has no gradient, but for rounding.
        attention = layers.MultiHeadAttention(2, 4, dropout=0.1, use_bias=False)
        # With `+` in place of Add the mask would end here.
        x = layers.LayerNormalization()(layers.Add()([x, attention(x, x)]))
        inner = layers.Dense(width)(layers.Dense(16, "gelu")(x))
        x = layers.LayerNormalization()(layers.Add()([x, inner]))
    outputs = layers.Dense(2)(layers.GlobalAveragePooling1D()(x))
    rows = ids(length)
    rows[::BATCH, -1] = 0  # Padding, in one row of a batch.
    return keras.Model(tokens, outputs), rows, numbers(2)


def lstm():
    """Masked sequences of tokens of several lengths."""
    length = 4
    rows = ids(length)
    rows[1::2, 2:] = 0
    model = keras.Sequential(
        [
            keras.Input((length,), dtype="int32"),
            layers.Embedding(BATCH * length + 1, 3, mask_zero=True),
            layers.LSTM(4, return_sequences=True),
            layers.LSTM(3),
            layers.Dense(2),
        ]
    )
    return model, rows, numbers(2)


def towers():
    """Embeddings of users and of items: gradients of a few rows each."""
    user, item = (keras.Input((1,), dtype="int32") for _ in range(2))
    sides = [
        layers.Dense(4)(layers.Flatten()(layers.Embedding(50, 6)(side)))
        for side in (user, item)
    ]
    model = keras.Model([user, item], layers.Dot(-1)(sides))
    return model, [ids(1), ids(1, seed=1)], numbers(1)


def two_outputs():
    """A trunk with batch normalization and two heads."""
    x = keras.Input((4,))
    trunk = layers.Dense(6, use_bias=False)(x)
    trunk = layers.Activation("relu")(layers.BatchNormalization()(trunk))
    heads = [layers.Dense(1, name="one")(trunk), layers.Dense(2)(trunk)]
    return keras.Model(x, heads), numbers(4), [numbers(1), numbers(2)]


def shared():
    """Two inputs through the same layers, and one of these twice in a row."""
    left, right = keras.Input((4,)), keras.Input((4,))
    first, second = layers.Dense(4, "tanh"), layers.Dense(4, "tanh")
    sides = [second(second(first(side))) for side in (left, right)]
    model = keras.Model([left, right], layers.Dot(-1)(sides))
    return model, [numbers(4), numbers(4, seed=1)], numbers(1)


def dense():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(6, "tanh"), layers.Dense(2)]
    )
    return model, numbers(4), numbers(2)


def half():
    """As `dense`, computed in float16."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, "tanh", dtype="mixed_float16"),
            layers.Dense(2),
        ]
    )
    return model, numbers(4), numbers(2)


def lora():
    """Dense layers and an embedding of which only LoRA's parts are trained."""
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            layers.Embedding(BATCH * 3 + 1, 4),
            layers.Flatten(),
            layers.Dense(6, "tanh"),
            layers.Dense(2),
        ]
    )
    for layer in model.layers:
        if hasattr(layer, "enable_lora"):
            layer.enable_lora(2)
    return model, ids(3), numbers(2)


class Gan(keras.Model):
    """Generator and critic, each with an optimizer of its own."""

    def __init__(self):
        super().__init__()
        self.noise = keras.random.SeedGenerator(3)
        self.generator = keras.Sequential(
            [keras.Input((3,)), layers.Dense(6, "relu"), layers.Dense(2)]
        )
        self.critic = keras.Sequential(
            [keras.Input((2,)), layers.Dense(6, "relu"), layers.Dense(1)]
        )
        self.built = True

    def call(self, noise):
        return self.critic(self.generator(noise))

    def train_step(self, real):
        import tensorflow as tf

        noise = keras.random.normal((BATCH, 3), seed=self.noise)
        logits = keras.losses.BinaryCrossentropy(from_logits=True)
        one, zero = ops.ones((BATCH, 1)), ops.zeros((BATCH, 1))
        with tf.GradientTape() as tape:
            made = self.generator(noise)
            loss = logits(one, self.critic(real)) + logits(
                zero, self.critic(made)
            )
        variables = self.critic.trainable_variables
        self.critic_optimizer.apply(tape.gradient(loss, variables), variables)
        with tf.GradientTape() as tape:
            fooled = logits(one, self(noise))
        variables = self.generator.trainable_variables
        self.optimizer.apply(tape.gradient(fooled, variables), variables)
        return {"critic": loss, "loss": fooled}


def gan():
    return Gan(), numbers(2), None


# ---- Compiled ---------------------------------------------------------------


def scaled(optimizer):
    """Its first scale is too high for float16: the first update is skipped."""
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**18)


def plain(optimizer):
    return optimizer


# Of each case: the model, arguments of its optimizers, and what wraps these.
CASES = {
    "bert": (bert, {}, plain),
    "lstm": (lstm, {}, plain),
    "gan": (gan, {}, plain),
    "towers": (towers, {}, plain),
    "two-outputs": (two_outputs, {}, plain),
    "shared": (shared, {}, plain),
    "loss-scale": (half, {}, scaled),
    "ema": (dense, {"use_ema": True, "ema_momentum": 0.8}, plain),
    "lora": (lora, {}, plain),
}


def compiled(name, kind, **options):
    """The model of a case, compiled and built, with its data."""
    make, arguments, wrap = CASES[name]
    keras.utils.set_random_seed(1)
    model, x, y = make()
    arguments = {"learning_rate": RATE, **arguments, **options}
    optimizer = wrap(kind(**arguments))
    if isinstance(model, Gan):
        model.critic_optimizer = kind(**arguments)
        model.critic_optimizer.build(model.critic.trainable_variables)
        optimizer.build(model.generator.trainable_variables)
    else:
        optimizer.build(model.trainable_variables)
    loss = "mse" if not isinstance(y, list) else ["mse"] * len(y)
    model.compile(optimizer, loss, jit_compile=False)
    return model, x, y


def fit(model, x, y, *callbacks, **arguments):
    return quiet_fit(model, *callbacks, x=x, y=y, batch_size=BATCH, **arguments)


def optimizers_of(model):
    """Its optimizers, without what wraps them."""
    found = [model.optimizer, getattr(model, "critic_optimizer", None)]
    return [
        getattr(optimizer, "inner_optimizer", optimizer)
        for optimizer in found
        if optimizer is not None
    ]


def variables_of(model):
    """All weights, seeds, statistics and state of optimizers."""
    variables = [*model.variables, *model.optimizer.variables]
    if isinstance(model, Gan):
        variables += model.critic_optimizer.variables
    return variables


def values_of(model):
    return [(v.path, v.numpy()) for v in variables_of(model)]
