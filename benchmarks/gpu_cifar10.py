"""CIFAR-10 on a GPU: hybrid, its control, AdamW and SGD on a cosine.

The study's resnet_best, crops and flips, its rate one of three for each arm,
chosen on 5,000 validation images with a seed of its own. The test images are
read once, by the runs with the chosen rates.
"""

import concurrent.futures
import contextlib
import functools
import time

import keras
import numpy as np
from workers import Worker

from keras_hybrid import HybridOptimizer
from keras_hybrid.study import architectures
from keras_hybrid.transitions import Cooldown, Hard
from keras_hybrid.triggers import AtStep

BATCH = 256
DECAY, SGD_DECAY = 0.05, 5e-4
VALIDATION = 5000
TUNING_SEED = 100
MARGIN = 4


def _switching(rate, steps, transition):
    half = steps // 2
    return HybridOptimizer(
        rate,
        trigger=AtStep(half),
        transition=transition,
        cooldown=Cooldown(steps=steps - half),
        weight_decay=DECAY,
    )


def _cosine(rate, steps):
    return keras.optimizers.schedules.CosineDecay(rate, steps)


ADAM_RATES, SGD_RATES = (1e-3, 2e-3, 4e-3), (0.05, 0.1, 0.2)
# Its grid of rates, and an optimizer of a rate and a number of updates.
ARMS = {
    "hybrid": (ADAM_RATES, lambda r, n: _switching(r, n, Hard())),
    # The same cool-down, Adam to the end.
    "control": (ADAM_RATES, lambda r, n: _switching(r, n, Hard(end=0.0))),
    "AdamW, cosine": (
        ADAM_RATES,
        lambda r, n: keras.optimizers.AdamW(_cosine(r, n), weight_decay=DECAY),
    ),
    "SGD, cosine": (
        SGD_RATES,
        lambda r, n: keras.optimizers.SGD(
            _cosine(r, n), momentum=0.9, weight_decay=SGD_DECAY
        ),
    ),
}


@functools.cache
def load(path):
    """Training and test images as uint8, and their labels."""
    with np.load(path) as data:
        return {name: data[name] for name in data.files}


class Batches(keras.utils.PyDataset):
    """Batches in a new order each epoch, cropped and flipped at random."""

    def __init__(self, images, labels, seed):
        super().__init__()
        edges = (MARGIN, MARGIN)
        self._images = np.pad(
            images, ((0, 0), edges, edges, (0, 0)), mode="reflect"
        )
        self._labels = labels
        self._rng = np.random.default_rng(seed)
        self._side = images.shape[1]
        self.on_epoch_end()

    def __len__(self):
        """Whole batches alone."""
        return len(self._labels) // BATCH

    def on_epoch_end(self):
        """Draws the next epoch's order."""
        self._order = self._rng.permutation(len(self._labels))

    def __getitem__(self, index):
        """Returns one batch, near zero mean and unit variance."""
        chosen = self._order[BATCH * index : BATCH * (index + 1)]
        windows = np.lib.stride_tricks.sliding_window_view(
            self._images, (self._side, self._side), axis=(1, 2)
        )
        rows, columns = self._rng.integers(0, 2 * MARGIN + 1, (2, BATCH))
        images = np.moveaxis(windows[chosen, rows, columns], 1, -1)
        flipped = self._rng.random(BATCH) < 0.5
        images = np.where(
            flipped[:, None, None, None], images[:, :, ::-1], images
        )
        return _normalized(images), self._labels[chosen]


def _normalized(images):
    return (images.astype("float32") - 120) / 64


class Run:
    """Trains one arm at a time, in a process of its own.

    Args:
        path: The file of the data.
        epochs: Of each run.
        quick: Few images and a smaller net.
    """

    def __init__(self, path, epochs, quick):
        self._path, self._epochs, self._quick = path, epochs, quick

    def train(self, arm, rate, seed, tests):
        """Returns what one run came to; `tests` reads the test images."""
        started = time.perf_counter()
        keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
        keras.utils.set_random_seed(seed)
        data = load(self._path)
        images, labels = data["x_train"], data["y_train"].astype("int32")
        count = 4 * BATCH if self._quick else len(images) - VALIDATION
        order = np.random.default_rng(0).permutation(len(images))
        batches = Batches(images[order[:count]], labels[order[:count]], seed)
        model = architectures.build(
            "resnet_small" if self._quick else "resnet_best",
            images.shape[1:],
            10,
        )
        updates = self._epochs * len(batches)
        model.compile(
            ARMS[arm][1](rate, updates),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        history = model.fit(batches, epochs=self._epochs, verbose=0).history
        if tests:
            held = data["x_test"], data["y_test"].astype("int32")
        else:
            held = images[order[-VALIDATION:]], labels[order[-VALIDATION:]]
        if self._quick:
            held = tuple(part[:BATCH] for part in held)
        # The last epoch's model, read here alone.
        loss, accuracy = model.evaluate(
            _normalized(held[0]), held[1], batch_size=1000, verbose=0
        )
        return {
            "arm": arm,
            "learning_rate": rate,
            "seed": seed,
            "split": "test" if tests else "validation",
            "accuracy": 100 * accuracy,
            "loss": loss,
            "training_loss": history["loss"],
            "seconds": time.perf_counter() - started,
        }


def measure(path, epochs, seeds, processes, quick):
    """Chooses rates, runs the seeds, many at a time; yields what is done.

    One run alone leaves a GPU idle.
    """
    with (
        contextlib.ExitStack() as stack,
        concurrent.futures.ThreadPoolExecutor(processes) as threads,
    ):
        made = threads.map(
            lambda _: Worker("gpu_cifar10.Run", path, epochs, quick),
            range(processes),
        )
        free = [stack.enter_context(worker) for worker in made]

        def train(run):
            worker = free.pop()
            try:
                return worker.ask("train", *run)
            finally:
                free.append(worker)

        tuning, runs = [], []
        for run in threads.map(
            train,
            [
                (arm, rate, TUNING_SEED, False)
                for arm, (rates, _) in ARMS.items()
                for rate in rates
            ],
        ):
            tuning.append(run)
            yield {"epochs": epochs, "tuning": tuning, "runs": runs}
        for run in threads.map(
            train,
            [
                (arm, _best_rate(arm, tuning), seed, True)
                for seed in range(seeds)
                for arm in ARMS
            ],
        ):
            runs.append(run)
            yield {"epochs": epochs, "tuning": tuning, "runs": runs}


def _best_rate(arm, tuning):
    own = [run for run in tuning if run["arm"] == arm]
    return max(own, key=lambda run: run["accuracy"])["learning_rate"]
