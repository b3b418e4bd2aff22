"""A search goes on as what it was, or says what differs."""

import json
import shutil

import keras
import keras_tuner
import pytest
import tensorflow as tf
from searches import (
    DATA,
    LOSS,
    POINTS,
    X,
    Y,
    batches_of,
    begin,
    build,
    build_light,
    tuner_in,
)

from keras_hybrid import DivergenceGuard, HybridOptimizer, SwitchCallback
from keras_hybrid._support import records
from keras_hybrid.tuning import record


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
        ({"x": iter([1]), "y": None}, TypeError, "can be read only once"),
        ({"validation_data": iter([1])}, TypeError, "every training reads it"),
        ({"x": lambda: 1, "y": None}, TypeError, "a function .seed, first_ep"),
        (
            {"x": lambda seed, first, last: DATA, "y": None},
            TypeError,
            "it returned a dict, no pair",
        ),
        (
            {"x": lambda seed, first, last: (data_set(), 1.5), "y": None},
            ValueError,
            "Received: updates an epoch=1.5",
        ),
        ({"x": data_set(), "y": None}, ValueError, "arrays, or a function"),
        ({"validation_data": None}, ValueError, "needs `validation_data`"),
        ({"validation_split": 0.1}, ValueError, "`validation_split` is not"),
        ({"steps_per_epoch": 3}, ValueError, "`steps_per_epoch` is not"),
        (
            {"callbacks": [keras.callbacks.EarlyStopping()]},
            ValueError,
            "may watch but not steer",
        ),
        ({"steps_per_epoch": 1}, ValueError, "`steps_per_epoch` is not"),
        ({"validation_split": 1}, ValueError, "`validation_split` is not"),
        ({"initial_epoch": 2}, ValueError, "`initial_epoch` is not"),
        (
            {"callbacks": DivergenceGuard()},
            ValueError,
            "Received: DivergenceGuard",
        ),
        (
            {"callbacks": [keras.callbacks.LearningRateScheduler(abs)]},
            ValueError,
            "Received: LearningRateScheduler",
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
    begin(tuner_in(tmp_path))
    with pytest.raises(ValueError, match=f"a search with another {what}"):
        tuner_in(tmp_path, **other).search(**DATA, epochs=4)


@pytest.mark.parametrize("change", ["epochs", "data"])
def test_a_search_of_other_data_or_budget(tmp_path, change):
    begin(tuner_in(tmp_path))
    data = {**DATA, "epochs": 4}
    data |= {"epochs": 8} if change == "epochs" else {"y": 1 - Y}
    what = "epochs" if change == "epochs" else "fit"
    with pytest.raises(ValueError, match=f"a search with another {what}"):
        tuner_in(tmp_path).search(**data)


def test_a_search_of_another_model(tmp_path):
    begin(tuner_in(tmp_path))
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
    begin(tuner_in(tmp_path, build_otherwise))
    begin(tuner_in(tmp_path, build_otherwise))
    other = tuner_in(tmp_path, lambda hp: build_otherwise(hp, "relu"))
    with pytest.raises(ValueError, match="a search with another architecture:"):
        begin(other)


def build_with_operations(hp):
    """Layers whose names are keys of configs too, and what is no layer."""
    inputs = keras.Input((6,))
    h = keras.layers.Dense(4)(inputs)
    h = keras.layers.Activation("tanh")(h)
    h = keras.layers.Dropout(0.1)(h)
    h = keras.layers.LSTM(2)(keras.ops.relu(h + 1.0)[:, None, :])
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(h))
    model.compile(
        HybridOptimizer(1e-2, jit_compile=False),
        LOSS,
        metrics=[keras.metrics.SparseTopKCategoricalAccuracy(k=1)],
    )
    return model


def test_names_that_keras_numbers_are_no_other_architecture(tmp_path):
    keras.backend.clear_session()
    # The first build of the process is the constructor's.
    begin(tuner_in(tmp_path, build_with_operations))
    begin(tuner_in(tmp_path, build_with_operations))
    again = tuner_in(tmp_path, build_with_operations)
    # As in a process in which KerasTuner has read the search, and built none.
    keras.backend.clear_session()
    begin(again)


def with_metric(threshold):
    def compiled(hp):
        model = build_light(hp)
        metric = keras.metrics.BinaryAccuracy("accuracy", threshold=threshold)
        model.compile(model.optimizer, model.loss, metrics=[metric])
        return model

    return compiled


def test_a_search_of_another_metric(tmp_path):
    begin(tuner_in(tmp_path, with_metric(0.5)))
    begin(tuner_in(tmp_path, with_metric(0.5)))
    with pytest.raises(ValueError, match="a search with another metrics:"):
        begin(tuner_in(tmp_path, with_metric(0.1)))


def doubled():
    """On one line each, which is in a lambda's code."""
    first = keras.layers.Lambda(lambda x: 2.0 * x)
    second = keras.layers.Lambda(lambda x: 2.0 * x)
    return first, second, keras.layers.Lambda(lambda x: 3.0 * x)


def test_lambdas_are_told_by_what_they_do(tmp_path):
    first, second, other = (
        lambda hp, layer=layer: compiled(layer) for layer in doubled()
    )
    begin(tuner_in(tmp_path, first))
    begin(tuner_in(tmp_path, second))
    with pytest.raises(ValueError, match="a search with another architecture"):
        begin(tuner_in(tmp_path, other))


def compiled(layer, **arguments):
    model = keras.Sequential(
        [keras.Input((6,)), layer, keras.layers.Dense(2, "softmax")]
    )
    model.compile(
        HybridOptimizer(1e-2, jit_compile=False),
        LOSS,
        metrics=["accuracy"],
        **arguments,
    )
    return model


def test_calls_of_several_updates_must_end_with_the_epoch(tmp_path):
    tuner = tuner_in(
        tmp_path,
        lambda hp: compiled(
            keras.layers.Activation("relu"), steps_per_execution=4
        ),
    )
    with pytest.raises(ValueError, match="steps_per_execution=4, 6 updates"):
        tuner.search(**DATA, epochs=4)


def test_a_search_of_other_validation_data(tmp_path):
    def validated_on(y, **options):
        pairs = tf.data.Dataset.from_tensor_slices((X[:32], y[:32]))
        return {"validation_data": pairs.shuffle(32, **options).batch(8)}

    begin(tuner_in(tmp_path), **validated_on(Y, seed=1))
    begin(tuner_in(tmp_path), **validated_on(Y, seed=2))
    with pytest.raises(ValueError, match="a search with another validation"):
        begin(tuner_in(tmp_path), **validated_on(1 - Y, seed=1))
    # One without an end has nothing that could be told apart.
    endless = {"validation_data": data_set().repeat(), "validation_steps": 2}
    begin(tuner_in(tmp_path / "endless"), **endless)


@pytest.mark.parametrize("removed", [True, False], ids=["rm", "overwrite"])
def test_packed_trainings_are_not_taken_for_a_new_search_s(tmp_path, removed):
    tuner = tuner_in(tmp_path)
    begin(tuner)
    record.write_run(
        tuner.folder / "trial_0" / "seed-0.json",
        tuner.hypermodel.plan(keras_tuner.HyperParameters()),
        {},
        4,
        record.Trained(0, {"loss": [1.0] * 4}, None, 6, 0, 4, 1.0, "finished"),
    )
    records.pack(tmp_path)
    if removed:
        shutil.rmtree(tuner.folder)
    with pytest.raises(ValueError, match=r"earlier search.*pack --undo"):
        tuner_in(tmp_path, overwrite=not removed)
    records.unpack(tmp_path)
    if removed:
        with pytest.raises(ValueError, match="earlier search"):
            tuner_in(tmp_path)
    begin(tuner_in(tmp_path, overwrite=True))
    assert not list(tuner.folder.rglob("seed-*.json"))


LATER = ("architecture", "x", "loss", "hyperparameters", "validation")


def test_a_search_of_an_earlier_version_goes_on_and_is_completed(tmp_path):
    tuner = tuner_in(tmp_path)
    begin(tuner, x=batches_of(X), y=None)
    path = tuner.folder / "search.json"
    whole = path.read_text()
    content = json.loads(whole)
    for name in LATER:
        del content[name]
    # What it had of a function: the default.
    path.write_text(json.dumps({**content, "batch_size": 32}))
    begin(tuner_in(tmp_path), x=batches_of(X), y=None)
    assert json.loads(path.read_text()) == json.loads(whole)
    # Others are damaged without a field.
    del content["seeds"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"search\.json: missing.*seeds"):
        record.load(path.parent)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (batches_of(X + 1), "x"),
        (batches_of(X[::-1]), "x"),
        (batches_of(X, shift=1), "x"),
        (batches_of(X, size=24), "batch_size, x"),
    ],
    ids=["data", "order", "later-epochs", "size"],
)
def test_a_search_of_another_function(tmp_path, other, what):
    """All have one name: what they give tells them apart."""
    begin(tuner_in(tmp_path), x=batches_of(X), y=None)
    begin(tuner_in(tmp_path), x=batches_of(X.copy()), y=None)
    with pytest.raises(ValueError, match=f"a search with another {what}:"):
        begin(tuner_in(tmp_path), x=other, y=None)


def test_a_function_that_gives_nothing(tmp_path):
    def empty(seed, first_epoch, epochs):
        return tf.data.Dataset.from_tensor_slices((X[:0], Y[:0])).batch(16), 1

    with pytest.raises(ValueError, match="at least one batch an epoch"):
        tuner_in(tmp_path).search(empty, epochs=4, validation_data=(X, Y))


def test_a_function_that_gives_less_than_it_announces(tmp_path):
    def short(seed, first_epoch, epochs):
        pipeline, steps = batches_of(X)(seed, first_epoch, epochs)
        return pipeline, steps + 1

    tuner = tuner_in(tmp_path)
    with (
        pytest.warns(UserWarning, match="ran out of data"),
        pytest.raises(ValueError, match="Received: 7 announced, 3 given"),
    ):
        tuner.search(short, epochs=4, validation_data=(X, Y))


CROSSENTROPY = keras.losses.sparse_categorical_crossentropy


def scaled(factor):
    def loss(y, predicted):
        return factor * keras.losses.sparse_categorical_crossentropy(
            y, predicted
        )

    return loss


def with_loss(loss):
    def compiled(hp):
        model = build_light(hp)
        model.compile(model.optimizer, loss, metrics=["accuracy"])
        return model

    return compiled


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LOSS, scaled(2.0)),
        (scaled(1.0), scaled(2.0)),
        (
            LOSS,
            keras.losses.SparseCategoricalCrossentropy(ignore_class=7),
        ),
        (lambda y, p: scaled(1.0)(y, p), lambda y, p: scaled(2.0)(y, p)),
        (
            lambda y, p: CROSSENTROPY(y, p),
            lambda y, p: CROSSENTROPY(y, p, ignore_class=7),
        ),
    ],
    ids=[
        "another",
        "of-the-same-name",
        "of-the-same-value",
        "lambda",
        "lambda-of-the-same-value",
    ],
)
def test_a_search_of_another_loss(tmp_path, one, other):
    begin(tuner_in(tmp_path, with_loss(one)))
    begin(tuner_in(tmp_path, with_loss(one)))
    with pytest.raises(ValueError, match="a search with another loss:"):
        begin(tuner_in(tmp_path, with_loss(other)))


def test_a_search_that_earlier_versions_began_with_a_lambda_as_loss(tmp_path):
    one = with_loss(lambda y, p: CROSSENTROPY(y, p))
    tuner = tuner_in(tmp_path, one)
    begin(tuner)
    path = tuner.folder / "search.json"
    content = json.loads(path.read_text())
    content["loss"][0] = None
    path.write_text(json.dumps(content))
    begin(tuner_in(tmp_path, one))


def test_a_lambda_whose_source_is_nowhere(tmp_path):
    loss = eval("lambda y, p: f(y, p)", {"f": CROSSENTROPY})  # noqa: S307
    begin(tuner_in(tmp_path, with_loss(loss)))
    begin(tuner_in(tmp_path, with_loss(loss)))


def test_a_loss_may_be_reckoned_otherwise_on_another_machine(tmp_path):
    tuner = tuner_in(tmp_path)
    begin(tuner)
    path = tuner.folder / "search.json"
    content = json.loads(path.read_text())
    content["loss"][1] *= 1 + 1e-5
    path.write_text(json.dumps(content))
    begin(tuner_in(tmp_path))


def test_a_model_whose_loss_cannot_be_reckoned(tmp_path):
    class Model(keras.Sequential):
        def compute_loss(self, *args, **kwargs):
            raise NotImplementedError

    def custom(hp):
        model = Model([keras.Input((6,)), keras.layers.Dense(2)])
        model.compile(HybridOptimizer(jit_compile=False), LOSS)
        return model

    tuner = tuner_in(tmp_path, custom)
    begin(tuner)
    begin(tuner_in(tmp_path, custom))
    path = tuner.folder / "search.json"
    assert json.loads(path.read_text())["loss"][1] is None


def with_own(rates=(1e-3, 1e-1), high=0.5):
    def tunable(hp):
        model = build_light(hp)
        rate = hp.Choice("rate", rates)
        kind = hp.Choice("kind", ["plain", "decayed"])
        decay = None
        with hp.conditional_scope("kind", ["decayed"]):
            if kind == "decayed":
                decay = hp.Float("decay", 1e-4, high)
        model.compile(
            HybridOptimizer(rate, weight_decay=decay, jit_compile=False), LOSS
        )
        return model

    return tunable


@pytest.mark.parametrize(
    "other",
    [with_own(rates=[1e-3, 1e-2]), with_own(high=0.1), build_light],
    ids=["values", "under-a-condition", "none"],
)
def test_a_search_of_other_hyperparameters(tmp_path, other):
    begin(tuner_in(tmp_path, with_own()))
    begin(tuner_in(tmp_path, with_own()))
    with pytest.raises(
        ValueError, match="another (model, metrics, )?hyperparameters:"
    ):
        begin(tuner_in(tmp_path, other))


def test_a_project_of_kerastuner_is_refused(tmp_path):
    (tmp_path / "hybrid").mkdir()
    (tmp_path / "hybrid" / "oracle.json").write_text("{}")
    with pytest.raises(ValueError, match="not made by ForkedTuner"):
        tuner_in(tmp_path)


@pytest.mark.slow
def test_an_objective_that_is_no_metric(tmp_path):
    objective = keras_tuner.Objective("val_taste", "max")
    tuner = tuner_in(tmp_path, objective=objective)
    with pytest.raises(ValueError, match="Received: objective='val_taste'"):
        tuner.search(**DATA, epochs=4)
