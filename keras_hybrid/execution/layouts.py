"""What one update multiplies with, for each variable: from a plan's vectors.

A plan holds one entry a decision group; a layout says what is fixed about a
variable. Both are pure, so that a compiled update can serve every variable,
and every model, with the same layout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_hybrid.execution import backends
from keras_hybrid.rules import Settings, update_dtype
from keras_hybrid.units import Units, split

Tensor = Any

# What of a plan the settings are made of.
PLANNED = frozenset(
    {
        "rates",
        "sgd_rates",
        "weights",
        "beta",
        "kept",
        "correction_1",
        "correction_2",
        "scale_cut",
        "scales",
        "frozen_rates",
        "gradient_rates",
    }
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is fixed about one variable.

    Attributes:
        index: Its place among the optimizer's variables.
        group: Its decision group.
        units: Its shape, and who shares rho in it.
        dtype: Of the weights.
        decay: The decoupled weight decay coefficient, or None.
        clip_value: The largest magnitude of a gradient's entries, or None.
        carries: Whether SGD goes on with Adam's momentum as it is.
        freezes: Whether SGD keeps Adam's step size of each weight.
    """

    index: int
    group: int
    units: Units
    dtype: str
    decay: float | None
    clip_value: float | None
    carries: bool
    freezes: bool


def anywhere(layout: Layout) -> Layout:
    """Returns the layout without its place among the variables."""
    return dataclasses.replace(layout, index=0, group=0)


def settings_of(
    plan: dict[str, Tensor],
    layouts: Sequence[Layout],
    units: Sequence[Units],
    clips: Sequence[Tensor | None],
    phase: str,
) -> list[Settings]:
    """Returns each variable's settings.

    Args:
        plan: Vectors with one entry a group, and `scales` with one a unit.
        layouts: Of the variables to update.
        units: Of all variables, in the order of `scales`.
        clips: What each gradient is multiplied with first, or None.
        phase: "adaptive", "mixed" or "sgd".
    """
    columns: dict[tuple[Any, str], Any] = {}

    def column(name: str, dtype: str) -> Any:
        if (name, dtype) not in columns:
            columns[name, dtype] = ops.unstack(ops.cast(plan[name], dtype))
        return columns[name, dtype]

    def scalar(value: float, dtype: str) -> Tensor:
        if (value, dtype) not in columns:
            columns[value, dtype] = ops.convert_to_tensor(value, dtype)
        return columns[value, dtype]

    # In one go where all have one rate: each op on a small vector counts.
    of_one_group = len({layout.group for layout in layouts}) == 1
    steps: dict[str, list[Tensor]] = {}
    if phase != "adaptive":
        rate = plan["sgd_rates"][layouts[0].group] if of_one_group else 1
        every = plan["scales"] * rate
        steps = {
            dtype: split(ops.cast(every, dtype), units)
            for dtype in dict.fromkeys(map(update_dtype, layouts))
        }
    settings = []
    for layout, clip in zip(layouts, clips, strict=True):
        dtype = update_dtype(layout)
        group = layout.group
        step: Any = 0.0
        if phase != "adaptive":
            step = steps[dtype][layout.index]
            if not layout.units.is_last_axis:
                step = backends.reshape(step, layout.units.broadcast)
            if not of_one_group:
                step = step * column("sgd_rates", dtype)[group]
        settings.append(
            Settings(
                learning_rate=column("rates", dtype)[group],
                sgd_step=step,
                weight=column("weights", dtype)[group],
                beta=column("beta", dtype)[group],
                momentum_kept=1
                if layout.carries or phase == "adaptive"
                else column("kept", dtype)[layout.index],
                correction_1=column("correction_1", dtype)[group],
                correction_2=column("correction_2", dtype)[group],
                scale_cut=column("scale_cut", dtype)[0],
                decay=None
                if layout.decay is None
                else scalar(layout.decay, dtype),
                clip_scale=None if clip is None else ops.cast(clip, dtype),
                clip_value=layout.clip_value,
                frozen_step=column("frozen_rates", dtype)[group]
                if layout.freezes and phase != "adaptive"
                else None,
                gradient_rate=column("gradient_rates", dtype)[group]
                if "gradient_rates" in plan and phase != "adaptive"
                else None,
            )
        )
    return settings
