"""What must hold on every backend; test_backends.py runs it on JAX and torch.

By hand: KERAS_BACKEND=jax pytest -n 0 tests/execution/backend_checks.py
"""

import contextlib
import copy
import functools
import json
import os
import pickle

import keras
import numpy as np
import pytest
import reference
from configurations import check
from inside import state
from updates import updater

from keras_hybrid import (
    DivergenceGuard,
    ExactBackup,
    HybridOptimizer,
    SwitchCallback,
    TrainUntilDone,
    presets,
)
from keras_hybrid._support.versions import versions
from keras_hybrid.execution import packs
from keras_hybrid.scales import LearningRate
from keras_hybrid.transitions import CURVES, Blend, Cooldown, Hard
from keras_hybrid.triggers import (
    AtEpoch,
    AtStep,
    GradientSignalToNoise,
    Plateau,
    ProjectionConverged,
)

BACKEND = keras.backend.backend()
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="JAX alone")
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="torch alone")


def some_slow(names, fast):
    return [
        n if n in fast else pytest.param(n, marks=pytest.mark.slow)
        for n in names
    ]


SHAPES = [(3, 4), (4,), (4, 2), (2,)]  # Two dense layers.
EPOCHS, BATCHES = 6, 4
TOLERANCE = 2e-6  # Weights near 1 in float32, after 24 updates.


def test_versions_and_recipes_need_no_other_backend():
    assert BACKEND in versions()
    assert HybridOptimizer.from_recipe("mnist-mlp-2000").trigger is not None


# ---- Equal numbers on all backends ------------------------------------------

UPDATES = 24
CASES = {
    "adaptive": {"amsgrad": True, "weight_decay": 0.1},
    "projection": {"trigger": AtStep(8), "nesterov": True},
    "swats": {"trigger": AtStep(8), "sgd_scale": "swats", "scope": "layer"},
    "norm": {
        "trigger": AtStep(8),
        "sgd_scale": "norm",
        "scale_scope": "layer",
        "carry_momentum": False,
        "momentum": 0.5,
    },
    "geometric": {
        "trigger": AtStep(8),
        "transition": Blend(8, curve="cosine", path="geometric", end=0.5),
        "cooldown": Cooldown(steps=12),
    },
    "clip": {
        "trigger": AtStep(8),
        "transition": Blend(8, curve="hyperbolic", path="clip"),
        "amsgrad": True,
        "global_clipnorm": 1.0,
    },
    "rates": {
        "trigger": AtStep(8),
        "sgd_learning_rate": keras.optimizers.schedules.CosineDecay(0.3, 10),
        "clipnorm": 0.5,
    },
    "inside": {
        "trigger": AtStep(8),
        "sgd_scale": LearningRate(
            keras.optimizers.schedules.CosineDecay(0.1, 10),
            inside_momentum=True,
        ),
        "scope": "layer",
        "clipnorm": 0.5,
    },
    "converged": {
        "trigger": ProjectionConverged(0.3, patience=1, min_steps=4),
        "scope": "variable",
        "beta_2": 0.9,
    },
    "noise": {
        "trigger": GradientSignalToNoise(0.5, min_steps=4),
        "scope": "layer",
    },
    "accumulation": {
        "trigger": AtStep(2),
        "gradient_accumulation_steps": 3,
        "clipvalue": 0.1,
    },
    "average": {
        "trigger": AtStep(8),
        "use_ema": True,
        "ema_momentum": 0.5,
        "ema_overwrite_frequency": 5,
    },
    "frozen": {"trigger": AtStep(8), "scale_scope": "weight"},
    "skips": {
        "trigger": AtStep(8),
        "skip_nonfinite": True,
        "global_clipnorm": 1.0,
        "momentum": 0.5,
        "carry_momentum": False,
    },
}


FAST_CASES = ("projection", "geometric", "converged")


def updated(name):
    """Weights and phase after the updates of a case, its gradients given."""
    rng = np.random.default_rng(0)
    variables = [
        keras.Variable(rng.normal(size=shape).astype("float32"), name=f"v{i}")
        for i, shape in enumerate(SHAPES)
    ]
    for variable, layer in zip(variables, "aabb", strict=True):
        variable._path = f"{layer}/{variable.name}"
    optimizer = HybridOptimizer(0.01, **CASES[name])
    update = updater(optimizer, variables)
    for step in range(UPDATES):
        gradient = [rng.normal(0.3, 1, shape) for shape in SHAPES]
        if name == "skips" and step in (3, 12):
            gradient[1][2] = np.nan
        update([keras.ops.convert_to_tensor(g, "float32") for g in gradient])
    return np.concatenate(
        [
            *(v.numpy().ravel() for v in variables),
            [optimizer.sgd_fraction],
            [-1 if s is None else s for s in optimizer.switch_steps.values()],
            list(optimizer.sgd_learning_rates.values()),
        ]
    )


@functools.cache
def tensorflows():
    """What TensorFlow computes, which test_backends.py leaves in a file."""
    if "TENSORFLOW_NUMBERS" not in os.environ:
        pytest.skip("run by test_backends.py")
    return np.load(os.environ["TENSORFLOW_NUMBERS"])


@pytest.mark.parametrize("name", some_slow(CASES, FAST_CASES))
def test_the_numbers_are_tensorflows(name):
    expected = tensorflows()[name]
    np.testing.assert_allclose(updated(name), expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_cases_differ():
    numbers = [tensorflows()[name][:26] for name in CASES]
    for i, first in enumerate(numbers):
        for second in numbers[:i]:
            assert abs(first - second).max() > 1e-3


@on_torch
@pytest.mark.parametrize("name", sorted(set(CASES) - {"converged"}))
def test_variables_together_are_each_alone(name, monkeypatch):
    sizes = []

    def update(formula, phase, every, *arguments):
        sizes.append(len(every))
        together(formula, phase, every, *arguments)

    together = packs.update_together
    monkeypatch.setattr(packs, "update_together", update)
    numbers = updated(name)
    by_layer = CASES[name].get("scope") == "layer"
    assert set(sizes) == ({2} if by_layer else {4})
    # The first kernel stays alone.
    monkeypatch.setattr(packs, "MOST_ON_CPU", 15)
    sizes.clear()
    np.testing.assert_array_equal(updated(name), numbers)
    assert set(sizes) == ({2} if by_layer else {3})
    monkeypatch.setattr(packs, "MOST_ON_CPU", 0)
    sizes.clear()
    np.testing.assert_array_equal(updated(name), numbers)
    assert not sizes


def test_fit_computes_tensorflows_numbers():
    np.testing.assert_allclose(
        flat(run("blending")), tensorflows()["fit"], rtol=0, atol=TOLERANCE
    )


# ---- fit --------------------------------------------------------------------


def untrained(optimizer, **arguments):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, "tanh"),
            keras.layers.Dense(2),
        ]
    )
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=shape) for shape in SHAPES])
    model.compile(optimizer, "mse", **arguments)
    return model


def fit(model, epochs=EPOCHS, callbacks=(), **arguments):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4 * BATCHES, 3)).astype("float32")
    y = np.stack([x[:, 0] * x[:, 1], np.sin(x[:, 2])], axis=1)
    model.fit(
        x,
        y,
        batch_size=4,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
        **arguments,
    )
    return model


def fitted(optimizer, **arguments):
    return fit(untrained(optimizer), **arguments)


def flat(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


def assert_equal(model, other, atol=TOLERANCE):
    np.testing.assert_allclose(flat(model), flat(other), rtol=0, atol=atol)


class AtBatch(keras.callbacks.Callback):
    """Acts on the optimizer after a number of batches."""

    def __init__(self, batches, act, through_model=True):
        super().__init__()
        self.left, self.act, self.through_model = batches, act, through_model

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            model = self.model if self.through_model else self._model
            self.act(model.optimizer)


def at_batch(batches, act):
    return [AtBatch(batches, act)]


def blending(**options):
    """SGD's weight grows from update 10 to 18."""
    return HybridOptimizer(
        0.01,
        transition=Blend(8),
        **{"trigger": AtStep(10), "cooldown": Cooldown(steps=12), **options},
    )


SWITCH = 12  # After three epochs.
RUNS = {
    "plain": lambda: HybridOptimizer(0.01),
    "switched": lambda: HybridOptimizer(0.01, trigger=AtStep(SWITCH)),
    "blending": blending,
    "keras Adam": lambda: keras.optimizers.Adam(0.01),
}


@functools.cache
def run(name):
    """A model that several tests compare with."""
    return fitted(RUNS[name]())


ADAM = {
    "adam": {},
    "amsgrad": {"amsgrad": True},
    "clipnorm": {"clipnorm": 0.1},
    "global_clipnorm": {"global_clipnorm": 0.1},
    "clipvalue": {"clipvalue": 0.1},
    "average": {"use_ema": True, "ema_momentum": 0.5},
    "accumulation": {"gradient_accumulation_steps": 3},
    "loss scale": {"loss_scale_factor": 64.0},
}


@pytest.mark.parametrize("name", some_slow(ADAM, ("adam", "accumulation")))
def test_never_switched_is_adam(name):
    if name == "adam":
        assert_equal(run("plain"), run("keras Adam"))
        return
    options = ADAM[name]
    adam = fitted(keras.optimizers.Adam(0.01, **options))
    assert_equal(fitted(HybridOptimizer(0.01, **options)), adam)


def test_never_switched_with_decay_is_adamw():
    assert_equal(
        fitted(HybridOptimizer(0.01, weight_decay=0.1)),
        fitted(keras.optimizers.AdamW(0.01, weight_decay=0.1)),
    )


@pytest.mark.parametrize(
    "nesterov", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_switched_at_step_0_is_sgd(nesterov):
    hybrid = HybridOptimizer(
        trigger=AtStep(0),
        sgd_learning_rate=0.05,
        momentum=0.8,
        nesterov=nesterov,
    )
    sgd = keras.optimizers.SGD(0.05, momentum=0.8, nesterov=nesterov)
    assert_equal(fitted(hybrid), fitted(sgd))


def test_a_blend_is_its_ends():
    trigger = AtStep(SWITCH)
    still = HybridOptimizer(0.01, trigger=trigger, transition=Hard(end=0.0))
    assert_equal(fitted(still), run("plain"))
    at_once = HybridOptimizer(0.01, trigger=trigger, transition=Blend(1))
    assert_equal(fitted(at_once), run("switched"))
    assert run("switched").optimizer.switch_step == SWITCH
    assert abs(flat(run("switched")) - flat(run("plain"))).max() > 1e-3


def test_switches_between_batches_and_goes_back():
    switch = at_batch(SWITCH, lambda o: o.switch())
    model = fitted(HybridOptimizer(0.01), callbacks=switch)
    assert model.optimizer.switch_step == SWITCH
    assert_equal(model, run("switched"))
    fit(model, callbacks=at_batch(3, lambda o: o.revert()))
    assert model.optimizer.switch_step is None
    assert model.optimizer.sgd_fraction == 0
    adaptive = int(state(model.optimizer, "adaptive_steps").numpy()[0])
    assert adaptive == SWITCH + EPOCHS * BATCHES - 3


def until_done(trigger):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(24, 3)).astype("float32")
    y = x[:, :1] + rng.normal(size=(24, 1)).astype("float32")
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(HybridOptimizer(0.05), "mse")
    callback = TrainUntilDone(trigger, verbose=0)
    history = model.fit(
        x[:16],
        y[:16],
        batch_size=4,
        epochs=60,
        shuffle=False,
        validation_data=(x[16:], y[16:]),
        callbacks=[callback],
        verbose=0,
    ).history
    return model.optimizer, callback, history


def test_a_killed_fit_goes_on_in_its_order_and_with_its_dropout(tmp_path):
    """JAX draws the order from NumPy, torch both from its own generator."""

    def weights(*callbacks):
        keras.utils.set_random_seed(3)
        model = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(2),
            ]
        )
        model.compile(HybridOptimizer(0.05), "mse")
        x = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")
        switch = SwitchCallback(AtEpoch(3), verbose=0)
        model.fit(
            x,
            x[:, :2],
            batch_size=4,
            epochs=4,
            callbacks=[switch, *callbacks],
            verbose=0,
        )
        return flat(model)

    def kill(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    backup = ExactBackup(tmp_path / "backup.npz")
    expected = weights()
    with pytest.raises(KeyboardInterrupt):
        weights(backup, keras.callbacks.LambdaCallback(on_epoch_end=kill))
    np.testing.assert_array_equal(weights(backup), expected)


def test_trains_until_done():
    optimizer, callback, history = until_done(None)
    assert callback.done
    assert len(history["loss"]) < 60
    averaged = np.array(history["averaged_val_loss"])
    constant = averaged[np.isfinite(averaged)]
    # Three epochs without a new best; of two epochs, the average is no end's.
    assert optimizer.switch_step == 4 * len(constant)
    assert constant.argmin() == len(constant) - 4
    assert constant[0] == pytest.approx(history["val_loss"][0], rel=1e-5)
    assert constant[1] != history["val_loss"][1]
    end = optimizer.switch_step + round(optimizer.switch_step / 2)
    assert optimizer.updates_made == end
    assert optimizer.cooldown_factor == 0


def test_validating_the_average_changes_nothing():
    never = Plateau("averaged_val_loss", 99)
    with_average = until_done(AtEpoch(3) | never)[2]
    without = until_done(AtEpoch(3))[2]
    assert with_average["loss"] == without["loss"]
    assert with_average["val_loss"] == without["val_loss"]


def test_a_divergence_goes_back_to_the_last_good_state():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4 * BATCHES, 3)).astype("float32")
    divergences = {}
    for bad in (None, 2):
        inputs = x.copy()
        if bad is not None:
            inputs[4 * bad : 4 * (bad + 1)] = float("nan")
        model = untrained(HybridOptimizer(0.01, trigger=AtStep(1)))
        start = flat(model)
        guard = DivergenceGuard(factor=None, snapshot_every=1, verbose=0)
        history = model.fit(
            inputs,
            x[:, :2],
            batch_size=4,
            shuffle=False,
            verbose=0,
            callbacks=[guard],
        ).history
        divergences[bad] = history["divergences"]
        assert np.isfinite(history["loss"]).all()
        assert np.isfinite(flat(model)).all()
        assert not np.array_equal(flat(model), start)
    assert divergences == {None: [0], 2: [1]}


@pytest.mark.parametrize(
    "steps", [1] if BACKEND == "torch" else some_slow((1, 2), (2,))
)
def test_switch_callback_switches_from_the_next_epoch_on(steps):
    model = fit(
        untrained(HybridOptimizer(0.01), steps_per_execution=steps),
        callbacks=[SwitchCallback(AtEpoch(3), verbose=0)],
    )
    assert model.optimizer.switch_step == SWITCH
    assert_equal(model, run("switched"))
    logs = model.history.history
    assert logs["sgd_fraction"] == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    np.testing.assert_allclose(
        logs["sgd_learning_rate"][-1],
        run("switched").optimizer.sgd_learning_rate_equivalent,
        rtol=1e-5,
    )


@pytest.mark.slow
def test_the_learning_rate_can_be_assigned():
    def lower(optimizer):
        optimizer.learning_rate = 1e-3

    assert_equal(
        fitted(HybridOptimizer(0.01), callbacks=at_batch(9, lower)),
        fitted(keras.optimizers.Adam(0.01), callbacks=at_batch(9, lower)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        adam = fitted(keras.optimizers.Adam(0.01))
        assert_equal(fitted(HybridOptimizer(0.01)), adam)
        model = fitted(HybridOptimizer(0.01, trigger=AtStep(9)))
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    optimizer = model.optimizer
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    assert optimizer.switch_step == 9
    assert np.isfinite(flat(model)).all()


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow can")
def test_compiling_the_update_alone_is_tensorflows():
    with pytest.raises(ValueError, match=r"Received: .*backend="):
        HybridOptimizer(jit_compile=True)


# ---- SWATS in float64 -------------------------------------------------------


def wide():
    """JAX has no float64 unless it is asked for."""
    if BACKEND != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.enable_x64(True)


def test_swats_is_the_papers_in_float64():
    rate = 0.0625  # The same in float32, where Keras keeps it.
    rng = np.random.default_rng(3)
    curvature = np.array([1.0, 0.3, 0.1, 0.5, 0.2, 0.4])
    start = np.array([1.0, -2.0, 0.5, 1.5, -0.5, 1.0])
    noise = rng.normal(0, 0.1, (40, 6))
    expected = reference.swats(
        lambda w, k: curvature * w + noise[k],
        start,
        rate,
        b2=0.95,
        eps=1e-7,
        tolerance=3e-4,
        steps=40,
    )
    assert expected.switch_step == 14
    with wide():
        w = keras.Variable(start, dtype="float64")
        optimizer = presets.SWATS(rate, beta_2=0.95, tolerance=3e-4)
        update = updater(optimizer, [w])
        for k in range(40):
            gradient = curvature * w.numpy() + noise[k]
            update([keras.ops.convert_to_tensor(gradient, "float64")])
        assert optimizer.switch_step == 14
        np.testing.assert_allclose(
            w.numpy(), expected.trajectory[-1], rtol=0, atol=1e-10
        )


# ---- Random configurations, as benchmarks/fuzz.py reduced them --------------


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (presets.StepDecay(0.5, 0.3, [1, 2]), 0.5 * 0.3 * 0.3),
        (presets.LinearFall(0.5, 0.3, 7), 0.5 - 0.2 * 3 / 7),
    ],
    ids=["steps", "linear"],
)
def test_schedules_of_presets_are_float64(schedule, expected):
    with wide():
        step = keras.ops.convert_to_tensor(np.array(3.0), "float64")
        value = keras.ops.convert_to_numpy(schedule(step))
    np.testing.assert_allclose(value, expected, rtol=1e-15)


@pytest.mark.parametrize("step", [5, np.int32(5)])
def test_schedules_of_presets_take_integers(step):
    schedule = presets.StepDecay(0.1, 0.5, [3, 6])
    tensor = keras.ops.convert_to_tensor(step)
    value = keras.ops.convert_to_numpy(schedule(tensor))
    np.testing.assert_allclose(value, 0.05, rtol=1e-6)
    optimizer = HybridOptimizer(schedule)
    np.testing.assert_allclose(float(optimizer.learning_rate), 0.1, rtol=1e-6)


KERNEL = [("a/kernel", (2, 2), "float64")]


@pytest.mark.parametrize(
    "options",
    [
        {"clipnorm": 0.3},
        {"clipvalue": 0.3},
        {"global_clipnorm": 0.3},
        {"amsgrad": True, "beta_2": 0.9},
        *(
            {"trigger": AtStep(2), "transition": Blend(4, curve, "clip")}
            for curve in CURVES
        ),
        {"trigger": AtStep(2), "cooldown": Cooldown(steps=5)},
    ],
    ids=repr,
)
def test_float64_is_not_float32(options):
    # As Keras has it, on torch the smaller of two float64 is float32, and on
    # JAX a cosine.
    check({"learning_rate": 0.1} | options, KERNEL, 3, "wild")


def test_a_blend_goes_on_behind_a_skipped_update():
    options = {"trigger": AtStep(2), "transition": Blend(5)}
    check(options | {"skip_nonfinite": True}, KERNEL, gradients="not finite")


# ---- Saving -----------------------------------------------------------------


def until_the_end():
    return blending(cooldown=Cooldown())


@functools.cache
def run_until(epochs):
    """Switches in the third epoch, blends until the fifth."""
    model = untrained(until_the_end())
    model.optimizer.training_steps = EPOCHS * BATCHES
    return fit(model, epochs)


def through_keras(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def through_weights(model, folder):
    model.save_weights(folder / "model.weights.h5")
    again = untrained(until_the_end())
    again.optimizer.build(again.trainable_variables)
    again.load_weights(folder / "model.weights.h5")
    return again


def through_pickle(model, folder):
    del folder
    again = untrained(pickle.loads(pickle.dumps(model.optimizer)))
    again.set_weights(model.get_weights())
    return again


def through_deepcopy(model, folder):
    del folder
    again = untrained(copy.deepcopy(model.optimizer))
    again.set_weights(model.get_weights())
    return again


# Before, inside and after the transition.
@pytest.mark.parametrize("epochs", some_slow((2, 3, 5), (3,)))
@pytest.mark.parametrize(
    "way",
    some_slow(
        (through_keras, through_weights, through_pickle, through_deepcopy),
        (through_keras,),
    ),
)
def test_goes_on_as_if_it_had_not_stopped(way, epochs, tmp_path):
    again = way(run_until(epochs), tmp_path)
    for variable, saved in zip(
        again.optimizer.variables,
        run_until(epochs).optimizer.variables,
        strict=True,
    ):
        np.testing.assert_array_equal(variable.numpy(), saved.numpy())
    fit(again, EPOCHS - epochs)
    np.testing.assert_array_equal(flat(again), flat(run_until(EPOCHS)))
    assert again.optimizer.switch_step == 10


def test_a_killed_fit_goes_on(tmp_path):
    def callbacks(stop):
        class Stop(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == stop:
                    raise KeyboardInterrupt

        return [
            SwitchCallback(verbose=0),
            keras.callbacks.BackupAndRestore(tmp_path / "backup"),
            Stop(),
        ]

    with pytest.raises(KeyboardInterrupt):
        fitted(until_the_end(), callbacks=callbacks(3))
    model = fitted(until_the_end(), callbacks=callbacks(None))
    np.testing.assert_array_equal(flat(model), flat(run_until(EPOCHS)))


def test_config_round_trip():
    for options in CASES.values():
        config = HybridOptimizer(**options).get_config()
        again = HybridOptimizer.from_config(json.loads(json.dumps(config)))
        assert again.get_config() == config


def test_a_length_that_is_not_known_is_an_error():
    with pytest.raises(ValueError, match="whose length is not known"):
        fitted(until_the_end())


# ---- JAX: state in fit's own hands, one trace, several devices --------------


class Counting(keras.layers.Layer):
    traces = 0

    def call(self, x):
        Counting.traces += 1
        return x


@on_jax
def test_no_switch_traces_anew():
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2), Counting()]
    )
    model.compile(HybridOptimizer(0.01, transition=Blend(2)), "mse")
    fit(model, 1)
    traces = Counting.traces
    callback = SwitchCallback(AtEpoch(2), verbose=0)
    fit(
        model,
        4,
        callbacks=[callback, *at_batch(2, lambda o: o.switch())]
        + at_batch(5, lambda o: o.revert()),
    )
    assert model.optimizer.switch_step == 3 * BATCHES
    assert Counting.traces == traces


@on_jax
@pytest.mark.parametrize(
    "act",
    [
        lambda o: o.switch(),
        lambda o: o.revert(),
        lambda o: o.switch_step,
        lambda o: o.switch_steps,
        lambda o: o.sgd_fraction,
        lambda o: o.sgd_learning_rates,
        lambda o: o.cooldown_factor,
        lambda o: o.training_steps,
        lambda o: setattr(o, "training_steps", 3),
        copy.deepcopy,
    ],
)
def test_state_in_the_hands_of_fit_is_an_error(act):
    callback = AtBatch(2, act, through_model=False)
    with pytest.raises(ValueError, match=r"`model.jax_state_sync\(\)`"):
        held_model().fit(
            np.zeros((12, 3)),
            np.zeros((12, 2)),
            batch_size=4,
            verbose=0,
            callbacks=[callback],
        )


@functools.cache
def held_model():
    return untrained(HybridOptimizer(0.01))


def by_hand():
    return fitted(
        blending(trigger=None), callbacks=at_batch(10, lambda o: o.switch())
    )


def several_devices(kind):
    """Keras' distribution over all devices."""
    devices = keras.distribution.list_devices()
    if len(devices) < 4:
        pytest.skip("needs four devices")
    if kind == "data":
        return keras.distribution.DataParallel(auto_shard_dataset=False)
    mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"), devices)
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*/kernel"] = (None, "model")
    layout[".*/bias"] = ("model",)
    return keras.distribution.ModelParallel(
        layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False
    )


@on_jax
@pytest.mark.parametrize("kind", ["data", "model"])
@pytest.mark.parametrize(
    "train",
    [
        by_hand,
        pytest.param(lambda: fitted(blending()), marks=pytest.mark.slow),
    ],
)
def test_several_devices_equal_one(train, kind):
    with several_devices(kind).scope():
        several = train()
    for variable in (*several.variables, *several.optimizer.variables):
        assert len(variable.value.sharding.device_set) == 4
    assert several.optimizer.switch_step == 10
    assert_equal(several, run("blending"))


@on_jax
@pytest.mark.parametrize("scope", ["unit", "variable", "weight"])
def test_slots_are_split_as_their_weights_are(scope):
    def train():
        return fitted(
            HybridOptimizer(0.01, scale_scope=scope),
            callbacks=[SwitchCallback(AtEpoch(3), verbose=0)],
        )

    with several_devices("model").scope():
        split = train()
    optimizer = split.optimizer
    weights = split.trainable_variables
    slots = [
        slot
        for slot in optimizer.variables
        if slot.path.endswith(("first_moment", "second_moment"))
    ]
    assert len(slots) == 2 * len(weights)
    for weight in weights:
        sharding = weight.value.sharding
        assert "model" in sharding.spec
        own = [s for s in slots if weight.path.replace("/", "_") in s.path]
        assert [s.value.sharding for s in own] == [sharding, sharding]
    assert optimizer.switch_step == SWITCH
    assert_equal(split, train())
