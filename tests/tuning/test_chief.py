"""A chief and a worker's requests, over gRPC, in threads of one process."""

import concurrent.futures
import errno
import socket
import time

import keras_tuner
import pytest
from keras_tuner.errors import FatalRuntimeError
from keras_tuner.src.distribute.oracle_client import OracleClient

from keras_hybrid.tuning import chief, members


class Tuner:
    """What a chief needs of a tuner."""

    def __init__(self, oracle):
        self.oracle = oracle

    def save(self):
        self.oracle.save()


@pytest.fixture
def oracle(tmp_path):
    """Three trials; it gives up after two failed ones in a row."""
    made = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_loss", "min"),
        max_trials=3,
        seed=1,
        max_consecutive_failed_trials=2,
    )
    space = keras_tuner.HyperParameters()
    space.Float("rate", 0.0, 1.0)
    made.update_space(space)
    made._set_project_dir(tmp_path, "search")
    return made


@pytest.fixture
def serving(oracle, monkeypatch):
    """The end of a chief that answers already."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(port))
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        serving = pool.submit(chief.serve, Tuner(oracle), pause=0.05)
        yield serving


@pytest.fixture
def client(serving, monkeypatch):
    """A worker's."""
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker0")
    client = OracleClient(None)
    members.connect(client)
    return client


def run_once(client, status="COMPLETED"):
    trial = client.create_trial("worker0")
    if trial.status == "STOPPED":
        return trial
    if status == "COMPLETED":
        client.update_trial(trial.trial_id, {"val_loss": 1.0})
    trial.status, trial.message = status, "no such device"
    client.end_trial(trial)
    return trial


def test_it_ends_when_its_worker_has_been_told_that_there_is_no_more(
    oracle, serving, client
):
    for _ in range(3):
        assert 0 <= run_once(client).hyperparameters.get("rate") <= 1
    time.sleep(0.2)
    assert not serving.done()
    assert run_once(client).status == "STOPPED"
    assert serving.result(timeout=30) is None
    assert len(oracle.get_best_trials(9)) == 3


def test_a_worker_is_told_to_stop_where_trials_fail(oracle, serving, client):
    told = [run_once(client, "FAILED").status for _ in range(3)]
    assert told == ["FAILED"] * 2 + ["STOPPED"]
    assert len(oracle.trials) == 2
    with pytest.raises(RuntimeError, match="consecutive.* worker's output"):
        serving.result(timeout=30)


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_chief_whose_disk_is_full_ends_with_that(
    oracle, serving, client, monkeypatch, written
):
    """In its answer to a worker that begins, reports or ends a trial."""
    left = [None] * written

    def full(trial):
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        left.pop()

    monkeypatch.setattr(oracle, "_save_trial", full)
    with pytest.raises(FatalRuntimeError, match="chief.*No space left"):
        run_once(client)
    with pytest.raises(OSError, match="No space left"):
        serving.result(timeout=30)
