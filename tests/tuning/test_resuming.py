"""Kills, full disks and damaged files: what is finished is kept."""

import errno
import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from searches import DATA, POINTS, X, Y, tuner_in
from small import TESTS

from keras_hybrid._support import records
from keras_hybrid.tuning import record


@pytest.mark.slow
def test_a_search_that_is_finished_is_not_repeated(tmp_path):
    tuner_in(tmp_path).search(**DATA, epochs=4)
    told = []
    tuner = tuner_in(tmp_path, report=told.append)
    tuner.search(**DATA, epochs=4)
    assert told == []
    assert len(tuner.oracle.trials) == 3


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_packed_search_goes_on(tmp_path):
    tuner = tuner_in(tmp_path)
    tuner.search(**DATA, epochs=4)
    records.pack(tuner.folder)
    told = []
    again = tuner_in(tmp_path, report=told.append)
    again.search(**DATA, epochs=4)
    assert told == []
    assert again.recipe() == tuner.recipe()


SCRIPT = """
import os, signal, sys
sys.path[:0] = {tests}
import searches as t
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


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param([18], id="once", marks=pytest.mark.slow),
        # The first in the first training: there is no record yet.
        pytest.param([3, 18], id="twice", marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_equals_never_killed(tmp_path, kills):
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT.format(
            tests=[str(TESTS), os.path.dirname(__file__)],
            folder=str(tmp_path / "killed"),
        )
    )
    for kill_at in kills:
        process = subprocess.run(
            [sys.executable, str(script), str(kill_at)],
            timeout=600,
            check=False,
            capture_output=True,
        )
        said = process.stderr.decode()[-2000:]
        assert process.returncode == -signal.SIGKILL, said
        partly = record.load(tmp_path / "killed" / "hybrid")
        finished = sum(len(t.runs) for t in partly.trials)
        assert finished < 6
        assert (finished > 0) == (kill_at > 3)
    resumed = tuner_in(tmp_path / "killed", seeds=2)
    resumed.search(**DATA, epochs=8)
    tuner = tuner_in(tmp_path / "whole", seeds=2)
    tuner.search(**DATA, epochs=8)

    def results(folder):
        return {
            trial.name: (trial.plan, [run.history for run in trial.runs])
            for trial in record.load(folder).trials
        }

    assert results(resumed.folder) == results(tuner.folder)


@pytest.mark.slow
def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path, monkeypatch):
    save = np.savez
    room = 6  # Snapshots until the disk is full.

    def filling(file, **arrays):
        nonlocal room
        room -= 1
        if room < 0:
            file.write(b"PK")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(file, **arrays)

    monkeypatch.setattr(np, "savez", filling)
    tuner = tuner_in(tmp_path)
    with pytest.raises(ValueError, match="There is no room for .*epoch-"):
        tuner.search(**DATA, epochs=8)
    kept = record.load(tuner.folder)
    assert sum(len(t.runs) for t in kept.trials) == 1
    assert not list(tmp_path.rglob("*.partial"))
    monkeypatch.setattr(np, "savez", save)
    again = tuner_in(tmp_path)
    again.search(**DATA, epochs=8)
    found = record.load(again.folder)
    assert len(found.complete) == 3
    assert found.trials[0].runs[0] == kept.trials[0].runs[0]


@pytest.mark.slow
def test_damaged_snapshots_are_named_and_trained_again(tmp_path):
    space = {**POINTS, "fraction": [0.5, 0.75]}
    whole = tuner_in(tmp_path, space=space, project_name="whole")
    whole.search(**DATA, epochs=4)
    tuner = tuner_in(tmp_path, space=space)

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


@pytest.mark.slow
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


def test_the_first_failure_is_said_at_once(tmp_path):
    def failing(seed, first_epoch, epochs):
        if (tmp_path / "hybrid" / "search.json").exists():
            raise OSError("the disk has gone")
        one = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
        return one.repeat(), 6

    with pytest.raises(RuntimeError, match="failed: the disk has gone"):
        tuner_in(tmp_path).search(failing, epochs=4, validation_data=(X, Y))
