"""Gradients of one small vector in float64, and the settings of an update."""

import numpy as np
import reference
from keras import ops

from keras_hybrid import rules

STEPS = 40
BETA_1, BETA_2, EPSILON = 0.9, 0.99, 1e-7
EXACT = reference.tolerance("float64")
GRADS = list(np.random.default_rng(0).normal(size=(STEPS, 5)))
W0 = np.array([1.0, -2.0, 0.5, 3.0, -0.25])


def tensor(value):
    return ops.convert_to_tensor(value, "float64")


def settings(index=0, **changed):
    """Settings of the update number `index`, with some changed."""
    values = {
        "learning_rate": 0.01,
        "sgd_step": 0.2,
        "weight": 0.0,
        "beta": BETA_1,
        "momentum_kept": 1.0,
        "correction_1": 1 - BETA_1 ** (index + 1),
        "correction_2": 1 - BETA_2 ** (index + 1),
        "scale_cut": 1.0,
        "decay": None,
    }
    values.update(changed)
    return rules.Settings(
        **{k: None if v is None else tensor(v) for k, v in values.items()}
    )


def assert_close(actual, desired):
    np.testing.assert_allclose(np.asarray(actual), desired, **EXACT)
