"""Forms of the adaptive step that Keras' Adam does not have."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras import ops

from keras_hybrid import rules
from keras_hybrid._support import checks
from keras_hybrid.formula import Formula
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.scales import Number

Tensor = Any


@checks.registered
class CorrectedHybrid(HybridOptimizer):
    """HybridOptimizer with epsilon added to the bias-corrected root."""

    root = staticmethod(rules.corrected_root)


@checks.registered
class UncorrectedHybrid(HybridOptimizer):
    """HybridOptimizer without bias corrections."""

    root = staticmethod(rules.uncorrected_root)


@checks.registered
class StepMomentumHybrid(UncorrectedHybrid):
    """HybridOptimizer whose momentum accumulates the preconditioned gradient.

    m <- beta m + (1 - beta) mix(P, rho; weight) g;  w <- w - learning_rate m,
    with P = 1 / ((1 - beta) (sqrt(v) + epsilon)): RMSprop with momentum in
    place of Adam. `sgd_scale` must be a number; there is no AMSGrad or
    Nesterov form.
    """

    def check_form(self) -> None:
        """Refuses AMSGrad, Nesterov and an estimated scale."""
        kind = f"{type(self).__name__}, RMSprop with momentum"
        for name in ("amsgrad", "nesterov"):
            if getattr(self, name):
                raise ValueError(
                    f"`{name}` must be False: {kind}, has no such form. "
                    f"Received: {name}=True"
                )
        if not isinstance(self.scale, Number):
            raise ValueError(
                f"`sgd_scale` must be a number for {kind}. Received: "
                f"sgd_scale={self.sgd_scale!r}"
            )

    @property
    def formula(self) -> Formula:
        """The update of one variable."""
        return StepMomentum(
            self.beta_2,
            self.epsilon,
            self.nesterov,
            self.transition,
            self.root,
            rho=self.scale.rho,
            beta_1=self.beta_1,
        )


@dataclasses.dataclass(frozen=True)
class StepMomentum(Formula):
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
