"""Slow NumPy float64 references, written from the papers' formulas.

Nothing here may be derived from `keras_hybrid`. Weights and gradients are 1-D
float64 arrays: a model is one long vector. `grads` is either a list of
gradients, one an update, or a function `grads(w, k)` of the weights and the
update's 0-based index. Trajectories hold the weights after each update.
"""

import math
from typing import NamedTuple

import numpy as np


def tolerance(dtype):
    """The `assert_allclose` arguments for results computed in `dtype`."""
    rtol = {"float64": 1e-12, "float32": 2e-5, "bfloat16": 3e-2}[dtype]
    return {"rtol": rtol, "atol": rtol * 1e-2}


def _gradient(grads, w, k):
    g = grads(w, k) if callable(grads) else grads[k]
    return np.asarray(g, "float64")


def _count(grads, steps):
    return len(grads) if steps is None else steps


# ---- The two ends -----------------------------------------------------------


def adam(
    grads,
    w0,
    lr,
    b1=0.9,
    b2=0.999,
    eps=1e-7,
    amsgrad=False,
    weight_decay=0.0,
    steps=None,
):
    """Adam, Kingma & Ba 2014, section 2's last lines ("epsilon hat").

    With `amsgrad`, Reddi et al. 2018's maximum replaces v, with the same
    bias corrections (as in Keras). `weight_decay` is decoupled (Loshchilov &
    Hutter 2017). `lr` is a float or a function of the 0-based index.
    """
    w = np.array(w0, "float64")
    m, v, v_max = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    trajectory = []
    for index in range(_count(grads, steps)):
        k = index + 1
        rate = lr(index) if callable(lr) else lr
        g = _gradient(grads, w, index)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        v_max = np.maximum(v_max, v)
        alpha = rate * math.sqrt(1 - b2**k) / (1 - b1**k)
        step = alpha * m / (np.sqrt(v_max if amsgrad else v) + eps)
        w = w - step - rate * weight_decay * w
        trajectory.append(w)
    return np.array(trajectory)


def sgd(grads, w0, lr, momentum=0.0, nesterov=False, steps=None):
    """SGD in Keras' convention (Sutskever et al. 2013, equations 3 and 4).

    velocity <- momentum velocity - lr g; w <- w + velocity, or with Nesterov
    w <- w + momentum velocity - lr g. `lr` is a float or a function of the
    0-based index.
    """
    w = np.array(w0, "float64")
    velocity = np.zeros_like(w)
    trajectory = []
    for index in range(_count(grads, steps)):
        rate = lr(index) if callable(lr) else lr
        g = _gradient(grads, w, index)
        velocity = momentum * velocity - rate * g
        w = w + (momentum * velocity - rate * g if nesterov else velocity)
        trajectory.append(w)
    return np.array(trajectory)


# ---- SWATS ------------------------------------------------------------------


class Swats(NamedTuple):
    """`switch_step` is the 0-based index of SGD's first update, or None; the
    traces of gamma and Lambda have one entry an Adam update (NaN for gamma
    where p.g = 0).
    """

    trajectory: np.ndarray
    gamma: np.ndarray
    corrected: np.ndarray
    switch_step: int | None


def swats(
    grads,
    w0,
    lr,
    b1=0.9,
    b2=0.999,
    eps=1e-9,
    tolerance=1e-9,
    steps=None,
    relative=False,
    carry_momentum=False,
):
    """SWATS, Keskar & Socher 2017 (arXiv:1712.07628), algorithm 1.

    Two options that the paper does not have: `relative` makes the tolerance a
    fraction of |Lambda|, `carry_momentum` starts v at m / (1 - b1), so that
    (1 - b1) v goes on as m.
    """
    w = np.array(w0, "float64")
    m, a, v = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    lam, corrected = 0.0, 0.0
    switch_step = None
    trajectory, gammas, correcteds = [], [], []
    for index in range(_count(grads, steps)):
        k = index + 1
        g = _gradient(grads, w, index)
        if switch_step is not None:
            v = b1 * v + g
            w = w - (1 - b1) * corrected * v
            trajectory.append(w)
            continue
        m = b1 * m + (1 - b1) * g
        a = b2 * a + (1 - b2) * g**2
        p = -lr * math.sqrt(1 - b2**k) / (1 - b1**k) * m / (np.sqrt(a) + eps)
        w = w + p
        trajectory.append(w)
        gamma = math.nan
        if p @ g != 0:
            gamma = (p @ p) / -(p @ g)
            lam = b2 * lam + (1 - b2) * gamma
            corrected = lam / (1 - b2**k)
            limit = tolerance * abs(corrected) if relative else tolerance
            if k > 1 and abs(corrected - gamma) < limit:
                switch_step = k
                if carry_momentum:
                    v = m / (1 - b1)
        gammas.append(gamma)
        correcteds.append(corrected)
    return Swats(
        np.array(trajectory),
        np.array(gammas),
        np.array(correcteds),
        switch_step,
    )


def settled(
    gammas, beta_2, tolerance, relative, patience, min_steps, learning_rate=1
):
    """After which updates Lambda has agreed with its own average long enough.

    Both averages are written out: of weights beta_2^i, i updates ago.
    """

    def average(values):
        weights = [beta_2**i for i in reversed(range(len(values)))]
        return sum(w * x for w, x in zip(weights, values, strict=True)) / sum(
            weights
        )

    lambdas, row, fired = [], 0, []
    for k in range(1, len(gammas) + 1):
        lambdas.append(learning_rate * average(gammas[:k]))
        limit = tolerance * abs(lambdas[-1]) if relative else tolerance
        holds = k > 1 and abs(lambdas[-1] - average(lambdas)) < limit
        row = row + 1 if holds else 0
        fired.append(bool(row >= patience and k >= min_steps))
    return fired


def projection_scale(grads, b1=0.9, b2=0.999, eps=1e-7):
    """SWATS' gamma with both parts averaged first: E[p.p] / E[-p.g].

    The trace after each update, p the step at unit learning rate.
    """
    m = np.zeros(len(grads[0]))
    v = np.zeros(len(grads[0]))
    square, descent, trace = 0.0, 0.0, []
    for index, g in enumerate(grads):
        k = index + 1
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        p = -math.sqrt(1 - b2**k) / (1 - b1**k) * m / (np.sqrt(v) + eps)
        square = b2 * square + (1 - b2) * (p @ p)
        descent = b2 * descent + (1 - b2) * -(p @ g)
        trace.append((square / (1 - b2**k)) / (descent / (1 - b2**k)))
    return np.array(trace)


def momentum_scale(grads, b1=0.9, b2=0.999, eps=1e-7):
    """E[p.p] / E[p.m] after each update, p the step at unit learning rate.

    Averages over the weights' own step sizes P: of sum P^2 m^2 over sum P m^2.
    """
    m = np.zeros(len(grads[0]))
    v = np.zeros(len(grads[0]))
    above, below, trace = 0.0, 0.0, []
    for index, g in enumerate(grads):
        k = index + 1
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        sizes = math.sqrt(1 - b2**k) / (1 - b1**k) / (np.sqrt(v) + eps)
        above = b2 * above + (1 - b2) * (sizes**2 * m**2).sum()
        below = b2 * below + (1 - b2) * (sizes * m**2).sum()
        trace.append(above / below)
    return np.array(trace)


def slots_scale(grads, kept, b1=0.9, b2=0.999, eps=1e-7):
    """sum(p.p) / sum(p.m) after the last update, over all axes but `kept`.

    With the moments as they are then, and p = m_hat / (sqrt(v_hat) + eps) in
    Keras' form, whose epsilon is outside the correction.
    """
    m, v = np.zeros_like(grads[0]), np.zeros_like(grads[0])
    for g in grads:
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
    k = len(grads)
    p = math.sqrt(1 - b2**k) / (1 - b1**k) * m / (np.sqrt(v) + eps)
    others = tuple(a for a in range(m.ndim) if a not in kept)
    return np.ravel((p * p).sum(others) / (p * m).sum(others))


# ---- Learning-rate grafting -------------------------------------------------


def norm_scale(grads, b1=0.9, b2=0.999, eps=1e-7):
    """The moving average, bias-corrected, of |P m| / |m| after each update.

    P m is Adam's step at unit learning rate: what SGD's learning rate must be
    for its step m to have Adam's length (Agarwal et al. 2020).
    """
    m = np.zeros(len(grads[0]))
    v = np.zeros(len(grads[0]))
    average, trace = 0.0, []
    for index, g in enumerate(grads):
        k = index + 1
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        step = math.sqrt(1 - b2**k) / (1 - b1**k) * m / (np.sqrt(v) + eps)
        ratio = np.linalg.norm(step) / np.linalg.norm(m)
        average = b2 * average + (1 - b2) * ratio
        trace.append(average / (1 - b2**k))
    return np.array(trace)


def grafted(
    grads,
    w0,
    lr,
    switch_step,
    b1=0.9,
    b2=0.999,
    eps=1e-7,
    groups=None,
    steps=None,
):
    """Adam for `switch_step` updates, then SGD with Adam's step length.

    SGD's step is lr rho m with rho the moving average, bias-corrected, of
    |P m| / |m| over the Adam updates (Agarwal et al. 2020 graft the length in
    every update; here the last estimate stays). `groups` are the slices that
    share one rho; None is one for all.
    """
    w = np.array(w0, "float64")
    m, v = np.zeros_like(w), np.zeros_like(w)
    groups = [slice(None)] if groups is None else groups
    averages = np.zeros(len(groups))
    trajectory = []
    for index in range(_count(grads, steps)):
        k = index + 1
        g = _gradient(grads, w, index)
        m = b1 * m + (1 - b1) * g
        if index >= switch_step:
            w = w.copy()
            for i, group in enumerate(groups):
                rho = averages[i] / (1 - b2**switch_step)
                w[group] = w[group] - lr * rho * m[group]
            trajectory.append(w)
            continue
        v = b2 * v + (1 - b2) * g**2
        p = math.sqrt(1 - b2**k) / (1 - b1**k) * m / (np.sqrt(v) + eps)
        for i, group in enumerate(groups):
            ratio = np.linalg.norm(p[group]) / np.linalg.norm(m[group])
            averages[i] = b2 * averages[i] + (1 - b2) * ratio
        w = w - lr * p
        trajectory.append(w)
    return np.array(trajectory)


# ---- The other published methods --------------------------------------------


def gnmt(
    grads,
    w0,
    lr,
    switch_step,
    sgd_lr,
    decay_steps=(),
    decay_rate=0.5,
    b1=0.9,
    b2=0.999,
    eps=1e-7,
    steps=None,
):
    """GNMT, Wu et al. 2016 (arXiv:1609.08144): Adam, then plain SGD.

    `decay_steps` are numbers of updates after which SGD's learning rate is
    multiplied with `decay_rate` once more.
    """
    w = np.array(w0, "float64")
    m, v = np.zeros_like(w), np.zeros_like(w)
    trajectory = []
    for index in range(_count(grads, steps)):
        k = index + 1
        g = _gradient(grads, w, index)
        if index < switch_step:
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            alpha = lr * math.sqrt(1 - b2**k) / (1 - b1**k)
            w = w - alpha * m / (np.sqrt(v) + eps)
        else:
            decays = sum(1 for step in decay_steps if index >= step)
            w = w - sgd_lr * decay_rate**decays * g
        trajectory.append(w)
    return np.array(trajectory)


def rmsprop_warmup(
    grads,
    w0,
    eta_r,
    eta_s,
    steps_per_epoch,
    b_center=10.0,
    b_period=5.0,
    mu1=0.9,
    mu2=0.99,
    eps=1e-8,
    steps=None,
):
    """RMSprop warm-up, Akiba et al. 2017 (arXiv:1711.04325), section 3.2.

    `eta_r` and `eta_s` are floats, or functions of the 0-based index of which
    the ratio is constant. Update `index` is in epoch
    (index + 1) / steps_per_epoch. The middle branch is the continuous one.
    """
    w = np.array(w0, "float64")
    m, delta = np.zeros_like(w), np.zeros_like(w)
    trajectory = []
    for index in range(_count(grads, steps)):
        rate_r = eta_r(index) if callable(eta_r) else eta_r
        rate_s = eta_s(index) if callable(eta_s) else eta_s
        g = _gradient(grads, w, index)
        epoch = (index + 1) / steps_per_epoch
        if epoch < b_center:
            a_s = math.exp(2 * (epoch - b_center) / b_period) / 2
        elif epoch < b_center + b_period / 2:
            a_s = 1 / 2 + (epoch - b_center) / b_period
        else:
            a_s = 1.0
        a_r = (1 - a_s) * rate_r / rate_s
        m = mu2 * m + (1 - mu2) * g**2
        delta = mu1 * delta - (a_s + a_r / (np.sqrt(m) + eps)) * g
        w = w + rate_s * delta
        trajectory.append(w)
    return np.array(trajectory)


def adabound(
    grads,
    w0,
    lr,
    final_lr=0.1,
    gamma=1e-3,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    amsbound=False,
    steps=None,
):
    """AdaBound and AMSBound, Luo et al. 2019 (arXiv:1902.09843).

    The bounds are those of the authors' code. `lr` is a float or a function
    of the 0-based index; base_lr is its first value.
    """
    w = np.array(w0, "float64")
    m, v, v_max = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    base_lr = lr(0) if callable(lr) else lr
    trajectory = []
    for index in range(_count(grads, steps)):
        k = index + 1
        rate = lr(index) if callable(lr) else lr
        g = _gradient(grads, w, index)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        v_max = np.maximum(v_max, v)
        final = final_lr * rate / base_lr
        low = final * (1 - 1 / (gamma * k + 1))
        high = final * (1 + 1 / (gamma * k))
        size = rate * math.sqrt(1 - b2**k) / (1 - b1**k)
        size = size / (np.sqrt(v_max if amsbound else v) + eps)
        w = w - np.minimum(np.maximum(size, low), high) * m
        trajectory.append(w)
    return np.array(trajectory)


def dstadam(
    grads,
    w0,
    lr,
    training_steps,
    up=5.0,
    low=0.005,
    coeff=1e-8,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    steps=None,
):
    """DSTAdam, Zeng et al. 2021 (arXiv:2106.06749), at constant `lr`.

    After `training_steps` (of which the paper says nothing) SGD goes on with
    the last r.
    """
    w = np.array(w0, "float64")
    m, v = np.zeros_like(w), np.zeros_like(w)
    trajectory = []
    for index in range(_count(grads, steps)):
        k = index + 1
        g = _gradient(grads, w, index)
        m = b1 * m + (1 - b1) * g
        if k > training_steps:
            w = w - low * m
            trajectory.append(w)
            continue
        v = b2 * v + (1 - b2) * g**2
        v_hat = v / (1 - b2**k)
        r = (up - low) * (1 - k / training_steps) + low
        adaptive = lr / (1 - b1**k) / (np.sqrt(v_hat) + eps)
        eta = r + (adaptive - r) * coeff ** (k / training_steps)
        w = w - eta * m
        trajectory.append(w)
    return np.array(trajectory)


def padam(
    grads, w0, lr, p=0.25, b1=0.9, b2=0.999, eps=1e-8, amsgrad=True, steps=None
):
    """Padam, Chen et al. 2018 (arXiv:1806.06763), algorithm 1."""
    w = np.array(w0, "float64")
    m, v, v_hat = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    trajectory = []
    for index in range(_count(grads, steps)):
        rate = lr(index) if callable(lr) else lr
        g = _gradient(grads, w, index)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        v_hat = np.maximum(v_hat, v) if amsgrad else v
        w = w - rate * m / (np.sqrt(v_hat) + eps) ** (2 * p)
        trajectory.append(w)
    return np.array(trajectory)


def mas(
    grads,
    w0,
    lr,
    sgd_lr,
    sgd_weight=0.5,
    momentum=0.9,
    b1=0.9,
    b2=0.999,
    eps=1e-7,
    steps=None,
):
    """MAS, Landro et al. 2020 (arXiv:2011.08042): a fixed mix of two steps.

    The step of SGD with momentum (Keras' convention) and Adam's, each with
    its own buffer.
    """
    w = np.array(w0, "float64")
    velocity, m, v = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    trajectory = []
    for index in range(_count(grads, steps)):
        k = index + 1
        g = _gradient(grads, w, index)
        velocity = momentum * velocity + g
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        alpha = lr * math.sqrt(1 - b2**k) / (1 - b1**k)
        adam_step = alpha * m / (np.sqrt(v) + eps)
        w = w - sgd_weight * sgd_lr * velocity - (1 - sgd_weight) * adam_step
        trajectory.append(w)
    return np.array(trajectory)


# ---- Transitions ------------------------------------------------------------


# Of s = (updates since the switch, this one included) / length, growing past 1.


def linear_curve(s):
    return min(s, 1.0)


def cosine_curve(s):
    """Half a cosine wave from 0 to 1."""
    return (1 - math.cos(math.pi * min(s, 1.0))) / 2


def exponential_curve(s, coefficient=1e-8):
    """DSTAdam: Adam's share is coefficient^(k/T); after k = T it is over."""
    return 1 - coefficient**s if s <= 1 else 1.0


def akiba_curve(s, center=10.0, period=5.0):
    """Akiba et al. 2017, section 3.2, over its epochs 0 to center + period/2.

    The middle branch is the continuous, monotone form.
    """
    epoch = s * (center + period / 2)
    if s >= 1:
        return 1.0
    if epoch < center:
        return math.exp(2 * (epoch - center) / period) / 2
    return 1 / 2 + (epoch - center) / period


def hyperbolic_curve(s):
    """AdaBound's lower bound, 1 - 1 / (gamma k + 1) with gamma k = s."""
    return 1 - 1 / (s + 1)


CURVES = {
    "linear": linear_curve,
    "cosine": cosine_curve,
    "exponential": exponential_curve,
    "akiba": akiba_curve,
    "hyperbolic": hyperbolic_curve,
}


def arithmetic_path(adaptive, sgd_size, weight):
    """The fixed mix of MAS, with any weight."""
    return (1 - weight) * adaptive + weight * sgd_size


def geometric_path(adaptive, sgd_size, weight):
    """Padam's power: the adaptive factor to the power 1 - weight."""
    return math.exp(
        (1 - weight) * math.log(adaptive) + weight * math.log(sgd_size)
    )


def clip_path(adaptive, sgd_size, weight):
    """AdaBound's bounds around SGD's step; none at weight 0."""
    low = weight * sgd_size
    high = sgd_size / weight if weight > 0 else math.inf
    return min(max(adaptive, low), high)


PATHS = {
    "arithmetic": arithmetic_path,
    "geometric": geometric_path,
    "clip": clip_path,
}


def cooldown(curve, position, steps, final=0.0):
    """The factor on the learning rate `position` updates after the switch."""
    s = min(position / steps, 1.0)
    fall = {
        "cosine": (1 + math.cos(math.pi * s)) / 2,
        "linear": 1 - s,
        "1-sqrt": 1 - math.sqrt(s),
    }[curve]
    return final + (1 - final) * fall
