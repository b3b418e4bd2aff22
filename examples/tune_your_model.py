"""How do I find when to switch, for my own model and data?

Nine switch points and no switch at all share the Adam run before the switch, so
the search trains about half of the epochs that ten trainings have. The recipe
is a small JSON.
"""

import tempfile

import keras

import keras_hybrid
from keras_hybrid.study import datasets
from keras_hybrid.tuner import ForkedTuner, HybridHyperModel

data = datasets.load("mnist-5k")
(x, y), (x_val, y_val) = data.train, data.validation
x, x_val = x / 255.0, x_val / 255.0


def build(hp):
    """Builds the model; `hp` could choose its size as well."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    optimizer = keras_hybrid.HybridOptimizer(1e-3)
    model.compile(
        optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


# ---- The search itself, from here ----
folder = tempfile.mkdtemp()
tuner = ForkedTuner(HybridHyperModel(build, "when"), directory=folder)
tuner.search(x, y, batch_size=64, epochs=8, validation_data=(x_val, y_val))
recipe = tuner.recipe("mine")
path = recipe.save(f"{folder}/mine.json")
print(f"{recipe.plan}: {recipe.score['mean']:.2%} of the validation images")
print(f"{recipe.search['epochs_trained']} epochs trained, not 80")

# ---- Later, with the recipe: 20 epochs instead of 8 ----
optimizer = keras_hybrid.HybridOptimizer.from_recipe(
    path, epochs=20, steps_per_epoch=55
)
callback = keras_hybrid.SwitchCallback.from_recipe(path, epochs=20)
model = build(None)
model.compile(
    optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"]
)
model.fit(x, y, batch_size=64, epochs=20, callbacks=[callback], verbose=2)
