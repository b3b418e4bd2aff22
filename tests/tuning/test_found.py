"""The references and the recipe."""

import keras
import numpy as np
import pytest
from searches import (
    DATA,
    LOSS,
    POINTS,
    begin,
    build,
    build_light,
    build_uncompiled,
    tuner_in,
)

from keras_hybrid import HybridOptimizer
from keras_hybrid.tuning import record
from keras_hybrid.tuning.fit import Fit


@pytest.mark.slow
def test_references_are_the_default_adam_and_sgd_with_cosine(tmp_path):
    tuner = tuner_in(tmp_path, build_uncompiled)
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "prune", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_references_are_whole_trainings(tmp_path, prune):
    # The median rule needs two finished trials.
    space = {**POINTS, "fraction": [0.5, 0.25]}
    tuner = tuner_in(tmp_path, space=space, prune=prune, seeds=2)
    tuner.search(**DATA, epochs=8)
    tuner.run_references(**DATA, epochs=8)
    for trial in record.load(tuner.folder).references.values():
        assert trial.status == "finished"
        assert [len(run.history["loss"]) for run in trial.runs] == [8, 8]


@pytest.mark.slow
def test_references_and_recipe_follow_the_best_trial(tmp_path):
    def build_own(hp):
        rate = hp.Choice("rate", [1e-6, 1e-1])
        model = build_light(hp)
        optimizer = HybridOptimizer(rate, jit_compile=False)
        model.compile(optimizer, LOSS)
        return model

    data = {**DATA, "epochs": 4}
    space = {**POINTS, "fraction": [0.5]}
    first = tuner_in(tmp_path, build_own, space, max_trials=1)
    first.search(**data)
    first.run_references(**data)
    tuner = tuner_in(tmp_path, build_own, space)
    tuner.search(**data)
    search = record.load(tuner.folder)
    assert search.best.hyperparameters == {"rate": 1e-1}
    # The references are still those of the trial before.
    old = search.references["sgd"]
    assert old.hyperparameters == {"rate": 1e-6}
    rate = search.found.hyperparameters["rate"]
    found = tuner.recipe().optimizer["learning_rate"]
    assert found == pytest.approx(rate, rel=1e-6)
    tuner.run_references(**data)
    for trial in record.load(tuner.folder).references.values():
        assert trial.hyperparameters == {"rate": 1e-1}
        assert trial.runs[0].history != old.runs[0].history
    told = []
    again = tuner_in(tmp_path, build_own, space, report=told.append)
    again.run_references(**data)
    assert all(progress.run is not None for progress in told)


def test_no_finished_trial(tmp_path):
    tuner = tuner_in(tmp_path)
    begin(tuner)
    with pytest.raises(ValueError, match="No trial of the full budget"):
        tuner.recipe()
    with pytest.raises(ValueError, match="not readable"):
        record.load(tmp_path / "elsewhere")
