"""Epochs of `fit` on a GPU, each optimizer in a process of its own."""

import concurrent.futures
import contextlib
import functools

import measures
import optimizers
from workers import Worker

EPOCHS = 4
COMPARED = (
    optimizers.ADAM,
    optimizers.OURS,
    optimizers.SGD,
    optimizers.OURS_SWITCHED,
)
# The model and Keras' policy of precision.
CASES = (
    ("ResNet50, 256 images", "mixed_bfloat16"),
    ("ResNet50, 256 images", "mixed_float16"),
    ("transformer encoder, 256 texts", "float32"),
)


def measure(quick):
    """Yields seconds of first and later epochs and peak bytes, by case."""
    for model, policy in CASES[:1] if quick else CASES:
        yield {f"{model}, {policy}": _measure(model, policy, quick)}


def _measure(model, policy, quick):
    with (
        contextlib.ExitStack() as stack,
        concurrent.futures.ThreadPoolExecutor(len(COMPARED)) as threads,
    ):
        # They compile at the same time, and then train in turns.
        workers = dict(
            zip(
                COMPARED,
                threads.map(
                    lambda name: Worker("trainings.Training", name, quick),
                    COMPARED,
                ),
                strict=True,
            )
        )
        for worker in workers.values():
            stack.enter_context(worker)

        def first(worker):
            worker.ask("use", policy)
            worker.ask("start", model)
            return worker.ask("epoch")

        firsts = dict(
            zip(COMPARED, threads.map(first, workers.values()), strict=True)
        )
        times = {
            name: functools.partial(worker.ask, "epoch")
            for name, worker in workers.items()
        }
        later = measures.in_turns(times, 1 if quick else EPOCHS)
        peaks = {name: w.ask("device_bytes") for name, w in workers.items()}
    return {
        "first_epoch_s": measures.spreads({k: [s] for k, s in firsts.items()}),
        "epoch_s": measures.spreads(later),
        "peak_bytes": peaks,
    }
