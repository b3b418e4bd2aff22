"""Ten planted divergences: what DivergenceGuard makes of them.

    python benchmarks/divergences.py

Each row trains the MLP (256-256) on mnist-5k three times from one seed:
undisturbed, with the divergence planted and the guard, and with it and no
guard. All train 12 epochs in batches of 64: Adam, a switch to SGD at a random
update, with the library's estimate of its scale, and a cosine cool-down to the
end. The undisturbed run has the guard too, which must not step in.

Planted are an SGD scale 30 to 1000 times too large, and at a random update of
the SGD phase: a batch of NaNs, a batch with pixels a million times too large
and wrong labels, four such batches in a row, weights multiplied by minus a
thousand or made NaN. A recovered run counts if its test accuracy (1,000
images) is at most 0.5 points below the undisturbed one's.

Writes benchmarks/divergences.json after each row; a killed run goes on there.
"""

import dataclasses
import json
import math
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_hybrid import (
    DivergenceGuard,
    HybridOptimizer,
    SwitchCallback,
    batches,
    transitions,
    triggers,
)
from keras_hybrid._support import files
from keras_hybrid._support.versions import versions
from keras_hybrid.study import architectures, datasets

RESULT = Path(__file__).with_suffix(".json")
EPOCHS, BATCH = 12, 64
MULTIPLIER = 1.0
# Points of test accuracy that a recovered run may lack.
ALLOWED = 0.5


@dataclasses.dataclass(frozen=True)
class Planted:
    """A divergence: what goes wrong, and by how much.

    The seed is that of weights and data, and draws the updates of the switch
    and of the divergence.
    """

    seed: int
    kind: str
    factor: float = math.nan
    count: int = 1


PLANTED = [
    Planted(0, "scale", 30),
    Planted(1, "scale", 100),
    Planted(2, "scale", 300),
    Planted(3, "scale", 1000),
    Planted(4, "pixels"),
    Planted(5, "pixels", count=4),
    Planted(6, "pixels", 1e6),
    Planted(7, "pixels", 1e6, count=4),
    Planted(8, "weights", -1e3),
    Planted(9, "weights"),
]


class SpoiltWeights(keras.callbacks.Callback):
    """Multiplies the weights after an update, as a fault in memory might."""

    def __init__(self, update, factor):
        super().__init__()
        self.update, self.factor, self.done = update, factor, 0

    def on_train_batch_begin(self, batch, logs=None):
        """Counts the updates."""
        if self.done == self.update:
            for variable in self.model.trainable_variables:
                variable.assign(variable * self.factor)
        self.done += 1


def when(planted, steps):
    """The updates of the switch and of the divergence."""
    random = np.random.default_rng(planted.seed)
    total = EPOCHS * steps
    switch = int(random.integers(total // 4, total // 2))
    # In the scale's case the switch itself is the divergence.
    return switch, int(random.integers(switch + 1, total - steps))


def training(data, planted, at):
    """Batches of all epochs, with the planted ones among them."""
    images, labels = data.train
    mean, deviation = data.moments
    x = tf.constant((images / 255 - mean) / deviation, "float32")
    y = tf.constant(labels, "int32")
    stream = batches.shuffled(
        len(images),
        BATCH,
        planted.seed,
        0,
        EPOCHS,
        lambda chosen, epoch: (tf.gather(x, chosen), tf.gather(y, chosen)),
        drop_remainder=True,
    )
    if at is None:
        return stream

    @tf.autograph.experimental.do_not_convert
    def spoil(number, batch):
        bad = tf.logical_and(number >= at, number < at + planted.count)
        factor = tf.where(bad, tf.constant(planted.factor, "float32"), 1.0)
        # Wrong labels too: for a large factor the right ones have no loss.
        labels = tf.where(bad, (batch[1] + 1) % data.classes, batch[1])
        return batch[0] * factor, labels

    return stream.enumerate().map(spoil)


def run(data, planted, *, disturbed, guarded):
    """One training; returns what the record keeps."""
    keras.utils.set_random_seed(planted.seed)
    steps = len(data.train[1]) // BATCH
    switch, at = when(planted, steps)
    multiplier = MULTIPLIER
    if disturbed and planted.kind == "scale":
        multiplier *= planted.factor
    model = architectures.build("mlp", data.image_shape, data.classes)
    model.compile(
        HybridOptimizer(
            1e-3,
            scale_multiplier=multiplier,
            trigger=triggers.AtStep(switch),
            cooldown=transitions.Cooldown(),
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    callbacks = [SwitchCallback(verbose=0)]
    if disturbed and planted.kind == "weights":
        callbacks.append(SpoiltWeights(at, planted.factor))
    if guarded:
        callbacks.append(DivergenceGuard(verbose=1))
    spoilt = at if disturbed and planted.kind == "pixels" else None
    started = time.perf_counter()
    history = model.fit(
        training(data, planted, spoilt),
        epochs=EPOCHS,
        steps_per_epoch=steps,
        shuffle=False,
        callbacks=callbacks,
        verbose=0,
    ).history
    seconds = time.perf_counter() - started
    mean, deviation = data.moments
    images, labels = data.test
    _, accuracy = model.evaluate(
        (images / 255 - mean) / deviation, labels, verbose=0
    )
    return {
        "test_accuracy": 100 * accuracy,
        "loss": history["loss"],
        "divergences": history.get("divergences", [None])[-1],
        "switch_step": model.optimizer.switch_step,
        "sgd_learning_rate": history["sgd_learning_rate"],
        "seconds": seconds,
    }


def row(data, planted):
    """The three trainings of one planted divergence."""
    switch, at = when(planted, len(data.train[1]) // BATCH)
    runs = {
        "undisturbed": run(data, planted, disturbed=False, guarded=True),
        "recovered": run(data, planted, disturbed=True, guarded=True),
        "unguarded": run(data, planted, disturbed=True, guarded=False),
    }
    lacking = (
        runs["undisturbed"]["test_accuracy"]
        - runs["recovered"]["test_accuracy"]
    )
    return {
        **dataclasses.asdict(planted),
        "switch": switch,
        "at": switch if planted.kind == "scale" else at,
        "lacking": lacking,
        "counts": bool(lacking <= ALLOWED + 1e-6),
        "runs": runs,
    }


def main():
    """Trains the rows that are not in the file yet, and writes the table."""
    rows = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    data = datasets.load("mnist-5k")
    for planted in PLANTED[len(rows) :]:
        rows.append(row(data, planted))
        files.write_json(RESULT, {"versions": versions(), "rows": rows})
    print(
        "| planted | at update | undisturbed, % | recovered, % | lacking, "
        "points | divergences | without the guard, % |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    for r in rows:
        found = [run["divergences"] for run in r["runs"].values()]
        accuracies = [run["test_accuracy"] for run in r["runs"].values()]
        # NaN is null in JSON.
        factor = math.nan if r["factor"] is None else r["factor"]
        times = f", {r['count']} batches" if r["count"] > 1 else ""
        print(
            f"| {r['kind']} x {factor:g}{times} | {r['at']} "
            f"| {accuracies[0]:.1f} | {accuracies[1]:.1f} "
            f"| {r['lacking']:+.1f} | {found[1]} | {accuracies[2]:.1f} |"
        )
    stepped_in = sum(r["runs"]["undisturbed"]["divergences"] for r in rows)
    print(sum(r["counts"] for r in rows), "of", len(rows), "recovered;")
    print(stepped_in, "divergences found in undisturbed runs")


if __name__ == "__main__":
    main()
