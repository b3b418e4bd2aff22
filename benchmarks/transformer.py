"""A word-level transformer: SGD's tail with each scale, and Adam's.

    nice -n 19 python benchmarks/transformer.py [--seeds 5]

The text is Python's own help (`pydoc_data.topics`), so nothing is fetched. For
each seed one start, Adam at a constant rate for half of the updates, then from
that state each tail: Adam (the control) or SGD, the same windows of the text in
the same order, the same cosine cool-down. What counts is the training loss
after the last update, over every fourth window of the text. Writes one JSON a
run in results/transformer, a seed's runs together when they are finished: the
same command goes on after a kill. Then it prints the table.
"""

import argparse
import math
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_hybrid import HybridOptimizer
from keras_hybrid._support import files, records
from keras_hybrid._support.versions import versions
from keras_hybrid.study import text
from keras_hybrid.study.statistics import mean_interval, paired_difference
from keras_hybrid.study.transformer import language_model
from keras_hybrid.transitions import Cooldown, Hard

FORMAT = 1
CONTROL = "control"
TAILS = {
    CONTROL: {"transition": Hard(end=0.0)},
    "slots_unit": {"sgd_scale": "slots", "scale_scope": "unit"},
    "slots_variable": {"sgd_scale": "slots", "scale_scope": "variable"},
    "slots_layer": {"sgd_scale": "slots", "scale_scope": "layer"},
    "projection_variable": {
        "sgd_scale": "projection",
        "scale_scope": "variable",
    },
}
SETTINGS = {
    "context": 32,
    "width": 128,
    "layers": 2,
    "heads": 4,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "updates": 1000,
    "switch_step": 500,
}
UPDATES_PER_EPOCH = 100
# A tail is level with the control within this much of its training loss.
MARGIN = 0.01


class Data:
    """Windows of the text: those of each update, and a fixed sample."""

    def __init__(self, words: np.ndarray, seed: int, settings: dict) -> None:
        context = settings["context"]
        rng = np.random.default_rng(seed)
        starts = rng.integers(
            0,
            len(words) - context,
            (settings["updates"], settings["batch_size"], 1),
        )
        self.training = words[starts + np.arange(context + 1)]
        every = np.arange(0, len(words) - context, 4 * context)[:, None]
        self.sample = words[every + np.arange(context + 1)]

    def updates(self, first: int, last: int) -> tf.data.Dataset:
        """Returns the batches of some updates."""
        batches = self.training[first:last]
        return tf.data.Dataset.from_tensor_slices(
            (batches[..., :-1], batches[..., 1:])
        )

    def loss(self, model: keras.Model) -> float:
        """Returns the cross-entropy over the sample."""
        return model.evaluate(
            self.sample[:, :-1], self.sample[:, 1:], batch_size=128, verbose=0
        )


def train(model, optimizer, data, first, last):
    """Trains some updates; returns the losses and the seconds of a core."""
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=20,
    )
    began = time.process_time()
    history = model.fit(
        data.updates(first, last),
        epochs=(last - first) // UPDATES_PER_EPOCH,
        steps_per_epoch=UPDATES_PER_EPOCH,
        shuffle=False,
        verbose=0,
    )
    return history.history["loss"], time.process_time() - began


def runs_of_seed(seed: int, settings: dict) -> dict[str, dict]:
    """Trains one start and every tail; returns the records."""
    words, about = text.read()
    data = Data(words, seed, settings)
    switch, updates = settings["switch_step"], settings["updates"]

    def optimizer_with(**arguments):
        return HybridOptimizer(
            settings["learning_rate"],
            cooldown=Cooldown("cosine", steps=updates - switch),
            **arguments,
        )

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = language_model(
        settings["context"],
        about["vocabulary"],
        settings["width"],
        settings["layers"],
        settings["heads"],
    )
    # The one with the most state: the others take what they have of it.
    optimizer = optimizer_with(**TAILS["projection_variable"])
    start, start_seconds = train(model, optimizer, data, 0, switch)
    weights = model.get_weights()
    state = {v.name: v.numpy() for v in optimizer.variables}
    start_loss = data.loss(model)
    records = {}
    for name, arguments in TAILS.items():
        optimizer = optimizer_with(**arguments)
        optimizer.build(model.trainable_variables)
        model.set_weights(weights)
        for variable in optimizer.variables:
            # rho, one a unit, is still to come.
            if variable.name != "sgd_scale":
                variable.assign(state[variable.name])
        optimizer.switch()
        rates = optimizer.sgd_learning_rates
        tail, seconds = train(model, optimizer, data, switch, updates)
        loss = data.loss(model)
        records[name] = {
            "tail": name,
            "seed": seed,
            "configuration": {
                **settings,
                "text": about,
                "optimizer": keras.saving.serialize_keras_object(optimizer),
            },
            "versions": versions(),
            "status": "finished" if math.isfinite(loss) else "diverged",
            "history": {"loss": [*start, *tail]},
            "switch_step": optimizer.switch_step,
            "sgd_learning_rates": rates,
            "training_loss_at_switch": start_loss,
            "training_loss": loss,
            "seconds": {"start": start_seconds, "tail": seconds},
        }
        print(f"seed {seed}, {name}: {loss:.4f}, {seconds:.0f} s", flush=True)
    return records


def is_finished(path: Path, settings: dict) -> bool:
    """Whether there is a record; it must be of these settings."""
    if not records.exists(path):
        return False
    configuration = records.read(path, FORMAT, "run record")["configuration"]
    if any(configuration[name] != value for name, value in settings.items()):
        raise SystemExit(f"{path} is of other settings: give another --output.")
    return True


def table(folder: Path) -> str:
    """Returns the records of a folder as a table in Markdown."""
    losses: dict[str, dict[int, float]] = {}
    library: dict[str, dict[str, None]] = {}
    for path in records.in_folder(folder, "*.json"):
        record = records.read(path, FORMAT, "run record")
        of_tail = losses.setdefault(record["tail"], {})
        version = record["versions"]["keras_hybrid"]
        library.setdefault(record["tail"], {})[version] = None
        if record["status"] == "finished":
            of_tail[record["seed"]] = record["training_loss"]
    lines = [
        ["tail", "training loss", "minus control", f"at most {MARGIN} above"],
        ["---"] * 4,
    ]
    lines[0] += ["finished seeds", "version"]
    lines[1] += ["---"] * 2
    for name in (tail for tail in TAILS if tail in losses):
        found = losses[name]
        shown = ["–"] * 3
        if found:
            shown[0] = "{:.4f} ({:.4f} to {:.4f})".format(
                *mean_interval(list(found.values()))
            )
        if name != CONTROL and found.keys() & losses[CONTROL].keys():
            paired = paired_difference(found, losses[CONTROL])
            shown[1] = "{:+.4f} ({:+.4f} to {:+.4f})".format(*paired[:3])
            shown[2] = "yes" if paired.mean <= MARGIN else "**no**"
        lines.append([name, *shown, str(len(found)), ", ".join(library[name])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Trains the seeds that are not finished, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--output", type=Path, default=Path("results/transformer")
    )
    parser.add_argument("--updates", type=int, default=SETTINGS["updates"])
    options = parser.parse_args()
    half, rest = divmod(options.updates, 2)
    if half < 1 or rest or half % UPDATES_PER_EPOCH:
        parser.error(f"--updates: a multiple of {2 * UPDATES_PER_EPOCH}")
    settings = {**SETTINGS, "updates": options.updates, "switch_step": half}
    for seed in range(options.seeds):
        paths = {n: options.output / f"{n}-seed{seed}.json" for n in TAILS}
        if all(is_finished(path, settings) for path in paths.values()):
            continue
        for name, record in runs_of_seed(seed, settings).items():
            files.write_json(paths[name], {"format": FORMAT, **record})
    print(table(options.output))


if __name__ == "__main__":
    main()
