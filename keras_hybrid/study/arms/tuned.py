"""Arms of the study: learning rates are tuned, weights decay as is usual."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from keras_hybrid.study.arms.arm import Arm, Budget, named
from keras_hybrid.study.arms.making import (
    at,
    blend_half,
    make_cosine,
    make_hybrid,
)
from keras_hybrid.study.arms.usual import MOMENTUM, SGD_LEARNING_RATE
from keras_hybrid.transitions import Hard
from keras_hybrid.triggers import (
    AtEpoch,
    AtStep,
    EpochTrigger,
    GeneralizationGap,
    Plateau,
    ProjectionConverged,
)

# Decoupled in both families: SGD at 0.1 takes 5e-5 of a weight a step, Adam at
# 1e-3 likewise. (The penalty of 5e-4 of He et al. 2016, in the gradient, goes
# through the momentum and takes ten times as much.)
ADAM_DECAY = 0.05
SGD_DECAY = 5e-4
# Where a trigger that waits for something has not fired, the switch comes
# here: without its cool-down a run would not end.
LATEST = 0.8
# The library's defaults until 0.1, with which these arms were trained.
_PROJECTED: dict[str, Any] = {
    "sgd_scale": "projection",
    "scale_scope": "variable",
}
_DECAYED: dict[str, Any] = {"weight_decay": ADAM_DECAY}
_SGD: dict[str, Any] = {"momentum": MOMENTUM, "weight_decay": SGD_DECAY}


def _plateau(budget: Budget) -> EpochTrigger:
    patience = max(1, budget.epochs // 10)
    latest = AtEpoch(budget.epoch(LATEST))
    return Plateau("val_loss", patience=patience) | latest


def _gap(budget: Budget) -> EpochTrigger:
    return GeneralizationGap(0.1) | AtEpoch(budget.epoch(LATEST))


def _settled(budget: Budget) -> Any:
    latest = budget.epoch(LATEST) * budget.steps_per_epoch
    # As the arm's records have it.
    settled = ProjectionConverged(min_steps=100, against="gamma")
    return settled | AtStep(latest)


def make_tuned_control(name: str, label: str, **arguments: Any) -> Arm:
    """The schedule-matched control: it stays with Adam to the end."""
    return make_hybrid(
        name,
        f"Control: AdamW, cool-down {label}",
        how=lambda b: Hard(end=0.0),
        role="control",
        **{**_PROJECTED, **_DECAYED, **arguments},
    )


def make_tuned_hybrid(
    name: str, label: str, control: str | None = "control", **arguments: Any
) -> Arm:
    """A hybrid that switches at half, unless the arguments say else."""
    arguments = {**_PROJECTED, **_DECAYED, **arguments}
    return dataclasses.replace(
        make_hybrid(name, label, **arguments), control=control
    )


def _slots(
    name: str,
    label: str,
    scope: str,
    control: str = "control",
    tuned_as: str | None = "slots",
    **arguments: Any,
) -> Arm:
    """A hybrid with rho from Adam's slots at the switch."""
    arm = make_tuned_hybrid(
        name,
        f"rho of the slots, a {scope}; {label}",
        control,
        **{"sgd_scale": "slots", "scale_scope": scope, **arguments},
    )
    return dataclasses.replace(arm, tuned_as=tuned_as)


BASELINES = named(
    (
        make_cosine(
            "sgd",
            "SGD momentum, cosine",
            keras.optimizers.SGD,
            SGD_LEARNING_RATE,
            **_SGD,
        ),
        make_cosine(
            "nesterov",
            "SGD Nesterov, cosine",
            keras.optimizers.SGD,
            SGD_LEARNING_RATE,
            nesterov=True,
            **_SGD,
        ),
        make_cosine("adam", "Adam, cosine", keras.optimizers.Adam),
        make_cosine(
            "adamw", "AdamW, cosine", keras.optimizers.AdamW, **_DECAYED
        ),
    )
)


CONTROLS = named(
    (
        make_tuned_control("control", "from half"),
        *(
            dataclasses.replace(
                make_tuned_control(f"{name}_control", label, when=when),
                tuned_as=name,
            )
            for name, label, when in (
                ("plateau", "from a plateau", _plateau),
                ("gap", "from a generalization gap", _gap),
                ("projection", "when the projection settles", _settled),
            )
        ),
    )
)


HYBRIDS = named(
    (
        make_tuned_hybrid("hybrid", "Hybrid, switch at half"),
        make_tuned_hybrid(
            "plateau",
            "Hybrid, switch at a plateau",
            "plateau_control",
            when=_plateau,
        ),
        make_tuned_hybrid(
            "gap",
            "Hybrid, switch at a generalization gap",
            "gap_control",
            when=_gap,
        ),
        make_tuned_hybrid(
            "projection",
            "Hybrid, switch when the projection settles",
            "projection_control",
            when=_settled,
        ),
        make_tuned_hybrid(
            "swats",
            "SWATS' rho, switch when the projection settles",
            "projection_control",
            when=_settled,
            sgd_scale="swats",
            scale_scope="model",
        ),
        make_tuned_hybrid(
            "layer", "Hybrid, one rho a layer", scale_scope="layer"
        ),
        make_tuned_hybrid(
            "model", "Hybrid, one rho for the model", scale_scope="model"
        ),
        make_tuned_hybrid("blend", "Hybrid, blend", how=blend_half()),
        make_tuned_hybrid(
            "partial", "Hybrid, blend to one half", how=blend_half(end=0.5)
        ),
    )
)


# Runs of one learning rate differ after the switch only: so `slots_control` has
# that of `slots`, and `as_control` that of `control`, where tuning is dear.
SLOTS = named(
    (
        _slots("slots", "switch at half", "unit", tuned_as=None),
        _slots("slots_variable", "switch at half", "variable"),
        _slots("slots_blend", "blend", "unit", how=blend_half()),
        _slots("slots_variable_blend", "blend", "variable", how=blend_half()),
        _slots(
            "slots_at80",
            "switch at 80 %",
            "unit",
            "slots_at80_control",
            when=at(0.8),
        ),
        _slots(
            "slots_variable_at80",
            "switch at 80 %",
            "variable",
            "slots_at80_control",
            when=at(0.8),
        ),
        *(
            dataclasses.replace(arm, tuned_as="slots")
            for arm in (
                make_tuned_control(
                    "slots_control", "from half, the slots' rate"
                ),
                make_tuned_control(
                    "slots_at80_control", "from 80 %", when=at(0.8)
                ),
            )
        ),
        _slots(
            "slots_as_control",
            "switch at half, the control's rate",
            "unit",
            tuned_as="control",
        ),
        _slots(
            "slots_variable_as_control",
            "switch at half, the control's rate",
            "variable",
            tuned_as="control",
        ),
    )
)
SHORTENED = (
    "control",
    "plateau_control",
    "hybrid",
    "plateau",
    "blend",
    "partial",
)
STUDY = {
    **BASELINES,
    **CONTROLS,
    **HYBRIDS,
    **SLOTS,
    **named({**CONTROLS, **HYBRIDS}[name].shortened() for name in SHORTENED),
}
