"""Plans: a transition in units of the training's length.

A `Plan` is the four choices (when, how, how fast, how it ends) with lengths
as fractions of the budget, so one plan serves budgets of any length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_hybrid import transitions
from keras_hybrid._support import checks
from keras_hybrid.scales.short_forms import NAMES
from keras_hybrid.transitions import Blend, Cooldown, Hard
from keras_hybrid.triggers import (
    AtEpoch,
    AtStep,
    EpochTrigger,
    GeneralizationGap,
    Plateau,
    ProjectionConverged,
    StepTrigger,
)
from keras_hybrid.units import SCALE_SCOPES

ESTIMATES = tuple(NAMES)
# A field that only one value, or some values, of another field reads.
CONDITIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fraction": ("when", ("fraction",)),
    "patience": ("when", ("plateau",)),
    "threshold": ("when", ("gap",)),
    "tolerance": ("when", ("projection",)),
    "length": ("how", ("blend",)),
    "curve": ("how", ("blend",)),
    "path": ("how", ("blend",)),
    "multiplier": ("scale", ESTIMATES),
    "rho": ("scale", ("number",)),
    "final": ("cooldown", tuple(transitions.COOLDOWN_CURVES)),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "when": ("fraction", "plateau", "gap", "projection", "start"),
    "how": ("hard", "blend"),
    "curve": tuple(transitions.CURVES),
    "path": tuple(transitions.PATHS),
    "scale": (*ESTIMATES, "number"),
    "scale_scope": SCALE_SCOPES,
    "scope": ("model", "layer", "variable"),
    "cooldown": (*transitions.COOLDOWN_CURVES, "none"),
}
RANGES: dict[str, dict[str, float]] = {
    "fraction": {"above": 0, "high": 1},
    "patience": {"above": 0, "high": 1},
    "threshold": {},
    "tolerance": {"above": 0},
    "length": {"above": 0, "high": 1},
    "end": {"low": 0, "high": 1},
    "multiplier": {"above": 0},
    "rho": {"above": 0},
    "final": {"low": 0, "high": 1},
}


def epoch_at(fraction: float, epochs: int) -> int:
    """The epoch at a fraction of a training, neither its start nor its end."""
    return min(max(1, round(fraction * epochs)), max(1, epochs - 1))


@dataclasses.dataclass(frozen=True)
class Plan:
    """When, how, how fast and how it ends, whatever the training's length.

    The default is the library's: at half of the budget, in one update, at the
    rate that Adam's slots give each unit, with a cosine cool-down to the end.

    Args:
        when: `"fraction"` (of the epochs), `"plateau"` (of the validation
            loss), `"gap"` (validation loss minus training loss),
            `"projection"` (`triggers.ProjectionConverged`), or `"start"`:
            SGD, or the mix, from the first update on.
        fraction: For `"fraction"`: adaptive epochs over all epochs, in (0, 1],
            rounded to whole epochs, at least 1. 1 never switches.
        patience: For `"plateau"`: epochs without improvement over all epochs,
            in (0, 1], rounded to whole epochs, at least 1.
        threshold: For `"gap"`: the gap, in units of the loss.
        tolerance: For `"projection"`: the relative tolerance, above 0.
        how: `"hard"` or `"blend"`.
        length: For `"blend"`: its updates over all updates, in (0, 1].
        curve: For `"blend"`: see `transitions.Blend`.
        path: For `"blend"`: likewise.
        end: The final weight of SGD in [0, 1]; 0 keeps Adam.
        scale: `"slots"`, `"projection"`, `"momentum"`, `"norm"`, `"swats"`:
            the estimate of rho; or `"number"`.
        scale_scope: How finely rho is estimated.
        multiplier: For an estimate: the factor on rho, above 0.
        rho: For `"number"`: rho itself, above 0.
        cooldown: `"cosine"`, `"linear"` or `"none"`.
        final: The cool-down's last factor in [0, 1].
        scope: Who switches together.

    Fields that the others make meaningless are None.

    Raises:
        TypeError: If a number has the wrong type.
        ValueError: If a value is outside its choices or range, or a field is
            missing or superfluous.
    """

    when: str = "fraction"
    fraction: float | None = None
    patience: float | None = None
    threshold: float | None = None
    tolerance: float | None = None
    how: str = "hard"
    length: float | None = None
    curve: str | None = None
    path: str | None = None
    end: float = 1.0
    scale: str = "slots"
    scale_scope: str = "unit"
    multiplier: float | None = None
    rho: float | None = None
    cooldown: str = "cosine"
    final: float | None = None
    scope: str = "model"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._settle(field.name)

    def _settle(self, name: str) -> None:
        """Fills a default in and checks the field."""
        value = getattr(self, name)
        parent, values = CONDITIONS.get(name, ("", ()))
        if parent and getattr(self, parent) not in values:
            if value is not None:
                raise ValueError(
                    f"`{name}` is only for {parent} in {', '.join(values)}. "
                    f"Received: {name}={value!r}, "
                    f"{parent}={getattr(self, parent)!r}"
                )
            return
        if value is None and name in _DEFAULTS:
            value = _DEFAULTS[name]
        if name in CHOICES:
            checks.choice(name, value, CHOICES[name])
        else:
            value = checks.number(name, value, **RANGES[name])
        object.__setattr__(self, name, value)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Plan:
        """Makes a plan of `to_dict`'s result, or of a part of it."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise ValueError(
                f"A plan has the fields {', '.join(sorted(known))}. Received: "
                f"{', '.join(unknown)}"
            )
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields that mean something."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if value is not None
        }

    def switch_epoch(self, epochs: int) -> int | None:
        """The fixed number of adaptive epochs, None if a trigger decides.

        Of two epochs or more, one at least is left to SGD, unless the fraction
        is 1.
        """
        if self.fraction is None:
            return None
        if self.fraction == 1:
            return epochs
        return epoch_at(self.fraction, epochs)

    def epoch_trigger(self, epochs: int) -> EpochTrigger | None:
        """The trigger for `SwitchCallback`, None if the optimizer has it."""
        fixed = self.switch_epoch(epochs)
        if fixed is not None:
            # Behind the last epoch nothing is left to switch for.
            return None if self.fraction == 1 else AtEpoch(fixed)
        if self.patience is not None:
            return Plateau(patience=max(1, round(self.patience * epochs)))
        if self.threshold is not None:
            return GeneralizationGap(self.threshold)
        return None

    def step_trigger(self) -> StepTrigger | None:
        """The trigger for the optimizer, None if the callback has it."""
        if self.when == "start":
            return AtStep(0)
        if self.tolerance is not None:
            # As searches have tried it: a recipe keeps its meaning.
            return ProjectionConverged(
                self.tolerance, min_steps=100, against="gamma"
            )
        return None

    def optimizer_arguments(self, steps: int) -> dict[str, Any]:
        """Arguments of HybridOptimizer for a training of `steps` updates."""
        transition: Hard | Blend = Hard(self.end)
        if self.length is not None:
            transition = Blend(
                max(1, round(self.length * steps)),
                curve=str(self.curve),
                path=str(self.path),
                end=self.end,
            )
        return {
            "trigger": self.step_trigger(),
            "transition": transition,
            "scope": self.scope,
            "sgd_scale": self.scale if self.rho is None else self.rho,
            "sgd_learning_rate": None,
            "scale_scope": self.scale_scope,
            "scale_multiplier": 1.0
            if self.multiplier is None
            else self.multiplier,
            "cooldown": None
            if self.final is None
            else Cooldown(self.cooldown, final=self.final),
        }

    def __str__(self) -> str:
        when = {
            "fraction": f"at {_short(self.fraction)} of the epochs",
            "plateau": f"after {_short(self.patience)} of the epochs without "
            "improvement",
            "gap": f"at a gap of {_short(self.threshold)}",
            "projection": f"projection within {_short(self.tolerance)}",
            "start": "from the start",
        }[self.when]
        how = (
            "hard"
            if self.length is None
            else f"{self.curve} {self.path} blend over {_short(self.length)}"
        )
        rate = (
            f"{_short(self.multiplier)} x {self.scale}"
            if self.rho is None
            else f"rho {_short(self.rho)}"
        )
        return (
            f"{when}, {how} to {_short(self.end)}, {rate} a "
            f"{self.scale_scope}, cool-down {self.cooldown}"
        )


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


_DEFAULTS: dict[str, Any] = {
    "fraction": 0.5,
    "patience": 0.1,
    "threshold": 0.1,
    "tolerance": 0.1,
    "length": 0.1,
    "curve": "linear",
    "path": "arithmetic",
    "multiplier": 1.0,
    "rho": 1.0,
    "final": 0.0,
}
