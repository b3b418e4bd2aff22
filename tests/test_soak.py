"""SIGKILL: real processes, killed and started again, end as if never killed.

benchmarks/kills.py does it; benchmarks/kills.json is its record.
"""

import importlib.util
import json
import subprocess
import sys

import pytest
from small import ROOT

PROGRAM = ROOT / "benchmarks" / "kills.py"


def load_program():
    spec = importlib.util.spec_from_file_location("kills", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kills = load_program()
EXACT = [name for name in kills.TRAININGS if name != kills.INSIDE]


def soak(name, count, folder):
    """Runs the program; from here, where TensorFlow runs, one cannot fork."""
    output = folder / "kills.json"
    command = [sys.executable, str(PROGRAM), "--output", str(output)]
    with subprocess.Popen(
        [*command, "--kills", str(count), "--only", name],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            _, said = process.communicate(timeout=kills.LIMIT_SECONDS * count)
        finally:
            process.terminate()  # Which kills what it has started.
    assert process.returncode == 0, said
    return json.loads(output.read_text("utf-8"))["trainings"][name]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_killed_and_started_again_ends_as_if_never_killed(name, tmp_path):
    count = 3
    record = soak(name, count, tmp_path)
    assert record["exact"] == record["of"] == count, record


def test_every_kill_of_the_record_was_resumed_exactly():
    record = json.loads((PROGRAM.with_suffix(".json")).read_text("utf-8"))
    results = [record["trainings"][name] for name in EXACT]
    for result in results:
        assert result["exact"] == result["of"] == len(result["kills"])
    assert sum(result["of"] for result in results) >= 20
    inside = [k["inside_a_write"] for r in results for k in r["kills"]]
    assert any(inside) and not all(inside)
