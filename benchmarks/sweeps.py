"""A search's models one after the other in one process: what each leaves."""

import contextlib
import statistics

import measures
import optimizers
from workers import Worker

ROUNDS = 2
# Models, and those of them after which the memory has settled.
COUNT, SETTLED = 40, 10
WIDTHS = (64, 96, 128, 160)
EPOCHS = 2
CASES = (f"{COUNT} models",)
CONTENDERS = (optimizers.ADAM, optimizers.OURS)


def measure(name, quick):
    """Sweeps in turns, model by model, each optimizer in its own process."""
    seconds = {contender: [] for contender in CONTENDERS}
    left = {contender: [] for contender in CONTENDERS}
    for _ in range(1 if quick else ROUNDS):
        for contender, models in _sweeps(4 if quick else COUNT, quick).items():
            times, resident = zip(*models, strict=True)
            seconds[contender].append(statistics.mean(times))
            after = range(1 if quick else SETTLED, len(models))
            slope, _ = statistics.linear_regression(
                after, [resident[i] for i in after]
            )
            left[contender].append(slope / 1e6)
    return {
        "model_s": measures.spreads(seconds),
        "left_mb_a_model": measures.spreads(left),
    }


def _sweeps(count, quick):
    with contextlib.ExitStack() as stack:
        workers = {
            contender: stack.enter_context(
                Worker("trainings.Training", contender, quick)
            )
            for contender in CONTENDERS
        }
        found = {contender: [] for contender in CONTENDERS}
        for number in range(count):
            width = WIDTHS[number % len(WIDTHS)]
            for contender, worker in workers.items():
                found[contender].append(_model(worker, width))
    return found


def _model(worker, width):
    """The seconds of a model, and the bytes that are held after it."""
    seconds = worker.ask("start", "five dense", width)
    for _ in range(EPOCHS):
        seconds += worker.ask("epoch")
    seconds += worker.ask("end")
    return seconds, worker.ask("resident_bytes")
