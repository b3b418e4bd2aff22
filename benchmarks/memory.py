"""Peak memory of an optimizer: its variables, gradients and slots included."""

import functools

import measures
import optimizers
import shapes
from workers import Worker

ROUNDS = 3
CASES = {"25 M": shapes.equal_tensors(25, 34), "ResNet50": None}
CONTENDERS = (optimizers.ADAM, optimizers.OURS)


def measure(name, quick):
    """Measures the contenders in fresh processes, in bytes a weight."""
    sizes = CASES[name] or _variables_of(name)
    if quick:
        sizes = shapes.smaller(sizes)
    taken = {
        contender: functools.partial(_bytes_a_weight, sizes, contender)
        for contender in CONTENDERS
    }
    found = measures.in_turns(taken, 1 if quick else ROUNDS)
    return {
        "weights": shapes.weights_of(sizes),
        "tensors": len(sizes),
        "peak_bytes_a_weight": measures.spreads(found),
    }


def _variables_of(model):
    with Worker("trainings.Training", optimizers.ADAM, False) as worker:
        return worker.ask("shapes", model)


def _bytes_a_weight(sizes, contender):
    peaks = []
    with Worker("contenders.Steps", "TensorFlow") as worker:
        # The first is what TensorFlow and its threads take.
        for variables in ([(1,)], sizes):
            worker.ask("prepare", variables, "function", (contender,))
            peaks.append(worker.ask("peak_bytes", contender))
    return (peaks[1] - peaks[0]) / shapes.weights_of(sizes)
