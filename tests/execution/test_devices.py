"""Several devices equal one at the same global batch (devices.py)."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import devices
import numpy as np
import pytest
from small import ROOT

SCRIPT = Path(__file__).with_name("devices.py")
SECONDS = 400


@contextlib.contextmanager
def started(*commands):
    """Processes with pipes; they and their children end with the block."""
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ
            | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
            | environment,
        )
        for arguments, environment in commands
    ]
    try:
        yield processes
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def result_of(process):
    out, err = process.communicate(timeout=SECONDS)
    lines = [x for x in out.splitlines() if x.startswith("RESULT ")]
    assert lines, err[-3000:]
    return json.loads(lines[-1].removeprefix("RESULT "))


# ---- Two logical CPUs -------------------------------------------------------

# The updates that SGD makes first, by group; 3 to 9 where the projection
# decides. After revert() the trigger starts anew, and as n = 3 is past it
# fires at once.
DECIDED = range(3, 10)
USUAL = {"at-step": {4}, "callback": {devices.STEPS}}
RARE = {
    "blend-layer": {3},
    "projection-variable": DECIDED,
    "guard": {4},
    "loop": {4},
    "adam": {None},
    "clipnorm": {4},
    "clipvalue": {4},
    "ema": {4},
    "blend-variable": {3},
    "norm": {4},
    "sgd": {0},
    "skips": {4},
    "sgd-rate": {4},
    "projection": DECIDED,
    "projection-layer": DECIDED,
    "switch": {5},
    "revert": {7},
    "loop-projection": DECIDED,
}


ERRORS = {
    "jit": "`jit_compile` must be 'auto' or False under a tf.distribute "
    "strategy, which cannot run inside XLA. Received: jit_compile=True",
    "outside": "must be created inside the scope of the tf.distribute strategy",
    "inside": "created under MirroredStrategy, used under no strategy",
    "accumulation": "`gradient_accumulation_steps` must be None under a "
    "tf.distribute strategy with replicas: Keras cannot compile it there "
    "(keras #20582); a model compiled with run_eagerly=True can have it. "
    "Received: gradient_accumulation_steps=2",
    "overwriting": "Received: ema_overwrite_frequency=3",
}


def mirrored(*names):
    with started(([SCRIPT, "mirrored", *names], {})) as (process,):
        return result_of(process)


def expect_equal(case, two, one, switch_steps):
    for ours, expected in zip(two["weights"], one["weights"], strict=True):
        assert np.isfinite(ours).all(), case
        np.testing.assert_allclose(
            ours, expected, rtol=1e-5, atol=2e-6, err_msg=case
        )
    assert two["switch_steps"] == one["switch_steps"], case
    assert set(one["switch_steps"]) <= set(switch_steps), case
    assert two["sgd_fraction"] == pytest.approx(one["sgd_fraction"]), case
    assert two["rate"] == pytest.approx(one["rate"], rel=1e-4), case
    skipped = devices.EPOCHS if case == "skips" else 0
    assert two["skipped"] == one["skipped"] == skipped, case


@pytest.mark.slow
def test_two_mirrored_devices_equal_one():
    """One test, as the processes of pytest would each start TensorFlow."""
    results = mirrored(*USUAL, "errors")
    for case, switch_steps in USUAL.items():
        two, one = results[case]["two"], results[case]["one"]
        expect_equal(case, two, one, switch_steps)
    for name, message in ERRORS.items():
        assert results["errors"][name].startswith("ValueError: "), name
        assert message in results["errors"][name]
    # What cannot be compiled there runs eagerly.
    assert results["errors"]["eager"] == "no error"


@pytest.mark.slow
def test_two_mirrored_devices_equal_one_more():
    results = mirrored(*RARE)
    for case, switch_steps in RARE.items():
        two, one = results[case]["two"], results[case]["one"]
        expect_equal(case, two, one, switch_steps)


# ---- Two processes ----------------------------------------------------------


def cluster():
    """TF_CONFIG of each of two processes on this machine."""
    with socket.socket() as first, socket.socket() as second:
        addresses = []
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
            addresses.append(f"127.0.0.1:{probe.getsockname()[1]}")
    return [
        {
            "TF_CONFIG": json.dumps(
                {
                    "cluster": {"worker": addresses},
                    "task": {"type": "worker", "index": index},
                }
            )
        }
        for index in (0, 1)
    ]


@pytest.mark.slow
def test_two_processes_equal_one():
    cases = {"loop": {4}, "loop-projection": DECIDED}
    commands = [([SCRIPT, "worker", *cases], task) for task in cluster()]
    with started(*commands) as processes:
        results = [result_of(process) for process in processes]
    for name, switch_steps in cases.items():
        one = devices.train(name, devices.tf.distribute.get_strategy())
        for result in results:
            expect_equal(name, result[name]["two"], one, switch_steps)
    # Keras' own fit does not work there (keras #20585), which README says.
    for result in results:
        assert "PerReplica" in result["fit"]
