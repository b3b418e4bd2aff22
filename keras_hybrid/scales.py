"""How fast: what m is multiplied with in the SGD phase, rho.

SGD's update is w <- w - learning_rate * rho * m. A scale says where rho comes
from: from Adam's own steps p = m_hat / (sqrt(v_hat) + epsilon), at the switch
(`Slots`) or averaged before it (`Projection`, `Swats`, `Norm`, `Momentum`), or
from the user (`Number`, `LearningRate`). Scales are pure: settings in, tensors
out; the optimizer keeps their state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_hybrid import rules
from keras_hybrid._support import checks
from keras_hybrid.groups import Groups
from keras_hybrid.units import SCALE_SCOPES, Units, spread

Tensor = Any
Part = tuple[Tensor, Tensor]


class Scale:
    """Base of all scales.

    Attributes:
        needs: Names of the sums of each adaptive update that it reads (of
            `triggers.SUMS`); most need none.
        estimated: Whether rho comes from the adaptive steps.
        rho: As the user gave it, else 0.
        scope: How finely, in place of the optimizer's `scale_scope`; or None.
        inside_momentum: Whether SGD's momentum averages rate * g.
    """

    needs: frozenset[str] = frozenset()
    estimated = True
    rho = 0.0
    scope: str | None = None
    inside_momentum = False

    def granularity(self, scale_scope: str) -> str:
        """Returns how finely rho is held, given the optimizer's argument."""
        return self.scope or scale_scope

    def init(self, groups: int) -> list[np.ndarray]:
        """Returns the first values of its state, for that many groups."""
        del groups
        return []

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Scale:
        """Makes the scale that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        return checks.call_text(self)


@checks.registered
class Slots(Scale):
    """rho from Adam's slots as they are at the switch: the default.

    rho = sum(p.p) / sum(p.m) over the weights that share it, with m and v as
    the switch finds them and p = m_hat / (sqrt(v_hat) + epsilon). So rho m is
    the vector along m whose projection on p is p itself. It is positive
    wherever there was a gradient, needs no running sum, and costs nothing
    before the switch. A unit without gradients takes its variable's rho, a
    variable without any the model's.

    Args:
        scope: `"unit"`, `"variable"`, `"layer"`, `"model"` or `"weight"`: who
            shares one rho; None (default): the optimizer's `scale_scope`.

    Raises:
        ValueError: If `scope` is none of these.

    Example:
    >>> from keras_hybrid import HybridOptimizer, scales
    >>> HybridOptimizer(sgd_scale=scales.Slots("variable")).sgd_scale
    Slots(scope='variable')

    References: the projection of SWATS (Keskar & Socher 2017,
    arXiv:1712.07628, equation 4) with m in place of the gradient, whose noise
    does not lower it. One step size a unit: Adam-mini, arXiv:2406.16793.
    """

    def __init__(self, scope: str | None = None) -> None:
        self.scope = (
            None
            if scope is None
            else checks.choice("scope", scope, SCALE_SCOPES)
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"scope": self.scope}

    def estimate(
        self,
        squares: Sequence[Tensor],
        moments: Sequence[Tensor],
        units: Sequence[Units],
        groups: Groups,
    ) -> tuple[Tensor, Tensor]:
        """Returns rho, one a unit, and whether it exists, one a variable.

        Args:
            squares: sum(p.p) of each unit, one vector a variable.
            moments: sum(p.m) likewise.
            units: The units of each variable.
            groups: The variables that share what a unit lacks.
        """

        def rho_of(parts: Sequence[Part]) -> Part:
            square = ops.concatenate([part[0] for part in parts])
            moment = ops.concatenate([part[1] for part in parts])
            # Below the least normal number a ratio has no digits left.
            least = np.finfo(keras.backend.standardize_dtype(square.dtype)).tiny
            valid = ops.logical_and(square > least, moment > least)
            rho = square / ops.where(valid, moment, 1)
            return rho, ops.logical_and(valid, ops.isfinite(rho))

        fine = list(zip(squares, moments, strict=True))
        of_variable = [
            tuple(ops.reshape(ops.sum(x), (1,)) for x in part) for part in fine
        ]
        members = [
            [v for v, g in zip(of_variable, groups.of, strict=True) if g == i]
            for i in range(len(groups.names))
        ]
        of_group = [
            tuple(sum(x) for x in zip(*part, strict=True)) for part in members
        ]
        whole = [tuple(sum(x) for x in zip(*of_variable, strict=True))]
        rho, valid = rho_of(of_group)
        rho_model, model = rho_of(whole)
        rho = groups.spread(ops.where(valid, rho, rho_model))
        exists = groups.spread(ops.logical_or(valid, model))
        if all(u.count == 1 for u in units):
            return rho, exists
        rho_unit, valid = rho_of(fine)
        return ops.where(valid, rho_unit, spread(rho, units)), exists


class _Averaged(Scale):
    """rho as the ratio of two moving averages over the adaptive updates.

    The averages are of beta_2, one pair a scale group and one for the model;
    their bias corrections cancel. They know nothing finer than a variable:
    `scale_scope="unit"` is a variable's here.
    """

    def granularity(self, scale_scope: str) -> str:
        """Returns how finely rho is held."""
        return "variable" if scale_scope in ("unit", "weight") else scale_scope

    def init(self, groups: int) -> list[np.ndarray]:
        """Returns the first numerators and denominators."""
        return [np.zeros(groups + 1), np.zeros(groups + 1)]

    def parts(self, sums: dict[str, Tensor]) -> tuple[Part, Part]:
        """Returns what one update adds to the estimate.

        Args:
            sums: The needed sums over the weights of each group.

        Returns:
            `(value, moves)` of the numerator and of the denominator: what
            enters the moving average, and where it moves at all.
        """
        raise NotImplementedError

    def update(
        self,
        state: Sequence[Tensor],
        sums: dict[str, Tensor],
        present: Tensor,
        beta_2: float,
    ) -> list[Tensor]:
        """Returns the state after one update.

        Args:
            state: Numerators and denominators.
            sums: The needed sums, one entry a group and one for the model.
            present: Which entries this update moves.
            beta_2: The averages' coefficient.
        """
        return [
            ops.where(
                ops.logical_and(present, moves),
                rules.moving_average(average, value, beta_2),
                average,
            )
            for average, (value, moves) in zip(
                state, self.parts(sums), strict=True
            )
        ]

    def estimate(
        self, state: Sequence[Tensor], groups: Groups
    ) -> tuple[Tensor, Tensor]:
        """Returns rho and whether it exists, one a variable."""
        numerators, denominators = state
        positive = denominators > 0
        rho = numerators / ops.where(positive, denominators, 1)
        valid = ops.logical_and(
            positive, ops.logical_and(rho > 0, ops.isfinite(rho))
        )
        # The last entry is the model's; the groups' come before it.
        rho = ops.where(valid, rho, rho[-1])
        valid = ops.logical_or(valid, valid[-1])
        return groups.spread(rho), groups.spread(valid)


@checks.registered
class Projection(_Averaged):
    """E[p.p] / E[-p.g]: SWATS' gamma, each part averaged before the division.

    Noise in the gradients makes the denominator too large and rho too small,
    the sums cost a pass over the slots in each update.

    References: Keskar & Socher 2017, arXiv:1712.07628, equation 4.
    """

    needs = frozenset({"step_square", "step_descent"})

    def parts(self, sums: dict[str, Tensor]) -> tuple[Part, Part]:
        """Returns p.p and -p.g."""
        square = sums["step_square"]
        always = ops.ones_like(square, dtype="bool")
        return (square, always), (sums["step_descent"], always)


@checks.registered
class Momentum(_Averaged):
    """E[p.p] / E[p.m]: `Slots` averaged over the updates before the switch."""

    needs = frozenset({"step_square", "step_moment"})

    def parts(self, sums: dict[str, Tensor]) -> tuple[Part, Part]:
        """Returns p.p and p.m."""
        square = sums["step_square"]
        always = ops.ones_like(square, dtype="bool")
        return (square, always), (sums["step_moment"], always)


@checks.registered
class Swats(_Averaged):
    """E[p.p / -p.g], the paper's own.

    Where p.g = 0 the numerator stays. Single updates with p.g near 0 weigh
    thousandfold.

    References: Keskar & Socher 2017, arXiv:1712.07628, algorithm 1.
    """

    needs = frozenset({"step_square", "step_descent"})

    def parts(self, sums: dict[str, Tensor]) -> tuple[Part, Part]:
        """Returns gamma and 1."""
        descent = sums["step_descent"]
        gamma = rules.projection(sums["step_square"], descent)
        always = ops.ones_like(gamma, dtype="bool")
        return (gamma, descent != 0), (ops.ones_like(gamma), always)


@checks.registered
class Norm(_Averaged):
    """E[|p| / |m|], over the updates in which m is not 0.

    SGD's step gets the length that Adam's had.

    References: learning-rate grafting, Agarwal et al. 2020, arXiv:2002.11803.
    """

    needs = frozenset({"step_square", "moment_square"})

    def parts(self, sums: dict[str, Tensor]) -> tuple[Part, Part]:
        """Returns |p| / |m| and 1."""
        moment = sums["moment_square"]
        ratio = rules.norm_ratio(sums["step_square"], moment)
        return (ratio, moment > 0), (ops.ones_like(ratio), moment > 0)


class _Given(Scale):
    """Base of what the user gives: one number a variable."""

    estimated = False

    def granularity(self, scale_scope: str) -> str:
        """Returns that rho is one for all, held once a variable."""
        return "variable"


@checks.registered
class Number(_Given):
    """rho itself, the same for all weights.

    Args:
        rho: Positive float: SGD's learning rate is
            learning_rate * rho * (1 - momentum), as
            keras.optimizers.SGD(momentum=...) counts it.

    Raises:
        TypeError: If `rho` is no number.
        ValueError: If `rho` is not positive.

    Example:
    >>> from keras_hybrid import scales
    >>> scales.Number(30.0)
    Number(rho=30.0)
    """

    def __init__(self, rho: float) -> None:
        self.rho = checks.number("rho", rho, above=0)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"rho": self.rho}


@checks.registered
class LearningRate(_Given):
    """SGD's learning rate as keras.optimizers.SGD(momentum=...) counts it.

    The long form of `HybridOptimizer(sgd_learning_rate=...)`.

    Args:
        learning_rate: Positive float a: a at the switch, following the
            optimizer's `learning_rate` in proportion from there (rho = a /
            ((1 - momentum) * learning_rate), with the first learning rate
            after the switch that is not 0: do not switch inside a warm-up). Or
            a LearningRateSchedule a(j), counted in updates from the switch,
            whatever `learning_rate` does.
        inside_momentum: Boolean, for a schedule (and a cool-down's factor,
            which is part of it). False (default): it multiplies the whole
            momentum, w -= a(j) m / (1 - momentum), so that a drop shortens the
            next step. True: the gradients that come, as in
            keras.optimizers.SGD, m <- momentum m + (1 - momentum) a(j) g and
            w -= m / (1 - momentum), so that a drop shortens the steps over the
            next 1 / (1 - momentum) updates. m of before the switch counts as
            if its gradients had come at a(0). Only with a hard transition to
            SGD alone.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a float is not positive, or is to be inside the momentum.

    Example:
    >>> from keras_hybrid import scales
    >>> scales.LearningRate(0.1)
    LearningRate(learning_rate=0.1)

    References: Sutskever et al. 2013, equations 1 and 2 (the rate inside);
    Goyal et al. 2017, arXiv:1706.02677, section 3, remark 3 (how they differ).
    """

    def __init__(
        self, learning_rate: Any, inside_momentum: bool = False
    ) -> None:
        self.learning_rate = checks.rate_or_schedule(
            "learning_rate", learning_rate
        )
        self.inside_momentum = checks.boolean(
            "inside_momentum", inside_momentum
        )
        if inside_momentum and isinstance(self.learning_rate, float):
            raise ValueError(
                "`inside_momentum` is for a LearningRateSchedule: a number "
                "follows the optimizer's `learning_rate`, which multiplies "
                "the whole momentum. Received: inside_momentum=True, "
                f"learning_rate={self.learning_rate!r}"
            )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, serialized."""
        return {
            "learning_rate": keras.saving.serialize_keras_object(
                self.learning_rate
            ),
            "inside_momentum": self.inside_momentum,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Scale:
        """Makes the scale that `get_config` described."""
        rate = keras.saving.deserialize_keras_object(config["learning_rate"])
        # Not in files of 0.3.
        return cls(rate, config.get("inside_momentum", False))

    def __repr__(self) -> str:
        inside = ", inside_momentum=True" if self.inside_momentum else ""
        return f"LearningRate(learning_rate={self.learning_rate!r}{inside})"


# The strings of `HybridOptimizer(sgd_scale=...)`.
NAMES: dict[str, type[Scale]] = {
    "slots": Slots,
    "projection": Projection,
    "momentum": Momentum,
    "swats": Swats,
    "norm": Norm,
}


def scale_argument(name: str, value: Any) -> str | float | Scale:
    """Returns what `sgd_scale` may be, checked."""
    if isinstance(value, Scale):
        return value
    if isinstance(value, str):
        return checks.choice(name, value, NAMES)
    return checks.number(name, value, above=0)


def scale_of(value: str | float | Scale) -> Scale:
    """Returns the scale that an argument stands for."""
    if isinstance(value, Scale):
        return value
    return NAMES[value]() if isinstance(value, str) else Number(value)
