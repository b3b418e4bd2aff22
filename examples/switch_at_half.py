"""How do I switch at a fixed epoch? Adam for five epochs, then SGD."""

import keras

import keras_hybrid
from keras_hybrid.study import architectures, datasets

keras.utils.set_random_seed(0)
data = datasets.load("mnist-5k")
(x, y), (x_val, y_val) = data.train, data.validation
model = architectures.build("cnn", data.image_shape, data.classes)

model.compile(
    optimizer=keras_hybrid.HybridOptimizer(
        learning_rate=1e-3, cooldown=keras_hybrid.transitions.Cooldown()
    ),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(
    x / 255.0,
    y,
    batch_size=64,
    epochs=10,
    validation_data=(x_val / 255.0, y_val),
    callbacks=[keras_hybrid.SwitchCallback(keras_hybrid.triggers.AtEpoch(5))],
    verbose=2,
)
print("switched at update", model.optimizer.switch_step)
print("SGD learning rate", history.history["sgd_learning_rate"][4])
print("validation accuracy", history.history["val_accuracy"][-1])
