"""SIGKILL: real processes, killed and started again, end as if never killed.

benchmarks/kills.py does it; its record is benchmarks/kills.json.
"""

import importlib.util
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def load_kills():
    path = BENCHMARKS / "kills.py"
    spec = importlib.util.spec_from_file_location("kills", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kills = load_kills()
EXACT = [name for name in kills.TRAININGS if name != kills.INSIDE]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_killed_twice_ends_as_if_never_killed(name, tmp_path):
    record = kills.soak(name, 2, tmp_path)
    assert record["of"] == record["exact"] == 2, record


def test_a_real_kill(tmp_path):
    """One process killed inside the writing of a file, one that goes on."""
    name = "ExactBackup first"
    with kills.Training(name, tmp_path) as training:
        training.begins()
        path = tmp_path / "backup.npz"
        assert training.wait_for(path.exists, 0.01)
        assert training.wait_for(kills.write_begins(name, tmp_path), 0)
    assert training.process.returncode == -9
    assert list(tmp_path.glob("backup.npz.*.partial"))
    assert not (tmp_path / "end.npz").exists()
    with kills.Training(name, tmp_path) as training:
        assert training.finish() == ""
    content, _ = kills.end_of(tmp_path)
    assert content["epoch"] == list(range(kills.EPOCHS))
    # And it is what the record's unkilled training ended with.
    assert not list(tmp_path.glob("backup.npz*"))


def test_the_record_of_kills():
    record = json.loads((BENCHMARKS / "kills.json").read_text("utf-8"))
    for name in EXACT:
        result = record["trainings"][name]
        assert result["exact"] == result["of"] == len(result["kills"]) > 0
    assert sum(record["trainings"][name]["of"] for name in EXACT) >= 20
