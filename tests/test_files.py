"""Damaged files, full disks, read-only folders, two processes in a folder."""

import contextlib
import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from images import tiny_data
from small import ROOT

import keras_hybrid
from keras_hybrid import HybridOptimizer, cli
from keras_hybrid._support import files
from keras_hybrid.callbacks import snapshot
from keras_hybrid.recipes import SHIPPED, Recipe
from keras_hybrid.study import datasets
from keras_hybrid.study.record import Run

SOURCES = sorted(Path(keras_hybrid.__file__).parent.rglob("*.py"))
RECIPE = SHIPPED[0] / "mnist-mlp_small.json"
RECORD = ROOT / "results/study/mnist-under-fit/hybrid-seed0.json"


def dense_model(dtype="float32"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, dtype=dtype)]
    )
    model.compile(HybridOptimizer(jit_compile=False), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


# ---- Damaged files ----------------------------------------------------------


def a_recipe(path):
    path.write_bytes(RECIPE.read_bytes())
    return lambda: HybridOptimizer.from_recipe(str(path))


def a_record(path):
    Run.load(RECORD).save(path)
    return lambda: Run.load(path)


def a_snapshot(path):
    model = dense_model()
    snapshot.save(path, model, {"loss": [1.0]})
    return lambda: snapshot.restore(path, model)


DAMAGES = {
    "empty": lambda content: b"",
    "first-half": lambda content: content[: len(content) // 2],
    "without-its-end": lambda content: content[:-20],
    "without-its-start": lambda content: content[20:],
    "other-bytes": lambda content: bytes(range(256)) * 8,
    "zeros": lambda content: bytes(len(content)),
    "overwritten": lambda content: content[:50] + b"\0" * 99 + content[149:],
    "nested": lambda content: b"[" * 100_000,
    "number": lambda content: b"3",
    "list": lambda content: b"[]",
    "another-format": lambda content: b'{"format": 99}',
    "only-its-format": lambda content: b'{"format": 1}',
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("make", [a_recipe, a_record, a_snapshot])
def test_damaged_files_are_named(make, damage, tmp_path):
    path = tmp_path / ("s.npz" if make is a_snapshot else "r.json")
    load = make(path)
    load()
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load()


@pytest.mark.parametrize("make", [a_recipe, a_record, a_snapshot])
def test_missing_files_and_folders_in_their_place_are_named(make, tmp_path):
    path = tmp_path / ("s.npz" if make is a_snapshot else "r.json")
    load = make(path)
    path.unlink()
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load()
    path.mkdir()
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load()


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [
        (a_recipe, "plan", {"when": 3}),
        (a_recipe, "plan", {"fraction": "half"}),
        (a_recipe, "plan", None),
        (a_recipe, "budget", {"epochs": "ten", "steps_per_epoch": 3}),
        (a_recipe, "budget", {"epochs": 10}),
        (a_recipe, "optimizer", []),
        (a_record, "history", [1.0]),
        (a_record, "history", {"loss": 1.0}),
        (a_record, "history", {"loss": ["low"]}),
        (a_record, "history", {"loss": [[1.0]]}),
        (a_record, "status", "great"),
        (a_record, "status", None),
    ],
)
def test_fields_of_the_wrong_kind_are_named(make, field, value, tmp_path):
    path = tmp_path / "r.json"
    load = make(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, field: value}))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load()


@pytest.mark.parametrize(
    "change",
    [
        {"variable_0": np.zeros((2, 2), "float32")},
        {"variable_0": np.zeros((3, 2), "float64")},
        {"variable_1": np.array(["x", "y"])},
        {"variable_99": np.zeros(2, "float32")},
        {"history": np.array("[1]")},
        {"history": np.array("{")},
    ],
    ids=["shape", "dtype", "text", "more", "history", "json"],
)
def test_snapshots_that_do_not_fit_change_nothing(change, tmp_path):
    path, model = tmp_path / "s.npz", dense_model()
    snapshot.save(path, model, {"loss": [1.0]})
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **{**arrays, **change})
    for v in model.variables:
        v.assign(v + 1)
    before = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    with pytest.raises(snapshot.DamagedSnapshot, match=re.escape(str(path))):
        snapshot.restore(path, model)
    after = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_snapshots_of_every_dtype_are_restored(dtype, tmp_path):
    path, model = tmp_path / "s.npz", dense_model(dtype)
    snapshot.save(path, model, {"loss": [1.0]})
    before = model.get_weights()
    model.set_weights([w + 1 for w in before])
    assert snapshot.restore(path, model) == {"loss": [1.0]}
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_snapshot_of_another_half_precision_is_refused(tmp_path):
    path = tmp_path / "s.npz"
    snapshot.save(path, dense_model("bfloat16"), {"loss": [1.0]})
    with pytest.raises(snapshot.DamagedSnapshot, match="another model"):
        snapshot.restore(path, dense_model("float16"))


def test_a_snapshot_from_before_dtypes_were_kept_is_restored(tmp_path):
    path, model = tmp_path / "s.npz", dense_model("bfloat16")
    snapshot.save(path, model, {"loss": [1.0]})
    with np.load(path, allow_pickle=False) as file:
        arrays = {n: file[n] for n in file.files if n != "dtypes"}
    np.savez(path, **arrays)
    assert snapshot.restore(path, model) == {"loss": [1.0]}


def test_texts_in_json_keep_their_spaces(tmp_path):
    content = {"text": "a [  1.   2. ] b", "numbers": [1, 2], "none": []}
    files.write_json(tmp_path / "a.json", {"format": 1, **content})
    assert files.read_json(tmp_path / "a.json", 1, "test") == content
    assert '"numbers": [ 1, 2 ]' in (tmp_path / "a.json").read_text()


# ---- Nothing on the disk is a program ---------------------------------------


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_planted_pickle_is_refused(tmp_path):
    path, model = tmp_path / "s.npz", dense_model()
    planted = np.array([Planted(tmp_path / "ran")], dtype=object)
    snapshot.save(path, model, {"loss": [1.0]})
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for name in ("history", "variable_0"):
        np.savez(path, **{**arrays, name: planted})
        with pytest.raises(snapshot.DamagedSnapshot, match="allow_pickle"):
            snapshot.restore(path, model)
    with pytest.raises(snapshot.DamagedSnapshot):
        path.write_bytes(planted.dumps())
        snapshot.restore(path, model)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "planted",
    [
        {"class_name": "__lambda__", "config": {"value": "4wAAAAA"}},
        {"module": "os", "class_name": "getcwd", "config": {}},
        {
            "module": "builtins",
            "class_name": "function",
            "config": "eval",
            "registered_name": "function",
        },
    ],
    ids=["lambda", "class", "function"],
)
def test_a_planted_object_in_a_recipe_is_refused(planted, tmp_path):
    content = json.loads(RECIPE.read_text())
    content["optimizer"] = {"learning_rate": planted}
    path = tmp_path / "r.json"
    path.write_text(json.dumps(content))
    with pytest.raises((ValueError, TypeError)):
        HybridOptimizer.from_recipe(str(path))


def test_no_source_loads_pickles():
    text = {path: path.read_text(encoding="utf-8") for path in SOURCES}
    for path, source in text.items():
        for word in ("import pickle", "pickle.load", "eval(", "exec("):
            assert word not in source, path
        loads = len(re.findall(r"np\.load\(", source))
        assert loads == source.count("allow_pickle=False"), path
        assert "safe_mode=False" not in source, path
    assert any("np.load(" in source for source in text.values())


# ---- Full disks and folders that cannot be written to -----------------------


def save_a_recipe(path):
    Recipe.load(str(RECIPE)).save(path)


def save_a_record(path):
    Run.load(RECORD).save(path)


def save_a_snapshot(path):
    snapshot.save(path, dense_model(), {"loss": [1.0] * 200})


SAVES = pytest.mark.parametrize(
    "save", [save_a_recipe, save_a_record, save_a_snapshot]
)


@contextlib.contextmanager
def room_for(size):
    """No file may grow past so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@SAVES
@pytest.mark.parametrize("size", [0, 500])
def test_a_full_disk_is_said_and_leaves_the_old_file(save, size, tmp_path):
    path = tmp_path / "kept.json"
    path.write_text("old")
    with (
        room_for(size),
        pytest.raises(
            files.DiskFull, match=f"no room for {re.escape(str(path))}"
        ),
    ):
        save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    save(path)
    assert path.read_text(errors="replace") != "old"


def below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "folder"


def in_a_kernel_folder(tmp_path):
    """Not even root can write there."""
    if not Path("/sys/kernel").is_dir():
        pytest.skip("needs Linux")
    return Path("/sys/kernel/keras_hybrid")


NOT_WRITABLE = pytest.mark.parametrize(
    "place", [below_a_file, in_a_kernel_folder]
)


@SAVES
@NOT_WRITABLE
def test_folders_that_cannot_be_written_to_are_named(save, place, tmp_path):
    folder = place(tmp_path)
    with pytest.raises(files.NotWritable, match="name another folder") as error:
        save(folder / "r.json")
    assert str(error.value).endswith(f"Received: folder={str(folder)!r}")


@NOT_WRITABLE
@pytest.mark.parametrize(
    "command",
    [
        ["compare", "--epochs", "2", "--seeds", "1", "--arms", "adam"],
        ["tune", "--epochs", "5", "--seeds", "1"],
    ],
    ids=["compare", "tune"],
)
def test_the_commands_say_where_they_cannot_write(
    command, place, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(datasets, "load", lambda *args, **kwargs: tiny_data())
    folder = place(tmp_path)
    where = "--output" if command[0] == "compare" else "--directory"
    command = [*command, "--batch-size", "16", where, str(folder)]
    command += ["--architecture", "linear"]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error
    assert "name another folder" in error
    assert str(folder) in error
    assert "Traceback" not in error


# ---- Two processes in one folder --------------------------------------------

# The module alone, without TensorFlow.
HOLDER = f"""
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("files", {files.__file__!r})
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
with files.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held(folder):
    """Another process keeps the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_folder_is_kept_by_one_process_and_freed_by_a_kill(tmp_path):
    folder = tmp_path / "made"
    with held(folder) as process:
        with (
            pytest.raises(ValueError, match="in use by another process") as e,
            files.locked(folder),
        ):
            pass
        assert str(e.value).endswith(f"Received: folder={str(folder)!r}")
        with files.locked(tmp_path / "another"):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
        with files.locked(folder):
            pass
    with files.locked(folder):
        pass


def test_another_user_s_lock_file_is_as_good(tmp_path, monkeypatch):
    whole, path = Path.open, tmp_path / "in-use.lock"

    def reading_only(path, mode="r", *args, **kwargs):
        if mode != "r":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return whole(path, mode, *args, **kwargs)

    path.touch()
    monkeypatch.setattr(Path, "open", reading_only)
    with files.claimed(path) as first, files.claimed(path) as second:
        assert (first, second) == (True, False)
    with files.locked(tmp_path):
        pass
    with (
        pytest.raises(files.NotWritable, match="other.lock cannot be written"),
        files.claimed(tmp_path / "other.lock"),
    ):
        pass


def test_a_search_is_refused_in_a_folder_in_use(tmp_path):
    pytest.importorskip("keras_tuner")
    from keras_hybrid.tuner import ForkedTuner, HybridHyperModel

    def tuner(**options):
        return ForkedTuner(
            HybridHyperModel(lambda hp: dense_model(), "when"),
            objective="val_loss",
            directory=tmp_path,
            **options,
        )

    first = tuner()
    with held(tmp_path / "hybrid"):
        with pytest.raises(ValueError, match="in use by another process"):
            first.search(
                np.zeros((8, 3)),
                np.zeros((8, 2)),
                epochs=5,
                validation_data=(np.zeros((8, 3)), np.zeros((8, 2))),
            )
        with pytest.raises(ValueError, match="in use by another process"):
            tuner(overwrite=True)
    tuner(overwrite=True)


def test_partial_files_of_two_machines_differ(tmp_path):
    with (
        files.atomically(tmp_path / "r") as mine,
        files.atomically(tmp_path / "r") as other,
    ):
        mine.write_text("mine")
        other.write_text("other's")
        assert mine != other
    assert (tmp_path / "r").read_text() == "mine"


@pytest.mark.slow
def test_two_comparisons_in_one_folder(tmp_path):
    """Both finish with the same records, or one says that it is in use."""
    command = [sys.executable, "-m", "keras_hybrid.cli", "compare"]
    command += ["--architecture", "linear", "--epochs", "3", "--seeds", "1"]
    command += ["--arms", "adam,hybrid", "--output", str(tmp_path / "both")]
    processes = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        ends = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    codes = sorted(process.returncode for process in processes)
    assert codes in ([0, 0], [0, 2]), ends
    if codes == [0, 2]:
        assert any("in use by another process" in err for _, err in ends)
    alone = [*command[3:-1], str(tmp_path / "alone")]
    assert cli.main(alone) == 0
    paths = sorted((tmp_path / "alone").rglob("*-seed0.json"))
    assert len(paths) == 2
    for path in paths:
        twin = tmp_path / "both" / path.relative_to(tmp_path / "alone")
        ours, theirs = Run.load(twin).history, Run.load(path).history
        for name in ("loss", "val_loss", "accuracy"):
            assert ours[name] == theirs[name]


class WithMore(keras.Model):
    """Optimizers in an attribute, in a list and in a dictionary in it."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.one = keras.optimizers.SGD(momentum=0.9)
        self.more = [keras.optimizers.SGD(momentum=0.8)]
        self.named = {"c": [keras.optimizers.SGD(momentum=0.7)]}

    def call(self, x):
        return self.dense(x)


def test_a_snapshot_has_all_optimizers_of_a_model():
    model = WithMore()
    model.compile("sgd", "mse")
    model(np.zeros((1, 2)))
    model.optimizer.build(model.trainable_variables)
    more = [model.one, *model.more, *model.named["c"]]
    for optimizer in more[:2]:
        optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="optimizer `named` must be built"):
        snapshot.variables_of(model, ())
    more[2].build(model.trainable_variables)
    found = {id(v) for v in snapshot.variables_of(model, ())}
    for optimizer in more:
        assert found >= {id(v) for v in optimizer.variables}
