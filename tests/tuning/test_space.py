"""The space: its hyperparameters, what they may be, and bad input."""

import keras
import keras_tuner
import numpy as np
import pytest
from searches import POINTS, build, build_light, tuner_in

from keras_hybrid import HybridOptimizer
from keras_hybrid.plans import Plan
from keras_hybrid.tuner import DEFAULT_SPACE, HybridHyperModel


def test_the_default_space_declares_every_field_under_its_condition():
    hp = keras_tuner.HyperParameters()
    plan = HybridHyperModel(build).plan(hp)
    assert plan == Plan(fraction=0.5), "the first trial is the library default"
    names = {p.name.removeprefix("hybrid/") for p in hp.space}
    searched = {
        k for k, v in DEFAULT_SPACE.items() if isinstance(v, (list, tuple))
    }
    assert names == searched - {"rho"}, "no value of scale reads rho"


def test_numbers_of_the_space_may_be_of_any_type():
    space = {"multiplier": [1, np.float32(0.5)], "tolerance": (1, 2)}
    hypermodel = HybridHyperModel(build, {**space, "when": "projection"})
    assert hypermodel.space["multiplier"] == [1.0, 0.5]
    hypermodel.plan(keras_tuner.HyperParameters())


def test_samples_of_the_default_space_are_plans_that_train():
    hypermodel = HybridHyperModel(build)
    seen = set()
    for seed in range(200):
        hp = keras_tuner.HyperParameters()
        hypermodel.plan(hp)
        for parameter in hp.space:
            hp.values[parameter.name] = parameter.random_sample(seed)
        plan = hypermodel.plan(hp)
        HybridOptimizer(**plan.optimizer_arguments(100))
        plan.epoch_trigger(10)
        seen |= {plan.when, plan.how, plan.scale, plan.cooldown, plan.path}
    assert {"fraction", "plateau", "gap", "projection"} <= seen
    assert {"hard", "blend", "norm", "linear", "geometric"} <= seen


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": 3}, TypeError, "`hypermodel` must be"),
        ({"space": [1]}, TypeError, "`space` must be None or a mapping"),
        ({"space": {"speed": 1}}, ValueError, "Received: speed"),
        ({"space": {"when": []}}, ValueError, "at least one value for when"),
        ({"space": {"when": ["later"]}}, ValueError, "`when` must be one of"),
        ({"space": {"when": ("a", "b")}}, ValueError, "a tuple, which must be"),
        ({"space": {"fraction": [0.5, 2]}}, ValueError, "`fraction` must be"),
        ({"space": {"tolerance": (0.3, 0.1)}}, ValueError, "`tolerance`"),
        ({"space": {"rho": (1, 2, 3)}}, ValueError, "must be a pair"),
        ({"space": {"end": ["x"]}}, TypeError, "`end` must be"),
        ({"seeds": 0}, ValueError, "`seeds` must be an integer >= 1"),
        ({"seeds": 1.5}, TypeError, "`seeds` must be"),
        (
            {"space": {**POINTS, "fraction": 0.5}},
            ValueError,
            "nothing to search",
        ),
        ({"oracle": "magic"}, ValueError, "`oracle` must be one of"),
        ({"oracle": "hyperband"}, ValueError, "`max_epochs` must be given"),
        (
            {"oracle": "hyperband", "max_epochs": 1},
            ValueError,
            "`max_epochs` must be an integer >= 2",
        ),
        ({"objective": ["val_loss"]}, TypeError, "`objective` must be"),
        ({"objective": "taste"}, ValueError, "taste"),
        ({"space": "outer"}, ValueError, "`space` must be one of 'when'"),
        (
            {"oracle": "hyperband", "max_epochs": 9, "max_trials": 3},
            ValueError,
            "`max_trials` has no place",
        ),
        (
            {"oracle": keras_tuner.oracles.GridSearchOracle("val_loss")},
            ValueError,
            "`objective` is an argument of the oracle",
        ),
        (
            {
                "oracle": keras_tuner.oracles.GridSearchOracle("val_loss"),
                "max_trials": 3,
            },
            ValueError,
            "`max_trials` is an argument of the oracle",
        ),
        ({"max_trials": 0}, ValueError, "`max_trials` must be"),
        ({"prune": 1}, TypeError, "`prune` must be True or False"),
        ({"snapshot_limit": 0}, ValueError, "`snapshot_limit` must be"),
    ],
)
def test_bad_arguments(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        tuner_in(tmp_path, **arguments)


class OwnFit(keras_tuner.HyperModel):
    def build(self, hp):
        return build_light(hp)

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, batch_size=hp.get("bs"), **kwargs)


def test_a_hypermodel_with_a_fit_of_its_own_is_refused():
    with pytest.raises(ValueError, match="`fit` of its own.*OwnFit"):
        HybridHyperModel(OwnFit())


def with_ema(hp):
    return build(hp, lambda rate: HybridOptimizer(rate, use_ema=True))


def with_accumulation(hp):
    return build(
        hp, lambda rate: HybridOptimizer(rate, gradient_accumulation_steps=2)
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda hp: build(hp, keras.optimizers.Adam), "optimizer=Adam"),
        (
            lambda hp: keras.Sequential([keras.layers.Dense(1)]),
            "must be compiled with a `HybridOptimizer`",
        ),
        (with_ema, "use_ema=True"),
        (with_accumulation, "gradient_accumulation_steps=2"),
    ],
)
def test_models_that_cannot_be_searched(tmp_path, model, message):
    with pytest.raises(ValueError, match=message):
        tuner_in(tmp_path, model)
