"""How do I train on several devices with JAX? DataParallel, and model.fit."""

import importlib.util
import os
import sys

if importlib.util.find_spec("jax") is None:
    sys.exit('This example needs JAX: pip install -e ".[backends]"')
# Both are read at the first import. The flag makes two devices of one CPU;
# it changes nothing where JAX finds GPUs.
os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import keras
import numpy as np

import keras_hybrid

keras.utils.set_random_seed(0)
x = np.random.normal(size=(4096, 20)).astype("float32")
y = np.argmax(np.tanh(x @ np.random.normal(size=(20, 5))), axis=1)

# Before the model: its variables, and the optimizer's, live on all devices.
distribution = keras.distribution.DataParallel()
keras.distribution.set_distribution(distribution)

model = keras.Sequential(
    [
        keras.Input((20,)),
        keras.layers.Dense(64, "relu"),
        keras.layers.Dense(5),
    ]
)
model.compile(
    keras_hybrid.HybridOptimizer(1e-2),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(
    x,
    y,
    batch_size=64,  # Over all devices together.
    epochs=8,
    validation_split=0.25,
    callbacks=[keras_hybrid.SwitchCallback(keras_hybrid.triggers.AtEpoch(4))],
    verbose=2,
)
devices = model.optimizer.variables[0].value.sharding.device_set
print("devices:", sorted(str(device) for device in devices))
print("switched at update", model.optimizer.switch_step)
