"""The formula of one variable: the rules with their constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from keras import ops

from keras_hybrid import rules

Tensor = Any
Root = Callable[[Tensor, rules.Settings, float], Tensor]


@dataclasses.dataclass(frozen=True)
class Formula:
    """The update of one variable: elementwise, of one phase or of any.

    Attributes:
        beta_2: Of the second moment.
        epsilon: Added to the root.
        nesterov: Of the SGD phase.
        transition: Mixes the two step sizes, with its `mix`.
        root: 1 / P of the adaptive step.
    """

    beta_2: float
    epsilon: float
    nesterov: bool
    transition: Any
    root: Callable[[Tensor, rules.Settings, float], Tensor] = (
        rules.adaptive_root
    )

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells two formulas apart.

        A transition's class by its identity: in a notebook two of one name can
        differ. What was compiled with it keeps it alive.
        """
        constants = map(repr, dataclasses.astuple(self))
        kinds = type(self).__qualname__, id(type(self.transition))
        return (*kinds, *constants)

    @property
    def is_adams(self) -> bool:
        """Whether the adaptive phase is Adam as Keras has it, to the letter."""
        return type(self) is Formula and self.root is rules.adaptive_root

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
        """Returns what is subtracted from `w`, and the new slots.

        Args:
            phase: "adaptive", "mixed" (any) or "sgd", which takes the second
                moments only where `settings.frozen_step` is given.
            settings: The variable's scalars.
            w: The weights.
            g: The gradient.
            m: The first moment.
            v: The second.
            v_max: Its maximum, with AMSGrad.
        """
        if phase == "sgd":
            size = rules.sgd_size(
                v if v_max is None else v_max, settings, self.epsilon
            )
            delta, m = rules.sgd_update(
                w, g, m, settings, nesterov=self.nesterov, size=size
            )
            return delta, [m, *(x for x in (v, v_max) if x is not None)]
        constants: dict[str, Any] = {
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "root": self.root,
        }
        if phase == "adaptive":
            delta, *slots = rules.adaptive_update(
                w, g, m, v, v_max, settings, **constants
            )
        else:
            delta, *slots = rules.mixed_update(
                w,
                g,
                m,
                v,
                v_max,
                settings,
                self.transition.mix,
                nesterov=self.nesterov,
                **constants,
            )
        return delta, [x for x in slots if x is not None]

    def step(
        self, settings: rules.Settings, g: Tensor, m: Tensor, v: Tensor
    ) -> Tensor:
        """Returns p, the adaptive step at unit learning rate, from the slots.

        Args:
            settings: The scalars of the update that left the slots.
            g: Its gradient.
            m: The first moment.
            v: The second, its maximum with AMSGrad.
        """
        del g
        return m / self.root(v, settings, self.epsilon)

    def new_values(
        self,
        phase: str,
        settings: rules.Settings,
        grad: Tensor,
        *values: Tensor,
    ) -> list[Tensor]:
        """Returns the weight and its slots after the update.

        Half precision is widened for the update.

        Args:
            phase: "adaptive", "mixed" or "sgd".
            settings: The variable's scalars.
            grad: The gradient.
            *values: The weight and its slots.
        """
        dtype = rules.update_dtype(values[0])
        g, w, *slots = (ops.cast(x, dtype) for x in (grad, *values))
        delta, new = self.update(
            phase, settings, w, rules.clipped(g, settings), *slots
        )
        # In the weight's own precision, as Keras' optimizers subtract.
        weight = values[0] - ops.cast(delta, values[0].dtype)
        return [
            weight,
            *(
                ops.cast(x, old.dtype)
                for x, old in zip(new, values[1:], strict=True)
            ),
        ]
