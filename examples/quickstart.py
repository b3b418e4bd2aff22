"""How do I train with it, if I do not know how many epochs it needs?

Adam at a constant rate until that has stopped paying, then SGD, cooled down
over half of the epochs so far, then the end: `epochs` is a ceiling.
"""

import keras

import keras_hybrid
from keras_hybrid.study import architectures, datasets

keras.utils.set_random_seed(0)
data = datasets.load("mnist-5k")
(x, y), (x_val, y_val) = data.train, data.validation
model = architectures.build("mlp", data.image_shape, data.classes)

model.compile(
    optimizer=keras_hybrid.HybridOptimizer(learning_rate=1e-3),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(
    x / 255.0,
    y,
    batch_size=64,
    epochs=40,
    validation_data=(x_val / 255.0, y_val),
    callbacks=[keras_hybrid.TrainUntilDone()],
    verbose=2,
)
print("switched at update", model.optimizer.switch_step)
print("epochs trained", len(history.epoch))
print("validation accuracy", history.history["val_accuracy"][-1])
