"""One update step, of every library in turns, against the memory limit."""

import functools

import contenders
import measures
import optimizers
import shapes
from workers import Worker

ROUNDS = 7
SECONDS_A_TURN = 0.3
# Reads and writes of 4 bytes a weight at the least; axpy reads x and y and
# writes y.
AXPY_STREAMS = 3
ADAPTIVE = {
    "streams": 7,
    "contenders": (
        contenders.AXPY,
        optimizers.ADAM,
        optimizers.OURS,
        contenders.TF_ADAM,
        contenders.TORCH_ADAM,
        contenders.OPTAX_ADAM,
    ),
}
SWITCHED = {
    "streams": 5,
    "contenders": (
        contenders.AXPY,
        optimizers.SGD,
        optimizers.OURS_SWITCHED,
        optimizers.OURS,
        contenders.TF_SGD,
        contenders.TORCH_SGD,
        contenders.OPTAX_SGD,
    ),
}
CLIPPING = {
    "streams": 8,
    "contenders": (
        contenders.AXPY,
        optimizers.ADAMW_CLIPPING,
        optimizers.OURS_CLIPPING,
        contenders.TORCH_CLIPPING,
        contenders.OPTAX_CLIPPING,
    ),
}
BLENDING = {
    "contenders": (optimizers.ADAM, optimizers.OURS_BLENDING),
}
KERAS_ALONE = {
    "contenders": (optimizers.ADAM, optimizers.OURS, contenders.TF_ADAM),
}
WITH_PROJECTION = {
    **ADAPTIVE,
    "contenders": (*ADAPTIVE["contenders"], optimizers.OURS_PROJECTION),
}
IN_34 = functools.partial(shapes.equal_tensors, count=34)
SMALL = shapes.small_tensors(60)
CASES = {
    "0.1 M": {"shapes": IN_34(0.1), **ADAPTIVE},
    "1 M": {"shapes": IN_34(1), **ADAPTIVE},
    "5 M": {"shapes": IN_34(5), **ADAPTIVE},
    "25 M": {"shapes": IN_34(25), **WITH_PROJECTION},
    "100 M": {"shapes": IN_34(100), **ADAPTIVE},
    "1 M in 8": {"shapes": shapes.MLP, **ADAPTIVE},
    "24 M in 1": {"shapes": shapes.equal_tensors(24, 1), **ADAPTIVE},
    "6 small": {"shapes": shapes.small_tensors(6), **ADAPTIVE},
    "60 small": {"shapes": SMALL, **ADAPTIVE},
    "200 small": {"shapes": shapes.small_tensors(200), **ADAPTIVE},
    "ResNet-20": {"shapes": shapes.resnet20(), **ADAPTIVE},
    "1 M, during a blend": {"shapes": IN_34(1), **BLENDING},
    "25 M, after the switch": {"shapes": IN_34(25), **SWITCHED},
    "25 M, clipping and decay": {"shapes": IN_34(25), **CLIPPING},
    "60 small, eager": {"shapes": SMALL, "caller": "eager", **KERAS_ALONE},
    "1 M in 8, XLA": {"shapes": shapes.MLP, "caller": "xla", **KERAS_ALONE},
    "25 M, XLA": {"shapes": IN_34(25), "caller": "xla", **KERAS_ALONE},
}


@functools.cache
def libraries():
    """The processes of all libraries that are there, until the end."""
    found, missing = [], []
    for library in contenders.LIBRARIES:
        try:
            found.append(Worker("contenders.Steps", library))
        except ModuleNotFoundError as error:
            missing.append(error.name)
    if missing:
        print(
            f"Without {' and '.join(missing)}, whose steps are left out: "
            'pip install -e ".[bench]"',
            flush=True,
        )
    return found


def measure(name, quick):
    """Times the contenders of a case, in milliseconds."""
    case = CASES[name]
    sizes = shapes.smaller(case["shapes"]) if quick else case["shapes"]
    times = {}
    for worker in libraries():
        for contender in worker.ask(
            "prepare",
            sizes,
            case.get("caller", "function"),
            case["contenders"],
        ):
            times[contender] = functools.partial(
                _milliseconds, worker, contender, 0 if quick else SECONDS_A_TURN
            )
    measures.in_turns(times, 1)  # Compiles.
    steps = measures.spreads(measures.in_turns(times, 1 if quick else ROUNDS))
    for worker in libraries():
        worker.ask("prepare", [(1,)], "function", ())
    result = {"weights": shapes.weights_of(sizes), "tensors": len(sizes)}
    if "streams" in case:
        axpy = steps.pop(contenders.AXPY)["median"]
        result["limit_ms"] = axpy * case["streams"] / AXPY_STREAMS
    return {**result, "step_ms": steps}


def _milliseconds(worker, contender, turn):
    return 1e3 * worker.ask("seconds", contender, turn)
