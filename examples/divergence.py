"""My SGD phase blew up: what now?

Here SGD's scale is 300 times what the library estimates. Without a guard the
loss explodes and the network ends at chance. `DivergenceGuard` goes back to the
last good state each time, halves the scale, and goes on.
"""

import keras

import keras_hybrid
from keras_hybrid import transitions, triggers
from keras_hybrid.study import architectures, datasets

data = datasets.load("mnist-5k")
(x, y), (x_val, y_val) = data.train, data.validation


def train(*callbacks):
    """Trains six epochs, three of them SGD; returns the history."""
    keras.utils.set_random_seed(0)
    model = architectures.build("mlp", data.image_shape, data.classes)
    model.compile(
        optimizer=keras_hybrid.HybridOptimizer(
            learning_rate=1e-3,
            scale_multiplier=300.0,
            cooldown=transitions.Cooldown(),
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model.fit(
        x / 255.0,
        y,
        batch_size=64,
        epochs=6,
        validation_data=(x_val / 255.0, y_val),
        callbacks=[
            keras_hybrid.SwitchCallback(triggers.AtEpoch(3)),
            *callbacks,
        ],
        verbose=0,
    ).history


alone = train()
guarded = train(keras_hybrid.DivergenceGuard())
for epoch in range(6):
    print(
        f"epoch {epoch + 1}: loss {alone['loss'][epoch]:.4f} without the "
        f"guard, {guarded['loss'][epoch]:.4f} with it "
        f"({guarded['divergences'][epoch]} divergences so far)"
    )
print(f"validation accuracy: {guarded['val_accuracy'][-1]:.3f}")
