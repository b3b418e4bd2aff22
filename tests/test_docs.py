"""README, the site, docstrings and examples do what they say."""

import configparser
import contextlib
import doctest
import functools
import importlib
import io
import json
import os
import pkgutil
import re
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from small import slow_but

import keras_hybrid
from keras_hybrid import cli
from keras_hybrid._support import records as packed
from keras_hybrid.reports import contrasts, glance, study
from keras_hybrid.study import arms, regret
from keras_hybrid.study.summary import cell_of, load_runs, summary

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (
        *(ROOT / name for name in ("README.md", "CHANGELOG.md")),
        *sorted(DOCS.rglob("*.md")),
    )
}
README = PAGES["README.md"]
CEILING = PAGES["docs/measurements/ceiling.md"]
STUDY = PAGES["docs/measurements/study.md"]
SPEED = PAGES["docs/measurements/speed.md"]
SEARCHES = PAGES["docs/measurements/searches.md"]
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(
        keras_hybrid.__path__, "keras_hybrid."
    )
]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
# Devices are configured before TensorFlow starts.
IN_A_PROCESS = {"mirrored", "multi_worker"}
FOLDERS = {
    *("benchmarks", "docs", "examples", "keras_hybrid", "results", "tests"),
    "tuning",
}
# What users import, and from where.
PUBLIC = [
    f"keras_hybrid{name}"
    for name in (
        *("", ".callbacks", ".optimizer", ".presets", ".scales", ".triggers"),
        *(".transitions", ".tuner", ".study.architectures"),
        *(".study.datasets", ".study.protocol", ".study.report"),
        ".study.statistics",
    )
]


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


# A block of Python, and why it is not run if the line before says so.
BLOCK = re.compile(
    r"(?:^<!-- not run: ([^\n]+) -->\n)?^```python\n(.*?)^```$", re.M | re.S
)
# What the blocks of a page leave or say.
LEFT = {
    "docs/guides/compare.md": ["compare-results/report.html"],
    "docs/guides/tune.md": ["mine.json"],
    "docs/getting-started.md": ["my-search/hybrid/recipe.json"],
}
SAID = {
    "README.md": ["Done in epoch", "updates with Adam"],
    "docs/guides/train-until-done.md": ["Done in epoch"],
    "docs/getting-started.md": ["Switched to SGD", "Done in epoch"],
}


def test_every_python_block_is_run_or_says_why_not():
    for page, text in PAGES.items():
        found = BLOCK.findall(text)
        assert len(found) == len(
            re.findall(r"^ *```+ *\{?\.?py", text, re.M)
        ), page


@pytest.mark.parametrize(
    "page",
    slow_but(
        {"README.md"},
        [page for page, text in PAGES.items() if "```python" in text],
    ),
)
def test_python_blocks(page, tmp_path, monkeypatch, capsys):
    """One after the other: a block may go on from those before it."""
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    names = {"__name__": page}
    for reason, block in BLOCK.findall(PAGES[page]):
        if not reason:
            exec(compile(block, page, "exec"), names)
    for path in LEFT.get(page, []):
        assert (tmp_path / path).exists()
    said = capsys.readouterr().out
    for words in SAID.get(page, []):
        assert words in said


def options_of(command):
    """What `keras-hybrid COMMAND --help` lists."""
    said = io.StringIO()
    with pytest.raises(SystemExit), contextlib.redirect_stdout(said):
        cli.main([command, "--help"])
    return set(re.findall(r"--[\w-]+", said.getvalue()))


def test_commands_have_the_options_that_the_pages_give_them():
    known = {
        command: options_of(command)
        for command in ("compare", "tune", "study", "report", "pack")
    }
    given = {
        (command, option)
        for text in PAGES.values()
        # A line, and those below it that are indented.
        for command, rest in re.findall(
            r"keras-hybrid +(\w+)\b([^`\n&]*(?:\n {9,}[^`\n]*)*)", text
        )
        for option in re.findall(r"--[\w-]+", rest)
    }
    assert {command for command, _ in given} == set(known) - {"report"}
    for command, option in given:
        assert option in known[command], (command, option)


def test_the_examples_page_names_every_example():
    named = re.findall(r"`(\w+)\.py`", PAGES["docs/guides/examples.md"])
    assert set(EXAMPLES) == set(named)


def test_readme_is_one_page():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 100


def test_readme_gives_the_two_commands_that_ci_runs():
    assert 'pip install -e ".[all]" && keras-hybrid compare' in README
    command = 'pip install -e ".[all,test]" && pytest'
    assert command in README.splitlines()


def test_readme_links_to_what_is_there():
    """Those of the pages are mkdocs' to check."""
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).is_file(), target


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_the_text_are_there(page):
    """Of files and folders in code; tests by name, wherever they lie."""
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    for code in re.findall(r"`([\w./-]+)`", PAGES[page]):
        if code.startswith("test_") and code.endswith(".py"):
            assert code in tests
        elif code.split("/")[0] in FOLDERS and "/" in code:
            assert (ROOT / code).exists(), code


@pytest.mark.parametrize("page", PAGES)
def test_names_in_the_text_are_there(page):
    """Whatever is written `keras_hybrid.something` in code or `:::`."""
    for name in re.findall(r"(?:`|::: )(keras_hybrid[\w.]*)", PAGES[page]):
        assert pkgutil.resolve_name(name) is not None, name


API = "".join(t for p, t in PAGES.items() if p.startswith("docs/api/"))
# An object of the API's pages, and which of its members they show, if not all.
SHOWN = [
    (path, re.findall(r"\w+", members))
    for path, members in re.findall(
        r"^::: ([\w.]+)(?:\n    options:\n(?:      .*\n)*?"
        r"      members: \[([^\]]*)\])?",
        API,
        re.M,
    )
]


def test_the_api_pages_show_what_is_there():
    assert SHOWN
    for path, members in SHOWN:
        for name in members:
            assert hasattr(pkgutil.resolve_name(path), name), (path, name)


@pytest.mark.parametrize("module", PUBLIC)
def test_the_api_pages_have_every_public_name(module):
    """The whole module, or each class and function that it exports."""
    if (module, []) in SHOWN:
        return
    shown = {path for path, _ in SHOWN} | {
        f"{path}.{name}" for path, members in SHOWN for name in members
    }
    objects = [pkgutil.resolve_name(path) for path in shown]
    for name in pkgutil.resolve_name(module).__all__:
        exported = getattr(pkgutil.resolve_name(module), name)
        if callable(exported):
            assert any(exported is known for known in objects), name


def test_extras_are_what_the_issue_of_set_up_promises():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    assert {"tuner", "study", "test", "dev", "all"} <= set(extras)


def test_the_site_has_the_table_of_the_recipes():
    table = runpy.run_path(str(ROOT / "tuning" / "table.py"))["table"]()
    assert table in SEARCHES


def test_the_site_has_the_table_of_speed():
    path = ROOT / "benchmarks" / "speed_table.py"
    assert runpy.run_path(str(path))["table"]() in SPEED


def test_the_site_has_the_table_of_strategies(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    found = json.loads((ROOT / "benchmarks" / "replicas.json").read_text())
    path = ROOT / "benchmarks" / "replicas.py"
    assert runpy.run_path(str(path))["table"](found) in SPEED


SLOTS = {
    "rho a unit, minus the control": ("slots", "control"),
    "rho a variable, minus the control": ("slots_variable", "control"),
    "rho a unit, minus rho a variable": ("slots", "slots_variable"),
    "rho a unit, minus its own control": ("slots", "slots_control"),
    "rho a variable, minus the same control": (
        "slots_variable",
        "slots_control",
    ),
    "rho a unit, minus the control, cifar10 good-fit": (
        "slots_as_control",
        "control",
    ),
    "until 0.1.0, minus the control": ("hybrid", "control"),
    "a blend from half on": ("slots_blend", "slots_control"),
    "switch at 80 %": ("slots_at80", "slots_at80_control"),
}


def test_the_site_has_the_contrasts_of_the_slots():
    runs = [
        run
        for folder in ("study", "slots")
        for run in study.load_runs(ROOT / "results" / folder)[0]
    ]
    for label, pair in SLOTS.items():
        found = contrasts.contrast(runs, *pair)
        mean = f"{100 * found.mean.mean:+.3f}"
        interval = contrasts.bounds(found.mean.low, found.mean.high)
        lower = f"{found.clearly(-1)} of {len(found.cells)}"
        assert f"| {label} | {mean} | {interval} | {lower} |" in STUDY


def test_the_site_has_the_table_of_the_transformer():
    path = ROOT / "benchmarks" / "transformer.py"
    folder = ROOT / "results" / "transformer"
    assert runpy.run_path(str(path))["table"](folder) in STUDY


@pytest.mark.parametrize(
    "name",
    [
        "compare-ceiling",
        "compare-mnist",
        "compare-mnist-5k",
        pytest.param("slots", marks=pytest.mark.slow),
        pytest.param("study", marks=pytest.mark.slow),
    ],
)
def test_the_reports_are_as_they_would_be_written_now(name, tmp_path):
    folder = ROOT / "results" / name
    path = tmp_path / "report.md"
    study.write_markdown(*study.load_runs(folder)[:1], path)
    assert path.read_text() == (folder / "report.md").read_text()


def test_the_readme_counts_the_cells():
    path = ROOT / "benchmarks" / "ceilings.py"
    ceilings = runpy.run_path(str(path))
    text = " ".join(README.split())
    counts = []
    for kind, said in (
        (
            "defaults",
            "clearly above Adam with EarlyStopping in {}, with "
            "ReduceLROnPlateau as well in {}, ScheduleFreeAdamW in {}, and "
            "clearly below them in none",
        ),
        ("ceiling", "tuned, in nine so far: {}, {} and {}, and 0 below."),
    ):
        runs = ceilings["runs_of"](kind)
        cells = {cell_of(run) for run in runs}
        assert len(cells) == {"defaults": 10, "ceiling": 9}[kind]
        found = [
            contrasts.contrast(runs, "until_done", arm, ceilings["LOOKS"][kind])
            for arm in ("adam_stop", "adam_reduce", "schedule_free")
        ]
        assert not any(each.clearly(-1) for each in found)
        higher = [each.clearly(1) for each in found]
        assert said.format(*higher) in text
        counts.append(higher)
    assert "[ten other cells]" in text
    stop, reduce, free = zip(*counts, strict=True)
    targets = " ".join(CEILING.split("## Targets")[1].split())
    assert f"{stop[0]} untuned and {stop[1]} tuned" in targets
    assert f"in four: not met**, {reduce[0]} and {reduce[1]}" in targets
    assert f"in four: met**, {free[0]} and {free[1]}" in targets


def test_the_site_has_the_regret_of_looks_within_an_epoch():
    curves = regret.load(ROOT / "results" / "looks")
    assert {len(found) for found in curves.values()} == {1}
    found = {
        name: regret.brief(curves, "test_accuracy", regret.RULES[name])
        for name in (regret.DEFAULT, "loss, patience 3, keeps the better")
    }
    averaged, loss = found.values()
    text = " ".join(CEILING.split())
    assert f"the regret is {averaged.worst:.2f} at most" in text
    assert f"{loss.mean:.2f} in the mean and {loss.worst:.2f} in the" in text


@pytest.mark.parametrize("kind", ["defaults", "ceiling"])
def test_the_site_has_the_tables_of_ceilings(kind):
    path = ROOT / "benchmarks" / "ceilings.py"
    table = runpy.run_path(str(path))["table"](kind)
    assert "TrainUntilDone: Adam to SGD" in table
    assert table in PAGES["docs/measurements/ceiling.md"]


@pytest.mark.parametrize("name", ["gpu", "torch_cpu"])
def test_the_site_has_the_tables_of_the_gpu(name):
    path = ROOT / "benchmarks" / f"{name}.json"
    record = json.loads(path.read_text("utf-8"))
    path = ROOT / "benchmarks" / "gpu_table.py"
    tables = runpy.run_path(str(path))["table"](record)
    assert tables in PAGES["docs/measurements/gpu.md"]


def test_the_site_has_what_updates_on_a_gpu():
    path = ROOT / "benchmarks" / "gpu_paths.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    found = [record[x] for x in ("25 M weights in 34", "60 small")]
    text = " ".join(PAGES["docs/measurements/gpu.md"].split())
    for way, when, of, said in (
        (
            "TensorFlow's kernels",
            "before",
            "keras Adam",
            "{} and {} of keras A",
        ),
        (
            "TensorFlow's kernels",
            "after",
            "keras SGD",
            "kernels took {} and {}",
        ),
        ("one function a phase", "after", "keras SGD", "by XLA {} and {}"),
    ):
        ratios = [
            each["keras_hybrid"][way][f"{when} the switch"] / each[of]
            for each in found
        ]
        shown = [f"{x:.2f}".removeprefix("0") for x in ratios]
        assert said.format(*shown) in text


def test_the_site_has_the_figures_of_the_forked_search():
    path = ROOT / "benchmarks" / "forked_search.json"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for name, results in cells.items():
        for kind, result in results.items():
            epochs = f"{result['epochs']} ({result['epochs_ratio']:.0%})"
            seconds = f"{result['seconds']:.0f} ({result['seconds_ratio']:.0%})"
            cells_of_row = (name, kind, epochs, seconds, result["winner"])
            assert f"| {' | '.join(cells_of_row)} |" in SEARCHES
        assert all(result["identical_scores"] for result in results.values())


def test_the_site_has_the_study_of_the_records():
    runs, warnings = study.load_runs(ROOT / "results" / "study")
    assert not warnings
    rows = study.summary(runs)
    for table in glance.tables(rows):
        assert study.markdown_glance(table) in STUDY
    for sentence in glance.headline(rows):
        assert sentence in STUDY.replace("\n", " ")


CHOSEN_ON = (
    "mnist-under-fit",
    "fashion_mnist-over-fit",
    "fashion_mnist-good-fit",
)
CONFIRMED_ON = ("mnist-over-fit", "fashion_mnist-under-fit", "mnist-good-fit")


@functools.cache
def records(folder):
    """The runs of a folder below results/: by cell, by arm, by seed."""
    runs, warnings = load_runs(ROOT / "results" / folder)
    assert not warnings
    found = {}
    for run in runs:
        cell = cell_of(run)
        arms_of_cell = found.setdefault(f"{cell.dataset}-{cell.regime}", {})
        arms_of_cell.setdefault(run.arm, {})[run.seed] = run
    return found


def change(folder, cell, arm, score):
    """Points above the hybrid, seed by seed: mean and standard error."""
    of_arm = records(folder)[cell].get(arm)
    if of_arm is None:
        return "–"
    hybrids = records("study")[cell]["hybrid"]
    assert set(of_arm) == set(hybrids) == set(range(5))
    differences = 100 * np.array(
        [score(of_arm[seed]) - score(hybrids[seed]) for seed in hybrids]
    )
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return f"{differences.mean():+.2f} ± {error:.2f}"


def change_row(arm):
    """One row of the table of what was tried to make it better."""
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
def test_the_site_has_the_changes_of_the_records(arm):
    assert change_row(arm) in STUDY


@pytest.mark.parametrize(
    ("cell", "arm"),
    [
        *(("mnist-best", arm) for arm in ("hybrid", "control")),
        *(("cifar10-best", arm) for arm in ("hybrid", "decay4")),
        ("cifar10-regularized", "decay8"),
        ("cifar10-regularized", "control_decay8"),
        ("cifar10-long", "decay8_at20"),
        ("cifar10-long", "control_decay8_at20"),
        ("cifar10-longer", "decay8_at20"),
        ("cifar10-longer", "control_decay8_at20"),
    ],
)
def test_the_site_has_the_untuned_runs_of_the_records(cell, arm):
    of_arm = records("best")[cell][arm].values()
    scores = np.array([100 * run.test_accuracy for run in of_arm])
    entry = f"{scores.mean():.2f}"
    if len(scores) > 1:
        entry += f" ({scores.min():.2f} to {scores.max():.2f})"
    assert f"| {len(scores)} | {entry} |" in STUDY


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


def test_the_picture_is_of_the_records(tmp_path):
    drawer = runpy.run_path(str(DOCS / "until_done.py"))
    runs, _ = load_runs(drawer["RECORDS"])
    drawer["draw"](runs, tmp_path / "new.svg")
    committed, new = (
        path.read_text(encoding="utf-8")
        for path in (drawer["PICTURE"], tmp_path / "new.svg")
    )
    for label in drawer["labels"](runs).values():
        assert label in committed
    # The curves, without what a version of matplotlib may write otherwise.
    assert paths_of(committed) == paths_of(new)


def paths_of(picture):
    """The coordinates of each line of an SVG, in whole points."""
    return [
        [round(float(number)) for number in re.findall(r"-?[\d.]+", path)]
        for path in re.findall(r'<path d="([^"]*)" clip-path', picture)
    ]


def fresh_curves():
    return regret.fresh(regret.load(ROOT / "results" / "regret"))


def test_the_site_has_the_regret_of_step_triggers():
    of_cell = regret.watched(fresh_curves())
    table = regret.markdown(of_cell, "test_accuracy", regret.STEP_RULES)
    assert table in CEILING


def test_the_site_has_the_cooldowns():
    table = runpy.run_path(str(ROOT / "benchmarks" / "cooldowns.py"))["table"]
    every = [
        packed.read(path, 1, "cool-down record")
        for path in packed.in_folder(ROOT / "results" / "cooldowns", "*.json")
    ]
    assert len(every) == 18
    assert table(every, "test") in CEILING


def test_the_site_has_the_regret_of_the_records():
    named = re.findall(
        r"^\| (.*?) (?:\| [\d.]+ ){3}\| \d+ % \|$", CEILING, re.M
    )
    assert regret.DEFAULT in named
    rules = {name: regret.RULES[name] for name in named}
    assert regret.briefly(fresh_curves(), "test_accuracy", rules) in CEILING
