"""A noisy quadratic of three variables in two layers."""

import keras
import numpy as np
import tensorflow as tf

# Gradient h (w - t) plus noise: three variables in two layers.
STEPS = 200
PATHS = {"first/kernel": (4, 3), "first/bias": (5,), "second/kernel": (2,)}
SLICES = [slice(0, 12), slice(12, 17), slice(17, 19)]
SCOPES = {
    "model": [slice(0, 19)],
    "layer": [slice(0, 17), slice(17, 19)],
    "variable": SLICES,
}
SIZE = 19
_RANDOM = np.random.default_rng(0)
CURVATURE = np.geomspace(0.3, 3, SIZE)
_RANDOM.shuffle(CURVATURE)
TARGET = _RANDOM.normal(size=SIZE)
START = TARGET + _RANDOM.normal(size=SIZE)
NOISE = 0.3 * _RANDOM.normal(size=(STEPS, SIZE))


def gradients(part=slice(None)):
    """The gradients of a part of the weights, for the references."""
    return lambda w, k: CURVATURE[part] * (w - TARGET[part]) + NOISE[k][part]


def new_variables(dtype, values=START):
    variables = []
    for (path, shape), part in zip(PATHS.items(), SLICES, strict=True):
        layer, name = path.split("/")
        with keras.name_scope(layer):
            variables.append(
                keras.Variable(
                    np.reshape(values[part], shape), dtype=dtype, name=name
                )
            )
    assert [v.path for v in variables] == list(PATHS)
    return variables


def flat(variables):
    return np.concatenate(
        [v.numpy().astype("float64").ravel() for v in variables]
    )


def stepper(optimizer, variables):
    """The update with the gradients of step k, as one traced function."""
    dtype = keras.backend.standardize_dtype(variables[0].dtype)
    constants = [
        [
            tf.constant(np.reshape(c[..., p], (*c.shape[:-1], *s)), dtype)
            for c in (CURVATURE, TARGET, NOISE)
        ]
        for p, s in zip(SLICES, PATHS.values(), strict=True)
    ]
    optimizer.build(variables)

    @tf.function(input_signature=[tf.TensorSpec((), tf.int32)])
    def step(k):
        grads = [
            h * (v.value - t) + noise[k]
            for v, (h, t, noise) in zip(variables, constants, strict=True)
        ]
        optimizer.apply(grads, variables)

    return step


def run(optimizer, variables, first=0, last=STEPS, function=True):
    """Updates `first` to `last` - 1; returns the weights after each, and how
    often the function was traced.
    """
    step = stepper(optimizer, variables)
    trajectory = []
    for k in range(first, last):
        (step if function else step.python_function)(tf.constant(k))
        trajectory.append(flat(variables))
    return np.array(trajectory), step.experimental_get_tracing_count()
