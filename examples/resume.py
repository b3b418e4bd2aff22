"""My job was killed: how do I go on? ExactBackup, and the same call again.

The phase, SGD's scale, the trigger's state: all is in the optimizer's
variables, so what restores the optimizer restores the switch. ExactBackup keeps
also what Keras' BackupAndRestore leaves out (dropout's masks, the History), so
that the second fit ends with the very weights and curves of one that was never
stopped. The order of the images is drawn anew in each epoch, from its number.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_hybrid
from keras_hybrid import batches
from keras_hybrid.study import architectures, datasets

EPOCHS, BATCH = 6, 50
images = datasets.load("mnist-5k")
x, y = images.train[0] / 255.0, images.train[1]


class Kill(keras.callbacks.Callback):
    """Ends the training in the middle of an epoch."""

    def on_train_batch_begin(
        self, batch: int, logs: dict | None = None
    ) -> None:
        """Raises in epoch 4."""
        if self.model.optimizer.iterations >= 4.5 * len(x) // BATCH:
            raise KeyboardInterrupt


def batch_of(chosen: tf.Tensor, epoch: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The images and labels of these indices."""
    return tf.gather(x, chosen), tf.gather(y, chosen)


def train(path: Path, *more: keras.callbacks.Callback) -> keras.Model:
    """Trains six epochs with a switch after three."""
    keras.utils.set_random_seed(0)
    model = architectures.build("cnn", images.image_shape, images.classes)
    model.compile(
        optimizer=keras_hybrid.HybridOptimizer(
            1e-3, cooldown=keras_hybrid.transitions.Cooldown()
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    backup = keras_hybrid.ExactBackup(path)
    model.fit(
        batches.shuffled(
            len(x),
            BATCH,
            seed=0,
            first_epoch=backup.next_epoch,
            epochs=EPOCHS,
            batch_of=batch_of,
            drop_remainder=True,
        ),
        epochs=EPOCHS,
        steps_per_epoch=len(x) // BATCH,
        shuffle=False,
        callbacks=[
            backup,
            keras_hybrid.SwitchCallback(keras_hybrid.triggers.AtEpoch(3)),
            *more,
        ],
        verbose=2,
    )
    return model


with tempfile.TemporaryDirectory() as folder:
    try:
        train(Path(folder) / "killed.npz", Kill())
    except KeyboardInterrupt:
        print("killed; the same call goes on from the backup")
    resumed = train(Path(folder) / "killed.npz")
    unbroken = train(Path(folder) / "unbroken.npz")
same = all(
    np.array_equal(a, b)
    for a, b in zip(resumed.get_weights(), unbroken.get_weights(), strict=True)
)
print("weights equal to the run that was never stopped:", same)
print("History equal:", resumed.history.history == unbroken.history.history)
