"""On torch: variables that share their settings, updated as one vector.

An update runs eagerly there, and launches a dozen kernels whatever the size of
its variable. In a vector of many variables these are launched once.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import keras

from keras_hybrid import rules
from keras_hybrid.execution.layouts import Layout
from keras_hybrid.formula import Formula

Tensor = Any

# The most weights of a vector of several variables, 16 MiB in float32: what an
# update computes on the way is as large, a few times.
MOST = 1 << 22


def packs_of(layouts: Sequence[Layout]) -> list[list[int]]:
    """Returns the places of the variables that are updated together.

    Each alone but on torch.

    Args:
        layouts: Of the variables.
    """
    if keras.backend.backend() != "torch":
        return [[i] for i in range(len(layouts))]
    packs: list[list[int]] = []
    open_packs: dict[Hashable, tuple[list[int], int]] = {}
    for i, layout in enumerate(layouts):
        kind = (
            layout.group,
            layout.dtype,
            layout.decay,
            layout.clip_value,
            layout.carries,
            layout.freezes,
        )
        size = math.prod(layout.units.shape)
        pack, filled = open_packs.get(kind, ([], MOST))
        if filled + size > MOST:
            pack, filled = [], 0
            packs.append(pack)
        pack.append(i)
        open_packs[kind] = pack, filled + size
    return packs


def update(
    formula: Formula,
    phase: str,
    every: Sequence[rules.Settings],
    grads: Sequence[Tensor],
    changed: Sequence[Sequence[Any]],
    condition: Tensor | None,
) -> None:
    """Updates the variables of a pack in place, as Keras does on torch.

    Args:
        formula: The update.
        phase: "adaptive", "mixed" or "sgd".
        every: The settings of each variable.
        grads: The gradients.
        changed: Each variable and those of its slots that are updated.
        condition: Where it is given and false, all stay as they are.
    """
    import torch

    with torch.no_grad():
        columns = [
            [variable.value for variable in column]
            for column in zip(*changed, strict=True)
        ]
        shapes = [w.shape for w in columns[0]]
        old = [_vector(column) for column in columns]
        settings = _settings_of_weights(every, shapes)
        new = formula.new_values(phase, settings, _vector(grads), *old)
        sizes = [shape.numel() for shape in shapes]
        for column, before, value in zip(columns, old, new, strict=True):
            if condition is not None:
                value = torch.where(condition, value, before)
            parts = [
                part.view(shape)
                for part, shape in zip(value.split(sizes), shapes, strict=True)
            ]
            torch._foreach_copy_(column, parts)


def _settings_of_weights(
    every: Sequence[rules.Settings], shapes: Sequence[Any]
) -> rules.Settings:
    """Returns the settings, with a number a weight of what is a variable's."""

    def of_weights(values: Sequence[Any]) -> Any:
        if all(value is values[0] for value in values):
            return values[0]
        return _vector(
            [x.expand(s) for x, s in zip(values, shapes, strict=True)]
        )

    return every[0]._replace(
        **{
            name: of_weights([getattr(settings, name) for settings in every])
            for name in ("sgd_step", "momentum_kept", "clip_scale")
        }
    )


def _vector(tensors: Sequence[Tensor]) -> Tensor:
    """Returns the numbers of all tensors, one behind the other."""
    import torch

    return torch.cat([x.reshape(-1) for x in tensors])
