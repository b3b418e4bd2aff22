"""Published methods between Adam and SGD, or fading from one to the other."""

from __future__ import annotations

from typing import Any

from keras_hybrid._support import checks
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.presets.forms import (
    CorrectedHybrid,
    UncorrectedHybrid,
)
from keras_hybrid.presets.making import check_first_rate, first_rate, made
from keras_hybrid.presets.schedules import LinearFall
from keras_hybrid.transitions import Blend, Hard
from keras_hybrid.triggers import AtStep


def AdaBound(  # noqa: N802
    learning_rate: Any = 1e-3,
    final_learning_rate: float = 0.1,
    gamma: float = 1e-3,
    epsilon: float = 1e-8,
    amsgrad: bool = False,
    **kwargs: Any,
) -> HybridOptimizer:
    """Adam with step sizes clipped into bounds that close in on SGD's.

    w -= clip(learning_rate P, f (1 - 1 / (gamma k + 1)),
    f (1 + 1 / (gamma k))) m, with f = final_learning_rate * learning_rate /
    (its first value).

    Args:
        learning_rate: Adam's, default 1e-3.
        final_learning_rate: Positive float, default 0.1: what multiplies the
            moving average m in the end. It is that of SGD without momentum;
            keras.optimizers.SGD counts (1 - beta_1) of it.
        gamma: Float in (0, 1], default 1e-3: how fast the bounds close. Its
            inverse is rounded to whole updates, of which int32 counts.
        epsilon: Positive float, default 1e-8.
        amsgrad: Boolean, default False; True is AMSBound.
        **kwargs: Further arguments of `HybridOptimizer`.

    Raises:
        TypeError: If an argument has the wrong type, or `learning_rate` is a
            schedule without `initial_learning_rate`.
        ValueError: If an argument is outside its range.

    Example:
    >>> from keras_hybrid import presets
    >>> presets.AdaBound(gamma=0.01).transition.steps
    100

    References: Luo et al. 2019, arXiv:1902.09843, algorithm 2, with the bounds
    and defaults of the authors' code.
    """
    gamma = checks.number("gamma", gamma, low=1 / checks.MOST, high=1)
    final = checks.number("final_learning_rate", final_learning_rate, above=0)
    return made(
        AdaBound,
        HybridOptimizer,
        kwargs,
        learning_rate=learning_rate,
        epsilon=epsilon,
        amsgrad=amsgrad,
        trigger=AtStep(0),
        transition=Blend(round(1 / gamma), curve="hyperbolic", path="clip"),
        sgd_scale=final / first_rate(learning_rate),
    )


def AMSBound(**kwargs: Any) -> HybridOptimizer:  # noqa: N802
    """`AdaBound` with the largest second moment so far (AMSGrad's).

    Args:
        **kwargs: Arguments of `AdaBound`, without `amsgrad`.

    Example:
    >>> from keras_hybrid import presets
    >>> presets.AMSBound().amsgrad
    True

    References: Luo et al. 2019, arXiv:1902.09843, algorithm 3.
    """
    if "amsgrad" in kwargs:
        raise TypeError(
            "AMSBound takes the arguments of AdaBound, without amsgrad, which "
            f"it sets itself. Received: amsgrad={kwargs['amsgrad']!r}"
        )
    return AdaBound(amsgrad=True, **kwargs)


def DSTAdam(  # noqa: N802
    training_steps: int,
    learning_rate: float = 1e-3,
    upper: float = 5.0,
    lower: float = 0.005,
    epsilon: float = 1e-8,
    **kwargs: Any,
) -> HybridOptimizer:
    """Adam fading exponentially into SGD whose learning rate falls linearly.

    At update k = 1 ... T (T = training_steps): r = (upper - lower) (1 - k / T)
    + lower; eta = r + (learning_rate / (1 - beta_1^k) / (sqrt(v / (1 -
    beta_2^k)) + epsilon) - r) 1e-8^(k / T); w -= eta m.

    Args:
        training_steps: Integer of at least 2: updates of the whole training.
        learning_rate: Adam's, a positive float, default 1e-3.
        upper: Positive float, default 5.0: the first value of r.
        lower: Positive float, default 0.005: the last value of r.
        epsilon: Positive float, default 1e-8.
        **kwargs: Further arguments of `HybridOptimizer`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range.

    Departures: exact while `learning_rate` is constant (the authors' code
    multiplies the whole step with learning_rate / its first value); after
    `training_steps` r stays at `lower`.

    Example:
    >>> from keras_hybrid import presets
    >>> presets.DSTAdam(training_steps=1000).transition.curve
    'exponential'

    References: Zeng et al. 2021, arXiv:2106.06749; defaults from the authors'
    README.
    """
    steps = checks.integer("training_steps", training_steps, low=2)
    upper = checks.number("upper", upper, above=0)
    lower = checks.number("lower", lower, above=0)
    kept = 1 - checks.number(
        "beta_1", kwargs.get("beta_1", 0.9), low=0, below=1
    )
    first = upper + (lower - upper) / steps
    return made(
        DSTAdam,
        CorrectedHybrid,
        kwargs,
        learning_rate=checks.number("learning_rate", learning_rate, above=0),
        momentum=None,
        epsilon=epsilon,
        trigger=AtStep(0),
        transition=Blend(steps, curve="exponential"),
        # In SGD's convention, r at k = 1 to r at k = T.
        sgd_learning_rate=LinearFall(first * kept, lower * kept, steps - 1),
    )


def Padam(  # noqa: N802
    learning_rate: Any = 0.1,
    partial: float = 0.25,
    epsilon: float = 1e-8,
    **kwargs: Any,
) -> HybridOptimizer:
    """Partially adaptive: v to a power between SGD's 0 and Adam's 1/2.

    w -= learning_rate m / (sqrt(v_max) + epsilon)^(2 partial), with AMSGrad's
    v_max and no bias corrections.

    Args:
        learning_rate: Default 0.1; the nearer `partial` is to 0, the more it
            is SGD's (of the moving average m: 1 / (1 - beta_1) of what
            keras.optimizers.SGD counts).
        partial: Float in (0, 0.5], default 0.25; 0.5 is AMSGrad.
        epsilon: Positive float, default 1e-8.
        **kwargs: Further arguments of `HybridOptimizer`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range.

    Example:
    >>> from keras_hybrid import presets
    >>> presets.Padam(partial=0.125).transition.end
    0.75

    References: Chen et al. 2018, arXiv:1806.06763, algorithm 1. The paper's
    code corrects biases; the algorithm as printed does not.
    """
    partial = checks.number("partial", partial, above=0, high=0.5)
    kwargs.setdefault("amsgrad", True)
    return made(
        Padam,
        UncorrectedHybrid,
        kwargs,
        learning_rate=learning_rate,
        epsilon=epsilon,
        trigger=AtStep(0),
        transition=Blend(1, path="geometric", end=1 - 2 * partial),
        sgd_scale=1.0,
    )


def MAS(  # noqa: N802
    learning_rate: Any = 1e-3,
    sgd_learning_rate: float = 0.1,
    sgd_weight: float = 0.5,
    **kwargs: Any,
) -> HybridOptimizer:
    """The fixed mix of the steps of SGD with momentum and Adam.

    w -= sgd_weight (step of SGD) + (1 - sgd_weight) (step of Adam).

    Args:
        learning_rate: Adam's, default 1e-3.
        sgd_learning_rate: Positive float, default 0.1, as
            keras.optimizers.SGD counts it.
        sgd_weight: Float in [0, 1], default 0.5.
        **kwargs: Further arguments of `HybridOptimizer`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range, or `learning_rate`
            begins at 0: SGD's rate follows it from its first value on.

    Departure: both steps share one momentum, `beta_1`.

    Example:
    >>> from keras_hybrid import presets
    >>> presets.MAS().transition
    Hard(end=0.5)

    References: Landro, Gallo & La Grassa 2020, "Mixing ADAM and SGD",
    arXiv:2011.08042 (the formula as the field quotes it).
    """
    check_first_rate(learning_rate)
    return made(
        MAS,
        HybridOptimizer,
        kwargs,
        learning_rate=learning_rate,
        momentum=None,
        trigger=AtStep(0),
        transition=Hard(
            end=checks.number("sgd_weight", sgd_weight, low=0, high=1)
        ),
        sgd_learning_rate=checks.number(
            "sgd_learning_rate", sgd_learning_rate, above=0
        ),
    )
