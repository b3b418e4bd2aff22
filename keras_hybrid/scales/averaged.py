"""rho averaged over the updates before the switch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_hybrid import rules
from keras_hybrid._support import checks
from keras_hybrid.groups import Groups
from keras_hybrid.scales.base import Scale

Tensor = Any
Part = tuple[Tensor, Tensor]


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


class _OfSteps(_Averaged):
    """E[p.p] / E[divisor], each part averaged before the division."""

    divisor: str

    def parts(self, sums: dict[str, Tensor]) -> tuple[Part, Part]:
        """Returns p.p and the divisor."""
        square = sums["step_square"]
        always = ops.ones_like(square, dtype="bool")
        return (square, always), (sums[self.divisor], always)


@checks.registered
class Projection(_OfSteps):
    """E[p.p] / E[-p.g]: SWATS' gamma, each part averaged before the division.

    Noise in the gradients makes the denominator too large and rho too small,
    the sums cost a pass over the slots in each update.

    References: Keskar & Socher 2017, arXiv:1712.07628, equation 4.
    """

    needs = frozenset({"step_square", "step_descent"})
    divisor = "step_descent"


@checks.registered
class Momentum(_OfSteps):
    """E[p.p] / E[p.m]: `Slots` averaged over the updates before the switch."""

    needs = frozenset({"step_square", "step_moment"})
    divisor = "step_moment"


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
