"""The study: arms, cells, the tuning of learning rates, pieces of work."""

import json
import math
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from images import tiny_data
from small import ROOT

from keras_hybrid import HybridOptimizer, TrainUntilDone, cli
from keras_hybrid._support import files, processes, records
from keras_hybrid.reports import contrasts, glance, study
from keras_hybrid.reports.glance import not_worse
from keras_hybrid.study import (
    architectures,
    arms,
    campaign,
    cells,
    datasets,
    trace,
    tuning,
)
from keras_hybrid.study.record import Run
from keras_hybrid.study.runs import described, with_defaults
from keras_hybrid.study.trainer import Trainer, serialized

BUDGET = arms.Budget(10, 20)
EVERY_ARM = campaign.known_arms()


# ---- Arms -------------------------------------------------------------------


@pytest.mark.parametrize("name", arms.CEILING)
def test_arms_of_a_ceiling_begin_at_a_constant_rate(name):
    arm = arms.CEILING[name]
    optimizer, trigger = arm.make(BUDGET, 0.25)
    assert float(optimizer.learning_rate) == 0.25
    assert trigger is None
    ends_itself = arm.callbacks is not None
    assert ends_itself == (name != "adam_constant")
    if arm.role != "baseline":
        (callback,) = arm.callbacks()
        assert isinstance(callback, TrainUntilDone)
        # A run takes callbacks of its own.
        assert callback is not arm.callbacks()[0]
        assert optimizer.transition.end == (arm.role == "hybrid")


@pytest.mark.parametrize(
    "name", [n for n in EVERY_ARM if n not in arms.CEILING]
)
def test_every_arm_can_be_made_and_has_its_control(name):
    arm = EVERY_ARM[name]
    optimizer, trigger = arm.make(BUDGET, 0.25)
    assert arm.name == name
    rate = keras.optimizers.serialize(optimizer)["config"]["learning_rate"]
    if arm.role == "baseline":
        assert rate["config"]["initial_learning_rate"] == 0.25
        assert rate["config"]["decay_steps"] == 200
        assert trigger is None
        return
    assert rate == 0.25
    assert isinstance(optimizer, HybridOptimizer)
    assert optimizer.cooldown is not None
    # One of the two says when.
    assert (trigger is None) != (optimizer.trigger is None)
    if arm.role == "control":
        assert optimizer.transition.end == 0
        return
    if arm.control is None:
        assert name in arms.VARIANTS
        return
    control, its_trigger = EVERY_ARM[arm.control].make(BUDGET, 0.25)
    assert EVERY_ARM[arm.control].role == "control"
    times = 8 if name.startswith("decay8") else 1
    assert control.weight_decay == times * arms.ADAM_DECAY
    assert repr(trigger) == repr(its_trigger)
    assert repr(optimizer.trigger) == repr(control.trigger)
    assert repr(optimizer.cooldown) == repr(control.cooldown)
    assert optimizer.weight_decay == control.weight_decay


def test_callbacks_of_older_records_are_those_of_today():
    """They have what a callback counts, too: `earlier_epochs`, `wait`."""
    root = ROOT / "results" / "until-done" / "mnist-under-fit-defaults"
    paths = records.in_folder(root, "*-seed0.json")
    found = {}
    for path in paths:
        run = Run.load(path)
        recorded = with_defaults(run.configuration)["callbacks"]
        arm = EVERY_ARM[run.arm]
        made = [] if arm.callbacks is None else arm.callbacks()
        assert recorded == [described(callback) for callback in made]
        found[run.arm] = recorded
    assert found["until_done"] == [
        "TrainUntilDone(share=0.5, stop=True, verbose=0)"
    ]
    assert len(found) == 9
    # Of a callback that is not known here.
    configuration = {**run.configuration, "callbacks": ["Own(a=1, b=2)"]}
    assert with_defaults(configuration)["callbacks"] == ["Own(a=1, b=2)"]


@pytest.mark.parametrize("folder", ["study", "study-variants"])
def test_arms_mean_what_their_records_say(folder):
    """Whatever the library's defaults have become since."""
    root = ROOT / "results" / folder
    paths = records.in_folder(root / "mnist-under-fit", "*-seed0.json")
    assert paths
    for path in paths:
        run = Run.load(path)
        arm, told = EVERY_ARM[run.arm], run.configuration
        made, trigger = arm.make(
            arm.budget(run.epochs, run.steps_per_epoch),
            told["tuned_learning_rate"],
        )
        recorded = with_defaults(told)
        assert serialized(made) == recorded["optimizer"], run.arm
        when = None if trigger is None else serialized(trigger)
        assert when == recorded["trigger"], run.arm
        assert (arm.label, arm.role, arm.share, arm.control) == (
            *(told["label"], told["role"], told["share"], told["control"]),
        )


@pytest.mark.parametrize("name", arms.SLOTS)
def test_arms_of_the_slots_say_how_finely_rho_is_held(name):
    arm = arms.SLOTS[name]
    if arm.role == "control":
        assert arm.tuned_as == "slots"
        return
    optimizer, _ = arm.make(BUDGET, 0.25)
    scope = "variable" if "variable" in name else "unit"
    assert (optimizer.sgd_scale, optimizer.scale_scope) == ("slots", scope)
    assert EVERY_ARM[arm.tuned_as or name].tuned_as is None


@pytest.mark.parametrize("name", [n for n in EVERY_ARM if "@" in n])
def test_shortened_arms_are_tuned_as_a_whole_one(name):
    arm = EVERY_ARM[name]
    assert arm.budget(10, 20) == arms.Budget(7, 20)
    whole = EVERY_ARM[name.removesuffix("@70")]
    assert EVERY_ARM[arm.tuned_as].tuned_as is None
    assert arm.tuned_as == (whole.tuned_as or whole.name)
    if arm.control:
        assert EVERY_ARM[arm.control].share == arm.share


def test_a_fraction_is_neither_the_start_nor_the_end():
    assert [arms.Budget(4, 9).epoch(f) for f in (0.0, 0.5, 0.8, 1.0)] == [
        *(1, 2, 3, 3)
    ]


# ---- Tuning -----------------------------------------------------------------


def search(score, center=0):
    scores = {}
    while (place := tuning.next_place(scores, center)) is not None:
        assert place not in scores
        scores[place] = score(place)
    return scores


@pytest.mark.parametrize("best", range(-6, 7))
def test_the_best_learning_rate_is_found(best):
    scores = search(lambda place: -abs(place - best))
    found = tuning.best_place(scores)
    # To a quarter of a decade, half of one where the grid was widened.
    assert abs(found - best) <= (0 if abs(best) < 3 else 1)
    assert min(scores) < found < max(scores)
    assert len(scores) >= tuning.TRIALS - 1
    if abs(best) < 3:
        assert len(scores) <= tuning.TRIALS


def test_a_search_without_end_is_bounded():
    assert len(search(lambda place: place)) == 9


def test_diverged_trials_are_the_worst():
    scores = search(lambda place: -math.inf if place > -3 else place)
    assert tuning.best_place(scores) == -4


def test_learning_rates_have_two_digits():
    assert [tuning.learning_rate(p) for p in (-12, -11, -5, 0)] == [
        *(0.001, 0.0018, 0.056, 1.0)
    ]
    assert tuning.learning_rate(tuning.start(0.05)) == 0.056


# ---- Cells ------------------------------------------------------------------


def test_cells_cover_data_sets_and_regimes():
    found = {(cell.dataset, cell.regime) for cell in cells.CELLS.values()}
    assert found == {
        (dataset, regime)
        for dataset in ("mnist", "fashion_mnist", "cifar10")
        for regime in cells.REGIMES
    }


def test_ceilings_are_twice_what_the_cosine_gets():
    cell = cells.KNOWN["mnist-noisy"]
    tuned = cells.KNOWN["mnist-noisy-ceiling"]
    plain = cells.KNOWN["mnist-noisy-defaults"]
    assert tuned.epochs == plain.epochs == 2 * cell.epochs
    assert (tuned.untuned, plain.untuned) == (None, 1.0)
    assert tuned.arms == arms.DEFAULT_ARMS
    assert len(cells.UNTIL_DONE) == 2 * 11


@pytest.mark.parametrize("name", cells.KNOWN)
def test_cells_can_be_trained(name):
    cell = cells.KNOWN[name]
    assert cell.name == name
    assert cell.architecture in architectures.ARCHITECTURES
    assert set(cell.arms or ()) <= set(EVERY_ARM)
    # Each hybrid of a short list has its control in it.
    for arm in cell.arms or ():
        assert EVERY_ARM[arm].control in (None, *cell.arms)


def test_a_cell_may_be_too_dear_for_every_arm_and_seed(tmp_path):
    dear = cells.CELLS["cifar10-good-fit"]
    cheap = cells.CELLS["mnist-under-fit"]
    both = campaign.Plan([dear.name, cheap.name], None, 5, tmp_path, None)
    assert [arm.name for arm in both.arms_of(dear)] == list(dear.arms)
    assert [arm.name for arm in both.arms_of(cheap)] == list(arms.STUDY)
    assert (both.seeds_of(dear), both.seeds_of(cheap)) == (3, 5)
    # A name that is given is trained.
    named = both._replace(arms=["swats"], seeds=2)
    assert [arm.name for arm in named.arms_of(dear)] == ["swats"]
    assert named.seeds_of(dear) == 2
    assert both._replace(cells=[dear.name]).least_runs() == (
        4 * 3 + 4 * tuning.TRIALS
    )
    # Not tuned: nothing but the seeds.
    untuned = cells.KNOWN["cifar10-best"]
    assert untuned.untuned is not None
    assert both._replace(cells=[untuned.name]).least_runs() == 2 * 5
    tuned = len([arm for arm in arms.STUDY.values() if arm.tuned_as is None])
    assert both._replace(cells=[cheap.name]).least_runs() == (
        len(arms.STUDY) * 5 + tuned * tuning.TRIALS
    )


# ---- Pieces of work ---------------------------------------------------------

CELL = cells.Cell("tiny", "good-fit", "linear", None, 4, 16)
ARMS = ("sgd", "control", "hybrid", "hybrid@70")


@pytest.fixture
def tiny(monkeypatch):
    data = tiny_data()
    monkeypatch.setattr(datasets, "load", lambda *args, **kwargs: data)
    monkeypatch.setattr(cells, "CELLS", {CELL.name: CELL})
    monkeypatch.setattr(campaign, "KNOWN", {CELL.name: CELL})
    return data


def plan(folder, names=ARMS, seeds=2):
    return campaign.Plan([CELL.name], names, seeds, folder, None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        data = tiny_data()
        patch.setattr(datasets, "load", lambda *args, **kwargs: data)
        patch.setattr(campaign, "KNOWN", {CELL.name: CELL})
        campaign.run(plan(folder))
    return folder


@pytest.mark.slow
def test_a_study_tunes_then_trains_every_seed(finished):
    folder = finished / CELL.name
    runs = {path.stem: Run.load(path) for path in folder.glob("*.json")}
    assert set(runs) == {f"{arm}-seed{s}" for arm in ARMS for s in (0, 1)}
    trials = [Run.load(p) for p in (folder / "tuning").glob("hybrid-*.json")]
    assert len(trials) == runs["hybrid-seed0"].configuration["tuning_trials"]
    assert len(trials) >= tuning.TRIALS
    best = max(trials, key=lambda run: run.history["val_accuracy"][-1])
    for arm in ("hybrid-seed1", "hybrid@70-seed0"):
        chosen = runs[arm].configuration["tuned_learning_rate"]
        of_best = next(
            run.history["val_accuracy"][-1]
            for run in trials
            if math.isclose(
                run.history["learning_rate"][0], chosen, rel_tol=1e-5
            )
        )
        assert of_best == best.history["val_accuracy"][-1]
    # The test split is read once, by the reported seeds alone.
    assert all(run.test_accuracy is None for run in trials)
    assert {run.seed for run in trials} == {campaign.TUNING_SEED}
    assert all(run.test_accuracy is not None for run in runs.values())
    short = runs["hybrid@70-seed0"]
    assert short.status == "finished"
    assert len(short.history["loss"]) == 3
    assert short.epochs == 4
    assert not list(finished.rglob("*.npz"))


@pytest.mark.slow
def test_a_finished_study_repeats_nothing(tiny, finished, monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", lambda *a, **k: pytest.fail("fit"))
    campaign.run(plan(finished))


@pytest.mark.slow
def test_a_packed_study_goes_on(tiny, finished, tmp_path, monkeypatch):
    """From its table, and from files that came after it."""
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    late = folder / CELL.name / "hybrid-seed1.json"
    kept = late.read_bytes()
    late.unlink()
    records.pack(folder)
    whole = plan(folder)
    assert (whole.waiting(), plan(finished).waiting()) == (1, 0)
    assert whole.finished_runs() == plan(finished).finished_runs() - 1
    told = []
    campaign.run(whole, lambda cell, run: told.append(run))
    # The rest of its piece is read, the test split included.
    assert (whole.waiting(), late.exists()) == (0, True)
    assert [p.name for p in folder.rglob("*.json")] == [late.name]
    late.write_bytes(kept)
    monkeypatch.setattr(keras.Model, "fit", lambda *a, **k: pytest.fail("fit"))
    campaign.run(whole)
    assert records.pack(folder).added == 1
    campaign.run(whole)
    ours, theirs = study.load_runs(folder), study.load_runs(finished)
    assert ours == theirs


@pytest.mark.slow
def test_a_killed_study_goes_on(tiny, finished, tmp_path, monkeypatch):
    """Stops after some runs, and ends with the same records."""
    told = []

    def stop(cell, run):
        told.append(run)
        if len(told) == 4:
            raise KeyboardInterrupt

    names = ("hybrid", "hybrid@70")
    with pytest.raises(KeyboardInterrupt):
        campaign.run(plan(tmp_path, names), stop)
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert len(kept) == 4
    campaign.run(plan(tmp_path, names))
    for path, time in kept.items():
        assert path.stat().st_mtime_ns == time
    for name in ("hybrid-seed1", "hybrid@70-seed0"):
        one, other = (
            Run.load(folder / CELL.name / f"{name}.json")
            for folder in (tmp_path, finished)
        )
        assert one.test_loss == other.test_loss
        assert one.history["val_loss"] == other.history["val_loss"]


@pytest.mark.slow
def test_an_untuned_cell_has_a_factor_on_the_usual_rates(tmp_path, monkeypatch):
    data, cell = tiny_data(), CELL._replace(untuned=2.0, most_seeds=1)
    monkeypatch.setattr(datasets, "load", lambda *args, **kwargs: data)
    monkeypatch.setattr(campaign, "KNOWN", {CELL.name: cell})
    campaign.run(plan(tmp_path, ["sgd", "hybrid"]))
    found = {
        path.stem: Run.load(path).configuration
        for path in tmp_path.rglob("*.json")
    }
    assert set(found) == {"sgd-seed0", "hybrid-seed0"}
    for name, rate in (("sgd-seed0", 0.1), ("hybrid-seed0", 2e-3)):
        assert found[name]["tuned_learning_rate"] == pytest.approx(rate)
        assert found[name]["tuning_trials"] == 0


@pytest.mark.slow
def test_a_cell_may_cut_images_and_smooth_labels(tmp_path, monkeypatch):
    data = tiny_data()
    monkeypatch.setattr(datasets, "load", lambda *args, **kwargs: data)
    runs = []
    for name, changes in (
        ("plain", {}),
        ("cut", {"cutout": 4}),
        ("smooth", {"label_smoothing": 0.1}),
    ):
        cell = CELL._replace(untuned=1.0, most_seeds=1, **changes)
        monkeypatch.setattr(campaign, "KNOWN", {CELL.name: cell})
        campaign.run(plan(tmp_path / name, ["control"]))
        run = Run.load(tmp_path / name / CELL.name / "control-seed0.json")
        assert run.configuration["cutout"] == cell.cutout
        assert run.configuration["label_smoothing"] == cell.label_smoothing
        runs.append(run)
    assert len({run.test_loss for run in runs}) == 3


@pytest.mark.slow
def test_a_locked_piece_is_left_to_its_process(
    tiny, tmp_path, monkeypatch, capsys
):
    code = (
        "import sys; from pathlib import Path\n"
        "from keras_hybrid._support import files\n"
        "with files.claimed(Path(sys.argv[1])) as ours:\n"
        "    print(ours, flush=True); sys.stdin.read()"
    )
    lock = tmp_path / CELL.name / "sgd.lock"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as holder:
        assert holder.stdout.readline().strip() == b"True"
        campaign.run(plan(tmp_path, ["sgd"]))
        assert not list(tmp_path.rglob("*.json"))
        # There is nothing to report yet.
        monkeypatch.setattr(processes, "run_copies", lambda *args: None)
        command = f"study --cells {CELL.name} --arms sgd --seeds 2 --output"
        assert cli.main([*command.split(), str(tmp_path)]) == 0
        assert "2 runs are left to it" in capsys.readouterr().out
        holder.kill()
    with files.claimed(lock) as is_ours:
        assert is_ours


@pytest.mark.slow
def test_the_report_leaves_tuning_out_and_compares_equal_shares(finished):
    runs, warnings = study.load_runs(finished)
    assert not warnings
    assert len(runs) == 8
    rows = {row.arm: row for row in study.summary(runs)}
    assert rows["hybrid"].cell.regime == "good-fit"
    assert (
        rows["hybrid"].against_control.reference == arms.STUDY["control"].label
    )
    # The control at 70 % has not been trained: no other stands in for it.
    assert rows["hybrid@70"].against_control is None
    assert rows["hybrid@70"].against_baseline is not None
    assert rows["hybrid@70"].tuning_trials == 0
    assert rows["hybrid"].tuning_trials >= tuning.TRIALS


RECORDED = "mnist-under-fit"


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Two seeds of a cell of the study, with which there is nothing to do."""
    monkeypatch.setattr(datasets, "load", lambda *a, **k: pytest.fail("load"))
    for seed in range(2):
        name = f"{RECORDED}/hybrid-seed{seed}.json"
        files.write_json(
            tmp_path / name, records._row(ROOT / "results" / "study" / name)
        )
    made = campaign.Plan([RECORDED], ["hybrid"], 2, tmp_path, None)
    campaign.run(made)
    return made


@pytest.mark.parametrize("folder", ["best", "study", "study-variants"])
def test_committed_records_are_of_their_cells(folder):
    """Else the command that made them would refuse them."""
    paths = records.below(ROOT / "results" / folder)
    found = [path for path in paths if "-seed" in path.name]
    assert found
    for path in found:
        assert campaign._is_finished(cells.KNOWN[path.parent.name], [path])


@pytest.mark.parametrize("damage", ["", '{"format": 1', '{"format": 99}'])
def test_a_damaged_record_of_a_finished_study_is_named(recorded, damage):
    path = recorded.output / RECORDED / "hybrid-seed1.json"
    path.write_text(damage)
    with pytest.raises(ValueError, match="hybrid-seed1.json.*Remove.* again"):
        campaign.run(recorded)
    assert path.read_text() == damage


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("field", "value"), [("batch_size", 64), ("cutout", 8), ("epochs", 9)]
)
def test_a_finished_study_of_another_cell_is_refused(
    recorded, field, value, packed
):
    path = recorded.output / RECORDED / "hybrid-seed1.json"
    content = json.loads(path.read_text())
    changed = content if field in content else content["configuration"]
    changed[field] = value
    path.write_text(json.dumps(content))
    if packed:
        records.pack(recorded.output)
    with pytest.raises(
        ValueError, match=rf"seed1.json is of another configuration \({field}\)"
    ) as error:
        campaign.run(recorded)
    assert ("pack --undo" in str(error.value)) is packed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": ["mnist-fit"]}, "`cells`.*mnist-good-fit.*Received"),
        ({"arms": ["adma"]}, "`arms`.*'adamw'.*Received.*adma"),
        ({"seeds": 0}, "seeds=0"),
        ({"arms": []}, "at least one each.*arms=\\[\\]"),
        ({"cells": []}, "at least one each.*cells=\\[\\]"),
    ],
)
def test_errors_name_the_choices(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plan(tmp_path)._replace(
            **{"cells": ["mnist-good-fit"], **changes}
        ).check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cells", "mnits"], "mnits"),
        (["--arms", "sgd,foo"], "foo"),
        (["--seeds", "0"], "seeds=0"),
        (["--workers", "0"], "workers=0"),
    ],
)
def test_command_line_errors(arguments, message, tmp_path, capsys):
    command = ["study", "--output", str(tmp_path / "out"), *arguments]
    assert cli.main(command) == 2
    assert message in capsys.readouterr().err


def test_processes_end_with_the_error_of_one(tmp_path):
    code = "import sys; sys.exit(2)"
    with pytest.raises(ValueError, match="error above.*workers=2"):
        processes.run_copies([sys.executable, "-c", code], 2)


@pytest.mark.slow
def test_a_process_that_dies_is_started_again(tmp_path):
    code = (
        "import os, pathlib, sys; p = pathlib.Path(sys.argv[1])\n"
        "if not p.exists(): p.touch(); os.kill(os.getpid(), 9)\n"
    )
    mark = tmp_path / "mark"
    processes.run_copies([sys.executable, "-c", code, str(mark)], 1)
    assert mark.exists()
    with pytest.raises(ValueError, match="have died 4 times"):
        processes.run_copies(
            [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], 1
        )


# ---- At a glance ------------------------------------------------------------


def write(folder, dataset, arm, role, accuracies, share=1.0, version=None):
    for seed, accuracy in enumerate(accuracies):
        run = Run(
            dataset=dataset,
            architecture="mlp",
            arm=arm,
            seed=seed,
            epochs=2,
            configuration={
                "role": role,
                "label": arm,
                "regime": "good-fit",
                "share": share,
                "control": "control" if role == "hybrid" else None,
            },
            versions={} if version is None else {"keras_hybrid": version},
            status="finished",
            history={
                name: [0.5, accuracy]
                for name in ("loss", "accuracy", "val_loss", "val_accuracy")
            }
            | {"seconds": [1.0, 2.0]},
            switch_step=None,
            steps_per_epoch=10,
            test_loss=0.1,
            test_accuracy=accuracy,
        )
        run.save(folder / dataset / f"{arm}-seed{seed}.json")


def test_the_glance_says_where_it_helps(tmp_path):
    base = np.array([0.90, 0.91, 0.92, 0.93, 0.94])
    noise = np.array([0.0, 0.001, -0.001, 0.0005, -0.0005])
    for dataset, gain in (("a", 0.02), ("b", -0.02)):
        write(tmp_path, dataset, "sgd", "baseline", base)
        write(tmp_path, dataset, "control", "control", base)
        write(tmp_path, dataset, "hybrid", "hybrid", base + gain + noise)
        write(tmp_path, dataset, "hybrid@70", "hybrid", base, 0.7)
    runs, _ = study.load_runs(tmp_path)
    rows = study.summary(runs)
    page, table = tmp_path / "r.html", tmp_path / "r.md"
    study.write_html(runs, page)
    study.write_markdown(runs, table)
    for text in (page.read_text(), table.read_text()):
        assert "▲ +2.00" in text
        assert "▼ -2.00" in text
        assert "points in 1 of 2 cells; clearly above the best" in text
        assert "with all epochs in 2 of 2 cells" in text
        assert "2 comparisons 1 clearly higher, 1 clearly lower" in text
    worse = {
        row.cell.dataset: not_worse(row.against_control)
        for row in rows
        if row.arm == "hybrid"
    }
    assert worse == {"a": True, "b": False}


def test_tables_say_which_version_made_which(tmp_path):
    for dataset in ("a", "b"):
        write(tmp_path, dataset, "sgd", "baseline", [0.9, 0.91])
        write(tmp_path, dataset, "old", "hybrid", [0.9, 0.91], version="1")
        write(tmp_path, dataset, "unknown", "hybrid", [0.9, 0.91])
    rows = study.summary(study.load_runs(tmp_path)[0])
    table, _ = glance.tables(rows)
    assert list(table.rows) == ["old", "unknown"]
    write(tmp_path, "b", "new", "hybrid", [0.9, 0.91], version="2")
    rows = study.summary(study.load_runs(tmp_path)[0])
    table, _ = glance.tables(rows)
    assert list(table.rows) == ["new (2)", "old (1)", "unknown"]
    versions = {row.arm: row.versions for row in rows}
    assert (versions["old"], versions["unknown"]) == (("1",), ())
    assert study.markdown_table(rows).count("| 1 |") == 2


def test_a_contrast_counts_each_cell_alike(tmp_path):
    base = np.array([0.90, 0.91, 0.92, 0.93, 0.94])
    noise = np.array([0.0, 0.001, -0.001, 0.0005, -0.0005])
    write(tmp_path, "a", "fine", "hybrid", base + 0.02 + noise, version="2")
    write(tmp_path, "a", "coarse", "hybrid", base, version="1")
    write(tmp_path, "b", "fine", "hybrid", (base - 0.01 + noise)[:3])
    write(tmp_path, "b", "coarse", "hybrid", base)
    write(tmp_path, "c", "fine", "hybrid", base)
    runs, _ = study.load_runs(tmp_path)
    found = contrasts.contrast(runs, "fine", "coarse")
    assert [cell.dataset for cell in found.cells] == ["a", "b"]
    assert found.mean.mean == pytest.approx((0.02 - 0.01) / 2)
    assert found.mean.low < found.mean.mean < found.mean.high
    assert (found.clearly(1), found.clearly(-1)) == (1, 1)
    first, second = (cell.difference for cell in found.cells.values())
    assert second.paired.seeds == 3
    # Of two cells: the smaller p twice, the larger as it is.
    assert first.p_holm == pytest.approx(2 * first.paired.p_value)
    assert second.p_holm == pytest.approx(second.paired.p_value)
    text = contrasts.markdown(found)
    assert "1, clearly lower in 1 of 2 cells" in text
    assert "▲ +2.00" in text
    assert "| 2, 1 |" in text
    assert "| mean of 2 | +0.500 |" in text
    assert contrasts.contrast(runs, "fine", "finest") is None
    with pytest.raises(ValueError, match="one run of an arm and seed"):
        contrasts.contrast([*runs, runs[0]], "fine", "coarse")


def test_a_contrast_that_was_looked_at_before_has_a_larger_p(tmp_path):
    base = np.array([0.90, 0.91, 0.92, 0.93, 0.94])
    for cell, shift in (("a", [5, 1, 2, 3, 9]), ("b", [1, -2, 1, 3, -1])):
        write(tmp_path, cell, "new", "hybrid", base + np.array(shift) / 1000)
        write(tmp_path, cell, "old", "hybrid", base)
    runs, _ = study.load_runs(tmp_path)
    once, thrice = (
        [
            cell.difference
            for cell in contrasts.contrast(
                runs, "new", "old", looks
            ).cells.values()
        ]
        for looks in (1, 3)
    )
    assert 0.02 < once[0].p_holm < 0.1
    assert thrice[0].p_holm == pytest.approx(3 * once[0].p_holm)
    assert once[1].p_holm > 1 / 3
    assert thrice[1].p_holm == 1.0
    assert [each.paired for each in once] == [each.paired for each in thrice]


def test_no_loss_takes_both_intervals(tmp_path):
    base = np.full(5, 0.9)
    difference = np.array([-0.0014, 0.0008, -0.0002, 0.0006, 0.0009])
    write(tmp_path, "a", "control", "control", base)
    write(tmp_path, "a", "hybrid", "hybrid", base + difference)
    runs, _ = study.load_runs(tmp_path)
    (row,) = (row for row in study.summary(runs) if row.arm == "hybrid")
    low, t_low = (
        row.against_control.paired.low,
        row.against_control.paired.t_low,
    )
    assert t_low < -0.001 < low
    assert not not_worse(row.against_control)


def test_a_control_that_was_not_run_is_not_claimed(tmp_path):
    for dataset in ("a", "b"):
        write(tmp_path, dataset, "sgd", "baseline", [0.9, 0.91])
        write(tmp_path, dataset, "hybrid", "hybrid", [0.9, 0.91])
    runs, _ = study.load_runs(tmp_path)
    (sentence,) = glance.sentences(study.summary(runs))
    assert "not worse" not in sentence
    assert "clearly above the best baseline in 0" in sentence


def test_an_untuned_learning_rate_is_not_shown_as_tuned():
    root = ROOT / "results" / "best"
    runs, _ = study.load_runs(root)
    rows = study.summary(runs)
    assert {row.learning_rate for row in rows} == {None}
    found = contrasts.contrast(runs, "control", "hybrid")
    rates = [of_cell.learning_rates for of_cell in found.cells.values()]
    assert rates
    assert set(rates) == {(None, None)}
    tuned, _ = study.load_runs(ROOT / "results" / "study")
    found = contrasts.contrast(tuned, "control", "hybrid")
    for of_cell in found.cells.values():
        assert None not in of_cell.learning_rates


def test_one_control_does_not_stand_in_for_another(tmp_path):
    write(tmp_path, "a", "sgd", "baseline", [0.9, 0.91])
    write(tmp_path, "a", "other_control", "control", [0.9, 0.91])
    write(tmp_path, "a", "hybrid", "hybrid", [0.9, 0.91])
    runs, _ = study.load_runs(tmp_path)
    (row,) = (r for r in study.summary(runs) if r.arm == "hybrid")
    assert row.against_control is None


def test_records_keep_lists_of_numbers_on_one_line(tmp_path):
    path = tmp_path / "x.json"
    content = {
        "a": [1.5, 2],
        "b": ["x", "y, [ 1 ]"],
        "c": [{"d": [1]}],
        "e": [],
    }
    files.write_json(path, content)
    assert json.loads(path.read_text()) == content
    assert "[ 1.5, 2 ]" in path.read_text()


# ---- The projection, update by update ---------------------------------------


@pytest.fixture(scope="module")
def traced():
    data = tiny_data()
    arm = arms.STUDY["projection"]
    return trace.record(Trainer(data, "linear"), arm, 0.01, 60, 32)


@pytest.mark.slow
def test_a_trace_has_the_papers_gamma_and_its_average(traced):
    """Lambda and gamma of the first updates from the formula in float64."""
    data, arm = tiny_data(), arms.STUDY["projection"]
    budget = arms.Budget(60, 3)
    made = arm.make(budget, 0.01)
    model = Trainer(data, "linear", most_steps=1).start(made, 0, 3)
    kernel, bias = (v.numpy().astype("float64") for v in model.weights)
    pipeline, _ = datasets.training_pipeline(data, 32, 0, 0, 2)
    m, v = np.zeros(len(kernel.flat) + 3), 0.0
    total = 0.0
    weights = np.concatenate([kernel.ravel(), bias])
    for k, (x, y) in enumerate(pipeline.as_numpy_iterator(), start=1):
        x = x.reshape(len(x), -1).astype("float64")
        logits = x @ weights[:-3].reshape(kernel.shape) + weights[-3:]
        odds = np.exp(logits - logits.max(1, keepdims=True))
        wrong = odds / odds.sum(1, keepdims=True) - np.eye(3)[y]
        wrong /= len(x)
        g = np.concatenate([(x.T @ wrong).ravel(), wrong.sum(0)])
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        p = -np.sqrt(1 - 0.999**k) / (1 - 0.9**k) * m / (np.sqrt(v) + 1e-7)
        gamma = p @ p / -(p @ g)
        total = 0.999 * total + 0.001 * gamma
        assert traced.gamma[k - 1] == pytest.approx(gamma, rel=2e-3)
        expected = total / (1 - 0.999**k)
        assert traced.projection[k - 1] == pytest.approx(expected, rel=2e-3)
        weights = weights + 0.01 * p - 0.01 * arms.ADAM_DECAY * weights
    assert k == 6


@pytest.mark.slow
def test_a_trace_ends_where_sgd_begins(traced):
    # At the latest at 0.8 of 60 epochs of 3 updates.
    assert len(traced.gamma) == 180
    assert traced.switch is not None
    assert traced.switch <= 144
    assert math.isfinite(traced.gamma[traced.switch - 1])
    assert math.isnan(traced.gamma[traced.switch])
    assert traced.sgd_fraction[traced.switch] == 1


@pytest.mark.slow
def test_traces_are_drawn_and_damaged_ones_named(traced, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "study")
    path = tmp_path / "study" / CELL.name / "traces" / "projection.json"
    traced.save(path)
    assert trace.Trace.load(path).switch == traced.switch
    assert cli.main(["report", str(tmp_path / "study")]) == 0
    page = tmp_path / "study" / "report.html"
    assert "gamma of each update" in page.read_text()
    path.write_text("{")
    assert cli.main(["report", str(tmp_path / "study")]) == 0
    assert "projection.json: skipped" in page.read_text()
