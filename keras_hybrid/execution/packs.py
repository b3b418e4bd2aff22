"""Variables updated one by one; on torch in packs, each as one vector.

An update runs eagerly there, and launches a dozen kernels whatever the size of
its variable. In a vector of the variables that share their settings these are
launched once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import keras
from keras import ops

from keras_hybrid import rules
from keras_hybrid.execution.layouts import Layout
from keras_hybrid.formula import Formula

Tensor = Any
Assign = Callable[[Any, Tensor], None]

# The most weights of a vector of several variables. On a CPU what an update
# computes on the way should stay in its caches (1 MiB in float32); elsewhere
# fewer launches count for more, and 16 MiB are little.
MOST_ON_CPU = 1 << 18
MOST = 1 << 22


def packs_of(layouts: Sequence[Layout], most: int) -> list[list[int]]:
    """Returns the places of the variables that are updated together.

    Args:
        layouts: Of the variables.
        most: The most weights of several variables together.
    """
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
        pack, filled = open_packs.get(kind, ([], most))
        if filled + size > most:
            pack, filled = [], 0
            packs.append(pack)
        pack.append(i)
        open_packs[kind] = pack, filled + size
    return packs


def update(
    formula: Formula,
    phase: str,
    layouts: Sequence[Layout],
    every: Sequence[rules.Settings],
    grads: Sequence[Tensor],
    slots: Sequence[Sequence[Any]],
    assign: Assign,
    condition: Tensor | None,
) -> None:
    """Updates variables and their slots.

    Args:
        formula: The update.
        phase: "adaptive", "mixed" or "sgd".
        layouts: Of the variables.
        every: The settings of each.
        grads: The gradients.
        slots: Each variable and its slots.
        assign: How a variable gets a value; a pack's get theirs in place, as
            Keras does on torch.
        condition: Where it is given and false, all stay as they are.
    """
    packs = [[i] for i in range(len(layouts))]
    if keras.backend.backend() == "torch":
        on_cpu = grads[0].device.type == "cpu"
        packs = packs_of(layouts, MOST_ON_CPU if on_cpu else MOST)
    for pack in packs:
        if len(pack) == 1:
            i = pack[0]
            update_one(formula, phase, every[i], grads[i], slots[i], assign)
            continue
        update_together(
            formula,
            phase,
            [every[i] for i in pack],
            [grads[i] for i in pack],
            [slots[i] for i in pack],
            condition,
        )


def update_one(
    formula: Formula,
    phase: str,
    settings: rules.Settings,
    grad: Tensor,
    own: Sequence[Any],
    assign: Assign,
) -> None:
    """Updates a variable and its slots, `own`, with `assign`."""
    changed = _changed(own, settings, phase)
    values = [ops.convert_to_tensor(slot) for slot in changed]
    new = formula.new_values(phase, settings, grad, *values)
    for slot, value in zip(changed, new, strict=True):
        assign(slot, value)


def update_together(
    formula: Formula,
    phase: str,
    every: Sequence[rules.Settings],
    grads: Sequence[Tensor],
    slots: Sequence[Sequence[Any]],
    condition: Tensor | None,
) -> None:
    """Updates the variables of a pack, in place (see `update`)."""
    import torch

    changed = [
        _changed(own, settings, phase)
        for own, settings in zip(slots, every, strict=True)
    ]
    with torch.no_grad():
        columns = [
            [variable.value for variable in column]
            for column in zip(*changed, strict=True)
        ]
        shapes = [w.shape for w in columns[0]]
        sizes = [shape.numel() for shape in shapes]
        old = [_vector(column) for column in columns]
        settings = _settings_of_weights(every, shapes)
        new = formula.new_values(phase, settings, _vector(grads), *old)
        for column, before, value in zip(columns, old, new, strict=True):
            if condition is not None:
                value = torch.where(condition, value, before)
            parts = [
                part.view(shape)
                for part, shape in zip(value.split(sizes), shapes, strict=True)
            ]
            torch._foreach_copy_(column, parts)


def _changed(
    own: Sequence[Any], settings: rules.Settings, phase: str
) -> Sequence[Any]:
    """Returns the weight and the slots that are read and written.

    Of SGD they are the weight and its momentum alone, unless it reads the
    second moment.
    """
    every = phase != "sgd" or settings.frozen_step is not None
    return own if every else own[:2]


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
