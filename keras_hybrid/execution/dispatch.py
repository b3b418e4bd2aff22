"""Each variable's update where it is fastest: blocks, a kernel, a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_hybrid import rules
from keras_hybrid.execution import blocks, clusters, kernels
from keras_hybrid.execution.layouts import PLANNED, Layout, settings_of
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
    """Updates all variables and their slots in place.

    Args:
        formula: The update.
        phase: "adaptive", "mixed" or "sgd".
        layouts: Of the variables.
        units: Of all variables of the optimizer.
        arguments: `plan` with `scales`, and one a variable: `grads`, `clips`,
            `handles` (of each weight and its slots).
        jit: Whether XLA may compile.
    """
    kinds = _kinds(formula, phase, layouts, jit)
    plan = arguments["plan"]

    def chosen(kind: str, items: Sequence[Any]) -> list[Any]:
        return [x for x, k in zip(items, kinds, strict=True) if k == kind]

    def settings_for(kind: str) -> list[rules.Settings]:
        clips = chosen(kind, arguments["clips"])
        return settings_of(plan, chosen(kind, layouts), units, clips, phase)

    def changed(kind: str) -> list[Sequence[Tensor]]:
        handles = chosen(kind, arguments["handles"])
        return [h[:2] if phase == "sgd" else h for h in handles]

    if "block" in kinds:
        # No step is negative, which XLA cannot know.
        zero = ops.cast(ops.minimum(plan["step"], 0), "int32")
        for layout, settings, grad, handles in zip(
            chosen("block", layouts),
            settings_for("block"),
            chosen("block", arguments["grads"]),
            changed("block"),
            strict=True,
        ):
            blocks.update(formula, phase, layout, settings, grad, handles, zero)
    if "kernel" in kinds:
        kernels.update(
            formula,
            phase,
            chosen("kernel", layouts),
            settings_for("kernel"),
            chosen("kernel", arguments["grads"]),
            changed("kernel"),
        )
    if "cluster" in kinds:
        own = {
            name: chosen("cluster", arguments[name])
            for name in ("grads", "clips", "handles")
        }
        needed = {name: plan[name] for name in PLANNED & set(plan)}
        clusters.update(
            formula,
            phase,
            chosen("cluster", layouts),
            units,
            {"plan": needed, **own},
            jit,
        )


def _kinds(
    formula: Formula, phase: str, layouts: Sequence[Layout], jit: bool
) -> list[str]:
    """Returns where each variable's update is fastest."""
    by_kernel = [kernels.can_update(formula, phase, x) for x in layouts]
    if phase == "sgd" and jit and not blocks.only_cpus():
        # SGD's kernels do little for their launches, of which XLA makes few.
        by_kernel = [False] * len(layouts)
    beside = phase != "sgd" and all(by_kernel)
    in_blocks = [False] * len(layouts)
    if jit and not any(layout.freezes for layout in layouts):
        in_blocks = blocks.are_worth_it(
            layouts, blocks.LEAST_BESIDE_KERNEL if beside else blocks.LEAST
        )
    return [
        "block" if block else "kernel" if kernel else "cluster"
        for block, kernel in zip(in_blocks, by_kernel, strict=True)
    ]
