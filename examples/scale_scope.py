"""One SGD learning rate for the network, or one a variable?

Both are estimated from the same Adam steps. The estimates of single variables
can lie far apart, and one number for all has to be wrong for most of them.
"""

import keras

import keras_hybrid
from keras_hybrid.study import architectures, datasets

data = datasets.load("mnist-5k")
(x, y), (x_val, y_val) = data.train, data.validation
for scale_scope in ("variable", "model"):
    keras.utils.set_random_seed(0)
    model = architectures.build("cnn", data.image_shape, data.classes)
    optimizer = keras_hybrid.HybridOptimizer(
        learning_rate=1e-3, scale_scope=scale_scope
    )
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        x / 255.0,
        y,
        batch_size=64,
        epochs=8,
        validation_data=(x_val / 255.0, y_val),
        callbacks=[
            keras_hybrid.SwitchCallback(keras_hybrid.triggers.AtEpoch(4))
        ],
        verbose=0,
    ).history
    print(f"scale_scope={scale_scope!r}")
    for name, rate in optimizer.sgd_learning_rates.items():
        print(f"  {name}: {rate:.5f}")
    print(f"  validation loss {history['val_loss'][-1]:.4f}")
