"""Hand-made searches: the numbers, the words, and what may be missing."""

import dataclasses
import html.parser
import io
import json
import math
import re

import pytest
from rich.console import Console

from keras_hybrid._support import files
from keras_hybrid.recipes import Plan, Recipe
from keras_hybrid.reports.search import markdown_table, print_table, write_html
from keras_hybrid.tuning import record
from keras_hybrid.tuning.record import Search, Trained, Trial

EPOCHS = 10
STEPS = 5
SETTINGS = {
    "objective": "val_accuracy",
    "direction": "max",
    "tuner": "grid",
    "prune": False,
    "seeds": 3,
    "epochs": EPOCHS,
    "batch_size": 32,
}
ADAM = Plan(when="start", scale="number", rho=1.0, end=0.0)
SGD = Plan(when="start", scale="number", rho=5.0)


def make_run(
    seed, score, switch, *, epochs=EPOCHS, metric="val_accuracy", **changes
):
    """Climbs to its score (or falls, for a loss); `switch` in epochs."""
    climb = [score * e / epochs for e in range(1, epochs + 1)]
    if metric == "val_loss":
        climb = [score * epochs / e for e in range(1, epochs + 1)]
    shared = 0 if switch is None else min(int(switch), epochs)
    run = Trained(
        seed=seed,
        history={"loss": [1.0] * epochs, metric: climb},
        switch_step=None if switch is None else int(switch * STEPS),
        steps_per_epoch=STEPS,
        shared_epochs=shared,
        trained_epochs=epochs - shared,
        seconds=60.0,
        status="finished",
    )
    return run._replace(**changes)


def make_trial(name, plan, scores, switches, own=(), **keywords):
    """One run a score; `switches` is one number for all, or one a seed."""
    if not isinstance(switches, (list, tuple)):
        switches = [switches] * len(scores)
    runs = [
        make_run(seed, score, switch, **keywords)
        for seed, (score, switch) in enumerate(
            zip(scores, switches, strict=True)
        )
    ]
    epochs = keywords.get("epochs", EPOCHS)
    return Trial(name, plan, dict(own), epochs, runs)


def make_stopped(name, plan, own=()):
    """Stopped after 7 epochs, of which 2 came from the prefix."""
    run = make_run(0, 0.5, 2, status="stopped")
    history = {key: values[:7] for key, values in run.history.items()}
    run = run._replace(history=history, trained_epochs=5)
    return Trial(name, plan, dict(own), EPOCHS, [run])


def make_diverged(name, plan, own=()):
    history = {"loss": [1.0, math.nan], "val_accuracy": [0.5, 0.1]}
    runs = [
        make_run(0, 0.85, 1),
        make_run(1, 0, 1, history=history, trained_epochs=1, status="diverged"),
        make_run(2, 0.85, 1),
    ]
    return Trial(name, plan, dict(own), EPOCHS, runs)


def references():
    """The best trial of `grid` is over SGD by 0.10, 0.11, 0.12."""
    return {
        "default": make_trial("default", Plan(), (0.91, 0.89, 0.92), 5),
        "adam": make_trial("adam", ADAM, (0.90, 0.92, 0.88), 0),
        "sgd": make_trial("sgd", SGD, (0.80, 0.80, 0.80), 0),
    }


def grid():
    """Switch points: 0.91 on average at 0.5, 0.85 at 0.2, 0.88 never."""
    return [
        make_trial("0", Plan(fraction=0.2), (0.84, 0.85, 0.86), 2),
        make_trial("1", Plan(fraction=0.5), (0.90, 0.91, 0.92), 5),
        make_trial("2", Plan(fraction=1.0), (0.88, 0.88, 0.88), EPOCHS),
    ]


def mixed():
    """Everything that a search may hold, with hyperparameters."""
    blend = {"how": "blend", "length": 0.2}
    own, other = {"units": 64, "act": "relu"}, {"units": 256, "act": "tanh"}
    return [
        *(dataclasses.replace(t, hyperparameters=own) for t in grid()),
        make_trial("3", Plan(fraction=0.3, **blend), (0.86,) * 3, 3, other),
        make_trial("4", Plan(fraction=0.6, **blend), (0.89,) * 3, 6, other),
        make_trial(
            "5", Plan(when="plateau"), (0.87, 0.88, 0.90), [4, 7, None], own
        ),
        make_trial(
            "6", Plan(when="projection"), (0.2, 0.3, 0.25), [0.4, 0.6, 1], other
        ),
        make_stopped("7", Plan(fraction=0.2, multiplier=3.0), own),
        make_diverged("8", Plan(fraction=0.1, multiplier=9.0), own),
        make_trial(
            "9", Plan(fraction=0.4), (0.7, 0.7, 0.7), 2.5, own, epochs=5
        ),
    ]


def search_of(tmp_path, trials, references=None, **settings):
    return Search(
        tmp_path / "mine", {**SETTINGS, **settings}, trials, references or {}
    )


def recipe(name="mine"):
    return Recipe(
        name=name,
        dataset=None,
        architecture=None,
        plan=Plan(fraction=0.5),
        optimizer={"learning_rate": 0.001},
        hyperparameters={},
        budget={"epochs": EPOCHS, "steps_per_epoch": STEPS, "batch_size": 32},
        score={"mean": 0.91, "std": math.nan},
        search={},
        versions={},
    )


class Page(html.parser.HTMLParser):
    """Collects tags, attributes and visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def page_of(search, tmp_path, recipe=None):
    path = tmp_path / "out" / "search.html"
    write_html(search, path, recipe)
    return path.read_text(encoding="utf-8")


def figures_of(page):
    return re.findall("<figcaption>([^<]*)</figcaption>", page)


def rows_of(search):
    """Rows of the Markdown table as mappings, without escapes."""
    lines = [
        [cell.strip() for cell in line.replace("\\", "").split("|")[1:-1]]
        for line in markdown_table(search).splitlines()
        if line.startswith("|")
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def printed(search, width=100):
    stream = io.StringIO()
    print_table(search, Console(file=stream, width=width))
    return stream.getvalue()


def test_table_is_best_first_with_the_references_below(tmp_path):
    rows = rows_of(search_of(tmp_path, grid(), references()))
    assert [list(row.values()) for row in rows] == [
        # s of 0.90, 0.91, 0.92 is 0.01. The prefix gave 5 epochs a seed.
        ["1", "fraction 0.5", "5", "91.00 ± 1.00", "15 of 30", "finished"],
        ["2", "fraction 1", "-", "88.00 ± 0.00", "0 of 30", "finished"],
        ["3", "fraction 0.2", "2", "85.00 ± 1.00", "24 of 30", "finished"],
        # 0.91, 0.89, 0.92: (1 + 25 + 16) / 9 / 2 = 2.3333, root 1.5275.
        ["–", "library default", "5", "90.67 ± 1.53", "15 of 30", "finished"],
        # The switch of Adam alone is to Adam.
        ["–", "Adam alone, cosine", "-", "90.00 ± 2.00"]
        + ["30 of 30", "finished"],
        ["–", "SGD alone, cosine", "0", "80.00 ± 0.00"]
        + ["30 of 30", "finished"],
    ]
    assert list(rows[0]) == [
        "Rank",
        "Transition",
        "Switch epoch",
        "val_accuracy, %",
        "Epochs trained",
        "Status",
    ]


def test_what_trials_share_is_said_once_and_the_cost_last(tmp_path):
    text = markdown_table(search_of(tmp_path, grid(), references()))
    first, *_, last = text.splitlines()
    assert first == (
        r"All trials: 10 epochs, 3 seeds a trial, max val_accuracy; when "
        "fraction, how hard, end 1, scale slots, scale_scope unit, "
        "multiplier 1, cooldown cosine, final 0, scope model."
    )
    assert text.count("slots") == 1
    # 15 + 0 + 24 epochs, 9 runs of a minute.
    assert last == (
        "Cost of the 3 trials, without the references: 39 epochs trained of "
        "90 unshared (43 %), 9.0 minutes."
    )


def test_every_kind_of_trial_in_the_table(tmp_path):
    search = search_of(tmp_path, mixed())
    rows = {
        (row["Transition"], row["Hyperparameters"]): row
        for row in rows_of(search)
    }
    ranks = [row["Rank"] for row in rows.values()]
    assert ranks == [*"1234567", "–", "–", "–"]
    own, other = "units 64, act relu", "units 256, act tanh"
    plateau = rows["plateau, hard, multiplier 1", own]
    assert plateau["Switch epoch"] == "5.5 (2 of 3)"
    assert ("blend, fraction 0.6, multiplier 1", other) in rows
    diverged = rows["hard, fraction 0.1, multiplier 9", own]
    assert diverged["Status"] == "diverged (1 of 3 seeds)"
    # The diverged seed's 0.1 is not in the mean.
    assert diverged["val_accuracy, %"] == "85.00 ± 0.00"
    stopped = rows["hard, fraction 0.2, multiplier 3", own]
    assert stopped["Status"] == "stopped at epoch 7"
    assert stopped["Epochs trained"] == "5 of 30"
    assert stopped["val_accuracy, %"] == "35.00"
    short = rows["hard, fraction 0.4, multiplier 1", own]
    assert short["Status"] == "finished 5 epochs"
    shared = markdown_table(search).splitlines()[0]
    assert "where it applies: patience 0.1" in shared.replace("\\", "")
    assert "multiplier" not in shared


@pytest.mark.parametrize("width", [60, 80, 160])
def test_terminal_table_keeps_names_and_numbers(tmp_path, width):
    text = printed(search_of(tmp_path, mixed(), references()), width)
    assert all(len(line) <= width for line in text.splitlines())
    for part in ("Search mine", "plateau", "91.00", "library", "(54 %)"):
        assert part in text


def test_terminal_takes_names_literally(tmp_path):
    trials = [
        dataclasses.replace(t, hyperparameters={"a": f"[red]{t.name}[/red]"})
        for t in grid()
    ]
    assert "a [red]1[/red]" in printed(search_of(tmp_path, trials), 160)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a search with everything; drawing it takes a second."""
    folder = tmp_path_factory.mktemp("search")
    search = search_of(folder, mixed(), references())
    return page_of(search, folder, recipe())


def test_finding_says_what_won_and_what_it_is_worth(page):
    text = Page(page).text
    assert (
        "Best of 7 complete trials: hard, fraction 0.5, multiplier 1, units "
        "64, act relu, with val_accuracy 91.00 ± 1.00 % (mean ± standard "
        "deviation over 3 seeds); it switches at epoch 5 of 10." in text
    )
    # 0.90, 0.91, 0.92 minus 0.91, 0.89, 0.92.
    assert "Not better than library default (+0.33 [" in text
    assert "over 3 seeds: may be chance)" in text
    assert "Not better than Adam alone, cosine (+1.00 [" in text
    # t = 0.11 / (0.01 / sqrt(3)) = 19.05, 1 - t / sqrt(t^2 + 2) = 0.0027,
    # times 3 references.
    assert "Better than SGD alone, cosine (+11.00 [+10.00, +12.00]" in text
    assert "p = 0.008)" in text
    assert "153 epochs trained of 285 unshared (54 %), 28.0 minutes" in text


def test_page_has_every_figure_with_a_name(page):
    titles = ["Score and switch point", "Score and choices", "Over the epochs"]
    assert figures_of(page) == titles
    names = [v for k, v in Page(page).attributes if k == "aria-label"]
    assert names == [*(f"{title}: Search mine" for title in titles), "Trials"]


def test_figures_name_kinds_references_and_fields(page):
    points, choices, curves = re.findall("<svg.*?</svg>", page, re.DOTALL)
    points, choices, curves = (
        Page(svg).text for svg in (points, choices, curves)
    )
    for part in (
        "SGD alone 80",
        "Adam",
        "library default",
        "switch at a plateau",
        "other fixed switch",
        "never switched",
    ):
        assert part in points
    for part in ("multiplier", "units", "tanh", "256", "val_accuracy, %"):
        assert part in choices
    # Conditional fields with one value are said by their parent.
    assert "curve" not in choices
    assert "1: hard, fraction 0.5" in curves
    assert "7: projection" in curves


def test_recipe_and_how_to_use_it(page):
    text = Page(page).text
    assert 'path = "recipe.json"' in text
    assert "HybridOptimizer.from_recipe(path)" in text
    assert "SwitchCallback.from_recipe(path)" in text
    shown = re.search(r"<pre>({.*?})\s*</pre>", page, re.DOTALL)[1]
    content = json.loads(shown.replace("&#34;", '"'))
    assert content["plan"]["fraction"] == 0.5
    assert content["format"] == 1
    # As in the file: NaN is no JSON.
    assert content["score"]["std"] is None


def test_whether_the_recipe_is_a_trial_s_or_a_reference_s(tmp_path, page):
    assert "The recipe is that." not in page
    better = {"sgd": make_trial("sgd", SGD, (0.99, 0.99, 0.99), 0)}
    search = search_of(tmp_path, grid(), better)
    assert "did better than: SGD alone" in page_of(search, tmp_path, recipe())


def test_without_a_recipe_there_is_no_use(tmp_path):
    text = page_of(search_of(tmp_path, grid()), tmp_path)
    assert "from_recipe" not in text
    assert "Compared with no reference." in text


def test_page_loads_nothing(page):
    assert not re.search(r"(?i)https?://|url\((?!#)|@import|src=|//\w", page)
    parsed = Page(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    ids = [v for k, v in parsed.attributes if k == "id"]
    assert len(ids) == len(set(ids))
    # The style sheet came with it.
    assert "@media print" in page
    assert "prefers-color-scheme: dark" in page


def test_page_is_the_same_every_time(page, tmp_path):
    search = search_of(tmp_path, mixed(), references())
    assert page_of(search, tmp_path, recipe()) == page


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", '"--><svg onload=alert(1)>', "$\\frac{$ | `"],
    ids=["script", "comment", "mathematics"],
)
def test_names_are_text_everywhere(tmp_path, name):
    trials = [
        dataclasses.replace(t, hyperparameters={name: f"{name}{t.name}"})
        for t in grid()
    ]
    search = search_of(tmp_path, trials, references())
    search = dataclasses.replace(search, folder=tmp_path / name)
    text = page_of(search, tmp_path, recipe(name))
    parsed = Page(text)
    assert "script" not in parsed.tags
    assert not any(k.startswith("on") for k, _ in parsed.attributes)
    assert name in parsed.text
    header, _, *lines = [
        line
        for line in markdown_table(search).splitlines()
        if line.startswith("|")
    ]
    for line in lines:
        assert len(re.findall(r"(?<!\\)\|", line)) == header.count("|")


def test_lower_is_better(tmp_path):
    def trial(name, plan, scores, switch):
        return make_trial(name, plan, scores, switch, metric="val_loss")

    trials = [
        trial("0", Plan(fraction=0.2), (0.51, 0.52, 0.53), 2),
        trial("1", Plan(fraction=0.5), (0.31, 0.32, 0.33), 5),
    ]
    against = {
        "adam": trial("adam", ADAM, (0.21, 0.23, 0.22), 0),
        "sgd": trial("sgd", SGD, (0.71, 0.73, 0.72), 0),
    }
    search = search_of(
        tmp_path, trials, against, objective="val_loss", direction="min"
    )
    first, *_ = rows_of(search)
    assert first["Transition"] == "fraction 0.5"
    assert first["val_loss"] == "0.32 ± 0.01"
    text = Page(page_of(search, tmp_path)).text
    assert "Worse than Adam alone, cosine (+0.1 [" in text
    assert "Better than SGD alone, cosine (-0.4 [" in text


def test_one_trial_of_one_seed(tmp_path):
    trials = [make_trial("0", Plan(), (0.9,), 5)]
    against = {"adam": make_trial("adam", ADAM, (0.8,), 0)}
    search = search_of(tmp_path, trials, against, seeds=1)
    text = page_of(search, tmp_path)
    assert figures_of(text) == ["Score and switch point", "Over the epochs"]
    text = Page(text).text
    assert "val_accuracy 90.00 % (one seed, so no spread)" in text
    assert (
        "Not shown to be better (one seed) than Adam alone, cosine "
        "(+10.00 [–] points)" in text
    )
    assert rows_of(search)[0]["Transition"] == str(Plan())


def test_best_that_is_the_reference(tmp_path):
    trials = [make_trial("0", Plan(), (0.9, 0.91, 0.92), 5)]
    search = search_of(
        tmp_path, trials, {"default": dataclasses.replace(trials[0])}
    )
    text = Page(page_of(search, tmp_path)).text
    assert "The same as library default (+0.00 [" in text


def test_clearly_worse_is_said(tmp_path):
    against = {
        "sgd": make_trial("sgd", SGD, (0.95, 0.96, 0.98), 0),
    }
    search = search_of(tmp_path, grid(), against)
    text = Page(page_of(search, tmp_path)).text
    assert "Worse than SGD alone, cosine (-5.33 [" in text


def test_reference_that_diverged(tmp_path):
    run = make_run(0, 0.8, 0, status="diverged")
    nan = run._replace(history={"loss": [math.nan], "val_accuracy": [math.nan]})
    against = {"sgd": Trial("sgd", SGD, {}, EPOCHS, [nan] * 3)}
    search = search_of(tmp_path, grid(), against)
    text = Page(page_of(search, tmp_path)).text
    assert "Nothing to pair with SGD alone, cosine" in text
    assert rows_of(search)[-1]["val_accuracy, %"] == "–"


@pytest.mark.parametrize(
    ("trials", "curves"),
    [
        ([make_stopped("0", Plan())], True),
        ([make_diverged("0", Plan())], True),
        (
            [
                Trial("0", Plan(), {}, EPOCHS, [run, run])
                for run in [
                    make_run(0, 0.5, None, status="diverged")._replace(
                        history={"loss": [math.nan], "val_accuracy": []}
                    )
                ]
            ],
            False,
        ),
        ([], False),
    ],
    ids=["stopped", "diverged", "empty", "none"],
)
def test_no_complete_trial(tmp_path, trials, curves):
    search = search_of(tmp_path, trials)
    text = page_of(search, tmp_path)
    assert "No trial of the full budget has finished" in text
    assert ("Over the epochs" in figures_of(text)) is curves
    assert "nan" not in Page(text).text
    assert len(rows_of(search)) == len(trials)
    assert "unshared" in printed(search)


def test_objective_that_is_no_number_has_no_rank(tmp_path):
    odd = make_trial("3", Plan(fraction=0.7), (math.nan,) * 3, 7)
    rows = rows_of(search_of(tmp_path, [odd, *grid()]))
    assert [row["Rank"] for row in rows] == ["1", "2", "3", "–"]
    assert rows[-1]["Transition"] == "fraction 0.7"
    assert rows[-1]["val_accuracy, %"] == "–"


def test_own_hyperparameter_with_the_name_of_a_plans_field(tmp_path):
    trials = [
        dataclasses.replace(t, hyperparameters={"fraction": "a" + t.name})
        for t in grid()
    ]
    text = page_of(search_of(tmp_path, trials), tmp_path)
    choices = re.findall("<svg.*?</svg>", text, re.DOTALL)[1]
    for part in ("fraction (own)", "0.2", "a0"):
        assert part in Page(choices).text


def test_record_on_disk_gives_the_same_report(tmp_path):
    folder = tmp_path / "mine"
    files.write_json(folder / "search.json", {"format": 1, **SETTINGS})
    parts = {f"trial_{t.name}": t for t in mixed()}
    parts |= {f"references/{k}": t for k, t in references().items()}
    for part, trial in parts.items():
        for run in trial.runs:
            record.write_run(
                folder / part / f"seed-{run.seed}.json",
                trial.plan,
                trial.hyperparameters,
                trial.epochs,
                run,
            )
    search = search_of(tmp_path, mixed(), references())
    assert markdown_table(record.load(folder)) == markdown_table(search)
