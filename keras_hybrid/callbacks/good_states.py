"""The good states of a training, on the host, to go back to."""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_hybrid.callbacks import snapshot
from keras_hybrid.execution import backends
from keras_hybrid.optimizer import HybridOptimizer

# Weights whose norm grows tenfold between two snapshots have exploded; with
# weights that began at zero it grows fourfold under a warm-up.
_WEIGHT_FACTOR = 10


class Metrics(NamedTuple):
    """What the metrics say of the epoch so far.

    Attributes:
        values: Of the model's metrics; None before the first batch.
        seen: The mean and the count of the loss in these metrics.
    """

    values: list[np.ndarray] | None
    seen: tuple[float, float]


NO_METRICS = Metrics(None, (0.0, 0.0))


class GoodState(NamedTuple):
    """A state that was good.

    Attributes:
        values: Of what goes back, in order.
        metrics: Of the model.
        weight_norm: The norm of all trainable weights.
    """

    values: list[np.ndarray]
    metrics: Metrics
    weight_norm: float


def taken(
    model: Any, optimizer: HybridOptimizer, metrics: Metrics
) -> GoodState:
    """Returns the state as it is."""
    values = [v.numpy() for v in _variables(model, optimizer)]
    return GoodState(values, metrics, weight_norm(model))


def give_back(good: GoodState, model: Any, optimizer: HybridOptimizer) -> None:
    """Gives a state back, but for the metrics.

    So many updates fewer will fit into the training.
    """
    done, steps = optimizer.updates_made, optimizer.training_steps
    for variable, value in zip(
        _variables(model, optimizer), good.values, strict=True
    ):
        variable.assign(value)
    if steps is not None:
        lost = done - optimizer.updates_made
        optimizer.training_steps = max(steps - lost, 1)


def metrics_of(model: Any, seen: tuple[float, float]) -> Metrics:
    """Returns the metrics as they are.

    Args:
        model: Whose metrics.
        seen: The mean and the count of the loss in them.
    """
    return Metrics([v.numpy() for v in model.metrics_variables], seen)


def give_metrics_back(
    good: Metrics, model: Any, logs: MutableMapping[str, Any]
) -> None:
    """Gives metrics back, and puts their results into the logs.

    They go on from the state's, also from an earlier epoch's: an epoch without
    any batch would log a loss of 0.
    """
    if good.values is None:
        model.reset_metrics()
    else:
        variables = model.metrics_variables
        for variable, value in zip(variables, good.values, strict=True):
            variable.assign(value)
    for name, value in model.get_metrics_result().items():
        if name in logs:
            logs[name] = np.asarray(value).tolist()


def fault(
    model: Any, optimizer: HybridOptimizer, before: Sequence[GoodState]
) -> str | None:
    """Returns why the state cannot be good, None if it can.

    Args:
        model: Whose weights are looked at.
        optimizer: Whose moments are.
        before: A state to compare the weights' norm with, or none.
    """
    for variable in [*model.weights, *optimizer.state.moments]:
        if not bool(ops.all(ops.isfinite(ops.convert_to_tensor(variable)))):
            return f"{variable.path} is not finite"
    for state in before:
        norm, old = weight_norm(model), state.weight_norm
        if 0 < _WEIGHT_FACTOR * old < norm:  # Zeros grow beyond any factor.
            return f"norm of the weights {norm:.4g}, {old:.4g} before"
    return None


def check_start(model: Any, optimizer: HybridOptimizer) -> None:
    """Refuses a state that is no start.

    Raises:
        ValueError: If a weight or a moment is not finite.
    """
    cause = fault(model, optimizer, [])
    if cause is not None:
        raise ValueError(
            "`DivergenceGuard` needs finite weights to start from. "
            f"Received: {cause}"
        )


def weight_norm(model: Any) -> float:
    """Returns the norm of all trainable weights."""
    total = 0.0
    for variable in model.trainable_variables:
        square = backends.square_sum(ops.cast(variable, "float32"))
        # As numpy: a torch tensor would carry its gradient.
        total += float(ops.convert_to_numpy(square))
    return math.sqrt(total)


def _variables(model: Any, optimizer: HybridOptimizer) -> list[Any]:
    """What goes back: all but what callbacks and the guard itself set."""
    state = optimizer.state
    stays = [
        optimizer.learning_rate,
        state.training_steps,
        state.scale_cut,
        state.guard_counts,
    ]
    return snapshot.variables_of(model, stays)
