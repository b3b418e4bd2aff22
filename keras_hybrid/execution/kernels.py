"""The update by TensorFlow's own kernels: nothing to compile, one op a slot.

`ResourceApplyAdam` is Keras' Adam in one op, in place. Launching an op is what
a small variable costs, so that this is faster there than a compiled cluster,
and it takes no memory. Its arithmetic is that of the weights' own precision:
1 - beta_2 is that of the rounded beta_2, as in the bias correction.

Handles are those of TensorFlow variables: the weight, m, v (and v's maximum).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras_hybrid.execution.layouts import Layout
from keras_hybrid.formula import Formula
from keras_hybrid.rules import Settings, clipped
from keras_hybrid.transitions import Blend, Hard

Tensor = Any


def can_update(formula: Formula, phase: str, layout: Layout) -> bool:
    """Whether TensorFlow has kernels for this phase of the formula."""
    if layout.dtype not in ("float32", "float64"):
        return False
    if phase == "adaptive":
        return formula.is_adams
    if layout.freezes or type(formula) is not Formula:
        return False
    if phase == "sgd":
        return True
    transition = formula.transition
    # One derived from them may mix in another way.
    arithmetic = type(transition) is Hard or (
        type(transition) is Blend and transition.path == "arithmetic"
    )
    return (
        formula.is_adams
        and arithmetic
        and layout.carries
        and not formula.nesterov
    )


def update(
    formula: Formula,
    phase: str,
    layouts: Sequence[Layout],
    settings: Sequence[Settings],
    grads: Sequence[Tensor],
    handles: Sequence[Sequence[Tensor]],
) -> None:
    """Updates variables one by one.

    Args:
        formula: Of which `can_update` holds.
        phase: "adaptive", "mixed" or "sgd".
        layouts: Of the variables.
        settings: Their scalars.
        grads: Their gradients.
        handles: Of each weight and its slots.
    """
    shared = _Shared()
    for layout, each, grad, own in zip(
        layouts, settings, grads, handles, strict=True
    ):
        grad = clipped(grad, each)
        if each.decay is not None:
            rate = shared.of(
                "decay", layout, lambda s: s.decay * s.learning_rate, each
            )
            _subtract(own[0], _read(own[0], layout.dtype) * rate)
        if phase != "sgd":
            _adam(formula, phase, shared, layout, each, grad, own)
        if phase == "mixed":
            step = (
                shared.of("weight", layout, lambda s: s.weight, each)
                * each.sgd_step
            )
            _subtract(own[0], _read(own[1], layout.dtype) * step)
        if phase == "sgd":
            _sgd(formula, shared, layout, each, grad, own)


class _Shared:
    """Scalar tensors that variables of a group share: each is an op."""

    def __init__(self) -> None:
        self._tensors: dict[Any, Tensor] = {}

    def of(
        self,
        name: str,
        layout: Layout,
        make: Callable[[Settings], Tensor],
        settings: Settings,
    ) -> Tensor:
        key = (name, layout.group, layout.dtype)
        if key not in self._tensors:
            self._tensors[key] = make(settings)
        return self._tensors[key]

    def constant(self, value: float, dtype: str) -> Tensor:
        import tensorflow as tf

        key = (value, dtype)
        if key not in self._tensors:
            self._tensors[key] = tf.constant(value, dtype)
        return self._tensors[key]


def _read(handle: Tensor, dtype: str) -> Tensor:
    import tensorflow as tf

    return tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)


def _subtract(handle: Tensor, value: Tensor) -> None:
    import tensorflow as tf

    tf.raw_ops.AssignSubVariableOp(resource=handle, value=value)


def _adam(
    formula: Formula,
    phase: str,
    shared: _Shared,
    layout: Layout,
    settings: Settings,
    grad: Tensor,
    handles: Sequence[Tensor],
) -> None:
    import tensorflow as tf

    def rate(s: Settings) -> Tensor:
        corrected = s.learning_rate * tf.sqrt(s.correction_2) / s.correction_1
        return corrected if phase == "adaptive" else corrected * (1 - s.weight)

    beta_2 = shared.constant(formula.beta_2, layout.dtype)
    if phase == "mixed":
        # Where SGD is all that is left the second moment rests.
        beta_2 = shared.of(
            "beta_2",
            layout,
            lambda s: tf.where(s.weight >= 1, tf.ones_like(beta_2), beta_2),
            settings,
        )
    zero = shared.constant(0.0, layout.dtype)
    arguments: dict[str, Tensor] = {
        "var": handles[0],
        "m": handles[1],
        "v": handles[2],
        # The corrections are in the rate.
        "beta1_power": zero,
        "beta2_power": zero,
        "lr": shared.of("rate", layout, rate, settings),
        "beta1": settings.beta,
        "beta2": beta_2,
        "epsilon": shared.constant(formula.epsilon, layout.dtype),
        "grad": grad,
    }
    if len(handles) == 4:
        tf.raw_ops.ResourceApplyAdamWithAmsgrad(vhat=handles[3], **arguments)
    else:
        tf.raw_ops.ResourceApplyAdam(**arguments)


def _sgd(
    formula: Formula,
    shared: _Shared,
    layout: Layout,
    settings: Settings,
    grad: Tensor,
    handles: Sequence[Tensor],
) -> None:
    import tensorflow as tf

    share = shared.of("share", layout, lambda s: 1 - s.beta, settings)
    beta = settings.beta
    if not layout.carries:
        beta = beta * settings.momentum_kept
    grad = grad * share
    zero = shared.constant(0.0, layout.dtype)
    one_step = not layout.units.broadcast and not formula.nesterov
    # m <- beta m + (1 - beta) g;  w <- w - lr m.
    tf.raw_ops.ResourceApplyMomentum(
        var=handles[0],
        accum=handles[1],
        lr=settings.sgd_step if one_step else zero,
        grad=grad,
        momentum=beta,
    )
    if not one_step:
        direction = _read(handles[1], layout.dtype)
        if formula.nesterov:
            direction = direction * settings.beta + grad
        _subtract(handles[0], direction * settings.sgd_step)
