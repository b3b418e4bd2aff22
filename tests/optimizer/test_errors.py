"""Every argument that HybridOptimizer refuses, and what it says then."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import received

from keras_hybrid import HybridOptimizer
from keras_hybrid.transitions import Blend, Cooldown, Hard
from keras_hybrid.triggers import AtEpoch, AtStep, Plateau, ProjectionConverged

NAN, INF = float("nan"), float("inf")


# Arguments, exception. The message must name the argument in backticks and
# end with what was received.
ARGUMENTS = [
    ({"learning_rate": -0.1}, ValueError),
    ({"learning_rate": NAN}, ValueError),
    ({"learning_rate": INF}, ValueError),
    ({"learning_rate": "0.1"}, TypeError),
    ({"learning_rate": None}, TypeError),
    ({"learning_rate": True}, TypeError),
    ({"learning_rate": [0.1]}, TypeError),
    ({"beta_1": 1.5}, ValueError),
    ({"beta_1": 1.0}, ValueError),
    ({"beta_1": -0.1}, ValueError),
    ({"beta_1": None}, TypeError),
    ({"beta_1": NAN}, ValueError),
    ({"beta_2": 1}, ValueError),
    ({"beta_2": "0.999"}, TypeError),
    ({"beta_2": -INF}, ValueError),
    ({"epsilon": 0.0}, ValueError),
    ({"epsilon": -1e-7}, ValueError),
    ({"epsilon": None}, TypeError),
    ({"epsilon": False}, TypeError),
    ({"epsilon": 1e39}, ValueError),
    ({"weight_decay": 1e308}, ValueError),
    ({"clipvalue": -1e308}, ValueError),
    ({"amsgrad": 1}, TypeError),
    ({"amsgrad": None}, TypeError),
    ({"momentum": 1.0}, ValueError),
    ({"momentum": -0.5}, ValueError),
    ({"momentum": True}, TypeError),
    ({"momentum": "0.9"}, TypeError),
    ({"momentum": NAN}, ValueError),
    ({"nesterov": "yes"}, TypeError),
    ({"nesterov": 0}, TypeError),
    ({"sgd_scale": "adam"}, ValueError),
    ({"sgd_scale": 0}, ValueError),
    ({"sgd_scale": -1.0}, ValueError),
    ({"sgd_scale": NAN}, ValueError),
    ({"sgd_scale": INF}, ValueError),
    ({"sgd_scale": None}, TypeError),
    ({"sgd_scale": True}, TypeError),
    ({"sgd_learning_rate": 0.0}, ValueError),
    ({"sgd_learning_rate": -0.1}, ValueError),
    ({"sgd_learning_rate": NAN}, ValueError),
    ({"sgd_learning_rate": "0.1"}, TypeError),
    ({"sgd_learning_rate": True}, TypeError),
    ({"sgd_learning_rate": abs}, TypeError),
    ({"carry_momentum": None}, TypeError),
    ({"carry_momentum": 1.0}, TypeError),
    ({"trigger": AtEpoch(2)}, TypeError),
    ({"trigger": Plateau()}, TypeError),
    ({"trigger": AtEpoch(2) | Plateau()}, TypeError),
    ({"trigger": 1000}, TypeError),
    ({"trigger": "AtStep"}, TypeError),
    ({"trigger": AtStep}, TypeError),
    ({"transition": "hard"}, TypeError),
    ({"transition": 0.5}, TypeError),
    ({"transition": AtStep(3)}, TypeError),
    ({"transition": Cooldown(steps=3)}, TypeError),
    ({"transition": Hard}, TypeError),
    ({"scope": "network"}, ValueError),
    ({"scope": None}, ValueError),
    ({"scope": 1}, ValueError),
    ({"scale_scope": "tensor"}, ValueError),
    ({"scale_scope": True}, ValueError),
    ({"cooldown": "cosine"}, TypeError),
    ({"cooldown": 100}, TypeError),
    ({"cooldown": Blend(3)}, TypeError),
    ({"jit_compile": "yes"}, ValueError),
    ({"jit_compile": None}, ValueError),
    ({"jit_compile": 1}, ValueError),
    ({"jit_compile": 0}, ValueError),
    ({"weight_decay": -0.1}, ValueError),
    ({"weight_decay": "0.1"}, TypeError),
    ({"weight_decay": NAN}, ValueError),
    ({"weight_decay": True}, TypeError),
    ({"clipnorm": 0.0}, ValueError),
    ({"clipnorm": "1"}, TypeError),
    ({"clipvalue": -1.0}, ValueError),
    ({"clipvalue": INF}, ValueError),
    ({"global_clipnorm": NAN}, ValueError),
    ({"global_clipnorm": True}, TypeError),
    ({"use_ema": 1}, TypeError),
    ({"use_ema": "yes"}, TypeError),
    ({"ema_momentum": 1.5}, ValueError),
    ({"ema_momentum": "0.9"}, TypeError),
    ({"ema_overwrite_frequency": 0}, ValueError),
    ({"ema_overwrite_frequency": 2.5}, TypeError),
    ({"ema_overwrite_frequency": True}, TypeError),
    ({"loss_scale_factor": 0}, ValueError),
    ({"loss_scale_factor": INF}, ValueError),
    ({"loss_scale_factor": "big"}, TypeError),
    ({"gradient_accumulation_steps": 1}, ValueError),
    ({"gradient_accumulation_steps": 0}, ValueError),
    ({"gradient_accumulation_steps": 2.0}, TypeError),
    ({"gradient_accumulation_steps": "2"}, TypeError),
    ({"name": 3}, TypeError),
    ({"name": ""}, ValueError),
]


def readable(value):
    if isinstance(value, dict):
        return ",".join(f"{k}={v!r}" for k, v in value.items())
    return getattr(value, "__name__", None)


@pytest.mark.parametrize("arguments, exception", ARGUMENTS, ids=readable)
def test_bad_argument(arguments, exception):
    ((name, value),) = arguments.items()
    with pytest.raises(exception) as caught:
        HybridOptimizer(**arguments)
    message = str(caught.value)
    assert type(caught.value) is exception
    assert f"`{name}` must " in message
    assert message.endswith(received(**arguments))


def test_a_number_that_float32_does_not_hold_is_told_apart():
    with pytest.raises(ValueError, match=r"`epsilon` .*> 0, within float32's"):
        HybridOptimizer(epsilon=1e39)
    assert HybridOptimizer(epsilon=3e38).epsilon == 3e38


@pytest.mark.parametrize(
    "value",
    [np.float32(0.5), np.float64(0.5), np.array(0.5), np.int64(0), 0],
    ids=lambda v: f"{type(v).__name__}",
)
def test_numbers_of_any_type_are_taken(value):
    optimizer = HybridOptimizer(learning_rate=value, beta_1=value)
    assert type(optimizer.beta_1) is float
    assert optimizer.beta_1 == float(value)
    np.testing.assert_allclose(optimizer.learning_rate, float(value))


# More than one argument: a call, exception, pattern.
COMBINATIONS = {
    "scale-and-rate": (
        {"sgd_scale": 2.0, "sgd_learning_rate": 0.1},
        ValueError,
        r"`sgd_scale` and `sgd_learning_rate` can be set\. "
        r"Received: sgd_scale=2\.0, sgd_learning_rate=0\.1$",
    ),
    "norm-and-rate": (
        {"sgd_scale": "norm", "sgd_learning_rate": 0.1},
        ValueError,
        r"Received: sgd_scale='norm', sgd_learning_rate=0\.1$",
    ),
    "start-projection": (
        {"trigger": AtStep(0)},
        ValueError,
        r"`trigger` fires before the first update.*Received: "
        r"trigger=AtStep\(n=0\), sgd_scale='slots'$",
    ),
    "start-norm": (
        {"trigger": AtStep(0), "sgd_scale": "norm"},
        ValueError,
        r"Received: trigger=AtStep\(n=0\), sgd_scale='norm'$",
    ),
    "start-composed": (
        {"trigger": AtStep(0) | ProjectionConverged()},
        ValueError,
        r"Received: trigger=\(AtStep\(n=0\) \| ProjectionConverged\(.*\)\), "
        r"sgd_scale='slots'$",
    ),
    "unknown": (
        {"lerning_rate": 0.1},
        TypeError,
        r"HybridOptimizer takes .*Received: lerning_rate",
    ),
    "unknown-two": (
        {"velocity": 1, "decay": 0.1},
        TypeError,
        r"Received: decay, velocity",
    ),
    "two-clips": (
        {"clipnorm": 1.0, "clipvalue": 1.0},
        ValueError,
        r"Only one of `clipnorm`, `clipvalue` and `global_clipnorm` can be "
        r"set\. Received: clipnorm=1\.0, clipvalue=1\.0",
    ),
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_arguments_that_exclude_each_other(name):
    arguments, exception, pattern = COMBINATIONS[name]
    with pytest.raises(exception, match=pattern):
        HybridOptimizer(**arguments)


def test_allowed_neighbours_of_the_combinations():
    HybridOptimizer(sgd_scale="slots", sgd_learning_rate=0.1)
    HybridOptimizer(trigger=AtStep(0), sgd_scale=2.0)
    HybridOptimizer(trigger=AtStep(0), sgd_learning_rate=0.1)
    HybridOptimizer(trigger=AtStep(0) & ProjectionConverged())
    HybridOptimizer(trigger=AtStep(1))
    HybridOptimizer(learning_rate=0, beta_1=0, beta_2=0, momentum=0)


def built(**arguments):
    optimizer = HybridOptimizer(jit_compile=False, **arguments)
    optimizer.build([keras.Variable([1.0, 2.0])])
    return optimizer


def apply_once(optimizer, value=1.0):
    w = keras.Variable([1.0, 2.0])
    optimizer.apply([tf.constant([value, value])], [w])
    return optimizer


# A function that fails, exception, pattern.
METHODS = {
    "switch-unbuilt": (
        lambda: HybridOptimizer().switch(),
        ValueError,
        r"`switch\(\)` needs a built optimizer.*Received: built=False$",
    ),
    "revert-unbuilt": (
        lambda: HybridOptimizer().revert(),
        ValueError,
        r"`revert\(\)` needs a built optimizer.*Received: built=False$",
    ),
    "switch-no-estimate": (
        lambda: built().switch(),
        ValueError,
        r"`switch\(\)` needs a positive.* estimate.*`sgd_learning_rate`.*"
        r"Received: iterations=0, sgd_scale='slots'$",
    ),
    "switch-no-estimate-norm": (
        lambda: built(sgd_scale="norm").switch(),
        ValueError,
        r"Received: iterations=0, sgd_scale='norm'$",
    ),
    "switch-after-zero-gradient": (
        lambda: apply_once(HybridOptimizer(jit_compile=False), 0.0).switch(),
        ValueError,
        r"Received: iterations=1, .*$",
    ),
    "no-length": (
        lambda: apply_once(
            HybridOptimizer(cooldown=Cooldown(), jit_compile=False)
        ),
        ValueError,
        r"`Cooldown\(\)`.*`optimizer\.training_steps`.*"
        r"Received: steps=None, share=None$",
    ),
    "no-length-without-trigger": (
        lambda: apply_once(
            HybridOptimizer(
                cooldown=Cooldown("linear", final=0.1),
                trigger=AtStep(5),
                jit_compile=False,
            )
        ),
        ValueError,
        r"Received: steps=None, share=None$",
    ),
}
for _value, _exception in (
    (0, ValueError),
    (-1, ValueError),
    (1.5, TypeError),
    (True, TypeError),
    (None, TypeError),
    ("10", TypeError),
    (NAN, TypeError),
):
    METHODS[f"training_steps={_value!r}"] = (
        lambda value=_value: setattr(built(), "training_steps", value),
        _exception,
        r"`training_steps` must be an integer >= 1\. "
        + re.escape(f"Received: training_steps={_value!r}")
        + "$",
    )


@pytest.mark.parametrize("name", METHODS)
def test_bad_call(name):
    call, exception, pattern = METHODS[name]
    with pytest.raises(exception, match=pattern):
        call()


def test_calls_that_are_allowed_next_to_those():
    optimizer = built(cooldown=Cooldown(), sgd_learning_rate=0.1)
    optimizer.training_steps = np.int64(10)
    assert optimizer.training_steps == 10
    optimizer.switch()
    assert optimizer.switch_step == 0
    apply_once(HybridOptimizer(jit_compile=False)).switch()


def test_the_length_of_the_training_can_be_told_before_the_build():
    optimizer = HybridOptimizer(cooldown=Cooldown(), jit_compile=False)
    optimizer.training_steps = 7
    assert optimizer.training_steps == 7
    assert apply_once(optimizer).training_steps == 7


def test_a_failed_switch_leaves_the_state():
    optimizer = built()
    before = [v.numpy() for v in optimizer.variables]
    with pytest.raises(ValueError, match="needs a positive"):
        optimizer.switch()
    for variable, value in zip(optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_scheduled_learning_rate_is_not_settable():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    optimizer = HybridOptimizer(schedule)
    with pytest.raises(TypeError, match="not settable"):
        optimizer.learning_rate = 0.1


def test_unknown_variables_are_refused():
    optimizer = built()
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply([tf.constant([1.0, 1.0])], [keras.Variable([1.0, 2.0])])


def test_jit_compile_true_needs_tensorflow(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(
        ValueError,
        match=r"`jit_compile` can only be True on the TensorFlow backend.*"
        r"Received: jit_compile=True, backend='jax'$",
    ):
        HybridOptimizer(jit_compile=True)


def test_the_table_is_as_long_as_promised():
    assert len(ARGUMENTS) >= 60
