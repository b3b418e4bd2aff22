"""After an update: what is averaged, whether the trigger fires, the switch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from keras_hybrid.execution import backends
from keras_hybrid.optimizer import estimates
from keras_hybrid.optimizer.choices import Choices
from keras_hybrid.optimizer.plans import Plan, last_plan, next_weights
from keras_hybrid.optimizer.state import State
from keras_hybrid.triggers import Signals
from keras_hybrid.units import spread

Tensor = Any
Assign = Callable[[Any, Tensor], None]


def take(
    choices: Choices,
    state: State,
    plan: Plan,
    indices: Sequence[int],
    found: Sequence[dict[str, Tensor]],
    assign: Assign,
) -> Tensor:
    """Averages the sums of an update; returns which groups switch.

    Args:
        choices: What is fixed.
        state: Is changed.
        plan: Of the update just made.
        indices: The variables that it changed.
        found: Its sums over the weights of each.
        assign: How a variable gets a value.
    """
    if choices.scale.needs:
        new = estimates.averaged(choices, state, plan, indices, found)
        for slot, value in zip(state.scale_state, new, strict=True):
            assign(slot, value)
    if choices.trigger is None:
        return ops.zeros(plan["switch_steps"].shape, "bool")
    signals = {
        name: ops.stack(state.groups.sums(found, indices, name, state.dtype))
        for name in sorted(choices.trigger.needs)
    }
    return ask_trigger(choices, state, plan, signals, assign)


def ask_trigger(
    choices: Choices,
    state: State,
    plan: Plan,
    signals: dict[str, Tensor],
    assign: Assign,
) -> Tensor:
    """Updates the trigger's state; returns which groups it fires for.

    Args:
        choices: What is fixed, with a trigger.
        state: Is changed.
        plan: Of the update just made.
        signals: What the trigger needs of its sums, one entry a group.
        assign: How a variable gets a value.
    """
    trigger: Any = choices.trigger
    seen = Signals(
        step=plan["step"] - backends.read(state.phase_start),
        learning_rate=plan["rate"],
        correction_1=plan["correction_1"],
        correction_2=plan["correction_2"],
        beta_1=choices.beta_1,
        beta_2=choices.beta_2,
        **signals,
    )
    before = [backends.read(s) for s in state.trigger_state]
    fires, after = trigger.update(before, seen)
    for slot, value in zip(state.trigger_state, after, strict=True):
        assign(slot, value)
    return ops.logical_and(fires, plan["switch_steps"] < 0)


def switch_where(
    choices: Choices,
    state: State,
    fires: Tensor,
    plan: Plan,
    found: tuple[Tensor, Tensor],
    assign: Assign,
) -> None:
    """Switches the groups that a trigger fires for, if rho exists.

    Args:
        choices: What is fixed.
        state: Is changed.
        fires: One entry a group.
        plan: Of the update just made.
        found: rho, one a unit, and whether it exists, one a variable.
        assign: How a variable gets a value.
    """
    rho, exists = found
    fires = ops.logical_and(fires, state.groups.every(exists))
    switch_steps = ops.where(fires, plan["step"] + 1, plan["switch_steps"])
    fresh = state.groups.spread(fires)
    if not choices.takes_over:
        forgets = backends.read(state.forgets)
        assign(state.forgets, ops.where(fresh, ops.ones_like(forgets), forgets))
    if choices.sgd_rate is None:
        scales = backends.read(state.scales)
        of_units = spread(fresh, state.units)
        assign(state.scales, ops.where(of_units, rho, scales))
    assign(state.switch_steps, switch_steps)
    assign(
        state.weights,
        next_weights(choices, state, switch_steps, plan["step"]),
    )


def take_rate_out(choices: Choices, state: State, updates: int) -> None:
    """Makes the first moments averages of g again, where they are of rate * g.

    With the rate of the last update; zero where that is.

    Args:
        choices: What is fixed.
        state: Is changed.
        updates: The number of updates so far.
    """
    if not choices.inside_momentum:
        return
    plan = last_plan(choices, state, ops.convert_to_tensor(updates))
    rates = state.groups.spread(plan["gradient_rates"])
    rates = ops.where(plan["forgets"] > 0, 1, rates)
    inverse = ops.where(rates > 0, 1 / ops.where(rates > 0, rates, 1), 0)
    for i, slot in enumerate(state.first_moments):
        if slot is not None:
            slot.assign(slot * ops.cast(inverse[i], slot.dtype))
