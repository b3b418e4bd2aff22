"""My job was killed: how do I go on? BackupAndRestore, as in any fit.

The phase, SGD's scale, the trigger's state: all is in the optimizer's
variables, so what restores the optimizer restores the switch. Here the second
fit goes on from the backup and ends with the very weights of a run that was
never stopped.
"""

import tempfile

import keras
import numpy as np
import tensorflow as tf

import keras_hybrid
from keras_hybrid.study import architectures, datasets

EPOCHS = 6
data = datasets.load("mnist-5k")
x, y = data.train


class Kill(keras.callbacks.Callback):
    """Ends the training in the middle of an epoch."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Raises in epoch 4."""
        if epoch == 4:
            raise KeyboardInterrupt


def train(folder: str, *more: keras.callbacks.Callback) -> list[np.ndarray]:
    """Trains six epochs with a switch after three; returns the weights."""
    keras.utils.set_random_seed(0)
    model = architectures.build("mlp", data.image_shape, data.classes)
    model.compile(
        optimizer=keras_hybrid.HybridOptimizer(
            1e-3, cooldown=keras_hybrid.transitions.Cooldown()
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    batches = tf.data.Dataset.from_tensor_slices((x / 255.0, y)).batch(50)
    model.fit(
        batches,
        epochs=EPOCHS,
        shuffle=False,
        callbacks=[
            keras_hybrid.SwitchCallback(keras_hybrid.triggers.AtEpoch(3)),
            keras.callbacks.BackupAndRestore(folder),
            *more,
        ],
        verbose=2,
    )
    return model.get_weights()


with (
    tempfile.TemporaryDirectory() as backup,
    tempfile.TemporaryDirectory() as other,
):
    try:
        train(backup, Kill())
    except KeyboardInterrupt:
        print("killed; the same call goes on from the backup")
    resumed = train(backup)
    unbroken = train(other)
same = all(np.array_equal(a, b) for a, b in zip(resumed, unbroken, strict=True))
print("equal to the run that was never stopped:", same)
