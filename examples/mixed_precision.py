"""Does it work in mixed precision? mixed_float16 with loss scaling.

`compile` wraps the optimizer in a LossScaleOptimizer; SwitchCallback finds
the HybridOptimizer inside it.
"""

import keras

import keras_hybrid
from keras_hybrid.study import architectures, datasets

keras.utils.set_random_seed(0)
keras.mixed_precision.set_global_policy("mixed_float16")
data = datasets.load("mnist-5k")
model = architectures.build("mlp", data.image_shape, data.classes)
model.compile(
    optimizer=keras_hybrid.HybridOptimizer(
        learning_rate=1e-3,
        sgd_scale="norm",
        cooldown=keras_hybrid.transitions.Cooldown(),
    ),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
x, y = data.train
model.fit(
    x / 255.0,
    y,
    batch_size=64,
    epochs=6,
    callbacks=[keras_hybrid.SwitchCallback(keras_hybrid.triggers.AtEpoch(3))],
    verbose=2,
)
inner = model.optimizer.inner_optimizer
print(type(model.optimizer).__name__, "around", type(inner).__name__)
print("weights are kept in", model.trainable_variables[0].dtype)
print("switched at update", inner.switch_step)
