"""The published methods, each a point in the table of when, how and how fast.

Every preset returns a configured `HybridOptimizer`. Three need another form of
the adaptive step than Keras' Adam has, and are small subclasses here; all else
is the shared mechanism.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_hybrid import rules
from keras_hybrid._support import checks
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.scales import Number
from keras_hybrid.transitions import Blend, Hard
from keras_hybrid.triggers import AtStep, ProjectionConverged

Tensor = Any


@checks.registered
class CorrectedHybrid(HybridOptimizer):
    """HybridOptimizer with epsilon added to the bias-corrected root."""

    _root = staticmethod(rules.corrected_root)


@checks.registered
class UncorrectedHybrid(HybridOptimizer):
    """HybridOptimizer without bias corrections."""

    _root = staticmethod(rules.uncorrected_root)


@checks.registered
class StepMomentumHybrid(UncorrectedHybrid):
    """HybridOptimizer whose momentum accumulates the preconditioned gradient.

    m <- beta m + (1 - beta) mix(P, rho; weight) g;  w <- w - learning_rate m,
    with P = 1 / ((1 - beta) (sqrt(v) + epsilon)): RMSprop with momentum in
    place of Adam. `sgd_scale` must be a number; there is no AMSGrad or
    Nesterov form.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.amsgrad or self.nesterov or not isinstance(self._scale, Number):
            raise ValueError(
                f"{type(self).__name__} needs amsgrad=False, nesterov=False "
                f"and a number as `sgd_scale`. Received: amsgrad="
                f"{self.amsgrad}, nesterov={self.nesterov}, "
                f"sgd_scale={self.sgd_scale!r}"
            )

    @property
    def _formula(self) -> rules.Formula:
        return StepMomentum(
            self.beta_2,
            self.epsilon,
            self.nesterov,
            self.transition,
            self._root,
            rho=self._scale.rho,
            beta_1=self.beta_1,
        )


@dataclasses.dataclass(frozen=True)
class StepMomentum(rules.Formula):
    """The update of `StepMomentumHybrid`.

    Attributes:
        rho: The size of SGD's step, at unit learning rate.
        beta_1: Of the momentum.
    """

    rho: float = 1.0
    beta_1: float = 0.9

    def update(
        self,
        phase: str,
        settings: rules.Settings,
        w: Tensor,
        g: Tensor,
        m: Tensor,
        v: Tensor | None = None,
        v_max: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns what is subtracted from `w`, and the new slots."""
        slots = []
        size: Any = self.rho * settings.scale_cut
        if phase != "sgd":
            new = rules.moving_average(v, ops.square(g), self.beta_2)
            slots.append(ops.where(settings.weight >= 1, v, new))
            adaptive = self._adaptive(new, settings)
            size = self.transition.mix(adaptive, size, settings.weight)
        m = rules.moving_average(
            m * settings.momentum_kept, size * g, settings.beta
        )
        delta = rules.decayed(m * settings.learning_rate, w, settings)
        return delta, [m, *slots]

    def step(
        self, settings: rules.Settings, g: Tensor, m: Tensor, v: Tensor
    ) -> Tensor:
        """Returns the preconditioned gradient."""
        return self._adaptive(v, settings) * g

    def _adaptive(self, v: Tensor, settings: rules.Settings) -> Tensor:
        root = self.root(v, settings, self.epsilon)
        return 1 / (root * (1 - self.beta_1))


class _Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Base of two schedules in the precision of `step`, a float tensor.

    Keras' own compute in float32, whatever the weights' type.
    """

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, kept under their names."""
        names = list(inspect.signature(type(self)).parameters)
        return {name: getattr(self, name) for name in names}


@checks.registered
class LinearFall(_Schedule):
    """From `first` at step 0 to `last` at step `steps`, and on with that."""

    def __init__(self, first: float, last: float, steps: int) -> None:
        self.first = first
        self.last = last
        self.steps = steps

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the value at `step`."""
        s = ops.minimum(step / self.steps, 1)
        return self.first + (self.last - self.first) * s


@checks.registered
class StepDecay(_Schedule):
    """`first`, multiplied with `rate` once more at each of `steps`."""

    def __init__(self, first: float, rate: float, steps: list[int]) -> None:
        self.first = first
        self.rate = rate
        self.steps = steps

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the value at `step`."""
        factors = [ops.where(step >= s, self.rate, 1.0) for s in self.steps]
        return self.first * functools.reduce(ops.multiply, factors)


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
    return _made(
        SWATS,
        HybridOptimizer,
        kwargs,
        learning_rate=learning_rate,
        trigger=ProjectionConverged(
            tolerance, relative=relative, patience=1, min_steps=2
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

    References: Wu et al. 2016, arXiv:1609.08144, section 7 (values from
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
    return _made(
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
    return _made(
        RMSpropWarmup,
        StepMomentumHybrid,
        kwargs,
        learning_rate=learning_rate,
        beta_1=momentum,
        beta_2=beta_2,
        epsilon=epsilon,
        trigger=AtStep(0),
        transition=Blend(steps, curve="akiba"),
        sgd_scale=rate / _initial(learning_rate) / (1 - momentum),
    )


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
            inverse is rounded to whole updates.
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
    gamma = checks.number("gamma", gamma, above=0, high=1)
    final = checks.number("final_learning_rate", final_learning_rate, above=0)
    return _made(
        AdaBound,
        HybridOptimizer,
        kwargs,
        learning_rate=learning_rate,
        epsilon=epsilon,
        amsgrad=amsgrad,
        trigger=AtStep(0),
        transition=Blend(round(1 / gamma), curve="hyperbolic", path="clip"),
        sgd_scale=final / _initial(learning_rate),
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
    return _made(
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
    return _made(
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
        ValueError: If an argument is outside its range.

    Departure: both steps share one momentum, `beta_1`.

    Example:
    >>> from keras_hybrid import presets
    >>> presets.MAS().transition
    Hard(end=0.5)

    References: Landro, Gallo & La Grassa 2020, "Mixing ADAM and SGD",
    arXiv:2011.08042 (the formula as the field quotes it).
    """
    return _made(
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
    return _made(
        Grafted,
        HybridOptimizer,
        kwargs,
        learning_rate=learning_rate,
        trigger=AtStep(checks.integer("switch_step", switch_step, low=1)),
        sgd_scale="norm",
        scale_scope=scale_scope,
    )


PRESETS: dict[str, Callable[..., HybridOptimizer]] = {
    preset.__name__: preset
    for preset in (
        SWATS,
        GNMT,
        Grafted,
        RMSpropWarmup,
        AdaBound,
        AMSBound,
        DSTAdam,
        Padam,
        MAS,
    )
}


def by_name(name: str, /, **arguments: Any) -> HybridOptimizer:
    """Makes a preset from its name.

    Args:
        name: One of `PRESETS`, as it is spelled there.
        **arguments: The preset's own and further ones of `HybridOptimizer`.

    Raises:
        TypeError: If an argument has the wrong type, is missing, or is not
            the preset's.
        ValueError: If the name is unknown or an argument is outside its range.

    Example:
    >>> from keras_hybrid import presets
    >>> presets.by_name("Grafted", switch_step=500).trigger
    AtStep(n=500)
    """
    return PRESETS[checks.choice("name", name, PRESETS)](**arguments)


def _made(
    preset: Callable[..., HybridOptimizer],
    kind: type[HybridOptimizer],
    kwargs: dict[str, Any],
    **settings: Any,
) -> HybridOptimizer:
    """Makes `preset` from what it sets and what it was given beyond that."""
    shared = set(HybridOptimizer().get_config()) - set(settings)
    wrong = {k: v for k, v in kwargs.items() if k not in shared}
    if wrong:
        own = list(inspect.signature(preset).parameters)[:-1]
        fixed = [name for name in settings if name not in own]
        raise TypeError(
            f"{preset.__name__} takes {', '.join(own)} and the arguments of "
            f"HybridOptimizer, without {', '.join(fixed)}, which it sets "
            "itself. Received: "
            + ", ".join(f"{k}={v!r}" for k, v in wrong.items())
        )
    return kind(**settings, **kwargs)


def _initial(learning_rate: Any) -> float:
    """The first value of a float or schedule."""
    if isinstance(
        learning_rate, keras.optimizers.schedules.LearningRateSchedule
    ):
        try:
            learning_rate = learning_rate.initial_learning_rate
        except AttributeError as error:
            raise TypeError(
                "`learning_rate` must be a float or a schedule with "
                "`initial_learning_rate`. Received: "
                f"learning_rate={learning_rate!r}"
            ) from error
    return checks.number("learning_rate", learning_rate, above=0)
