"""What each part says to bad input: the argument, what it takes, what it got.

HybridOptimizer's own arguments are in test_errors.py, the search's data and
space in test_tuner.py, the fields of a plan in test_recipes.py.
"""

import json

import keras
import numpy as np
import pytest
from small import received

from keras_hybrid import HybridOptimizer, SwitchCallback, cli
from keras_hybrid.callbacks import hybrid_optimizer
from keras_hybrid.recipes import Plan, Recipe
from keras_hybrid.transitions import Blend, Cooldown, Hard
from keras_hybrid.triggers import (
    AnyStep,
    AtEpoch,
    AtStep,
    GeneralizationGap,
    GradientSignalToNoise,
    MetricReached,
    Plateau,
    ProjectionConverged,
    Slope,
)

NAN, INF = float("nan"), float("inf")
INTEGER = "an integer >= {}"
INT32 = "and <= 2147483647"
POSITIVE = "a finite number > 0"
UNIT = "a finite number >= 0 and <= 1"
SIGN = "'min' or 'max' for a metric whose better direction its name does not "
MODES = "one of 'auto', 'min', 'max'"
RECIPE = "mnist-mlp_small"

# Class, arguments of which the last is bad, exception, what it must be.
ARGUMENTS = [
    (AtStep, {"n": -1}, ValueError, INTEGER.format(0)),
    (AtStep, {"n": 1.0}, TypeError, INTEGER.format(0)),
    (AtStep, {"n": True}, TypeError, INTEGER.format(0)),
    (AtStep, {"n": "1"}, TypeError, INTEGER.format(0)),
    (AtStep, {"n": None}, TypeError, INTEGER.format(0)),
    (AtStep, {"n": 2**31}, ValueError, f"{INTEGER.format(0)} {INT32}"),
    (AtStep, {"n": np.array(3.7)}, TypeError, INTEGER.format(0)),
    (AtStep, {"n": np.array([3, 4])}, TypeError, INTEGER.format(0)),
    (AnyStep, {"triggers": 3}, TypeError, "a list of StepTriggers"),
    (ProjectionConverged, {"tolerance": 0}, ValueError, POSITIVE),
    (ProjectionConverged, {"tolerance": -1}, ValueError, POSITIVE),
    (ProjectionConverged, {"tolerance": NAN}, ValueError, POSITIVE),
    (ProjectionConverged, {"tolerance": "a"}, TypeError, POSITIVE),
    (ProjectionConverged, {"relative": 1}, TypeError, "True or False"),
    (ProjectionConverged, {"relative": None}, TypeError, "True or False"),
    (ProjectionConverged, {"patience": 0}, ValueError, INTEGER.format(1)),
    (ProjectionConverged, {"patience": 1.5}, TypeError, INTEGER.format(1)),
    (ProjectionConverged, {"min_steps": 1}, ValueError, INTEGER.format(2)),
    (ProjectionConverged, {"min_steps": "a"}, TypeError, INTEGER.format(2)),
    (ProjectionConverged, {"max_steps": 1}, ValueError, INTEGER.format(2)),
    (
        ProjectionConverged,
        {"min_steps": 200, "max_steps": 100},
        ValueError,
        INTEGER.format(200),
    ),
    (ProjectionConverged, {"max_steps": 1e3}, TypeError, INTEGER.format(2)),
    (
        ProjectionConverged,
        {"against": "p"},
        ValueError,
        "one of 'past', 'gamma'",
    ),
    (GradientSignalToNoise, {"threshold": 0}, ValueError, POSITIVE),
    (GradientSignalToNoise, {"threshold": INF}, ValueError, POSITIVE),
    (GradientSignalToNoise, {"threshold": None}, TypeError, POSITIVE),
    (GradientSignalToNoise, {"patience": 0}, ValueError, INTEGER.format(1)),
    (GradientSignalToNoise, {"patience": True}, TypeError, INTEGER.format(1)),
    (GradientSignalToNoise, {"min_steps": 0}, ValueError, INTEGER.format(1)),
    (
        GradientSignalToNoise,
        {"min_steps": 5, "max_steps": 4},
        ValueError,
        INTEGER.format(5),
    ),
    (AtEpoch, {"n": 0}, ValueError, INTEGER.format(1)),
    (AtEpoch, {"n": 2.5}, TypeError, INTEGER.format(1)),
    (AtEpoch, {"n": False}, TypeError, INTEGER.format(1)),
    (Plateau, {"monitor": None}, TypeError, "a string"),
    (Plateau, {"monitor": 3}, TypeError, "a string"),
    (Plateau, {"monitor": ""}, ValueError, "not be empty"),
    (Plateau, {"patience": 0}, ValueError, INTEGER.format(1)),
    (Plateau, {"patience": 2.0}, TypeError, INTEGER.format(1)),
    (Plateau, {"min_delta": -0.1}, ValueError, "a finite number >= 0"),
    (Plateau, {"min_delta": None}, TypeError, "a finite number >= 0"),
    (Plateau, {"mode": "best"}, ValueError, MODES),
    (Plateau, {"mode": None}, ValueError, MODES),
    (Slope, {"monitor": ""}, ValueError, "not be empty"),
    (Slope, {"least": 2}, ValueError, INTEGER.format(3)),
    (Slope, {"least": 25}, ValueError, "at most 24"),
    (Slope, {"errors": -1}, ValueError, "a finite number >= 0"),
    (Slope, {"mode": "up"}, ValueError, MODES),
    (GeneralizationGap, {"threshold": NAN}, ValueError, "a finite number"),
    (GeneralizationGap, {"threshold": "0.1"}, TypeError, "a finite number"),
    (
        GeneralizationGap,
        {"threshold": 0.1, "metric": ""},
        ValueError,
        "not be empty",
    ),
    (GeneralizationGap, {"threshold": 0.1, "metric": 1}, TypeError, "a string"),
    (
        GeneralizationGap,
        {"threshold": 0.1, "patience": 0},
        ValueError,
        INTEGER.format(1),
    ),
    (GeneralizationGap, {"threshold": 0.1, "mode": "up"}, ValueError, MODES),
    (
        MetricReached,
        {"monitor": "loss", "target": NAN},
        ValueError,
        "a finite number",
    ),
    (
        MetricReached,
        {"monitor": "loss", "target": None},
        TypeError,
        "a finite number",
    ),
    (MetricReached, {"target": 1, "monitor": ""}, ValueError, "not be empty"),
    (MetricReached, {"target": 1, "monitor": None}, TypeError, "a string"),
    (
        MetricReached,
        {"monitor": "loss", "target": 1, "mode": 1},
        ValueError,
        MODES,
    ),
    (Hard, {"end": 1.5}, ValueError, UNIT),
    (Hard, {"end": -0.1}, ValueError, UNIT),
    (Hard, {"end": NAN}, ValueError, UNIT),
    (Hard, {"end": INF}, ValueError, UNIT),
    (Hard, {"end": "1"}, TypeError, UNIT),
    (Hard, {"end": True}, TypeError, UNIT),
    (Hard, {"end": None}, TypeError, UNIT),
    (Hard, {"end": [0.5]}, TypeError, UNIT),
    (Hard, {"end": 1j}, TypeError, UNIT),
    (Blend, {"steps": 0}, ValueError, INTEGER.format(1)),
    (Blend, {"steps": 10**400}, ValueError, f"{INTEGER.format(1)} {INT32}"),
    (Blend, {"steps": 2.0}, TypeError, INTEGER.format(1)),
    (Blend, {"steps": True}, TypeError, INTEGER.format(1)),
    (Blend, {"steps": None}, TypeError, INTEGER.format(1)),
    (
        Blend,
        {"steps": 5, "curve": "square"},
        ValueError,
        "one of 'linear', 'cosine', 'exponential'",
    ),
    (Blend, {"steps": 5, "curve": None}, ValueError, "one of 'linear', "),
    (
        Blend,
        {"steps": 5, "path": "harmonic"},
        ValueError,
        "one of 'arithmetic', 'geometric', 'clip'",
    ),
    (Blend, {"steps": 5, "path": ["clip"]}, ValueError, "one of 'arithmetic'"),
    (Blend, {"steps": 5, "end": 2}, ValueError, UNIT),
    (Blend, {"steps": 5, "end": "half"}, TypeError, UNIT),
    (Cooldown, {"curve": "akiba"}, ValueError, "one of 'cosine', 'linear'"),
    (Cooldown, {"steps": 0}, ValueError, INTEGER.format(1)),
    (Cooldown, {"steps": 10**400}, ValueError, f"{INTEGER.format(1)} {INT32}"),
    (Cooldown, {"steps": 1.5}, TypeError, INTEGER.format(1)),
    (Cooldown, {"steps": False}, TypeError, INTEGER.format(1)),
    (Cooldown, {"share": 0}, ValueError, POSITIVE),
    (Cooldown, {"share": INF}, ValueError, POSITIVE),
    (Cooldown, {"share": "half"}, TypeError, POSITIVE),
    (Cooldown, {"steps": 3, "share": 0.5}, ValueError, "None where `steps`"),
    (Cooldown, {"final": 1.1}, ValueError, UNIT),
    (Cooldown, {"final": -1}, ValueError, UNIT),
    (Cooldown, {"final": None}, TypeError, UNIT),
    (Cooldown, {"final": NAN}, ValueError, UNIT),
    (SwitchCallback, {"trigger": "epoch"}, TypeError, "None or an epoch trig"),
    (SwitchCallback, {"trigger": AtStep(3)}, TypeError, "None or an epoch tr"),
    (SwitchCallback, {"trigger": [AtEpoch(1)]}, TypeError, "None or an epoch"),
    (SwitchCallback, {"verbose": 2}, ValueError, "one of 0, 1"),
    (SwitchCallback, {"verbose": "1"}, ValueError, "one of 0, 1"),
    (
        SwitchCallback,
        {"trigger": AtEpoch(1), "monitor_only": 1},
        TypeError,
        "True or False",
    ),
    (Plan, {"fraction": "half"}, TypeError, "a finite number > 0 and <= 1"),
    (Plan, {"end": 2}, ValueError, UNIT),
    (
        HybridOptimizer.from_recipe,
        {"steps_per_epoch": 5, "recipe": RECIPE, "epochs": 0},
        ValueError,
        INTEGER.format(1),
    ),
    (
        HybridOptimizer.from_recipe,
        {"epochs": 5, "recipe": RECIPE, "steps_per_epoch": 1.5},
        TypeError,
        INTEGER.format(1),
    ),
    (
        HybridOptimizer.from_recipe,
        {"recipe": "mnits-mlp"},
        ValueError,
        "the path of a .json file, or one of ",
    ),
    (HybridOptimizer.from_recipe, {"recipe": 3}, TypeError, "a path or a name"),
    (Recipe.load, {"recipe": None}, TypeError, "a path or a name"),
    (
        SwitchCallback.from_recipe,
        {"recipe": RECIPE, "epochs": 0},
        ValueError,
        INTEGER.format(1),
    ),
    (
        SwitchCallback.from_recipe,
        {"recipe": RECIPE, "epochs": "10"},
        TypeError,
        INTEGER.format(1),
    ),
    (
        SwitchCallback.from_recipe,
        {"recipe": RECIPE, "verbose": None},
        ValueError,
        "one of 0, 1",
    ),
]


def readable(value):
    if isinstance(value, dict):
        return ",".join(f"{k}={v!r}" for k, v in value.items())
    return getattr(value, "__qualname__", None)


@pytest.mark.parametrize(
    "make, arguments, exception, allowed", ARGUMENTS, ids=readable
)
def test_bad_argument(make, arguments, exception, allowed):
    name = list(arguments)[-1]
    with pytest.raises(exception) as caught:
        make(**arguments)
    message = str(caught.value)
    assert type(caught.value) is exception
    assert f"`{name}` must {'' if allowed[:3] == 'not' else 'be '}" in message
    assert allowed in message
    assert message.endswith(received(**{name: arguments[name]}))


def model_with(optimizer):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", run_eagerly=True)
    return model


def fit(callback, optimizer=None, **arguments):
    model = model_with(optimizer or HybridOptimizer(jit_compile=False))
    model.fit(np.ones((4, 2)), np.ones(4), verbose=0, callbacks=[callback])


def library(name):
    """A module that may need an extra package."""
    return pytest.importorskip(f"keras_hybrid.{name}")


def compare(**arguments):
    # The data set's name is checked before a file is touched.
    library("study.protocol").compare(output="/nowhere", **arguments)


def tuner(**arguments):
    def build(hp):
        return model_with(HybridOptimizer())

    tuning = library("tuner")
    space, seeds = arguments.pop("space", "when"), arguments.pop("seeds", 1)
    tuning.ForkedTuner(
        tuning.HybridHyperModel(
            arguments.pop("hypermodel", build), space, seeds
        ),
        directory="/nowhere",
        **arguments,
    )


# A call, exception, pattern.
CALLS = {
    "or-of-families": (
        lambda: AtStep(1) | AtEpoch(1),
        TypeError,
        r"`\|` composes triggers of one family.*"
        r"Received: AtStep\(n=1\) \| AtEpoch\(n=1\)$",
    ),
    "and-of-families": (
        lambda: AtEpoch(1) & AtStep(1),
        TypeError,
        r"`&` composes triggers of one family.*Received: AtEpoch",
    ),
    "or-with-a-number": (
        lambda: AtStep(1) | 3,
        TypeError,
        r"of one family.*Received: AtStep\(n=1\) \| 3$",
    ),
    "trigger-twice": (
        lambda: (lambda t: t | t)(Plateau()),
        ValueError,
        r"`triggers` must hold at least one trigger, each only once.*Received",
    ),
    "plateau-of-unknown-direction": (
        lambda: Plateau("score"),
        ValueError,
        f"`mode` must be {SIGN}.*Received: mode='auto', monitor='score'$",
    ),
    "target-of-unknown-direction": (
        lambda: MetricReached("score", 1),
        ValueError,
        f"`mode` must be {SIGN}.*Received: mode='auto', monitor='score'$",
    ),
    "gap-of-unknown-direction": (
        lambda: GeneralizationGap(0.1, metric="score"),
        ValueError,
        f"`mode` must be {SIGN}.*Received: mode='auto', monitor='score'$",
    ),
    "metric-not-in-the-logs": (
        lambda: fit(SwitchCallback(Plateau("val_loss"), verbose=0)),
        ValueError,
        r"monitored metric is not in the logs.*Received: monitor='val_loss'$",
    ),
    "monitor-without-trigger": (
        lambda: SwitchCallback(monitor_only=True),
        ValueError,
        r"`monitor_only` needs a `trigger`.*Received: trigger=None, monitor_o",
    ),
    "callback-for-adam": (
        lambda: fit(SwitchCallback(), "adam"),
        ValueError,
        r"compiled with a `HybridOptimizer`.*Received: optimizer=Adam$",
    ),
    "model-not-compiled": (
        lambda: hybrid_optimizer(keras.Sequential([keras.layers.Dense(1)])),
        ValueError,
        r"compiled with a `HybridOptimizer`.*Received: optimizer=NoneType$",
    ),
    "cooldown-without-length": (
        lambda: fit(
            keras.callbacks.Callback(),
            HybridOptimizer(cooldown=Cooldown(), jit_compile=False),
        ),
        ValueError,
        r"`Cooldown\(\)`.*`SwitchCallback`.*Received: steps=None, share=None$",
    ),
    "one-length-of-a-recipe": (
        lambda: HybridOptimizer.from_recipe(RECIPE, epochs=3),
        ValueError,
        r"`epochs` and `steps_per_epoch` come together.*Received: epochs=3, ",
    ),
    "recipe-of-no-file": (
        lambda: Recipe.load("nowhere.json"),
        ValueError,
        r"nowhere\.json: not readable",
    ),
    "field-of-another-plan": (
        lambda: Plan(when="plateau", fraction=0.5),
        ValueError,
        r"`fraction` is only for when in fraction\. Received: fraction=0\.5",
    ),
    "field-of-no-plan": (
        lambda: Plan.from_dict({"speed": 1}),
        ValueError,
        r"A plan has the fields cooldown, .*Received: speed$",
    ),
    "tuner-seeds": (
        lambda: tuner(seeds=0),
        ValueError,
        r"`seeds` must be an integer >= 1\. Received: seeds=0$",
    ),
    "tuner-model": (
        lambda: tuner(hypermodel="cnn"),
        TypeError,
        r"`hypermodel` must be .*Received: hypermodel='cnn'$",
    ),
    "tuner-oracle": (
        lambda: tuner(oracle="magic"),
        ValueError,
        r"`oracle` must be one of 'grid', .*Received: oracle='magic'$",
    ),
    "tuner-objective": (
        lambda: tuner(objective=3),
        TypeError,
        r"`objective` must be the name of a metric.*Received: objective=3$",
    ),
    "tuner-trials": (
        lambda: tuner(max_trials=1.5),
        TypeError,
        r"`max_trials` must be an integer >= 1\. Received: max_trials=1\.5$",
    ),
    "tuner-prune": (
        lambda: tuner(prune="yes"),
        TypeError,
        r"`prune` must be True or False\. Received: prune='yes'$",
    ),
    "tuner-space": (
        lambda: tuner(space="outer"),
        ValueError,
        r"`space` must be one of 'when', .*Received: space='outer'$",
    ),
    "tuner-snapshots": (
        lambda: tuner(snapshot_limit=-1),
        ValueError,
        r"`snapshot_limit` must be an integer >= 1\. Received: snapshot_limit=",
    ),
    "study-data-set": (
        lambda: compare(dataset="mnits"),
        ValueError,
        r"`dataset` must be one of 'mnist-5k', .*Received: dataset='mnits'$",
    ),
    "study-architecture": (
        lambda: compare(architecture="vgg"),
        ValueError,
        r"`architecture` must be one of .*'cnn'.*Received: architecture='vgg'$",
    ),
    "study-arm": (
        lambda: compare(arms=["adam", "adma"]),
        ValueError,
        r"`arms` must be one of 'adam', .*Received: arms='adma'$",
    ),
    "study-no-arm": (
        lambda: compare(arms=[]),
        ValueError,
        r"`arms` must name at least one of adam, .*Received: arms=\[\]$",
    ),
    "study-epochs": (
        lambda: compare(epochs=0),
        ValueError,
        r"`epochs` must be an integer >= 2\. Received: epochs=0$",
    ),
    "study-epochs-text": (
        lambda: compare(epochs="10"),
        TypeError,
        r"`epochs` must be an integer >= 2\. Received: epochs='10'$",
    ),
    "study-seeds": (
        lambda: compare(seeds=0),
        ValueError,
        r"`seeds` must be an integer >= 1\. Received: seeds=0$",
    ),
    "study-batch-size": (
        lambda: compare(batch_size=1.5),
        TypeError,
        r"`batch_size` must be an integer >= 1\. Received: batch_size=1\.5$",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_bad_call(name):
    call, exception, pattern = CALLS[name]
    with pytest.raises(exception, match=pattern):
        call()


# A command line and what it says.
COMMANDS = {
    "": "the following arguments are required: command",
    "train": "invalid choice: 'train'",
    "compare --fast": "unrecognized arguments: --fast",
    "compare --epochs two": "argument --epochs: invalid int value: 'two'",
    "compare --epochs 0": "`epochs` must be an integer >= 2. Received: ",
    "compare --epochs -3": "Received: epochs=-3",
    "compare --seeds 0": "`seeds` must be an integer >= 1. Received: seeds=0",
    "compare --batch-size 0": "`batch_size` must be an integer >= 1. Received",
    "compare --dataset mnits": "`dataset` must be one of 'mnist-5k', ",
    "compare --architecture vgg": "`architecture` must be one of ",
    "compare --arms adma": "`arms` must be one of 'adam', ",
    "compare --arms ,": "`arms` must name at least one of adam, ",
    "tune --dataset mnits": "`dataset` must be one of 'mnist-5k', ",
    "tune --architecture vgg": "`architecture` must be one of ",
    "tune --tuner magic": "`tuner` must be one of 'grid', ",
    "tune --space outer": "`space` must be one of 'when', ",
    "tune --epochs 1": "`epochs` must be an integer >= 2. Received: epochs=1",
    "tune --seeds 1.5": "argument --seeds: invalid int value: '1.5'",
    "tune --max-trials 0": "`max_trials` must be an integer >= 1. Received",
    "tune --workers 0": "`workers` must be an integer >= 1. Received",
    "report": "the following arguments are required: folder",
    "report nowhere": "nowhere",
    "report file": "file",
    "report .": "keras-hybrid compare",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_bad_command(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    try:
        code = cli.main(command.split())
    except SystemExit as exit_of_argparse:
        code = exit_of_argparse.code
    assert code == 2
    error = capsys.readouterr().err
    assert COMMANDS[command] in error
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_numpy_numbers_are_no_bad_input():
    for number in (np.float32(0.5), np.float64(0.5), np.array(0.5)):
        assert Hard(number).get_config() == {"end": 0.5}
    assert Blend(np.int64(3)).get_config()["steps"] == 3
    config = HybridOptimizer(clipnorm=np.float32(0.5)).get_config()
    assert json.dumps(config["clipnorm"]) == "0.5"


def test_the_table_is_as_long_as_promised():
    # With those of HybridOptimizer, in test_errors.py, over 230.
    assert len(ARGUMENTS) + len(CALLS) + len(COMMANDS) >= 145
