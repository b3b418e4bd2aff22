"""Hand-made records: the numbers, the words, and what may go wrong."""

import dataclasses
import errno
import html.parser
import io
import json
import math
import re
import shlex

import keras
import pytest
from rich.console import Console

from keras_hybrid import cli
from keras_hybrid._support import records
from keras_hybrid.reports import glance
from keras_hybrid.reports.study import (
    load_runs,
    markdown_table,
    print_table,
    summary,
    write_html,
    write_markdown,
)
from keras_hybrid.reports.study.words import Finding
from keras_hybrid.study.record import Run

EPOCHS = 3
LABELS = {
    "adam": ("Adam, cosine", "baseline"),
    "sgd": ("SGD, cosine", "baseline"),
    "control": ("Adam, same rates", "control"),
    "hybrid": ("Hybrid, hard", "hybrid"),
}


def make(arm, seed, test_accuracy, **changes):
    """A finished run; its validation accuracy ends at its test accuracy."""
    label, role = LABELS[arm]
    final = test_accuracy
    history = {
        "loss": [2.0, 1.0, 0.5],
        "accuracy": [0.5, 0.75, 1.0],
        "val_loss": [2.0, 1.5, 1.0],
        "val_accuracy": [final - 0.25, final, final],
        "seconds": [10.0, 20.0, 30.0],
    }
    if role != "baseline":
        history |= {
            "sgd_fraction": [0.0, 0.5, 1.0],
            "learning_rate": [0.001] * EPOCHS,
            "cooldown": [1.0, 0.5, 0.0],
            "sgd_learning_rate": [math.nan, 0.1, 0.05],
        }
    run = Run(
        dataset="mnist-5k",
        architecture="good-fit",
        arm=arm,
        seed=seed,
        epochs=EPOCHS,
        configuration={
            "role": role,
            "label": label,
            "optimizer": {"class_name": "HybridOptimizer"},
            "command": "keras-hybrid compare --output results",
        },
        versions={"keras": "3.15.1"},
        status="finished",
        history=history,
        switch_step=15 if role == "hybrid" else None,
        steps_per_epoch=10,
        test_loss=0.25,
        test_accuracy=test_accuracy,
    )
    return dataclasses.replace(run, **changes)


def make_diverged(arm, seed):
    history = {
        "loss": [2.0, math.nan],
        "accuracy": [0.5, 0.1],
        "val_loss": [2.0, math.nan],
        "val_accuracy": [0.5, 0.1],
        "seconds": [10.0, 20.0],
    }
    return dataclasses.replace(
        make(arm, seed, 0.5),
        status="diverged",
        history=history,
        test_loss=None,
        test_accuracy=None,
    )


def study():
    """Three seeds: Adam 0.50, SGD 0.60, control 0.62, hybrid 0.70 on average.

    The hybrid is over SGD by 0.09, 0.10, 0.11 and over the control by 0.07,
    0.08, 0.09.
    """
    return [
        make(arm, seed, accuracy)
        for arm, accuracies in {
            "hybrid": (0.69, 0.70, 0.71),
            "control": (0.62, 0.62, 0.62),
            "sgd": (0.60, 0.60, 0.60),
            "adam": (0.49, 0.50, 0.51),
        }.items()
        for seed, accuracy in enumerate(accuracies)
    ]


def row_of(runs, arm):
    (row,) = (row for row in summary(runs) if row.arm == arm)
    return row


def save(runs, folder):
    for run in runs:
        run.save(folder / run.dataset / f"{run.arm}-{run.seed}.json")


class Page(html.parser.HTMLParser):
    """Collects tags, attributes and visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of the study; drawing it takes a second."""
    return page_of(study(), tmp_path_factory.mktemp("study"))


def page_of(runs, tmp_path, warnings=()):
    path = tmp_path / "out" / "report.html"
    write_html(runs, path, warnings)
    return path.read_text(encoding="utf-8")


def words_of(runs, tmp_path):
    """The Markdown report, without its escapes."""
    write_markdown(runs, tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    return text.replace("\\", "")


def test_rows_are_baselines_then_control_then_hybrids():
    assert [row.arm for row in summary(study())] == [
        "sgd",
        "adam",
        "control",
        "hybrid",
    ]


def test_figures_of_a_hybrid():
    row = row_of(study(), "hybrid")
    assert str(row.cell) == "mnist-5k, good-fit, 3 epochs"
    assert row.seeds == (0, 1, 2)
    assert row.diverged == 0
    # s = 0.01, t = 4.30265: half = 0.01 * 4.30265 / sqrt(3) = 0.024841.
    assert row.test_accuracy == pytest.approx(
        (0.70, 0.675159, 0.724841), abs=1e-6
    )
    assert row.test_loss == (0.25, 0.25, 0.25)
    # The last training accuracy is 1: gaps 0.31, 0.30, 0.29.
    assert row.generalization_gap.mean == pytest.approx(0.30)
    # (a - 0.25 + a + a) / 3 = a - 0.25 / 3 with a = 0.7 on average.
    assert row.area_under_curve == pytest.approx(0.7 - 0.25 / 3)
    assert (row.switched, row.switch_step, row.switch_epoch) == (3, 15, 1.5)


def test_target_is_the_best_baselines_final_validation_accuracy():
    rows = {row.arm: row for row in summary(study())}
    assert rows["sgd"].is_best_baseline
    assert not rows["adam"].is_best_baseline
    assert all(r.target == pytest.approx(0.60) for r in rows.values())
    # Epoch 2 has 0.69 .. 0.71, epoch 1 only 0.44 .. 0.46.
    assert rows["hybrid"].epochs_to_target == 2
    assert rows["hybrid"].seconds_to_target == 20.0
    assert rows["hybrid"].reached == 3
    assert rows["adam"].reached == 0
    assert rows["adam"].epochs_to_target is None
    assert rows["adam"].seconds_to_target is None


def test_best_baseline_is_not_chosen_on_the_test_set():
    runs = [
        make("adam", 0, 0.5),
        dataclasses.replace(make("sgd", 0, 0.4), test_accuracy=0.9),
    ]
    assert row_of(runs, "adam").is_best_baseline


def test_a_survivor_is_not_the_best_baseline():
    runs = [make("adam", seed, 0.5) for seed in range(3)]
    runs += [make("sgd", 0, 0.9), make_diverged("sgd", 1)]
    runs += [make_diverged("sgd", 2)]
    assert row_of(runs, "adam").is_best_baseline
    assert row_of(runs, "adam").target == pytest.approx(0.5)


def test_the_training_accuracy_of_other_weights_is_not_theirs():
    kept = make("adam", 0, 0.5)
    restored = make("sgd", 0, 0.5, val_accuracy=0.6)
    rows = {row.arm: row for row in summary([kept, restored])}
    assert rows["adam"].train_accuracy == 1.0
    assert rows["adam"].generalization_gap.mean == pytest.approx(0.5)
    assert rows["sgd"].train_accuracy is None
    assert rows["sgd"].generalization_gap is None
    fit = Finding.of(list(rows.values())).fit
    assert fit == (
        "SGD, cosine ends at 60.00 % validation accuracy, with weights of an "
        "earlier epoch, or an average's."
    )


def test_a_training_accuracy_of_0_is_one():
    run = make("adam", 0, 0.5)
    history = {**run.history, "accuracy": [0.0, 0.0, 0.0]}
    rows = summary([dataclasses.replace(run, history=history)])
    assert "ends at 0.00 % training accuracy" in Finding.of(rows).fit


def test_differences_are_paired_and_adjusted():
    rows = {row.arm: row for row in summary(study())}
    against_control = rows["hybrid"].against_control
    assert against_control.reference == "Adam, same rates"
    assert against_control.paired.mean == pytest.approx(0.08)
    # t = 0.08 / (0.01 / sqrt(3)) = 13.8564, with 2 degrees of freedom
    # p = 1 - t / sqrt(t^2 + 2) = 1 - 13.8564 / sqrt(194) = 0.0051680.
    assert against_control.p_holm == pytest.approx(0.0051680, abs=1e-7)
    assert against_control.is_clear
    against_baseline = rows["hybrid"].against_baseline
    assert against_baseline.reference == "SGD, cosine"
    assert against_baseline.paired.mean == pytest.approx(0.10)
    # The control is over SGD by 0.02 in all seeds: no test, not counted.
    assert math.isnan(rows["control"].against_baseline.p_holm)
    assert against_baseline.p_holm == against_baseline.paired.p_value
    assert rows["control"].against_control is None
    assert rows["sgd"].against_baseline is None


def test_holm_counts_every_cell():
    other = [
        dataclasses.replace(run, architecture="over-fit") for run in study()
    ]
    hybrids = [r for r in summary(study() + other) if r.arm == "hybrid"]
    # Two equal p values: both times 2.
    assert [r.against_control.p_holm for r in hybrids] == pytest.approx(
        [2 * 0.0051680] * 2, abs=1e-6
    )


def test_numbers_in_the_markdown_table():
    lines = markdown_table(summary(study())).splitlines()
    assert len(lines) == 2 + 4
    header = [cell.strip() for cell in lines[0].split("|")[1:-1]]
    cells = [cell.strip() for cell in lines[-1].split("|")[1:-1]]
    entry = dict(zip(header, cells, strict=True))
    assert entry["Cell"] == "mnist-5k, good-fit, 3 epochs"
    assert entry["Arm"] == "Hybrid, hard"
    assert entry["Test accuracy, %"] == r"70.00 \[67.52, 72.48\]"
    assert entry["Minus control"].startswith(r"+8.00 \[+7.")
    assert entry["Minus best baseline"].startswith(r"+10.00 \[+9.")
    assert entry["Test loss"] == r"0.2500 \[0.2500, 0.2500\]"
    assert entry["Epochs used"] == "3.0"
    assert entry["Seconds used"] == "30.0"
    assert entry["Epochs to target"] == "2 (3 of 3)"
    assert entry["Seconds to target"] == "20.0"
    assert entry["Gap, points"] == r"30.00 \[27.52, 32.48\]"
    assert entry["Curve mean, %"] == "61.67"
    assert entry["Switch, epoch (step)"] == "1.5 (15)"
    assert entry["Seeds"] == "3"
    assert entry["Role"] == "hybrid"


@pytest.mark.parametrize("width", [60, 80, 160])
def test_terminal_table_keeps_names_and_numbers(width):
    stream = io.StringIO()
    print_table(summary(study()), Console(file=stream, width=width))
    text = stream.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    for part in ("Hybrid", "70.00", "+8.00", "used", "30.0", "mnist-5k"):
        assert part in text


def test_terminal_table_takes_names_literally():
    runs = [relabel(run, "[red]a[/red]") for run in study()]
    stream = io.StringIO()
    print_table(summary(runs), Console(file=stream, width=160))
    assert "[red]a[/red]" in stream.getvalue()


def test_files_come_back_as_runs(tmp_path):
    save(study(), tmp_path)
    runs, warnings = load_runs(tmp_path)
    assert warnings == []
    assert sorted((r.arm, r.seed) for r in runs) == sorted(
        (r.arm, r.seed) for r in study()
    )


def test_damaged_and_foreign_files_are_named_and_skipped(tmp_path):
    save([make("adam", 0, 0.5)], tmp_path)
    good = json.loads((tmp_path / "mnist-5k" / "adam-0.json").read_text())
    (tmp_path / "cut.json").write_text('{"format": 1, "dataset": "mn')
    (tmp_path / "foreign.json").write_text('{"packages": []}')
    (tmp_path / "list.json").write_text("[1, 2]")
    changes = {
        "role.json": {"configuration": {"label": "x"}},
        "label.json": {"configuration": {"role": "hybrid"}},
        "history.json": {"history": {"loss": 3}},
        "words.json": {"history": {"loss": ["low"]}},
        "epochs.json": {"history": {**good["history"], "seconds": [1.0]}},
        "infinite.json": {
            "history": {**good["history"], "val_accuracy": [None] * EPOCHS}
        },
        "untested.json": {"test_accuracy": None},
        "steps.json": {"steps_per_epoch": 0},
        "seed.json": {"seed": "0"},
        "versions.json": {"versions": None},
        "switch.json": {"switch_step": "now"},
        "name.json": {"arm": ["adam"]},
    }
    for name, change in changes.items():
        (tmp_path / name).write_text(json.dumps(good | change))
    runs, warnings = load_runs(tmp_path)
    assert [run.arm for run in runs] == ["adam"]
    skipped = {warning.split(": skipped: ")[0] for warning in warnings}
    assert skipped == {"cut.json", "foreign.json", "list.json", *changes}
    assert not any(str(tmp_path) in warning for warning in warnings)
    page = page_of(runs, tmp_path, warnings)
    assert "foreign.json" in page


def test_second_file_of_one_run_is_named(tmp_path):
    run = make("adam", 0, 0.5)
    run.save(tmp_path / "a.json")
    run.save(tmp_path / "b.json")
    runs, warnings = load_runs(tmp_path)
    assert len(runs) == 1
    assert warnings == ["b.json: skipped: the same run as a.json"]


def with_configuration(run, **changes):
    return dataclasses.replace(
        run, configuration={**run.configuration, **changes}
    )


def test_a_second_run_of_another_configuration_is_named(tmp_path):
    run = make("adam", 0, 0.5)
    run.save(tmp_path / "a.json")
    with_configuration(run, batch_size=128).save(tmp_path / "b.json")
    _, warnings = load_runs(tmp_path)
    assert warnings == [
        "b.json: skipped: another configuration of the run in a.json"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 512), ("images", {"train": 9}), ("cutout", 8)],
)
def test_arms_that_were_not_given_the_same_are_named(tmp_path, name, value):
    save(
        [
            make("adam", 0, 0.5),
            with_configuration(make("hybrid", 0, 0.5), **{name: value}),
        ],
        tmp_path,
    )
    runs, warnings = load_runs(tmp_path)
    assert len(runs) == 2
    (warning,) = warnings
    assert f"{name} is not the same in all runs" in warning
    assert str(value) in warning


def test_the_command_puts_warnings_into_both_reports(tmp_path, capsys):
    save(study(), tmp_path)
    (tmp_path / "bad.json").write_text("{")
    assert cli.main(["report", str(tmp_path)]) == 0
    assert "warning: bad.json: skipped" in capsys.readouterr().out
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "bad.json: skipped" in text.replace("\\", "")


@pytest.fixture
def pages(monkeypatch):
    """Where the command writes pages, which are not drawn."""
    paths = []
    monkeypatch.setattr(
        "keras_hybrid.reports.study.write_html",
        lambda runs, path, *rest: paths.append(path),
    )
    return paths


@pytest.mark.parametrize("name", ["[old]", "[/tmp]", "[bold]a[/bold]"])
def test_the_command_takes_any_name_of_a_folder(name, pages, tmp_path, capsys):
    save(study(), tmp_path / name)
    (tmp_path / name / "[red].json").write_text("{")
    assert cli.main(["report", str(tmp_path / name)]) == 0
    said = capsys.readouterr().out
    command = shlex.join(["keras-hybrid", "report", str(tmp_path / name)])
    assert f"Again from the records: {command}\n" in said
    assert "warning: [red].json: skipped" in said
    assert pages == [tmp_path / name / "report.html"]


def error_of(capsys, *command):
    """The one line in which a command says what is wrong."""
    assert cli.main(list(command)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("keras-hybrid: ")
    (line,) = said.err.splitlines()
    return line


def test_a_name_that_no_file_can_have_is_an_error(capsys):
    assert "a" * 300 in error_of(capsys, "report", "a" * 300)


def test_an_error_of_the_system_is_one_line(tmp_path, capsys, monkeypatch):
    def fail(*args):
        raise OSError(errno.EIO, "Input/output error", str(tmp_path))

    monkeypatch.setattr("keras_hybrid.reports.study.load_runs", fail)
    said = error_of(capsys, "report", str(tmp_path))
    assert f"Input/output error: {str(tmp_path)!r}" in said


def test_a_folder_of_searches_has_no_report_of_its_own(tmp_path, capsys):
    for name in ("b c", "d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "search.json").write_text("{}")
    said = error_of(capsys, "report", str(tmp_path))
    assert "holds 2 searches" in said
    command = ["keras-hybrid", "report", str(tmp_path / "b c")]
    assert shlex.join(command) in said
    assert not list(tmp_path.glob("report.*"))


def test_a_study_beside_searches_has_a_report(pages, tmp_path):
    save(study(), tmp_path)
    records.pack(tmp_path)
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "search.json").write_text("{}")
    assert cli.main(["report", str(tmp_path)]) == 0
    assert pages == [tmp_path / "report.html"]


def test_a_record_without_a_configuration_is_named(tmp_path):
    save(study(), tmp_path)
    dataclasses.replace(make("adam", 9, 0.5), configuration=None).save(
        tmp_path / "bad.json"
    )
    _, warnings = load_runs(tmp_path)
    (warning,) = warnings
    assert warning.startswith("bad.json: skipped: ")
    assert "configuration" in warning


def test_the_same_arm_of_an_earlier_version_is_not_another(tmp_path):
    runs = [make("adam", seed, 0.5) for seed in range(2)]
    optimizer = keras.saving.serialize_keras_object(keras.optimizers.Adam())
    texts = ("EarlyStopping(patience=5, wait=0)", "EarlyStopping(patience=5)")
    for i, run in enumerate(runs):
        changed = {"optimizer": optimizer, "callbacks": [texts[i]]}
        if i:
            changed |= {"checksum": "", "label_noise": 0.0}
        runs[i] = with_configuration(run, **changed)
    save(runs, tmp_path)
    assert load_runs(tmp_path)[1] == []


def test_seeds_with_different_configurations_are_named(tmp_path):
    runs = [make("adam", seed, 0.5) for seed in range(2)]
    changed = {**runs[1].configuration, "tuned_learning_rate": 64}
    save(
        [runs[0], dataclasses.replace(runs[1], configuration=changed)], tmp_path
    )
    _, warnings = load_runs(tmp_path)
    assert len(warnings) == 1
    assert "the configuration of 'adam'" in warnings[0]


def test_empty_folder_says_which_command_fills_it(tmp_path):
    with pytest.raises(ValueError, match="keras-hybrid compare --output") as e:
        load_runs(tmp_path)
    assert str(e.value).endswith(f"Received: folder={str(tmp_path)!r}")
    (tmp_path / "foreign.json").write_text("{}")
    with pytest.raises(ValueError, match=r"foreign\.json: skipped"):
        load_runs(tmp_path)
    with pytest.raises(ValueError, match="keras-hybrid compare"):
        load_runs(tmp_path / "missing")


def test_summary_refuses_what_it_cannot_report():
    with pytest.raises(ValueError, match=r"Received: runs=\[\]"):
        summary([])
    run = dataclasses.replace(make("adam", 0, 0.5), configuration={})
    with pytest.raises(ValueError, match="Received: arm='adam', seed=0"):
        summary([run])
    twice = [make("adam", 0, 0.5), make("adam", 0, 0.6)]
    with pytest.raises(ValueError, match="2 runs of 1 arms and seeds"):
        summary(twice)


def test_each_hybrid_has_its_own_control():
    ended = dict.fromkeys(("until_done", "until_done_control"))
    for arm, role in zip(ended, ("hybrid", "control"), strict=True):
        told = {**make("control", 0, 0.5).configuration, "role": role}
        ended[arm] = [
            dataclasses.replace(
                make("control", seed, 0.9), arm=arm, configuration=told
            )
            for seed in range(3)
        ]
    runs = [*study(), *ended["until_done"], *ended["until_done_control"]]
    assert row_of(runs, "hybrid").against_control.paired.mean == (
        pytest.approx(0.08)
    )
    assert row_of(runs, "until_done").against_control.paired.mean == 0


def test_the_weights_a_run_ends_with_reach_the_target():
    sgd, adam = make("sgd", 0, 0.6), make("adam", 0, 0.5)
    told = {**adam.configuration, "callbacks": ["EarlyStopping"]}
    adam = dataclasses.replace(adam, configuration=told, val_accuracy=0.65)
    row = row_of([sgd, adam], "adam")
    assert (row.target, row.reached) == (pytest.approx(0.65), 1)
    assert (row.epochs_to_target, row.seconds_to_target) == (3, 30.0)


def test_page_says_what_the_figures_mean(page):
    text = " ".join(Page(page).text.split())
    assert (
        "Highest mean test accuracy: Hybrid, hard (hybrid), "
        "70.00 [67.52, 72.48] %, seeds: 3." in text
    )
    assert "higher than control (+8.00 [" in text
    assert "higher than best baseline (+10.00 [" in text
    assert "Control: Adam, same rates. Best baseline: SGD, cosine." in text
    assert "keras-hybrid compare --output results" in text
    assert "keras 3.15.1" in text
    assert '"class_name": "HybridOptimizer"' in text


def test_difference_that_may_be_zero_is_not_clear(tmp_path):
    runs = [run for run in study() if run.arm != "hybrid"] + [
        make("hybrid", seed, accuracy)
        for seed, accuracy in enumerate((0.60, 0.62, 0.64))
    ]
    text = words_of(runs, tmp_path)
    assert "no clear difference from control (+0.00 [" in text


def test_interval_without_significance_is_not_clear(tmp_path):
    # 0.01, 0.03, 0.05 over the control: all above 0, so the bootstrap
    # excludes 0, but t = 0.03 / (0.02 / sqrt(3)) = 2.598 gives p = 0.12.
    runs = [run for run in study() if run.arm != "hybrid"] + [
        make("hybrid", seed, accuracy)
        for seed, accuracy in enumerate((0.63, 0.65, 0.67))
    ]
    difference = row_of(runs, "hybrid").against_control
    assert difference.paired.low > 0
    assert not difference.is_clear
    text = words_of(runs, tmp_path)
    assert "no clear difference from control (+3.00 [" in text
    assert "the interval excludes 0 but p is not below 0.05" in text


def test_page_loads_nothing(page):
    assert not re.search(r"(?i)https?://|url\((?!#)|@import|src=|//\w", page)
    parsed = Page(page)
    targets = [v for k, v in parsed.attributes if k in ("href", "xlink:href")]
    assert targets
    assert all(target.startswith("#") for target in targets)
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    ids = [v for k, v in parsed.attributes if k == "id"]
    assert len(ids) == len(set(ids))


def test_page_is_the_same_every_time(page, tmp_path):
    assert page_of(study(), tmp_path) == page


def test_page_has_every_figure_with_a_name(page):
    parsed = Page(page)
    names = [v for k, v in parsed.attributes if k == "aria-label"]
    assert [name.split(":")[0] for name in names] == [
        "Table",
        "Test accuracy of each seed",
        "Paired differences in test accuracy",
        "Validation accuracy",
        "Validation loss",
        "Training accuracy",
        "Training loss",
        "Fraction of SGD",
        "Learning rate with cool-down",
        "Equivalent SGD learning rate",
    ]
    # One title a figure and that of the page.
    assert parsed.tags.count("title") == parsed.tags.count("svg") + 1 == 10


def relabel(run, label, **changes):
    configuration = {**run.configuration, "label": label}
    return dataclasses.replace(run, configuration=configuration, **changes)


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        '"--><svg onload=alert(1)>',
        "$\\frac{$ | `x` [a](b)",
    ],
    ids=["script", "comment", "mathematics"],
)
def test_names_are_text_everywhere(tmp_path, name):
    runs = [
        relabel(run, name, dataset=name, arm=name + run.arm) for run in study()
    ]
    text = page_of(runs, tmp_path, [name])
    page = Page(text)
    assert "script" not in page.tags
    assert not any(k.startswith("on") for k, _ in page.attributes)
    assert name in page.text
    write_markdown(runs, tmp_path / "report.md", [name])
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<script" not in re.sub(r"\\<", "", markdown)
    header, _, *lines = markdown_table(summary(runs)).splitlines()
    for line in lines:
        assert len(re.findall(r"(?<!\\)\|", line)) == header.count("|")


def test_markdown_report_has_verdicts_table_and_warnings(tmp_path):
    path = tmp_path / "new" / "report.md"
    write_markdown(study(), path, ["bad.json: skipped: not readable"])
    text = path.read_text(encoding="utf-8")
    assert "- Hybrid, hard: higher than control (+8.00" in text
    assert markdown_table(summary(study())) in text
    assert "- bad.json: skipped: not readable" in text


@pytest.mark.parametrize(
    ("gain", "words", "level"),
    [
        (0.0, "equal in every seed to control (+0.00 [", True),
        (0.03125, "no interval, from control (+3.12 [", False),
    ],
)
def test_seeds_that_all_differ_by_the_same(gain, words, level, tmp_path):
    # Fractions of two, whose differences are exact.
    accuracies = 0.5, 0.625, 0.75
    runs = [
        make(arm, seed, accuracy + (arm == "hybrid") * gain)
        for seed, accuracy in enumerate(accuracies)
        for arm in ("hybrid", "control")
    ]
    assert words in words_of(runs, tmp_path)
    difference = row_of(runs, "hybrid").against_control
    assert glance.not_worse(difference) is level


def test_one_seed_has_no_interval(tmp_path):
    runs = [run for run in study() if run.seed == 0]
    row = row_of(runs, "hybrid")
    assert math.isnan(row.test_accuracy.low)
    table = markdown_table([row])
    assert r"69.00 \[–\]" in table
    assert r"+7.00 \[–\]" in table
    text = " ".join(Page(page_of(runs, tmp_path)).text.split())
    assert "one seed, so no interval, against control (+7.00 [–] po" in text
    assert "nan" not in text


def test_diverged_seed_is_counted_and_in_no_mean(tmp_path):
    runs = [
        make_diverged("hybrid", 2)
        if (run.arm, run.seed) == ("hybrid", 2)
        else run
        for run in study()
    ]
    row = row_of(runs, "hybrid")
    assert (row.diverged, row.seeds, row.reached) == (1, (0, 1, 2), 2)
    assert row.test_accuracy.mean == pytest.approx(0.695)
    assert row.against_control.paired.seeds == 2
    text = " ".join(Page(page_of(runs, tmp_path)).text.split())
    assert "Hybrid, hard (1 of 3 diverged)" in text
    assert "1 of 3 seeds without a pair" in text


def test_arm_of_which_every_seed_diverged(tmp_path):
    runs = [run for run in study() if run.arm != "hybrid"]
    runs += [make_diverged("hybrid", seed) for seed in range(3)]
    row = row_of(runs, "hybrid")
    assert row.test_accuracy is None
    assert row.against_control is None
    assert "| Hybrid, hard (3 of 3 diverged) | – |" in markdown_table([row])
    page_of(runs, tmp_path)


def test_every_run_diverged(tmp_path):
    runs = [make_diverged(arm, 0) for arm in LABELS]
    assert row_of(runs, "adam").target is None
    assert "Every run diverged." in page_of(runs, tmp_path)


def test_run_that_diverged_in_its_first_epoch(tmp_path):
    empty = dataclasses.replace(
        make_diverged("sgd", 3), history=dict.fromkeys(("loss", "val_loss"), [])
    )
    row = row_of([*study(), empty], "sgd")
    assert (row.diverged, len(row.seeds)) == (1, 4)
    page_of([*study(), empty], tmp_path)


def test_arm_that_lacks_a_seed():
    runs = [r for r in study() if (r.arm, r.seed) != ("control", 0)]
    paired = row_of(runs, "hybrid").against_control.paired
    # Seeds 1 and 2: 0.08 and 0.09.
    assert paired.seeds == 2
    assert paired.mean == pytest.approx(0.085)


def test_arms_without_a_common_seed_are_not_compared():
    runs = [r for r in study() if (r.arm == "control") == (r.seed == 0)]
    assert row_of(runs, "hybrid").against_control is None


def test_histories_without_the_hybrids_keys(tmp_path):
    runs = [run for run in study() if run.arm in ("adam", "sgd")]
    text = page_of(runs, tmp_path)
    assert "Fraction of SGD" not in text
    assert "Paired differences in test accuracy" not in text
    # A hybrid that was trained without SwitchCallback.
    keys = ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")
    bare = make("hybrid", 0, 0.7, switch_step=None)
    history = {key: bare.history[key] for key in keys}
    bare = dataclasses.replace(bare, history=history)
    assert "Fraction of SGD" not in page_of([*runs, bare], tmp_path)
    assert "| never |" in markdown_table([row_of([bare], "hybrid")])


def test_hybrid_without_baseline_has_no_target(tmp_path):
    runs = [make("hybrid", seed, 0.7) for seed in range(3)]
    row = row_of(runs, "hybrid")
    assert row.target is None
    assert row.against_baseline is None
    assert "no baseline, so no target" in page_of(runs, tmp_path)


def test_baselines_that_all_diverged_are_not_missing(tmp_path):
    runs = [make("hybrid", seed, 0.7) for seed in range(3)]
    runs += [make_diverged(arm, 0) for arm in ("adam", "sgd")]
    finding = Finding.of(summary(runs))
    assert finding.title == (
        "mnist-5k, good-fit, 3 epochs (every baseline diverged, so no target)"
    )
    assert finding.fit == "Every baseline diverged."
    text = words_of(runs, tmp_path)
    assert "every baseline diverged, so no target" in text
    assert "no baseline" not in text.lower()


@pytest.mark.slow
def test_cells_are_kept_apart(tmp_path):
    other = [
        dataclasses.replace(run, epochs=5, switch_step=None) for run in study()
    ]
    rows = summary(study() + other)
    assert [row.cell.epochs for row in rows] == [3] * 4 + [5] * 4
    assert Page(page_of(study() + other, tmp_path)).tags.count("svg") == 18
