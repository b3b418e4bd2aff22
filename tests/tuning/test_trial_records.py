"""The record of a search: read once, and damaged files named."""

import collections
import json
import shutil

import pytest
from searches import DATA, POINTS, tuner_in
from small import ROOT

from keras_hybrid._support import files, records
from keras_hybrid.tuning import record


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder of a finished search, to be copied."""
    folder = tmp_path_factory.mktemp("search")
    tuner = tuner_in(folder, space={**POINTS, "fraction": [1.0, 0.5]})
    tuner.search(**DATA, epochs=2)
    return tuner.folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"status": "great"},
        {"plan": {"when": "x"}},
        {"plan": {"fraction": "x"}},
        {"seed": ...},
        {"more": 1},
        {"format": 7},
    ],
)
def test_damaged_records_are_named(tmp_path, searched, change):
    folder = shutil.copytree(searched, tmp_path / "hybrid")
    path = next(folder.glob("trial_*/seed-0.json"))
    content = json.loads(path.read_text())
    for name, value in change.items():
        if value is ...:
            del content[name]
        else:
            content[name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"seed-0.json"):
        record.load(folder)


RECORDED = ROOT / "results" / "tune" / "mnist-mlp_small"


@pytest.fixture
def recorded(tmp_path):
    """The settings and one training of a search of the study."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    shutil.copy(RECORDED / "search.json", folder)
    path = next(p for p in records.below(RECORDED) if p.name == "seed-0.json")
    trained = folder / path.relative_to(RECORDED)
    files.write_json(trained, records._row(path))
    record.load(folder)
    return folder


def change(path, **changes):
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("history", {}),
        ("history", {"val_accuracy": []}),
        ("steps_per_epoch", 0),
        ("steps_per_epoch", "x"),
        ("steps_per_epoch", True),
        ("epochs", "x"),
        ("epochs", None),
        ("hyperparameters", None),
        ("seconds", None),
        ("seconds", "1"),
    ],
)
def test_a_damaged_training_is_named(field, value, recorded):
    path = next(recorded.rglob("seed-0.json"))
    change(path, **{field: value})
    for call in (lambda: record.read_run(path), lambda: record.load(recorded)):
        with pytest.raises(ValueError, match=rf"seed-0\.json: .*{field}"):
            call()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seeds", "two"),
        ("seeds", 0),
        ("direction", "up"),
        ("epochs", None),
        ("batch_size", 1.5),
        ("objective", None),
    ],
)
def test_damaged_settings_are_named(field, value, recorded):
    change(recorded / "search.json", **{field: value})
    with pytest.raises(
        ValueError, match=rf"search\.json: not a search.*{field}={value!r}"
    ):
        record.load(recorded)


@pytest.mark.slow
def test_a_search_reads_each_record_once(tmp_path, monkeypatch):
    counts = collections.Counter()
    read = files.read_json

    def counted(path, *args):
        counts[path.relative_to(tmp_path / "hybrid").as_posix()] += 1
        return read(path, *args)

    monkeypatch.setattr(files, "read_json", counted)
    tuner_in(tmp_path).search(**DATA, epochs=4)
    assert set(counts.values()) == {1}
    # Of 3 trainings, the last is not read again.
    assert sum("seed-" in name for name in counts) == 2


@pytest.mark.slow
def test_a_reader_reads_what_has_changed(tmp_path, searched):
    folder = shutil.copytree(searched, tmp_path / "hybrid")
    reader = record.Reader(folder)
    first = reader.load()
    assert reader.load().trials[0].runs[0] is first.trials[0].runs[0]
    path = min(folder.glob("trial_*/seed-0.json"))
    plan, own, epochs, run = record.read_run(path)
    record.write_run(path, plan, own, epochs, run._replace(seconds=9.0))
    again = reader.load()
    assert again.trials[0].runs[0].seconds == 9.0
    assert again.trials[1].runs[0] is first.trials[1].runs[0]
    path.unlink()
    assert len(reader.load().trials) == 1
