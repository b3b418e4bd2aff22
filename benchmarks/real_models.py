"""Real models: the first step (trace and compile), and an epoch of `fit`."""

import gc
import statistics
import subprocess
import sys
import time

import keras
import numpy as np
from keras import layers

from keras_hybrid import HybridOptimizer

DECAY = 0.01
OPTIMIZERS = {
    "keras Adam": lambda: keras.optimizers.Adam(1e-3),
    "keras_hybrid": lambda: HybridOptimizer(1e-3),
    "keras AdamW": lambda: keras.optimizers.AdamW(1e-3, weight_decay=DECAY),
    "keras_hybrid, decay": lambda: HybridOptimizer(1e-3, weight_decay=DECAY),
}
FIRST_ROUNDS = 3
EPOCH_ROUNDS = 3


def resnet50_shapes():
    """The shapes of ResNet50's 161 trainable variables."""
    model = keras.applications.ResNet50(weights=None)
    return [tuple(v.shape) for v in model.trainable_variables]


def _images(application):
    model = application(
        weights=None,
        input_shape=(64, 64, 3),
        classes=10,
        classifier_activation=None,
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(320, 64, 64, 3)).astype("float32")
    return model, x, rng.integers(0, 10, 320), 16


def resnet50():
    """ResNet50 on images of 64x64."""
    return _images(keras.applications.ResNet50)


def mobilenet():
    """MobileNetV2 on images of 64x64."""
    return _images(keras.applications.MobileNetV2)


def encoder():
    """Six layers of a transformer over a vocabulary of 30,000 words."""
    width, heads, length = 128, 4, 32
    tokens = keras.Input((length,), dtype="int32")
    x = layers.Embedding(30_000, width)(tokens)
    for _ in range(6):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(heads, width // heads)(y, y)
        y = layers.LayerNormalization()(x)
        y = layers.Dense(4 * width, activation="gelu")(y)
        x = x + layers.Dense(width)(y)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    model = keras.Model(tokens, layers.Dense(10)(x))
    rng = np.random.default_rng(0)
    return (
        model,
        rng.integers(0, 30_000, (640, length)),
        rng.integers(0, 10, 640),
        16,
    )


def two_towers():
    """Two embeddings of 200,000 rows, compared: sparse gradients."""
    users = keras.Input((), dtype="int32")
    items = keras.Input((), dtype="int32")
    towers = []
    for tower in (users, items):
        x = layers.Embedding(200_000, 32)(tower)
        towers.append(layers.Dense(32)(layers.Dense(64, "relu")(x)))
    score = layers.Dot(axes=1)(towers)
    model = keras.Model([users, items], score)
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 200_000, 2560) for _ in range(2)]
    return model, x, rng.integers(0, 2, 2560), 64


MODELS = {
    "ResNet50": resnet50,
    "MobileNetV2": mobilenet,
    "transformer": encoder,
    "two towers": two_towers,
}


def compiled(name, optimizer):
    """A model with its data, the same each time."""
    keras.utils.set_random_seed(0)
    model, x, y, batch = MODELS[name]()
    if name == "two towers":
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(OPTIMIZERS[optimizer](), loss)
    return model, x, y, batch


def first_steps():
    """Times the first step of each model, each in a process of its own."""
    results = {}
    for name in ("ResNet50", "MobileNetV2", "transformer"):
        seconds = {kind: [] for kind in ("keras Adam", "keras_hybrid")}
        for _ in range(FIRST_ROUNDS):
            for kind, times in seconds.items():
                answer = subprocess.run(
                    [sys.executable, __file__, name, kind],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                times.append(float(answer.stdout.split()[-1]))
        results[name] = {k: _spread(v) for k, v in seconds.items()}
        _say(f"{name}, first step", results[name])
    return results


def epochs():
    """Times epochs of `fit` after the first, in turns."""
    results = {}
    for name in MODELS:
        made = {kind: compiled(name, kind) for kind in OPTIMIZERS}
        seconds = {kind: [] for kind in OPTIMIZERS}
        for round_ in range(EPOCH_ROUNDS + 1):
            for kind, (model, x, y, batch) in made.items():
                started = time.perf_counter()
                model.fit(x, y, batch_size=batch, verbose=0)
                if round_:  # The first compiles.
                    seconds[kind].append(time.perf_counter() - started)
        model = made["keras Adam"][0]
        results[name] = {
            "variables": len(model.trainable_variables),
            "weights": model.count_params(),
            **{k: _spread(v) for k, v in seconds.items()},
        }
        _say(f"{name}, an epoch", results[name])
        del made, model
        keras.backend.clear_session()
        gc.collect()
    return results


def _spread(seconds):
    return {
        "median": statistics.median(seconds),
        "range": [min(seconds), max(seconds)],
    }


def _say(what, times):
    for kind, of in (
        ("keras_hybrid", "keras Adam"),
        ("keras_hybrid, decay", "keras AdamW"),
    ):
        if kind in times:
            ratio = times[kind]["median"] / times[of]["median"]
            print(f"{what}, {kind}: {ratio:.2f} of {of}", flush=True)


def main(name, optimizer):
    """Prints the seconds of the first step in this process."""
    model, x, y, batch = compiled(name, optimizer)
    x, y = x[:batch], y[:batch]
    started = time.perf_counter()
    model.train_on_batch(x, y)
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
