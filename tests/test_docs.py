"""README, docstrings and examples do what they say."""

import configparser
import doctest
import importlib
import json
import os
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_hybrid
from keras_hybrid import cli
from keras_hybrid.reports import glance, study
from keras_hybrid.study import arms, regret
from keras_hybrid.study.record import Run
from keras_hybrid.study.summary import load_runs, summary

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(
        keras_hybrid.__path__, "keras_hybrid."
    )
]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
# Devices are configured before TensorFlow starts.
IN_A_PROCESS = {"mirrored", "multi_worker"}


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_the_modules_with_examples_are_found():
    finder = doctest.DocTestFinder()
    counts = {
        name: sum(
            len(test.examples)
            for test in finder.find(importlib.import_module(name))
        )
        for name in MODULES
    }
    for name in ("optimizer.hybrid", "presets", "transitions", "triggers.step"):
        assert counts[f"keras_hybrid.{name}"] > 0


def test_readme_python_blocks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "compare-results" / "report.html").exists()
    # 512 images in batches of 32, six epochs, a switch after three.
    said = capsys.readouterr().out
    assert "Switched to SGD" in said
    assert "Done in epoch" in said


def test_readme_commands_exist():
    commands = re.findall(
        r"keras-hybrid +(?:compare|tune|report)[^`\n&]*", README
    )
    assert commands
    parser = cli._parser()
    known = {
        option
        for action in parser._subparsers._group_actions
        for sub in action.choices.values()
        for option in sub._option_string_actions
    }
    for command in commands:
        for word in shlex.split(command.replace("[", " ").replace("]", " ")):
            if word.startswith("--"):
                assert word in known, command


def test_readme_names_every_example():
    named = re.findall(r"`(\w+)\.py`", README)
    assert set(EXAMPLES) <= set(named)


def test_readme_gives_the_two_commands_that_ci_runs():
    assert 'pip install -e ".[all]" && keras-hybrid compare' in README
    command = 'pip install -e ".[all,test]" && pytest'
    assert command in README.splitlines()


def test_extras_are_what_the_issue_of_set_up_promises():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    assert {"tuner", "study", "test", "dev", "all"} <= set(extras)


def test_readme_has_the_table_of_the_recipes():
    table = runpy.run_path(str(ROOT / "tuning" / "table.py"))["table"]()
    assert table in README


def test_readme_has_the_table_of_speed():
    path = ROOT / "benchmarks" / "speed_table.py"
    assert runpy.run_path(str(path))["table"]() in README


def test_readme_has_the_figures_of_the_forked_search():
    path = ROOT / "benchmarks" / "forked_search.json"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for name, results in cells.items():
        for kind, result in results.items():
            epochs = f"{result['epochs']} ({result['epochs_ratio']:.0%})"
            seconds = f"{result['seconds']:.0f} ({result['seconds_ratio']:.0%})"
            cells_of_row = (name, kind, epochs, seconds, result["winner"])
            assert f"| {' | '.join(cells_of_row)} |" in README
        assert all(result["identical_scores"] for result in results.values())


def test_readme_has_the_study_of_the_records():
    runs, warnings = study.load_runs(ROOT / "results" / "study")
    assert not warnings
    rows = study.summary(runs)
    for table in glance.tables(rows):
        assert study.markdown_glance(table) in README
    for sentence in glance.headline(rows):
        assert sentence in README.replace("\n", " ")


CHOSEN_ON = (
    "mnist-under-fit",
    "fashion_mnist-over-fit",
    "fashion_mnist-good-fit",
)
CONFIRMED_ON = ("mnist-over-fit", "fashion_mnist-under-fit", "mnist-good-fit")


def change(folder, cell, arm, score):
    """Points above the hybrid, seed by seed: mean and standard error."""
    pairs = []
    for seed in range(5):
        path = ROOT / "results" / folder / cell / f"{arm}-seed{seed}.json"
        if not path.exists():
            return "–"
        hybrid = ROOT / "results" / "study" / cell / f"hybrid-seed{seed}.json"
        pairs.append([score(Run.load(p)) for p in (path, hybrid)])
    differences = 100 * np.subtract(*np.transpose(pairs))
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return f"{differences.mean():+.2f} ± {error:.2f}"


def change_row(arm):
    """One row of README's table of what was tried to make it better."""
    label, chosen, confirmed = "the control", "study", "study"
    if arm != "control":
        label = arms.VARIANTS[arm].label
        chosen, confirmed = "study-variants", "study-confirm"
    entries = [
        change(folder, cell, arm, score)
        for folder, of_cells, score in (
            (chosen, CHOSEN_ON, lambda run: run.history["val_accuracy"][-1]),
            (confirmed, CONFIRMED_ON, lambda run: run.test_accuracy),
        )
        for cell in of_cells
    ]
    return f"| {label} | {' | '.join(entries)} |"


@pytest.mark.parametrize(
    "arm",
    [
        *("x2", "x4", "norm", "momentum", "momentum_x2"),
        *("at80", "momentum_at80", "control_at80", "control"),
    ],
)
def test_readme_has_the_changes_of_the_records(arm):
    assert change_row(arm) in README


@pytest.mark.parametrize(
    ("folder", "arm"),
    [
        *(("best/mnist-best", arm) for arm in ("hybrid", "control")),
        *(("best/cifar10-best", arm) for arm in ("hybrid", "decay4")),
        ("best/cifar10-regularized", "decay8"),
        ("best/cifar10-regularized", "control_decay8"),
        ("best/cifar10-long", "decay8_at20"),
        ("best/cifar10-long", "control_decay8_at20"),
        ("best/cifar10-longer", "decay8_at20"),
        ("best/cifar10-longer", "control_decay8_at20"),
    ],
)
def test_readme_has_the_untuned_runs_of_the_records(folder, arm):
    paths = (ROOT / "results" / folder).glob(f"{arm}-seed*.json")
    scores = np.array([100 * Run.load(path).test_accuracy for path in paths])
    entry = f"{scores.mean():.2f}"
    if len(scores) > 1:
        entry += f" ({scores.min():.2f} to {scores.max():.2f})"
    assert f"| {len(scores)} | {entry} |" in README


@pytest.mark.slow
# The one on JAX needs a process of its own too: test_backends.py runs it.
@pytest.mark.parametrize(
    "name",
    sorted(set(EXAMPLES) - IN_A_PROCESS - {"data_parallel_jax", "imagenet"}),
)
def test_examples_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    policy = keras.mixed_precision.global_policy()
    try:
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), {}, "__main__")
    finally:
        keras.mixed_precision.set_global_policy(policy)
    assert capsys.readouterr().out


def test_the_imagenet_example_says_what_it_lacks(tmp_path, monkeypatch, capsys):
    arguments = ["--data-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["imagenet.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "examples" / "imagenet.py"), {}, "__main__")
    assert stopped.value.code == 2
    assert "ILSVRC2012_img_train.tar" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(IN_A_PROCESS))
def test_examples_of_several_devices_run(name, tmp_path):
    process = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    ends = [x for x in process.stdout.splitlines() if "SGD since" in x]
    assert len(ends) == (2 if name == "multi_worker" else 1)
    assert len({end.strip() for end in ends}) == 1, "equal weights"


def test_readme_has_the_comparison_of_the_records():
    runs, warnings = load_runs(ROOT / "results" / "compare-ceiling")
    assert not warnings
    for row in summary(runs):
        accuracy, control = row.test_accuracy, row.against_control
        minus = "" if control is None else f"{100 * control.paired.mean:+.2f}"
        line = (
            f"| {row.label} | {100 * accuracy.mean:.2f} "
            f"[{100 * accuracy.low:.2f}, {100 * accuracy.high:.2f}] | {minus} "
            f"| {row.epochs_used:.1f} | {row.seconds_used:.1f} |"
        )
        assert line in README


def test_readme_has_the_regret_of_the_records():
    of_cell = regret.load(ROOT / "results" / "regret")
    named = re.findall(
        r"^\| (.*?) \| [\d.]+ \| [\d.]+ \| \d+ % \|$", README, re.M
    )
    assert regret.DEFAULT in named
    for name in named:
        mean, worst, used = regret.brief(
            of_cell, "test_accuracy", regret.RULES[name]
        )
        share = f"{100 * used:.0f} %"
        assert f"| {name} | {mean:.2f} | {worst:.2f} | {share} |" in README
