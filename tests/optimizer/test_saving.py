"""Configs, and every way to save: all values, and the run that goes on."""

import copy
import functools
import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import slow_but

from keras_hybrid import HybridOptimizer
from keras_hybrid.scales import LearningRate
from keras_hybrid.transitions import Blend, Cooldown, Hard
from keras_hybrid.triggers import (
    AtStep,
    GradientSignalToNoise,
    ProjectionConverged,
)

Schedule = keras.optimizers.schedules.CosineDecay

# ---- Configs ----------------------------------------------------------------

CONFIGS = {
    "default": {},
    "numbers": {
        "learning_rate": 0.5,
        "beta_1": 0.5,
        "beta_2": 0.67,
        "epsilon": 1e-5,
        "momentum": 0.25,
        "sgd_scale": 3.0,
        "name": "my_optimizer",
    },
    "choices": {
        "amsgrad": True,
        "nesterov": True,
        "sgd_scale": "norm",
        "carry_momentum": False,
        "scope": "layer",
        "scale_scope": "model",
        "jit_compile": False,
    },
    "base": {
        "weight_decay": 0.1,
        "clipnorm": 1.0,
        "use_ema": True,
        "ema_momentum": 0.5,
        "ema_overwrite_frequency": 7,
        "loss_scale_factor": 64.0,
        "gradient_accumulation_steps": 3,
    },
    "clipvalue": {"clipvalue": 0.5},
    "global_clipnorm": {"global_clipnorm": 0.5},
    "schedules": {
        "learning_rate": Schedule(0.1, 10),
        "sgd_learning_rate": Schedule(0.3, 20, alpha=0.5),
    },
    "sgd-rate": {"sgd_learning_rate": 0.25, "trigger": AtStep(0)},
    "parts": {
        "trigger": ProjectionConverged(
            tolerance=0.2, patience=2, min_steps=5, max_steps=50
        ),
        "transition": Blend(7, curve="akiba", path="clip", end=0.5),
        "cooldown": Cooldown("linear", steps=9, final=0.25),
    },
    "composed": {
        "trigger": (AtStep(5) | ProjectionConverged(relative=False))
        & GradientSignalToNoise(threshold=0.5),
        "transition": Hard(end=0.75),
        "cooldown": Cooldown(),
    },
}


def plain(config):
    """The config with serialized parts, as a comparable JSON text."""
    return json.dumps(config, sort_keys=True)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_round_trip(name):
    optimizer = HybridOptimizer(**CONFIGS[name])
    config = optimizer.get_config()
    for again in (
        HybridOptimizer.from_config(config),
        HybridOptimizer.from_config(json.loads(json.dumps(config))),
        keras.optimizers.deserialize(
            json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
        ),
    ):
        assert type(again) is HybridOptimizer
        assert plain(again.get_config()) == plain(config)
        for part in ("trigger", "transition", "cooldown"):
            first, second = getattr(optimizer, part), getattr(again, part)
            assert type(first) is type(second)
            assert repr(first) == repr(second)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_has_what_was_given(name):
    config = HybridOptimizer(**CONFIGS[name]).get_config()
    for argument, value in CONFIGS[name].items():
        got = config[argument]
        if isinstance(got, dict):
            got = keras.saving.deserialize_keras_object(got)
            assert type(got) is type(value)
            assert got.get_config() == value.get_config()
        else:
            assert got == value and type(got) is type(value)


def test_every_constructor_argument_is_in_the_config():
    import inspect

    arguments = set(inspect.signature(HybridOptimizer).parameters) - {"kwargs"}
    assert arguments <= set(HybridOptimizer().get_config())


def test_from_config_leaves_the_config_alone():
    config = HybridOptimizer(trigger=AtStep(3)).get_config()
    before = copy.deepcopy(config)
    HybridOptimizer.from_config(config)
    assert config == before


# ---- A training that can stop anywhere --------------------------------------

STEPS = 16
# AtStep(6) and Blend(5): updates 0-5 adaptive, 6-10 mixed, then SGD.
BEFORE, INSIDE, AFTER = 4, 8, 13
STOPS = {"before": BEFORE, "inside": INSIDE, "after": AFTER}
POINTS = pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
BLENDED = {
    "learning_rate": 0.01,
    "trigger": AtStep(6),
    "transition": Blend(5, curve="cosine"),
    "jit_compile": False,
}
CASES = {
    "everything": {
        "amsgrad": True,
        "scope": "layer",
        "use_ema": True,
        "ema_momentum": 0.9,
        "cooldown": Cooldown(steps=9),
        "weight_decay": 0.01,
        "nesterov": True,
        "momentum": 0.8,
    },
    "amsgrad": {"amsgrad": True},
    "layer": {"scope": "layer", "scale_scope": "model"},
    "norm": {"sgd_scale": "norm"},
    "momentum": {"sgd_scale": "momentum"},
    "swats": {"sgd_scale": "swats"},
    "sgd-rate": {"sgd_learning_rate": 0.1},
    "sgd-schedule": {
        "learning_rate": Schedule(0.02, 20),
        "sgd_learning_rate": Schedule(0.1, 8),
    },
    "inside": {
        "sgd_scale": LearningRate(Schedule(0.1, 8), inside_momentum=True),
        "transition": Hard(),
    },
    "converged": {
        "beta_2": 0.9,
        "trigger": ProjectionConverged(
            tolerance=1e-9, patience=2, min_steps=3, max_steps=6
        )
        | GradientSignalToNoise(threshold=1e-9, min_steps=2),
    },
    "ema": {
        "use_ema": True,
        "ema_momentum": 0.8,
        "ema_overwrite_frequency": 5,
    },
    "no-carry": {"carry_momentum": False, "transition": Hard()},
}
ACCUMULATED = {"gradient_accumulation_steps": 3}


def new_model(optimizer):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, "tanh", use_bias=False),
            keras.layers.Dense(2, use_bias=False),
        ]
    )
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=v.shape) for v in model.weights])
    model.compile(optimizer, "mse")
    return model


def update(model, steps):
    """Eager updates with the batches of these steps."""
    optimizer = model.optimizer
    for step in steps:
        rng = np.random.default_rng(step)
        x = tf.constant(rng.normal(size=(4, 3)), "float32")
        y = tf.stack([x[:, 0] * x[:, 1], tf.sin(x[:, 2])], axis=1)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x) - y))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)


def values_of(model):
    """Every number of the model and its optimizer."""
    return [v.numpy() for v in [*model.weights, *model.optimizer.variables]]


def assert_bit_equal(got, expected):
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def through_keras(model, make, folder):
    path = folder / "model.keras"
    model.save(path)
    return keras.saving.load_model(path)


def through_weights(model, make, folder):
    path = folder / "model.weights.h5"
    model.save_weights(path)
    again = new_model(make())
    again.optimizer.build(again.trainable_variables)
    again.load_weights(path)
    return again


def through_checkpoint(model, make, folder):
    saved = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    path = saved.save(str(folder / "checkpoint"))
    again = new_model(make())
    again.optimizer.build(again.trainable_variables)
    status = tf.train.Checkpoint(
        model=again, optimizer=again.optimizer
    ).restore(path)
    status.assert_existing_objects_matched()
    return again


def with_optimizer(model, optimizer):
    again = new_model(optimizer)
    again.set_weights(model.get_weights())
    return again


def through_pickle(model, make, folder):
    path = folder / "optimizer.pickle"
    path.write_bytes(pickle.dumps(model.optimizer))
    return with_optimizer(model, pickle.loads(path.read_bytes()))


def through_deepcopy(model, make, folder):
    return with_optimizer(model, copy.deepcopy(model.optimizer))


WAYS = {
    "keras": through_keras,
    "weights_h5": through_weights,
    "checkpoint": through_checkpoint,
    "pickle": through_pickle,
    "deepcopy": through_deepcopy,
}


def maker(case):
    options = ACCUMULATED if case == "accumulation" else CASES[case]
    return lambda: HybridOptimizer(**(BLENDED | options))


@functools.cache
def never_stopped(case, steps=STEPS):
    model = new_model(maker(case)())
    optimizer = model.optimizer
    if case == "accumulation":
        update(model, range(steps))
        return values_of(model)
    # The stops are where they should be, or nothing would be restored.
    update(model, range(BEFORE))
    assert optimizer.switch_step is None
    update(model, range(BEFORE, INSIDE))
    assert optimizer.switch_step == 6
    at_once = isinstance(optimizer.transition, Hard)
    assert at_once or 0 < optimizer.sgd_fraction < 1
    update(model, range(INSIDE, AFTER))
    assert optimizer.sgd_fraction == 1
    update(model, range(AFTER, steps))
    return values_of(model)


def resume(case, way, stop, folder, steps=STEPS):
    """Stops after `stop` updates; returns the values at the stop, those that
    were restored, and those at the end of the restored run.
    """
    model = new_model(maker(case)())
    update(model, range(stop))
    at_stop = values_of(model)
    again = WAYS[way](model, maker(case), folder)
    restored = values_of(again)
    # What goes on with the first run must not reach the second.
    update(model, range(stop, stop + 2))
    update(again, range(stop, steps))
    return at_stop, restored, values_of(again), again.optimizer


@pytest.mark.parametrize(
    ("way", "stop"),
    [
        pytest.param(
            way,
            stop,
            id=f"{way}-{name}",
            # One way at every point; pickles and checkpoints are stopped in
            # the tests of the presets too.
            marks=() if stop == INSIDE and way == "keras" else pytest.mark.slow,
        )
        for way in WAYS
        for name, stop in STOPS.items()
    ],
)
def test_resumed_is_never_stopped(way, stop, tmp_path):
    at_stop, restored, end, optimizer = resume(
        "everything", way, stop, tmp_path
    )
    assert_bit_equal(restored, at_stop)
    assert_bit_equal(end, never_stopped("everything"))
    assert set(optimizer.switch_steps.values()) == {6}


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c != "everything"])
def test_resumed_inside_the_transition(case, tmp_path):
    at_stop, restored, end, _ = resume(case, "weights_h5", INSIDE, tmp_path)
    assert_bit_equal(restored, at_stop)
    assert_bit_equal(end, never_stopped(case))


@pytest.mark.slow
@POINTS
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", [c for c in CASES if c != "everything"])
def test_resumed_anywhere(case, way, stop, tmp_path):
    at_stop, restored, end, _ = resume(case, way, stop, tmp_path)
    assert_bit_equal(restored, at_stop)
    assert_bit_equal(end, never_stopped(case))


@pytest.mark.slow
@pytest.mark.parametrize("way", slow_but({"weights_h5"}, WAYS))
@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(10, marks=pytest.mark.slow),
        25,
        pytest.param(40, marks=pytest.mark.slow),
    ],
    ids=["before", "inside", "after"],
)
def test_resumed_between_accumulated_gradients(way, stop, tmp_path):
    # 48 micro-batches are 16 updates; 10, 25 and 40 are no multiples of 3.
    at_stop, restored, end, _ = resume(
        "accumulation", way, stop, tmp_path, steps=48
    )
    assert_bit_equal(restored, at_stop)
    assert_bit_equal(end, never_stopped("accumulation", 48))


@pytest.mark.slow
def test_resumed_compiled(tmp_path):
    # XLA's updates resume bit for bit too.
    def make():
        return HybridOptimizer(**(BLENDED | {"jit_compile": "auto"}))

    whole = new_model(make())
    update(whole, range(STEPS))
    model = new_model(make())
    update(model, range(INSIDE))
    again = through_keras(model, make, tmp_path)
    assert again.optimizer.jit_compile == "auto"
    update(again, range(INSIDE, STEPS))
    assert_bit_equal(values_of(again), values_of(whole))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["keras", "pickle"])
def test_fit_resumes(way, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 3)).astype("float32")
    y = x[:, :2] * x[:, 1:]

    def fit(model, first, last):
        model.fit(
            x,
            y,
            batch_size=4,
            initial_epoch=first,
            epochs=last,
            shuffle=False,
            verbose=0,
        )

    def make():
        # 8 updates an epoch: the stop at 8 is inside 6 .. 10.
        return HybridOptimizer(**BLENDED)

    whole = new_model(make())
    fit(whole, 0, 1)
    model = new_model(make())
    fit(model, 0, 1)
    again = WAYS[way](model, make, tmp_path)
    fit(again, 1, 2)
    fit(whole, 1, 2)
    assert_bit_equal(values_of(again), values_of(whole))
    assert again.optimizer.switch_step == 6


@pytest.mark.slow
def test_loss_scaled_optimizers_resume(tmp_path):
    def make():
        return keras.optimizers.LossScaleOptimizer(
            HybridOptimizer(**BLENDED), initial_scale=4.0
        )

    whole = new_model(make())
    update(whole, range(STEPS))
    model = new_model(make())
    update(model, range(INSIDE))
    again = through_keras(model, make, tmp_path)
    assert_bit_equal(values_of(again), values_of(model))
    update(again, range(INSIDE, STEPS))
    assert_bit_equal(values_of(again), values_of(whole))
    assert again.optimizer.inner_optimizer.switch_step == 6


# ---- The length of the training ---------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("way", slow_but({"weights_h5"}, WAYS))
def test_the_length_of_the_training_is_restored(way, tmp_path):
    def make():
        return HybridOptimizer(**(BLENDED | {"cooldown": Cooldown()}))

    def start():
        model = new_model(make())
        model.optimizer.build(model.trainable_variables)
        model.optimizer.training_steps = STEPS
        return model

    whole, model = start(), start()
    update(whole, range(STEPS))
    update(model, range(INSIDE))
    again = WAYS[way](model, make, tmp_path)
    assert again.optimizer.training_steps == STEPS
    update(again, range(INSIDE, STEPS))
    assert_bit_equal(values_of(again), values_of(whole))


# ---- Copies -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_an_unbuilt_copy_is_as_new(way, tmp_path):
    optimizer = HybridOptimizer(**(BLENDED | CASES["everything"]))
    again = (
        pickle.loads(pickle.dumps(optimizer))
        if way == "pickle"
        else copy.deepcopy(optimizer)
    )
    assert not again.built
    assert plain(again.get_config()) == plain(optimizer.get_config())
    model = new_model(again)
    update(model, range(STEPS))
    assert_bit_equal(values_of(model), never_stopped("everything"))


@pytest.mark.slow
@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy])
def test_a_copy_shares_nothing(duplicate):
    model = new_model(maker("everything")())
    update(model, range(INSIDE))
    again = duplicate(model.optimizer)
    before = [v.numpy() for v in again.variables]
    update(model, range(INSIDE, INSIDE + 2))
    assert_bit_equal([v.numpy() for v in again.variables], before)


@pytest.mark.slow
def test_a_copy_keeps_an_assigned_learning_rate():
    model = new_model(maker("amsgrad")())
    update(model, range(2))
    model.optimizer.learning_rate = 0.005
    again = copy.deepcopy(model.optimizer)
    np.testing.assert_array_equal(
        again.learning_rate.numpy(), np.float32(0.005)
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", slow_but({"deepcopy"}, ["pickle", "deepcopy"]))
def test_a_copy_keeps_the_exclusions_from_weight_decay(way, tmp_path):
    def make():
        optimizer = HybridOptimizer(**(BLENDED | {"weight_decay": 0.5}))
        optimizer.exclude_from_weight_decay(var_names=["kernel"])
        return optimizer

    whole = new_model(make())
    update(whole, range(STEPS))
    model = new_model(make())
    update(model, range(INSIDE))
    again = WAYS[way](model, make, tmp_path)
    update(again, range(INSIDE, STEPS))
    assert_bit_equal(values_of(again), values_of(whole))


def test_a_copy_refuses_other_variables():
    model = new_model(maker("amsgrad")())
    update(model, range(2))
    again = pickle.loads(pickle.dumps(model.optimizer))
    with pytest.raises(ValueError, match=r"Received: shapes=\[\(3,\)\]$"):
        again.apply([tf.zeros(3)], [keras.Variable([1.0, 2.0, 3.0])])
    # And still takes the right ones.
    update(with_optimizer(model, again), range(2, 4))


def test_loading_into_an_unbuilt_optimizer_warns_and_leaves_it(tmp_path):
    # Keras drops the state; it must not do so silently.
    model = new_model(maker("amsgrad")())
    update(model, range(INSIDE))
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    again = new_model(maker("amsgrad")())
    with pytest.warns(UserWarning, match="Skipping variable loading"):
        again.load_weights(path)
    assert again.optimizer.switch_step is None


def test_choices_do_not_change_the_variables():
    # Or a file saved with one choice would not load with another.
    def names(**options):
        optimizer = HybridOptimizer(**options)
        optimizer.build([keras.Variable([1.0], name="kernel")])
        return [(v.name, tuple(v.shape)) for v in optimizer.variables]

    for options in (
        {"trigger": AtStep(3), "transition": Blend(4), "nesterov": True},
        {"scope": "layer", "momentum": 0.5, "carry_momentum": False},
        {"scale_multiplier": 2.0, "cooldown": Cooldown()},
    ):
        assert names(**options) == names()
    # How fast SGD is decides what is kept of it: rho a variable here, with the
    # averages behind it for some.
    given = names(sgd_scale=2.0)
    assert given == names(sgd_learning_rate=0.1) == names(scale_scope="model")
    averaged = names(sgd_scale="norm")
    assert averaged == names(sgd_scale="projection")
    assert len(averaged) == len(given) + 2
    with_max = names(amsgrad=True)
    assert set(names()) < set(with_max)
    assert len(with_max) == len(names()) + 1
