"""The first step of a model: build, trace and compile, in a fresh process."""

import functools

import measures
import optimizers
from workers import Worker

ROUNDS = 5
CASES = ("ResNet50", "MobileNetV2", "transformer encoder")
CONTENDERS = (optimizers.ADAM, optimizers.OURS)


def measure(name, quick):
    """Times `train_on_batch` with each optimizer, in seconds."""
    times = {
        contender: functools.partial(_seconds, name, contender, quick)
        for contender in CONTENDERS
    }
    found = measures.in_turns(times, 1 if quick else ROUNDS)
    return {"first_step_s": measures.spreads(found)}


def _seconds(model, optimizer, quick):
    with Worker("trainings.Training", optimizer, quick) as worker:
        worker.ask("start", model)
        return worker.ask("first_step")
