"""Epochs of `fit`, each optimizer in a process of its own."""

import contextlib
import dataclasses
import functools

import measures
import optimizers
from workers import Worker

ALL = (
    optimizers.ADAM,
    optimizers.OURS,
    optimizers.ADAMW,
    optimizers.OURS_DECAY,
)


@dataclasses.dataclass(frozen=True)
class Case:
    """How often fresh processes start, and how many epochs follow the first."""

    starts: int
    epochs: int
    contenders: tuple = ALL


CASES = {
    # The first epoch counts here.
    "MLP 512-512": Case(5, 1, ALL[:2]),
    "residual CNN": Case(2, 2, ALL[:2]),
    "ResNet50": Case(1, 4),
    "MobileNetV2": Case(1, 4),
    "transformer encoder": Case(1, 4),
    "two towers": Case(1, 4),
}


def measure(name, quick):
    """Times first and later epochs in turns, in seconds."""
    case = CASES[name]
    first = {contender: [] for contender in case.contenders}
    later = {contender: [] for contender in case.contenders}
    for _ in range(1 if quick else case.starts):
        with contextlib.ExitStack() as stack:
            times = {}
            for contender in case.contenders:
                worker = stack.enter_context(
                    Worker("trainings.Training", contender, quick)
                )
                worker.ask("start", name)
                times[contender] = functools.partial(worker.ask, "epoch")
            for found, rounds in ((first, 1), (later, case.epochs)):
                rounds = 1 if quick else rounds
                for key, taken in measures.in_turns(times, rounds).items():
                    found[key] += taken
    return {
        "first_epoch_s": measures.spreads(first),
        "epoch_s": measures.spreads(later),
    }
