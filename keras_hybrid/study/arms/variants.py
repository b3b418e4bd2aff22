"""The hybrids from which the study chose: one change of `hybrid` each."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras_hybrid.study.arms.arm import named
from keras_hybrid.study.arms.making import at, blend_half
from keras_hybrid.study.arms.tuned import (
    ADAM_DECAY,
    make_tuned_control,
    make_tuned_hybrid,
)
from keras_hybrid.transitions import Cooldown

_DECAYED_8: dict[str, Any] = {"weight_decay": 8 * ADAM_DECAY}
# One change of `hybrid` each, at its tuned learning rate. Where it is a change
# of the trigger, the cool-down or the decay, and no control has the same, it
# has none.
VARIANTS = named(
    dataclasses.replace(arm, tuned_as="hybrid")
    for arm in (
        *(
            make_tuned_hybrid(
                f"at{round(100 * fraction)}",
                f"switch at {fraction:.0%}",
                "control_at80" if fraction == 0.8 else None,
                when=at(fraction),
            )
            for fraction in (0.2, 0.35, 0.65, 0.8)
        ),
        *(
            make_tuned_hybrid(
                f"x{factor:g}",
                f"rho times {factor:g}",
                scale_multiplier=factor,
            )
            for factor in (0.5, 2.0, 4.0)
        ),
        make_tuned_control("control_at80", "from 80%", when=at(0.8)),
        make_tuned_hybrid("norm", "rho by norms", sgd_scale="norm"),
        make_tuned_hybrid("momentum", "rho by momentum", sgd_scale="momentum"),
        make_tuned_hybrid(
            "momentum_at80",
            "rho by momentum, switch at 80%",
            "control_at80",
            sgd_scale="momentum",
            when=at(0.8),
        ),
        make_tuned_hybrid(
            "momentum_x2",
            "rho by momentum, times 2",
            sgd_scale="momentum",
            scale_multiplier=2.0,
        ),
        make_tuned_hybrid(
            "geometric",
            "blend, geometric",
            how=blend_half(path="geometric"),
        ),
        make_tuned_hybrid(
            "geometric_half",
            "blend to one half, geometric",
            how=blend_half(path="geometric", end=0.5),
        ),
        make_tuned_hybrid(
            "end75", "blend to three quarters", how=blend_half(end=0.75)
        ),
        make_tuned_hybrid(
            "linear",
            "cool-down linear",
            None,
            cooldown=Cooldown("linear"),
        ),
        make_tuned_hybrid("nesterov_after", "Nesterov after", nesterov=True),
        make_tuned_hybrid("momentum95", "momentum 0.95 after", momentum=0.95),
        make_tuned_hybrid("momentum80", "momentum 0.8 after", momentum=0.8),
        make_tuned_hybrid(
            "undecayed", "no weight decay", None, weight_decay=None
        ),
        make_tuned_hybrid(
            "decay4", "weight decay times 4", None, weight_decay=4 * ADAM_DECAY
        ),
        make_tuned_control(
            "control_decay8", "from half, decay times 8", **_DECAYED_8
        ),
        make_tuned_hybrid(
            "decay8",
            "weight decay times 8",
            "control_decay8",
            **_DECAYED_8,
        ),
        make_tuned_control(
            "control_decay8_at20",
            "from 20%, decay times 8",
            when=at(0.2),
            **_DECAYED_8,
        ),
        make_tuned_hybrid(
            "decay8_at20",
            "weight decay times 8, switch at 20%",
            "control_decay8_at20",
            when=at(0.2),
            **_DECAYED_8,
        ),
    )
)
