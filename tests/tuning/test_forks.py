"""Forked trials against whole ones."""

import keras
import keras_tuner
import numpy as np
import pytest
from searches import (
    DATA,
    FIXED,
    POINTS,
    build,
    build_light,
    build_uncompiled,
    tuner_in,
)

from keras_hybrid import HybridOptimizer, SwitchCallback
from keras_hybrid.plans import Plan
from keras_hybrid.tuner import HybridHyperModel
from keras_hybrid.tuning import record
from keras_hybrid.tuning.fit import Fit
from keras_hybrid.tuning.forks import Forks
from keras_hybrid.tuning.trials import train_whole

SPACES = {
    "points": {**FIXED, "when": "fraction", "fraction": [0.5, 1.0, 0.25]},
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
    ("name", "model"),
    [
        pytest.param("points", build_light, id="light", marks=pytest.mark.slow),
        # With dropout, batch normalization and XLA.
        pytest.param("points", build, id="points", marks=pytest.mark.slow),
        *(
            pytest.param(
                name, build_uncompiled, id=name, marks=pytest.mark.slow
            )
            for name in SPACES
            if name != "points"
        ),
    ],
)
def test_forked_equals_unshared(name, model, tmp_path, monkeypatch):
    """Bit for bit: weights, state, history and the step of the switch."""
    data = {**DATA, "epochs": 24 if name == "projection" else 8}
    in_order = name in ("points", "projection")
    tuner = tuner_in(
        tmp_path,
        model,
        SPACES[name],
        oracle="grid" if in_order else "random",
        max_trials=None if in_order else 6,
    )
    forked = {}
    keep_weights = Forks.keep_weights

    def kept(forks, folder):
        name = folder.name.removeprefix("trial_")
        forked[name] = [v.numpy() for v in forks.model.variables]
        keep_weights(forks, folder)

    monkeypatch.setattr(Forks, "keep_weights", kept)
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


@pytest.mark.slow
def test_skipped_updates_do_not_shift_a_step_trigger(tmp_path):
    """Loss scaling skips the first ones: their signals are no rows."""

    def build_half(hp):
        half = keras.DTypePolicy("mixed_float16")
        model = keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(8, "relu", dtype=half),
                keras.layers.Dense(2, "softmax"),
            ]
        )
        optimizer = keras.optimizers.LossScaleOptimizer(
            HybridOptimizer(1e-2, jit_compile=False),
            initial_scale=2.0**22,
            dynamic_growth_steps=20,
        )
        model.compile(optimizer, "sparse_categorical_crossentropy")
        return model

    space = {**SPACES["projection"], "when": "projection"}
    tuner = tuner_in(tmp_path, build_half, space)
    data = {**DATA, "epochs": 20}
    tuner.search(**data)
    seen = set()
    for trial in record.load(tuner.folder).trials:
        hp = tuner.oracle.get_trial(trial.name).hyperparameters
        model = tuner.hypermodel.build_seeded(hp, 0)
        signals = tuner.hypermodel.recorded_signals
        whole = train_whole(model, trial.plan, Fit.of((), data), 0, signals)
        assert model.optimizer.inner_optimizer.updates_made < 20 * 6
        assert trial.runs[0].switch_step == whole.switch_step
        assert trial.runs[0].history["val_loss"] == whole.history["val_loss"]
        seen.add(whole.switch_step)
    assert len(seen) > 1


@pytest.mark.slow
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


@pytest.mark.slow
def test_forked_scores_are_those_of_kerastuner_s_own_grid(tmp_path):
    data = {**DATA, "epochs": 4}
    tuner = tuner_in(tmp_path)
    tuner.search(**data)
    plain = keras_tuner.GridSearch(
        HybridHyperModel(build_light, POINTS),
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


@pytest.mark.slow
def test_epochs_trained_are_the_prefix_and_the_forks(tmp_path):
    tuner = tuner_in(tmp_path)
    tuner.search(**DATA, epochs=8)
    search = record.load(tuner.folder)
    # Switches after 4, 6 and 2 epochs: 8, then 2 + 2, then 6.
    trained = [run.trained_epochs for t in search.trials for run in t.runs]
    assert trained == [8, 4, 6]
    assert search.epochs_unshared == 24
    assert not (tuner.folder / "prefixes").exists(), "snapshots are removed"


@pytest.mark.slow
def test_a_whole_training_equals_the_user_s_own_fit(tmp_path):
    """The recipe's parts give in plain `fit` what the trial gave."""
    plan = Plan(fraction=0.5)
    hypermodel = HybridHyperModel(build_uncompiled, POINTS)
    hp = keras_tuner.HyperParameters()
    fit = Fit.of((), {**DATA, "epochs": 4})
    run = train_whole(hypermodel.build_seeded(hp, 0), plan, fit, 0, [])
    keras.utils.set_random_seed(0)
    steps = 6 * 4
    model = build(
        hp,
        lambda rate: HybridOptimizer(
            rate, jit_compile=False, **plan.optimizer_arguments(steps)
        ),
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


@pytest.mark.slow
def test_seeds_are_averaged_and_differ(tmp_path):
    tuner = tuner_in(tmp_path, seeds=2)
    tuner.search(**DATA, epochs=4)
    for trial in record.load(tuner.folder).trials:
        scores = trial.scores("val_loss")
        assert len(set(scores)) == 2
        theirs = tuner.oracle.get_trial(trial.name).score
        assert theirs == pytest.approx(np.mean(scores), rel=1e-12)


@pytest.mark.slow
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


@pytest.mark.slow
def test_fractions_of_one_epoch_are_trained_once(tmp_path):
    space = {**POINTS, "fraction": [0.5, 0.55, 0.45, 0.25]}
    tuner = tuner_in(tmp_path, space=space)
    tuner.search(**DATA, epochs=4)
    search = record.load(tuner.folder)
    trained = [run.trained_epochs for t in search.trials for run in t.runs]
    assert trained == [4, 0, 0, 3]
    weights = [model.get_weights() for model in tuner.get_best_models(4)]
    assert len(weights) == 4
    assert len({t.mean("val_loss") for t in search.trials}) == 2
