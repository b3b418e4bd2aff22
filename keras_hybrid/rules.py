"""The formula, as pure functions on tensors: no state, no assignment.

Adam and SGD with momentum keep the same exponential moving average `m` of the
gradient and differ in what it is multiplied with::

    m <- beta m + (1 - beta) g
    w <- w - learning_rate P m

    P = sqrt(1 - beta_2^k) / (1 - beta_1^k) / (sqrt(v) + epsilon)   adaptive
    P = rho                                                         SGD

Everything here takes and returns tensors of one dtype; the names follow the
formula (`g` gradient, `m` first moment, `v` second moment).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

Tensor = Any


class Settings(NamedTuple):
    """What one update of one variable multiplies with; all scalar tensors.

    Attributes:
        learning_rate: The learning rate, cool-down included.
        sgd_step: learning_rate * rho, the size of an SGD step.
        weight: The weight of SGD in the mix, from 0 to 1.
        beta: The coefficient of the first moment.
        momentum_kept: What the momentum is multiplied with first: 0 in the
            update that starts SGD from zero momentum, SGD's rate in the one
            that takes the rate inside the momentum, else 1.
        correction_1: 1 - beta_1^k.
        correction_2: 1 - beta_2^k.
        scale_cut: What DivergenceGuard has left of SGD's scale, 1 without it;
            it is in `sgd_step`.
        decay: The decoupled weight decay coefficient, or None.
        clip_scale: What the gradient is multiplied with first, or None.
        clip_value: The largest magnitude of its entries, or None.
        frozen_step: None, or where SGD keeps Adam's step size of each weight
            as the switch found it: its learning rate over the bias correction
            of that moment.
        gradient_rate: SGD's rate where it is inside the momentum, which then
            averages rate * g; or None.
    """

    learning_rate: Tensor
    sgd_step: Tensor
    weight: Tensor
    beta: Tensor
    momentum_kept: Tensor | int
    correction_1: Tensor
    correction_2: Tensor
    scale_cut: Tensor
    decay: Tensor | None
    clip_scale: Tensor | None = None
    clip_value: float | None = None
    frozen_step: Tensor | None = None
    gradient_rate: Tensor | None = None


def norm_clip(square: Tensor, limit: float) -> Tensor:
    """Returns limit / max(norm, limit), the scale that clips to a norm.

    Args:
        square: The squared norm.
        limit: The largest norm that is left as it is.
    """
    return limit / at_least(ops.sqrt(square), constant(limit, square.dtype))


def global_clip(square: Tensor, limit: float) -> Tensor:
    """Returns min(1, limit / norm), and NaN where the norm is not finite."""
    norm = ops.sqrt(square)
    most = constant(1 / limit, square.dtype)
    return limit * at_most(1 / norm, most) + (norm - norm)


def clipped(g: Tensor, settings: Settings) -> Tensor:
    """Returns what enters the averages: the gradient, clipped; its rate."""
    if settings.clip_scale is not None:
        g = g * settings.clip_scale
    if settings.clip_value is not None:
        limit = constant(settings.clip_value, g.dtype)
        g = ops.clip(g, -limit, limit)
    return g if settings.gradient_rate is None else g * settings.gradient_rate


def moving_average(average: Tensor, value: Tensor, beta: Tensor) -> Tensor:
    """Returns beta * average + (1 - beta) * value, in Keras' order."""
    return average + (value - average) * (1 - beta)


def bias_correction(correction_1: Tensor, correction_2: Tensor) -> Tensor:
    """Returns sqrt(1 - beta_2^k) / (1 - beta_1^k), Adam's factor on its step.

    Args:
        correction_1: 1 - beta_1^k.
        correction_2: 1 - beta_2^k.
    """
    return ops.sqrt(correction_2) / correction_1


def adaptive_root(v: Tensor, settings: Settings, epsilon: float) -> Tensor:
    """Returns 1 / P of Adam, elementwise.

    As in Keras, epsilon is added outside the root of the uncorrected second
    moment (the "epsilon hat" of Kingma & Ba 2014, section 2).
    """
    corrections = settings.correction_1 / ops.sqrt(settings.correction_2)
    return corrections * (ops.sqrt(v) + epsilon)


def corrected_root(v: Tensor, settings: Settings, epsilon: float) -> Tensor:
    """Returns 1 / P of Adam with epsilon added to the corrected root.

    (1 - beta_1^k) (sqrt(v / (1 - beta_2^k)) + epsilon): Kingma & Ba 2014,
    algorithm 1 (DSTAdam's form).
    """
    root = ops.sqrt(v / settings.correction_2)
    return settings.correction_1 * (root + epsilon)


def uncorrected_root(v: Tensor, settings: Settings, epsilon: float) -> Tensor:
    """Returns sqrt(v) + epsilon, 1 / P of RMSprop and Padam."""
    del settings
    return ops.sqrt(v) + epsilon


def decayed(delta: Tensor, w: Tensor, settings: Settings) -> Tensor:
    """Adds the decoupled weight decay to the step `delta`.

    delta + learning_rate * decay * w (Loshchilov & Hutter 2017): the same in
    both phases, so a switch leaves it continuous.
    """
    if settings.decay is None:
        return delta
    return delta + w * (settings.decay * settings.learning_rate)


def sgd_direction(m: Tensor, g: Tensor, beta: Tensor, nesterov: bool) -> Tensor:
    """Returns m, or with Nesterov beta * m + (1 - beta) * g."""
    return m * beta + g * (1 - beta) if nesterov else m


def sgd_size(v: Tensor | None, settings: Settings, epsilon: float) -> Tensor:
    """Returns what SGD multiplies m with: the unit's step, or each weight's.

    A weight's own is Adam's at the switch, whose second moment `v` rests from
    there; one that has had no gradient takes its variable's.
    """
    if settings.frozen_step is None or v is None:
        return settings.sgd_step
    return ops.where(
        v > 0, settings.frozen_step / (ops.sqrt(v) + epsilon), settings.sgd_step
    )


def sgd_update(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    settings: Settings,
    *,
    nesterov: bool,
    size: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One update of SGD with momentum, in terms of Adam's first moment.

    m <- beta m + (1 - beta) g;  delta = size * m. With size = a / (1 - beta)
    this is keras.optimizers.SGD(a, momentum=beta).

    Args:
        w: The weights.
        g: The gradient.
        m: The first moment.
        settings: The scalars.
        nesterov: Whether the direction is Nesterov's.
        size: In place of `settings.sgd_step`.

    Returns:
        `(delta, m)`: what is subtracted from `w`, and the new first moment.
    """
    size = settings.sgd_step if size is None else size
    m = moving_average(m * settings.momentum_kept, g, settings.beta)
    direction = sgd_direction(m, g, settings.beta, nesterov)
    return decayed(direction * size, w, settings), m


def adaptive_update(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    v_max: Tensor | None,
    settings: Settings,
    *,
    beta_2: float,
    epsilon: float,
    root: Callable[[Tensor, Settings, float], Tensor] = adaptive_root,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """One update of Adam (of AMSGrad where `v_max` is given).

    Returns:
        `(delta, m, v, v_max)`: what is subtracted from `w`, and the new
        moments.
    """
    m = moving_average(m, g, settings.beta)
    v = moving_average(v, ops.square(g), beta_2)
    v_max = None if v_max is None else at_least(v, v_max)
    p = m / root(v if v_max is None else v_max, settings, epsilon)
    return decayed(p * settings.learning_rate, w, settings), m, v, v_max


def mixed_update(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    v_max: Tensor | None,
    settings: Settings,
    mix: Callable[[Tensor, Tensor, Tensor], Tensor],
    *,
    beta_2: float,
    epsilon: float,
    nesterov: bool,
    root: Callable[[Tensor, Settings, float], Tensor] = adaptive_root,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """One update anywhere between Adam (weight 0) and SGD (weight 1).

    delta = mix(learning_rate P, sgd_step, weight) * direction, where the
    direction goes from m to SGD's (Nesterov's) with the same weight. At weight
    1 the second moment is left as it is.

    Returns:
        The same four as `adaptive_update`.
    """
    pure = settings.weight >= 1
    m = moving_average(m * settings.momentum_kept, g, settings.beta)
    new_v = moving_average(v, ops.square(g), beta_2)
    v = ops.where(pure, v, new_v)
    if v_max is not None:
        v_max = at_least(v, v_max)
    adaptive = 1 / root(v if v_max is None else v_max, settings, epsilon)
    direction = m
    if nesterov:
        direction = m + settings.weight * (
            sgd_direction(m, g, settings.beta, nesterov) - m
        )
    sgd = sgd_size(v if v_max is None else v_max, settings, epsilon)
    size = mix(adaptive * settings.learning_rate, sgd, settings.weight)
    return decayed(direction * size, w, settings), m, v, v_max


def projection(step_square: Tensor, step_descent: Tensor) -> Tensor:
    """Returns gamma = p.p / -p.g.

    The learning rate of SGD whose step, projected on the adaptive step p, is p
    itself (Keskar & Socher 2017, equation 4).

    Args:
        step_square: p.p, summed over the weights of a group.
        step_descent: -p.g, summed likewise. Where it is 0 gamma is 0.
    """
    exists = step_descent != 0
    return ops.where(
        exists, step_square / ops.where(exists, step_descent, 1), 0
    )


def norm_ratio(step_square: Tensor, moment_square: Tensor) -> Tensor:
    """Returns |p| / |m|, and 0 where m is 0.

    With it SGD's step gets the length of the adaptive one (learning-rate
    grafting, Agarwal et al. 2020).
    """
    exists = moment_square > 0
    ratio = step_square / ops.where(exists, moment_square, 1)
    return ops.where(exists, ops.sqrt(ratio), 0)


def update_dtype(variable: Any) -> str:
    """The dtype of a variable's update: half precision is too narrow.

    In float16 the adaptive scale 1 / epsilon would overflow.
    """
    dtype = str(keras.backend.standardize_dtype(variable.dtype))
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def constant(value: float, dtype: Any) -> Tensor:
    """Returns a tensor of `value`; a cast would go through float32."""
    return ops.convert_to_tensor(value, dtype=dtype)


def at_least(x: Tensor, low: Tensor) -> Tensor:
    """Returns the larger; where x is NaN, x.

    On torch `ops.maximum` of float64 is float32, and so is `ops.minimum`.
    """
    return ops.where(x < low, low, x)


def at_most(x: Tensor, high: Tensor) -> Tensor:
    """Returns the smaller; where x is NaN, x."""
    return ops.where(x > high, high, x)
