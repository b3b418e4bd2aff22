"""The update of many variables as one XLA-compiled function.

For what TensorFlow has no kernel of. It is compiled once for each list of
shapes, whatever model has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_hybrid.execution import blocks, functions
from keras_hybrid.execution.layouts import Layout, settings_of
from keras_hybrid.formula import Formula
from keras_hybrid.units import Units

Tensor = Any


def update(
    formula: Formula,
    phase: str,
    layouts: Sequence[Layout],
    units: Sequence[Units],
    arguments: dict[str, Any],
    jit: bool,
) -> None:
    """Updates variables and their slots in place.

    Args:
        formula: The update.
        phase: "adaptive", "mixed" or "sgd".
        layouts: Of the variables.
        units: Of all variables of the optimizer.
        arguments: `plan`, and one a variable: `grads`, `clips`, `handles` (of
            each weight and its slots).
        jit: Whether XLA compiles it.
    """

    def whole(arguments: dict[str, Any]) -> None:
        import tensorflow as tf

        every = settings_of(
            arguments["plan"], layouts, units, arguments["clips"], phase
        )
        # Uncompiled, the large ones wait for each other: what all would compute
        # at a time is as much memory as the slots.
        awaited = [False] * len(layouts) if jit else blocks.are_large(layouts)
        before: list[Any] = []
        for layout, is_awaited, settings, grad, handles in zip(
            layouts,
            awaited,
            every,
            arguments["grads"],
            arguments["handles"],
            strict=True,
        ):
            frozen = phase == "sgd" and layout.freezes
            changed = handles[:2] if phase == "sgd" else handles
            with tf.control_dependencies(before):
                values = [
                    functions.value(h, layout.dtype, layout.units.shape)
                    for h in (handles if frozen else changed)
                ]
                new = formula.new_values(phase, settings, grad, *values)
                made = [
                    tf.raw_ops.AssignVariableOp(resource=handle, value=value)
                    for handle, value in zip(changed, new, strict=False)
                ]
            if is_awaited:
                before = made

    if not jit:
        whole(arguments)
        return
    key = ("cluster", formula.key, phase, tuple(layouts), tuple(units))
    functions.shared(key, whole)(arguments)
