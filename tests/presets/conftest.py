"""Runs of the presets in float64, each made once."""

import functools
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import STOPS, made
from problem import STEPS, flat, new_variables, stepper


@pytest.fixture
def float64():
    """Keras keeps the learning rate in its float type."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    @functools.cache
    def whole(name):
        stop = STOPS.get(name, 140)
        optimizer = made(name, jit_compile=False)
        variables = new_variables("float64")
        step = stepper(optimizer, variables)
        trajectory = []
        for k in range(STEPS):
            if k == stop:
                pickled = pickle.dumps(optimizer)
                saved = tf.train.Checkpoint(
                    optimizer=optimizer, variables=variables
                )
                path = saved.save(str(tmp_path_factory.mktemp("run") / name))
            step(tf.constant(k))
            trajectory.append(flat(variables))
        traces = step.experimental_get_tracing_count()
        return np.array(trajectory), traces, stop, pickled, path

    return whole


@pytest.fixture
def whole(float64, runs):
    """A function that gives a case's run in float64, never stopped: its
    trajectory, how often it was traced, and a step at which it was saved, with
    the pickled optimizer and the checkpoint's path.
    """
    return runs
