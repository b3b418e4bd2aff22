"""Sums over the weights of an adaptive update, for what reads them.

Scales and triggers that watch the training need p.p, p.g and the like of each
update, with p the adaptive step at unit learning rate. They are read from the
slots after the update, in a pass of their own: what needs none pays nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from keras_hybrid.execution import backends, blocks, functions
from keras_hybrid.execution.layouts import (
    PLANNED,
    Layout,
    anywhere,
    settings_of,
)
from keras_hybrid.formula import Formula
from keras_hybrid.rules import Settings, clipped, update_dtype
from keras_hybrid.units import Units

Tensor = Any


def terms(
    formula: Formula,
    names: Sequence[str],
    settings: Settings,
    grad: Tensor,
    slots: Sequence[Tensor],
    dtype: str,
) -> dict[str, Tensor]:
    """Returns what is summed, elementwise.

    Args:
        formula: Of the update that left the slots.
        names: Of `triggers.SUMS`.
        settings: The scalars of that update.
        grad: Its gradient.
        slots: m, v (and v's maximum).
        dtype: Of the sums.
    """
    own = update_dtype(slots[0])
    g, m, v, *v_max = (ops.cast(x, own) for x in (grad, *slots))
    g = clipped(g, settings)
    p = formula.step(settings, g, m, v_max[0] if v_max else v)
    p, g, m, v = (ops.cast(x, dtype) for x in (p, g, m, v))
    formulas: dict[str, Callable[[], Tensor]] = {
        "step_square": lambda: ops.square(p),
        "step_descent": lambda: p * g,
        "step_moment": lambda: p * m,
        "moment_square": lambda: ops.square(m),
        "second_moment": lambda: v,
    }
    return {name: formulas[name]() for name in names}


def of_update(
    formula: Formula,
    names: Sequence[str],
    layouts: Sequence[Layout],
    units: Sequence[Units],
    plan: dict[str, Tensor],
    grads: Sequence[Tensor],
    clips: Sequence[Tensor | None],
    slots: Sequence[Sequence[Any]],
    dtype: str,
    jit: bool,
) -> list[dict[str, Tensor]]:
    """Returns the sums of each variable after an update.

    Args:
        formula: Of the update.
        names: Of `triggers.SUMS`.
        layouts: Of the variables.
        units: Of all variables of the optimizer.
        plan: Of the update.
        grads: Its gradients.
        clips: What each was multiplied with, or None.
        slots: m, v (and v's maximum) of each variable.
        dtype: Of the sums.
        jit: Whether XLA may compile.
    """
    if backends.can_compile() and jit:
        arguments: dict[str, Any] = {
            "plan": {name: plan[name] for name in PLANNED & set(plan)},
            "grads": list(grads),
            "clips": list(clips),
            "handles": [[functions.handle(x) for x in own] for own in slots],
        }
        return _compiled(formula, names, layouts, arguments, dtype)
    every = settings_of(plan, layouts, units, clips, "adaptive")
    return [
        of_variable(formula, names, settings, grad, own, dtype)
        for own, grad, settings in zip(slots, grads, every, strict=True)
    ]


def of_variable(
    formula: Formula,
    names: Sequence[str],
    settings: Settings,
    grad: Tensor,
    slots: Sequence[Any],
    dtype: str,
) -> dict[str, Tensor]:
    """Returns the sums of one variable (arguments as of `terms`)."""
    values = [ops.convert_to_tensor(x) for x in slots]
    found = terms(formula, names, settings, grad, values, dtype)
    return {name: ops.sum(term) for name, term in found.items()}


def _compiled(
    formula: Formula,
    names: Sequence[str],
    layouts: Sequence[Layout],
    arguments: dict[str, Any],
    dtype: str,
) -> list[dict[str, Tensor]]:
    """Returns the sums of each variable, computed inside XLA.

    Args:
        formula: Of the update that left the slots.
        names: Of `triggers.SUMS`.
        layouts: Of the variables.
        arguments: `plan`, and one a variable: `grads`, `clips`, `handles` of
            its slots.
        dtype: Of the sums.
    """
    plan = arguments["plan"]
    units = [layout.units for layout in layouts]
    every = settings_of(plan, layouts, units, arguments["clips"], "adaptive")
    large = blocks.are_large(layouts)
    found: list[Any] = [None] * len(layouts)

    def one(
        layout: Layout, settings: Settings, grad: Tensor, handles: list[Tensor]
    ) -> dict[str, Tensor]:
        import tensorflow as tf

        slots = [
            functions.value(h, layout.dtype, layout.units.shape)
            for h in handles
        ]
        # That of an embedding has none of its own inside a `cond`.
        grad = tf.ensure_shape(grad, layout.units.shape)

        def of(grad: Tensor, *slots: Tensor) -> dict[str, Tensor]:
            return terms(formula, names, settings, grad, slots, dtype)

        return blocks.sums(of, [grad, *slots], names, dtype)

    for i, layout in enumerate(layouts):
        if large[i]:
            function = functions.shared(
                ("sums", formula.key, tuple(names), anywhere(layout), dtype),
                functools.partial(one, layout),
            )
            found[i] = function(
                every[i], arguments["grads"][i], arguments["handles"][i]
            )
    rest = [i for i in range(len(layouts)) if not large[i]]
    if rest:
        small = [layouts[i] for i in rest]

        def together(plan: Any, clips: Any, grads: Any, handles: Any) -> Any:
            every = settings_of(plan, small, units, clips, "adaptive")
            return [
                one(*x) for x in zip(small, every, grads, handles, strict=True)
            ]

        function = functions.shared(
            ("sums", formula.key, tuple(names), tuple(small), dtype), together
        )
        own = [
            [arguments[name][i] for i in rest]
            for name in ("clips", "grads", "handles")
        ]
        for i, sums in zip(rest, function(plan, *own), strict=True):
            found[i] = sums
    return found
