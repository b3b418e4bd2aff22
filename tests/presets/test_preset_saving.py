"""A preset that was stopped goes on as if it never was."""

import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import (
    CASES,
    GOES_ON,
    MAIN,
    STOPS,
    every_case,
    made,
    swats_of_groups,
)
from problem import START, new_variables, run
from small import slow_but


def test_the_stops_are_before_the_switches():
    (swats,) = swats_of_groups("model", tolerance=2e-5)[1]
    assert STOPS["SWATS"] < swats < STOPS["SWATS"] + GOES_ON
    for name in ("GNMT", "Grafted"):
        switch_step = CASES[name].arguments()["switch_step"]
        assert STOPS[name] < switch_step < STOPS[name] + GOES_ON


# One of each class.
@pytest.mark.parametrize("name", slow_but({"SWATS", "DSTAdam"}, MAIN))
@pytest.mark.parametrize("way", ["pickle", "checkpoint"])
def test_resumed_is_never_stopped(name, way, whole):
    trajectory, _, stop, pickled, path = whole(name)
    if way == "pickle":
        optimizer = pickle.loads(pickled)
        variables = new_variables("float64", trajectory[stop - 1])
    else:
        # Made from the config, through JSON.
        config = json.dumps(made(name, jit_compile=False).get_config())
        optimizer = type(made(name)).from_config(json.loads(config))
        variables = new_variables("float64", 0 * START)
        optimizer.build(variables)
        restored = tf.train.Checkpoint(optimizer=optimizer, variables=variables)
        restored.restore(path).assert_existing_objects_matched()
    got, _ = run(optimizer, variables, stop, stop + GOES_ON, function=False)
    np.testing.assert_array_equal(got, trajectory[stop : stop + GOES_ON])


@every_case
def test_config_survives_json(name):
    optimizer = made(name, jit_compile=False)
    serialized = json.dumps(keras.optimizers.serialize(optimizer))
    again = keras.optimizers.deserialize(json.loads(serialized))
    assert type(again) is type(optimizer)
    assert json.dumps(keras.optimizers.serialize(again)) == serialized
