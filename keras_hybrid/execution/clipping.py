"""The norms of gradients, before an update: to clip, and to skip."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_hybrid import rules
from keras_hybrid.execution import backends

Tensor = Any


def clip_scales(
    grads: Sequence[Tensor],
    clipnorm: float | None,
    global_clipnorm: float | None,
    dtype: str,
) -> list[Tensor | None]:
    """Returns what each gradient is multiplied with to clip it, or None.

    Args:
        grads: The gradients.
        clipnorm: The largest norm of each.
        global_clipnorm: The largest norm of all together.
        dtype: Of that norm's sum.
    """
    if not clipnorm and not global_clipnorm:
        return [None] * len(grads)
    squares = [
        backends.square_sum(ops.cast(g, rules.update_dtype(g))) for g in grads
    ]
    if clipnorm:
        return [rules.norm_clip(x, clipnorm) for x in squares]
    square = sum(ops.cast(x, dtype) for x in squares)
    limit: Any = global_clipnorm
    return [rules.global_clip(square, limit)] * len(grads)


def are_finite(
    grads: Sequence[Tensor], global_clipnorm: float | None, dtype: str
) -> Tensor:
    """Returns whether all gradients, and the norm that clips, are finite."""
    if global_clipnorm:
        # NaN where a gradient is not finite, or its square overflows.
        scales = clip_scales(grads, None, global_clipnorm, dtype)
        return ops.isfinite(scales[0])
    return functools.reduce(
        ops.logical_and, [ops.all(ops.isfinite(g)) for g in grads]
    )
