"""DivergenceGuard: what it finds, what goes back, when it gives up."""

import copy
import logging
import math
import runpy

import keras
import numpy as np
import pytest
import tensorflow as tf
from inside import slots, state
from small import ROOT, quiet_fit, reset

from keras_hybrid import DivergenceGuard, HybridOptimizer, SwitchCallback
from keras_hybrid import callbacks as callbacks_module
from keras_hybrid.callbacks import Diverged, hybrid_optimizer
from keras_hybrid.callbacks.losses import LossWindow
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import AtEpoch, AtStep

NAN, INF = float("nan"), float("inf")
BATCH, STEPS = 4, 10  # Updates an epoch.
_RANDOM = np.random.default_rng(0)
X = _RANDOM.normal(size=(BATCH * STEPS, 3)).astype("float32")
Y = (X @ [[1.0], [-2.0], [3.0]]).astype("float32")
# SGD from update 3, so a snapshot there; then after 5, 7, 9, ... updates.
SWITCH, EVERY = 3, 2


def spoilt(*batches, factor=NAN):
    """The inputs with these batches multiplied."""
    x = X.copy()
    for batch in batches:
        x[batch * BATCH : (batch + 1) * BATCH] *= factor
    return x


def new_model(compile_arguments=None, dtype=None, **kwargs):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, dtype=dtype),
            keras.layers.Dropout(0.1, seed=3, dtype=dtype),
            keras.layers.Dense(1, dtype=dtype),
        ]
    )
    arguments = {
        "learning_rate": 0.01,
        "trigger": AtStep(SWITCH),
        "jit_compile": False,
    }
    model.compile(
        HybridOptimizer(**arguments | kwargs),
        loss="mse",
        metrics=["mae"],
        **compile_arguments or {},
    )
    return model


def reset_model(compile_arguments=None, **kwargs):
    """As `new_model`, made once."""
    return reset(new_model, compile_arguments, **kwargs)


def guard(**kwargs):
    # Batches of four: their losses differ much.
    arguments = {"factor": 10.0, "snapshot_every": EVERY, "verbose": 0}
    return DivergenceGuard(**arguments | kwargs)


def fit(model, *callbacks, x=X, epochs=1, **kwargs):
    data = tf.data.Dataset.from_tensor_slices((x, Y)).batch(BATCH)
    return quiet_fit(model, *callbacks, x=data, epochs=epochs, **kwargs)


def state_of(model):
    return {
        v.path: v.numpy()
        for v in model.variables + model.optimizer.variables
        if v.name not in ("sgd_scale_cut", "guard_counts", "training_steps")
    }


def equal(state, other):
    return all(np.array_equal(state[name], other[name]) for name in state)


def scale_cut(model):
    return float(state(hybrid_optimizer(model), "sgd_scale_cut").numpy())


class States(keras.callbacks.Callback):
    """The state after each batch, and whatever else is asked."""

    def __init__(self, ask=None):
        super().__init__()
        self.states, self.asked, self.ask = [], [], ask

    def on_train_begin(self, logs=None):
        self.states.append(state_of(self.model))

    def on_train_batch_end(self, batch, logs=None):
        self.states.append(state_of(self.model))
        if self.ask is not None:
            self.asked.append(self.ask(logs))


class Spoil(keras.callbacks.Callback):
    """Multiplies variables before a batch."""

    def __init__(self, batch, factor, variables):
        super().__init__()
        self.batch, self.factor, self.variables = batch, factor, variables

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.batch:
            for variable in self.variables(self.model):
                variable.assign(variable * self.factor)


# ---- What goes back ---------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "back"),
    # The switch keeps one; two more batches on trial, and it is the good one.
    [
        *((5, 3), (7, 5)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((1, 0), (3, 3), (6, 3), (9, 7))
        ),
    ],
)
def test_the_whole_state_goes_back_to_the_last_good_snapshot(bad, back):
    model = reset_model()
    states = States()
    history = fit(model, guard(), states, x=spoilt(bad))
    assert equal(states.states[bad + 1], states.states[back])
    assert history["divergences"] == [1]
    assert all(np.isfinite(values).all() for values in history.values())
    if back < bad < STEPS - 1:
        # Dropout goes on from there as it did before.
        seeds = [v for v in states.states[0] if "seed" in v]
        assert len(seeds) == 1
        after = states.states[bad + 2], states.states[back + 1]
        np.testing.assert_array_equal(*(state[seeds[0]] for state in after))


def test_without_a_divergence_nothing_changes():
    results = []
    for callbacks in ([], [guard()]):
        model = reset_model()
        history = fit(model, *callbacks, epochs=2)
        results.append((state_of(model), history))
    (plain, without), (guarded, with_guard) = results
    del plain[next(name for name in plain if "usual_loss" in name)]
    assert equal(plain, guarded)
    assert with_guard.pop("divergences") == [0, 0]
    assert with_guard == without


@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_several_steps_an_execution(jit_compile):
    model = reset_model(
        {"steps_per_execution": 2, "jit_compile": jit_compile},
        trigger=AtStep(4),
    )
    states = States()
    history = fit(model, guard(), states, x=spoilt(7))
    # Executions end after 2, 4 (the switch), 6 and 8 batches.
    assert equal(states.states[4], states.states[2])
    assert history["divergences"] == [1]
    assert scale_cut(model) == 0.5


@pytest.mark.slow
def test_a_switch_that_is_undone_comes_again():
    # The execution of updates 2 and 3 ends past the switch at 3.
    model = reset_model({"steps_per_execution": 2, "jit_compile": False})
    switched = []
    states = States(lambda _: switched.append(model.optimizer.switch_step))
    fit(model, guard(), states, x=spoilt(4))
    assert equal(states.states[3], states.states[1])
    assert switched == [None, 3, None, 3, 3]
    assert scale_cut(model) == 0.5


@pytest.mark.slow
def test_a_switch_between_epochs_is_kept():
    for callbacks in (
        (guard(), SwitchCallback(AtEpoch(1), verbose=0)),
        (SwitchCallback(AtEpoch(1), verbose=0), guard()),
    ):
        model = reset_model(trigger=None)
        spoil = Spoil(
            1,
            1e6,  # No scale before the switch.
            lambda model: [state(model.optimizer, "sgd_scale")],
        )
        history = fit(model, *callbacks, spoil, epochs=2)
        assert model.optimizer.switch_step == STEPS
        assert history["divergences"] == [0, 1]
        assert np.isfinite(history["loss"]).all()


def test_the_learning_rate_of_callbacks_stays():
    def schedule(epoch):
        return 0.01 / (epoch + 1)

    model = reset_model()
    rates = keras.callbacks.LearningRateScheduler(schedule)
    spoil = Spoil(0, NAN, lambda model: model.trainable_variables)
    spoil.on_epoch_begin = lambda epoch, logs=None: setattr(
        spoil, "batch", 0 if epoch == 1 else None
    )
    history = fit(model, rates, guard(), spoil, epochs=2)
    assert history["divergences"] == [0, 1]
    assert history["learning_rate"] == pytest.approx([0.01, 0.005])


@pytest.mark.slow
def test_the_cooldown_still_ends_with_the_training():
    model = reset_model(cooldown=Cooldown())
    fit(model, SwitchCallback(verbose=0), guard(), x=spoilt(7))
    # Batch 7 went, and updates 5 and 6: back to 5 of 8.
    assert model.optimizer.training_steps == STEPS - 3
    assert int(model.optimizer.iterations.numpy()) == STEPS - 3
    assert model.optimizer.cooldown_factor == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("bad", [2, STEPS - 1])
def test_metrics_leave_the_bad_batch_out(bad):
    model = reset_model()
    seen = States(dict)
    history = fit(model, guard(), seen, x=spoilt(bad))
    assert all(math.isfinite(logs["loss"]) for logs in seen.asked)
    assert 0 < history["loss"][0] < 100
    assert 0 < history["mae"][0] < 100


def test_an_epoch_without_any_good_batch_is_not_a_loss_of_0():
    history = fit(reset_model(), guard(), x=spoilt(*range(STEPS)))
    assert math.isnan(history["loss"][0])


# ---- What it finds ----------------------------------------------------------


def test_an_exploding_loss():
    model = reset_model()
    states = States()
    fit(model, guard(), states, x=spoilt(7, factor=1e3))
    assert equal(states.states[8], states.states[5])


def test_factor_none_finds_only_what_is_not_finite():
    x = spoilt(STEPS - 1, factor=100.0)
    for factor, found in ((10.0, 1), (None, 0)):
        history = fit(reset_model(), guard(factor=factor), x=x)
        assert history["divergences"] == [found]


def test_losses_add_up_to_what_is_unusual():
    window = LossWindow(factor=3.0, length=50)
    window.usual = 0.5
    # 3 * 0.5 * 50 = 75 is allowed.
    assert window.add(70.0, 1) is None
    assert window.add(1.0, 5) is None
    assert window.add(0.5, 1) == "loss 0.5, usually 0.5"
    window.begin()
    # 60 batches of one execution may have 90.
    assert window.add(1.5, 60) is None
    assert window.add(NAN, 1) == "loss nan"
    window.begin()
    window.usual = -0.5  # No measure.
    assert window.add(1e9, 1) is None


@pytest.mark.parametrize(
    "variables",
    [
        lambda model: slots(model.optimizer, "second_moment"),
        lambda model: slots(model.optimizer, "first_moment")[:1],
        lambda model: model.trainable_variables,
    ],
    ids=["second_moment", "one_first_moment", "weights"],
)
def test_values_that_are_not_finite(variables):
    # After the switch no loss shows the second moment.
    history = fit(reset_model(), Spoil(7, NAN, variables), guard())
    assert history["divergences"] == [1]
    model = reset_model()
    fit(model, Spoil(7, NAN, variables), guard())
    assert all(np.isfinite(v).all() for v in state_of(model).values())


def test_the_last_update_is_judged_by_its_weights():
    model = reset_model()

    class Explode(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == STEPS - 1:
                for variable in self.model.trainable_variables:
                    variable.assign(variable * 1e3)

    history = fit(model, Explode(), guard(snapshot_every=4))
    assert history["divergences"] == [1]
    assert max(np.abs(w).max() for w in model.get_weights()) < 10


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_data_set_that_does_not_know_its_length():
    model = reset_model()
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)
    spoil = Spoil(
        STEPS - 1, NAN, lambda model: slots(model.optimizer, "second_moment")
    )
    history = model.fit(
        data.filter(lambda *_: True),
        verbose=0,
        shuffle=False,
        callbacks=[spoil, guard(snapshot_every=7)],
    ).history
    assert history["divergences"] == [1]
    assert all(np.isfinite(v).all() for v in state_of(model).values())


# ---- What it does about it --------------------------------------------------


@pytest.mark.parametrize(
    "scale",
    [
        {"sgd_scale": "projection"},
        pytest.param({"sgd_scale": 2.0}, marks=pytest.mark.slow),
        pytest.param({"sgd_learning_rate": 0.01}, marks=pytest.mark.slow),
        {
            "sgd_learning_rate": keras.optimizers.schedules.ExponentialDecay(
                0.01, 5, 0.5
            )
        },
    ],
    ids=["estimated", "number", "rate", "schedule"],
)
def test_the_scale_is_cut(scale):
    model = new_model(**scale)
    rates = States(lambda _: model.optimizer.sgd_learning_rate_equivalent)
    fit(model, guard(scale_cut=0.25), rates, x=spoilt(7))
    # Batch 7 took it back to after update 5.
    assert rates.asked[7] == pytest.approx(0.25 * rates.asked[4])


@pytest.mark.parametrize(
    ("bad", "cut"),
    [
        ((1,), 1.0),  # Before the switch.
        ((SWITCH,), 1.0),  # The batch that Adam's weights meet.
        ((7,), 0.5),
        ((7, 8, 9), 0.5),  # The good weights meet 8 and 9.
        ((5, 7), 0.25),
    ],
)
def test_the_scale_is_cut_where_sgd_may_be_to_blame(bad, cut):
    model = reset_model()
    history = fit(model, guard(), x=spoilt(*bad))
    assert history["divergences"] == [len(bad)]
    assert scale_cut(model) == cut


def test_a_scale_far_too_large_is_cut_until_it_trains():
    model = reset_model(sgd_learning_rate=100.0, learning_rate=0.03)
    history = fit(model, guard(scale_cut=0.1), epochs=8)
    assert 3 <= history["divergences"][-1] <= 10
    assert history["loss"][-1] < history["loss"][0] / 2


def test_revert_goes_back_to_adam_and_switches_again():
    model = reset_model()
    phases = States(lambda _: model.optimizer.switch_step)
    fit(model, guard(action="revert"), phases, x=spoilt(7))
    # Back to after update 5; AtStep fires with the next update of Adam.
    assert phases.asked[6:9] == [SWITCH, None, 6]
    assert scale_cut(model) == 0.5


@pytest.mark.parametrize("max_retries", [0, 2])
def test_it_gives_up_with_the_last_good_weights(max_retries):
    model = reset_model()
    states = States()
    callback = guard(max_retries=max_retries)
    bad = range(6, 6 + max_retries + 1)
    with pytest.raises(Diverged, match="good snapshot, after update 3") as e:
        fit(model, callback, states, x=spoilt(*bad))
    assert f"Epoch 1, batch {bad[-1] + 1}: diverged (loss nan)" in str(e.value)
    assert f"Received: max_retries={max_retries}" in str(e.value)
    assert equal(state_of(model), states.states[SWITCH])
    assert not callback._snapshots


def test_tries_count_anew_after_two_good_snapshots():
    x = np.concatenate([spoilt(2), spoilt(2)])
    model = reset_model()
    history = model.fit(
        x,
        np.concatenate([Y, Y]),
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
        callbacks=[guard(max_retries=1)],
    ).history
    assert history["divergences"] == [2]


def test_before_there_is_a_good_state():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(HybridOptimizer(), "mse")
    with pytest.raises(Diverged, match="before there was a good state"):
        fit(model, guard(), x=spoilt(0))


def test_weights_that_rest_at_zero_may_begin_to_grow():
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(1, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((3,)), dense])
    late = keras.optimizers.schedules.PiecewiseConstantDecay([4], [0.0, 0.01])
    model.compile(HybridOptimizer(late, jit_compile=False), "mse")
    history = fit(model, guard(snapshot_every=1))
    assert history["divergences"] == [0]


def test_a_model_built_by_its_first_batch():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(HybridOptimizer(jit_compile=False), "mse")
    steps = States(lambda _: int(model.optimizer.iterations.numpy()))
    fit(model, guard(), steps, x=spoilt(2))
    # The first good state is that after the first batch.
    assert steps.asked[:4] == [1, 2, 1, 2]


# ---- With others ------------------------------------------------------------


@pytest.mark.slow
def test_with_skipped_updates_only_a_second_one_is_a_divergence():
    model = reset_model(skip_nonfinite=True)
    callback = guard()
    history = fit(model, callback, x=spoilt(5))
    assert history["divergences"] == [0]
    assert history["skipped_steps"] == [1]
    assert np.isfinite(history["loss"]).all()
    model = reset_model(skip_nonfinite=True)
    history = fit(model, callback, x=spoilt(5, 6))
    assert history["divergences"] == [1]
    # Both were undone.
    assert history["skipped_steps"] == [0]


def test_going_back_behind_skips_goes_on_as_adam_did_there():
    model = reset_model(skip_nonfinite=True, trigger=None)
    history = fit(model, guard(snapshot_every=50), x=spoilt(2, 3))
    assert history["divergences"] == [1]
    other = reset_model(trigger=None)
    states = state_of(model)
    rest = slice(4 * BATCH, None)  # The guard went back to the start.
    quiet_fit(other, x=X[rest], y=Y[rest], batch_size=BATCH, epochs=1)
    # The paths have other numbers.
    pairs = zip(states.items(), state_of(other).values(), strict=True)
    for (path, value), expected in pairs:
        if not path.endswith("usual_loss"):
            np.testing.assert_array_equal(value, expected, err_msg=path)


@pytest.mark.slow
def test_mixed_precision():
    model = new_model(dtype="mixed_float16")
    optimizer = model.optimizer
    assert isinstance(optimizer, HybridOptimizer)
    model.compile(
        keras.optimizers.LossScaleOptimizer(optimizer), "mse", jit_compile=False
    )
    spoil = Spoil(7, NAN, lambda model: model.trainable_variables)
    history = fit(model, spoil, guard(), validation_data=(X, Y))
    assert history["divergences"] == [1]
    assert np.isfinite(history["val_loss"]).all()
    assert optimizer.has_switched


@pytest.mark.slow
def test_the_cut_survives_a_restart(tmp_path):
    model = reset_model()
    fit(model, guard(), x=spoilt(7))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    rates = [m.optimizer.sgd_learning_rate_equivalent for m in (model, again)]
    assert rates[0] == rates[1]
    assert scale_cut(again) == 0.5
    history = fit(again, guard(), epochs=2, initial_epoch=1)
    assert history["divergences"] == [1]


@pytest.mark.parametrize(
    "first", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_backup_and_restore(tmp_path, first):
    def callbacks(*last):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        pair = [guard(), backup] if first else [backup, guard()]
        return [*pair, *last]

    def interrupt(epoch, logs):
        if epoch == 1:
            raise RuntimeError("killed")

    x = spoilt(7)
    whole = reset_model()
    expected = fit(whole, *callbacks(), x=x, epochs=3)
    model = reset_model()
    kill = keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)
    with pytest.raises(RuntimeError, match="killed"):
        fit(model, *callbacks(kill), x=x, epochs=3)
    again = reset_model()
    history = fit(again, *callbacks(), x=x, epochs=3)
    assert scale_cut(again) <= 0.5
    # Each epoch has the bad batch.
    assert history["divergences"] == expected["divergences"][1:]


def test_keras_terminate_on_nan_after_it_does_not_stop():
    model = reset_model()
    stop = keras.callbacks.TerminateOnNaN()
    assert len(fit(model, guard(), stop, x=spoilt(7), epochs=2)["loss"]) == 2


@pytest.mark.slow
def test_a_train_step_that_logs_the_batch_loss():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self(x) - y))
            weights = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            return {self.logged: loss}

    for logged in ("loss", "other"):
        keras.utils.set_random_seed(0)
        model = Own()
        model.logged = logged
        model(X[:1])
        model.compile(HybridOptimizer(jit_compile=False), jit_compile=False)
        if logged == "loss":
            history = fit(model, guard(), x=spoilt(7, factor=1e3))
            assert history["divergences"] == [1]
        else:
            with pytest.raises(ValueError, match=r"`loss` .* Received: logs="):
                fit(model, guard())


def test_at_most_two_snapshots_are_held():
    callback = guard(snapshot_every=1)
    model = reset_model()
    held = []

    class Held(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            held.append(len(callback._snapshots))
            for snapshot in callback._snapshots:
                size = sum(value.nbytes for value in snapshot.values)
                state = model.variables + model.optimizer.variables
                assert size <= sum(v.numpy().nbytes for v in state)

    fit(model, callback, Held(), x=spoilt(4), epochs=2)
    assert max(held) == 2
    assert not callback._snapshots


def test_deep_copies_guard_as_well():
    callback = guard()
    for copied in (copy.deepcopy(callback), copy.deepcopy(callback)):
        assert fit(reset_model(), copied, x=spoilt(7))["divergences"] == [1]
    assert callback.model is None


# ---- What it says -----------------------------------------------------------


@pytest.mark.parametrize("verbose", [0, 1])
def test_each_event_is_one_line(caplog, verbose):
    interactive = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        with caplog.at_level(logging.INFO, logger="keras_hybrid"):
            fit(reset_model(), guard(verbose=verbose), x=spoilt(1, 7))
    finally:
        if interactive:
            keras.config.enable_interactive_logging()
    expected = [
        "Epoch 1, batch 2: diverged (loss nan); back to update 0 "
        "(try 1 of 10).",
        "Epoch 1, batch 8: diverged (loss nan); back to update 3, SGD's scale "
        "cut to 0.5 of what it was (try 2 of 10).",
    ]
    assert [r.message for r in caplog.records] == expected * verbose


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"factor": 1.0}, ValueError),
        ({"factor": NAN}, ValueError),
        ({"factor": "3"}, TypeError),
        ({"factor": True}, TypeError),
        ({"max_retries": -1}, ValueError),
        ({"max_retries": 1.5}, TypeError),
        ({"max_retries": None}, TypeError),
        ({"scale_cut": 0.0}, ValueError),
        ({"scale_cut": 1.0}, ValueError),
        ({"scale_cut": INF}, ValueError),
        ({"scale_cut": None}, TypeError),
        ({"action": "stop"}, ValueError),
        ({"action": None}, ValueError),
        ({"snapshot_every": 0}, ValueError),
        ({"snapshot_every": "epoch"}, TypeError),
        ({"verbose": 2}, ValueError),
        ({"verbose": True}, ValueError),
    ],
    ids=str,
)
def test_bad_arguments(arguments, error):
    ((name, value),) = arguments.items()
    with pytest.raises(error, match=f"^`{name}`") as e:
        DivergenceGuard(**arguments)
    assert str(e.value).endswith(f"Received: {name}={value!r}")


def test_models_it_cannot_guard():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match="`HybridOptimizer`: .*Received"):
        fit(model, guard())
    model = reset_model()
    model.layers[0].kernel.assign(np.full((3, 4), NAN))
    with pytest.raises(ValueError, match=r"finite weights .* Received: .*kern"):
        fit(model, guard())


def test_its_names():
    assert callbacks_module.DivergenceGuard is DivergenceGuard
    assert issubclass(Diverged, RuntimeError)


@pytest.mark.slow
def test_a_planted_divergence_of_the_benchmark():
    path = ROOT / "benchmarks" / "divergences.py"
    benchmark = runpy.run_path(str(path))
    planted = benchmark["PLANTED"][7]
    result = benchmark["row"](benchmark["datasets"].load("mnist-5k"), planted)
    assert result["runs"]["undisturbed"]["divergences"] == 0
    assert result["runs"]["recovered"]["divergences"] >= 1
    assert result["lacking"] <= benchmark["ALLOWED"] + 1e-6
