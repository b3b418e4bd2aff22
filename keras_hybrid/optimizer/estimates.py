"""The estimate of rho: what the switch fixes, from what the updates left."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_hybrid import rules
from keras_hybrid.execution import backends
from keras_hybrid.execution.layouts import Layout, settings_of
from keras_hybrid.optimizer.choices import Choices
from keras_hybrid.optimizer.plans import Plan
from keras_hybrid.optimizer.state import State, layouts_of
from keras_hybrid.scales import Slots

Tensor = Any


def estimate(
    choices: Choices,
    state: State,
    plan: Plan,
    layouts: Sequence[Layout],
    slots: Sequence[Any],
) -> tuple[Tensor, Tensor]:
    """Returns rho, one a unit, and whether it exists, one a variable.

    Args:
        choices: What is fixed.
        state: Is read.
        plan: The corrections of the update that left the slots.
        layouts: Of all variables.
        slots: m and v (or its maximum) of each variable, None without.
    """
    scale = choices.scale
    if not scale.estimated:
        # A float sgd_learning_rate fixes rho in the first SGD update.
        rho = 0.0 if choices.sgd_rate is not None else scale.rho
        return (
            ops.convert_to_tensor(
                np.full(state.scales.shape, rho), state.dtype
            ),
            ops.ones((len(layouts),), "bool"),
        )
    if isinstance(scale, Slots):
        rho, exists = _from_slots(choices, state, plan, layouts, slots)
    else:
        averages = [backends.read(s) for s in state.scale_state]
        rho, exists = scale.estimate(averages, state.scale_groups)
    return rho * rules.constant(choices.multiplier, state.dtype), exists


def from_state(optimizer: Any, plan: Plan) -> tuple[Tensor, Tensor]:
    """Returns the estimate from a built optimizer's variables as they are.

    Args:
        optimizer: A `PhasedOptimizer`.
        plan: Of its last update (`plans.last_plan`).
    """
    choices, state = optimizer.choices, optimizer.state
    layouts = layouts_of(optimizer, choices, state)
    return estimate(choices, state, plan, layouts, state.pairs)


def none(state: State) -> tuple[Tensor, Tensor]:
    """Returns what `estimate` does where there is nothing to estimate."""
    return (
        ops.zeros(state.scales.shape, state.dtype),
        ops.zeros((len(state.units),), "bool"),
    )


def _from_slots(
    choices: Choices,
    state: State,
    plan: Plan,
    layouts: Sequence[Layout],
    slots: Sequence[Any],
) -> tuple[Tensor, Tensor]:
    """Returns `Slots.estimate`; a variable without slots counts as 0."""
    if not layouts:  # All are frozen.
        return none(state)
    clips: list[Tensor | None] = [None] * len(layouts)
    every = settings_of(plan, layouts, state.units, clips, "adaptive")
    # Variables that have switched no longer count.
    active = ops.cast(plan["switch_steps"] < 0, state.dtype)
    active_of = ops.unstack(state.groups.spread(active))
    sums = []
    for layout, settings, own, on in zip(
        layouts, every, slots, active_of, strict=True
    ):
        dtype = rules.update_dtype(layout)
        if own is None:
            m = p = ops.zeros(layout.units.shape, dtype)
        else:
            m, v = (ops.cast(ops.convert_to_tensor(x), dtype) for x in own)
            p = choices.formula.step(settings, m, m, v)
            # Small squares are 0 in half precision, and say nothing of a step.
            p, m = (ops.where(v == 0, ops.zeros_like(x), x) for x in (p, m))
        p, m = (ops.cast(x, state.dtype) for x in (p, m))
        sums.append(
            [
                x * on
                for x in (
                    layout.units.sum(ops.square(p)),
                    layout.units.sum(p * m),
                )
            ]
        )
    squares, moments = zip(*sums, strict=True)
    return choices.scale.estimate(
        squares, moments, state.units, state.scale_groups
    )


def averaged(
    choices: Choices,
    state: State,
    plan: Plan,
    indices: Sequence[int],
    sums: Sequence[dict[str, Tensor]],
) -> list[Tensor]:
    """Returns the moving averages behind rho after an update.

    Args:
        choices: What is fixed.
        state: Is read.
        plan: Of the update.
        indices: The variables that it changed.
        sums: Its sums over the weights of each.
    """
    active = ops.cast(plan["switch_steps"] < 0, state.dtype)
    active_of = ops.unstack(active)
    # Variables that have switched no longer count.
    masked = [
        {name: s * active_of[state.groups.of[i]] for name, s in row.items()}
        for i, row in zip(indices, sums, strict=True)
    ]
    totals = {
        name: ops.stack(
            [
                *state.scale_groups.sums(masked, indices, name, state.dtype),
                sum(row[name] for row in masked),
            ]
        )
        for name in sorted(choices.scale.needs)
    }
    present = _presence(state, active_of, indices) > 0
    old = [backends.read(s) for s in state.scale_state]
    return choices.scale.update(old, totals, present, choices.beta_2)


def _presence(
    state: State, active: list[Tensor], indices: Sequence[int]
) -> Tensor:
    """Returns 1 for scale groups whose average an update moves, else 0.

    Those with a variable that is updated and still adaptive. The last entry is
    the model.
    """
    members: list[set[int]] = [set() for _ in state.scale_groups.names]
    for index in indices:
        members[state.scale_groups.of[index]].add(state.groups.of[index])
    members.append(set().union(*members))
    none = ops.zeros((), state.dtype)
    return ops.stack(
        [
            functools.reduce(
                ops.maximum, [active[g] for g in sorted(groups)], none
            )
            for groups in members
        ]
    )
