"""The library's formula in NumPy float64, slow and obvious."""

import math

import numpy as np


def simulate(
    weights,
    gradients,
    *,
    switch_at=None,
    learning_rate=0.01,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-7,
    amsgrad=False,
    momentum=None,
    nesterov=False,
    sgd_scale="slots",
    scale_scope="unit",
    sgd_learning_rate=None,
    carry_momentum=True,
    weight=lambda j: 1.0,
    mix=lambda a, r, x: (1 - x) * a + x * r,
    factor=lambda j: 1.0,
    scale_groups=None,
    weight_decay=0.0,
    multiplier=1.0,
):
    """Trains by the formula, with one list entry a variable.

    `switch_at` has each variable's first SGD update; `scale_groups` each
    variable's scale group. Returns the weights after every update, and the
    variables' rho.
    """
    count = len(weights)
    switch_at = switch_at or [math.inf] * count
    groups = list(range(count)) if scale_groups is None else scale_groups
    momentum = beta_1 if momentum is None else momentum
    w = [np.array(x, "float64") for x in weights]
    m, v = [0 * x for x in w], [0 * x for x in w]
    v_max = [0 * x for x in w]
    above, below = dict.fromkeys(groups, 0.0), dict.fromkeys(groups, 0.0)
    rho, history = [None] * count, []
    rate_at = (
        learning_rate if callable(learning_rate) else lambda t: learning_rate
    )
    for t, gradient in enumerate(gradients):
        rate = rate_at(t)
        p = [None] * count
        for i, g in enumerate(gradient):
            j = t - switch_at[i]
            x = weight(j) if j >= 0 else 0.0
            beta = beta_1 + x * (momentum - beta_1)
            if j == 0 and not carry_momentum:
                m[i] = 0 * m[i]
            m[i] = beta * m[i] + (1 - beta) * g
            if x < 1:
                v[i] = beta_2 * v[i] + (1 - beta_2) * g**2
                v_max[i] = np.maximum(v_max[i], v[i])
            corrections = np.sqrt(1 - beta_2 ** (t + 1)) / (
                1 - beta_1 ** (t + 1)
            )
            root = np.sqrt(v_max[i] if amsgrad else v[i])
            scale = corrections / (root + epsilon)
            p[i] = scale * m[i]
            cooled = rate * (factor(j) if j >= 0 else 1.0)
            direction = m[i]
            if nesterov:
                ahead = beta * m[i] + (1 - beta) * g
                direction = (1 - x) * m[i] + x * ahead
            size = cooled * scale
            if scale_scope == "weight" and x < 1:
                # Adam's own, which rests with v once SGD is alone.
                rho[i] = multiplier * scale
            if x > 0:
                if sgd_learning_rate is None:
                    sgd_step = cooled * rho[i]
                elif callable(sgd_learning_rate):
                    sgd_step = sgd_learning_rate(j) / (1 - momentum)
                    sgd_step *= factor(j)
                else:
                    if rho[i] is None:
                        rho[i] = sgd_learning_rate / (1 - momentum) / rate
                    sgd_step = cooled * rho[i]
                size = mix(cooled * scale, sgd_step, x)
            w[i] = w[i] - direction * size - cooled * weight_decay * w[i]
        history.append([x.copy() for x in w])
        for group in set(groups):
            members = [
                i
                for i in range(count)
                if groups[i] == group and t < switch_at[i]
            ]
            if not members:
                continue
            p_p = sum((p[i] ** 2).sum() for i in members)
            p_g = sum((p[i] * gradient[i]).sum() for i in members)
            m_m = sum((m[i] ** 2).sum() for i in members)
            p_m = sum((p[i] * m[i]).sum() for i in members)
            numerator, denominator = {
                "slots": (0.0, 1.0),
                "projection": (p_p, p_g),
                "swats": (p_p / p_g, 1.0),
                "momentum": (p_p, p_m),
                "norm": (math.sqrt(p_p / m_m), 1.0),
            }.get(sgd_scale, (sgd_scale, 1.0))
            above[group] = beta_2 * above[group] + (1 - beta_2) * numerator
            below[group] = beta_2 * below[group] + (1 - beta_2) * denominator
        for i in range(count):
            if t + 1 != switch_at[i] or sgd_learning_rate is not None:
                continue
            if sgd_scale != "slots":
                # Both averages have the same bias correction.
                rho[i] = above[groups[i]] / below[groups[i]]
            elif scale_groups is not None or scale_scope == "variable":
                members = [
                    k
                    for k in range(count)
                    if groups[k] == groups[i] and t < switch_at[k]
                ]
                rho[i] = sum((p[k] ** 2).sum() for k in members) / sum(
                    (p[k] * m[k]).sum() for k in members
                )
            elif scale_scope == "unit":
                # A column of a kernel, each weight of a bias.
                axes = () if p[i].ndim == 1 else 0
                rho[i] = (p[i] ** 2).sum(axes) / (p[i] * m[i]).sum(axes)
            if scale_scope != "weight":
                rho[i] = multiplier * rho[i]
    return history, rho
