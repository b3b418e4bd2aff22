"""A search by hand: many models in one process, what each costs and leaves."""

import gc
import json
import subprocess
import sys
import time

import keras
import numpy as np
import psutil

from keras_hybrid import HybridOptimizer

MODELS, SETTLED = 40, 10
OPTIMIZERS = {
    "keras Adam": keras.optimizers.Adam,
    "keras_hybrid": HybridOptimizer,
}


def train(optimizer, width):
    """One model of the search: five dense layers, two short epochs."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(640, 64)), rng.integers(0, 10, 640)
    hidden = [keras.layers.Dense(width, "relu") for _ in range(4)]
    model = keras.Sequential(
        [keras.Input((64,)), *hidden, keras.layers.Dense(10)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(OPTIMIZERS[optimizer](1e-3), loss)
    model.fit(x, y, batch_size=32, epochs=2, verbose=0)


def sweep(optimizer):
    """Returns the seconds of each model, and the memory after it."""
    seconds, resident = [], []
    for i in range(MODELS):
        started = time.perf_counter()
        train(optimizer, (64, 96, 128, 160)[i % 4])
        keras.backend.clear_session()
        gc.collect()
        seconds.append(time.perf_counter() - started)
        resident.append(psutil.Process().memory_info().rss)
    return {
        "seconds_a_model": float(np.median(seconds[SETTLED:])),
        "seconds_in_all": sum(seconds),
        # The slope of a line through what is held after each.
        "bytes_a_model": float(
            np.polyfit(range(MODELS - SETTLED), resident[SETTLED:], 1)[0]
        ),
    }


def run(rounds=2):
    """Runs the sweeps in turns, each in a process of its own."""
    results = {kind: [] for kind in OPTIMIZERS}
    for _ in range(rounds):
        for kind, rows in results.items():
            answer = subprocess.run(
                [sys.executable, __file__, kind],
                capture_output=True,
                text=True,
                check=True,
            )
            rows.append(json.loads(answer.stdout.splitlines()[-1]))
            print(kind, rows[-1], flush=True)
    return {
        kind: {
            name: float(np.median([row[name] for row in rows]))
            for name in rows[0]
        }
        for kind, rows in results.items()
    }


if __name__ == "__main__":
    print(json.dumps(sweep(sys.argv[1])))
