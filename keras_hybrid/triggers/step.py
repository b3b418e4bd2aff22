"""Step triggers: when, from the statistics of each update."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_hybrid import rules
from keras_hybrid._support import checks
from keras_hybrid.triggers.base import (
    Signals,
    StepTrigger,
    Tensor,
)


@checks.registered
class AtStep(StepTrigger):
    """Switches at a fixed update: n updates are adaptive.

    Args:
        n: Integer of at least 0. Update n, counted from 0, is the first that
            SGD makes, and that is `optimizer.switch_step`. With gradient
            accumulation updates are counted, not micro-batches. Where
            `skip_nonfinite` skips the update before it, the switch waits for
            the next that is not skipped.

    Raises:
        TypeError: If `n` is no integer.
        ValueError: If `n` is negative.

    Example:
    >>> from keras_hybrid import triggers
    >>> triggers.AtStep(100) | triggers.ProjectionConverged()
    ... # doctest: +ELLIPSIS
    (AtStep(n=100) | ProjectionConverged(...))

    References: the fixed switch of GNMT (Wu et al. 2016, section 8.3).
    """

    def __init__(self, n: int) -> None:
        self.n = checks.integer("n", n, low=0)

    @property
    def fires_at_start(self) -> bool:  # type: ignore[override]
        """True for n = 0."""
        return self.n == 0

    def update(
        self, state: list[Tensor], signals: Signals
    ) -> tuple[Tensor, list[Tensor]]:
        """Fires when the next update is number n or later."""
        return signals.step + 1 >= self.n, state

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"n": self.n}


# Before, the averages of beta_2 are of the training's beginning.
WINDOWS = 2
# The largest count of the updates that a trigger has seen: it is in float32.
_MOST = 1 << 24


class _Patient(StepTrigger):
    """A condition that must hold for `patience` updates in a row.

    Not before update `min_steps`, None for two windows of beta_2; after
    `max_steps` it fires anyway. Both count the updates that the trigger has
    seen, from 1: not those that `skip_nonfinite` skipped, nor those before a
    `revert()`.
    """

    def __init__(
        self,
        patience: int,
        min_steps: int | None,
        max_steps: int | None,
        lowest: int,
    ) -> None:
        self.patience = checks.integer("patience", patience, low=1)
        self.min_steps = (
            None
            if min_steps is None
            else checks.integer("min_steps", min_steps, low=lowest, high=_MOST)
        )
        self.max_steps = (
            None
            if max_steps is None
            else checks.integer(
                "max_steps", max_steps, low=self.min_steps or lowest, high=_MOST
            )
        )

    def _patiently(
        self, holds: Tensor, count: Tensor, updates: Tensor, beta_2: float
    ) -> tuple[Tensor, Tensor]:
        count = ops.where(holds, count + 1, 0)
        # Rounded: 1 - 0.999 is a little less than a thousandth.
        first = (
            round(WINDOWS / (1 - beta_2))
            if self.min_steps is None
            else self.min_steps
        )
        fired = ops.logical_and(count >= self.patience, updates >= first)
        if self.max_steps is not None:
            fired = ops.logical_or(fired, updates >= self.max_steps)
        return fired, count


@checks.registered
class ProjectionConverged(_Patient):
    """Switches when the learning rate that SGD would need has settled.

    With p the adaptive step at unit learning rate and g the gradient, update k
    (k = 1, 2, ...) has::

        gamma = p.p / -p.g             (where p.g = 0, lambda stays)
        lambda = beta_2 lambda + (1 - beta_2) gamma
        Lambda = lambda / (1 - beta_2^k)
        past = the same average, of Lambda in place of gamma

    and the condition is |Lambda - past| < tolerance * |Lambda| if `relative`,
    else |learning_rate (Lambda - past)| < tolerance.

    Of a steady trend, past is what Lambda was one window of 1 / (1 - beta_2)
    updates ago, so by default it switches when Lambda changes by less than a
    tenth in a window. SWATS compares Lambda with gamma in place of past
    (`against="gamma"`). One gamma is noise, of about its own size, and is near
    Lambda by chance every few updates whether or not Lambda has settled; past
    has that noise averaged out. (In four of ten small cells SWATS' comparison
    from update 100 on switched within the first epoch or so, whatever their
    best; `benchmarks/regret.py`.) It looks at steps alone: where the labels are
    wrong it goes on long after the validation accuracy has begun to fall.

    Args:
        tolerance: Positive float. Relative default 0.1, suggested 0.02 to 0.3.
            The paper's absolute 1e-9 is below float32's spacing near 0.5, so
            there it is a lottery.
        relative: Boolean, default True.
        patience: Integer of at least 1: updates in a row. Default 3; the paper
            has 1.
        min_steps: Integer of at least 2: no switch before so many updates.
            None (default): two windows, 2 / (1 - beta_2), 2,000 with Adam's
            beta_2. Before, Lambda and past are averages of nearly the same few
            gammas and close by construction: at two windows their difference
            shows half of a steady trend, at four 0.8 of it. A training of
            fewer updates is not switched by it.
        max_steps: Integer of at least `min_steps`, or None (default): switch
            after so many updates anyway.
        against: `"past"` (default) or `"gamma"`: what Lambda is compared with.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range.

    Example:
    >>> from keras_hybrid import HybridOptimizer, triggers
    >>> optimizer = HybridOptimizer(
    ...     trigger=triggers.ProjectionConverged(max_steps=50_000)
    ... )

    References: Keskar & Socher 2017 (arXiv:1712.07628), algorithm 1, is
    `presets.SWATS()`: against gamma, its tolerance absolute (with the learning
    rate in gamma), patience 1. Departures: see the defaults. That the
    difference between an exponential average and its own average is the trend:
    Brown 1963 (Smoothing, Forecasting and Prediction of Discrete Time Series),
    double smoothing.
    """

    needs = frozenset({"step_square", "step_descent"})

    def __init__(
        self,
        tolerance: float = 0.1,
        relative: bool = True,
        patience: int = 3,
        min_steps: int | None = None,
        max_steps: int | None = None,
        against: str = "past",
    ) -> None:
        self.tolerance = checks.number("tolerance", tolerance, above=0)
        self.relative = checks.boolean("relative", relative)
        self.against = checks.choice("against", against, ("past", "gamma"))
        super().__init__(patience, min_steps, max_steps, lowest=2)

    def init(self, groups: int) -> list[np.ndarray]:
        """Returns lambda, the updates in a row, all updates: zeros.

        Then, where Lambda is compared with its past, the average of Lambda.
        """
        count = 4 if self.against == "past" else 3
        return [np.zeros(groups) for _ in range(count)]

    def update(
        self, state: list[Tensor], signals: Signals
    ) -> tuple[Tensor, list[Tensor]]:
        """Fires where the condition has held `patience` times."""
        average, count, updates, *slow = state
        updates = updates + 1
        gamma = rules.projection(signals.step_square, signals.step_descent)
        if not self.relative:
            gamma = gamma * signals.learning_rate
        exists = signals.step_descent != 0
        average = ops.where(
            exists,
            rules.moving_average(average, gamma, signals.beta_2),
            average,
        )
        beta_2 = rules.constant(signals.beta_2, updates.dtype)
        correction = 1 - ops.power(beta_2, updates)
        corrected = average / correction
        other = gamma
        if slow:
            slow = [rules.moving_average(slow[0], corrected, signals.beta_2)]
            other = slow[0] / correction
        limit = self.tolerance
        if self.relative:
            limit = limit * ops.abs(corrected)
        holds = ops.logical_and(exists, ops.abs(corrected - other) < limit)
        # k = 1: equal by definition.
        holds = ops.logical_and(holds, updates > 1)
        fired, count = self._patiently(holds, count, updates, signals.beta_2)
        return fired, [average, count, updates, *slow]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "tolerance": self.tolerance,
            "relative": self.relative,
            "patience": self.patience,
            "min_steps": self.min_steps,
            "max_steps": self.max_steps,
            "against": self.against,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ProjectionConverged:
        """Makes the trigger that `get_config` described.

        Before `against`, Lambda was compared with gamma: what was saved then
        goes on as it was.
        """
        return cls(**{"against": "gamma", **config})


@checks.registered
class GradientSignalToNoise(_Patient):
    """Switches when the mini-batch gradient has become mostly noise.

    With r = sum(m_hat^2) / sum(v_hat), both bias-corrected, a gradient of
    constant mean mu and variance sigma^2 has E[m_hat^2] = mu^2 + c sigma^2
    with c = (1 - beta_1) / (1 + beta_1) and E[v_hat] = mu^2 + sigma^2, so::

        signal-to-noise = mu^2 / sigma^2 = (r - c) / (1 - r)

    and the condition is signal-to-noise < threshold. With beta_1 = 0 the first
    moment is the gradient, which says nothing: it fires by chance, or at
    `max_steps`.

    The default threshold is for large batches. Of 16 to 128 images or lines of
    words the gradient was below it by update 100 in five of ten small cells,
    and by update 264 in all: there `min_steps` decides nearly alone
    (`benchmarks/regret.py`).

    Args:
        threshold: Positive float, default 0.01: the ratio of the squared mean
            gradient to its variance. Larger batches have larger ratios.
        patience: Integer of at least 1, default 10: updates in a row.
        min_steps: Integer of at least 1: no switch before so many updates.
            None (default): two windows, 2 / (1 - beta_2), 2,000 with Adam's
            beta_2. Before, v_hat still remembers the large gradients of the
            beginning, and takes their decrease for noise. A training of fewer
            updates is not switched by it.
        max_steps: Integer of at least `min_steps`, or None (default): switch
            after so many updates anyway.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range.

    Example:
    >>> from keras_hybrid import HybridOptimizer, triggers
    >>> optimizer = HybridOptimizer(
    ...     trigger=triggers.GradientSignalToNoise(threshold=0.05)
    ... )

    References: the moments are Adam's (Kingma & Ba 2014, section 2.1, where
    m_hat / sqrt(v_hat) is called the signal-to-noise ratio); c is the variance
    of an exponential moving average of white noise.
    """

    needs = frozenset({"moment_square", "second_moment"})

    def __init__(
        self,
        threshold: float = 0.01,
        patience: int = 10,
        min_steps: int | None = None,
        max_steps: int | None = None,
    ) -> None:
        self.threshold = checks.number("threshold", threshold, above=0)
        super().__init__(patience, min_steps, max_steps, lowest=1)

    def init(self, groups: int) -> list[np.ndarray]:
        """Returns the updates in a row and all updates: zeros."""
        return [np.zeros(groups), np.zeros(groups)]

    def update(
        self, state: list[Tensor], signals: Signals
    ) -> tuple[Tensor, list[Tensor]]:
        """Fires where the ratio has been low `patience` times in a row."""
        noise_floor = (1 - signals.beta_1) / (1 + signals.beta_1)
        signal = signals.moment_square / signals.correction_1**2
        total = signals.second_moment / signals.correction_2
        # (r - c) / (1 - r) < threshold, without dividing by r's zeros.
        holds = signal - noise_floor * total < self.threshold * (total - signal)
        count, updates = state
        updates = updates + 1
        fired, count = self._patiently(holds, count, updates, signals.beta_2)
        return fired, [count, updates]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "threshold": self.threshold,
            "patience": self.patience,
            "min_steps": self.min_steps,
            "max_steps": self.max_steps,
        }
