"""Each published method against its formula, over its whole transition."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from cases import (
    CASES,
    MAIN,
    RATE,
    SETTLED,
    every_case,
    expected,
    made,
    swats_of_groups,
)
from inside import state
from problem import PATHS, START, STEPS, gradients, new_variables, run, stepper
from small import slow_but

from keras_hybrid import presets, rules
from keras_hybrid.transitions import Cooldown


def test_every_preset_has_a_case():
    assert {CASES[name].preset for name in MAIN} == set(presets.PRESETS)


@pytest.mark.parametrize("name", slow_but({*MAIN, "SWATS-layer"}, CASES))
def test_float64_is_the_formula(name, whole):
    got, traces = whole(name)[:2]
    np.testing.assert_allclose(got, expected(name), rtol=0, atol=1e-10)
    assert traces == 1


@pytest.mark.parametrize("name", slow_but({"SWATS"}, CASES))
def test_float32_is_the_formula_compiled(name):
    optimizer = made(name)
    assert optimizer.jit_compile == "auto"
    got, traces = run(optimizer, new_variables("float32"))
    np.testing.assert_allclose(
        got, expected(name), rtol=0, atol=CASES[name].float32
    )
    assert traces == 1


def test_each_phase_is_traced_once_in_an_eager_loop(monkeypatch):
    # A phase's Python code runs when it is traced.
    traced_at = set()
    average = rules.moving_average

    def counted(*args):
        traced_at.add(step)
        return average(*args)

    monkeypatch.setattr(rules, "moving_average", counted)
    variables = new_variables("float32")
    optimizer = made("SWATS-layer", jit_compile=False)
    update = stepper(optimizer, variables).python_function
    for step in range(60):
        update(tf.constant(step))
    # All phases with the first update, none when one begins.
    assert traced_at == {0}


@every_case
def test_each_case_is_not_its_neighbours(name):
    # Else a preset could be another one, or Adam, and pass.
    others = [other for other in CASES if other != name]
    adam = reference.adam(gradients(), START, RATE, steps=STEPS)
    for other in [*(expected(o) for o in others), adam]:
        assert np.abs(expected(name) - other).max() > 1e-3


@pytest.mark.parametrize(
    ("scope", "tolerance", "switch_steps"),
    [
        ("model", 2e-5, [39]),
        ("layer", 5.5e-4, [3, 31]),
        ("variable", 5.5e-4, [5, 2, 31]),
    ],
)
def test_swats_switches_by_itself(scope, tolerance, switch_steps):
    # "No repository has a test in which a switch fires by itself."
    assert swats_of_groups(scope, tolerance=tolerance)[1] == switch_steps
    optimizer = presets.SWATS(
        tolerance=tolerance, scope=scope, jit_compile=False, **SETTLED
    )
    run(optimizer, new_variables("float32"), last=60)
    assert list(optimizer.switch_steps.values()) == switch_steps
    assert optimizer.switch_step == max(switch_steps)


def test_swats_to_the_letter_is_the_default():
    # Lambda one for the model, tolerance absolute 1e-9, momentum from zero.
    optimizer = presets.SWATS()
    assert optimizer.scope == optimizer.scale_scope == "model"
    assert not optimizer.carry_momentum and optimizer.sgd_scale == "swats"
    assert optimizer.trigger.get_config() == {
        "tolerance": 1e-9,
        "relative": False,
        "patience": 1,
        "min_steps": 2,
        "max_steps": None,
        "against": "gamma",
    }


@every_case
def test_slots_are_adams(name):
    optimizer = made(name)
    variables = new_variables("float32")
    optimizer.build(variables)
    shapes = [tuple(v.shape) for v in optimizer.variables]
    slots = sum(shapes.count(shape) for shape in PATHS.values() if shape[1:])
    assert slots == (3 if optimizer.amsgrad else 2)
    assert optimizer.amsgrad == (name in ("AMSBound", "Padam"))


@pytest.mark.slow
# One of each class.
@pytest.mark.parametrize(
    "name", ["Grafted", "RMSpropWarmup", "DSTAdam", "Padam"]
)
def test_weight_decay_and_cooldown_work_in_each(name, whole):
    # From the switch on the cool-down takes everything to zero in 40 updates.
    optimizer = made(
        name,
        jit_compile=False,
        weight_decay=0.1,
        cooldown=Cooldown("linear", steps=40),
    )
    got, _ = run(optimizer, new_variables("float64"), last=130)
    end = optimizer.switch_step + 40
    assert np.ptp(got[end - 1 :], axis=0).max() == 0
    assert np.abs(got[end - 1] - got[end - 2]).max() > 0
    rate = float(optimizer.learning_rate)
    np.testing.assert_allclose(
        whole(name)[0][0] - got[0], rate * 0.1 * START, rtol=1e-9
    )


def test_the_guards_cut_reaches_the_warm_up_of_rmsprop():
    def last_step(cut):
        optimizer = presets.RMSpropWarmup(
            2, sgd_learning_rate=0.1, jit_compile=False
        )
        variable = keras.Variable([1.0, 2.0])
        optimizer.build([variable])
        state(optimizer, "sgd_scale_cut").assign(cut)
        for _ in range(30):
            before = variable.numpy()
            optimizer.apply([tf.ones(2)], [variable])
        return before - variable.numpy()

    np.testing.assert_allclose(last_step(0.25), last_step(1.0) / 4, rtol=0.1)
