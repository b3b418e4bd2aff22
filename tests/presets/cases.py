"""The presets with arguments, and what they must do on the problem."""

import functools
import math
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import reference
from problem import SCOPES, SIZE, SLICES, START, STEPS, gradients

from keras_hybrid import presets

RATE = 0.01

# SWATS' tolerances are met on this problem only, where they fire as below.
SETTLED = {"learning_rate": RATE, "beta_2": 0.95}


def falling(initial, steps=STEPS):
    """Half a cosine wave from `initial` to a tenth: Keras' and NumPy's."""
    # A NumPy number, or Keras computes in float32.
    first = np.float64(initial)
    schedule = keras.optimizers.schedules.CosineDecay(first, steps, 0.1)

    def rate(k):
        wave = (1 + math.cos(math.pi * k / steps)) / 2
        return initial * (0.9 * wave + 0.1)

    return schedule, rate


def swats_of_groups(scope, **arguments):
    """The paper's algorithm on each group of the scope by itself."""
    trajectory = np.empty((STEPS, SIZE))
    switch_steps = []
    for part in SCOPES[scope]:
        result = reference.swats(
            gradients(part),
            START[part],
            RATE,
            b2=SETTLED["beta_2"],
            eps=1e-7,
            steps=STEPS,
            **arguments,
        )
        trajectory[:, part] = result.trajectory
        switch_steps.append(result.switch_step)
    return trajectory, switch_steps


class Case(NamedTuple):
    """One configuration of a preset.

    Attributes:
        preset: Its name.
        arguments: A function that makes its arguments, so that schedules are
            made in the test's float type.
        expected: A function that computes the trajectory.
        weights: SGD's weight before update 0, in update 100 and after 200.
        float32: The absolute tolerance in float32 on weights near 1.
    """

    preset: str
    arguments: Any
    expected: Any
    weights: tuple[float, float, float]
    float32: float = 1e-5


def referred(function, *args, **kwargs):
    return lambda: function(gradients(), START, *args, steps=STEPS, **kwargs)


def hyperbolic(position, gamma):
    """1 less than AdaBound's lower bound over its limit."""
    return 1 - 1 / (gamma * (position + 1) + 1)


def akiba(position, steps):
    return reference.akiba_curve((position + 1) / steps)


CASES = {
    "SWATS": Case(
        "SWATS",
        lambda: SETTLED | {"tolerance": 2e-5},
        lambda: swats_of_groups("model", tolerance=2e-5)[0],
        (0, 1, 1),
    ),
    "SWATS-relative-carried": Case(
        "SWATS",
        lambda: (
            SETTLED
            | {"tolerance": 2e-3, "relative": True, "carry_momentum": True}
        ),
        lambda: swats_of_groups(
            "model", tolerance=2e-3, relative=True, carry_momentum=True
        )[0],
        (0, 1, 1),
    ),
    "SWATS-layer": Case(
        "SWATS",
        lambda: SETTLED | {"tolerance": 5.5e-4, "scope": "layer"},
        lambda: swats_of_groups("layer", tolerance=5.5e-4)[0],
        (0, 1, 1),
    ),
    "SWATS-variable": Case(
        "SWATS",
        lambda: SETTLED | {"tolerance": 5.5e-4, "scope": "variable"},
        lambda: swats_of_groups("variable", tolerance=5.5e-4)[0],
        (0, 1, 1),
    ),
    "GNMT": Case(
        "GNMT",
        lambda: {
            "learning_rate": RATE,
            "switch_step": 80,
            "sgd_learning_rate": 0.3,
            "decay_steps": [81, 120, 160],
            "decay_rate": 0.3,  # No float32 is.
        },
        referred(reference.gnmt, RATE, 80, 0.3, (81, 120, 160), 0.3),
        (0, 1, 1),
    ),
    "Grafted": Case(
        "Grafted",
        lambda: SETTLED | {"switch_step": 80},
        referred(reference.grafted, RATE, 80, b2=0.95, groups=SLICES),
        (0, 1, 1),
    ),
    "Grafted-model": Case(
        "Grafted",
        lambda: SETTLED | {"switch_step": 80, "scale_scope": "model"},
        referred(reference.grafted, RATE, 80, b2=0.95),
        (0, 1, 1),
    ),
    "RMSpropWarmup": Case(
        "RMSpropWarmup",
        # 12 updates an epoch.
        lambda: {"warmup_steps": 150, "sgd_learning_rate": 0.03},
        referred(reference.rmsprop_warmup, 3e-4, 0.03, 12),
        (akiba(0, 150), akiba(100, 150), 1),
    ),
    "RMSpropWarmup-schedule": Case(
        "RMSpropWarmup",
        lambda: {
            "warmup_steps": 50,
            "learning_rate": falling(1e-3)[0],
            "sgd_learning_rate": 0.02,
            "momentum": 0.5,
            "beta_2": 0.9,
            "epsilon": 1e-3,
        },
        referred(
            reference.rmsprop_warmup,
            falling(1e-3)[1],
            falling(0.02)[1],
            4,
            mu1=0.5,
            mu2=0.9,
            eps=1e-3,
        ),
        (akiba(0, 50), 1, 1),
    ),
    "AdaBound": Case(
        "AdaBound",
        lambda: {"learning_rate": RATE, "gamma": 0.02},
        referred(reference.adabound, RATE, gamma=0.02),
        tuple(hyperbolic(k, 0.02) for k in (0, 100, 200)),
    ),
    "AdaBound-schedule": Case(
        "AdaBound",
        lambda: {
            "learning_rate": falling(RATE)[0],
            "gamma": 0.1,
            "final_learning_rate": 0.3,
        },
        referred(reference.adabound, falling(RATE)[1], 0.3, 0.1),
        tuple(hyperbolic(k, 0.1) for k in (0, 100, 200)),
    ),
    "AMSBound": Case(
        "AMSBound",
        lambda: {"learning_rate": RATE, "gamma": 0.02, "beta_2": 0.9},
        referred(reference.adabound, RATE, gamma=0.02, b2=0.9, amsbound=True),
        tuple(hyperbolic(k, 0.02) for k in (0, 100, 200)),
    ),
    "DSTAdam": Case(
        "DSTAdam",
        lambda: {
            "learning_rate": RATE,
            "training_steps": 150,
            "upper": 0.5,
            "lower": 0.05,
        },
        referred(reference.dstadam, RATE, 150, up=0.5, low=0.05),
        (1 - 1e-8 ** (1 / 150), 1 - 1e-8 ** (101 / 150), 1),
    ),
    "Padam": Case(
        "Padam",
        lambda: {"learning_rate": 0.05, "beta_2": 0.9},
        referred(reference.padam, 0.05, b2=0.9),
        (0.5, 0.5, 0.5),
    ),
    "Padam-schedule": Case(
        "Padam",
        lambda: {
            "learning_rate": falling(0.1)[0],
            "partial": 0.125,
            "amsgrad": False,
        },
        referred(reference.padam, falling(0.1)[1], 0.125, amsgrad=False),
        (0.75, 0.75, 0.75),
    ),
    "MAS": Case(
        "MAS",
        lambda: {"learning_rate": RATE, "sgd_learning_rate": 0.02},
        referred(reference.mas, RATE, 0.02),
        (0.5, 0.5, 0.5),
    ),
    "MAS-weights": Case(
        "MAS",
        lambda: {
            "learning_rate": RATE,
            "sgd_learning_rate": 0.05,
            "sgd_weight": 0.25,
        },
        referred(reference.mas, RATE, 0.05, 0.25),
        (0.25, 0.25, 0.25),
    ),
}

# One of each preset.
MAIN = [name for name in CASES if "-" not in name]
every_case = pytest.mark.parametrize("name", CASES)


def made(name, **further):
    case = CASES[name]
    return presets.by_name(case.preset, **case.arguments(), **further)


@functools.cache
def expected(name):
    return CASES[name].expected()


# Just before the switch or the end of the transition; after 30 and 75 updates
# the run that was stopped goes on, which must not reach the other.
STOPS = {name: 75 for name in ("GNMT", "Grafted")} | {"SWATS": 30}
GOES_ON = 15
