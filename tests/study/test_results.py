"""Records in files and in tables: either is read, packing loses nothing."""

import dataclasses
import errno
import json
import math
import os
import re
import shutil
from pathlib import Path

import pandas
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from small import ROOT

from keras_hybrid import cli
from keras_hybrid._support import files, records, tables
from keras_hybrid.study import regret, results
from keras_hybrid.study.record import DamagedRecord, Run
from keras_hybrid.study.trace import Trace
from keras_hybrid.tuning import record as search

RESULTS = ROOT / "results"


def run(arm="adam", seed=0, accuracy=0.9, **changes):
    role = "baseline" if arm == "adam" else "hybrid"
    numbers = [1 / 3, math.nan, accuracy]
    history = {name: [0.1, 0.2, accuracy] for name in results.CURVES}
    if role == "hybrid":
        history["sgd_learning_rate"] = numbers
    made = Run(
        dataset="mnist",
        architecture="mlp",
        arm=arm,
        seed=seed,
        epochs=3,
        configuration={
            "role": role,
            "label": arm,
            "trigger": None,
            "optimizer": {"class_name": "Adam", "config": {"epsilon": 1e-7}},
        },
        versions={"keras_hybrid": "1"},
        status="finished",
        history=history,
        switch_step=None if role == "baseline" else 7,
        steps_per_epoch=10,
        test_loss=0.1,
        test_accuracy=accuracy,
    )
    return dataclasses.replace(made, **changes)


def fill(folder):
    """Runs with and without a switch, one diverged, one of tuning, a trace."""
    for seed in range(3):
        for arm in ("adam", "hybrid"):
            found = run(arm, seed, 0.9 + seed / 70)
            found.save(folder / "cell" / f"{arm}-seed{seed}.json")
    diverged = run(
        "hybrid",
        3,
        status="diverged",
        history={},
        test_loss=None,
        test_accuracy=None,
    )
    diverged.save(folder / "cell" / "hybrid-seed3.json")
    tuned = run(seed=1000)
    tuned.configuration["is_tuning"] = True
    tuned.save(folder / "cell" / "tuning" / "adam-0.1.json")
    trace = Trace([1.5, math.nan], [1.25, math.nan], [0.0, 1.0])
    trace.save(folder / "cell" / "traces" / "projection.json")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.json")
    }


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "study")
    return tmp_path / "study"


# ---- Tables -----------------------------------------------------------------


@pytest.fixture(scope="module")
def own_path(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "runs.parquet"


NAMES = st.text("abcdef", max_size=3)
NUMBERS = st.none() | st.floats() | st.integers()
VALUES = st.recursive(
    NUMBERS | st.booleans() | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(NUMBERS, max_size=4)
        | st.lists(inner, max_size=2)
        | st.dictionaries(NAMES | st.just("x.y"), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(
        NAMES,
        st.dictionaries(NAMES.filter(bool), VALUES, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_any_record_comes_back_exactly(own_path, found):
    """Also 1 beside 1.0, null beside absent, empty beside null, the order."""
    path = own_path
    tables.write(path, found)
    table = tables.Table(path)
    assert set(table) == set(found)
    for name, record in found.items():
        assert tables.text(table[name]) == tables.text(record)


def test_a_record_may_be_changed_by_its_reader(tmp_path):
    path = tmp_path / "runs.parquet"
    tables.write(path, {"a": {"x": [1.5], "y": {"z": [2.5]}}})
    table = tables.Table(path)
    table["a"]["x"].append(1.0)
    table["a"]["y"].pop("z")
    assert table["a"] == {"x": [1.5], "y": {"z": [2.5]}}


@pytest.mark.parametrize("name", ["path", "fields", "a.b"])
def test_fields_with_names_of_the_table_are_errors(name, tmp_path):
    with pytest.raises(ValueError, match="field of a record.*Received"):
        tables.write(tmp_path / "runs.parquet", {"a": {name: 1}})
    assert not list(tmp_path.iterdir())


# ---- Packing ----------------------------------------------------------------


def test_a_packed_folder_reads_as_its_files(folder):
    before = results.load_runs(folder), results.load_traces(folder)
    paths = records.below(folder)
    packed = records.pack(folder)
    assert packed == ({"runs": 8, "traces": 1}, 9, [])
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {
        *("runs.parquet", "traces.parquet", "in-use.lock")
    }
    assert not (folder / "cell").exists()
    assert repr((results.load_runs(folder), results.load_traces(folder))) == (
        repr(before)
    )
    assert records.below(folder) == paths
    # A folder of it too, though it is no more.
    assert len(results.load_runs(folder / "cell")[0]) == 7
    assert records.exists(folder / "cell" / "adam-seed2.json")
    assert not records.exists(folder / "cell" / "adam-seed9.json")
    with pytest.raises(DamagedRecord, match="adam-seed9.json: not readable"):
        Run.load(folder / "cell" / "adam-seed9.json")


def test_unpacked_files_are_the_same_bytes(folder):
    before = contents(folder)
    records.pack(folder)
    assert contents(folder) == {}
    assert records.unpack(folder) == (len(before), [])
    assert contents(folder) == before
    assert not list(folder.rglob("*.parquet"))


def test_records_that_come_later_are_added(folder):
    records.pack(folder)
    run("sgd", 0).save(folder / "cell" / "sgd-seed0.json")
    assert len(results.load_runs(folder)[0]) == 8
    assert records.pack(folder) == ({"runs": 9, "traces": 1}, 1, [])
    assert len(results.load_runs(folder)[0]) == 8
    assert records.pack(folder).added == 0


def test_another_folder_s_records_are_added(folder, tmp_path):
    more, onto = tmp_path / "more", tmp_path / "onto"
    run("sgd", 0).save(more / "other" / "sgd-seed0.json")
    before = contents(more), contents(folder)
    assert records.pack(onto, folder).added == 9
    assert records.pack(onto, more).added == 1
    assert (contents(more), contents(folder)) == before
    assert len(results.load_runs(onto)[0]) == 8
    # Tables are a source too.
    assert records.pack(tmp_path / "third", onto).added == 10


class Killed(BaseException):
    """Stands for a kill, which nothing can handle."""


def kill_before_the_rename(monkeypatch):
    monkeypatch.setattr(Path, "replace", kill)


def kill_after_the_table(monkeypatch):
    whole, count = Path.unlink, iter(range(99))

    def unlink(path, **options):
        if path.suffix == ".json" and next(count) == 3:
            raise Killed
        whole(path, **options)

    monkeypatch.setattr(Path, "unlink", unlink)


def kill(*args):
    raise Killed


@pytest.mark.parametrize(
    "kill_it", [kill_before_the_rename, kill_after_the_table]
)
def test_a_killed_pack_loses_nothing(kill_it, folder, monkeypatch):
    before = results.load_runs(folder)
    with monkeypatch.context() as patch:
        kill_it(patch)
        with pytest.raises(Killed):
            records.pack(folder)
    left = len(contents(folder))
    assert left == (9 if kill_it is kill_before_the_rename else 6)
    assert repr(results.load_runs(folder)) == repr(before)
    records.pack(folder)
    assert contents(folder) == {}
    assert repr(results.load_runs(folder)) == repr(before)


def test_a_table_that_cannot_be_read_back_leaves_the_files(folder, monkeypatch):
    before, whole = contents(folder), tables.write

    def broken(path, found):
        found = dict(found)
        found[next(iter(found))] = {"arm": "another"}
        whole(path, found)

    monkeypatch.setattr(tables, "write", broken)
    with pytest.raises(ValueError, match="does not hold what was written"):
        records.pack(folder)
    assert contents(folder) == before


def test_a_run_that_differs_from_its_row_is_an_error(folder):
    path = folder / "cell" / "adam-seed0.json"
    records.pack(folder)
    packed = Run.load(path)
    run(accuracy=0.5).save(path)
    # The file comes first.
    assert Run.load(path).test_accuracy == 0.5
    with pytest.raises(ValueError, match="cell/adam-seed0.json.*pack --undo"):
        records.pack(folder)
    assert Run.load(path).test_accuracy == 0.5
    path.unlink()
    assert repr(Run.load(path)) == repr(packed)


def test_files_that_are_no_records_are_left_and_named(folder):
    (folder / "cell" / "cut.json").write_text('{"format": 1, "data')
    (folder / "foreign.json").write_text('{"packages": []}')
    packed = records.pack(folder)
    assert packed.left == ["cell/cut.json", "foreign.json"]
    assert set(contents(folder)) == set(packed.left)
    warnings = results.load_runs(folder)[1]
    assert [text.split(":")[0] for text in warnings] == packed.left


def test_parquet_files_of_others_are_left_alone(folder):
    foreign = pandas.DataFrame({"a": [1]})
    foreign.to_parquet(folder.parent / "runs.parquet")
    assert len(results.load_runs(folder)[0]) == 7
    foreign.to_parquet(folder / "runs.parquet")
    assert len(results.load_runs(folder)[0]) == 7
    before = contents(folder)
    with pytest.raises(ValueError, match="is no table of records"):
        records.pack(folder)
    assert contents(folder) == before
    assert pandas.read_parquet(folder / "runs.parquet").equals(foreign)


@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_damaged_tables_are_named(damage, folder):
    records.pack(folder)
    path = folder / "runs.parquet"
    path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
    with pytest.raises(ValueError, match="runs.parquet: not readable"):
        results.load_runs(folder)


@pytest.mark.parametrize("lock", ["in-use.lock", "cell/adam.lock"])
def test_a_folder_in_use_is_not_packed(lock, folder):
    with files.claimed(folder / lock):
        with pytest.raises(ValueError, match="in use by another process"):
            records.pack(folder)
    assert len(contents(folder)) == 9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (records.pack, "`folder` must hold records"),
        (records.unpack, "`folder` must hold tables"),
        (lambda path: records.pack(path.parent, path), "`source` must hold"),
        (results.load_table, "must hold records of `table`.*table='runs'"),
        (
            lambda path: results.load_table(path, "run"),
            "`table` .*'trainings'.*Received.*'run'",
        ),
    ],
)
def test_errors(call, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        call(tmp_path / "missing")
    assert not list(tmp_path.iterdir())


# ---- Taking apart -----------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "returned"), [(records.unpack, (9, [])), (records.restore, 9)]
)
def test_a_half_written_file_gets_its_row(call, returned, folder):
    path = folder / "cell" / "adam-seed0.json"
    before = contents(folder)
    records.pack(folder)
    path.parent.mkdir()
    path.write_bytes(before["cell/adam-seed0.json"][:99])
    assert call(folder) == returned
    assert contents(folder) == before


def test_a_row_is_written_beside_another_file(folder, capsys):
    name = "cell/adam-seed0.json"
    row = (folder / name).read_bytes()
    records.pack(folder)
    run(accuracy=0.5).save(folder / name)
    changed = (folder / name).read_bytes()
    assert cli.main(["pack", "--undo", str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"another file was there; the table's: {name}.packed" in said
    assert said.endswith("9 files")
    assert (folder / name).read_bytes() == changed
    assert (folder / f"{name}.packed").read_bytes() == row
    assert not list(folder.rglob("*.parquet"))


def test_what_was_written_beside_is_returned(folder):
    records.pack(folder)
    run(accuracy=0.5).save(folder / "cell" / "adam-seed0.json")
    run("hybrid", 1).save(folder / "cell" / "hybrid-seed1.json")
    unpacked = records.unpack(folder)
    assert unpacked.files == 9
    assert unpacked.beside == [
        "cell/adam-seed0.json.packed",
        "cell/hybrid-seed1.json.packed",
    ]


def test_what_was_written_beside_before_stays(folder):
    path = folder / "cell" / "adam-seed0.json"
    first = path.read_bytes()
    for accuracy in (0.5, 0.6):
        records.pack(folder)
        run(accuracy=accuracy).save(path)
        beside = records.unpack(folder).beside
    assert beside == ["cell/adam-seed0.json.packed2"]
    assert (folder / "cell" / "adam-seed0.json.packed").read_bytes() == first


@pytest.mark.parametrize(
    ("path", "fields"), [(None, "[]"), (3, "[]"), ("x", "3"), ("x", "{")]
)
def test_a_damaged_table_is_named(path, fields, tmp_path):
    table = tmp_path / "runs.parquet"
    parquet.write_table(
        pyarrow.table({"path": [path], "fields": [fields]}), table
    )
    with pytest.raises(ValueError, match=r"runs\.parquet: not readable"):
        tables.Table(table)


@pytest.mark.parametrize("name", ["/x.json", "../x.json", "a/../../x.json"])
def test_a_row_outside_its_folder_is_refused(name, folder):
    table = folder / "runs.parquet"
    tables.write(table, {name: {"arm": "adam"}})
    for call in (tables.Table, lambda path: records.unpack(path.parent)):
        with pytest.raises(ValueError, match=r"runs\.parquet: not readable"):
            call(table)
    assert len(contents(folder)) == 9
    assert not (folder.parent / "x.json").exists()


def test_a_table_that_lacks_a_column_is_named(folder):
    records.pack(folder)
    path = folder / "runs.parquet"
    whole = parquet.read_table(path)
    parquet.write_table(whole.drop_columns(["status"]), path)
    with pytest.raises(ValueError, match=r"runs\.parquet.*no column status"):
        Run.load(folder / "cell" / "adam-seed0.json")
    with pytest.raises(ValueError, match="no column status"):
        records.unpack(folder)
    assert path.exists()


# ---- Folders ----------------------------------------------------------------


def named(paths):
    return sorted(path.name for path in paths)


def test_a_linked_folder_is_followed(folder, tmp_path):
    expected = named(records.below(folder))
    shutil.move(folder / "cell", tmp_path / "elsewhere")
    (folder / "cell").symlink_to(tmp_path / "elsewhere")
    assert named(records.below(folder)) == expected
    assert len(results.load_runs(folder)[0]) == 7


@pytest.mark.parametrize("name", ["alias", "zz", "b1"])
def test_a_folder_beside_a_link_to_it_keeps_its_name(name, folder):
    (folder / name).symlink_to(folder / "cell")
    paths = contents(folder)
    assert {folder / path for path in paths} < set(records.below(folder))
    assert records.pack(folder).added == 9
    assert all(records.exists(folder / path) for path in paths)
    assert records.exists(folder / name / "adam-seed0.json")
    assert records.unpack(folder) == (9, [])


def test_files_behind_a_link_are_not_packed(folder, tmp_path):
    there = contents(folder)
    shutil.copytree(folder / "cell", tmp_path / "elsewhere")
    (folder / "other").symlink_to(tmp_path / "elsewhere")
    packed = records.pack(folder)
    assert packed.added == 9
    assert "other/adam-seed0.json" in packed.left
    assert (tmp_path / "elsewhere" / "adam-seed0.json").exists()
    records.unpack(folder)
    assert there.items() <= contents(folder).items()


def test_a_link_that_leads_back_up_is_left(folder):
    expected = records.below(folder)
    (folder / "cell" / "up").symlink_to(folder)
    assert records.below(folder) == expected
    assert records.pack(folder).added == 9


@pytest.mark.parametrize("part", [".", "cell", "cell/tuning"])
def test_the_current_folder_may_lie_in_a_packed_one(part, folder, monkeypatch):
    expected = named((folder / part).rglob("*.json"))
    records.pack(folder)
    (folder / part).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder / part)
    found = records.below(Path("."))
    assert named(found) == expected
    assert all(map(records.exists, found))
    assert not any(path.is_absolute() for path in found)


def test_a_report_is_made_of_the_current_folder(folder, monkeypatch):
    records.pack(folder)
    (folder / "cell").mkdir()
    monkeypatch.chdir(folder / "cell")
    assert len(results.load_runs(".")[0]) == 7
    assert len(results.load_traces(".")[0]) == 1


def test_a_link_may_lead_into_a_packed_folder(folder, tmp_path):
    expected = named(records.below(folder))
    records.pack(folder)
    (folder / "cell").mkdir()
    link = tmp_path / "link"
    link.symlink_to(folder / "cell")
    found = records.below(link)
    assert named(found) == expected
    assert all(path.is_relative_to(link) for path in found)
    assert Run.load(link / "adam-seed1.json").seed == 1
    assert len(results.load_runs(link)[0]) == 7


@pytest.mark.parametrize("call", [records.below, records.pack])
def test_a_folder_that_may_not_be_read_is_named(call, folder, monkeypatch):
    closed, whole = folder / "cell", os.scandir

    def scandir(path):
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return whole(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        with pytest.raises(ValueError, match=f"{closed}: not readable"):
            call(folder)
    assert len(contents(folder)) == 9


def vanishing(monkeypatch, instead):
    """Tables are gone when they are read: another process was faster."""
    whole = tables.Table

    def gone(path):
        path.unlink(missing_ok=True)
        instead(path)
        return whole(path)

    monkeypatch.setattr(tables, "Table", gone)
    records._read.cache_clear()


def test_a_table_that_vanishes_has_no_rows(folder, monkeypatch):
    records.pack(folder)
    vanishing(monkeypatch, lambda path: None)
    assert not records.exists(folder / "cell" / "adam-seed0.json")
    assert records.below(folder) == []


def test_records_are_found_while_they_are_taken_apart(folder, monkeypatch):
    expected = records.below(folder)
    shutil.copytree(folder / "cell", folder.parent / "kept")
    records.pack(folder)
    vanishing(
        monkeypatch,
        lambda path: shutil.copytree(
            folder.parent / "kept", folder / "cell", dirs_exist_ok=True
        ),
    )
    assert records.below(folder) == expected


# ---- Damaged runs -----------------------------------------------------------


def change(path, **changes):
    """Changes fields of a record, and those of its configuration."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        inner = content if name in content else content["configuration"]
        inner[name] = value
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"test_loss": "x"}, "test_loss is no number"),
        ({"test_accuracy": math.nan}, "without test accuracy"),
        ({"test_accuracy": True}, "without test accuracy"),
        ({"regime": [1]}, r'configuration\["regime"\] is no text'),
        ({"regime": None}, r'configuration\["regime"\] is no text'),
        ({"tuned_learning_rate": "x"}, "tuned_learning_rate.* is no number"),
        ({"versions": {"keras_hybrid": 5}}, "versions has what is no text"),
    ],
)
def test_damaged_runs_are_skipped_by_name(changes, reason, folder):
    change(folder / "cell" / "adam-seed1.json", **changes)
    runs, (warning,) = results.load_runs(folder)
    assert len(runs) == 6
    assert re.match(f"cell/adam-seed1.json: skipped: .*{reason}", warning)


@pytest.mark.parametrize("changes", [{"regime": "x"}, {"test_loss": None}])
def test_whole_runs_are_not_skipped(changes, folder):
    change(folder / "cell" / "adam-seed1.json", **changes)
    assert len(results.load_runs(folder)[0]) == 7


@pytest.mark.parametrize("damage", ["{", '{"format": 1}'])
def test_a_trace_needs_one_run_that_is_whole(damage, folder):
    paths = sorted((folder / "cell").glob("*-seed*.json"))
    paths[0].write_text(damage)
    traces, warnings = results.load_traces(folder)
    assert ([cell.dataset for cell in traces], warnings) == (["mnist"], [])
    for path in paths:
        path.write_text(damage)
    traces, (warning,) = results.load_traces(folder)
    assert not traces
    assert warning.endswith("every run beside it is damaged")


# ---- For pandas -------------------------------------------------------------


def test_the_table_is_that_of_the_files(folder):
    loose = results.load_table(folder)
    traces = results.load_table(folder, "traces")
    records.pack(folder)
    packed = pandas.read_parquet(folder / "runs.parquet")
    pandas.testing.assert_frame_equal(packed, loose)
    pandas.testing.assert_frame_equal(results.load_table(folder), loose)
    assert list(traces["gamma"][0])[0] == 1.5
    reported = packed[packed["configuration.is_tuning"].isna()]
    means = reported.groupby("arm").test_accuracy.mean()
    runs, _ = results.load_runs(folder)
    for arm in ("adam", "hybrid"):
        of_arm = [
            found.test_accuracy
            for found in runs
            if found.arm == arm and found.status == "finished"
        ]
        assert means[arm] == pytest.approx(sum(of_arm) / 3, rel=1e-15)
    curves = packed.set_index("path")["history.val_accuracy"]
    assert list(curves["cell/adam-seed1.json"]) == [0.1, 0.2, 0.9 + 1 / 70]
    assert (
        json.loads(packed["configuration.optimizer"][0])
        == (runs[0].configuration["optimizer"])
    )


# ---- The command ------------------------------------------------------------


@pytest.mark.slow
def test_the_command_packs_reports_and_takes_apart(folder, tmp_path, capsys):
    assert cli.main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    before = contents(folder)
    assert cli.main(["pack", str(folder)]) == 0
    said = capsys.readouterr().out
    assert f'8 rows: pandas.read_parquet("{folder}/runs.parquet")' in said
    assert "9 records added" in said
    assert cli.main(["report", str(folder)]) == 0
    assert (folder / "report.html").read_text() == page
    onto = tmp_path / "onto"
    assert cli.main(["pack", "--source", str(folder), str(onto)]) == 0
    assert "9 records added" in capsys.readouterr().out
    assert cli.main(["pack", "--undo", str(folder)]) == 0
    assert contents(folder) == before
    assert cli.main(["pack", str(tmp_path / "missing")]) == 2
    assert "must hold records" in capsys.readouterr().err


# ---- Searches, and what is committed ----------------------------------------


def test_a_search_reads_as_its_files_and_goes_on_from_them(tmp_path):
    source = RESULTS / "tune" / "mnist-mlp_small"
    folder = tmp_path / "mnist-mlp_small"
    shutil.copytree(source, folder)
    records.pack(tmp_path, RESULTS / "tune")
    assert not list(folder.glob("trial_*"))
    packed = search.load(folder)
    assert len(packed.trials) == 15
    assert {len(trial.runs) for trial in packed.trials} == {3}
    assert set(packed.references) == set(search.REFERENCES)
    # `study.search.prepare` does so before KerasTuner looks.
    assert records.restore(folder) > 60
    assert len(list(folder.glob("trial_*/trial.json"))) == 15
    shutil.move(tmp_path / "trainings.parquet", tmp_path / "away")
    assert repr(search.load(folder)) == repr(packed)


LOADERS = {
    "runs": Run.load,
    "traces": Trace.load,
    "curves": regret.Curve.load,
    "trainings": search.read_run,
}


@pytest.mark.parametrize(
    "path", sorted(RESULTS.rglob("*.parquet")), ids=lambda p: p.parent.name
)
def test_every_record_of_the_committed_tables_can_be_read(path):
    table = tables.Table(path)
    assert len(table)
    if path.stem == "trials":  # KerasTuner's own.
        assert all(table[name]["status"] == "COMPLETED" for name in table)
        return
    if path.stem == "tails":  # benchmarks/transformer.py's.
        assert all(table[name]["training_loss"] > 0 for name in table)
        return
    if path.stem == "cooldowns":  # benchmarks/cooldowns.py's.
        ends = [end for name in table for end in table[name]["tails"]]
        assert all(0 < end["accuracy"]["test"] < 1 for end in ends)
        return
    for name in table:
        LOADERS[path.stem](path.parent / name)


def test_committed_records_are_packed():
    """Else: `keras-hybrid pack` the folder."""
    for path in RESULTS.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        assert records.kind_of(content) is None, path


def test_what_the_page_of_the_records_says_runs(monkeypatch, capsys):
    monkeypatch.chdir(RESULTS.parent)
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile("".join(blocks), "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert re.search(r"cifar10 +good-fit +adamw +0\.\d+", said)
    epochs = sum(
        len(run.history["loss"])
        for run in results.load_runs(RESULTS / "study")[0]
        if run.arm == "sgd"
    )
    assert f"Name: history.val_accuracy, Length: {epochs}," in said


def test_records_far_below_their_table_are_not_lost(tmp_path):
    folder = tmp_path / "project"
    names = [f"{depth * 'a/'}seed0.json" for depth in (0, 1, 5, 9)]
    record = {"tail": "x", "history": {"loss": [1.0]}, "training_loss": 1.0}
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(record), encoding="utf-8")
    assert records.pack(folder).added == len(names)
    assert not list(folder.rglob("*.json"))
    assert not (folder / "a").exists()
    for name in names:
        assert records.exists(folder / name)
    assert records.unpack(folder) == (len(names), [])
    for name in names:
        text = (folder / name).read_text(encoding="utf-8")
        assert json.loads(text) == record
    assert not list(folder.rglob("*.parquet"))
