"""The plan of an update: what it multiplies with, one entry a group.

Pure: from the choices, the state, the learning rate and the number of the
update to tensors. `execution.layouts` hands each variable its own entries.
"""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from keras_hybrid import rules
from keras_hybrid.execution import backends
from keras_hybrid.optimizer.choices import Choices
from keras_hybrid.optimizer.state import State
from keras_hybrid.units import spread

Tensor = Any
Plan = dict[str, Tensor]


def plan_of(choices: Choices, state: State, rate: Tensor, step: Tensor) -> Plan:
    """Returns what update number `step` needs but rho (see `scales_of`).

    Args:
        choices: What is fixed.
        state: Is read.
        rate: The learning rate, a scalar of the state's dtype.
        step: The number of the update, counted from 0.
    """
    dtype = state.dtype
    switch_steps = backends.read(state.switch_steps)
    switched = switch_steps >= 0
    position = _position(state, switch_steps, step)
    factor = cooldown_factors(choices, state, switch_steps, step)
    scale_cut = backends.read(state.scale_cut)
    rates = rate * factor
    sgd_rates, scheduled = rates, None
    if choices.sgd_schedule is not None:
        scheduled = _per_entry(choices.sgd_schedule, position)
        sgd_rates = scheduled / (1 - choices.momentum) * factor
    forgets = backends.read(state.forgets)
    weights = weights_of(choices, state, switch_steps, step)
    beta_1 = rules.constant(choices.beta_1, dtype)
    adaptive_steps = backends.read(state.adaptive_steps)
    plan = {
        "phase": _phase_number(choices, state, weights, forgets),
        "step": step,
        "rate": rate,
        "switch_steps": switch_steps,
        "factor": factor,
        "rates": rates,
        "sgd_rates": sgd_rates * scale_cut,
        "scale_cut": ops.reshape(scale_cut, (1,)),
        "weights": weights,
        "beta": beta_1 + weights * (choices.momentum - beta_1),
        "forgets": forgets,
        "kept": 1 - forgets,
        **_corrections(choices, state, step, adaptive_steps + 1),
    }
    if isinstance(choices.sgd_rate, float):
        plan["fixed_scales"] = _fixed_scales(choices, state, rate, switched)
    if state.frozen_corrections is not None:
        _add_frozen(choices, state, plan)
    if choices.inside_momentum:
        _move_inside(choices, state, plan, scheduled * factor)
    return plan


def last_plan(choices: Choices, state: State, updates: Tensor) -> Plan:
    """Returns the plan of the update made last, as far as a switch reads it.

    Args:
        choices: What is fixed.
        state: Is read.
        updates: The number of updates so far.
    """
    step = ops.cast(updates, state.switch_steps.dtype) - 1
    plan = plan_of(choices, state, ops.ones((), state.dtype), step)
    made = backends.read(state.adaptive_steps)
    return {**plan, **_corrections(choices, state, step, made)}


def scales_of(choices: Choices, state: State, plan: Plan) -> Tensor:
    """Returns rho, one entry a unit."""
    if choices.sgd_schedule is not None:  # It is in the rates.
        return ops.ones(state.scales.shape, state.dtype)
    if "fixed_scales" in plan:
        return plan["fixed_scales"]
    return backends.read(state.scales)


def weights_of(
    choices: Choices, state: State, switch_steps: Tensor, step: Tensor
) -> Tensor:
    """Returns SGD's weight in update number `step`, the next."""
    if choices.skips:
        # A skipped update has left the weight that was to be its own.
        return next_weights(choices, state, switch_steps, step - 1)
    return backends.read(state.weights)


def next_weights(
    choices: Choices, state: State, switch_steps: Tensor, step: Tensor
) -> Tensor:
    """Returns SGD's weight in the update after number `step`."""
    position = _position(state, switch_steps, step + 1)
    weights = choices.transition.weight(position)
    return ops.cast(ops.where(switch_steps >= 0, weights, 0), state.dtype)


def cooldown_factors(
    choices: Choices, state: State, switch_steps: Tensor, step: Tensor
) -> Tensor:
    """Returns the cool-down's factor in update number `step`."""
    position = _position(state, switch_steps, step)
    if choices.cooldown is None:
        return ops.ones_like(position)
    spans = cooldown_spans(state, switch_steps)
    factor = choices.cooldown.factor(position, *spans)
    return ops.where(switch_steps >= 0, factor, ops.ones_like(position))


def cooldown_spans(state: State, switch_steps: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the updates after the switch, and those before it."""
    steps = backends.read(state.training_steps)
    # As integers: float32 has no odd ones beyond 2^24.
    remaining = ops.cast(steps - switch_steps, state.dtype)
    before = ops.cast(
        switch_steps - backends.read(state.phase_start), state.dtype
    )
    remaining = ops.where(steps < 0, math.inf, remaining)
    return ops.cast(remaining, state.dtype), before


def _position(state: State, switch_steps: Tensor, step: Tensor) -> Tensor:
    """Returns the updates from the switch to number `step`, 0 before it.

    And 0 where the user has set `iterations` back to before the switch.
    """
    after = ops.where(switch_steps >= 0, step - switch_steps, 0)
    return ops.cast(rules.at_least(after, 0), state.dtype)


def _corrections(
    choices: Choices, state: State, step: Tensor, adaptive: Tensor
) -> Plan:
    """Returns Adam's bias corrections in update number `step`.

    Args:
        choices: What is fixed.
        state: Is read.
        step: The number of the update, counted from 0.
        adaptive: Updates of the second moment, this one included.
    """
    beta_1 = rules.constant(choices.beta_1, state.dtype)
    beta_2 = rules.constant(choices.beta_2, state.dtype)
    # Of the first moment: what was skipped did not change it. It has had the
    # second's updates at least, though the user may set `iterations` back.
    skipped = ops.cast(state.skipped_steps, step.dtype)
    updates = rules.at_least(
        ops.cast(step - skipped + 1, state.dtype), ops.max(adaptive)
    )
    return {
        "correction_1": ops.ones_like(adaptive) - ops.power(beta_1, updates),
        "correction_2": 1 - ops.power(beta_2, adaptive),
    }


def _phase_number(
    choices: Choices, state: State, weights: Tensor, forgets: Tensor
) -> Tensor:
    """Returns which of `choices.phases` applies, as an int32 scalar."""
    phases = choices.phases(len(state.groups.names))
    number = ops.zeros((), "int32")
    if "mixed" in phases:
        started = ops.max(weights) > 0
        if not choices.takes_over:
            started = ops.logical_or(started, ops.max(forgets) > 0)
        number = ops.cast(started, "int32")
    if "sgd" in phases:
        over = ops.min(weights) >= 1
        number = ops.where(over, phases.index("sgd"), number)
    return ops.cast(number, "int32")


def _fixed_scales(
    choices: Choices, state: State, rate: Tensor, switched: Tensor
) -> Tensor:
    """Returns rho, fixed in the first SGD update whose rate is not 0."""
    scales = backends.read(state.scales)
    unset = ops.logical_and(
        spread(state.groups.spread(switched), state.units),
        ops.logical_and(scales == 0, rate > 0),
    )
    target = choices.sgd_rate / (1 - choices.momentum)
    return ops.where(unset, target / ops.where(rate > 0, rate, 1), scales)


def _add_frozen(choices: Choices, state: State, plan: Plan) -> None:
    """Adds Adam's bias corrections, which rest once SGD is alone."""
    plan["frozen_corrections"] = ops.where(
        plan["weights"] < 1,
        rules.bias_correction(plan["correction_1"], plan["correction_2"]),
        backends.read(state.frozen_corrections),
    )
    multiplier = rules.constant(choices.multiplier, state.dtype)
    plan["frozen_rates"] = (
        plan["sgd_rates"] * multiplier * plan["frozen_corrections"]
    )


def _move_inside(
    choices: Choices, state: State, plan: Plan, rates: Tensor
) -> None:
    """Moves SGD's rate from the momentum's factor to the gradient's.

    Momentum of before the switch is taken as if its gradients had come at the
    rate of the first SGD update.
    """
    share = 1 - choices.momentum
    first = state.groups.spread(rates) if choices.carries else 0.0
    plan["kept"] = ops.where(plan["forgets"] > 0, first, plan["kept"])
    plan["inside_rates"] = rates
    plan["gradient_rates"] = ops.where(plan["weights"] < 1, 1, rates)
    plan["sgd_rates"] = ops.ones_like(rates) / share * plan["scale_cut"]


def _per_entry(schedule: Any, positions: Tensor) -> Tensor:
    """Calls a schedule for each entry: some take only scalars."""
    return ops.stack(
        [
            ops.cast(schedule(positions[i]), positions.dtype)
            for i in range(positions.shape[0])
        ]
    )
