"""The command `tune`, and searches of the study's cells."""

import functools
import json
import os

import numpy as np
import pytest

from keras_hybrid import HybridOptimizer, SwitchCallback, cli
from keras_hybrid.recipes import Recipe
from keras_hybrid.study import datasets
from keras_hybrid.study.search import Cell, finish, prepare
from keras_hybrid.tuner import SPACES
from keras_hybrid.tuning import record
from keras_hybrid.tuning.fit import Fit
from keras_hybrid.tuning.forks import Forks

LOAD = functools.cache(datasets.load)
TINY = ["--architecture", "linear", "--epochs", "5", "--seeds", "1"]


@pytest.fixture(autouse=True)
def read_once(monkeypatch):
    """The embedded images are the same in every test."""
    monkeypatch.setattr(datasets, "load", LOAD)


@pytest.mark.slow
def test_tune_leaves_a_recipe_a_report_and_the_record(tmp_path, capsys):
    arguments = ["tune", *TINY, "--max-trials", "3"]
    arguments += ["--directory", str(tmp_path)]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "mnist-5k-linear"
    recipe = Recipe.load(folder / "recipe.json")
    search = record.load(folder)
    assert str(recipe.plan) in printed.replace("\n", " ")
    assert len(search.trials) == 3
    assert recipe.dataset == "mnist-5k"
    assert recipe.architecture == "linear"
    assert recipe.score["mean"] == search.found.mean("val_accuracy")
    assert recipe.score["mean"] >= search.best.mean("val_accuracy")
    assert set(recipe.search["references"]) == {"default", "adam", "sgd"}
    page = (folder / "search.html").read_text()
    assert "mnist-5k-linear" in page
    assert "<svg" in page
    assert not (folder / "prefixes").exists()
    assert not list(tmp_path.rglob("*.partial"))

    # Again: nothing is trained, the same recipe.
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*/seed-*.json")}
    assert cli.main(arguments) == 0
    after = {p: p.stat().st_mtime_ns for p in folder.glob("*/seed-*.json")}
    assert after == before
    assert Recipe.load(folder / "recipe.json") == recipe
    assert cli.main(["report", str(folder)]) == 0
    assert "Report:" in capsys.readouterr().out


@pytest.mark.slow
def test_the_recipe_gives_the_trial_s_score(tmp_path):
    """Trained with the recipe's optimizer and callback in plain `fit`."""
    import keras

    from keras_hybrid.study import architectures

    cell = Cell(architecture="mlp_small", epochs=5, seeds=1, max_trials=2)
    searched = prepare(cell, tmp_path)
    searched.tuner.search(**searched.arguments)
    recipe = finish(cell, searched)
    data = datasets.load(cell.dataset)
    keras.utils.set_random_seed(0)
    model = architectures.build("mlp_small", data.image_shape, data.classes)
    model.compile(
        HybridOptimizer.from_recipe(recipe),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    pipeline, steps = datasets.training_pipeline(data, 64, 0, 0, 5)
    history = model.fit(
        pipeline,
        steps_per_epoch=steps,
        epochs=5,
        shuffle=False,
        validation_data=searched.arguments["validation_data"],
        callbacks=[SwitchCallback.from_recipe(recipe, verbose=0)],
        verbose=0,
    ).history
    best = record.load(searched.tuner.folder).found.runs[0].history
    np.testing.assert_allclose(history["loss"], best["loss"], rtol=1e-4)
    assert history["val_accuracy"][-1] == pytest.approx(
        recipe.score["mean"], abs=0.0021
    ), "at most one of 500 images differs"


def test_a_search_on_a_folder_stays_in_its_directory(tmp_path):
    folder = tmp_path / "birds" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text('{"name": "birds"}')
    assert Cell(dataset=str(folder)).name == "birds-cnn"


@pytest.mark.slow
def test_the_validation_images_decide_not_the_test_images(tmp_path):
    searched = prepare(Cell(epochs=5), tmp_path)
    (images, _), *_ = searched.arguments["validation_data"].take(1)
    assert images.shape[0] == 500
    count = sum(len(y) for _, y in searched.arguments["validation_data"])
    assert count == 500
    _, steps = searched.arguments["x"](0, 0, 1)
    assert steps == 3500 // 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "cifar"], "`dataset` must be one of 'mnist-5k'"),
        (["--architecture", "vgg"], "`architecture` must be one of 'linear'"),
        (["--tuner", "magic"], "`tuner` must be one of 'grid'"),
        (["--space", "outer"], "`space` must be one of 'when'"),
        (["--epochs", "1"], "`epochs` must be an integer >= 2"),
        (["--epochs", "3"], "shorter than the earliest switch"),
        (["--seeds", "0"], "`seeds` must be an integer >= 1"),
        (["--batch-size", "0"], "`batch_size` must be an integer >= 1"),
        (["--batch-size", "9999"], "`batch_size` must be at most"),
        (["--max-trials", "0"], "`max_trials` must be an integer >= 1"),
        (["--workers", "0"], "`workers` must be an integer >= 1"),
        (["--train-size", "0"], "`train_size` must be an integer >= 1"),
        (["--train-size", "99999"], "`train_size` must be at most"),
    ],
)
def test_bad_options(tmp_path, capsys, options, message):
    code = cli.main(["tune", "--directory", str(tmp_path), *options])
    assert code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("seed-*.json"))


def test_a_folder_of_another_search(tmp_path, capsys):
    folder = ["--directory", str(tmp_path)]
    searched = prepare(Cell(architecture="linear", epochs=5), tmp_path)
    searched.tuner._begin(Fit.of((), searched.arguments))
    assert cli.main(["tune", *TINY, *folder]) == 2
    message = capsys.readouterr().err
    assert "a search with another seeds" in message
    assert "give another directory" in message


def test_a_damaged_search_has_a_clear_error(tmp_path, capsys):
    (tmp_path / "search.json").write_text("{")
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "search.json: not readable" in capsys.readouterr().err


def test_failing_trainings_end_with_a_message(tmp_path, capsys, monkeypatch):
    """A RuntimeError of KerasTuner, which ends its search."""

    def fail(*args, **kwargs):
        raise OSError("no such device")

    monkeypatch.setattr(Forks, "train", fail)
    assert cli.main(["tune", *TINY, "--directory", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "the search has ended" in message
    assert "no such device" in message
    assert "the same command goes on" in message


def test_names_of_cells():
    assert Cell("mnist", "mlp", train_size=2000).name == "mnist-mlp-2000"
    assert Cell().name == "mnist-5k-cnn"
    assert set(SPACES) == {"when", "rate", "all"}
    assert len(SPACES["when"]["fraction"]) == 10


@pytest.mark.slow
def test_workers_of_the_command_line(tmp_path):
    """As alone, with two processes and the same scores."""
    scores = []
    for workers in ("1", "2"):
        folder = tmp_path / workers
        arguments = ["--directory", str(folder), "--workers", workers]
        assert cli.main(["tune", *TINY, *arguments]) == 0
        search = record.load(folder / "mnist-5k-linear")
        scores.append({t.plan: t.scores("val_accuracy") for t in search.trials})
    assert scores[0] == scores[1]
    assert "KERASTUNER_TUNER_ID" not in os.environ
    content = json.loads(
        (tmp_path / "2" / "mnist-5k-linear" / "recipe.json").read_text()
    )
    assert content["search"]["trials"] == 10
