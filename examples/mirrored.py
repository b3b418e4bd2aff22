"""How do I train on several devices? As with any Keras optimizer.

Model and optimizer are created inside the strategy's scope; then `fit` splits
each batch between the devices, and weights and switch equal those of one
device. Here two logical CPUs stand for two GPUs.
"""

import tensorflow as tf

# Before TensorFlow starts. With GPUs leave this out, and name no devices.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

import keras  # noqa: E402

import keras_hybrid  # noqa: E402
from keras_hybrid.study import architectures, datasets  # noqa: E402

data = datasets.load("mnist-5k")
batches, steps = datasets.training_pipeline(
    data, batch_size=64, seed=0, first_epoch=0, epochs=6
)
with strategy.scope():
    keras.utils.set_random_seed(0)
    model = architectures.build("mlp_small", data.image_shape, data.classes)
    model.compile(
        optimizer=keras_hybrid.HybridOptimizer(
            1e-3, cooldown=keras_hybrid.transitions.Cooldown()
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
model.fit(
    batches,
    steps_per_epoch=steps,
    epochs=6,
    shuffle=False,
    validation_data=datasets.evaluation_pipeline(data, "validation"),
    callbacks=[keras_hybrid.SwitchCallback(keras_hybrid.triggers.AtEpoch(3))],
    verbose=2,
)
print(
    f"{strategy.num_replicas_in_sync} devices, SGD since update "
    f"{model.optimizer.switch_step}"
)
