"""How do I train on several machines? With a loop of your own.

Two processes on this machine stand for two machines: this script starts itself
twice with the TF_CONFIG of a cluster on the loopback address. Each sees its
share of every batch; the weights stay equal, and the switch comes at the same
update. (Keras' own `fit` does not work with this strategy, keras #20585.)
"""

import json
import os
import socket
import subprocess
import sys

import tensorflow as tf

GLOBAL_BATCH, UPDATES, SWITCH = 64, 60, 40


def work() -> None:
    """What every machine runs."""
    # Before anything else of TensorFlow's.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    import keras

    import keras_hybrid

    x = keras.random.normal((640, 20), seed=0)
    y = keras.ops.argmax(x[:, :3], axis=-1)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).repeat()
    batches = strategy.experimental_distribute_dataset(
        batches.batch(GLOBAL_BATCH)
    )
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((20,)),
                keras.layers.Dense(32, "relu"),
                keras.layers.Dense(3),
            ]
        )
        optimizer = keras_hybrid.HybridOptimizer(
            1e-2, trigger=keras_hybrid.triggers.AtStep(SWITCH)
        )
        optimizer.build(model.trainable_variables)
        loss_of = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="sum"
        )

    def update(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """One machine's part: its share of the global batch's mean."""
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images)) / GLOBAL_BATCH
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    @tf.function
    def step(batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        losses = strategy.run(update, args=batch)
        return strategy.reduce("SUM", losses, axis=None)

    iterator = iter(batches)
    for number in range(UPDATES):
        loss = step(next(iterator))
        if number % 20 == 19:
            phase = "SGD" if optimizer.has_switched else "Adam"
            print(f"update {number + 1}: loss {float(loss):.3f}, {phase}")
    weights = float(sum(abs(w).sum() for w in model.get_weights()))
    print(f"SGD since update {optimizer.switch_step}, weights {weights:.4f}")


def main() -> None:
    """Starts the two, shows what each says, and ends what is left."""
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        addresses = [
            f"127.0.0.1:{probe.getsockname()[1]}" for probe in (first, second)
        ]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ
            | {
                "TF_CONFIG": json.dumps(
                    {
                        "cluster": {"worker": addresses},
                        "task": {"type": "worker", "index": index},
                    }
                ),
                "TF_CPP_MIN_LOG_LEVEL": "2",
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    try:
        for index, process in enumerate(processes):
            said, _ = process.communicate(timeout=200)
            print(f"machine {index}:", *said.splitlines(), sep="\n  ")
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(process.returncode for process in processes):
        sys.exit("a machine has failed")


if __name__ == "__main__":
    work() if "TF_CONFIG" in os.environ else main()
