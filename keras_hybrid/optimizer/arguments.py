"""The arguments of HybridOptimizer: what each may be, alone and together."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_hybrid import rules
from keras_hybrid._support import checks
from keras_hybrid.execution import backends
from keras_hybrid.groups import SCOPES
from keras_hybrid.scales import LearningRate, Scale
from keras_hybrid.scales.short_forms import scale_argument, scale_of
from keras_hybrid.transitions import Cooldown, Hard, Transition
from keras_hybrid.triggers import SUMS, StepTrigger
from keras_hybrid.units import SCALE_SCOPES

# Numbers, texts and truths: a config has them as they are.
PLAIN = (
    "beta_1",
    "beta_2",
    "epsilon",
    "amsgrad",
    "momentum",
    "nesterov",
    "carry_momentum",
    "scope",
    "scale_scope",
    "jit_compile",
    "scale_multiplier",
    "skip_nonfinite",
)
# Objects, or short forms of them: it has them serialized.
PARTS = ("sgd_learning_rate", "sgd_scale", "trigger", "transition", "cooldown")


def checked(name: str, value: Any) -> Any:
    """Returns an argument as it is kept; other attributes pass.

    Raises:
        TypeError: If it has the wrong type.
        ValueError: If it is outside its range or choices.
    """
    return CHECKS[name](name, value) if name in CHECKS else value


def check_together(optimizer: Any) -> None:
    """Refuses arguments that exclude each other.

    Raises:
        ValueError: If two of the optimizer's do.
    """
    optimizer.check_form()
    scale, sgd_scale = optimizer.scale, optimizer.sgd_scale
    scale_scope, trigger = optimizer.scale_scope, optimizer.trigger
    multiplier = optimizer.scale_multiplier
    if optimizer.sgd_learning_rate is not None and sgd_scale != "slots":
        raise ValueError(
            "Only one of `sgd_scale` and `sgd_learning_rate` can be set. "
            f"Received: sgd_scale={sgd_scale!r}, "
            f"sgd_learning_rate={optimizer.sgd_learning_rate!r}"
        )
    if multiplier != 1 and not scale.estimated:
        raise ValueError(
            "`scale_multiplier` is a factor on the estimated rho: with a "
            "number as `sgd_scale`, or with `sgd_learning_rate`, change "
            "that number. Received: "
            f"scale_multiplier={multiplier!r}"
        )
    freezes = scale.granularity(scale_scope) == "weight"
    if freezes and optimizer.root is not rules.adaptive_root:
        raise ValueError(
            "`scale_scope` 'weight' keeps the step sizes of Adam as Keras "
            f"has it, which {type(optimizer).__name__} has not. Received: "
            f"scale_scope={scale_scope!r}, sgd_scale={sgd_scale!r}"
        )
    _check_shares_momentum(scale, optimizer.transition)
    _check_clipping(optimizer)
    starts = trigger is not None and trigger.fires_at_start
    cooldown = optimizer.cooldown
    if starts and cooldown is not None and cooldown.share is not None:
        raise ValueError(
            "`Cooldown(share=...)` is a share of the updates before the "
            "switch, and there are none: give it `steps`, or let it end with "
            f"the training. Received: trigger={trigger!r}, "
            f"cooldown={cooldown!r}"
        )
    if starts and scale.estimated:
        raise ValueError(
            "`trigger` fires before the first update, so there is no "
            "adaptive step to estimate the SGD learning rate from: give "
            "`sgd_learning_rate` or a number as `sgd_scale`. Received: "
            f"trigger={trigger!r}, sgd_scale={sgd_scale!r}"
        )


def _check_clipping(optimizer: Any) -> None:
    names = ("clipnorm", "clipvalue", "global_clipnorm")
    given = {name: getattr(optimizer, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise ValueError(
            f"Only one of {', '.join(names)} can be set: set the other to None "
            "first. Received: "
            f"{', '.join(f'{name}={value}' for name, value in given.items())}"
        )


def _check_shares_momentum(scale: Scale, transition: Transition) -> None:
    if scale.inside_momentum and not transition.is_at_once:
        raise ValueError(
            "`inside_momentum` needs a transition at once to SGD alone, "
            "Hard(): with Adam SGD shares no momentum that its rate is in. "
            f"Received: transition={transition!r}, sgd_scale={scale!r}"
        )


def _check_holds(now: Scale, new: Scale) -> None:
    if now.inside_momentum != new.inside_momentum:
        raise ValueError(
            "`inside_momentum` says what the momentum holds: set it before the "
            "first update, or make a new optimizer. Received: "
            f"sgd_scale={new!r}, in place of {now!r}"
        )


def check_to_build(optimizer: Any) -> None:
    """Refuses what only the first update can tell.

    Raises:
        ValueError: If arguments that were assigned exclude each other, or
            `jit_compile=True` is under a tf.distribute strategy.
    """
    check_together(optimizer)
    if optimizer.jit_compile is True and backends.strategy_is_active():
        raise ValueError(
            "`jit_compile` must be 'auto' or False under a tf.distribute "
            "strategy, which cannot run inside XLA. Received: "
            "jit_compile=True"
        )


def check_assigned(optimizer: Any, name: str, value: Any) -> None:
    """Refuses what a built optimizer, with its other arguments, cannot become.

    Raises:
        ValueError: If it has not the variables for the value, is past the
            switch that it decides, or has an argument that excludes it.
    """
    _check_fits_state(optimizer, name, value)
    if isinstance(value, float) and name in ("sgd_scale", "sgd_learning_rate"):
        switched = any(s is not None for s in optimizer.switch_steps.values())
        if switched and value != getattr(optimizer, name):
            raise ValueError(
                f"`{name}` is read at the switch, which has been: change "
                "`learning_rate`, which SGD's rate follows, or `revert()` "
                f"before. Received: {name}={value!r}"
            )
    before = getattr(optimizer, name)
    object.__setattr__(optimizer, name, value)
    try:
        check_together(optimizer)
    finally:
        object.__setattr__(optimizer, name, before)


def _check_fits_state(optimizer: Any, name: str, value: Any) -> None:
    if name in ("amsgrad", "scope", "scale_scope"):
        fits = value == getattr(optimizer, name)
    elif name == "transition":
        _check_shares_momentum(optimizer.scale, value)
        return
    elif name == "sgd_learning_rate":
        if value is not None:
            _check_holds(optimizer.scale, LearningRate(value))
        return
    elif name == "sgd_scale":
        scale = scale_of(value)
        _check_holds(optimizer.scale, scale)
        fits = optimizer.state.fits_scale(scale, optimizer.scale_scope)
    elif name == "trigger":
        fits = optimizer.state.fits_trigger(value)
    else:
        return
    if not fits:
        raise ValueError(
            f"`{name}` decides which variables the optimizer has: set it "
            "before the first update, or make a new optimizer. Received: "
            f"{name}={value!r}"
        )


def weight_at_start(transition: Transition) -> float:
    """SGD's weight in the update right after the switch."""
    # Set with the transition, as `build` may be traced into a graph.
    weight = transition.weight(np.zeros((), "float64"))
    return float(ops.convert_to_numpy(weight))


def _momentum(name: str, value: Any) -> float | None:
    return None if value is None else _BELOW_ONE(name, value)


def _sgd_learning_rate(name: str, value: Any) -> Any:
    return None if value is None else checks.rate_or_schedule(name, value)


def _trigger(name: str, value: Any) -> StepTrigger | None:
    trigger = checks.instance_or_none(
        name,
        value,
        StepTrigger,
        "a step trigger (AtStep, ProjectionConverged, "
        "GradientSignalToNoise); epoch triggers go to SwitchCallback",
    )
    if trigger is None:
        return None
    trigger.get_config()  # One of the user's own may lack it.
    unknown = set(trigger.needs) - SUMS
    if unknown:
        raise ValueError(
            f"`needs` of a trigger may hold {', '.join(sorted(SUMS))}. "
            f"Received: needs={sorted(unknown)}"
        )
    return trigger


def _transition(name: str, value: Any) -> Transition:
    allowed = "Hard(...) or Blend(...)"
    checks.instance_or_none(name, value, Transition, allowed)
    if value is None:
        return Hard()
    if type(value).weight is Transition.weight:
        raise TypeError(
            "A transition of your own needs `weight`, which returns SGD's "
            f"weight. Received: {type(value).__name__} without it"
        )
    checks.number(f"{name}.end", value.end, low=0, high=1)
    value.get_config()  # For files and messages: told now if it is missing.
    return value


def _cooldown(name: str, value: Any) -> Cooldown | None:
    return checks.instance_or_none(name, value, Cooldown, "Cooldown(...)")


def _jit_compile(name: str, value: Any) -> bool | str:
    checks.choice(name, value, (True, False, "auto"))
    if value is True and keras.backend.backend() != "tensorflow":
        raise ValueError(
            "`jit_compile` can only be True on the TensorFlow backend "
            "(JAX compiles the whole training step itself). Received: "
            f"jit_compile=True, backend={keras.backend.backend()!r}"
        )
    return value


_BELOW_ONE = functools.partial(checks.number, low=0, below=1)
_POSITIVE = functools.partial(checks.number, above=0)
_SCOPE = functools.partial(checks.choice, choices=SCOPES)
# What each argument may be; its value as it is kept.
CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "beta_1": _BELOW_ONE,
    "beta_2": _BELOW_ONE,
    "epsilon": _POSITIVE,
    "amsgrad": checks.boolean,
    "momentum": _momentum,
    "nesterov": checks.boolean,
    "sgd_scale": scale_argument,
    "sgd_learning_rate": _sgd_learning_rate,
    "carry_momentum": checks.boolean,
    "trigger": _trigger,
    "transition": _transition,
    "scope": _SCOPE,
    "scale_scope": functools.partial(checks.choice, choices=SCALE_SCOPES),
    "cooldown": _cooldown,
    "jit_compile": _jit_compile,
    "scale_multiplier": _POSITIVE,
    "skip_nonfinite": checks.boolean,
    **checks.BASE,
}
# What the compiled step has in it.
TRACED = frozenset(CHECKS)
