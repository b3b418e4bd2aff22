"""Plans and recipes: what a search hands over."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_hybrid import HybridOptimizer, SwitchCallback, triggers
from keras_hybrid.plans import CONDITIONS
from keras_hybrid.recipes import Plan, Recipe
from keras_hybrid.transitions import Blend, Cooldown, Hard

PLANS = {
    "default": Plan(),
    "early": Plan(fraction=0.2, multiplier=2.0),
    "plateau": Plan(when="plateau", patience=0.2, cooldown="linear"),
    "gap": Plan(when="gap", threshold=0.05, cooldown="none"),
    "projection": Plan(when="projection", tolerance=0.2, scale="norm"),
    "blend": Plan(how="blend", length=0.3, curve="cosine", path="geometric"),
    "number": Plan(scale="number", rho=3.0, end=0.5, scale_scope="model"),
    "start": Plan(when="start", scale="number", rho=1.0, end=0.0),
}


def _recipe(plan=None, **changes):
    fields = {
        "name": "tiny",
        "dataset": None,
        "architecture": "mlp",
        "plan": plan or Plan(),
        "optimizer": {"learning_rate": 0.002, "weight_decay": 0.01},
        "hyperparameters": {"units": 8},
        "budget": {"epochs": 10, "steps_per_epoch": 4, "batch_size": 16},
        "score": {"objective": "val_loss", "mean": 0.5, "std": None},
        "search": {"epochs_trained": 55},
        "versions": {"keras": "3"},
    }
    return Recipe(**{**fields, **changes})


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_plan_round_trip(plan):
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert Plan.from_dict(plan.to_dict()).to_dict() == plan.to_dict()


def test_a_plan_fills_in_what_the_others_call_for_and_nothing_else():
    assert Plan().to_dict() == {
        "when": "fraction",
        "fraction": 0.5,
        "how": "hard",
        "end": 1.0,
        "scale": "slots",
        "scale_scope": "unit",
        "multiplier": 1.0,
        "cooldown": "cosine",
        "final": 0.0,
        "scope": "model",
    }
    assert Plan(when="plateau").fraction is None
    assert Plan(cooldown="none").final is None
    assert Plan(scale="number").multiplier is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"when": "never"}, "`when` must be one of 'fraction'"),
        ({"when": ["fraction"]}, "`when` must be one of"),
        ({"fraction": 0.0}, "`fraction` must be a finite number > 0"),
        ({"fraction": 1.5}, "<= 1. Received: fraction=1.5"),
        ({"when": "plateau", "fraction": 0.5}, "only for when in fraction"),
        ({"patience": 0.1}, "only for when in plateau"),
        ({"when": "plateau", "patience": 0}, "`patience` must be"),
        ({"when": "gap", "threshold": float("nan")}, "`threshold` must be"),
        ({"when": "projection", "tolerance": -1.0}, "`tolerance` must be"),
        ({"how": "soft"}, "`how` must be one of 'hard', 'blend'"),
        ({"length": 0.1}, "only for how in blend"),
        ({"how": "blend", "length": 0.0}, "`length` must be"),
        ({"how": "blend", "curve": "square"}, "`curve` must be one of"),
        ({"how": "blend", "path": "zigzag"}, "`path` must be one of"),
        ({"end": 2}, "`end` must be"),
        ({"scale": "guess"}, "`scale` must be one of"),
        ({"scale": "number", "rho": 0.0}, "`rho` must be"),
        ({"scale": "number", "multiplier": 2.0}, "only for scale in"),
        ({"multiplier": 0.0}, "`multiplier` must be"),
        ({"scale_scope": "net"}, "`scale_scope` must be one of"),
        ({"scope": "net"}, "`scope` must be one of"),
        ({"cooldown": None}, "`cooldown` must be one of"),
        ({"cooldown": "none", "final": 0.1}, "only for cooldown in"),
        ({"final": 1.1}, "`final` must be"),
        ({"speed": 1}, "Received: speed"),
    ],
)
def test_bad_plans(fields, message):
    with pytest.raises(ValueError, match=message.replace("`", "`")):
        Plan.from_dict(fields)


def test_a_number_of_the_wrong_type():
    with pytest.raises(TypeError, match="`fraction` must be a finite number"):
        Plan(fraction="half")


def test_conditions_name_fields_and_values_that_exist():
    fields = {field.name for field in dataclasses.fields(Plan)}
    for child, (parent, values) in CONDITIONS.items():
        assert {child, parent} <= fields
        assert all(Plan(**{parent: value}) for value in values)


def test_triggers_of_plans_scale_with_the_budget():
    assert Plan().epoch_trigger(7).n == 4
    assert Plan(fraction=0.01).epoch_trigger(20).n == 1
    assert Plan(fraction=1).epoch_trigger(20) is None
    plateau = PLANS["plateau"].epoch_trigger(20)
    assert isinstance(plateau, triggers.Plateau)
    assert plateau.patience == 4
    gap = PLANS["gap"].epoch_trigger(20)
    assert isinstance(gap, triggers.GeneralizationGap)
    assert gap.threshold == 0.05
    assert PLANS["projection"].epoch_trigger(20) is None
    assert PLANS["projection"].step_trigger().tolerance == 0.2
    assert PLANS["start"].step_trigger().n == 0
    assert Plan().step_trigger() is None


def test_optimizer_arguments_of_plans():
    default = HybridOptimizer(**Plan().optimizer_arguments(100))
    assert repr(default.transition) == repr(Hard())
    assert repr(default.cooldown) == repr(Cooldown())
    assert default.sgd_scale == "slots"
    blend = PLANS["blend"].optimizer_arguments(200)["transition"]
    assert repr(blend) == repr(Blend(60, curve="cosine", path="geometric"))
    number = PLANS["number"].optimizer_arguments(10)
    assert number["sgd_scale"] == 3.0
    assert number["transition"].end == 0.5
    assert PLANS["gap"].optimizer_arguments(10)["cooldown"] is None


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_recipe_round_trip(plan, tmp_path):
    recipe = _recipe(plan)
    path = recipe.save(tmp_path / "folder" / "tiny.json")
    assert Recipe.load(path) == recipe
    assert Recipe.load(str(path)) == recipe
    assert json.loads(path.read_text())["format"] == 1
    assert not list(path.parent.glob("*.partial"))


def test_from_recipe_takes_the_recipe_and_what_is_given_instead(tmp_path):
    path = _recipe(PLANS["blend"]).save(tmp_path / "r.json")
    optimizer = HybridOptimizer.from_recipe(path)
    assert float(optimizer.learning_rate) == np.float32(0.002)
    assert optimizer.weight_decay == 0.01
    assert optimizer.trigger.n == 20
    assert optimizer.transition.steps == 12
    assert optimizer.training_steps == 40
    longer = HybridOptimizer.from_recipe(
        str(path), epochs=20, steps_per_epoch=10, learning_rate=0.1
    )
    assert float(longer.learning_rate) == np.float32(0.1)
    assert longer.trigger.n == 100
    assert longer.transition.steps == 60
    assert longer.training_steps == 200


def test_from_recipe_of_epoch_triggers_leaves_them_to_the_callback(tmp_path):
    path = _recipe(PLANS["plateau"]).save(tmp_path / "r.json")
    assert HybridOptimizer.from_recipe(path).trigger is None
    assert SwitchCallback.from_recipe(path).trigger.patience == 2
    assert SwitchCallback.from_recipe(path, epochs=50).trigger.patience == 10
    fixed = _recipe().save(tmp_path / "f.json")
    assert SwitchCallback.from_recipe(fixed).trigger is None
    assert SwitchCallback.from_recipe(fixed, verbose=0).verbose == 0


def test_a_recipe_that_never_switches_goes_on_with_adam():
    optimizer = HybridOptimizer.from_recipe(_recipe(Plan(fraction=1.0)))
    adam = keras.optimizers.AdamW(0.002, weight_decay=0.01)
    ours, theirs = (
        keras.Variable(np.linspace(-1, 1, 4, dtype="float32")) for _ in range(2)
    )
    for gradient in np.random.default_rng(0).normal(size=(45, 4)):
        for each, weights in ((optimizer, ours), (adam, theirs)):
            each.apply([ops.convert_to_tensor(gradient, "float32")], [weights])
    assert not optimizer.has_switched
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_recipe_trains_and_switches_where_it_says(tmp_path):
    path = _recipe(Plan(fraction=0.5)).save(tmp_path / "r.json")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(HybridOptimizer.from_recipe(path, 4, 3), "mse")
    x = np.random.default_rng(0).normal(size=(12, 3))
    model.fit(
        x,
        x[:, :2],
        batch_size=4,
        epochs=4,
        verbose=0,
        callbacks=[SwitchCallback.from_recipe(path, 4, verbose=0)],
    )
    assert model.optimizer.switch_step == 6
    assert model.optimizer.cooldown_factor == pytest.approx(0, abs=1e-6)


def _changed(path, **changes):
    content = json.loads(path.read_text())
    for name, value in changes.items():
        if value is ...:
            del content[name]
        else:
            content[name] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "not a recipe of format 1. Received: format=2"),
        ({"format": ...}, "Received: format=None"),
        ({"score": ...}, "missing or unknown: score"),
        ({"taste": 1}, "missing or unknown: taste"),
        ({"plan": {"when": "later"}}, "`when` must be one of"),
        ({"plan": {"speed": 1}}, "Received: speed"),
        ({"plan": {"fraction": "x"}}, "`fraction` must be"),
        ({"plan": []}, "plan is no mapping"),
        ({"optimizer": 1}, "optimizer is no mapping"),
        ({"budget": {}}, "budget.epochs"),
        ({"budget": {"epochs": 0, "steps_per_epoch": 1}}, "budget.epochs"),
    ],
)
def test_damaged_recipes_are_named(tmp_path, changes, message):
    path = _recipe().save(tmp_path / "r.json")
    _changed(path, **changes)
    with pytest.raises((ValueError, TypeError), match=message):
        HybridOptimizer.from_recipe(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\x00"])
def test_files_that_are_no_recipes(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="r.json: not"):
        Recipe.load(path)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("no-such-cell",), ValueError, "or one of .*no-such-cell"),
        (("missing.json",), ValueError, "missing.json: not readable"),
        ((3,), TypeError, "`recipe` must be a path or a name"),
        ((_recipe(), 3), ValueError, "come together"),
        ((_recipe(), None, 3), ValueError, "come together"),
        ((_recipe(), 0, 3), ValueError, "`epochs` must be an integer >= 1"),
        ((_recipe(), 3, 0.5), TypeError, "`steps_per_epoch` must be"),
    ],
)
def test_bad_arguments_of_from_recipe(arguments, error, message):
    with pytest.raises(error, match=message):
        HybridOptimizer.from_recipe(*arguments)


def test_the_recipes_that_come_with_the_library_load():
    from keras_hybrid.recipes import SHIPPED

    names = [path.stem for path in SHIPPED[0].glob("*.json")]
    assert names, "the source tree has recipes in tuning/"
    for name in names:
        recipe = Recipe.load(name)
        assert recipe.name == name
        assert recipe.score["mean"] == pytest.approx(
            np.mean(recipe.score["values"])
        )
        assert HybridOptimizer.from_recipe(name).training_steps > 0


def test_scale_multiplier_multiplies_rho():
    def trained(multiplier):
        w = keras.Variable([1.0, -2.0])
        optimizer = HybridOptimizer(
            0.01, trigger=triggers.AtStep(3), scale_multiplier=multiplier
        )
        for _ in range(4):
            optimizer.apply([2 * w], [w])
        return optimizer.sgd_learning_rate_equivalent, w.numpy()

    (one, _), (two, moved) = trained(1.0), trained(2.0)
    assert two == pytest.approx(2 * one, rel=1e-6)
    assert np.isfinite(moved).all()
    config = HybridOptimizer(scale_multiplier=2.0).get_config()
    assert HybridOptimizer.from_config(config).scale_multiplier == 2.0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"scale_multiplier": 0}, ValueError),
        ({"scale_multiplier": "2"}, TypeError),
        ({"scale_multiplier": 2.0, "sgd_scale": 0.1}, ValueError),
        ({"scale_multiplier": 2.0, "sgd_learning_rate": 0.1}, ValueError),
    ],
)
def test_bad_scale_multipliers(arguments, error):
    with pytest.raises(error, match="`scale_multiplier`"):
        HybridOptimizer(**arguments)
