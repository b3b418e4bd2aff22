"""HybridHyperModel: the transition's hyperparameters, for any tuner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import keras_tuner
from keras_tuner.errors import FatalValueError

from keras_hybrid._support import checks
from keras_hybrid.callbacks.models import hybrid_optimizer
from keras_hybrid.plans import CHOICES, CONDITIONS, RANGES, Plan
from keras_hybrid.triggers import ProjectionConverged
from keras_hybrid.tuning.fit import Fit
from keras_hybrid.tuning.trials import (
    copy_values,
    mean_metrics,
    train_whole,
)

PREFIX = "hybrid/"
# Hyperband's begin with "tuner/".
_NOT_OWN = (PREFIX, "tuner/")

# A list is a choice, a pair a range (searched logarithmically), anything else
# fixed.
DEFAULT_SPACE: dict[str, Any] = {
    "when": ["fraction", "plateau", "gap", "projection"],
    # From the library's default outwards.
    "fraction": [0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2, 0.9, 0.1],
    "patience": [0.05, 0.1, 0.2],
    "threshold": (0.01, 1.0),
    "tolerance": (0.02, 0.3),
    "how": ["hard", "blend"],
    "length": [0.1, 0.25, 0.5],
    "curve": ["linear", "cosine"],
    "path": ["arithmetic", "geometric"],
    "end": [1.0, 0.5],
    "scale": ["slots", "norm"],
    "scale_scope": "unit",
    "multiplier": [1.0, 0.5, 2.0],
    "rho": (0.01, 10.0),
    "cooldown": ["cosine", "linear"],
    "final": 0.0,
    "scope": "model",
}
# When alone: ten switch points, the library's default first.
SWITCH_POINTS: dict[str, Any] = {
    "when": "fraction",
    "fraction": [0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2, 0.9, 0.1, 1.0],
    "how": "hard",
    "end": 1.0,
    "scale": "slots",
    "multiplier": 1.0,
    "cooldown": "cosine",
}
SPACES: dict[str, dict[str, Any]] = {
    "when": SWITCH_POINTS,
    # And how fast: trials with different factors share the prefix.
    "rate": {
        **SWITCH_POINTS,
        "fraction": [0.5, 0.7, 0.3, 0.9, 0.1],
        "multiplier": [1.0, 2.0, 4.0],
    },
    "all": DEFAULT_SPACE,
}


class HybridHyperModel(keras_tuner.HyperModel):
    """Adds the transition's hyperparameters to any hypermodel.

    Works with every KerasTuner tuner. Each trial is a whole training from the
    same initial weights (of its seed), in the same order of examples; lengths
    and switch points are fractions of the trial's budget of epochs, so the
    short trials of Hyperband see their transition too (Hyperband's weights of
    an earlier rung, already cooled down, are not used). The score is the last
    epoch's, averaged over the seeds: that is what training with the recipe
    gives.

    Hyperparameters are named "hybrid/" and the field of `recipes.Plan`.

    Args:
        hypermodel: A `keras_tuner.HyperModel` or a function of `hp` that
            returns a model compiled with a HybridOptimizer. The model's
            optimizer keeps its learning rate, decay and so on; its trigger,
            transition, cool-down, scale and scopes are set by the search.
        space: None (default: `DEFAULT_SPACE`), the name of one in `SPACES`
            (`"when"`: ten switch points; `"rate"`: five, and the factor on
            rho; `"all"`: the default), or a mapping from fields of
            `recipes.Plan` to what to search: a list of values to choose from,
            a pair (low, high) of floats to search logarithmically, or one
            value. Fields left out are as in `DEFAULT_SPACE`.
        seeds: Integer of at least 1, default 1: trainings a trial.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the space has unknown fields or values out of range.
    """

    def __init__(
        self,
        hypermodel: Any,
        space: Mapping[str, Any] | str | None = None,
        seeds: int = 1,
    ) -> None:
        super().__init__()
        if not isinstance(hypermodel, keras_tuner.HyperModel) and not callable(
            hypermodel
        ):
            raise TypeError(
                "`hypermodel` must be a keras_tuner.HyperModel or a function "
                f"of `hp`. Received: hypermodel={hypermodel!r}"
            )
        fit = getattr(type(hypermodel), "fit", keras_tuner.HyperModel.fit)
        if fit is not keras_tuner.HyperModel.fit:
            raise ValueError(
                "`hypermodel` may not have a `fit` of its own: the search "
                "trains by itself, and shares epochs between trials. What "
                "`fit` would tune (a batch size) needs a search each. Received:"
                f" {type(hypermodel).__name__}"
            )
        self.inner = hypermodel
        if isinstance(space, str):
            space = SPACES[checks.choice("space", space, SPACES)]
        self.space = _checked_space({} if space is None else space)
        self.seeds = checks.integer("seeds", seeds, low=1)

    def plan(self, hp: Any) -> Plan:
        """Declares the transition's hyperparameters, returns their plan."""
        fields: dict[str, Any] = {}
        for name, values in self._ordered_space():
            parent, allowed = CONDITIONS.get(name, (None, ()))
            if parent is None:
                fields[name] = _declared(hp, name, values)
                continue
            options = values_of(self.space[parent])
            usable = [option for option in options if option in allowed]
            if not usable:
                continue
            if len(options) > 1:
                # Declared in every trial; where inactive it has no value.
                with hp.conditional_scope(PREFIX + parent, usable):
                    value = _declared(hp, name, values)
            else:
                value = _declared(hp, name, values)
            if fields[parent] in usable:
                fields[name] = value
        return Plan(**fields)

    def _ordered_space(self) -> list[tuple[str, Any]]:
        """Parents before their children."""
        return sorted(
            self.space.items(), key=lambda item: item[0] in CONDITIONS
        )

    @property
    def recorded_signals(self) -> list[str]:
        """What the step triggers of the space read, sorted."""
        if "projection" not in values_of(self.space["when"]):
            return []
        return sorted(ProjectionConverged.needs)

    def build(self, hp: Any) -> Any:
        """Builds the user's model, its weights those of seed 0."""
        return self.build_seeded(hp, 0)

    def build_seeded(self, hp: Any, seed: int) -> Any:
        """Builds the user's model with the weights of a seed.

        Raises:
            ValueError: If it is not compiled with a HybridOptimizer.
        """
        self.plan(hp)
        keras.utils.set_random_seed(seed)
        inner = self.inner
        model = (
            inner.build(hp)
            if isinstance(inner, keras_tuner.HyperModel)
            else inner(hp)
        )
        try:
            optimizer = hybrid_optimizer(model)
        except ValueError as error:
            raise FatalValueError(str(error)) from error
        if optimizer.use_ema:
            raise FatalValueError(
                "A HybridOptimizer with `use_ema` cannot be searched: fit "
                "overwrites the weights at its end. Received: use_ema=True"
            )
        if optimizer.gradient_accumulation_steps:
            raise FatalValueError(
                "A HybridOptimizer that accumulates gradients cannot be "
                "searched: an update may then span two epochs. Received: "
                "gradient_accumulation_steps="
                f"{optimizer.gradient_accumulation_steps}"
            )
        return model

    def own_space(self) -> list[dict[str, Any]]:
        """Returns the configs of the user's own hyperparameters, by name.

        The model is built once, and again for each condition on them that no
        earlier build has met, as KerasTuner does it.
        """
        hp = keras_tuner.HyperParameters()
        tried: list[Any] = []
        while True:
            self.build(hp)
            met = [*hp.active_scopes, *tried]
            waiting = [
                scope
                for scope in hp.inactive_scopes
                if scope not in met and any(map(_is_own, scope))
            ]
            if not waiting:
                break
            tried.append(waiting[0])
            for condition in waiting[0]:
                hp.values[condition.name] = condition.values[0]
            hp.ensure_active_values()
        configs = [
            {"kind": type(parameter).__name__, **parameter.get_config()}
            for parameter in hp.space
            if _is_own(parameter)
        ]
        return sorted(configs, key=lambda config: str(config["name"]))

    def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Trains every seed from its start; returns the mean last metrics."""
        if "tuner/initial_epoch" in hp.values:
            # Hyperband's own; each of its trials is a whole training here.
            kwargs.pop("initial_epoch", None)
        fit = Fit.of(args, kwargs)
        runs = []
        for seed in range(self.seeds):
            # The tuner's callbacks keep the weights of the first seed.
            one = fit if seed == 0 else fit.without_callbacks()
            if seed > 0:
                model = self.build_seeded(hp, seed)
            elif "tuner/trial_id" in hp.values:
                # Hyperband has loaded another trial's weights into it.
                copy_values(self.build_seeded(hp, 0), model, one, 0)
            runs.append(
                train_whole(
                    model, self.plan(hp), one, seed, self.recorded_signals
                )
            )
        return mean_metrics(runs)


def values_of(choices: Any) -> list[Any]:
    """Returns the values of a field of the space; a range is one."""
    return choices if isinstance(choices, list) else [choices]


def _checked_space(space: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(space, Mapping):
        raise TypeError(
            "`space` must be None or a mapping from fields of a plan to what "
            f"to search. Received: space={space!r}"
        )
    unknown = sorted(set(space) - set(DEFAULT_SPACE))
    if unknown:
        raise ValueError(
            f"`space` may have the fields {', '.join(DEFAULT_SPACE)}. "
            f"Received: {', '.join(map(str, unknown))}"
        )
    whole = {**DEFAULT_SPACE, **space}
    for name, values in whole.items():
        if isinstance(values, list) and not values:
            raise ValueError(
                f"`space` must have at least one value for {name}. Received: "
                f"{name}=[]"
            )
        if isinstance(values, tuple):
            if name in CHOICES or len(values) != 2:
                raise ValueError(
                    f"`space` has for {name} a tuple, which must be a pair "
                    f"(low, high) of numbers. Received: {name}={values!r}"
                )
            checks.number(name, values[0], above=0)
            checks.number(name, values[1], above=values[0])
        for value in values if isinstance(values, (list, tuple)) else [values]:
            if name in CHOICES:
                checks.choice(name, value, CHOICES[name])
            else:
                checks.number(name, value, **RANGES[name])
        if isinstance(values, (list, tuple)) and name not in CHOICES:
            # KerasTuner wants them of one type.
            whole[name] = type(values)(map(float, values))
    return whole


def _declared(hp: Any, name: str, values: Any) -> Any:
    """Declares one hyperparameter, returns its value."""
    if isinstance(values, tuple):
        low, high = values
        return hp.Float(PREFIX + name, low, high, sampling="log")
    if isinstance(values, list):
        if len(values) == 1:
            return values[0]
        return hp.Choice(PREFIX + name, values, default=values[0])
    return values


def own_values(hp: Any) -> dict[str, Any]:
    """The user's own hyperparameters."""
    return {
        name: value
        for name, value in hp.values.items()
        if not name.startswith(_NOT_OWN)
    }


def _is_own(named: Any) -> bool:
    """Whether a hyperparameter, or a condition on one, is of the user's."""
    return not str(named.name).startswith(_NOT_OWN)
