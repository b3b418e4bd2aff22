"""The update under TensorFlow's strategies: python benchmarks/replicas.py.

On two logical devices of the CPU, which share its cores: every update is made
twice, and what counts are the ratios. The sum of the gradients over the
replicas is in each time.
"""

import argparse
import functools
from pathlib import Path

import contenders
import measures
import optimizers
import shapes

from keras_hybrid._support import files

RESULT = Path(__file__).with_name("replicas.json")
ROUNDS, SECONDS_A_TURN = 7, 0.3
COMPARED = (
    optimizers.ADAM,
    optimizers.OURS,
    optimizers.SGD,
    optimizers.OURS_SWITCHED,
)
WORKLOADS = {
    "1 M in 8": shapes.MLP,
    "60 small": shapes.small_tensors(60),
    "25 M in 34": shapes.equal_tensors(25, 34),
}


def strategies():
    """By name, one of each: collectives of a second one would mix with these.

    Before TensorFlow starts.
    """
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    return {
        "two devices": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
        "one device": tf.distribute.OneDeviceStrategy("CPU:0"),
    }


def steps_of(strategy, make, sizes):
    """A function that makes a number of updates on every replica."""
    import keras
    import tensorflow as tf

    with strategy.scope():
        variables = [keras.Variable(w) for w in contenders.arrays(sizes, 0.1)]
        optimizer = make()
        optimizer.build(variables)
    grads = [tf.constant(g) for g in contenders.arrays(sizes, 0.01)]

    def on_replica(*own):
        # Each replica's own, on its device.
        own = [tf.identity(grad) for grad in own]
        optimizer.apply(own, variables)

    update = tf.function(
        lambda *given: strategy.run(on_replica, args=given), autograph=False
    )

    def steps(count):
        for _ in range(count):
            update(*grads)

    return steps


def measure(quick):
    """Yields milliseconds a step of each optimizer, by workload."""
    makers = optimizers.makers()
    for where, strategy in strategies().items():
        for name, sizes in WORKLOADS.items():
            own = shapes.smaller(sizes) if quick else sizes
            turns = {}
            for key in COMPARED:
                steps = steps_of(strategy, makers[key], own)
                steps(contenders.WARM_UP)
                turns[key] = functools.partial(_milliseconds, steps, quick)
            found = measures.in_turns(turns, 1 if quick else ROUNDS)
            yield f"{name}, {where}", measures.spreads(found)


def _milliseconds(steps, quick):
    seconds = 0 if quick else SECONDS_A_TURN
    return 1e3 * measures.seconds_of_one(lambda: steps(1), seconds)


def table(found):
    """The ratios, a workload and strategy in rows."""
    lines = [
        "| | keras Adam, ms | before the switch, of Adam | keras SGD, ms "
        "| after it, of SGD |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, times in found.items():
        adam, ours, sgd, switched = (times[x]["median"] for x in COMPARED)
        lines.append(
            f"| {name} | {adam:.2f} | {ours / adam:.2f} | {sgd:.2f} "
            f"| {switched / sgd:.2f} |"
        )
    return "\n".join(lines)


def main():
    """Measures, writes JSON after each workload and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a trial")
    parser.add_argument("--output", type=Path, default=RESULT)
    asked = parser.parse_args()
    if asked.quick and asked.output == RESULT:
        parser.error("--quick is a trial, which needs an --output of its own")
    found = {}
    for name, times in measure(asked.quick):
        found[name] = times
        files.write_json(asked.output, found)
        print(name, flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
