"""Published methods that switch: at a step, or when an estimate settles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from keras_hybrid._support import checks
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.presets.forms import (
    StepMomentumHybrid,
)
from keras_hybrid.presets.making import first_rate, made
from keras_hybrid.presets.schedules import StepDecay
from keras_hybrid.transitions import Blend
from keras_hybrid.triggers import AtStep, ProjectionConverged


def SWATS(  # noqa: N802
    learning_rate: Any = 1e-3,
    tolerance: float = 1e-9,
    relative: bool = False,
    carry_momentum: bool = False,
    scope: str = "model",
    **kwargs: Any,
) -> HybridOptimizer:
    """Adam to SGD when the projected learning rate has settled.

    With p the step of Adam, update k has gamma = p.p / -p.g (where p.g = 0,
    lambda stays), lambda = beta_2 lambda + (1 - beta_2) gamma, Lambda =
    lambda / (1 - beta_2^k), and switches if k > 1 and |Lambda - gamma| <
    tolerance. Then v = beta_1 v + g; w -= (1 - beta_1) Lambda v.

    Args:
        learning_rate: Adam's, default 1e-3.
        tolerance: Positive float, default 1e-9 as in the paper: in units of
            Lambda, the learning rate in it. In float32 that is below the
            spacing of numbers near 0.5; in practice it is met by chance.
        relative: Boolean, default False; True makes the tolerance a fraction
            of |Lambda|.
        carry_momentum: Boolean, default False: v starts from zero, as in the
            paper; True goes on with Adam's first moment.
        scope: `"model"` (default, the paper's), `"layer"` or `"variable"`: who
            switches together and shares one Lambda.
        **kwargs: Further arguments of `HybridOptimizer`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range.

    Departure: a group whose Lambda is not positive waits; the paper's
    algorithm would go uphill.

    Example:
    >>> from keras_hybrid import presets
    >>> presets.SWATS(scope="layer").scale_scope
    'layer'

    References: Keskar & Socher 2017, arXiv:1712.07628, algorithm 1. Per layer:
    a variant of later implementations, not of the paper.
    """
    return made(
        SWATS,
        HybridOptimizer,
        kwargs,
        learning_rate=learning_rate,
        trigger=ProjectionConverged(
            tolerance,
            relative=relative,
            patience=1,
            min_steps=2,
            against="gamma",
        ),
        sgd_scale="swats",
        carry_momentum=carry_momentum,
        scope=scope,
        scale_scope=scope,
    )


def GNMT(  # noqa: N802
    learning_rate: float = 2e-4,
    switch_step: int = 60_000,
    sgd_learning_rate: float = 0.5,
    decay_steps: Sequence[int] = (),
    decay_rate: float = 0.5,
    **kwargs: Any,
) -> HybridOptimizer:
    """Adam for a fixed number of updates, then plain SGD with step decay.

    SGD's learning rate is sgd_learning_rate * decay_rate^i, where i counts the
    entries of `decay_steps` that are at or below the number of updates made.
    Without momentum a rate that changes is the same in every convention.

    Args:
        learning_rate: Adam's, default 2e-4 (the paper's).
        switch_step: Integer of at least 0, default 60,000.
        sgd_learning_rate: Positive float, default 0.5.
        decay_steps: Updates counted from the start of the training, ascending
            and above `switch_step`; default none. The paper anneals from
            1,200,000 on, halving every 200,000.
        decay_rate: Float in (0, 1], default 0.5.
        **kwargs: Further arguments of `HybridOptimizer`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range.

    Example:
    >>> from keras_hybrid import presets
    >>> presets.GNMT(decay_steps=[1_200_000, 1_400_000]).momentum
    0.0

    References: Wu et al. 2016, arXiv:1609.08144, section 8.3 (values from
    memory, not checked against the paper's text).
    """
    switch_step = checks.integer("switch_step", switch_step, low=0)
    rate = checks.number("sgd_learning_rate", sgd_learning_rate, above=0)
    factor = checks.number("decay_rate", decay_rate, above=0, high=1)
    if not isinstance(decay_steps, Iterable):
        raise TypeError(
            "`decay_steps` must be a sequence of integers. Received: "
            f"decay_steps={decay_steps!r}"
        )
    steps = [checks.integer("decay_steps", s, low=1) for s in decay_steps]
    if steps != sorted(set(steps)) or (steps and steps[0] <= switch_step):
        raise ValueError(
            "`decay_steps` must be ascending and above `switch_step`. "
            f"Received: decay_steps={decay_steps!r}, switch_step={switch_step}"
        )
    schedule: Any = rate
    if steps:
        schedule = StepDecay(rate, factor, [s - switch_step for s in steps])
    return made(
        GNMT,
        HybridOptimizer,
        kwargs,
        learning_rate=learning_rate,
        trigger=AtStep(switch_step),
        momentum=0.0,
        sgd_learning_rate=schedule,
    )


def RMSpropWarmup(  # noqa: N802
    warmup_steps: int,
    learning_rate: Any = 3e-4,
    sgd_learning_rate: float = 0.1,
    momentum: float = 0.9,
    beta_2: float = 0.99,
    epsilon: float = 1e-8,
    **kwargs: Any,
) -> HybridOptimizer:
    """From RMSprop to SGD with momentum, slowly and then fast.

    v = beta_2 v + (1 - beta_2) g^2; D = momentum D - (a + (1 - a) r /
    (sqrt(v) + epsilon)) g; w += sgd_learning_rate D, with r = learning_rate /
    sgd_learning_rate and a the weight of SGD: exp(2 (e - c) / p) / 2 up to
    epoch c, 1/2 + (e - c) / p up to epoch c + p / 2, then 1 (c = 10, p = 5).

    Args:
        warmup_steps: Integer of at least 1: the updates until only SGD is
            left, 12.5 epochs in the paper (c + p / 2).
        learning_rate: RMSprop's, default 3e-4.
        sgd_learning_rate: Positive float: SGD's while `learning_rate` keeps
            its first value; a schedule or callback moves both. Default 0.1.
        momentum: Float in [0, 1), default 0.9.
        beta_2: Float in [0, 1), default 0.99.
        epsilon: Positive float, default 1e-8.
        **kwargs: Further arguments of `HybridOptimizer`.

    Raises:
        TypeError: If an argument has the wrong type, or `learning_rate` is a
            schedule without `initial_learning_rate`.
        ValueError: If an argument is outside its range.

    Departure: the middle branch is printed as 1/2 + 2 (e - c) / p in copies of
    the paper, which reaches 1.5; this is the continuous, monotone form.

    Example:
    >>> from keras_hybrid import presets
    >>> presets.RMSpropWarmup(warmup_steps=1250).transition.curve
    'akiba'

    References: Akiba, Suzuki & Fukuda 2017, arXiv:1711.04325, section 3.2.
    """
    steps = checks.integer("warmup_steps", warmup_steps, low=1)
    rate = checks.number("sgd_learning_rate", sgd_learning_rate, above=0)
    momentum = checks.number("momentum", momentum, low=0, below=1)
    return made(
        RMSpropWarmup,
        StepMomentumHybrid,
        kwargs,
        learning_rate=learning_rate,
        beta_1=momentum,
        beta_2=beta_2,
        epsilon=epsilon,
        trigger=AtStep(0),
        transition=Blend(steps, curve="akiba"),
        sgd_scale=rate / first_rate(learning_rate) / (1 - momentum),
    )


def Grafted(  # noqa: N802
    switch_step: int,
    learning_rate: Any = 1e-3,
    scale_scope: str = "variable",
    **kwargs: Any,
) -> HybridOptimizer:
    """Adam, then SGD whose step has the length that Adam's had.

    rho = E[|P m| / |m|] until the switch, fixed after it; then w -=
    learning_rate * rho * m.

    Args:
        switch_step: Integer of at least 1: so many updates are Adam's.
        learning_rate: Of both phases, default 1e-3.
        scale_scope: `"variable"` (default), `"layer"` or `"model"`: what
            shares one length.
        **kwargs: Further arguments of `HybridOptimizer`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range.

    Departure: learning-rate grafting computes Adam's length in every step for
    ever; here it is estimated before the switch, so that SGD costs SGD.

    Example:
    >>> from keras_hybrid import presets
    >>> presets.Grafted(switch_step=500).sgd_scale
    'norm'

    References: Agarwal et al. 2020, arXiv:2002.11803.
    """
    return made(
        Grafted,
        HybridOptimizer,
        kwargs,
        learning_rate=learning_rate,
        trigger=AtStep(checks.integer("switch_step", switch_step, low=1)),
        sgd_scale="norm",
        scale_scope=scale_scope,
    )
