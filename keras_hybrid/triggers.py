"""When: step triggers run inside the compiled update, epoch triggers on logs.

Step triggers are pure: `init` gives their state for a number of groups,
`update` takes that state and the statistics of the update just made and says
which groups switch before the next one. The optimizer keeps the state.

Epoch triggers take plain numbers: `update(value)` once an epoch says whether
the condition holds. `SwitchCallback` feeds them from the logs and keeps their
state in the optimizer, so that whatever restores the optimizer restores them.

Triggers of one family compose: `a | b` holds where either does, `a & b` where
both do in the same update or epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_hybrid import checks, rules

Tensor = Any


class Signals(NamedTuple):
    """What a step trigger sees of the update just made.

    Attributes:
        step: Integer tensor, the index of that update, counted from 0.
        learning_rate: Scalar tensor, the learning rate without cool-down.
        correction_1: 1 - beta_1^k.
        correction_2: 1 - beta_2^k, one entry a group.
        beta_1: Float.
        beta_2: Float.
        step_square: p.p of the adaptive step p at unit learning rate, summed
            over the weights of each group; None unless needed. So all below.
        step_descent: -p.g.
        moment_square: m.m, the first moment (uncorrected).
        second_moment: The sum of v (uncorrected).
    """

    step: Tensor
    learning_rate: Tensor
    correction_1: Tensor
    correction_2: Tensor
    beta_1: float
    beta_2: float
    step_square: Tensor = None
    step_descent: Tensor = None
    moment_square: Tensor = None
    second_moment: Tensor = None


# What `StepTrigger.needs` may name.
SUMS = frozenset(Signals._field_defaults)


class Trigger:
    """What both families share: composition, config and text."""

    def _composed(self, other: Any, operator: str) -> Any:
        family = StepTrigger if isinstance(self, StepTrigger) else EpochTrigger
        if not isinstance(other, family):
            raise TypeError(
                f"`{operator}` composes triggers of one family: a step trigger "
                "runs inside the compiled update, an epoch trigger on the "
                f"logs. Received: {self!r} {operator} {other!r}"
            )
        either, both = (
            (AnyStep, AllSteps)
            if family is StepTrigger
            else (AnyEpoch, AllEpochs)
        )
        return (either if operator == "|" else both)([self, other])

    def __or__(self, other: Any) -> Any:
        return self._composed(other, "|")

    def __and__(self, other: Any) -> Any:
        return self._composed(other, "&")

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Makes the trigger that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        return checks.call_text(self)


class _Composite:
    """The members of an `|` or `&`, for both families."""

    operator: str

    def __init__(self, triggers: list[Any]) -> None:
        family = StepTrigger if isinstance(self, StepTrigger) else EpochTrigger
        listed = isinstance(triggers, (list, tuple))
        if not listed or not all(isinstance(t, family) for t in triggers):
            raise TypeError(
                f"`triggers` must be a list of {family.__name__}s. Received: "
                f"triggers={triggers!r}"
            )
        self.triggers = list(triggers)
        leaves = [id(leaf) for leaf in self._leaves()]
        if not leaves or len(set(leaves)) < len(leaves):
            raise ValueError(
                "`triggers` must hold at least one trigger, each only once (it "
                f"keeps a state). Received: triggers={triggers!r}"
            )

    def _leaves(self) -> list[Any]:
        return [
            leaf
            for t in self.triggers
            for leaf in (t._leaves() if isinstance(t, _Composite) else [t])
        ]

    def get_config(self) -> dict[str, Any]:
        """Returns the members, serialized."""
        return {
            "triggers": [
                keras.saving.serialize_keras_object(t) for t in self.triggers
            ]
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Makes the composite that `get_config` described."""
        return cls(
            [
                keras.saving.deserialize_keras_object(t)
                for t in config["triggers"]
            ]
        )

    def __repr__(self) -> str:
        members = f" {self.operator} ".join(repr(t) for t in self.triggers)
        return f"({members})"


# ---- Step triggers ----------------------------------------------------------


class StepTrigger(Trigger):
    """Base of the triggers that are given to `HybridOptimizer(trigger=...)`.

    Attributes:
        needs: Names of the `Signals` that `update` reads.
        fires_at_start: Whether SGD makes the very first update.
    """

    needs: frozenset[str] = frozenset()
    fires_at_start: bool = False

    def init(self, groups: int) -> list[np.ndarray]:
        """Returns the state before the first update, one entry a group."""
        return []

    def update(
        self, state: list[Tensor], signals: Signals
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns whether the groups switch before the next update.

        And the new state. The first is a bool tensor of shape () or (groups,).
        """
        raise NotImplementedError


@checks.registered
class AtStep(StepTrigger):
    """Switches at a fixed update: n updates are adaptive.

    Args:
        n: Integer of at least 0. Update n, counted from 0, is the first that
            SGD makes, and that is `optimizer.switch_step`. With gradient
            accumulation updates are counted, not micro-batches.

    Raises:
        TypeError: If `n` is no integer.
        ValueError: If `n` is negative.

    Example:
    >>> from keras_hybrid import triggers
    >>> triggers.AtStep(100) | triggers.ProjectionConverged()
    ... # doctest: +ELLIPSIS
    (AtStep(n=100) | ProjectionConverged(...))

    References: the fixed switch of GNMT (Wu et al. 2016, section 7).
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


class _Patient(StepTrigger):
    """A condition that must hold for `patience` updates in a row.

    Not before `min_steps` updates; after `max_steps` it fires anyway. Both
    count the updates that the trigger has seen, from 1: not those that
    `skip_nonfinite` skipped, nor those before a `revert()`.
    """

    def __init__(
        self, patience: int, min_steps: int, max_steps: int | None, lowest: int
    ) -> None:
        self.patience = checks.integer("patience", patience, low=1)
        self.min_steps = checks.integer("min_steps", min_steps, low=lowest)
        self.max_steps = (
            None
            if max_steps is None
            else checks.integer("max_steps", max_steps, low=self.min_steps)
        )

    def _patiently(
        self, holds: Tensor, count: Tensor, updates: Tensor
    ) -> tuple[Tensor, Tensor]:
        count = ops.where(holds, count + 1, 0)
        fired = ops.logical_and(
            count >= self.patience, updates >= self.min_steps
        )
        if self.max_steps is not None:
            fired = ops.logical_or(fired, updates >= self.max_steps)
        return fired, count

    def _patience_config(self) -> dict[str, Any]:
        return {
            "patience": self.patience,
            "min_steps": self.min_steps,
            "max_steps": self.max_steps,
        }


@checks.registered
class ProjectionConverged(_Patient):
    """Switches when the learning rate that SGD would need has settled (SWATS).

    With p the adaptive step at unit learning rate and g the gradient, update k
    (k = 1, 2, ...) has::

        gamma = p.p / -p.g             (where p.g = 0, lambda stays)
        lambda = beta_2 lambda + (1 - beta_2) gamma
        Lambda = lambda / (1 - beta_2^k)

    and the condition is |Lambda - gamma| < tolerance * |Lambda| if `relative`,
    else |learning_rate (Lambda - gamma)| < tolerance: the paper's, whose gamma
    has the learning rate in it.

    Args:
        tolerance: Positive float. Relative default 0.1, suggested 0.02 to 0.3.
            The paper's absolute 1e-9 is below float32's spacing near 0.5, so
            there it is a lottery.
        relative: Boolean, default True.
        patience: Integer of at least 1: updates in a row. Default 3; the paper
            has 1.
        min_steps: Integer of at least 2: no switch before so many updates.
            Default 100. (After one update Lambda and gamma are equal by
            definition.) gamma is noisy, and Lambda averages 1 / (1 - beta_2)
            updates: an agreement before then is chance. Give the earliest
            update at which you would want the switch.
        max_steps: Integer of at least `min_steps`, or None (default): switch
            after so many updates anyway.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range.

    Example:
    >>> from keras_hybrid import HybridOptimizer, triggers
    >>> optimizer = HybridOptimizer(
    ...     trigger=triggers.ProjectionConverged(min_steps=500)
    ... )

    References: Keskar & Socher 2017 (arXiv:1712.07628), algorithm 1, where the
    tolerance is absolute and patience 1. Departure: relative by default.
    """

    needs = frozenset({"step_square", "step_descent"})

    def __init__(
        self,
        tolerance: float = 0.1,
        relative: bool = True,
        patience: int = 3,
        min_steps: int = 100,
        max_steps: int | None = None,
    ) -> None:
        self.tolerance = checks.number("tolerance", tolerance, above=0)
        self.relative = checks.boolean("relative", relative)
        super().__init__(patience, min_steps, max_steps, lowest=2)

    def init(self, groups: int) -> list[np.ndarray]:
        """Returns lambda, the updates in a row and all updates: zeros."""
        return [np.zeros(groups) for _ in range(3)]

    def update(
        self, state: list[Tensor], signals: Signals
    ) -> tuple[Tensor, list[Tensor]]:
        """Fires where Lambda and gamma have agreed `patience` times."""
        average, count, updates = state
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
        beta_2 = ops.cast(signals.beta_2, updates.dtype)
        corrected = average / (1 - ops.power(beta_2, updates))
        limit = self.tolerance
        if self.relative:
            limit = limit * ops.abs(corrected)
        holds = ops.logical_and(exists, ops.abs(corrected - gamma) < limit)
        # k = 1: equal by definition.
        holds = ops.logical_and(holds, updates > 1)
        fired, count = self._patiently(holds, count, updates)
        return fired, [average, count, updates]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "tolerance": self.tolerance,
            "relative": self.relative,
            **self._patience_config(),
        }


@checks.registered
class GradientSignalToNoise(_Patient):
    """Switches when the mini-batch gradient has become mostly noise.

    With r = sum(m_hat^2) / sum(v_hat), both bias-corrected, a gradient of
    constant mean mu and variance sigma^2 has E[m_hat^2] = mu^2 + c sigma^2
    with c = (1 - beta_1) / (1 + beta_1) and E[v_hat] = mu^2 + sigma^2, so::

        signal-to-noise = mu^2 / sigma^2 = (r - c) / (1 - r)

    and the condition is signal-to-noise < threshold. With beta_1 = 0 the first
    moment is the gradient, which says nothing: it fires at `min_steps`.

    Args:
        threshold: Positive float, default 0.01: the ratio of the squared mean
            gradient to its variance. Larger batches have larger ratios.
        patience: Integer of at least 1, default 10: updates in a row.
        min_steps: Integer of at least 1, default 100.
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
        min_steps: int = 100,
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
        fired, count = self._patiently(holds, count, updates)
        return fired, [count, updates]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"threshold": self.threshold, **self._patience_config()}


class _StepComposite(_Composite, StepTrigger):
    """Feeds every member and combines what they say."""

    combine: Callable[[Tensor, Tensor], Tensor]

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """What any member needs."""
        return frozenset().union(*(t.needs for t in self.triggers))

    def init(self, groups: int) -> list[np.ndarray]:
        """Returns the members' states in a row."""
        return [s for t in self.triggers for s in t.init(groups)]

    def update(
        self, state: list[Tensor], signals: Signals
    ) -> tuple[Tensor, list[Tensor]]:
        """Updates every member, whatever the others say."""
        fired, new_state = None, []
        for trigger in self.triggers:
            length = len(trigger.init(1))
            part, state = state[:length], state[length:]
            fires, part = trigger.update(part, signals)
            new_state += part
            fired = fires if fired is None else self.combine(fired, fires)
        return fired, new_state


@checks.registered
class AnyStep(_StepComposite):
    """What `a | b` makes of step triggers."""

    operator = "|"
    combine = staticmethod(ops.logical_or)

    @property
    def fires_at_start(self) -> bool:  # type: ignore[override]
        """Whether any member does."""
        return any(t.fires_at_start for t in self.triggers)


@checks.registered
class AllSteps(_StepComposite):
    """What `a & b` makes of step triggers."""

    operator = "&"
    combine = staticmethod(ops.logical_and)

    @property
    def fires_at_start(self) -> bool:  # type: ignore[override]
        """Whether all members do."""
        return all(t.fires_at_start for t in self.triggers)


# ---- Epoch triggers ---------------------------------------------------------


class EpochTrigger(Trigger):
    """Base of the triggers that are given to `SwitchCallback`.

    Attributes:
        state_names: Names of the attributes that `update` changes, floats.
    """

    state_names: tuple[str, ...] = ()

    def read(self, epoch: int, logs: Mapping[str, float]) -> float:
        """Returns the value for `update` at the end of epoch `epoch`."""
        raise NotImplementedError

    def update(self, value: float) -> bool:
        """Takes the value of one epoch, says whether the condition holds."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forgets all epochs."""

    def monitors(self) -> list[str]:
        """Returns the names of the metrics that it reads."""
        name = getattr(self, "monitor", None)
        return [] if name is None else [name]

    def check(self, epoch: int, logs: Mapping[str, float]) -> bool:
        """Reads the logs of epoch `epoch` (counted from 0) and updates.

        Raises:
            ValueError: If a monitored metric is not in the logs.
        """
        return self.update(self.read(epoch, logs))

    def get_state(self) -> list[float]:
        """Returns what `update` has changed, as floats."""
        return [float(getattr(self, name)) for name in self.state_names]

    def set_state(self, state: list[float]) -> None:
        """Takes back what `get_state` returned."""
        for name, value in zip(self.state_names, state, strict=True):
            setattr(self, name, value)


def _logged(logs: Mapping[str, float], name: str) -> float:
    if name not in logs:
        raise ValueError(
            f"The monitored metric is not in the logs. Available: "
            f"{', '.join(sorted(logs)) or 'nothing'}. (Metrics that start "
            "with val_ need validation data in every epoch that is watched.) "
            f"Received: monitor={name!r}"
        )
    return float(logs[name])


# Endings by which a metric's better direction is known, as in Keras.
_HIGHER_IS_BETTER = ("acc", "accuracy", "auc", "precision", "recall", "f1")
_LOWER_IS_BETTER = ("loss", "error", "mae", "mse", "entropy", "divergence")


def _better_sign(monitor: str, mode: str) -> int:
    """Returns 1 where higher values of `monitor` are better, else -1."""
    checks.choice("mode", mode, ("auto", "min", "max"))
    if mode == "max" or mode == "min":
        return 1 if mode == "max" else -1
    if monitor.endswith(_HIGHER_IS_BETTER):
        return 1
    if monitor.endswith(_LOWER_IS_BETTER):
        return -1
    raise ValueError(
        "`mode` must be 'min' or 'max' for a metric whose better direction "
        f"its name does not tell. Received: mode={mode!r}, monitor={monitor!r}"
    )


@checks.registered
class AtEpoch(EpochTrigger):
    """Switches at a fixed epoch: n epochs are adaptive.

    Args:
        n: Integer of at least 1. The first update of epoch n, counted from 0,
            is the first that SGD makes. (To start with SGD, use `AtStep(0)`.)

    Raises:
        TypeError: If `n` is no integer.
        ValueError: If `n` is below 1.

    Example:
    >>> from keras_hybrid import triggers
    >>> trigger = triggers.AtEpoch(2)
    >>> [trigger.update(finished) for finished in (1, 2, 3)]
    [False, True, True]
    """

    def __init__(self, n: int) -> None:
        self.n = checks.integer("n", n, low=1)

    def read(self, epoch: int, logs: Mapping[str, float]) -> float:
        """Returns the number of finished epochs."""
        return epoch + 1

    def update(self, value: float) -> bool:
        """Holds once n epochs are finished."""
        return value >= self.n

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"n": self.n}


@checks.registered
class Plateau(EpochTrigger):
    """Switches when a metric has stopped improving.

    An epoch improves if its value is better than the best so far by more than
    `min_delta`. The condition holds from `patience` epochs without improvement
    on, until the next one. NaN never improves.

    Args:
        monitor: Name in the logs, default `"val_loss"`.
        patience: Integer of at least 1, default 3, in epochs.
        min_delta: Float of at least 0, default 0, in the metric's units.
        mode: `"auto"` (default: by the metric's name), `"min"` or `"max"`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range or choices.

    Example:
    >>> from keras_hybrid import triggers
    >>> trigger = triggers.Plateau(patience=2)
    >>> [trigger.update(v) for v in (1.0, 0.8, 0.9, 0.85)]
    [False, False, False, True]
    """

    state_names = ("best", "waited")

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 3,
        min_delta: float = 0.0,
        mode: str = "auto",
    ) -> None:
        self.monitor = checks.text("monitor", monitor)
        self.patience = checks.integer("patience", patience, low=1)
        self.min_delta = checks.number("min_delta", min_delta, low=0)
        self.mode = mode
        self._sign = _better_sign(monitor, mode)
        self.reset()

    def reset(self) -> None:
        """Forgets the best value."""
        self.best = -self._sign * math.inf
        self.waited = 0.0

    def read(self, epoch: int, logs: Mapping[str, float]) -> float:
        """Returns the monitored metric."""
        return _logged(logs, self.monitor)

    def update(self, value: float) -> bool:
        """Holds after `patience` epochs without improvement."""
        # As it is stored: 0.1 must not improve on float32's 0.1.
        value = float(np.float32(value))
        if self._sign * (value - self.best) > self.min_delta:
            self.best = value
            self.waited = 0.0
        else:
            self.waited += 1
        return self.waited >= self.patience

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "monitor": self.monitor,
            "patience": self.patience,
            "min_delta": self.min_delta,
            "mode": self.mode,
        }


@checks.registered
class Slope(EpochTrigger):
    """Switches when a metric's trend is no longer an improvement.

    A line is fitted by least squares through the values of the last half of
    the epochs (of at least `least`, at most 24 of them). The condition holds
    where its slope is not better than 0 by `errors` standard errors: a window
    that grows sees a slow improvement through more and more noise.

    Args:
        monitor: Name in the logs, default `"val_loss"`.
        least: Integer of at least 3, default 5, in epochs: the shortest window.
        errors: Float of at least 0, default 2.
        mode: `"auto"` (default: by the metric's name), `"min"` or `"max"`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range or choices.

    Example:
    >>> from keras_hybrid import triggers
    >>> trigger = triggers.Slope(least=3)
    >>> [trigger.update(v) for v in (0.9, 0.5, 0.3, 0.31, 0.3, 0.31)]
    [False, False, False, True, True, True]
    """

    MOST = 24

    def __init__(
        self,
        monitor: str = "val_loss",
        least: int = 5,
        errors: float = 2.0,
        mode: str = "auto",
    ) -> None:
        self.monitor = checks.text("monitor", monitor)
        self.least = checks.integer("least", least, low=3)
        if self.least > self.MOST:
            raise ValueError(
                f"`least` must be at most {self.MOST}. Received: least={least}"
            )
        self.errors = checks.number("errors", errors, low=0)
        self.mode = mode
        self._sign = _better_sign(monitor, mode)
        self.reset()

    def reset(self) -> None:
        """Forgets all values."""
        self.epochs = 0
        self.values: list[float] = []

    def read(self, epoch: int, logs: Mapping[str, float]) -> float:
        """Returns the monitored metric."""
        return _logged(logs, self.monitor)

    def update(self, value: float) -> bool:
        """Holds where the line through the window does not improve."""
        self.epochs += 1
        self.values = [*self.values, float(np.float32(value))][-self.MOST :]
        window = max(self.least, (self.epochs + 1) // 2)
        values = self._sign * np.array(self.values[-window:])
        if len(values) < self.least or not np.isfinite(values).all():
            return False
        x = np.arange(len(values)) - (len(values) - 1) / 2
        spread = (x**2).sum()
        slope = (x * values).sum() / spread
        rest = values - values.mean() - slope * x
        error = math.sqrt((rest**2).sum() / (len(values) - 2) / spread)
        return bool(slope <= self.errors * error)

    def get_state(self) -> list[float]:
        """Returns the number of epochs and the values kept."""
        room = [math.nan] * (self.MOST - len(self.values))
        return [float(self.epochs), *self.values, *room]

    def set_state(self, state: list[float]) -> None:
        """Takes back what `get_state` returned."""
        self.epochs = int(state[0])
        kept = min(self.epochs, self.MOST)
        self.values = list(state[1 : 1 + kept])

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "monitor": self.monitor,
            "least": self.least,
            "errors": self.errors,
            "mode": self.mode,
        }


@checks.registered
class GeneralizationGap(EpochTrigger):
    """Switches when validation falls behind training.

    The gap is val_metric - metric where lower is better, metric - val_metric
    where higher is; the condition holds when it has exceeded `threshold` for
    `patience` epochs in a row.

    Args:
        threshold: Float: the gap, in the metric's units.
        metric: Name of the training metric in the logs, default `"loss"`; the
            validation metric is its name after `val_`.
        patience: Integer of at least 1, default 1, in epochs.
        mode: `"auto"` (default: by the metric's name), `"min"` or `"max"`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range or choices.

    Example:
    >>> from keras_hybrid import triggers
    >>> trigger = triggers.GeneralizationGap(0.1, metric="accuracy")
    >>> trigger.check(0, {"accuracy": 0.9, "val_accuracy": 0.85})
    False
    >>> trigger.check(1, {"accuracy": 0.99, "val_accuracy": 0.86})
    True
    """

    state_names = ("exceeded",)

    def __init__(
        self,
        threshold: float,
        metric: str = "loss",
        patience: int = 1,
        mode: str = "auto",
    ) -> None:
        self.threshold = checks.number("threshold", threshold)
        self.metric = checks.text("metric", metric)
        self.patience = checks.integer("patience", patience, low=1)
        self.mode = mode
        self._sign = _better_sign(metric, mode)
        self.reset()

    def reset(self) -> None:
        """Forgets the epochs in a row."""
        self.exceeded = 0.0

    def read(self, epoch: int, logs: Mapping[str, float]) -> float:
        """Returns the gap, positive where validation is worse."""
        train = _logged(logs, self.metric)
        return self._sign * (train - _logged(logs, f"val_{self.metric}"))

    def update(self, value: float) -> bool:
        """Holds after `patience` gaps in a row above the threshold."""
        self.exceeded = self.exceeded + 1 if value > self.threshold else 0.0
        return self.exceeded >= self.patience

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "threshold": self.threshold,
            "metric": self.metric,
            "patience": self.patience,
            "mode": self.mode,
        }


@checks.registered
class MetricReached(EpochTrigger):
    """Switches when a metric has reached a value.

    Args:
        monitor: Name in the logs.
        target: Float: the value, reached if equal or better.
        mode: `"auto"` (default: by the metric's name), `"min"` or `"max"`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range or choices.

    Example:
    >>> from keras_hybrid import triggers
    >>> trigger = triggers.MetricReached("val_accuracy", 0.9)
    >>> [trigger.update(v) for v in (0.85, 0.9)]
    [False, True]
    """

    def __init__(self, monitor: str, target: float, mode: str = "auto") -> None:
        self.monitor = checks.text("monitor", monitor)
        self.target = checks.number("target", target)
        self.mode = mode
        self._sign = _better_sign(monitor, mode)

    def read(self, epoch: int, logs: Mapping[str, float]) -> float:
        """Returns the monitored metric."""
        return _logged(logs, self.monitor)

    def update(self, value: float) -> bool:
        """Holds where the value is equal to the target or better."""
        # As Keras logs it: float32's 0.9 is below Python's.
        distance = float(np.float32(value)) - float(np.float32(self.target))
        return self._sign * distance >= 0

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "monitor": self.monitor,
            "target": self.target,
            "mode": self.mode,
        }


class _EpochComposite(_Composite, EpochTrigger):
    """Checks every member and combines what they say."""

    combine: Callable[[list[bool]], bool]

    def check(self, epoch: int, logs: Mapping[str, float]) -> bool:
        """Checks every member, whatever the others say."""
        held = [trigger.check(epoch, logs) for trigger in self.triggers]
        return self.combine(held)

    def update(self, value: float) -> bool:
        """Not for composites: their members read different metrics."""
        raise TypeError(
            "A composed epoch trigger has no single value: use "
            f"`check(epoch, logs)`. Received: update({value!r})"
        )

    def monitors(self) -> list[str]:
        """Returns the members' names."""
        return [name for t in self.triggers for name in t.monitors()]

    def reset(self) -> None:
        """Resets every member."""
        for trigger in self.triggers:
            trigger.reset()

    def get_state(self) -> list[float]:
        """Returns the members' states in a row."""
        return [s for t in self.triggers for s in t.get_state()]

    def set_state(self, state: list[float]) -> None:
        """Takes back what `get_state` returned."""
        for trigger in self.triggers:
            length = len(trigger.get_state())
            trigger.set_state(state[:length])
            state = state[length:]


@checks.registered
class AnyEpoch(_EpochComposite):
    """What `a | b` makes of epoch triggers."""

    operator = "|"
    combine = staticmethod(any)


@checks.registered
class AllEpochs(_EpochComposite):
    """What `a & b` makes of epoch triggers."""

    operator = "&"
    combine = staticmethod(all)
