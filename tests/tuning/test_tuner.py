"""The search: its space, forked trials against whole ones, kills, errors."""

import errno
import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from small import TESTS

from keras_hybrid import HybridOptimizer, SwitchCallback
from keras_hybrid.recipes import Plan
from keras_hybrid.tuner import (
    DEFAULT_SPACE,
    SWITCH_POINTS,
    ForkedTuner,
    HybridHyperModel,
)
from keras_hybrid.tuning import record
from keras_hybrid.tuning.trials import Fit, train_whole

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 6)).astype("float32")
Y = (X[:, 0] * X[:, 1] > 0).astype("int64")
DATA = {"x": X, "y": Y, "batch_size": 16, "validation_data": (X[:32], Y[:32])}
LOSS = "sparse_categorical_crossentropy"


def build(hp, optimizer=HybridOptimizer):
    """Dropout and batch normalization: state beside the weights."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(optimizer(1e-2), LOSS, metrics=["accuracy"])
    return model


def build_light(hp):
    """Compiles fast: for tests that do not look at the training."""
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(2, activation="softmax")]
    )
    optimizer = HybridOptimizer(1e-2, jit_compile=False)
    model.compile(optimizer, LOSS, metrics=["accuracy"])
    return model


def build_uncompiled(hp):
    """As `build`, without XLA, which compiles for longer than it trains."""
    return build(hp, lambda rate: HybridOptimizer(rate, jit_compile=False))


POINTS = {**SWITCH_POINTS, "fraction": [0.5, 0.75, 0.25]}


def tuner_in(tmp_path, model=build_light, space=POINTS, seeds=1, **arguments):
    return ForkedTuner(
        HybridHyperModel(model, space, seeds),
        **{"objective": "val_loss", "directory": tmp_path, **arguments},
    )


# ---- Forked trials equal whole ones -----------------------------------------

FIXED = {"how": "hard", "end": 1.0, "scale": "projection", "multiplier": 1.0}
SPACES = {
    "points": {**FIXED, "when": "fraction", "fraction": [0.5, 1.0, 0.25, 0.75]},
    "kinds": {
        **FIXED,
        "when": ["gap", "fraction", "plateau"],
        "threshold": [-0.05, 0.02],
        "patience": [0.1, 0.2],
        "fraction": 0.3,
        "cooldown": ["linear", "none"],
    },
    "projection": {
        **FIXED,
        "when": ["fraction", "projection"],
        "fraction": [0.5, 1.0],
        "tolerance": [0.9, 0.3, 0.6],
    },
    "blends": {
        **FIXED,
        "when": "fraction",
        "fraction": [0.75, 0.25],
        "how": ["blend", "hard"],
        "length": 0.4,
        "curve": ["exponential", "linear"],
        "path": ["clip", "geometric"],
        "end": [1.0, 0.5],
    },
    "scales": {
        **FIXED,
        "when": "fraction",
        "fraction": [0.75, 0.25],
        "scale": ["norm", "number", "projection"],
        "rho": [0.5, 4.0],
        "multiplier": [1.0, 2.0],
        "scale_scope": ["layer", "variable"],
        "scope": "layer",
    },
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name != "points" else name
        for name in SPACES
    ],
)
def test_forked_equals_unshared(name, tmp_path, monkeypatch):
    """Bit for bit: weights, state, history and the step of the switch."""
    data = {**DATA, "epochs": 24 if name == "projection" else 8}
    in_order = name in ("points", "projection")
    tuner = tuner_in(
        tmp_path,
        build if name == "points" else build_uncompiled,
        SPACES[name],
        oracle="grid" if in_order else "random",
        max_trials=None if in_order else 6,
    )
    forked = {}
    kept = tuner._keep_weights
    monkeypatch.setattr(
        tuner,
        "_keep_weights",
        lambda folder: (
            forked.update(
                {
                    folder.name[6:]: [
                        v.numpy() for v in tuner._cached[1].variables
                    ]
                }
            ),
            kept(folder),
        ),
    )
    tuner.search(**data)
    search = record.load(tuner.folder)
    assert len(search.trials) >= 3
    # Each estimate and scope has a prefix of its own.
    most = 1 if name == "scales" else 0.8
    assert search.epochs_trained < most * search.epochs_unshared
    switched = set()
    for trial in search.trials:
        model = tuner.hypermodel.build_seeded(
            tuner.oracle.get_trial(trial.name).hyperparameters, 0
        )
        whole = train_whole(
            model,
            trial.plan,
            Fit.of((), data),
            0,
            tuner.hypermodel.recorded_signals,
        )
        (run,) = trial.runs
        assert run.switch_step == whole.switch_step, trial.plan
        # A log of the prefix, which trials with another multiplier share.
        np.testing.assert_allclose(
            run.history.pop("sgd_learning_rate"),
            whole.history.pop("sgd_learning_rate"),
            rtol=0 if trial.plan.multiplier == 1 else 1e-6,
        )
        assert run.history == whole.history, trial.plan
        for ours, theirs in zip(
            forked[trial.name], model.variables, strict=True
        ):
            np.testing.assert_array_equal(ours, theirs.numpy())
        switched.add(run.switch_step)
    assert len(switched) > 1, "the trials must differ in their switch"


def test_a_shared_prefix_logs_each_trial_s_own_sgd_rate(tmp_path):
    space = {**FIXED, "when": "fraction", "fraction": 0.5}
    space |= {"scale": "number", "rho": [0.5, 2.0, 3.0]}
    space |= {"cooldown": "linear"}
    tuner = tuner_in(tmp_path, space=space)
    tuner.search(**DATA, epochs=4)
    search = record.load(tuner.folder)
    assert search.epochs_trained < search.epochs_unshared
    logged = {
        trial.plan.rho: run.history["sgd_learning_rate"]
        for trial in search.trials
        for run in trial.runs
    }
    assert len(logged) == 3
    for rho, rates in logged.items():
        # Adam's 0.01, SGD's momentum 0.9; a linear cool-down from half.
        expected = 0.001 * rho * np.array([1, 1, 0.5, 0])
        np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_forked_scores_are_those_of_kerastuner_s_own_grid(tmp_path):
    data = {**DATA, "epochs": 4}
    tuner = tuner_in(tmp_path, seeds=2)
    tuner.search(**data)
    plain = keras_tuner.GridSearch(
        HybridHyperModel(build_light, POINTS, seeds=2),
        objective="val_loss",
        directory=tmp_path,
        project_name="plain",
    )
    plain.search(**data, verbose=0)
    ours = {
        k: (t.hyperparameters.values, t.score)
        for k, t in tuner.oracle.trials.items()
    }
    theirs = {
        k: (t.hyperparameters.values, t.score)
        for k, t in plain.oracle.trials.items()
    }
    assert ours == theirs
    assert len(ours) == 3


def test_epochs_trained_are_the_prefix_and_the_forks(tmp_path):
    tuner = tuner_in(tmp_path)
    tuner.search(**DATA, epochs=8)
    search = record.load(tuner.folder)
    # Switches after 4, 6 and 2 epochs: 8, then 2 + 2, then 6.
    trained = [run.trained_epochs for t in search.trials for run in t.runs]
    assert trained == [8, 4, 6]
    assert search.epochs_unshared == 24
    assert not (tuner.folder / "prefixes").exists(), "snapshots are removed"


def test_a_whole_training_equals_the_user_s_own_fit(tmp_path):
    """The recipe's parts give in plain `fit` what the trial gave."""
    plan = Plan(fraction=0.5)
    hypermodel = HybridHyperModel(build, POINTS)
    hp = keras_tuner.HyperParameters()
    fit = Fit.of((), {**DATA, "epochs": 4})
    run = train_whole(hypermodel.build_seeded(hp, 0), plan, fit, 0, [])
    keras.utils.set_random_seed(0)
    steps = 6 * 4
    model = build(
        hp,
        lambda rate: HybridOptimizer(rate, **plan.optimizer_arguments(steps)),
    )
    pipeline, _ = fit.pipeline(0, 0)
    history = model.fit(
        pipeline,
        steps_per_epoch=6,
        epochs=4,
        shuffle=False,
        validation_data=DATA["validation_data"],
        callbacks=[SwitchCallback(plan.epoch_trigger(4), verbose=0)],
        verbose=0,
    ).history
    assert {k: run.history[k] for k in history} == history


def test_seeds_are_averaged_and_differ(tmp_path):
    tuner = tuner_in(tmp_path, seeds=2)
    tuner.search(**DATA, epochs=4)
    for trial in record.load(tuner.folder).trials:
        scores = trial.scores("val_loss")
        assert len(set(scores)) == 2
        theirs = tuner.oracle.get_trial(trial.name).score
        assert theirs == pytest.approx(np.mean(scores), rel=1e-12)


def test_thinned_out_snapshots_change_nothing_but_the_epochs(tmp_path):
    scores = []
    for limit in (2_000_000_000, 12_000):
        tuner = tuner_in(
            tmp_path, project_name=f"{limit}", snapshot_limit=limit
        )
        sizes = []
        tuner.report = lambda p, sizes=sizes: sizes.append(p.snapshot_bytes)
        tuner.search(**DATA, epochs=8)
        search = record.load(tuner.folder)
        scores.append([t.mean("val_loss") for t in search.trials])
        cost = search.epochs_trained
    assert scores[0] == scores[1]
    assert cost > 18
    assert max(sizes) <= 3 * 12_000, "the start and the last always stay"


# ---- Every tuner ------------------------------------------------------------

KERAS_TUNERS = {
    "random": lambda **k: keras_tuner.RandomSearch(max_trials=3, **k),
    "bayesian": lambda **k: keras_tuner.BayesianOptimization(max_trials=3, **k),
    "hyperband": lambda **k: keras_tuner.Hyperband(max_epochs=4, factor=2, **k),
    "grid": lambda **k: keras_tuner.GridSearch(max_trials=3, **k),
}


# KerasTuner loads weights into models whose optimizer is not built yet.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize(
    "name",
    [
        name if name == "random" else pytest.param(name, marks=pytest.mark.slow)
        for name in KERAS_TUNERS
    ],
)
def test_hypermodel_in_keras_tuners(name, tmp_path):
    tuner = KERAS_TUNERS[name](
        hypermodel=HybridHyperModel(
            build_light, {**POINTS, "multiplier": [1.0, 2.0]}
        ),
        objective="val_accuracy",
        directory=tmp_path,
    )
    budget = {} if name == "hyperband" else {"epochs": 3}
    tuner.search(**DATA, **budget, verbose=0)
    trials = tuner.oracle.trials.values()
    assert all(t.status == "COMPLETED" for t in trials)
    for trial in trials:
        # The very score that a training from the start has, in every rung.
        hp = trial.hyperparameters
        epochs = hp.values.get("tuner/epochs", 3)
        hypermodel = tuner.hypermodel
        run = train_whole(
            hypermodel.build_seeded(hp, 0),
            hypermodel.plan(hp),
            Fit.of((), {**DATA, "epochs": epochs}),
            0,
            [],
        )
        assert trial.score == pytest.approx(run.history["val_accuracy"][-1])
        assert run.switch_step is not None, "every rung sees its transition"
    assert tuner.get_best_models()[0].predict(X[:2], verbose=0).shape == (2, 2)


@pytest.mark.parametrize("name", ["random", "bayesian", "hyperband"])
def test_forked_tuner_with_other_oracles(name, tmp_path):
    tuner = tuner_in(
        tmp_path,
        space={**POINTS, "when": ["fraction", "plateau"]},
        oracle=name,
        max_trials=None if name == "hyperband" else 4,
        max_epochs=6,
    )
    tuner.search(**DATA, epochs=6)
    search = record.load(tuner.folder)
    assert len(search.trials) >= 4
    budgets = {trial.epochs for trial in search.trials}
    assert budgets == ({2, 6} if name == "hyperband" else {6})
    assert search.best.epochs == 6
    assert search.epochs_trained < search.epochs_unshared
    assert tuner.recipe().plan == search.best.plan


def test_an_oracle_of_the_user_s_own(tmp_path):
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_loss", "min"), max_trials=2, seed=3
    )
    tuner = tuner_in(tmp_path, oracle=oracle)
    tuner.search(**DATA, epochs=4)
    assert len(record.load(tuner.folder).trials) == 2


def test_a_hypermodel_s_own_hyperparameters_are_searched_and_kept(tmp_path):
    class Inner(keras_tuner.HyperModel):
        def build(self, hp):
            model = build_light(hp)
            rate = hp.Choice("rate", [1e-3, 1e-1])
            model.compile(HybridOptimizer(rate, jit_compile=False), LOSS)
            return model

    tuner = tuner_in(tmp_path, Inner(), {**POINTS, "fraction": [0.5, 0.25]})
    tuner.search(**DATA, epochs=4)
    search = record.load(tuner.folder)
    assert len(search.trials) == 4
    recipe = tuner.recipe()
    assert recipe.hyperparameters == search.best.hyperparameters
    rate = recipe.hyperparameters["rate"]
    assert recipe.optimizer["learning_rate"] == pytest.approx(rate)
    optimizer = HybridOptimizer.from_recipe(recipe)
    assert float(optimizer.learning_rate) == pytest.approx(rate)


def test_best_models_have_the_last_weights_of_the_best_trial(tmp_path):
    tuner = tuner_in(tmp_path)
    tuner.search(**DATA, epochs=4)
    model = tuner.get_best_models()[0]
    loss = model.evaluate(*DATA["validation_data"], verbose=0)[0]
    best = record.load(tuner.folder).best
    assert loss == pytest.approx(best.mean("val_loss"), rel=1e-5)


def test_data_as_nests_weights_and_functions(tmp_path):
    def two_inputs(hp):
        a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
        both = keras.layers.Concatenate()([a, b])
        model = keras.Model(
            {"a": a, "b": b},
            keras.layers.Dense(2, activation="softmax")(both),
        )
        model.compile(HybridOptimizer(jit_compile=False), LOSS)
        return model

    nest = {"a": X[:, :3], "b": X[:, 3:]}
    tuner = tuner_in(tmp_path, two_inputs, {**POINTS, "fraction": [0.5, 1.0]})
    tuner.search(
        nest,
        Y,
        sample_weight=np.linspace(0, 1, len(Y)),
        epochs=2,
        validation_data=(nest, Y),
    )
    assert len(record.load(tuner.folder).trials) == 2

    def pipeline(seed, first_epoch, epochs):
        one = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)
        return one.repeat(), 3

    tuner = tuner_in(tmp_path, project_name="function")
    tuner.search(pipeline, epochs=4, validation_data=(X, Y))
    assert len(record.load(tuner.folder).trials) == 3


def test_arrays_come_in_the_precision_that_fit_gives_them(tmp_path):
    given = []

    class Model(keras.Sequential):
        def train_step(self, data):
            given.append([part.dtype for part in data])
            return super().train_step(data)

    def custom(hp):
        model = Model([keras.Input((6,)), keras.layers.Dense(2, "softmax")])
        model.compile(HybridOptimizer(jit_compile=False), LOSS)
        return model

    data = {**DATA, "x": X.astype("float64")}
    custom(None).fit(**data, verbose=0)
    tuner = tuner_in(tmp_path, custom, {**POINTS, "fraction": [0.5, 1.0]})
    tuner.search(**data, epochs=2)
    assert given[0] == [tf.float32, tf.int64]
    assert all(types == given[0] for types in given)


def test_plain_tuners_take_data_sets(tmp_path):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)
    tuner = keras_tuner.RandomSearch(
        HybridHyperModel(build_light, POINTS),
        objective="val_loss",
        max_trials=1,
        directory=tmp_path,
    )
    tuner.search(data, epochs=2, validation_data=data, verbose=0)
    assert tuner.oracle.get_best_trials()[0].score > 0


def test_a_model_without_an_input_layer(tmp_path):
    def unbuilt(hp):
        model = keras.Sequential([keras.layers.Dense(2, activation="softmax")])
        model.compile(HybridOptimizer(jit_compile=False), LOSS)
        return model

    tuner = tuner_in(tmp_path, unbuilt, {**POINTS, "fraction": [0.5, 1.0]})
    tuner.search(**DATA, epochs=2)
    assert len(record.load(tuner.folder).complete) == 2


# ---- The space --------------------------------------------------------------


def test_the_default_space_declares_every_field_under_its_condition():
    hp = keras_tuner.HyperParameters()
    plan = HybridHyperModel(build).plan(hp)
    assert plan == Plan(fraction=0.5), "the first trial is the library default"
    names = {p.name.removeprefix("hybrid/") for p in hp.space}
    searched = {
        k for k, v in DEFAULT_SPACE.items() if isinstance(v, (list, tuple))
    }
    assert names == searched - {"rho"}, "no value of scale reads rho"


def test_samples_of_the_default_space_are_plans_that_train():
    hypermodel = HybridHyperModel(build)
    seen = set()
    for seed in range(200):
        hp = keras_tuner.HyperParameters()
        hypermodel.plan(hp)
        for parameter in hp.space:
            hp.values[parameter.name] = parameter.random_sample(seed)
        plan = hypermodel.plan(hp)
        HybridOptimizer(**plan.optimizer_arguments(100))
        plan.epoch_trigger(10)
        seen |= {plan.when, plan.how, plan.scale, plan.cooldown, plan.path}
    assert {"fraction", "plateau", "gap", "projection"} <= seen
    assert {"hard", "blend", "norm", "linear", "geometric"} <= seen


# ---- Pruning ----------------------------------------------------------------


def test_the_median_rule_stops_the_first_seed_of_hopeless_trials(tmp_path):
    def pipeline(seed, first_epoch, epochs):
        one = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
        return one.repeat(), 6

    space = {**POINTS, "fraction": [0.9, 0.8, 0.2], "end": [0.0]}
    space |= {"scale": "number", "rho": [1.0, 1e3], "end": 1.0}
    tuner = tuner_in(tmp_path, space=space, seeds=2, prune=True)
    tuner.search(pipeline, epochs=10, validation_data=(X[:32], Y[:32]))
    search = record.load(tuner.folder)
    stopped = [t for t in search.trials if t.status == "stopped"]
    assert stopped, "a rho of a thousand is hopeless"
    for trial in stopped:
        (run,) = trial.runs
        switch = run.switch_step / run.steps_per_epoch
        epochs = len(run.history["loss"])
        assert (epochs - switch) / (10 - switch) >= 1 / 3
        assert epochs < 10
        assert trial not in search.complete
        score = tuner.oracle.get_trial(trial.name).score
        assert score >= search.best.mean("val_loss")
    whole = tuner_in(
        tmp_path, space=space, seeds=2, project_name="whole", directory=tmp_path
    )
    whole.search(pipeline, epochs=10, validation_data=(X[:32], Y[:32]))
    all_of_it = record.load(whole.folder)
    assert search.epochs_trained < all_of_it.epochs_trained
    finished = {t.name: t.scores("val_loss") for t in search.complete}
    for trial in all_of_it.complete:
        if trial.name in finished:
            assert finished[trial.name] == trial.scores("val_loss")


def test_a_diverged_trial_is_recorded_and_the_search_goes_on(tmp_path):
    space = {
        **POINTS,
        "fraction": 0.5,
        "scale": "number",
        "rho": [1.0, 1e30, 2e30, 3e30, 4e30, 2.0],
        "cooldown": ["none"],
    }

    def mse(hp):
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
        model.compile(HybridOptimizer(jit_compile=False), "mse")
        return model

    tuner = tuner_in(tmp_path, mse, space, seeds=2)
    tuner.search(X, X, epochs=8, validation_data=(X, X))
    search = record.load(tuner.folder)
    statuses = {t.plan.rho: t.status for t in search.trials}
    assert [s for rho, s in statuses.items() if rho > 1e9] == ["diverged"] * 4
    assert statuses[1.0] == statuses[2.0] == "finished"
    assert search.best.plan.rho in (1.0, 2.0)
    assert tuner.recipe().plan == search.best.plan


# ---- References and the recipe ----------------------------------------------


def test_references_are_the_default_adam_and_sgd_with_cosine(tmp_path):
    tuner = tuner_in(tmp_path, build)
    data = {**DATA, "epochs": 4}
    tuner.search(**data)
    tuner.run_references(**data)
    search = record.load(tuner.folder)
    assert list(search.references) == ["default", "adam", "sgd"]
    half = next(t for t in search.trials if t.plan.fraction == 0.5)
    (default,), (trained,) = search.references["default"].runs, half.runs
    assert default.history == trained.history
    assert default.trained_epochs == 0, "not trained twice"
    keras.utils.set_random_seed(0)
    schedule = keras.optimizers.schedules.CosineDecay(1e-2, 24)
    model = build(None, lambda rate: keras.optimizers.Adam(schedule))
    pipeline, _ = Fit.of((), data).pipeline(0, 0)
    history = model.fit(
        pipeline, steps_per_epoch=6, epochs=4, shuffle=False, verbose=0
    ).history
    adam = search.references["adam"].runs[0].history
    np.testing.assert_allclose(adam["loss"], history["loss"], rtol=1e-5)
    # Keras' SGD has the schedule inside its momentum, ours outside.
    sgd = search.references["sgd"].runs[0]
    np.testing.assert_allclose(
        sgd.history["sgd_learning_rate"],
        0.05 * np.array(sgd.history["cooldown"]),
        rtol=1e-5,
    )
    assert sgd.switch_step == 0
    means = {t.plan: t.mean("val_loss") for t in search.trials}
    means |= {t.plan: t.mean("val_loss") for t in search.references.values()}
    recipe = tuner.recipe("mine", "data", "net")
    assert recipe.score["mean"] == min(means.values())
    assert means[recipe.plan] == min(means.values())
    assert HybridOptimizer.from_recipe(recipe).training_steps == 24
    assert (recipe.name, recipe.dataset, recipe.architecture) == (
        "mine",
        "data",
        "net",
    )
    assert set(recipe.search["references"]) == {"default", "adam", "sgd"}
    assert recipe.search["epochs_trained"] == search.epochs_trained
    assert recipe.score["values"] == search.found.scores("val_loss")
    assert recipe.budget == {
        "epochs": 4,
        "steps_per_epoch": 6,
        "batch_size": 16,
    }


# ---- Kills and files --------------------------------------------------------


def test_a_search_that_is_finished_is_not_repeated(tmp_path):
    tuner_in(tmp_path).search(**DATA, epochs=4)
    told = []
    tuner = tuner_in(tmp_path, report=told.append)
    tuner.search(**DATA, epochs=4)
    assert told == []
    assert len(tuner.oracle.trials) == 3


def test_a_search_of_other_processes_goes_on_here(tmp_path):
    """As after workers on other machines, or a kill in the first trial."""
    tuner = tuner_in(tmp_path)
    tuner.search(**DATA, epochs=4)
    (tuner.folder / "tuner0.json").rename(tuner.folder / "worker0.json")
    told = []
    again = tuner_in(tmp_path, report=told.append)
    again.search(**DATA, epochs=4)
    assert told == []
    assert again.recipe() == tuner.recipe()


class Noting(keras.callbacks.Callback):
    """Notes how many trainings one and the same callback has seen."""

    starts = []

    def __init__(self):
        super().__init__()
        self.seen = 0

    def on_train_begin(self, logs=None):
        self.seen += 1
        Noting.starts.append(self.seen)


def test_callbacks_are_copied_and_watch_the_first_seed(tmp_path):
    Noting.starts = []
    callbacks = [Noting()]
    tuner = tuner_in(tmp_path, seeds=2)
    tuner.search(**DATA, epochs=4, callbacks=callbacks)
    assert Noting.starts == [1, 1, 1]
    assert callbacks[0].seen == 0


def test_progress_is_told(tmp_path):
    told = []
    tuner_in(tmp_path, seeds=2, report=told.append).search(**DATA, epochs=4)
    done = [p for p in told if p.run is not None]
    assert [p.finished for p in done] == [1, 2, 3, 4, 5, 6]
    assert {p.total for p in told} == {6}
    assert {p.epochs for p in told} == {4}


SCRIPT = """
import os, signal, sys
sys.path[:0] = {tests}
import test_tuner as t
tuner = t.tuner_in({folder!r}, seeds=2, space=t.POINTS)
trainings = int(sys.argv[1])
epochs = 0
def report(progress):
    global epochs
    epochs += progress.run is None
    if epochs == trainings:
        os.kill(os.getpid(), signal.SIGKILL)
tuner.report = report
tuner.search(**t.DATA, epochs=8)
"""


@pytest.mark.slow
def test_killed_and_resumed_equals_never_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT.format(
            tests=[str(TESTS), os.path.dirname(__file__)],
            folder=str(tmp_path / "killed"),
        )
    )
    for kill_at, code in (
        (3, -signal.SIGKILL),
        (18, -signal.SIGKILL),
        (-1, 0),
    ):
        process = subprocess.run(
            [sys.executable, str(script), str(kill_at)],
            timeout=180,
            check=False,
            capture_output=True,
        )
        assert process.returncode == code, process.stderr.decode()[-2000:]
        if code:
            partly = record.load(tmp_path / "killed" / "hybrid")
            finished = sum(len(t.runs) for t in partly.trials)
            assert finished < 6
            assert (finished > 0) == (kill_at > 3)
    tuner = tuner_in(tmp_path / "whole", seeds=2)
    tuner.search(**DATA, epochs=8)

    def results(folder):
        return {
            trial.name: (trial.plan, [run.history for run in trial.runs])
            for trial in record.load(folder).trials
        }

    assert results(tmp_path / "killed" / "hybrid") == results(tuner.folder)


def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path, monkeypatch):
    save = np.savez
    room = 9  # Snapshots until the disk is full.

    def filling(file, **arrays):
        nonlocal room
        room -= 1
        if room < 0:
            file.write(b"PK")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(file, **arrays)

    monkeypatch.setattr(np, "savez", filling)
    tuner = tuner_in(tmp_path, seeds=2)
    with pytest.raises(ValueError, match="There is no room for .*epoch-"):
        tuner.search(**DATA, epochs=8)
    kept = record.load(tuner.folder)
    assert sum(len(t.runs) for t in kept.trials) == 1
    assert not list(tmp_path.rglob("*.partial"))
    monkeypatch.setattr(np, "savez", save)
    again = tuner_in(tmp_path, seeds=2)
    again.search(**DATA, epochs=8)
    found = record.load(again.folder)
    assert len(found.complete) == 3
    assert found.trials[0].runs[0] == kept.trials[0].runs[0]


def test_damaged_snapshots_are_named_and_trained_again(tmp_path):
    whole = tuner_in(tmp_path, project_name="whole")
    whole.search(**DATA, epochs=4)
    tuner = tuner_in(tmp_path)

    def damage(progress):
        if progress.run is not None:
            for path in (tuner.folder / "prefixes").glob("*/epoch-*.npz"):
                path.write_bytes(b"PK")

    tuner.report = damage
    with pytest.warns(UserWarning, match=r"epoch-\d+.npz: not readable"):
        tuner.search(**DATA, epochs=4)
    for ours, theirs in zip(
        record.load(tuner.folder).trials,
        record.load(whole.folder).trials,
        strict=True,
    ):
        assert ours.runs[0].history == theirs.runs[0].history
        assert ours.runs[0].shared_epochs == 0


@pytest.mark.parametrize(
    "change",
    [
        {"status": "great"},
        {"plan": {"when": "x"}},
        {"plan": {"fraction": "x"}},
        {"seed": ...},
        {"more": 1},
        {"format": 7},
    ],
)
def test_damaged_records_are_named(tmp_path, change):
    tuner = tuner_in(tmp_path, space={**POINTS, "fraction": [1.0, 0.5]})
    tuner.search(**DATA, epochs=2)
    path = next(tuner.folder.glob("trial_*/seed-0.json"))
    content = json.loads(path.read_text())
    for name, value in change.items():
        if value is ...:
            del content[name]
        else:
            content[name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"seed-0.json"):
        record.load(tuner.folder)


def test_kerastuner_s_files_are_replaced_as_a_whole(tmp_path, monkeypatch):
    """A kill inside the writing leaves the old file."""
    tuner = tuner_in(tmp_path, space={**POINTS, "fraction": [1.0, 0.5]})
    tuner.search(**DATA, epochs=2)
    paths = [
        tuner.folder / "oracle.json",
        *tuner.folder.glob("trial_*/trial.json"),
        tuner.folder / "tuner0.json",
    ]
    assert len(paths) == 4
    before = [path.read_text() for path in paths]

    def killed(self, *args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        patch.setattr(Path, "replace", killed)
        for save in (
            tuner.oracle.save,
            tuner.save,
            *(
                functools.partial(tuner.oracle._save_trial, trial)
                for trial in tuner.oracle.trials.values()
            ),
        ):
            with pytest.raises(KeyboardInterrupt):
                save()
    assert before == [path.read_text() for path in paths]
    again = tuner_in(tmp_path, space={**POINTS, "fraction": [1.0, 0.5]})
    assert len(again.oracle.trials) == 2


@pytest.mark.parametrize("name", ["oracle.json", "trial_*/trial.json"])
def test_a_damaged_file_of_kerastuner_s_is_named(tmp_path, name):
    tuner = tuner_in(tmp_path, space={**POINTS, "fraction": [1.0, 0.5]})
    tuner.search(**DATA, epochs=2)
    path = next(tuner.folder.glob(name))
    path.write_text("")
    with pytest.raises(ValueError, match=f"damaged file.*{path.name}"):
        tuner_in(tmp_path, space={**POINTS, "fraction": [1.0, 0.5]})


# ---- Bad input --------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": 3}, TypeError, "`hypermodel` must be"),
        ({"space": [1]}, TypeError, "`space` must be None or a mapping"),
        ({"space": {"speed": 1}}, ValueError, "Received: speed"),
        ({"space": {"when": []}}, ValueError, "at least one value for when"),
        ({"space": {"when": ["later"]}}, ValueError, "`when` must be one of"),
        ({"space": {"when": ("a", "b")}}, ValueError, "a tuple, which must be"),
        ({"space": {"fraction": [0.5, 2]}}, ValueError, "`fraction` must be"),
        ({"space": {"tolerance": (0.3, 0.1)}}, ValueError, "`tolerance`"),
        ({"space": {"rho": (1, 2, 3)}}, ValueError, "must be a pair"),
        ({"space": {"end": ["x"]}}, TypeError, "`end` must be"),
        ({"seeds": 0}, ValueError, "`seeds` must be an integer >= 1"),
        ({"seeds": 1.5}, TypeError, "`seeds` must be"),
        (
            {"space": {**POINTS, "fraction": 0.5}},
            ValueError,
            "nothing to search",
        ),
        ({"oracle": "magic"}, ValueError, "`oracle` must be one of"),
        ({"oracle": "hyperband"}, ValueError, "`max_epochs` must be given"),
        ({"objective": ["val_loss"]}, TypeError, "`objective` must be"),
        ({"objective": "taste"}, ValueError, "taste"),
        ({"space": "outer"}, ValueError, "`space` must be one of 'when'"),
        (
            {"oracle": "hyperband", "max_epochs": 9, "max_trials": 3},
            ValueError,
            "`max_trials` has no place",
        ),
        (
            {
                "oracle": keras_tuner.oracles.GridSearchOracle("val_loss"),
                "max_trials": 3,
            },
            ValueError,
            "`max_trials` is an argument of the oracle",
        ),
        ({"max_trials": 0}, ValueError, "`max_trials` must be"),
        ({"prune": 1}, TypeError, "`prune` must be True or False"),
        ({"snapshot_limit": 0}, ValueError, "`snapshot_limit` must be"),
    ],
)
def test_bad_arguments(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        tuner_in(tmp_path, **arguments)


class OwnFit(keras_tuner.HyperModel):
    def build(self, hp):
        return build_light(hp)

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, batch_size=hp.get("bs"), **kwargs)


def test_a_hypermodel_with_a_fit_of_its_own_is_refused():
    with pytest.raises(ValueError, match="`fit` of its own.*OwnFit"):
        HybridHyperModel(OwnFit())


def with_ema(hp):
    return build(hp, lambda rate: HybridOptimizer(rate, use_ema=True))


def with_accumulation(hp):
    return build(
        hp, lambda rate: HybridOptimizer(rate, gradient_accumulation_steps=2)
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda hp: build(hp, keras.optimizers.Adam), "optimizer=Adam"),
        (
            lambda hp: keras.Sequential([keras.layers.Dense(1)]),
            "must be compiled with a `HybridOptimizer`",
        ),
        (with_ema, "use_ema=True"),
        (with_accumulation, "gradient_accumulation_steps=2"),
    ],
)
def test_models_that_cannot_be_searched(tmp_path, model, message):
    with pytest.raises(ValueError, match=message):
        tuner_in(tmp_path, model)


def data_set():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epochs": None}, ValueError, "`epochs` must be given"),
        ({"epochs": 0}, ValueError, "`epochs` must be an integer >= 1"),
        ({"epochs": 1.5}, TypeError, "`epochs` must be"),
        ({"epochs": 1}, ValueError, "shorter than the earliest switch"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be"),
        ({"y": Y[:50]}, ValueError, "Received: 50 and 96 rows"),
        ({"x": 3.0, "y": None}, ValueError, "one row an example"),
        ({"validation_freq": 2}, ValueError, "`validation_freq` is not"),
        ({"batch_size": -1}, ValueError, "`batch_size` must be"),
        ({"shuffle": "batch"}, TypeError, "`shuffle` must be"),
        ({"x": None}, ValueError, "`x` must be given"),
        ({"x": data_set(), "y": None}, ValueError, "arrays, or a function"),
        ({"validation_data": None}, ValueError, "needs `validation_data`"),
        ({"validation_split": 0.1}, ValueError, "`validation_split` is not"),
        ({"steps_per_epoch": 3}, ValueError, "`steps_per_epoch` is not"),
        (
            {"callbacks": [keras.callbacks.EarlyStopping()]},
            ValueError,
            "may watch but not steer",
        ),
        (
            {"callbacks": [SwitchCallback()]},
            ValueError,
            "Received: SwitchCallback",
        ),
    ],
)
def test_bad_search_arguments(tmp_path, arguments, error, message):
    tuner = tuner_in(tmp_path)
    with pytest.raises(error, match=message):
        tuner.search(**{**DATA, "epochs": 8, **arguments})


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"seeds": 2}, "seeds"),
        ({"objective": "val_accuracy"}, "objective, direction"),
        ({"prune": True}, "prune"),
        ({"oracle": "random"}, "tuner"),
        ({"space": {**POINTS, "fraction": [0.5, 0.25]}}, "space"),
    ],
)
def test_the_directory_of_another_search(tmp_path, other, what):
    tuner_in(tmp_path)._claim(Fit.of((), {**DATA, "epochs": 4}))
    with pytest.raises(ValueError, match=f"a search with another {what}"):
        tuner_in(tmp_path, **other).search(**DATA, epochs=4)


@pytest.mark.parametrize("change", ["epochs", "data"])
def test_a_search_of_other_data_or_budget(tmp_path, change):
    tuner_in(tmp_path)._claim(Fit.of((), {**DATA, "epochs": 4}))
    data = {**DATA, "epochs": 4}
    data |= {"epochs": 8} if change == "epochs" else {"y": 1 - Y}
    what = "epochs" if change == "epochs" else "fit"
    with pytest.raises(ValueError, match=f"a search with another {what}"):
        tuner_in(tmp_path).search(**data)


def test_a_search_of_another_model(tmp_path):
    tuner_in(tmp_path)._claim(Fit.of((), {**DATA, "epochs": 4}))
    with pytest.raises(ValueError, match="a search with another model"):
        tuner_in(tmp_path, build).search(**DATA, epochs=4)


def build_otherwise(hp, activation="tanh"):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(2, activation),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(HybridOptimizer(1e-2), LOSS, metrics=["accuracy"])
    return model


def test_a_search_of_another_model_with_the_same_weights(tmp_path):
    fit = Fit.of((), {**DATA, "epochs": 4})
    tuner_in(tmp_path, build_otherwise)._claim(fit)
    tuner_in(tmp_path, build_otherwise)._claim(fit)
    other = tuner_in(tmp_path, lambda hp: build_otherwise(hp, "relu"))
    with pytest.raises(ValueError, match="a search with another architecture"):
        other._claim(fit)
    # Searches from before that field go on.
    path = other.folder / "search.json"
    content = json.loads(path.read_text())
    del content["architecture"]
    path.write_text(json.dumps(content))
    other._claim(fit)
    # Others are damaged without a field.
    del content["seeds"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"search\.json: missing.*seeds"):
        record.load(path.parent)


def test_references_need_a_learning_rate(tmp_path):
    warm = keras.optimizers.schedules.CosineDecay(
        0.0, 8, warmup_target=1e-2, warmup_steps=4
    )

    def build_warm(hp):
        model = build_light(hp)
        model.compile(HybridOptimizer(warm, jit_compile=False), LOSS)
        return model

    tuner = tuner_in(
        tmp_path, build_warm, space={**POINTS, "fraction": [0.5, 0.75]}
    )
    tuner.search(**DATA, epochs=4)
    with pytest.raises(ValueError, match="above 0 in the first update"):
        tuner.run_references(**DATA, epochs=4)


def test_a_grid_without_end_and_a_hyperband_without_trials(tmp_path):
    with pytest.raises(ValueError, match=r"A grid of up to \d+ trials"):
        tuner_in(tmp_path, space=None)
    with pytest.raises(ValueError, match="starts with .* different trials"):
        tuner_in(tmp_path, space="when", oracle="hyperband", max_epochs=27)


def test_fractions_of_one_epoch_are_trained_once(tmp_path):
    space = {**POINTS, "fraction": [0.5, 0.55, 0.45, 0.25]}
    tuner = tuner_in(tmp_path, space=space)
    tuner.search(**DATA, epochs=4)
    search = record.load(tuner.folder)
    trained = [run.trained_epochs for t in search.trials for run in t.runs]
    assert trained == [4, 0, 0, 3]
    assert len({t.mean("val_loss") for t in search.trials}) == 2


def test_the_first_failure_is_said_at_once(tmp_path):
    def failing(seed, first_epoch, epochs):
        calls.append(seed)
        if len(calls) > 2:
            raise OSError("the disk has gone")
        one = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
        return one.repeat(), 6

    calls = []
    with pytest.raises(RuntimeError, match="failed: the disk has gone"):
        tuner_in(tmp_path).search(failing, epochs=4, validation_data=(X, Y))


@pytest.mark.parametrize(
    "prune", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_references_are_whole_trainings(tmp_path, prune):
    tuner = tuner_in(tmp_path, prune=prune, seeds=2)
    tuner.search(**DATA, epochs=8)
    tuner.run_references(**DATA, epochs=8)
    for trial in record.load(tuner.folder).references.values():
        assert trial.status == "finished"
        assert [len(run.history["loss"]) for run in trial.runs] == [8, 8]


def test_a_project_of_kerastuner_is_refused(tmp_path):
    (tmp_path / "hybrid").mkdir()
    (tmp_path / "hybrid" / "oracle.json").write_text("{}")
    with pytest.raises(ValueError, match="not made by ForkedTuner"):
        tuner_in(tmp_path)


def test_an_objective_that_is_no_metric(tmp_path):
    objective = keras_tuner.Objective("val_taste", "max")
    tuner = tuner_in(tmp_path, objective=objective)
    with pytest.raises(ValueError, match="Received: objective='val_taste'"):
        tuner.search(**DATA, epochs=4)


def test_no_finished_trial(tmp_path):
    tuner = tuner_in(tmp_path)
    tuner._claim(Fit.of((), {**DATA, "epochs": 4}))
    with pytest.raises(ValueError, match="No trial of the full budget"):
        tuner.recipe()
    with pytest.raises(ValueError, match="not readable"):
        record.load(tmp_path / "elsewhere")


# ---- Chief and workers ------------------------------------------------------

WORKER = """
import sys
sys.path[:0] = {tests}
from keras_hybrid._support import processes
processes.die_with_parent()
import test_tuner as t
tuner = t.tuner_in({folder!r}, seeds=2, space=t.POINTS)
tuner.search(**t.DATA, epochs=8)
"""


def _processes(script):
    """The processes that run a script, by KerasTuner's id."""
    found = {}
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                command = file.read()
            with open(f"/proc/{entry}/environ", "rb") as file:
                environment = file.read()
        except (OSError, ValueError):
            continue
        if str(script).encode() in command:
            for part in environment.split(b"\0"):
                if part.startswith(b"KERASTUNER_TUNER_ID="):
                    found[part.partition(b"=")[2].decode()] = int(entry)
    return found


@pytest.mark.slow
@pytest.mark.skipif(
    not os.path.isdir("/proc"), reason="finds processes in /proc"
)
def test_chief_and_workers_survive_kills(tmp_path):
    from keras_hybrid._support import processes

    script = tmp_path / "worker.py"
    folder = tmp_path / "shared"
    script.write_text(
        textwrap.dedent(
            WORKER.format(
                tests=[str(TESTS), os.path.dirname(__file__)],
                folder=str(folder),
            )
        )
    )
    killed = []

    def kill_one():
        """A worker in the middle of its first trial, then the chief."""
        records = list(folder.glob("*/trial_*/seed-*.json"))
        trials = list(folder.glob("*/trial_*"))
        running = _processes(script)
        if not killed and trials and "tuner1" in running:
            os.kill(running["tuner1"], signal.SIGKILL)
            killed.append("tuner1")
        elif len(killed) == 1 and records and "chief" in running:
            os.kill(running["chief"], signal.SIGKILL)
            killed.append("chief")

    started = time.monotonic()
    processes.run(
        [sys.executable, str(script)],
        2,
        folder / "hybrid",
        stall_limit=120,
        watch=kill_one,
    )
    assert time.monotonic() - started < 240
    assert killed == ["tuner1", "chief"]
    assert _processes(script) == {}, "no orphans"
    search = record.load(folder / "hybrid")
    assert len(search.complete) == 3
    alone = tuner_in(tmp_path / "alone", seeds=2)
    alone.search(**DATA, epochs=8)
    expected = {
        t.plan: t.scores("val_loss") for t in record.load(alone.folder).trials
    }
    assert {t.plan: t.scores("val_loss") for t in search.trials} == expected


def _ends(code):
    return [sys.executable, "-c", f"import sys; sys.exit({code})"]


def test_workers_that_keep_dying_end_the_search(tmp_path):
    from keras_hybrid._support import processes

    with pytest.raises(ValueError, match="has died 4 times"):
        processes.run(_ends(1), 1, tmp_path)


def test_a_clear_error_of_a_worker_is_not_repeated(tmp_path):
    from keras_hybrid._support import processes

    with pytest.raises(ValueError, match="ended with the error above"):
        processes.run(_ends(2), 1, tmp_path)


def test_a_search_in_which_nothing_happens_is_given_up(tmp_path):
    from keras_hybrid._support import processes

    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    started = time.monotonic()
    with pytest.raises(ValueError, match="Nothing has happened"):
        processes.run(sleeping, 1, tmp_path, stall_limit=1)
    assert time.monotonic() - started < 30
