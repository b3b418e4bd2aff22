"""Each option against the formula, slow and in float64, at every update."""

import math

import pytest
import tensorflow as tf
from formula import PATHS, simulate
from small import (
    LAYER_OF,
    Halving,
    assert_equal_weights,
    dense_model,
    exact,
    halving,
    largest_difference,
    random_gradients,
    run,
    slow_but,
    start_weights,
    tolerance,
    weights_of,
)

from keras_hybrid import HybridOptimizer
from keras_hybrid.scales import LearningRate, Slots
from keras_hybrid.transitions import Blend, Cooldown, Hard
from keras_hybrid.triggers import AtStep


def linear(j, steps=4):
    return min((j + 1) / steps, 1.0)


def cosine(j, steps=4):
    return (1 - math.cos(math.pi * linear(j, steps))) / 2


def exponential(j, steps=4):
    return 1 - 1e-8 ** linear(j, steps) if j + 1 <= steps else 1.0


def akiba(j, steps=4):
    s = linear(j, steps)
    if s < 0.8:
        return math.exp((s - 0.8) / 0.2) / 2
    return min(0.5 + (s - 0.8) / 0.4, 1.0)


def hyperbolic(j, steps=4):
    return (j + 1) / steps / ((j + 1) / steps + 1)


def cosine_factor(j, steps=6, final=0.1):
    s = min(j / steps, 1.0)
    return final + (1 - final) * (1 + math.cos(math.pi * s)) / 2


def linear_factor(j, steps=6, final=0.0):
    return final + (1 - final) * (1 - min(j / steps, 1.0))


# Name: (options of the optimizer, options of the simulation). All switch at 5.
FORMULA = {
    "never": ({"trigger": None}, {"switch_at": None}),
    "hard": ({}, {}),
    "variable-rho": (
        {"scale_scope": "variable"},
        {"scale_scope": "variable"},
    ),
    "weight-rho": ({"scale_scope": "weight"}, {"scale_scope": "weight"}),
    "weight-amsgrad-blend": (
        {
            "sgd_scale": Slots("weight"),
            "amsgrad": True,
            "beta_2": 0.7,
            "transition": Blend(4),
        },
        {
            "scale_scope": "weight",
            "amsgrad": True,
            "beta_2": 0.7,
            "weight": linear,
        },
    ),
    "projection": (
        {"sgd_scale": "projection"},
        {"sgd_scale": "projection"},
    ),
    "multiplied": (
        {"scale_multiplier": 2.0, "sgd_scale": "projection"},
        {"sgd_scale": "projection", "multiplier": 2.0},
    ),
    "multiplied-unit": ({"scale_multiplier": 2.0}, {"multiplier": 2.0}),
    "multiplied-weight": (
        {"scale_multiplier": 2.0, "scale_scope": "weight"},
        {"scale_scope": "weight", "multiplier": 2.0},
    ),
    "norm": ({"sgd_scale": "norm"}, {"sgd_scale": "norm"}),
    "swats": ({"sgd_scale": "swats"}, {"sgd_scale": "swats"}),
    "momentum-rho": ({"sgd_scale": "momentum"}, {"sgd_scale": "momentum"}),
    "number": ({"sgd_scale": 3.0}, {"sgd_scale": 3.0}),
    "layer-rho": ({"scale_scope": "layer"}, {"scale_groups": LAYER_OF}),
    "model-rho": ({"scale_scope": "model"}, {"scale_groups": [0] * 4}),
    "layer-norm": (
        {"scale_scope": "layer", "sgd_scale": "norm"},
        {"scale_groups": LAYER_OF, "sgd_scale": "norm"},
    ),
    "sgd-rate": ({"sgd_learning_rate": 0.1}, {"sgd_learning_rate": 0.1}),
    "sgd-schedule": (
        {"sgd_learning_rate": Halving()},
        {"sgd_learning_rate": halving},
    ),
    "sgd-schedule-inside": (
        {"sgd_scale": LearningRate(Halving(), inside_momentum=True)},
        {"sgd_learning_rate": halving, "inside": True},
    ),
    "inside-all": (
        {
            "sgd_scale": LearningRate(Halving(), inside_momentum=True),
            "cooldown": Cooldown("linear", steps=6),
            "carry_momentum": False,
            "momentum": 0.8,
            "nesterov": True,
            "weight_decay": 0.1,
            "amsgrad": True,
        },
        {
            "sgd_learning_rate": halving,
            "inside": True,
            "factor": linear_factor,
            "carry_momentum": False,
            "momentum": 0.8,
            "nesterov": True,
            "weight_decay": 0.1,
            "amsgrad": True,
        },
    ),
    "zero-momentum": ({"carry_momentum": False}, {"carry_momentum": False}),
    "momentum": ({"momentum": 0.5}, {"momentum": 0.5}),
    "nesterov": (
        {"momentum": 0.8, "nesterov": True},
        {"momentum": 0.8, "nesterov": True},
    ),
    "amsgrad": (
        {"amsgrad": True, "beta_2": 0.7},
        {"amsgrad": True, "beta_2": 0.7},
    ),
    "decay": ({"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "decay-cooldown": (
        {"weight_decay": 0.1, "cooldown": Cooldown(steps=6, final=0.1)},
        {"weight_decay": 0.1, "factor": cosine_factor},
    ),
    "linear-cooldown": (
        {"cooldown": Cooldown("linear", steps=6)},
        {"factor": linear_factor},
    ),
    "sgd-rate-cooldown": (
        {"sgd_learning_rate": 0.1, "cooldown": Cooldown("linear", steps=6)},
        {"sgd_learning_rate": 0.1, "factor": linear_factor},
    ),
    "half": ({"transition": Hard(end=0.5)}, {"weight": lambda j: 0.5}),
    "blend": ({"transition": Blend(4)}, {"weight": linear}),
    "blend-end": (
        {"transition": Blend(4, end=0.5)},
        {"weight": lambda j: linear(j) / 2},
    ),
    "blend-akiba": (
        {"transition": Blend(4, curve="akiba")},
        {"weight": akiba},
    ),
    "blend-hyperbolic-clip": (
        {"transition": Blend(4, curve="hyperbolic", path="clip")},
        {"weight": hyperbolic, "mix": PATHS["clip"]},
    ),
    "blend-all": (
        {
            "transition": Blend(4, path="clip"),
            "momentum": 0.6,
            "nesterov": True,
            "amsgrad": True,
            "weight_decay": 0.1,
            "carry_momentum": False,
            "scale_scope": "layer",
            "cooldown": Cooldown("linear", steps=6),
        },
        {
            "weight": linear,
            "mix": PATHS["clip"],
            "momentum": 0.6,
            "nesterov": True,
            "amsgrad": True,
            "weight_decay": 0.1,
            "carry_momentum": False,
            "scale_groups": LAYER_OF,
            "factor": linear_factor,
        },
    ),
}

for _path in ("geometric", "clip"):
    for _curve, _weight in (
        ("linear", linear),
        ("cosine", cosine),
        ("exponential", exponential),
        ("akiba", akiba),
    ):
        FORMULA[f"blend-{_curve}-{_path}"] = (
            {"transition": Blend(4, curve=_curve, path=_path)},
            {"weight": _weight, "mix": PATHS[_path]},
        )

# Each part of the formula once; the others are what these parts make.
QUICK = {
    "never",
    "hard",
    "weight-amsgrad-blend",
    "norm",
    "sgd-schedule",
    "inside-all",
    "decay-cooldown",
    "blend-all",
    "blend-cosine-geometric",
}
SWITCH = 5


def formula_run(name, gradients, **more):
    options, simulated = FORMULA[name]
    optimizer = HybridOptimizer(
        **({"learning_rate": 0.01, "trigger": AtStep(SWITCH)} | options | more)
    )
    got = run(optimizer, gradients)
    expected, rho = simulate(
        start_weights(),
        gradients,
        **(
            {"learning_rate": exact(0.01), "switch_at": [SWITCH] * 4}
            | simulated
        ),
    )
    return optimizer, got, expected, rho


@pytest.mark.parametrize("name", slow_but(QUICK, FORMULA))
def test_the_formula_at_every_update(name):
    gradients = random_gradients()
    _, got, expected, _ = formula_run(name, gradients, jit_compile=False)
    for step in range(len(gradients)):
        assert_equal_weights(got[step], expected[step], tolerance("float64"))


@pytest.mark.parametrize(
    "name",
    slow_but(
        {"blend-all"},
        [
            "hard",
            "norm",
            "sgd-schedule",
            "sgd-schedule-inside",
            "inside-all",
            "blend-all",
            "decay-cooldown",
        ],
    ),
)
def test_the_formula_compiled(name):
    gradients = random_gradients()
    _, got, expected, _ = formula_run(name, gradients)
    assert_equal_weights(got[-1], expected[-1], tolerance("float64"))


@pytest.mark.parametrize(
    "name",
    slow_but({"blend-all"}, ["hard", "blend-all", "sgd-rate", "inside-all"]),
)
def test_the_formula_where_xla_surrounds(name):
    # There one update computes any phase.
    options, simulated = FORMULA[name]
    optimizer = HybridOptimizer(
        **({"learning_rate": 0.01, "trigger": AtStep(SWITCH)} | options)
    )
    variables = dense_model("float64").trainable_variables
    optimizer.build(variables)

    @tf.function(jit_compile=True)
    def update(gradient):
        optimizer.apply(gradient, variables)

    gradients = random_gradients()
    for gradient in gradients:
        update([tf.constant(g, "float64") for g in gradient])
    expected, _ = simulate(
        start_weights(),
        gradients,
        **(
            {"learning_rate": exact(0.01), "switch_at": [SWITCH] * 4}
            | simulated
        ),
    )
    assert_equal_weights(
        weights_of(variables), expected[-1], tolerance("float64")
    )


@pytest.mark.parametrize("name", [n for n in FORMULA if n != "hard"])
def test_each_row_of_the_formula_differs_from_a_hard_switch(name):
    gradients = random_gradients()
    switch = {"learning_rate": 0.01, "switch_at": [SWITCH] * 4}
    rows = [
        simulate(start_weights(), gradients, **(switch | FORMULA[n][1]))[0][-1]
        for n in (name, "hard")
    ]
    assert largest_difference(*rows) > 2e-5
