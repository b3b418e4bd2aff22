"""What is read of an optimizer's phases, computed from choices and state."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_hybrid.execution import backends
from keras_hybrid.optimizer import estimates, plans
from keras_hybrid.optimizer.choices import Choices
from keras_hybrid.optimizer.state import State
from keras_hybrid.transitions import Cooldown

Tensor = Any


def sgd_learning_rates(optimizer: Any) -> dict[str, float | None]:
    """Returns each variable's SGD learning rate, None where there is none yet.

    Args:
        optimizer: A built `PhasedOptimizer`.
    """
    choices, state = optimizer.choices, optimizer.state
    step = ops.cast(optimizer.iterations, state.switch_steps.dtype)
    rate = ops.cast(ops.convert_to_tensor(optimizer.learning_rate), state.dtype)

    def next_update(rate: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        plan = plans.plan_of(choices, state, rate, step)
        rates = plan["sgd_rates"] * plan.get("inside_rates", 1)
        return rates, plans.scales_of(choices, state, plan)

    def estimate(step: Tensor) -> tuple[Tensor, Tensor]:
        plan = plans.last_plan(choices, state, step)
        return estimates.from_state(optimizer, plan)

    found = optimizer.asked("next update", next_update, rate, step)
    sgd_rates, scales = (ops.convert_to_numpy(x) for x in found)
    own = _means(state, scales)
    steps = own * sgd_rates[state.groups.of]
    known = np.ones(len(steps), bool)
    waiting = (own == 0) & [u.count > 0 for u in state.units]
    if choices.sgd_schedule is None and waiting.any():
        if choices.sgd_rate is None:
            found = optimizer.asked("estimate", estimate, step)
            rho, exists = (ops.convert_to_numpy(x) for x in found)
            known = ~waiting | exists
            guess = ops.convert_to_numpy(rate) * _means(state, rho)
        else:
            guess = np.full_like(own, choices.sgd_rate / (1 - choices.momentum))
        steps = np.where(waiting, guess * state.scale_cut.numpy(), steps)
    return {
        name: float(size * (1 - choices.momentum)) if has else None
        for name, size, has in zip(
            state.variable_names, steps, known, strict=True
        )
    }


def mean_learning_rate(
    rates: dict[str, float | None], state: State
) -> float | None:
    """Returns their mean over all weights, None where one is missing."""
    values = list(rates.values())
    sizes = [u.count * u.weights for u in state.units]
    if not sum(sizes) or None in values:
        return None
    return float(np.average(np.array(values, float), weights=sizes))


def sgd_fraction(choices: Choices, state: State, updates: int) -> float:
    """Returns SGD's weight after so many updates, groups' mean."""
    switch_steps = backends.read(state.switch_steps)
    step = ops.cast(updates, switch_steps.dtype)
    weights = plans.weights_of(choices, state, switch_steps, step)
    return float(ops.convert_to_numpy(weights).mean())


def cooldown_factor(choices: Choices, state: State, updates: int) -> float:
    """Returns the cool-down's factor after so many updates, groups' mean."""
    switch_steps = backends.read(state.switch_steps)
    step = ops.cast(updates, switch_steps.dtype)
    factors = plans.cooldown_factors(choices, state, switch_steps, step)
    return float(ops.convert_to_numpy(factors).mean())


def cooldown_end(cooldown: Cooldown, state: State) -> int | None:
    """Returns the updates after which the last group has cooled down."""
    switch_steps = backends.read(state.switch_steps)
    spans = plans.cooldown_spans(state, switch_steps)
    length = ops.convert_to_numpy(cooldown.length(*spans))
    ends = state.switch_steps.numpy() + length
    return int(ends.max()) if np.isfinite(ends).all() else None


def _means(state: State, scales: Any) -> np.ndarray:
    """Returns each variable's mean over its units; 0 where there are none."""
    counts = [u.count for u in state.units]
    parts = np.split(np.asarray(scales), np.cumsum(counts)[:-1])
    return np.array([x.mean() if x.size else 0.0 for x in parts])
