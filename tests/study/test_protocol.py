"""Runs, comparisons, records and snapshots; the command line."""

import inspect
import json
import math

import keras
import numpy as np
import pytest
from images import tiny_data

from keras_hybrid import cli
from keras_hybrid._support import records
from keras_hybrid.callbacks import snapshot
from keras_hybrid.reports import study
from keras_hybrid.study import architectures, arms, datasets, protocol
from keras_hybrid.study.record import DamagedRecord, Run
from keras_hybrid.study.trainer import loss


@pytest.fixture
def tiny(monkeypatch):
    data = tiny_data()
    monkeypatch.setattr(datasets, "load", lambda *args, **kwargs: data)
    return data


def arm_of(name, make):
    return protocol.Arm(name, name, "baseline", make)


def dropout_layers():
    return [
        keras.layers.Flatten(),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dropout(0.5),
        keras.layers.BatchNormalization(),
    ]


class Killed(Exception):
    """Stands for a kill between two epochs."""


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setitem(architectures.OF_IMAGES, "linear", dropout_layers)
    data, arm = tiny_data(), protocol.ARMS["hybrid"]

    def kill(epoch):
        if epoch == 3:
            raise Killed

    broken, whole = tmp_path / "broken", tmp_path / "whole"
    args = (data, "linear", arm, 5, 6)
    with pytest.raises(Killed):
        protocol.train(*args, broken, 16, kill)
    kept = list(broken.rglob("*.npz"))
    assert len(kept) == 1
    epochs = []
    resumed = protocol.train(*args, broken, 16, epochs.append)
    assert epochs == [4, 5, 6]
    assert not kept[0].exists()
    unbroken = protocol.train(*args, whole, 16)
    assert resumed.switch_step == unbroken.switch_step == 18
    assert resumed.test_loss == unbroken.test_loss
    for name in ("loss", "val_loss", "accuracy", "sgd_learning_rate"):
        assert resumed.history[name] == unbroken.history[name], name
    # Training time goes on from where it was.
    assert np.all(np.diff(resumed.history["seconds"]) > 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["hybrid", "adamw", pytest.param("projection", marks=pytest.mark.slow)],
)
def test_a_reused_model_is_as_new(name, tmp_path, monkeypatch):
    monkeypatch.setitem(architectures.OF_IMAGES, "linear", dropout_layers)
    data, arm = tiny_data(), arms.STUDY[name]
    reused = protocol.Trainer(data, "linear")

    def run(trainer, seed, rate, where):
        return protocol.train_to(
            tmp_path / where / f"{seed}-{rate}.json",
            trainer,
            arm,
            seed,
            4,
            16,
            learning_rate=rate,
        )

    run(reused, 0, 0.1, "reused")
    before = reused._model
    again = run(reused, 1, 0.01, "reused")
    # A schedule is part of the compiled step, a number is not.
    assert (reused._model is before) == (name != "adamw")
    fresh = run(protocol.Trainer(data, "linear"), 1, 0.01, "fresh")
    for history in (again.history, fresh.history):
        del history["seconds"]
    assert again == fresh


def test_smoothed_labels_are_of_szegedy_and_others():
    """Cross-entropy to (1 - s) of the label and s / K of each of K classes."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(7, 3)).astype("float32")
    labels = rng.integers(0, 3, 7)
    logs = logits.astype("float64")
    logs -= np.log(np.exp(logs).sum(1, keepdims=True))
    for smoothing in (0.0, 0.1, 0.5):
        target = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
        found = loss(3, smoothing)(labels, logits)
        np.testing.assert_allclose(
            np.mean(found), -(target * logs).sum(1).mean(), rtol=1e-6
        )


def test_a_record_from_before_an_argument_is_of_its_default(tmp_path):
    data, arm = tiny_data(), protocol.ARMS["adam"]
    first = protocol.train(data, "linear", arm, 0, 2, tmp_path, 16)
    (path,) = tmp_path.rglob("*.json")
    content = json.loads(path.read_text())
    for name in ("cutout", "label_smoothing"):
        del content["configuration"][name]
    path.write_text(json.dumps(content))
    again = protocol.train(data, "linear", arm, 0, 2, tmp_path, 16)
    assert again.test_loss == first.test_loss
    smoothing = protocol.Trainer(data, "linear", label_smoothing=0.1)
    with pytest.raises(ValueError, match="another configuration"):
        protocol.train_to(path, smoothing, arm, 0, 2, 16)


def test_a_finished_run_is_not_repeated(tmp_path, monkeypatch):
    data, arm = tiny_data(), protocol.ARMS["adam"]
    first = protocol.train(data, "linear", arm, 0, 2, tmp_path, 16)
    monkeypatch.setattr(
        architectures, "build", lambda *args: pytest.fail("trained again")
    )
    assert protocol.train(data, "linear", arm, 0, 2, tmp_path, 16) == first


def test_runs_of_another_configuration_are_not_reused(tmp_path):
    data, arm = tiny_data(), protocol.ARMS["adam"]
    protocol.train(data, "linear", arm, 0, 2, tmp_path, 16)
    with pytest.raises(ValueError, match="another configuration.*--output"):
        protocol.train(data, "linear", arm, 0, 2, tmp_path, 32)
    records.pack(tmp_path)
    with pytest.raises(ValueError, match="--output, or `keras-hybrid pack --u"):
        protocol.train(data, "linear", arm, 0, 2, tmp_path, 32)


def test_a_diverged_run_is_recorded_as_diverged(tmp_path):
    arm = arm_of(
        "wild", lambda budget, rate: (keras.optimizers.SGD(1e30), None)
    )
    run = protocol.train(tiny_data(), "mlp", arm, 0, 3, tmp_path, 16)
    assert run.status == "diverged"
    assert run.test_accuracy is None
    assert len(run.history.get("loss", [])) < 3
    path = protocol.run_path(tmp_path, "tiny", "mlp", 3, "wild", 0)
    assert Run.load(path) == run


@pytest.mark.slow
def test_the_control_has_the_hybrids_learning_rate_and_no_sgd(tmp_path):
    data = tiny_data()
    runs = {
        name: protocol.train(
            data, "linear", protocol.ARMS[name], 0, 4, tmp_path, 16
        )
        for name in ("control", "hybrid")
    }
    control, hybrid = runs["control"], runs["hybrid"]
    assert control.switch_step == hybrid.switch_step == 12
    assert control.history["cooldown"] == hybrid.history["cooldown"]
    assert control.history["cooldown"][-1] == pytest.approx(0, abs=1e-6)
    assert set(control.history["sgd_fraction"]) == {0.0}
    assert hybrid.history["sgd_fraction"] == [0, 0, 1, 1]
    # The same run until the switch.
    assert control.history["loss"][:2] == hybrid.history["loss"][:2]
    assert control.history["loss"][2:] != hybrid.history["loss"][2:]


def test_an_arm_that_is_named_twice_is_trained_once(tiny, tmp_path):
    runs = protocol.compare(
        architecture="linear",
        epochs=2,
        seeds=1,
        arms=["adam", "adam"],
        output=tmp_path,
        batch_size=16,
    )
    assert [run.arm for run in runs] == ["adam"]


@pytest.mark.slow
def test_a_trainer_may_change_the_batch_size(tmp_path):
    data, arm = tiny_data(), arms.ARMS["adam_constant"]
    trainer = protocol.Trainer(data, "linear")
    losses = [
        protocol.train_to(
            tmp_path / f"{number}.json", each, arm, 0, 2, size
        ).history["loss"]
        for number, (each, size) in enumerate(
            [
                (trainer, 4),
                (trainer, len(data.train[0]) // 3),
                (protocol.Trainer(data, "linear"), len(data.train[0]) // 3),
            ]
        )
    ]
    assert losses[1] == losses[2] != losses[0]


COOLED = ("adam", "sgd", "control", "hybrid")


@pytest.mark.slow
def test_compare_runs_every_arm_with_every_seed(tiny, tmp_path):
    told = []
    runs = protocol.compare(
        architecture="linear",
        epochs=2,
        seeds=2,
        arms=COOLED,
        output=tmp_path,
        batch_size=16,
        report=told.append,
    )
    assert [(r.arm, r.seed) for r in runs] == [
        (arm, seed) for seed in (0, 1) for arm in COOLED
    ]
    assert told[-1].done == told[-1].total == 16
    assert sum(p.run is not None for p in told) == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", protocol.ARMS)
def test_every_arm_trains(name, tmp_path):
    run = protocol.train(
        tiny_data(), "linear", protocol.ARMS[name], 0, 4, tmp_path, 16
    )
    assert run.status == "finished"
    assert math.isfinite(run.test_loss)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "mnits"}, "`dataset`.*mnist-5k.*Received.*mnits"),
        ({"architecture": "vgg"}, "`architecture`.*cnn.*Received.*vgg"),
        ({"arms": ["adma"]}, "`arms`.*adam.*Received.*adma"),
        ({"arms": []}, "`arms` must name at least one"),
        ({"epochs": 1}, "epochs=1"),
        ({"seeds": 0}, "seeds=0"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_compare_errors(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        protocol.compare(output=tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


# ---- Records and snapshots --------------------------------------------------


def test_record_round_trip_keeps_nan_and_order(tmp_path):
    run = protocol.train(
        tiny_data(), "linear", protocol.ARMS["control"], 0, 2, tmp_path, 16
    )
    path = tmp_path / "again.json"
    run.save(path)
    text = path.read_text()
    assert "NaN" not in text
    assert Run.load(path).history == run.history
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable"),
        ("[]", "not a run record"),
        ('{"format": 99}', "format 1"),
        ('{"format": 1, "dataset": "mnist"}', "missing or unknown"),
    ],
)
def test_damaged_records_are_named(content, message, tmp_path):
    path = tmp_path / "adam-seed0.json"
    path.write_text(content)
    with pytest.raises(DamagedRecord, match=message) as error:
        Run.load(path)
    assert str(path) in str(error.value)


def compiled():
    keras.utils.set_random_seed(0)
    model = architectures.build("linear", (6, 6, 1), 3)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def test_snapshot_of_another_model_changes_nothing(tmp_path):
    path = tmp_path / "s.npz"
    other = architectures.build("mlp", (6, 6, 1), 3)
    other.compile("adam", "mse")
    other.optimizer.build(other.trainable_variables)
    snapshot.save(path, other, {"loss": [1.0]})
    model = compiled()
    before = model.get_weights()
    with pytest.raises(snapshot.DamagedSnapshot):
        snapshot.restore(path, model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_truncated_snapshot_is_named(tmp_path):
    path = tmp_path / "s.npz"
    snapshot.save(path, compiled(), {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(snapshot.DamagedSnapshot, match="s.npz"):
        snapshot.restore(path, compiled())


# ---- Command line -----------------------------------------------------------


def test_command_line_compares_reports_and_resumes(
    tiny, tmp_path, monkeypatch, capsys
):
    arguments = [
        "compare",
        *("--architecture", "linear", "--epochs", "2", "--seeds", "1"),
        *("--batch-size", "16", "--output", str(tmp_path / "out")),
        *("--arms", "control,hybrid"),
    ]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").exists()
    assert "report.html" in out
    assert "hybrid, seed 0: test accuracy" in out
    found = sorted((tmp_path / "out").rglob("*.json"))
    assert len(found) == 2
    times = [p.stat().st_mtime_ns for p in found]
    assert cli.main(arguments) == 0
    assert [p.stat().st_mtime_ns for p in found] == times
    assert cli.main(["report", str(tmp_path / "out")]) == 0
    assert cli.main(["pack", str(tmp_path / "out")]) == 0
    monkeypatch.setattr(keras.Model, "fit", lambda *a, **k: pytest.fail("fit"))
    assert cli.main(arguments) == 0
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--dataset", "mnits"], "mnits"),
        (["compare", "--arms", "adam,foo"], "foo"),
        (["compare", "--epochs", "0"], "epochs=0"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_command_line_errors(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_a_damaged_record_is_named_in_the_report(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["compare", "--architecture", "linear", "--epochs", "2"]
    arguments += ["--seeds", "2", "--batch-size", "16", "--output", str(out)]
    assert cli.main(arguments) == 0
    broken = next(out.rglob("adam-seed1.json"))
    broken.write_text("{")
    assert cli.main(["report", str(out)]) == 0
    assert "adam-seed1.json" in capsys.readouterr().out
    assert cli.main(arguments) == 2
    assert "Remove the file" in capsys.readouterr().err


def test_records_are_json_with_versions_and_configuration(tmp_path):
    run = protocol.train(
        tiny_data(), "linear", protocol.ARMS["hybrid"], 0, 2, tmp_path, 16
    )
    path = protocol.run_path(tmp_path, "tiny", "linear", 2, "hybrid", 0)
    content = json.loads(path.read_text())
    assert {"keras", "tensorflow", "keras_hybrid"} <= set(content["versions"])
    config = content["configuration"]
    assert config["optimizer"]["class_name"] == "HybridOptimizer"
    assert config["trigger"]["config"] == {"n": 1}
    assert config["images"] == run.configuration["images"]


@pytest.mark.slow
def test_a_killed_run_of_another_configuration_is_not_gone_on_with(
    tmp_path, monkeypatch
):
    data, arm = tiny_data(), protocol.ARMS["hybrid"]
    path = tmp_path / "run.json"

    def train(batch_size, report=lambda epoch: None):
        trainer = protocol.Trainer(data, "linear")
        return protocol.train_to(path, trainer, arm, 0, 4, batch_size, report)

    def kill(epoch):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(16, kill)
    with pytest.raises(ValueError, match="another configuration.*--output"):
        train(32)
    assert train(16).status == "finished"


def test_a_batch_that_the_images_do_not_fill_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="`batch_size`.*batch_size=5000"):
        protocol.train(
            tiny_data(), "linear", protocol.ARMS["sgd"], 0, 2, tmp_path, 5000
        )


def test_the_command_s_defaults_are_the_function_s():
    options = cli._parser().parse_args(["compare"])
    defaults = inspect.signature(protocol.compare).parameters
    for name in ("dataset", "architecture", "epochs", "seeds", "batch_size"):
        assert getattr(options, name) == defaults[name].default
    assert tuple(options.arms.split(",")) == defaults["arms"].default


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam_stop", "adam_ema", "until_done"])
def test_an_arm_may_end_itself(name, tmp_path, monkeypatch):
    # Labels at random: the validation loss soon rises.
    data = datasets.with_noise(tiny_data(), 0.9)
    monkeypatch.setattr(datasets, "load", lambda *args, **kwargs: data)
    monkeypatch.setattr("keras_hybrid.study.arms.usual.PATIENCE", 1)
    monkeypatch.setattr("keras_hybrid.callbacks.until_done.PATIENCE", 1)
    (run,) = protocol.compare(
        architecture="mlp",
        epochs=40,
        seeds=1,
        arms=[name],
        output=tmp_path,
        batch_size=16,
    )
    assert run.status == "finished"
    assert len(run.history["loss"]) < 40
    if name == "until_done":
        assert run.switch_step is not None
        assert run.history["cooldown"][-1] == 0
        # Random labels are learnt by heart: the average's best may be better.
        seen = [x for x in run.history["averaged_val_accuracy"] if x == x]
        end = run.history["val_accuracy"][-1]
        assert run.final_val_accuracy == max(end, *seen)
    else:
        # What EarlyStopping restores.
        best = int(np.argmin(run.history["val_loss"]))
        assert run.final_val_accuracy == run.history["val_accuracy"][best]
    (row,) = study.summary([run])
    assert row.epochs_used == len(run.history["loss"])
    assert row.seconds_used == run.history["seconds"][-1]
    # After its end a run has what it ended with.
    values = run.history["val_accuracy"]
    rest = [run.final_val_accuracy] * (40 - len(values))
    assert row.area_under_curve == pytest.approx(np.mean([*values, *rest]))
