"""SwitchCallback under `fit`: when it switches, what it says, what survives."""

import contextlib
import copy
import functools
import logging
import math

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from keras_hybrid import HybridOptimizer, SwitchCallback
from keras_hybrid.callbacks import hybrid_optimizer
from keras_hybrid.transitions import Blend, Cooldown, Hard
from keras_hybrid.triggers import (
    AtEpoch,
    AtStep,
    GeneralizationGap,
    MetricReached,
    Plateau,
    StepTrigger,
)

pytestmark = pytest.mark.filterwarnings(
    # Keras' Variable takes no `copy`, which NumPy 2 asks of np.array(variable).
    "ignore:__array__ implementation:DeprecationWarning"
)

BATCH, STEPS = 8, 4  # Updates an epoch.
_RANDOM = np.random.default_rng(0)
X = _RANDOM.normal(size=(BATCH * STEPS, 3)).astype("float32")
Y = (0.1 * X @ [[1.0], [-2.0], [3.0]]).astype("float32")


def dataset(rows=None):
    return tf.data.Dataset.from_tensor_slices((X[:rows], Y[:rows])).batch(BATCH)


def unknown_length(data):
    return data.filter(lambda *_: True)


def compiled_model(optimizer, layers=(), **compile_kwargs):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.layers.Input((3,)),
            keras.layers.Dense(4, activation="tanh"),
            *layers,
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer, loss="mse", **compile_kwargs)
    return model


def new_model(**kwargs):
    kwargs = {"learning_rate": 0.01, "jit_compile": False, **kwargs}
    return compiled_model(HybridOptimizer(**kwargs))


_MODELS = {}


def hybrid_model(**kwargs):
    """A model as `new_model` makes it, compiled once and then reset.

    Phase is data, so that the initial values are the initial state. Where new
    Python objects are the point, tests take `new_model`.
    """
    key = repr(sorted(kwargs.items()))
    if key not in _MODELS:
        model = new_model(**kwargs)
        model.optimizer.build(model.trainable_variables)
        variables = model.variables + model.optimizer.variables
        _MODELS[key] = model, variables, [v.numpy() for v in variables]
    model, variables, values = _MODELS[key]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    model._initial_epoch = None  # BackupAndRestore sets it.
    return model


def fit(model, *callbacks, epochs=3, data=None, **kwargs):
    return model.fit(
        dataset() if data is None else data,
        epochs=epochs,
        callbacks=list(callbacks),
        shuffle=False,
        verbose=0,
        **kwargs,
    ).history


class Inject(keras.callbacks.Callback):
    """Puts chosen metrics into the logs: `Inject(score=[1.0, 0.5])`."""

    def __init__(self, **values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: v[epoch] for name, v in self.values.items()})


def state_of(model):
    """All weights and all optimizer state."""
    variables = model.variables + model.optimizer.variables
    return [(v.path.split("/")[-1], v.numpy()) for v in variables]


def assert_equal_states(state, other):
    """Equal to the last bit."""
    for (name, a), (_, b) in zip(state, other, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


# ---- When it switches -------------------------------------------------------

PLATEAU_OF_2 = [1.0, 0.5, 0.75, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("trigger", "epochs_before"),
    [
        (AtEpoch(1), 1),
        (AtEpoch(3), 3),
        (Plateau("score", patience=2, mode="min"), 4),
        (Plateau("score", patience=1, mode="max"), 2),
        (GeneralizationGap(0.3, metric="gap", mode="min"), 3),
        (MetricReached("score", 0.25, mode="min"), 5),
        (AtEpoch(5) | Plateau("score", patience=1, mode="min"), 3),
        (AtEpoch(4) & Plateau("score", patience=1, mode="min"), 4),
        (AtEpoch(6), 6),
        (AtEpoch(7), None),
    ],
    ids=repr,
)
def test_switches_at_the_right_epoch(trigger, epochs_before):
    model = hybrid_model()
    inject = Inject(
        score=PLATEAU_OF_2, gap=[0.0] * 6, val_gap=[0.1, 0.3, 0.5, 0, 0, 0]
    )
    history = fit(model, inject, SwitchCallback(trigger, verbose=0), epochs=6)
    optimizer = model.optimizer
    if epochs_before is None:
        assert optimizer.switch_step is None
        assert history["switch_step"] == [-1] * 6
    else:
        assert optimizer.switch_step == epochs_before * STEPS
        assert history["sgd_fraction"] == [
            float(epoch >= epochs_before) for epoch in range(6)
        ]


def test_reads_the_metrics_that_fit_computes():
    model = hybrid_model(learning_rate=0.0)
    # With learning rate 0 the validation loss never improves.
    fit(
        model,
        SwitchCallback(Plateau("val_loss", patience=2), verbose=0),
        epochs=4,
        validation_data=dataset(),
    )
    assert model.optimizer.switch_step == 3 * STEPS


def test_rounding_of_the_stored_state_does_not_hide_a_plateau():
    """0.1 is no float32; a constant score must not look like progress."""
    model = hybrid_model()
    trigger = Plateau("score", patience=2, mode="min")
    fit(
        model,
        Inject(score=[0.1] * 4),
        SwitchCallback(trigger, verbose=0),
        epochs=4,
    )
    assert model.optimizer.switch_step == 3 * STEPS


def test_step_trigger_of_the_optimizer_switches_inside_an_epoch():
    model = hybrid_model(trigger=AtStep(STEPS + 1))
    history = fit(model, SwitchCallback(verbose=0))
    assert model.optimizer.switch_step == STEPS + 1
    assert history["switch_step"] == [-1, STEPS + 1, STEPS + 1]


def test_an_earlier_step_trigger_leaves_nothing_to_the_epoch_trigger():
    model = hybrid_model(trigger=AtStep(2))
    fit(model, SwitchCallback(AtEpoch(2), verbose=0))
    assert model.optimizer.switch_step == 2


def test_monitor_only_says_but_does_not_switch(capsys):
    model = hybrid_model()
    history = fit(model, SwitchCallback(AtEpoch(2), monitor_only=True))
    assert not model.optimizer.has_switched
    assert history["would_switch"] == [0, 1, 1]
    assert history["sgd_fraction"] == [0, 0, 0]
    printed = capsys.readouterr().out
    assert "Epoch 2: AtEpoch(n=2) would switch" in printed
    assert "Epoch 1:" not in printed
    assert "switched to SGD" not in printed


def test_switch_by_hand_is_reported(capsys):
    model = hybrid_model()
    by_hand = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: (
            batch == 2
            and not model.optimizer.has_switched
            and model.optimizer.switch()
        )
    )
    fit(model, by_hand, SwitchCallback(), epochs=2)
    assert model.optimizer.switch_step == 3
    line = "Epoch 1: switched to SGD at update 3 by optimizer.switch(), "
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    "trigger", [AtEpoch(2), Plateau("score", patience=1, mode="min")], ids=repr
)
def test_revert_lets_the_trigger_start_anew(trigger):
    model = hybrid_model()
    scores = [1.0] * 6
    switch = SwitchCallback(trigger, verbose=0)
    fit(model, Inject(score=scores), switch, epochs=2)
    assert model.optimizer.switch_step == 2 * STEPS
    model.optimizer.revert()
    fit(
        model, Inject(score=scores), switch, epochs=6, initial_epoch=2
    )  # AtEpoch holds after epoch 2, Plateau has to see two epochs again.
    waited = 1 if isinstance(trigger, AtEpoch) else 2
    assert model.optimizer.switch_step == (2 + waited) * STEPS


# ---- Logs and words ---------------------------------------------------------


def test_history_sees_phase_and_learning_rates():
    model = hybrid_model(
        learning_rate=0.25,
        sgd_scale=0.5,
        momentum=0.75,
        cooldown=Cooldown("linear", steps=8),
    )
    history = fit(model, SwitchCallback(AtEpoch(1), verbose=0), epochs=4)
    assert history["sgd_fraction"] == [0, 1, 1, 1]
    assert history["switch_step"] == [-1, STEPS, STEPS, STEPS]
    assert history["learning_rate"] == [0.25] * 4
    # 4 and 8 of 8 updates after the switch.
    assert history["cooldown"] == [1, 0.5, 0, 0]
    # learning_rate * rho * (1 - momentum) * cooldown.
    at_switch = 0.25 * 0.5 * 0.25
    np.testing.assert_allclose(
        history["sgd_learning_rate"],
        [at_switch, at_switch / 2, 0, 0],
        rtol=1e-6,
    )


def test_logs_hold_plain_numbers():
    model = hybrid_model()
    history = fit(model, SwitchCallback(AtEpoch(1), verbose=0), epochs=2)
    for name, kind in (
        ("sgd_fraction", float),
        ("switch_step", int),
        ("learning_rate", float),
        ("cooldown", float),
        ("sgd_learning_rate", float),
    ):
        assert {type(value) for value in history[name]} == {kind}, name


def test_sgd_fraction_is_the_weight_of_the_next_update():
    model = hybrid_model(transition=Blend(8, end=0.5))
    history = fit(model, SwitchCallback(AtEpoch(1), verbose=0), epochs=4)
    # Positions 4, 8 and 12: 0.5 * min((position + 1) / 8, 1).
    assert history["sgd_fraction"] == [0, 0.3125, 0.5, 0.5]


def test_learning_rate_of_a_schedule_is_logged():
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 16, 0.0)
    model = hybrid_model(learning_rate=schedule)
    history = fit(model, SwitchCallback(AtEpoch(1), verbose=0))
    assert history["learning_rate"] == [0.75, 0.5, 0.25]


def test_sgd_learning_rate_is_nan_without_an_estimate():
    model = hybrid_model()
    data = tf.data.Dataset.from_tensor_slices((0 * X, 0 * Y)).batch(BATCH)
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    history = fit(model, SwitchCallback(verbose=0), epochs=1, data=data)
    assert math.isnan(history["sgd_learning_rate"][0])
    with pytest.warns(UserWarning, match="would switch.*stays adaptive"):
        fit(model, SwitchCallback(AtEpoch(1)), epochs=1, data=data)
    assert not model.optimizer.has_switched


@pytest.mark.parametrize(
    ("kwargs", "trigger", "epoch", "update", "reason"),
    [
        ({}, AtEpoch(2), 2, 2 * STEPS, "AtEpoch(n=2)"),
        ({"trigger": AtStep(5)}, None, 2, 5, "AtStep(n=5)"),
        ({"trigger": AtStep(5)}, AtEpoch(1), 1, STEPS, "AtEpoch(n=1)"),
        ({"trigger": AtStep(5)}, AtEpoch(3), 2, 5, "AtStep(n=5)"),
    ],
    ids=["epoch", "step", "epoch_first", "step_first"],
)
def test_says_once_when_why_and_how_fast(
    capsys, kwargs, trigger, epoch, update, reason
):
    model = hybrid_model(sgd_learning_rate=0.05, **kwargs)
    callback = SwitchCallback(trigger)
    fit(model, callback)
    assert capsys.readouterr().out == (
        f"Epoch {epoch}: switched to SGD at update {update} by {reason}, "
        "SGD learning rate 0.05.\n"
    )
    fit(model, callback, epochs=4, initial_epoch=3)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("monitor_only", [False, True])
def test_verbose_0_is_silent(capsys, caplog, monitor_only):
    callback = SwitchCallback(AtEpoch(1), verbose=0, monitor_only=monitor_only)
    with caplog.at_level(logging.DEBUG, logger="keras_hybrid"):
        fit(hybrid_model(), callback, epochs=2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "SGD" not in captured.err
    assert not caplog.records


@pytest.fixture
def logging_instead_of_printing():
    keras.config.disable_interactive_logging()
    yield
    keras.config.enable_interactive_logging()


def test_follows_keras_interactive_logging(
    logging_instead_of_printing, capsys, caplog
):
    with caplog.at_level(logging.INFO, logger="keras_hybrid"):
        fit(hybrid_model(), SwitchCallback(AtEpoch(1)), epochs=2)
    assert capsys.readouterr().out == ""
    assert [r.message for r in caplog.records][0].startswith(
        "Epoch 1: switched to SGD at update 4 by AtEpoch(n=1), "
    )
    assert len(caplog.records) == 1


# ---- Errors -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "error", "received"),
    [
        ({"trigger": "epoch"}, TypeError, "trigger='epoch'"),
        ({"trigger": 3}, TypeError, "trigger=3"),
        ({"trigger": AtStep(3)}, TypeError, r"trigger=AtStep\(n=3\)"),
        ({"trigger": AtEpoch}, TypeError, "trigger=<class"),
        ({"verbose": 2}, ValueError, "verbose=2"),
        ({"verbose": True}, ValueError, "verbose=True"),
        ({"verbose": "1"}, ValueError, "verbose='1'"),
        (
            {"trigger": AtEpoch(1), "monitor_only": 1},
            TypeError,
            "monitor_only=1",
        ),
        ({"monitor_only": True}, ValueError, "trigger=None, monitor_only=True"),
    ],
)
def test_errors_say_what_was_received(kwargs, error, received):
    with pytest.raises(error, match=f"Received: .*{received}"):
        SwitchCallback(**kwargs)


def test_a_trigger_with_too_much_state_is_an_error():
    trigger = Plateau()
    for _ in range(14):
        trigger = trigger | Plateau()
    SwitchCallback(trigger)  # 30 numbers, fingerprint and epoch: 32 of 32.
    with pytest.raises(ValueError, match="at most 30 .*Received: 32"):
        SwitchCallback(trigger | Plateau())


@pytest.mark.parametrize("optimizer", ["adam", keras.optimizers.SGD(0.1)])
def test_another_optimizer_is_an_error(optimizer):
    model = compiled_model(optimizer)
    with pytest.raises(ValueError, match="Received: optimizer=(Adam|SGD)"):
        fit(model, SwitchCallback(AtEpoch(1)), epochs=1)


def test_two_triggers_in_one_fit_are_an_error():
    """They would share the one state that the optimizer keeps of a trigger."""
    model = hybrid_model()
    first, second = SwitchCallback(AtEpoch(1)), SwitchCallback(AtEpoch(2))
    with pytest.raises(ValueError, match=r"only one.*`\|`.*AtEpoch"):
        fit(model, first, second)
    # One of them alone, again, and one that only logs beside it: all fine.
    fit(model, first, epochs=1)
    fit(model, first, SwitchCallback(verbose=0), epochs=2)
    assert model.optimizer.has_switched


def test_an_uncompiled_model_is_an_error():
    with pytest.raises(ValueError, match="Received: optimizer=NoneType"):
        hybrid_optimizer(keras.Sequential([keras.layers.Dense(1)]))


def test_missing_metric_lists_the_available_ones():
    with pytest.raises(
        ValueError, match="Received: monitor='val_loss'"
    ) as caught:
        fit(hybrid_model(), SwitchCallback(Plateau("val_loss")), epochs=1)
    caught.match(
        "Available: cooldown, learning_rate, loss, sgd_fraction, "
        "sgd_learning_rate, switch_step"
    )


# ---- Under what fit offers --------------------------------------------------


@pytest.fixture
def mixed_float16():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(policy)


def test_works_under_loss_scaling(mixed_float16):
    model = new_model(cooldown=Cooldown())
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    history = fit(model, SwitchCallback(AtEpoch(2), verbose=0), epochs=4)
    optimizer = hybrid_optimizer(model)
    assert isinstance(optimizer, HybridOptimizer)
    # No update was skipped for gradients that are not finite.
    assert int(optimizer.iterations) == 4 * STEPS
    assert optimizer.switch_step == 2 * STEPS
    assert optimizer.training_steps == 4 * STEPS
    assert history["sgd_fraction"] == [0, 0, 1, 1]
    np.testing.assert_allclose(history["cooldown"], [1, 1, 0.5, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "trigger", "switch_step"),
    [({}, AtEpoch(1), STEPS), ({"trigger": AtStep(6)}, None, 6)],
    ids=["epoch", "step"],
)
def test_works_with_several_steps_per_execution(kwargs, trigger, switch_step):
    optimizer = HybridOptimizer(0.01, jit_compile=False, **kwargs)
    model = compiled_model(optimizer, steps_per_execution=4)
    history = fit(model, SwitchCallback(trigger, verbose=0))
    assert optimizer.switch_step == switch_step
    assert optimizer.training_steps == 3 * STEPS
    one = hybrid_model(**kwargs)
    assert fit(one, SwitchCallback(trigger, verbose=0)) == history
    assert_equal_states(state_of(model), state_of(one))


def test_copies_of_the_callback_are_independent():
    """KerasTuner deep-copies callbacks for each execution."""
    original = SwitchCallback(
        Plateau("score", patience=1, mode="min"), verbose=0
    )
    steps = []
    for scores in ([1.0, 0.5, 0.5], [1.0, 1.0, 0.5]):
        model = hybrid_model()
        fit(model, Inject(score=scores), copy.deepcopy(original))
        steps.append(model.optimizer.switch_step)
    assert steps == [3 * STEPS, 2 * STEPS]
    assert original.trigger.get_state() == [math.inf, 0]


class TraceCounter(keras.layers.Layer):
    """The identity; counts how often it is traced."""

    traces = 0

    def call(self, inputs):
        self.traces += 1
        return inputs


class TracedTrigger(StepTrigger):
    """Never fires; counts how often it is traced."""

    traces = 0

    def update(self, state, signals):
        self.traces += 1
        return signals.step < 0, state

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    ("transition", "jit", "model_jit"),
    [
        (Blend(5, path="geometric"), False, False),
        (Hard(), "auto", False),
        (Hard(), "auto", True),
    ],
    ids=["blend", "xla_optimizer", "xla_model"],
)
def test_no_retrace_at_the_switch(transition, jit, model_jit):
    layer, trigger = TraceCounter(), TracedTrigger()
    optimizer = HybridOptimizer(
        0.01,
        trigger=trigger,
        transition=transition,
        cooldown=Cooldown(),
        jit_compile=jit,
    )
    model = compiled_model(optimizer, [layer], jit_compile=model_jit)
    counts = []
    count = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: counts.append(
            (layer.traces, trigger.traces)
        )
    )
    fit(model, SwitchCallback(AtEpoch(2), verbose=0), count, epochs=4)
    assert optimizer.switch_step == 2 * STEPS
    assert optimizer.sgd_fraction == 1
    assert min(counts[0]) > 0
    assert counts == [counts[0]] * 4


# ---- The length of the training ---------------------------------------------


@pytest.mark.parametrize(
    ("optimizer_kwargs", "fits", "expected"),
    [
        ({}, [{"epochs": 3}], 3 * STEPS),
        ({}, [{"epochs": 3, "initial_epoch": 1}], 2 * STEPS),
        (
            {},
            [{"epochs": 2}, {"epochs": 5, "initial_epoch": 2}],
            5 * STEPS,
        ),
        ({}, [{"epochs": 2}, {"epochs": 2}], 4 * STEPS),
        ({}, [{"epochs": 2, "rows": 30}], 2 * STEPS),
        (
            {},
            [{"epochs": 2, "steps_per_epoch": 3, "repeated": True}],
            6,
        ),
        (
            {"gradient_accumulation_steps": 2},
            [{"epochs": 3}],
            3 * STEPS // 2,
        ),
        # 12 and 8 micro-batches, 3 an update.
        (
            {"gradient_accumulation_steps": 3},
            [{"epochs": 3}, {"epochs": 5, "initial_epoch": 3}],
            6,
        ),
    ],
    ids=[
        "plain",
        "initial_epoch",
        "continued",
        "fitted_twice",
        "partial_batch",
        "steps_per_epoch",
        "accumulation",
        "accumulation_continued",
    ],
)
def test_training_steps_are_told(optimizer_kwargs, fits, expected):
    model = hybrid_model(cooldown=Cooldown(), **optimizer_kwargs)
    for arguments in fits:
        arguments = dict(arguments)
        data = dataset(arguments.pop("rows", None))
        if arguments.pop("repeated", False):
            data = unknown_length(data.repeat())
        fit(model, SwitchCallback(verbose=0), data=data, **arguments)
    assert model.optimizer.training_steps == expected
    assert int(model.optimizer.iterations) == expected


def batch_factors(model):
    """A callback with the cool-down's factor of every update."""
    factors = []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: factors.append(
            model.optimizer.cooldown_factor
        )
    )
    return factors, callback


@pytest.mark.parametrize(
    ("kwargs", "arguments", "adaptive", "length"),
    [
        ({}, {"epochs": 3}, STEPS, 2 * STEPS),
        ({}, {"epochs": 4, "initial_epoch": 2}, STEPS, STEPS),
        (
            {"gradient_accumulation_steps": 2},
            {"epochs": 5},
            STEPS // 2,
            4 * STEPS // 2,
        ),
    ],
    ids=["plain", "initial_epoch", "accumulation"],
)
def test_cooldown_without_steps_ends_with_the_training(
    kwargs, arguments, adaptive, length
):
    """The factor of each update is keras' CosineDecay from the switch."""
    model = hybrid_model(cooldown=Cooldown(), **kwargs)
    factors, callback = batch_factors(model)
    fit(model, callback, SwitchCallback(AtEpoch(1), verbose=0), **arguments)
    assert model.optimizer.switch_step == adaptive
    decay = keras.optimizers.schedules.CosineDecay(1.0, length)
    accumulated = kwargs.get("gradient_accumulation_steps", 1)
    expected = np.repeat(
        [1.0] * adaptive + [float(decay(j)) for j in range(length)],
        accumulated,
    )
    np.testing.assert_allclose(
        factors, expected, **reference.tolerance("float32")
    )
    assert model.optimizer.cooldown_factor == pytest.approx(0, abs=1e-7)


@keras.saving.register_keras_serializable("tests")
class ConstantThenCosine(keras.optimizers.schedules.LearningRateSchedule):
    """The schedule-matched Adam's: constant, then a cosine to zero."""

    def __init__(self, rate, constant_steps, decay_steps):
        self.arguments = (rate, constant_steps, decay_steps)

    def __call__(self, step):
        rate, constant, length = self.arguments
        decay = keras.optimizers.schedules.CosineDecay(rate, length)
        after = keras.ops.maximum(keras.ops.cast(step, "float32") - constant, 0)
        return decay(after)


def test_cooldown_with_end_weight_0_is_schedule_matched_adam():
    model = hybrid_model(transition=Hard(0.0), cooldown=Cooldown())
    fit(model, SwitchCallback(AtEpoch(1), verbose=0), epochs=3)
    schedule = ConstantThenCosine(0.01, STEPS, 2 * STEPS)
    adam = compiled_model(keras.optimizers.Adam(schedule))
    fit(adam, epochs=3)
    for mine, adams in zip(model.weights, adam.weights, strict=True):
        np.testing.assert_allclose(
            mine.numpy(), adams.numpy(), rtol=1e-4, atol=1e-6
        )


def test_cooldown_needs_a_data_set_of_known_length():
    model = new_model(cooldown=Cooldown())
    with pytest.raises(ValueError, match="Received: steps_per_epoch=None"):
        fit(model, SwitchCallback(), data=unknown_length(dataset()), epochs=1)


def test_cooldown_needs_the_callback():
    model = new_model(cooldown=Cooldown(), trigger=AtStep(2))
    with pytest.raises(ValueError, match="length is not known.*SwitchCallback"):
        fit(model, epochs=1)


def test_cooldown_of_known_length_needs_no_callback():
    model = hybrid_model(cooldown=Cooldown(steps=4), trigger=AtStep(2))
    fit(model, epochs=1)
    assert model.optimizer.training_steps is None
    # 2 of 4 updates after the switch.
    assert model.optimizer.cooldown_factor == pytest.approx(0.5, abs=1e-6)


# ---- Restarts ---------------------------------------------------------------

PLATEAU_OF_3 = [1.0, 0.5, 0.75, 0.625, 0.5, 0.5, 0.5]


def plateau_of_3():
    return Plateau("score", patience=3, mode="min")


def at_epoch_2():
    return AtEpoch(2)


@functools.cache
def uninterrupted(make_trigger, **kwargs):
    """The state and the switch step after all 7 epochs."""
    model = hybrid_model(cooldown=Cooldown(), **kwargs)
    switch = SwitchCallback(make_trigger and make_trigger(), verbose=0)
    fit(model, Inject(score=PLATEAU_OF_3), switch, epochs=7)
    return state_of(model), model.optimizer.switch_step


@pytest.mark.parametrize("after", [2, 6])
def test_trigger_state_survives_in_the_optimizer(after):
    """Saved in the middle of the patience, and after the switch."""
    whole, switch_step = uninterrupted(plateau_of_3)
    assert switch_step == 5 * STEPS

    def callbacks():
        switch = SwitchCallback(plateau_of_3(), verbose=0)
        return Inject(score=PLATEAU_OF_3), switch

    first = hybrid_model(cooldown=Cooldown())
    # A run of 7 epochs that ends early: the cool-down goes to epoch 7.
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(
            first, "stop_training", epoch + 1 == after
        )
    )
    fit(first, *callbacks(), stop, epochs=7)
    assert int(first.optimizer.iterations) == after * STEPS

    second = new_model(cooldown=Cooldown())
    second.set_weights(first.get_weights())
    second.optimizer.build(second.trainable_variables)
    for new, old in zip(
        second.optimizer.variables, first.optimizer.variables, strict=True
    ):
        new.assign(old.value)
    fit(second, *callbacks(), epochs=7, initial_epoch=after)
    assert second.optimizer.switch_step == switch_step
    assert_equal_states(state_of(second), whole)


def test_another_trigger_starts_anew():
    model = hybrid_model()
    scores = Inject(score=[1.0] * 9)

    def plateau(patience):
        trigger = Plateau("score", patience=patience, mode="min")
        return SwitchCallback(trigger, verbose=0)

    fit(model, scores, plateau(5), epochs=4)
    assert not model.optimizer.has_switched
    # After 3 epochs without improvement patience 2 would hold at once; anew
    # it needs a first epoch and two more.
    fit(model, scores, plateau(2), epochs=9, initial_epoch=4)
    assert model.optimizer.switch_step == 7 * STEPS


def test_the_same_trigger_goes_on_in_another_callback():
    model = hybrid_model()
    scores = Inject(score=[1.0] * 9)

    def plateau():
        trigger = Plateau("score", patience=5, mode="min")
        return SwitchCallback(trigger, verbose=0)

    fit(model, scores, plateau(), epochs=4)
    fit(model, scores, plateau(), epochs=9, initial_epoch=4)
    assert model.optimizer.switch_step == 6 * STEPS


class Interrupted(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    """Fails in the second batch of one epoch, after the first update."""

    def __init__(self, epoch):
        super().__init__()
        self.fatal, self.epoch = epoch, None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.epoch == self.fatal and batch == 1:
            raise Interrupted


def restarted(folder, make_trigger, *, interrupt, switch_first, **kwargs):
    """Trains under BackupAndRestore until it fails, then in new objects."""
    for model, fatal in (
        (hybrid_model(cooldown=Cooldown(), **kwargs), interrupt),
        (new_model(cooldown=Cooldown(), **kwargs), None),
    ):
        switch = SwitchCallback(make_trigger and make_trigger(), verbose=0)
        backup = keras.callbacks.BackupAndRestore(str(folder))
        order = [switch, backup] if switch_first else [backup, switch]
        fails = pytest.raises(Interrupted)
        with contextlib.nullcontext() if fatal is None else fails:
            fit(
                model,
                Inject(score=PLATEAU_OF_3),
                *order,
                Interrupt(fatal),
                epochs=7,
            )
    return model


@pytest.mark.parametrize(
    ("make_trigger", "kwargs", "interrupt"),
    [
        (plateau_of_3, {}, 3),
        (plateau_of_3, {}, 5),
        (at_epoch_2, {"transition": Blend(12)}, 3),
        (None, {"trigger": AtStep(9)}, 3),
    ],
    ids=["in_patience", "at_switch", "in_transition", "step_trigger"],
)
def test_backup_after_the_switch_callback_resumes_exactly(
    tmp_path, make_trigger, kwargs, interrupt
):
    whole, switch_step = uninterrupted(make_trigger, **kwargs)
    again = restarted(
        tmp_path, make_trigger, interrupt=interrupt, switch_first=True, **kwargs
    )
    assert switch_step is not None
    assert again.optimizer.switch_step == switch_step
    assert_equal_states(state_of(again), whole)


def steady(monitor):
    """Holds after three epochs; two numbers of state change on the way."""
    return Plateau(monitor, patience=2, min_delta=10.0, mode="min")


@functools.cache
def unbroken(monitor):
    """State and history of 6 epochs with callbacks in the natural order."""
    model = hybrid_model()
    history = fit(
        model,
        SwitchCallback(steady(monitor), verbose=0),
        epochs=6,
        validation_data=dataset(),
    )
    return state_of(model), history


@pytest.mark.parametrize("interrupt", [2, 3, 4])
@pytest.mark.parametrize("monitor", ["val_loss", "loss"])
def test_backup_before_the_switch_callback_resumes_exactly(
    tmp_path, monitor, interrupt
):
    """The trigger looks at the epoch when the backup is written."""
    whole, whole_history = unbroken(monitor)
    assert whole_history["switch_step"][-2:] == [3 * STEPS] * 2
    # The metrics are known without a validation too.
    validation = {"validation_data": dataset()} if monitor[0] == "v" else {}
    for fatal in (interrupt, None):
        model = hybrid_model()
        fails = pytest.raises(Interrupted)
        with contextlib.nullcontext() if fatal is None else fails:
            history = fit(
                model,
                keras.callbacks.BackupAndRestore(str(tmp_path)),
                SwitchCallback(steady(monitor), verbose=0),
                Interrupt(fatal),
                epochs=6,
                **validation,
            )
    assert_equal_states(state_of(model), whole)
    for name, values in history.items():
        np.testing.assert_array_equal(values, whole_history[name][interrupt:])


def test_backup_before_the_switch_callback_with_loss_scaling(tmp_path):
    """The scaling saves its inner optimizer's state too, and before it."""

    def run(*callbacks):
        scaled = keras.optimizers.LossScaleOptimizer(
            HybridOptimizer(0.01, jit_compile=False)
        )
        model = compiled_model(scaled)
        fit(model, *callbacks, SwitchCallback(AtEpoch(1), verbose=0))
        return state_of(model)

    backup = keras.callbacks.BackupAndRestore(str(tmp_path))
    with pytest.raises(Interrupted):
        run(backup, Interrupt(1))
    assert_equal_states(run(backup), run())


@pytest.mark.parametrize("way", ["keras", "checkpoint"])
def test_saved_half_way_through_a_plateau(tmp_path, way):
    whole, whole_history = unbroken("val_loss")
    first = hybrid_model()
    switch = SwitchCallback(steady("val_loss"), verbose=0)
    if way == "keras":
        path = tmp_path / "{epoch}.keras"
        callbacks = [keras.callbacks.ModelCheckpoint(str(path)), switch]
    else:
        saved = tf.train.Checkpoint(model=first, optimizer=first.optimizer)
        callback = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: saved.write(
                str(tmp_path / f"{epoch + 1}")
            )
        )
        callbacks = [switch, callback]
    fit(first, *callbacks, epochs=2, validation_data=dataset())
    if way == "keras":
        second = keras.saving.load_model(tmp_path / "2.keras")
    else:
        second = new_model()
        second.optimizer.build(second.trainable_variables)
        tf.train.Checkpoint(model=second, optimizer=second.optimizer).read(
            str(tmp_path / "2")
        ).assert_existing_objects_matched()
    assert second.optimizer.switch_step is None
    history = fit(
        second,
        SwitchCallback(steady("val_loss"), verbose=0),
        epochs=6,
        initial_epoch=2,
        validation_data=dataset(),
    )
    assert_equal_states(state_of(second), whole)
    for name, values in history.items():
        np.testing.assert_array_equal(values, whole_history[name][2:])


def test_a_file_written_within_an_epoch_decides_nothing(tmp_path):
    whole, _ = unbroken("val_loss")
    model = hybrid_model()
    backup = keras.callbacks.BackupAndRestore(str(tmp_path), save_freq=1)
    switch = SwitchCallback(steady("val_loss"), verbose=0)
    fit(model, backup, switch, epochs=6, validation_data=dataset())
    assert_equal_states(state_of(model), whole)


def test_a_file_written_before_a_metric_is_known_warns(tmp_path):
    """Another callback's metric; and the run itself is as it should be."""
    model = hybrid_model()
    backup = keras.callbacks.BackupAndRestore(str(tmp_path))
    score = Inject(score=[1.0] * 4)
    switch = SwitchCallback(Plateau("score", 2, mode="min"), verbose=0)
    with pytest.warns(UserWarning, match="epoch 1 before Plateau") as caught:
        fit(model, backup, score, switch, epochs=4)
    assert sum(w.category is UserWarning for w in caught) == 1
    assert model.optimizer.switch_step == 3 * STEPS


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_file_written_at_an_unknown_end_warns(tmp_path):
    model = hybrid_model()
    backup = keras.callbacks.BackupAndRestore(str(tmp_path))
    data = unknown_length(dataset())
    with pytest.warns(UserWarning, match="put SwitchCallback before"):
        fit(model, backup, SwitchCallback(AtEpoch(1), verbose=0), data=data)
    assert model.optimizer.has_switched


def test_a_metric_changed_after_a_file_was_written_is_an_error(tmp_path):
    backup = keras.callbacks.BackupAndRestore(str(tmp_path))
    switch = SwitchCallback(Plateau("loss", mode="min"), verbose=0)
    with pytest.raises(ValueError, match="has changed the logs since.*epoch=0"):
        fit(hybrid_model(), backup, Inject(loss=[7.0]), switch, epochs=1)


@pytest.mark.filterwarnings("ignore:A file was written at the end of epoch")
def test_a_restart_after_a_missed_look_warns(tmp_path):
    def run(*callbacks):
        trigger = Plateau("score", patience=9, mode="min")
        fit(
            hybrid_model(),
            keras.callbacks.BackupAndRestore(str(tmp_path)),
            Inject(score=[1.0] * 5),
            SwitchCallback(trigger, verbose=0),
            *callbacks,
            epochs=5,
        )

    with pytest.raises(Interrupted):
        run(Interrupt(3))
    with pytest.warns(UserWarning, match="has seen 2 epochs.*with epoch 4"):
        run()


@pytest.mark.parametrize("noted", [None, 1], ids=["first", "second"])
def test_a_kill_inside_keras_backup_warns(tmp_path, noted):
    """The weights are written, and the note of the epoch is not yet."""

    def run(*callbacks):
        fit(
            hybrid_model(),
            SwitchCallback(verbose=0),
            keras.callbacks.BackupAndRestore(str(tmp_path)),
            *callbacks,
        )

    with pytest.raises(Interrupted):
        run(Interrupt(1 if noted is None else 2))
    metadata = tmp_path / "training_metadata.json"
    if noted is None:
        metadata.unlink()
    else:
        metadata.write_text('{"epoch": 1, "batch": 0}')
    with pytest.warns(UserWarning, match="trained twice"):
        run()
