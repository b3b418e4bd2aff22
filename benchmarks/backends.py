"""One update step on another backend or device, against Keras' optimizers.

    pip install -e ".[backends]"
    KERAS_BACKEND=jax python benchmarks/backends.py

Prints the devices and, for one update step (the gradients are given), the
milliseconds of keras Adam and SGD and of this library, and their ratios. It
runs on whatever the backend computes on by default: the same command measures
a GPU. (benchmarks/speed.py has the comparison in depth, for TensorFlow on a
CPU.)
"""

import argparse
import importlib
import statistics
import time

import contenders
import keras
import optimizers
import shapes

BACKEND = keras.backend.backend()
ROUNDS = 5
SECONDS_A_TURN = 0.3
COMPARED = (
    optimizers.ADAM,
    optimizers.OURS,
    optimizers.OURS_PROJECTION,
    optimizers.SGD,
    optimizers.OURS_SWITCHED,
)


def devices():
    """The names of what the backend computes on."""
    if BACKEND == "torch":
        import torch

        if torch.cuda.is_available():
            return [torch.cuda.get_device_name()]
        return [f"CPU, {torch.get_num_threads()} threads"]
    if BACKEND == "jax":
        import jax

        return [device.device_kind for device in jax.devices()]
    return keras.distribution.list_devices()


def step_of(optimizer, sizes):
    """A function that makes a number of updates and waits for the last."""
    variables = [keras.Variable(w) for w in contenders.arrays(sizes, 0.1)]
    grads = [
        keras.ops.convert_to_tensor(g) for g in contenders.arrays(sizes, 0.01)
    ]
    optimizer.build(variables)
    if BACKEND == "jax":
        import jax

        update = jax.jit(
            lambda weights, slots: optimizer.stateless_apply(
                slots, grads, weights
            ),
            donate_argnums=(0, 1),
        )
        state = [
            [v.value for v in variables],
            [v.value for v in optimizer.variables],
        ]

        def steps(count):
            for _ in range(count):
                state[:] = update(*state)
            jax.block_until_ready(state)

        return steps

    def update():
        optimizer.apply(grads, variables)

    if BACKEND == "tensorflow":
        import tensorflow as tf

        update = tf.function(update, autograph=False)

    def steps(count):
        for _ in range(count):
            update()
        # A device works in order: the last value waits for all before it.
        keras.ops.convert_to_numpy(variables[-1][0])

    return steps


def milliseconds(steps):
    """One step's time, over as many as fill a turn."""
    started = time.perf_counter()
    steps(1)
    count = max(1, int(SECONDS_A_TURN / (time.perf_counter() - started)))
    started = time.perf_counter()
    steps(count)
    return 1e3 * (time.perf_counter() - started) / count


def main():
    """Times each optimizer in turns, for large and for small tensors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, default=25)
    millions = parser.parse_args().millions
    version = importlib.import_module(BACKEND).__version__
    print(f"keras {keras.__version__}, {BACKEND} {version} on {devices()}")
    makers = optimizers.makers()
    for name, sizes in {
        f"{millions:g} M weights in 34 matrices": shapes.equal_tensors(
            millions, 34
        ),
        "60 small tensors": shapes.small_tensors(60),
    }.items():
        steps = {key: step_of(makers[key](), sizes) for key in COMPARED}
        for each in steps.values():
            each(contenders.WARM_UP)  # Compiles, and passes the switch.
        turns = {key: [] for key in steps}
        for _ in range(ROUNDS):
            for key, each in steps.items():
                turns[key].append(milliseconds(each))
        medians = {key: statistics.median(t) for key, t in turns.items()}
        print(name)
        for key, median in medians.items():
            ratio = median / medians["keras Adam"]
            print(
                f"  {key:32} {median:9.3f} ms [{min(turns[key]):.3f}, "
                f"{max(turns[key]):.3f}], {ratio:.2f} of keras Adam"
            )


if __name__ == "__main__":
    main()
