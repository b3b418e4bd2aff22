"""The library's formula in NumPy float64, slow and obvious."""

import math

import numpy as np

# Of step sizes A (adaptive) and R (SGD's), at SGD's weight x > 0.
PATHS = {
    "arithmetic": lambda a, r, x: (1 - x) * a + x * r,
    "geometric": lambda a, r, x: a ** (1 - x) * r**x,
    "clip": lambda a, r, x: np.clip(a, x * r, r / x),
}


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
    inside=False,
    carry_momentum=True,
    weight=lambda j: 1.0,
    mix=PATHS["arithmetic"],
    factor=lambda j: 1.0,
    scale_groups=None,
    summed=None,
    weight_decay=0.0,
    multiplier=1.0,
    after=lambda t, w: w,
):
    """Trains by the formula, with one list entry a variable.

    `switch_at` has each variable's first SGD update; `scale_groups` each
    variable's scale group; `summed` the axes that a unit of it spans; `factor`
    is one function, or one a variable; with `inside` SGD's momentum averages
    sgd_learning_rate(j) * g; `after` changes the weights that update
    t has left. An update with a gradient that is not finite is skipped. Returns
    the weights after every update, and the variables' rho.
    """
    count = len(weights)
    switch_at = switch_at or [math.inf] * count
    groups = list(range(count)) if scale_groups is None else scale_groups
    factors = [factor] * count if callable(factor) else factor
    momentum = beta_1 if momentum is None else momentum
    w = [np.array(x, "float64") for x in weights]
    m, v = [0 * x for x in w], [0 * x for x in w]
    v_max = [0 * x for x in w]
    # None: of the whole model, for what has no estimate of its own.
    above = dict.fromkeys([*groups, None], 0.0)
    below = dict.fromkeys([*groups, None], 0.0)
    given = isinstance(sgd_scale, float) and sgd_learning_rate is None
    rho, history = [sgd_scale if given else None] * count, []
    # A column of a kernel, each weight of a bias.
    summed = summed or [tuple(range(x.ndim - 1)) for x in w]
    starts = [inside or not carry_momentum] * count
    made, own = 0, [None] * count
    rate_at = (
        learning_rate if callable(learning_rate) else lambda t: learning_rate
    )
    for t, gradient in enumerate(gradients):
        if not all(np.isfinite(g).all() for g in gradient):
            w = after(t, w)
            history.append([x.copy() for x in w])
            continue
        made += 1
        rate = rate_at(t)
        p = [None] * count
        for i, g in enumerate(gradient):
            j = t - switch_at[i]
            x = weight(j) if j >= 0 else 0.0
            beta = beta_1 + x * (momentum - beta_1)
            taken = 1.0
            if inside and j >= 0:
                taken = sgd_learning_rate(j) * factors[i](j)
            if j >= 0 and starts[i]:
                m[i] = m[i] * (taken if carry_momentum else 0)
                starts[i] = False
            g = taken * g
            m[i] = beta * m[i] + (1 - beta) * g
            if x < 1:
                v[i] = beta_2 * v[i] + (1 - beta_2) * g**2
                v_max[i] = np.maximum(v_max[i], v[i])
            corrections = np.sqrt(1 - beta_2**made) / (1 - beta_1**made)
            root = np.sqrt(v_max[i] if amsgrad else v[i])
            scale = corrections / (root + epsilon)
            p[i] = scale * m[i]
            cooled = rate * (factors[i](j) if j >= 0 else 1.0)
            direction = m[i]
            if nesterov:
                ahead = beta * m[i] + (1 - beta) * g
                direction = (1 - x) * m[i] + x * ahead
            size = cooled * scale
            if x < 1:
                # Adam's own, which rests with v once SGD is alone.
                own[i] = multiplier * scale
            if x > 0:
                if sgd_learning_rate is None:
                    sgd_step = cooled * rho[i]
                    if scale_scope == "weight":
                        sgd_step = np.where(root > 0, cooled * own[i], sgd_step)
                elif inside:
                    sgd_step = 1 / (1 - momentum)
                elif callable(sgd_learning_rate):
                    sgd_step = sgd_learning_rate(j) / (1 - momentum)
                    sgd_step *= factors[i](j)
                else:
                    if rho[i] is None and rate > 0:
                        rho[i] = sgd_learning_rate / (1 - momentum) / rate
                    sgd_step = cooled * (rho[i] or 0.0)
                size = mix(cooled * scale, sgd_step, x)
            w[i] = w[i] - direction * size - cooled * weight_decay * w[i]
        w = after(t, w)
        history.append([x.copy() for x in w])
        slots = {}
        waiting = [i for i in range(count) if t < switch_at[i]]
        for group in above:
            members = [i for i in waiting if group in (groups[i], None)]
            if not members:
                continue
            p_p = sum((p[i] ** 2).sum() for i in members)
            p_g = sum((p[i] * gradient[i]).sum() for i in members)
            m_m = sum((m[i] ** 2).sum() for i in members)
            p_m = sum((p[i] * m[i]).sum() for i in members)
            slots[group] = _ratio(p_p, p_m)
            # Without a value an average stays.
            numerator, denominator = {
                "slots": (0.0, 1.0),
                "projection": (p_p, p_g),
                "swats": (p_p / p_g if p_g else None, 1.0),
                "momentum": (p_p, p_m),
                "norm": (math.sqrt(p_p / m_m), 1.0) if m_m else (None, None),
            }.get(sgd_scale, (sgd_scale, 1.0))
            for average, value in (above, numerator), (below, denominator):
                if value is not None:
                    average[group] *= beta_2
                    average[group] += (1 - beta_2) * value
        for i in range(count):
            if t + 1 != switch_at[i] or sgd_learning_rate is not None or given:
                continue
            # Both averages have the same bias correction.
            own_rho, of_model = (
                slots[g] if sgd_scale == "slots" else _ratio(above[g], below[g])
                for g in (groups[i], None)
            )
            rho[i] = np.where(np.isnan(own_rho), of_model, own_rho)
            if sgd_scale == "slots" and (
                scale_scope == "unit" and scale_groups is None
            ):
                unit = _ratio(
                    (p[i] ** 2).sum(summed[i]), (p[i] * m[i]).sum(summed[i])
                )
                kept = np.expand_dims(unit, summed[i])
                rho[i] = np.where(np.isnan(kept), rho[i], kept)
            rho[i] = multiplier * rho[i]
    return history, rho


def _ratio(above, below):
    """NaN where it is not positive: no estimate."""
    above, below = np.asarray(above), np.asarray(below)
    exists = (above > 0) & (below > 0)
    return np.where(exists, above / np.where(exists, below, 1), np.nan)
