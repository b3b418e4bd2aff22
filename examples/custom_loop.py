"""How do I use it in a training loop of my own? The switch runs in the step.

The trigger is given to the optimizer and fires inside the compiled update when
the learning rate that SGD would need has settled (as in SWATS), between updates
100 and 300: by default it waits for 2,000, more than this training has.
"""

import keras
import tensorflow as tf

import keras_hybrid
from keras_hybrid.study import architectures, datasets

keras.utils.set_random_seed(0)
data = datasets.load("mnist-5k")
model = architectures.build("cnn", data.image_shape, data.classes)
optimizer = keras_hybrid.HybridOptimizer(
    learning_rate=1e-3,
    trigger=keras_hybrid.triggers.ProjectionConverged(
        min_steps=100, max_steps=300
    ),
    cooldown=keras_hybrid.transitions.Cooldown(),
)
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@tf.function
def train_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """One update; compiled once, for both phases."""
    with tf.GradientTape() as tape:
        loss = loss_of(labels, model(images, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    return loss


batches, steps = datasets.training_pipeline(
    data, batch_size=64, seed=0, first_epoch=0, epochs=10
)
# fit's SwitchCallback would say it: the cool-down ends with the training.
optimizer.build(model.trainable_variables)
optimizer.training_steps = 10 * steps
for step, (images, labels) in enumerate(batches):
    loss = train_step(images, labels)
    if optimizer.switch_step == step + 1:
        print("SGD takes over with update", optimizer.switch_step)
    if (step + 1) % (2 * steps) == 0:
        print(
            f"update {step + 1}: loss {float(loss):.3f}, "
            f"SGD's weight {optimizer.sgd_fraction:.1f}, "
            f"SGD learning rate {optimizer.sgd_learning_rate_equivalent:.4f}"
        )
