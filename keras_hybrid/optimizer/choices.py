"""The arguments of a HybridOptimizer as its update reads them."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras_hybrid.formula import Formula
from keras_hybrid.scales import LearningRate
from keras_hybrid.transitions import Cooldown, Transition
from keras_hybrid.triggers import StepTrigger


@dataclasses.dataclass(frozen=True)
class Choices:
    """What is fixed while an update is traced: its constants.

    Attributes:
        formula: Of the update, with beta_2, epsilon, nesterov and how.
        beta_1: Momentum of the adaptive phase.
        momentum: Of the SGD phase.
        amsgrad: Whether the largest second moment counts.
        carries: Whether SGD goes on with the first moment.
        scale: How fast, a `scales.Scale`.
        scale_scope: How finely rho is held, where the scale does not say.
        multiplier: A factor on the estimated rho.
        trigger: When, or None.
        start_weight: SGD's weight in the update right after the switch.
        cooldown: How it ends, or None.
        skips: Whether an update that is not finite is skipped.
        jit: Whether XLA may compile.
        clipnorm: The largest norm of a gradient, or None.
        clipvalue: The largest magnitude of its entries, or None.
        global_clipnorm: The largest norm of all gradients together, or None.
    """

    formula: Formula
    beta_1: float
    momentum: float
    amsgrad: bool
    carries: bool
    scale: Any
    scale_scope: str
    multiplier: float
    trigger: StepTrigger | None
    start_weight: float
    cooldown: Cooldown | None
    skips: bool
    jit: bool
    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None

    @property
    def transition(self) -> Transition:
        """How."""
        return self.formula.transition

    @property
    def beta_2(self) -> float:
        """Of the second moment."""
        return self.formula.beta_2

    @property
    def granularity(self) -> str:
        """How finely rho is held."""
        return self.scale.granularity(self.scale_scope)

    @property
    def freezes(self) -> bool:
        """Whether SGD keeps Adam's step size of each weight."""
        return self.granularity == "weight"

    @property
    def sgd_rate(self) -> Any:
        """The SGD learning rate that was given, None where rho is."""
        if isinstance(self.scale, LearningRate):
            return self.scale.learning_rate
        return None

    @property
    def rho(self) -> float:
        """SGD's rho as the user gave it, else 0."""
        return float(self.scale.rho)

    @property
    def sgd_schedule(self) -> Any:
        """`sgd_rate` where it is a schedule, else None."""
        return None if isinstance(self.sgd_rate, float) else self.sgd_rate

    @property
    def inside_momentum(self) -> bool:
        """Whether SGD's momentum averages rate * g."""
        return bool(self.scale.inside_momentum)

    @property
    def takes_over(self) -> bool:
        """Whether SGD goes on with the first moment as it is."""
        return self.carries and not self.inside_momentum

    @property
    def starts_switched(self) -> bool:
        """Whether SGD makes the very first update."""
        return self.trigger is not None and self.trigger.fires_at_start

    @property
    def needs(self) -> set[str]:
        """Names of the sums over weights that something reads."""
        needs = set() if self.trigger is None else set(self.trigger.needs)
        return needs | self.scale.needs

    @property
    def waits_for_end(self) -> bool:
        """Whether the cool-down needs the length of the training."""
        return self.cooldown is not None and self.cooldown.ends_with_training

    def phases(self, groups: int) -> tuple[str, ...]:
        """Returns the phases that an update can be in.

        Args:
            groups: The number of groups that switch together.
        """
        transition = self.transition
        mixes = not transition.is_at_once or groups > 1
        phases = ("adaptive", "mixed") if mixes else ("adaptive",)
        return (*phases, "sgd") if transition.end == 1 else phases
