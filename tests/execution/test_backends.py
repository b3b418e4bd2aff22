"""The same rules on JAX and torch, each in a process of its own."""

import importlib.util
import os
import subprocess
import sys

import backend_checks
import numpy as np
import pytest
import tensorflow as tf
from small import ROOT

# Whoever imports TensorFlow fails, as where it is not installed.
SCRIPT = """
import sys
sys.modules["tensorflow"] = None
import keras, pytest
assert keras.backend.backend() == sys.argv[1]
sys.exit(pytest.main(sys.argv[2:]))
"""
BACKENDS = pytest.mark.parametrize("backend", ["jax", "torch"])


def tensorflows_numbers(path, names):
    """Writes a file of what TensorFlow computes."""
    model = backend_checks.run("blending")
    tf.config.run_functions_eagerly(True)  # Traces nothing.
    try:
        updated = {name: backend_checks.updated(name) for name in names}
    finally:
        tf.config.run_functions_eagerly(False)
    np.savez(path, fit=backend_checks.flat(model), **updated)


def check(backend, folder):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}: pip install -e '.[backends]'")
    numbers = folder / "tensorflow.npz"
    tensorflows_numbers(numbers, backend_checks.CASES)
    options = ("-n", "0", "-p", "no:cacheprovider", "-m", "slow or not slow")
    checks = (backend, *options, "tests/execution/backend_checks.py")
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, *checks],
        cwd=ROOT,
        env=os.environ
        | {
            "KERAS_BACKEND": backend,
            "PYTHONPATH": str(ROOT),
            "TENSORFLOW_NUMBERS": str(numbers),
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        },
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert process.returncode == 0, process.stdout[-9000:] + process.stderr
    assert " passed" in process.stdout


@pytest.mark.slow
@BACKENDS
def test_the_rules_run_unchanged(backend, tmp_path):
    check(backend, tmp_path)


@pytest.mark.slow
def test_the_example_on_several_devices():
    process = subprocess.run(
        [sys.executable, "examples/data_parallel_jax.py"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if importlib.util.find_spec("jax") is None:
        assert process.returncode == 1
        assert "needs JAX: pip install" in process.stderr
        return
    assert process.returncode == 0, process.stderr
    assert "devices: ['cpu:0', 'cpu:1']" in process.stdout
    # 3,072 examples in batches of 64, four epochs.
    assert "switched at update 192" in process.stdout


@pytest.mark.slow
def test_tensorflow_is_imported_for_its_own_backend_alone():
    """In a process that has imported nothing, and could import it."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("needs jax: pip install -e '.[backends]'")
    script = (
        "import sys, keras_hybrid.recipes, keras_hybrid._support.versions; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    for backend, imported in (("jax", 0), ("tensorflow", 1)):
        process = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ
            | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
            timeout=300,
        )
        assert process.returncode == imported
