"""Arms: the ways of training that are compared.

`ARMS` are those of `keras-hybrid compare`, at usual learning rates and without
weight decay. `STUDY` are those of the study, each with its learning rate tuned
and the weight decay that is usual for its family. `VARIANTS` are the hybrids
from which the study chose.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras

from keras_hybrid import presets
from keras_hybrid.callbacks import TrainUntilDone
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.recipes import epoch_at
from keras_hybrid.transitions import Blend, Cooldown, Hard
from keras_hybrid.triggers import (
    AtEpoch,
    AtStep,
    EpochTrigger,
    GeneralizationGap,
    Plateau,
    ProjectionConverged,
)

# Adam's default, and SGD's as often written: where the tuning starts.
ADAM_LEARNING_RATE = 1e-3
SGD_LEARNING_RATE = 0.05
MOMENTUM = 0.9
# Decoupled in both families: SGD at 0.1 takes 5e-5 of a weight a step, Adam at
# 1e-3 likewise. (The penalty of 5e-4 of He et al. 2016, in the gradient, goes
# through the momentum and takes ten times as much.)
ADAM_DECAY = 0.05
SGD_DECAY = 5e-4
# Where a trigger that waits for something has not fired, the switch comes
# here: without its cool-down a run would not end.
LATEST = 0.8
SHORT = 0.7


class Budget(NamedTuple):
    """How long a run trains."""

    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Updates of the whole run."""
        return self.epochs * self.steps_per_epoch

    def epoch(self, fraction: float) -> int:
        """The epoch at a fraction of the run, neither its start nor its end."""
        return epoch_at(fraction, self.epochs)

    @property
    def switch_epoch(self) -> int:
        """Half of the epochs, at least one."""
        return max(1, self.epochs // 2)


Made = tuple[Any, EpochTrigger | None]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: Short name, for files and the command line.
        label: Name for people.
        role: "baseline", "control" or "hybrid".
        make: Returns the optimizer and the epoch trigger (or None) of a budget
            and a learning rate.
        learning_rate: The one it has untuned.
        share: The fraction of the cell's epochs that it gets.
        tuned_as: The arm whose tuned learning rate it takes; None: its own.
        control: For hybrids of the study, the arm with the same trigger,
            cool-down and decay that stays with Adam; None: there is none.
        callbacks: Makes the callbacks that decide when it is done, for one
            run; None: it trains for all epochs.
    """

    name: str
    label: str
    role: str
    make: Callable[[Budget, float], Made]
    learning_rate: float = ADAM_LEARNING_RATE
    share: float = 1.0
    tuned_as: str | None = None
    control: str | None = None
    callbacks: Callable[[], list[Any]] | None = None

    def budget(self, epochs: int, steps_per_epoch: int) -> Budget:
        """Returns what the arm gets in a cell of so many epochs."""
        return Budget(max(2, round(self.share * epochs)), steps_per_epoch)

    def shortened(self) -> Arm:
        """Returns the arm at 70 % of the epochs."""
        return dataclasses.replace(
            self,
            name=f"{self.name}@70",
            label=f"{self.label}, 70 % of the epochs",
            share=SHORT,
            tuned_as=self.tuned_as or self.name,
            control=None if self.control is None else f"{self.control}@70",
        )


def _cosine(
    name: str,
    label: str,
    optimizer: Callable[..., Any],
    learning_rate: float = ADAM_LEARNING_RATE,
    **arguments: Any,
) -> Arm:
    """A baseline of Keras, its learning rate on a cosine to zero."""

    def make(budget: Budget, rate: float) -> Made:
        schedule = keras.optimizers.schedules.CosineDecay(rate, budget.steps)
        return optimizer(schedule, **arguments), None

    return Arm(name, label, "baseline", make, learning_rate)


def _hybrid(
    name: str,
    label: str,
    when: Callable[[Budget], Any] = lambda b: AtEpoch(b.switch_epoch),
    how: Callable[[Budget], Any] = lambda b: None,
    role: str = "hybrid",
    **arguments: Any,
) -> Arm:
    """Adam at a constant rate until the trigger, then a cool-down."""

    def make(budget: Budget, rate: float) -> Made:
        trigger = when(budget)
        own = None if isinstance(trigger, EpochTrigger) else trigger
        optimizer = HybridOptimizer(
            rate,
            trigger=own,
            transition=how(budget),
            **{"cooldown": Cooldown(), **arguments},
        )
        return optimizer, trigger if own is None else None

    return Arm(name, label, role, make)


def _at(fraction: float) -> Callable[[Budget], EpochTrigger]:
    return lambda budget: AtEpoch(budget.epoch(fraction))


def _blend(**arguments: Any) -> Callable[[Budget], Blend]:
    """A blend over the first half of what is left at half of the run."""

    def make(budget: Budget) -> Blend:
        left = budget.steps - budget.switch_epoch * budget.steps_per_epoch
        return Blend(max(1, left // 2), **arguments)

    return make


def _preset(
    name: str, label: str, make: Callable[[Budget, float], HybridOptimizer]
) -> Arm:
    return Arm(
        name, label, "hybrid", lambda budget, rate: (make(budget, rate), None)
    )


def _ending(
    name: str,
    label: str,
    callbacks: Callable[[], list[Any]] | None,
    optimizer: Callable[..., Any] = keras.optimizers.Adam,
    role: str = "baseline",
    control: str | None = None,
    **arguments: Any,
) -> Arm:
    """A constant learning rate, and callbacks that decide what comes of it."""

    def make(budget: Budget, rate: float) -> Made:
        return optimizer(rate, **arguments), None

    return Arm(name, label, role, make, control=control, callbacks=callbacks)


_PATIENCE = 5


def _early_stopping(patience: int) -> Any:
    return keras.callbacks.EarlyStopping(
        patience=patience, restore_best_weights=True
    )


def _reduced() -> list[Any]:
    return [
        keras.callbacks.ReduceLROnPlateau(patience=3, factor=0.2),
        _early_stopping(8),
    ]


def _swapped() -> list[Any]:
    # At an epoch's end too, so that EarlyStopping restores the average.
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    return [swap, _early_stopping(_PATIENCE)]


def _until_done() -> list[Any]:
    return [TrainUntilDone(verbose=0)]


def _named(arms: Iterable[Arm]) -> dict[str, Arm]:
    return {arm.name: arm for arm in arms}


# What people do who do not know how many epochs they need: `epochs` is a
# ceiling. Patience and factor are those of a thousand tutorials.
CEILING = _named(
    (
        _ending("adam_constant", "Adam, constant, all epochs", None),
        _ending(
            "adam_stop",
            "Adam, EarlyStopping",
            lambda: [_early_stopping(_PATIENCE)],
        ),
        _ending(
            "adam_reduce", "Adam, ReduceLROnPlateau, EarlyStopping", _reduced
        ),
        _ending(
            "schedule_free",
            "ScheduleFreeAdamW, EarlyStopping",
            lambda: [_early_stopping(_PATIENCE)],
            keras.optimizers.ScheduleFreeAdamW,
        ),
        _ending(
            "adam_ema",
            "Adam, averaged (EMA), EarlyStopping",
            _swapped,
            use_ema=True,
        ),
        dataclasses.replace(
            _ending(
                "until_done_control",
                "Control: TrainUntilDone, Adam to the end",
                _until_done,
                HybridOptimizer,
                "control",
                transition=Hard(end=0.0),
            ),
            tuned_as="until_done",
        ),
        _ending(
            "until_done",
            "TrainUntilDone: Adam to SGD",
            _until_done,
            HybridOptimizer,
            "hybrid",
            "until_done_control",
        ),
    )
)
DEFAULT_ARMS = (
    "adam_constant",
    "adam_stop",
    "adam_reduce",
    "schedule_free",
    "adam_ema",
    "adam",
    "sgd",
    "until_done_control",
    "until_done",
)
# The published methods come with their papers' defaults where these do not
# depend on the length of the training, and without a cool-down.
ARMS = _named(
    (
        _cosine("adam", "Adam, cosine", keras.optimizers.Adam),
        _cosine(
            "sgd",
            "SGD momentum, cosine",
            keras.optimizers.SGD,
            SGD_LEARNING_RATE,
            momentum=MOMENTUM,
        ),
        _hybrid(
            "control",
            "Adam, cool-down from the switch",
            how=lambda b: Hard(end=0.0),
            role="control",
        ),
        _hybrid("hybrid", "Adam to SGD, cool-down"),
        _hybrid(
            "hybrid_norm", "Adam to SGD by norms, cool-down", sgd_scale="norm"
        ),
        _hybrid(
            "hybrid_swats",
            "Adam to SGD by SWATS' average, cool-down",
            sgd_scale="swats",
        ),
        _hybrid(
            "hybrid_model",
            "Adam to SGD, one rho for the model, cool-down",
            scale_scope="model",
        ),
        _preset("swats", "SWATS", lambda b, rate: presets.SWATS(rate)),
        _preset(
            "swats_layer",
            "SWATS per layer",
            lambda b, rate: presets.SWATS(rate, scope="layer"),
        ),
        _preset(
            "gnmt",
            "GNMT, switch at half",
            lambda b, rate: presets.GNMT(rate, switch_step=b.steps // 2),
        ),
        _preset(
            "rmsprop_warmup",
            "RMSprop warm-up over half",
            lambda b, rate: presets.RMSpropWarmup(
                max(b.steps // 2, 1), sgd_learning_rate=SGD_LEARNING_RATE
            ),
        ),
        _preset("adabound", "AdaBound", lambda b, rate: presets.AdaBound()),
        _preset("amsbound", "AMSBound", lambda b, rate: presets.AMSBound()),
        _preset(
            "dstadam",
            "DSTAdam",
            lambda b, rate: presets.DSTAdam(max(b.steps, 2)),
        ),
        _preset("padam", "Padam", lambda b, rate: presets.Padam()),
        _preset("mas", "MAS", lambda b, rate: presets.MAS()),
        _preset(
            "grafted",
            "Grafted at half",
            lambda b, rate: presets.Grafted(max(b.steps // 2, 1)),
        ),
        *CEILING.values(),
    )
)

# The library's defaults until 0.1, with which these arms were trained.
_PROJECTED: dict[str, Any] = {
    "sgd_scale": "projection",
    "scale_scope": "variable",
}
_DECAYED: dict[str, Any] = {"weight_decay": ADAM_DECAY}
_DECAYED_8: dict[str, Any] = {"weight_decay": 8 * ADAM_DECAY}
_SGD: dict[str, Any] = {"momentum": MOMENTUM, "weight_decay": SGD_DECAY}

BASELINES = _named(
    (
        _cosine(
            "sgd",
            "SGD momentum, cosine",
            keras.optimizers.SGD,
            SGD_LEARNING_RATE,
            **_SGD,
        ),
        _cosine(
            "nesterov",
            "SGD Nesterov, cosine",
            keras.optimizers.SGD,
            SGD_LEARNING_RATE,
            nesterov=True,
            **_SGD,
        ),
        _cosine("adam", "Adam, cosine", keras.optimizers.Adam),
        _cosine("adamw", "AdamW, cosine", keras.optimizers.AdamW, **_DECAYED),
    )
)


def _plateau(budget: Budget) -> EpochTrigger:
    patience = max(1, budget.epochs // 10)
    latest = AtEpoch(budget.epoch(LATEST))
    return Plateau("val_loss", patience=patience) | latest


def _gap(budget: Budget) -> EpochTrigger:
    return GeneralizationGap(0.1) | AtEpoch(budget.epoch(LATEST))


def _settled(budget: Budget) -> Any:
    latest = budget.epoch(LATEST) * budget.steps_per_epoch
    return ProjectionConverged() | AtStep(latest)


def _control(name: str, label: str, **arguments: Any) -> Arm:
    return _hybrid(
        name,
        f"Control: AdamW, cool-down {label}",
        how=lambda b: Hard(end=0.0),
        role="control",
        **{**_PROJECTED, **_DECAYED, **arguments},
    )


CONTROLS = _named(
    (
        _control("control", "from half"),
        *(
            dataclasses.replace(
                _control(f"{name}_control", label, when=when), tuned_as=name
            )
            for name, label, when in (
                ("plateau", "from a plateau", _plateau),
                ("gap", "from a generalization gap", _gap),
                ("projection", "when the projection settles", _settled),
            )
        ),
    )
)


def _study_hybrid(
    name: str, label: str, control: str | None = "control", **arguments: Any
) -> Arm:
    arguments = {**_PROJECTED, **_DECAYED, **arguments}
    return dataclasses.replace(
        _hybrid(name, label, **arguments), control=control
    )


HYBRIDS = _named(
    (
        _study_hybrid("hybrid", "Hybrid, switch at half"),
        _study_hybrid(
            "plateau",
            "Hybrid, switch at a plateau",
            "plateau_control",
            when=_plateau,
        ),
        _study_hybrid(
            "gap",
            "Hybrid, switch at a generalization gap",
            "gap_control",
            when=_gap,
        ),
        _study_hybrid(
            "projection",
            "Hybrid, switch when the projection settles",
            "projection_control",
            when=_settled,
        ),
        _study_hybrid(
            "swats",
            "SWATS' rho, switch when the projection settles",
            "projection_control",
            when=_settled,
            sgd_scale="swats",
            scale_scope="model",
        ),
        _study_hybrid("layer", "Hybrid, one rho a layer", scale_scope="layer"),
        _study_hybrid(
            "model", "Hybrid, one rho for the model", scale_scope="model"
        ),
        _study_hybrid("blend", "Hybrid, blend", how=_blend()),
        _study_hybrid(
            "partial", "Hybrid, blend to one half", how=_blend(end=0.5)
        ),
    )
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
    arm = _study_hybrid(
        name,
        f"rho of the slots, a {scope}; {label}",
        control,
        **{"sgd_scale": "slots", "scale_scope": scope, **arguments},
    )
    return dataclasses.replace(arm, tuned_as=tuned_as)


# Runs of one learning rate differ after the switch only: so `slots_control` has
# that of `slots`, and `as_control` that of `control`, where tuning is dear.
SLOTS = _named(
    (
        _slots("slots", "switch at half", "unit", tuned_as=None),
        _slots("slots_variable", "switch at half", "variable"),
        _slots("slots_blend", "blend", "unit", how=_blend()),
        _slots("slots_variable_blend", "blend", "variable", how=_blend()),
        _slots(
            "slots_at80",
            "switch at 80 %",
            "unit",
            "slots_at80_control",
            when=_at(0.8),
        ),
        _slots(
            "slots_variable_at80",
            "switch at 80 %",
            "variable",
            "slots_at80_control",
            when=_at(0.8),
        ),
        *(
            dataclasses.replace(arm, tuned_as="slots")
            for arm in (
                _control("slots_control", "from half, the slots' rate"),
                _control("slots_at80_control", "from 80 %", when=_at(0.8)),
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
    **_named({**CONTROLS, **HYBRIDS}[name].shortened() for name in SHORTENED),
}
# One change of `hybrid` each, at its tuned learning rate. Where it is a change
# of the trigger, the cool-down or the decay, and no control has the same, it
# has none.
VARIANTS = _named(
    dataclasses.replace(arm, tuned_as="hybrid")
    for arm in (
        *(
            _study_hybrid(
                f"at{round(100 * fraction)}",
                f"switch at {fraction:.0%}",
                "control_at80" if fraction == 0.8 else None,
                when=_at(fraction),
            )
            for fraction in (0.2, 0.35, 0.65, 0.8)
        ),
        *(
            _study_hybrid(
                f"x{factor:g}",
                f"rho times {factor:g}",
                scale_multiplier=factor,
            )
            for factor in (0.5, 2.0, 4.0)
        ),
        _control("control_at80", "from 80%", when=_at(0.8)),
        _study_hybrid("norm", "rho by norms", sgd_scale="norm"),
        _study_hybrid("momentum", "rho by momentum", sgd_scale="momentum"),
        _study_hybrid(
            "momentum_at80",
            "rho by momentum, switch at 80%",
            "control_at80",
            sgd_scale="momentum",
            when=_at(0.8),
        ),
        _study_hybrid(
            "momentum_x2",
            "rho by momentum, times 2",
            sgd_scale="momentum",
            scale_multiplier=2.0,
        ),
        _study_hybrid(
            "geometric",
            "blend, geometric",
            how=_blend(path="geometric"),
        ),
        _study_hybrid(
            "geometric_half",
            "blend to one half, geometric",
            how=_blend(path="geometric", end=0.5),
        ),
        _study_hybrid("end75", "blend to three quarters", how=_blend(end=0.75)),
        _study_hybrid(
            "linear",
            "cool-down linear",
            None,
            cooldown=Cooldown("linear"),
        ),
        _study_hybrid("nesterov_after", "Nesterov after", nesterov=True),
        _study_hybrid("momentum95", "momentum 0.95 after", momentum=0.95),
        _study_hybrid("momentum80", "momentum 0.8 after", momentum=0.8),
        _study_hybrid("undecayed", "no weight decay", None, weight_decay=None),
        _study_hybrid(
            "decay4", "weight decay times 4", None, weight_decay=4 * ADAM_DECAY
        ),
        _control("control_decay8", "from half, decay times 8", **_DECAYED_8),
        _study_hybrid(
            "decay8",
            "weight decay times 8",
            "control_decay8",
            **_DECAYED_8,
        ),
        _control(
            "control_decay8_at20",
            "from 20%, decay times 8",
            when=_at(0.2),
            **_DECAYED_8,
        ),
        _study_hybrid(
            "decay8_at20",
            "weight decay times 8, switch at 20%",
            "control_decay8_at20",
            when=_at(0.2),
            **_DECAYED_8,
        ),
    )
)
