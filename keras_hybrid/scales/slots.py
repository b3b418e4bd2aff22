"""rho from Adam's slots as the switch finds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_hybrid._support import checks
from keras_hybrid.groups import Groups
from keras_hybrid.scales.base import Scale
from keras_hybrid.units import SCALE_SCOPES, Units, spread

Tensor = Any
Part = tuple[Tensor, Tensor]


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
