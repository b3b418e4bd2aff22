"""What the result of a search is compared with, on the same seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_hybrid.plans import Plan

# SGD's learning rate as often written, and not tuned.
SGD_LEARNING_RATE = 0.05


def plans(optimizer: Any) -> dict[str, Plan]:
    """Returns the plan of each of `record.REFERENCES`.

    Args:
        optimizer: The HybridOptimizer of the search's model.

    Raises:
        ValueError: If its learning rate is 0 in the first update.
    """
    rate = float(np.asarray(ops.convert_to_tensor(optimizer.learning_rate)))
    if rate == 0:
        given = optimizer.get_config()["learning_rate"]
        # A schedule is serialized with the name of its class.
        kind = (
            given["class_name"]
            if isinstance(given, dict)
            else type(given).__name__
        )
        raise ValueError(
            "The references need a learning rate above 0 in the first "
            "update, from which SGD's is reckoned: give the schedule a "
            f"start. Received: {kind} with 0 at update 0"
        )
    # learning_rate * rho * (1 - momentum) is SGD's learning rate.
    rho = SGD_LEARNING_RATE / (rate * (1 - optimizer.sgd_momentum))
    return {
        "default": Plan(),
        "adam": Plan(when="start", scale="number", rho=1.0, end=0.0),
        "sgd": Plan(when="start", scale="number", rho=rho),
    }
