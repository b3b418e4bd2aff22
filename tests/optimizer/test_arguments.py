"""Arguments assigned and changed, copies, and triggers of one's own."""

import copy
import math
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from inside import slots, state, tracing_counts
from small import slow_but

from keras_hybrid import HybridOptimizer, SwitchCallback, scales
from keras_hybrid.transitions import Blend, Cooldown
from keras_hybrid.triggers import AtStep, ProjectionConverged, StepTrigger


@pytest.mark.parametrize("when", ["before", "built", "by hand"])
def test_an_assigned_transition_is_the_one_that_runs(when):
    trigger = None if when == "by hand" else AtStep(3)
    optimizer = HybridOptimizer(0.01, trigger=trigger, jit_compile=False)
    variable = keras.Variable([1.0, 2.0])
    if when == "built":
        optimizer.build([variable])
    optimizer.transition = Blend(4)
    for _ in range(3):
        optimizer.apply([2 * variable.value], [variable])
    if when == "by hand":
        optimizer.switch()
    weights = []
    for _ in range(4):
        weights.append(optimizer.sgd_fraction)
        optimizer.apply([2 * variable.value], [variable])
    np.testing.assert_allclose(weights, [0.25, 0.5, 0.75, 1.0])


def test_an_assigned_sgd_learning_rate_is_checked():
    optimizer = HybridOptimizer(0.01, jit_compile=False)
    optimizer.sgd_learning_rate = 1
    assert optimizer.sgd_learning_rate == 1.0
    assert isinstance(optimizer.sgd_learning_rate, float)
    with pytest.raises(ValueError, match="sgd_learning_rate=0"):
        optimizer.sgd_learning_rate = 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("amsgrad", True),
        ("scope", "variable"),
        ("scale_scope", "model"),
        ("trigger", ProjectionConverged()),
    ],
)
def test_what_decides_the_variables_is_set_before_they_are(name, value):
    optimizer = HybridOptimizer(0.01, jit_compile=False)
    before = getattr(optimizer, name)
    optimizer.build([keras.Variable([1.0, 2.0])])
    with pytest.raises(ValueError, match=f"`{name}` decides.*{name}="):
        setattr(optimizer, name, value)
    assert getattr(optimizer, name) == before
    setattr(optimizer, name, before)
    optimizer.trigger = AtStep(5)  # It has no state.


def test_a_copy_before_the_first_update_knows_the_length():
    optimizer = HybridOptimizer(cooldown=Cooldown())
    optimizer.training_steps = 10
    for again in (
        copy.deepcopy(optimizer),
        pickle.loads(pickle.dumps(optimizer)),
    ):
        assert again.training_steps == 10
        again.apply([tf.ones(2)], [keras.Variable([1.0, 2.0])])


def test_a_copy_before_the_first_update_cannot_exclude_variables():
    variable = keras.Variable([1.0, 2.0])
    optimizer = HybridOptimizer(weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[variable])
    with pytest.raises(ValueError, match="var_names.*not built"):
        copy.deepcopy(optimizer)
    optimizer.build([variable])
    copy.deepcopy(optimizer)


ONE = np.ones(2, "float32")


def updates(optimizer, count, grad=ONE, value=(1.0, 2.0), change=None):
    variable = keras.Variable(value)
    for i in range(count):
        if i == count // 2 and change is not None:
            change(optimizer, variable)
        optimizer.apply([0.5 * grad], [variable])
    return variable.numpy()


def set_decay(optimizer, variable):
    optimizer.weight_decay = 5.0


def set_clipvalue(optimizer, variable):
    optimizer.clipvalue = 1e-9


def exclude(optimizer, variable):
    optimizer.exclude_from_weight_decay(var_list=[variable])


@pytest.mark.parametrize("change", [set_decay, set_clipvalue, exclude])
def test_arguments_changed_between_updates_count(change):
    ours, keras_own, unchanged = (
        updates(make(0.01, weight_decay=2.0), 4, change=how)
        for make, how in (
            (HybridOptimizer, change),
            (keras.optimizers.AdamW, change),
            (HybridOptimizer, None),
        )
    )
    np.testing.assert_allclose(ours, keras_own, rtol=1e-6)
    assert np.abs(ours - unchanged).max() > 1e-3


def test_arguments_that_stay_cause_no_retrace():
    optimizer = HybridOptimizer(0.01)
    updates(optimizer, 2)
    counts = tracing_counts(optimizer)
    variable = optimizer._trainable_variables[0]
    for rate in (0.1, 0.2):
        optimizer.learning_rate = rate
        optimizer.apply([ONE], [variable])
    assert counts == tracing_counts(optimizer)


@pytest.mark.parametrize("jit_compile", [False, "auto"])
@pytest.mark.parametrize("how", ["skipped", "without a gradient"])
def test_the_momentum_is_forgotten_by_the_first_update_that_counts(
    how, jit_compile
):
    variables = [keras.Variable([1.0, 2.0]), keras.Variable([3.0, 4.0])]
    optimizer = HybridOptimizer(
        0.01,
        sgd_learning_rate=0.1,
        carry_momentum=False,
        trigger=AtStep(3),
        skip_nonfinite=True,
        jit_compile=jit_compile,
    )
    optimizer.build(variables)
    for _ in range(3):
        optimizer.apply([ONE, ONE], variables)
    if how == "skipped":
        optimizer.apply([ONE, np.nan * ONE], variables)
    else:
        optimizer.apply([ONE], variables[:1])
    before = variables[1].numpy()
    optimizer.apply([0 * ONE, 0 * ONE], variables)
    np.testing.assert_array_equal(variables[1].numpy(), before)
    np.testing.assert_array_equal(
        slots(optimizer, "first_moment")[1].numpy(), 0 * ONE
    )
    # Momentum is kept from then on.
    optimizer.apply([ONE, ONE], variables)
    moved = variables[1].numpy()
    optimizer.apply([0 * ONE, 0 * ONE], variables)
    assert (variables[1].numpy() < moved).all()


def test_a_copy_must_be_told_its_variables():
    optimizer = HybridOptimizer(0.01)
    updates(optimizer, 2)
    again = copy.deepcopy(optimizer)
    with pytest.raises(ValueError, match=r"does not know its variables"):
        again.apply([ONE])


class Counts(StepTrigger):
    """Starts with another number in each group."""

    def init(self, groups):
        return [np.arange(1.0, groups + 1)]

    def update(self, state, signals):
        return state[0] < 0, state


def test_a_trigger_of_ones_own_starts_as_it_says():
    optimizer = HybridOptimizer(trigger=Counts(), scope="variable")
    optimizer.build([keras.Variable([1.0]), keras.Variable([2.0])])
    np.testing.assert_array_equal(
        state(optimizer, "trigger_state_0").numpy(), [1, 2]
    )


class Waits(StepTrigger):
    def __init__(self, n=3):
        self.n = n


def test_a_trigger_with_arguments_needs_a_config():
    assert repr(Counts()) == "Counts()"
    with pytest.raises(TypeError, match=r"`get_config`.*Received: Waits"):
        HybridOptimizer(trigger=Waits())


class Needs(StepTrigger):
    needs = frozenset({"loss"})


class Scale(scales.Scale):
    needs = frozenset({"step_square"})


def test_a_scale_needs_what_it_estimates_with():
    with pytest.raises(TypeError, match="no estimate and no update.*Scale"):
        HybridOptimizer(sgd_scale=Scale())
    with pytest.raises(TypeError, match="no estimate. Received: sgd_scale=Sca"):
        HybridOptimizer(sgd_scale=scales.Scale())


def test_a_trigger_may_need_only_what_there_is():
    with pytest.raises(ValueError, match=r"`needs`.*step_square.*loss"):
        HybridOptimizer(trigger=Needs())


@pytest.mark.parametrize(
    ("arguments", "name", "value", "message"),
    [
        ({"sgd_scale": "norm"}, "sgd_learning_rate", 0.1, "Only one of"),
        ({"sgd_learning_rate": 0.1}, "sgd_scale", 2.0, "Only one of"),
        ({"sgd_scale": 2.0}, "scale_multiplier", 2.0, "a factor on the"),
        ({"trigger": AtStep(3)}, "trigger", AtStep(0), "before the first"),
        (
            {"trigger": AtStep(0), "sgd_scale": 1.0},
            "cooldown",
            Cooldown(share=0.5),
            "a share of the updates before",
        ),
        ({"clipnorm": 1.0}, "clipvalue", 0.5, "clipnorm=1.0, clipvalue=0.5"),
        ({"clipvalue": 0.5}, "global_clipnorm", 1.0, "Only one of"),
    ],
)
def test_assigned_arguments_must_go_together(arguments, name, value, message):
    """A config that could not be loaded would come of it."""
    optimizer = HybridOptimizer(0.01, **arguments)
    updates(optimizer, 1)
    before = optimizer.get_config()
    with pytest.raises(ValueError, match=message):
        setattr(optimizer, name, value)
    assert optimizer.get_config() == before
    HybridOptimizer.from_config(before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight_decay", -2),
        ("clipnorm", 0),
        ("gradient_accumulation_steps", 1),
        ("ema_momentum", 2.0),
    ],
)
def test_assigned_arguments_of_keras_are_checked(name, value):
    optimizer = HybridOptimizer()
    before = getattr(optimizer, name)
    with pytest.raises(ValueError, match=f"`{name}` must be.*{name}={value}"):
        setattr(optimizer, name, value)
    assert getattr(optimizer, name) == before
    with pytest.raises(TypeError, match="`use_ema` must be True or False"):
        optimizer.use_ema = 3


def test_sgd_s_rate_is_not_assigned_behind_the_switch():
    optimizer = HybridOptimizer(0.01, sgd_learning_rate=0.1)
    updates(optimizer, 1)
    optimizer.switch()
    optimizer.sgd_learning_rate = 0.1  # As it is.
    with pytest.raises(ValueError, match="read at the switch.*0.001"):
        optimizer.sgd_learning_rate = 0.001
    optimizer.revert()
    optimizer.sgd_learning_rate = 0.001
    optimizer.switch()
    assert optimizer.sgd_learning_rate_equivalent == pytest.approx(0.001)


@pytest.mark.parametrize(
    "change", slow_but({set_decay}, [set_decay, set_clipvalue, exclude])
)
def test_keras_own_arguments_reach_the_next_fit(change):
    def trained(optimizer, callbacks, eagerly):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(optimizer, "mse", run_eagerly=eagerly)
        x = np.ones((8, 2), "float32")
        model.fit(x, x[:, :1], verbose=0, callbacks=callbacks)
        change(optimizer, model.trainable_variables[0])
        model.fit(x, x[:, :1], verbose=0, callbacks=callbacks)
        return model.get_weights()[0]

    # Keras keeps the step that it has compiled; eagerly it has none.
    expected = trained(keras.optimizers.AdamW(0.01, 2.0), [], True)
    ours = HybridOptimizer(0.01, weight_decay=2.0, jit_compile=False)
    np.testing.assert_allclose(
        trained(ours, [SwitchCallback(verbose=0)], False), expected, rtol=1e-5
    )


def test_a_copy_knows_that_the_length_comes_later():
    optimizer = HybridOptimizer(0.01, cooldown=Cooldown())
    optimizer.training_steps = math.inf
    updates(optimizer, 1)
    updates(copy.deepcopy(optimizer), 1)


@pytest.mark.parametrize(
    "grad", [np.ones(2), [1.0, 1.0], ONE.astype("float16")], ids=repr
)
@pytest.mark.parametrize("clipvalue", [None, 0.5])
def test_gradients_that_keras_takes(grad, clipvalue):
    results = []
    for given in (grad, ONE):
        variable = keras.Variable([1.0, 2.0])
        optimizer = HybridOptimizer(0.01, clipvalue=clipvalue)
        optimizer.apply([given], [variable])
        results.append(variable.numpy())
    np.testing.assert_array_equal(*results)


# ---- Iterations set back, as for a warm restart ------------------------------


def test_iterations_set_back_leave_the_bias_corrections():
    optimizer, w = HybridOptimizer(0.01), keras.Variable([1.0, 2.0])
    gradient = tf.constant([0.3, -0.2])
    for _ in range(200):
        optimizer.apply([gradient], [w])
    optimizer.iterations.assign(0)
    before = w.numpy()
    optimizer.apply([gradient], [w])
    np.testing.assert_allclose(w - before, [-0.01, 0.01], rtol=1e-4)


def test_iterations_set_back_do_not_take_a_blend_behind_its_start():
    optimizer = HybridOptimizer(
        0.01, trigger=AtStep(3), transition=Blend(4), sgd_scale=1.0
    )
    w = keras.Variable([1.0, 2.0])
    for _ in range(5):
        optimizer.apply([tf.constant([0.3, -0.2])], [w])
    optimizer.iterations.assign(0)
    for _ in range(2):
        optimizer.apply([tf.constant([0.3, -0.2])], [w])
        assert 0 <= optimizer.sgd_fraction <= 0.25
