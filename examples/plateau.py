"""How do I switch when validation stops improving?

A plateau of the validation loss, or epoch 9 at the latest: `|` composes
triggers. The blend takes 100 updates instead of one.
"""

import keras

import keras_hybrid
from keras_hybrid import transitions, triggers
from keras_hybrid.study import architectures, datasets

keras.utils.set_random_seed(0)
data = datasets.load("mnist-5k")
(x, y), (x_val, y_val) = data.train, data.validation
model = architectures.build("mlp", data.image_shape, data.classes)
model.compile(
    optimizer=keras_hybrid.HybridOptimizer(
        learning_rate=1e-3,
        transition=transitions.Blend(steps=100, curve="cosine"),
        cooldown=transitions.Cooldown(),
    ),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(
    x / 255.0,
    y,
    batch_size=64,
    epochs=12,
    validation_data=(x_val / 255.0, y_val),
    callbacks=[
        keras_hybrid.SwitchCallback(
            triggers.Plateau("val_loss", patience=2) | triggers.AtEpoch(9)
        )
    ],
    verbose=2,
).history
for epoch, (loss, fraction) in enumerate(
    zip(history["val_loss"], history["sgd_fraction"], strict=True), start=1
):
    print(f"epoch {epoch}: val_loss {loss:.4f}, SGD's weight {fraction:.2f}")
