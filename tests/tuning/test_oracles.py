"""Every tuner and oracle, and what they may be given."""

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from searches import DATA, LOSS, POINTS, X, Y, build_light, tuner_in

from keras_hybrid import HybridOptimizer
from keras_hybrid.tuner import HybridHyperModel
from keras_hybrid.tuning import record
from keras_hybrid.tuning.fit import Fit
from keras_hybrid.tuning.trials import train_whole

KERAS_TUNERS = {
    "random": lambda **k: keras_tuner.RandomSearch(max_trials=3, **k),
    "bayesian": lambda **k: keras_tuner.BayesianOptimization(max_trials=3, **k),
    "hyperband": lambda **k: keras_tuner.Hyperband(max_epochs=4, factor=2, **k),
    "grid": lambda **k: keras_tuner.GridSearch(max_trials=3, **k),
}


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "random",
        pytest.param("bayesian", marks=pytest.mark.slow),
        pytest.param("hyperband", marks=pytest.mark.slow),
    ],
)
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


@pytest.mark.slow
def test_an_oracle_of_the_user_s_own(tmp_path):
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_loss", "min"), max_trials=2, seed=3
    )
    tuner = tuner_in(tmp_path, oracle=oracle, objective=None)
    tuner.search(**DATA, epochs=4)
    assert len(record.load(tuner.folder).trials) == 2


@pytest.mark.slow
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


@pytest.mark.slow
def test_best_models_have_the_last_weights_of_the_best_trial(tmp_path):
    tuner = tuner_in(tmp_path)
    tuner.search(**DATA, epochs=4)
    model = tuner.get_best_models()[0]
    loss = model.evaluate(*DATA["validation_data"], verbose=0)[0]
    best = record.load(tuner.folder).best
    assert loss == pytest.approx(best.mean("val_loss"), rel=1e-5)


@pytest.mark.slow
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
        one = tf.data.Dataset.from_tensor_slices((X, Y)).batch(24)
        return one.repeat(), 4

    tuner = tuner_in(tmp_path, project_name="function")
    tuner.search(pipeline, epochs=4, validation_data=(X, Y))
    assert len(record.load(tuner.folder).trials) == 3
    # As the data says it: `search` was given none.
    assert tuner.recipe().budget["batch_size"] == 24


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_model_without_an_input_layer(tmp_path):
    def unbuilt(hp):
        model = keras.Sequential([keras.layers.Dense(2, activation="softmax")])
        model.compile(HybridOptimizer(jit_compile=False), LOSS)
        return model

    tuner = tuner_in(tmp_path, unbuilt, {**POINTS, "fraction": [0.5, 1.0]})
    tuner.search(**DATA, epochs=2)
    assert len(record.load(tuner.folder).complete) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["oracle.json", "trial_*/trial.json"])
def test_a_damaged_file_of_kerastuner_s_is_named(tmp_path, name):
    tuner = tuner_in(tmp_path, space={**POINTS, "fraction": [1.0, 0.5]})
    tuner.search(**DATA, epochs=2)
    path = next(tuner.folder.glob(name))
    path.write_text("")
    with pytest.raises(ValueError, match=f"damaged file.*{path.name}"):
        tuner_in(tmp_path, space={**POINTS, "fraction": [1.0, 0.5]})


def test_a_grid_without_end_and_a_hyperband_without_trials(tmp_path):
    with pytest.raises(ValueError, match=r"A grid of up to \d+ trials"):
        tuner_in(tmp_path, space=None)
    with pytest.raises(ValueError, match="starts with .* different trials"):
        tuner_in(tmp_path, space="when", oracle="hyperband", max_epochs=27)
